/* How far a fit is, for the person before it. Before: cli/fit.c begins a fit. After: table/fit.h
 * reads its rows through this, fit_rounds.c tells of ranges. */
#pragma once

#include "cli/progress.h"
#include "workers/table/fit.h"

/* Not to be copied: progress points to unit, and who reads rows to all of it. */
struct sm_fit_watch {
    struct sm_progress progress;
    unsigned round; /* counts from 1 */
    char unit[40];  /* "rows, round 3" */
    struct sm_fit_rows rows;
    uint64_t total;
};

void sm_fit_watch_begin(struct sm_fit_watch *w, bool quiet);
/* Rows that come out of `rows`, of which a round reads total. */
struct sm_fit_rows sm_fit_watch_rows(struct sm_fit_watch *w, const struct sm_fit_rows *rows,
                                     uint64_t total);
void sm_fit_watch_only(struct sm_fit_watch *w, const char *unit); /* there are no rounds */
void sm_fit_watch_round(struct sm_fit_watch *w, const char *unit);
/* done of total units ("ranges") of the round that was begun last; total is never shown as done,
 * since another round may follow. waits_for: as sm_progress_show's. */
void sm_fit_watch_show(struct sm_fit_watch *w, uint64_t done, uint64_t total,
                       const char *waits_for);
void sm_fit_watch_end(struct sm_fit_watch *w);
