/* The worker's loop: one DEALER to the broker, the cage's descriptor, the disk's, trainers'. Leases
 * come in here, lease.c makes them, disk.c stores parts, batches.c keeps batches, and their results
 * are told until the broker's Ack says that its journal holds them. */
#include "workers/shell.h"

#include "lib/handover.h"
#include "lib/limits.h"
#include "lib/wire.h"
#include "workers/batches.h"
#include "workers/data.h"
#include "workers/disk.h"
#include "workers/job.h"

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

enum {
    HELD_MAX = 4,         /* leases: in work, next, and told but not acknowledged */
    JOBS_MAX = 2,         /* kept ready; each has a cage */
    TELL_AGAIN_MS = 1000, /* a result or question without an answer is sent again */
    PROGRESS_MS = 200,
    BACKOFF_MS = 250,
    BACKOFF_MAX_MS = 5000,
    POLL_MAX_MS = 250, /* how long a signal may go unseen when it comes just before the poll */
    ROOM_MS = 200,     /* a batch waits so long for memory before its lease goes back */
    STOP_MS = 600,     /* for the disk, of the second that a stop may take */
    KEPT_BEATS =
        10, /* heartbeats after which the broker is asked whether a batch is still wanted */
};

enum held_state { HELD_FREE, HELD_WAITING, HELD_MAKING, HELD_STORING, HELD_TOLD };

/* A lease from its arrival to the Ack of its result. */
struct held {
    enum held_state state;
    sm_envelope *message; /* owns the lease */
    const Shardmill__Lease *m;
    uint64_t order; /* of arrival */
    struct sm_lease *lease;
    struct sm_quarantined *bad;
    size_t n_bad;
    uint32_t cages;
    bool revoked; /* wanted no more, but the disk has it yet */
    int64_t told_ms;
    int failed;
    struct sm_err err;
    uint64_t bytes;
    char sha256[SM_SHA_HEX];
    uint64_t offset; /* STEP: of its slot */
    char digest[SM_XXH_HEX];
    int64_t no_room_ms; /* since when it has waited for batch memory; 0: it has not */
};

struct worker {
    const struct sm_worker_options *options;
    struct sm_job_options job_options;
    void *context, *socket;
    struct sm_watch *watch; /* handshakes with the broker */
    bool trouble_told;
    struct sm_disk *disk;
    struct sm_batches *batches;
    struct sm_data *data;
    char name[128], host[SM_HANDOVER_HOST];
    struct held held[HELD_MAX];
    uint64_t arrivals;
    struct sm_job *jobs[JOBS_MAX];
    uint64_t job_clock;
    bool welcome, ready_told;
    uint32_t heartbeat_ms, liveness;
    int64_t heard_ms, said_ms, connected_ms, progress_ms;
    int backoff_ms;
    uint32_t progress_done;
    uint64_t cages_before; /* replaced cages that were reported already */
};

static int worker_open(struct worker *w, struct sm_err *err);
static void worker_close(struct worker *w);
static int tick(struct worker *w, int64_t now, struct sm_err *err);
static void await_event(struct worker *w, int sleep_ms);
static void receive(struct worker *w);
static void handle(struct worker *w, sm_envelope **message);
static int connect_broker(struct worker *w, struct sm_err *err);
static void say_hello(struct worker *w);
static void tell(struct worker *w, struct held *h);
static void step_lease(struct worker *w, struct held *h);
static void take_stored(struct worker *w);
static void forget_batches(struct worker *w);
static void start_step(struct worker *w, struct held *h, struct sm_job *job, int64_t now);
static struct held *find_attempt(struct worker *w, const char *job, uint64_t attempt);

int sm_worker_run(const struct sm_worker_options *options, const volatile sig_atomic_t *stop,
                  struct sm_err *err) {
    mallopt(M_ARENA_MAX, 2); /* libzmq's threads and ours: more arenas only spread the heap */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of write(), with a name */
    struct worker w = {
        .options = options,
        .job_options = {options->no_sandbox, options->no_fuse, options->cage_memory}};
    int failed = worker_open(&w, err);
    while (!failed && !*stop) {
        int sleep_ms = tick(&w, sm_now_ms(), err);
        failed = sleep_ms < 0 ? -1 : 0;
        if (!failed) await_event(&w, sleep_ms);
    }
    worker_close(&w);
    return failed;
}

static uint64_t batch_memory(const struct worker *w) {
    return w->options->batch_memory != 0 ? w->options->batch_memory : SM_BATCH_MEMORY_BYTES;
}

static int worker_open(struct worker *w, struct sm_err *err) {
    char host[64] = "?";
    gethostname(host, sizeof host - 1);
    snprintf(w->name, sizeof w->name, "%s/%ld", host, (long)getpid());
    w->heartbeat_ms = w->options->heartbeat_ms != 0 ? w->options->heartbeat_ms : 1000;
    w->liveness = 3;
    w->backoff_ms = BACKOFF_MS;
    w->disk = sm_disk_start(err);
    if (w->disk == NULL) return -1;
    sm_handover_host(w->host);
    if (sm_batches_new(&w->batches, batch_memory(w), err) != 0) return -1;
    w->context = zmq_ctx_new();
    if (w->context == NULL) return sm_fail_errno(err, "cannot start ZeroMQ");
    const struct sm_data_options data = {.bind = w->options->data_bind,
                                         .advertise = w->options->advertise,
                                         .keys = w->options->keys};
    if (sm_data_open(&w->data, w->context, &data, err) != 0) return -1;
    return connect_broker(w, err);
}

/* ---- messages out ---- */

/* Sends, if there is room; everything that matters is sent again anyway. */
static void send_body(struct worker *w, sm_envelope *e, Shardmill__Envelope__BodyCase which) {
    e->protocol = SM_PROTOCOL;
    e->body_case = which;
    struct sm_err err = {0};
    if (sm_wire_send(w->socket, NULL, e, &err) < 0)
        fprintf(stderr, "shardmill worker: %s\n", err.text);
    w->said_ms = sm_now_ms();
}

#define SEND(w, field, which, body)                                  \
    do {                                                             \
        sm_envelope envelope_ = SHARDMILL__ENVELOPE__INIT;           \
        envelope_.field = (body);                                    \
        send_body(w, &envelope_, SHARDMILL__ENVELOPE__BODY_##which); \
    } while (0)

/* Says once why it cannot get through to the broker, and goes on trying: its key may be let in
 * later. */
static void trouble_tell(struct worker *w) {
    struct sm_err err = {0};
    if (w->trouble_told || !sm_watch_hopeless(w->watch, &err)) return;
    fprintf(stderr, "shardmill worker: %s\n", err.text);
    w->trouble_told = true;
}

static int connect_broker(struct worker *w, struct sm_err *err) {
    if (w->socket != NULL) {
        int none = 0;
        sm_watch_free(&w->watch);
        zmq_setsockopt(w->socket, ZMQ_LINGER, &none, sizeof none);
        zmq_close(w->socket);
        w->socket = NULL;
    }
    const struct sm_wire_security security = {.keys = w->options->keys, .watch = &w->watch};
    if (sm_wire_connect_with(w->context, w->options->endpoint, &security, &w->socket, err) != 0)
        return -1;
    w->connected_ms = w->heard_ms = sm_now_ms();
    w->welcome = false;
    say_hello(w);
    return 0;
}

static void say_hello(struct worker *w) {
    Shardmill__Hello hello = SHARDMILL__HELLO__INIT;
    Shardmill__Holding holding[HELD_MAX], *list[HELD_MAX];
    forget_batches(w);
    hello.host = w->host;
    hello.fd_socket = (char *)sm_batches_address(w->batches);
    hello.data_endpoint = (char *)sm_data_endpoint(w->data);
    hello.data_public_key = (char *)sm_data_public_key(w->data);
    hello.batch_memory = sm_batches_bytes(w->batches);
    hello.name = w->name;
    hello.fingerprint = (char *)sm_engine_fingerprint();
    hello.heartbeat_ms = w->options->heartbeat_ms;
    hello.holding = list;
    for (int i = 0; i < HELD_MAX; i++) {
        const struct held *h = &w->held[i];
        if (h->state == HELD_FREE || h->revoked) continue;
        Shardmill__Holding *k = list[hello.n_holding] = &holding[hello.n_holding];
        hello.n_holding++;
        shardmill__holding__init(k);
        k->job = h->m->job;
        k->kind = h->m->kind;
        k->attempt = h->m->attempt;
        k->shard = h->m->shard;
        k->first = h->m->first;
        k->count = h->m->count;
        k->generation = h->m->generation;
    }
    w->ready_told = false;
    SEND(w, hello, HELLO, &hello);
}

static void tell_done(struct worker *w, struct held *h) {
    Shardmill__Done done = SHARDMILL__DONE__INIT;
    Shardmill__Quarantined *items = calloc(h->n_bad + 1, sizeof *items),
                           **list = calloc(h->n_bad + 1, sizeof *list);
    if (items == NULL || list == NULL) goto out; /* told again in a second */
    for (size_t i = 0; i < h->n_bad; i++) {
        list[i] = &items[i];
        shardmill__quarantined__init(&items[i]);
        items[i].position = h->bad[i].position;
        items[i].sample = h->bad[i].sample;
        items[i].substitute = h->bad[i].substitute;
        items[i].code = h->bad[i].code;
        items[i].stage = h->bad[i].stage;
        items[i].text = h->bad[i].text;
    }
    done.job = h->m->job;
    done.kind = h->m->kind;
    done.attempt = h->m->attempt;
    done.shard = h->m->shard;
    done.first = h->m->first;
    done.count = h->m->count;
    done.generation = h->m->generation;
    done.bytes = h->bytes;
    done.sha256 = h->sha256;
    done.n_quarantined = h->n_bad;
    done.quarantined = list;
    done.cages_replaced = h->cages;
    done.offset = h->offset;
    done.digest = h->digest;
    SEND(w, done, DONE, &done);
out:
    free(items);
    free(list);
}

/* The memory of a held STEP lease, if it has any. The lease must not be writing there any more. */
static void drop_batch(struct worker *w, const struct held *h) {
    assert(h->lease == NULL);
    if (h->m->kind == SHARDMILL__LEASE_KIND__STEP)
        sm_batches_release(w->batches, h->m->job, h->m->attempt);
}

static void tell_fail(struct worker *w, const struct held *h) {
    Shardmill__Fail fail = SHARDMILL__FAIL__INIT;
    fail.job = h->m->job;
    fail.kind = h->m->kind;
    fail.attempt = h->m->attempt;
    fail.shard = h->m->shard;
    fail.first = h->m->first;
    fail.count = h->m->count;
    fail.generation = h->m->generation;
    fail.code = h->err.code;
    fail.text = (char *)h->err.text;
    SEND(w, fail, FAIL, &fail);
}

/* Tells a result, or tells it again. */
static void tell(struct worker *w, struct held *h) {
    h->state = HELD_TOLD;
    h->told_ms = sm_now_ms();
    if (!w->welcome) return;
    if (h->failed)
        tell_fail(w, h);
    else
        tell_done(w, h);
}

static void fail_held(struct worker *w, struct held *h, const struct sm_err *err) {
    sm_lease_free(&h->lease);
    drop_batch(w, h);
    h->failed = 1;
    h->err = *err;
    tell(w, h);
}

static void release(struct held *h) {
    assert(h->state != HELD_STORING);
    sm_lease_free(&h->lease);
    sm_wire_free(&h->message);
    free(h->bad);
    *h = (struct held){0};
}

/* Nobody wants the lease or its batch any more. */
static void give_up(struct worker *w, struct held *h) {
    sm_lease_free(&h->lease);
    drop_batch(w, h);
    release(h);
}

/* Before each Hello: the broker that hears it has given up, or never knew, what this worker keeps
 * for trainers, and makes it again. A trainer may still read there, so the memory is not used again
 * but left to those who map it, and fresh memory under a fresh address takes its place. */
static void forget_batches(struct worker *w) {
    bool used = sm_batches_count(w->batches) > 0;
    for (int i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (h->state != HELD_FREE && h->m->kind == SHARDMILL__LEASE_KIND__STEP) give_up(w, h);
    }
    if (!used) return;
    struct sm_batches *fresh;
    struct sm_err err = {0};
    if (sm_batches_new(&fresh, sm_batches_bytes(w->batches), &err) != 0) {
        fprintf(stderr, "shardmill worker: %s; the old one is used again\n", err.text);
        sm_batches_release_all(w->batches);
        return;
    }
    sm_batches_free(&w->batches);
    w->batches = fresh;
}

/* ---- what is due ---- */

static struct held *find_state(struct worker *w, enum held_state state) {
    struct held *oldest = NULL;
    for (int i = 0; i < HELD_MAX; i++)
        if (w->held[i].state == state && (oldest == NULL || w->held[i].order < oldest->order))
            oldest = &w->held[i];
    return oldest;
}

static struct sm_job *find_job(struct worker *w, const char *id) {
    for (int i = 0; i < JOBS_MAX; i++)
        if (w->jobs[i] != NULL && strcmp(w->jobs[i]->id, id) == 0) {
            w->jobs[i]->used = ++w->job_clock;
            return w->jobs[i];
        }
    return NULL;
}

/* The job, known or new in place of the one that has not been used for longest; none is in use when
 * this is called. */
static struct sm_job *need_job(struct worker *w, const char *id) {
    struct sm_job *job = find_job(w, id);
    if (job != NULL) return job;
    int at = 0;
    for (int i = 1; i < JOBS_MAX && w->jobs[at] != NULL; i++)
        if (w->jobs[i] == NULL || w->jobs[i]->used < w->jobs[at]->used) at = i;
    sm_job_free(&w->jobs[at]);
    w->jobs[at] = sm_job_new(id);
    if (w->jobs[at] != NULL) w->jobs[at]->used = ++w->job_clock;
    return w->jobs[at];
}

static void ask_for_job(struct worker *w, struct sm_job *job, int64_t now) {
    if (!w->welcome || (job->asked_ms != 0 && now - job->asked_ms < TELL_AGAIN_MS)) return;
    job->asked_ms = now;
    Shardmill__JobGet spec = SHARDMILL__JOB_GET__INIT;
    Shardmill__IndexGet index = SHARDMILL__INDEX_GET__INIT;
    spec.job = job->id;
    sm_job_ask_piece(job, &index);
    if (job->state == SM_JOB_ASK_SPEC)
        SEND(w, job_get, JOB_GET, &spec);
    else
        SEND(w, index_get, INDEX_GET, &index);
}

static void start_seal(struct worker *w, struct held *h, const struct sm_job *job) {
    struct sm_disk_task *task = calloc(1, sizeof *task);
    if (task != NULL) {
        task->owner = h;
        task->dir = strdup(job->spec->out_dir);
        task->parts = calloc(h->m->n_parts, sizeof *task->parts);
    }
    if (task == NULL || task->dir == NULL || task->parts == NULL) {
        sm_disk_task_free(&task);
        fail_held(w, h, &(struct sm_err){SM_E_MEMORY, "out of memory"});
        return;
    }
    task->shard = h->m->shard;
    task->format = job->fit != NULL ? SM_SHARD_PARTIAL
                                    : sm_shard_format(job->pipeline.expand.encode);
    task->n_parts = h->m->n_parts;
    for (size_t i = 0; i < task->n_parts; i++)
        task->parts[i] = (struct sm_part_name){.shard = h->m->shard,
                                               .first = h->m->parts[i]->first,
                                               .count = h->m->parts[i]->count,
                                               .generation = h->m->parts[i]->generation};
    if (strlen(h->m->sha256) == SM_SHA_HEX - 1) strcpy(task->single, h->m->sha256);
    h->state = HELD_STORING;
    sm_disk_add(w->disk, &task);
}

/* A table has no cage. */
static uint64_t cages_replaced(const struct sm_job *job) {
    return job->lease.cage != NULL ? sm_cage_replaced(job->lease.cage) : 0;
}

/* A RANGE, or with a batch a STEP. */
static void start_lease(struct worker *w, struct held *h, struct sm_job *job,
                        const struct sm_batch_place *batch) {
    struct sm_range range = {.part = {.shard = h->m->shard,
                                      .first = h->m->first,
                                      .count = h->m->count,
                                      .generation = h->m->generation},
                             .last = h->m->last,
                             .batch = batch,
                             .skip = h->m->skip,
                             .n_skip = h->m->n_skip};
    struct sm_err err = {0};
    w->cages_before = cages_replaced(job);
    if (sm_lease_start(&h->lease, &job->lease, &range, &err) != 0) {
        fail_held(w, h, &err);
        return;
    }
    h->state = HELD_MAKING;
    w->progress_ms = 0;
    w->progress_done = UINT32_MAX;
}

/* Where memory is short a Free may be on its way; after a moment the lease goes back, since this
 * one may wait for a trainer that has stopped while another has room. */
static void start_step(struct worker *w, struct held *h, struct sm_job *job, int64_t now) {
    struct sm_batch_place batch = {.header = job->batch};
    struct sm_err err = {0};
    batch.header.count = h->m->count;
    batch.header.epoch = h->m->epoch;
    batch.header.step = h->m->step;
    batch.header.first = h->m->first;
    int failed = sm_batch_layout(&batch.header, &err);
    if (!failed && batch.header.bytes > sm_batches_bytes(w->batches))
        failed =
            sm_fail(&err, SM_E_TOO_LARGE,
                    "a batch of %llu bytes does not fit into the %llu bytes of batch memory of "
                    "a worker (hint: shardmill worker --batch-memory)",
                    (unsigned long long)batch.header.bytes,
                    (unsigned long long)sm_batches_bytes(w->batches));
    const struct sm_slot *slot =
        failed ? NULL : sm_batches_take(w->batches, h->m->job, h->m->attempt, batch.header.bytes);
    if (!failed && slot == NULL) {
        if (h->no_room_ms == 0) h->no_room_ms = now;
        if (now - h->no_room_ms < ROOM_MS) return;
        failed = sm_fail(&err, SM_E_BUSY, "no batch memory is free at this worker");
    }
    if (failed) {
        fail_held(w, h, &err);
        return;
    }
    h->offset = slot->offset;
    h->bytes = batch.header.bytes;
    batch.memory = sm_batches_at(w->batches, slot);
    start_lease(w, h, job, &batch);
}

/* Starts the oldest lease that waits, when nothing is being made and its job is known. */
static void start_next(struct worker *w, int64_t now) {
    struct held *h = find_state(w, HELD_WAITING);
    if (h == NULL || find_state(w, HELD_MAKING) != NULL) return;
    struct sm_job *job = need_job(w, h->m->job);
    struct sm_err err = {0};
    if (job == NULL) {
        fail_held(w, h, &(struct sm_err){SM_E_MEMORY, "out of memory"});
    } else if (job->state == SM_JOB_BROKEN) {
        err = job->err;
        for (int i = 0; i < JOBS_MAX; i++) /* asked for anew by the next lease */
            if (w->jobs[i] == job) sm_job_free(&w->jobs[i]);
        fail_held(w, h, &err);
    } else if (job->state != SM_JOB_READY) {
        ask_for_job(w, job, now);
    } else if (sm_job_check_lease(job, h->m, &err) != 0) {
        fail_held(w, h, &err);
    } else if (h->m->kind == SHARDMILL__LEASE_KIND__SEAL) {
        start_seal(w, h, job);
    } else if (h->m->kind == SHARDMILL__LEASE_KIND__STEP) {
        start_step(w, h, job, now);
    } else {
        start_lease(w, h, job, NULL);
    }
}

/* Asks for the next lease shortly before the present one ends, so that the cage does not idle. */
static void tell_ready(struct worker *w) {
    if (!w->welcome || w->ready_told || find_state(w, HELD_WAITING) != NULL) return;
    int held = 0;
    for (int i = 0; i < HELD_MAX; i++)
        held += w->held[i].state != HELD_FREE;
    struct held *making = find_state(w, HELD_MAKING);
    if (making != NULL) {
        uint32_t left = making->m->count - sm_lease_done(making->lease);
        if (left > making->m->count / 8 + 1) return;
    }
    if (held == HELD_MAX) return;
    Shardmill__Ready ready = SHARDMILL__READY__INIT;
    w->ready_told = true;
    SEND(w, ready, READY, &ready);
}

static void tell_progress(struct worker *w, int64_t now) {
    struct held *h = find_state(w, HELD_MAKING);
    if (h == NULL || !w->welcome || now - w->progress_ms < PROGRESS_MS) return;
    uint32_t done = sm_lease_done(h->lease);
    if (done == w->progress_done) return;
    Shardmill__Progress progress = SHARDMILL__PROGRESS__INIT;
    progress.job = h->m->job;
    progress.attempt = h->m->attempt;
    progress.done = w->progress_done = done;
    progress.position = sm_lease_position(h->lease);
    w->progress_ms = now;
    SEND(w, progress, PROGRESS, &progress);
}

/* A Free may have been lost, and its batch would take room for ever: its Done is said again, and an
 * Ack that does not want it is a Free. */
static void ask_kept(struct worker *w, int64_t now) {
    const struct sm_slot *slot;
    while (w->welcome && (slot = sm_batches_due(w->batches, now,
                                                (int64_t)KEPT_BEATS * w->heartbeat_ms)) != NULL) {
        Shardmill__Done done = SHARDMILL__DONE__INIT;
        if (find_attempt(w, slot->job, slot->attempt) != NULL) continue; /* told as a result */
        done.job = slot->job;
        done.kind = SHARDMILL__LEASE_KIND__STEP;
        done.attempt = slot->attempt;
        SEND(w, done, DONE, &done);
    }
}

/* The broker is silent for too long: a fresh socket, later each time. */
static int watch_broker(struct worker *w, int64_t now, struct sm_err *err) {
    int64_t silent = now - w->heard_ms;
    if (w->welcome && silent < (int64_t)w->liveness * w->heartbeat_ms) return 0;
    if (!w->welcome && silent < w->backoff_ms) return 0;
    trouble_tell(w);
    if (!w->welcome)
        w->backoff_ms = w->backoff_ms * 2 < BACKOFF_MAX_MS ? w->backoff_ms * 2 : BACKOFF_MAX_MS;
    return connect_broker(w, err);
}

/* In order: the broker's silence, leases, results, kept batches, progress, heartbeat. Returns how
 * long to sleep at most. */
static int tick(struct worker *w, int64_t now, struct sm_err *err) {
    if (watch_broker(w, now, err) != 0) return -1;
    start_next(w, now);
    for (int i = 0; i < HELD_MAX; i++)
        if (w->held[i].state == HELD_TOLD && now - w->held[i].told_ms >= TELL_AGAIN_MS)
            tell(w, &w->held[i]);
    ask_kept(w, now);
    tell_ready(w);
    tell_progress(w, now);
    if (w->welcome && now - w->said_ms >= w->heartbeat_ms) {
        Shardmill__Heartbeat heartbeat = SHARDMILL__HEARTBEAT__INIT;
        SEND(w, heartbeat, HEARTBEAT, &heartbeat);
        w->ready_told = false; /* say it again with the next tick, in case it was lost */
    }
    int64_t next = w->said_ms + w->heartbeat_ms - now;
    if (!w->welcome) next = w->heard_ms + w->backoff_ms - now;
    struct held *waiting = find_state(w, HELD_WAITING);
    if (waiting != NULL && waiting->no_room_ms != 0 && next > ROOM_MS) next = ROOM_MS;
    return next < 1 ? 1 : next > POLL_MAX_MS ? POLL_MAX_MS : (int)next;
}

static void await_event(struct worker *w, int sleep_ms) {
    struct held *making = find_state(w, HELD_MAKING);
    zmq_pollitem_t items[5] = {{.socket = w->socket, .events = ZMQ_POLLIN},
                               {.fd = sm_disk_fd(w->disk), .events = ZMQ_POLLIN},
                               {.fd = sm_batches_fd(w->batches), .events = ZMQ_POLLIN},
                               {.socket = sm_data_socket(w->data), .events = ZMQ_POLLIN}};
    int n = 4;
    if (making != NULL) {
        int cage_ms = sm_lease_wait_ms(making->lease);
        if (cage_ms >= 0 && cage_ms < sleep_ms) sleep_ms = cage_ms;
        items[n++] = (zmq_pollitem_t){.fd = sm_lease_fd(making->lease), .events = ZMQ_POLLIN};
    }
    if (zmq_poll(items, n, sleep_ms) < 0) return; /* a signal: the loop looks at it */
    if (making != NULL) step_lease(w, making);
    if (items[1].revents != 0) take_stored(w);
    if (items[2].revents != 0) sm_batches_serve(w->batches);
    if (items[3].revents != 0) sm_data_serve(w->data, w->batches);
    if (items[0].revents != 0) receive(w);
}

/* ---- work ---- */

/* Keeps what the result will tell. */
static bool note_result(struct worker *w, struct held *h) {
    const struct sm_quarantined *bad = sm_lease_quarantined(h->lease, &h->n_bad);
    struct sm_job *job = find_job(w, h->m->job);
    h->bad = calloc(h->n_bad + 1, sizeof *h->bad);
    if (h->bad == NULL) return false;
    if (h->n_bad > 0) memcpy(h->bad, bad, h->n_bad * sizeof *h->bad);
    h->cages = (uint32_t)(cages_replaced(job) - w->cages_before);
    return true;
}

/* The batch is whole: it stays where it is until Free. */
static void keep_batch(struct worker *w, struct held *h) {
    if (!note_result(w, h)) {
        fail_held(w, h, &(struct sm_err){SM_E_MEMORY, "out of memory"});
        return;
    }
    sm_lease_finish_batch(h->lease, h->digest);
    sm_lease_free(&h->lease);
    sm_batches_made(w->batches, h->m->attempt);
    tell(w, h);
}

/* Hands the filled part to the disk. */
static void store_part(struct worker *w, struct held *h) {
    struct sm_disk_task *task = calloc(1, sizeof *task);
    if (task == NULL || !note_result(w, h)) {
        free(task);
        fail_held(w, h, &(struct sm_err){SM_E_MEMORY, "out of memory"});
        return;
    }
    task->owner = h;
    task->part = sm_lease_take_part(h->lease);
    task->last = h->m->last;
    sm_lease_free(&h->lease);
    h->state = HELD_STORING;
    sm_disk_add(w->disk, &task);
}

static void step_lease(struct worker *w, struct held *h) {
    struct sm_err err = {0};
    int made = sm_lease_step(h->lease, &err);
    if (made < 0) fail_held(w, h, &err);
    if (made > 0 && h->m->kind == SHARDMILL__LEASE_KIND__STEP)
        keep_batch(w, h);
    else if (made > 0)
        store_part(w, h);
}

static void take_stored(struct worker *w) {
    struct sm_disk_task *task = sm_disk_take(w->disk);
    if (task == NULL) return;
    struct held *h = task->owner;
    assert(h->state == HELD_STORING);
    h->failed = task->failed;
    h->err = task->err;
    h->bytes = task->bytes;
    strcpy(h->sha256, task->sha256);
    sm_disk_task_free(&task);
    tell(w, h);
    if (h->revoked) release(h);
}

/* ---- messages in ---- */

enum { RECEIVE_MAX = 64 }; /* messages before the cage gets its turn again */

static void receive(struct worker *w) {
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

static struct held *find_attempt(struct worker *w, const char *job, uint64_t attempt) {
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
        if (w->held[i].state == HELD_TOLD) tell(w, &w->held[i]);
    for (int i = 0; i < JOBS_MAX; i++)
        if (w->jobs[i] != NULL) w->jobs[i]->asked_ms = 0;
}

/* Takes the message. */
static void on_lease(struct worker *w, sm_envelope **message) {
    const Shardmill__Lease *m = (*message)->lease;
    if (find_attempt(w, m->job, m->attempt) != NULL) return; /* doubled on the way */
    w->ready_told = false;
    struct held *h = NULL;
    for (int i = 0; i < HELD_MAX && h == NULL; i++)
        if (w->held[i].state == HELD_FREE) h = &w->held[i];
    if (h == NULL) {
        struct held full = {.m = m,
                            .err = {SM_E_BUSY, "this worker holds as many leases as it can"}};
        tell_fail(w, &full);
        return;
    }
    *h = (struct held){.state = HELD_WAITING, .message = *message, .m = m, .order = ++w->arrivals};
    *message = NULL;
}

/* A lease that is wanted no more, or a batch that nobody needs any more. */
static void end_attempt(struct worker *w, const char *job, uint64_t attempt) {
    struct held *h = find_attempt(w, job, attempt);
    if (h == NULL)
        sm_batches_release(w->batches, job, attempt);
    else if (h->state == HELD_STORING)
        h->revoked = true;
    else
        give_up(w, h);
}

static void on_revoke(struct worker *w, const Shardmill__Revoke *m) {
    end_attempt(w, m->job, m->attempt);
}

static void on_ack(struct worker *w, const Shardmill__Ack *m) {
    struct held *h = find_attempt(w, m->job, m->attempt);
    if (h == NULL && !m->wanted) sm_batches_release(w->batches, m->job, m->attempt);
    if (h == NULL || h->state != HELD_TOLD) return;
    if (m->wanted && !h->failed)
        release(h); /* a batch stays in its memory */
    else
        give_up(w, h);
}

/* The broker refuses something. Its words go to the operator; a result that it will never take is
 * not told for ever. */
static void on_refused(struct worker *w, const Shardmill__Refused *m) {
    fprintf(stderr, "shardmill worker: the broker refuses (%s): %s\n", sm_code_word((int)m->code),
            m->text);
    struct held *h = find_state(w, HELD_TOLD);
    if (h != NULL && (m->code == SM_E_PROTOCOL || m->code == SM_E_DIFFERS)) give_up(w, h);
    for (int i = 0; i < JOBS_MAX; i++) {
        struct sm_job *job = w->jobs[i];
        if (job == NULL || job->asked_ms == 0 || job->state >= SM_JOB_READY) continue;
        job->state = SM_JOB_BROKEN;
        sm_fail(&job->err, m->code < SM_E_COUNT && m->code > 0 ? (enum sm_code)m->code : SM_E_PEER,
                "%.900s", m->text);
    }
}

static void handle(struct worker *w, sm_envelope **message) {
    const sm_envelope *e = *message;
    struct sm_job *job;
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_WELCOME:
        on_welcome(w, e->welcome);
        break;
    case SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN:
        say_hello(w);
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
        job = find_job(w, e->job->job);
        if (job != NULL) sm_job_take_spec(job, message, &w->job_options);
        break;
    case SHARDMILL__ENVELOPE__BODY_INDEX_CHUNK:
        job = find_job(w, e->index_chunk->job);
        if (job != NULL) sm_job_take_index(job, e->index_chunk, &w->job_options);
        break;
    case SHARDMILL__ENVELOPE__BODY_REFUSED:
        on_refused(w, e->refused);
        break;
    default: /* a heartbeat, or a message for others */
        break;
    }
}

/* ---- the end ---- */

/* Gives the leases back: parts that are not finished are thrown away, the broker hears a Bye. */
static void worker_close(struct worker *w) {
    bool quiet = sm_disk_stop(&w->disk, STOP_MS);
    for (int i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (h->state == HELD_STORING) h->state = HELD_TOLD;
        release(h);
    }
    for (int i = 0; i < JOBS_MAX; i++)
        sm_job_free(&w->jobs[i]);
    if (w->socket != NULL) {
        Shardmill__Bye bye = SHARDMILL__BYE__INIT;
        SEND(w, bye, BYE, &bye);
        int linger = quiet ? 200 : 50;
        zmq_setsockopt(w->socket, ZMQ_LINGER, &linger, sizeof linger);
        sm_watch_free(&w->watch);
        zmq_close(w->socket);
    }
    sm_data_close(&w->data);
    if (w->context != NULL) zmq_ctx_term(w->context);
    sm_batches_free(&w->batches);
}
