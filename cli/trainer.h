/* A trainer that only counts, on the C library: what `read` runs. */
#pragma once

#include "cli/waits.h"
#include "lib/digest.h"
#include "lib/err.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct sm_trainer_options {
    /* all but broker and job may be NULL */
    const char *broker, *job, *token, *transport, *ledger, *key_dir;
    uint32_t rank, world_size;
    uint32_t epochs;         /* 0: until the job ends */
    uint64_t steps;          /* 0: no limit */
    uint64_t checkpoint;     /* steps between two checkpoints of the ledger */
    int hold_ms, timeout_ms; /* of each batch; of each wait */
    uint64_t credit_bytes;
    bool commit; /* tell the broker of each checkpoint of the ledger */
    bool lines;  /* a JSON line for each step on stdout */
    const volatile sig_atomic_t *stop;
};

/* Importance weights of an epoch, padding left out; n 0: batches carry none. */
struct sm_weights_seen {
    uint64_t n;
    double sum;
    float least, most;
};

/* What was seen. The whole run but for the JSON text of the library takes this much memory. */
struct sm_trainer_report {
    uint64_t steps, samples, padding, substitutes, bytes;
    uint32_t epochs;
    int64_t elapsed_ns; /* from the first call for a batch to the last answer */
    struct sm_waits waits;
    char transport[8];
};

/* Called at each end of an epoch with the chained digest of its steps, the library's facts, and how
 * often each class was delivered (drawn.h). */
typedef void sm_trainer_epoch(void *context, uint32_t epoch, uint64_t steps,
                              const char chain[SM_XXH_HEX], const char *info, const char *drawn,
                              const struct sm_weights_seen *weights);

/* Reads until epochs or steps are over, the job ends, or *stop. Before it returns, still attached,
 * it calls end once. Fills *report in any case. -1 with SM_E_CANCELLED after *stop. */
int sm_trainer_run(const struct sm_trainer_options *options, struct sm_trainer_report *report,
                   sm_trainer_epoch *epoch_end, void (*end)(void *context), void *context,
                   struct sm_err *err);
/* From a signal handler: ends the wait of the running trainer. */
void sm_trainer_interrupt(void);
