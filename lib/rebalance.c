/* From a virtual sample of an epoch to the class and the sample of it. Everything is found from
 * running sums and keyed permutations, so nothing is drawn in order and nothing is kept. */
#include "lib/rebalance.h"

#include "lib/permutation.h"
#include "lib/rng.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Stands in the place of an op's position, so that no op shares its random stream. */
enum { STREAM_ROUND = 0x52420000, STREAM_CLASSES, STREAM_OFFSET };

static struct sm_drawn of_class(const struct sm_rebalance *r, uint32_t epoch, uint64_t v);
static struct sm_drawn of_batch(const struct sm_rebalance *r, uint32_t epoch, uint64_t v);
static struct sm_drawn of_sums(const struct sm_rebalance *r, uint32_t epoch, uint64_t v);

struct sm_drawn sm_rebalance_at(const struct sm_rebalance *r, uint32_t epoch, uint64_t v) {
    assert(v < r->total);
    switch (r->method) {
    case SM_REBALANCE_ROWS:
        return of_sums(r, epoch, v);
    case SM_REBALANCE_BATCHES:
        return of_batch(r, epoch, v);
    default:
        return of_class(r, epoch, v);
    }
}

void sm_rebalance_release(struct sm_rebalance *r) {
    free(r->of);
    *r = (struct sm_rebalance){0};
}

/* The order of one class in one round of its copies. */
static uint64_t in_round(const struct sm_rebalance *r, uint32_t epoch, uint32_t label,
                         uint64_t round, uint64_t i) {
    struct sm_rng name = sm_rng_op(r->seed, epoch, round, label, STREAM_ROUND);
    uint64_t key = sm_rng_u32(&name);
    key = key << 32 | sm_rng_u32(&name);
    struct sm_permutation order = sm_permutation_make(r->of[label].present, key, epoch);
    return sm_permutation_at(&order, i);
}

static uint32_t find_class(const struct sm_rebalance *r, uint64_t v) {
    uint32_t low = 0,
             high = r->classes; /* first of low <= v; the last one that holds is the class */
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (r->of[middle].first <= v)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Counts by class: whole rounds, and a last one that is a keyed choice. */
static struct sm_drawn of_class(const struct sm_rebalance *r, uint32_t epoch, uint64_t v) {
    struct sm_drawn d = {.label = find_class(r, v)};
    const struct sm_rebalance_class *c = &r->of[d.label];
    const uint64_t j = v - c->first, round = j / c->present, i = j % c->present;
    assert(j < c->drawn);
    if (r->method == SM_REBALANCE_SMOTE && round > 0) {
        d.k = j - c->present;
        d.added = d.synthetic = true;
        return d;
    }
    d.copy = (uint32_t)round;
    d.added = round > 0;
    d.k = round == 0 && c->drawn >= c->present ? i : in_round(r, epoch, d.label, round, i);
    if (r->replacement) {
        struct sm_rng rng = sm_rng_op(r->seed, epoch, j, d.label, STREAM_ROUND);
        d.k = sm_rng_below(&rng, c->present);
        d.copy = (uint32_t)j; /* what came before is not known: a copy of its own for each draw */
    }
    return d;
}

/* The classes come round and round in an order of the seed, n of them in a batch, so no batch has
 * one twice; within a class the samples come round likewise. */
static struct sm_drawn of_batch(const struct sm_rebalance *r, uint32_t epoch, uint64_t v) {
    const uint64_t m = r->batch_samples, n = r->batch_classes, slot = v / m % n,
                   g = v / (n * m) * n + slot;
    struct sm_rng name = sm_rng_op(r->seed, 0, 0, 0, STREAM_CLASSES);
    struct sm_permutation order = sm_permutation_make(r->with_samples, sm_rng_u32(&name), 0);
    struct sm_drawn d = {.label = (uint32_t)sm_permutation_at(&order, g % r->with_samples)};
    for (uint32_t c = 0, at = 0; r->with_samples < r->classes; c++) /* skip the empty ones */
        if (r->of[c].present > 0 && at++ == d.label) {
            d.label = c;
            break;
        }
    const uint64_t j = g / r->with_samples * m + v % m, present = r->of[d.label].present;
    d.copy = (uint32_t)(j / present);
    d.added = d.copy > 0;
    d.k = in_round(r, epoch, d.label, d.copy, j % present);
    return d;
}

/* Systematic sampling: points at equal distances over the running sums, shifted by epoch. */
static struct sm_drawn of_sums(const struct sm_rebalance *r, uint32_t epoch, uint64_t v) {
    struct sm_rng rng = sm_rng_op(r->seed, epoch, 0, 0, STREAM_OFFSET);
    const double shift = sm_rng_double(&rng), all = r->sums[r->sums_n - 1],
                 width = all / (double)r->total, x = ((double)v + shift) * width;
    uint64_t low = 0, high = r->sums_n - 1; /* the first row whose sum lies beyond x */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (r->sums[middle] > x)
            high = middle;
        else
            low = middle + 1;
    }
    struct sm_drawn d = {.k = low};
    const double before = low > 0 ? r->sums[low - 1] : 0;
    uint64_t first = v;
    while (first > 0 && ((double)(first - 1) + shift) * width >= before) {
        first--;
        if (v - first == UINT32_MAX) break;
    }
    d.copy = (uint32_t)(v - first);
    d.added = d.copy > 0;
    return d;
}
