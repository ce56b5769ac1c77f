/* A job of a broker from its submission to its end, as expand and the rounds of a fit wait for it:
 * children are tended all the while, and a broker that is silent is asked again for a minute. */
#pragma once

#include "cli/client.h"
#include "cli/embedded.h"

#include <stdbool.h>

struct sm_await {
    struct sm_client *client;
    struct sm_embedded *embedded;      /* NULL: somebody else's broker */
    const char *broker;                /* its endpoint, NULL: the embedded one */
    bool quiet;                        /* says nothing of a broker that is silent */
    const volatile sig_atomic_t *stop; /* NULL: nothing stops it */
    int poll_ms;
    /* Called with what the broker says of the job, also when it is complete. */
    int (*told)(void *context, const Shardmill__JobStatus *status, struct sm_err *err);
    void *context;
};

/* Submits the job and waits until it is complete. -1 with SM_E_CANCELLED when *stop was set: then
 * somebody else's broker is told to give the job up. */
int sm_await_job(const struct sm_await *w, char *job, Shardmill__JobSpec *spec, struct sm_err *err);
