/* The embedded broker and workers: children of this command, on a private endpoint that leaves no
 * file behind or on one that others know. They die with it, also when it is killed; a child that
 * dies earlier is started again. */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct sm_embedded_options {
    const char *state_dir; /* the broker's journal */
    int workers;
    bool no_sandbox, no_fuse;
    const char *endpoint;    /* where the broker listens; NULL: a private one, without a file */
    int64_t batch_memory_mb; /* of each worker, 0: its default */
};

struct sm_embedded;

int sm_embedded_start(struct sm_embedded **gives, const struct sm_embedded_options *options,
                      struct sm_err *err);
/* Lends the endpoint to connect to. */
const char *sm_embedded_endpoint(const struct sm_embedded *e);
/* Starts dead children again; an error when one dies at once, again and again (its last words are
 * in err). Call often. */
int sm_embedded_tend(struct sm_embedded *e, struct sm_err *err);
#define SM_GRACE_MS 1500 /* in which children end by themselves */
/* Ends all children: SIGTERM, then SIGKILL for what is still there after grace_ms. Frees. */
void sm_embedded_stop(struct sm_embedded **e, int grace_ms);
/* Children started again so far. */
int sm_embedded_restarts(const struct sm_embedded *e);
