/* Counts come from the record of the run, so a run that was complete before prints the same. */
#include "cli/summary.h"

#include <inttypes.h>

enum { CLASSES_SHOWN = 40 };

static uint64_t quarantined(const struct sm_run *r) {
    uint64_t n = 0;
    for (size_t c = 0; c < r->n_classes; c++)
        n += r->counts[c].quarantined;
    return n;
}

static uint64_t bytes(const struct sm_run *r) {
    uint64_t n = 0;
    for (size_t i = 0; i < r->n_shards; i++)
        n += r->shards[i].bytes;
    return n;
}

static void as_json(const struct sm_run *r, const char *dir, bool was_done) {
    struct sm_buf out;
    sm_buf_init(&out, 256 << 20);
    sm_buf_text(&out, "{\"dir\": ");
    sm_buf_json(&out, dir);
    uint64_t planned = sm_run_planned(r), bad = quarantined(r);
    sm_buf_printf(&out,
                  ", \"was_complete\": %s, \"planned\": %" PRIu64 ", \"written\": %" PRIu64
                  ", \"quarantined\": %" PRIu64 ", \"unreadable_rows\": %" PRIu64
                  ", \"shards\": %zu, \"bytes\": %" PRIu64 ", \"per_class\": {",
                  was_done ? "true" : "false", planned, planned - bad, bad, r->unreadable,
                  r->n_shards, bytes(r));
    for (size_t c = 0; c < r->n_classes; c++) {
        sm_buf_text(&out, c ? ", " : "");
        sm_buf_json(&out, r->classes[c]);
        sm_buf_printf(&out,
                      ": {\"planned\": %" PRIu64 ", \"quarantined\": %" PRIu64
                      ", \"in_shards\": %" PRIu64,
                      r->counts[c].planned, r->counts[c].quarantined, r->counts[c].in_shards);
        if (r->rebalance != NULL)
            sm_buf_printf(&out,
                          ", \"present\": %" PRIu64 ", \"distinct\": %" PRIu64
                          ", \"repeated\": %" PRIu64 ", \"synthetic\": %" PRIu64,
                          r->counts[c].present, r->counts[c].distinct, r->counts[c].repeated,
                          r->counts[c].synthetic);
        sm_buf_text(&out, "}");
    }
    sm_buf_text(&out, "}}");
    puts(out.data);
    sm_buf_release(&out);
}

static void as_text(const struct sm_run *r, const char *dir, bool was_done) {
    uint64_t planned = sm_run_planned(r), bad = quarantined(r);
    printf("%s: %s%zu shards, %.1f MiB, %" PRIu64 " samples planned, %" PRIu64 " written, %" PRIu64
           " quarantined\n",
           dir, was_done ? "already complete: " : "", r->n_shards, (double)bytes(r) / (1 << 20),
           planned, planned - bad, bad);
    if (r->unreadable > 0)
        printf("%" PRIu64 " rows of the table could not be read: %s/" SM_QUARANTINE_NAME
               " lists them with line and offset\n",
               r->unreadable, dir);
    if (r->n_classes < 2 && bad == 0) return;
    const bool account = r->rebalance != NULL;
    printf("\n  %-28s %10s %12s %12s", "class", "planned", "quarantined", "in shards");
    if (account) printf(" %10s %10s %10s %10s", "present", "distinct", "repeated", "synthetic");
    putchar('\n');
    for (size_t c = 0; c < r->n_classes && c < CLASSES_SHOWN; c++) {
        const struct sm_run_class *n = &r->counts[c];
        printf("  %-28.28s %10" PRIu64 " %12" PRIu64 " %12" PRIu64, r->classes[c], n->planned,
               n->quarantined, n->in_shards);
        if (account)
            printf(" %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64, n->present, n->distinct,
                   n->repeated, n->synthetic);
        putchar('\n');
    }
    if (r->n_classes > CLASSES_SHOWN)
        printf("  … and %zu more: see %s/" SM_MANIFEST_NAME "\n", r->n_classes - CLASSES_SHOWN,
               dir);
}

int sm_summary(const struct sm_run *r, const char *dir, bool was_done, double max_quarantine,
               const struct sm_common *common) {
    uint64_t planned = sm_run_planned(r), bad = quarantined(r);
    if (common->json)
        as_json(r, dir, was_done);
    else if (!common->quiet)
        as_text(r, dir, was_done);
    fflush(stdout);
    const double lost = (double)(bad + r->unreadable), all = (double)(planned + r->unreadable);
    if (planned == 0 || lost / all <= max_quarantine) return SM_EXIT_DONE;
    fprintf(stderr,
            "shardmill: %.2f %% of the %s are quarantined, more than --max-quarantine %g allows "
            "(hint: %s/" SM_QUARANTINE_NAME " lists the samples and why)\n",
            100 * lost / all, r->unreadable > 0 ? "rows" : "positions", max_quarantine, dir);
    return SM_EXIT_QUARANTINE;
}
