/* The rounds of a large fit, computed by workers: each round is a FIT job of the broker, each range
 * a lease, and the partials come back as files. Before: cli/fit.c has begun a fit. After:
 * table/fit.h merges. */
#pragma once

#include "cli/fit.h"
#include "cli/fit_watch.h"
#include "workers/fit_input.h"

struct sm_fit_crew; /* a broker and its workers, of this fit alone or a running one's */

/* Starts embedded ones when options name no broker. dir: absolute, there, for this fit alone; the
 * workers reach it by the same path. Keeps all. */
int sm_fit_crew_start(struct sm_fit_crew **gives, const struct sm_fit_options *options,
                      const struct sm_fit_source *source, const struct sm_dataset *data,
                      const char *dir, struct sm_fit_watch *watch, struct sm_err *err);
void sm_fit_crew_stop(struct sm_fit_crew **crew);
struct sm_fit_executor sm_fit_crew_executor(struct sm_fit_crew *crew);

/* A round of whatever is learned, for what has no struct sm_fit. */
struct sm_fit_round {
    const struct sm_buf *state;
    uint64_t seed, ranges;
    size_t bytes, stride; /* of a partial; from one to the next in memory */
    void *partials;       /* filled, in the order of their ranges */
    const char *blas;     /* that workers must have; "": any */
};
int sm_fit_crew_round(struct sm_fit_crew *crew, const struct sm_fit_round *round,
                      struct sm_err *err);
