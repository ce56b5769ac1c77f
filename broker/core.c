/* One event in, actions out: which handler gets which message, and what time does by itself. Before
 * it: the loop or the simulator. After it: workers.c, results.c, jobs.c, status.c, sessions.c, each
 * a handful of handlers, then leases.c, plan.c (expansions) and stream.c (batches for trainers). */
#include "broker/core.h"
#include "broker/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void message(struct sm_core *core, const struct sm_peer *peer, const sm_envelope *e);
static void tick(struct sm_core *core);
static void stall_forgive(struct sm_core *core, int64_t now_ms);

#ifdef SM_SIM
int sm_planted;
#endif

struct sm_core *sm_core_new(const struct sm_core_options *options, int64_t now_ms) {
    struct sm_core *core = core_calloc(1, sizeof *core);
    core->options = *options;
    if (core->options.heartbeat_ms == 0) core->options.heartbeat_ms = SM_HEARTBEAT_MS;
    if (core->options.lease_ms == 0) core->options.lease_ms = SM_LEASE_MS;
    core->started = core->now = core->ticked = now_ms;
    return core;
}

void sm_core_free(struct sm_core **c) {
    struct sm_core *core = *c;
    if (core == NULL) return;
    for (struct worker *w = core->workers; w != NULL; w = w->next)
        while (w->leases != NULL)
            core_lease_drop(core, w->leases);
    while (core->sessions != NULL)
        core_session_end(core, core->sessions, true);
    while (core->orphans != NULL)
        core_orphan_free(core, core->orphans, false);
    while (core->workers != NULL)
        core_worker_free(core, core->workers);
    while (core->jobs != NULL)
        core_job_free(core, core->jobs);
    free(core);
    *c = NULL;
}

int sm_core_load(struct sm_core *core, const struct sm_record *record, struct sm_err *err) {
    if (PLANTED(record_replayed_twice) && record->kind == SM_RECORD_DONE &&
        core_record_apply(core, record, err) != 0)
        return -1;
    return core_record_apply(core, record, err);
}

void sm_core_step(struct sm_core *core, const struct sm_event *event, int64_t now_ms,
                  struct sm_actions *out) {
    assert(now_ms >= core->now);
    core->out = out;
    stall_forgive(core, now_ms);
    core->now = now_ms;
    switch (event->kind) {
    case SM_EVENT_MESSAGE:
        message(core, event->peer, event->message);
        break;
    case SM_EVENT_GARBAGE:
        core->dropped++;
        break;
    case SM_EVENT_REFUSED:
        core->refused += event->n;
        break;
    case SM_EVENT_GONE: {
        struct worker *w = core_worker_find(core, event->peer);
        if (w != NULL) core_worker_dies(core, w);
        core_session_gone(core, event->peer);
        break;
    }
    case SM_EVENT_TICK:
        tick(core);
        break;
    }
    if (core->work_added) core_assign(core);
    core->out = NULL;
}

/* Half a heartbeat: deadlines need no better, and half a second when nobody is there. */
static int64_t tick_ms(const struct sm_core *core) {
    int64_t ms = core->options.heartbeat_ms / 2;
    if ((core->n_workers == 0 && core->n_sessions == 0) || ms > 500) ms = 500;
    return ms < SM_HEARTBEAT_MIN_MS / 2 ? SM_HEARTBEAT_MIN_MS / 2 : ms;
}

int sm_core_sleep_ms(const struct sm_core *core, int64_t now_ms) {
    if (core->work_added) return 0;
    int64_t left = core->ticked + tick_ms(core) - now_ms;
    return left > 0 ? (int)left : 0;
}

static void tick(struct sm_core *core) {
    core->ticked = core->now;
    core_workers_tick(core);
    core_sessions_tick(core);
    core_leases_expire(core);
    if (core->n_ready > 0)
        core->work_added = true; /* pauses that are over, leases that have become slow */
}

/* A broker that was itself stopped (suspended, paged out) has heard nobody, and that is nobody's
 * fault: the time that it missed counts for no one. */
static void stall_forgive(struct sm_core *core, int64_t now_ms) {
    int64_t missed = now_ms - core->now, usual = tick_ms(core);
    if (missed <= 4 * usual) return;
    for (struct worker *w = core->workers; w != NULL; w = w->next) {
        w->heard += missed;
        for (struct lease *l = w->leases; l != NULL; l = l->next_of_worker)
            l->deadline += missed;
    }
    for (struct session *s = core->sessions; s != NULL; s = s->next)
        s->heard += missed;
    for (struct orphan *o = core->orphans; o != NULL; o = o->next)
        o->deadline += missed;
}

static void worker_message(struct sm_core *core, const struct sm_peer *peer, const sm_envelope *e) {
    struct worker *w = core_worker_find(core, peer);
    bool beat = e->body_case == SHARDMILL__ENVELOPE__BODY_HEARTBEAT;
    if (w == NULL && beat && core_session_heard(core, peer)) return;
    if (w == NULL) {
        BODY(core, m, Shardmill__Register, shardmill__register__init);
        core_send(core, peer, SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN, m);
        return;
    }
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_HEARTBEAT:
        break;
    case SHARDMILL__ENVELOPE__BODY_READY:
        core_on_ready(core, w);
        break;
    case SHARDMILL__ENVELOPE__BODY_PROGRESS:
        core_on_progress(core, w, e->progress);
        break;
    case SHARDMILL__ENVELOPE__BODY_DONE:
        core_on_done(core, w, e->done);
        break;
    case SHARDMILL__ENVELOPE__BODY_FAIL:
        core_on_fail(core, w, e->fail);
        break;
    default:
        assert(!"a message of no worker");
    }
}

static void message(struct sm_core *core, const struct sm_peer *peer, const sm_envelope *e) {
    struct worker *w = core_worker_find(core, peer);
    if (w != NULL) w->heard = core->now; /* whatever it says, it lives */
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_HELLO:
        core_on_hello(core, peer, e->hello);
        break;
    case SHARDMILL__ENVELOPE__BODY_HEARTBEAT:
    case SHARDMILL__ENVELOPE__BODY_READY:
    case SHARDMILL__ENVELOPE__BODY_PROGRESS:
    case SHARDMILL__ENVELOPE__BODY_DONE:
    case SHARDMILL__ENVELOPE__BODY_FAIL:
        worker_message(core, peer, e);
        break;
    case SHARDMILL__ENVELOPE__BODY_BYE:
        if (w != NULL) core_on_bye(core, w);
        break;
    case SHARDMILL__ENVELOPE__BODY_JOB_GET:
        core_on_job_get(core, peer, e->job_get);
        break;
    case SHARDMILL__ENVELOPE__BODY_FILE_GET:
        core_on_file_get(core, peer, e->file_get);
        break;
    case SHARDMILL__ENVELOPE__BODY_SUBMIT:
        core_on_submit(core, peer, e->submit);
        break;
    case SHARDMILL__ENVELOPE__BODY_CANCEL:
        core_on_cancel(core, peer, e->cancel);
        break;
    case SHARDMILL__ENVELOPE__BODY_JOB_STATUS_GET:
        core_on_job_status_get(core, peer, e->job_status_get);
        break;
    case SHARDMILL__ENVELOPE__BODY_RESULTS_GET:
        core_on_results_get(core, peer, e->results_get);
        break;
    case SHARDMILL__ENVELOPE__BODY_ATTACH:
        core_on_attach(core, peer, e->attach);
        break;
    case SHARDMILL__ENVELOPE__BODY_RELEASE:
    case SHARDMILL__ENVELOPE__BODY_LOST:
    case SHARDMILL__ENVELOPE__BODY_COMMIT:
    case SHARDMILL__ENVELOPE__BODY_DETACH:
        core_on_trainer(core, peer, e);
        break;
    case SHARDMILL__ENVELOPE__BODY_STATUS_GET:
        core_on_status_get(core, peer);
        break;
    default: /* a body for somebody else, or none */
        core->dropped++;
        core_refuse(core, peer, SM_E_PROTOCOL, "a broker takes no message of kind %d",
                    (int)e->body_case);
    }
}
