/* Writes a pipeline as a person would: one key a line, an op's parameters inline, words without
 * quotes. */
#include "cli/yaml.h"

#include <string.h>

/* Text that YAML reads back as the same text without quotes. */
static bool is_word(const char *s) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    return s[0] != '-' && strspn(s, plain) == strlen(s) && sm_value_scalar(s).kind == SM_V_STR;
}

/* JSON's numbers with a blank behind each comma. */
static void nums_write(const struct sm_param *p, const void *base, struct sm_buf *out) {
    struct sm_buf json;
    sm_buf_init(&json, 1024);
    sm_param_json(p, base, &json);
    for (const char *c = json.data; *c; c++)
        sm_buf_text(out, *c == ',' ? ", " : (char[2]){*c, 0});
    sm_buf_release(&json);
}

static void value_write(const struct sm_param *p, const void *base, struct sm_buf *out) {
    const void *at = (const char *)base + p->offset;
    const char *word = NULL;
    if (p->type == SM_T_ENUM) word = p->choices[*(const int *)at];
    if (p->type == SM_T_STR) word = *(const char *const *)at;
    if (word != NULL && is_word(word))
        sm_buf_text(out, word);
    else if (p->type == SM_T_NUMS)
        nums_write(p, base, out);
    else
        sm_param_json(p, base, out);
}

static void ops_write(const struct sm_op_node *ops, size_t n, int indent, struct sm_buf *out);

/* A control op: a block, so that its children stand one a line. */
static void control_write(const struct sm_op_node *op, int indent, struct sm_buf *out) {
    sm_buf_text(out, "\n");
    for (size_t i = 0; i < op->info->n_params; i++) {
        const struct sm_param *p = &op->info->params[i];
        sm_buf_printf(out, "%*s%s:", indent, "", p->name);
        if (p->type != SM_T_OPS || op->n_children == 0) sm_buf_text(out, " ");
        if (p->type == SM_T_OPS) {
            ops_write(op->children, op->n_children, indent + 2, out);
        } else {
            value_write(p, op->params, out);
            sm_buf_text(out, "\n");
        }
    }
}

static void params_write(const struct sm_op_node *op, struct sm_buf *out) {
    sm_buf_text(out, " {");
    for (size_t i = 0; i < op->info->n_params; i++) {
        sm_buf_printf(out, "%s%s: ", i ? ", " : "", op->info->params[i].name);
        value_write(&op->info->params[i], op->params, out);
    }
    sm_buf_text(out, "}\n");
}

static void ops_write(const struct sm_op_node *ops, size_t n, int indent, struct sm_buf *out) {
    sm_buf_text(out, n ? "\n" : "[]\n");
    for (size_t i = 0; i < n; i++) {
        sm_buf_printf(out, "%*s- %s:", indent, "", ops[i].info->name);
        if (ops[i].info->control)
            control_write(&ops[i], indent + 4, out);
        else
            params_write(&ops[i], out);
    }
}

static void method_write(const struct sm_op_node *method, struct sm_buf *out) {
    if (method == NULL) {
        sm_buf_text(out, "null\n");
        return;
    }
    sm_buf_printf(out, "\n  %s:", method->info->name);
    if (method->info->control)
        control_write(method, 4, out);
    else
        params_write(method, out);
}

/* The rows of a section, or its ops. */
static void rows_write(const struct sm_pipeline *p, const struct sm_section *s, bool ops,
                       struct sm_buf *out) {
    for (size_t k = 0; k < s->n_params; k++) {
        const struct sm_param *row = &s->params[k];
        if (row->hidden || (row->type == SM_T_OPS) != ops) continue;
        sm_buf_printf(out, "%s%s:%s", s->name[0] ? "  " : "", row->name,
                      ops || (row->type == SM_T_METHOD && p->rebalance != NULL) ? "" : " ");
        if (row->type == SM_T_METHOD) {
            method_write(p->rebalance, out);
        } else if (ops) {
            sm_buf_text(out, p->n_ops ? "" : " ");
            ops_write(p->ops, p->n_ops, 2, out);
        } else {
            value_write(row, p, out);
            sm_buf_text(out, "\n");
        }
    }
}

void sm_pipeline_yaml(const struct sm_pipeline *p, struct sm_buf *out) {
    rows_write(p, &sm_sections[0], false, out);
    for (size_t i = 1; i < sm_sections_count; i++) {
        sm_buf_printf(out, "%s:\n", sm_sections[i].name);
        rows_write(p, &sm_sections[i], false, out);
        if (i == 1) rows_write(p, &sm_sections[0], true, out); /* between source and output */
    }
}
