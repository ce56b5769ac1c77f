/* The life of a lease: given to a ready worker, renewed by its progress, late when there is none,
 * dropped when the work is done or its worker dies. Also what deaths lead to (a split, then a
 * quarantine) and second copies of slow leases. */
#include "broker/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void range_split(struct sm_core *core, struct work *range);
static void single_quarantine(struct sm_core *core, struct work *range);
static uint64_t attempt_last(const struct sm_core *core);
static bool worker_serve(struct sm_core *core, struct worker *worker);
static struct work *straggler_find(struct sm_core *core, struct job *job,
                                   const struct worker *worker);
static void lease_send(struct sm_core *core, const struct lease *lease);

struct lease *core_lease_new(struct sm_core *core, struct work *work, struct worker *worker,
                             uint64_t attempt) {
    struct lease *l = core_calloc(1, sizeof *l);
    *l = (struct lease){.attempt = attempt,
                        .work = work,
                        .worker = worker,
                        .started = core->now,
                        .renewed = core->now,
                        .deadline = core->now + core->options.lease_ms,
                        .position = work->first,
                        .next_of_work = work->leases,
                        .next_of_worker = worker->leases};
    work->leases = worker->leases = l;
    worker->n_leases++;
    if (work->kind == SHARDMILL__LEASE_KIND__STEP)
        core_room_take(worker, core_step_bytes(work->job));
    work->job->n_leases++;
    core_work_unwait(work);
    work->state = WORK_LEASED;
    return l;
}

struct lease *core_lease_find(struct worker *worker, uint64_t attempt) {
    for (struct lease *l = worker->leases; l != NULL; l = l->next_of_worker)
        if (l->attempt == attempt) return l;
    return NULL;
}

bool core_work_live(const struct work *work) {
    for (const struct lease *l = work->leases; l != NULL; l = l->next_of_work)
        if (!l->late) return true;
    return false;
}

static void lease_free(struct lease *lease) {
    struct lease **p = &lease->work->leases;
    while (*p != lease)
        p = &(*p)->next_of_work;
    *p = lease->next_of_work;
    p = &lease->worker->leases;
    while (*p != lease)
        p = &(*p)->next_of_worker;
    *p = lease->next_of_worker;
    lease->worker->n_leases--;
    if (lease->work->kind == SHARDMILL__LEASE_KIND__STEP)
        core_room_give(lease->worker, core_step_bytes(lease->work->job));
    if (!lease->late) lease->work->job->n_leases--;
    free(lease);
}

/* The work goes back unless somebody else is at it. */
void core_lease_drop(struct sm_core *core, struct lease *lease) {
    struct work *work = lease->work;
    lease_free(lease);
    if (work->state != WORK_LEASED || core_work_live(work)) return;
    core_work_wait(work, true);
    core->work_added = true;
}

/* Ends all leases of some work, which is done, split or stopped; their workers are told, except the
 * one that knows. The work is left LEASED or WAITING as it was: the caller decides what becomes of
 * it. */
void core_leases_revoke(struct sm_core *core, struct work *work, const struct worker *except) {
    while (work->leases != NULL) {
        struct lease *l = work->leases;
        if (l->worker != except) {
            BODY(core, m, Shardmill__Revoke, shardmill__revoke__init);
            m->job = core_text(core, "%s", work->job->id);
            m->attempt = l->attempt;
            core_send(core, &l->worker->peer, SHARDMILL__ENVELOPE__BODY_REVOKE, m);
            l->worker->excused = true;
        }
        lease_free(l);
    }
}

/* Its worker died. charged: while it was at this very work, as far as one can know. */
void core_lease_died(struct sm_core *core, struct lease *lease, bool charged) {
    struct work *work = lease->work;
    uint64_t position = lease->position;
    bool begun = lease->begun;
    work->job->leases_lost++;
    work->deaths += charged;
    if (PLANTED(death_forgotten)) {
        lease_free(lease); /* and the work is nobody's */
        return;
    }
    core_lease_drop(core, lease);
    if (work->kind == SHARDMILL__LEASE_KIND__SEAL || !charged) return;
    if (work->kind == SHARDMILL__LEASE_KIND__STEP) {
        if (begun) core_step_charge(core, work, position);
        return;
    }
    if (work->count > 1 && work->deaths >= SM_RANGE_DEATHS)
        range_split(core, work);
    else if (work->count == 1 && work->deaths >= SM_SINGLE_DEATHS)
        single_quarantine(core, work);
}

/* Progress came: the lease is live again, even if it had been late. */
void core_lease_renew(struct sm_core *core, struct lease *lease) {
    lease->renewed = core->now;
    lease->deadline = core->now + core->options.lease_ms;
    if (!lease->late) return;
    lease->late = false;
    lease->work->job->n_leases++;
    core_work_unwait(lease->work);
    lease->work->state = WORK_LEASED;
}

/* Leases without progress: their work is given to somebody else as well. */
void core_leases_expire(struct sm_core *core) {
    if (PLANTED(no_lease_expiry)) return;
    for (struct worker *w = core->workers; w != NULL; w = w->next) {
        for (struct lease *l = w->leases; l != NULL; l = l->next_of_worker) {
            if (l->late || l->deadline > core->now) continue;
            struct job *job = l->work->job;
            l->late = true;
            job->n_leases--;
            job->leases_lost++;
            if (core_work_live(l->work)) continue;
            core_work_wait(l->work, true);
            core->work_added = true;
        }
    }
}

/* Two workers died over this range: its samples go out one by one, so that the guilty one is known
 * by its own. */
static void range_split(struct sm_core *core, struct work *range) {
    struct open_shard *open = range->open;
    uint64_t first = range->first;
    uint32_t count = range->count;
    core_leases_revoke(core, range, NULL);
    core_range_remove(range);
    for (uint32_t i = count; i-- > 0;) {
        struct work *single = core_range_insert(open, first + i, 1);
        assert(single != NULL);
        core_work_wait(single, true);
    }
    core->work_added = true;
}

/* A sample that killed three workers by itself. Its next lease skips it; what older attempts still
 * bring is refused. */
static void single_quarantine(struct sm_core *core, struct work *range) {
    struct job *job = range->open->job;
    uint64_t position = range->first;
    size_t i = core_poison_at(job, position);
    if (i < job->n_poisons && job->poisons[i].position == position) {
        core_job_fail(
            core, job, SM_E_WORKER_DIED,
            core_text(core,
                      "workers go on dying at position %llu of shard %llu although its sample is "
                      "skipped (hint: look at the workers' own logs and memory)",
                      (unsigned long long)position, (unsigned long long)range->open->number));
        return;
    }
    core_leases_revoke(core, range, NULL);
    core_persist(core, &(struct sm_record){.kind = SM_RECORD_QUARANTINE,
                                           .job = job->id,
                                           .position = position,
                                           .attempt = attempt_last(core)});
    range->generation = core_generation(job, position, 1);
    range->deaths = 0;
    core_work_unwait(range);
    core_work_wait(range, true);
    core->work_added = true;
}

/* Hands waiting work to ready workers. */
void core_assign(struct sm_core *core) {
    core->work_added = false;
    for (struct worker *w = core->workers; w != NULL && core->n_ready > 0; w = w->next) {
        if (!w->ready) continue;
        if (core->out->arena.used > ACTIONS_SOFT_BYTES) {
            core->work_added = true; /* goes on in the next step */
            return;
        }
        worker_serve(core, w);
    }
}

static uint64_t attempt_last(const struct sm_core *core) {
    return (uint64_t)core->options.incarnation << 32 | core->attempts;
}

bool core_fingerprint_fits(struct sm_core *core, struct job *job, struct worker *worker) {
    if (job->fingerprint == NULL || strcmp(job->fingerprint, worker->fingerprint) == 0 ||
        PLANTED(fingerprint_ignored))
        return true;
    uint8_t bit = (uint8_t)(1u << job->slot % 8);
    if (!(worker->told[job->slot / 8] & bit)) {
        worker->told[job->slot / 8] |= bit;
        core_refuse_of(
            core, &worker->peer, job->id, 0, SM_E_DIFFERS,
            "job '%s' was begun by a worker with '%s', and this one has '%s': the bytes might differ (hint: the "
            "same packages on every host)",
            job->id, job->fingerprint, worker->fingerprint);
    }
    return false;
}

static struct work *expand_next(struct sm_core *core, struct worker *worker) {
    struct work *work = NULL;
    for (struct job *job = core->jobs; job != NULL && work == NULL; job = job->next)
        if (job->n_shards > 0 && job->state == SHARDMILL__JOB_STATE__RUNNING &&
            core_fingerprint_fits(core, job, worker))
            work = core_work_next(core, job);
    return work;
}

/* Trainers and expansions take turns when both have work; what is only slow comes last. */
static struct work *work_pick(struct sm_core *core, struct worker *worker) {
    struct work *work =
        core->expand_first ? expand_next(core, worker) : core_step_next(core, worker);
    if (work == NULL)
        work = core->expand_first ? core_step_next(core, worker) : expand_next(core, worker);
    if (work != NULL) {
        core->expand_first = work->kind == SHARDMILL__LEASE_KIND__STEP;
        return work;
    }
    work = core_step_straggler(core, worker);
    for (struct job *job = core->jobs; job != NULL && work == NULL; job = job->next)
        if (job->state == SHARDMILL__JOB_STATE__RUNNING && core_fingerprint_fits(core, job, worker))
            work = straggler_find(core, job, worker);
    return work;
}

static bool worker_serve(struct sm_core *core, struct worker *worker) {
    struct work *work = work_pick(core, worker);
    if (work == NULL) return false;
    struct job *job = work->job;
    if (job->fingerprint == NULL)
        core_persist(core, &(struct sm_record){.kind = SM_RECORD_FINGERPRINT,
                                               .job = job->id,
                                               .text = worker->fingerprint});
    assert(core->attempts < UINT32_MAX);
    core->attempts++;
    struct lease *lease = core_lease_new(core, work, worker, attempt_last(core));
    worker->ready = false;
    core->n_ready--;
    lease_send(core, lease);
    return true;
}

/* The slowest range that one worker alone is at, once three quarters of the job are made, if it has
 * taken half as long again as is usual. */
static struct work *straggler_find(struct sm_core *core, struct job *job,
                                   const struct worker *worker) {
    if (job->n_shards == 0 || job->made < job->planned / 4 * 3 || job->n_durations == 0)
        return NULL;
    struct work *slowest = NULL;
    int64_t oldest = 0;
    uint32_t usual = core_duration_median(job);
    for (struct open_shard *open = job->opens; open != NULL; open = open->next) {
        for (size_t i = 0; i < open->n; i++) {
            struct work *work = open->ranges[i];
            if (work->state != WORK_LEASED) continue;
            assert(work->leases != NULL);
            if (work->leases->next_of_work != NULL) continue;
            int64_t age = core->now - work->leases->started;
            if (work->leases->worker == worker || age <= oldest) continue;
            if (age * 1000 <= (int64_t)usual * work->count / 2 * 3) continue;
            slowest = work;
            oldest = age;
        }
    }
    return slowest;
}

static void skip_fill(struct sm_core *core, const struct work *work, Shardmill__Lease *m) {
    const struct job *job = work->job;
    size_t from = core_poison_at(job, work->first),
           to = core_poison_at(job, work->first + work->count);
    m->n_skip = to - from;
    m->skip = core_scratch(core, (m->n_skip + 1) * sizeof *m->skip);
    for (size_t i = from; i < to; i++)
        m->skip[i - from] = job->poisons[i].position;
}

static void parts_fill(struct sm_core *core, const struct work *work, Shardmill__Lease *m) {
    const struct open_shard *open = work->open;
    uint64_t next = open->first;
    m->parts = core_scratch(core, open->n * sizeof *m->parts);
    for (size_t i = 0; i < open->n; i++) {
        const struct work *range = open->ranges[i];
        assert((range->state == WORK_DONE && range->first == next) || PLANTED(gap_accepted) ||
               PLANTED(record_replayed_twice));
        if (range->state != WORK_DONE) continue;
        next = range->first + range->count;
        BODY(core, part, Shardmill__Part, shardmill__part__init);
        part->first = range->first;
        part->count = range->count;
        part->generation = range->generation;
        m->parts[m->n_parts++] = part;
    }
    if (m->n_parts == 1) m->sha256 = core_text(core, "%s", open->ranges[0]->sha256);
}

static void step_fill(struct sm_core *core, const struct batch *batch, Shardmill__Lease *m) {
    m->epoch = batch->epoch;
    m->step = batch->step;
    if (batch->work.job->n_poisons > 0) {
        m->skip = core_scratch(core, batch->work.count * sizeof *m->skip);
        m->n_skip = core_step_skip(batch, m->skip);
    }
    m->generation = (uint32_t)m->n_skip;
}

static void lease_send(struct sm_core *core, const struct lease *lease) {
    const struct work *work = lease->work;
    const struct open_shard *open = work->open;
    BODY(core, m, Shardmill__Lease, shardmill__lease__init);
    m->job = core_text(core, "%s", work->job->id);
    m->kind = work->kind;
    m->attempt = lease->attempt;
    m->first = work->first;
    m->count = work->count;
    m->progress_ms = core->options.lease_ms;
    if (open != NULL) {
        m->shard = open->number;
        m->generation = work->generation;
        m->last = work->first + work->count == open->first + open->count;
    }
    if (work->kind == SHARDMILL__LEASE_KIND__STEP)
        step_fill(core, work->batch, m);
    else if (work->kind == SHARDMILL__LEASE_KIND__SEAL)
        parts_fill(core, work, m);
    else
        skip_fill(core, work, m);
    core_send(core, &lease->worker->peer, SHARDMILL__ENVELOPE__BODY_LEASE, m);
}
