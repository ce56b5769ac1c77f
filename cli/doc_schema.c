/* The JSON Schema (draft-07) of a pipeline file, from the tables of its sections and ops. Editors
 * that speak YAML use it for completion and hints: `# yaml-language-server: $schema=…` as a file's
 * first line. It allows nothing that the parser refuses for its shape; what only an op's own check
 * knows it cannot say. */
#include "cli/help.h"
#include "workers/ops/op.h"
#include "workers/rebalance/method.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void sections_write(struct sm_buf *out);
static void definitions_write(struct sm_buf *out);

void sm_doc_schema(struct sm_buf *out) {
    sm_buf_text(out, "{\n\"$schema\": \"http://json-schema.org/draft-07/schema#\",\n"
                     "\"title\": \"Shardmill pipeline\",\n"
                     "\"description\": \"made by shardmill " SM_VERSION " from its tables\",\n");
    sections_write(out);
    definitions_write(out);
    sm_buf_text(out, "}\n");
}

/* --- one parameter -------------------------------------------------------------------------- */

static void range_write(const struct sm_param *p, struct sm_buf *out) {
    if (p->min == 0 && p->max == 0) return;
    /* 2^53 and beyond are ends of a type, and not every reader of JSON can hold them */
    if (isfinite(p->min) && fabs(p->min) < 9e15) sm_buf_printf(out, ", \"minimum\": %.17g", p->min);
    if (isfinite(p->max) && fabs(p->max) < 9e15) sm_buf_printf(out, ", \"maximum\": %.17g", p->max);
}

static void number_write(const struct sm_param *p, bool whole, struct sm_buf *out) {
    sm_buf_printf(out, "\"type\": \"%s\"", whole ? "integer" : "number");
    range_write(p, out);
}

static void nums_write(const struct sm_param *p, struct sm_buf *out) {
    sm_buf_text(out, "\"anyOf\": [{");
    number_write(p, p->integral, out);
    sm_buf_text(out, "}");
    if (p->count_max > 0) {
        sm_buf_text(out, ", {\"type\": \"array\", \"items\": {");
        number_write(p, p->integral, out);
        sm_buf_printf(out, "}, \"minItems\": %d, \"maxItems\": %d}", p->count_min, p->count_max);
    }
    sm_buf_text(out, p->null_ok ? ", {\"type\": \"null\"}]" : "]");
}

static void enum_write(const struct sm_param *p, struct sm_buf *out) {
    sm_buf_text(out, "\"enum\": [");
    for (size_t i = 0; p->choices[i] != NULL; i++) {
        if (i) sm_buf_text(out, ", ");
        sm_buf_json(out, p->choices[i]);
    }
    sm_buf_text(out, p->yes_ok ? ", true, false]" : "]");
}

static void any_write(const struct sm_param *p, struct sm_buf *out) {
    const bool words = p->choices == NULL || p->choices[0] != NULL;
    sm_buf_text(out, "\"anyOf\": [{");
    if (p->choices == NULL)
        sm_buf_text(out, "\"type\": \"string\"");
    else if (words)
        enum_write(p, out);
    if (words) sm_buf_text(out, "}, {");
    number_write(p, p->integral, out);
    sm_buf_text(out, "}");
    if (p->map_ok) {
        sm_buf_text(out, ", {\"type\": \"object\", \"additionalProperties\": {");
        number_write(p, p->integral, out);
        sm_buf_text(out, "}}");
    }
    sm_buf_text(out, p->null_ok ? ", {\"type\": \"null\"}]" : "]");
}

/* defaults: the owner's struct with every default filled in. */
static void param_write(const struct sm_param *p, const void *defaults, struct sm_buf *out) {
    sm_buf_text(out, "{");
    switch (p->type) {
    case SM_T_BOOL:
        sm_buf_text(out, p->yes_ok ? "\"enum\": [true, false, \"yes\", \"no\"]"
                                   : "\"type\": \"boolean\"");
        break;
    case SM_T_INT:
    case SM_T_NUM:
        number_write(p, p->type == SM_T_INT, out);
        break;
    case SM_T_NUMS:
        nums_write(p, out);
        break;
    case SM_T_ENUM:
        enum_write(p, out);
        break;
    case SM_T_STR:
        sm_buf_text(out, p->whole_ok  ? "\"type\": [\"string\", \"integer\", \"null\"]"
                         : p->null_ok ? "\"type\": [\"string\", \"null\"]"
                                      : "\"type\": \"string\"");
        sm_buf_text(out, ", \"minLength\": 1");
        break;
    case SM_T_STRS:
        sm_buf_text(out, p->null_ok ? "\"type\": [\"array\", \"null\"]" : "\"type\": \"array\"");
        sm_buf_text(out, ", \"items\": {\"type\": [\"string\", \"integer\", \"number\"]}");
        break;
    case SM_T_ANY:
        any_write(p, out);
        break;
    case SM_T_OPS:
        sm_buf_text(out, "\"allOf\": [{\"$ref\": \"#/definitions/ops\"}]");
        break;
    case SM_T_METHOD:
        sm_buf_text(out, "\"anyOf\": [{\"type\": \"null\"}, {\"$ref\": "
                         "\"#/definitions/rebalance\"}]");
        break;
    }
    if (p->dflt != NULL) {
        sm_buf_text(out, ", \"default\": ");
        if (p->type == SM_T_OPS || p->type == SM_T_METHOD)
            sm_buf_text(out, p->type == SM_T_OPS ? "[]" : "null");
        else
            sm_param_json(p, defaults, out);
    }
    if (p->doc != NULL) {
        sm_buf_text(out, ", \"description\": ");
        sm_buf_json(out, p->doc);
    }
    sm_buf_text(out, "}");
}

/* "properties": {...}, of rows; without the closing brace of properties, so that more may follow.
 */
static void properties_open(const struct sm_param *rows, size_t n, size_t size,
                            struct sm_buf *out) {
    void *defaults = calloc(1, size + 1);
    if (defaults == NULL) abort();
    sm_param_defaults(rows, n, defaults);
    sm_buf_text(out, "\"properties\": {");
    for (size_t i = 0, written = 0; i < n; i++) {
        if (rows[i].hidden) continue;
        sm_buf_text(out, written++ ? ",\n  " : "\n  ");
        sm_buf_json(out, rows[i].name);
        sm_buf_text(out, ": ");
        param_write(&rows[i], defaults, out);
    }
    free(defaults);
}

static size_t required_write(const struct sm_param *rows, size_t n, const char *more,
                             struct sm_buf *out) {
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (rows[i].dflt != NULL) continue;
        sm_buf_text(out, count++ ? ", " : ", \"required\": [");
        sm_buf_json(out, rows[i].name);
    }
    if (more != NULL) {
        sm_buf_text(out, count++ ? ", " : ", \"required\": [");
        sm_buf_json(out, more);
    }
    if (count) sm_buf_text(out, "]");
    return count;
}

static bool all_optional(const struct sm_param *rows, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (rows[i].dflt == NULL) return false;
    return true;
}

/* --- sections and ops ----------------------------------------------------------------------- */

static void section_write(const struct sm_section *s, struct sm_buf *out) {
    bool optional = all_optional(s->params, s->n_params);
    sm_buf_text(out, ",\n  ");
    sm_buf_json(out, s->name);
    sm_buf_printf(out, ": {\"type\": %s, \"additionalProperties\": false, \"description\": ",
                  optional ? "[\"object\", \"null\"]" : "\"object\"");
    sm_buf_json(out, s->doc);
    sm_buf_text(out, ", ");
    properties_open(s->params, s->n_params, sizeof(struct sm_pipeline), out);
    sm_buf_text(out, "}");
    required_write(s->params, s->n_params, NULL, out);
    sm_buf_text(out, "}");
}

static void sections_write(struct sm_buf *out) {
    const struct sm_section *top = &sm_sections[0];
    sm_buf_text(out, "\"type\": \"object\", \"additionalProperties\": false,\n");
    properties_open(top->params, top->n_params, sizeof(struct sm_pipeline), out);
    const char *needed = NULL;
    for (size_t i = 1; i < sm_sections_count; i++) {
        section_write(&sm_sections[i], out);
        if (!all_optional(sm_sections[i].params, sm_sections[i].n_params))
            needed = sm_sections[i].name;
    }
    sm_buf_text(out, "}");
    required_write(top->params, top->n_params, needed, out);
    sm_buf_text(out, ",\n");
}

static void op_write(const struct sm_op_info *info, struct sm_buf *out) {
    bool optional = all_optional(info->params, info->n_params);
    sm_buf_text(out, "{\"type\": \"object\", \"additionalProperties\": false, \"required\": [");
    sm_buf_json(out, info->name);
    sm_buf_text(out, "], \"properties\": {");
    sm_buf_json(out, info->name);
    sm_buf_printf(out, ": {\"type\": %s, \"additionalProperties\": false, \"description\": ",
                  optional ? "[\"object\", \"null\"]" : "\"object\"");
    sm_buf_json(out, info->doc);
    sm_buf_text(out, ", ");
    properties_open(info->params, info->n_params, info->params_size, out);
    sm_buf_text(out, "}");
    required_write(info->params, info->n_params, NULL, out);
    sm_buf_text(out, "}}}");
}

/* An item of the list of ops, or the method of `rebalance`. */
static void bare_names_write(const struct sm_op_info *const *infos, size_t n, struct sm_buf *out) {
    size_t bare = 0;
    sm_buf_text(out, "{\"enum\": [");
    for (size_t i = 0; i < n; i++) {
        if (!all_optional(infos[i]->params, infos[i]->n_params)) continue;
        if (bare++) sm_buf_text(out, ", ");
        sm_buf_json(out, infos[i]->name);
    }
    sm_buf_text(out, "], \"description\": \"by its bare name it takes every default\"}");
}

static void any_of_write(const struct sm_op_info *const *infos, size_t n, struct sm_buf *out) {
    sm_buf_text(out, "{\"anyOf\": [\n");
    bare_names_write(infos, n, out);
    for (size_t i = 0; i < n; i++) {
        sm_buf_text(out, ",\n");
        op_write(infos[i], out);
    }
    sm_buf_text(out, "\n]}");
}

static void definitions_write(struct sm_buf *out) {
    const struct sm_op_info **infos = calloc(sm_ops_count + sm_methods_count, sizeof *infos);
    if (infos == NULL) abort();
    for (size_t i = 0; i < sm_ops_count; i++)
        infos[i] = &sm_ops[i]->info;
    for (size_t i = 0; i < sm_methods_count; i++)
        infos[sm_ops_count + i] = &sm_methods[i]->info;
    sm_buf_text(out, "\"definitions\": {\"ops\": {\"type\": \"array\", \"items\": ");
    any_of_write(infos, sm_ops_count, out);
    sm_buf_text(out, "},\n\"rebalance\": ");
    any_of_write(infos + sm_ops_count, sm_methods_count, out);
    sm_buf_text(out, "}\n");
    free(infos);
}
