/* What must hold in a stream's world. After each step of the core: ranks, runs and sessions are as
 * the messages so far allow (struct stream_watch). Of what is journaled: where runs begin, who is
 * quarantined. At the end: the trainers' effective history, that is what they trained on, cut back
 * to the checkpoint from which they last went on, has each position once, in order. */
#include "tests/sim/stream.h"

#include <string.h>

bool mark_less(struct mark a, struct mark b) {
    return a.epoch != b.epoch ? a.epoch < b.epoch : a.position < b.position;
}

static bool same_peer(const struct sm_peer *peer, uint32_t slot, uint32_t life) {
    struct sm_peer p = stream_peer(slot, life);
    return peer->n == p.n && memcmp(peer->id, p.id, p.n) == 0;
}

static uint32_t life_in(const struct sm_peer *peer) {
    uint32_t life;
    memcpy(&life, peer->id + 1, 4);
    return life;
}

static bool owned(const struct stream_world *w, uint32_t rank) {
    return w->watch.owners[rank].there && !w->watch.owners[rank].gone &&
           w->now - w->watch.owners[rank].heard <= SM_LIVENESS * BEAT_MS;
}

static bool owned_by(const struct stream_world *w, uint32_t rank, const struct sm_peer *peer) {
    return w->watch.owners[rank].there && same_peer(peer, W_MAX + rank, w->watch.owners[rank].life);
}

/* A new broker knows what is journaled, and nobody. */
void check_core_start(struct stream_world *w) {
    uint32_t strangers = w->watch.strangers;
    w->watch = (struct stream_watch){.strangers = strangers};
    for (unsigned i = 0; i < w->n_journal; i++) {
        if (w->journal[i].kind != SM_RECORD_RUN) continue;
        w->watch.run_world = w->journal[i].world_size;
        w->watch.run = (struct mark){w->journal[i].epoch, w->journal[i].position};
    }
}

/* Whether what this session had committed still counts, because no run has begun since. */
bool check_commits_hold(const struct stream_world *w, uint32_t rank, uint64_t session) {
    return w->watch.owners[rank].there && w->watch.owners[rank].session == session &&
           w->watch.owners[rank].runs == w->watch.runs;
}

/* --- sessions --------------------------------------------------------------------------------- */

/* Whether the run that is on has a step's end there, or begins there. */
static bool on_grid(const struct stream_world *w, struct mark at) {
    uint64_t entered = at.epoch == w->watch.run.epoch ? w->watch.run.position : 0;
    uint64_t step = (uint64_t)w->spec.batch_size * w->watch.run_world;
    if (mark_less(at, w->watch.run)) return false;
    return at.position == w->spec.samples || (at.position - entered) % step == 0;
}

static struct mark least_acked(const struct stream_world *w) {
    struct mark least = w->trainers[0].acked;
    for (uint32_t r = 1; r < w->world; r++)
        if (mark_less(w->trainers[r].acked, least)) least = w->trainers[r].acked;
    return least;
}

/* Without a token a rank begins no earlier than behind what all have had confirmed. */
static void tokenless_check(struct stream_world *w, uint32_t rank, const struct sm_peer *peer,
                            struct mark at) {
    struct mark least = least_acked(w);
    if (rank >= w->world || !same_peer(peer, W_MAX + rank, w->trainers[rank].life)) return;
    if (mark_less(at, least))
        stream_wrong(w, "rank %u begins at %u:%u without a token; %u:%u was confirmed", rank,
                     at.epoch, (unsigned)at.position, least.epoch, (unsigned)least.position);
}

static void attached_check(struct stream_world *w, const Shardmill__Attach *asked,
                           const struct sm_peer *peer, const Shardmill__Attached *m) {
    struct stream_watch *k = &w->watch;
    struct mark at = {m->epoch, m->position};
    for (uint32_t r = 0; r < T_MAX; r++) {
        if (!owned(w, r) || owned_by(w, r, peer)) continue;
        if (r == asked->rank && k->owners[r].world == asked->world_size)
            stream_wrong(w, "rank %u is given to a second client while the first one is there", r);
        else if (k->owners[r].world != asked->world_size)
            stream_wrong(w, "worlds of %u and %u ranks are attached at once", k->owners[r].world,
                         asked->world_size);
    }
    if (asked->world_size != k->run_world)
        stream_wrong(w, "a world of %u ranks is attached to a run of %u", asked->world_size,
                     k->run_world);
    else if (!on_grid(w, at))
        stream_wrong(w, "rank %u is attached at %u:%u, between the steps of a run from %u:%u",
                     asked->rank, at.epoch, (unsigned)at.position, k->run.epoch,
                     (unsigned)k->run.position);
    for (uint32_t r = 0; r < T_MAX; r++)
        if (k->owners[r].world != asked->world_size) k->owners[r].there = false;
    bool fresh = !owned_by(w, asked->rank, peer) || k->owners[asked->rank].session != m->session;
    if (fresh && !asked->has_token) tokenless_check(w, asked->rank, peer, at);
    if (fresh) k->owners[asked->rank].gone = false;
    k->owners[asked->rank].there = true;
    k->owners[asked->rank].life = life_in(peer);
    k->owners[asked->rank].world = asked->world_size;
    k->owners[asked->rank].session = m->session;
    k->owners[asked->rank].runs = k->runs;
    k->owners[asked->rank].heard = w->now;
}

/* The session that a trainer's message names; 0: it names none. */
static uint64_t session_named(const sm_envelope *m) {
    switch (m->body_case) {
    case SHARDMILL__ENVELOPE__BODY_RELEASE:
        return m->release->session;
    case SHARDMILL__ENVELOPE__BODY_LOST:
        return m->lost->session;
    case SHARDMILL__ENVELOPE__BODY_COMMIT:
        return m->commit->session;
    default:
        return 0;
    }
}

/* What is said of a session that is over moves nothing: at most its trainer is told to attach
 * anew. */
static void old_session_check(struct stream_world *w, const struct sm_event *e, size_t from) {
    uint64_t id = session_named(e->message);
    uint32_t rank = e->peer->id[0] - (uint32_t)W_MAX;
    if (id == 0 || rank >= T_MAX) return;
    if (owned_by(w, rank, e->peer) && w->watch.owners[rank].session == id) return;
    for (size_t i = from; i < w->actions.n; i++)
        if (w->actions.list[i].kind != SM_ACTION_SEND ||
            w->actions.list[i].message->body_case != SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN)
            stream_wrong(w, "rank %u is answered in a session that is over", rank);
}

static void trainer_heard(struct stream_world *w, const struct sm_event *e) {
    uint32_t rank = e->peer->id[0] - (uint32_t)W_MAX;
    if (rank >= T_MAX || !owned_by(w, rank, e->peer)) return;
    if (e->kind == SM_EVENT_GONE)
        w->watch.owners[rank].gone = true;
    else if (e->message->body_case == SHARDMILL__ENVELOPE__BODY_HEARTBEAT &&
             w->now - w->watch.owners[rank].heard <= SM_LIVENESS * BEAT_MS) {
        w->watch.owners[rank].gone = false;
        w->watch.owners[rank].heard = w->now;
    }
}

/* Somebody with a checkpoint of another world, or a second client of a rank, while its trainer is
 * there: each is refused. */
void check_strangers(struct stream_world *w) {
    uint32_t rank = (uint32_t)stream_pick(w, T_MAX), other = (rank + 1) % T_MAX;
    if (w->core == NULL || !owned(w, rank)) return;
    struct sm_peer peer = stream_peer(PEERS, ++w->watch.strangers);
    Shardmill__Attach m = SHARDMILL__ATTACH__INIT;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    m.job = "name";
    m.client = "stranger";
    m.rank = rank;
    m.world_size = w->watch.owners[rank].world;
    m.credit_bytes = BATCH_BYTES;
    if (stream_luck(w, 0.5) && other < m.world_size && !owned(w, other)) {
        m.rank = other;
        m.has_token = true;
        m.epoch = w->watch.run.epoch;
        m.position = w->watch.run.position + 1;
        if (m.position >= w->spec.samples || on_grid(w, (struct mark){m.epoch, m.position})) return;
    }
    e.body_case = SHARDMILL__ENVELOPE__BODY_ATTACH;
    e.attach = &m;
    stream_core_step(w, &(struct sm_event){.kind = SM_EVENT_MESSAGE, .peer = &peer, .message = &e});
}

/* --- deaths ----------------------------------------------------------------------------------- */

static void worker_registered(struct stream_world *w, const struct sm_peer *peer) {
    size_t n = sizeof w->watch.registered / sizeof *w->watch.registered, at = n;
    for (size_t i = 0; i < n; i++) {
        if (!w->watch.registered[i].there)
            at = i;
        else if (same_peer(peer, w->watch.registered[i].slot, w->watch.registered[i].life))
            return;
    }
    if (at == n) {
        stream_wrong(w, "the broker takes none of its workers for dead");
        return;
    }
    memset(&w->watch.registered[at], 0, sizeof w->watch.registered[at]);
    w->watch.registered[at].there = true;
    w->watch.registered[at].slot = peer->id[0];
    w->watch.registered[at].life = life_in(peer);
}

/* Where a worker says that it is, which is who is blamed if it dies now; through: it is no more. */
static void progress_note(struct stream_world *w, const struct sm_peer *peer, uint64_t attempt,
                          uint64_t position, bool through) {
    for (size_t i = 0; i < sizeof w->watch.registered / sizeof *w->watch.registered; i++) {
        if (!w->watch.registered[i].there ||
            !same_peer(peer, w->watch.registered[i].slot, w->watch.registered[i].life))
            continue;
        size_t at = 0;
        for (size_t k = 0; k < 4; k++)
            if (w->watch.registered[i].named[k].attempt < w->watch.registered[i].named[at].attempt)
                at = k;
        for (size_t k = 0; k < 4; k++)
            if (w->watch.registered[i].named[k].attempt == attempt) at = k;
        if (through && w->watch.registered[i].named[at].attempt != attempt) return;
        w->watch.registered[i].named[at].attempt = through ? 0 : attempt;
        w->watch.registered[i].named[at].sample =
            stream_sample(w, w->watch.leases[(uint32_t)attempt % ROWS].epoch, position);
    }
}

static void deaths_count(struct stream_world *w) {
    for (size_t i = 0; i < sizeof w->watch.registered / sizeof *w->watch.registered; i++) {
        struct sm_peer peer = stream_peer(w->watch.registered[i].slot, w->watch.registered[i].life);
        if (!w->watch.registered[i].there || core_worker_find(w->core, &peer) != NULL) continue;
        w->watch.registered[i].there = false;
        for (size_t k = 0; k < 4; k++)
            if (w->watch.registered[i].named[k].attempt != 0)
                w->watch.accused[w->watch.registered[i].named[k].sample]++;
    }
}

/* A batch is taken for the first time: its samples are innocent. */
static void made_note(struct stream_world *w, uint64_t attempt) {
    uint32_t at = (uint32_t)attempt % ROWS;
    if (attempt >> 32 != w->incarnation || w->watch.leases[at].made) return;
    w->watch.leases[at].made = true;
    for (uint32_t i = 0; i < w->watch.leases[at].count; i++)
        w->watch
            .accused[stream_sample(w, w->watch.leases[at].epoch, w->watch.leases[at].first + i)] =
            0;
}

void check_quarantine(struct stream_world *w, const struct sm_record *r) {
    w->stats->quarantined++;
    if (w->watch.accused[r->position] < SM_SINGLE_DEATHS)
        stream_wrong(w, "sample %u is quarantined, and %u workers died over it since it was made",
                     (unsigned)r->position, w->watch.accused[r->position]);
}

/* --- a step of the core ----------------------------------------------------------------------- */

static void message_note(struct stream_world *w, const struct sm_event *e) {
    const sm_envelope *m = e->message;
    if (m->body_case == SHARDMILL__ENVELOPE__BODY_HELLO) worker_registered(w, e->peer);
    if (m->body_case == SHARDMILL__ENVELOPE__BODY_PROGRESS)
        progress_note(w, e->peer, m->progress->attempt, m->progress->position, false);
    if (m->body_case == SHARDMILL__ENVELOPE__BODY_DONE)
        progress_note(w, e->peer, m->done->attempt, 0, true);
    if (m->body_case == SHARDMILL__ENVELOPE__BODY_FAIL)
        progress_note(w, e->peer, m->fail->attempt, 0, true);
}

/* Beside other ranks only one that leaves its own session, to go elsewhere, begins a run. */
static void run_begin_check(struct stream_world *w, const struct sm_event *e) {
    const Shardmill__Attach *m = e->message->attach;
    for (uint32_t r = 0; r < T_MAX; r++)
        if (!m->elsewhere && r != m->rank && owned(w, r))
            stream_wrong(w, "rank %u begins a run at %u:%u by its start, and rank %u is there",
                         m->rank, m->epoch, (unsigned)m->position, r);
}

/* What a rank commits that has not followed the others into their run would be found in it. */
static void commit_check(struct stream_world *w, const struct sm_event *e,
                         const struct sm_record *r) {
    if (e->message->body_case == SHARDMILL__ENVELOPE__BODY_COMMIT &&
        w->watch.owners[r->rank].runs != w->watch.runs)
        stream_wrong(w, "rank %u's commit of %u:%u in a run that was left is journaled", r->rank,
                     r->epoch, (unsigned)r->position);
}

static void action_note(struct stream_world *w, const struct sm_event *e,
                        const struct sm_action *a) {
    if (a->kind == SM_ACTION_PERSIST && a->record.kind == SM_RECORD_COMMIT)
        commit_check(w, e, &a->record);
    if (a->kind == SM_ACTION_PERSIST && a->record.kind == SM_RECORD_RUN) {
        run_begin_check(w, e);
        w->watch.runs++;
        w->watch.run_world = a->record.world_size;
        w->watch.run = (struct mark){a->record.epoch, a->record.position};
    }
    if (a->kind == SM_ACTION_PERSIST && a->record.kind == SM_RECORD_QUARANTINE)
        check_quarantine(w, &a->record);
    if (a->kind != SM_ACTION_SEND) return;
    const sm_envelope *m = a->message;
    if (m->body_case == SHARDMILL__ENVELOPE__BODY_LEASE) {
        uint32_t at = (uint32_t)m->lease->attempt % ROWS;
        w->watch.leases[at].epoch = m->lease->epoch;
        w->watch.leases[at].first = m->lease->first;
        w->watch.leases[at].count = m->lease->count;
        w->watch.leases[at].made = false;
    }
    if (m->body_case == SHARDMILL__ENVELOPE__BODY_ATTACHED && e->kind == SM_EVENT_MESSAGE)
        attached_check(w, e->message->attach, a->peer, m->attached);
    if (m->body_case == SHARDMILL__ENVELOPE__BODY_ACK && m->ack->wanted &&
        e->message->body_case == SHARDMILL__ENVELOPE__BODY_DONE)
        made_note(w, m->ack->attempt);
}

void check_step(struct stream_world *w, const struct sm_event *e, size_t from) {
    if (e->kind == SM_EVENT_MESSAGE) {
        old_session_check(w, e, from);
        message_note(w, e);
    }
    if (e->kind == SM_EVENT_MESSAGE || e->kind == SM_EVENT_GONE) trainer_heard(w, e);
    deaths_count(w);
    for (size_t i = from; i < w->actions.n; i++)
        action_note(w, e, &w->actions.list[i]);
}

/* --- runs and the end ------------------------------------------------------------------------- */

/* A run begins behind what all ranks have had confirmed, or where one says that it went back to.
 * Then that is what may be answered from now on, also to ranks that hear of it late. */
void check_run(struct stream_world *w, const struct sm_record *r) {
    struct mark at = {r->epoch, r->position}, least = least_acked(w);
    bool back = false;
    for (uint32_t i = 0; i < w->world; i++) {
        const struct stream_trainer *t = &w->trainers[i];
        back |= t->back && !mark_less(t->kept, at) && !mark_less(at, t->kept);
    }
    if (mark_less(at, least) && !back)
        stream_wrong(w, "a run begins at %u:%u, and all ranks had %u:%u confirmed", at.epoch,
                     (unsigned)at.position, least.epoch, (unsigned)least.position);
    for (uint32_t i = 0; i < w->world; i++)
        if (mark_less(at, w->trainers[i].acked)) w->trainers[i].acked = at;
}

void check_history(struct stream_world *w) {
    static uint8_t seen[E_MAX][N_MAX];
    uint64_t n = w->spec.samples;
    memset(seen, 0, sizeof seen);
    for (uint32_t r = 0; r < w->world; r++) {
        const struct stream_trainer *t = &w->trainers[r];
        for (unsigned i = 0; i < t->n_rows && w->n_rows < ROWS; i++) {
            const struct row *a = &t->rows[i], *b = i > 0 ? a - 1 : a;
            if (b->epoch > a->epoch || (b->epoch == a->epoch && b->first > a->first))
                stream_wrong(w, "rank %u trained out of order", r);
            w->rows[w->n_rows++] = *a;
        }
    }
    for (unsigned i = 0; i < w->n_rows; i++) {
        const struct row *r = &w->rows[i];
        if (r->padding > 0 && r->behind != n) stream_wrong(w, "padding in the middle of an epoch");
        for (uint64_t p = r->first; p < r->first + r->count - r->padding; p++) {
            if (p >= n || r->epoch >= w->spec.epochs)
                stream_wrong(w, "an unexpected position %u", (unsigned)p);
            else
                seen[r->epoch][p]++;
        }
    }
    for (uint32_t e = 0; e < w->spec.epochs; e++)
        for (uint64_t p = 0; p < n; p++) {
            bool tail = w->spec.drop_last && n - p < (uint64_t)w->spec.batch_size * T_MAX;
            if (seen[e][p] > 1) stream_wrong(w, "%u:%u was trained on twice", e, (unsigned)p);
            if (seen[e][p] == 0 && !tail) stream_wrong(w, "%u:%u is lost", e, (unsigned)p);
        }
}
