/* Counts come from the plan, so they are those of every epoch, not of one. Before: places.h. After:
 * text and JSON of explain. */
#include "cli/account.h"

#include "cli/explain_rows.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

enum { BAR_COLUMNS = 40, CLASSES_SHOWN = 40, NAME_COLUMNS = 20 };

/* Columns of the bar that so many of the largest class take; at least one if there are any. */
static int bar_columns(uint64_t n, uint64_t largest) {
    const double share = largest > 0 ? (double)n / (double)largest : 0;
    return (int)ceil(share * BAR_COLUMNS);
}

static void bar_text(const struct sm_account *a, uint64_t largest, struct sm_buf *out) {
    const int distinct = bar_columns(a->distinct, largest),
              repeated = bar_columns(a->distinct + a->repeated, largest),
              all = bar_columns(a->drawn, largest);
    for (int i = 0; i < all; i++)
        sm_buf_text(out, i < distinct ? "#" : i < repeated ? "+" : "~");
}

static void class_text(const struct sm_account *a, const char *name, uint64_t largest, bool weights,
                       struct sm_buf *out) {
    int columns = 0;
    for (const char *at = name; *at; at++)
        columns += ((unsigned char)*at & 0xc0) != 0x80;
    sm_buf_text(out, "  ");
    sm_name_text(name, out);
    sm_buf_printf(out, "%*s %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %9" PRIu64,
                  columns < NAME_COLUMNS ? NAME_COLUMNS - columns : 0, "", a->present, a->drawn,
                  a->distinct, a->repeated, a->synthetic);
    if (isnan(a->log_prior_shift))
        sm_buf_printf(out, " %10s  ", "-");
    else
        sm_buf_printf(out, " %+10.4f  ", a->log_prior_shift);
    if (weights) sm_buf_printf(out, "%10.4g  ", a->weight);
    bar_text(a, largest, out);
    sm_buf_text(out, "\n");
}

/* The op behind which synthetic rows are made; NULL: none, among rows of the source. */
static const struct sm_op_node *after_of(const struct sm_places *places) {
    const struct sm_pipeline *p = sm_places_pipeline(places);
    return p->rebalance_after > 0 ? &p->ops[p->rebalance_after - 1] : NULL;
}

static void search_text(const struct sm_places *places, const struct sm_neighbours_plan *plan,
                        struct sm_buf *out) {
    const struct sm_op_node *after = after_of(places);
    if (plan->rows == 0) return;
    sm_buf_printf(out, "  neighbours: %" PRIu64 " rows are searched for %" PRIu32 " each",
                  plan->rows, plan->k);
    if (after != NULL) sm_buf_printf(out, " behind '%s' (line %d)", after->info->name, after->line);
    sm_buf_text(out, ", kept in ");
    sm_bytes_text((double)plan->artifact, out);
    if (plan->ranges == 0) {
        sm_buf_text(out, " (memory is known when the ops before have learned)\n");
        return;
    }
    sm_buf_printf(out, " (%" PRIu64 " range%s of rows, at most ", plan->ranges,
                  plan->ranges == 1 ? "" : "s");
    sm_bytes_text((double)plan->memory, out);
    sm_buf_text(out, " of memory in a process)\n");
}

void sm_account_search_json(const struct sm_places *places, const struct sm_neighbours_plan *plan,
                            struct sm_buf *out) {
    const struct sm_op_node *after = after_of(places);
    if (plan->rows == 0) return;
    sm_buf_printf(out, ",\n  \"neighbours\": {\"rows\": %" PRIu64 ", \"k\": %" PRIu32, plan->rows,
                  plan->k);
    if (after != NULL)
        sm_buf_printf(out, ", \"after\": \"%s\", \"line\": %d", after->info->name, after->line);
    if (plan->ranges > 0) sm_buf_printf(out, ", \"ranges\": %" PRIu64, plan->ranges);
    sm_buf_printf(out, ", \"artifact_bytes\": %" PRIu64, plan->artifact);
    if (plan->ranges > 0) sm_buf_printf(out, ", \"memory_bytes\": %" PRIu64, plan->memory);
    sm_buf_text(out, "}");
}

void sm_account_text(const struct sm_places *places, const struct sm_index *index,
                     const struct sm_neighbours_plan *search, struct sm_buf *out) {
    const uint32_t n = sm_index_classes(index), occur = sm_index_classes_occur(index);
    const bool weights = sm_places_pipeline(places)->output.weights;
    uint64_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t drawn = sm_places_account(places, i).drawn;
        if (drawn > largest) largest = drawn;
    }
    sm_buf_printf(out, "  %-*s %9s %9s %9s %9s %9s %10s  %s%s\n", NAME_COLUMNS, "class", "samples",
                  "an epoch", "distinct", "repeated", "synthetic", "log prior",
                  weights ? "    weight  " : "", "# distinct, + repeated, ~ synthetic");
    uint32_t shown = 0;
    for (uint32_t i = 0; i < n && shown < CLASSES_SHOWN; i++) {
        if (sm_index_class_samples(index, i) == 0) continue;
        shown++;
        const struct sm_account a = sm_places_account(places, i);
        class_text(&a, sm_index_class(index, i), largest, weights, out);
    }
    if (shown < occur)
        sm_buf_printf(out, "  … and %" PRIu32 " more (--json lists all)\n", occur - shown);
    sm_buf_text(out, "  log prior: log of the share before less that in an epoch; add it to a "
                     "model's log-probabilities\n");
    if (weights && sm_places_rebalance(places)->method == SM_REBALANCE_ROWS)
        sm_buf_text(out,
                    "  weight: mean importance weight of the class in epoch 0; each row has its "
                    "own, sum of the weights / (rows x its weight)\n");
    else if (weights)
        sm_buf_text(out, "  weight: importance weight of each sample of the class\n");
    search_text(places, search, out);
}

void sm_account_json(const struct sm_places *places, uint32_t label, struct sm_buf *out) {
    const struct sm_account a = sm_places_account(places, label);
    sm_buf_printf(out,
                  "\"per_epoch\": %" PRIu64 ", \"distinct\": %" PRIu64 ", \"repeated\": %" PRIu64
                  ", \"synthetic\": %" PRIu64,
                  a.drawn, a.distinct, a.repeated, a.synthetic);
    if (isnan(a.log_prior_shift))
        sm_buf_text(out, ", \"log_prior_shift\": null");
    else
        sm_buf_printf(out, ", \"log_prior_shift\": %.17g", a.log_prior_shift);
    if (sm_places_pipeline(places)->output.weights)
        sm_buf_printf(out, ", \"weight\": %.17g", a.weight);
}
