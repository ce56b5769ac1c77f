/* How fast batches get to a trainer, apart from how fast they are made: the real broker, a worker
 * that makes nothing (its batches lie ready in batch memory) and the client library, beside one
 * plain PUSH/PULL pair. tests/bench/bench_stream_transport.py runs it.
 *
 *   stream_transport pair|pair-ipc|shm|tcp SECONDS [read]
 *
 * Prints "BYTES SECONDS BATCHES". With `read` every byte is also read once where it was received.
 */
#include "broker/loop.h"
#include "client/c/shardmill.h"
#include "lib/batch.h"
#include "lib/handover.h"
#include "lib/limits.h"
#include "lib/wire.h"
#include "workers/batches.h"
#include "workers/data.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

enum { COUNT = 252, SIDE = 224, SLOTS = 8, WARM_UP = 4, HEARTBEAT_MS = 500 }; /* 38 MB a batch */

static volatile sig_atomic_t stop;
static char base[200];
static bool read_bytes;

static void die(const char *what, const struct sm_err *err) {
    fprintf(stderr, "stream_transport: %s: %s\n", what, err != NULL ? err->text : "");
    exit(1);
}

static struct sm_batch_header batch_header(void) {
    struct sm_batch_header h = {.count = COUNT, .channels = 3, .height = SIDE, .width = SIDE};
    int failed = sm_batch_layout(&h, NULL);
    assert(!failed);
    return h;
}

static pid_t start(void (*body)(void)) {
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
    _exit(0);
}

static void look(const void *bytes, size_t n) {
    char hex[SM_XXH_HEX];
    if (read_bytes) sm_xxh(bytes, n, hex);
}

/* Counts from the fifth on, for so many seconds. */
struct clock {
    int64_t from, seconds;
    uint64_t bytes, batches, seen;
};

static bool count(struct clock *c, uint64_t bytes) {
    if (++c->seen <= WARM_UP) {
        c->from = sm_now_ns();
        return true;
    }
    c->bytes += bytes;
    c->batches++;
    return sm_now_ns() - c->from < c->seconds * 1000000000;
}

static void report(const struct clock *c) {
    printf("%llu %.6f %llu\n", (unsigned long long)c->bytes, (double)(sm_now_ns() - c->from) / 1e9,
           (unsigned long long)c->batches);
}

/* ---- the plain pair ---- */

static char pair_endpoint[300];

static void push_main(void) {
    void *context = zmq_ctx_new(), *s = zmq_socket(context, ZMQ_PUSH);
    uint64_t n = batch_header().bytes;
    char *bytes = malloc(n);
    memset(bytes, 1, n);
    if (zmq_connect(s, pair_endpoint) != 0) die("connect", NULL);
    while (zmq_send(s, bytes, n, 0) >= 0)
        ;
}

static void run_pair(const char *endpoint, int64_t seconds) {
    void *context = zmq_ctx_new(), *s = zmq_socket(context, ZMQ_PULL);
    size_t n = sizeof pair_endpoint;
    struct clock c = {.seconds = seconds};
    if (zmq_bind(s, endpoint) != 0) die(endpoint, NULL);
    zmq_getsockopt(s, ZMQ_LAST_ENDPOINT, pair_endpoint, &n);
    pid_t pid = start(push_main);
    for (bool more = true; more;) {
        zmq_msg_t m;
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, s, 0) < 0) die("receive", NULL);
        look(zmq_msg_data(&m), zmq_msg_size(&m));
        more = count(&c, zmq_msg_size(&m));
        zmq_msg_close(&m);
    }
    report(&c);
    kill(pid, SIGKILL);
}

/* ---- broker and worker ---- */

static void broker_endpoint(char out[300]) {
    snprintf(out, 300, "ipc://%s/broker", base);
}

static void broker_main(void) {
    char endpoint[300];
    struct sm_err err = {0};
    broker_endpoint(endpoint);
    struct sm_broker_options options = {
        .endpoint = endpoint, .state_dir = base, .heartbeat_ms = HEARTBEAT_MS};
    if (sm_broker_run(&options, &stop, &err) != 0) die("broker", &err);
}

struct worker {
    void *context, *socket;
    struct sm_batches *batches;
    struct sm_data *data;
    struct sm_batch_header h;
    char host[SM_HANDOVER_HOST], digest[SM_XXH_HEX];
};

#define SAY(w, field, which, body)                        \
    do {                                                  \
        sm_envelope e_ = SHARDMILL__ENVELOPE__INIT;       \
        e_.protocol = SM_PROTOCOL;                        \
        e_.body_case = SHARDMILL__ENVELOPE__BODY_##which; \
        e_.field = (body);                                \
        sm_wire_send((w)->socket, NULL, &e_, NULL);       \
    } while (0)

static void say_ready(struct worker *w) {
    Shardmill__Ready ready = SHARDMILL__READY__INIT;
    SAY(w, ready, READY, &ready);
}

/* The bytes are there already: only what names the batch is written. */
static void make_batch(struct worker *w, const Shardmill__Lease *m) {
    const struct sm_slot *slot = sm_batches_take(w->batches, m->job, m->attempt, w->h.bytes);
    if (slot == NULL) die("no room for a batch", NULL);
    struct sm_batch_header h = w->h;
    h.epoch = m->epoch;
    h.step = m->step;
    h.first = m->first;
    memcpy(sm_batches_at(w->batches, slot), &h, sizeof h);
    sm_batches_made(w->batches, m->attempt);
    Shardmill__Done done = SHARDMILL__DONE__INIT;
    done.job = m->job;
    done.kind = m->kind;
    done.attempt = m->attempt;
    done.first = m->first;
    done.count = m->count;
    done.generation = m->generation;
    done.bytes = h.bytes;
    done.offset = slot->offset;
    done.digest = w->digest;
    done.sha256 = "";
    SAY(w, done, DONE, &done);
    say_ready(w);
}

static void hear(struct worker *w) {
    sm_envelope *e;
    while (sm_wire_receive(w->socket, NULL, &e, NULL) > 0) {
        if (e->body_case == SHARDMILL__ENVELOPE__BODY_WELCOME)
            for (int i = 0; i < 2; i++)
                say_ready(w);
        if (e->body_case == SHARDMILL__ENVELOPE__BODY_LEASE) make_batch(w, e->lease);
        if (e->body_case == SHARDMILL__ENVELOPE__BODY_FREE)
            sm_batches_release(w->batches, e->free->job, e->free->attempt);
        sm_wire_free(&e);
    }
}

static void say_hello(struct worker *w) {
    Shardmill__Hello hello = SHARDMILL__HELLO__INIT;
    hello.name = "bench/0";
    hello.fingerprint = "bench";
    hello.heartbeat_ms = HEARTBEAT_MS;
    hello.host = w->host;
    hello.fd_socket = (char *)sm_batches_address(w->batches);
    hello.data_endpoint = (char *)sm_data_endpoint(w->data);
    hello.batch_memory = sm_batches_bytes(w->batches);
    SAY(w, hello, HELLO, &hello);
}

static void worker_main(void) {
    struct worker w = {.context = zmq_ctx_new(), .h = batch_header()};
    struct sm_err err = {0};
    char endpoint[300];
    broker_endpoint(endpoint);
    sm_handover_host(w.host);
    if (sm_batches_new(&w.batches, SLOTS * w.h.bytes, &err) != 0 ||
        sm_data_open(&w.data, w.context, &(struct sm_data_options){0}, &err) != 0 ||
        sm_wire_connect(w.context, endpoint, &w.socket, &err) != 0)
        die("worker", &err);
    for (uint64_t i = 0; i < SLOTS; i++) { /* every slot has the same content, so the same digest */
        const struct sm_slot *slot = sm_batches_take(w.batches, "", i, w.h.bytes);
        uint8_t *m = sm_batches_at(w.batches, slot);
        for (uint64_t k = w.h.tensor; k < w.h.bytes; k++)
            m[k] = (uint8_t)(k * 2654435761u >> 13);
        memcpy(m, &w.h, sizeof w.h);
        if (i == 0) sm_batch_digest(m, w.digest);
    }
    sm_batches_release_all(w.batches);
    say_hello(&w);
    for (int64_t said = 0;;) {
        zmq_pollitem_t items[] = {{.socket = w.socket, .events = ZMQ_POLLIN},
                                  {.fd = sm_batches_fd(w.batches), .events = ZMQ_POLLIN},
                                  {.socket = sm_data_socket(w.data), .events = ZMQ_POLLIN}};
        zmq_poll(items, 3, HEARTBEAT_MS / 2);
        hear(&w);
        if (items[1].revents != 0) sm_batches_serve(w.batches);
        if (items[2].revents != 0) sm_data_serve(w.data, w.batches);
        if (sm_now_ms() - said < HEARTBEAT_MS) continue;
        said = sm_now_ms();
        Shardmill__Heartbeat beat = SHARDMILL__HEARTBEAT__INIT;
        SAY(&w, heartbeat, HEARTBEAT, &beat);
    }
}

static void submit(void) {
    struct worker client = {.context = zmq_ctx_new()};
    struct sm_err err = {0};
    char endpoint[300];
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    Shardmill__Submit m = SHARDMILL__SUBMIT__INIT;
    broker_endpoint(endpoint);
    if (sm_wire_connect(client.context, endpoint, &client.socket, &err) != 0) die("submit", &err);
    spec.kind = SHARDMILL__JOB_KIND__STREAM;
    spec.name = m.job = "bench";
    spec.pipeline = "{}";
    spec.pipeline_digest = spec.dataset_digest = spec.index_digest =
        "00000000000000000000000000000000";
    spec.index_path = spec.source_root = "/nowhere";
    spec.samples = UINT64_C(1) << 30;
    spec.copies = spec.slices = 1;
    spec.shard_samples = SM_MAX_SHARD_SAMPLES;
    spec.lease_samples = SM_MAX_LEASE_SAMPLES;
    spec.batch_size = COUNT;
    spec.batch_bytes = batch_header().bytes;
    m.spec = &spec;
    SAY(&client, submit, SUBMIT, &m);
    zmq_pollitem_t item = {.socket = client.socket, .events = ZMQ_POLLIN};
    sm_envelope *e = NULL;
    if (zmq_poll(&item, 1, 10000) != 1 || sm_wire_receive(client.socket, NULL, &e, NULL) != 1)
        die("no answer from the broker", NULL);
    if (e->body_case != SHARDMILL__ENVELOPE__BODY_ACCEPTED)
        die(e->body_case == SHARDMILL__ENVELOPE__BODY_REFUSED ? e->refused->text : "submit", NULL);
    sm_wire_free(&e);
    zmq_close(client.socket);
    zmq_ctx_term(client.context);
}

static void run_stream(const char *transport, int64_t seconds) {
    char endpoint[300];
    struct clock c = {.seconds = seconds};
    pid_t broker = start(broker_main), worker = start(worker_main);
    submit();
    broker_endpoint(endpoint);
    struct sm_open_options options = {.api_version = SM_API_VERSION,
                                      .broker = endpoint,
                                      .job = "bench",
                                      .credit_bytes = (SLOTS - 2) * batch_header().bytes,
                                      .transport = transport};
    struct sm_loader *loader;
    if (sm_open(&loader, &options) != 0) die(sm_last_error(NULL), NULL);
    for (bool more = true; more;) {
        struct sm_batch_view view;
        if (sm_next(loader, &view, 20000) != SM_NEXT_BATCH) die(sm_last_error(loader), NULL);
        look(view.data, view.data_bytes);
        more = count(&c, view.data_bytes);
        sm_release(loader, &view);
    }
    report(&c);
    sm_close(&loader);
    kill(worker, SIGKILL);
    kill(broker, SIGKILL);
    waitpid(worker, NULL, 0);
    waitpid(broker, NULL, 0);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const char *mode = argv[1];
    int64_t seconds = atoi(argv[2]);
    read_bytes = argc > 3 && strcmp(argv[3], "read") == 0;
    snprintf(base, sizeof base, "%s", "/tmp/shardmill-bench-XXXXXX");
    if (mkdtemp(base) == NULL) die("mkdtemp", NULL);
    char ipc[300];
    snprintf(ipc, sizeof ipc, "ipc://%s/pair", base);
    if (strcmp(mode, "pair") == 0)
        run_pair("tcp://127.0.0.1:*", seconds);
    else if (strcmp(mode, "pair-ipc") == 0)
        run_pair(ipc, seconds);
    else
        run_stream(mode, seconds);
    char remove[300];
    snprintf(remove, sizeof remove, "rm -rf '%s'", base);
    return system(remove) != 0;
}
