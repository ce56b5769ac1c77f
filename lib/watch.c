/* Reads libzmq's monitor of a socket and turns it into a count and a sentence. Before it:
 * lib/wire.c makes one with a socket that asks for it. */
#include "lib/watch.h"

#include "lib/greeting.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    BREAKS = 3, /* so many connections in a row that broke off in their handshake are no accident */
    FAILURES = ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
               ZMQ_EVENT_HANDSHAKE_FAILED_AUTH,
};

enum trouble { TROUBLE_NONE, TROUBLE_BREAKS, TROUBLE_MECHANISM, TROUBLE_NOT_ALLOWED };

struct sm_watch {
    void *socket, *events;
    uint64_t failed;
    unsigned breaks; /* in a row */
    enum trouble trouble;
    bool asked; /* since the last success: the answer is greeting */
    enum sm_greeting greeting;
    char endpoint[256], keys_dir[512];
};

int sm_watch_new(void *context, void *socket, const char *endpoint, const char *keys_dir,
                 struct sm_watch **gives, struct sm_err *err) {
    static atomic_uint names;
    char address[64];
    *gives = NULL;
    struct sm_watch *w = calloc(1, sizeof *w);
    if (w == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    snprintf(address, sizeof address, "inproc://shardmill-watch-%u", atomic_fetch_add(&names, 1));
    snprintf(w->endpoint, sizeof w->endpoint, "%s", endpoint);
    snprintf(w->keys_dir, sizeof w->keys_dir, "%s", keys_dir != NULL ? keys_dir : "");
    /* A queue without an end: at a high-water mark libzmq's I/O thread, and with it every
     * connection, would wait for us. */
    int endless = 0, none = 0;
    w->events = zmq_socket(context, ZMQ_PAIR);
    if (w->events != NULL) {
        zmq_setsockopt(w->events, ZMQ_RCVHWM, &endless, sizeof endless);
        zmq_setsockopt(w->events, ZMQ_LINGER, &none, sizeof none);
    }
    if (w->events == NULL ||
        zmq_socket_monitor(socket, address, FAILURES | ZMQ_EVENT_HANDSHAKE_SUCCEEDED) != 0 ||
        zmq_connect(w->events, address) != 0) {
        sm_fail(err, SM_E_INTERNAL, "cannot watch a socket: %s", zmq_strerror(errno));
        w->socket = w->events != NULL ? socket : NULL;
        sm_watch_free(&w);
        return -1;
    }
    w->socket = socket;
    *gives = w;
    return 0;
}

void sm_watch_free(struct sm_watch **wp) {
    struct sm_watch *w = *wp;
    if (w == NULL) return;
    if (w->socket != NULL) zmq_socket_monitor(w->socket, NULL, 0);
    if (w->events != NULL) zmq_close(w->events);
    free(w);
    *wp = NULL;
}

/* The next event (a number, its value, and a frame with the address, which is dropped); 0: none. */
static uint16_t event_take(struct sm_watch *w, uint32_t *value) {
    zmq_msg_t frame;
    uint16_t event = 0;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, w->events, ZMQ_DONTWAIT) >= 0 && zmq_msg_size(&frame) >= 6) {
        memcpy(&event, zmq_msg_data(&frame), 2);
        memcpy(value, (const uint8_t *)zmq_msg_data(&frame) + 2, 4);
        while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, w->events, ZMQ_DONTWAIT) >= 0)
            ;
    }
    zmq_msg_close(&frame);
    return event;
}

static void drain(struct sm_watch *w) {
    uint16_t event;
    uint32_t value = 0;
    while ((event = event_take(w, &value)) != 0) {
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
            w->breaks = 0;
            w->trouble = TROUBLE_NONE;
            w->asked = false;
            continue;
        }
        if ((event & FAILURES) == 0) continue;
        w->failed++;
        w->breaks++;
        if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
            w->trouble = TROUBLE_NOT_ALLOWED;
        else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL &&
                 value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
            w->trouble = TROUBLE_MECHANISM;
        else
            w->trouble = TROUBLE_BREAKS;
    }
}

uint64_t sm_watch_failed(struct sm_watch *w) {
    drain(w);
    return w->failed;
}

static void mechanism_say(const struct sm_watch *w, struct sm_err *err) {
    if (w->keys_dir[0] != 0)
        sm_fail(err, SM_E_KEY,
                "'%s' works without keys, and this side has keys in '%s' (hint: start it with "
                "--keys, or leave keys out here)",
                w->endpoint, w->keys_dir);
    else
        sm_fail(err, SM_E_KEY,
                "'%s' asks for a key, and this side has none (hint: --keys DIR; shardmill "
                "keygen makes keys)",
                w->endpoint);
}

/* When both sides see that their mechanisms differ, the server may be the first to close: then all
 * that is seen here is a connection that broke off, as with a wrong key of the server. */
static void breaks_say(struct sm_watch *w, struct sm_err *err) {
    bool keys = w->keys_dir[0] != 0;
    if (!w->asked) w->greeting = sm_greeting_ask(w->endpoint);
    w->asked = true;
    if (w->greeting == (keys ? SM_GREETING_PLAIN : SM_GREETING_CURVE))
        mechanism_say(w, err);
    else if (w->greeting == SM_GREETING_CURVE)
        sm_fail(err, SM_E_KEY,
                "'%s' ends each connection in its handshake: its key is not the one that this "
                "side expects (hint: '%s/server.key' has to be its public.key)",
                w->endpoint, w->keys_dir);
    else
        sm_fail(err, SM_E_PEER,
                "'%s' ends each connection in its handshake (hint: is it a shardmill broker?)",
                w->endpoint);
}

bool sm_watch_hopeless(struct sm_watch *w, struct sm_err *err) {
    drain(w);
    switch (w->trouble) {
    case TROUBLE_NOT_ALLOWED:
        sm_fail(err, SM_E_KEY,
                "'%s' does not allow the key of '%s' (hint: put its public.key into the allowed "
                "folder of that side)",
                w->endpoint, w->keys_dir);
        return true;
    case TROUBLE_MECHANISM:
        mechanism_say(w, err);
        return true;
    case TROUBLE_BREAKS:
        if (w->breaks < BREAKS) return false;
        breaks_say(w, err);
        return true;
    case TROUBLE_NONE:
        break;
    }
    return false;
}
