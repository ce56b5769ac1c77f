/* What a caller gets that is not a batch: errors with a sentence, waits that end, interrupts,
 * closing from elsewhere, fork, signals. */
#include "tests/unit/client_fake.h"

#include "client/c/loader.h"

#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#define assert_says(loader, words)                                            \
    do {                                                                      \
        if (strstr(sm_last_error(loader), words) == NULL)                     \
            fail_msg("'%s' does not say '%s'", sm_last_error(loader), words); \
    } while (0)

#define assert_code(loader, word) assert_string_equal(sm_last_code(loader), word)

static void options_are_checked(void **state) {
    (void)state;
    struct sm_loader *l = (void *)1;
    struct sm_open_options o = {.api_version = SM_API_VERSION + 1};
    assert_int_equal(sm_open(&l, &o), -1);
    assert_null(l);
    assert_says(NULL, "api_version is 3");
    assert_code(NULL, "usage");
    o = (struct sm_open_options){.api_version = SM_API_VERSION};
    assert_int_equal(sm_open(&l, &o), -1);
    assert_says(NULL, "no broker");
    o.broker = "tcp://127.0.0.1:1";
    assert_int_equal(sm_open(&l, &o), -1);
    assert_says(NULL, "no job");
    o.job = "pets";
    o.rank = 1;
    assert_int_equal(sm_open(&l, &o), -1);
    assert_says(NULL, "rank 1 in a world of 1");
    o.rank = 0;
    o.transport = "rdma";
    assert_int_equal(sm_open(&l, &o), -1);
    assert_says(NULL, "'rdma' is neither");
    o.transport = NULL;
    o.token = "shardmill-1:0:10:42:aa00";
    assert_int_equal(sm_open(&l, &o), -1);
    assert_says(NULL, "is not a token");
    o.token = NULL;
    o.broker = "telegraph://elsewhere";
    assert_int_equal(sm_open(&l, &o), -1);
    assert_says(NULL, "cannot connect to 'telegraph://elsewhere'");
}

static void tokens_that_are_none(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "",
        "shardmill-1",
        "shardmill-1:",
        "shardmill-2:0:0:42:aa:bb",
        "shardmill-1:-1:0:42:aa:bb",
        "shardmill-1:4294967296:0:42:aa:bb",
        "shardmill-1:0:18446744073709551616:42:aa:bb",
        "shardmill-1:0:0:42:aa:bb:",
        "shardmill-1:0:0:42:xy:bb",
        "shardmill-1:0:0:42:aa:bb\n",
        "shardmill-1:0:0:42:0123456789012345678901234567890123456789012345678901234567890123aa:bb",
    };
    struct token t;
    struct sm_err err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (sm_loader_token_read(wrong[i], &t, &err) == 0) fail_msg("taken: %s", wrong[i]);
    assert_int_equal(
        sm_loader_token_read("shardmill-1:4294967295:18446744073709551615:7:aa:bb", &t, &err), 0);
    assert_int_equal(t.at.epoch, 4294967295u);
    assert_true(t.at.position == UINT64_MAX);
    assert_string_equal(t.dataset_digest, "bb");
}

static void nobody_listens(void **state) {
    (void)state;
    struct sm_loader *l;
    struct sm_open_options o = {.api_version = SM_API_VERSION,
                                .broker = "tcp://127.0.0.1:9",
                                .job = "pets",
                                .timeout_ms = 200};
    int64_t began = sm_now_ms();
    assert_int_equal(sm_open(&l, &o), -1);
    assert_says(NULL, "the trainer waits for the broker at 'tcp://127.0.0.1:9'");
    assert_code(NULL, "timeout");
    assert_true(sm_now_ms() - began < 1500);
}

static void refusal_is_told(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->refuse_code = SM_E_MISSING;
    fake_start(f);
    struct sm_loader *l;
    struct sm_open_options o = fake_options(f);
    assert_int_equal(sm_open(&l, &o), -1);
    assert_says(NULL, "job 'pets' is not for you");
    assert_code(NULL, "missing");
    fake_stop(f);
}

static struct fake *stalled(const char *waits) {
    struct fake *f = fake_new();
    f->faults = FAKE_NO_BATCHES;
    f->waits = waits;
    fake_start(f);
    return f;
}

static void waits_say_who_waits_for_whom(void **state) {
    (void)state;
    struct sm_batch_view v;
    struct fake *f = stalled("job 'pets' waits for a worker");
    struct sm_loader *l = fake_open(f, fake_options(f));
    assert_int_equal(sm_next(l, &v, 300), -1);
    assert_says(l, "no batch within 300 ms: job 'pets' waits for a worker");
    assert_code(l, "timeout");
    atomic_store(&f->silent, true); /* liveness is 3 x 50 ms */
    assert_int_equal(sm_next(l, &v, 600), -1);
    assert_says(l, "which has been silent for");
    sm_close(&l);
    fake_stop(f);

    f = fake_new();
    fake_start(f);
    struct sm_open_options o = fake_options(f);
    o.credit_bytes = 2 * f->slot_bytes;
    l = fake_open(f, o);
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_BATCH);
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_BATCH);
    assert_int_equal(sm_next(l, &v, 200), -1);
    assert_says(l, "shardmill waits for you: 2 batches are not released");
    assert_code(l, "timeout");
    sm_close(&l);
    fake_stop(f);
}

static void silent_broker_comes_back(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->positions = 1000;
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v;
    uint64_t k = 0;
    for (int round = 0; round < 3; round++) {
        atomic_store(&f->silent, true);
        while (sm_next(l, &v, 400) == SM_NEXT_BATCH) { /* what was announced before */
            fake_check(f, &v, 0, k++ * 8);
            sm_release(l, &v);
        }
        atomic_store(&f->silent, false);
        for (int i = 0; i < 10; i++) {
            if (sm_next(l, &v, 5000) != SM_NEXT_BATCH) fail_msg("%s", sm_last_error(l));
            fake_check(f, &v, 0, k++ * 8);
            sm_release(l, &v);
        }
    }
    assert_true(f->attaches >= 4);
    sm_close(&l);
    fake_stop(f);
}

struct other {
    struct sm_loader *loader;
    int rc;
    char error[1024], code[32];
};

static void *wait_in_next(void *arg) {
    struct other *o = arg;
    struct sm_batch_view v;
    o->rc = sm_next(o->loader, &v, -1);
    snprintf(o->error, sizeof o->error, "%s", sm_last_error(NULL));
    snprintf(o->code, sizeof o->code, "%s", sm_last_code(NULL));
    return NULL;
}

static void interrupted_from_another_thread(void **state) {
    (void)state;
    struct fake *f = stalled(NULL);
    struct other o = {.loader = fake_open(f, fake_options(f))};
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, wait_in_next, &o), 0);
    sm_interrupt(o.loader); /* before or while it waits: the next wait ends */
    pthread_join(t, NULL);
    assert_int_equal(o.rc, -1);
    assert_string_equal(o.error, "interrupted");
    assert_string_equal(o.code, "cancelled");
    sm_interrupt(NULL);
    sm_close(&o.loader);
    fake_stop(f);
}

static void closed_from_another_thread(void **state) {
    (void)state;
    struct fake *f = stalled(NULL);
    struct other o = {.loader = fake_open(f, fake_options(f))};
    struct sm_loader *l = o.loader;
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, wait_in_next, &o), 0);
    for (bool inside = false; !inside;) {
        pthread_mutex_lock(&l->lock);
        inside = l->inside > 0;
        pthread_mutex_unlock(&l->lock);
    }
    int64_t began = sm_now_ms();
    sm_close(&l);
    assert_true(sm_now_ms() - began < 1000);
    pthread_join(t, NULL);
    assert_int_equal(o.rc, -1);
    assert_string_equal(o.error, "the loader was closed");
    assert_string_equal(o.code, "cancelled");
    fake_stop(f);
}

static void closing_is_quick_and_tells_the_broker(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v;
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_BATCH); /* held while it closes */
    int64_t began = sm_now_ms();
    sm_close(&l);
    assert_true(sm_now_ms() - began < 1000);
    for (int i = 0; i < 500 && f->detached == 0; i++)
        usleep(10000);
    assert_int_equal(f->detached, 1);
    l = fake_open(f, fake_options(f)); /* and with a broker that answers nothing */
    atomic_store(&f->silent, true);
    began = sm_now_ms();
    sm_close(&l);
    assert_true(sm_now_ms() - began < 1000);
    fake_stop(f);
}

static void child_of_fork_is_kept_out(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v, held;
    char token[256];
    assert_int_equal(sm_next(l, &held, 5000), SM_NEXT_BATCH);
    pid_t child = fork();
    if (child == 0) { /* exit code 0: every call failed with its sentence, and nothing hung */
        alarm(20);
        int bad = 0;
        bad |= sm_next(l, &v, 1000) != -1 || strstr(sm_last_error(l), "which forked") == NULL;
        bad |= sm_release(l, &held) != -1;
        bad |= sm_state(l, token, sizeof token) != -1;
        bad |= sm_commit(l, "shardmill-1:0:8:42:aa00:bb11", 100) != -1;
        bad |= sm_info(l, token, sizeof token) != -1;
        sm_interrupt(l);
        sm_close(&l);
        bad |= l != NULL;
        exit(bad); /* not _exit: what is registered for the end runs too */
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    fake_check(f, &held, 0, 0);
    assert_int_equal(sm_release(l, &held), 0);
    for (uint64_t k = 1; k < 13; k++) {
        assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_BATCH);
        fake_check(f, &v, 0, k * 8);
        assert_int_equal(sm_release(l, &v), 0);
    }
    sm_close(&l);
    fake_stop(f);
}

static atomic_int alarms;
static void on_alarm(int number) {
    (void)number;
    alarms++;
}

static void signals_disturb_nothing(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->epochs = 20;
    fake_start(f);
    struct sigaction action = {.sa_handler = on_alarm}, before; /* no SA_RESTART: calls see EINTR */
    sigaction(SIGALRM, &action, &before);
    struct itimerval every = {.it_interval = {0, 500}, .it_value = {0, 500}}, never = {0};
    setitimer(ITIMER_REAL, &every, NULL);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v;
    uint64_t batches = 0;
    int rc;
    while ((rc = sm_next(l, &v, 5000)) > 0 && rc != SM_NEXT_JOB_END) {
        if (rc != SM_NEXT_BATCH) continue;
        fake_check(f, &v, (uint32_t)(batches / 13), batches % 13 * 8);
        batches++;
        sm_release(l, &v);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &before, NULL);
    assert_int_equal(rc, SM_NEXT_JOB_END);
    assert_int_equal(batches, 20 * 13);
    assert_true(alarms > 0);
    sm_close(&l);
    fake_stop(f);
}

static void misuse_is_told(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->faults = FAKE_REFUSE_COMMIT;
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f)), *m = fake_open(f, fake_options(f));
    struct sm_batch_view v = {0}, again;
    char text[8192];
    assert_int_equal(sm_release(l, &v), 0); /* of nothing: nothing */
    assert_int_equal(sm_next(m, &v, 5000), SM_NEXT_BATCH);
    again = v;
    assert_int_equal(sm_release(l, &again), -1);
    assert_says(l, "not of this loader");
    assert_int_equal(sm_release(m, &v), 0);
    assert_int_equal(sm_release(m, &again), -1);
    assert_says(m, "released before");
    assert_int_equal(sm_state(l, text, 8), -1);
    assert_says(l, "room for 8");
    assert_int_equal(sm_commit(m, "shardmill-1:0:8:42:aa00:cc", 1000), -1);
    assert_says(m, "the token is of another dataset");
    assert_code(m, "differs");
    assert_int_equal(sm_commit(m, "shardmill-1:0:101:42:aa00:bb11", 1000), -1);
    assert_says(m, "position 101 of 100");
    assert_int_equal(sm_commit(m, NULL, 1000), -1);
    assert_int_equal(sm_commit(m, "shardmill-1:0:9:42:aa00:bb11", 5000), -1);
    assert_says(m, "no step ends at that position");
    assert_true(sm_info(m, text, sizeof text) > 0);
    assert_non_null(strstr(text, "\"transport\":\"shm\""));
    assert_non_null(strstr(text, "\"steps_per_epoch\":13"));
    sm_close(&l);
    sm_close(&m);
    fake_stop(f);
}

static void audit_adds_up(void **state) {
    (void)state;
    struct fake *f = fake_new();
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v;
    char chain[SM_XXH_HEX] = "", text[8192], want[256];
    while (sm_next(l, &v, 5000) == SM_NEXT_BATCH) {
        sm_batch_chain(chain, v.digest);
        sm_release(l, &v);
    }
    assert_true(sm_info(l, text, sizeof text) > 0);
    snprintf(want, sizeof want,
             "\"audit\":{\"epoch\":0,\"steps\":13,\"planned\":100,\"delivered\":100,\"padded\":4,"
             "\"dropped\":0,\"quarantined\":0,\"digest\":\"%s\"",
             chain);
    if (strstr(text, want) == NULL) fail_msg("%s\nhas not\n%s", text, want);
    sm_close(&l);
    fake_stop(f);
}

static void classes_are_told_by_the_index(void **state) {
    (void)state;
    struct fake *f = fake_new();
    static char many[20000];
    char *end = many;
    for (int i = 0; i < 1000; i++)
        end += sprintf(end, "class %d\n", i);
    f->classes = many;
    f->n_classes = 1000;
    f->index_digest = "bb11";
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    char json[65536] = "untouched";
    int n = sm_classes(l, NULL, 0, 20000);
    assert_true(n > 10000);
    assert_int_equal(sm_classes(l, json, (size_t)n, 0), n); /* no room for its NUL */
    assert_string_equal(json, "untouched");
    unsigned long asked = f->index_asked;
    assert_int_equal(sm_classes(l, json, sizeof json, 0), n);
    assert_int_equal(f->index_asked, asked); /* once is enough */
    assert_int_equal(strlen(json), n);
    assert_ptr_equal(strstr(json, "[\"class 0\",\"class 1\","), json);
    assert_string_equal(json + n - 13, ",\"class 999\"]");
    sm_close(&l);
    fake_stop(f);
}

static void classes_that_cannot_be_told(void **state) {
    (void)state;
    struct fake *f = fake_new();
    f->index_digest = "cc22";
    f->n_classes = 3;
    fake_start(f);
    struct sm_loader *l = fake_open(f, fake_options(f));
    struct sm_batch_view v;
    char json[256];
    assert_int_equal(sm_classes(l, json, sizeof json, 5000), -1);
    assert_says(l, "cannot open the index");
    assert_code(l, "missing");
    f->classes = "a\nb";
    assert_int_equal(sm_classes(l, json, sizeof json, 5000), -1);
    assert_code(l, "differs");
    f->index_digest = "bb11";
    assert_int_equal(sm_classes(l, json, sizeof json, 5000), -1);
    assert_says(l, "too few");
    f->classes = "a\n\"b\"\n\nand paths";
    assert_int_equal(sm_classes(l, json, sizeof json, 5000), strlen("[\"a\",\"\\\"b\\\"\",\"\"]"));
    assert_string_equal(json, "[\"a\",\"\\\"b\\\"\",\"\"]");
    assert_int_equal(sm_next(l, &v, 5000), SM_NEXT_BATCH); /* the session was never disturbed */
    fake_check(f, &v, 0, 0);
    assert_int_equal(f->attaches, 1);
    sm_close(&l);
    fake_stop(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(tokens_that_are_none),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(refusal_is_told),
        cmocka_unit_test(waits_say_who_waits_for_whom),
        cmocka_unit_test(silent_broker_comes_back),
        cmocka_unit_test(interrupted_from_another_thread),
        cmocka_unit_test(closed_from_another_thread),
        cmocka_unit_test(closing_is_quick_and_tells_the_broker),
        cmocka_unit_test(child_of_fork_is_kept_out),
        cmocka_unit_test(signals_disturb_nothing),
        cmocka_unit_test(misuse_is_told),
        cmocka_unit_test(audit_adds_up),
        cmocka_unit_test(classes_are_told_by_the_index),
        cmocka_unit_test(classes_that_cannot_be_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
