/* From a virtual sample of an epoch to the class and the sample of it. Everything is found from
 * running sums and keyed permutations, so nothing is drawn in order and nothing is kept. */
#include "lib/rebalance.h"

#include "lib/permutation.h"
#include "lib/rng.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct sm_drawn of_class(const struct sm_rebalance *r, uint32_t epoch, uint64_t v);
static struct sm_drawn of_batch(const struct sm_rebalance *r, uint32_t epoch, uint64_t v);
static struct sm_drawn of_sums(const struct sm_rebalance *r, uint32_t epoch, uint64_t v);
static int lay_batches(struct sm_rebalance *r, uint64_t present, struct sm_err *err);
static void importance_lay(struct sm_rebalance *r, uint64_t present);

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
    free(r->filled);
    *r = (struct sm_rebalance){0};
}

int sm_rebalance_lay(struct sm_rebalance *r, struct sm_err *err) {
    uint64_t present = 0, first = 0;
    r->with_samples = 0;
    for (uint32_t c = 0; c < r->classes; c++) {
        present += r->of[c].present;
        r->with_samples += r->of[c].present > 0;
    }
    if (present > 0 && r->method == SM_REBALANCE_BATCHES && lay_batches(r, present, err) != 0)
        return -1;
    for (uint32_t c = 0; c < r->classes; c++) {
        r->of[c].first = first;
        first += r->of[c].drawn < SM_REBALANCE_TOTAL_MAX ? r->of[c].drawn : SM_REBALANCE_TOTAL_MAX;
        if (first > SM_REBALANCE_TOTAL_MAX) break;
    }
    if (r->method != SM_REBALANCE_ROWS) r->total = first;
    if (r->total > 0 && r->total <= SM_REBALANCE_TOTAL_MAX) {
        importance_lay(r, present);
        return 0;
    }
    return sm_fail(err, SM_E_PIPELINE,
                   r->total == 0 ? "rebalance: an epoch has no sample at all"
                                 : "rebalance: an epoch has more than 2^40 samples");
}

static void importance_lay(struct sm_rebalance *r, uint64_t present) {
    for (uint32_t c = 0; c < r->classes; c++) {
        struct sm_rebalance_class *of = &r->of[c];
        const double natural = (double)of->present / (double)present,
                     drawn = (double)of->drawn / (double)r->total;
        of->importance = of->drawn > 0 ? natural / drawn : 0;
    }
}

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b > 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* In round_batches batches every class comes n / gcd times, and the round ends with a batch. */
static int lay_batches(struct sm_rebalance *r, uint64_t present, struct sm_err *err) {
    const uint64_t n = r->batch_classes, m = r->batch_samples, w = r->with_samples,
                   enough = (present + n * m - 1) / (n * m);
    r->round_batches = w / common_divisor(w, n);
    const uint64_t rounds = (enough + r->round_batches - 1) / r->round_batches;
    r->filled = calloc(w, sizeof *r->filled);
    if (r->filled == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0, i = 0; c < r->classes; c++) {
        r->of[c].drawn = 0;
        if (r->of[c].present == 0) continue;
        r->filled[i++] = c;
        r->of[c].drawn = rounds * r->round_batches * n / w * m;
    }
    return 0;
}

/* The order of one class in one round of its copies. */
static uint64_t in_round(const struct sm_rebalance *r, uint32_t epoch, uint32_t label,
                         uint64_t round, uint64_t i) {
    struct sm_rng name = sm_rng_op(r->seed, epoch, round, label, SM_RNG_ROUND);
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
        struct sm_rng rng = sm_rng_op(r->seed, epoch, j, d.label, SM_RNG_ROUND);
        d.k = sm_rng_below(&rng, c->present);
        d.copy = (uint32_t)j; /* what came before is not known: a copy of its own for each draw */
    }
    return d;
}

/* A round of batches goes through the classes in an order of its own, again and again, n of them
 * in each batch: as n is at most the number of classes, no batch has one twice. Within a class the
 * samples come round likewise. */
static struct sm_drawn of_batch(const struct sm_rebalance *r, uint32_t epoch, uint64_t v) {
    const uint64_t m = r->batch_samples, n = r->batch_classes, w = r->with_samples,
                   batch = v / (m * n), round = batch / r->round_batches,
                   i = batch % r->round_batches * n + v / m % n; /* of the round's classes */
    struct sm_rng name = sm_rng_op(r->seed, epoch, round, 0, SM_RNG_CLASSES);
    uint64_t key = sm_rng_u32(&name);
    key = key << 32 | sm_rng_u32(&name);
    struct sm_permutation order = sm_permutation_make(w, key, epoch);
    struct sm_drawn d = {.label = r->filled[sm_permutation_at(&order, i % w)]};
    const uint64_t before = round * (r->round_batches * n / w) + i / w, /* times it came */
        j = before * m + v % m, present = r->of[d.label].present;
    d.copy = (uint32_t)(j / present);
    d.added = d.copy > 0;
    d.k = in_round(r, epoch, d.label, d.copy, j % present);
    return d;
}

/* --- systematic sampling: points at equal distances over the running sums, shifted by epoch ----
 */

struct comb {
    double shift, width;
};

static struct comb comb_of(const struct sm_rebalance *r, uint32_t epoch) {
    struct sm_rng rng = sm_rng_op(r->seed, epoch, 0, 0, SM_RNG_OFFSET);
    return (struct comb){sm_rng_double(&rng), r->sums[r->sums_n - 1] / (double)r->total};
}

static double tooth(const struct comb *c, uint64_t v) {
    return ((double)v + c->shift) * c->width;
}

/* The first v whose point does not lie before x. A first guess by division is at most a rounding
 * away. */
static uint64_t first_at(const struct sm_rebalance *r, const struct comb *c, double x) {
    const double guess = ceil(x / c->width - c->shift);
    uint64_t v = guess <= 0 ? 0 : guess >= (double)r->total ? r->total : (uint64_t)guess;
    while (v > 0 && tooth(c, v - 1) >= x)
        v--;
    while (v < r->total && tooth(c, v) < x)
        v++;
    return v;
}

static double sum_before(const struct sm_rebalance *r, uint64_t k) {
    return k > 0 ? r->sums[k - 1] : 0;
}

static struct sm_drawn of_sums(const struct sm_rebalance *r, uint32_t epoch, uint64_t v) {
    const struct comb c = comb_of(r, epoch);
    /* rounding may carry the last point to the end, where rows of weight 0 lie */
    const double x = fmin(tooth(&c, v), nextafter(r->sums[r->sums_n - 1], 0));
    uint64_t low = 0, high = r->sums_n - 1; /* the first row whose sum lies beyond x */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (r->sums[middle] > x)
            high = middle;
        else
            low = middle + 1;
    }
    const uint64_t first = first_at(r, &c, sum_before(r, low));
    struct sm_drawn d = {.k = low, .copy = (uint32_t)(v > first ? v - first : 0)};
    d.added = d.copy > 0;
    return d;
}

double sm_rebalance_importance(const struct sm_rebalance *r, const struct sm_drawn *d) {
    if (r->method != SM_REBALANCE_ROWS) return r->of[d->label].importance;
    const double weight = r->sums[d->k] - sum_before(r, d->k);
    return r->sums[r->sums_n - 1] / weight / (double)r->sums_n;
}

uint64_t sm_rebalance_row_count(const struct sm_rebalance *r, uint32_t epoch, uint64_t k) {
    const double all = r->sums[r->sums_n - 1];
    if (r->sums[k] <= sum_before(r, k)) return 0;
    const struct comb c = comb_of(r, epoch);
    const uint64_t end = r->sums[k] >= all ? r->total : first_at(r, &c, r->sums[k]);
    return end - first_at(r, &c, sum_before(r, k));
}
