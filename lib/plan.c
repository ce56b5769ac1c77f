/* Position -> (sample, copy) and shard -> positions. */
#include "lib/plan.h"

#include "lib/permutation.h"

#include <assert.h>

uint64_t sm_plan_positions(const struct sm_plan *p) {
    return p->samples * p->copies;
}

uint64_t sm_plan_shards(const struct sm_plan *p) {
    return (sm_plan_positions(p) + p->shard_samples - 1) / p->shard_samples;
}

uint64_t sm_plan_shard_first(const struct sm_plan *p, uint64_t shard) {
    assert(shard < sm_plan_shards(p));
    return shard * p->shard_samples;
}

uint64_t sm_plan_shard_count(const struct sm_plan *p, uint64_t shard) {
    uint64_t rest = sm_plan_positions(p) - sm_plan_shard_first(p, shard);
    return rest < p->shard_samples ? rest : p->shard_samples;
}

static struct sm_place place_of(const struct sm_plan *p, uint64_t v) {
    return (struct sm_place){.sample = v / p->copies, .copy = (uint32_t)(v % p->copies)};
}

struct sm_place sm_plan_at(const struct sm_plan *p, uint64_t position) {
    assert(position < sm_plan_positions(p));
    uint64_t v = position;
    if (p->shuffle) {
        struct sm_permutation order = sm_permutation_make(sm_plan_positions(p), p->seed, p->epoch);
        v = sm_permutation_at(&order, position);
    }
    return place_of(p, v);
}

void sm_plan_many(const struct sm_plan *p, const uint64_t *positions, size_t n,
                  struct sm_place *places) {
    enum { PIECE = 256 };
    uint64_t v[PIECE];
    for (size_t first = 0; first < n; first += PIECE) {
        const size_t m = n - first < PIECE ? n - first : PIECE;
        for (size_t i = 0; i < m; i++) {
            v[i] = positions[first + i];
            assert(v[i] < sm_plan_positions(p));
        }
        if (p->shuffle) {
            struct sm_permutation order =
                sm_permutation_make(sm_plan_positions(p), p->seed, p->epoch);
            sm_permutation_many(&order, v, m);
        }
        for (size_t i = 0; i < m; i++)
            places[first + i] = place_of(p, v[i]);
    }
}
