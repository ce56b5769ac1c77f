/* What the loop does around the core in a stream's world: steps, a journal that keeps only what was
 * synced, messages that leave after it, and deaths at any point of it. Between the network
 * (stream_net.c) and the checks (stream_check.c), which see all that goes in and comes out. */
#include "tests/sim/stream.h"

#include <stdio.h>
#include <string.h>

struct sm_peer stream_peer(uint32_t slot, uint32_t life) {
    struct sm_peer p = {.n = 5, .id = {(uint8_t)slot}};
    memcpy(p.id + 1, &life, 4);
    return p;
}

void stream_core_start(struct stream_world *w) {
    struct sm_err err;
    w->incarnation++;
    struct sm_core_options o = {.instance = w->incarnation * 7919u | 1,
                                .incarnation = w->incarnation,
                                .heartbeat_ms = BEAT_MS,
                                .lease_ms = LEASE_MS};
    w->core = sm_core_new(&o, w->now);
    for (unsigned i = 0; i < w->n_journal; i++) {
        struct sm_record r = w->journal[i];
        r.job = "j";
        r.text = "f";
        r.spec = w->packed;
        r.spec_n = w->packed_n;
        if (sm_core_load(w->core, &r, &err) != 0)
            stream_wrong(w, "the journal does not load: %s", err.text);
    }
    check_core_start(w);
    event_after(w, BEAT_MS / 2, TICK, 0, w->core_life, 0);
}

void stream_core_kill(struct stream_world *w) {
    if (w->core == NULL) return;
    w->stats->kills[KILL_BROKER]++;
    sm_core_free(&w->core);
    sm_actions_reset(&w->actions);
    w->n_journal = w->n_synced;
    w->core_life++;
    w->flushing = false;
    event_after(w, 100 + (int64_t)stream_pick(w, 2000), CORE_START, 0, w->core_life, 0);
}

void stream_core_step(struct stream_world *w, const struct sm_event *e) {
    size_t from = w->actions.n;
    sm_core_step(w->core, e, w->now, &w->actions);
    check_step(w, e, from);
    if (w->flushing) return;
    w->flushing = true;
    event_after(w, stream_luck(w, 0.5), FLUSH, 0, w->core_life, 0);
}

void stream_core_flush(struct stream_world *w) {
    w->flushing = false;
    bool dies = stream_troubled(w) && stream_luck(w, 0.002);
    for (size_t i = 0; i < w->actions.n; i++) {
        if (w->actions.list[i].kind != SM_ACTION_PERSIST) continue;
        const struct sm_record *r = &w->actions.list[i].record;
        if (r->kind == SM_RECORD_STATE && r->state == SHARDMILL__JOB_STATE__FAILED)
            stream_wrong(w, "the job failed: %s", r->text);
        if (w->n_journal == ROWS) { /* far more than any run needs */
            stream_wrong(w, "the journal grows without end");
            return;
        }
        if (w->trace)
            printf("%6d journal     kind %d world %u rank %u at %u:%u\n", (int)w->now, (int)r->kind,
                   r->world_size, r->rank, r->epoch, (unsigned)r->position);
        if (r->kind == SM_RECORD_RUN) check_run(w, r);
        w->journal[w->n_journal++] = *r;
    }
    w->n_synced = w->n_journal;
    for (size_t i = 0; i < w->actions.n && !dies; i++) {
        const struct sm_action *a = &w->actions.list[i];
        uint32_t life;
        if (a->kind != SM_ACTION_SEND || a->peer->id[0] >= PEERS) continue;
        memcpy(&life, a->peer->id + 1, 4);
        stream_transmit(w, TO_PEER, a->peer->id[0], life, a->message);
    }
    sm_actions_reset(&w->actions);
    if (dies) stream_core_kill(w);
}
