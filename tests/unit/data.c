/* The way of batches to other hosts: what a trainer fetches is the batch, byte for byte, and no
 * peer, however greedy or mad, takes memory or time from another. */
#include "workers/data.h"
#include "lib/batch.h"
#include "lib/limits.h"
#include "lib/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include <cmocka.h>

enum { BATCH = 3 * SM_MAX_PIECE_BYTES + 4096, MEMORY = 16 << 20, WAIT_MS = 10000, PIECES = 4 };

struct rig {
    void *context;
    struct sm_batches *batches;
    struct sm_data *data;
};

static struct rig rig_new(void) {
    struct rig r = {.context = zmq_ctx_new()};
    struct sm_err err = {0};
    const struct sm_data_options options = {0};
    if (sm_batches_new(&r.batches, MEMORY, &err) != 0 ||
        sm_data_open(&r.data, r.context, &options, &err) != 0)
        fail_msg("%s", err.text);
    return r;
}

static void rig_free(struct rig *r) {
    sm_data_close(&r->data);
    zmq_ctx_term(r->context);
    sm_batches_free(&r->batches);
}

static uint8_t byte_at(uint64_t attempt, size_t i) {
    return (uint8_t)(attempt * 37 + i + i / 253);
}

static void put_batch(struct rig *r, uint64_t attempt) {
    const struct sm_slot *s = sm_batches_take(r->batches, "job", attempt, BATCH);
    assert_non_null(s);
    for (size_t i = 0; i < BATCH; i++)
        sm_batches_at(r->batches, s)[i] = byte_at(attempt, i);
    sm_batches_made(r->batches, attempt);
}

static void *trainer(struct rig *r) {
    void *socket;
    struct sm_err err = {0};
    if (sm_wire_connect(r->context, sm_data_endpoint(r->data), &socket, &err) != 0)
        fail_msg("%s", err.text);
    int none = 0;
    zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof none);
    return socket;
}

static void ask(void *socket, uint64_t attempt, uint64_t offset, uint32_t pieces) {
    Shardmill__Fetch m = SHARDMILL__FETCH__INIT;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    m.attempt = attempt;
    m.offset = offset;
    m.pieces = pieces;
    e.protocol = SM_PROTOCOL;
    e.body_case = SHARDMILL__ENVELOPE__BODY_FETCH;
    e.fetch = &m;
    assert_int_equal(sm_wire_send(socket, NULL, &e, NULL), 1);
}

/* Turns the worker's wheel until the trainer has something to read. */
static void serve_until(struct rig *r, void *socket) {
    for (int64_t end = sm_now_ms() + WAIT_MS; sm_now_ms() < end;) {
        zmq_pollitem_t items[] = {{.socket = sm_data_socket(r->data), .events = ZMQ_POLLIN},
                                  {.socket = socket, .events = ZMQ_POLLIN}};
        zmq_poll(items, 2, 100);
        if (items[0].revents != 0) sm_data_serve(r->data, r->batches);
        if (items[1].revents != 0) return;
    }
    fail_msg("no answer");
}

/* Turns it until the count reaches n. */
static void serve_until_count(struct rig *r, const uint64_t *count, uint64_t n) {
    for (int64_t end = sm_now_ms() + WAIT_MS; *count < n;) {
        if (sm_now_ms() > end)
            fail_msg("%llu of %llu", (unsigned long long)*count, (unsigned long long)n);
        zmq_pollitem_t item = {.socket = sm_data_socket(r->data), .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, 100) > 0) sm_data_serve(r->data, r->batches);
    }
}

/* Reads one Piece of two frames; gives the envelope, *body is to be closed. */
static sm_envelope *read_piece(void *socket, zmq_msg_t *body) {
    zmq_msg_t head;
    struct sm_err err = {0};
    zmq_msg_init(&head);
    zmq_msg_init(body);
    assert_true(zmq_msg_recv(&head, socket, ZMQ_DONTWAIT) >= 0);
    assert_true(zmq_msg_more(&head));
    assert_true(zmq_msg_recv(body, socket, ZMQ_DONTWAIT) >= 0);
    assert_false(zmq_msg_more(body));
    sm_envelope *e = sm_wire_unpack(zmq_msg_data(&head), zmq_msg_size(&head), &err);
    zmq_msg_close(&head);
    assert_non_null(e);
    assert_int_equal(e->body_case, SHARDMILL__ENVELOPE__BODY_PIECE);
    return e;
}

/* Reads and checks the piece that must come next. */
static void assert_piece(struct rig *r, void *socket, uint64_t attempt, uint64_t offset) {
    zmq_msg_t body;
    serve_until(r, socket);
    sm_envelope *e = read_piece(socket, &body);
    size_t n = BATCH - offset < SM_MAX_PIECE_BYTES ? BATCH - offset : SM_MAX_PIECE_BYTES;
    assert_int_equal(e->piece->attempt, attempt);
    assert_int_equal(e->piece->offset, offset);
    assert_int_equal(e->piece->total, BATCH);
    assert_int_equal(zmq_msg_size(&body), n);
    const uint8_t *bytes = zmq_msg_data(&body);
    for (size_t i = 0; i < n; i++)
        if (bytes[i] != byte_at(attempt, offset + i)) fail_msg("byte %zu differs", i);
    zmq_msg_close(&body);
    sm_wire_free(&e);
}

static void assert_batch(struct rig *r, void *socket, uint64_t attempt) {
    ask(socket, attempt, 0, 1);
    assert_piece(r, socket, attempt, 0);
    ask(socket, attempt, SM_MAX_PIECE_BYTES, 16); /* more than there are: what there is */
    for (int i = 1; i < PIECES; i++)
        assert_piece(r, socket, attempt, (uint64_t)i * SM_MAX_PIECE_BYTES);
}

static void pieces_are_the_batch_byte_for_byte(void **state) {
    (void)state;
    struct rig r = rig_new();
    put_batch(&r, 1);
    put_batch(&r, UINT64_C(7) << 32 | 2);
    void *a = trainer(&r), *b = trainer(&r);
    assert_batch(&r, a, 1);
    assert_batch(&r, b, UINT64_C(7) << 32 | 2);
    assert_batch(&r, b, 1);
    assert_int_equal(sm_data_counts(r.data)->pieces, 3 * PIECES);
    zmq_close(a);
    zmq_close(b);
    rig_free(&r);
}

static void a_batch_that_is_not_here_or_not_whole_has_total_0(void **state) {
    (void)state;
    struct rig r = rig_new();
    put_batch(&r, 1);
    assert_true(sm_batches_release(r.batches, "job", 1));
    assert_non_null(sm_batches_take(r.batches, "job", 2, BATCH)); /* still in the making */
    void *t = trainer(&r);
    for (uint64_t attempt = 0; attempt < 4; attempt++) {
        zmq_msg_t body;
        ask(t, attempt, 4096, 3);
        serve_until(&r, t);
        sm_envelope *e = read_piece(t, &body);
        assert_int_equal(e->piece->attempt, attempt);
        assert_int_equal(e->piece->total, 0);
        assert_int_equal(zmq_msg_size(&body), 0);
        zmq_msg_close(&body);
        sm_wire_free(&e);
    }
    assert_int_equal(sm_data_counts(r.data)->unknown, 4);
    zmq_close(t);
    rig_free(&r);
}

static void garbage_is_counted_and_dropped_and_disturbs_nobody(void **state) {
    (void)state;
    struct rig r = rig_new();
    put_batch(&r, 1);
    void *mad = trainer(&r), *good = trainer(&r);
    Shardmill__Heartbeat beat = SHARDMILL__HEARTBEAT__INIT;
    sm_envelope other = SHARDMILL__ENVELOPE__INIT;
    other.protocol = SM_PROTOCOL;
    other.body_case = SHARDMILL__ENVELOPE__BODY_HEARTBEAT;
    other.heartbeat = &beat;
    zmq_send(mad, "", 0, 0);
    zmq_send(mad, "what?", 5, 0);
    zmq_send(mad, "two", 3, ZMQ_SNDMORE);
    zmq_send(mad, "frames", 6, 0);
    sm_wire_send(mad, NULL, &other, NULL);
    other.protocol = SM_PROTOCOL + 1;
    sm_wire_send(mad, NULL, &other, NULL);
    ask(mad, 1, BATCH, 1);      /* behind the end */
    ask(mad, 1, UINT64_MAX, 1); /* far behind it */
    ask(mad, 1, 0, 0);          /* nothing */
    serve_until_count(&r, &sm_data_counts(r.data)->dropped, 8);
    assert_batch(&r, good, 1);
    assert_int_equal(sm_data_counts(r.data)->dropped, 8);
    assert_int_equal(sm_data_counts(r.data)->pieces, PIECES);
    zmq_close(mad);
    zmq_close(good);
    rig_free(&r);
}

static void who_asks_without_reading_fills_only_its_own_queue(void **state) {
    (void)state;
    struct rig r = rig_new();
    put_batch(&r, 1);
    void *greedy = trainer(&r), *good = trainer(&r);
    enum { ASKED = 400 };
    int one = 1;
    zmq_close(greedy);
    greedy = zmq_socket(r.context, ZMQ_DEALER);
    zmq_setsockopt(greedy, ZMQ_RCVHWM, &one, sizeof one);
    zmq_setsockopt(greedy, ZMQ_LINGER, &(int){0}, sizeof(int));
    assert_int_equal(zmq_connect(greedy, sm_data_endpoint(r.data)), 0);
    for (int i = 0; i < ASKED; i++)
        ask(greedy, 1, 0, PIECES);
    serve_until_count(&r, &sm_data_counts(r.data)->fetches, ASKED);
    /* the kernel's buffers took a few megabytes; beyond those and its queue nothing was sent */
    assert_true(sm_data_counts(r.data)->full > ASKED / 2);
    assert_true(sm_data_counts(r.data)->pieces < ASKED * PIECES / 2);
    assert_batch(&r, good, 1);
    for (int i = 0; i < PIECES; i++) /* what it was sent is whole */
        assert_piece(&r, greedy, 1, (uint64_t)i * SM_MAX_PIECE_BYTES);
    zmq_close(greedy);
    zmq_close(good);
    rig_free(&r);
}

static void memory_stays_until_its_pieces_are_sent(void **state) {
    (void)state;
    struct rig r = rig_new();
    put_batch(&r, 1);
    void *t = trainer(&r);
    assert_batch(&r, t, 1); /* connected */
    for (int i = 0; i < 4; i++)
        ask(t, 1, 0, PIECES);
    serve_until_count(&r, &sm_data_counts(r.data)->fetches, 6);
    sm_batches_free(&r.batches); /* the worker takes fresh memory while pieces still queue */
    struct sm_err err = {0};
    assert_int_equal(sm_batches_new(&r.batches, MEMORY, &err), 0);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < PIECES; k++)
            assert_piece(&r, t, 1, (uint64_t)k * SM_MAX_PIECE_BYTES);
    zmq_close(t);
    rig_free(&r);
}

static void what_is_advertised_can_be_connected_to(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"tcp://127.0.0.1:*", NULL, "tcp://127.0.0.1:"},
        {"tcp://127.0.0.1:*", "node7", "tcp://node7:"},
        {"tcp://127.0.0.1:*", "fe80::1", "tcp://[fe80::1]:"},
        {"tcp://127.0.0.1:*", "[fe80::1]", "tcp://[fe80::1]:"},
        {"tcp://127.0.0.1:*", "tcp://gate:7000", "tcp://gate:7000"},
        {"tcp://0.0.0.0:*", NULL, NULL}, /* no keys */
        {"nonsense", NULL, NULL},
    };
    void *context = zmq_ctx_new();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sm_data *d;
        struct sm_err err = {0};
        const struct sm_data_options options = {.bind = cases[i][0], .advertise = cases[i][1]};
        int failed = sm_data_open(&d, context, &options, &err);
        assert_int_equal(failed, cases[i][2] != NULL ? 0 : -1);
        if (failed) assert_true(d == NULL && err.text[0] != 0);
        if (failed) continue;
        const char *got = sm_data_endpoint(d), *port = strrchr(got, ':');
        assert_int_equal(strncmp(got, cases[i][2], strlen(cases[i][2])), 0);
        assert_true(atoi(port + 1) > 0);
        assert_string_equal(sm_data_public_key(d), "");
        sm_data_close(&d);
    }
    zmq_ctx_term(context);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_the_batch_byte_for_byte),
        cmocka_unit_test(a_batch_that_is_not_here_or_not_whole_has_total_0),
        cmocka_unit_test(garbage_is_counted_and_dropped_and_disturbs_nobody),
        cmocka_unit_test(who_asks_without_reading_fills_only_its_own_queue),
        cmocka_unit_test(memory_stays_until_its_pieces_are_sent),
        cmocka_unit_test(what_is_advertised_can_be_connected_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
