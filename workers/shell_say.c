/* What the worker says: who it is and what it holds, results until they are acknowledged, that it
 * has room. Before: shell.c, when it is due. After: the broker. */
#include "workers/shell_state.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

/* Holding, Done and Fail name their lease by the same fields. */
#define NAME_LEASE(to, m)                   \
    do {                                    \
        (to)->job = (m)->job;               \
        (to)->kind = (m)->kind;             \
        (to)->attempt = (m)->attempt;       \
        (to)->shard = (m)->shard;           \
        (to)->first = (m)->first;           \
        (to)->count = (m)->count;           \
        (to)->generation = (m)->generation; \
    } while (0)

static void forget_batches(struct worker *w);

/* Sends, if there is room; everything that matters is sent again anyway. */
void shell_send(struct worker *w, sm_envelope *e, Shardmill__Envelope__BodyCase which) {
    e->protocol = SM_PROTOCOL;
    e->body_case = which;
    struct sm_err err = {0};
    if (sm_wire_send(w->socket, NULL, e, &err) < 0)
        fprintf(stderr, "shardmill worker: %s\n", err.text);
    w->said_ms = sm_now_ms();
}

/* Says once why it cannot get through to the broker, and goes on trying: its key may be let in
 * later. */
void shell_trouble_tell(struct worker *w) {
    struct sm_err err = {0};
    if (w->trouble_told || !sm_watch_hopeless(w->watch, &err)) return;
    fprintf(stderr, "shardmill worker: %s\n", err.text);
    w->trouble_told = true;
}

int shell_connect_broker(struct worker *w, struct sm_err *err) {
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
    shell_say_hello(w);
    return 0;
}

void shell_say_hello(struct worker *w) {
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
        NAME_LEASE(k, h->m);
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
    NAME_LEASE(&done, h->m);
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

void shell_tell_fail(struct worker *w, const struct held *h) {
    Shardmill__Fail fail = SHARDMILL__FAIL__INIT;
    NAME_LEASE(&fail, h->m);
    fail.code = h->err.code;
    fail.text = (char *)h->err.text;
    SEND(w, fail, FAIL, &fail);
}

/* Tells a result, or tells it again. */
void shell_tell(struct worker *w, struct held *h) {
    h->state = HELD_TOLD;
    h->told_ms = sm_now_ms();
    if (!w->welcome) return;
    if (h->failed)
        shell_tell_fail(w, h);
    else
        tell_done(w, h);
}

void shell_fail_held(struct worker *w, struct held *h, const struct sm_err *err) {
    sm_lease_free(&h->lease);
    drop_batch(w, h);
    h->failed = 1;
    h->err = *err;
    shell_tell(w, h);
}

void shell_release(struct held *h) {
    assert(h->state != HELD_STORING);
    sm_lease_free(&h->lease);
    sm_wire_free(&h->message);
    free(h->bad);
    free(h->partial);
    *h = (struct held){0};
}

/* Nobody wants the lease or its batch any more. */
void shell_give_up(struct worker *w, struct held *h) {
    sm_lease_free(&h->lease);
    drop_batch(w, h);
    shell_release(h);
}

/* Before each Hello: the broker that hears it has given up, or never knew, what this worker keeps
 * for trainers, and makes it again. A trainer may still read there, so the memory is not used again
 * but left to those who map it, and fresh memory under a fresh address takes its place. */
static void forget_batches(struct worker *w) {
    bool used = sm_batches_count(w->batches) > 0;
    for (int i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (h->state != HELD_FREE && h->m->kind == SHARDMILL__LEASE_KIND__STEP) shell_give_up(w, h);
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
