/* `shardmill ops [NAME]`: the ops from their own tables, as a list, one by one, as JSON or as a
 * JSON Schema of the whole pipeline file. */
#include "cli/help.h"
#include "workers/ops/op.h"

#include <stdlib.h>

struct values {
    struct sm_common common;
    bool schema;
};

enum { TEXT_BYTES_MAX = 8 << 20 };

static void ops_json(const struct sm_op *only, struct sm_buf *out);

static const struct sm_op *op_find(const char *name, struct sm_err *err) {
    const struct sm_op_table *table = sm_op_table();
    const struct sm_op_info *info = table->find(name);
    if (info != NULL)
        return (const struct sm_op *)((const char *)info - offsetof(struct sm_op, info));
    const char *near = sm_nearest(name, table->names, table->n_names);
    if (near != NULL)
        sm_fail(err, SM_E_USAGE, "unknown op '%.60s' (hint: did you mean '%s'?)", name, near);
    else
        sm_fail(err, SM_E_USAGE, "unknown op '%.60s' (hint: 'shardmill ops' lists them)", name);
    return NULL;
}

static void ops_list(struct sm_buf *out) {
    for (size_t i = 0; i < sm_ops_count; i++) {
        sm_buf_printf(out, "%-22s ", sm_ops[i]->info.name);
        sm_help_wrap(out, sm_ops[i]->info.doc, 23, 23, 100);
    }
    sm_buf_text(out, "\n'shardmill ops NAME' tells the parameters of one.\n");
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    struct sm_buf out;
    struct sm_err err;
    const struct sm_op *op = NULL;
    if (n > 0 && (op = op_find(operands[0], &err)) == NULL) return sm_cli_fail(&err);
    sm_buf_init(&out, TEXT_BYTES_MAX);
    if (v->schema)
        sm_doc_schema(&out);
    else if (v->common.json)
        ops_json(op, &out);
    else if (op != NULL)
        sm_help_op(op, &out);
    else
        ops_list(&out);
    fputs(out.data, stdout);
    sm_buf_release(&out);
    return SM_EXIT_DONE;
}

static const struct sm_option options[] = {
    SM_OPTION_JSON,
    {.param = {.name = "schema",
               .type = SM_T_BOOL,
               .offset = offsetof(struct values, schema),
               .dflt = "false",
               .doc = "print a JSON Schema (draft-07) of pipeline files, for editors"}},
};
static const char *const examples[] = {"shardmill ops", "shardmill ops RandomResizedCrop",
                                       "shardmill ops --schema > schema.json", NULL};

const struct sm_command sm_cmd_ops = {
    .name = "ops",
    .order = 3,
    .brief = "the ops: parameters, ranges, defaults, examples",
    .operands = "[NAME]",
    .operands_max = 1,
    .operand = SM_OPERAND_OP,
    .details =
        "Names, parameters and defaults are those of torchvision.transforms.v2. Without NAME "
        "it lists all ops.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

/* --- one op as text ------------------------------------------------------------------------- */

/* `op.json` and ops.md name parameters in the same words. */
static void rows_text(const struct sm_param *rows, size_t n, bool defaults, struct sm_buf *out) {
    for (size_t i = 0; i < n; i++) {
        struct sm_buf line;
        sm_buf_init(&line, 4096);
        sm_param_type_text(&rows[i], &line);
        if (defaults && rows[i].dflt == NULL) sm_buf_text(&line, " (required)");
        if (defaults && rows[i].dflt != NULL) sm_buf_printf(&line, " (default %s)", rows[i].dflt);
        if (rows[i].doc != NULL) sm_buf_printf(&line, ": %s", rows[i].doc);
        sm_buf_printf(out, "  %-16s ", rows[i].name);
        sm_help_wrap(out, line.data, 19, 19, 100);
        sm_buf_release(&line);
    }
}

void sm_help_op(const struct sm_op *op, struct sm_buf *out) {
    sm_buf_printf(out, "%s\n\n", op->info.name);
    sm_help_wrap(out, op->info.doc, 0, 0, 100);
    sm_buf_text(out, op->info.n_params ? "\nparameters:\n" : "\nno parameters\n");
    rows_text(op->info.params, op->info.n_params, true, out);
    if (op->draw != NULL || op->info.control) {
        sm_buf_text(out, "\ndrawn for each sample:\n");
        rows_text(op->draws, op->n_draws, false, out);
    } else {
        sm_buf_text(out, "\nnothing is drawn: the same for every copy\n");
    }
    sm_buf_printf(out, "\nexample:\n  - %s\n", op->info.example);
}

/* --- JSON ----------------------------------------------------------------------------------- */

static void string_list(const char *const *words, struct sm_buf *out) {
    sm_buf_text(out, "[");
    for (size_t i = 0; words[i] != NULL; i++) {
        if (i) sm_buf_text(out, ", ");
        sm_buf_json(out, words[i]);
    }
    sm_buf_text(out, "]");
}

static void row_json(const struct sm_param *p, const void *defaults, struct sm_buf *out) {
    struct sm_buf type;
    sm_buf_init(&type, 1024);
    sm_param_type_text(p, &type);
    sm_buf_text(out, "{\"name\": ");
    sm_buf_json(out, p->name);
    sm_buf_text(out, ", \"type\": ");
    sm_buf_json(out, type.data);
    sm_buf_release(&type);
    if (p->type == SM_T_ENUM) {
        sm_buf_text(out, ", \"choices\": ");
        string_list(p->choices, out);
    }
    if (defaults != NULL) {
        sm_buf_printf(out, ", \"required\": %s", p->dflt == NULL ? "true" : "false");
        if (p->dflt != NULL) sm_buf_text(out, ", \"default\": ");
        if (p->dflt != NULL && p->type == SM_T_OPS) sm_buf_text(out, "[]");
        if (p->dflt != NULL && p->type != SM_T_OPS && p->type != SM_T_METHOD)
            sm_param_json(p, defaults, out);
    }
    sm_buf_text(out, ", \"doc\": ");
    sm_buf_json(out, p->doc != NULL ? p->doc : "");
    sm_buf_text(out, "}");
}

static void op_json(const struct sm_op *op, struct sm_buf *out) {
    void *defaults = calloc(1, op->info.params_size + 1);
    if (defaults == NULL) abort();
    sm_param_defaults(op->info.params, op->info.n_params, defaults);
    sm_buf_text(out, "{\"name\": ");
    sm_buf_json(out, op->info.name);
    sm_buf_text(out, ", \"doc\": ");
    sm_buf_json(out, op->info.doc);
    sm_buf_text(out, ", \"example\": ");
    sm_buf_json(out, op->info.example);
    sm_buf_printf(out, ", \"random\": %s, \"control\": %s, \"rows\": %s,\n  \"parameters\": [",
                  op->draw != NULL ? "true" : "false", op->info.control ? "true" : "false",
                  op->info.rows ? "true" : "false");
    for (size_t i = 0; i < op->info.n_params; i++) {
        sm_buf_text(out, i ? ",\n    " : "\n    ");
        row_json(&op->info.params[i], defaults, out);
    }
    sm_buf_text(out, "],\n  \"draws\": [");
    for (size_t i = 0; i < op->n_draws; i++) {
        sm_buf_text(out, i ? ",\n    " : "\n    ");
        row_json(&op->draws[i], NULL, out);
    }
    sm_buf_text(out, "]}");
    free(defaults);
}

static void ops_json(const struct sm_op *only, struct sm_buf *out) {
    if (only != NULL) {
        op_json(only, out);
        sm_buf_text(out, "\n");
        return;
    }
    sm_buf_text(out, "[");
    for (size_t i = 0; i < sm_ops_count; i++) {
        if (i) sm_buf_text(out, ",\n");
        op_json(sm_ops[i], out);
    }
    sm_buf_text(out, "]\n");
}
