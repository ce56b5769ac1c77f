/* One epoch of a stream's world from its making to its check: who is started, killed and stopped,
 * and what happens in its order. Before it: sim.c, which counts kills. The roles and checks are in
 * stream_*.c. */
#include "tests/sim/stream.h"

#include <stdio.h>
#include <stdlib.h>

static bool finished(const struct stream_world *w) {
    for (uint32_t r = 0; r < w->world; r++)
        if (!w->trainers[r].alive || !w->trainers[r].ended || w->trainers[r].committing)
            return false;
    return true;
}

static void trouble(struct stream_world *w) {
    if (!stream_troubled(w)) return;
    event_after(w, 1 + (int64_t)stream_pick(w, 1500), TROUBLE, 0, 0, 0);
    if (stream_luck(w, 0.3)) check_strangers(w);
    uint32_t x = (uint32_t)stream_pick(w, W_MAX), t = (uint32_t)stream_pick(w, w->world);
    switch (stream_pick(w, 17)) {
    case 0:
    case 1:
    case 2:
        stream_core_kill(w);
        break;
    case 3:
        trainers_change(w);
        break;
    case 4:
        w->trainers[t].until = w->now + 500 + (int64_t)stream_pick(w, 9000);
        break;
    case 5:
        w->workers[x].until = w->now + 500 + (int64_t)stream_pick(w, 9000);
        break;
    case 6:
    case 7:
    case 8:
    case 9:
        trainer_kill(w, t, true);
        break;
    case 10:
        trainers_go_back(w);
        break;
    default:
        maker_kill(w, x);
    }
}

static void start(struct stream_world *w, uint32_t slot, uint32_t life) {
    if (slot >= W_MAX) {
        struct stream_trainer *t = &w->trainers[slot - W_MAX];
        if (!t->alive && slot - W_MAX < w->world && t->life == life) trainer_start(w, slot - W_MAX);
        return;
    }
    maker_start(w, slot);
}

static bool later(struct stream_world *w, const struct stream_event *e) {
    if (e->kind != TO_PEER && e->kind != TIMER && e->kind != MADE && e->kind != GIVE &&
        e->kind != SEEK)
        return false;
    int64_t until =
        e->slot < W_MAX ? w->workers[e->slot].until : w->trainers[e->slot - W_MAX].until;
    if (until <= w->now) return false;
    struct stream_event again = *e;
    again.at = until;
    event_push(w, again);
    return true;
}

static void trace(const struct stream_world *w, const struct stream_event *e,
                  const sm_envelope *m) {
    static const char *const kinds[] = {"to core",     "to peer", "tick",   "flush",
                                        "core starts", "starts",  "timer",  "made",
                                        "give",        "seek",    "trouble"};
    printf("%6d %-11s %u.%u", (int)w->now, kinds[e->kind], e->slot, e->life);
    if (m != NULL) {
        const ProtobufCMessage *body = (const void *)m->hello;
        printf(" %s",
               protobuf_c_message_descriptor_get_field(m->base.descriptor, m->body_case)->name);
        for (unsigned i = 0; i < body->descriptor->n_fields; i++) {
            const ProtobufCFieldDescriptor *f = &body->descriptor->fields[i];
            const char *at = (const char *)body + f->offset;
            uint64_t v = 0;
            if (f->label == PROTOBUF_C_LABEL_REPEATED) continue;
            if (f->type == PROTOBUF_C_TYPE_UINT32) v = *(const uint32_t *)(const void *)at;
            if (f->type == PROTOBUF_C_TYPE_UINT64 || f->type == PROTOBUF_C_TYPE_FIXED64)
                v = *(const uint64_t *)(const void *)at;
            if (v != 0) printf(" %s %u:%u", f->name, (unsigned)(v >> 32), (unsigned)v);
        }
    }
    printf("\n");
}

static void happens(struct stream_world *w, const struct stream_event *e) {
    bool worker = e->slot < W_MAX;
    bool alive = worker ? w->workers[e->slot].alive : w->trainers[e->slot - W_MAX].alive;
    bool same = alive && peer_life(w, e->slot) == e->life;
    sm_envelope *m = e->bytes != NULL ? shardmill__envelope__unpack(NULL, e->n, e->bytes) : NULL;
    struct sm_peer peer = stream_peer(e->slot, e->life);
    if (w->trace) trace(w, e, m);
    switch (e->kind) {
    case TO_CORE:
        if (w->core != NULL)
            stream_core_step(
                w, &(struct sm_event){.kind = SM_EVENT_MESSAGE, .peer = &peer, .message = m});
        break;
    case TO_PEER:
        if (same && worker)
            maker_hears(w, e->slot, m);
        else if (same)
            trainer_hears(w, e->slot - W_MAX, m);
        else if (w->core != NULL && stream_luck(w, 0.3))
            stream_core_step(w, &(struct sm_event){.kind = SM_EVENT_GONE, .peer = &peer});
        break;
    case TICK:
        if (w->core == NULL || e->life != w->core_life) break;
        stream_core_step(w, &(struct sm_event){.kind = SM_EVENT_TICK});
        event_after(w, BEAT_MS / 2, TICK, 0, w->core_life, 0);
        break;
    case FLUSH:
        if (w->core != NULL && e->life == w->core_life) stream_core_flush(w);
        break;
    case CORE_START:
        if (e->life == w->core_life) stream_core_start(w);
        break;
    case START:
        start(w, e->slot, e->life);
        break;
    case TIMER:
        if (same && worker) maker_timer(w, e->slot);
        if (same && !worker) trainer_timer(w, e->slot - W_MAX);
        break;
    case MADE:
        if (same) maker_made(w, e->slot, e->extra);
        break;
    case GIVE:
        if (same) trainer_gives(w, e->slot - W_MAX);
        break;
    case SEEK:
        if (same) trainer_seeks(w, e->slot - W_MAX);
        break;
    case TROUBLE:
        trouble(w);
        break;
    }
    if (m != NULL) shardmill__envelope__free_unpacked(m, NULL);
}

static void begin(struct stream_world *w) {
    Shardmill__JobSpec *s = &w->spec;
    shardmill__job_spec__init(s);
    s->name = "name";
    s->kind = SHARDMILL__JOB_KIND__STREAM;
    s->batch_size = 1 + (uint32_t)stream_pick(w, 4);
    s->samples = s->batch_size * T_MAX + stream_pick(w, N_MAX - 4 * T_MAX);
    s->batch_bytes = BATCH_BYTES;
    s->epochs = 1 + (uint32_t)stream_pick(w, E_MAX);
    s->shuffle = stream_luck(w, 0.5);
    s->drop_last = stream_luck(w, 0.3);
    s->seed = stream_pick(w, 1000);
    w->packed_n = shardmill__job_spec__pack(s, w->packed);
    w->journal[w->n_journal++] = (struct sm_record){.kind = SM_RECORD_JOB};
    w->n_synced = w->n_journal;
    w->poison = stream_luck(w, 0.2) ? stream_pick(w, s->samples) : N_MAX;
    w->drop = 0.06 * (double)stream_pick(w, 100) / 100;
    w->twice = 0.06 * (double)stream_pick(w, 100) / 100;
    w->slow = 0.05 * (double)stream_pick(w, 100) / 100;
    w->world = 1 + (uint32_t)stream_pick(w, T_MAX);
    stream_core_start(w);
    for (uint32_t i = 0; i < W_MAX; i++) {
        w->workers[i].memory = 2 + (uint32_t)stream_pick(w, HELD - 2);
        event_after(w, (int64_t)stream_pick(w, 500), START, i, 0, 0);
    }
    for (uint32_t r = 0; r < w->world; r++)
        event_after(w, (int64_t)stream_pick(w, 500), START, W_MAX + r, 0, 0);
    event_after(w, (int64_t)stream_pick(w, 1000), TROUBLE, 0, 0, 0);
}

bool stream_epoch(uint64_t seed, uint64_t epoch, struct stats *stats, char text[256]) {
    struct stream_world *w = calloc(1, sizeof *w);
    w->rng = sm_rng_op(seed ^ 0x5eed, (uint32_t)(epoch >> 32), epoch, 0, 0);
    w->stats = stats;
    w->wrong = text;
    w->trace = getenv("SIM_TRACE") != NULL;
    text[0] = 0;
    sm_actions_init(&w->actions);
    begin(w);
    while (w->wrong[0] == 0 && !finished(w)) {
        struct stream_event e = event_pop(w);
        w->now = e.at;
        if (w->now > STREAM_CALM_MS)
            stream_wrong(w, "nothing ends: the trainers have not got all after the calm");
        if (later(w, &e)) continue;
        happens(w, &e);
        free(e.bytes);
    }
    if (w->wrong[0] == 0) check_history(w);
    sm_core_free(&w->core);
    sm_actions_release(&w->actions);
    for (size_t i = 0; i < w->n_heap; i++)
        free(w->heap[i].bytes);
    free(w->heap);
    free(w);
    stats->epochs++;
    return text[0] == 0;
}
