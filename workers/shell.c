/* The worker's loop: one DEALER to the broker, the cage's descriptor, the disk's, trainers'. Leases
 * come in here, lease.c makes them, disk.c stores parts, batches.c keeps batches, and their results
 * are told until the broker's Ack says that its journal holds them. */
#include "workers/shell_state.h"

#include <assert.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

static int worker_open(struct worker *w, struct sm_err *err);
static void worker_close(struct worker *w);
static int tick(struct worker *w, int64_t now, struct sm_err *err);
static void await_event(struct worker *w, int sleep_ms);
static void step_lease(struct worker *w, struct held *h);
static void take_stored(struct worker *w);
static void start_step(struct worker *w, struct held *h, struct sm_job *job, int64_t now);

int sm_worker_run(const struct sm_worker_options *options, const volatile sig_atomic_t *stop,
                  struct sm_err *err) {
    mallopt(M_ARENA_MAX, 2); /* libzmq's threads and ours: more arenas only spread the heap */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of write(), with a name */
    struct worker w = {.options = options,
                       .job_options = {options->no_sandbox, options->no_fuse, options->cage_memory,
                                       w.jobs, JOBS_MAX}};
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
    return shell_connect_broker(w, err);
}

/* ---- what is due ---- */

struct held *shell_find_state(struct worker *w, enum held_state state) {
    struct held *oldest = NULL;
    for (int i = 0; i < HELD_MAX; i++)
        if (w->held[i].state == state && (oldest == NULL || w->held[i].order < oldest->order))
            oldest = &w->held[i];
    return oldest;
}

struct sm_job *shell_find_job(struct worker *w, const char *id) {
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
    struct sm_job *job = shell_find_job(w, id);
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
    Shardmill__FileGet index = SHARDMILL__FILE_GET__INIT;
    spec.job = job->id;
    sm_job_ask_piece(job, &index);
    if (job->state == SM_JOB_ASK_SPEC)
        SEND(w, job_get, JOB_GET, &spec);
    else
        SEND(w, file_get, FILE_GET, &index);
}

static bool is_fit(const struct sm_job *job) {
    return job->spec->kind == SHARDMILL__JOB_KIND__FIT;
}

/* A partial that the broker keeps is a shard as it is. */
static bool seal_is_carried(struct worker *w, struct held *h, const struct sm_job *job) {
    if (!is_fit(job) || job->spec->out_dir[0] != 0) return false;
    h->bytes = job->lease.partial_bytes;
    snprintf(h->sha256, sizeof h->sha256, "%s", h->m->sha256);
    shell_tell(w, h);
    return true;
}

static void start_seal(struct worker *w, struct held *h, const struct sm_job *job) {
    if (seal_is_carried(w, h, job)) return;
    struct sm_disk_task *task = calloc(1, sizeof *task);
    if (task != NULL) {
        task->owner = h;
        task->dir = strdup(job->spec->out_dir);
        task->parts = calloc(h->m->n_parts, sizeof *task->parts);
    }
    if (task == NULL || task->dir == NULL || task->parts == NULL) {
        sm_disk_task_free(&task);
        shell_fail_held(w, h, &(struct sm_err){SM_E_MEMORY, "out of memory"});
        return;
    }
    task->shard = h->m->shard;
    task->format = is_fit(job) ? SM_SHARD_PARTIAL : sm_shard_format(job->pipeline.expand.encode);
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
        shell_fail_held(w, h, &err);
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
        shell_fail_held(w, h, &err);
        return;
    }
    h->offset = slot->offset;
    h->bytes = batch.header.bytes;
    batch.memory = sm_batches_at(w->batches, slot);
    start_lease(w, h, job, &batch);
}

/* Starts the oldest lease that waits, when nothing is being made and its job is known. */
static void start_next(struct worker *w, int64_t now) {
    struct held *h = shell_find_state(w, HELD_WAITING);
    if (h == NULL || shell_find_state(w, HELD_MAKING) != NULL) return;
    struct sm_job *job = need_job(w, h->m->job);
    struct sm_err err = {0};
    if (job == NULL) {
        shell_fail_held(w, h, &(struct sm_err){SM_E_MEMORY, "out of memory"});
    } else if (job->state == SM_JOB_BROKEN) {
        err = job->err;
        for (int i = 0; i < JOBS_MAX; i++) /* asked for anew by the next lease */
            if (w->jobs[i] == job) sm_job_free(&w->jobs[i]);
        shell_fail_held(w, h, &err);
    } else if (job->state != SM_JOB_READY) {
        ask_for_job(w, job, now);
    } else if (sm_job_check_lease(job, h->m, &err) != 0) {
        shell_fail_held(w, h, &err);
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
    if (!w->welcome || w->ready_told || shell_find_state(w, HELD_WAITING) != NULL) return;
    int held = 0;
    for (int i = 0; i < HELD_MAX; i++)
        held += w->held[i].state != HELD_FREE;
    struct held *making = shell_find_state(w, HELD_MAKING);
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
    struct held *h = shell_find_state(w, HELD_MAKING);
    if (h == NULL || !w->welcome || now - w->progress_ms < PROGRESS_MS) return;
    const uint32_t done = sm_lease_done(h->lease);
    const uint64_t position = sm_lease_position(h->lease);
    if (done == w->progress_done && position == w->progress_position) return;
    Shardmill__Progress progress = SHARDMILL__PROGRESS__INIT;
    progress.job = h->m->job;
    progress.attempt = h->m->attempt;
    progress.done = w->progress_done = done;
    progress.position = w->progress_position = position;
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
        if (shell_find_attempt(w, slot->job, slot->attempt) != NULL)
            continue; /* told as a result */
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
    shell_trouble_tell(w);
    if (!w->welcome)
        w->backoff_ms = w->backoff_ms * 2 < BACKOFF_MAX_MS ? w->backoff_ms * 2 : BACKOFF_MAX_MS;
    return shell_connect_broker(w, err);
}

/* In order: the broker's silence, leases, results, kept batches, progress, heartbeat. Returns how
 * long to sleep at most. */
static int tick(struct worker *w, int64_t now, struct sm_err *err) {
    if (watch_broker(w, now, err) != 0) return -1;
    start_next(w, now);
    for (int i = 0; i < HELD_MAX; i++)
        if (w->held[i].state == HELD_TOLD && now - w->held[i].told_ms >= TELL_AGAIN_MS)
            shell_tell(w, &w->held[i]);
    shell_put_tick(w, now);
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
    struct held *waiting = shell_find_state(w, HELD_WAITING);
    if (waiting != NULL && waiting->no_room_ms != 0 && next > ROOM_MS) next = ROOM_MS;
    return next < 1 ? 1 : next > POLL_MAX_MS ? POLL_MAX_MS : (int)next;
}

static void await_event(struct worker *w, int sleep_ms) {
    struct held *making = shell_find_state(w, HELD_MAKING);
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
    if (items[0].revents != 0) shell_receive(w);
}

/* ---- work ---- */

/* Keeps what the result will tell. */
static bool note_result(struct worker *w, struct held *h) {
    const struct sm_quarantined *bad = sm_lease_quarantined(h->lease, &h->n_bad);
    struct sm_job *job = shell_find_job(w, h->m->job);
    h->bad = calloc(h->n_bad + 1, sizeof *h->bad);
    if (h->bad == NULL) return false;
    if (h->n_bad > 0) memcpy(h->bad, bad, h->n_bad * sizeof *h->bad);
    h->cages = (uint32_t)(cages_replaced(job) - w->cages_before);
    return true;
}

/* The batch is whole: it stays where it is until Free. */
static void keep_batch(struct worker *w, struct held *h) {
    if (!note_result(w, h)) {
        shell_fail_held(w, h, &(struct sm_err){SM_E_MEMORY, "out of memory"});
        return;
    }
    sm_lease_finish_batch(h->lease, h->digest);
    sm_lease_free(&h->lease);
    sm_batches_made(w->batches, h->m->attempt);
    shell_tell(w, h);
}

/* A partial without a folder goes to the broker. */
static bool put_partial(struct worker *w, struct held *h) {
    size_t n;
    void *partial = sm_lease_take_partial(h->lease, &n);
    if (partial == NULL) return false;
    sm_lease_free(&h->lease);
    shell_put_begin(w, h, partial, n);
    return true;
}

/* Hands the filled part to the disk. */
static void store_part(struct worker *w, struct held *h) {
    if (put_partial(w, h)) return;
    struct sm_disk_task *task = calloc(1, sizeof *task);
    if (task == NULL || !note_result(w, h)) {
        free(task);
        shell_fail_held(w, h, &(struct sm_err){SM_E_MEMORY, "out of memory"});
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
    if (made < 0) shell_fail_held(w, h, &err);
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
    shell_tell(w, h);
    if (h->revoked) shell_release(h);
}

/* ---- the end ---- */

/* Gives the leases back: parts that are not finished are thrown away, the broker hears a Bye. */
static void worker_close(struct worker *w) {
    bool quiet = sm_disk_stop(&w->disk, STOP_MS);
    for (int i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (h->state == HELD_STORING) h->state = HELD_TOLD;
        shell_release(h);
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
