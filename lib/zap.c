/* A ZAP handler over the folder of allowed keys. Before it: lib/wire.c, which binds a socket with
 * keys. It answers before a peer's first message is read, so what it refuses costs the broker
 * nothing. */
#include "lib/zap.h"

#include "lib/wire.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    FRAMES = 7, /* version, request, domain, address, routing id, mechanism, key */
    FRAME_BYTES = 255,
    SAY_AGAIN_MS = 1000, /* refusals are told at most so often */
};

struct sm_zap {
    void *socket;
    struct sm_allowed *allowed;
    int64_t said_ms;
    unsigned unsaid;
};

struct question {
    uint8_t frames[FRAMES][FRAME_BYTES + 1];
    size_t sizes[FRAMES];
    size_t n; /* frames that came, also those that are too many */
};

static void *serve(void *arg);

int sm_zap_open(void *context, const struct sm_keys *keys, struct sm_zap **gives,
                struct sm_err *err) {
    struct sm_zap *z = calloc(1, sizeof *z);
    *gives = NULL;
    if (z == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int rc = sm_allowed_open(keys, &z->allowed, err);
    if (rc == 0 && (z->socket = zmq_socket(context, ZMQ_REP)) == NULL)
        rc = sm_fail(err, SM_E_INTERNAL, "cannot make a socket: %s", zmq_strerror(errno));
    if (rc == 0 && zmq_bind(z->socket, "inproc://zeromq.zap.01") != 0)
        rc = sm_fail(err, errno == EADDRINUSE ? SM_E_BUSY : SM_E_INTERNAL, "cannot check keys: %s",
                     zmq_strerror(errno));
    if (rc != 0)
        sm_zap_close(&z);
    else
        *gives = z;
    return rc;
}

void sm_zap_close(struct sm_zap **zp) {
    struct sm_zap *z = *zp;
    if (z == NULL) return;
    int none = 0;
    if (z->socket != NULL) {
        zmq_setsockopt(z->socket, ZMQ_LINGER, &none, sizeof none);
        zmq_close(z->socket);
    }
    sm_allowed_free(&z->allowed);
    free(z);
    *zp = NULL;
}

int sm_zap_serve(struct sm_zap **zp, struct sm_err *err) {
    struct sm_zap *z = *zp;
    pthread_t thread;
    pthread_attr_t detached;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits it */
    int failed = pthread_create(&thread, &detached, serve, z);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    if (failed) return sm_fail(err, SM_E_MEMORY, "cannot start a thread: %s", strerror(failed));
    *zp = NULL;
    return 0;
}

/* One whole question: 1; -1: the context is at its end. */
static int question_read(void *socket, struct question *q) {
    int more = 1;
    *q = (struct question){0};
    while (more) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        while (zmq_msg_recv(&frame, socket, 0) < 0)
            if (errno != EINTR) {
                zmq_msg_close(&frame);
                return -1;
            }
        size_t n = zmq_msg_size(&frame);
        more = zmq_msg_more(&frame);
        if (q->n < FRAMES && n <= FRAME_BYTES) {
            memcpy(q->frames[q->n], zmq_msg_data(&frame), n);
            q->sizes[q->n] = n;
        }
        q->n++;
        zmq_msg_close(&frame);
    }
    return 1;
}

static void refusal_say(struct sm_zap *z, const struct question *q, const char *key) {
    int64_t now = sm_now_ms();
    if (z->said_ms != 0 && now - z->said_ms < SAY_AGAIN_MS) {
        z->unsaid++;
        return;
    }
    fprintf(stderr,
            "shardmill: refused a connection from %s with the public key '%s', which is not in "
            "'%s'",
            (const char *)q->frames[3], key, sm_allowed_dir(z->allowed));
    if (z->unsaid > 0) fprintf(stderr, " (and %u more since the last such line)", z->unsaid);
    fputc('\n', stderr);
    z->said_ms = now;
    z->unsaid = 0;
}

/* Whether the key in the question may connect; fills it as text. */
static bool decide(struct sm_zap *z, const struct question *q, char key[SM_KEY_TEXT]) {
    key[0] = 0;
    if (q->n != FRAMES || strcmp((const char *)q->frames[0], "1.0") != 0 ||
        strcmp((const char *)q->frames[2], SM_ZAP_DOMAIN) != 0 ||
        strcmp((const char *)q->frames[5], "CURVE") != 0 || q->sizes[6] != 32)
        return false;
    zmq_z85_encode(key, q->frames[6], 32);
    if (sm_allowed_has(z->allowed, key)) return true;
    refusal_say(z, q, key);
    return false;
}

static int answer(void *socket, const struct question *q, bool yes, const char *key) {
    const struct {
        const void *bytes;
        size_t n;
    } frames[] = {{"1.0", 3},
                  {q->frames[1], q->sizes[1]},
                  {yes ? "200" : "400", 3},
                  {yes ? "OK" : "not allowed", yes ? 2 : 11},
                  {key, yes ? strlen(key) : 0}, /* its user id */
                  {"", 0}};
    const int last = (int)(sizeof frames / sizeof *frames) - 1;
    for (int i = 0; i <= last; i++)
        while (zmq_send(socket, frames[i].bytes, frames[i].n, i < last ? ZMQ_SNDMORE : 0) < 0)
            if (errno != EINTR) return -1;
    return 0;
}

static void *serve(void *arg) {
    struct sm_zap *z = arg;
    struct question q;
    char key[SM_KEY_TEXT];
    while (question_read(z->socket, &q) > 0)
        if (answer(z->socket, &q, decide(z, &q, key), key) != 0) break;
    sm_zap_close(&z);
    return NULL;
}
