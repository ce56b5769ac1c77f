/* A worker as PROTOCOL.md describes it, with everything that may go wrong with one: it dies at any
 * moment, sleeps through its lease and wakes up, fails, hears messages twice or never. */
#include "tests/sim/sim.h"

#include <string.h>

static void work_next(struct world *w, uint32_t slot);

static void say(struct world *w, uint32_t slot, int which) {
    struct msg m = {.which = (Shardmill__Envelope__BodyCase)which};
    actor_send(w, slot, &m);
}

static void hello(struct world *w, uint32_t slot) {
    struct worker_sim *x = &w->actors[slot].worker;
    struct msg m = x->state == IDLE ? (struct msg){0} : x->lease;
    m.holding = x->state != IDLE;
    m.ahead_attempt = x->ahead.attempt, m.ahead_kind = x->ahead.kind,
    m.ahead_shard = x->ahead.shard;
    m.ahead_first = x->ahead.first, m.ahead_count = x->ahead.count,
    m.ahead_generation = x->ahead.generation;
    m.which = SHARDMILL__ENVELOPE__BODY_HELLO;
    x->registered = false;
    actor_send(w, slot, &m);
}

void worker_start(struct world *w, uint32_t slot) {
    w->actors[slot].worker = (struct worker_sim){.heard = w->now};
    hello(w, slot);
    happen(w, (int64_t)below(w, BEAT_MS), ACTOR_TIMER, slot, w->actors[slot].life, NULL);
}

/* Once a heartbeat everything that may have been lost is said again. */
void worker_timer(struct world *w, uint32_t slot) {
    struct worker_sim *x = &w->actors[slot].worker;
    happen(w, BEAT_MS, ACTOR_TIMER, slot, w->actors[slot].life, NULL);
    if (w->now - x->heard > SM_LIVENESS * BEAT_MS) x->registered = false;
    if (!x->registered) {
        hello(w, slot);
        return;
    }
    say(w, slot, SHARDMILL__ENVELOPE__BODY_HEARTBEAT);
    bool room = x->state == IDLE || (x->ahead.attempt == 0 && chance(w, 0.3));
    if (room) say(w, slot, SHARDMILL__ENVELOPE__BODY_READY);
    if (x->state == TELLING) actor_send(w, slot, &x->result);
}

/* Which sample is in work; said before it is touched. */
static void progress(struct world *w, uint32_t slot) {
    const struct worker_sim *x = &w->actors[slot].worker;
    struct msg m = {.which = SHARDMILL__ENVELOPE__BODY_PROGRESS,
                    .attempt = x->lease.attempt,
                    .done = x->made,
                    .first = x->lease.first + x->made};
    actor_send(w, slot, &m);
}

static void lease_begin(struct world *w, uint32_t slot, const struct msg *m) {
    struct worker_sim *x = &w->actors[slot].worker;
    x->lease = *m;
    x->made = 0;
    x->state = m->kind == SHARDMILL__LEASE_KIND__SEAL ? SEALING : MAKING;
    if (x->state == MAKING) progress(w, slot);
    work_next(w, slot);
}

static void idle(struct world *w, uint32_t slot) {
    struct worker_sim *x = &w->actors[slot].worker;
    x->state = IDLE;
    x->step++; /* what was under way is no more */
    if (x->ahead.attempt != 0) {
        struct msg next = x->ahead;
        x->ahead.attempt = 0;
        lease_begin(w, slot, &next);
    } else if (x->registered) {
        say(w, slot, SHARDMILL__ENVELOPE__BODY_READY);
    }
}

static void lease_take(struct world *w, uint32_t slot, const struct msg *m) {
    struct worker_sim *x = &w->actors[slot].worker;
    if (x->state == IDLE) {
        lease_begin(w, slot, m);
    } else if (m->attempt == x->lease.attempt || m->attempt == x->ahead.attempt) {
        return; /* the same once more */
    } else if (x->ahead.attempt == 0) {
        x->ahead = *m;
    } else {
        struct msg busy = *m;
        busy.which = SHARDMILL__ENVELOPE__BODY_FAIL;
        busy.code = SM_E_BUSY;
        actor_send(w, slot, &busy);
    }
}

void worker_receive(struct world *w, uint32_t slot, const struct msg *m) {
    struct worker_sim *x = &w->actors[slot].worker;
    x->heard = w->now;
    if (m->instance != x->instance && x->registered &&
        m->which != SHARDMILL__ENVELOPE__BODY_WELCOME) {
        hello(w, slot); /* another broker speaks */
        return;
    }
    switch (m->which) {
    case SHARDMILL__ENVELOPE__BODY_WELCOME:
        x->registered = true;
        x->instance = m->instance;
        if (x->state == IDLE) say(w, slot, SHARDMILL__ENVELOPE__BODY_READY);
        if (x->state == TELLING) actor_send(w, slot, &x->result);
        break;
    case SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN:
        hello(w, slot);
        break;
    case SHARDMILL__ENVELOPE__BODY_LEASE:
        lease_take(w, slot, m);
        break;
    case SHARDMILL__ENVELOPE__BODY_REVOKE:
    case SHARDMILL__ENVELOPE__BODY_ACK:
        if (x->state != IDLE && x->lease.attempt == m->attempt)
            idle(w, slot);
        else if (x->ahead.attempt == m->attempt)
            x->ahead.attempt = 0;
        break;
    case SHARDMILL__ENVELOPE__BODY_REFUSED:
        if (x->state == TELLING) idle(w, slot);
        break;
    default:
        break;
    }
}

static void tell(struct world *w, uint32_t slot, int which, uint32_t code, uint64_t sha,
                 uint64_t bytes) {
    struct worker_sim *x = &w->actors[slot].worker;
    x->state = TELLING;
    x->result = x->lease;
    x->result.which = (Shardmill__Envelope__BodyCase)which;
    x->result.code = code;
    x->result.sha = sha;
    x->result.bytes = bytes;
    x->result.n = 0;
    for (uint32_t i = 0; x->lease.kind == SHARDMILL__LEASE_KIND__RANGE && i < x->lease.count; i++)
        if (x->content[i] == SUBSTITUTE)
            x->result.entries[x->result.n++] = (struct entry){x->lease.first + i, SM_E_DECODE};
    actor_send(w, slot, &x->result);
}

static bool skipped(const struct msg *lease, uint64_t position) {
    for (uint32_t i = 0; i < lease->n; i++)
        if (lease->skip[i] == position) return true;
    return false;
}

/* Begins the next sample, or the seal. */
static void work_next(struct world *w, uint32_t slot) {
    struct worker_sim *x = &w->actors[slot].worker;
    uint64_t position = x->lease.first + x->made;
    int64_t ms = 10 + (int64_t)below(w, chance(w, 0.03) ? 3000 : 150);
    int nature = GOOD;
    if (x->state == MAKING && !skipped(&x->lease, position))
        nature = w->nature[sm_plan_at(&w->plan, position).sample];
    happen(w, ms, WORKER_STEP, slot, w->actors[slot].life, &(struct msg){.done = ++x->step});
    bool last = x->state == MAKING && x->made + 1 == x->lease.count;
    if (last && x->registered && x->ahead.attempt == 0 && chance(w, 0.7))
        say(w, slot, SHARDMILL__ENVELOPE__BODY_READY); /* for the next one, in good time */
    if (nature == POISON) x->made = UINT32_MAX;        /* it dies of it in the middle of the work */
    if (nature == SLEEPER && chance(w, 0.8))
        w->actors[slot].paused_until = w->now + 2000 + (int64_t)below(w, 12000);
}

static void part_finish(struct world *w, uint32_t slot) {
    struct worker_sim *x = &w->actors[slot].worker;
    struct part_row row = {x->lease.first, x->lease.count, x->lease.generation};
    part_write(w, x->lease.shard, &row, x->content);
    if (world_chaotic(w) && chance(w, 0.01))
        actor_kill(w, slot); /* the part is there, and nobody was told */
    else
        tell(w, slot, SHARDMILL__ENVELOPE__BODY_DONE, 0, content_sha(x->content, x->lease.count),
             content_bytes(x->content, x->lease.count));
}

static void seal_finish(struct world *w, uint32_t slot) {
    struct worker_sim *x = &w->actors[slot].worker;
    bool cut = world_chaotic(w) && chance(w, 0.03);
    uint64_t sha = 0, bytes = 0;
    int code = shard_seal(w, &x->lease, cut ? (uint32_t)below(w, x->lease.n + 1) : x->lease.n, &sha,
                          &bytes);
    if (cut)
        actor_kill(w, slot);
    else if (code != 0)
        tell(w, slot, SHARDMILL__ENVELOPE__BODY_FAIL, (uint32_t)code, 0, 0);
    else
        tell(w, slot, SHARDMILL__ENVELOPE__BODY_DONE, 0, sha, bytes);
}

/* A sample is finished, or the seal. */
void worker_step(struct world *w, uint32_t slot, uint32_t step) {
    struct worker_sim *x = &w->actors[slot].worker;
    if (x->step != step || x->state == IDLE || x->state == TELLING) return;
    if (world_chaotic(w) && chance(w, w->fault)) {
        static const uint32_t codes[] = {SM_E_MEMORY, SM_E_INTERNAL,  SM_E_PEER,
                                         SM_E_IO,     SM_E_DISK_FULL, SM_E_CANCELLED};
        w->stats->failures++;
        tell(w, slot, SHARDMILL__ENVELOPE__BODY_FAIL, codes[below(w, 6)], 0, 0);
        return;
    }
    if (x->state == SEALING) {
        seal_finish(w, slot);
        return;
    }
    if (x->made == UINT32_MAX) {
        actor_kill(w, slot);
        return;
    }
    uint64_t position = x->lease.first + x->made;
    bool bad =
        skipped(&x->lease, position) || w->nature[sm_plan_at(&w->plan, position).sample] == BAD;
    x->content[x->made++] = bad ? SUBSTITUTE : SAMPLE;
    if (x->made == x->lease.count) {
        part_finish(w, slot);
        return;
    }
    progress(w, slot);
    work_next(w, slot);
}
