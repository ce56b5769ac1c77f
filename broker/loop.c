/* The loop around the core: sleep until the next tick, receive a bounded number of messages, step,
 * commit, send. Only what the journal holds is ever acknowledged, and one sync pays for a whole
 * batch. */
#include "broker/loop.h"

#include "broker/files.h"
#include "broker/journal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

enum {
    BATCH_MESSAGES = 256,
    BATCH_BYTES = 8 << 20, /* of answers; a batch ends when there are so many */
    SLEEP_MAX_MS = 500,    /* so that *stop is seen in time whatever thread the signal went to */
};

struct broker {
    struct sm_core *core;
    struct sm_journal *journal;
    struct sm_actions actions;
    struct sm_files *files;
    uint64_t instance;
    void *context, *own_context, *socket;
    struct sm_watch *watch; /* its handshakes */
    uint64_t refused;
};

static int broker_open(struct broker *b, const struct sm_broker_options *options,
                       struct sm_err *err);
static int receive(struct broker *b, struct sm_err *err);
static int carry_out(struct broker *b, struct sm_err *err);
static void refused_count(struct broker *b);
static void broker_close(struct broker *b);

int sm_broker_run(const struct sm_broker_options *options, const volatile sig_atomic_t *stop,
                  struct sm_err *err) {
    struct broker b = {0};
    int rc = broker_open(&b, options, err);
    while (rc == 0 && !*stop) {
        int ms = sm_core_sleep_ms(b.core, sm_now_ms());
        zmq_pollitem_t item = {.socket = b.socket, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, ms < SLEEP_MAX_MS ? ms : SLEEP_MAX_MS);
        refused_count(&b);
        rc = receive(&b, err);
        if (rc == 0 && sm_core_sleep_ms(b.core, sm_now_ms()) == 0)
            sm_core_step(b.core, &(struct sm_event){.kind = SM_EVENT_TICK}, sm_now_ms(),
                         &b.actions);
        if (rc == 0) rc = carry_out(&b, err);
        if (rc == 0) sm_files_tick(b.files, b.core);
    }
    broker_close(&b);
    return rc;
}

static int broker_open(struct broker *b, const struct sm_broker_options *options,
                       struct sm_err *err) {
    struct sm_core_options o = {.heartbeat_ms = options->heartbeat_ms,
                                .lease_ms = options->lease_ms,
                                .state_dir = options->state_dir};
    char bound[256];
    sm_actions_init(&b->actions);
    if (getrandom(&o.instance, sizeof o.instance, 0) != sizeof o.instance)
        return sm_fail_errno(err, "no random numbers");
    o.instance |= 1; /* 0 stands for no broker */
    b->instance = o.instance;
    if (sm_journal_open(&b->journal, options->state_dir, &o.incarnation, err) != 0) return -1;
    if (sm_files_open(&b->files, options->state_dir, err) != 0) return -1;
    b->core = sm_core_new(&o, sm_now_ms());
    if (sm_journal_load(b->journal, b->core, err) != 0) return -1;
    if (options->context == NULL) b->own_context = zmq_ctx_new();
    b->context = options->context != NULL ? options->context : b->own_context;
    const struct sm_wire_security security = {.keys = options->keys, .watch = &b->watch};
    if (sm_wire_bind_with(b->context, options->endpoint, &security, &b->socket, bound, err) != 0)
        return -1;
    if (options->started != NULL) options->started(options->arg, bound);
    return 0;
}

/* Tells the core how many more connections did not get through their handshake. */
static void refused_count(struct broker *b) {
    struct sm_event event = {.kind = SM_EVENT_REFUSED};
    event.n = sm_watch_failed(b->watch) - b->refused;
    if (event.n == 0) return;
    b->refused += event.n;
    sm_core_step(b->core, &event, sm_now_ms(), &b->actions);
}

/* Takes what has come, up to the bounds of a batch. Pieces of files are not the core's: nothing
 * follows from them but that they are there. */
static int receive(struct broker *b, struct sm_err *err) {
    int failed = 0;
    uint64_t put = 0;
    for (int i = 0; !failed && i < BATCH_MESSAGES && b->actions.arena.used + put < BATCH_BYTES;
         i++) {
        struct sm_peer peer;
        sm_envelope *message = NULL;
        struct sm_event event = {.kind = SM_EVENT_MESSAGE, .peer = &peer};
        int rc = sm_wire_receive(b->socket, &peer, &message, err);
        if (rc == 0) break;
        event.message = message;
        if (rc < 0) event.kind = SM_EVENT_GARBAGE;
        if (rc > 0 && message->body_case == SHARDMILL__ENVELOPE__BODY_FILE_PUT) {
            put += message->file_put->data.len;
            failed = sm_files_put(b->files, b->core, b->socket, &peer, message->file_put,
                                  b->instance, err);
        } else {
            sm_core_step(b->core, &event, sm_now_ms(), &b->actions);
        }
        sm_wire_free(&message);
    }
    return failed;
}

static int deliver(struct broker *b, const struct sm_peer *peer, const sm_envelope *message,
                   struct sm_actions *next, struct sm_err *err) {
    int rc = sm_wire_send(b->socket, peer, message, err);
    if (rc == 0 && zmq_errno() == EHOSTUNREACH)
        sm_core_step(b->core, &(struct sm_event){.kind = SM_EVENT_GONE, .peer = peer}, sm_now_ms(),
                     next);
    return rc < 0 ? -1 : 0;
}

/* Journal first, then sends. Sends that find nobody make new events, whose actions are carried out
 * in turn. */
static int carry_out(struct broker *b, struct sm_err *err) {
    int rc = 0;
    while (rc == 0 && b->actions.n > 0) {
        struct sm_actions next;
        sm_actions_init(&next);
        rc = sm_journal_commit(b->journal, &b->actions, err);
        for (size_t i = 0; rc == 0 && i < b->actions.n; i++) {
            const struct sm_action *a = &b->actions.list[i];
            if (a->kind == SM_ACTION_SEND) rc = deliver(b, a->peer, a->message, &next, err);
            if (a->kind == SM_ACTION_FILE) rc = sm_files_send(b->files, b->socket, a, err);
        }
        sm_actions_release(&b->actions);
        b->actions = next;
    }
    sm_actions_reset(&b->actions);
    return rc;
}

static void broker_close(struct broker *b) {
    sm_watch_free(&b->watch);
    if (b->socket != NULL) zmq_close(b->socket);
    if (b->own_context != NULL) zmq_ctx_term(b->own_context);
    sm_core_free(&b->core);
    sm_journal_close(&b->journal);
    sm_actions_release(&b->actions);
    sm_files_close(&b->files);
}
