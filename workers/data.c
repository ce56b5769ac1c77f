/* Fetch in, Pieces out. A piece is not copied: libzmq reads it where it lies in batch memory, which
 * is held until it has. Should the slot be used again meanwhile (only when its session has ended),
 * the trainer's check of the digest finds it. */
#include "workers/data.h"

#include "lib/limits.h"
#include "lib/wire.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum {
    /* that wait for one peer; what it asks beyond is not sent, and it asks again. libzmq reports
     * room in steps of half of it, so an honest trainer may have 16 in flight. */
    PEER_PIECES = 32,
    FETCH_PIECES = 16, /* of one Fetch */
    SERVE_MAX = 32,    /* messages of one turn */
};

struct sm_data {
    void *socket;
    char endpoint[256], public_key[SM_KEY_TEXT];
    struct sm_data_counts counts;
};

static int advertise(struct sm_data *d, const char *bound, const char *wish, struct sm_err *err);
static void answer(struct sm_data *d, const struct sm_batches *batches, const struct sm_peer *peer,
                   const Shardmill__Fetch *m);

int sm_data_open(struct sm_data **gives, void *context, const struct sm_data_options *options,
                 struct sm_err *err) {
    const struct sm_wire_security security = {.keys = options->keys, .queue_max = PEER_PIECES};
    char bound[256];
    *gives = NULL;
    struct sm_data *d = calloc(1, sizeof *d);
    if (d == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (options->keys != NULL) strcpy(d->public_key, sm_keys_public(options->keys));
    if (sm_wire_bind_with(context, options->bind != NULL ? options->bind : SM_DATA_BIND, &security,
                          &d->socket, bound, err) != 0 ||
        advertise(d, bound, options->advertise, err) != 0) {
        sm_data_close(&d);
        return -1;
    }
    *gives = d;
    return 0;
}

void sm_data_close(struct sm_data **dp) {
    struct sm_data *d = *dp;
    if (d == NULL) return;
    if (d->socket != NULL) {
        int none = 0; /* nobody waits for the rest of a batch whose worker ends */
        zmq_setsockopt(d->socket, ZMQ_LINGER, &none, sizeof none);
        zmq_close(d->socket);
    }
    free(d);
    *dp = NULL;
}

void *sm_data_socket(const struct sm_data *d) {
    return d->socket;
}

const char *sm_data_endpoint(const struct sm_data *d) {
    return d->endpoint;
}

const char *sm_data_public_key(const struct sm_data *d) {
    return d->public_key;
}

const struct sm_data_counts *sm_data_counts(const struct sm_data *d) {
    return &d->counts;
}

/* A host gets the bound port; an endpoint is taken as it is, for who stands behind a forwarded
 * port. */
static int advertise(struct sm_data *d, const char *bound, const char *wish, struct sm_err *err) {
    static const char *const everywhere[] = {"tcp://0.0.0.0:", "tcp://[::]:", "tcp://*:"};
    const char *port = strrchr(bound, ':');
    int n;
    if (wish == NULL || wish[0] == 0) {
        for (size_t i = 0; i < sizeof everywhere / sizeof *everywhere; i++)
            if (strncmp(bound, everywhere[i], strlen(everywhere[i])) == 0)
                return sm_fail(err, SM_E_USAGE,
                               "'%s' is no address to which a trainer could connect (hint: "
                               "--advertise HOST says which)",
                               bound);
        n = snprintf(d->endpoint, sizeof d->endpoint, "%s", bound);
    } else if (strstr(wish, "://") != NULL) {
        n = snprintf(d->endpoint, sizeof d->endpoint, "%s", wish);
    } else if (port != NULL && strncmp(bound, "tcp://", 6) == 0) {
        bool bare = strchr(wish, ':') != NULL && wish[0] != '['; /* an IPv6 address */
        n = snprintf(d->endpoint, sizeof d->endpoint, "tcp://%s%s%s%s", bare ? "[" : "", wish,
                     bare ? "]" : "", port);
    } else {
        n = -1;
    }
    return n > 0 && (size_t)n < sizeof d->endpoint
               ? 0
               : sm_fail(err, SM_E_USAGE, "'%.100s' cannot be advertised for '%s'", wish, bound);
}

void sm_data_serve(struct sm_data *d, struct sm_batches *batches) {
    for (int i = 0; i < SERVE_MAX; i++) {
        struct sm_peer peer;
        sm_envelope *message = NULL;
        int got = sm_wire_receive(d->socket, &peer, &message, NULL);
        if (got == 0) return;
        if (got > 0 && message->body_case == SHARDMILL__ENVELOPE__BODY_FETCH)
            answer(d, batches, &peer, message->fetch);
        else
            d->counts.dropped++;
        sm_wire_free(&message);
    }
}

/* One frame of several. Takes the frame in any case. */
static bool send_frame(void *socket, zmq_msg_t *frame, int more) {
    int rc;
    do
        rc = zmq_msg_send(frame, socket, ZMQ_DONTWAIT | more);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) zmq_msg_close(frame);
    return rc >= 0;
}

static bool frame_of_piece(zmq_msg_t *frame, const Shardmill__Piece *m) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.body_case = SHARDMILL__ENVELOPE__BODY_PIECE;
    e.piece = (Shardmill__Piece *)m;
    size_t n = shardmill__envelope__get_packed_size(&e);
    if (zmq_msg_init_size(frame, n) != 0) return false;
    shardmill__envelope__pack(&e, zmq_msg_data(frame));
    return true;
}

/* Whether it was sent. libzmq looks for room with the first frame and then takes the others. */
static bool send_piece(struct sm_data *d, const struct sm_batches *batches,
                       const struct sm_peer *peer, const Shardmill__Piece *m, uint8_t *bytes,
                       size_t n) {
    zmq_msg_t to, head, body;
    if (zmq_msg_init_size(&to, peer->n) != 0) return false;
    memcpy(zmq_msg_data(&to), peer->id, peer->n);
    if (!send_frame(d->socket, &to, ZMQ_SNDMORE)) {
        d->counts.full += errno == EAGAIN;
        return false;
    }
    bool packed = frame_of_piece(&head, m);
    if (!packed) zmq_msg_init(&head); /* out of memory: an empty message, which the trainer drops */
    if (!send_frame(d->socket, &head, ZMQ_SNDMORE)) return false;
    void *hold = packed && n > 0 ? sm_batches_hold(batches) : NULL;
    if (hold == NULL) {
        zmq_msg_init(&body);
    } else if (zmq_msg_init_data(&body, bytes, n, sm_batches_drop, hold) != 0) {
        sm_batches_drop(bytes, hold);
        zmq_msg_init(&body);
    }
    return send_frame(d->socket, &body, 0);
}

static void answer(struct sm_data *d, const struct sm_batches *batches, const struct sm_peer *peer,
                   const Shardmill__Fetch *m) {
    const struct sm_slot *slot = sm_batches_find(batches, m->attempt);
    Shardmill__Piece piece = SHARDMILL__PIECE__INIT;
    piece.attempt = m->attempt;
    piece.offset = m->offset;
    d->counts.fetches++;
    if (slot == NULL) {
        d->counts.unknown++;
        send_piece(d, batches, peer, &piece, NULL, 0);
        return;
    }
    piece.total = slot->bytes;
    uint32_t pieces = m->pieces < FETCH_PIECES ? m->pieces : FETCH_PIECES;
    if (m->offset >= slot->bytes || pieces == 0) d->counts.dropped++;
    for (uint32_t i = 0; i < pieces && piece.offset < slot->bytes; i++) {
        uint64_t left = slot->bytes - piece.offset;
        size_t n = left < SM_MAX_PIECE_BYTES ? (size_t)left : SM_MAX_PIECE_BYTES;
        if (!send_piece(d, batches, peer, &piece, sm_batches_at(batches, slot) + piece.offset, n))
            return;
        d->counts.pieces++;
        piece.offset += n;
    }
}
