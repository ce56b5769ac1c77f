/* Batches and who may be reading them when a worker or a trainer has gone: what a dead worker held
 * is made again, what it holds when it comes back stays where a trainer was told of it, and so does
 * what a trainer that was only stopped may still read. Before it: workers.c (Hello, deaths) and
 * sessions.c (silence); the batches themselves are stream.c's. */
#include "broker/state.h"

#include <stdlib.h>
#include <string.h>

struct orphan *core_orphan_find(struct sm_core *core, const struct worker *worker,
                                uint64_t attempt) {
    for (struct orphan *o = core->orphans; o != NULL; o = o->next)
        if (o->attempt == attempt && o->worker == worker) return o;
    return NULL;
}

struct batch *core_held_find(const struct worker *worker, uint64_t attempt) {
    for (struct batch *b = worker->held; b != NULL; b = b->next_held)
        if (b->attempt == attempt) return b;
    return NULL;
}

/* A trainer that was told of the batch may be reading it. */
static void orphan_new(struct sm_core *core, const struct batch *b) {
    struct orphan *o = core_calloc(1, sizeof *o);
    *o = (struct orphan){.attempt = b->attempt,
                         .bytes = core_step_bytes(b->work.job),
                         .session = b->session,
                         .epoch = b->epoch,
                         .step = b->step,
                         .job = core_strdup(b->work.job->id),
                         .next = core->orphans};
    core->orphans = o;
}

/* What a worker held is gone with it: made again, the same bytes, except what the trainer releases
 * before that. */
void core_batches_remake(struct sm_core *core, struct worker *worker) {
    for (struct batch *b; (b = worker->held) != NULL;) {
        if (b->told) orphan_new(core, b);
        core_batch_unhold(core, b, false);
        if (PLANTED(dead_batch_offered)) continue; /* and is never made again */
        b->work.job->leases_lost++;
        core_work_wait(&b->work, true);
        core->work_added = true;
    }
}

/* A made batch leaves its session's hands, and stays at its holder. */
struct orphan *core_orphan_of(struct sm_core *core, struct batch *b) {
    struct orphan *o = core_calloc(1, sizeof *o);
    *o = (struct orphan){.attempt = b->attempt,
                         .bytes = core_step_bytes(b->work.job),
                         .worker = b->holder,
                         .session = b->session,
                         .named = true,
                         .job = core_strdup(b->work.job->id),
                         .next = core->orphans};
    core_room_take(b->holder, o->bytes);
    core->orphans = o;
    b->attempt = 0; /* and so no Free is sent when the session ends */
    return o;
}

void core_orphan_free(struct sm_core *core, struct orphan *orphan, bool tell) {
    struct orphan **p = &core->orphans;
    while (*p != orphan)
        p = &(*p)->next;
    *p = orphan->next;
    if (orphan->worker != NULL) {
        core_room_give(orphan->worker, orphan->bytes);
        if (tell) core_free_say(core, orphan->worker, orphan->job, orphan->attempt);
    }
    free(orphan->job);
    free(orphan);
}

/* A trainer falls silent while its connection stands: it may only be stopped, and reading. What it
 * was told of stays for a while, until it attaches again and names it. */
void core_batches_leave(struct sm_core *core, struct session *s) {
    int64_t deadline = core->now + SM_ORPHAN_MS;
    for (struct orphan *o = core->orphans; o != NULL; o = o->next) {
        if (o->session != s) continue;
        o->session = NULL;
        o->named = true;
        o->deadline = deadline;
    }
    for (struct batch *b = s->head; b != NULL; b = b->next) {
        if (!b->told || b->work.state != WORK_DONE || b->attempt == 0) continue;
        struct orphan *o = core_orphan_of(core, b);
        o->session = NULL;
        o->deadline = deadline;
    }
}

/* Their worker is taken for dead. */
void core_orphans_part(struct sm_core *core, const struct worker *worker) {
    for (struct orphan *o = core->orphans; o != NULL; o = o->next)
        if (o->worker == worker) o->worker = NULL;
}

bool core_holding_kept(struct sm_core *core, const struct worker *worker, uint64_t attempt) {
    for (const struct lease *l = worker->leases; l != NULL; l = l->next_of_worker)
        if (l->attempt == attempt) return true;
    return core_held_find(worker, attempt) != NULL ||
           core_orphan_find(core, worker, attempt) != NULL;
}

/* A batch or lease with this attempt at any worker: it may have come back by another connection. */
static bool holding_move(struct sm_core *core, struct worker *to, uint64_t attempt) {
    for (struct worker *w = core->workers; w != NULL; w = w->next) {
        struct batch *b = core_held_find(w, attempt);
        if (b != NULL) {
            if (w == to) return true;
            core_batch_unhold(core, b, false);
            core_batch_hold(b, to);
            b->work.state = WORK_DONE;
            core_batch_say(core, b);
            return true;
        }
        struct lease *l = core_lease_find(w, attempt);
        if (l == NULL || l->work->kind != SHARDMILL__LEASE_KIND__STEP) continue;
        if (w == to) return true;
        core_lease_new(core, l->work, to, attempt);
        core_lease_drop(core, l);
        return true;
    }
    return false;
}

/* A batch from before the broker's restart, unless it is one that waits for its worker. */
static void orphan_adopt(struct sm_core *core, struct worker *worker, const Shardmill__Holding *h) {
    for (struct orphan *o = core->orphans; o != NULL; o = o->next) {
        if (o->attempt != h->attempt || o->worker != NULL) continue;
        o->worker = worker;
        core_room_take(worker, o->bytes);
        return;
    }
    const struct job *job = core_job_find(core, h->job);
    if (job == NULL || job->spec->kind != SHARDMILL__JOB_KIND__STREAM ||
        h->attempt >> 32 >= core->options.incarnation)
        return;
    struct orphan *o = core_calloc(1, sizeof *o);
    *o = (struct orphan){.attempt = h->attempt,
                         .bytes = core_step_bytes(job),
                         .worker = worker,
                         .job = core_strdup(job->id),
                         .deadline = core->now + SM_ORPHAN_MS,
                         .next = core->orphans};
    core_room_take(worker, o->bytes);
    core->orphans = o;
}

/* What a worker holds of streams, by what it says: known batches and leases are kept, those that it
 * does not name are gone, and those from before the broker's restart stay for a while, because a
 * trainer may be reading them. The rest is told to be freed. */
void core_holdings_adopt(struct sm_core *core, struct worker *worker, const Shardmill__Hello *m) {
    enum { HOLDINGS_MAX = 4 * WINDOW_MAX };
    size_t n = m->n_holding < HOLDINGS_MAX ? m->n_holding : HOLDINGS_MAX;
    struct orphan *o, *next_orphan;
    for (struct lease *l = worker->leases, *next; l != NULL; l = next) {
        next = l->next_of_worker;
        bool named = false;
        for (size_t i = 0; i < n && !named; i++)
            named = m->holding[i]->attempt == l->attempt;
        if (!named && l->work->kind == SHARDMILL__LEASE_KIND__STEP) core_lease_drop(core, l);
    }
    for (struct batch *b = worker->held, *next; b != NULL; b = next) {
        next = b->next_held;
        bool named = false;
        for (size_t i = 0; i < n && !named; i++)
            named = m->holding[i]->attempt == b->attempt;
        if (named) continue;
        core_batch_unhold(core, b, false);
        core_work_wait(&b->work, true);
        core->work_added = true;
    }
    for (o = core->orphans; o != NULL; o = next_orphan) {
        next_orphan = o->next;
        bool named = false;
        for (size_t i = 0; i < n && !named; i++)
            named = m->holding[i]->attempt == o->attempt;
        if (!named && o->worker == worker) core_orphan_free(core, o, false);
    }
    for (size_t i = 0; i < n; i++) {
        const Shardmill__Holding *h = m->holding[i];
        if (h->kind != SHARDMILL__LEASE_KIND__STEP || holding_move(core, worker, h->attempt))
            continue;
        if (core_orphan_find(core, worker, h->attempt) == NULL) orphan_adopt(core, worker, h);
    }
}
