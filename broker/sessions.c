/* Trainers: who is attached, for which rank, and until when. Where a session begins is runs.c, what
 * it gets is stream.c. A session ends by Detach, by silence, or when its own client attaches anew.
 */
#include "broker/state.h"

#include <stdlib.h>
#include <string.h>

static const char *attach_wrong(struct sm_core *core, const struct job *job,
                                const Shardmill__Attach *m, enum sm_code *code,
                                const struct session **other);
static void attached_say(struct sm_core *core, struct session *s);
static struct session *session_new(struct sm_core *core, struct job *job,
                                   const struct sm_peer *peer, const Shardmill__Attach *m);
static void held_claim(struct sm_core *core, struct session *s, const struct session *old,
                       const Shardmill__Attach *m);

static struct session **bucket_of(struct sm_core *core, uint64_t id) {
    return &core->session_buckets[id % BUCKETS];
}

static bool peers_equal(const struct sm_peer *a, const struct sm_peer *b) {
    return a->n == b->n && memcmp(a->id, b->id, a->n) == 0;
}

struct session *core_session_of(struct sm_core *core, const struct sm_peer *peer) {
    for (struct session *s = core->sessions; s != NULL; s = s->next)
        if (peers_equal(&s->peer, peer)) return s;
    return NULL;
}

bool core_session_heard(struct sm_core *core, const struct sm_peer *peer) {
    bool any = false;
    for (struct session *s = core->sessions; s != NULL; s = s->next) {
        if (!peers_equal(&s->peer, peer)) continue;
        s->heard = core->now;
        s->gone = false;
        any = true;
    }
    return any;
}

/* Its connection is no more. It may come back by another one, with the same client string; until it
 * has been silent for long enough its batches stay, since it may be reading them. */
void core_session_gone(struct sm_core *core, const struct sm_peer *peer) {
    for (struct session *s = core->sessions; s != NULL; s = s->next)
        if (peers_equal(&s->peer, peer)) s->gone = true;
}

/* --- Attach ----------------------------------------------------------------------------------- */

void core_on_attach(struct sm_core *core, const struct sm_peer *peer, const Shardmill__Attach *m) {
    unsigned fitting;
    struct job *job = core_job_named(core, m->job, &fitting);
    enum sm_code code = SM_E_USAGE;
    if (job == NULL || fitting > 1) {
        core_refuse(core, peer, job == NULL ? SM_E_MISSING : SM_E_USAGE,
                    job == NULL ? "no job '%.100s' is known here (hint: shardmill jobs)"
                                : "more than one job is named '%.100s' (hint: use its id)",
                    m->job);
        return;
    }
    const struct session *other = NULL;
    const char *wrong = attach_wrong(core, job, m, &code, &other);
    if (wrong != NULL) {
        core_refuse_for(core, peer, code, other != NULL ? core_session_gone_in_ms(core, other) : 0,
                        wrong);
        if (other != NULL) core_session_probe(core, other);
        return;
    }
    struct session *old = NULL;
    for (struct session *s = job->sessions, *next; s != NULL; s = next) {
        next = s->next_of_job;
        if (s->rank == m->rank)
            old = s;
        else if (s->world_size != m->world_size)
            core_session_end(core, s, false); /* attach_wrong has seen that it is gone */
    }
    if (old != NULL && strcmp(old->client, m->client) == 0 && peers_equal(&old->peer, peer) &&
        m->serial <= old->serial) {
        if (m->serial < old->serial) return; /* it has asked for something else since */
        old->heard = core->now;
        old->credit = m->credit_bytes;
        core->work_added = true;
        attached_say(core, old);
        return;
    }
    uint32_t epoch;
    uint64_t position;
    if (!core_run_enter(core, job, peer, m, &epoch, &position)) return;
    if (job->state == SHARDMILL__JOB_STATE__COMPLETE &&
        (job->spec->epochs == 0 || epoch < job->spec->epochs))
        core_persist(core, &(struct sm_record){.kind = SM_RECORD_STATE,
                                               .job = job->id,
                                               .state = SHARDMILL__JOB_STATE__RUNNING});
    struct session *s = session_new(core, job, peer, m);
    s->start_epoch = s->done_epoch = s->cut_epoch = epoch;
    s->start_position = s->done_position = position;
    const struct commit *c = &job->run.commits[s->rank];
    s->committed = c->set && c->epoch == epoch && c->position == position;
    s->committed_epoch = epoch;
    s->committed_position = position;
    held_claim(core, s, old, m);
    if (old != NULL) core_session_end(core, old, false);
    attached_say(core, s);
    core_cursor_begin(core, s);
    core->work_added = true;
}

/* Until when this session counts as gone, should its trainer be dead. */
int64_t core_session_gone_in_ms(const struct sm_core *core, const struct session *s) {
    int64_t end = s->heard + (int64_t)core->options.heartbeat_ms * (SM_LIVENESS + 1);
    return end > core->now ? end - core->now : 1;
}

/* When its process is dead this finds no way to it, and the next Attach need not wait for the
 * silence. */
void core_session_probe(struct sm_core *core, const struct session *s) {
    BODY(core, m, Shardmill__Heartbeat, shardmill__heartbeat__init);
    core_send(core, &s->peer, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, m);
}

/* *other: the session in the way. */
static const char *world_wrong(struct sm_core *core, const struct job *job,
                               const Shardmill__Attach *m, enum sm_code *code,
                               const struct session **other) {
    for (const struct session *s = job->sessions; s != NULL; s = s->next_of_job) {
        if (s->gone || strcmp(s->client, m->client) == 0) continue;
        *other = s;
        if (s->rank == m->rank && s->world_size == m->world_size && !PLANTED(rank_twice)) {
            *code = SM_E_BUSY;
            return core_text(
                core,
                "rank %u of job '%s' is attached from '%s' already (hint: it counts as "
                "gone %u ms after it was last heard)",
                m->rank, job->id, s->host, core->options.heartbeat_ms * SM_LIVENESS);
        }
        if (s->world_size != m->world_size) {
            *code = SM_E_DIFFERS;
            return core_text(
                core, "world size %u, and rank %u of job '%s' is attached with world size %u",
                m->world_size, s->rank, job->id, s->world_size);
        }
    }
    *other = NULL;
    return NULL;
}

/* Why this Attach is refused, or NULL. *other: the session whose end would let it in, if any. */
static const char *attach_wrong(struct sm_core *core, const struct job *job,
                                const Shardmill__Attach *m, enum sm_code *code,
                                const struct session **other) {
    const Shardmill__JobSpec *spec = job->spec;
    if (spec->kind != SHARDMILL__JOB_KIND__STREAM)
        return core_text(core, "job '%s' is an expansion, which streams nothing", job->id);
    if (m->client[0] == 0 || strlen(m->client) > SM_MAX_NAME_BYTES)
        return core_text(core, "client: 1 to %d bytes", SM_MAX_NAME_BYTES);
    if (m->world_size == 0 || m->world_size > SM_MAX_TRAINERS)
        return core_text(core, "world size %u: 1 to %d", m->world_size, SM_MAX_TRAINERS);
    if (m->rank >= m->world_size)
        return core_text(core, "rank %u of a world of %u (hint: ranks count from 0)", m->rank,
                         m->world_size);
    if (spec->drop_last && spec->samples / m->world_size < spec->batch_size)
        return core_text(core,
                         "drop_last leaves no step: %llu positions, %u ranks with batches of %u",
                         (unsigned long long)spec->samples, m->world_size, spec->batch_size);
    if (job->state == SHARDMILL__JOB_STATE__FAILED ||
        job->state == SHARDMILL__JOB_STATE__CANCELLED) {
        *code = job->code != 0 && job->code < SM_E_COUNT ? (enum sm_code)job->code : SM_E_CANCELLED;
        return core_text(core, "job '%s' has ended: %s", job->id, job->text);
    }
    const char *wrong = world_wrong(core, job, m, code, other);
    if (wrong == NULL && core->n_sessions == SM_MAX_TRAINERS) {
        *code = SM_E_BUSY;
        wrong =
            core_text(core, "this broker holds %d trainers, which is its limit", SM_MAX_TRAINERS);
    }
    return wrong;
}

static struct session *session_new(struct sm_core *core, struct job *job,
                                   const struct sm_peer *peer, const Shardmill__Attach *m) {
    struct session *s = core_calloc(1, sizeof *s);
    s->id = (uint64_t)core->options.incarnation << 32 | ++core->sessions_made;
    s->job = job;
    s->peer = *peer;
    s->client = core_strdup(m->client);
    s->host = core_clean(m->host, SM_MAX_NAME_BYTES);
    s->rank = m->rank;
    s->world_size = m->world_size;
    s->credit = m->credit_bytes;
    s->serial = m->serial;
    s->run = job->run.number;
    s->heard = s->moved = s->waits_said = core->now;
    s->beat = core->now + core->options.heartbeat_ms;
    s->next_of_job = job->sessions;
    job->sessions = s;
    s->next_of_bucket = *bucket_of(core, s->id);
    *bucket_of(core, s->id) = s;
    s->next = core->sessions; /* nobody waits longer than who has just come */
    if (s->next != NULL)
        s->next->prev = s;
    else
        core->sessions_tail = s;
    core->sessions = s;
    core->n_sessions++;
    return s;
}

/* Batches of an earlier session that the trainer is still reading stay where they are. */
static void held_claim(struct sm_core *core, struct session *s, const struct session *old,
                       const Shardmill__Attach *m) {
    for (size_t i = 0; i < m->n_held && i < WINDOW_MAX; i++) {
        for (struct orphan *o = core->orphans; o != NULL; o = o->next)
            if (o->attempt == m->held[i] && strcmp(o->job, s->job->id) == 0) {
                o->session = s;
                o->named = true;
            }
        for (struct batch *b = old != NULL ? old->head : NULL; b != NULL; b = b->next) {
            if (b->attempt != m->held[i] || b->work.state != WORK_DONE) continue;
            core_orphan_of(core, b)->session = s;
        }
    }
}

static uint64_t *counts_copy(struct sm_core *core, const uint64_t *counts, size_t n) {
    uint64_t *copy = core_scratch(core, n * sizeof *copy + 1);
    if (n > 0) memcpy(copy, counts, n * sizeof *copy);
    return copy;
}

static void attached_say(struct sm_core *core, struct session *s) {
    s->attached_said = core->now;
    const Shardmill__JobSpec *spec = s->job->spec;
    BODY(core, m, Shardmill__Attached, shardmill__attached__init);
    m->job = core_text(core, "%s", s->job->id);
    m->session = s->id;
    m->serial = s->serial;
    m->epoch = s->start_epoch;
    m->position = s->start_position;
    m->positions = spec->samples;
    struct sm_steps whole = core_steps(s, s->start_epoch);
    whole.entered = 0;
    m->steps = sm_steps_count(&whole);
    Shardmill__JobSpec *copy = core_scratch(core, sizeof *copy);
    *copy = *spec;
    copy->base.n_unknown_fields = 0;
    copy->name = core_text(core, "%s", spec->name);
    copy->pipeline = core_text(core, "%s", spec->pipeline);
    copy->pipeline_digest = core_text(core, "%s", spec->pipeline_digest);
    copy->dataset_digest = core_text(core, "%s", spec->dataset_digest);
    copy->index_path = core_text(core, "%s", spec->index_path);
    copy->index_digest = core_text(core, "%s", spec->index_digest);
    copy->source_root = core_text(core, "%s", spec->source_root);
    copy->out_dir = core_text(core, "%s", spec->out_dir);
    copy->present = counts_copy(core, spec->present, spec->n_present);
    copy->drawn = counts_copy(core, spec->drawn, spec->n_drawn);
    copy->class_names = core_scratch(core, spec->n_class_names * sizeof(char *) + 1);
    for (size_t c = 0; c < spec->n_class_names; c++)
        copy->class_names[c] = core_text(core, "%s", spec->class_names[c]);
    m->spec = copy;
    m->heartbeat_ms = core->options.heartbeat_ms;
    m->liveness = SM_LIVENESS;
    m->pipeline_digest = copy->pipeline_digest;
    m->dataset_digest = copy->dataset_digest;
    core_send(core, &s->peer, SHARDMILL__ENVELOPE__BODY_ATTACHED, m);
}

/* --- the end of a session --------------------------------------------------------------------- */

/* quiet: nobody is told, the core is being freed. */
void core_session_end(struct sm_core *core, struct session *s, bool quiet) {
    while (s->head != NULL)
        core_batch_free(core, s->head, quiet);
    for (struct orphan *o = core->orphans, *next; o != NULL; o = next) {
        next = o->next;
        if (o->session == s) core_orphan_free(core, o, !quiet);
    }
    for (struct audit *a = s->audits, *next; a != NULL; a = next) {
        next = a->next;
        free(a);
    }
    struct session **p = &s->job->sessions;
    while (*p != s)
        p = &(*p)->next_of_job;
    *p = s->next_of_job;
    p = bucket_of(core, s->id);
    while (*p != s)
        p = &(*p)->next_of_bucket;
    *p = s->next_of_bucket;
    *(s->prev != NULL ? &s->prev->next : &core->sessions) = s->next;
    *(s->next != NULL ? &s->next->prev : &core->sessions_tail) = s->prev;
    core->n_sessions--;
    core->work_added = true; /* there is room at workers, and a larger share for the others */
    free(s->client);
    free(s->host);
    free(s);
}

/* The job has failed or was cancelled: its trainers are told why. */
void core_sessions_stop(struct sm_core *core, struct job *job, uint32_t code, const char *text) {
    while (job->sessions != NULL) {
        core_refuse(core, &job->sessions->peer, (enum sm_code)code, "%s", text);
        core_session_end(core, job->sessions, false);
    }
}

/* --- time ------------------------------------------------------------------------------------- */

/* Attached too is said until the trainer speaks in the session: if it was lost, the trainer may
 * believe itself in an earlier one, for which nothing comes. */
static void session_repeat(struct sm_core *core, struct session *s) {
    if (!s->spoken && core->now - s->attached_said >= SM_REPEAT_MS) attached_say(core, s);
    for (struct batch *b = s->head; b != NULL && b->told; b = b->next)
        if (b->work.state == WORK_DONE && core->now - b->said >= SM_REPEAT_MS)
            core_batch_say(core, b);
    for (struct audit *a = s->audits; a != NULL; a = a->next)
        if (a->released == a->steps && core->now - a->said >= SM_REPEAT_MS)
            core_epoch_end_say(core, s, a);
}

static void session_waits(struct sm_core *core, struct session *s) {
    if (core->now - s->moved < SM_WAITS_MS || core->now - s->waits_said < SM_WAITS_MS) return;
    s->waits_said = core->now;
    char *text = core_waits_session(core, s);
    if (text[0] == 0) return;
    BODY(core, m, Shardmill__Waits, shardmill__waits__init);
    m->session = s->id;
    m->text = text;
    core_send(core, &s->peer, SHARDMILL__ENVELOPE__BODY_WAITS, m);
}

void core_sessions_tick(struct sm_core *core) {
    for (struct session *s = core->sessions, *next; s != NULL; s = next) {
        next = s->next;
        if (core->now - s->heard > (int64_t)core->options.heartbeat_ms * SM_LIVENESS) {
            if (!s->gone && !PLANTED(silent_freed)) core_batches_leave(core, s);
            core_session_end(core, s, false);
            continue;
        }
        session_repeat(core, s);
        session_waits(core, s);
        if (s->beat > core->now) continue;
        s->beat = core->now + core->options.heartbeat_ms;
        BODY(core, m, Shardmill__Heartbeat, shardmill__heartbeat__init);
        core_send(core, &s->peer, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, m);
    }
    for (struct orphan *o = core->orphans, *next; o != NULL; o = next) {
        next = o->next;
        if (o->session == NULL && o->deadline <= core->now) core_orphan_free(core, o, true);
    }
}

/* --- what a trainer says ---------------------------------------------------------------------- */

static void committed_say(struct sm_core *core, const struct session *s,
                          const Shardmill__Commit *m) {
    BODY(core, a, Shardmill__Committed, shardmill__committed__init);
    a->session = s->id;
    a->epoch = m->epoch;
    a->position = m->position;
    core_send(core, &s->peer, SHARDMILL__ENVELOPE__BODY_COMMITTED, a);
}

/* A position between two steps of this session, from its beginning to behind what has been cut. */
static bool commit_fits(const struct session *s, uint32_t epoch, uint64_t position) {
    if (epoch < s->start_epoch || epoch > s->cut_epoch) return false;
    struct sm_steps steps = core_steps(s, epoch);
    if (!sm_steps_boundary(&steps, position) ||
        (epoch == s->start_epoch && position < s->start_position))
        return false;
    if (epoch < s->cut_epoch) return true;
    return position <= steps.entered + s->cut_step * steps.batch_size * steps.world_size;
}

/* What is committed in a run that another rank has left to go elsewhere (sm_seek) is of no use to
 * the run that has begun, so the journal does not get it: this rank is about to follow. */
static void on_commit(struct sm_core *core, struct session *s, const Shardmill__Commit *m) {
    uint32_t epoch = m->epoch;
    uint64_t position = m->position;
    if (position == s->job->spec->samples) {
        epoch++;
        position = 0;
    }
    if (!commit_fits(s, epoch, position)) {
        core->dropped++;
        core_refuse(core, &s->peer, SM_E_PROTOCOL,
                    "a commit of epoch %u, position %llu, where this session has no step's end",
                    m->epoch, (unsigned long long)m->position);
        return;
    }
    struct commit last = {s->committed, s->committed_epoch, s->committed_position};
    bool newer = !last.set || (epoch != last.epoch ? epoch > last.epoch : position > last.position);
    s->committed = true;
    if (newer && PLANTED(commit_before_journal)) {
        s->committed_epoch = epoch; /* and the journal is never told */
        s->committed_position = position;
    } else if (newer) {
        s->committed_epoch = epoch;
        s->committed_position = position;
        if (s->run == s->job->run.number || PLANTED(left_run_kept))
            core_persist(core, &(struct sm_record){.kind = SM_RECORD_COMMIT,
                                                   .job = s->job->id,
                                                   .rank = s->rank,
                                                   .epoch = epoch,
                                                   .position = position});
    }
    committed_say(core, s, m);
}

static uint64_t session_id(const sm_envelope *e) {
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_RELEASE:
        return e->release->session;
    case SHARDMILL__ENVELOPE__BODY_LOST:
        return e->lost->session;
    case SHARDMILL__ENVELOPE__BODY_COMMIT:
        return e->commit->session;
    default:
        return e->detach->session;
    }
}

void core_on_trainer(struct sm_core *core, const struct sm_peer *peer, const sm_envelope *e) {
    uint64_t id = session_id(e);
    struct session *s = *bucket_of(core, id);
    while (s != NULL && s->id != id)
        s = s->next_of_bucket;
    if (s == NULL && PLANTED(old_session_accepted)) s = core_session_of(core, peer);
    if (s == NULL || !peers_equal(&s->peer, peer)) {
        if (e->body_case == SHARDMILL__ENVELOPE__BODY_DETACH) return; /* it is over anyway */
        core->stale++;
        if (core_session_of(core, peer) != NULL) return; /* of its last session, come late */
        BODY(core, m, Shardmill__Register, shardmill__register__init);
        core_send(core, peer, SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN, m);
        return;
    }
    s->heard = core->now;
    s->gone = false;
    s->spoken = true;
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_RELEASE:
        core_on_release(core, s, e->release);
        break;
    case SHARDMILL__ENVELOPE__BODY_LOST:
        core_on_lost(core, s, e->lost);
        break;
    case SHARDMILL__ENVELOPE__BODY_COMMIT:
        on_commit(core, s, e->commit);
        break;
    default:
        core_session_end(core, s, false);
    }
}
