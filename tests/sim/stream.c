/* Trainers in a world of their own: they attach, train, keep checkpoints, commit, are killed,
 * stall, lose batches, come back from their checkpoint, with another world size too; workers keep
 * batches in memory and die with them. What counts is the trainers' effective history: what they
 * trained on, cut back to the checkpoint from which they last went on. Each position must stand in
 * it once, in order, with the right bytes. */
#include "tests/sim/stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    W_MAX = 3,
    T_MAX = 3,
    N_MAX = 64,
    E_MAX = 3,
    HELD = 16,
    ROWS = 4096,
    CALM = 400000,
    CHAOS_END = 30000,
    BATCH_BYTES = 64,
};

struct row { /* a step that a rank has trained on */
    uint32_t epoch;
    uint64_t behind, first; /* the position behind it; N behind the last one */
    uint32_t count, padding;
};

struct made {
    uint64_t attempt, content;
    Shardmill__Lease lease;
    bool acked;
};

struct wk {
    bool alive, registered;
    uint32_t life;
    int64_t heard, until;
    struct made made[HELD];
    Shardmill__Lease leases[2]; /* without its pointers */
    unsigned n_made, n_leases, memory;
    uint32_t token; /* of the step under way */
};

struct mark {
    uint32_t epoch;
    uint64_t position;
};

struct tr {
    bool alive, attached, ended, no_token;
    bool again; /* this life was attached before */
    bool back;  /* went back of its own will: only its token tells the broker */
    uint32_t life;
    char client[24];
    int64_t heard, until;
    uint64_t session, lost; /* lost: an attempt that it will not take any more */
    struct mark at, asked, kept,
        acked; /* trained so far; of Attach; in its checkpoint; journaled */
    bool committing;
    struct { /* the one view that it holds */
        bool there;
        uint32_t epoch, worker, worker_life;
        uint64_t step, attempt, content, session;
    } view;
    struct row rows[ROWS];
    unsigned n_rows;
};

struct ev {
    int64_t at;
    uint64_t order;
    enum { TO_CORE, TO_PEER, TICK, FLUSH, CORE_START, START, TIMER, MADE, GIVE, TROUBLE } kind;
    uint32_t slot, life;
    uint64_t extra;
    uint8_t *bytes;
    size_t n;
};

struct sw {
    struct sm_rng rng;
    int64_t now;
    uint64_t order;
    struct ev *heap;
    size_t n_heap, cap_heap;
    struct sm_core *core;
    struct sm_actions actions;
    uint32_t incarnation, core_life;
    uint64_t instance;
    bool flushing;
    struct sm_record journal[ROWS];
    unsigned n_journal, n_synced;
    Shardmill__JobSpec spec;
    uint8_t packed[256];
    size_t packed_n;
    uint32_t world;
    uint64_t poison; /* a sample that kills; N_MAX: none */
    double drop, twice, slow;
    struct wk workers[W_MAX];
    struct tr trainers[T_MAX];
    struct row rows[ROWS]; /* of worlds that are past */
    struct mark began;     /* this world */
    unsigned n_rows;
    struct stats *stats;
    char *wrong;
    bool trace; /* print what happens */
};

static void wrong(struct sw *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void wrong(struct sw *w, const char *fmt, ...) {
    va_list ap;
    if (w->wrong[0] != 0) return;
    va_start(ap, fmt);
    vsnprintf(w->wrong, 256, fmt, ap);
    va_end(ap);
}

static uint64_t pick(struct sw *w, uint64_t n) {
    return (uint64_t)sm_rng_u32(&w->rng) * n >> 32;
}

static bool luck(struct sw *w, double p) {
    return sm_rng_u32(&w->rng) < p * 4294967296.0;
}

static bool troubled(const struct sw *w) {
    return w->now < CHAOS_END;
}

/* --- time and the network --------------------------------------------------------------------- */

static bool before(const struct ev *a, const struct ev *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void push(struct sw *w, struct ev e) {
    if (w->n_heap == w->cap_heap) {
        w->cap_heap = w->cap_heap ? 2 * w->cap_heap : 256;
        w->heap = realloc(w->heap, w->cap_heap * sizeof *w->heap);
    }
    e.order = w->order++;
    size_t i = w->n_heap++;
    for (; i > 0 && before(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static struct ev pop(struct sw *w) {
    struct ev top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < w->n_heap; i = c) {
        if (c + 1 < w->n_heap && before(&w->heap[c + 1], &w->heap[c])) c++;
        if (!before(&w->heap[c], &last)) break;
        w->heap[i] = w->heap[c];
    }
    w->heap[i] = last;
    return top;
}

static void after(struct sw *w, int64_t ms, int kind, uint32_t slot, uint32_t life,
                  uint64_t extra) {
    push(w,
         (struct ev){.at = w->now + ms, .kind = kind, .slot = slot, .life = life, .extra = extra});
}

static void transmit(struct sw *w, int kind, uint32_t slot, uint32_t life, const sm_envelope *e) {
    int times = 1;
    w->stats->messages++;
    if (troubled(w) && luck(w, w->drop)) {
        w->stats->dropped++;
        return;
    }
    if (troubled(w) && luck(w, w->twice)) {
        w->stats->doubled++;
        times = 2;
    }
    for (int i = 0; i < times; i++) {
        size_t n = shardmill__envelope__get_packed_size(e);
        uint8_t *bytes = malloc(n);
        shardmill__envelope__pack(e, bytes);
        int64_t ms = 1 + (int64_t)pick(w, troubled(w) && luck(w, w->slow) ? 3000 : 20);
        push(w, (struct ev){.at = w->now + ms,
                            .kind = kind,
                            .slot = slot,
                            .life = life,
                            .bytes = bytes,
                            .n = n});
    }
}

static uint32_t life_of(const struct sw *w, uint32_t slot) {
    return slot < W_MAX ? w->workers[slot].life : w->trainers[slot - W_MAX].life;
}

static void say(struct sw *w, uint32_t slot, int which, void *body) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.body_case = (Shardmill__Envelope__BodyCase)which;
    e.hello = body;
    transmit(w, TO_CORE, slot, life_of(w, slot), &e);
}

/* --- the broker's loop ------------------------------------------------------------------------ */

static struct sm_peer peer_of(uint32_t slot, uint32_t life) {
    struct sm_peer p = {.n = 5, .id = {(uint8_t)slot}};
    memcpy(p.id + 1, &life, 4);
    return p;
}

static void core_start(struct sw *w) {
    struct sm_err err;
    w->incarnation++;
    w->instance = w->incarnation * 7919u | 1;
    struct sm_core_options o = {.instance = w->instance,
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
            wrong(w, "the journal does not load: %s", err.text);
    }
    after(w, BEAT_MS / 2, TICK, 0, w->core_life, 0);
}

static void core_kill(struct sw *w) {
    if (w->core == NULL) return;
    w->stats->kills[KILL_BROKER]++;
    sm_core_free(&w->core);
    sm_actions_reset(&w->actions);
    w->n_journal = w->n_synced;
    w->core_life++;
    w->flushing = false;
    after(w, 100 + (int64_t)pick(w, 2000), CORE_START, 0, w->core_life, 0);
}

static void core_step(struct sw *w, const struct sm_event *e) {
    sm_core_step(w->core, e, w->now, &w->actions);
    if (w->flushing) return;
    w->flushing = true;
    after(w, luck(w, 0.5), FLUSH, 0, w->core_life, 0);
}

static bool less(struct mark a, struct mark b) {
    return a.epoch != b.epoch ? a.epoch < b.epoch : a.position < b.position;
}

/* A run begins behind what all ranks have had confirmed, or where one says that it went back to.
 * Then that is what may be answered from now on, also to ranks that hear of it late. */
static void run_check(struct sw *w, const struct sm_record *r) {
    struct mark at = {r->epoch, r->position}, least = w->trainers[0].acked;
    bool back = false;
    for (uint32_t i = 0; i < w->world; i++) {
        const struct tr *t = &w->trainers[i];
        if (less(t->acked, least)) least = t->acked;
        back |= t->back && !less(t->kept, at) && !less(at, t->kept);
    }
    if (less(at, least) && !back)
        wrong(w, "a run begins at %u:%u, and all ranks had %u:%u confirmed", at.epoch,
              (unsigned)at.position, least.epoch, (unsigned)least.position);
    for (uint32_t i = 0; i < w->world; i++)
        if (less(at, w->trainers[i].acked)) w->trainers[i].acked = at;
}

static void core_flush(struct sw *w) {
    w->flushing = false;
    bool dies = troubled(w) && luck(w, 0.002);
    for (size_t i = 0; i < w->actions.n; i++) {
        if (w->actions.list[i].kind != SM_ACTION_PERSIST) continue;
        const struct sm_record *r = &w->actions.list[i].record;
        if (r->kind == SM_RECORD_STATE && r->state == SHARDMILL__JOB_STATE__FAILED)
            wrong(w, "the job failed: %s", r->text);
        if (r->kind == SM_RECORD_QUARANTINE && r->position != w->poison && !troubled(w))
            wrong(w, "a sample that harms nobody is quarantined");
        if (w->n_journal == ROWS) { /* far more than any run needs */
            wrong(w, "the journal grows without end");
            return;
        }
        if (w->trace)
            printf("%6d journal     kind %d world %u rank %u at %u:%u\n", (int)w->now, (int)r->kind,
                   r->world_size, r->rank, r->epoch, (unsigned)r->position);
        if (r->kind == SM_RECORD_RUN) run_check(w, r);
        w->journal[w->n_journal++] = *r;
    }
    w->n_synced = w->n_journal;
    for (size_t i = 0; i < w->actions.n && !dies; i++) {
        const struct sm_action *a = &w->actions.list[i];
        uint32_t life;
        if (a->kind != SM_ACTION_SEND) continue;
        memcpy(&life, a->peer->id + 1, 4);
        transmit(w, TO_PEER, a->peer->id[0], life, a->message);
    }
    sm_actions_reset(&w->actions);
    if (dies) core_kill(w);
}

/* --- workers ---------------------------------------------------------------------------------- */

static uint64_t sample_of(const struct sw *w, uint32_t epoch, uint64_t index) {
    struct sm_plan p = {.samples = w->spec.samples,
                        .copies = 1,
                        .shuffle = w->spec.shuffle,
                        .seed = w->spec.seed,
                        .epoch = epoch,
                        .shard_samples = 1};
    return sm_plan_at(&p, index % w->spec.samples).sample;
}

/* What lies in a batch, as a number that no other batch has. */
static uint64_t content_of(const struct sw *w, uint32_t epoch, uint64_t first, uint32_t count) {
    uint64_t h = epoch + 1;
    for (uint32_t i = 0; i < count; i++)
        h = (h ^ (sample_of(w, epoch, first + i) + (first + i) * 1000)) * UINT64_C(1099511628211);
    return h;
}

static void wk_hello(struct sw *w, uint32_t slot) {
    struct wk *x = &w->workers[slot];
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
    say(w, slot, SHARDMILL__ENVELOPE__BODY_HELLO, &m);
}

static void wk_ready(struct sw *w, uint32_t slot) {
    struct wk *x = &w->workers[slot];
    Shardmill__Ready m = SHARDMILL__READY__INIT;
    if (x->n_leases < 2) say(w, slot, SHARDMILL__ENVELOPE__BODY_READY, &m);
}

static void wk_next(struct sw *w, uint32_t slot) {
    struct wk *x = &w->workers[slot];
    if (x->n_leases == 0) return;
    const Shardmill__Lease *l = &x->leases[0];
    Shardmill__Progress p = SHARDMILL__PROGRESS__INIT;
    p.job = "j";
    p.attempt = l->attempt;
    p.position = l->first;
    for (uint32_t i = 0; i < l->count && l->n_skip == 0; i++)
        if (sample_of(w, l->epoch, l->first + i) == w->poison) {
            p.position = l->first + i;
            p.done = i;
            break;
        }
    say(w, slot, SHARDMILL__ENVELOPE__BODY_PROGRESS, &p);
    int64_t ms = 5 + (int64_t)pick(w, troubled(w) && luck(w, 0.03) ? 8000 : 60);
    after(w, ms, MADE, slot, x->life, ++x->token);
}

static void wk_kill(struct sw *w, uint32_t slot) {
    struct wk *x = &w->workers[slot];
    if (!x->alive) return;
    w->stats->kills[KILL_WORKER]++;
    x->alive = false;
    after(w, 100 + (int64_t)pick(w, 2000), START, slot, 0, 0);
}

static void done_say(struct sw *w, uint32_t slot, const Shardmill__Lease *l) {
    Shardmill__Done m = SHARDMILL__DONE__INIT;
    char digest[SM_XXH_HEX];
    uint64_t content = content_of(w, l->epoch, l->first, l->count);
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
    say(w, slot, SHARDMILL__ENVELOPE__BODY_DONE, &m);
}

static void wk_made(struct sw *w, uint32_t slot, uint64_t token) {
    struct wk *x = &w->workers[slot];
    if (token != x->token || x->n_leases == 0) return;
    Shardmill__Lease l = x->leases[0];
    for (uint32_t i = 0; i < l.count && l.n_skip == 0; i++)
        if (sample_of(w, l.epoch, l.first + i) == w->poison) {
            wk_kill(w, slot);
            return;
        }
    x->leases[0] = x->leases[1];
    x->n_leases--;
    if (x->n_made == x->memory) {
        Shardmill__Fail m = SHARDMILL__FAIL__INIT;
        m.job = "j";
        m.kind = SHARDMILL__LEASE_KIND__STEP;
        m.attempt = l.attempt;
        m.code = luck(w, 0.7) ? SM_E_BUSY : SM_E_CANCELLED;
        say(w, slot, SHARDMILL__ENVELOPE__BODY_FAIL, &m);
    } else {
        x->made[x->n_made++] = (struct made){
            .attempt = l.attempt, .content = content_of(w, l.epoch, l.first, l.count), .lease = l};
        done_say(w, slot, &l);
    }
    wk_ready(w, slot);
    wk_next(w, slot);
}

static struct made *made_find(struct wk *x, uint64_t attempt) {
    for (unsigned i = 0; i < x->n_made; i++)
        if (x->made[i].attempt == attempt) return &x->made[i];
    return NULL;
}

static void attempt_forget(struct sw *w, uint32_t slot, uint64_t attempt) {
    struct wk *x = &w->workers[slot];
    struct made *m = made_find(x, attempt);
    if (m != NULL) *m = x->made[--x->n_made];
    for (unsigned i = 0; i < x->n_leases; i++) {
        if (x->leases[i].attempt != attempt) continue;
        x->leases[0] = x->leases[1 - i];
        x->n_leases--;
        if (i == 0) {
            x->token++;
            wk_next(w, slot);
        }
    }
}

static void wk_timer(struct sw *w, uint32_t slot) {
    struct wk *x = &w->workers[slot];
    Shardmill__Heartbeat m = SHARDMILL__HEARTBEAT__INIT;
    after(w, BEAT_MS, TIMER, slot, x->life, 0);
    if (w->now - x->heard > SM_LIVENESS * BEAT_MS || !x->registered) {
        wk_hello(w, slot);
        return;
    }
    say(w, slot, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &m);
    wk_ready(w, slot);
    for (unsigned i = 0; i < x->n_made; i++) /* is it still wanted? */
        if (!x->made[i].acked || luck(w, 0.1)) done_say(w, slot, &x->made[i].lease);
}

static void wk_hears(struct sw *w, uint32_t slot, const sm_envelope *e) {
    struct wk *x = &w->workers[slot];
    x->heard = w->now;
    struct made *m;
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_WELCOME:
        x->registered = true;
        wk_ready(w, slot);
        break;
    case SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN:
        wk_hello(w, slot);
        break;
    case SHARDMILL__ENVELOPE__BODY_LEASE:
        if (x->n_leases == 2 || made_find(x, e->lease->attempt) != NULL ||
            (x->n_leases > 0 && x->leases[0].attempt == e->lease->attempt))
            break;
        x->leases[x->n_leases++] = *e->lease;
        if (x->n_leases == 1) wk_next(w, slot);
        break;
    case SHARDMILL__ENVELOPE__BODY_ACK:
        m = made_find(x, e->ack->attempt);
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

/* --- trainers --------------------------------------------------------------------------------- */

static void cut_back(struct tr *t, struct mark to) {
    while (t->n_rows > 0) {
        const struct row *r = &t->rows[t->n_rows - 1];
        if (r->epoch < to.epoch || (r->epoch == to.epoch && r->behind <= to.position)) break;
        t->n_rows--;
    }
    t->at = to;
}

static void trainer_attach(struct sw *w, uint32_t rank) {
    struct tr *t = &w->trainers[rank];
    Shardmill__Attach m = SHARDMILL__ATTACH__INIT;
    uint64_t held[] = {t->view.attempt};
    m.job = "name";
    m.rank = rank;
    m.world_size = w->world;
    m.client = t->client;
    m.credit_bytes = (1 + rank) * 2 * BATCH_BYTES;
    m.has_token = !t->no_token;
    m.again = t->again;
    t->asked = t->at;
    m.epoch = t->at.epoch;
    m.position = t->at.position;
    m.held = held;
    m.n_held = t->view.there;
    t->attached = false;
    say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_ATTACH, &m);
}

static void trainer_start(struct sw *w, uint32_t rank) {
    struct tr *t = &w->trainers[rank];
    cut_back(t, t->kept);
    t->alive = true;
    t->life++;
    t->heard = w->now;
    t->committing = t->again = false;
    t->ended = false; /* Attached tells, if it kept the end of everything */
    t->view.there = false;
    t->no_token = !t->back && luck(w, 0.3);
    snprintf(t->client, sizeof t->client, "%u.%u", rank, t->life);
    trainer_attach(w, rank);
    after(w, 300 + (int64_t)pick(w, 700), TIMER, W_MAX + rank, t->life, 0);
}

static void trainer_kill(struct sw *w, uint32_t rank, bool again) {
    struct tr *t = &w->trainers[rank];
    if (t->alive) w->stats->kills[KILL_CLIENT]++;
    t->alive = t->attached = false;
    if (again) after(w, 100 + (int64_t)pick(w, 2000), START, W_MAX + rank, t->life, 0);
}

/* All end; what all have in their checkpoints is the past of the next world. */
static void world_change(struct sw *w) {
    struct mark least = w->trainers[0].kept;
    for (uint32_t r = 1; r < w->world; r++)
        if (less(w->trainers[r].kept, least)) least = w->trainers[r].kept;
    for (uint32_t r = 0; r < w->world; r++) {
        struct tr *t = &w->trainers[r];
        trainer_kill(w, r, false);
        cut_back(t, least);
        for (unsigned i = 0; i < t->n_rows && w->n_rows < ROWS; i++)
            w->rows[w->n_rows++] = t->rows[i];
    }
    w->world = 1 + (uint32_t)pick(w, T_MAX);
    w->began = least;
    for (uint32_t r = 0; r < T_MAX; r++) {
        struct tr *t = &w->trainers[r];
        t->n_rows = 0;
        t->ended = false;
        t->back = true;
        t->at = t->kept = t->acked = least;
        t->life++;
        if (r < w->world) after(w, (int64_t)pick(w, 3000), START, W_MAX + r, t->life, 0);
    }
}

static void commit_say(struct sw *w, uint32_t rank) {
    struct tr *t = &w->trainers[rank];
    Shardmill__Commit m = SHARDMILL__COMMIT__INIT;
    m.session = t->session;
    m.epoch = t->kept.epoch;
    m.position = t->kept.position;
    say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_COMMIT, &m);
}

static void release_say(struct sw *w, uint32_t rank, uint32_t epoch, uint64_t step,
                        uint64_t attempt) {
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    m.session = w->trainers[rank].session;
    m.epoch = epoch;
    m.step = step;
    m.attempt = attempt;
    say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
}

static void trainer_timer(struct sw *w, uint32_t rank) {
    struct tr *t = &w->trainers[rank];
    Shardmill__Heartbeat m = SHARDMILL__HEARTBEAT__INIT;
    after(w, 700, TIMER, W_MAX + rank, t->life, 0);
    if (!t->attached || w->now - t->heard > SM_LIVENESS * BEAT_MS) {
        trainer_attach(w, rank);
        return;
    }
    if (t->committing) commit_say(w, rank);
    say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &m);
}

static void attached_hear(struct sw *w, uint32_t rank, const Shardmill__Attached *m) {
    struct tr *t = &w->trainers[rank];
    struct mark at = {m->epoch, m->position};
    if (t->attached) {
        if (m->session != t->session) trainer_attach(w, rank);
        return;
    }
    if (t->no_token) {
        struct mark least = t->acked;
        for (uint32_t r = 0; r < w->world; r++)
            if (less(w->trainers[r].acked, least)) least = w->trainers[r].acked;
        if (less(at, least) || less(t->kept, at)) {
            wrong(w, "rank %u begins at %u:%u without a token; %u:%u was confirmed, %u:%u is kept",
                  rank, at.epoch, (unsigned)at.position, least.epoch, (unsigned)least.position,
                  t->kept.epoch, (unsigned)t->kept.position);
            return;
        }
        cut_back(t, at);
        t->kept = at;
        if (less(at, t->acked)) t->acked = at;
        t->no_token = false;
    } else if (less(at, t->asked) || less(t->asked, at)) {
        return; /* of an Attach before this one */
    }
    t->attached = t->again = true;
    t->back = false;
    t->session = m->session;
    uint64_t step = (uint64_t)w->spec.batch_size * w->world;
    if (w->spec.drop_last && w->spec.samples - at.position < step) /* nothing is left of this one */
        t->at = at = (struct mark){at.epoch + 1, 0};
    t->ended = at.epoch >= w->spec.epochs; /* its checkpoint is behind everything */
}

/* Whether this broker still knows the session: if not, nothing is promised about what it held. */
static bool session_known(const struct sw *w, uint64_t id) {
    for (const struct session *s = w->core != NULL ? w->core->sessions : NULL; s != NULL;
         s = s->next)
        if (s->id == id) return true;
    return false;
}

/* The view is given back: until now its bytes must have stayed. */
static void view_end(struct sw *w, uint32_t rank) {
    struct tr *t = &w->trainers[rank];
    struct wk *x = &w->workers[t->view.worker];
    if (!t->view.there) return;
    bool mapped = x->alive && x->life == t->view.worker_life;
    struct made *m = mapped ? made_find(x, t->view.attempt) : NULL;
    if (mapped && m == NULL && t->attached && t->session == t->view.session &&
        session_known(w, t->session))
        wrong(w, "rank %u reads a batch whose memory was freed", rank);
    t->view.there = false;
    if (t->attached)
        release_say(w, rank, t->view.epoch, t->view.step,
                    t->session == t->view.session ? 0 : t->view.attempt);
}

static void give(struct sw *w, uint32_t rank) {
    struct tr *t = &w->trainers[rank];
    view_end(w, rank);
    if (luck(w, 0.5)) {
        t->kept = t->at; /* the checkpoint is written, then the broker is told */
        t->committing = true;
        if (t->attached) commit_say(w, rank);
    }
    if (t->at.epoch >= w->spec.epochs) {
        t->ended = true;
        t->kept = t->at;
        t->committing = true;
    }
}

static void batch_hear(struct sw *w, uint32_t rank, const Shardmill__Batch *m) {
    struct tr *t = &w->trainers[rank];
    const Shardmill__JobSpec *s = &w->spec;
    if (!t->attached || m->session != t->session) {
        if (!PLANTED(old_session_accepted)) return;
    }
    if (t->view.there && t->view.session == m->session && t->view.epoch == m->epoch &&
        t->view.step == m->step)
        return;
    uint64_t first = t->at.position + (uint64_t)rank * s->batch_size;
    bool behind =
        m->epoch < t->at.epoch || (m->epoch == t->at.epoch && m->position <= t->at.position);
    if (behind) {
        release_say(w, rank, m->epoch, m->step, 0); /* it was not heard the first time */
        return;
    }
    if (t->view.there) return; /* one at a time; it will be said again */
    if (m->epoch != t->at.epoch || m->first != first) {
        if (w->now > CALM / 2) wrong(w, "rank %u only gets what is not next", rank);
        return;
    }
    unsigned slot = 0, life = 0;
    if (sscanf(m->fd_socket, "%u %u", &slot, &life) != 2 || slot >= W_MAX) {
        wrong(w, "a batch without a place");
        return;
    }
    struct wk *x = &w->workers[slot];
    struct made *made = x->alive && x->life == life ? made_find(x, m->attempt) : NULL;
    if (made == NULL || m->attempt == t->lost || (troubled(w) && luck(w, 0.02))) {
        Shardmill__Lost lost = SHARDMILL__LOST__INIT;
        t->lost = m->attempt;
        lost.session = t->session;
        lost.epoch = m->epoch;
        lost.step = m->step;
        lost.attempt = m->attempt;
        say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_LOST, &lost);
        return;
    }
    if (made->content != content_of(w, t->at.epoch, first, s->batch_size))
        wrong(w, "rank %u gets other bytes than its step has", rank);
    if (t->n_rows == ROWS) return;
    t->rows[t->n_rows++] = (struct row){t->at.epoch, m->position, m->first, m->count, m->padding};
    t->at = (struct mark){m->epoch, m->position};
    if (m->position == s->samples) t->at = (struct mark){m->epoch + 1, 0};
    t->view.there = true;
    t->view.epoch = m->epoch;
    t->view.step = m->step;
    t->view.attempt = m->attempt;
    t->view.session = m->session;
    t->view.worker = slot;
    t->view.worker_life = life;
    after(w, 1 + (int64_t)pick(w, troubled(w) && luck(w, 0.02) ? 6000 : 40), GIVE, W_MAX + rank,
          t->life, 0);
}

static void trainer_hears(struct sw *w, uint32_t rank, const sm_envelope *e) {
    struct tr *t = &w->trainers[rank];
    struct mark m;
    t->heard = w->now;
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_ATTACHED:
        attached_hear(w, rank, e->attached);
        break;
    case SHARDMILL__ENVELOPE__BODY_BATCH:
        batch_hear(w, rank, e->batch);
        break;
    case SHARDMILL__ENVELOPE__BODY_COMMITTED:
        m = (struct mark){e->committed->epoch, e->committed->position};
        if (less(t->acked, m) && !less(t->kept, m)) t->acked = m;
        if (!less(m, t->kept)) t->committing = false;
        break;
    case SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN:
        if (t->attached) trainer_attach(w, rank);
        break;
    case SHARDMILL__ENVELOPE__BODY_EPOCH_END:
        if (e->epoch_end->planned != e->epoch_end->delivered + e->epoch_end->dropped)
            wrong(w, "the audit does not add up: %u planned, %u delivered, %u dropped",
                  (unsigned)e->epoch_end->planned, (unsigned)e->epoch_end->delivered,
                  (unsigned)e->epoch_end->dropped);
        break;
    case SHARDMILL__ENVELOPE__BODY_REFUSED:
        if (e->refused->code == SM_E_PROTOCOL) t->attached = false;
        break;
    default:
        break;
    }
}

/* --- the end ---------------------------------------------------------------------------------- */

static void history_check(struct sw *w) {
    static uint8_t seen[E_MAX][N_MAX];
    uint64_t n = w->spec.samples;
    memset(seen, 0, sizeof seen);
    for (uint32_t r = 0; r < w->world; r++) {
        const struct tr *t = &w->trainers[r];
        for (unsigned i = 0; i < t->n_rows && w->n_rows < ROWS; i++) {
            const struct row *a = &t->rows[i], *b = i > 0 ? a - 1 : a;
            if (b->epoch > a->epoch || (b->epoch == a->epoch && b->first > a->first))
                wrong(w, "rank %u trained out of order", r);
            w->rows[w->n_rows++] = *a;
        }
    }
    for (unsigned i = 0; i < w->n_rows; i++) {
        const struct row *r = &w->rows[i];
        if (r->padding > 0 && r->behind != n) wrong(w, "padding in the middle of an epoch");
        for (uint64_t p = r->first; p < r->first + r->count - r->padding; p++) {
            if (p >= n || r->epoch >= w->spec.epochs)
                wrong(w, "an unexpected position %u", (unsigned)p);
            else
                seen[r->epoch][p]++;
        }
    }
    for (uint32_t e = 0; e < w->spec.epochs; e++)
        for (uint64_t p = 0; p < n; p++) {
            bool tail = w->spec.drop_last && n - p < (uint64_t)w->spec.batch_size * T_MAX;
            if (seen[e][p] > 1) wrong(w, "%u:%u was trained on twice", e, (unsigned)p);
            if (seen[e][p] == 0 && !tail) wrong(w, "%u:%u is lost", e, (unsigned)p);
        }
}

static bool finished(const struct sw *w) {
    for (uint32_t r = 0; r < w->world; r++)
        if (!w->trainers[r].alive || !w->trainers[r].ended || w->trainers[r].committing)
            return false;
    return true;
}

static void trouble(struct sw *w) {
    if (!troubled(w)) return;
    after(w, 1 + (int64_t)pick(w, 1500), TROUBLE, 0, 0, 0);
    uint32_t x = (uint32_t)pick(w, W_MAX), t = (uint32_t)pick(w, w->world);
    switch (pick(w, 16)) {
    case 0:
    case 1:
    case 2:
        core_kill(w);
        break;
    case 3:
        world_change(w);
        break;
    case 4:
        w->trainers[t].until = w->now + 500 + (int64_t)pick(w, 9000);
        break;
    case 5:
        w->workers[x].until = w->now + 500 + (int64_t)pick(w, 9000);
        break;
    case 6:
    case 7:
    case 8:
    case 9:
        trainer_kill(w, t, true);
        break;
    default:
        wk_kill(w, x);
    }
}

static void start(struct sw *w, uint32_t slot, uint32_t life) {
    if (slot >= W_MAX) {
        struct tr *t = &w->trainers[slot - W_MAX];
        if (!t->alive && slot - W_MAX < w->world && t->life == life) trainer_start(w, slot - W_MAX);
        return;
    }
    struct wk *x = &w->workers[slot];
    *x = (struct wk){.alive = true, .life = x->life + 1, .heard = w->now, .memory = x->memory};
    wk_hello(w, slot);
    after(w, (int64_t)pick(w, BEAT_MS), TIMER, slot, x->life, 0);
}

static bool later(struct sw *w, const struct ev *e) {
    if (e->kind != TO_PEER && e->kind != TIMER && e->kind != MADE && e->kind != GIVE) return false;
    int64_t until =
        e->slot < W_MAX ? w->workers[e->slot].until : w->trainers[e->slot - W_MAX].until;
    if (until <= w->now) return false;
    struct ev again = *e;
    again.at = until;
    push(w, again);
    return true;
}

static void trace(const struct sw *w, const struct ev *e, const sm_envelope *m) {
    static const char *const kinds[] = {"to core", "to peer", "tick", "flush", "core starts",
                                        "starts",  "timer",   "made", "give",  "trouble"};
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

static void happens(struct sw *w, const struct ev *e) {
    bool worker = e->slot < W_MAX;
    bool alive = worker ? w->workers[e->slot].alive : w->trainers[e->slot - W_MAX].alive;
    bool same = alive && life_of(w, e->slot) == e->life;
    sm_envelope *m = e->bytes != NULL ? shardmill__envelope__unpack(NULL, e->n, e->bytes) : NULL;
    struct sm_peer peer = peer_of(e->slot, e->life);
    if (w->trace) trace(w, e, m);
    switch (e->kind) {
    case TO_CORE:
        if (w->core != NULL)
            core_step(w, &(struct sm_event){.kind = SM_EVENT_MESSAGE, .peer = &peer, .message = m});
        break;
    case TO_PEER:
        if (same && worker)
            wk_hears(w, e->slot, m);
        else if (same)
            trainer_hears(w, e->slot - W_MAX, m);
        else if (w->core != NULL && luck(w, 0.3))
            core_step(w, &(struct sm_event){.kind = SM_EVENT_GONE, .peer = &peer});
        break;
    case TICK:
        if (w->core == NULL || e->life != w->core_life) break;
        core_step(w, &(struct sm_event){.kind = SM_EVENT_TICK});
        after(w, BEAT_MS / 2, TICK, 0, w->core_life, 0);
        break;
    case FLUSH:
        if (w->core != NULL && e->life == w->core_life) core_flush(w);
        break;
    case CORE_START:
        if (e->life == w->core_life) core_start(w);
        break;
    case START:
        start(w, e->slot, e->life);
        break;
    case TIMER:
        if (same && worker) wk_timer(w, e->slot);
        if (same && !worker) trainer_timer(w, e->slot - W_MAX);
        break;
    case MADE:
        if (same) wk_made(w, e->slot, e->extra);
        break;
    case GIVE:
        if (same) give(w, e->slot - W_MAX);
        break;
    case TROUBLE:
        trouble(w);
        break;
    }
    if (m != NULL) shardmill__envelope__free_unpacked(m, NULL);
}

static void begin(struct sw *w) {
    Shardmill__JobSpec *s = &w->spec;
    shardmill__job_spec__init(s);
    s->name = "name";
    s->kind = SHARDMILL__JOB_KIND__STREAM;
    s->batch_size = 1 + (uint32_t)pick(w, 4);
    s->samples = s->batch_size * T_MAX + pick(w, N_MAX - 4 * T_MAX);
    s->batch_bytes = BATCH_BYTES;
    s->epochs = 1 + (uint32_t)pick(w, E_MAX);
    s->shuffle = luck(w, 0.5);
    s->drop_last = luck(w, 0.3);
    s->seed = pick(w, 1000);
    w->packed_n = shardmill__job_spec__pack(s, w->packed);
    w->journal[w->n_journal++] = (struct sm_record){.kind = SM_RECORD_JOB};
    w->n_synced = w->n_journal;
    w->poison = luck(w, 0.2) ? pick(w, s->samples) : N_MAX;
    w->drop = 0.06 * (double)pick(w, 100) / 100;
    w->twice = 0.06 * (double)pick(w, 100) / 100;
    w->slow = 0.05 * (double)pick(w, 100) / 100;
    w->world = 1 + (uint32_t)pick(w, T_MAX);
    core_start(w);
    for (uint32_t i = 0; i < W_MAX; i++) {
        w->workers[i].memory = 2 + (uint32_t)pick(w, HELD - 2);
        after(w, (int64_t)pick(w, 500), START, i, 0, 0);
    }
    for (uint32_t r = 0; r < w->world; r++)
        after(w, (int64_t)pick(w, 500), START, W_MAX + r, 0, 0);
    after(w, (int64_t)pick(w, 1000), TROUBLE, 0, 0, 0);
}

bool stream_epoch(uint64_t seed, uint64_t epoch, struct stats *stats, char text[256]) {
    struct sw *w = calloc(1, sizeof *w);
    w->rng = sm_rng_op(seed ^ 0x5eed, (uint32_t)(epoch >> 32), epoch, 0, 0);
    w->stats = stats;
    w->wrong = text;
    w->trace = getenv("SIM_TRACE") != NULL;
    text[0] = 0;
    sm_actions_init(&w->actions);
    begin(w);
    while (w->wrong[0] == 0 && !finished(w)) {
        struct ev e = pop(w);
        w->now = e.at;
        if (w->now > CALM) wrong(w, "nothing ends: the trainers have not got all after the calm");
        if (later(w, &e)) continue;
        happens(w, &e);
        free(e.bytes);
    }
    if (w->wrong[0] == 0) history_check(w);
    sm_core_free(&w->core);
    sm_actions_release(&w->actions);
    for (size_t i = 0; i < w->n_heap; i++)
        free(w->heap[i].bytes);
    free(w->heap);
    free(w);
    stats->epochs++;
    return text[0] == 0;
}
