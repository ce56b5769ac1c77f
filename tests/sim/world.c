/* Time, chance and the network: a heap of what happens next, messages that are dropped, doubled,
 * delayed and so reordered, kills and pauses of every role; and one epoch from its making to its
 * check. */
#include "tests/sim/sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void world_violation(struct world *w, const char *fmt, ...) {
    if (w->wrong[0] != 0) return; /* the first one tells most */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(w->wrong, sizeof w->wrong, fmt, ap);
    va_end(ap);
}

bool chance(struct world *w, double p) {
    return p > 0 && sm_rng_u32(&w->rng) < p * 4294967296.0;
}

uint64_t below(struct world *w, uint64_t n) {
    return (uint64_t)sm_rng_u32(&w->rng) * n >> 32;
}

bool world_chaotic(const struct world *w) {
    return w->now < CHAOS_MS && !w->quiet;
}

/* --- what happens next ------------------------------------------------------------------------ */

static bool earlier(const struct happening *a, const struct happening *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_push(struct world *w, struct happening h) {
    if (w->n_heap == w->cap_heap) {
        w->cap_heap = w->cap_heap ? 2 * w->cap_heap : 256;
        w->heap = realloc(w->heap, w->cap_heap * sizeof *w->heap);
    }
    h.order = w->order++;
    size_t i = w->n_heap++;
    for (; i > 0 && earlier(&h, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = h;
}

static struct happening heap_pop(struct world *w) {
    struct happening top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && earlier(&w->heap[child + 1], &w->heap[child])) child++;
        if (!earlier(&w->heap[child], &last)) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

static int msg_keep(struct world *w, const struct msg *m) {
    if (w->n_unused == 0) {
        size_t n = w->n_pool ? 2 * w->n_pool : 256;
        w->pool = realloc(w->pool, n * sizeof *w->pool);
        w->unused = realloc(w->unused, n * sizeof *w->unused);
        for (size_t i = w->n_pool; i < n; i++)
            w->unused[w->n_unused++] = (int)i;
        w->n_pool = n;
    }
    int i = w->unused[--w->n_unused];
    size_t bytes = m->which == SHARDMILL__ENVELOPE__BODY_RESULTS
                       ? sizeof *m
                       : offsetof(struct msg, skip) + sizeof m->parts;
    memcpy(&w->pool[i], m, bytes);
    return i;
}

/* in_ms < 0: by the network, with its chances. */
void happen(struct world *w, int64_t in_ms, int kind, uint32_t slot, uint32_t life,
            const struct msg *m) {
    int times = 1;
    bool net = in_ms < 0, chaotic = world_chaotic(w);
    if (net) {
        w->stats->messages++;
        if (chaotic && chance(w, w->drop)) {
            w->stats->dropped++;
            return;
        }
        if (chaotic && chance(w, w->twice)) {
            w->stats->doubled++;
            times = 2;
        }
    }
    for (int i = 0; i < times; i++) {
        if (net) in_ms = 1 + (int64_t)below(w, chaotic && chance(w, w->slow) ? 4000 : 20);
        heap_push(w, (struct happening){.at = w->now + in_ms,
                                        .kind = kind,
                                        .slot = slot,
                                        .life = life,
                                        .message = m != NULL ? msg_keep(w, m) : -1});
    }
}

void actor_send(struct world *w, uint32_t slot, const struct msg *m) {
    if (w->actors[slot].alive) happen(w, -1, TO_BROKER, slot, w->actors[slot].life, m);
}

/* --- who lives -------------------------------------------------------------------------------- */

void actor_kill(struct world *w, uint32_t slot) {
    struct actor *a = &w->actors[slot];
    if (!a->alive) return;
    a->alive = false;
    w->stats->kills[slot == CLIENT ? KILL_CLIENT : KILL_WORKER]++;
    happen(w, 100 + (int64_t)below(w, 2500), ACTOR_START, slot, a->life, NULL);
}

static void actor_start(struct world *w, uint32_t slot) {
    struct actor *a = &w->actors[slot];
    /* the broker may still hold the last life's leases: what it gave is remembered until it must
     * have noticed */
    broker_accuse(w, a);
    a->alive = true;
    a->life++;
    a->told = w->now;
    a->paused_until = w->now;
    if (slot == CLIENT)
        client_start(w);
    else
        worker_start(w, slot);
}

static void everyone_kill(struct world *w) {
    w->stats->kills[KILL_ALL]++;
    broker_kill(w);
    for (uint32_t i = 0; i < ACTORS; i++)
        actor_kill(w, i);
}

static void chaos(struct world *w) {
    if (!world_chaotic(w)) return;
    happen(w, 1 + (int64_t)below(w, 2 * (uint64_t)w->kill_ms), CHAOS, 0, 0, NULL);
    uint32_t slot = (uint32_t)below(w, WORKERS);
    switch (below(w, 16)) {
    case 0:
    case 1:
    case 2:
        if (w->core != NULL) w->stats->kills[KILL_BROKER]++;
        broker_kill(w);
        break;
    case 3:
        everyone_kill(w);
        break;
    case 4:
    case 5:
        actor_kill(w, CLIENT);
        break;
    case 6:
        w->broker_paused_until = w->now + (int64_t)below(w, 8000);
        break;
    case 7:
    case 8:
        w->actors[slot].paused_until = w->now + 500 + (int64_t)below(w, 14000);
        break;
    case 9:
        if (chance(w, w->fault * 5)) folder_tamper(w);
        break;
    default:
        actor_kill(w, slot);
    }
}

/* --- one epoch -------------------------------------------------------------------------------- */

static void plan_make(struct world *w) {
    static const double shares[] = {0, 0.02, 0.08, 0.2};
    Shardmill__JobSpec *s = &w->spec;
    shardmill__job_spec__init(s);
    s->shard_samples = 1 + below(w, SHARD);
    s->lease_samples = 1 + (uint32_t)below(w, 6);
    s->copies = 1 + (uint32_t)below(w, 3);
    uint64_t most = (SHARDS - 1) * s->shard_samples / s->copies;
    s->samples = 1 + below(w, most < 24 ? most + (most == 0) : 24);
    s->shuffle = chance(w, 0.5);
    s->seed = below(w, 1000);
    s->slices = 1 + (uint32_t)below(w, chance(w, 0.3) ? 3 : 1);
    s->slice = (uint32_t)below(w, s->slices);
    w->packed_n = shardmill__job_spec__pack(s, w->packed);
    w->plan = (struct sm_plan){.samples = s->samples,
                               .copies = s->copies,
                               .shuffle = s->shuffle,
                               .seed = s->seed,
                               .shard_samples = s->shard_samples};
    double bad = shares[below(w, 3)], poison = shares[below(w, 3)] / 2,
           sleeper = chance(w, 0.3) ? 0.15 : 0;
    for (uint64_t i = 0; i < s->samples; i++)
        w->nature[i] = chance(w, bad)       ? BAD
                       : chance(w, poison)  ? POISON
                       : chance(w, sleeper) ? SLEEPER
                                            : GOOD;
    w->drop = 0.08 * (double)below(w, 100) / 100;
    w->twice = 0.08 * (double)below(w, 100) / 100;
    w->slow = 0.06 * (double)below(w, 100) / 100;
    w->strangers = chance(w, 0.25) ? 1 + (uint32_t)below(w, WORKERS - 1) : WORKERS;
    w->fault = chance(w, 0.4) ? 0.03 : 0;
    w->quiet = chance(w, 0.15);
    if (w->quiet) w->drop = w->twice = w->slow = w->fault = 0;
    for (uint64_t i = 0; i < s->samples && w->quiet; i++)
        w->nature[i] = chance(w, 0.15) ? POISON : w->nature[i] == SLEEPER ? GOOD : w->nature[i];
    w->kill_ms = 300 + (int)below(w, 1500);
}

static void world_begin(struct world *w, uint64_t seed, uint64_t epoch) {
    w->rng = sm_rng_op(seed, (uint32_t)(epoch >> 32), epoch, 0, 0);
    w->now = 0;
    w->order = 0;
    w->n_heap = 0;
    w->n_unused = 0;
    for (size_t i = w->n_pool; i-- > 0;)
        w->unused[w->n_unused++] = (int)i;
    w->n_journal = w->n_synced = 0;
    w->incarnation = 0;
    w->flushing = false;
    w->tampered = 0;
    w->fingerprint[0] = 0;
    w->wrong[0] = 0;
    memset(w->actors, 0, sizeof w->actors);
    memset(w->parts, 0, sizeof w->parts);
    memset(w->shards, 0, sizeof w->shards);
    memset(w->given, 0, sizeof w->given);
    memset(w->acked, 0, sizeof w->acked);
    memset(w->accused, 0, sizeof w->accused);
    plan_make(w);
    broker_start(w);
    for (uint32_t i = 0; i < ACTORS; i++)
        happen(w, (int64_t)below(w, 500), ACTOR_START, i, 0, NULL);
    if (!w->quiet) happen(w, (int64_t)below(w, 2000), CHAOS, 0, 0, NULL);
}

static bool concerns_broker(const struct happening *h) {
    return h->kind == TO_BROKER || h->kind == BROKER_TICK || h->kind == BROKER_FLUSH;
}

/* Something that happens to one who is stopped happens when it goes on. */
static bool postponed(struct world *w, const struct happening *h) {
    int64_t until = 0;
    if (concerns_broker(h))
        until = w->broker_paused_until;
    else if (h->kind == TO_ACTOR || h->kind == ACTOR_TIMER || h->kind == WORKER_STEP)
        until = w->actors[h->slot].paused_until;
    if (until <= w->now) return false;
    struct happening later = *h;
    later.at = until;
    heap_push(w, later);
    return true;
}

static void trace(const struct world *w, const struct happening *h, const struct msg *m) {
    static const char *const kinds[] = {"to broker", "to actor",      "tick",
                                        "flush",     "broker starts", "actor starts",
                                        "timer",     "step",          "chaos"};
    printf("%6d %-13s %u.%u", (int)w->now, kinds[h->kind], h->slot, h->life);
    if (h->kind == TO_BROKER || h->kind == TO_ACTOR)
        printf(
            " %s kind %d attempt %d:%d shard %d first %d count %u generation %u code %u wanted %d",
            protobuf_c_message_descriptor_get_field(&shardmill__envelope__descriptor, m->which)
                ->name,
            (int)m->kind, (int)(m->attempt >> 32), (int)(uint32_t)m->attempt, (int)m->shard,
            (int)m->first, m->count, m->generation, m->code, m->wanted);
    printf("\n");
}

static void dispatch(struct world *w, const struct happening *h) {
    struct actor *a = &w->actors[h->slot];
    struct msg m;
    if (h->message >= 0) m = w->pool[h->message];
    if (w->trace) trace(w, h, &m);
    bool same = a->alive && a->life == h->life;
    switch (h->kind) {
    case TO_BROKER:
        if (w->core != NULL) broker_receive(w, h->slot, h->life, &m);
        break;
    case TO_ACTOR:
        if (!same) break;
        if (h->slot == CLIENT)
            client_receive(w, &m);
        else
            worker_receive(w, h->slot, &m);
        break;
    case BROKER_TICK:
        if (w->core != NULL && h->life == w->broker_life) broker_tick(w);
        break;
    case BROKER_FLUSH:
        if (w->core != NULL && h->life == w->broker_life) broker_flush(w);
        break;
    case BROKER_START:
        if (h->life == w->broker_life) broker_start(w);
        break;
    case ACTOR_START:
        actor_start(w, h->slot);
        break;
    case ACTOR_TIMER:
        if (!same) break;
        if (h->slot == CLIENT)
            client_timer(w);
        else
            worker_timer(w, h->slot);
        break;
    case WORKER_STEP:
        if (same) worker_step(w, h->slot, m.done);
        break;
    case CHAOS:
        chaos(w);
        break;
    }
}

bool world_epoch(struct world *w, uint64_t seed, uint64_t epoch, struct stats *stats) {
    w->stats = stats;
    world_begin(w, seed, epoch);
    while (w->wrong[0] == 0) {
        struct happening h = heap_pop(w);
        w->now = h.at;
        if (w->now > CHAOS_MS + CALM_MS)
            world_violation(w, "nothing ends: the job is not complete after %d s of calm",
                            CALM_MS / 1000);
        if (!postponed(w, &h)) {
            dispatch(w, &h);
            if (h.message >= 0) w->unused[w->n_unused++] = h.message;
        }
        const struct actor *client = &w->actors[CLIENT];
        if (client->alive && client->client.state == FINISHED) break;
    }
    if (w->wrong[0] == 0) folder_check(w);
    if (w->core != NULL) stats->stale += w->core->stale;
    sm_core_free(&w->core);
    sm_actions_reset(&w->actions);
    w->broker_life++;
    stats->epochs++;
    return w->wrong[0] == 0;
}

void world_release(struct world *w) {
    sm_actions_release(&w->actions);
    free(w->heap);
    free(w->pool);
    free(w->unused);
    free(w->journal);
    free(w);
}
