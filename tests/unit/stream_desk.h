/* Streams on a desk, for the tests of the core: who says what a worker and a trainer say. */
#pragma once

#include "tests/unit/desk.h"

enum { TRAINER = 50, MB = 1 << 20 };
#define PIPELINE "11112222333344445555666677778888"
static char batch_digest[] = "0123456789abcdef0123456789abcdef";

static inline Shardmill__JobSpec stream_spec(uint64_t samples, uint32_t batch, uint32_t epochs) {
    Shardmill__JobSpec s = desk_spec(samples, 0, 0);
    s.kind = SHARDMILL__JOB_KIND__STREAM;
    s.name = "pets";
    s.pipeline_digest = PIPELINE;
    s.batch_size = batch;
    s.batch_bytes = MB;
    s.epochs = epochs;
    return s;
}

static inline void worker_hello(struct desk *d, int who, uint64_t memory,
                                Shardmill__Holding **holding, size_t n) {
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

static inline void stream_open(struct desk *d, Shardmill__JobSpec spec, uint64_t memory) {
    desk_open(d, 1);
    desk_submit(d, "job", &spec);
    assert_non_null(desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_ACCEPTED));
    worker_hello(d, 1, memory, NULL, 0);
}

static inline Shardmill__Attach attach_of(uint32_t rank, uint32_t world, char *client) {
    Shardmill__Attach m = SHARDMILL__ATTACH__INIT;
    m.job = "pets";
    m.rank = rank;
    m.world_size = world;
    m.client = client;
    m.credit_bytes = 4 * MB;
    return m;
}

/* The session, or 0 when it is refused. */
static inline uint64_t attach(struct desk *d, int who, const Shardmill__Attach *m) {
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_ATTACH, (void *)m);
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_ATTACHED);
    return e != NULL ? e->attached->session : 0;
}

static inline uint32_t refusal(const struct desk *d, int who) {
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_REFUSED);
    return e != NULL ? e->refused->code : 0;
}

/* A lease to this worker in the last step's actions or by Ready; attempt 0: none. */
static inline Shardmill__Lease lease_of(struct desk *d, int who) {
    Shardmill__Ready ready = SHARDMILL__READY__INIT;
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_LEASE);
    if (e == NULL) {
        desk_say(d, who, SHARDMILL__ENVELOPE__BODY_READY, &ready);
        e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_LEASE);
    }
    return e != NULL ? *e->lease : (Shardmill__Lease)SHARDMILL__LEASE__INIT;
}

static inline bool step_done_as(struct desk *d, int who, const Shardmill__Lease *l, char *digest) {
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

static inline bool step_done(struct desk *d, int who, const Shardmill__Lease *l) {
    return step_done_as(d, who, l, batch_digest);
}

static inline void release(struct desk *d, int who, uint64_t session, uint32_t epoch,
                           uint64_t step) {
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    m.session = session;
    m.epoch = epoch;
    m.step = step;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
}

static inline bool commit(struct desk *d, int who, uint64_t session, uint32_t epoch,
                          uint64_t position) {
    Shardmill__Commit m = SHARDMILL__COMMIT__INIT;
    m.session = session;
    m.epoch = epoch;
    m.position = position;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_COMMIT, &m);
    return desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_COMMITTED) != NULL;
}

static inline void trainer_beats(struct desk *d, int who) {
    Shardmill__Heartbeat m = SHARDMILL__HEARTBEAT__INIT;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &m);
}

/* Makes a step and checks that the trainer hears of exactly it. */
static inline void step_give(struct desk *d, uint32_t epoch, uint64_t step) {
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
