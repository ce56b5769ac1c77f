/* `shardmill ops [NAME]`: the ops from their own tables, as a list, one by one, as JSON or as a
 * JSON Schema of the whole pipeline file. */
#include "cli/help.h"
#include "workers/ops/op.h"
#include "workers/rebalance/method.h"

#include <stdlib.h>
#include <string.h>

struct values {
    struct sm_common common;
    bool schema;
};

enum { TEXT_BYTES_MAX = 8 << 20 };

static void ops_json(const struct sm_op *only, struct sm_buf *out);
struct found;
static void table_text(const struct found *f, struct sm_buf *out);
static void table_json(const struct found *f, struct sm_buf *out);

/* What a name stands for: an op, a method of `rebalance:` or a section of the file; all are
 * tables. */
struct found {
    const struct sm_op *op;
    const struct sm_op_info *method;
    const struct sm_section *section;
};

static const struct sm_section *section_of(const char *name) {
    for (size_t i = 1; i < sm_sections_count; i++)
        if (strcmp(sm_sections[i].name, name) == 0) return &sm_sections[i];
    return NULL;
}

static int find(const char *name, struct found *f, struct sm_err *err) {
    const struct sm_op_table *ops = sm_op_table(), *methods = sm_method_table();
    *f = (struct found){
        .op = sm_op_find(name), .method = methods->find(name), .section = section_of(name)};
    if (f->op != NULL || f->method != NULL || f->section != NULL) return 0;
    const char *near = sm_nearest(name, ops->names, ops->n_names);
    if (near == NULL) near = sm_nearest(name, methods->names, methods->n_names);
    if (near != NULL)
        return sm_fail(err, SM_E_USAGE, "unknown op '%.60s' (hint: did you mean '%s'?)", name,
                       near);
    return sm_fail(err, SM_E_USAGE, "unknown op '%.60s' (hint: 'shardmill ops' lists them)", name);
}

static void ops_list(struct sm_buf *out) {
    for (size_t i = 0; i < sm_ops_count; i++) {
        sm_buf_printf(out, "%-22s ", sm_ops[i]->info.name);
        sm_help_wrap(out, sm_ops[i]->info.doc, 23, 23, 100);
    }
    sm_buf_text(out, "\nmethods of 'rebalance':\n");
    for (size_t i = 0; i < sm_methods_count; i++) {
        sm_buf_printf(out, "%-22s ", sm_methods[i]->info.name);
        sm_help_wrap(out, sm_methods[i]->info.doc, 23, 23, 100);
    }
    sm_buf_text(out, "\nsections of a pipeline file:\n");
    for (size_t i = 1; i < sm_sections_count; i++) {
        sm_buf_printf(out, "%-22s ", sm_sections[i].name);
        sm_help_wrap(out, sm_sections[i].doc, 23, 23, 100);
    }
    sm_buf_text(out, "\n'shardmill ops NAME' tells the parameters of one.\n");
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    struct sm_buf out;
    struct sm_err err;
    struct found f = {0};
    if (n > 0 && find(operands[0], &f, &err) != 0) return sm_cli_fail(&err);
    sm_buf_init(&out, TEXT_BYTES_MAX);
    if (v->schema)
        sm_doc_schema(&out);
    else if (v->common.json && (f.method != NULL || f.section != NULL))
        table_json(&f, &out);
    else if (v->common.json)
        ops_json(f.op, &out);
    else if (f.op != NULL)
        sm_help_op(f.op, &out);
    else if (n > 0)
        table_text(&f, &out);
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
                                       "shardmill ops source",
                                       "shardmill ops --schema > schema.json", NULL};

const struct sm_command sm_cmd_ops = {
    .name = "ops",
    .order = 3,
    .brief = "the ops: parameters, ranges, defaults, examples",
    .operands = "[NAME]",
    .operands_max = 1,
    .operand = SM_OPERAND_OP,
    .details =
        "Names, parameters and defaults are those of torchvision.transforms.v2, scikit-learn and "
        "imbalanced-learn. NAME may also be a method of 'rebalance' or a section of the file "
        "(source, split, output, expand). Without it all are listed.",
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
        if (rows[i].hidden) continue;
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

static void table_text(const struct found *f, struct sm_buf *out) {
    const bool method = f->method != NULL;
    sm_buf_printf(out, "%s\n\n", method ? f->method->name : f->section->name);
    sm_help_wrap(out, method ? f->method->doc : f->section->doc, 0, 0, 100);
    sm_buf_text(out, "\nparameters:\n");
    if (method)
        rows_text(f->method->params, f->method->n_params, true, out);
    else
        rows_text(f->section->params, f->section->n_params, true, out);
    if (method) sm_buf_printf(out, "\nexample:\n  rebalance: {%s}\n", f->method->example);
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

static void parameters_json(const struct sm_param *rows, size_t n, const void *defaults,
                            struct sm_buf *out) {
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].hidden) continue;
        sm_buf_text(out, first ? "\n    " : ",\n    ");
        row_json(&rows[i], defaults, out);
        first = false;
    }
}

static void table_json(const struct found *f, struct sm_buf *out) {
    const bool method = f->method != NULL;
    const struct sm_param *rows = method ? f->method->params : f->section->params;
    const size_t n = method ? f->method->n_params : f->section->n_params;
    struct sm_pipeline blank = {0};
    void *defaults = method ? calloc(1, f->method->params_size + 1) : &blank;
    if (defaults == NULL) abort();
    sm_param_defaults(rows, n, defaults);
    sm_buf_text(out, "{\"name\": ");
    sm_buf_json(out, method ? f->method->name : f->section->name);
    sm_buf_text(out, ", \"doc\": ");
    sm_buf_json(out, method ? f->method->doc : f->section->doc);
    if (method) sm_buf_text(out, ", \"example\": ");
    if (method) sm_buf_json(out, f->method->example);
    sm_buf_text(out, ",\n  \"parameters\": [");
    parameters_json(rows, n, defaults, out);
    sm_buf_text(out, "]}\n");
    if (method) free(defaults);
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
    parameters_json(op->info.params, op->info.n_params, defaults, out);
    sm_buf_text(out, "],\n  \"draws\": [");
    parameters_json(op->draws, op->n_draws, NULL, out);
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
