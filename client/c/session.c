/* The session with the broker: attaching, taking batches in strict order, telling what was
 * released, lost or committed, and attaching again by itself when the broker was restarted.
 * thread.c brings messages and time; a batch that is accepted is mapped (memory.c) or fetched
 * (fetch.c), and the caller's sm_next finds it in loader->ready. Everything here runs under the
 * loader's lock. */
#include "client/c/loader.h"

#include "lib/limits.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    ATTACH_AGAIN_MS = 1000,
    COMMIT_AGAIN_MS = 1000,
    HELD_SAID_MAX = 4096,
    CREDIT_FIRST = 256 << 20, /* until the size of a batch is known */
    CREDIT_BATCHES = 4,
};

static void on_attached(struct sm_loader *l, const Shardmill__Attached *m);
static void on_batch(struct sm_loader *l, const Shardmill__Batch *m);
static void on_committed(struct sm_loader *l, const Shardmill__Committed *m);
static void on_epoch_end(struct sm_loader *l, const Shardmill__EpochEnd *m);
static void on_refused(struct sm_loader *l, const Shardmill__Refused *m);
static void attach(struct sm_loader *l, int64_t now);
static void seek(struct sm_loader *l);
static void text_copy(char *out, size_t n, const char *text);

void sm_loader_hear(struct sm_loader *l, const sm_envelope *m) {
    l->heard_at = sm_now_ms();
    if (l->state == LOADER_FAILED) return;
    switch (m->body_case) {
    case SHARDMILL__ENVELOPE__BODY_ATTACHED:
        on_attached(l, m->attached);
        break;
    case SHARDMILL__ENVELOPE__BODY_BATCH:
        on_batch(l, m->batch);
        break;
    case SHARDMILL__ENVELOPE__BODY_COMMITTED:
        on_committed(l, m->committed);
        break;
    case SHARDMILL__ENVELOPE__BODY_EPOCH_END:
        on_epoch_end(l, m->epoch_end);
        break;
    case SHARDMILL__ENVELOPE__BODY_REFUSED:
        on_refused(l, m->refused);
        break;
    case SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN:
        if (l->state == LOADER_ATTACHED)
            sm_loader_renew(l, "the broker does not know this trainer");
        break;
    case SHARDMILL__ENVELOPE__BODY_WAITS:
        if (m->waits->session != l->session) break;
        text_copy(l->waits, sizeof l->waits, m->waits->text);
        l->waits_at = l->heard_at;
        break;
    case SHARDMILL__ENVELOPE__BODY_FILE_CHUNK:
        sm_loader_classes_hear(l, m->file_chunk);
        break;
    case SHARDMILL__ENVELOPE__BODY_HEARTBEAT:
        break;
    default:
        l->counts.garbage++;
    }
}

void sm_loader_tick(struct sm_loader *l, int64_t now) {
    if (l->seeking) seek(l);
    if (l->state == LOADER_FAILED) return;
    int64_t dead_ms = (int64_t)l->heartbeat_ms * l->liveness;
    if (l->state == LOADER_ATTACHED && now - l->heard_at > dead_ms) {
        l->silent_since = l->heard_at;
        sm_loader_renew(l, "");
    }
    struct sm_err err;
    if (l->state == LOADER_ATTACHING && l->watch != NULL && sm_watch_hopeless(l->watch, &err)) {
        /* a key that is wrong now may be put right while a training run waits; nobody waits in open
         */
        if (!l->known) sm_loader_fail(l, err.code, "%s", err.text);
        text_copy(l->refusal, sizeof l->refusal, err.text);
    }
    if (l->state == LOADER_ATTACHING && now >= l->attach_at) attach(l, now);
    if (l->state != LOADER_ATTACHED) return;
    if (l->commit_pending && now >= l->commit_at) {
        Shardmill__Commit m = SHARDMILL__COMMIT__INIT;
        m.session = l->session;
        m.epoch = l->commit.epoch;
        m.position = l->commit.position;
        sm_loader_say(l, SHARDMILL__ENVELOPE__BODY_COMMIT, &m);
        l->commit_at = now + COMMIT_AGAIN_MS;
    }
    sm_loader_classes_tick(l, now);
    if (now - l->said_at >= l->heartbeat_ms) {
        Shardmill__Heartbeat m = SHARDMILL__HEARTBEAT__INIT;
        sm_loader_say(l, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &m);
    }
}

/* 1 said, 0 no room now. */
int sm_loader_say(struct sm_loader *l, int which, void *body) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.body_case = (Shardmill__Envelope__BodyCase)which;
    e.hello = body; /* all bodies are pointers in one union */
    if (l->socket == NULL || sm_wire_send(l->socket, NULL, &e, NULL) != 1) return 0;
    l->said_at = sm_now_ms();
    return 1;
}

void sm_loader_fail(struct sm_loader *l, enum sm_code code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char text[sizeof l->failure.text];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    sm_fail(&l->failure, code, "%s", text);
    l->state = LOADER_FAILED;
}

void sm_loader_batch_free(struct sm_loader *l, struct batch *b) {
    if (b->map != NULL) sm_loader_unmap(b->map);
    if (b->buffer != NULL) sm_loader_buffer_release(l, b->buffer, b->bytes);
    free(b->pieces);
    free(b);
}

static void lost_say(struct sm_loader *l, const Shardmill__Lost *m) {
    l->counts.lost++;
    sm_loader_say(l, SHARDMILL__ENVELOPE__BODY_LOST, (void *)m);
}

/* The broker gives the memory of a lost batch to others as soon as it hears of it, so this attempt
 * is never taken again, however often it is still announced. */
void sm_loader_lost(struct sm_loader *l, const struct batch *b, const char *why) {
    Shardmill__Lost m = SHARDMILL__LOST__INIT;
    m.session = b->session;
    m.epoch = b->epoch;
    m.step = b->step;
    m.attempt = b->attempt;
    m.text = (char *)why;
    l->lost[l->lost_next] = b->attempt;
    l->lost_next = (l->lost_next + 1) % LOADER_WINDOW_MAX;
    if (l->lost_n < LOADER_WINDOW_MAX) l->lost_n++;
    lost_say(l, &m);
}

static bool was_lost(struct sm_loader *l, const Shardmill__Batch *m) {
    for (unsigned i = 0; i < l->lost_n; i++)
        if (l->lost[i] == m->attempt) return true;
    return false;
}

/* Our Lost was lost, or has crossed the announcement. */
static void lost_again(struct sm_loader *l, const Shardmill__Batch *m) {
    Shardmill__Lost again = SHARDMILL__LOST__INIT;
    again.session = m->session;
    again.epoch = m->epoch;
    again.step = m->step;
    again.attempt = m->attempt;
    again.text = (char *)"it cannot be had from that worker";
    l->counts.doubled++;
    lost_say(l, &again);
}

/* A batch that was accepted cannot be had after all. Later ones stay: the same step is taken again
 * from its new worker, into its old place in the order. */
void sm_loader_lost_ready(struct sm_loader *l, struct batch *b, const char *why) {
    sm_loader_lost(l, b, why);
    if (b->buffer != NULL) sm_loader_buffer_release(l, b->buffer, b->bytes);
    b->buffer = NULL;
    b->base = NULL;
    free(b->pieces);
    b->pieces = NULL;
    b->endpoint[0] = 0; /* waits for a new announcement */
    b->state = BATCH_FETCHING;
}

/* Drops what the caller does not have yet: the same bytes come again, in the same order. */
void sm_loader_renew(struct sm_loader *l, const char *why) {
    while (l->ready != NULL) {
        struct batch *b = l->ready;
        l->ready = b->next;
        sm_loader_batch_free(l, b);
    }
    l->ready_n = 0;
    l->accepted = l->given;
    l->state = LOADER_ATTACHING;
    l->serial++; /* an answer to what was asked before comes too late */
    l->attach_at = 0;
    l->waits[0] = 0;
    text_copy(l->refusal, sizeof l->refusal, why);
}

/* Elsewhere, as a loader that is opened with the token, but that what the caller holds stays. */
static void seek(struct sm_loader *l) {
    l->seeking = false;
    l->given = l->seek;
    l->has_start = l->sought = true;
    l->ending = l->commit_pending = false;
    l->passes_at = 0;
    sm_loader_renew(l, "");
    l->audit = sm_loader_audit(l, l->given);
    sm_loader_counts_clear(l);
}

/* A fresh connection each time that nobody answers: libzmq waits longer and longer between its own
 * attempts. */
static void attach(struct sm_loader *l, int64_t now) {
    bool silent = now - l->heard_at > ATTACH_AGAIN_MS;
    if (l->socket != NULL && silent) {
        int linger = 0;
        zmq_setsockopt(l->socket, ZMQ_LINGER, &linger, sizeof linger);
        sm_watch_free(&l->watch);
        zmq_close(l->socket);
        l->socket = NULL;
    }
    struct sm_err err;
    struct sm_wire_security security = {.keys = l->keys, .watch = &l->watch};
    if (l->socket == NULL &&
        sm_wire_connect_with(l->context, l->broker, &security, &l->socket, &err) != 0) {
        sm_loader_fail(l, err.code, "%s", err.text);
        return;
    }
    Shardmill__Attach m = SHARDMILL__ATTACH__INIT;
    m.job = l->job;
    m.rank = l->rank;
    m.world_size = l->world_size;
    m.client = l->client;
    m.credit_bytes = l->credit != 0 ? l->credit : CREDIT_FIRST;
    m.host = l->host;
    m.has_token = l->has_start;
    m.again = l->known && !l->sought; /* where it goes on purpose is in a checkpoint */
    m.elsewhere = l->sought && l->known;
    m.serial = l->serial;
    m.epoch = l->given.epoch;
    m.position = l->given.position;
    m.pipeline_digest = l->pipeline_digest;
    m.dataset_digest = l->dataset_digest;
    m.seed = l->seed;
    uint64_t held[HELD_SAID_MAX];
    for (struct batch *b = l->held; b != NULL && m.n_held < HELD_SAID_MAX; b = b->next)
        if (b->map != NULL) held[m.n_held++] = b->attempt;
    m.held = held;
    sm_loader_say(l, SHARDMILL__ENVELOPE__BODY_ATTACH, &m);
    l->attach_at = now + ATTACH_AGAIN_MS;
}

static void text_copy(char *out, size_t n, const char *text) {
    size_t length = text != NULL ? strnlen(text, n - 1) : 0;
    if (length > 0) memcpy(out, text, length);
    out[length] = 0;
}

/* What the first Attached says holds for the loader's life. */
static bool take_job(struct sm_loader *l, const Shardmill__Attached *m) {
    const Shardmill__JobSpec *s = m->spec;
    if (s == NULL || s->batch_size == 0 || s->batch_size > SM_MAX_BATCH_SAMPLES ||
        m->positions == 0 || s->batch_bytes == 0 || s->batch_bytes > SM_MAX_BATCH_BYTES ||
        m->liveness == 0 || m->heartbeat_ms == 0) {
        sm_loader_fail(l, SM_E_PROTOCOL, "what the broker says about job '%s' cannot be", l->job);
        return false;
    }
    if (l->pipeline_digest[0] != 0 &&
        (strcmp(l->pipeline_digest, m->pipeline_digest) != 0 ||
         strcmp(l->dataset_digest, m->dataset_digest) != 0 || l->seed != s->seed)) {
        sm_loader_fail(l, SM_E_DIFFERS, "job '%s' now has another pipeline, dataset or seed",
                       l->job);
        return false;
    }
    if (l->known && (l->positions != m->positions || l->batch_size != s->batch_size ||
                     l->batch_bytes != s->batch_bytes || l->drop_last != s->drop_last)) {
        sm_loader_fail(l, SM_E_DIFFERS, "job '%s' now has batches of another size", l->job);
        return false;
    }
    if (!sm_loader_classes_take(l, s)) {
        sm_loader_fail(l, SM_E_MEMORY, "no memory for %zu classes", s->n_present);
        return false;
    }
    text_copy(l->pipeline_digest, sizeof l->pipeline_digest, m->pipeline_digest);
    text_copy(l->dataset_digest, sizeof l->dataset_digest, m->dataset_digest);
    text_copy(l->job_id, sizeof l->job_id, m->job);
    l->seed = s->seed;
    l->positions = m->positions;
    l->batch_size = s->batch_size;
    l->batch_bytes = s->batch_bytes;
    l->drop_last = s->drop_last;
    l->weights = (uint32_t)s->weights;
    l->epochs = s->epochs;
    l->heartbeat_ms = m->heartbeat_ms;
    l->liveness = m->liveness;
    struct cursor start = {0};
    l->steps = l->drop_last ? l->positions / sm_loader_step_samples(l)
                            : (l->positions - 1) / sm_loader_step_samples(l) + 1;
    if (!sm_loader_is_end(l, start)) return true;
    sm_loader_fail(l, SM_E_USAGE,
                   "an epoch of %" PRIu64 " samples has no whole step of %u ranks with %u samples "
                   "(hint: drop_last: false, or a smaller batch_size)",
                   l->positions, l->world_size, l->batch_size);
    return false;
}

/* The memory of batches that the caller holds is promised to it; should a broker that took us for
 * dead have given it away, the caller must hear it rather than train on a mixture. */
static bool held_are_whole(struct sm_loader *l) {
    for (struct batch *b = l->held; b != NULL; b = b->next) {
        char digest[SM_XXH_HEX];
        if (b->map == NULL || b->session == l->session) continue;
        struct sm_batch_header h;
        if (sm_batch_check(b->base, b->bytes, &h, NULL) == 0 &&
            memcmp(&h, &b->header, sizeof h) == 0) {
            sm_batch_digest(b->base, digest);
            if (strcmp(digest, b->digest) == 0) continue;
        }
        sm_loader_fail(
            l, SM_E_PEER,
            "the batch of epoch %u, position %" PRIu64
            " was written over while you held it, since this process had been silent for "
            "too long (hint: restart from your checkpoint)",
            b->epoch, b->position);
        return false;
    }
    return true;
}

static void on_attached(struct sm_loader *l, const Shardmill__Attached *m) {
    if (m->serial != l->serial) {
        l->counts.stale++;
        return;
    }
    if (l->state == LOADER_ATTACHED) {
        /* an answer to an Attach that was said twice: the newer session is the one that counts */
        if (m->session != l->session) sm_loader_renew(l, "");
        return;
    }
    if (!take_job(l, m)) return;
    if (!l->credit_asked) {
        l->credit_asked = true;
        if (l->credit == 0) {
            l->credit = CREDIT_FIRST;
            if (l->batch_bytes * CREDIT_BATCHES > CREDIT_FIRST) {
                l->credit = l->batch_bytes * CREDIT_BATCHES;
                l->attach_at = 0;
                return;
            }
        }
    }
    struct cursor at = {.epoch = m->epoch, .position = m->position};
    if (at.position == l->positions) at = (struct cursor){.epoch = at.epoch + 1};
    struct cursor want = l->given;
    if (want.position == l->positions) want = (struct cursor){.epoch = want.epoch + 1};
    if (at.position > l->positions ||
        (l->has_start && (at.epoch != want.epoch || at.position != want.position))) {
        sm_loader_fail(l, SM_E_PROTOCOL,
                       "the broker begins at epoch %u, position %" PRIu64 " instead of epoch %u, "
                       "position %" PRIu64,
                       at.epoch, at.position, want.epoch, want.position);
        return;
    }
    l->session = m->session;
    if (!held_are_whole(l)) return;
    l->given = l->accepted = at;
    l->has_start = true;
    bool enters = !l->known || l->sought;
    if (enters) {
        l->audit = sm_loader_audit(l, at);
        sm_loader_counts_clear(l);
    }
    if (enters && sm_loader_is_end(l, at)) {
        l->given = l->accepted = (struct cursor){.epoch = at.epoch + 1};
        l->ending = true;
    }
    l->known = true;
    l->sought = false;
    l->state = LOADER_ATTACHED;
    l->passes_at = 0;
    l->counts.attached++;
    l->silent_since = 0;
    l->refusal[0] = 0;
    l->commit_at = 0;
}

/* The batch with this place, among those that wait or are fetched. */
static struct batch *ready_find(struct sm_loader *l, const Shardmill__Batch *m) {
    for (struct batch *b = l->ready; b != NULL; b = b->next)
        if (b->epoch == m->epoch && b->first == m->first) return b;
    return NULL;
}

static bool held_has(const struct sm_loader *l, const Shardmill__Batch *m) {
    for (const struct batch *b = l->held; b != NULL; b = b->next)
        if (b->session == m->session && b->epoch == m->epoch && b->step == m->step) return true;
    return false;
}

/* Brings the bytes: 0 when they are there or on their way. */
static int batch_bring(struct sm_loader *l, struct batch *b, const Shardmill__Batch *m) {
    struct sm_err err = {0};
    if (b->buffer != NULL) sm_loader_buffer_release(l, b->buffer, b->bytes);
    free(b->pieces);
    b->buffer = b->pieces = NULL;
    b->endpoint[0] = 0;
    b->attempt = m->attempt;
    b->offset = m->offset;
    b->step = m->step;
    text_copy(b->digest, sizeof b->digest, m->digest);
    int rc = 1;
    bool here = l->host[0] != 0 && strcmp(m->worker_host, l->host) == 0;
    if (here && !l->only_tcp) rc = sm_loader_map(l, b, m->fd_socket, &err);
    if (rc == 0 && (b->header.count != b->count || b->header.epoch != b->epoch ||
                    b->header.first != b->first || b->header.bytes != b->bytes)) {
        sm_loader_unmap(b->map);
        b->map = NULL;
        rc = sm_fail(&err, SM_E_PROTOCOL, "another batch lies where this one was announced");
    }
    if (rc == 0) {
        b->state = BATCH_READY;
        l->used_shm = true;
        return 0;
    }
    if (rc == 1 && l->only_shm && !here)
        rc = sm_fail(&err, SM_E_PEER, "the worker is on another host, and only memory is allowed");
    else if (rc == 1 && (l->only_shm || (here && l->used_shm)))
        rc = -1; /* its like did answer: this one is dead */
    if (rc == 1) {
        text_copy(b->endpoint, sizeof b->endpoint, m->data_endpoint);
        text_copy(b->key, sizeof b->key, m->data_public_key);
        rc = sm_loader_fetch(l, b, &err);
    }
    if (rc == 0) return 0;
    text_copy(l->refusal, sizeof l->refusal, err.text);
    sm_loader_lost(l, b, err.text);
    return -1;
}

static void on_batch(struct sm_loader *l, const Shardmill__Batch *m) {
    if (l->state != LOADER_ATTACHED || m->session != l->session) {
        l->counts.stale++;
        return;
    }
    if (was_lost(l, m)) {
        lost_again(l, m);
        return;
    }
    struct batch *known = ready_find(l, m);
    if (known != NULL) {
        if (known->state != BATCH_FETCHING || m->bytes != known->bytes ||
            m->attempt == known->attempt)
            l->counts.doubled++;
        else /* made by another worker, since the first is gone */
            batch_bring(l, known, m);
        return;
    }
    if (held_has(l, m)) {
        l->counts.doubled++;
        return;
    }
    uint64_t first = l->accepted.position + (uint64_t)l->rank * l->batch_size;
    if (m->epoch != l->accepted.epoch || m->first != first) {
        bool behind =
            m->epoch < l->accepted.epoch || (m->epoch == l->accepted.epoch && m->first < first);
        if (!behind) {
            l->counts.gaps++; /* one before it is missing, and will be said again */
            return;
        }
        Shardmill__Release release = SHARDMILL__RELEASE__INIT; /* the first one was lost */
        release.session = m->session;
        release.epoch = m->epoch;
        release.step = m->step;
        sm_loader_say(l, SHARDMILL__ENVELOPE__BODY_RELEASE, &release);
        l->counts.doubled++;
        return;
    }
    if (m->count != l->batch_size || m->padding > m->count || m->bytes > SM_MAX_BATCH_BYTES ||
        m->bytes < SM_BATCH_HEADER || l->ready_n >= LOADER_WINDOW_MAX ||
        (l->epochs != 0 && m->epoch >= l->epochs)) {
        l->counts.garbage++;
        return;
    }
    struct batch *b = calloc(1, sizeof *b);
    if (b == NULL) return; /* it will be said again */
    *b = (struct batch){.session = m->session,
                        .bytes = m->bytes,
                        .epoch = m->epoch,
                        .position = l->accepted.position,
                        .first = m->first,
                        .count = m->count,
                        .padding = m->padding};
    if (batch_bring(l, b, m) != 0) {
        free(b);
        return;
    }
    struct batch **end = &l->ready;
    while (*end != NULL)
        end = &(*end)->next;
    *end = b;
    l->ready_n++;
    l->refusal[0] = 0;
    l->accepted = sm_loader_after(l, l->accepted);
}

static void on_committed(struct sm_loader *l, const Shardmill__Committed *m) {
    if (m->session != l->session) return;
    l->committed = (struct cursor){.epoch = m->epoch, .position = m->position};
    l->has_committed = true;
    if (l->commit_pending && (m->epoch > l->commit.epoch ||
                              (m->epoch == l->commit.epoch && m->position >= l->commit.position)))
        l->commit_pending = false;
}

static void on_epoch_end(struct sm_loader *l, const Shardmill__EpochEnd *m) {
    if (m->session != l->session || !l->has_last_audit || m->epoch != l->last_audit.epoch) return;
    struct audit *a = &l->last_audit;
    a->broker_said = true;
    a->quarantined = m->quarantined;
    a->broker_agrees = m->planned == a->planned && m->delivered == a->delivered &&
                       m->padded == a->padded && m->dropped == a->dropped;
}

static void on_refused(struct sm_loader *l, const Shardmill__Refused *m) {
    char text[600];
    text_copy(text, sizeof text, m->text);
    if (l->state == LOADER_ATTACHING) {
        /* after a restart of the broker, or of ours, the old session may still be remembered: who
         * opens waits until a dead one would be forgotten, who trains for as long as it takes */
        if (l->passes_at == 0) l->passes_at = l->heard_at + m->wait_ms;
        bool passes = m->wait_ms > 0 && l->heard_at <= l->passes_at;
        if (passes || (l->known && m->code == SM_E_BUSY))
            text_copy(l->refusal, sizeof l->refusal, text);
        else
            sm_loader_fail(l, (enum sm_code)(m->code < SM_E_COUNT ? m->code : SM_E_PROTOCOL), "%s",
                           text);
    } else if (sm_loader_classes_refused(l, m)) {
        return; /* the session goes on without names */
    } else if (l->commit_pending) {
        l->commit_pending = false;
        text_copy(l->commit_refusal, sizeof l->commit_refusal, text);
    } else if (m->code == SM_E_CANCELLED) {
        sm_loader_fail(l, SM_E_CANCELLED, "%s", text);
    } else {
        sm_loader_renew(l, text);
    }
}
