/* Batch memory: one memfd of a worker, in which batches lie from the lease that makes them until
 * the broker's Free. Trainers of the same user on the same host get its descriptor and map it
 * read-only; the memory lives as long as anyone maps it, and leaves nothing behind. Comes after
 * lease.c, which fills it; before client/c and workers/data.c, which read it. */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sm_batches; /* belongs to one thread */

/* A batch from the start of its lease to its end. */
struct sm_slot {
    uint64_t attempt;
    char *job;
    uint64_t offset, bytes;
    bool whole;       /* made, and so to be had by trainers */
    int64_t asked_ms; /* when it was last asked whether it is still wanted; 0: not yet looked at */
};

enum { SM_BATCH_MEMORY_BYTES = 256 << 20 }; /* unless configured */

/* Makes the memory and the socket that hands it out. */
int sm_batches_new(struct sm_batches **gives, uint64_t bytes, struct sm_err *err);
void sm_batches_free(struct sm_batches **b);

uint64_t sm_batches_bytes(const struct sm_batches *b);
/* Lends the address at which the descriptor can be had (lib/handover.h). */
const char *sm_batches_address(const struct sm_batches *b);
/* Readable when a trainer asks for the descriptor; then call serve, which answers a bounded number
 * of them and waits for none. */
int sm_batches_fd(const struct sm_batches *b);
void sm_batches_serve(struct sm_batches *b);

/* Takes room for a batch; NULL when there is none. The slot is lent until its release. Memory that
 * was used before is taken first, so no more pages are touched than are needed at once. */
const struct sm_slot *sm_batches_take(struct sm_batches *b, const char *job, uint64_t attempt,
                                      uint64_t bytes);
uint8_t *sm_batches_at(const struct sm_batches *b, const struct sm_slot *slot);
void sm_batches_made(struct sm_batches *b, uint64_t attempt);
/* The next whole batch about which nobody has asked for so long since this first saw it; it counts
 * as asked now. NULL when there is none. Lends. */
const struct sm_slot *sm_batches_due(struct sm_batches *b, int64_t now_ms, int64_t every_ms);
/* Only whole ones; NULL when there is none. */
const struct sm_slot *sm_batches_find(const struct sm_batches *b, uint64_t attempt);
/* The room may be used again. False when there is no such batch. */
bool sm_batches_release(struct sm_batches *b, const char *job, uint64_t attempt);
void sm_batches_release_all(struct sm_batches *b);
/* Lends the slots, in order of their place. */
size_t sm_batches_count(const struct sm_batches *b);
const struct sm_slot *sm_batches_slot(const struct sm_batches *b, size_t i);
/* Holds the memory itself (not a slot) for a reader of its own pace, also beyond the free: gives
 * what drop takes, which any thread may call and whose form is that of a zmq_free_fn. */
void *sm_batches_hold(const struct sm_batches *b);
void sm_batches_drop(void *bytes, void *hold);
