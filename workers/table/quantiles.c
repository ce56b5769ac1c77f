/* Order statistics by radix: a number's bits, with the sign turned, sort as the numbers do; what is
 * wanted is the value of a rank, found eight bits a round from the top. */
#include "workers/table/quantiles.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum { BINS = 256 };

/* The state: this head, counts of the columns, then targets: two order statistics a quantile. */
struct head {
    uint32_t round; /* 0: cells are counted; then bits */
    uint32_t reserved;
};

struct target {
    uint64_t prefix, rank; /* bits found so far; rank among the values that begin with them */
};

static size_t targets_of(const struct sm_fit_context *c, const struct sm_quantiles *q) {
    return c->in->n * q->n * 2;
}

static uint64_t *counts_at(const struct sm_buf *state) {
    return (uint64_t *)(void *)(state->data + sizeof(struct head));
}

static struct target *targets_at(const struct sm_fit_context *c, const struct sm_buf *state) {
    return (struct target *)(void *)(counts_at(state) + c->in->n);
}

static uint32_t round_of(const struct sm_buf *state) {
    struct head head;
    memcpy(&head, state->data, sizeof head);
    return head.round;
}

static int bits_of(const struct sm_fit_context *c) {
    return c->in->is_double ? 64 : 32;
}

int sm_quantiles_begin(const struct sm_fit_context *c, const struct sm_quantiles *q,
                       struct sm_buf *state, struct sm_err *err) {
    assert(q->n > 0 && q->n <= SM_QUANTILES_MAX);
    const size_t bytes = sizeof(struct head) + c->in->n * sizeof(uint64_t) +
                         targets_of(c, q) * sizeof(struct target);
    char *room = sm_buf_room(state, bytes);
    if (room == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for quantiles");
    memset(room, 0, bytes);
    state->len += bytes;
    return 0;
}

size_t sm_quantiles_partial(const struct sm_fit_context *c, const struct sm_quantiles *q,
                            const struct sm_buf *state) {
    const size_t cells = round_of(state) == 0 ? c->in->n : targets_of(c, q) * BINS;
    return cells * sizeof(uint64_t);
}

/* The bits of a number in an order in which they sort as unsigned ones. */
static uint64_t key_of(const struct sm_rows *block, size_t at) {
    if (block->is_double) {
        uint64_t u;
        double x = block->f64[at] + 0.0; /* -0 is 0 */
        memcpy(&u, &x, sizeof u);
        return u >> 63 ? ~u : u | UINT64_C(1) << 63;
    }
    uint32_t u;
    float x = block->f32[at] + 0.0f;
    memcpy(&u, &x, sizeof u);
    return u >> 31 ? (uint32_t)~u : u | UINT32_C(1) << 31;
}

static double value_of(const struct sm_fit_context *c, uint64_t key) {
    if (c->in->is_double) {
        uint64_t u = key >> 63 ? key & ~(UINT64_C(1) << 63) : ~key;
        double x;
        memcpy(&x, &u, sizeof x);
        return x;
    }
    uint32_t k = (uint32_t)key, u = k >> 31 ? k & ~(UINT32_C(1) << 31) : ~k;
    float x;
    memcpy(&x, &u, sizeof x);
    return (double)x;
}

void sm_quantiles_map(const struct sm_fit_context *c, const struct sm_quantiles *q,
                      const struct sm_buf *state, const struct sm_rows *block, void *partial) {
    const size_t columns = c->in->n, each = q->n * 2;
    const uint32_t round = round_of(state);
    uint64_t *counts = partial;
    const struct target *targets = targets_at(c, state);
    const int shift = bits_of(c) - 8 * (int)round; /* of the bits that this round counts */
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < columns; k++) {
            const size_t at = i * columns + k;
            if (block->is_double ? isnan(block->f64[at]) : isnan(block->f32[at])) continue;
            if (round == 0) {
                counts[k]++;
                continue;
            }
            const uint64_t key = key_of(block, at), bin = key >> shift & (BINS - 1),
                           above = shift + 8 == 64 ? 0 : key >> (shift + 8);
            for (size_t t = k * each; t < (k + 1) * each; t++)
                if (targets[t].prefix == above) counts[t * BINS + bin]++;
        }
}

void sm_quantiles_merge(const struct sm_fit_context *c, const struct sm_quantiles *q,
                        const struct sm_buf *state, void *into, const void *other) {
    const size_t n = sm_quantiles_partial(c, q, state) / sizeof(uint64_t);
    for (size_t i = 0; i < n; i++)
        ((uint64_t *)into)[i] += ((const uint64_t *)other)[i];
}

/* numpy's virtual index of a quantile: whole part and rest. */
static uint64_t index_of(double q, uint64_t n, double *rest) {
    const double at = q * (double)(n - 1), whole = floor(at);
    *rest = at - whole;
    return (uint64_t)whole;
}

static void ranks_set(const struct sm_fit_context *c, const struct sm_quantiles *q,
                      struct sm_buf *state, const uint64_t *counts) {
    struct target *t = targets_at(c, state);
    memcpy(counts_at(state), counts, c->in->n * sizeof *counts);
    for (size_t k = 0; k < c->in->n; k++)
        for (size_t i = 0; i < q->n; i++, t += 2) {
            double rest;
            if (counts[k] == 0) continue;
            t[0].rank = index_of(q->q[i], counts[k], &rest);
            t[1].rank = t[0].rank + 1 < counts[k] ? t[0].rank + 1 : t[0].rank;
        }
}

bool sm_quantiles_next(const struct sm_fit_context *c, const struct sm_quantiles *q,
                       struct sm_buf *state, const void *merged, double *out, double *found) {
    const uint64_t *counts = merged;
    const uint32_t round = round_of(state);
    struct target *targets = targets_at(c, state);
    if (round == 0) ranks_set(c, q, state, counts);
    for (size_t t = 0; round > 0 && t < targets_of(c, q); t++) {
        uint64_t bin = 0;
        for (; bin < BINS - 1 && targets[t].rank >= counts[t * BINS + bin]; bin++)
            targets[t].rank -= counts[t * BINS + bin];
        targets[t].prefix = targets[t].prefix << 8 | bin;
    }
    const struct head head = {.round = round + 1};
    memcpy(state->data, &head, sizeof head);
    if ((int)round * 8 < bits_of(c)) return false;
    for (size_t k = 0; k < c->in->n; k++) {
        const uint64_t n = counts_at(state)[k];
        found[k] = (double)n;
        for (size_t i = 0; i < q->n; i++) {
            const struct target *t = &targets[(k * q->n + i) * 2];
            double rest, low = value_of(c, t[0].prefix), high = value_of(c, t[1].prefix);
            if (n > 0) index_of(q->q[i], n, &rest);
            out[k * q->n + i] = n == 0       ? NAN
                                : rest < 0.5 ? low + (high - low) * rest
                                             : high - (high - low) * (1 - rest);
        }
    }
    return true;
}
