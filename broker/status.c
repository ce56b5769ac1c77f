/* What clients ask: how a job stands and what it waits for, its sealed shards in pages, everything
 * at a glance. Reads the state and changes nothing. */
#include "broker/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    STATUS_BYTES = 768 << 10,  /* of one Status; a fleet beyond it is shown in part */
    RESULTS_BYTES = 256 << 10, /* of one page */
#ifdef SM_SIM
    RESULTS_SHARDS = 2, /* so that small jobs have pages too */
#else
    RESULTS_SHARDS = 1000,
#endif
};

static int compare_ranks(const void *a, const void *b) {
    uint32_t x = (*(Shardmill__SessionStatus *const *)a)->rank,
             y = (*(Shardmill__SessionStatus *const *)b)->rank;
    return x < y ? -1 : x > y;
}

static Shardmill__SessionStatus *session_status(struct sm_core *core, const struct session *s) {
    BODY(core, m, Shardmill__SessionStatus, shardmill__session_status__init);
    m->rank = s->rank;
    m->world_size = s->world_size;
    m->epoch = s->head != NULL ? s->head->epoch : s->cut_epoch;
    m->step = s->head != NULL ? s->head->step : s->cut_step;
    m->position = s->done_epoch == m->epoch ? s->done_position : 0;
    for (const struct batch *b = s->head; b != NULL; b = b->next) {
        m->made += b->work.state == WORK_DONE;
        m->in_work += b->work.state == WORK_LEASED;
    }
    m->window = core_window(core, s);
    m->credit_bytes = s->credit;
    m->committed_epoch = s->committed_epoch;
    m->committed_position = s->committed_position;
    m->delivered = s->delivered;
    m->silent_ms = (uint64_t)(core->now - s->heard);
    m->host = core_text(core, "%s", s->host);
    bool long_ago = core->now - s->moved >= SM_WAITS_MS;
    m->waits_for = long_ago ? core_waits_session(core, s) : core_text(core, "%s", "");
    return m;
}

static void sessions_fill(struct sm_core *core, const struct job *job, Shardmill__JobStatus *m) {
    size_t n = 0;
    for (const struct session *s = job->sessions; s != NULL; s = s->next_of_job)
        n++;
    m->sessions = core_scratch(core, (n + 1) * sizeof *m->sessions);
    for (const struct session *s = job->sessions; s != NULL; s = s->next_of_job)
        m->sessions[m->n_sessions++] = session_status(core, s);
    qsort(m->sessions, n, sizeof *m->sessions, compare_ranks);
}

static Shardmill__JobStatus *job_status(struct sm_core *core, const struct job *job) {
    BODY(core, m, Shardmill__JobStatus, shardmill__job_status__init);
    m->job = core_text(core, "%s", job->id);
    m->state = job->state;
    m->planned = job->planned;
    m->made = job->made;
    m->quarantined = job->quarantined;
    m->shards = job->n_shards;
    m->sealed = job->sealed;
    m->leases_lost = job->leases_lost;
    m->cages_replaced = job->cages;
    m->code = job->code;
    m->text = core_text(core, "%s", job->text);
    m->fingerprint = core_text(core, "%s", job->fingerprint != NULL ? job->fingerprint : "");
    m->name = core_text(core, "%.*s", SM_MAX_NAME_BYTES, job->spec->name);
    for (const struct worker *w = core->workers; w != NULL; w = w->next) {
        bool holds = false;
        for (const struct lease *l = w->leases; l != NULL; l = l->next_of_worker) {
            if (l->work->job != job || l->late) continue;
            holds = true;
            if (l->work->kind != SHARDMILL__LEASE_KIND__SEAL) m->in_work += l->done;
        }
        m->workers += holds;
    }
    m->waits_for = core_waits_job(core, job);
    m->kind = job->spec->kind;
    sessions_fill(core, job, m);
    return m;
}

void core_on_job_status_get(struct sm_core *core, const struct sm_peer *peer,
                            const Shardmill__JobStatusGet *m) {
    struct job *job = core_job_asked(core, peer, m->job);
    if (job != NULL)
        core_send(core, peer, SHARDMILL__ENVELOPE__BODY_JOB_STATUS, job_status(core, job));
}

static size_t quarantined_bytes(const Shardmill__Quarantined *q) {
    return 48 + strlen(q->stage) + strlen(q->text);
}

void core_on_results_get(struct sm_core *core, const struct sm_peer *peer,
                         const Shardmill__ResultsGet *m) {
    struct job *job = core_job_asked(core, peer, m->job);
    if (job == NULL) return;
    BODY(core, page, Shardmill__Results, shardmill__results__init);
    page->job = core_text(core, "%s", job->id);
    page->shards = core_scratch(core, RESULTS_SHARDS * sizeof *page->shards);
    uint64_t i = m->shard <= job->spec->slice
                     ? 0
                     : (m->shard - job->spec->slice + job->spec->slices - 1) / job->spec->slices;
    uint64_t from = m->position;
    size_t bytes = 0;
    for (; i < job->n_shards && page->n_shards < RESULTS_SHARDS && bytes < RESULTS_BYTES;
         i++, from = 0) {
        const struct shard *shard = &job->shards[i];
        if (!shard->sealed) continue;
        BODY(core, r, Shardmill__ShardRecord, shardmill__shard_record__init);
        r->shard = job->spec->slice + i * job->spec->slices;
        r->samples = sm_plan_shard_count(&job->plan, r->shard);
        r->bytes = shard->bytes;
        r->sha256 = core_scratch(core, SM_SHA_HEX);
        core_shard_sha(shard, r->sha256);
        bytes += 128;
        page->shards[page->n_shards++] = r;
        r->quarantined = core_scratch(core, (shard->quarantined.n + 1) * sizeof *r->quarantined);
        for (size_t k = 0; k < shard->quarantined.n && page->next_position == 0; k++) {
            const Shardmill__Quarantined *q = shard->quarantined.items[k];
            if (q->position < from) continue;
            if (bytes >= RESULTS_BYTES && r->n_quarantined > 0) {
                page->next_position = q->position; /* never 0: one before it has been given */
                break;
            }
            BODY(core, copy, Shardmill__Quarantined, shardmill__quarantined__init);
            *copy = *q;
            copy->stage = core_text(core, "%s", q->stage);
            copy->text = core_text(core, "%s", q->text);
            r->quarantined[r->n_quarantined++] = copy;
            bytes += quarantined_bytes(q);
        }
        if (page->next_position != 0) break;
    }
    page->next = job->spec->slice + i * job->spec->slices;
    page->end = i == job->n_shards;
    core_send(core, peer, SHARDMILL__ENVELOPE__BODY_RESULTS, page);
}

static Shardmill__WorkerStatus *worker_status(struct sm_core *core, const struct worker *w) {
    BODY(core, m, Shardmill__WorkerStatus, shardmill__worker_status__init);
    m->name = core_text(core, "%s", w->name);
    m->fingerprint = core_text(core, "%s", w->fingerprint);
    m->made = w->made;
    m->silent_ms = (uint64_t)(core->now - w->heard);
    if (w->leases != NULL) {
        m->job = core_text(core, "%s", w->leases->work->job->id);
        m->first = w->leases->work->first;
        m->count = w->leases->work->count;
        m->done = w->leases->done;
    }
    return m;
}

void core_on_status_get(struct sm_core *core, const struct sm_peer *peer) {
    BODY(core, m, Shardmill__Status, shardmill__status__init);
    m->up_ms = (uint64_t)(core->now - core->started);
    m->incarnation = core->options.incarnation;
    m->dropped = core->dropped;
    m->stale = core->stale;
    m->refused = core->refused;
    m->state_dir =
        core_text(core, "%s", core->options.state_dir != NULL ? core->options.state_dir : "");
    m->jobs = core_scratch(core, (core->n_jobs + 1) * sizeof *m->jobs);
    m->workers = core_scratch(core, (core->n_workers + 1) * sizeof *m->workers);
    size_t bytes = 0;
    for (const struct job *job = core->jobs; job != NULL && bytes < STATUS_BYTES; job = job->next) {
        Shardmill__JobStatus *s = job_status(core, job);
        bytes += shardmill__job_status__get_packed_size(s) + 8;
        m->jobs[m->n_jobs++] = s;
    }
    for (const struct worker *w = core->workers; w != NULL && bytes < STATUS_BYTES; w = w->next) {
        Shardmill__WorkerStatus *s = worker_status(core, w);
        bytes += shardmill__worker_status__get_packed_size(s) + 8;
        m->workers[m->n_workers++] = s;
    }
    core_send(core, peer, SHARDMILL__ENVELOPE__BODY_STATUS, m);
}
