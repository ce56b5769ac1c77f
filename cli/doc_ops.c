/* ops.md and the table of limits, from the tables of ops, sections and lib/limits.h. */
#include "cli/help.h"
#include "lib/limits.h"
#include "workers/ops/op.h"
#include "workers/rebalance/method.h"

#include <inttypes.h>

/* Text inside a cell of a Markdown table. */
static void cell(struct sm_buf *out, const char *text) {
    for (; *text; text++) {
        if (*text == '|' || *text == '<') sm_buf_text(out, "\\");
        sm_buf_add(out, *text == '\n' ? " " : text, 1);
    }
}

static void rows_write(const struct sm_param *rows, size_t n, bool defaults, struct sm_buf *out) {
    sm_buf_text(out, defaults ? "| name | takes | default | |\n|---|---|---|---|\n"
                              : "| drawn | is | |\n|---|---|---|\n");
    for (size_t i = 0; i < n; i++) {
        if (rows[i].hidden) continue;
        struct sm_buf type;
        sm_buf_init(&type, 1024);
        sm_param_type_text(&rows[i], &type);
        sm_buf_printf(out, "| `%s` | ", rows[i].name);
        cell(out, type.data);
        sm_buf_release(&type);
        if (defaults && rows[i].dflt == NULL) sm_buf_text(out, " | required");
        if (defaults && rows[i].dflt != NULL) sm_buf_printf(out, " | `%s`", rows[i].dflt);
        sm_buf_text(out, " | ");
        cell(out, rows[i].doc != NULL ? rows[i].doc : "");
        sm_buf_text(out, " |\n");
    }
    sm_buf_text(out, "\n");
}

void sm_doc_ops(struct sm_buf *out) {
    sm_buf_text(out, "# The pipeline file\n\nMade by `shardmill docs ops` (version " SM_VERSION
                     ") from the tables that the parser reads.\n\n");
    for (size_t i = 0; i < sm_sections_count; i++) {
        const struct sm_section *s = &sm_sections[i];
        sm_buf_printf(out, "## %s\n\n%s\n\n", s->name[0] ? s->name : "Top level", s->doc);
        rows_write(s->params, s->n_params, true, out);
    }
    sm_buf_text(out, "# Ops\n\nNames, parameters and defaults are those of "
                     "torchvision.transforms.v2. An op is a one-key map, or its bare name when it "
                     "needs no parameter.\n\n");
    for (size_t i = 0; i < sm_ops_count; i++) {
        const struct sm_op *op = sm_ops[i];
        sm_buf_printf(out, "## %s\n\n%s\n\n```yaml\n- %s\n```\n\n", op->info.name, op->info.doc,
                      op->info.example);
        if (op->info.n_params > 0) rows_write(op->info.params, op->info.n_params, true, out);
        if (op->n_draws > 0) rows_write(op->draws, op->n_draws, false, out);
    }
    sm_buf_text(out, "# Rebalancing\n\nMethods of `rebalance:`; names, parameters and defaults are "
                     "those of imbalanced-learn where it has them.\n\n");
    for (size_t i = 0; i < sm_methods_count; i++) {
        const struct sm_op_info *info = &sm_methods[i]->info;
        sm_buf_printf(out, "## %s\n\n%s\n\n```yaml\nrebalance:\n  %s\n```\n\n", info->name,
                      info->doc, info->example);
        if (info->n_params > 0) rows_write(info->params, info->n_params, true, out);
    }
}

void sm_doc_limits(struct sm_buf *out) {
    static const struct {
        const char *name, *doc;
        int64_t value;
    } limits[] = {
#define X(name, value, doc) {#name, doc, value},
        SM_LIMITS(X)
#undef X
    };
    sm_buf_text(out, "| limit | value | of what |\n|---|---|---|\n");
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        sm_buf_printf(out, "| `SM_MAX_%s` | %" PRId64 " | %s |\n", limits[i].name, limits[i].value,
                      limits[i].doc);
}
