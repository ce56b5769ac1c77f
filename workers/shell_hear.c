/* What the broker says: welcome, leases, answers to results, pieces of what a job needs. Before:
 * the socket. After: the leases that are held, which shell.c works on. */
#include "workers/shell_state.h"

#include <stdio.h>
#include <string.h>

static void handle(struct worker *w, sm_envelope **message);

enum { RECEIVE_MAX = 64 }; /* messages before the cage gets its turn again */

void shell_receive(struct worker *w) {
    for (int i = 0; i < RECEIVE_MAX; i++) {
        sm_envelope *message = NULL;
        struct sm_err err = {0};
        int got = sm_wire_receive(w->socket, NULL, &message, &err);
        if (got == 0) return;
        if (got < 0) fprintf(stderr, "shardmill worker: dropped: %s\n", err.text);
        if (got < 0) continue;
        w->heard_ms = sm_now_ms();
        handle(w, &message);
        sm_wire_free(&message);
    }
}

struct held *shell_find_attempt(struct worker *w, const char *job, uint64_t attempt) {
    for (int i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (h->state != HELD_FREE && h->m->attempt == attempt && strcmp(h->m->job, job) == 0)
            return h;
    }
    return NULL;
}

static void on_welcome(struct worker *w, const Shardmill__Welcome *m) {
    w->welcome = true;
    w->trouble_told = false;
    w->backoff_ms = BACKOFF_MS;
    w->heartbeat_ms = m->heartbeat_ms < 10 ? 10 : m->heartbeat_ms > 60000 ? 60000 : m->heartbeat_ms;
    w->liveness = m->liveness < 2 ? 2 : m->liveness > 100 ? 100 : m->liveness;
    w->ready_told = false;
    w->progress_done = UINT32_MAX;
    for (int i = 0; i < HELD_MAX; i++)
        if (w->held[i].state == HELD_TOLD) shell_tell(w, &w->held[i]);
    for (int i = 0; i < JOBS_MAX; i++)
        if (w->jobs[i] != NULL) w->jobs[i]->asked_ms = 0;
}

/* Takes the message. */
static void on_lease(struct worker *w, sm_envelope **message) {
    const Shardmill__Lease *m = (*message)->lease;
    if (shell_find_attempt(w, m->job, m->attempt) != NULL) return; /* doubled on the way */
    w->ready_told = false;
    struct held *h = NULL;
    for (int i = 0; i < HELD_MAX && h == NULL; i++)
        if (w->held[i].state == HELD_FREE) h = &w->held[i];
    if (h == NULL) {
        struct held full = {.m = m,
                            .err = {SM_E_BUSY, "this worker holds as many leases as it can"}};
        shell_tell_fail(w, &full);
        return;
    }
    *h = (struct held){.state = HELD_WAITING, .message = *message, .m = m, .order = ++w->arrivals};
    *message = NULL;
}

/* A lease that is wanted no more, or a batch that nobody needs any more. */
static void end_attempt(struct worker *w, const char *job, uint64_t attempt) {
    struct held *h = shell_find_attempt(w, job, attempt);
    if (h == NULL)
        sm_batches_release(w->batches, job, attempt);
    else if (h->state == HELD_STORING)
        h->revoked = true;
    else
        shell_give_up(w, h);
}

static void on_revoke(struct worker *w, const Shardmill__Revoke *m) {
    end_attempt(w, m->job, m->attempt);
}

static void on_ack(struct worker *w, const Shardmill__Ack *m) {
    struct held *h = shell_find_attempt(w, m->job, m->attempt);
    if (h == NULL && !m->wanted) sm_batches_release(w->batches, m->job, m->attempt);
    if (h == NULL || h->state != HELD_TOLD) return;
    if (m->wanted && !h->failed)
        shell_release(h); /* a batch stays in its memory */
    else
        shell_give_up(w, h);
}

/* The broker refuses something. Its words go to the operator; a result that it will never take is
 * not told for ever, and a job that it does not give is broken. What names no job of this worker's
 * changes nothing: after Ready comes a refusal for each job that other workers have begun. */
static void on_refused(struct worker *w, const Shardmill__Refused *m) {
    fprintf(stderr, "shardmill worker: the broker refuses (%s): %s\n", sm_code_word((int)m->code),
            m->text);
    if (m->attempt != 0) {
        struct held *h = shell_find_attempt(w, m->job, m->attempt);
        if (h != NULL && h->state == HELD_TOLD &&
            (m->code == SM_E_PROTOCOL || m->code == SM_E_DIFFERS))
            shell_give_up(w, h);
        return;
    }
    struct sm_job *job = shell_find_job(w, m->job);
    if (job == NULL || job->asked_ms == 0 || job->state >= SM_JOB_READY) return;
    job->state = SM_JOB_BROKEN;
    sm_fail(&job->err, m->code < SM_E_COUNT && m->code > 0 ? (enum sm_code)m->code : SM_E_PEER,
            "%.900s", m->text);
}

static void handle(struct worker *w, sm_envelope **message) {
    const sm_envelope *e = *message;
    struct sm_job *job;
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_WELCOME:
        on_welcome(w, e->welcome);
        break;
    case SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN:
        shell_say_hello(w);
        break;
    case SHARDMILL__ENVELOPE__BODY_LEASE:
        on_lease(w, message);
        break;
    case SHARDMILL__ENVELOPE__BODY_ACK:
        on_ack(w, e->ack);
        break;
    case SHARDMILL__ENVELOPE__BODY_REVOKE:
        on_revoke(w, e->revoke);
        break;
    case SHARDMILL__ENVELOPE__BODY_FREE:
        end_attempt(w, e->free->job, e->free->attempt);
        break;
    case SHARDMILL__ENVELOPE__BODY_JOB:
        job = shell_find_job(w, e->job->job);
        if (job != NULL) sm_job_take_spec(job, message, &w->job_options);
        break;
    case SHARDMILL__ENVELOPE__BODY_FILE_CHUNK:
        job = shell_find_job(w, e->file_chunk->job);
        if (job != NULL) sm_job_take_piece(job, e->file_chunk, &w->job_options);
        break;
    case SHARDMILL__ENVELOPE__BODY_FILE_KEPT:
        shell_put_kept(w, e->file_kept);
        break;
    case SHARDMILL__ENVELOPE__BODY_REFUSED:
        on_refused(w, e->refused);
        break;
    default: /* a heartbeat, or a message for others */
        break;
    }
}
