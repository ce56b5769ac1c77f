/* The broker's core at its edges. What the simulator finds by chance is held here by name. */
#include "tests/unit/desk.h"

static int setup(void **state) {
    struct desk *d = calloc(1, sizeof *d);
    desk_open(d, 1);
    *state = d;
    return 0;
}

static int teardown(void **state) {
    desk_close(*state);
    free(*state);
    return 0;
}

static void nothing_is_sent_before_what_it_promises_is_persisted(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(4, 4, 4);
    desk_submit(d, "job", &spec);
    assert_int_equal(d->actions.list[0].kind, SM_ACTION_PERSIST);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_ACCEPTED));
    desk_hello(d, 1, "f");
    struct desk_lease l = desk_ready(d, 1);
    assert_int_equal(d->actions.list[0].kind, SM_ACTION_PERSIST); /* the job's fingerprint */
    assert_int_equal(desk_done(d, 1, &l, desk_sha, 0), 1);
    assert_int_equal(d->actions.list[0].kind, SM_ACTION_PERSIST);
    assert_int_equal(d->actions.list[0].record.kind, SM_RECORD_DONE);
    assert_int_equal(desk_done(d, 1, &l, desk_sha, 0), 0); /* doubled on the way: nothing new */
    assert_int_equal(desk_persisted(d), 0);
}

static void another_spec_under_the_same_id_is_refused_by_the_fields_name(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(4, 4, 4);
    desk_submit(d, "job", &spec);
    desk_submit(d, "job", &spec);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_ACCEPTED));
    assert_int_equal(desk_persisted(d), 0);
    spec.seed = 5;
    desk_submit(d, "job", &spec);
    const sm_envelope *e = desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_REFUSED);
    assert_non_null(e);
    assert_int_equal(e->refused->code, SM_E_DIFFERS);
    assert_non_null(strstr(e->refused->text, "'seed'"));
    spec.seed = 0;
    spec.name = "the name is for people";
    spec.weights = SHARDMILL__WEIGHTS__BY_SAMPLE; /* an older submitter does not tell it */
    desk_submit(d, "job", &spec);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_ACCEPTED));
}

static void specs_that_cannot_be_are_refused(void **state) {
    struct desk *d = *state;
    static const char *const says[] = {
        "samples: 1 to 17592186044416",
        "samples: 1 to",
        "copies: 1 to 65536",
        "shard_samples: 1 to 1048576",
        "lease_samples: 1 to 4096",
        "slices: 1 to 65536",
        "slice: below slices",
        "too many shards",
        "too many parts",
        "a broker keeps at most 16384 files",
    };
    for (size_t i = 0; i < sizeof says / sizeof *says; i++) {
        Shardmill__JobSpec s = desk_spec(4, 4, 4);
        if (i == 0) s.samples = 0;
        if (i == 1) s.samples = UINT64_MAX;
        if (i == 2) s.copies = 0;
        if (i == 3) s.shard_samples = 0;
        if (i == 4) s.lease_samples = 0;
        if (i == 5) s.slices = 0;
        if (i == 6) s.slice = 1;
        if (i == 7) s.samples = (uint64_t)1 << 40, s.shard_samples = 1;
        if (i == 8) s.shard_samples = 1 << 20, s.lease_samples = 1;
        if (i == 9) s = desk_spec(SM_MAX_KEPT_FILES + 1, 1, 1), s.kind = SHARDMILL__JOB_KIND__FIT;
        desk_submit(d, "job", &s);
        const sm_envelope *e = desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_REFUSED);
        assert_non_null(e);
        if (strstr(e->refused->text, says[i]) == NULL) fail_msg("%s", e->refused->text);
    }
    Shardmill__JobSpec s = desk_spec(4, 4, 4);
    desk_submit(d, "", &s);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_REFUSED));
    desk_submit(d, "a b", &s);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_REFUSED));
    desk_submit(d, "job", NULL);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_REFUSED));
}

static void
two_deaths_split_a_range_and_three_more_quarantine_the_guilty_sample_alone(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(2, 2, 2);
    struct desk_lease zombie = {0}, l;
    desk_submit(d, "job", &spec);
    for (int death = 0; death < 2; death++) {
        desk_hello(d, 1, "f");
        l = desk_ready(d, 1);
        assert_int_equal(l.count, 2);
        desk_gone(d, 1);
    }
    for (int death = 0; death < 3; death++) { /* it holds position 1 in advance each time */
        desk_hello(d, 1, "f");
        l = desk_ready(d, 1);
        assert_int_equal(l.first, 0);
        assert_int_equal(l.count, 1);
        zombie = l;
        assert_int_equal(desk_ready(d, 1).first, 1);
        desk_gone(d, 1);
    }
    desk_hello(d, 1, "f");
    l = desk_ready(d, 1);
    struct desk_lease next = desk_ready(d, 1);
    if (l.first != 0) { /* either order is right */
        struct desk_lease swap = l;
        l = next;
        next = swap;
    }
    assert_int_equal(l.generation, 1);
    assert_int_equal(l.n_skip, 1);
    assert_int_equal(l.skip, 0);
    assert_int_equal(next.generation, 0); /* the bystander */
    assert_int_equal(desk_done(d, 1, &zombie, desk_sha, 0), 0);
    assert_int_equal(desk_done(d, 1, &l, desk_sha, 0), 1);
    assert_int_equal(d->actions.list[0].record.n_quarantined, 1);
    assert_int_equal(d->actions.list[0].record.quarantined[0]->code, SM_E_WORKER_DIED);
}

/* As where a Fail is said again, or comes twice, while its Ack and the next lease are under way. */
static void
a_fail_said_again_is_no_death_and_leaves_the_next_lease_of_the_same_sample(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(1, 1, 1);
    struct desk_lease failed, again;
    desk_submit(d, "job", &spec);
    for (int death = 0; death < 3; death++) {
        desk_hello(d, 1, "f");
        failed = desk_ready(d, 1);
        assert_int_equal(failed.generation, 0); /* not quarantined yet */
        desk_fail(d, 1, &failed, SM_E_CANCELLED, "");
        again = desk_ready(d, 1);
        assert_int_equal(again.first, failed.first);
        assert_true(again.attempt > failed.attempt);
        desk_fail(d, 1, &failed, SM_E_CANCELLED, "");
        const sm_envelope *e = desk_sent(d, 1, SHARDMILL__ENVELOPE__BODY_ACK);
        assert_non_null(e);
        assert_false(e->ack->wanted);
        assert_int_equal(desk_ready(d, 1).attempt, 0); /* it is still at it */
        desk_gone(d, 1);                               /* and that is a death over it */
    }
    desk_hello(d, 1, "f");
    assert_int_equal(desk_ready(d, 1).generation, 1);
}

static void a_bye_is_no_death(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(4, 4, 4);
    desk_submit(d, "job", &spec);
    for (int i = 0; i < 10; i++) {
        desk_hello(d, 1, "f");
        assert_int_equal(desk_ready(d, 1).count, 4);
        Shardmill__Bye bye = SHARDMILL__BYE__INIT;
        desk_say(d, 1, SHARDMILL__ENVELOPE__BODY_BYE, &bye);
    }
    assert_int_equal(desk_status(d)->leases_lost, 0);
}

static void a_silent_worker_is_dead_but_not_when_the_broker_itself_was_stopped(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(4, 4, 4);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    desk_ready(d, 1);
    desk_tick(d, 60000); /* the broker was suspended */
    assert_int_equal(desk_status(d)->workers, 1);
    for (int i = 0; i < 6; i++)
        desk_tick(d, 500);
    assert_int_equal(desk_status(d)->workers, 1);
    desk_tick(d, 500);
    assert_int_equal(desk_status(d)->workers, 0);
    assert_int_equal(desk_status(d)->leases_lost, 1);
}

static void a_late_lease_is_given_to_another_and_its_result_still_taken(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(8, 8, 4);
    Shardmill__Heartbeat beat = SHARDMILL__HEARTBEAT__INIT;
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    struct desk_lease slow = desk_ready(d, 1);
    for (int i = 0; i < 31; i++) {
        desk_tick(d, 1000);
        desk_say(d, 1, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &beat); /* alive, and yet no progress */
    }
    desk_hello(d, 2, "f");
    struct desk_lease l = desk_ready(d, 2);
    assert_int_equal(l.first, slow.first);
    assert_true(l.attempt > slow.attempt);
    assert_int_equal(desk_done(d, 1, &slow, desk_sha, 0), 1);
    assert_non_null(desk_sent(d, 2, SHARDMILL__ENVELOPE__BODY_REVOKE));
    assert_int_equal(desk_done(d, 2, &l, desk_sha, 0), 0);
}

static void leases_lost_on_their_way_do_not_use_up_a_worker(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(64, 64, 4);
    Shardmill__Heartbeat beat = SHARDMILL__HEARTBEAT__INIT;
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    for (int i = 0; i < 4; i++)
        assert_true(desk_ready(d, 1).attempt != 0);
    assert_int_equal(desk_ready(d, 1).attempt, 0); /* four is what a worker may hold */
    for (int i = 0; i < 31; i++) {
        desk_tick(d, 1000);
        desk_say(d, 1, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &beat);
    }
    assert_true(desk_ready(d, 1).attempt != 0);
}

static void the_same_progress_again_does_not_renew_a_lease(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(8, 8, 8);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    struct desk_lease l = desk_ready(d, 1);
    Shardmill__Progress p = SHARDMILL__PROGRESS__INIT;
    p.job = "job";
    p.attempt = l.attempt;
    for (int i = 0; i < 32; i++) {
        desk_tick(d, 1000);
        desk_say(d, 1, SHARDMILL__ENVELOPE__BODY_PROGRESS, &p);
    }
    assert_int_equal(desk_status(d)->leases_lost, 1);
    p.done = 1;
    desk_say(d, 1, SHARDMILL__ENVELOPE__BODY_PROGRESS, &p);
    assert_int_equal(desk_status(d)->workers, 1); /* and real progress takes it back */
}

static void a_failed_job_says_why_and_goes_on_from_what_is_made_when_submitted_again(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(8, 8, 4);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    struct desk_lease l = desk_ready(d, 1);
    assert_int_equal(desk_done(d, 1, &l, desk_sha, 0), 1);
    l = desk_ready(d, 1);
    desk_fail(d, 1, &l, SM_E_DISK_FULL, "no room for 'shard-000000'");
    const Shardmill__JobStatus *s = desk_status(d);
    assert_int_equal(s->state, SHARDMILL__JOB_STATE__FAILED);
    assert_int_equal(s->code, SM_E_DISK_FULL);
    assert_string_equal(s->text, "no room for 'shard-000000'");
    assert_int_equal(desk_ready(d, 1).attempt, 0);
    desk_submit(d, "job", &spec);
    const sm_envelope *e = desk_sent(d, 1, SHARDMILL__ENVELOPE__BODY_LEASE);
    assert_non_null(e);
    assert_int_equal(e->lease->first, 4);
}

static void a_machines_failure_is_retried_three_times_with_growing_pauses(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(4, 4, 4);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    struct desk_lease l = desk_ready(d, 1);
    for (int pause = 1000; pause <= 4000; pause *= 2) {
        Shardmill__Heartbeat beat = SHARDMILL__HEARTBEAT__INIT;
        desk_fail(d, 1, &l, pause == 1000 ? SM_E_CAGE_DIED : SM_E_MEMORY, "out of memory");
        assert_int_equal(desk_ready(d, 1).attempt, 0);
        assert_non_null(strstr(desk_status(d)->waits_for, "out of memory"));
        for (int ms = 500; ms < pause; ms += 500) {
            desk_tick(d, 500);
            assert_null(desk_sent(d, 1, SHARDMILL__ENVELOPE__BODY_LEASE));
            desk_say(d, 1, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &beat);
        }
        desk_tick(d, 500);
        const sm_envelope *e = desk_sent(d, 1, SHARDMILL__ENVELOPE__BODY_LEASE);
        assert_non_null(e);
        l.attempt = e->lease->attempt;
    }
    desk_fail(d, 1, &l, SM_E_MEMORY, "out of memory");
    assert_int_equal(desk_status(d)->state, SHARDMILL__JOB_STATE__FAILED);
}

static void two_digests_of_one_part_fail_the_job(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(8, 8, 4);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    struct desk_lease l = desk_ready(d, 1);
    char other[65];
    memcpy(other, desk_sha, sizeof other);
    other[0] = 'f';
    assert_int_equal(desk_done(d, 1, &l, desk_sha, 0), 1);
    assert_int_equal(desk_done(d, 1, &l, other, 0), 0);
    assert_int_equal(desk_status(d)->state, SHARDMILL__JOB_STATE__FAILED);
    assert_non_null(strstr(desk_status(d)->text, "differently"));
}

static void a_sealed_shard_that_is_not_its_parts_is_made_again(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(8, 8, 4);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    for (int i = 0; i < 2; i++) {
        struct desk_lease l = desk_ready(d, 1);
        assert_int_equal(desk_done(d, 1, &l, desk_sha, 0), 1);
    }
    struct desk_lease seal = desk_ready(d, 1);
    assert_int_equal(seal.n_parts, 2);
    seal.n_parts = 3; /* longer than its parts */
    assert_int_equal(desk_done(d, 1, &seal, desk_sha, 0), 0);
    assert_int_equal(desk_status(d)->made, 0);
    assert_int_equal(desk_ready(d, 1).kind, SHARDMILL__LEASE_KIND__RANGE);
}

static void results_that_cannot_be_are_refused_and_change_nothing(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(8, 4, 2);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    struct desk_lease good = desk_ready(d, 1);
    for (int i = 0; i < 7; i++) {
        struct desk_lease l = good;
        const char *sha = desk_sha;
        if (i == 0) l.shard = 2;
        if (i == 1) l.first = 3, l.count = 2; /* beyond its shard */
        if (i == 2) l.count = 0;
        if (i == 3) l.first = UINT64_MAX;
        if (i == 4) l.count = UINT32_MAX;
        if (i == 5) sha = "zz";
        if (i == 6) l.kind = (Shardmill__LeaseKind)7;
        assert_int_equal(desk_done(d, 1, &l, sha, 0), -1);
        const sm_envelope *e = desk_sent(d, 1, SHARDMILL__ENVELOPE__BODY_REFUSED);
        assert_non_null(e);
        assert_string_equal(e->refused->job, "job");
        assert_int_equal(e->refused->attempt, good.attempt);
        assert_int_equal(desk_persisted(d), 0);
    }
    assert_int_equal(desk_done(d, 1, &good, desk_sha, 3), -1); /* more quarantined than made */
    struct desk_lease seal = good;
    seal.kind = SHARDMILL__LEASE_KIND__SEAL;
    assert_int_equal(desk_done(d, 1, &seal, desk_sha, 0), 0); /* nothing to seal yet */
    assert_int_equal(desk_done(d, 1, &good, desk_sha, 2), 1);
}

static void a_worker_of_another_fingerprint_gets_no_lease_and_one_refusal_with_both(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(8, 8, 4);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "libjpeg 2.1.5");
    desk_ready(d, 1);
    desk_hello(d, 2, "libjpeg 3.0.0");
    assert_int_equal(desk_ready(d, 2).attempt, 0);
    const sm_envelope *e = desk_sent(d, 2, SHARDMILL__ENVELOPE__BODY_REFUSED);
    assert_non_null(e);
    assert_non_null(strstr(e->refused->text, "libjpeg 2.1.5"));
    assert_non_null(strstr(e->refused->text, "libjpeg 3.0.0"));
    assert_string_equal(e->refused->job, "job");
    assert_int_equal(e->refused->attempt, 0);
    Shardmill__JobGet get = SHARDMILL__JOB_GET__INIT;
    get.job = "another";
    desk_say(d, 2, SHARDMILL__ENVELOPE__BODY_JOB_GET, &get);
    e = desk_sent(d, 2, SHARDMILL__ENVELOPE__BODY_REFUSED);
    assert_non_null(e);
    assert_string_equal(e->refused->job, "another");
    desk_tick(d, 500);
    assert_null(desk_sent(d, 2, SHARDMILL__ENVELOPE__BODY_REFUSED));
    desk_gone(d, 1);
    assert_non_null(strstr(desk_status(d)->waits_for, "libjpeg 2.1.5"));
}

static void a_long_list_of_quarantined_positions_comes_in_pages_each_once(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec = desk_spec(6000, 6000, 4000);
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    for (int i = 0; i < 3; i++) {
        struct desk_lease l = desk_ready(d, 1);
        assert_int_equal(
            desk_done(d, 1, &l, desk_sha, l.kind == SHARDMILL__LEASE_KIND__RANGE ? l.count : 0), 1);
    }
    Shardmill__ResultsGet get = SHARDMILL__RESULTS_GET__INIT;
    get.job = "job";
    uint64_t next = 0;
    int pages = 0;
    for (bool end = false; !end; pages++) {
        desk_say(d, 99, SHARDMILL__ENVELOPE__BODY_RESULTS_GET, &get);
        const Shardmill__Results *r = desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_RESULTS)->results;
        assert_true(shardmill__results__get_packed_size(r) < SM_MAX_MESSAGE_BYTES);
        assert_int_equal(r->n_shards, 1);
        for (size_t i = 0; i < r->shards[0]->n_quarantined; i++)
            assert_int_equal(r->shards[0]->quarantined[i]->position, next++);
        get.shard = r->next;
        get.position = r->next_position;
        end = r->end;
        assert_true(pages < 100);
    }
    assert_int_equal(next, 6000);
    assert_true(pages > 1);
}

static void memory_follows_what_is_open_and_not_the_length_of_the_plan(void **state) {
    struct desk *d = *state;
    Shardmill__JobSpec spec =
        desk_spec((uint64_t)1 << 33, 8192, 4096); /* 8.6e9 positions in a million shards */
    desk_submit(d, "job", &spec);
    desk_hello(d, 1, "f");
    for (int i = 0; i < 3000; i++) {
        struct desk_lease l = desk_ready(d, 1);
        assert_int_equal(desk_done(d, 1, &l, desk_sha, 0), 1);
    }
    const struct job *job = d->core->jobs;
    size_t opens = 0;
    for (const struct open_shard *o = job->opens; o != NULL; o = o->next)
        opens++;
    assert_true(opens <= 2);
    assert_int_equal(job->sealed, 1000);
}

static void a_full_broker_forgets_the_oldest_job_that_has_ended_and_none_that_runs(void **state) {
    struct desk *d = *state;
    char id[16];
    Shardmill__JobSpec spec = desk_spec(1, 1, 1);
    for (int i = 0; i < SM_MAX_JOBS; i++) {
        snprintf(id, sizeof id, "job%d", i);
        desk_submit(d, id, &spec);
        assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_ACCEPTED));
    }
    desk_submit(d, "more", &spec);
    assert_int_equal(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_REFUSED)->refused->code, SM_E_BUSY);
    Shardmill__Cancel cancel = SHARDMILL__CANCEL__INIT;
    cancel.job = "job7";
    desk_say(d, 99, SHARDMILL__ENVELOPE__BODY_CANCEL, &cancel);
    desk_submit(d, "more", &spec);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_ACCEPTED));
    desk_say(d, 99, SHARDMILL__ENVELOPE__BODY_CANCEL, &cancel);
    assert_int_equal(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_REFUSED)->refused->code,
                     SM_E_MISSING);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_sent_before_what_it_promises_is_persisted),
        TEST(another_spec_under_the_same_id_is_refused_by_the_fields_name),
        TEST(specs_that_cannot_be_are_refused),
        TEST(two_deaths_split_a_range_and_three_more_quarantine_the_guilty_sample_alone),
        TEST(a_fail_said_again_is_no_death_and_leaves_the_next_lease_of_the_same_sample),
        TEST(a_bye_is_no_death),
        TEST(a_silent_worker_is_dead_but_not_when_the_broker_itself_was_stopped),
        TEST(a_late_lease_is_given_to_another_and_its_result_still_taken),
        TEST(leases_lost_on_their_way_do_not_use_up_a_worker),
        TEST(the_same_progress_again_does_not_renew_a_lease),
        TEST(a_failed_job_says_why_and_goes_on_from_what_is_made_when_submitted_again),
        TEST(a_machines_failure_is_retried_three_times_with_growing_pauses),
        TEST(two_digests_of_one_part_fail_the_job),
        TEST(a_sealed_shard_that_is_not_its_parts_is_made_again),
        TEST(results_that_cannot_be_are_refused_and_change_nothing),
        TEST(a_worker_of_another_fingerprint_gets_no_lease_and_one_refusal_with_both),
        TEST(a_long_list_of_quarantined_positions_comes_in_pages_each_once),
        TEST(memory_follows_what_is_open_and_not_the_length_of_the_plan),
        TEST(a_full_broker_forgets_the_oldest_job_that_has_ended_and_none_that_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
