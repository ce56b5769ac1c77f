/* Splits a dataset and finds its way in a part: a bit for each sample, and running counts over
 * blocks of bits, so that the i-th set bit is found by halving. */
#include "workers/view.h"

#include "lib/permutation.h"
#include "lib/rng.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

enum { WORDS = 8, BITS = 64, STREAM_SPLIT = 0x53500000 };

struct bitmap {
    uint64_t n;
    uint64_t *words, *before; /* before: set bits ahead of each block of WORDS words */
};

struct sm_view {
    const struct sm_index *index;
    bool whole;                 /* no split */
    struct bitmap in, by_class; /* over samples; over samples sorted by class */
    uint64_t *class_first;      /* of each class in by_class; one more for the end */
    uint64_t *class_before;     /* set bits ahead of it */
};

static int hold_out(struct sm_view *v, const struct sm_pipeline_split *split, uint64_t seed,
                    struct bitmap *val, struct sm_err *err);
static int hold_out_groups(struct sm_view *v, const struct sm_pipeline_split *split, uint64_t seed,
                           struct bitmap *val, struct sm_err *err);

/* --- bitmaps ---------------------------------------------------------------------------------- */

static int bitmap_new(struct bitmap *b, uint64_t n, struct sm_err *err) {
    const uint64_t blocks = n / (WORDS * BITS) + 1;
    b->n = n;
    b->words = calloc(blocks * WORDS, sizeof *b->words);
    b->before = calloc(blocks + 1, sizeof *b->before);
    if (b->words != NULL && b->before != NULL) return 0;
    return sm_fail(err, SM_E_MEMORY, "no memory to split %llu samples", (unsigned long long)n);
}

static void bitmap_free(struct bitmap *b) {
    free(b->words);
    free(b->before);
}

static void bitmap_set(struct bitmap *b, uint64_t i) {
    b->words[i / BITS] |= UINT64_C(1) << i % BITS;
}

static bool bitmap_has(const struct bitmap *b, uint64_t i) {
    return b->words[i / BITS] >> i % BITS & 1;
}

static void bitmap_count(struct bitmap *b) {
    const uint64_t blocks = b->n / (WORDS * BITS) + 1;
    for (uint64_t k = 0; k < blocks; k++) {
        uint64_t n = 0;
        for (int w = 0; w < WORDS; w++)
            n += (uint64_t)__builtin_popcountll(b->words[k * WORDS + w]);
        b->before[k + 1] = b->before[k] + n;
    }
}

static uint64_t bitmap_total(const struct bitmap *b) {
    return b->before[b->n / (WORDS * BITS) + 1];
}

/* Set bits ahead of i. */
static uint64_t bitmap_rank(const struct bitmap *b, uint64_t i) {
    uint64_t n = b->before[i / (WORDS * BITS)];
    for (uint64_t w = i / (WORDS * BITS) * WORDS; w < i / BITS; w++)
        n += (uint64_t)__builtin_popcountll(b->words[w]);
    const uint64_t below = i % BITS == 0 ? 0 : b->words[i / BITS] << (BITS - i % BITS);
    return n + (uint64_t)__builtin_popcountll(below);
}

/* Where the i-th set bit is. */
static uint64_t bitmap_select(const struct bitmap *b, uint64_t i) {
    uint64_t low = 0, high = b->n / (WORDS * BITS) + 1;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (b->before[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    uint64_t left = i - b->before[low], w = low * WORDS;
    for (uint64_t n; (n = (uint64_t)__builtin_popcountll(b->words[w])) <= left; w++)
        left -= n;
    uint64_t word = b->words[w];
    for (; left > 0; left--)
        word &= word - 1;
    return w * BITS + (uint64_t)__builtin_ctzll(word);
}

/* --- the view --------------------------------------------------------------------------------- */

static int bitmaps_fill(struct sm_view *v, const struct bitmap *val, int part, struct sm_err *err) {
    const uint64_t n = sm_index_samples(v->index);
    const uint32_t classes = sm_index_classes(v->index);
    if (bitmap_new(&v->in, n, err) != 0 || bitmap_new(&v->by_class, n, err) != 0) return -1;
    v->class_before = calloc((size_t)classes + 1, sizeof *v->class_before);
    if (v->class_before == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < classes; c++)
        for (uint64_t k = 0; k < sm_index_class_samples(v->index, c); k++) {
            uint64_t sample = sm_index_class_sample(v->index, c, k);
            if (bitmap_has(val, sample) != (part == SM_PART_VAL)) continue;
            bitmap_set(&v->in, sample);
            bitmap_set(&v->by_class, v->class_first[c] + k);
        }
    bitmap_count(&v->in);
    bitmap_count(&v->by_class);
    for (uint32_t c = 0; c <= classes; c++)
        v->class_before[c] = bitmap_rank(&v->by_class, v->class_first[c]);
    if (bitmap_total(&v->in) > 0) return 0;
    return sm_fail(err, SM_E_PIPELINE, "split: no sample is left for the %s part of %llu samples",
                   part == SM_PART_VAL ? "val" : "train", (unsigned long long)n);
}

int sm_view_new(struct sm_view **gives, const struct sm_index *index,
                const struct sm_pipeline_split *split, uint64_t seed, int part,
                struct sm_err *err) {
    const uint32_t classes = sm_index_classes(index);
    struct sm_view *v = calloc(1, sizeof *v);
    struct bitmap val = {0};
    *gives = NULL;
    if (v == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    v->index = index;
    v->whole = split->val == 0;
    v->class_first = calloc((size_t)classes + 1, sizeof *v->class_first);
    int failed = v->class_first == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    for (uint32_t c = 0; !failed && c < classes; c++)
        v->class_first[c + 1] = v->class_first[c] + sm_index_class_samples(index, c);
    if (!failed && !v->whole) {
        failed = bitmap_new(&val, sm_index_samples(index), err);
        if (!failed)
            failed = split->by != NULL ? hold_out_groups(v, split, seed, &val, err)
                                       : hold_out(v, split, seed, &val, err);
        if (!failed) failed = bitmaps_fill(v, &val, part, err);
        bitmap_free(&val);
    }
    if (failed) {
        sm_view_free(&v);
        return -1;
    }
    *gives = v;
    return 0;
}

void sm_view_free(struct sm_view **vp) {
    struct sm_view *v = *vp;
    if (v == NULL) return;
    bitmap_free(&v->in);
    bitmap_free(&v->by_class);
    free(v->class_first);
    free(v->class_before);
    free(v);
    *vp = NULL;
}

uint64_t sm_view_samples(const struct sm_view *v) {
    return v->whole ? sm_index_samples(v->index) : bitmap_total(&v->in);
}

uint64_t sm_view_sample(const struct sm_view *v, uint64_t i) {
    assert(i < sm_view_samples(v));
    return v->whole ? i : bitmap_select(&v->in, i);
}

uint64_t sm_view_class_samples(const struct sm_view *v, uint32_t label) {
    if (v->whole) return sm_index_class_samples(v->index, label);
    return v->class_before[label + 1] - v->class_before[label];
}

uint64_t sm_view_class_sample(const struct sm_view *v, uint32_t label, uint64_t k) {
    assert(k < sm_view_class_samples(v, label));
    if (v->whole) return sm_index_class_sample(v->index, label, k);
    uint64_t at = bitmap_select(&v->by_class, v->class_before[label] + k);
    return sm_index_class_sample(v->index, label, at - v->class_first[label]);
}

/* --- splitting -------------------------------------------------------------------------------- */

static uint64_t split_key(uint64_t seed, uint32_t label) {
    struct sm_rng rng = sm_rng_op(seed, 0, label, 0, STREAM_SPLIT);
    uint64_t key = sm_rng_u32(&rng);
    return key << 32 | sm_rng_u32(&rng);
}

/* Of each class, or of all, the first of a keyed order: the counts are exact. */
static int hold_out(struct sm_view *v, const struct sm_pipeline_split *split, uint64_t seed,
                    struct bitmap *val, struct sm_err *err) {
    const uint32_t classes = split->stratify ? sm_index_classes(v->index) : 1;
    for (uint32_t c = 0; c < classes; c++) {
        uint64_t n =
            split->stratify ? sm_index_class_samples(v->index, c) : sm_index_samples(v->index);
        uint64_t out = (uint64_t)floor(split->val * (double)n + 0.5);
        if (n == 0) continue;
        if (split->stratify && out == n)
            return sm_fail(err, SM_E_PIPELINE,
                           "split: class '%s' has %llu sample%s, so none is left for training",
                           sm_index_class(v->index, c), (unsigned long long)n, n == 1 ? "" : "s");
        struct sm_permutation order = sm_permutation_make(n, split_key(seed, c), 0);
        for (uint64_t i = 0; i < out; i++) {
            uint64_t k = sm_permutation_at(&order, i);
            bitmap_set(val, split->stratify ? sm_index_class_sample(v->index, c, k) : k);
        }
    }
    return 0;
}

struct member {
    uint64_t key, sample; /* key: of its group, mixed with the seed */
};

static int member_compare(const void *a, const void *b) {
    const struct member *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->sample < y->sample ? -1 : x->sample > y->sample;
}

/* How far the held-out counts of the classes would be from what is wanted, with one group more. */
static double misses(const double *want, const uint64_t *held, const uint64_t *more, uint32_t n) {
    double sum = 0;
    for (uint32_t c = 0; c < n; c++)
        sum += fabs(want[c] - (double)held[c] - (more != NULL ? (double)more[c] : 0));
    return sum;
}

/* Groups in a keyed order; one is held out whole when that brings the counts nearer to the share
 * (of each class with stratify): so they are as near as whole groups allow, and not exact. */
static int hold_out_groups(struct sm_view *v, const struct sm_pipeline_split *split, uint64_t seed,
                           struct bitmap *val, struct sm_err *err) {
    const uint64_t n = sm_index_samples(v->index);
    const uint32_t classes = split->stratify ? sm_index_classes(v->index) : 1;
    struct member *members = calloc(n, sizeof *members);
    double *want = calloc(classes, sizeof *want);
    uint64_t *held = calloc(2 * (size_t)classes, sizeof *held), *more = held + classes;
    int failed = members == NULL || want == NULL || held == NULL
                     ? sm_fail(err, SM_E_MEMORY, "no memory to split by groups")
                     : 0;
    for (uint64_t i = 0; !failed && i < n; i++) {
        const uint64_t group = sm_index_group(v->index, i);
        const uint32_t counter[4] = {(uint32_t)group, (uint32_t)(group >> 32), STREAM_SPLIT, 0},
                       key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
        uint32_t mixed[4];
        sm_philox(
            counter, key,
            mixed); /* its first 64 bits: two of a million groups meet once in 10^7 datasets */
        members[i] = (struct member){(uint64_t)mixed[0] << 32 | mixed[1], i};
        want[split->stratify ? sm_index_label(v->index, i) : 0] += split->val;
    }
    if (!failed) qsort(members, n, sizeof *members, member_compare);
    for (uint64_t first = 0, end; !failed && first < n; first = end) {
        for (uint32_t c = 0; c < classes; c++)
            more[c] = 0;
        for (end = first; end < n && members[end].key == members[first].key; end++)
            more[split->stratify ? sm_index_label(v->index, members[end].sample) : 0]++;
        if (misses(want, held, more, classes) >= misses(want, held, NULL, classes)) continue;
        for (uint64_t i = first; i < end; i++)
            bitmap_set(val, members[i].sample);
        for (uint32_t c = 0; c < classes; c++)
            held[c] += more[c];
    }
    free(members);
    free(want);
    free(held);
    return failed;
}
