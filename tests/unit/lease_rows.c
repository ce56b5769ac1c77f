/* Leases of a table: what stands in a batch of rows where the plan's own row cannot be taken, and
 * with which weight. */
#include "tests/unit/tables.h"
#include "workers/features.h"
#include "workers/lease.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS = 40, DRAWS = 200 };

static double weight_at(int row) {
    return (row % 4 + 1) * 0.5;
}

/* Classes a: 32, b: 8; the column of weights is 0.5, 1, 1.5, 2 in turn. */
static void table_open(struct data *d, const char *rest) {
    char text[ROWS * 32];
    size_t n = (size_t)sprintf(text, "x,w,y\n");
    for (int i = 0; i < ROWS; i++)
        n += (size_t)sprintf(text + n, "%d,%g,%s\n", i, weight_at(i), i % 5 == 3 ? "b" : "a");
    scratch_text(&d->s, "t.csv", text);
    data_open(d, "t.csv", ", format: csv, label: y", rest);
    if (data_place(d, SM_PART_TRAIN, NULL) != 0) fail_msg("%s", d->err.text);
}

/* A whole epoch and `padding` more as one batch; the caller frees. */
static uint8_t *batch_make(struct data *d, uint32_t epoch, uint32_t padding, const uint64_t *skip,
                           size_t n_skip, struct sm_batch_header *h) {
    struct sm_features *f = NULL;
    struct sm_lease *l = NULL;
    struct sm_err *err = &d->err;
    if (sm_features_new(&f, &d->p, d->p.n_ops, d->index, "", err) != 0 ||
        sm_features_layout(&d->p, f, (uint32_t)sm_places_samples(d->places) + padding, h, err) != 0)
        fail_msg("%s", err->text);
    h->epoch = epoch;
    uint8_t *memory = aligned_alloc(SM_BATCH_ALIGN, h->bytes);
    memset(memory, 0xa5, h->bytes);
    const struct sm_lease_job job = {.pipeline = &d->p,
                                     .index = d->index,
                                     .places = d->places,
                                     .features = f,
                                     .table = d->table,
                                     .plan = {.samples = sm_places_samples(d->places),
                                              .copies = 1,
                                              .shuffle = true,
                                              .seed = (uint64_t)d->p.seed,
                                              .shard_samples = 100}};
    const struct sm_batch_place place = {.memory = memory, .header = *h};
    const struct sm_range range = {
        .part = {.count = h->count}, .batch = &place, .skip = skip, .n_skip = n_skip};
    char digest[SM_XXH_HEX], again[SM_XXH_HEX];
    int made = sm_lease_start(&l, &job, &range, err);
    while (made == 0)
        made = sm_lease_step(l, err);
    if (made < 0) fail_msg("%s", err->text);
    sm_lease_finish_batch(l, digest);
    sm_batch_digest(memory, again);
    assert_string_equal(digest, again);
    sm_lease_free(&l);
    sm_features_free(&f);
    return memory;
}

static const float *weights_of(const uint8_t *memory, const struct sm_batch_header *h) {
    return (const float *)(const void *)(memory + h->weight);
}

static void a_substitute_has_the_weight_of_the_row_that_was_planned(void **state) {
    (void)state;
    struct data d = data_make();
    struct sm_batch_header h;
    const uint64_t skip[] = {3, 17, 90};
    const uint32_t padding = 5;
    table_open(&d, "rebalance: {WeightedSampler: {weights: w, num_samples: 200}}\n"
                   "output: {weights: true}\n");
    uint8_t *plain = batch_make(&d, 1, padding, NULL, 0, &h),
            *hurt = batch_make(&d, 1, padding, skip, 3, &h);
    const uint64_t *planned = (const uint64_t *)(const void *)(plain + h.index),
                   *filled = (const uint64_t *)(const void *)(hurt + h.index);
    double sum = 0;
    bool another = false;
    for (uint32_t i = 0; i < DRAWS; i++) {
        const float weight = weights_of(hurt, &h)[i];
        const double want = (1.0 / ROWS) / (weight_at((int)planned[i]) / (1.25 * ROWS));
        assert_true(fabs((double)weight / want - 1) < 1e-6);
        if (i == 3 || i == 17 || i == 90) {
            assert_int_equal(hurt[h.flags + i], SM_BATCH_SUBSTITUTE);
            assert_int_not_equal(planned[i], filled[i]);
            another |= weight_at((int)planned[i]) != weight_at((int)filled[i]);
        }
        sum += (double)weight;
    }
    assert_true(another); /* else nothing was shown */
    assert_true(fabs(sum / DRAWS - 1) < 0.25);
    for (uint32_t i = DRAWS; i < DRAWS + padding; i++)
        assert_true(weights_of(hurt, &h)[i] == 0);
    assert_memory_equal(weights_of(plain, &h), weights_of(hurt, &h), h.count * sizeof(float));
    free(hurt);
    free(plain);
    data_done(&d);
}

/* Whether weights are asked for decides what lies behind the flags, and nothing before. */
static void rows_are_the_same_with_and_without_weights(void **state) {
    (void)state;
    static const char *const methods[] = {"RandomOverSampler: {}", "WeightedSampler: {weights: w}"};
    struct data d = data_make();
    for (int k = 0; k < 2; k++) {
        struct sm_batch_header with, without;
        char rest[200];
        snprintf(rest, sizeof rest, "rebalance: {%s}\noutput: {weights: true}\n", methods[k]);
        table_open(&d, rest);
        uint8_t *a = batch_make(&d, 2, 0, NULL, 0, &with);
        snprintf(rest, sizeof rest, "rebalance: {%s}\n", methods[k]);
        table_open(&d, rest);
        uint8_t *b = batch_make(&d, 2, 0, NULL, 0, &without);
        assert_int_equal(without.weight, 0);
        assert_int_equal(with.weight, without.bytes);
        assert_memory_equal(a + SM_BATCH_HEADER, b + SM_BATCH_HEADER,
                            without.bytes - SM_BATCH_HEADER);
        free(a);
        free(b);
    }
    data_done(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_substitute_has_the_weight_of_the_row_that_was_planned),
        cmocka_unit_test(rows_are_the_same_with_and_without_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
