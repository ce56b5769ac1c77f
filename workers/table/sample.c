/* A heap of (key, row) in a fit's partial, the cells beside it. */
#include "workers/table/sample.h"

#include "lib/rng.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static size_t row_bytes(size_t columns, bool is_double) {
    return columns * (is_double ? sizeof(double) : sizeof(float));
}

static uint8_t *cells(struct sm_sample *s, size_t places) {
    return (uint8_t *)&s->of[places];
}

size_t sm_sample_bytes(size_t places, size_t columns, bool is_double) {
    const struct sm_sample *s = NULL;
    const size_t bytes = sizeof *s + places * (sizeof s->of[0] + row_bytes(columns, is_double));
    return (bytes + 7) / 8 * 8;
}

static bool later(const struct sm_sample *s, size_t a, size_t b) {
    return s->of[a].key > s->of[b].key ||
           (s->of[a].key == s->of[b].key && s->of[a].row > s->of[b].row);
}

static bool swap_if_later(struct sm_sample *s, size_t child, size_t parent) {
    if (!later(s, child, parent)) return false;
    const __typeof__(s->of[0]) kept = s->of[child];
    s->of[child] = s->of[parent];
    s->of[parent] = kept;
    return true;
}

static void sift_down(struct sm_sample *s) {
    for (size_t at = 0, child; (child = 2 * at + 1) < s->n; at = child) {
        if (child + 1 < s->n && later(s, child + 1, child)) child++;
        if (!swap_if_later(s, child, at)) return;
    }
}

static void offer(struct sm_sample *s, size_t places, uint64_t key, uint64_t row, const void *from,
                  size_t bytes) {
    if (s->n == places && (key > s->of[0].key || (key == s->of[0].key && row > s->of[0].row)))
        return;
    const bool grows = s->n < places;
    const size_t at = grows ? s->n++ : 0, place = grows ? at : s->of[0].place;
    s->of[at].key = key;
    s->of[at].row = row;
    s->of[at].place = place;
    memcpy(cells(s, places) + place * bytes, from, bytes);
    if (grows)
        for (size_t i = at; i > 0 && swap_if_later(s, i, (i - 1) / 2);)
            i = (i - 1) / 2;
    else
        sift_down(s);
}

void sm_sample_add(struct sm_sample *s, size_t places, const struct sm_rows *block, uint64_t first,
                   uint64_t seed) {
    const size_t bytes = row_bytes(block->columns, block->is_double);
    for (size_t i = 0; i < block->n; i++) {
        struct sm_rng rng = sm_rng_op(seed, 0, first + i, 0, SM_RNG_SAMPLE);
        const uint64_t low = sm_rng_u32(&rng), key = low | (uint64_t)sm_rng_u32(&rng) << 32;
        offer(s, places, key, first + i, (const uint8_t *)block->data + i * bytes, bytes);
    }
}

void sm_sample_merge(struct sm_sample *s, size_t places, size_t columns, bool is_double,
                     const struct sm_sample *other) {
    const size_t bytes = row_bytes(columns, is_double);
    const uint8_t *from = (const uint8_t *)&other->of[places];
    for (size_t i = 0; i < other->n; i++)
        offer(s, places, other->of[i].key, other->of[i].row, from + other->of[i].place * bytes,
              bytes);
}

static int by_row(const void *a, const void *b) {
    const struct sm_sample *s = NULL;
    const __typeof__(s->of[0]) *x = a, *y = b;
    return x->row < y->row ? -1 : x->row > y->row;
}

void sm_sample_rows(struct sm_sample *s, size_t places, struct sm_rows *out) {
    const size_t bytes = row_bytes(out->columns, out->is_double);
    assert(out->n == s->n);
    qsort(s->of, s->n, sizeof s->of[0], by_row);
    for (size_t i = 0; i < s->n; i++)
        memcpy((uint8_t *)out->data + i * bytes, cells(s, places) + s->of[i].place * bytes, bytes);
}
