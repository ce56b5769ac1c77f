/* What a job's pipeline has learned, where its worker finds it: beside the index, or fetched from
 * the broker, as is the state of a fit's round that has no folder. Before: job.c has the index.
 * After: features.h and places.h open the artifacts. */
#pragma once

#include "pipelines/lang/pipeline.h"
#include "workers/fetched.h"

#include <stdbool.h>

struct sm_job_learned {
    const struct sm_pipeline *pipeline;
    const char *state;        /* SHA-256 of the state that a fit's round begins with; NULL: none */
    char *dir;                /* where the artifacts are opened; NULL: nothing has begun */
    bool fetches;             /* dir is a folder of links to memory */
    size_t at;                /* place of the next one to fetch */
    const char *wanted;       /* its SHA-256; NULL: none */
    struct sm_fetched *files; /* one for each place */
    size_t n;
};

/* Looks for the artifacts in beside; when one is not there or damaged, all are to be fetched; a
 * state is always: wanted is then the first. p and state stay there for as long as l. */
int sm_job_learned_begin(struct sm_job_learned *l, const struct sm_pipeline *p, const char *beside,
                         const char *state, struct sm_err *err);
/* A piece of l->wanted at its file's `got`; moves wanted on when it is whole. SM_E_DIFFERS: the
 * whole has another SHA-256. */
int sm_job_learned_take(struct sm_job_learned *l, const void *bytes, size_t n, uint64_t total,
                        struct sm_err *err);
/* Where the piece that is wanted begins. */
uint64_t sm_job_learned_offset(const struct sm_job_learned *l);
/* Lends the state, which has come. */
const struct sm_fetched *sm_job_learned_state(const struct sm_job_learned *l);
/* Removes what was fetched: artifacts that are open stay so. */
void sm_job_learned_release(struct sm_job_learned *l);
