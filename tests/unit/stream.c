/* Streams through the core: sessions, credit, resumes, deaths; and the arithmetic of steps, which
 * is checked against a plain walk over all positions. */
#include "tests/unit/desk.h"

#include "lib/rng.h"

enum { TRAINER = 50, MB = 1 << 20 };
#define PIPELINE "11112222333344445555666677778888"
static char batch_digest[] = "0123456789abcdef0123456789abcdef";
static char other_digest[] = "fedcba9876543210fedcba9876543210";

static Shardmill__JobSpec stream_spec(uint64_t samples, uint32_t batch, uint32_t epochs) {
    Shardmill__JobSpec s = desk_spec(samples, 0, 0);
    s.kind = SHARDMILL__JOB_KIND__STREAM;
    s.name = "pets";
    s.pipeline_digest = PIPELINE;
    s.batch_size = batch;
    s.batch_bytes = MB;
    s.epochs = epochs;
    return s;
}

static void worker_hello(struct desk *d, int who, uint64_t memory, Shardmill__Holding **holding,
                         size_t n) {
    Shardmill__Hello m = SHARDMILL__HELLO__INIT;
    m.name = "host/1";
    m.fingerprint = "f";
    m.host = "h";
    m.fd_socket = "s";
    m.data_endpoint = "tcp://127.0.0.1:1";
    m.batch_memory = memory;
    m.holding = holding;
    m.n_holding = n;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_HELLO, &m);
}

static void stream_open(struct desk *d, Shardmill__JobSpec spec, uint64_t memory) {
    desk_open(d, 1);
    desk_submit(d, "job", &spec);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_ACCEPTED));
    worker_hello(d, 1, memory, NULL, 0);
}

static Shardmill__Attach attach_of(uint32_t rank, uint32_t world, char *client) {
    Shardmill__Attach m = SHARDMILL__ATTACH__INIT;
    m.job = "pets";
    m.rank = rank;
    m.world_size = world;
    m.client = client;
    m.credit_bytes = 4 * MB;
    return m;
}

/* The session, or 0 when it is refused. */
static uint64_t attach(struct desk *d, int who, const Shardmill__Attach *m) {
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_ATTACH, (void *)m);
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_ATTACHED);
    return e != NULL ? e->attached->session : 0;
}

static uint32_t refusal(const struct desk *d, int who) {
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_REFUSED);
    return e != NULL ? e->refused->code : 0;
}

/* A lease to this worker in the last step's actions or by Ready; attempt 0: none. */
static Shardmill__Lease lease_of(struct desk *d, int who) {
    Shardmill__Ready ready = SHARDMILL__READY__INIT;
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_LEASE);
    if (e == NULL) {
        desk_say(d, who, SHARDMILL__ENVELOPE__BODY_READY, &ready);
        e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_LEASE);
    }
    return e != NULL ? *e->lease : (Shardmill__Lease)SHARDMILL__LEASE__INIT;
}

static bool step_done_as(struct desk *d, int who, const Shardmill__Lease *l, char *digest) {
    Shardmill__Done m = SHARDMILL__DONE__INIT;
    m.job = "job";
    m.kind = SHARDMILL__LEASE_KIND__STEP;
    m.attempt = l->attempt;
    m.first = l->first;
    m.count = l->count;
    m.generation = l->generation;
    m.bytes = MB;
    m.digest = digest;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_DONE, &m);
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_ACK);
    return e != NULL && e->ack->wanted;
}

static bool step_done(struct desk *d, int who, const Shardmill__Lease *l) {
    return step_done_as(d, who, l, batch_digest);
}

static void release(struct desk *d, int who, uint64_t session, uint32_t epoch, uint64_t step) {
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    m.session = session;
    m.epoch = epoch;
    m.step = step;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
}

static bool commit(struct desk *d, int who, uint64_t session, uint32_t epoch, uint64_t position) {
    Shardmill__Commit m = SHARDMILL__COMMIT__INIT;
    m.session = session;
    m.epoch = epoch;
    m.position = position;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_COMMIT, &m);
    return desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_COMMITTED) != NULL;
}

static void trainer_beats(struct desk *d, int who) {
    Shardmill__Heartbeat m = SHARDMILL__HEARTBEAT__INIT;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &m);
}

/* Makes a step and checks that the trainer hears of exactly it. */
static void step_give(struct desk *d, uint32_t epoch, uint64_t step) {
    Shardmill__Lease l = lease_of(d, 1);
    assert_int_not_equal(l.attempt, 0);
    assert_int_equal(l.epoch, epoch);
    assert_int_equal(l.step, step);
    assert_true(step_done(d, 1, &l));
    const sm_envelope *e = desk_sent(d, TRAINER, SHARDMILL__ENVELOPE__BODY_BATCH);
    assert_non_null(e);
    assert_int_equal(e->batch->epoch, epoch);
    assert_int_equal(e->batch->step, step);
    assert_int_equal(e->batch->attempt, l.attempt);
}

/* --- arithmetic ------------------------------------------------------------------------------- */

/* Runs from random positions with random worlds, one after the other, over one epoch: how often
 * each position was given, and that only the last step is padded. */
static void epoch_walk(struct sm_rng *rng, uint64_t n, bool drop_last) {
    uint8_t *seen = calloc(n, 1);
    uint64_t at = 0, dropped = 0;
    while (at < n) {
        struct sm_steps s = {.positions = n,
                             .entered = at,
                             .batch_size = 1 + sm_rng_u32(rng) % 7,
                             .world_size = 1 + sm_rng_u32(rng) % 5,
                             .drop_last = drop_last};
        uint64_t steps = sm_steps_count(&s), upto = steps, total = 0, given = 0;
        if (steps > 1 && sm_rng_u32(rng) % 4 != 0) upto = 1 + sm_rng_u32(rng) % steps;
        for (uint64_t k = 0; k < upto; k++) {
            for (uint32_t r = 0; r < s.world_size; r++) {
                struct sm_step step = sm_steps_at(&s, r, k);
                assert_int_equal(step.count, s.batch_size);
                assert_true(step.padding == 0 || k + 1 == steps);
                for (uint32_t i = 0; i < step.count - step.padding; i++, given++) {
                    assert_true(step.first + i < n);
                    seen[step.first + i]++;
                }
                assert_true(step.padding == 0 || step.first + step.count > n);
                assert_true(sm_steps_boundary(&s, step.position));
                assert_int_equal(step.position, sm_steps_at(&s, 0, k).position);
            }
        }
        dropped = 0;
        for (uint32_t r = 0; r < s.world_size; r++) {
            total += sm_steps_planned(&s, r);
            dropped += sm_steps_dropped(&s, r);
        }
        assert_int_equal(total, n - at);
        if (upto == steps) assert_int_equal(given + dropped, n - at);
        at = upto == steps ? n : sm_steps_at(&s, 0, upto - 1).position;
    }
    for (uint64_t p = 0; p < n; p++)
        assert_int_equal(seen[p], p < n - dropped ? 1 : 0);
    free(seen);
}

static void each_position_is_given_once_however_worlds_change(void **state) {
    (void)state;
    struct sm_rng rng = sm_rng_op(7, 0, 0, 0, 0);
    for (int i = 0; i < 3000; i++)
        epoch_walk(&rng, 1 + sm_rng_u32(&rng) % 90, i % 2);
}

static void steps_of_a_billion_positions_do_not_overflow(void **state) {
    (void)state;
    struct sm_steps s = {
        .positions = UINT64_C(1) << 44, .batch_size = 65536, .world_size = 1024, .entered = 5};
    uint64_t last = sm_steps_count(&s) - 1;
    struct sm_step step = sm_steps_at(&s, 1023, last);
    assert_int_equal(step.position, s.positions);
    assert_true(step.padding > 0 && step.padding <= step.count);
}

/* --- a session -------------------------------------------------------------------------------- */

static void a_session_gets_its_epochs_in_order_and_their_audit(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(10, 4, 2), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    uint64_t session = attach(&d, TRAINER, &a);
    assert_int_not_equal(session, 0);
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        for (uint64_t step = 0; step < 3; step++) {
            step_give(&d, epoch, step);
            const Shardmill__Batch *b =
                desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_BATCH)->batch;
            assert_int_equal(b->position, step == 2 ? 10 : 4 * (step + 1));
            assert_int_equal(b->padding, step == 2 ? 2 : 0);
            assert_string_equal(b->fd_socket, "s");
            uint64_t attempt = b->attempt;
            release(&d, TRAINER, session, epoch, step);
            const sm_envelope *f = desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE);
            assert_non_null(f);
            assert_int_equal(f->free->attempt, attempt);
        }
        const sm_envelope *e = desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_EPOCH_END);
        assert_non_null(e);
        assert_int_equal(e->epoch_end->epoch, epoch);
        assert_int_equal(e->epoch_end->planned, 10);
        assert_int_equal(e->epoch_end->delivered, 10);
        assert_int_equal(e->epoch_end->padded, 2);
        assert_int_equal(e->epoch_end->dropped, 0);
    }
    assert_int_equal(lease_of(&d, 1).attempt, 0);
    assert_int_equal(desk_status(&d)->state, SHARDMILL__JOB_STATE__COMPLETE);
    assert_int_equal(desk_status(&d)->made, 20);
    desk_close(&d);
}

static void the_next_epoch_is_leased_while_the_last_steps_are_out(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(8, 4, 3), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    step_give(&d, 0, 1);
    step_give(&d, 1, 0);
    step_give(&d, 1, 1);
    assert_int_equal(lease_of(&d, 1).attempt, 0); /* and no further than the credit */
    desk_close(&d);
}

static void credit_and_batch_memory_bound_what_is_out(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(1000, 4, 0), 3 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    a.credit_bytes = 100 * MB;
    uint64_t session = attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    step_give(&d, 0, 1);
    assert_int_equal(lease_of(&d, 1).attempt,
                     0); /* the last room is kept for what is needed next */
    release(&d, TRAINER, session, 0, 0);
    step_give(&d, 0, 2);
    a = attach_of(0, 1, "c");
    a.credit_bytes = 1; /* less than one batch: one at a time, not none */
    a.has_token = true;
    a.serial = 1;
    session = attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    assert_int_equal(lease_of(&d, 1).attempt, 0);
    desk_close(&d);
}

static void a_batch_is_told_again_until_it_is_released(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    uint64_t session = attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    desk_tick(&d, SM_REPEAT_MS);
    assert_non_null(desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_BATCH));
    release(&d, TRAINER, session, 0, 0);
    release(&d, TRAINER, session, 0, 0);
    assert_null(desk_sent(&d, 1, SHARDMILL__ENVELOPE__BODY_FREE)); /* twice is once */
    desk_tick(&d, SM_REPEAT_MS);
    assert_null(desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_BATCH));
    desk_close(&d);
}

static void an_attached_that_is_lost_is_said_again_until_the_trainer_speaks(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    uint64_t session = attach(&d, TRAINER, &a);
    desk_tick(&d, SM_REPEAT_MS);
    const sm_envelope *e = desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_ATTACHED);
    assert_non_null(e);
    assert_int_equal(e->attached->session, session);
    assert_true(commit(&d, TRAINER, session, 0, 0));
    desk_tick(&d, SM_REPEAT_MS);
    assert_null(desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_ATTACHED));
    desk_close(&d);
}

static void batches_are_told_in_order_whoever_is_faster(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(100, 4, 0), 100 * MB);
    worker_hello(&d, 2, 100 * MB, NULL, 0);
    Shardmill__Attach a = attach_of(0, 1, "c");
    attach(&d, TRAINER, &a);
    Shardmill__Lease slow = lease_of(&d, 1), fast = lease_of(&d, 2);
    assert_int_equal(fast.step, 1);
    assert_true(step_done(&d, 2, &fast));
    assert_null(desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_BATCH));
    assert_true(step_done(&d, 1, &slow));
    uint64_t next = 0;
    for (size_t i = 0; i < d.actions.n; i++)
        if (d.actions.list[i].kind == SM_ACTION_SEND &&
            d.actions.list[i].message->body_case == SHARDMILL__ENVELOPE__BODY_BATCH)
            assert_int_equal(d.actions.list[i].message->batch->step, next++);
    assert_int_equal(next, 2);
    desk_close(&d);
}

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

static void an_attach_that_is_said_again_is_the_same_session(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(1000, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    a.serial = 7;
    a.credit_bytes = 1;
    uint64_t session = attach(&d, TRAINER, &a);
    step_give(&d, 0, 0);
    assert_int_equal(lease_of(&d, 1).attempt, 0);
    a.credit_bytes = 2 * MB; /* it has learned how large batches are */
    assert_int_equal(attach(&d, TRAINER, &a), session);
    assert_int_equal(desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_ATTACHED)->attached->serial,
                     7);
    step_give(&d, 0, 1);
    a.serial = 6; /* comes late */
    a.has_token = true;
    a.position = 8;
    assert_int_equal(attach(&d, TRAINER, &a), 0);
    a.serial = 8;
    uint64_t other = attach(&d, TRAINER, &a);
    assert_true(other != 0 && other != session);
    step_give(&d, 0, 0);
    desk_close(&d);
}

static void seek(struct desk *d, int who, Shardmill__Attach *m, uint64_t position) {
    m->serial++;
    m->has_token = m->elsewhere = true;
    m->position = position;
    assert_int_not_equal(attach(d, who, m), 0);
    assert_int_equal(desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_ATTACHED)->attached->position,
                     position);
}

/* Ranks that entered at 3 hold steps that end at 11, 19, …: 5 is none of them. */
static void ranks_of_a_loop_go_elsewhere_one_after_the_other(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(40, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 2, "c0"), b = attach_of(1, 2, "c1");
    a.has_token = b.has_token = true;
    a.position = b.position = 3;
    assert_int_not_equal(attach(&d, TRAINER, &a), 0);
    uint64_t left = attach(&d, TRAINER + 1, &b);
    assert_int_not_equal(left, 0);
    Shardmill__Attach starts = attach_of(0, 2, "c0");
    starts.serial = 1;
    starts.has_token = true;
    starts.position = 5; /* a loader that starts may have the wrong token */
    assert_int_equal(attach(&d, TRAINER, &starts), 0);
    assert_int_equal(refusal(&d, TRAINER), SM_E_DIFFERS);
    assert_true(desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_REFUSED)->refused->wait_ms > 0);
    seek(&d, TRAINER, &a, 5);
    assert_int_equal(desk_persisted(&d), 2); /* a run, and what its first rank goes on from */
    for (int i = 0; i < 8; i++) {
        Shardmill__Lease l = lease_of(&d, 1);
        if (l.attempt != 0) assert_true(step_done(&d, 1, &l));
    }
    assert_true(commit(&d, TRAINER + 1, left, 0, 11)); /* not there yet: of use to nobody */
    assert_int_equal(desk_persisted(&d), 0);
    seek(&d, TRAINER + 1, &b, 5);
    assert_int_equal(desk_persisted(&d), 1); /* the same run */
    seek(&d, TRAINER, &a, 0); /* and to the start of the epoch, where none of its steps begins */
    seek(&d, TRAINER + 1, &b, 0);
    desk_close(&d);
}

static void a_commit_is_journaled_before_it_is_confirmed_and_found_again(void **state) {
    (void)state;
    struct desk d, e;
    stream_open(&d, stream_spec(16, 2, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 2, "c0"), b = attach_of(1, 2, "c1");
    uint64_t s0 = attach(&d, TRAINER, &a), s1 = attach(&d, TRAINER + 1, &b);
    for (int i = 0; i < 8; i++) {
        Shardmill__Lease l = lease_of(&d, 1);
        if (l.attempt != 0) assert_true(step_done(&d, 1, &l));
    }
    assert_false(commit(&d, TRAINER, s0, 0, 3)); /* no step ends there */
    assert_false(commit(&d, TRAINER, s0, 3, 0)); /* nor has it got so far */
    assert_true(commit(&d, TRAINER, s0, 0, 8));
    assert_int_equal(desk_persisted(&d), 1);
    assert_true(commit(&d, TRAINER, s0, 0, 8));
    assert_int_equal(desk_persisted(&d), 0); /* twice is once */
    assert_true(commit(&d, TRAINER + 1, s1, 0, 4));
    /* the same facts in a new core: without a token, both go on behind what both have */
    desk_open(&e, 2);
    Shardmill__JobSpec spec = stream_spec(16, 2, 0);
    desk_submit(&e, "job", &spec);
    struct sm_err err;
    struct sm_record r[] = {
        {.kind = SM_RECORD_RUN, .job = "job", .world_size = 2},
        {.kind = SM_RECORD_COMMIT, .job = "job", .rank = 0, .position = 8},
        {.kind = SM_RECORD_COMMIT, .job = "job", .rank = 1, .position = 4},
    };
    for (int i = 0; i < 3; i++)
        assert_int_equal(sm_core_load(e.core, &r[i], &err), 0);
    Shardmill__Attach other = attach_of(0, 3, "c2");
    assert_int_not_equal(attach(&e, TRAINER, &other), 0);
    assert_int_equal(desk_sent(&e, TRAINER, SHARDMILL__ENVELOPE__BODY_ATTACHED)->attached->position,
                     4);
    other = attach_of(1, 3, "c3");
    assert_int_not_equal(attach(&e, TRAINER + 1, &other), 0);
    assert_int_equal(
        desk_sent(&e, TRAINER + 1, SHARDMILL__ENVELOPE__BODY_ATTACHED)->attached->position, 4);
    desk_close(&d);
    desk_close(&e);
}

static void a_commit_of_where_a_loader_attached_again_is_journaled(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(16, 2, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    assert_int_not_equal(attach(&d, TRAINER, &a), 0);
    a.has_token = a.again = true; /* it stands there, but that is in no checkpoint */
    a.position = 4;
    a.serial = 1;
    uint64_t session = attach(&d, TRAINER, &a);
    assert_int_not_equal(session, 0);
    assert_int_equal(desk_persisted(&d), 0);
    assert_true(commit(&d, TRAINER, session, 0, 4)); /* and now it is */
    assert_int_equal(desk_persisted(&d), 1);
    desk_close(&d);
}

static void a_trainer_is_told_the_counts_of_classes_and_a_lie_is_refused(void **state) {
    (void)state;
    struct desk d;
    uint64_t present[] = {12, 0, 4}, drawn[] = {8, 0, 8};
    Shardmill__JobSpec spec = stream_spec(16, 2, 0);
    spec.present = present;
    spec.drawn = drawn;
    spec.n_present = spec.n_drawn = spec.n_class_names = 3;
    spec.class_names = (char *[]){"ash", "", "oak"};
    stream_open(&d, spec, 100 * MB);
    Shardmill__Attach a = attach_of(0, 1, "c");
    assert_int_not_equal(attach(&d, TRAINER, &a), 0);
    const Shardmill__JobSpec *said =
        desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_ATTACHED)->attached->spec;
    assert_int_equal(said->n_present, 3);
    assert_int_equal(said->n_drawn, 3);
    assert_memory_equal(said->present, present, sizeof present);
    assert_memory_equal(said->drawn, drawn, sizeof drawn);
    assert_int_equal(said->n_class_names, 3);
    assert_string_equal(said->class_names[2], "oak");
    desk_submit(&d, "job", &spec); /* the same again is the same job */
    assert_non_null(desk_sent(&d, 99, SHARDMILL__ENVELOPE__BODY_ACCEPTED));
    spec.n_drawn = 2;
    spec.n_class_names = 0;
    desk_submit(&d, "other", &spec);
    assert_int_equal(refusal(&d, 99), SM_E_USAGE);
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

static void a_trainer_that_waits_is_told_for_whom(void **state) {
    (void)state;
    struct desk d;
    desk_open(&d, 1);
    Shardmill__JobSpec spec = stream_spec(100, 4, 0);
    desk_submit(&d, "job", &spec);
    Shardmill__Attach a = attach_of(0, 1, "c");
    attach(&d, TRAINER, &a);
    const char *text = NULL;
    for (int i = 0; i < 8; i++) {
        desk_tick(&d, 500);
        const sm_envelope *e = desk_sent(&d, TRAINER, SHARDMILL__ENVELOPE__BODY_WAITS);
        if (e != NULL) {
            text = e->waits->text;
            assert_non_null(strstr(text, "none is connected"));
        }
        trainer_beats(&d, TRAINER);
    }
    assert_non_null(text);
    worker_hello(&d, 1, MB / 2, NULL, 0);
    lease_of(&d, 1);
    assert_non_null(
        strstr(desk_status(&d)->sessions[0]->waits_for, "none has so much batch memory"));
    desk_close(&d);
}

static void sessions_take_turns(void **state) {
    (void)state;
    struct desk d;
    stream_open(&d, stream_spec(1000, 4, 0), 100 * MB);
    Shardmill__Attach a = attach_of(0, 2, "c0"), b = attach_of(1, 2, "c1");
    attach(&d, TRAINER, &a);
    attach(&d, TRAINER + 1, &b);
    int given[2] = {0, 0};
    for (int i = 0; i < 8; i++) {
        Shardmill__Lease l = lease_of(&d, 1);
        if (l.attempt == 0) break;
        given[l.first / 4 % 2]++;
        step_done(&d, 1, &l);
        assert_true(abs(given[0] - given[1]) <= 1);
    }
    assert_int_equal(given[0], 4);
    assert_int_equal(given[1], 4);
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
        cmocka_unit_test(each_position_is_given_once_however_worlds_change),
        cmocka_unit_test(steps_of_a_billion_positions_do_not_overflow),
        cmocka_unit_test(a_session_gets_its_epochs_in_order_and_their_audit),
        cmocka_unit_test(the_next_epoch_is_leased_while_the_last_steps_are_out),
        cmocka_unit_test(credit_and_batch_memory_bound_what_is_out),
        cmocka_unit_test(a_batch_is_told_again_until_it_is_released),
        cmocka_unit_test(an_attached_that_is_lost_is_said_again_until_the_trainer_speaks),
        cmocka_unit_test(batches_are_told_in_order_whoever_is_faster),
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
        cmocka_unit_test(an_attach_that_is_said_again_is_the_same_session),
        cmocka_unit_test(ranks_of_a_loop_go_elsewhere_one_after_the_other),
        cmocka_unit_test(a_commit_is_journaled_before_it_is_confirmed_and_found_again),
        cmocka_unit_test(a_commit_of_where_a_loader_attached_again_is_journaled),
        cmocka_unit_test(a_trainer_is_told_the_counts_of_classes_and_a_lie_is_refused),
        cmocka_unit_test(a_sample_that_kills_three_workers_is_skipped_from_then_on),
        cmocka_unit_test(a_restarted_broker_leaves_what_a_trainer_reads),
        cmocka_unit_test(a_worker_that_registers_again_keeps_its_batches),
        cmocka_unit_test(a_trainer_that_waits_is_told_for_whom),
        cmocka_unit_test(sessions_take_turns),
        cmocka_unit_test(an_impossible_stream_is_refused),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
