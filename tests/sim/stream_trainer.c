/* Trainers of a stream's world: they attach, train on what they are given, keep checkpoints,
 * commit, and come back from them after a death, now and then without their token. Each step that a
 * rank trained on is a row; going back cuts rows off, and what is left at the end is what
 * check_history (stream_check.c) reads. */
#include "tests/sim/stream.h"

#include <stdio.h>

static void cut_back(struct stream_trainer *t, struct mark to) {
    while (t->n_rows > 0) {
        const struct row *r = &t->rows[t->n_rows - 1];
        if (r->epoch < to.epoch || (r->epoch == to.epoch && r->behind <= to.position)) break;
        t->n_rows--;
    }
    t->at = to;
}

static void trainer_attach(struct stream_world *w, uint32_t rank) {
    struct stream_trainer *t = &w->trainers[rank];
    Shardmill__Attach m = SHARDMILL__ATTACH__INIT;
    uint64_t held[] = {t->view.attempt};
    m.job = "name";
    m.rank = rank;
    m.world_size = w->world;
    m.client = t->client;
    m.credit_bytes = (1 + rank) * 2 * BATCH_BYTES;
    m.has_token = !t->no_token;
    m.again = t->again && !t->sought;
    m.elsewhere = t->sought;
    m.serial = t->serial;
    t->asked = t->at;
    m.epoch = t->at.epoch;
    m.position = t->at.position;
    m.held = held;
    m.n_held = t->view.there;
    t->attached = false;
    peer_say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_ATTACH, &m);
}

/* What the broker said before is an answer to something else. */
static void trainer_renew(struct stream_world *w, uint32_t rank) {
    w->trainers[rank].serial++;
    trainer_attach(w, rank);
}

void trainer_start(struct stream_world *w, uint32_t rank) {
    struct stream_trainer *t = &w->trainers[rank];
    cut_back(t, t->kept);
    t->alive = true;
    t->life++;
    t->heard = w->now;
    t->committing = t->again = t->seeking = t->sought = false;
    t->ended = false; /* Attached tells, if it kept the end of everything */
    t->view.there = false;
    bool back = false;
    for (uint32_t r = 0; r < w->world; r++)
        back |= w->trainers[r].back;
    t->no_token = !back && stream_luck(w, 0.3);
    snprintf(t->client, sizeof t->client, "%u.%u", rank, t->life);
    trainer_attach(w, rank);
    event_after(w, 300 + (int64_t)stream_pick(w, 700), TIMER, W_MAX + rank, t->life, 0);
}

void trainer_kill(struct stream_world *w, uint32_t rank, bool again) {
    struct stream_trainer *t = &w->trainers[rank];
    if (t->alive) w->stats->kills[KILL_CLIENT]++;
    t->alive = t->attached = false;
    if (again) event_after(w, 100 + (int64_t)stream_pick(w, 2000), START, W_MAX + rank, t->life, 0);
}

/* All end; what all have in their checkpoints is the past of the next world. */
void trainers_change(struct stream_world *w) {
    struct mark least = w->trainers[0].kept, acked = w->trainers[0].acked;
    for (uint32_t r = 0; r < w->world; r++) {
        if (mark_less(w->trainers[r].kept, least)) least = w->trainers[r].kept;
        if (mark_less(w->trainers[r].acked, acked)) acked = w->trainers[r].acked;
    }
    if (mark_less(least, acked)) acked = least;
    for (uint32_t r = 0; r < w->world; r++) {
        struct stream_trainer *t = &w->trainers[r];
        trainer_kill(w, r, false);
        cut_back(t, least);
        for (unsigned i = 0; i < t->n_rows && w->n_rows < ROWS; i++)
            w->rows[w->n_rows++] = t->rows[i];
    }
    w->world = 1 + (uint32_t)stream_pick(w, T_MAX);
    int64_t last = 0; /* the past world's last Attach comes before the next one's first */
    for (uint32_t r = 0; r < T_MAX; r++)
        if (w->in_order[W_MAX + r] > last) last = w->in_order[W_MAX + r];
    for (uint32_t r = 0; r < T_MAX; r++) {
        struct stream_trainer *t = &w->trainers[r];
        t->n_rows = 0;
        w->in_order[W_MAX + r] = last;
        t->ended = false;
        t->back = true;
        t->at = t->kept = least;
        t->acked = acked;
        t->life++;
        if (r < w->world)
            event_after(w, (int64_t)stream_pick(w, 3000), START, W_MAX + r, t->life, 0);
    }
}

/* All ranks of a loop load an earlier checkpoint, one after the other and without a restart; who
 * dies before its turn comes back from it all the same. */
void trainers_go_back(struct stream_world *w) {
    const struct stream_trainer *first = &w->trainers[0];
    if (first->n_rows == 0) return;
    const struct row *r = &first->rows[stream_pick(w, first->n_rows)];
    struct mark to = r->behind == w->spec.samples ? (struct mark){r->epoch + 1, 0}
                                                  : (struct mark){r->epoch, r->behind};
    for (uint32_t i = 0; i < w->world; i++)
        if (!w->trainers[i].attached || w->trainers[i].back || mark_less(w->trainers[i].at, to))
            return;
    for (uint32_t i = 0; i < w->world; i++) {
        struct stream_trainer *t = &w->trainers[i];
        t->kept = to;
        if (mark_less(to, t->acked)) t->acked = to;
        t->back = t->seeking = true;
        t->committing = t->ended = false;
        event_after(w, (int64_t)stream_pick(w, 2000), SEEK, W_MAX + i, t->life, 0);
    }
}

void trainer_seeks(struct stream_world *w, uint32_t rank) {
    struct stream_trainer *t = &w->trainers[rank];
    cut_back(t, t->kept);
    t->seeking = t->no_token = false;
    t->sought = true;
    trainer_renew(w, rank);
}

static void commit_say(struct stream_world *w, uint32_t rank) {
    struct stream_trainer *t = &w->trainers[rank];
    Shardmill__Commit m = SHARDMILL__COMMIT__INIT;
    m.session = t->session;
    m.epoch = t->kept.epoch;
    m.position = t->kept.position;
    peer_say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_COMMIT, &m);
}

static void release_say(struct stream_world *w, uint32_t rank, uint32_t epoch, uint64_t step,
                        uint64_t attempt) {
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    m.session = w->trainers[rank].session;
    m.epoch = epoch;
    m.step = step;
    m.attempt = attempt;
    peer_say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
}

void trainer_timer(struct stream_world *w, uint32_t rank) {
    struct stream_trainer *t = &w->trainers[rank];
    Shardmill__Heartbeat m = SHARDMILL__HEARTBEAT__INIT;
    event_after(w, 700, TIMER, W_MAX + rank, t->life, 0);
    if (!t->attached) {
        trainer_attach(w, rank);
        return;
    }
    if (w->now - t->heard > SM_LIVENESS * BEAT_MS) {
        trainer_renew(w, rank);
        return;
    }
    if (t->committing) commit_say(w, rank);
    peer_say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &m);
}

static void attached_hear(struct stream_world *w, uint32_t rank, const Shardmill__Attached *m) {
    struct stream_trainer *t = &w->trainers[rank];
    struct mark at = {m->epoch, m->position};
    if (m->serial != t->serial) return;
    if (t->attached) {
        if (m->session != t->session) trainer_renew(w, rank);
        return;
    }
    if (t->no_token) {
        if (mark_less(t->kept, at)) {
            stream_wrong(w, "rank %u begins at %u:%u without a token; %u:%u is kept", rank,
                         at.epoch, (unsigned)at.position, t->kept.epoch,
                         (unsigned)t->kept.position);
            return;
        }
        cut_back(t, at);
        t->kept = at;
        if (mark_less(at, t->acked)) t->acked = at;
        t->no_token = false;
    } else if (mark_less(at, t->asked) || mark_less(t->asked, at)) {
        stream_wrong(w, "rank %u is attached elsewhere than it asked", rank);
        return;
    }
    if ((!t->again || t->sought) && mark_less(t->acked, at) &&
        check_commits_hold(w, rank, m->session))
        t->acked = at; /* its token counts as committed */
    t->attached = t->again = true;
    t->sought = false;
    if (!t->seeking) t->back = false;
    t->session = m->session;
    uint64_t step = (uint64_t)w->spec.batch_size * w->world;
    if (w->spec.drop_last && w->spec.samples - at.position < step) /* nothing is left of this one */
        t->at = at = (struct mark){at.epoch + 1, 0};
    t->ended = !t->seeking && at.epoch >= w->spec.epochs; /* its checkpoint is behind everything */
}

/* Whether the bytes of the view must still be there: its session is known to the broker, or was,
 * not long ago, and ended because the trainer was silent. */
static bool view_promised(const struct stream_world *w, const struct stream_trainer *t) {
    if (w->core == NULL || t->view.session >> 32 != w->incarnation) return false;
    if (w->now - t->view.since < SM_ORPHAN_MS) return true;
    for (const struct session *s = w->core->sessions; s != NULL; s = s->next)
        if (s->id == t->view.session) return true;
    return false;
}

/* The view is given back: until now its bytes must have stayed. */
static void view_end(struct stream_world *w, uint32_t rank) {
    struct stream_trainer *t = &w->trainers[rank];
    struct stream_worker *x = &w->workers[t->view.worker];
    if (!t->view.there) return;
    bool mapped = x->alive && x->life == t->view.worker_life;
    struct made *m = mapped ? maker_find(x, t->view.attempt) : NULL;
    if (mapped && m == NULL && view_promised(w, t))
        stream_wrong(w, "rank %u reads a batch whose memory was freed", rank);
    t->view.there = false;
    if (t->attached)
        release_say(w, rank, t->view.epoch, t->view.step,
                    t->session == t->view.session ? 0 : t->view.attempt);
}

void trainer_gives(struct stream_world *w, uint32_t rank) {
    struct stream_trainer *t = &w->trainers[rank];
    view_end(w, rank);
    if (t->seeking) return;
    if (stream_luck(w, 0.5)) {
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

static void batch_hear(struct stream_world *w, uint32_t rank, const Shardmill__Batch *m) {
    struct stream_trainer *t = &w->trainers[rank];
    const Shardmill__JobSpec *s = &w->spec;
    if (!t->attached || m->session != t->session) return;
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
        if (w->now > STREAM_CALM_MS / 2)
            stream_wrong(w, "rank %u only gets what is not next", rank);
        return;
    }
    unsigned slot = 0, life = 0;
    if (sscanf(m->fd_socket, "%u %u", &slot, &life) != 2 || slot >= W_MAX) {
        stream_wrong(w, "a batch without a place");
        return;
    }
    struct stream_worker *x = &w->workers[slot];
    struct made *made = x->alive && x->life == life ? maker_find(x, m->attempt) : NULL;
    if (made == NULL || m->attempt == t->lost || (stream_troubled(w) && stream_luck(w, 0.02))) {
        Shardmill__Lost lost = SHARDMILL__LOST__INIT;
        t->lost = m->attempt;
        lost.session = t->session;
        lost.epoch = m->epoch;
        lost.step = m->step;
        lost.attempt = m->attempt;
        peer_say(w, W_MAX + rank, SHARDMILL__ENVELOPE__BODY_LOST, &lost);
        return;
    }
    if (made->content != stream_content(w, t->at.epoch, first, s->batch_size))
        stream_wrong(w, "rank %u gets other bytes than its step has", rank);
    if (t->n_rows == ROWS) return;
    t->rows[t->n_rows++] = (struct row){t->at.epoch, m->position, m->first, m->count, m->padding};
    t->at = (struct mark){m->epoch, m->position};
    if (m->position == s->samples) t->at = (struct mark){m->epoch + 1, 0};
    t->view.there = true;
    t->view.epoch = m->epoch;
    t->view.step = m->step;
    t->view.attempt = m->attempt;
    t->view.session = m->session;
    t->view.since = w->now;
    t->view.worker = slot;
    t->view.worker_life = life;
    event_after(w,
                1 + (int64_t)stream_pick(w, stream_troubled(w) && stream_luck(w, 0.02) ? 6000 : 40),
                GIVE, W_MAX + rank, t->life, 0);
}

void trainer_hears(struct stream_world *w, uint32_t rank, const sm_envelope *e) {
    struct stream_trainer *t = &w->trainers[rank];
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
        if (mark_less(t->acked, m) && !mark_less(t->kept, m) &&
            check_commits_hold(w, rank, e->committed->session))
            t->acked = m;
        if (!mark_less(m, t->kept)) t->committing = false;
        break;
    case SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN:
        if (t->attached) trainer_renew(w, rank);
        break;
    case SHARDMILL__ENVELOPE__BODY_EPOCH_END:
        if (e->epoch_end->planned != e->epoch_end->delivered + e->epoch_end->dropped)
            stream_wrong(w, "the audit does not add up: %u planned, %u delivered, %u dropped",
                         (unsigned)e->epoch_end->planned, (unsigned)e->epoch_end->delivered,
                         (unsigned)e->epoch_end->dropped);
        break;
    case SHARDMILL__ENVELOPE__BODY_REFUSED:
        if (e->refused->code == SM_E_PROTOCOL && t->attached) trainer_renew(w, rank);
        break;
    default:
        break;
    }
}
