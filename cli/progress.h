/* What a person sees while a run goes on: on a terminal a bar that is drawn over itself, elsewhere
 * a line every few seconds; on stderr, so that stdout stays for results. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sm_progress {
    bool quiet, terminal, drawn, ended;
    const char *unit; /* "samples" */
    int64_t start_ms, last_ms;
    uint64_t start_done;
};

/* done: what an earlier run had finished already; it does not count for the rate. */
void sm_progress_start(struct sm_progress *p, bool quiet, const char *unit, uint64_t done);
/* waits_for: "" or a sentence that is shown when nothing moves. */
void sm_progress_show(struct sm_progress *p, uint64_t done, uint64_t total, uint64_t quarantined,
                      const char *waits_for);
/* Leaves the last state on its line. */
void sm_progress_end(struct sm_progress *p);
