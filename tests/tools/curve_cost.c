/* One batch of 38 MB in pieces of 1 MiB from a ROUTER to a DEALER over loopback TCP, with and
 * without CURVE, alternating. Prints for each round the seconds of both. bench_curve.py reads it.
 */
#include "lib/limits.h"
#include "lib/wire.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { BATCH_BYTES = 38 << 20, PIECE = SM_MAX_PIECE_BYTES, WINDOW = 16, BATCHES = 8 };

static uint8_t batch[BATCH_BYTES], buffer[BATCH_BYTES];

struct worker {
    void *context, *socket;
    char endpoint[256];
};

static void fail(const char *text) {
    fprintf(stderr, "curve_cost: %s\n", text);
    exit(1);
}

/* Answers each request (an offset) with the piece at that place, until an offset beyond the end. */
static void *worker_run(void *arg) {
    struct worker *w = arg;
    for (;;) {
        uint8_t peer[255];
        uint64_t offset;
        int n = zmq_recv(w->socket, peer, sizeof peer, 0);
        if (n < 0 || zmq_recv(w->socket, &offset, sizeof offset, 0) != sizeof offset) return NULL;
        if (offset >= BATCH_BYTES) return NULL;
        zmq_send(w->socket, peer, (size_t)n, ZMQ_SNDMORE);
        zmq_send(w->socket, batch + offset, PIECE, 0);
    }
}

static void ask(void *socket, uint64_t offset) {
    if (zmq_send(socket, &offset, sizeof offset, 0) < 0) fail("cannot ask");
}

static void batch_fetch(void *socket) {
    uint64_t asked = 0, got = 0;
    for (; asked < WINDOW; asked++)
        ask(socket, asked * PIECE);
    for (; got < BATCH_BYTES / PIECE; got++) {
        if (zmq_recv(socket, buffer + got * PIECE, PIECE, 0) != PIECE) fail("a piece is missing");
        if (asked < BATCH_BYTES / PIECE) ask(socket, asked++ * PIECE);
    }
}

static double round_seconds(const struct sm_keys *server, const struct sm_keys *client) {
    struct sm_err err;
    struct worker w = {.context = zmq_ctx_new()}; /* as two processes: an I/O thread each */
    void *context = zmq_ctx_new(), *socket = NULL;
    const struct sm_wire_security theirs = {.keys = server}, ours = {.keys = client};
    pthread_t thread;
    if (sm_wire_bind_with(w.context, "tcp://127.0.0.1:*", &theirs, &w.socket, w.endpoint, &err) !=
            0 ||
        sm_wire_connect_with(context, w.endpoint, &ours, &socket, &err) != 0)
        fail(err.text);
    pthread_create(&thread, NULL, worker_run, &w);
    batch_fetch(socket); /* the handshake, and warm buffers */
    int64_t begin = sm_now_ns();
    for (int i = 0; i < BATCHES; i++)
        batch_fetch(socket);
    double seconds = (double)(sm_now_ns() - begin) / 1e9 / BATCHES;
    if (memcmp(batch, buffer, BATCH_BYTES) != 0) fail("other bytes arrived");
    ask(socket, UINT64_MAX);
    pthread_join(thread, NULL);
    zmq_close(socket);
    zmq_close(w.socket);
    zmq_ctx_term(context);
    zmq_ctx_term(w.context);
    return seconds;
}

int main(int argc, char **argv) {
    struct sm_keys *server, *client;
    struct sm_err err;
    if (argc != 4) fail("usage: curve_cost SERVER_KEYS CLIENT_KEYS ROUNDS");
    if (sm_keys_load(argv[1], &server, &err) != 0 || sm_keys_load(argv[2], &client, &err) != 0)
        fail(err.text);
    for (size_t i = 0; i < BATCH_BYTES; i++)
        batch[i] = (uint8_t)(i * 2654435761u >> 13);
    for (int i = 0; i < atoi(argv[3]); i++)
        printf("%.6f %.6f\n", round_seconds(NULL, NULL), round_seconds(server, client));
    sm_keys_free(&server);
    sm_keys_free(&client);
    return 0;
}
