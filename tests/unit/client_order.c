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
    if (faults & (FAKE_WRONG_FIRST | FAKE_OUTSIDE | FAKE_NO_BATCH | FAKE_CRASHED_WORKER))
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

static void worker_that_sends_nothing_is_lost(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->faults = FAKE_DEAF_WORKER;
    f->positions = 16;
    f->epochs = 1;
    fake_start(f);
    struct sm_open_options o = fake_options(f);
    o.transport = "tcp";
    struct sm_loader *l = fake_open(f, o);
    read_job(f, l);
    assert_true(f->losts >= 2);
    sm_close(&l);
    fake_stop(f);
}

static void run_deaf_lost(int fault, const char *transport) {
    struct fake *f = fake_new();
    f->faults = fault | FAKE_DEAF_LOST;
    f->epochs = 1;
    f->heartbeat_ms = 20;
    fake_start(f);
    struct sm_open_options o = fake_options(f);
    o.transport = transport;
    struct sm_loader *l = fake_open(f, o);
    read_job(f, l);
    assert_int_equal(f->lost_taken, 0);
    assert_true(f->losts >= 2);
    sm_close(&l);
    fake_stop(f);
}

static void lost_attempt_is_never_taken_after_all(void **state) {
    (void)state;
    run_deaf_lost(FAKE_WRONG_FIRST, "shm");
    run_deaf_lost(FAKE_OUTSIDE, "shm");
    run_deaf_lost(FAKE_NO_BATCH, "tcp");
    run_deaf_lost(FAKE_BAD_DIGEST, "tcp");
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

static void next_is(struct fake *f, struct sm_loader *l, uint32_t epoch, uint64_t first) {
    struct sm_batch_view v;
    if (sm_next(l, &v, 5000) != SM_NEXT_BATCH) fail_msg("%s", sm_last_error(l));
    fake_check(f, &v, epoch, first);
    assert_int_equal(v.step, first / 8);
    assert_int_equal(sm_release(l, &v), 0);
}

#define TOKEN(place) "shardmill-1:" place ":42:aa00:bb11"

static void seek_goes_anywhere_and_views_stay(const char *transport) {
    struct fake *f = fake_new();
    fake_start(f);
    struct sm_open_options o = fake_options(f);
    o.transport = transport;
    o.token = TOKEN("0:0");
    struct sm_loader *l = fake_open(f, o);
    struct sm_batch_view held, v;
    char token[256];
    assert_int_equal(sm_next(l, &held, 5000), SM_NEXT_BATCH);
    next_is(f, l, 0, 8);
    assert_int_equal(sm_seek(l, TOKEN("1:16")), 0);
    assert_true(sm_state(l, token, sizeof token) > 0);
    assert_string_equal(token, TOKEN("1:16"));
    next_is(f, l, 1, 16);
    next_is(f, l, 1, 24);
    assert_int_equal(sm_seek(l, TOKEN("0:0")), 0); /* where the first session began */
    next_is(f, l, 0, 0);
    fake_check(f, &held, 0, 0);
    assert_int_equal(sm_seek(l, TOKEN("0:100")), 0); /* behind the last: the next epoch's start */
    next_is(f, l, 1, 0);
    fake_check(f, &held, 0, 0);
    assert_int_equal(sm_release(l, &held), 0);
    for (int i = 0; i < 500 && strcmp(transport, "shm") == 0 && f->held_released == 0; i++)
        usleep(10000);
    assert_int_equal(f->held_released, strcmp(transport, "shm") == 0);
    assert_int_equal(sm_seek(l, TOKEN("2:0")), 0);
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_JOB_END);
    assert_int_equal(sm_seek(l, TOKEN("1:96")), 0); /* the last step: its end is told once */
    next_is(f, l, 1, 96);
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_EPOCH_END);
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_JOB_END);
    sm_close(&l);
    fake_stop(f);
}

static void seek_by_memory(void **state) {
    (void)state;
    seek_goes_anywhere_and_views_stay("shm");
}

static void seek_by_tcp(void **state) {
    (void)state;
    seek_goes_anywhere_and_views_stay("tcp");
}

static void seek_that_cannot_be_is_told_and_another_works(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v;
    next_is(f, l, 0, 0);
    assert_int_equal(sm_seek(l, "shardmill-1:0:8:42:aa00:cc"), -1);
    assert_string_equal(sm_last_code(l), "differs");
    assert_int_equal(sm_seek(l, TOKEN("2:8")), -1);
    assert_string_equal(sm_last_code(l), "differs");
    assert_int_equal(sm_seek(l, TOKEN("0:101")), -1);
    assert_int_equal(sm_seek(l, "nonsense"), -1);
    assert_int_equal(sm_seek(l, NULL), -1);
    assert_string_equal(sm_last_code(l), "usage");
    next_is(f, l, 0, 8); /* nothing has moved */
    f->refuse_code = SM_E_DIFFERS;
    assert_int_equal(sm_seek(l, TOKEN("1:8")), 0);
    assert_int_equal(sm_next(l, &v, 5000), -1);
    assert_string_equal(sm_last_code(l), "differs");
    f->refuse_code = 0;
    assert_int_equal(sm_seek(l, TOKEN("1:16")), 0);
    next_is(f, l, 1, 16);
    sm_close(&l);
    fake_stop(f);
}

/* How often the worker's memory is mapped in this process, the fake's own mapping included. */
static int mappings(void) {
    char line[1024];
    int n = 0;
    FILE *file = fopen("/proc/self/maps", "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        n += strstr(line, "memfd:batches") != NULL;
    fclose(file);
    return n;
}

static void mappings_become(int n) {
    for (int i = 0; i < 1000 && mappings() != n; i++)
        usleep(10000);
    assert_int_equal(mappings(), n);
}

static void memory_of_a_worker_that_is_gone_is_unmapped(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view held;
    assert_int_equal(sm_next(l, &held, 5000), SM_NEXT_BATCH);
    assert_int_equal(mappings(), 2);
    atomic_store(&f->fresh_memory, true);
    while (atomic_load(&f->fresh_memory))
        usleep(1000);
    assert_int_equal(sm_seek(l, TOKEN("1:0")), 0);
    next_is(f, l, 1, 0);
    assert_int_equal(mappings(), 3);
    fake_check(f, &held, 0, 0); /* what is held stays mapped */
    assert_int_equal(sm_release(l, &held), 0);
    mappings_become(2);
    next_is(f, l, 1, 8);
    sm_close(&l);
    assert_int_equal(mappings(), 1);
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
        cmocka_unit_test(worker_that_sends_nothing_is_lost),
        cmocka_unit_test(lost_attempt_is_never_taken_after_all),
        cmocka_unit_test(pieces_doubled_dropped_and_lying),
        cmocka_unit_test(ranks_share_an_epoch),
        cmocka_unit_test(memory_that_may_shrink_is_refused),
        cmocka_unit_test(broker_restarts_without_gap_or_repeat),
        cmocka_unit_test(memory_written_over_while_held_is_told),
        cmocka_unit_test(seek_by_memory),
        cmocka_unit_test(seek_by_tcp),
        cmocka_unit_test(seek_that_cannot_be_is_told_and_another_works),
        cmocka_unit_test(memory_of_a_worker_that_is_gone_is_unmapped),
        cmocka_unit_test(token_resumes_and_commits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
