/* An offline run, as `expand` does it, and the folder it writes to. */
#pragma once

#include "cli/run.h"
#include "lib/err.h"
#include "pipelines/lang/pipeline.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct sm_expand_options {
    const char *out_dir;
    const char *broker;              /* NULL: an embedded one */
    int workers;                     /* embedded only */
    bool no_sandbox, no_fuse, quiet; /* the first two: embedded only */
    uint32_t epoch, slice, slices;   /* slice K of N, counted from 0; 1 slice is the whole */
    int64_t lease_samples;           /* 0: chosen from the size of the run */
    const char *learned;             /* folder where the same may have been fitted, or NULL */
    const char *lock;                /* file that pins what ops learn, or NULL */
    const volatile sig_atomic_t *stop;
};

/* How a run ended. */
enum sm_expand_end { SM_EXPAND_DONE, SM_EXPAND_WAS_DONE };

/* Runs to the end: index, fits, broker, workers, shards, and at last the manifest (of a slice: its
 * record). What ops learn is put into the pipeline. Fills *run with what is now in the folder. -1
 * with SM_E_CANCELLED when *stop was set: what is finished is kept and the same call goes on. */
int sm_expand(struct sm_pipeline *pipeline, const struct sm_expand_options *options,
              struct sm_run *run, enum sm_expand_end *end, struct sm_err *err);
