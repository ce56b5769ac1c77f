/* Streams through the core when something is wrong: dead workers and trainers, lost messages, a
 * broker that begins again, and what is refused. */
#include "tests/unit/stream_desk.h"

static char other_digest[] = "fedcba9876543210fedcba9876543210";

static void a_dead_workers_batches_are_made_again_first(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    uint64_t session = attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    step_give(&d, 0, 1);
    desk_gone(&d, 1);
    worker_hello(&d, 1, 100 * MB, NULL, 0);
    release(&d, TRAINER, session, 0, 0); /* it had been read: the mapping outlives the worker */
    step_give(&d, 0, 1);
    step_give(&d, 0, 2);
    desk_close(&d);
}

static void a_lost_batch_is_made_again_and_its_memory_freed(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    Shardmill__Lost m = SHARDMILL__LOST__INIT;
    m.session = attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    m.attempt = desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_BATCH)->batch->attempt;
    m.text = "no route";
    desk_say(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_LOST, &m);
    assert_non_null(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE));
    step_give(&d, 0, 0);
    desk_say(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_LOST, &m); /* of the old attempt: nothing */
    assert_null(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE));
    desk_close(&d);
}

/* Time passes and only this peer is heard; whether the worker was told to free something. */
static bool freed_within(struct desk *d, int64_t ms, int heard) {
    bool freed = false;
    for (int64_t t = 0; t < ms; t += 500) {
        desk_tick(d, 500);
        freed |= desk_sent(d, 1, SHARDMILL__ENVELOPE__BODY_FREE) != NULL;
        trainer_beats(d, 1); /* the worker lives */
        if (heard != 0) trainer_beats(d, heard);
    }
    return freed;
}

static void a_silent_trainers_rank_is_free_at_once_and_its_batches_later(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c"), b = attach_of(0, 1, "other");
    uint64_t session = attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    assert_int_equal(attach(&d, TRAINER + 1, &b), 0);
    assert_int_equal(refusal(&d, TRAINER + 1), SM_E_BUSY);
    assert_false(freed_within(&d, 4000, 0)); /* it may only be stopped, and reading */
    trainer_beats(&d, TRAINER);
    assert_non_null(desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN));
    release(&d, TRAINER, session, 0, 0);
    assert_non_null(desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN));
    assert_int_not_equal(attach(&d, TRAINER + 1, &b), 0);
    assert_true(freed_within(&d, SM_ORPHAN_MS, TRAINER + 1)); /* but not for ever */
    assert_int_equal(d.core->workers->batch_used, 0);
    desk_close(&d);
}

static void a_trainer_that_was_only_stopped_finds_what_it_reads_in_place(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    uint64_t attempt = desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_BATCH)->batch->attempt;
    assert_false(freed_within(&d, 10000, 0));
    a.has_token = a.again = true;
    a.position = 4;
    a.held = &attempt;
    a.n_held = 1;
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    m.session = attach(&d, TRAINER, &a);
    assert_int_not_equal(m.session, 0);
    assert_false(freed_within(&d, SM_ORPHAN_MS + 5000, TRAINER));
    m.attempt = attempt;
    desk_say(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
    assert_non_null(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE));
    desk_close(&d);
}

static void a_dead_trainers_batches_are_freed_with_its_session(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    desk_gone(&d, TRAINER); /* a stopped process keeps its connection, a dead one does not */
    assert_true(freed_within(&d, 4000, 0));
    desk_close(&d);
}

static void a_release_of_an_unknown_attempt_is_no_release_of_the_step(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    m.session = attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    m.attempt = 12345; /* epoch 0, step 0, which is out */
    uint64_t stale = d.core->stale;
    desk_say(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
    assert_null(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE));
    assert_int_equal(d.core->stale, stale + 1);
    release(&d, TRAINER, m.session, 0, 0);
    assert_non_null(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE));
    desk_close(&d);
}

/* Worker 1 has been at step 1 for long, and worker 2 has made it as well. */
static Shardmill__Lease step_made_twice(struct desk *d) {
    stream_open(d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    a.credit_bytes = MB;
    uint64_t session = attach(d, TRAINER, &a);
    Shardmill__Lease l = lease_of(d, 1);
    d->now += 100;
    assert_true(step_done(d, 1, &l));
    release(d, TRAINER, session, 0, 0);
    Shardmill__Lease slow = lease_of(d, 1);
    d->now += 1000;
    worker_hello(d, 2, 100 * MB, NULL, 0);
    Shardmill__Lease fast = lease_of(d, 2);
    assert_int_equal(fast.step, 1);
    assert_true(step_done(d, 2, &fast));
    assert_non_null(desk_sent(d, 1, SHARDMILL__ENVELOPE__BODY_REVOKE));
    return slow;
}

static void two_workers_that_make_a_step_differently_fail_the_job(void **state) {
    (void)state;
    struct desk d;
    Shardmill__Lease slow = step_made_twice(&d);
    assert_false(step_done(&d, 1, &slow)); /* the same bytes: too late, and that is all */
    assert_int_equal(desk_status(&d)->state, SHARDMILL__JOB_STATE__RUNNING);
    assert_false(step_done_as(&d, 1, &slow, other_digest));
    assert_int_equal(refusal(&d, TRAINER), SM_E_INTERNAL);
    assert_int_equal(desk_status(&d)->state, SHARDMILL__JOB_STATE__FAILED);
    assert_non_null(strstr(desk_status(&d)->text, "step 1 of rank 0 was made twice, differently"));
    desk_close(&d);
}

static void a_step_that_is_made_again_differently_fails_the_job(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    desk_gone(&d, 1);
    worker_hello(&d, 1, 100 * MB, NULL, 0);
    Shardmill__Lease l = lease_of(&d, 1);
    assert_int_equal(l.step, 0);
    assert_false(step_done_as(&d, 1, &l, other_digest));
    assert_int_equal(desk_status(&d)->state, SHARDMILL__JOB_STATE__FAILED);
    desk_close(&d);
}

static void a_worker_that_asks_again_hears_whether_its_batch_is_wanted(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    uint64_t session = attach(&d, TRAINER, &a);
    Shardmill__Lease l = lease_of(&d, 1), asks = SHARDMILL__LEASE__INIT;
    assert_true(step_done(&d, 1, &l));
    asks.attempt = l.attempt; /* nothing else counts then */
    assert_true(step_done_as(&d, 1, &asks, ""));
    release(&d, TRAINER, session, 0, 0); /* and the Free is lost */
    assert_false(step_done_as(&d, 1, &asks, ""));
    desk_close(&d);
}

static void what_cannot_attach_is_told_why(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 5), 100 * MB);
    Shardmill__Attach a = attach_of(0, 2, "c");
    assert_int_not_equal(attach(&d, TRAINER, &a), 0);
    uint64_t again = attach(&d, TRAINER, &a);
    assert_int_not_equal(again, 0); /* the same once more is the same session */
    struct {
        Shardmill__Attach m;
        uint32_t code;
    } cases[] = {{attach_of(2, 2, "x"), SM_E_USAGE},   {attach_of(0, 0, "x"), SM_E_USAGE},
                 {attach_of(0, 2, "x"), SM_E_BUSY},    {attach_of(0, 3, "x"), SM_E_DIFFERS},
                 {attach_of(1, 2, "x"), SM_E_MISSING}, {attach_of(1, 2, "x"), SM_E_DIFFERS},
                 {attach_of(1, 2, "x"), SM_E_DIFFERS}, {attach_of(1, 2, "x"), SM_E_DIFFERS},
                 {attach_of(1, 2, ""), SM_E_USAGE}};
    cases[4].m.job = "nothing";
    cases[5].m.has_token = cases[6].m.has_token = cases[7].m.has_token = true;
    cases[5].m.pipeline_digest = "another";
    cases[6].m.position = 101;
    cases[7].m.position = 12; /* rank 0 entered at 0 and steps are 8 wide */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(attach(&d, TRAINER + 1, &cases[i].m), 0);
        assert_int_equal(refusal(&d, TRAINER + 1), cases[i].code);
    }
    assert_int_equal(attach(&d, TRAINER, &a), again); /* none of it disturbed the first one */
    desk_close(&d);
}

static void a_sample_that_kills_three_workers_is_skipped_from_then_on(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(8, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    uint64_t session = attach(&d, TRAINER, &a);
    for (int death = 0; death < 3; death++) {
        Shardmill__Lease l = lease_of(&d, 1);
        assert_int_equal(l.step, 0);
        assert_int_equal(l.n_skip, 0);
        Shardmill__Progress p = SHARDMILL__PROGRESS__INIT;
        p.job = "job";
        p.attempt = l.attempt;
        p.done = 2;
        p.position = 2;
        desk_say(&d, 1, SHARDMILL__ENVELOPE__BODY_PROGRESS, &p);
        desk_gone(&d, 1);
        worker_hello(&d, 1, 100 * MB, NULL, 0);
    }
    for (uint32_t epoch = 0; epoch < 2; epoch++)
        for (uint64_t step = 0; step < 2; step++) {
            Shardmill__Lease l = lease_of(&d, 1);
            assert_int_equal(l.epoch, epoch);
            assert_int_equal(l.step, step);
            assert_int_equal(l.n_skip, step == 0);
            assert_int_equal(l.generation, step == 0);
            if (step == 0) assert_int_equal(l.skip[0], 2);
            assert_true(step_done(&d, 1, &l));
            release(&d, TRAINER, session, epoch, step);
        }
    desk_close(&d);
}

static void a_restarted_broker_leaves_what_a_trainer_reads(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    desk_close(&d);
    desk_open(&d, 2);
    Shardmill__JobSpec spec = stream_spec(100, 4, 0);
    desk_submit(&d, "job", &spec);
    Shardmill__Holding h[3], *list[3];
    for (uint64_t i = 0; i < 3; i++) {
        shardmill__holding__init(list[i] = &h[i]);
        h[i].job = "job";
        h[i].kind = SHARDMILL__LEASE_KIND__STEP;
        h[i].attempt = (uint64_t)1 << 32 | (i + 1);
    }
    h[2].attempt = (uint64_t)2 << 32 | 9; /* of this broker, which never gave it */
    worker_hello(&d, 1, 100 * MB, list, 3);
    assert_non_null(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_REVOKE));
    assert_int_equal(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_REVOKE)->revoke->attempt,
                     h[2].attempt);
    Shardmill__Attach a = attach_of(0, 1, "c");
    a.has_token = true;
    a.position = 8;
    a.held = &h[1].attempt;
    a.n_held = 1;
    uint64_t session = attach(&d, TRAINER, &a);
    assert_int_not_equal(session, 0);
    int freed = 0;
    for (int i = 0; i < SM_ORPHAN_MS / 500 + 2; i++) {
        desk_tick(&d, 500);
        const sm_envelope *f = desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE);
        if (f != NULL) {
            assert_int_equal(f->free->attempt, h[0].attempt);
            freed++;
        }
        trainer_beats(&d, 1);
        trainer_beats(&d, TRAINER);
    }
    assert_int_equal(freed, 1);
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    m.session = session;
    m.attempt = h[1].attempt;
    desk_say(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
    assert_non_null(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE));
    desk_close(&d);
}

static void a_worker_that_registers_again_keeps_its_batches(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    Shardmill__Holding h = SHARDMILL__HOLDING__INIT, *list[] = {&h};
    h.job = "job";
    h.kind = SHARDMILL__LEASE_KIND__STEP;
    h.attempt = desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_BATCH)->batch->attempt;
    worker_hello(&d, 2, 100 * MB, list, 1); /* by another connection */
    desk_gone(&d, 1);
    Shardmill__Lease l = lease_of(&d, 2);
    assert_int_equal(l.step, 1); /* step 0 need not be made again */
    desk_close(&d);
}

static void an_impossible_stream_is_refused(void **state) {
    (void)state;
    struct desk d;
    desk_open(&d, 1);
    Shardmill__JobSpec bad[] = {stream_spec(10, 0, 1), stream_spec(10, 1 << 17, 1),
                                stream_spec(10, 4, 1), stream_spec(3, 4, 1)};
    bad[2].batch_bytes = 0;
    bad[3].drop_last = true;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        desk_submit(&d, "job", &bad[i]);
        assert_int_equal(refusal(&d, 99), SM_E_USAGE);
    }
    desk_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_dead_workers_batches_are_made_again_first),
        cmocka_unit_test(a_lost_batch_is_made_again_and_its_memory_freed),
        cmocka_unit_test(a_silent_trainers_rank_is_free_at_once_and_its_batches_later),
        cmocka_unit_test(a_trainer_that_was_only_stopped_finds_what_it_reads_in_place),
        cmocka_unit_test(a_dead_trainers_batches_are_freed_with_its_session),
        cmocka_unit_test(a_release_of_an_unknown_attempt_is_no_release_of_the_step),
        cmocka_unit_test(two_workers_that_make_a_step_differently_fail_the_job),
        cmocka_unit_test(a_step_that_is_made_again_differently_fails_the_job),
        cmocka_unit_test(a_worker_that_asks_again_hears_whether_its_batch_is_wanted),
        cmocka_unit_test(what_cannot_attach_is_told_why),
        cmocka_unit_test(a_sample_that_kills_three_workers_is_skipped_from_then_on),
        cmocka_unit_test(a_restarted_broker_leaves_what_a_trainer_reads),
        cmocka_unit_test(a_worker_that_registers_again_keeps_its_batches),
        cmocka_unit_test(an_impossible_stream_is_refused),
    };
    return cmocka_run_group_tests_name("stream_faults", tests, NULL, NULL);
}
