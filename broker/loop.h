/* The broker as a whole: core, journal and one socket, in one thread. `shardmill broker` and
 * `expand` run it. */
#pragma once

#include "lib/err.h"
#include "lib/keys.h"

#include <signal.h>
#include <stdint.h>

struct sm_broker_options {
    void *context; /* a ZeroMQ context; NULL: it makes its own (one per process is the rule) */
    const char *endpoint;       /* what to bind */
    const struct sm_keys *keys; /* NULL: only this host can connect, and needs no key; kept */
    const char *state_dir;
    uint32_t heartbeat_ms, lease_ms; /* 0: the defaults */
    /* Called once, when the socket is bound: the endpoint with its real port. Optional. */
    void (*started)(void *arg, const char *endpoint);
    void *arg;
};

/* Runs until *stop is not zero (0) or something fails (-1). A signal handler may set *stop; poll
 * returns at once then. */
int sm_broker_run(const struct sm_broker_options *options, const volatile sig_atomic_t *stop,
                  struct sm_err *err);
