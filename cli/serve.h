/* A pipeline served to trainers: an embedded broker and workers that are kept alive, the job
 * submitted, and a wait. */
#pragma once

#include "cli/stream.h"

#include <signal.h>
#include <sys/types.h>

struct sm_serve_options {
    const char *bind;
    int workers;
    bool no_sandbox, quiet, die_with_parent;
    pid_t parent; /* with die_with_parent: as it was when the process began, before any indexing */
    struct sm_stream *also; /* a second job, offered as long as the first one lasts; NULL: none */
    const volatile sig_atomic_t *stop;
};

/* Serves until the job is complete (0) or *stop is set (0 as well: to be stopped is how a server
 * ends). Fills said with the endpoint and calls ready once when trainers may come. */
int sm_serve(struct sm_stream *stream, const struct sm_serve_options *options,
             void (*ready)(void *context, const char *endpoint), void *context, struct sm_err *err);
