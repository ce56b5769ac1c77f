/* Who is there: registration, heartbeats both ways, deaths. Leases of a worker that left or died go
 * back (leases.c). */
#include "broker/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool holding_adopt(struct sm_core *core, struct worker *worker, const Shardmill__Holding *h);

static unsigned bucket_of(const struct sm_peer *peer) {
    uint32_t h = 2166136261u; /* FNV-1a */
    for (unsigned i = 0; i < peer->n; i++)
        h = (h ^ peer->id[i]) * 16777619u;
    return (h ^ h >> 16) % BUCKETS;
}

struct worker *core_worker_find(struct sm_core *core, const struct sm_peer *peer) {
    for (struct worker *w = core->buckets[bucket_of(peer)]; w != NULL; w = w->next_of_bucket)
        if (w->peer.n == peer->n && memcmp(w->peer.id, peer->id, peer->n) == 0) return w;
    return NULL;
}

static struct worker *worker_new(struct sm_core *core, const struct sm_peer *peer) {
    struct worker *w = core_calloc(1, sizeof *w), **bucket = &core->buckets[bucket_of(peer)];
    w->peer = *peer;
    w->next_of_bucket = *bucket;
    *bucket = w;
    w->prev = core->workers_tail;
    if (w->prev != NULL)
        w->prev->next = w;
    else
        core->workers = w;
    core->workers_tail = w;
    core->n_workers++;
    return w;
}

/* Its leases must have been dropped. */
void core_worker_free(struct sm_core *core, struct worker *w) {
    struct worker **p = &core->buckets[bucket_of(&w->peer)];
    while (*p != w)
        p = &(*p)->next_of_bucket;
    *p = w->next_of_bucket;
    if (w->prev != NULL)
        w->prev->next = w->next;
    else
        core->workers = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
    else
        core->workers_tail = w->prev;
    core->n_workers--;
    if (w->ready) core->n_ready--;
    assert(w->held == NULL);
    core->batch_memory -= w->batch_memory;
    free(w->name);
    free(w->fingerprint);
    free(w->host);
    free(w->fd_socket);
    free(w->data_endpoint);
    free(w->data_public_key);
    free(w);
}

/* The lease that it was at: the newest of which it has told progress, else the oldest, unless one
 * has just been revoked under its hands: then none. The others it held in advance, and their
 * samples killed nobody. */
static uint64_t attempt_in_work(const struct worker *worker) {
    const struct lease *best = NULL;
    for (const struct lease *l = worker->leases; l != NULL; l = l->next_of_worker) {
        bool newer = best == NULL || l->attempt > best->attempt;
        if (best == NULL || (l->begun != best->begun ? l->begun : l->begun == newer)) best = l;
    }
    return best != NULL && (best->begun || !worker->excused) ? best->attempt : 0;
}

void core_worker_dies(struct sm_core *core, struct worker *worker) {
    uint64_t guilty = attempt_in_work(worker);
    while (worker->leases != NULL)
        core_lease_died(core, worker->leases,
                        worker->leases->attempt == guilty || PLANTED(bystander_charged));
    core_batches_remake(core, worker);
    core_orphans_part(core, worker);
    core_worker_free(core, worker);
}

static uint32_t heartbeat_agree(const struct sm_core *core, uint32_t wanted) {
    uint32_t ms = core->options.heartbeat_ms;
    if (wanted != 0 && wanted < ms) ms = wanted;
    if (ms < SM_HEARTBEAT_MIN_MS) ms = SM_HEARTBEAT_MIN_MS;
    return ms > SM_HEARTBEAT_MAX_MS ? SM_HEARTBEAT_MAX_MS : ms;
}

/* A worker says who it is and what it is working on: that is the whole truth about it from now on.
 */
void core_on_hello(struct sm_core *core, const struct sm_peer *peer, const Shardmill__Hello *m) {
    struct worker *w = core_worker_find(core, peer);
    if (w == NULL) {
        if (core->n_workers == SM_MAX_WORKERS) {
            core_refuse(core, peer, SM_E_BUSY, "this broker holds %d workers, which is its limit",
                        SM_MAX_WORKERS);
            return;
        }
        w = worker_new(core, peer);
    } else if (w->ready) {
        w->ready = false;
        core->n_ready--;
    }
    free(w->name);
    free(w->fingerprint);
    free(w->host);
    free(w->fd_socket);
    free(w->data_endpoint);
    free(w->data_public_key);
    w->host = core_clean(m->host, SM_MAX_NAME_BYTES);
    w->fd_socket = core_clean(m->fd_socket, SM_MAX_NAME_BYTES);
    w->data_endpoint = core_clean(m->data_endpoint, SM_MAX_NAME_BYTES);
    w->data_public_key = core_clean(m->data_public_key, SM_MAX_NAME_BYTES);
    core->batch_memory += m->batch_memory - w->batch_memory;
    w->batch_memory = m->batch_memory;
    w->name = core_clean(m->name, SM_MAX_NAME_BYTES);
    w->fingerprint = core_clean(m->fingerprint, SM_MAX_FINGERPRINT_BYTES);
    memset(w->told, 0, sizeof w->told);
    w->excused = false;
    w->heartbeat_ms = heartbeat_agree(core, m->heartbeat_ms);
    w->heard = core->now;
    w->beat = core->now + w->heartbeat_ms;
    BODY(core, welcome, Shardmill__Welcome, shardmill__welcome__init);
    welcome->heartbeat_ms = w->heartbeat_ms;
    welcome->liveness = SM_LIVENESS;
    core_send(core, peer, SHARDMILL__ENVELOPE__BODY_WELCOME, welcome);
    core_holdings_adopt(core, w, m);
    for (struct lease *l = w->leases, *next; l != NULL; l = next) {
        next = l->next_of_worker;
        if (l->work->kind != SHARDMILL__LEASE_KIND__STEP) core_lease_drop(core, l);
    }
    for (size_t i = 0; i < m->n_holding; i++) {
        const Shardmill__Holding *h = m->holding[i];
        if (h->kind == SHARDMILL__LEASE_KIND__STEP && core_holding_kept(core, w, h->attempt))
            continue;
        if (i < SM_MAX_WORKER_LEASES && holding_adopt(core, w, h)) continue;
        BODY(core, revoke, Shardmill__Revoke, shardmill__revoke__init);
        revoke->job = core_text(core, "%.*s", SM_MAX_JOB_ID_BYTES, h->job);
        revoke->attempt = h->attempt;
        core_send(core, peer, SHARDMILL__ENVELOPE__BODY_REVOKE, revoke);
    }
}

/* The open work that a result or holding of these positions is about: the very range, or a new one
 * where nothing is cut yet. NULL when it is no longer wanted. */
static struct work *holding_work(struct open_shard *open, const Shardmill__Holding *h) {
    if (h->kind == SHARDMILL__LEASE_KIND__SEAL) return open->sealing ? &open->seal : NULL;
    if (h->first < open->first || h->count == 0 || h->count > open->job->spec->lease_samples ||
        h->count > open->count || h->first - open->first > open->count - h->count)
        return NULL;
    if (h->generation != core_generation(open->job, h->first, h->count) &&
        !PLANTED(old_attempt_accepted))
        return NULL;
    size_t i = core_range_at(open, h->first);
    if (i == open->n || open->ranges[i]->first >= h->first + h->count)
        return core_range_insert(open, h->first, h->count);
    struct work *range = open->ranges[i];
    bool same = range->first == h->first && range->count == h->count && range->state != WORK_DONE;
    return same ? range : NULL;
}

static bool holding_adopt(struct sm_core *core, struct worker *worker,
                          const Shardmill__Holding *h) {
    struct job *job = core_job_find(core, h->job);
    uint64_t ordinal;
    if (h->kind == SHARDMILL__LEASE_KIND__STEP || job == NULL ||
        job->state != SHARDMILL__JOB_STATE__RUNNING || !core_job_holds(job, h->shard, &ordinal) ||
        job->shards[ordinal].sealed || job->fingerprint == NULL ||
        strcmp(job->fingerprint, worker->fingerprint) != 0 ||
        core_lease_find(worker, h->attempt) != NULL)
        return false;
    if (h->kind == SHARDMILL__LEASE_KIND__SEAL && job->shards[ordinal].open == NULL) return false;
    struct work *work = holding_work(core_shard_open(job, ordinal), h);
    if (work == NULL) return false;
    struct lease *lease = core_lease_new(core, work, worker, h->attempt);
    for (struct lease *l = work->leases, *next; l != NULL;
         l = next) { /* it came back under another routing id */
        next = l->next_of_work;
        if (l != lease && l->attempt == h->attempt) core_lease_drop(core, l);
    }
    return true;
}

/* A late lease that may as well have been lost on its way: it must not use up the worker's places
 * for ever. A result of it is welcome all the same. NULL when all are live. */
static struct lease *oldest_late(const struct worker *worker) {
    struct lease *oldest = NULL;
    for (struct lease *l = worker->leases; l != NULL; l = l->next_of_worker)
        if (l->late && (oldest == NULL || l->attempt < oldest->attempt)) oldest = l;
    return oldest;
}

void core_on_ready(struct sm_core *core, struct worker *worker) {
    if (worker->ready) return;
    if (worker->n_leases >= SM_MAX_WORKER_LEASES) {
        struct lease *late = oldest_late(worker);
        if (late == NULL) return;
        core_lease_drop(core, late);
    }
    worker->ready = true;
    core->n_ready++;
    core->work_added = true;
}

/* An orderly leave: nobody died. */
void core_on_bye(struct sm_core *core, struct worker *worker) {
    while (worker->leases != NULL)
        core_lease_drop(core, worker->leases);
    core_batches_remake(core, worker);
    core_orphans_part(core, worker);
    core_worker_free(core, worker);
}

/* Heartbeats that are due, and workers that have been silent for too long. */
void core_workers_tick(struct sm_core *core) {
    for (struct worker *w = core->workers, *next; w != NULL; w = next) {
        next = w->next;
        if (core->now - w->heard > (int64_t)w->heartbeat_ms * SM_LIVENESS) {
            core_worker_dies(core, w);
            continue;
        }
        if (w->beat > core->now) continue;
        w->beat = core->now + w->heartbeat_ms;
        BODY(core, m, Shardmill__Heartbeat, shardmill__heartbeat__init);
        core_send(core, &w->peer, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, m);
    }
}
