/* The worker: speaks with one broker, makes what its leases say, holds no state that matters. */
#pragma once

#include "lib/err.h"
#include "lib/keys.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct sm_worker_options {
    const char *endpoint;       /* of the broker */
    const struct sm_keys *keys; /* NULL: none; kept */
    bool no_sandbox, no_fuse;
    uint64_t cage_memory;              /* bytes; 0: SM_MAX_CAGE_MEMORY_BYTES */
    uint32_t heartbeat_ms;             /* 0: a second */
    const char *data_bind, *advertise; /* workers/data.h; NULL: loopback, what is bound */
    uint64_t
        batch_memory; /* bytes for batches until trainers release them; 0: SM_BATCH_MEMORY_BYTES */
};

/* Works until *stop is set (by a signal handler), then gives its lease back, says goodbye and
 * returns within a second. The broker may come and go meanwhile. */
int sm_worker_run(const struct sm_worker_options *options, const volatile sig_atomic_t *stop,
                  struct sm_err *err);
