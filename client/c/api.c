/* What a trainer calls: open, next, release, state, commit, seek, info, classes, close. Each call
 * takes the loader's lock, looks at what the background thread (thread.c) has brought, and waits on
 * the loader's condition when that is not enough; every wait has an end and a sentence. */
#include "client/c/loader.h"

#include "lib/handover.h"
#include "lib/keys.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { OPEN_MS = 30000, CLOSE_MS = 900, FOR_EVER = -1 };

/* The last failure of any loader in this thread: what is left to read when the loader is gone. */
static _Thread_local struct sm_err thread_err;

static int fail(struct sm_loader *l, const struct sm_err *err);
static int options_check(const struct sm_open_options *o, struct sm_err *err);
static struct sm_loader *loader_new(const struct sm_open_options *o, struct sm_err *err);
static int loader_start(struct sm_loader *l, struct sm_err *err);
static int wait_attached(struct sm_loader *l, int timeout_ms, struct sm_err *err);
static int enter(struct sm_loader *l, struct sm_err *err);
static void leave(struct sm_loader *l);
static bool wait_until(struct sm_loader *l, int64_t deadline_ns);
static int64_t deadline_of(int timeout_ms);
static int hand_out(struct sm_loader *l, struct sm_batch_view *view);
static int epoch_end(struct sm_loader *l);

int sm_open(struct sm_loader **loader, const struct sm_open_options *options) {
    struct sm_err err = {0};
    assert(loader != NULL && options != NULL);
    *loader = NULL;
    if (options_check(options, &err) != 0) return fail(NULL, &err);
    struct sm_loader *l = loader_new(options, &err);
    if (l == NULL) return fail(NULL, &err);
    if (loader_start(l, &err) != 0) {
        sm_loader_free(l);
        return fail(NULL, &err);
    }
    if (wait_attached(l, options->timeout_ms, &err) != 0) {
        sm_close(&l);
        return fail(NULL, &err);
    }
    *loader = l;
    return 0;
}

/* What a program of that version holds. */
static size_t view_bytes(const struct sm_loader *l) {
    return l->api_version < 2 ? offsetof(struct sm_batch_view, weight)
                              : sizeof(struct sm_batch_view);
}

int sm_next(struct sm_loader *l, struct sm_batch_view *view, int timeout_ms) {
    struct sm_err err = {0};
    assert(l != NULL && view != NULL);
    memset(view, 0, view_bytes(l));
    if (enter(l, &err) != 0) return fail(l, &err);
    int64_t began = sm_now_ns(), deadline = deadline_of(timeout_ms);
    int rc = 0;
    while (rc == 0) {
        if (atomic_exchange(&l->interrupted, false))
            rc = sm_fail(&err, SM_E_CANCELLED, "interrupted");
        else if (atomic_load(&l->closing))
            rc = sm_fail(&err, SM_E_CANCELLED, "the loader was closed");
        else if (l->ending)
            rc = epoch_end(l);
        else if (l->epochs != 0 && l->given.epoch >= l->epochs)
            rc = SM_NEXT_JOB_END;
        else if (l->ready != NULL && l->ready->state == BATCH_READY)
            rc = hand_out(l, view);
        else if (l->state == LOADER_FAILED) {
            err = l->failure;
            rc = -1;
        } else if (!wait_until(l, deadline)) {
            char why[1000];
            sm_loader_waits(l, why, sizeof why);
            rc = sm_fail(&err, SM_E_TIMEOUT, "no batch within %d ms: %s", timeout_ms, why);
        }
    }
    uint64_t waited = (uint64_t)(sm_now_ns() - began);
    l->counts.waits++;
    l->counts.wait_ns += waited;
    if (waited > l->counts.wait_max_ns) l->counts.wait_max_ns = waited;
    leave(l);
    return rc < 0 ? fail(l, &err) : rc;
}

/* The oldest batch that is ready becomes the caller's. */
static int hand_out(struct sm_loader *l, struct sm_batch_view *v) {
    struct batch *b = l->ready;
    const struct sm_batch_header *h = &b->header;
    l->ready = b->next;
    l->ready_n--;
    b->next = l->held;
    l->held = b;
    l->held_n++;
    b->state = BATCH_HELD;
    v->epoch = b->epoch;
    v->step = b->position / sm_loader_step_samples(l);
    v->count = b->count;
    v->padding = b->padding;
    v->type = (int)h->dtype;
    v->ndim = h->layout == LAYOUT_ROWS ? 2 : 4;
    const int64_t shapes[LAYOUTS][4] = {{h->count, h->channels, h->height, h->width},
                                        {h->count, h->height, h->width, h->channels},
                                        {h->count, h->width, 1, 1}};
    memcpy(v->shape, shapes[h->layout], sizeof v->shape);
    v->data = b->base + h->tensor;
    v->data_bytes = (size_t)(sm_batch_sample_bytes(h) * h->count);
    v->label = (const int64_t *)(const void *)(b->base + h->label);
    v->index = (const uint64_t *)(const void *)(b->base + h->index);
    v->position = (const uint64_t *)(const void *)(b->base + h->position);
    v->flags = b->base + h->flags;
    if (h->weight != 0 && l->api_version >= 2)
        v->weight = (const float *)(const void *)(b->base + h->weight);
    memcpy(v->digest, b->digest, sizeof b->digest);
    v->handle = b;

    struct audit *a = &l->audit;
    a->steps++;
    a->delivered += b->count - b->padding;
    a->padded += b->padding;
    for (uint32_t i = 0; i < b->count; i++)
        if (v->flags[i] == SM_BATCH_SUBSTITUTE) a->substituted++; /* padding is counted once */
    sm_loader_counts_add(l, v);
    sm_batch_chain(a->digest, b->digest);
    l->counts.batches++;
    l->counts.bytes += b->bytes;
    memcpy(l->shape, v->shape, sizeof l->shape);
    l->dtype = v->type;
    l->layout = (int)h->layout;
    l->given = sm_loader_after(l, (struct cursor){.epoch = b->epoch, .position = b->position});
    l->ending = l->given.epoch != b->epoch;
    return SM_NEXT_BATCH;
}

static int epoch_end(struct sm_loader *l) {
    l->ending = false;
    l->last_audit = l->audit;
    l->has_last_audit = true;
    sm_loader_counts_epoch(l);
    l->audit = sm_loader_audit(l, l->given);
    return SM_NEXT_EPOCH_END;
}

int sm_release(struct sm_loader *l, struct sm_batch_view *view) {
    struct sm_err err = {0};
    assert(view != NULL);
    if (view->handle == NULL) return 0;
    if (enter(l, &err) != 0) return fail(l, &err);
    struct batch **p = &l->held;
    while (*p != NULL && *p != view->handle)
        p = &(*p)->next;
    struct batch *b = *p;
    if (b != NULL) {
        *p = b->next;
        l->held_n--;
        struct batch **end = &l->freed;
        while (*end != NULL)
            end = &(*end)->next;
        b->next = NULL;
        *end = b;
    }
    leave(l);
    if (b == NULL) {
        sm_fail(&err, SM_E_USAGE, "this view is not of this loader, or was released before");
        return fail(l, &err);
    }
    sm_loader_wake(l);
    view->data = NULL;
    view->label = NULL;
    view->index = view->position = NULL;
    view->flags = NULL;
    view->handle = NULL;
    return 0;
}

int sm_state(struct sm_loader *l, char *text, size_t n) {
    struct sm_err err = {0};
    if (enter(l, &err) != 0) return fail(l, &err);
    int length = sm_loader_token_write(l, l->given, text, n);
    leave(l);
    if ((size_t)length < n) return length;
    sm_fail(&err, SM_E_USAGE, "a token has %d bytes and there is room for %zu", length + 1, n);
    return fail(l, &err);
}

/* Whether a token is of this job. */
static int token_check(const struct sm_loader *l, const struct token *t, struct sm_err *err) {
    const char *what = strcmp(t->pipeline_digest, l->pipeline_digest) != 0 ? "pipeline"
                       : strcmp(t->dataset_digest, l->dataset_digest) != 0 ? "dataset"
                       : t->seed != l->seed                                ? "seed"
                                                                           : NULL;
    if (what != NULL)
        return sm_fail(err, SM_E_DIFFERS, "the token is of another %s than job '%s'", what, l->job);
    bool beyond = t->at.epoch > l->epochs || (t->at.epoch == l->epochs && t->at.position > 0);
    if (l->epochs != 0 && beyond)
        return sm_fail(err, SM_E_DIFFERS, "the token is in epoch %u, and job '%s' has %u",
                       t->at.epoch, l->job, l->epochs);
    if (t->at.position <= l->positions) return 0;
    return sm_fail(err, SM_E_USAGE, "the token is at position %" PRIu64 " of %" PRIu64,
                   t->at.position, l->positions);
}

static int token_take(const char *text, struct token *t, struct sm_err *err) {
    return text != NULL ? sm_loader_token_read(text, t, err)
                        : sm_fail(err, SM_E_USAGE, "no token (hint: what sm_state wrote)");
}

int sm_commit(struct sm_loader *l, const char *text, int timeout_ms) {
    struct sm_err err = {0};
    struct token token;
    if (token_take(text, &token, &err) != 0) return fail(l, &err);
    if (enter(l, &err) != 0) return fail(l, &err);
    int rc = token_check(l, &token, &err);
    if (rc == 0) {
        l->commit = token.at;
        l->commit_pending = true;
        l->commit_refusal[0] = 0;
        l->commit_at = 0;
        sm_loader_wake(l);
    }
    int64_t deadline = deadline_of(timeout_ms);
    while (rc == 0 && timeout_ms != 0 && l->commit_pending) {
        if (atomic_load(&l->closing))
            rc = sm_fail(&err, SM_E_CANCELLED, "the loader was closed");
        else if (l->state == LOADER_FAILED) {
            err = l->failure;
            rc = -1;
        } else if (!wait_until(l, deadline))
            rc = sm_fail(&err, SM_E_TIMEOUT,
                         "the broker at '%s' did not confirm the commit within %d ms; it is said "
                         "again until it does",
                         l->broker, timeout_ms);
    }
    if (rc == 0 && l->commit_refusal[0] != 0)
        rc = sm_fail(&err, SM_E_USAGE, "%s", l->commit_refusal);
    leave(l);
    return rc != 0 ? fail(l, &err) : 0;
}

int sm_seek(struct sm_loader *l, const char *text) {
    struct sm_err err = {0};
    struct token token;
    if (token_take(text, &token, &err) != 0) return fail(l, &err);
    if (enter(l, &err) != 0) return fail(l, &err);
    int rc = token_check(l, &token, &err);
    if (rc == 0) {
        bool end = token.at.position == l->positions;
        l->seek = end ? (struct cursor){.epoch = token.at.epoch + 1} : token.at;
        l->seeking = true;
        sm_loader_wake(l);
    }
    /* the thread does it between two messages: at once, or when a worker has handed its memory out
     */
    while (l->seeking && !atomic_load(&l->closing))
        wait_until(l, FOR_EVER);
    leave(l);
    return rc != 0 ? fail(l, &err) : 0;
}

int sm_classes(struct sm_loader *l, char *json, size_t n, int timeout_ms) {
    struct sm_err err = {0};
    if (enter(l, &err) != 0) return fail(l, &err);
    struct classes *c = &l->classes;
    int64_t deadline = deadline_of(timeout_ms);
    int rc = 0;
    c->wanted = true;
    c->refusal.code = SM_E_OK;
    if (!c->here) sm_loader_wake(l);
    while (rc == 0 && !c->here) {
        if (atomic_load(&l->closing))
            rc = sm_fail(&err, SM_E_CANCELLED, "the loader was closed");
        else if (l->state == LOADER_FAILED || c->refusal.code != SM_E_OK) {
            err = l->state == LOADER_FAILED ? l->failure : c->refusal;
            rc = -1;
        } else if (!wait_until(l, deadline))
            rc = sm_fail(&err, SM_E_TIMEOUT,
                         "the broker at '%s' did not tell the classes' names within %d ms",
                         l->broker, timeout_ms);
    }
    if (rc == 0) rc = sm_loader_classes_write(l, json, n);
    if (rc == 0) sm_fail(&err, SM_E_MEMORY, "no memory for the classes' names");
    leave(l);
    return rc > 0 ? rc : fail(l, &err);
}

int sm_class_counts(struct sm_loader *l, struct sm_class_count *counts, size_t n) {
    struct sm_err err = {0};
    if (enter(l, &err) != 0) return fail(l, &err);
    const int classes = (int)l->n_class_counts;
    if (n > l->n_class_counts) n = l->n_class_counts;
    if (n > 0) memcpy(counts, l->class_counts, n * sizeof *counts);
    leave(l);
    return classes;
}

int sm_info(struct sm_loader *l, char *json, size_t n) {
    struct sm_err err = {0};
    if (enter(l, &err) != 0) return fail(l, &err);
    int length = sm_loader_info(l, json, n);
    leave(l);
    if (length >= 0 && (size_t)length < n) return length;
    sm_fail(&err, SM_E_USAGE, "the facts do not fit into %zu bytes (hint: 8192 is enough)", n);
    return fail(l, &err);
}

void sm_interrupt(struct sm_loader *l) {
    if (l == NULL || l->pid != getpid()) return;
    atomic_store(&l->interrupted, true);
    sm_loader_wake(l);
}

void sm_close(struct sm_loader **loader) {
    struct sm_loader *l = loader != NULL ? *loader : NULL;
    if (l == NULL) return;
    *loader = NULL;
    if (l->pid != getpid()) return; /* the parent's: nothing of it is touched here */
    atomic_store(&l->closing, true);
    sm_loader_wake(l);
    pthread_mutex_lock(&l->lock);
    pthread_cond_broadcast(&l->changed);
    int64_t deadline = deadline_of(CLOSE_MS);
    while (l->inside > 0 || (l->state != LOADER_CLOSED && wait_until(l, deadline)))
        if (l->inside > 0) wait_until(l, deadline_of(CLOSE_MS)); /* they leave at once */
    pthread_t thread = l->thread;
    bool ended = l->state == LOADER_CLOSED;
    bool last = --l->owners == 0;
    pthread_mutex_unlock(&l->lock);
    /* a thread that is still caught in the resolver of names frees the loader when it gets out */
    if (ended)
        pthread_join(thread, NULL);
    else
        pthread_detach(thread);
    if (last) sm_loader_free(l);
}

static const struct sm_err *last(const struct sm_loader *l) {
    return l != NULL && l->err.text[0] != 0 ? &l->err : &thread_err;
}

const char *sm_last_error(const struct sm_loader *l) {
    return last(l)->text;
}

const char *sm_last_code(const struct sm_loader *l) {
    return sm_code_word(last(l)->code);
}

const char *sm_version(void) {
    return SM_VERSION;
}

static int fail(struct sm_loader *l, const struct sm_err *err) {
    thread_err = *err;
    if (l != NULL) l->err = *err;
    return -1;
}

static int options_check(const struct sm_open_options *o, struct sm_err *err) {
    if (o->api_version < 1 || o->api_version > SM_API_VERSION)
        return sm_fail(err, SM_E_USAGE, "api_version is %u, and this library has %d",
                       o->api_version, SM_API_VERSION);
    if (o->broker == NULL || o->broker[0] == 0 || strlen(o->broker) >= LOADER_ENDPOINT)
        return sm_fail(err, SM_E_USAGE,
                       "no broker to connect to (hint: broker = \"tcp://127.0.0.1:5570\")");
    if (o->job == NULL || o->job[0] == 0 || strlen(o->job) >= sizeof((struct sm_loader *)0)->job)
        return sm_fail(err, SM_E_USAGE, "no job (hint: its name or id; shardmill jobs lists them)");
    uint32_t world = o->world_size != 0 ? o->world_size : 1;
    if (o->rank >= world)
        return sm_fail(err, SM_E_USAGE, "rank %u in a world of %u (hint: ranks count from 0)",
                       o->rank, world);
    if (o->transport != NULL && o->transport[0] != 0 && strcmp(o->transport, "shm") != 0 &&
        strcmp(o->transport, "tcp") != 0)
        return sm_fail(err, SM_E_USAGE, "transport '%s' is neither 'shm' nor 'tcp'", o->transport);
    return 0;
}

static void condition_init(pthread_cond_t *c) {
    pthread_condattr_t a;
    pthread_condattr_init(&a);
    pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
    pthread_cond_init(c, &a);
    pthread_condattr_destroy(&a);
}

static struct sm_loader *loader_new(const struct sm_open_options *o, struct sm_err *err) {
    struct token token = {0};
    bool has_token = o->token != NULL && o->token[0] != 0;
    if (has_token && sm_loader_token_read(o->token, &token, err) != 0) return NULL;
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != sizeof random) {
        sm_fail_errno(err, "cannot get random bytes");
        return NULL;
    }
    struct sm_loader *l = calloc(1, sizeof *l);
    if (l == NULL) {
        sm_fail(err, SM_E_MEMORY, "no memory for a loader");
        return NULL;
    }
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake < 0) {
        sm_fail_errno(err, "cannot make an eventfd");
        free(l);
        return NULL;
    }
    pthread_mutex_init(&l->lock, NULL);
    condition_init(&l->changed);
    l->pid = getpid();
    snprintf(l->broker, sizeof l->broker, "%s", o->broker);
    snprintf(l->job, sizeof l->job, "%s", o->job);
    snprintf(l->client, sizeof l->client, "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    l->api_version = o->api_version;
    l->rank = o->rank;
    l->world_size = o->world_size != 0 ? o->world_size : 1;
    l->only_shm = o->transport != NULL && strcmp(o->transport, "shm") == 0;
    l->only_tcp = o->transport != NULL && strcmp(o->transport, "tcp") == 0;
    l->credit = o->credit_bytes;
    l->heartbeat_ms = 1000;
    l->liveness = 3;
    sm_handover_host(l->host);
    if (has_token) {
        l->has_start = true;
        l->given = l->accepted = token.at;
        l->seed = token.seed;
        memcpy(l->pipeline_digest, token.pipeline_digest, sizeof l->pipeline_digest);
        memcpy(l->dataset_digest, token.dataset_digest, sizeof l->dataset_digest);
    }
    if (sm_keys_load(o->key_dir, &l->keys, err) != 0) {
        sm_loader_free(l);
        return NULL;
    }
    return l;
}

static int loader_start(struct sm_loader *l, struct sm_err *err) {
    l->context = zmq_ctx_new();
    if (l->context == NULL) return sm_fail_errno(err, "cannot start ZeroMQ");
    l->opened_at = l->heard_at = sm_now_ms();
    l->owners = 2;
    sigset_t all, before; /* the caller's signals are for the caller's threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&l->thread, NULL, sm_loader_thread, l);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0) return 0;
    zmq_ctx_term(l->context);
    return sm_fail(err, SM_E_MEMORY, "cannot start a thread: %s", strerror(rc));
}

static int wait_attached(struct sm_loader *l, int timeout_ms, struct sm_err *err) {
    int64_t deadline = deadline_of(timeout_ms > 0 ? timeout_ms : OPEN_MS);
    int rc = 0;
    pthread_mutex_lock(&l->lock);
    while (rc == 0 && l->state != LOADER_ATTACHED) {
        if (l->state == LOADER_FAILED) {
            *err = l->failure;
            rc = -1;
        } else if (!wait_until(l, deadline)) {
            char why[1000];
            sm_loader_waits(l, why, sizeof why);
            rc = sm_fail(err, SM_E_TIMEOUT, "cannot open job '%s': %s", l->job, why);
        }
    }
    pthread_mutex_unlock(&l->lock);
    return rc;
}

/* Into the loader, locked; a forked child is kept out before it touches anything. */
static int enter(struct sm_loader *l, struct sm_err *err) {
    assert(l != NULL);
    if (l->pid != getpid())
        return sm_fail(err, SM_E_USAGE,
                       "this loader belongs to process %d, which forked this one (hint: open a "
                       "loader of its own in the child)",
                       (int)l->pid);
    pthread_mutex_lock(&l->lock);
    if (atomic_load(&l->closing)) {
        pthread_mutex_unlock(&l->lock);
        return sm_fail(err, SM_E_CANCELLED, "the loader was closed");
    }
    l->inside++;
    return 0;
}

static void leave(struct sm_loader *l) {
    if (--l->inside == 0 && atomic_load(&l->closing)) pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static int64_t deadline_of(int timeout_ms) {
    return timeout_ms < 0 ? FOR_EVER : sm_now_ns() + (int64_t)timeout_ms * 1000000;
}

/* false: the deadline is over. */
static bool wait_until(struct sm_loader *l, int64_t deadline) {
    if (deadline == FOR_EVER) {
        pthread_cond_wait(&l->changed, &l->lock);
        return true;
    }
    struct timespec t = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    return pthread_cond_timedwait(&l->changed, &l->lock, &t) != ETIMEDOUT;
}
