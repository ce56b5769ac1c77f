/* The thread that waits for the disk. shell.c hands it the parts that lease.c filled and the seals
 * that the broker ordered; an eventfd tells when one is done. */
#include "workers/disk.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct queue {
    struct sm_disk_task *first, **last;
};

struct sm_disk {
    pthread_t thread;
    pthread_mutex_t lock; /* for all below */
    pthread_cond_t wake;
    struct queue todo, done;
    bool stop;
    int event;
};

static void *work(void *disk);

static void put(struct queue *q, struct sm_disk_task *t) {
    t->next = NULL;
    if (q->first == NULL) q->last = &q->first;
    *q->last = t;
    q->last = &t->next;
}

static struct sm_disk_task *get(struct queue *q) {
    struct sm_disk_task *t = q->first;
    if (t != NULL) q->first = t->next;
    return t;
}

void sm_disk_task_free(struct sm_disk_task **tp) {
    if (*tp == NULL) return;
    sm_part_abandon(&(*tp)->part);
    free((*tp)->dir);
    free((*tp)->parts);
    free(*tp);
    *tp = NULL;
}

struct sm_disk *sm_disk_start(struct sm_err *err) {
    struct sm_disk *d = calloc(1, sizeof *d);
    if (d == NULL) {
        sm_fail(err, SM_E_MEMORY, "out of memory");
        return NULL;
    }
    d->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->wake, NULL);
    sigset_t all, was;
    sigfillset(&all); /* signals are the main thread's */
    pthread_sigmask(SIG_SETMASK, &all, &was);
    int why = d->event < 0 ? errno : pthread_create(&d->thread, NULL, work, d);
    pthread_sigmask(SIG_SETMASK, &was, NULL);
    if (why == 0) return d;
    errno = why;
    sm_fail_errno(err, "cannot start a thread");
    if (d->event >= 0) close(d->event);
    free(d);
    return NULL;
}

int sm_disk_fd(const struct sm_disk *d) {
    return d->event;
}

void sm_disk_add(struct sm_disk *d, struct sm_disk_task **task) {
    pthread_mutex_lock(&d->lock);
    put(&d->todo, *task);
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
    *task = NULL;
}

struct sm_disk_task *sm_disk_take(struct sm_disk *d) {
    uint64_t count;
    if (read(d->event, &count, sizeof count) < 0 && errno != EAGAIN) return NULL;
    pthread_mutex_lock(&d->lock);
    struct sm_disk_task *t = get(&d->done);
    if (d->done.first != NULL) eventfd_write(d->event, 1); /* there is more */
    pthread_mutex_unlock(&d->lock);
    return t;
}

static void run(struct sm_disk_task *t) {
    if (t->part != NULL)
        t->failed = sm_part_finish(&t->part, t->last, &t->bytes, t->sha256, &t->err);
    else
        t->failed = sm_seal(t->dir, t->shard, t->format, t->parts, t->n_parts, t->single, &t->bytes,
                            t->sha256, &t->err);
}

static void *work(void *disk) {
    struct sm_disk *d = disk;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        struct sm_disk_task *t = NULL;
        while (!d->stop && (t = get(&d->todo)) == NULL)
            pthread_cond_wait(&d->wake, &d->lock);
        if (d->stop) break;
        pthread_mutex_unlock(&d->lock);
        run(t);
        pthread_mutex_lock(&d->lock);
        put(&d->done, t);
        eventfd_write(d->event, 1);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

bool sm_disk_stop(struct sm_disk **dp, int wait_ms) {
    struct sm_disk *d = *dp;
    *dp = NULL;
    if (d == NULL) return true;
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += wait_ms / 1000;
    end.tv_nsec += wait_ms % 1000 * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    if (pthread_clockjoin_np(d->thread, NULL, CLOCK_MONOTONIC, &end) != 0) return false;
    for (struct sm_disk_task *t; (t = get(&d->todo)) != NULL || (t = get(&d->done)) != NULL;)
        sm_disk_task_free(&t);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->wake);
    close(d->event);
    free(d);
    return true;
}
