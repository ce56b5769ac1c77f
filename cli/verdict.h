/* What limited a trainer, and how many workers would do. */
#pragma once

#include "cli/trainer.h"
#include "lib/buf.h"
#include "lib/wire.h"

#include <stdint.h>

/* Workers of a broker on this host, looked at twice: how busy they and their cages were. */
struct sm_busy {
    uint32_t workers, local;
    int64_t cpu_ms, at_ms;
    uint64_t idle, all; /* ticks of all processors of this host */
};
/* Looks at the workers that a Status names. */
void sm_busy_look(struct sm_busy *b, const Shardmill__Status *status);

enum sm_limit { SM_LIMIT_TRAINER, SM_LIMIT_WORKERS, SM_LIMIT_NETWORK, SM_LIMIT_DISK };
struct sm_verdict {
    enum sm_limit limit;
    uint32_t workers, enough; /* that there are; that would do, 0: cannot be said */
    double waited;            /* share of the time that the trainer waited */
    double busy;              /* share of the time that local workers had a processor, -1 unknown */
    double host;              /* share of the time that this host's processors were busy */
};

/* before and after: the workers at the start and the end of the run. */
struct sm_verdict sm_verdict_make(const struct sm_trainer_report *report,
                                  const struct sm_busy *before, const struct sm_busy *after);
const char *sm_limit_word(enum sm_limit limit);
/* One sentence. */
void sm_verdict_text(const struct sm_verdict *v, struct sm_buf *out);
