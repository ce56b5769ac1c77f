/* What workers bring: progress, parts, sealed shards, failures. Everything here comes from a peer
 * and is checked before it becomes a fact; a fact is journaled before its Ack leaves. */
#include "broker/state.h"

#include <stdlib.h>
#include <string.h>

enum { STEP_BUSY_MS = 100 }; /* a worker without room for a batch is not asked again at once */

static const char *done_wrong(const struct job *job, const Shardmill__Done *m);
static bool range_done(struct sm_core *core, struct worker *worker, struct job *job,
                       uint64_t ordinal, const Shardmill__Done *m);
static bool shard_sealed(struct sm_core *core, struct worker *worker, struct job *job,
                         uint64_t ordinal, const Shardmill__Done *m);
static void shard_remake(struct sm_core *core, struct open_shard *open);

void core_on_progress(struct sm_core *core, struct worker *worker, const Shardmill__Progress *m) {
    struct lease *lease = core_lease_find(worker, m->attempt);
    if (lease == NULL && core_holding_kept(core, worker, m->attempt))
        return; /* overtaken by its Done */
    if (lease == NULL) {
        BODY(core, revoke, Shardmill__Revoke, shardmill__revoke__init);
        revoke->job = core_text(core, "%.*s", SM_MAX_JOB_ID_BYTES, m->job);
        revoke->attempt = m->attempt;
        core_send(core, &worker->peer, SHARDMILL__ENVELOPE__BODY_REVOKE, revoke);
        return;
    }
    /* Saying the same again is no progress: a stuck worker that still talks loses its lease. */
    if (lease->begun && m->done <= lease->done && m->position == lease->position) return;
    lease->begun = true;
    worker->excused = false;
    if (m->done > lease->done)
        lease->done = m->done <= lease->work->count ? m->done : lease->work->count;
    lease->position = m->position;
    core_lease_renew(core, lease);
}

void core_on_done(struct sm_core *core, struct worker *worker, const Shardmill__Done *m) {
    struct job *job = core_job_find(core, m->job);
    uint64_t ordinal = 0;
    bool wanted = false;
    const struct lease *finished = core_lease_find(worker, m->attempt);
    if (finished != NULL && finished->work->kind != SHARDMILL__LEASE_KIND__SEAL)
        worker->made += finished->work->count;
    if (m->kind == SHARDMILL__LEASE_KIND__STEP) {
        core_step_done(core, worker, job, m);
        return;
    }
    if (job != NULL && job->state == SHARDMILL__JOB_STATE__RUNNING) {
        const char *wrong =
            core_job_holds(job, m->shard, &ordinal) ? done_wrong(job, m) : "no shard of this job";
        if (wrong != NULL) {
            core->dropped++;
            core_refuse_of(core, &worker->peer, job->id, m->attempt, SM_E_PROTOCOL,
                           "a result of job '%s' that cannot be: %s", job->id, wrong);
            return;
        }
        if (job->fingerprint == NULL || strcmp(job->fingerprint, worker->fingerprint) != 0) {
            core_refuse_of(core, &worker->peer, job->id, m->attempt, SM_E_DIFFERS,
                           "a result of job '%s' by '%s', and the job has '%s'", job->id,
                           worker->fingerprint,
                           job->fingerprint != NULL ? job->fingerprint : "no fingerprint yet");
            return;
        }
        wanted = m->kind == SHARDMILL__LEASE_KIND__SEAL
                     ? shard_sealed(core, worker, job, ordinal, m)
                     : range_done(core, worker, job, ordinal, m);
    }
    if (!wanted) core->stale++;
    struct lease *lease = core_lease_find(worker, m->attempt);
    if (lease != NULL)
        core_lease_drop(core, lease); /* it says that it is through with it, wanted or not */
    core_ack(core, worker, m->job, m->attempt, wanted);
}

void core_ack(struct sm_core *core, struct worker *worker, const char *job, uint64_t attempt,
              bool wanted) {
    BODY(core, m, Shardmill__Ack, shardmill__ack__init);
    m->job = core_text(core, "%.*s", SM_MAX_JOB_ID_BYTES, job);
    m->attempt = attempt;
    m->wanted = wanted;
    core_send(core, &worker->peer, SHARDMILL__ENVELOPE__BODY_ACK, m);
}

/* Why this message cannot be a result of any lease, or NULL. */
static const char *done_wrong(const struct job *job, const Shardmill__Done *m) {
    if (!sm_is_hex(m->sha256, SM_SHA_HEX - 1)) return "its sha256 is not 64 hex digits";
    if (m->kind == SHARDMILL__LEASE_KIND__SEAL) return NULL;
    if (m->kind != SHARDMILL__LEASE_KIND__RANGE) return "a lease of unknown kind";
    uint64_t first = sm_plan_shard_first(&job->plan, m->shard),
             count = sm_plan_shard_count(&job->plan, m->shard);
    if (m->count == 0 || m->count > job->spec->lease_samples || m->count > count ||
        m->first < first || m->first - first > count - m->count)
        return "positions outside of the shard";
    if (m->n_quarantined > m->count) return "more samples quarantined than made";
    for (size_t i = 0; i < m->n_quarantined; i++) {
        const Shardmill__Quarantined *q = m->quarantined[i];
        if (q->position < m->first || q->position - m->first >= m->count)
            return "a quarantined position outside of the range";
        if (i > 0 && q->position <= m->quarantined[i - 1]->position)
            return "quarantined positions out of order";
        if (q->text[0] == 0) return "a sample quarantined without a reason";
        if (!sm_code_charges_sample((int)q->code))
            return "a sample quarantined for what is not its fault";
    }
    return NULL;
}

/* The worker's list, cleaned, with the positions that the broker itself quarantined. */
static void quarantined_merge(struct sm_core *core, const struct job *job, const Shardmill__Done *m,
                              struct sm_record *r) {
    size_t p = core_poison_at(job, m->first), end = core_poison_at(job, m->first + m->count), i = 0;
    r->quarantined = core_scratch(core, (m->n_quarantined + end - p + 1) * sizeof *r->quarantined);
    while (p < end || i < m->n_quarantined) {
        Shardmill__Quarantined *q = core_scratch(core, sizeof *q);
        shardmill__quarantined__init(q);
        bool ours = p < end && (i == m->n_quarantined ||
                                job->poisons[p].position <= m->quarantined[i]->position);
        const Shardmill__Quarantined *told = NULL;
        if (!ours ||
            (i < m->n_quarantined && m->quarantined[i]->position == job->poisons[p].position))
            told = m->quarantined[i++];
        q->position = ours ? job->poisons[p++].position : told->position;
        q->substitute = told != NULL ? told->substitute : 0;
        q->code = ours ? SM_E_WORKER_DIED : told->code;
        char *stage = core_clean(ours ? "worker" : told->stage, 16);
        char *text = core_clean(ours ? sm_code_doc(SM_E_WORKER_DIED) : told->text,
                                SM_MAX_QUARANTINE_TEXT_BYTES);
        q->stage = core_text(core, "%s", stage);
        q->text = core_text(core, "%s", text);
        free(stage);
        free(text);
        q->sample = sm_plan_at(&job->plan, q->position).sample;
        r->quarantined[r->n_quarantined++] = q;
    }
}

void core_duration_add(struct sm_core *core, struct job *job, const struct lease *lease) {
    int64_t us = (core->now - lease->started) * 1000 / lease->work->count;
    job->durations[job->n_durations++ % DURATIONS] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static int compare_u32(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Median microseconds a sample over the last results; 0 before there is one. */
uint32_t core_duration_median(const struct job *job) {
    uint32_t sorted[DURATIONS], n = job->n_durations < DURATIONS ? job->n_durations : DURATIONS;
    memcpy(sorted, job->durations, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_u32);
    return n > 0 ? sorted[n / 2] : 0;
}

/* Whether everything that is cut within these positions is open and inside them, so that the result
 * can take its place. */
static bool result_fits(const struct open_shard *open, uint64_t first, uint32_t count) {
    for (size_t i = core_range_at(open, first);
         i < open->n && open->ranges[i]->first < first + count; i++) {
        const struct work *r = open->ranges[i];
        if (r->state == WORK_DONE || r->first < first || r->first + r->count > first + count)
            return false;
    }
    return true;
}

static bool two_digests(struct sm_core *core, struct job *job, const char *what, uint64_t n,
                        const char *a, const char *b) {
    if (strcmp(a, b) == 0) return false;
    core_job_fail(
        core, job, SM_E_INTERNAL,
        core_text(
            core,
            "two workers made %s %llu differently (sha256 %.16s and %.16s): the pipeline is not a "
            "pure function of its input (hint: check that both hosts see the same files)",
            what, (unsigned long long)n, a, b));
    return true;
}

static bool range_done(struct sm_core *core, struct worker *worker, struct job *job,
                       uint64_t ordinal, const Shardmill__Done *m) {
    if (job->shards[ordinal].sealed) return false;
    bool old = m->generation != core_generation(job, m->first, m->count) ||
               m->attempt <= core_fence(job, m->first, m->count);
    if (old && !PLANTED(old_attempt_accepted)) return false;
    struct open_shard *open = core_shard_open(job, ordinal);
    size_t i = core_range_at(open, m->first);
    struct work *at = i < open->n ? open->ranges[i] : NULL;
    if (at != NULL && at->state == WORK_DONE && at->first == m->first && at->count == m->count &&
        at->generation == m->generation &&
        two_digests(core, job, "the part at position", m->first, at->sha256, m->sha256))
        return false;
    if (!result_fits(open, m->first, m->count)) return false;
    struct lease *lease = core_lease_find(worker, m->attempt);
    if (lease != NULL && lease->work->count == m->count) core_duration_add(core, job, lease);
    for (i = core_range_at(open, m->first);
         i < open->n && open->ranges[i]->first < m->first + m->count;) {
        core_leases_revoke(core, open->ranges[i], worker);
        core_range_remove(open->ranges[i]);
    }
    struct sm_record r = {.kind = SM_RECORD_DONE,
                          .job = job->id,
                          .shard = m->shard,
                          .first = m->first,
                          .count = m->count,
                          .generation = m->generation,
                          .bytes = m->bytes,
                          .sha256 = m->sha256,
                          .cages = m->cages_replaced};
    quarantined_merge(core, job, m, &r);
    core_persist(core, &r);
    if (open->sealing) core->work_added = true;
    return true;
}

static void complete_check(struct sm_core *core, struct job *job) {
    if (job->sealed < job->n_shards) return;
    core_persist(core, &(struct sm_record){.kind = SM_RECORD_STATE,
                                           .job = job->id,
                                           .state = SHARDMILL__JOB_STATE__COMPLETE});
}

/* Whether the file that was found or made is the join of these parts. A worker that slept through a
 * remake may have joined older parts under the shard's name, and the next one then found the shard
 * there and its own parts gone. */
static bool seal_fits(const struct open_shard *open, const Shardmill__Done *m) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < open->n; i++)
        bytes += open->ranges[i]->bytes;
    return bytes == m->bytes && (open->n != 1 || strcmp(open->ranges[0]->sha256, m->sha256) == 0);
}

static void seal_stale(struct sm_core *core, struct shard *shard, struct open_shard *open) {
    if (++shard->stale <= SM_RETRIES) {
        shard_remake(core, open);
        return;
    }
    core_job_fail(
        core, open->job, SM_E_INTERNAL,
        core_text(
            core,
            "shard %llu is not as long as its parts, again and again (hint: does something else write "
            "into the folder?)",
            (unsigned long long)open->number));
}

static bool shard_sealed(struct sm_core *core, struct worker *worker, struct job *job,
                         uint64_t ordinal, const Shardmill__Done *m) {
    struct shard *shard = &job->shards[ordinal];
    if (shard->sealed) return false; /* its digest is in the manifest, where the reader checks it */
    struct open_shard *open = shard->open;
    if (open == NULL || !open->sealing) return false;
    if (!seal_fits(open, m) && !PLANTED(gap_accepted) && !PLANTED(record_replayed_twice)) {
        struct lease *lease = core_lease_find(worker, m->attempt);
        if (lease != NULL && lease->work == &open->seal) seal_stale(core, shard, open);
        return false;
    }
    core_leases_revoke(core, &open->seal, worker);
    for (size_t i = 0; PLANTED(gap_accepted) && i < open->n; i++)
        core_leases_revoke(core, open->ranges[i], worker);
    struct sm_record r = {.kind = SM_RECORD_SEALED,
                          .job = job->id,
                          .shard = m->shard,
                          .bytes = m->bytes,
                          .sha256 = m->sha256};
    size_t n = 0;
    for (size_t i = 0; i < open->n; i++)
        n += open->ranges[i]->quarantined.n;
    r.quarantined = core_scratch(core, (n + 1) * sizeof *r.quarantined);
    for (size_t i = 0; i < open->n; i++)
        for (size_t k = 0; k < open->ranges[i]->quarantined.n; k++)
            r.quarantined[r.n_quarantined++] = open->ranges[i]->quarantined.items[k];
    core_persist(core, &r);
    complete_check(core, job);
    return true;
}

/* A part of the shard is not there although its DONE is journaled: somebody removed it. All is made
 * again. */
static void shard_remake(struct sm_core *core, struct open_shard *open) {
    struct job *job = open->job;
    core_leases_revoke(core, &open->seal, NULL);
    core_persist(
        core, &(struct sm_record){.kind = SM_RECORD_REMAKE, .job = job->id, .shard = open->number});
    core->work_added = true;
}

void core_work_retry(struct sm_core *core, struct lease *lease, uint32_t code, const char *text) {
    struct work *work = lease->work;
    struct job *job = work->job;
    if (++work->failures > SM_RETRIES) {
        core_job_fail(core, job, code, text);
        return;
    }
    free(work->failure);
    work->failure = core_strdup(text);
    work->not_before = core->now + ((int64_t)SM_RETRY_MS << (work->failures - 1));
    core_lease_drop(core, lease);
    if (PLANTED(retry_lost)) core_work_unwait(work);
}

void core_on_fail(struct sm_core *core, struct worker *worker, const Shardmill__Fail *m) {
    struct lease *lease = core_lease_find(worker, m->attempt);
    core_ack(core, worker, m->job, m->attempt, lease != NULL);
    if (lease == NULL) {
        core->stale++;
        return;
    }
    struct work *work = lease->work;
    work->deaths += PLANTED(failure_charged);
    char *text =
        core_clean(m->text[0] != 0 ? m->text : sm_code_doc((int)m->code), SM_MAX_TEXT_BYTES);
    switch (m->code) {
    case SM_E_BUSY:
    case SM_E_CANCELLED:
        if (work->kind == SHARDMILL__LEASE_KIND__STEP) work->not_before = core->now + STEP_BUSY_MS;
        core_lease_drop(core, lease);
        break; /* no room, or it is leaving: nothing failed */
    case SM_E_MEMORY:
    case SM_E_INTERNAL:
    case SM_E_PEER:
    case SM_E_CAGE_DIED: /* of a whole lease: its cage did not come up, for example because it was
                            killed */
    case SM_E_SANDBOX:
        core_work_retry(core, lease, m->code, text);
        break;
    case SM_E_PART_MISSING:
        if (work->kind != SHARDMILL__LEASE_KIND__SEAL)
            core_work_retry(core, lease, SM_E_INTERNAL, text);
        else if (PLANTED(part_missing_ignored))
            core_lease_drop(core, lease);
        else
            shard_remake(core, work->open);
        break;
    default:
        core_job_fail(core, work->job,
                      m->code < SM_E_COUNT && m->code != SM_E_OK ? m->code : SM_E_INTERNAL, text);
    }
    free(text);
}
