/* Workers of a stream's world: they make batches, keep them until they may free them, ask about
 * those that they have held for long, and die over a poisonous sample. Before them the broker
 * (stream_broker.c), after them the trainers that read what they hold (stream_trainer.c). */
#include "tests/sim/stream.h"

#include <stdio.h>

uint64_t stream_sample(const struct stream_world *w, uint32_t epoch, uint64_t index) {
    struct sm_plan p = {.samples = w->spec.samples,
                        .copies = 1,
                        .shuffle = w->spec.shuffle,
                        .seed = w->spec.seed,
                        .epoch = epoch,
                        .shard_samples = 1};
    return sm_plan_at(&p, index % w->spec.samples).sample;
}

/* What lies in a batch, as a number that no other batch has. */
uint64_t stream_content(const struct stream_world *w, uint32_t epoch, uint64_t first,
                        uint32_t count) {
    uint64_t h = epoch + 1;
    for (uint32_t i = 0; i < count; i++)
        h = (h ^ (stream_sample(w, epoch, first + i) + (first + i) * 1000)) *
            UINT64_C(1099511628211);
    return h;
}

static void maker_hello(struct stream_world *w, uint32_t slot) {
    struct stream_worker *x = &w->workers[slot];
    Shardmill__Hello m = SHARDMILL__HELLO__INIT;
    Shardmill__Holding h[HELD + 2], *list[HELD + 2];
    char socket[32];
    for (unsigned i = 0; i < x->n_made + x->n_leases; i++) {
        shardmill__holding__init(list[i] = &h[i]);
        h[i].job = "j";
        h[i].kind = SHARDMILL__LEASE_KIND__STEP;
        h[i].attempt = i < x->n_made ? x->made[i].attempt : x->leases[i - x->n_made].attempt;
    }
    snprintf(socket, sizeof socket, "%u %u", slot, x->life);
    m.name = "w";
    m.fingerprint = "f";
    m.fd_socket = socket;
    m.batch_memory = (uint64_t)x->memory * BATCH_BYTES;
    m.holding = list;
    m.n_holding = x->n_made + x->n_leases;
    x->registered = false;
    peer_say(w, slot, SHARDMILL__ENVELOPE__BODY_HELLO, &m);
}

static void maker_ready(struct stream_world *w, uint32_t slot) {
    struct stream_worker *x = &w->workers[slot];
    Shardmill__Ready m = SHARDMILL__READY__INIT;
    if (x->n_leases < 2) peer_say(w, slot, SHARDMILL__ENVELOPE__BODY_READY, &m);
}

static void maker_next(struct stream_world *w, uint32_t slot) {
    struct stream_worker *x = &w->workers[slot];
    if (x->n_leases == 0) return;
    const Shardmill__Lease *l = &x->leases[0];
    Shardmill__Progress p = SHARDMILL__PROGRESS__INIT;
    p.job = "j";
    p.attempt = l->attempt;
    p.position = l->first;
    for (uint32_t i = 0; i < l->count && l->n_skip == 0; i++)
        if (stream_sample(w, l->epoch, l->first + i) == w->poison) {
            p.position = l->first + i;
            p.done = i;
            break;
        }
    peer_say(w, slot, SHARDMILL__ENVELOPE__BODY_PROGRESS, &p);
    int64_t ms =
        5 + (int64_t)stream_pick(w, stream_troubled(w) && stream_luck(w, 0.03) ? 8000 : 60);
    event_after(w, ms, MADE, slot, x->life, ++x->token);
}

void maker_kill(struct stream_world *w, uint32_t slot) {
    struct stream_worker *x = &w->workers[slot];
    if (!x->alive) return;
    w->stats->kills[KILL_WORKER]++;
    x->alive = false;
    event_after(w, 100 + (int64_t)stream_pick(w, 2000), START, slot, 0, 0);
}

static void done_say(struct stream_world *w, uint32_t slot, const Shardmill__Lease *l) {
    Shardmill__Done m = SHARDMILL__DONE__INIT;
    char digest[SM_XXH_HEX];
    uint64_t content = stream_content(w, l->epoch, l->first, l->count);
    snprintf(digest, sizeof digest, "%016llx%016llx", (unsigned long long)content,
             (unsigned long long)content);
    m.job = "j";
    m.kind = SHARDMILL__LEASE_KIND__STEP;
    m.attempt = l->attempt;
    m.first = l->first;
    m.count = l->count;
    m.generation = l->generation;
    m.bytes = BATCH_BYTES;
    m.digest = digest;
    peer_say(w, slot, SHARDMILL__ENVELOPE__BODY_DONE, &m);
}

void maker_made(struct stream_world *w, uint32_t slot, uint64_t token) {
    struct stream_worker *x = &w->workers[slot];
    if (token != x->token || x->n_leases == 0) return;
    Shardmill__Lease l = x->leases[0];
    for (uint32_t i = 0; i < l.count && l.n_skip == 0; i++)
        if (stream_sample(w, l.epoch, l.first + i) == w->poison) {
            maker_kill(w, slot);
            return;
        }
    x->leases[0] = x->leases[1];
    x->n_leases--;
    if (x->n_made == x->memory) {
        Shardmill__Fail m = SHARDMILL__FAIL__INIT;
        m.job = "j";
        m.kind = SHARDMILL__LEASE_KIND__STEP;
        m.attempt = x->failed = l.attempt;
        m.code = stream_luck(w, 0.7) ? SM_E_BUSY : SM_E_CANCELLED;
        peer_say(w, slot, SHARDMILL__ENVELOPE__BODY_FAIL, &m);
    } else {
        x->made[x->n_made++] =
            (struct made){.attempt = l.attempt,
                          .content = stream_content(w, l.epoch, l.first, l.count),
                          .lease = l};
        done_say(w, slot, &l);
    }
    maker_ready(w, slot);
    maker_next(w, slot);
}

struct made *maker_find(struct stream_worker *x, uint64_t attempt) {
    for (unsigned i = 0; i < x->n_made; i++)
        if (x->made[i].attempt == attempt) return &x->made[i];
    return NULL;
}

static void attempt_forget(struct stream_world *w, uint32_t slot, uint64_t attempt) {
    struct stream_worker *x = &w->workers[slot];
    struct made *m = maker_find(x, attempt);
    if (m != NULL) *m = x->made[--x->n_made];
    for (unsigned i = 0; i < x->n_leases; i++) {
        if (x->leases[i].attempt != attempt) continue;
        x->leases[0] = x->leases[1 - i];
        x->n_leases--;
        if (i == 0) {
            x->token++;
            maker_next(w, slot);
        }
    }
}

void maker_timer(struct stream_world *w, uint32_t slot) {
    struct stream_worker *x = &w->workers[slot];
    Shardmill__Heartbeat m = SHARDMILL__HEARTBEAT__INIT;
    event_after(w, BEAT_MS, TIMER, slot, x->life, 0);
    if (w->now - x->heard > SM_LIVENESS * BEAT_MS || !x->registered) {
        maker_hello(w, slot);
        return;
    }
    peer_say(w, slot, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &m);
    maker_ready(w, slot);
    for (unsigned i = 0; i < x->n_made; i++) /* is it still wanted? */
        if (!x->made[i].acked || stream_luck(w, 0.1)) done_say(w, slot, &x->made[i].lease);
}

void maker_hears(struct stream_world *w, uint32_t slot, const sm_envelope *e) {
    struct stream_worker *x = &w->workers[slot];
    x->heard = w->now;
    struct made *m;
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_WELCOME:
        x->registered = true;
        maker_ready(w, slot);
        break;
    case SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN:
        maker_hello(w, slot);
        break;
    case SHARDMILL__ENVELOPE__BODY_LEASE:
        if (x->n_leases == 2 || e->lease->attempt == x->failed ||
            maker_find(x, e->lease->attempt) != NULL ||
            (x->n_leases > 0 && x->leases[0].attempt == e->lease->attempt))
            break;
        x->leases[x->n_leases++] = *e->lease;
        if (x->n_leases == 1) maker_next(w, slot);
        break;
    case SHARDMILL__ENVELOPE__BODY_ACK:
        m = maker_find(x, e->ack->attempt);
        if (m != NULL) m->acked = true;
        if (!e->ack->wanted) attempt_forget(w, slot, e->ack->attempt);
        break;
    case SHARDMILL__ENVELOPE__BODY_REVOKE:
        attempt_forget(w, slot, e->revoke->attempt);
        break;
    case SHARDMILL__ENVELOPE__BODY_FREE:
        attempt_forget(w, slot, e->free->attempt);
        break;
    default:
        break;
    }
}

void maker_start(struct stream_world *w, uint32_t slot) {
    struct stream_worker *x = &w->workers[slot];
    *x = (struct stream_worker){
        .alive = true, .life = x->life + 1, .heard = w->now, .memory = x->memory};
    maker_hello(w, slot);
    event_after(w, (int64_t)stream_pick(w, BEAT_MS), TIMER, slot, x->life, 0);
}
