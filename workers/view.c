/* Splits a dataset and finds its way in a part: a bit for each sample, and running counts over
 * blocks of bits, so that the i-th set bit is found by halving. */
#include "workers/view.h"

#include "lib/permutation.h"
#include "lib/rng.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    WORDS = 8,
    BITS = 64,
    FRACTION = 1000000, /* finer than what rounding leaves of val x 2^32 */
    HINT_BYTES = 160
};

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
    assert(bitmap_total(&v->in) > 0); /* a split that leaves a part empty is refused before */
    return 0;
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
    struct sm_rng rng = sm_rng_op(seed, 0, label, 0, SM_RNG_SPLIT);
    uint64_t key = sm_rng_u32(&rng);
    return key << 32 | sm_rng_u32(&rng);
}

/* The smallest share of two digits of which n samples make at least `of`. */
static double share_of(uint64_t of, uint64_t n) {
    const double share = (double)of / (double)n, digit = pow(10, floor(log10(share)) - 1);
    return ceil(share / digit - 1e-9) * digit;
}

/* Both parts have samples, or nothing would be learned, or nothing measured. */
static int check_held(const struct sm_view *v, const struct sm_pipeline_split *split, uint64_t held,
                      const char *hint, struct sm_err *err) {
    const uint64_t n = sm_index_samples(v->index);
    if (held > 0 && held < n) return 0;
    return sm_fail(err, SM_E_PIPELINE,
                   "split: no sample is left for the %s part of %llu sample%s with val: %g (hint: "
                   "%s)",
                   held == 0 ? "val" : "train", (unsigned long long)n, n == 1 ? "" : "s",
                   split->val, n == 1 ? "one sample cannot be split: val: 0" : hint);
}

/* The first samples of a keyed order: of a class, or of all. */
static void hold_first(const struct sm_view *v, bool of_class, uint32_t label, uint64_t out,
                       uint64_t seed, struct bitmap *val) {
    const uint64_t n =
        of_class ? sm_index_class_samples(v->index, label) : sm_index_samples(v->index);
    if (out == 0) return;
    struct sm_permutation order = sm_permutation_make(n, split_key(seed, label), 0);
    for (uint64_t i = 0; i < out; i++) {
        uint64_t k = sm_permutation_at(&order, i);
        bitmap_set(val, of_class ? sm_index_class_sample(v->index, label, k) : k);
    }
}

/* What a class gives. */
struct quota {
    uint64_t out, key;
    uint32_t label, fraction; /* of its share, in units of 1 / FRACTION */
};

/* The largest fraction first; equal ones in an order that the seed decides. */
static int quota_compare(const void *a, const void *b) {
    const struct quota *x = a, *y = b;
    if (x->fraction != y->fraction) return x->fraction > y->fraction ? -1 : 1;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->label < y->label ? -1 : x->label > y->label;
}

/* Fills q, in no order that means anything, and gives the sum. Together the classes give `wanted`,
 * each its share rounded down or one more, as scikit-learn's stratified splits do: those with the
 * largest fractions one more. No class gives its last sample; when that leaves too few that could
 * give one more, the sum is less. */
static uint64_t share_out(const struct sm_view *v, double val, uint64_t seed, uint64_t wanted,
                          struct quota *q) {
    const uint32_t classes = sm_index_classes(v->index);
    uint64_t sum = 0;
    for (uint32_t c = 0; c < classes; c++) {
        const uint64_t n = sm_index_class_samples(v->index, c);
        const double share = val * (double)n, whole = floor(share + 0.5 / FRACTION);
        q[c] = (struct quota){.out = (uint64_t)whole, .key = split_key(seed, c), .label = c};
        if (share > whole) q[c].fraction = (uint32_t)((share - whole) * FRACTION + 0.5);
        if (n > 0 && q[c].out >= n) q[c].out = n - 1;
        sum += q[c].out;
    }
    qsort(q, classes, sizeof *q, quota_compare);
    for (uint32_t i = 0; i < classes && sum < wanted; i++) {
        if (q[i].out + 1 >= sm_index_class_samples(v->index, q[i].label)) continue;
        q[i].out++;
        sum++;
    }
    return sum;
}

static int hold_out(struct sm_view *v, const struct sm_pipeline_split *split, uint64_t seed,
                    struct bitmap *val, struct sm_err *err) {
    const uint32_t classes = sm_index_classes(v->index);
    const uint64_t n = sm_index_samples(v->index),
                   wanted = (uint64_t)floor(split->val * (double)n + 0.5);
    struct quota *q = NULL;
    uint64_t held = wanted;
    if (split->stratify) {
        q = calloc(classes, sizeof *q);
        if (q == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        held = share_out(v, split->val, seed, wanted, q);
    }
    char hint[HINT_BYTES];
    bool single = true; /* each class has one sample */
    for (uint32_t c = 0; c < classes; c++)
        single = single && sm_index_class_samples(v->index, c) <= 1;
    const double share = wanted == 0 ? share_of(1, n) : wanted == n ? 0.5 : split->val;
    if (split->stratify && single)
        snprintf(hint, sizeof hint,
                 "each class has one sample, which stays in training: stratify: false, val: %g",
                 share);
    else
        snprintf(hint, sizeof hint, "val: %g", share);
    int failed = check_held(v, split, held, hint, err);
    for (uint32_t i = 0; !failed && q != NULL && i < classes; i++)
        hold_first(v, true, q[i].label, q[i].out, seed, val);
    if (!failed && q == NULL) hold_first(v, false, 0, held, seed, val);
    free(q);
    return failed;
}

struct member {
    uint64_t key, sample; /* key: of its group, mixed with the seed */
};

static int member_compare(const void *a, const void *b) {
    const struct member *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->sample < y->sample ? -1 : x->sample > y->sample;
}

/* How far the held-out counts of the classes, and that of all, would be from what is wanted, with
 * one group more. Of many small classes only the sum tells that something is to be held out. */
static double misses(const double *want, const uint64_t *held, const uint64_t *more, uint32_t n) {
    double sum = 0, all = 0;
    for (uint32_t c = 0; c < n; c++) {
        const double miss = want[c] - (double)held[c] - (more != NULL ? (double)more[c] : 0);
        sum += fabs(miss);
        all += miss;
    }
    return sum + fabs(all);
}

/* With half of the samples wanted, two groups always come apart; with as many as the smallest group
 * has and no classes, at least that is held out. */
static int check_groups(const struct sm_view *v, const struct sm_pipeline_split *split,
                        uint64_t held, uint64_t groups, uint64_t smallest, struct sm_err *err) {
    char hint[HINT_BYTES];
    const uint64_t n = sm_index_samples(v->index);
    if (groups == 1)
        snprintf(hint, sizeof hint, "'by' names a column of one value: another one, or none");
    else if (held > 0)
        snprintf(hint, sizeof hint, "there are %llu groups by '%.40s': val: 0.5",
                 (unsigned long long)groups, split->by);
    else
        snprintf(hint, sizeof hint,
                 "there are %llu groups by '%.40s', the smallest of %llu: %sval: %g",
                 (unsigned long long)groups, split->by, (unsigned long long)smallest,
                 split->stratify ? "stratify: false, " : "", share_of(smallest, n));
    return check_held(v, split, held, hint, err);
}

/* Groups in a keyed order; one is held out whole when that brings the counts nearer to the share
 * (of each class, with stratify, and of all): so they are near, and not exact. */
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
        const uint32_t counter[4] = {(uint32_t)group, (uint32_t)(group >> 32), SM_RNG_SPLIT, 0},
                       key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
        uint32_t mixed[4];
        sm_philox(
            counter, key,
            mixed); /* its first 64 bits: two of a million groups meet once in 10^7 datasets */
        members[i] = (struct member){(uint64_t)mixed[0] << 32 | mixed[1], i};
        want[split->stratify ? sm_index_label(v->index, i) : 0] += split->val;
    }
    if (!failed) qsort(members, n, sizeof *members, member_compare);
    uint64_t out = 0, groups = 0, smallest = n;
    for (uint64_t first = 0, end; !failed && first < n; first = end) {
        for (uint32_t c = 0; c < classes; c++)
            more[c] = 0;
        for (end = first; end < n && members[end].key == members[first].key; end++)
            more[split->stratify ? sm_index_label(v->index, members[end].sample) : 0]++;
        groups++;
        if (end - first < smallest) smallest = end - first;
        if (misses(want, held, more, classes) >= misses(want, held, NULL, classes)) continue;
        for (uint64_t i = first; i < end; i++)
            bitmap_set(val, members[i].sample);
        for (uint32_t c = 0; c < classes; c++)
            held[c] += more[c];
        out += end - first;
    }
    if (!failed) failed = check_groups(v, split, out, groups, smallest, err);
    free(members);
    free(want);
    free(held);
    return failed;
}
