/* Nobody knows how many rounds there will be, so each is shown by itself. */
#include "cli/fit_watch.h"

#include "lib/wire.h"

#include <stdio.h>

void sm_fit_watch_begin(struct sm_fit_watch *w, bool quiet) {
    *w = (struct sm_fit_watch){0};
    sm_progress_start(&w->progress, quiet, w->unit, 0);
}

void sm_fit_watch_round(struct sm_fit_watch *w, const char *unit) {
    snprintf(w->unit, sizeof w->unit, "%s, round %u", unit, ++w->round);
    w->progress.start_ms = sm_now_ms();
}

void sm_fit_watch_only(struct sm_fit_watch *w, const char *unit) {
    snprintf(w->unit, sizeof w->unit, "%s", unit);
    w->progress.start_ms = sm_now_ms();
}

void sm_fit_watch_show(struct sm_fit_watch *w, uint64_t done, uint64_t total,
                       const char *waits_for) {
    if (done < total) sm_progress_show(&w->progress, done, total, 0, waits_for);
}

void sm_fit_watch_end(struct sm_fit_watch *w) {
    sm_progress_end(&w->progress);
}

static int read_watched(void *context, uint64_t first, struct sm_rows *out, struct sm_err *err) {
    struct sm_fit_watch *w = context;
    if (first == 0) sm_fit_watch_round(w, "rows");
    sm_fit_watch_show(w, first, w->total, NULL);
    return w->rows.read(w->rows.context, first, out, err);
}

struct sm_fit_rows sm_fit_watch_rows(struct sm_fit_watch *w, const struct sm_fit_rows *rows,
                                     uint64_t total) {
    w->rows = *rows;
    w->total = total;
    return (struct sm_fit_rows){read_watched, w};
}
