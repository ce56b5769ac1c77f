/* The client library keeps the order: whatever a broker and a worker do to messages, the caller
 * gets each batch of each epoch once, in order, byte for byte, or a clear error. */
#include "tests/unit/client_fake.h"

/* Reads a whole job, checks every byte, and that ends come where they should. */
static void read_job(struct fake *f, struct sm_loader *l) {
    struct sm_batch_view v;
    for (uint32_t epoch = 0; epoch < f->epochs; epoch++) {
        uint64_t first = (uint64_t)f->rank * f->batch_size;
        for (uint64_t k = 0; k < fake_steps(f, 0); k++) {
            int rc = sm_next(l, &v, 10000);
            if (rc != SM_NEXT_BATCH)
                fail_msg("epoch %u step %d: %d %s", epoch, (int)k, rc, sm_last_error(l));
            assert_int_equal(v.step, k);
            fake_check(f, &v, epoch, first);
            first += (uint64_t)f->batch_size * f->world_size;
            assert_int_equal(sm_release(l, &v), 0);
            assert_null(v.data);
        }
        assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_EPOCH_END);
    }
    assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_JOB_END);
    assert_int_equal(sm_next(l, &v, 10000), SM_NEXT_JOB_END);
}

static void run_job(int faults, const char *transport, uint32_t height) {
    struct fake *f = fake_new();
    f->faults = faults;
    f->height = height;
    if (height > 100) f->heartbeat_ms = 1000; /* making large batches again and again takes long */
    fake_start(f);
    struct sm_open_options o = fake_options(f);
    o.transport = transport;
    struct sm_loader *l = fake_open(f, o);
    read_job(f, l);
    if (faults &
        (FAKE_WRONG_FIRST | FAKE_OUTSIDE | FAKE_NO_BATCH | FAKE_DEAF_WORKER | FAKE_CRASHED_WORKER))
        assert_true(f->losts > 0);
    sm_close(&l);
    assert_null(l);
    sm_close(&l);
    fake_stop(f);
}

static void plain_by_memory(void **state) {
    (void)state;
    run_job(0, "shm", 16);
}

static void plain_by_tcp(void **state) {
    (void)state;
    run_job(0, "tcp", 3000); /* three pieces */
}

static void another_host_is_fetched(void **state) {
    (void)state;
    run_job(FAKE_OTHER_HOST, NULL, 16);
}

static void doubled_reordered_and_dropped(void **state) {
    (void)state;
    run_job(FAKE_DOUBLE, NULL, 16);
    run_job(FAKE_DROP, NULL, 16);
    run_job(FAKE_REORDER, NULL, 16);
    run_job(FAKE_DOUBLE | FAKE_DROP | FAKE_REORDER | FAKE_OLD_SESSION | FAKE_GARBAGE, NULL, 16);
}

static void release_that_is_not_heard_is_said_again(void **state) {
    (void)state;
    run_job(FAKE_DEAF_RELEASE, NULL, 16);
}

static void lying_memory_is_never_shown(void **state) {
    (void)state;
    run_job(FAKE_WRONG_FIRST, "shm", 16);
    run_job(FAKE_OUTSIDE, "shm", 16);
}

static void worker_that_died_is_replaced(void **state) {
    (void)state;
    run_job(FAKE_CRASHED_WORKER, "shm", 16);
}

static void wrong_digest_is_fetched_again(void **state) {
    (void)state;
    run_job(FAKE_BAD_DIGEST, "tcp", 16);
}

static void worker_without_the_batch_is_lost(void **state) {
    (void)state;
    run_job(FAKE_NO_BATCH, "tcp", 16);
}

static void pieces_doubled_dropped_and_lying(void **state) {
    (void)state;
    run_job(FAKE_PIECES_DOUBLE, "tcp", 3000);
    run_job(FAKE_PIECES_LIE, "tcp", 3000);
    run_job(FAKE_PIECES_DROP, "tcp", 1500);
}

static void ranks_share_an_epoch(void **state) {
    (void)state;
    for (uint32_t rank = 0; rank < 3; rank++)
        for (int drop = 0; drop < 2; drop++) {
            struct fake *f = fake_new();
            f->world_size = 3;
            f->drop_last = drop;
            fake_start(f);
            struct sm_open_options o = fake_options(f);
            o.rank = rank;
            struct sm_loader *l = fake_open(f, o);
            f->rank = rank;
            read_job(f, l);
            sm_close(&l);
            fake_stop(f);
        }
}

static void memory_that_may_shrink_is_refused(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->faults = FAKE_NO_SEAL;
    fake_start(f);
    struct sm_open_options o = fake_options(f);
    o.transport = "shm";
    struct sm_loader *l = fake_open(f, o);
    struct sm_batch_view v;
    assert_int_equal(sm_next(l, &v, 300), -1);
    assert_non_null(strstr(sm_last_error(l), "not the memory of a worker"));
    sm_close(&l);
    fake_stop(f);
}

static void broker_restarts_without_gap_or_repeat(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v, held = {0};
    uint64_t first = 0;
    for (int k = 0; k < 13; k++) {
        if (k == 5 || k == 9) atomic_store(&f->restart, true);
        if (sm_next(l, &v, 5000) != SM_NEXT_BATCH) fail_msg("%d: %s", k, sm_last_error(l));
        fake_check(f, &v, 0, first);
        first += 8;
        if (k == 4)
            held = v; /* over a restart */
        else
            assert_int_equal(sm_release(l, &v), 0);
    }
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_EPOCH_END);
    assert_int_equal(sm_release(l, &held), 0);
    assert_true(f->attaches >= 2);
    sm_close(&l);
    fake_stop(f);
}

static void memory_written_over_while_held_is_told(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->faults = FAKE_WRITE_OVER;
    f->positions = 1000000; /* more than can be read before the restart is noticed */
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v, held;
    assert_int_equal(sm_next(l, &held, 5000), SM_NEXT_BATCH);
    atomic_store(&f->restart, true);
    int rc;
    while ((rc = sm_next(l, &v, 5000)) == SM_NEXT_BATCH)
        sm_release(l, &v);
    assert_int_equal(rc, -1);
    assert_non_null(strstr(sm_last_error(l), "written over while you held it"));
    sm_close(&l);
    fake_stop(f);
}

static void token_resumes_and_commits(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->faults = FAKE_DEAF_COMMIT;
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v;
    char token[256];
    for (int k = 0; k < 4; k++) {
        assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_BATCH);
        assert_int_equal(sm_release(l, &v), 0);
    }
    assert_true(sm_state(l, token, sizeof token) > 0);
    assert_string_equal(token, "shardmill-1:0:32:42:aa00:bb11");
    assert_int_equal(sm_commit(l, token, 5000), 0);
    assert_int_equal(f->committed_position, 32);
    sm_close(&l);
    struct sm_open_options o = fake_options(f);
    o.token = token;
    l = fake_open(f, o);
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_BATCH);
    assert_int_equal(v.step, 4);
    fake_check(f, &v, 0, 32);
    sm_close(&l);
    fake_stop(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_by_memory),
        cmocka_unit_test(plain_by_tcp),
        cmocka_unit_test(another_host_is_fetched),
        cmocka_unit_test(doubled_reordered_and_dropped),
        cmocka_unit_test(release_that_is_not_heard_is_said_again),
        cmocka_unit_test(lying_memory_is_never_shown),
        cmocka_unit_test(worker_that_died_is_replaced),
        cmocka_unit_test(wrong_digest_is_fetched_again),
        cmocka_unit_test(worker_without_the_batch_is_lost),
        cmocka_unit_test(pieces_doubled_dropped_and_lying),
        cmocka_unit_test(ranks_share_an_epoch),
        cmocka_unit_test(memory_that_may_shrink_is_refused),
        cmocka_unit_test(broker_restarts_without_gap_or_repeat),
        cmocka_unit_test(memory_written_over_while_held_is_told),
        cmocka_unit_test(token_resumes_and_commits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
