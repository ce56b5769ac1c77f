/* The steps of an epoch: which positions each rank gets in which step, what is padding, what
 * drop_last leaves out, and which position lies behind a step. Arithmetic only; broker, workers and
 * the command line agree through it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* One epoch as one world enters it. */
struct sm_steps {
    uint64_t positions;  /* of the epoch, N > 0 */
    uint64_t entered;    /* where this world entered it; 0 in every later epoch; <= N */
    uint32_t batch_size; /* per rank, > 0 */
    uint32_t world_size; /* > 0 */
    bool drop_last;
};

/* One rank's batch. Index first + i stands for position (first + i) mod N; at or beyond N it is
 * padding. */
struct sm_step {
    uint64_t first;
    uint32_t count;    /* always batch_size */
    uint32_t padding;  /* how many of the last ones */
    uint64_t position; /* behind this step, over all ranks: N behind the last one */
};

/* How many steps there are, the same for every rank: ceil, or with drop_last floor, of what is left
 * by batch_size x world_size. */
uint64_t sm_steps_count(const struct sm_steps *s);
/* Step k of a rank; k < sm_steps_count, rank < world_size. */
struct sm_step sm_steps_at(const struct sm_steps *s, uint32_t rank, uint64_t k);
/* Positions of this rank that drop_last leaves out: they belong to a step that is not made. */
uint64_t sm_steps_dropped(const struct sm_steps *s, uint32_t rank);
/* Positions of this rank from where the world entered: delivered by its steps, plus dropped. */
uint64_t sm_steps_planned(const struct sm_steps *s, uint32_t rank);
/* Whether a position is one at which this world stands between two of its steps. */
bool sm_steps_boundary(const struct sm_steps *s, uint64_t position);
