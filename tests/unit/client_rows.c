/* Batches of rows, and the counts of classes: what a trainer of a table sees. */
#include "tests/unit/client_fake.h"

static void a_batch_of_rows_is_a_matrix(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->columns = 30;
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v;
    assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_BATCH);
    assert_int_equal(v.type, SM_FLOAT64);
    assert_int_equal(v.ndim, 2);
    const int64_t shape[4] = {f->batch_size, 30, 1, 1};
    assert_memory_equal(v.shape, shape, sizeof shape);
    assert_int_equal(v.data_bytes, f->batch_size * 30 * sizeof(double));
    char info[16384];
    assert_true(sm_info(l, info, sizeof info) > 0);
    char want[100];
    snprintf(want, sizeof want, "\"shape\":[%u,30],\"dtype\":\"float64\",\"layout\":\"ROWS\"",
             f->batch_size);
    if (strstr(info, want) == NULL) fail_msg("%s\nhas not\n%s", info, want);
    assert_int_equal(sm_release(l, &v), 0);
    sm_close(&l);
    fake_stop(f);
}

static void expect_info(struct sm_loader *l, const char *has) {
    char info[16384];
    assert_true(sm_info(l, info, sizeof info) > 0);
    if (strstr(info, has) == NULL) fail_msg("%s\nhas not\n%s", info, has);
}

/* By shared memory and in pieces; 100 positions in batches of 8, so the last one has padding. */
static void weights_come_with_the_batches_of_a_job_that_has_them(void **state) {
    (void)state;
    for (int far = 0; far < 2; far++) {
        struct fake *f = fake_new();
        f->weights = SHARDMILL__WEIGHTS__IN_BATCHES;
        f->columns = far ? 30 : 0;
        fake_start(f);
        struct sm_open_options o = fake_options(f);
        o.transport = far ? "tcp" : "shm";
        struct sm_loader *l = fake_open(f, o);
        struct sm_batch_view v;
        expect_info(l, "\"weights\":\"in_batches\"");
        for (uint64_t first = 0; first < 100; first += 8) {
            assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_BATCH);
            assert_non_null(v.weight);
            assert_int_equal((uintptr_t)v.weight % 64, 0);
            for (uint64_t i = 0; i < 8; i++)
                assert_true(v.weight[i] == (first + i >= 100 ? 0 : 1 / (float)(first + i + 1)));
            assert_int_equal(sm_release(l, &v), 0);
        }
        sm_close(&l);
        fake_stop(f);
    }
}

/* A view of version 1 ends where weight begins. */
static void a_program_of_version_1_is_read_to_as_before(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->weights = SHARDMILL__WEIGHTS__IN_BATCHES;
    fake_start(f);
    struct sm_open_options o = fake_options(f);
    o.api_version = 1;
    struct sm_loader *l = fake_open(f, o);
    struct sm_batch_view v;
    memset(&v, 0xa5, sizeof v);
    for (uint64_t step = 0; step < 13; step++) {
        assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_BATCH);
        fake_check(f, &v, 0, step * 8);
        assert_int_equal(sm_release(l, &v), 0);
    }
    assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_EPOCH_END);
    for (size_t i = offsetof(struct sm_batch_view, weight); i < sizeof v; i++)
        assert_int_equal(((const uint8_t *)&v)[i], 0xa5);
    sm_close(&l);
    fake_stop(f);
}

static void a_job_without_weights_says_where_they_are(void **state) {
    (void)state;
    static const char *const words[] = {"\"weights\":\"by_class\"", "\"weights\":\"by_sample\""};
    for (int k = 0; k < 2; k++) {
        struct fake *f = fake_new();
        f->weights = k ? SHARDMILL__WEIGHTS__BY_SAMPLE : SHARDMILL__WEIGHTS__BY_CLASS;
        fake_start(f);
        struct sm_loader *l = fake_open(f, fake_options(f));
        struct sm_batch_view v;
        expect_info(l, words[k]);
        assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_BATCH);
        assert_null(v.weight);
        sm_close(&l);
        fake_stop(f);
    }
}

/* Reads n batches; the token behind them. */
static void read_batches(struct sm_loader *l, int n, char token[256]) {
    struct sm_batch_view v;
    for (int i = 0; i < n; i++) {
        assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_BATCH);
        assert_int_equal(sm_release(l, &v), 0);
    }
    assert_true(sm_state(l, token, 256) > 0);
}

/* Labels go round 0, 1, 2; 100 positions in batches of 8, so the last one holds 4 of padding. */
static void classes_are_counted_as_they_are_handed_out(void **state) {
    (void)state;
    struct fake *f = fake_new();
    uint64_t spec[6] = {50, 7, 3, 34, 33, 33};
    f->counts = spec;
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_class_count c[3], first;
    struct sm_batch_view v;
    char half[256], token[256];
    assert_int_equal(sm_class_counts(l, NULL, 0), 3);
    assert_int_equal(sm_class_counts(l, &first, 1), 3);
    assert_int_equal(first.present, 50);
    assert_int_equal(first.drawn, 34);
    assert_true(sm_classes(l, half, sizeof half, 0) > 0); /* the job told them: nobody is asked */
    assert_string_equal(half, "[\"ash\",\"\",\"oak\"]");
    assert_int_equal(f->index_asked, 0);
    read_batches(l, 6, half);
    sm_class_counts(l, c, 3);
    for (int k = 0; k < 3; k++)
        assert_int_equal(c[k].this_epoch, 16);
    read_batches(l, 7, token);
    assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_EPOCH_END);
    sm_class_counts(l, c, 3);
    for (int k = 0; k < 3; k++) { /* one rank: exactly what the job said */
        assert_int_equal(c[k].last_epoch, c[k].drawn);
        assert_int_equal(c[k].this_epoch, 0);
    }
    read_batches(l, 1, token);
    assert_int_equal(sm_seek(l, half), 0); /* entered anew: what was counted is void */
    read_batches(l, 7, token);
    assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_EPOCH_END);
    sm_class_counts(l, c, 3);
    assert_int_equal(c[0].last_epoch, 34 - 16);
    assert_int_equal(c[2].last_epoch, 33 - 16);
    sm_close(&l);
    fake_stop(f);
}

static void a_job_that_does_not_tell_counts_is_read_all_the_same(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_class_count c = {.present = 77};
    char token[256];
    read_batches(l, 3, token);
    assert_int_equal(sm_class_counts(l, &c, 1), 0);
    assert_int_equal(c.present, 77);
    sm_close(&l);
    fake_stop(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_of_rows_is_a_matrix),
        cmocka_unit_test(weights_come_with_the_batches_of_a_job_that_has_them),
        cmocka_unit_test(a_program_of_version_1_is_read_to_as_before),
        cmocka_unit_test(a_job_without_weights_says_where_they_are),
        cmocka_unit_test(classes_are_counted_as_they_are_handed_out),
        cmocka_unit_test(a_job_that_does_not_tell_counts_is_read_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
