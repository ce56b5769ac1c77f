/* A worker as its broker and its trainers see it: batches are told, kept until Free, and never
 * written over while someone may read them. The worker is real, with a real cage; this test plays
 * the broker. */
#include "lib/batch.h"
#include "lib/handover.h"
#include "lib/wire.h"
#include "tests/unit/samples.h"
#include "tests/unit/scratch.h"
#include "workers/cage.h"
#include "workers/shell.h"
#include "workers/sources/source.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

enum { SAMPLES = 12, BATCH = 4, SIDE = 64, MEMORY = 256 << 10, WAIT_MS = 20000 };
/* a batch has 48 KiB and a bit: five fit */

struct rig {
    struct scratch s;
    char endpoint[320], root[300], index_path[300], digest[SM_XXH_HEX], dataset[SM_XXH_HEX];
    char pipeline[700];
    void *context, *broker;
    struct sm_peer worker;
    pid_t pid;
    uint64_t memory, attempts;
    char address[SM_HANDOVER_NAME], data_endpoint[256];
    size_t n_holding;
    bool ready;
    const char *refuses; /* the next JobGet is answered by Refused of this job, then by the spec */
};

static volatile sig_atomic_t stop;

static void on_term(int number) {
    stop = number;
}

/* The process of the worker: this program anew, so that it has no thread of the test's. */
static int work(const char *endpoint) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGTERM, on_term);
    struct sm_worker_options options = {
        .endpoint = endpoint, .batch_memory = MEMORY, .heartbeat_ms = 200};
    struct sm_err err = {0};
    int failed = sm_worker_run(&options, &stop, &err);
    if (failed) fprintf(stderr, "worker: %s\n", err.text);
    _exit(failed ? 1 : 0); /* its disk's thread may still be ending */
}

static void make_dataset(struct rig *r) {
    struct sm_err err = {0};
    struct sm_index *index;
    char name[32];
    r->s = scratch_make();
    for (int i = 0; i < SAMPLES; i++) {
        struct bytes b = make_jpeg(80, 80, i * 9);
        snprintf(name, sizeof name, "d/c%d/%02d.jpg", i % 3, i);
        scratch_write(&r->s, name, b.data, b.n);
        free(b.data);
    }
    snprintf(r->root, sizeof r->root, "%s/d", r->s.dir);
    snprintf(r->index_path, sizeof r->index_path, "%s/index", r->s.dir);
    snprintf(
        r->pipeline, sizeof r->pipeline,
        "{\"version\":1,\"source\":{\"path\":\"%s\"},\"ops\":[{\"RandomCrop\":{\"size\":[%d,%d]}}],"
        "\"output\":{\"batch_size\":%d}}",
        r->root, SIDE, SIDE, BATCH);
    struct sm_pipeline_source source = {.format = SM_SOURCE_FOLDER, .path = r->root};
    assert_int_equal(sm_index_build(&source, r->index_path, &err), 0);
    assert_int_equal(sm_index_open(&index, r->index_path, &err), 0);
    strcpy(r->digest, sm_index_digest(index));
    strcpy(r->dataset, sm_index_dataset_digest(index));
    sm_index_close(&index);
}

static struct rig *rig_new(void) {
    struct rig *r = calloc(1, sizeof *r);
    struct sm_err err = {0};
    make_dataset(r);
    snprintf(r->endpoint, sizeof r->endpoint, "ipc://%s/broker", r->s.dir);
    char *argv[] = {"worker", "worker", r->endpoint, NULL};
    assert_int_equal(posix_spawn(&r->pid, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    r->context = zmq_ctx_new();
    if (sm_wire_bind(r->context, r->endpoint, &r->broker, NULL, &err) != 0)
        fail_msg("%s", err.text);
    return r;
}

static void rig_free(struct rig *r) {
    int status;
    kill(r->pid, SIGTERM);
    assert_int_equal(waitpid(r->pid, &status, 0), r->pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    zmq_close(r->broker);
    zmq_ctx_term(r->context);
    scratch_remove(&r->s);
    free(r);
}

#define SAY(r, field, which, body)                                           \
    do {                                                                     \
        sm_envelope e_ = SHARDMILL__ENVELOPE__INIT;                          \
        e_.protocol = SM_PROTOCOL;                                           \
        e_.instance = 1;                                                     \
        e_.body_case = SHARDMILL__ENVELOPE__BODY_##which;                    \
        e_.field = (body);                                                   \
        assert_int_equal(sm_wire_send(r->broker, &r->worker, &e_, NULL), 1); \
    } while (0)

static void answer_job(struct rig *r, const char *id) {
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    struct sm_batch_header h = {.count = BATCH, .channels = 3, .height = SIDE, .width = SIDE};
    assert_int_equal(sm_batch_layout(&h, NULL), 0);
    spec.kind = SHARDMILL__JOB_KIND__STREAM;
    spec.pipeline = r->pipeline;
    spec.index_path = r->index_path;
    spec.index_digest = r->digest;
    spec.dataset_digest = r->dataset;
    spec.source_root = r->root;
    spec.samples = SAMPLES;
    spec.copies = 1;
    spec.shuffle = true;
    spec.shard_samples = 1000;
    spec.batch_size = BATCH;
    spec.batch_bytes = h.bytes;
    Shardmill__Job job = SHARDMILL__JOB__INIT;
    job.job = (char *)id;
    job.spec = &spec;
    SAY(r, job, JOB, &job);
}

static void answer_hello(struct rig *r, const Shardmill__Hello *m) {
    Shardmill__Welcome welcome = SHARDMILL__WELCOME__INIT;
    welcome.heartbeat_ms = 200;
    welcome.liveness = 100;
    snprintf(r->address, sizeof r->address, "%s", m->fd_socket);
    snprintf(r->data_endpoint, sizeof r->data_endpoint, "%s", m->data_endpoint);
    r->memory = m->batch_memory;
    r->n_holding = m->n_holding;
    r->ready = false;
    SAY(r, welcome, WELCOME, &welcome);
}

static void refuse(struct rig *r, const char *job, uint64_t attempt, uint32_t code) {
    Shardmill__Refused m = SHARDMILL__REFUSED__INIT;
    m.job = (char *)job;
    m.attempt = attempt;
    m.code = code;
    m.text = "for the test";
    SAY(r, refused, REFUSED, &m);
}

static void on_job_get(struct rig *r, const char *job) {
    if (r->refuses != NULL) refuse(r, r->refuses, 0, SM_E_DIFFERS);
    r->refuses = NULL;
    answer_job(r, job);
}

/* Plays the broker until a message of this kind comes. Gives it. */
static sm_envelope *await(struct rig *r, Shardmill__Envelope__BodyCase kind) {
    for (int64_t end = sm_now_ms() + WAIT_MS; sm_now_ms() < end;) {
        zmq_pollitem_t item = {.socket = r->broker, .events = ZMQ_POLLIN};
        struct sm_peer from;
        sm_envelope *e;
        if (zmq_poll(&item, 1, 100) <= 0) continue;
        if (sm_wire_receive(r->broker, &from, &e, NULL) <= 0) continue;
        r->worker = from;
        if (e->body_case == SHARDMILL__ENVELOPE__BODY_HELLO) answer_hello(r, e->hello);
        if (e->body_case == SHARDMILL__ENVELOPE__BODY_JOB_GET) on_job_get(r, e->job_get->job);
        if (e->body_case == SHARDMILL__ENVELOPE__BODY_READY) r->ready = true;
        if (e->body_case == kind) return e;
        sm_wire_free(&e);
    }
    fail_msg("the worker does not say %d", (int)kind);
    return NULL;
}

static void await_and_drop(struct rig *r, Shardmill__Envelope__BodyCase kind) {
    sm_envelope *e = await(r, kind);
    sm_wire_free(&e);
}

/* The Done of this attempt; a worker also asks about older ones. */
static sm_envelope *await_done(struct rig *r, uint64_t attempt) {
    for (;;) {
        sm_envelope *e = await(r, SHARDMILL__ENVELOPE__BODY_DONE);
        if (e->done->attempt == attempt) return e;
        sm_wire_free(&e);
    }
}

static uint64_t lease(struct rig *r, uint32_t epoch, uint64_t step) {
    Shardmill__Lease m = SHARDMILL__LEASE__INIT;
    m.job = "job";
    m.kind = SHARDMILL__LEASE_KIND__STEP;
    m.attempt = UINT64_C(1) << 32 | ++r->attempts;
    m.first = step * BATCH;
    m.count = BATCH;
    m.epoch = epoch;
    m.step = step;
    m.progress_ms = 10000;
    while (!r->ready)
        await_and_drop(r, SHARDMILL__ENVELOPE__BODY_READY);
    r->ready = false;
    SAY(r, lease, LEASE, &m);
    return m.attempt;
}

static void ack(struct rig *r, uint64_t attempt, bool wanted) {
    Shardmill__Ack m = SHARDMILL__ACK__INIT;
    m.job = "job";
    m.attempt = attempt;
    m.wanted = wanted;
    SAY(r, ack, ACK, &m);
}

static void free_batch(struct rig *r, uint64_t attempt) {
    Shardmill__Free m = SHARDMILL__FREE__INIT;
    m.job = "job";
    m.attempt = attempt;
    SAY(r, free, FREE, &m);
}

struct made {
    uint64_t attempt, offset, bytes;
    char digest[SM_XXH_HEX];
};

/* A lease, its Done and the Ack. */
static struct made make_batch(struct rig *r, uint32_t epoch, uint64_t step) {
    struct made b = {.attempt = lease(r, epoch, step)};
    sm_envelope *e = await_done(r, b.attempt);
    const Shardmill__Done *m = e->done;
    assert_int_equal(m->kind, SHARDMILL__LEASE_KIND__STEP);
    assert_int_equal(m->first, step * BATCH);
    assert_int_equal(m->count, BATCH);
    b.offset = m->offset;
    b.bytes = m->bytes;
    snprintf(b.digest, sizeof b.digest, "%s", m->digest);
    sm_wire_free(&e);
    ack(r, b.attempt, true);
    return b;
}

static const uint8_t *take_memory(struct rig *r) {
    struct sm_err err = {0};
    int fd;
    uint64_t bytes;
    if (sm_handover_take(r->address, WAIT_MS, &fd, &bytes, &err) != 0) fail_msg("%s", err.text);
    assert_int_equal(bytes, r->memory);
    const uint8_t *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    close(fd);
    return map;
}

static void assert_readable(const uint8_t *map, const struct made *b) {
    struct sm_batch_header h;
    struct sm_err err = {0};
    char digest[SM_XXH_HEX];
    if (sm_batch_check(map + b->offset, b->bytes, &h, &err) != 0) fail_msg("%s", err.text);
    sm_batch_digest(map + b->offset, digest);
    assert_string_equal(digest, b->digest);
}

static void batches_are_told_kept_and_their_room_comes_back_with_free(void **state) {
    (void)state;
    struct rig *r = rig_new();
    struct made b[5];
    for (uint64_t i = 0; i < 5; i++)
        b[i] = make_batch(r, 0, i);
    assert_int_equal(r->memory, MEMORY);
    const uint8_t *map = take_memory(r);
    for (int i = 0; i < 5; i++)
        assert_readable(map, &b[i]);
    /* no room: the lease goes back, and nothing that is kept was touched */
    uint64_t attempt = lease(r, 0, 5);
    sm_envelope *e = await(r, SHARDMILL__ENVELOPE__BODY_FAIL);
    assert_int_equal(e->fail->attempt, attempt);
    assert_string_equal(sm_code_word((int)e->fail->code), "busy");
    sm_wire_free(&e);
    ack(r, attempt, true);
    free_batch(r, b[2].attempt);
    free_batch(r, b[2].attempt); /* twice is once */
    struct made next = make_batch(r, 1, 7);
    assert_int_equal(next.offset, b[2].offset);
    assert_readable(map, &next);
    for (int i = 0; i < 5; i++)
        if (i != 2) assert_readable(map, &b[i]);
    munmap((void *)map, MEMORY);
    rig_free(r);
}

static void a_batch_whose_free_was_lost_is_asked_about_and_its_room_comes_back(void **state) {
    (void)state;
    struct rig *r = rig_new();
    struct made b = make_batch(r, 0, 0), c = make_batch(r, 0, 1);
    struct made *both[] = {&c, &b};
    for (int i = 0; i < 2; i++) { /* asked about without a lease */
        sm_envelope *e = await_done(r, both[i]->attempt);
        assert_int_equal(e->done->kind, SHARDMILL__LEASE_KIND__STEP);
        assert_string_equal(e->done->job, "job");
        sm_wire_free(&e);
        ack(r, both[i]->attempt, i == 0);
    }
    struct made next = make_batch(r, 1, 2);
    assert_int_equal(next.offset, b.offset); /* its room, and only its */
    const uint8_t *map = take_memory(r);
    assert_readable(map, &c);
    assert_readable(map, &next);
    munmap((void *)map, MEMORY);
    rig_free(r);
}

static void a_free_that_is_on_its_way_makes_room_for_a_waiting_lease(void **state) {
    (void)state;
    struct rig *r = rig_new();
    struct made b[5];
    for (uint64_t i = 0; i < 5; i++)
        b[i] = make_batch(r, 0, i);
    uint64_t attempt = lease(r, 0, 5);
    free_batch(r, b[0].attempt);
    sm_envelope *e = await_done(r, attempt);
    assert_int_equal(e->done->offset, b[0].offset);
    sm_wire_free(&e);
    rig_free(r);
}

static void a_batch_that_is_not_wanted_or_revoked_takes_no_room(void **state) {
    (void)state;
    struct rig *r = rig_new();
    for (uint64_t i = 0; i < 16; i++) {
        uint64_t attempt = lease(r, 0, i);
        sm_envelope *e = await_done(r, attempt);
        assert_int_equal(e->done->offset, 0);
        sm_wire_free(&e);
        if (i % 2 == 0) {
            ack(r, attempt, false);
            continue;
        }
        if (i % 4 == 1) ack(r, attempt, true);
        Shardmill__Revoke m = SHARDMILL__REVOKE__INIT;
        m.job = "job";
        m.attempt = attempt;
        SAY(r, revoke, REVOKE, &m);
    }
    rig_free(r);
}

static void a_done_without_ack_is_told_again_with_the_same_place(void **state) {
    (void)state;
    struct rig *r = rig_new();
    uint64_t attempt = lease(r, 0, 0);
    sm_envelope *a = await(r, SHARDMILL__ENVELOPE__BODY_DONE),
                *b = await(r, SHARDMILL__ENVELOPE__BODY_DONE);
    assert_int_equal(a->done->attempt, attempt);
    assert_int_equal(b->done->attempt, attempt);
    assert_int_equal(a->done->offset, b->done->offset);
    assert_string_equal(a->done->digest, b->done->digest);
    sm_wire_free(&a);
    sm_wire_free(&b);
    rig_free(r);
}

/* The broker was restarted and has forgotten what it promised; a trainer still reads. */
static void a_new_registration_brings_fresh_memory_and_leaves_the_old_to_its_readers(void **state) {
    (void)state;
    struct rig *r = rig_new();
    struct made old = make_batch(r, 0, 0);
    char before[SM_HANDOVER_NAME];
    const uint8_t *map = take_memory(r);
    strcpy(before, r->address);
    Shardmill__Register again = SHARDMILL__REGISTER__INIT;
    SAY(r, register_again, REGISTER_AGAIN, &again);
    await_and_drop(r, SHARDMILL__ENVELOPE__BODY_HELLO);
    assert_string_not_equal(r->address, before);
    assert_int_equal(r->n_holding, 0);
    struct made same = make_batch(r, 0, 0);
    assert_string_equal(same.digest, old.digest); /* made again, byte for byte */
    for (uint64_t i = 1; i < 5; i++)
        make_batch(r, 3, i);
    assert_readable(map, &old); /* though the room at its place has been filled anew */
    int fd;
    uint64_t bytes;
    assert_int_equal(sm_handover_take(before, 100, &fd, &bytes, NULL), -1);
    munmap((void *)map, MEMORY);
    rig_free(r);
}

/* As after Ready, about a job that another worker has begun; then about a result. */
static void what_is_refused_of_another_job_or_attempt_changes_nothing(void **state) {
    (void)state;
    struct rig *r = rig_new();
    r->refuses = "another job";
    uint64_t attempt = lease(r, 0, 0);
    for (int i = 0; i < 4; i++) {
        sm_envelope *e = await_done(r, attempt); /* told again each time */
        assert_int_equal(e->done->offset, 0);
        sm_wire_free(&e);
        if (i == 0) refuse(r, "job", attempt + 1, SM_E_PROTOCOL);
        if (i == 1) refuse(r, "another job", attempt, SM_E_PROTOCOL);
        if (i == 2) refuse(r, "", 0, SM_E_PROTOCOL);
    }
    refuse(r, "job", attempt, SM_E_PROTOCOL);
    struct made next = make_batch(r, 0, 1);
    assert_int_equal(next.offset, 0); /* its room: it was given up */
    rig_free(r);
}

static void a_job_that_is_refused_fails_its_lease_with_the_brokers_code(void **state) {
    (void)state;
    struct rig *r = rig_new();
    r->refuses = "job";
    uint64_t attempt = lease(r, 0, 0);
    sm_envelope *e = await(r, SHARDMILL__ENVELOPE__BODY_FAIL);
    assert_int_equal(e->fail->attempt, attempt);
    assert_int_equal(e->fail->code, SM_E_DIFFERS);
    sm_wire_free(&e);
    ack(r, attempt, true);
    rig_free(r);
}

/* ---- another host ---- */

static sm_envelope *fetch(struct rig *r, void *socket, uint64_t attempt, zmq_msg_t *body) {
    Shardmill__Fetch m = SHARDMILL__FETCH__INIT;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    (void)r;
    m.attempt = attempt;
    m.pieces = 1;
    e.protocol = SM_PROTOCOL;
    e.body_case = SHARDMILL__ENVELOPE__BODY_FETCH;
    e.fetch = &m;
    assert_int_equal(sm_wire_send(socket, NULL, &e, NULL), 1);
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&item, 1, WAIT_MS), 1);
    zmq_msg_t head;
    zmq_msg_init(&head);
    zmq_msg_init(body);
    assert_true(zmq_msg_recv(&head, socket, 0) >= 0 && zmq_msg_recv(body, socket, 0) >= 0);
    sm_envelope *piece = sm_wire_unpack(zmq_msg_data(&head), zmq_msg_size(&head), NULL);
    zmq_msg_close(&head);
    return piece;
}

static void a_trainer_of_another_host_fetches_the_same_bytes_until_free(void **state) {
    (void)state;
    struct rig *r = rig_new();
    struct made b = make_batch(r, 2, 2);
    const uint8_t *map = take_memory(r);
    struct sm_err err = {0};
    void *socket;
    assert_int_equal(sm_wire_connect(r->context, r->data_endpoint, &socket, &err), 0);
    zmq_msg_t body;
    sm_envelope *piece = fetch(r, socket, b.attempt, &body);
    assert_int_equal(piece->piece->total, b.bytes);
    assert_int_equal(zmq_msg_size(&body), b.bytes);
    assert_memory_equal(zmq_msg_data(&body), map + b.offset, b.bytes);
    zmq_msg_close(&body);
    sm_wire_free(&piece);
    free_batch(r, b.attempt);
    make_batch(r, 2, 1); /* once this is told, the Free was heard */
    piece = fetch(r, socket, b.attempt, &body);
    assert_int_equal(piece->piece->total, 0);
    zmq_msg_close(&body);
    sm_wire_free(&piece);
    zmq_close(socket);
    munmap((void *)map, MEMORY);
    rig_free(r);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "cage") == 0) return sm_cage_main(argc - 1, argv + 1);
    if (argc > 2 && strcmp(argv[1], "worker") == 0) return work(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_are_told_kept_and_their_room_comes_back_with_free),
        cmocka_unit_test(a_batch_whose_free_was_lost_is_asked_about_and_its_room_comes_back),
        cmocka_unit_test(a_free_that_is_on_its_way_makes_room_for_a_waiting_lease),
        cmocka_unit_test(a_batch_that_is_not_wanted_or_revoked_takes_no_room),
        cmocka_unit_test(a_done_without_ack_is_told_again_with_the_same_place),
        cmocka_unit_test(a_new_registration_brings_fresh_memory_and_leaves_the_old_to_its_readers),
        cmocka_unit_test(what_is_refused_of_another_job_or_attempt_changes_nothing),
        cmocka_unit_test(a_job_that_is_refused_fails_its_lease_with_the_brokers_code),
        cmocka_unit_test(a_trainer_of_another_host_fetches_the_same_bytes_until_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
