/* A core on the desk, for tests: messages in as structs, answers looked at before they would leave.
 */
#pragma once

#include "broker/core.h"
#include "broker/state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct desk {
    struct sm_core *core;
    struct sm_actions actions; /* of the last step */
    int64_t now;
};

static const char desk_sha[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static inline void desk_open(struct desk *d, uint32_t incarnation) {
    struct sm_core_options o = {.instance = 7, .incarnation = incarnation};
    d->now = 1000;
    sm_actions_init(&d->actions);
    d->core = sm_core_new(&o, d->now);
}

static inline void desk_close(struct desk *d) {
    sm_core_free(&d->core);
    sm_actions_release(&d->actions);
}

static inline struct sm_peer desk_peer(int who) {
    struct sm_peer p = {.n = 5, .id = {0, (uint8_t)who}};
    return p;
}

static inline void desk_say(struct desk *d, int who, int which, void *body) {
    struct sm_peer peer = desk_peer(who);
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.body_case = (Shardmill__Envelope__BodyCase)which;
    e.hello = body;
    sm_actions_reset(&d->actions);
    sm_core_step(d->core,
                 &(struct sm_event){.kind = SM_EVENT_MESSAGE, .peer = &peer, .message = &e}, d->now,
                 &d->actions);
}

static inline void desk_tick(struct desk *d, int64_t ms) {
    d->now += ms;
    sm_actions_reset(&d->actions);
    sm_core_step(d->core, &(struct sm_event){.kind = SM_EVENT_TICK}, d->now, &d->actions);
}

static inline void desk_gone(struct desk *d, int who) {
    struct sm_peer peer = desk_peer(who);
    sm_actions_reset(&d->actions);
    sm_core_step(d->core, &(struct sm_event){.kind = SM_EVENT_GONE, .peer = &peer}, d->now,
                 &d->actions);
}

/* The first message of this kind that the last step sends to somebody, or NULL. */
static inline const sm_envelope *desk_sent(const struct desk *d, int who, int which) {
    for (size_t i = 0; i < d->actions.n; i++) {
        const struct sm_action *a = &d->actions.list[i];
        if (a->kind == SM_ACTION_SEND && a->peer->id[1] == who &&
            (int)a->message->body_case == which)
            return a->message;
    }
    return NULL;
}

static inline size_t desk_persisted(const struct desk *d) {
    size_t n = 0;
    for (size_t i = 0; i < d->actions.n; i++)
        n += d->actions.list[i].kind == SM_ACTION_PERSIST;
    return n;
}

static inline Shardmill__JobSpec desk_spec(uint64_t samples, uint64_t shard, uint32_t lease) {
    Shardmill__JobSpec s = SHARDMILL__JOB_SPEC__INIT;
    s.pipeline = "{}";
    s.samples = samples;
    s.copies = 1;
    s.shard_samples = shard;
    s.lease_samples = lease;
    s.slices = 1;
    return s;
}

static inline void desk_submit(struct desk *d, const char *job, Shardmill__JobSpec *spec) {
    Shardmill__Submit m = SHARDMILL__SUBMIT__INIT;
    m.job = (char *)job;
    m.spec = spec;
    desk_say(d, 99, SHARDMILL__ENVELOPE__BODY_SUBMIT, &m);
}

static inline void desk_hello(struct desk *d, int who, const char *fingerprint) {
    Shardmill__Hello m = SHARDMILL__HELLO__INIT;
    m.name = "host/1";
    m.fingerprint = (char *)fingerprint;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_HELLO, &m);
}

/* A copy of the lease that Ready brings; attempt 0: none. skip[0] is its first skipped position, if
 * any. */
struct desk_lease {
    Shardmill__LeaseKind kind;
    uint64_t attempt, shard, first, skip;
    uint32_t count, generation;
    size_t n_skip, n_parts;
};

static inline struct desk_lease desk_ready(struct desk *d, int who) {
    Shardmill__Ready m = SHARDMILL__READY__INIT;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_READY, &m);
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_LEASE);
    if (e == NULL) return (struct desk_lease){0};
    const Shardmill__Lease *l = e->lease;
    return (struct desk_lease){
        l->kind,  l->attempt,    l->shard,  l->first,  l->n_skip ? l->skip[0] : 0,
        l->count, l->generation, l->n_skip, l->n_parts};
}

/* 1: acknowledged as wanted, 0: as not wanted, -1: refused. */
static inline int desk_done(struct desk *d, int who, const struct desk_lease *l, const char *sha,
                            size_t n_bad) {
    Shardmill__Done m = SHARDMILL__DONE__INIT;
    Shardmill__Quarantined *bad = calloc(n_bad + 1, sizeof *bad),
                           **list = calloc(n_bad + 1, sizeof *list);
    for (size_t i = 0; i < n_bad; i++) {
        shardmill__quarantined__init(list[i] = &bad[i]);
        bad[i].position = l->first + i;
        bad[i].code = SM_E_DECODE;
        bad[i].stage = "decode";
        bad[i].text =
            "a reason that is about as long as such reasons are: premature end of the file at byte 4711";
    }
    m.job = "job";
    m.kind = l->kind;
    m.attempt = l->attempt;
    m.shard = l->shard;
    m.first = l->first;
    m.count = l->count;
    m.generation = l->generation;
    m.bytes = 512 * (l->n_parts > 0 ? l->n_parts : 1); /* a seal is as long as its parts */
    m.sha256 = (char *)sha;
    m.quarantined = list;
    m.n_quarantined = n_bad;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_DONE, &m);
    free(bad);
    free(list);
    const sm_envelope *e = desk_sent(d, who, SHARDMILL__ENVELOPE__BODY_ACK);
    return e == NULL ? -1 : e->ack->wanted;
}

static inline void desk_fail(struct desk *d, int who, const struct desk_lease *l, uint32_t code,
                             const char *text) {
    Shardmill__Fail m = SHARDMILL__FAIL__INIT;
    m.job = "job";
    m.kind = l->kind;
    m.attempt = l->attempt;
    m.code = code;
    m.text = (char *)text;
    desk_say(d, who, SHARDMILL__ENVELOPE__BODY_FAIL, &m);
}

static inline const Shardmill__JobStatus *desk_status(struct desk *d) {
    Shardmill__JobStatusGet m = SHARDMILL__JOB_STATUS_GET__INIT;
    m.job = "job";
    desk_say(d, 99, SHARDMILL__ENVELOPE__BODY_JOB_STATUS_GET, &m);
    const sm_envelope *e = desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_JOB_STATUS);
    return e != NULL ? e->job_status : NULL;
}
