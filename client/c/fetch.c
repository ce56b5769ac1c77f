/* Batches of other hosts, in pieces of 1 MiB over several connections to their worker. A piece is
 * asked for, received into its place, and asked for again when it stays out; when all are there
 * the digest decides. session.c has accepted the batch before; after this it is ready for sm_next.
 */
#include "client/c/loader.h"

#include "lib/limits.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    STRIPES = 2,       /* connections to one worker: one I/O thread at each end is the limit */
    IN_FLIGHT_MAX = 8, /* pieces asked for on a connection and not here yet */
    ASK_MAX = 4,       /* pieces of one Fetch */
    AGAIN_MS = 500,
    LOST_MS = 2000,
    BURST = 32,
};
enum piece_state { PIECE_NONE, PIECE_ASKED, PIECE_HERE };

static struct connection *connect_to(struct sm_loader *l, const struct batch *b, int stripe,
                                     struct sm_err *err);
static void pump(struct sm_loader *l, struct batch *b);
static void fetch_end(struct sm_loader *l, struct batch *b);

int sm_loader_fetch(struct sm_loader *l, struct batch *b, struct sm_err *err) {
    b->state = BATCH_FETCHING;
    b->pieces_total = (uint32_t)((b->bytes + SM_MAX_PIECE_BYTES - 1) / SM_MAX_PIECE_BYTES);
    b->pieces_got = 0;
    b->moved_at = b->asked_at = sm_now_ms();
    free(b->pieces);
    b->pieces = calloc(b->pieces_total, 1);
    if (b->buffer == NULL) b->buffer = sm_loader_buffer(l, b->bytes);
    if (b->pieces != NULL && b->buffer != NULL && connect_to(l, b, 0, err) != NULL) {
        pump(l, b);
        return 0;
    }
    if (b->pieces == NULL || b->buffer == NULL)
        sm_fail(err, SM_E_MEMORY, "no memory for a batch of %llu bytes",
                (unsigned long long)b->bytes);
    if (b->buffer != NULL) sm_loader_buffer_release(l, b->buffer, b->bytes);
    b->buffer = NULL;
    b->endpoint[0] = 0;
    return -1;
}

static bool is_in_use(const struct sm_loader *l, const struct connection *c) {
    for (const struct batch *b = l->ready; b != NULL; b = b->next)
        if (b->state == BATCH_FETCHING && strcmp(b->endpoint, c->endpoint) == 0) return true;
    return false;
}

static void connection_close(struct connection *c) {
    int linger = 0;
    sm_watch_free(&c->watch);
    zmq_setsockopt(c->socket, ZMQ_LINGER, &linger, sizeof linger);
    zmq_close(c->socket);
    *c = (struct connection){0};
}

/* The stripe-th connection to an endpoint, made when there is none; the one that was idle for the
 * longest makes room. */
static struct connection *connect_to(struct sm_loader *l, const struct batch *b, int stripe,
                                     struct sm_err *err) {
    const char *endpoint = b->endpoint;
    struct connection *room = NULL;
    for (int i = 0; i < LOADER_CONNECTIONS; i++) {
        struct connection *c = &l->connections[i];
        if (c->socket != NULL && strcmp(c->endpoint, endpoint) == 0) {
            if (stripe-- == 0) return c;
        } else if (c->socket == NULL) {
            if (room == NULL || room->socket != NULL) room = c;
        } else if (!is_in_use(l, c) &&
                   (room == NULL || (room->socket != NULL && c->used_at < room->used_at))) {
            room = c;
        }
    }
    if (room == NULL) {
        sm_fail(err, SM_E_BUSY, "no connection free for '%s'", endpoint);
        return NULL;
    }
    if (room->socket != NULL) connection_close(room);
    struct sm_wire_security security = {
        .keys = l->keys, .server_key = b->key, .watch = &room->watch};
    if (sm_wire_connect_with(l->context, endpoint, &security, &room->socket, err) != 0) return NULL;
    snprintf(room->endpoint, sizeof room->endpoint, "%s", endpoint);
    return room;
}

/* Asks for the next run of pieces on one connection; false when nothing is left to ask. */
static bool ask(struct sm_loader *l, struct batch *b, struct connection *c) {
    uint32_t first = 0;
    (void)l;
    while (first < b->pieces_total && b->pieces[first] != PIECE_NONE)
        first++;
    uint32_t n = 0;
    while (first + n < b->pieces_total && n < ASK_MAX && b->pieces[first + n] == PIECE_NONE)
        n++;
    if (n == 0) return false;
    Shardmill__Fetch m = SHARDMILL__FETCH__INIT;
    m.attempt = b->attempt;
    m.offset = (uint64_t)first * SM_MAX_PIECE_BYTES;
    m.pieces = n;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.body_case = SHARDMILL__ENVELOPE__BODY_FETCH;
    e.fetch = &m;
    if (sm_wire_send(c->socket, NULL, &e, NULL) != 1) return false;
    memset(b->pieces + first, PIECE_ASKED, n);
    c->in_flight += n;
    c->used_at = b->asked_at = sm_now_ms();
    return true;
}

static void pump(struct sm_loader *l, struct batch *b) {
    for (int stripe = 0; stripe < STRIPES; stripe++) {
        struct connection *c = connect_to(l, b, stripe, NULL);
        while (c != NULL && c->in_flight + ASK_MAX <= IN_FLIGHT_MAX && ask(l, b, c))
            ;
    }
}

/* Two frames: the Piece and its bytes. false: nothing there. */
static bool receive(struct sm_loader *l, struct connection *c, sm_envelope **m, zmq_msg_t *bytes) {
    zmq_msg_t head;
    *m = NULL;
    zmq_msg_init(&head);
    if (zmq_msg_recv(&head, c->socket, ZMQ_DONTWAIT) < 0) {
        zmq_msg_close(&head);
        return false;
    }
    bool more = zmq_msg_more(&head);
    if (more && zmq_msg_recv(bytes, c->socket, ZMQ_DONTWAIT) >= 0) more = zmq_msg_more(bytes);
    while (more) { /* more frames than a Piece has */
        zmq_msg_t rest;
        zmq_msg_init(&rest);
        more = zmq_msg_recv(&rest, c->socket, ZMQ_DONTWAIT) >= 0 && zmq_msg_more(&rest);
        zmq_msg_close(&rest);
    }
    struct sm_err err;
    *m = sm_wire_unpack(zmq_msg_data(&head), zmq_msg_size(&head), &err);
    zmq_msg_close(&head);
    if (*m != NULL && (*m)->body_case != SHARDMILL__ENVELOPE__BODY_PIECE) sm_wire_free(m);
    if (*m == NULL) l->counts.garbage++;
    return true;
}

static struct batch *fetching(struct sm_loader *l, const struct connection *c, uint64_t attempt) {
    for (struct batch *b = l->ready; b != NULL; b = b->next)
        if (b->state == BATCH_FETCHING && b->attempt == attempt && b->pieces != NULL &&
            strcmp(b->endpoint, c->endpoint) == 0)
            return b;
    return NULL;
}

static void piece_take(struct sm_loader *l, struct batch *b, const Shardmill__Piece *m,
                       zmq_msg_t *bytes) {
    if (m->total == 0) {
        sm_loader_lost_ready(l, b, "its worker no longer has it");
        return;
    }
    uint64_t i = m->offset / SM_MAX_PIECE_BYTES, n = zmq_msg_size(bytes);
    uint64_t want = m->offset >= b->bytes                       ? 0
                    : b->bytes - m->offset < SM_MAX_PIECE_BYTES ? b->bytes - m->offset
                                                                : SM_MAX_PIECE_BYTES;
    if (m->total != b->bytes || m->offset % SM_MAX_PIECE_BYTES != 0 || want == 0 || n != want ||
        b->pieces[i] == PIECE_HERE) {
        l->counts.pieces_stray++;
        return;
    }
    memcpy(b->buffer + m->offset, zmq_msg_data(bytes), n);
    b->pieces[i] = PIECE_HERE;
    b->moved_at = sm_now_ms();
    l->counts.pieces++;
    l->data_refusal[0] = 0;
    if (++b->pieces_got == b->pieces_total)
        fetch_end(l, b);
    else
        pump(l, b);
}

void sm_loader_fetch_receive(struct sm_loader *l, struct connection *c) {
    for (int i = 0; i < BURST && c->socket != NULL; i++) {
        sm_envelope *m;
        zmq_msg_t bytes;
        zmq_msg_init(&bytes);
        if (!receive(l, c, &m, &bytes)) {
            zmq_msg_close(&bytes);
            return;
        }
        if (c->in_flight > 0) c->in_flight--;
        if (m != NULL) {
            struct batch *b = fetching(l, c, m->piece->attempt);
            if (b != NULL)
                piece_take(l, b, m->piece, &bytes);
            else
                l->counts.pieces_stray++;
        }
        sm_wire_free(&m);
        zmq_msg_close(&bytes);
    }
}

/* All pieces are here. */
static void fetch_end(struct sm_loader *l, struct batch *b) {
    struct sm_err err;
    char digest[SM_XXH_HEX];
    free(b->pieces);
    b->pieces = NULL;
    if (sm_batch_check(b->buffer, b->bytes, &b->header, &err) != 0) {
        sm_loader_lost_ready(l, b, err.text);
        return;
    }
    sm_batch_digest(b->buffer, digest);
    if (strcmp(digest, b->digest) != 0 || b->header.count != b->count ||
        b->header.epoch != b->epoch || b->header.first != b->first || b->header.bytes != b->bytes) {
        l->counts.bad_digest++;
        sm_loader_lost_ready(l, b, "what its worker sent has another digest");
        return;
    }
    b->base = b->buffer;
    b->state = BATCH_READY;
    l->used_tcp = true;
}

/* Nothing comes: what was asked is asked again, over a new connection when the worker refused this
 * one, since libzmq does not try again then and the key may be let in meanwhile. */
static void connection_look(struct sm_loader *l, struct connection *c) {
    struct sm_err err;
    c->in_flight = 0;
    if (c->watch == NULL || !sm_watch_hopeless(c->watch, &err)) return;
    snprintf(l->data_refusal, sizeof l->data_refusal, "%.500s", err.text);
    connection_close(c);
}

void sm_loader_fetch_tick(struct sm_loader *l, int64_t now) {
    for (struct batch *b = l->ready; b != NULL; b = b->next) {
        if (b->state != BATCH_FETCHING || b->pieces == NULL) continue;
        if (now - b->moved_at > LOST_MS) {
            char why[LOADER_ENDPOINT + 64];
            snprintf(why, sizeof why, "its worker at '%s' sends nothing", b->endpoint);
            sm_loader_lost_ready(l, b, why);
        } else if (now - b->moved_at > AGAIN_MS && now - b->asked_at > AGAIN_MS) {
            for (uint32_t i = 0; i < b->pieces_total; i++)
                if (b->pieces[i] == PIECE_ASKED) b->pieces[i] = PIECE_NONE;
            for (int i = 0; i < LOADER_CONNECTIONS; i++)
                if (strcmp(l->connections[i].endpoint, b->endpoint) == 0)
                    connection_look(l, &l->connections[i]);
        }
        if (b->pieces != NULL) pump(l, b);
    }
}

void sm_loader_fetch_close(struct sm_loader *l) {
    for (int i = 0; i < LOADER_CONNECTIONS; i++)
        if (l->connections[i].socket != NULL) connection_close(&l->connections[i]);
}
