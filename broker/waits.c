/* Sentences: who waits for whom, when nothing moves. For JobStatus and for trainers' Waits; reads
 * the state and changes nothing. */
#include "broker/state.h"

#include "lib/batch.h"

#include <string.h>

enum { STALL_MS = 5000 }; /* without progress for so long, a job waits for its workers */

/* The sentence about the step that a trainer needs next and that is leased. */
static char *lease_waits(struct sm_core *core, const struct session *s, const struct batch *b) {
    const struct lease *l = b->work.leases, *newest = l;
    for (; l != NULL; l = l->next_of_work)
        if (l->renewed > newest->renewed) newest = l;
    return core_text(
        core,
        "rank %u waits for worker '%s', which is at epoch %u, step %llu: %u of %u samples, "
        "last progress %lld s ago",
        s->rank, newest->worker->name, b->epoch, (unsigned long long)b->step, newest->done,
        b->work.count, (long long)(core->now - newest->renewed) / 1000);
}

/* Why nobody is at the step that a trainer needs next. */
static char *workers_wait(struct sm_core *core, const struct session *s) {
    const struct job *job = s->job, *with = NULL;
    unsigned fitting = 0, large = 0, room = 0, ready = 0;
    uint64_t bytes = core_step_bytes(job);
    const struct worker *other = NULL;
    for (const struct worker *w = core->workers; w != NULL; w = w->next) {
        if (job->fingerprint != NULL && strcmp(job->fingerprint, w->fingerprint) != 0) {
            other = w;
            continue;
        }
        fitting++;
        large += w->batch_memory >= bytes;
        room += w->batch_memory >= w->batch_used + bytes && w->slots_used < SM_BATCH_SLOTS;
        ready += w->ready;
        if (w->leases != NULL && w->leases->work->job != job) with = w->leases->work->job;
    }
    if (core->n_workers == 0)
        return core_text(core,
                         "rank %u waits for a worker: none is connected (hint: shardmill worker "
                         "--broker ENDPOINT)",
                         s->rank);
    if (fitting == 0)
        return core_text(
            core,
            "rank %u waits for a worker with '%s': %u are connected, none has it; '%s' "
            "has '%s'",
            s->rank, job->fingerprint, core->n_workers, other->name, other->fingerprint);
    if (large == 0)
        return core_text(core,
                         "rank %u waits for a worker with room for a batch of %llu bytes: %u are "
                         "connected, none has so much batch memory (hint: worker --batch-memory)",
                         s->rank, (unsigned long long)bytes, fitting);
    if (room == 0)
        return core_text(core,
                         "rank %u waits for batch memory: at all %u workers it is full of batches "
                         "that trainers have not released",
                         s->rank, fitting);
    if (with != NULL && ready == 0)
        return core_text(core,
                         "rank %u waits for one of %u workers, which are busy with others, such as "
                         "job '%s'",
                         s->rank, fitting, with->id);
    return core_text(core, "rank %u waits for one of %u connected workers to ask for a lease",
                     s->rank, fitting);
}

/* Empty when the session has all that it was planned to get. */
char *core_waits_session(struct sm_core *core, const struct session *s) {
    const struct batch *b = s->head;
    unsigned made = 0, window = core_window(core, s);
    uint32_t epochs = s->job->spec->epochs;
    if (s->job->state != SHARDMILL__JOB_STATE__RUNNING) return core_text(core, "%s", "");
    while (b != NULL && b->work.state == WORK_DONE) {
        made++;
        b = b->next;
    }
    if (b == NULL && epochs != 0 && s->cut_epoch >= epochs && made == 0)
        return core_text(core, "%s", "");
    if (b == NULL && made > 0 && (made >= window || (epochs != 0 && s->cut_epoch >= epochs)))
        return core_text(core,
                         "rank %u has %u of %u batches (%llu bytes of its credit of %llu) and "
                         "releases none: everybody waits for it",
                         s->rank, made, window,
                         (unsigned long long)(made * s->job->spec->batch_bytes),
                         (unsigned long long)s->credit);
    if (b != NULL && b->work.state == WORK_LEASED && b->work.leases != NULL)
        return lease_waits(core, s, b);
    if (b != NULL && b->work.not_before > core->now)
        return core_text(
            core, "rank %u waits %lld ms before epoch %u, step %llu is tried again, after: %s",
            s->rank, (long long)(b->work.not_before - core->now), b->epoch,
            (unsigned long long)b->step,
            b->work.failure != NULL ? b->work.failure : "a worker had no room");
    return workers_wait(core, s);
}

/* Of a stream: the first session that has waited for long, or that nobody is attached. */
static char *stream_waits(struct sm_core *core, const struct job *job) {
    if (job->sessions == NULL)
        return core_text(core, "the job waits for a trainer: none is attached");
    for (const struct session *s = job->sessions; s != NULL; s = s->next_of_job) {
        if (core->now - s->moved < SM_WAITS_MS) continue;
        char *text = core_waits_session(core, s);
        if (text[0] != 0) return text;
    }
    return core_text(core, "%s", "");
}

/* Why nothing of a running job is being worked on: who waits for whom. */
char *core_waits_job(struct sm_core *core, const struct job *job) {
    if (job->state != SHARDMILL__JOB_STATE__RUNNING) return core_text(core, "%s", "");
    if (job->spec->kind == SHARDMILL__JOB_KIND__STREAM) return stream_waits(core, job);
    unsigned fitting = 0, busy = 0;
    const struct worker *other = NULL;
    const struct job *with = NULL;
    const struct lease *newest = NULL;
    for (const struct worker *w = core->workers; w != NULL; w = w->next) {
        for (const struct lease *l = w->leases; l != NULL; l = l->next_of_worker)
            if (l->work->job == job && (newest == NULL || l->renewed > newest->renewed)) newest = l;
        if (job->fingerprint != NULL && strcmp(job->fingerprint, w->fingerprint) != 0) {
            other = w;
            continue;
        }
        fitting++;
        if (w->leases == NULL) continue;
        busy++;
        if (w->leases->work->job != job) with = w->leases->work->job;
    }
    if (newest != NULL) {
        if (core->now - newest->renewed < STALL_MS) return core_text(core, "%s", "");
        return core_text(
            core,
            "the job waits for worker '%s', which has told of no progress on %u positions from %llu on "
            "for %lld s",
            newest->worker->name, newest->work->count, (unsigned long long)newest->work->first,
            (long long)(core->now - newest->renewed) / 1000);
    }
    if (core->n_workers == 0)
        return core_text(
            core,
            "the job waits for a worker: none is connected (hint: shardmill worker --broker ENDPOINT)");
    if (fitting == 0)
        return core_text(
            core,
            "the job waits for a worker with '%s': %u are connected, none has it; '%s' has '%s'",
            job->fingerprint, core->n_workers, other->name, other->fingerprint);
    const struct work *retry = job->seals.head != NULL ? job->seals.head : job->ranges.head;
    if (retry != NULL && retry->not_before > core->now)
        return core_text(
            core, "the job waits %lld ms before it tries positions from %llu on again, after: %s",
            (long long)(retry->not_before - core->now), (unsigned long long)retry->first,
            retry->failure != NULL ? retry->failure : "a failure");
    if (with != NULL)
        return core_text(
            core,
            "the job waits for %u of %u workers, which are busy with others, such as job '%s'",
            busy, fitting, with->id);
    return core_text(core, "the job waits for one of %u connected workers to ask for a lease",
                     fitting);
}
