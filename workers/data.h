/* The way of batches to other hosts: a ROUTER that answers a trainer's Fetch with Pieces, straight
 * out of batch memory. Lives in the worker's loop and never waits in it. Before it: batches.h;
 * after it: client/c/fetch.c. */
#pragma once

#include "lib/err.h"
#include "lib/keys.h"
#include "workers/batches.h"

#include <stdint.h>

#define SM_DATA_BIND "tcp://127.0.0.1:*"

struct sm_data_options {
    const char *bind;      /* NULL: SM_DATA_BIND. Beyond loopback keys are needed */
    const char *advertise; /* what trainers are told: an endpoint, or a host; NULL: what is bound */
    const struct sm_keys *keys; /* kept; NULL: none */
};

/* What the messages so far came to. */
struct sm_data_counts {
    uint64_t fetches, pieces;
    uint64_t unknown; /* Fetch of a batch that is not here */
    uint64_t full;    /* a peer that asked for more than it takes */
    uint64_t dropped; /* garbage */
};

struct sm_data;

int sm_data_open(struct sm_data **gives, void *context, const struct sm_data_options *options,
                 struct sm_err *err);
void sm_data_close(struct sm_data **d);
/* To be polled for input; then call serve, which handles a bounded number of messages. */
void *sm_data_socket(const struct sm_data *d);
void sm_data_serve(struct sm_data *d, struct sm_batches *batches);
/* Both lent; the key is "" without keys. */
const char *sm_data_endpoint(const struct sm_data *d);
const char *sm_data_public_key(const struct sm_data *d);
const struct sm_data_counts *sm_data_counts(const struct sm_data *d);
