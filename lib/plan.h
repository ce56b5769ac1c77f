/* The plan of an expansion: which sample and copy stands at which position, and which positions
 * make which shard. Arithmetic on a few integers, so that a plan of 10^9 positions takes no more
 * memory than one of ten. Broker, workers and the command line read it and must agree on it: if you
 * change it, raise SM_PLAN_VERSION. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_PLAN_VERSION 1

struct sm_plan {
    uint64_t samples; /* in the dataset; > 0 */
    uint32_t copies;  /* of each sample in an epoch; > 0 */
    bool shuffle;     /* false: sample by sample, its copies together */
    uint64_t seed;
    uint32_t epoch;
    uint64_t shard_samples; /* positions of a shard; the last shard may be shorter */
};

struct sm_place {
    uint64_t sample;
    uint32_t copy;
};

/* Positions in all: samples x copies. */
uint64_t sm_plan_positions(const struct sm_plan *p);
uint64_t sm_plan_shards(const struct sm_plan *p);
/* First position and number of positions of a shard. */
uint64_t sm_plan_shard_first(const struct sm_plan *p, uint64_t shard);
uint64_t sm_plan_shard_count(const struct sm_plan *p, uint64_t shard);
/* What stands at a position. */
struct sm_place sm_plan_at(const struct sm_plan *p, uint64_t position);
/* What stands at each of n positions, in whatever order they are. */
void sm_plan_many(const struct sm_plan *p, const uint64_t *positions, size_t n,
                  struct sm_place *places);
