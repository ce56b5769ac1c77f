/* Streams through the core when all goes well: sessions, credit, resumes, commits; and the
 * arithmetic of steps, which is checked against a plain walk over all positions. */
#include "tests/unit/stream_desk.h"

#include "lib/rng.h"

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
        cmocka_unit_test(an_attach_that_is_said_again_is_the_same_session),
        cmocka_unit_test(ranks_of_a_loop_go_elsewhere_one_after_the_other),
        cmocka_unit_test(a_commit_is_journaled_before_it_is_confirmed_and_found_again),
        cmocka_unit_test(a_commit_of_where_a_loader_attached_again_is_journaled),
        cmocka_unit_test(a_trainer_is_told_the_counts_of_classes_and_a_lie_is_refused),
        cmocka_unit_test(a_trainer_that_waits_is_told_for_whom),
        cmocka_unit_test(sessions_take_turns),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
