/* Batches for trainers: cut step by step within a session's credit, leased like any work, kept by
 * the worker that made them until the trainer releases them, made again when their worker dies or
 * they cannot be had. Nothing of it is journaled: a batch is a pure function of its step. Before
 * it: sessions.c and leases.c. */
#include "broker/state.h"

#include "lib/batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    AVOID_MS = 2000 /* another worker is preferred for so long after a batch could not be had */
};

static void cursor_settle(struct sm_core *core, struct session *s);

/* What a batch takes of a worker's memory. */
uint64_t core_step_bytes(const struct job *job) {
    return (job->spec->batch_bytes + 63) / 64 * 64;
}

/* How many batches of a session may be out: its credit, but no more than its share of what the
 * workers can hold, one batch of each worker left free for the step that a trainer needs next. At
 * least one. */
unsigned core_window(const struct sm_core *core, const struct session *s) {
    uint64_t bytes = core_step_bytes(s->job), window = s->credit / s->job->spec->batch_bytes;
    uint64_t all = core->batch_memory / bytes, kept = core->n_workers;
    if (all > kept * SM_BATCH_SLOTS) all = kept * SM_BATCH_SLOTS;
    uint64_t share = (all > kept ? all - kept : 0) / (core->n_sessions > 0 ? core->n_sessions : 1);
    if (window > share) window = share;
    if (window > WINDOW_MAX) window = WINDOW_MAX;
    return window > 0 ? (unsigned)window : 1;
}

/* Only a session's oldest step may take the last room, so that what a trainer needs next is never
 * kept from it by what it needs later. */
static bool memory_fits(const struct worker *w, uint64_t bytes, bool urgent) {
    uint64_t left = w->batch_memory > w->batch_used ? w->batch_memory - w->batch_used : 0;
    unsigned slots = w->slots_used < SM_BATCH_SLOTS ? SM_BATCH_SLOTS - w->slots_used : 0;
    return left / bytes >= (urgent ? 1 : 2) && slots >= (urgent ? 1 : 2);
}

void core_room_take(struct worker *w, uint64_t bytes) {
    w->batch_used += bytes;
    w->slots_used++;
}

void core_room_give(struct worker *w, uint64_t bytes) {
    assert(w->batch_used >= bytes && w->slots_used > 0);
    w->batch_used -= bytes;
    w->slots_used--;
}

/* --- cutting ---------------------------------------------------------------------------------- */

static bool cursor_ended(const struct session *s) {
    uint32_t epochs = s->job->spec->epochs;
    return epochs != 0 && s->cut_epoch >= epochs;
}

static void epoch_enter(struct session *s) {
    struct sm_steps steps = core_steps(s, s->cut_epoch);
    s->cut_step = 0;
    s->cut_steps = sm_steps_count(&steps);
    struct audit *a = core_calloc(1, sizeof *a), **tail = &s->audits;
    a->epoch = s->cut_epoch;
    a->steps = s->cut_steps;
    a->planned = sm_steps_planned(&steps, s->rank);
    a->dropped = sm_steps_dropped(&steps, s->rank);
    while (*tail != NULL)
        tail = &(*tail)->next;
    *tail = a;
}

void core_cursor_begin(struct sm_core *core, struct session *s) {
    if (cursor_ended(s)) return;
    epoch_enter(s);
    cursor_settle(core, s);
}

static bool finished(const struct session *s) {
    return cursor_ended(s) && s->head == NULL;
}

/* All ranks have released everything: the job has nothing more to do, until somebody goes back. */
static void complete_check(struct sm_core *core, struct job *job) {
    uint32_t n = 0;
    for (const struct session *s = job->sessions; s != NULL; s = s->next_of_job) {
        if (!finished(s)) return;
        n++;
    }
    if (n < job->run.world_size || job->state != SHARDMILL__JOB_STATE__RUNNING) return;
    core_persist(core, &(struct sm_record){.kind = SM_RECORD_STATE,
                                           .job = job->id,
                                           .state = SHARDMILL__JOB_STATE__COMPLETE});
}

static void epoch_done_check(struct sm_core *core, struct session *s, struct audit *a) {
    if (a->released < a->steps) return;
    core_epoch_end_say(core, s, a);
    complete_check(core, s->job);
}

/* Leaves the cursor at a step that is there, or behind the last epoch. An epoch that drop_last
 * leaves without a step ends at once. */
static void cursor_settle(struct sm_core *core, struct session *s) {
    while (!cursor_ended(s) && s->cut_step == s->cut_steps) {
        bool empty = s->cut_steps == 0;
        s->cut_epoch++;
        s->cut_step = s->cut_steps = 0;
        if (!cursor_ended(s)) epoch_enter(s);
        if (!empty) continue;
        s->done_epoch = s->cut_epoch;
        s->done_position = 0;
        struct audit *a = s->audits;
        while (a->epoch + 1 != s->cut_epoch)
            a = a->next;
        epoch_done_check(core, s, a);
    }
}

static struct batch *batch_cut(struct sm_core *core, struct session *s) {
    struct sm_steps steps = core_steps(s, s->cut_epoch);
    struct sm_step step = sm_steps_at(&steps, s->rank, s->cut_step);
    struct batch *b = core_calloc(1, sizeof *b);
    b->work = (struct work){.kind = SHARDMILL__LEASE_KIND__STEP,
                            .job = s->job,
                            .batch = b,
                            .first = step.first,
                            .count = step.count};
    b->session = s;
    b->epoch = s->cut_epoch;
    b->step = s->cut_step;
    b->position = step.position;
    b->padding = step.padding;
    b->prev = s->tail;
    *(s->tail != NULL ? &s->tail->next : &s->head) = b;
    s->tail = b;
    s->n_open++;
    core_work_wait(&b->work, false);
    s->cut_step++;
    if (PLANTED(step_skipped) && s->cut_step % 5 == 4 && s->cut_step + 1 < s->cut_steps)
        s->cut_step++;
    cursor_settle(core, s);
    return b;
}

static bool earlier(const struct batch *a, const struct batch *b) {
    return a->epoch != b->epoch ? a->epoch < b->epoch : a->step < b->step;
}

/* Into the session's waiting work, oldest step first. */
void core_step_wait(struct work *work) {
    struct work_list *list = &work->batch->session->waiting;
    struct work *at = list->head;
    while (at != NULL && earlier(at->batch, work->batch))
        at = at->next;
    work->next = at;
    work->prev = at != NULL ? at->prev : list->tail;
    *(work->prev != NULL ? &work->prev->next : &list->head) = work;
    *(at != NULL ? &at->prev : &list->tail) = work;
}

static struct work *session_next(struct sm_core *core, struct session *s, struct worker *w) {
    uint64_t bytes = core_step_bytes(s->job);
    for (struct work *work = s->waiting.head; work != NULL; work = work->next) {
        struct batch *b = work->batch;
        bool avoided = b->avoid == w && b->avoid_until > core->now && core->n_workers > 1;
        if (work->not_before > core->now || avoided) continue;
        if (memory_fits(w, bytes, b == s->head)) return work;
        return NULL;
    }
    if (cursor_ended(s) || s->n_open >= core_window(core, s) ||
        !memory_fits(w, bytes, s->head == NULL))
        return NULL;
    struct batch *b = batch_cut(core, s);
    return b->work.prev == NULL ? &b->work
                                : NULL; /* an older one that waits a moment stays first */
}

static bool session_served(struct sm_core *core, const struct session *s, struct worker *w) {
    return s->job->state == SHARDMILL__JOB_STATE__RUNNING && core_fingerprint_fits(core, s->job, w);
}

/* Sessions take turns: who was served goes to the end. */
struct work *core_step_next(struct sm_core *core, struct worker *worker) {
    for (struct session *s = core->sessions; s != NULL; s = s->next) {
        if (!session_served(core, s, worker)) continue;
        struct work *work = session_next(core, s, worker);
        if (work == NULL) continue;
        if (s->next != NULL) {
            *(s->prev != NULL ? &s->prev->next : &core->sessions) = s->next;
            s->next->prev = s->prev;
            s->prev = core->sessions_tail;
            s->next = NULL;
            core->sessions_tail->next = s;
            core->sessions_tail = s;
        }
        return work;
    }
    return NULL;
}

/* The oldest step that is not made, if one worker alone is at it and has taken half as long again
 * as is usual. */
struct work *core_step_straggler(struct sm_core *core, struct worker *worker) {
    for (struct session *s = core->sessions; s != NULL; s = s->next) {
        struct batch *b = s->head;
        while (b != NULL && b->work.state == WORK_DONE)
            b = b->next;
        if (b == NULL || b->work.state != WORK_LEASED || !session_served(core, s, worker)) continue;
        const struct lease *l = b->work.leases;
        uint32_t usual = core_duration_median(s->job);
        if (l == NULL || l->next_of_work != NULL || l->worker == worker || usual == 0) continue;
        if ((core->now - l->started) * 1000 <= (int64_t)usual * b->work.count / 2 * 3) continue;
        if (memory_fits(worker, core_step_bytes(s->job), b == s->head)) return &b->work;
    }
    return NULL;
}

/* --- samples that are skipped ----------------------------------------------------------------- */

static uint64_t sample_at(const struct job *job, uint32_t epoch, uint64_t index) {
    struct sm_plan plan = job->plan;
    plan.epoch = epoch;
    return sm_plan_at(&plan, index % job->spec->samples).sample;
}

static bool poisoned(const struct job *job, uint64_t sample) {
    size_t i = core_poison_at(job, sample); /* a stream's poisons are samples, not positions */
    return i < job->n_poisons && job->poisons[i].position == sample;
}

/* How many indices of the batch are to be skipped; fills them (NULL: only counts). */
size_t core_step_skip(const struct batch *batch, uint64_t *fills) {
    const struct job *job = batch->work.job;
    size_t n = 0;
    for (uint32_t i = 0; job->n_poisons > 0 && i < batch->work.count; i++) {
        uint64_t index = batch->work.first + i;
        if (!poisoned(job, sample_at(job, batch->epoch, index))) continue;
        if (fills != NULL) fills[n] = index;
        n++;
    }
    return n;
}

static struct suspect *suspect_of(struct job *job, uint64_t sample) {
    for (unsigned i = 0; i < job->n_suspects; i++)
        if (job->suspects[i].sample == sample) return &job->suspects[i];
    if (job->n_suspects == SUSPECTS)
        memmove(job->suspects, job->suspects + 1, --job->n_suspects * sizeof *job->suspects);
    job->suspects[job->n_suspects] = (struct suspect){.sample = sample};
    return &job->suspects[job->n_suspects++];
}

/* A worker died while it was at this index. The third death over a sample puts it on the list of
 * those that are skipped, in every epoch. */
void core_step_charge(struct sm_core *core, struct work *work, uint64_t index) {
    struct job *job = work->job;
    if (index < work->first || index - work->first >= work->count) return;
    uint64_t sample = sample_at(job, work->batch->epoch, index);
    struct suspect *suspect = suspect_of(job, sample);
    bool skipped = poisoned(job, sample);
    if (PLANTED(charged_twice)) suspect->deaths++;
    if (++suspect->deaths < (skipped ? SM_SKIPPED_DEATHS : SM_SINGLE_DEATHS)) return;
    *suspect = job->suspects[--job->n_suspects];
    if (skipped) {
        core_job_fail(
            core, job, SM_E_WORKER_DIED,
            core_text(core,
                      "workers go on dying at sample %llu although it is skipped (hint: look "
                      "at the workers' own logs and memory)",
                      (unsigned long long)sample));
        return;
    }
    core_persist(
        core, &(struct sm_record){
                  .kind = SM_RECORD_QUARANTINE, .job = job->id, .position = sample, .attempt = 0});
}

/* A batch is made: none of its samples is under suspicion any more. */
static void suspects_clear(const struct batch *b) {
    struct job *job = b->work.job;
    for (uint32_t i = 0; job->n_suspects > 0 && i < b->work.count; i++) {
        uint64_t sample = sample_at(job, b->epoch, b->work.first + i);
        for (unsigned k = 0; k < job->n_suspects; k++)
            if (job->suspects[k].sample == sample)
                job->suspects[k] = job->suspects[--job->n_suspects];
    }
}

/* --- what workers bring ----------------------------------------------------------------------- */

static const char *batch_wrong(const struct worker *worker, const struct work *work,
                               const Shardmill__Done *m) {
    if (m->first != work->first || m->count != work->count) return "another step's positions";
    if (!sm_is_hex(m->digest, SM_XXH_HEX - 1)) return "its digest is not 32 hex digits";
    if (m->bytes == 0 || m->bytes > work->job->spec->batch_bytes)
        return "another size than a batch of this job has";
    if (m->offset % 64 != 0 || m->offset > worker->batch_memory ||
        m->bytes > worker->batch_memory - m->offset)
        return "a place outside of the worker's batch memory";
    return m->n_quarantined > m->count ? "more samples quarantined than made" : NULL;
}

void core_batch_hold(struct batch *b, struct worker *worker) {
    b->holder = worker;
    b->prev_held = NULL;
    b->next_held = worker->held;
    if (worker->held != NULL) worker->held->prev_held = b;
    worker->held = b;
    core_room_take(worker, core_step_bytes(b->work.job));
}

static uint32_t substituted(const struct batch *b, const Shardmill__Done *m) {
    uint64_t real = b->work.count - b->padding;
    uint32_t n = 0;
    for (size_t i = 0; i < m->n_quarantined; i++) {
        uint64_t p = m->quarantined[i]->position;
        n += p >= b->work.first && p - b->work.first < real;
    }
    return n;
}

/* A trainer takes its batches in order, so it hears of them in order: of this one when it has heard
 * of all before it, and then of those behind it that had to wait (or that it may have dropped,
 * because this one was lost). */
static void batches_say(struct sm_core *core, struct batch *made) {
    for (const struct batch *b = made->prev; b != NULL; b = b->prev)
        if (!b->told) return;
    bool again = made->told;
    for (struct batch *b = made; b != NULL; b = b->next) {
        if (b->work.state == WORK_DONE && (again || !b->told)) core_batch_say(core, b);
        if (!b->told) return;
    }
}

/* A step that was made before, by another worker or for another holder, has the same bytes now. */
static bool two_digests(struct sm_core *core, const struct batch *b, const Shardmill__Done *m) {
    if (b->digest[0] == 0 || m->digest[0] == 0 || b->generation != m->generation ||
        strcmp(b->digest, m->digest) == 0)
        return false;
    core_job_fail(
        core, b->work.job, SM_E_INTERNAL,
        core_text(core,
                  "epoch %u, step %llu of rank %u was made twice, differently (digests %.16s and "
                  "%.16s): the pipeline is not a pure function of its input (hint: check that all "
                  "hosts see the same files)",
                  b->epoch, (unsigned long long)b->step, b->session->rank, b->digest, m->digest));
    return true;
}

/* The batch of which this attempt made the second copy, too late. */
static struct batch *rival_find(const struct job *job, uint64_t attempt) {
    for (const struct session *s = job->sessions; s != NULL; s = s->next_of_job)
        for (struct batch *b = s->head; b != NULL; b = b->next)
            if (b->rival == attempt) return b;
    return NULL;
}

static bool batch_done(struct sm_core *core, struct worker *worker, struct lease *lease,
                       const Shardmill__Done *m) {
    struct work *work = lease->work;
    struct batch *b = work->batch;
    if (m->generation != core_step_skip(b, NULL)) return false; /* made before a quarantine */
    if (two_digests(core, b, m)) return false;
    core_duration_add(core, work->job, lease);
    suspects_clear(b);
    for (const struct lease *l = work->leases; l != NULL; l = l->next_of_work)
        if (l != lease) b->rival = l->attempt;
    core_leases_revoke(core, work, worker);
    core_work_unwait(work); /* a late lease brought it after all */
    work->state = WORK_DONE;
    work->failures = 0;
    b->attempt = m->attempt;
    b->offset = m->offset;
    b->bytes = m->bytes;
    b->generation = m->generation;
    memcpy(b->digest, m->digest, sizeof b->digest);
    b->substituted = substituted(b, m);
    core_batch_hold(b, worker);
    b->work.job->cages += m->cages_replaced;
    b->session->moved = core->now;
    core->work_added = true;
    batches_say(core, b);
    return true;
}

void core_step_done(struct sm_core *core, struct worker *worker, struct job *job,
                    const Shardmill__Done *m) {
    struct lease *lease = core_lease_find(worker, m->attempt);
    bool wanted = core_held_find(worker, m->attempt) != NULL ||
                  core_orphan_find(core, worker, m->attempt) != NULL;
    if (lease != NULL && lease->work->kind == SHARDMILL__LEASE_KIND__STEP &&
        lease->work->job == job) {
        const char *wrong = batch_wrong(worker, lease->work, m);
        if (wrong != NULL) {
            char *text = core_text(core, "worker '%s' brought a batch that cannot be: %s",
                                   worker->name, wrong);
            core->dropped++;
            core_refuse_of(core, &worker->peer, job->id, m->attempt, SM_E_PROTOCOL, "%s", text);
            core_work_retry(core, lease, SM_E_PROTOCOL, text);
            return;
        }
        wanted = batch_done(core, worker, lease, m);
        lease = core_lease_find(worker, m->attempt);
        if (lease != NULL) core_lease_drop(core, lease);
    } else if (!wanted && job != NULL) {
        struct batch *b = rival_find(job, m->attempt);
        if (b != NULL) two_digests(core, b, m);
    }
    if (!wanted) core->stale++;
    core_ack(core, worker, m->job, m->attempt, wanted);
}

/* --- what trainers are told and say ----------------------------------------------------------- */

void core_batch_say(struct sm_core *core, struct batch *b) {
    const struct worker *w = b->holder;
    BODY(core, m, Shardmill__Batch, shardmill__batch__init);
    m->session = b->session->id;
    m->epoch = b->epoch;
    m->step = b->step;
    m->position = b->position;
    m->first = b->work.first;
    m->count = b->work.count;
    m->padding = b->padding;
    m->attempt = b->attempt;
    m->worker_host = core_text(core, "%s", w->host);
    m->fd_socket = core_text(core, "%s", w->fd_socket);
    m->data_endpoint = core_text(core, "%s", w->data_endpoint);
    m->data_public_key = core_text(core, "%s", w->data_public_key);
    m->offset = b->offset;
    m->bytes = b->bytes;
    m->digest = core_text(core, "%s", b->digest);
    b->told = true;
    b->said = core->now;
    core_send(core, &b->session->peer, SHARDMILL__ENVELOPE__BODY_BATCH, m);
    if (PLANTED(free_before_release) && b->step % 3 == 2) {
        BODY(core, f, Shardmill__Free, shardmill__free__init);
        f->job = core_text(core, "%s", b->work.job->id);
        f->attempt = b->attempt;
        core_send(core, &w->peer, SHARDMILL__ENVELOPE__BODY_FREE, f);
    }
}

void core_epoch_end_say(struct sm_core *core, struct session *s, struct audit *a) {
    BODY(core, m, Shardmill__EpochEnd, shardmill__epoch_end__init);
    m->session = s->id;
    m->epoch = a->epoch;
    m->planned = a->planned;
    m->delivered = a->delivered;
    m->padded = a->padded;
    m->dropped = a->dropped;
    m->quarantined = a->quarantined;
    a->said = core->now;
    core_send(core, &s->peer, SHARDMILL__ENVELOPE__BODY_EPOCH_END, m);
}

void core_free_say(struct sm_core *core, const struct worker *worker, const char *job,
                   uint64_t attempt) {
    BODY(core, m, Shardmill__Free, shardmill__free__init);
    m->job = core_text(core, "%s", job);
    m->attempt = attempt;
    core_send(core, &worker->peer, SHARDMILL__ENVELOPE__BODY_FREE, m);
}

/* A made batch leaves its holder's books; tell: and its memory. */
void core_batch_unhold(struct sm_core *core, struct batch *b, bool tell) {
    assert(b->work.state == WORK_DONE && b->holder != NULL);
    *(b->prev_held != NULL ? &b->prev_held->next_held : &b->holder->held) = b->next_held;
    if (b->next_held != NULL) b->next_held->prev_held = b->prev_held;
    core_room_give(b->holder, core_step_bytes(b->work.job));
    if (tell && b->attempt != 0) core_free_say(core, b->holder, b->work.job->id, b->attempt);
    b->holder = NULL;
    b->prev_held = b->next_held = NULL;
    b->work.state = WORK_LEASED; /* nobody's: the caller lets it wait, hands it on or frees it */
}

void core_batch_free(struct sm_core *core, struct batch *b, bool quiet) {
    struct session *s = b->session;
    if (!quiet) core_leases_revoke(core, &b->work, NULL);
    assert(b->work.leases == NULL);
    if (b->work.state == WORK_DONE)
        core_batch_unhold(core, b, !quiet);
    else
        core_work_unwait(&b->work);
    *(b->prev != NULL ? &b->prev->next : &s->head) = b->next;
    *(b->next != NULL ? &b->next->prev : &s->tail) = b->prev;
    s->n_open--;
    free(b->work.failure);
    free(b);
}

static struct batch *batch_find(const struct session *s, uint32_t epoch, uint64_t step) {
    for (struct batch *b = s->head; b != NULL; b = b->next)
        if (b->epoch == epoch && b->step == step) return b;
    return NULL;
}

/* The trainer goes on in a later epoch: it has heard of the end of the earlier ones. */
static void audits_forget(struct session *s, uint32_t epoch) {
    while (s->audits != NULL && s->audits->epoch < epoch &&
           s->audits->released == s->audits->steps) {
        struct audit *a = s->audits;
        s->audits = a->next;
        free(a);
    }
}

/* Where the session stands: before its oldest batch that is not released. */
static void done_move(struct session *s, const struct batch *released) {
    if (s->head != NULL && earlier(s->head, released)) return;
    s->done_epoch = released->epoch;
    s->done_position = released->position;
    if (s->done_position < s->job->spec->samples) return;
    s->done_epoch++;
    s->done_position = 0;
}

void core_on_release(struct sm_core *core, struct session *s, const Shardmill__Release *m) {
    bool named = m->attempt != 0, found = false;
    for (struct orphan *o = core->orphans, *next; o != NULL; o = next) {
        next = o->next;
        bool it =
            o->session == s && (named ? o->named && o->attempt == m->attempt
                                      : !o->named && o->epoch == m->epoch && o->step == m->step);
        if (it) core_orphan_free(core, o, true);
        found |= it;
    }
    if (named && !found) core->stale++; /* said before, or of a batch that is no more */
    struct batch *b = named ? NULL : batch_find(s, m->epoch, m->step);
    if (b == NULL) return; /* it said so before */
    if (!b->told) {
        core->dropped++;
        core_refuse(core, &s->peer, SM_E_PROTOCOL,
                    "a release of epoch %u, step %llu, which has not been given yet", m->epoch,
                    (unsigned long long)m->step);
        return;
    }
    struct audit *a = s->audits;
    while (a->epoch != b->epoch)
        a = a->next;
    uint32_t real = b->work.count - b->padding;
    a->released++;
    a->delivered += real;
    a->padded += b->padding;
    a->quarantined += b->substituted;
    s->delivered += b->work.count;
    s->job->made += real;
    s->job->quarantined += b->substituted;
    s->moved = core->now;
    core->work_added = true;
    done_move(s, b);
    core_batch_free(core, b, false);
    if (PLANTED(credit_kept)) s->n_open++;
    audits_forget(s, m->epoch);
    epoch_done_check(core, s, a);
}

/* It cannot be had from that worker (another host, no route; or its memory has gone with it). */
void core_on_lost(struct sm_core *core, struct session *s, const Shardmill__Lost *m) {
    struct batch *b = batch_find(s, m->epoch, m->step);
    if (b == NULL || b->work.state != WORK_DONE || b->attempt != m->attempt) return;
    b->avoid = b->holder;
    b->avoid_until = core->now + AVOID_MS;
    core_batch_unhold(core, b, true);
    s->job->leases_lost++;
    core_work_wait(&b->work, true);
    core->work_added = true;
}
