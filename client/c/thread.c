/* The background thread: it owns every socket of a loader, waits for all of them at once and hands
 * what comes to session.c and fetch.c. The caller wakes it by an eventfd; it wakes the caller by
 * the loader's condition. Nothing here waits busily, and nothing waits without an end. */
#include "client/c/loader.h"

#include "lib/limits.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <zmq.h>

enum { TICK_MS = 100, BURST = 128, CLOSE_LINGER_MS = 200 };

static void wait_for_sockets(struct sm_loader *l);
static void work(struct sm_loader *l);
static void release_freed(struct sm_loader *l);
static bool release_waits(struct sm_loader *l, const struct batch *b);
static void say_goodbye(struct sm_loader *l);

void *sm_loader_thread(void *arg) {
    struct sm_loader *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!atomic_load(&l->closing)) {
        work(l);
        pthread_mutex_unlock(&l->lock);
        wait_for_sockets(l);
        pthread_mutex_lock(&l->lock);
        pthread_cond_broadcast(&l->changed);
    }
    say_goodbye(l);
    sm_loader_fetch_close(l);
    void *context = l->context;
    pthread_mutex_unlock(&l->lock);
    zmq_ctx_term(context); /* waits for CLOSE_LINGER_MS at most, unless a name is being resolved */
    pthread_mutex_lock(&l->lock);
    l->state = LOADER_CLOSED;
    bool last = --l->owners == 0;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    if (last) sm_loader_free(l);
    return NULL;
}

void sm_loader_wake(struct sm_loader *l) {
    uint64_t one = 1;
    int e = errno;
    while (write(l->wake, &one, sizeof one) < 0 && errno == EINTR)
        ;
    errno = e;
}

static void wait_for_sockets(struct sm_loader *l) {
    zmq_pollitem_t items[2 + LOADER_CONNECTIONS];
    int n = 0;
    items[n++] = (zmq_pollitem_t){.fd = l->wake, .events = ZMQ_POLLIN};
    if (l->socket != NULL) items[n++] = (zmq_pollitem_t){.socket = l->socket, .events = ZMQ_POLLIN};
    for (int i = 0; i < LOADER_CONNECTIONS; i++)
        if (l->connections[i].socket != NULL)
            items[n++] = (zmq_pollitem_t){.socket = l->connections[i].socket, .events = ZMQ_POLLIN};
    zmq_poll(items, n, TICK_MS); /* EINTR: the next round looks at everything anyway */
    uint64_t many;
    if (items[0].revents & ZMQ_POLLIN)
        while (read(l->wake, &many, sizeof many) < 0 && errno == EINTR)
            ;
}

static void work(struct sm_loader *l) {
    release_freed(l);
    for (int i = 0; i < BURST && l->socket != NULL; i++) {
        struct sm_err err;
        sm_envelope *m = NULL;
        int rc = sm_wire_receive(l->socket, NULL, &m, &err);
        if (rc == 0) break;
        if (rc < 0) {
            l->counts.garbage++;
            continue;
        }
        sm_loader_hear(l, m);
        sm_wire_free(&m);
    }
    for (int i = 0; i < LOADER_CONNECTIONS; i++)
        if (l->connections[i].socket != NULL) sm_loader_fetch_receive(l, &l->connections[i]);
    int64_t now = sm_now_ms();
    sm_loader_fetch_tick(l, now);
    sm_loader_memory_tick(l, now);
    sm_loader_tick(l, now);
    pthread_cond_broadcast(&l->changed);
}

/* The caller gave batches back: the broker hears it. A Release that does not leave is said again
 * when the broker offers the batch again; not so of an earlier session's batch, which the broker
 * keeps because we said that it is held: that Release waits until there is a session. */
static void release_freed(struct sm_loader *l) {
    struct batch **p = &l->freed;
    while (*p != NULL) {
        struct batch *b = *p;
        if (release_waits(l, b)) {
            p = &b->next;
            continue;
        }
        *p = b->next;
        sm_loader_batch_free(l, b);
    }
}

/* Says Release; true when it is to be tried again. */
static bool release_waits(struct sm_loader *l, const struct batch *b) {
    if (l->state == LOADER_ATTACHING) return b->map != NULL;
    if (l->state != LOADER_ATTACHED) return false;
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    bool earlier = b->session != l->session; /* whose steps were counted otherwise */
    m.session = l->session;
    m.epoch = earlier ? UINT32_MAX : b->epoch;
    m.step = earlier ? UINT64_MAX : b->step;
    m.attempt = earlier ? b->attempt : 0;
    int said = sm_loader_say(l, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
    return earlier && b->map != NULL && said == 0;
}

static void say_goodbye(struct sm_loader *l) {
    release_freed(l);
    if (l->socket == NULL) return;
    if (l->session != 0) {
        Shardmill__Detach m = SHARDMILL__DETACH__INIT;
        m.session = l->session;
        sm_loader_say(l, SHARDMILL__ENVELOPE__BODY_DETACH, &m);
    }
    int linger = CLOSE_LINGER_MS;
    zmq_setsockopt(l->socket, ZMQ_LINGER, &linger, sizeof linger);
    sm_watch_free(&l->watch);
    zmq_close(l->socket);
    l->socket = NULL;
}

static void list_free(struct sm_loader *l, struct batch **list) {
    while (*list != NULL) {
        struct batch *b = *list;
        *list = b->next;
        sm_loader_batch_free(l, b);
    }
}

/* Frees all; nobody else has the loader any more. */
void sm_loader_free(struct sm_loader *l) {
    list_free(l, &l->ready);
    list_free(l, &l->held);
    list_free(l, &l->freed);
    sm_loader_classes_free(l);
    sm_loader_memory_close(l);
    sm_keys_free(&l->keys);
    close(l->wake);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l);
}
