/* The broker as it runs: socket, journal and core together, driven over inproc by a client and a
 * worker that follow PROTOCOL.md. Restarts are real: the state folder is all that the second broker
 * gets. */
#include "broker/loop.h"

#include "lib/digest.h"
#include "lib/limits.h"
#include "lib/wire.h"

#include <dirent.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <setjmp.h>

#include <cmocka.h>

static const char sha[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct run {
    char dir[64], endpoint[256];
    void *context;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool bound, ended;
    volatile sig_atomic_t stop;
    int rc;
    struct sm_err err;
};

static void started(void *arg, const char *endpoint) {
    struct run *r = arg;
    pthread_mutex_lock(&r->lock);
    strcpy(r->endpoint, endpoint);
    r->bound = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void *broker(void *arg) {
    struct run *r = arg;
    struct sm_broker_options o = {.context = r->context,
                                  .endpoint = "tcp://127.0.0.1:*",
                                  .state_dir = r->dir,
                                  .heartbeat_ms = 200,
                                  .started = started,
                                  .arg = r};
    r->rc = sm_broker_run(&o, &r->stop, &r->err);
    pthread_mutex_lock(&r->lock);
    r->ended = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void run_start(struct run *r) {
    r->bound = r->ended = false;
    r->stop = 0;
    assert_int_equal(pthread_create(&r->thread, NULL, broker, r), 0);
    pthread_mutex_lock(&r->lock);
    while (!r->bound && !r->ended)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static void run_stop(struct run *r) {
    r->stop = 1;
    pthread_join(r->thread, NULL);
}

static int setup(void **state) {
    struct run *r = calloc(1, sizeof *r);
    strcpy(r->dir, "/tmp/sm-loop-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->context = zmq_ctx_new();
    *state = r;
    return 0;
}

static int teardown(void **state) {
    struct run *r = *state;
    char command[96];
    zmq_ctx_term(r->context);
    snprintf(command, sizeof command, "rm -rf %s", r->dir);
    assert_int_equal(system(command), 0);
    free(r);
    return 0;
}

static void *dial(struct run *r) {
    void *s = NULL;
    struct sm_err err;
    assert_int_equal(sm_wire_connect(r->context, r->endpoint, &s, &err), 0);
    return s;
}

static void say(void *s, int which, void *body) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    struct sm_err err;
    e.protocol = SM_PROTOCOL;
    e.body_case = (Shardmill__Envelope__BodyCase)which;
    e.hello = body;
    assert_int_equal(sm_wire_send(s, NULL, &e, &err), 1);
}

/* The next message of this kind; heartbeats in between are passed over. */
static sm_envelope *hear(void *s, int which) {
    for (;;) {
        zmq_pollitem_t item = {.socket = s, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, 5000) == 0) fail_msg("nobody answered, waiting for %d", which);
        sm_envelope *e = NULL;
        struct sm_err err;
        int rc = sm_wire_receive(s, NULL, &e, &err);
        if (rc == 0) continue;
        assert_int_equal(rc, 1);
        if ((int)e->body_case == which) return e;
        if (e->body_case == SHARDMILL__ENVELOPE__BODY_REFUSED)
            fail_msg("refused: %s", e->refused->text);
        sm_wire_free(&e);
    }
}

static Shardmill__JobSpec spec_of(const char *index_path) {
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    spec.pipeline = "{}";
    spec.index_path = (char *)index_path;
    spec.samples = 10;
    spec.copies = 2;
    spec.shard_samples = 12;
    spec.lease_samples = 8;
    spec.slices = 1;
    return spec;
}

static void submit(void *s, Shardmill__JobSpec *spec) {
    Shardmill__Submit m = SHARDMILL__SUBMIT__INIT;
    m.job = "job";
    m.spec = spec;
    say(s, SHARDMILL__ENVELOPE__BODY_SUBMIT, &m);
    sm_envelope *e = hear(s, SHARDMILL__ENVELOPE__BODY_ACCEPTED);
    assert_string_equal(e->accepted->job, "job");
    sm_wire_free(&e);
}

static void hello(void *s, const char *fingerprint) {
    Shardmill__Hello m = SHARDMILL__HELLO__INIT;
    m.name = "host/1";
    m.fingerprint = (char *)fingerprint;
    say(s, SHARDMILL__ENVELOPE__BODY_HELLO, &m);
    sm_envelope *e = hear(s, SHARDMILL__ENVELOPE__BODY_WELCOME);
    assert_int_equal(e->welcome->heartbeat_ms, 200);
    sm_wire_free(&e);
}

static void done(void *s, const Shardmill__Lease *l) {
    Shardmill__Done m = SHARDMILL__DONE__INIT;
    m.job = l->job;
    m.kind = l->kind;
    m.attempt = l->attempt;
    m.shard = l->shard;
    m.first = l->first;
    m.count = l->count;
    m.generation = l->generation;
    m.bytes = 1000 * (l->n_parts > 0 ? l->n_parts : 1);
    m.sha256 = (char *)sha;
    say(s, SHARDMILL__ENVELOPE__BODY_DONE, &m);
    sm_envelope *e = hear(s, SHARDMILL__ENVELOPE__BODY_ACK);
    assert_true(e->ack->wanted);
    sm_wire_free(&e);
}

static sm_envelope *lease(void *s) {
    Shardmill__Ready ready = SHARDMILL__READY__INIT;
    say(s, SHARDMILL__ENVELOPE__BODY_READY, &ready);
    return hear(s, SHARDMILL__ENVELOPE__BODY_LEASE);
}

static void a_job_runs_to_its_end_across_a_restart_of_the_broker(void **state) {
    struct run *r = *state;
    Shardmill__JobSpec spec = spec_of("/nowhere");
    run_start(r);
    void *client = dial(r), *worker = dial(r);
    submit(client, &spec);
    hello(worker, "f");
    uint64_t attempt = 0;
    for (int i = 0; i < 2; i++) { /* positions 0-7 and 8-11 are shard 0 */
        sm_envelope *e = lease(worker);
        assert_int_equal(e->lease->kind, SHARDMILL__LEASE_KIND__RANGE);
        assert_int_equal(e->lease->first, i * 8);
        assert_int_equal(e->lease->last, i == 1);
        attempt = e->lease->attempt;
        done(worker, e->lease);
        sm_wire_free(&e);
    }
    zmq_close(client);
    zmq_close(worker);
    run_stop(r);
    assert_int_equal(r->rc, 0);

    run_start(r);
    client = dial(r);
    worker = dial(r);
    submit(client, &spec);
    Shardmill__Ready ready = SHARDMILL__READY__INIT;
    say(worker, SHARDMILL__ENVELOPE__BODY_READY,
        &ready); /* the new broker does not know this worker */
    sm_envelope *again = hear(worker, SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN);
    sm_wire_free(&again);
    hello(worker, "f");
    const int kinds[] = {SHARDMILL__LEASE_KIND__SEAL, SHARDMILL__LEASE_KIND__RANGE,
                         SHARDMILL__LEASE_KIND__SEAL};
    for (int i = 0; i < 3; i++) {
        sm_envelope *e = lease(worker);
        assert_int_equal(e->lease->kind, kinds[i]);
        assert_int_equal(e->lease->shard, i > 0);
        assert_int_equal(e->lease->n_parts, i == 0 ? 2 : i == 2 ? 1 : 0);
        if (i == 2) assert_string_equal(e->lease->sha256, sha);
        assert_true(e->lease->attempt > attempt);
        attempt = e->lease->attempt;
        done(worker, e->lease);
        sm_wire_free(&e);
    }
    Shardmill__ResultsGet get = SHARDMILL__RESULTS_GET__INIT;
    get.job = "job";
    say(client, SHARDMILL__ENVELOPE__BODY_RESULTS_GET, &get);
    sm_envelope *e = hear(client, SHARDMILL__ENVELOPE__BODY_RESULTS);
    assert_true(e->results->end);
    assert_int_equal(e->results->n_shards, 2);
    assert_int_equal(e->results->shards[0]->samples, 12);
    assert_int_equal(e->results->shards[1]->samples, 8);
    assert_string_equal(e->results->shards[1]->sha256, sha);
    sm_wire_free(&e);
    Shardmill__JobStatusGet status = SHARDMILL__JOB_STATUS_GET__INIT;
    status.job = "job";
    say(client, SHARDMILL__ENVELOPE__BODY_JOB_STATUS_GET, &status);
    e = hear(client, SHARDMILL__ENVELOPE__BODY_JOB_STATUS);
    assert_int_equal(e->job_status->state, SHARDMILL__JOB_STATE__COMPLETE);
    assert_int_equal(e->job_status->made, 20);
    assert_string_equal(e->job_status->fingerprint, "f");
    sm_wire_free(&e);
    zmq_close(client);
    zmq_close(worker);
    run_stop(r);
    assert_int_equal(r->rc, 0);
}

static void an_index_file_arrives_in_chunks_as_it_is_on_disk(void **state) {
    struct run *r = *state;
    char path[96];
    snprintf(path, sizeof path, "%s/index", r->dir);
    size_t n = 700000, have = 0;
    uint8_t *bytes = malloc(n), *got = malloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    Shardmill__JobSpec spec = spec_of(path);
    char digest[SM_XXH_HEX];
    sm_xxh(bytes, n, digest);
    spec.index_digest = digest;
    run_start(r);
    void *s = dial(r);
    submit(s, &spec);
    while (have < n) {
        Shardmill__FileGet get = SHARDMILL__FILE_GET__INIT;
        get.job = "job";
        get.offset = have;
        say(s, SHARDMILL__ENVELOPE__BODY_FILE_GET, &get);
        sm_envelope *e = hear(s, SHARDMILL__ENVELOPE__BODY_FILE_CHUNK);
        assert_int_equal(e->file_chunk->offset, have);
        assert_int_equal(e->file_chunk->total, n);
        assert_true(e->file_chunk->data.len > 0 && e->file_chunk->data.len <= n - have);
        memcpy(got + have, e->file_chunk->data.data, e->file_chunk->data.len);
        have += e->file_chunk->data.len;
        sm_wire_free(&e);
    }
    assert_memory_equal(bytes, got, n);
    free(bytes);
    free(got);
    zmq_close(s);
    run_stop(r);
}

static void a_file_that_is_not_the_jobs_index_is_not_handed_out(void **state) {
    struct run *r = *state;
    Shardmill__JobSpec spec = spec_of("/etc/passwd");
    spec.index_digest = "00112233445566778899aabbccddeeff";
    run_start(r);
    void *s = dial(r);
    submit(s, &spec);
    Shardmill__FileGet get = SHARDMILL__FILE_GET__INIT;
    get.job = "job";
    say(s, SHARDMILL__ENVELOPE__BODY_FILE_GET, &get);
    sm_envelope *e = hear(s, SHARDMILL__ENVELOPE__BODY_REFUSED);
    assert_int_equal(e->refused->code, SM_E_CHANGED);
    assert_string_equal(e->refused->job, "job");
    sm_wire_free(&e);
    zmq_close(s);
    run_stop(r);
}

/* The broker's answer for an artifact; the caller frees. */
static sm_envelope *ask_artifact(void *s, const char *sha256, int kind) {
    Shardmill__FileGet get = SHARDMILL__FILE_GET__INIT;
    get.job = "job";
    get.sha256 = (char *)sha256;
    say(s, SHARDMILL__ENVELOPE__BODY_FILE_GET, &get);
    return hear(s, kind);
}

static void only_artifacts_that_the_job_names_and_that_are_right_are_handed_out(void **state) {
    struct run *r = *state;
    char index[96], path[256], pipeline[256], right[SM_SHA_HEX], other[SM_SHA_HEX];
    static const char learned[] = "what was learned";
    sm_sha256(learned, sizeof learned, right);
    memset(other, 'e', sizeof other);
    other[SM_SHA_HEX - 1] = 0;
    snprintf(index, sizeof index, "%s/index", r->dir);
    snprintf(path, sizeof path, "%s/artifacts", r->dir);
    assert_int_equal(mkdir(path, 0700), 0);
    for (int i = 0; i < 2; i++) { /* the other one does not hold what its name says */
        snprintf(path, sizeof path, "%s/artifacts/%s.npz", r->dir, i ? other : right);
        FILE *f = fopen(path, "wb");
        assert_int_equal(fwrite(learned, 1, sizeof learned, f), sizeof learned);
        fclose(f);
    }
    snprintf(pipeline, sizeof pipeline, "{\"artifacts\":[\"%s\",\"%s\"]}", right, other);
    Shardmill__JobSpec spec = spec_of(index);
    spec.pipeline = pipeline;
    run_start(r);
    void *s = dial(r);
    submit(s, &spec);
    sm_envelope *e = ask_artifact(s, right, SHARDMILL__ENVELOPE__BODY_FILE_CHUNK);
    assert_string_equal(e->file_chunk->sha256, right);
    assert_int_equal(e->file_chunk->total, sizeof learned);
    assert_memory_equal(e->file_chunk->data.data, learned, sizeof learned);
    sm_wire_free(&e);
    e = ask_artifact(s, other, SHARDMILL__ENVELOPE__BODY_REFUSED);
    assert_int_equal(e->refused->code, SM_E_CHANGED);
    sm_wire_free(&e);
    for (int i = 0; i < 2; i++) { /* another name, and what is no name */
        other[i ? 3 : 0] = i ? '/' : 'd';
        e = ask_artifact(s, other, SHARDMILL__ENVELOPE__BODY_REFUSED);
        assert_int_equal(e->refused->code, SM_E_MISSING);
        sm_wire_free(&e);
    }
    zmq_close(s);
    run_stop(r);
}

/* Puts a piece; the caller gets how much the broker has, or the code of why it takes nothing. */
static uint64_t put(void *s, const char *digest, const uint8_t *bytes, uint64_t total,
                    uint64_t offset, size_t n, const char *path, uint32_t *code) {
    Shardmill__FilePut m = SHARDMILL__FILE_PUT__INIT;
    m.digest = (char *)digest;
    m.total = total;
    m.offset = offset;
    m.data = (ProtobufCBinaryData){.len = n, .data = (uint8_t *)bytes + offset};
    if (path != NULL) m.path = (char *)path;
    say(s, SHARDMILL__ENVELOPE__BODY_FILE_PUT, &m);
    sm_envelope *e = hear(s, SHARDMILL__ENVELOPE__BODY_FILE_KEPT);
    assert_string_equal(e->file_kept->digest, digest);
    const uint64_t got = e->file_kept->got;
    *code = e->file_kept->code;
    assert_int_equal(*code == 0, e->file_kept->text[0] == 0);
    sm_wire_free(&e);
    return got;
}

static void a_file_that_was_put_is_kept_for_the_job_that_names_it(void **state) {
    struct run *r = *state;
    enum { N = 600000 };
    char pipeline[128], sha256[SM_SHA_HEX], path[200];
    uint8_t *bytes = malloc(N);
    uint32_t code;
    for (size_t i = 0; i < N; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 11);
    sm_sha256(bytes, N, sha256);
    run_start(r);
    void *s = dial(r), *other = dial(r);
    assert_int_equal(put(s, sha256, bytes, N, 0, 0, NULL, &code), 0);
    assert_int_equal(put(s, sha256, bytes, N, 0, 200000, NULL, &code), 200000);
    assert_int_equal(put(s, sha256, bytes, N, 0, 200000, NULL, &code), 200000); /* doubled */
    assert_int_equal(put(s, sha256, bytes, N, 400000, 9, NULL, &code), 200000); /* too early */
    assert_int_equal(put(other, sha256, bytes, N, 200000, 300000, NULL, &code), 500000);
    assert_int_equal(put(s, sha256, bytes, N, 500000, 100000, NULL, &code), N);
    assert_int_equal(put(s, sha256, bytes, N, 0, 100000, NULL, &code), N); /* it is there */
    assert_int_equal(code, 0);
    snprintf(pipeline, sizeof pipeline, "{\"artifacts\":[\"%s\"]}", sha256);
    Shardmill__JobSpec spec = spec_of("/nowhere/index");
    submit(s, &spec);
    sm_envelope *e = ask_artifact(s, sha256, SHARDMILL__ENVELOPE__BODY_REFUSED);
    assert_int_equal(e->refused->code, SM_E_MISSING); /* the job does not name it */
    sm_wire_free(&e);
    zmq_close(s);
    zmq_close(other);
    run_stop(r);
    run_start(r); /* another broker finds it */
    s = dial(r);
    Shardmill__Submit named = SHARDMILL__SUBMIT__INIT;
    spec.pipeline = pipeline;
    named.job = "named";
    named.spec = &spec;
    say(s, SHARDMILL__ENVELOPE__BODY_SUBMIT, &named);
    e = hear(s, SHARDMILL__ENVELOPE__BODY_ACCEPTED);
    sm_wire_free(&e);
    for (uint64_t have = 0; have < N;) {
        Shardmill__FileGet get = SHARDMILL__FILE_GET__INIT;
        get.job = "named";
        get.sha256 = sha256;
        get.offset = have;
        say(s, SHARDMILL__ENVELOPE__BODY_FILE_GET, &get);
        e = hear(s, SHARDMILL__ENVELOPE__BODY_FILE_CHUNK);
        assert_int_equal(e->file_chunk->total, N);
        assert_true(e->file_chunk->data.len > 0);
        assert_memory_equal(e->file_chunk->data.data, bytes + have, e->file_chunk->data.len);
        have += e->file_chunk->data.len;
        sm_wire_free(&e);
    }
    zmq_close(s);
    run_stop(r);
    snprintf(path, sizeof path, "%s/files/%s", r->dir, sha256);
    assert_int_equal(access(path, R_OK), 0);
    free(bytes);
}

static void a_file_that_is_not_what_its_name_says_is_not_kept(void **state) {
    struct run *r = *state;
    static const uint8_t bytes[] = "what was learned";
    char right[SM_SHA_HEX], wrong[SM_SHA_HEX], name[SM_SHA_HEX + 8], path[96], index[SM_XXH_HEX];
    uint32_t code;
    sm_sha256(bytes, sizeof bytes, right);
    strcpy(wrong, right);
    wrong[5] = wrong[5] == '0' ? '1' : '0';
    run_start(r);
    void *s = dial(r);
    put(s, wrong, bytes, sizeof bytes, 0, sizeof bytes, NULL, &code);
    assert_int_equal(code, SM_E_DIFFERS);
    assert_int_equal(put(s, wrong, bytes, sizeof bytes, 0, 0, NULL, &code), 0); /* begins again */
    put(s, right, bytes, UINT64_C(1) << 40, 0, 1, NULL, &code);
    assert_int_equal(code, SM_E_TOO_LARGE);
    put(s, right, bytes, 4, 0, 5, NULL, &code);
    assert_int_equal(code, SM_E_PROTOCOL);
    put(s, right, bytes, 0, 0, 0, NULL, &code);
    assert_int_equal(code, SM_E_PROTOCOL);
    const char *names[] = {"", "../../../../etc/passwd", "abc", "A", right + 1};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(name, sizeof name, "%s", names[i]);
        put(s, name, bytes, sizeof bytes, 0, sizeof bytes, NULL, &code);
        assert_int_equal(code, SM_E_PROTOCOL);
    }
    /* an index that the broker sees is not wanted; one of another length, or an artifact, is */
    snprintf(path, sizeof path, "%s/index", r->dir);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, sizeof bytes, f), sizeof bytes);
    fclose(f);
    sm_xxh(bytes, sizeof bytes, index);
    Shardmill__JobSpec spec = spec_of("/nowhere/index"); /* submitted from a place that is gone */
    spec.index_digest = index;
    submit(s, &spec);
    sm_envelope *e = ask_artifact(s, "", SHARDMILL__ENVELOPE__BODY_REFUSED);
    assert_int_equal(e->refused->code, SM_E_MISSING);
    sm_wire_free(&e);
    assert_int_equal(put(s, index, bytes, sizeof bytes, 0, 0, path, &code), sizeof bytes);
    assert_int_equal(put(s, index, bytes, sizeof bytes - 1, 0, 0, path, &code), 0);
    assert_int_equal(put(s, right, bytes, sizeof bytes, 0, 0, path, &code), 0);
    assert_int_equal(code, 0);
    spec.index_path = path; /* the same job from here */
    submit(s, &spec);
    e = ask_artifact(s, "", SHARDMILL__ENVELOPE__BODY_FILE_CHUNK);
    assert_int_equal(e->file_chunk->total, sizeof bytes);
    assert_memory_equal(e->file_chunk->data.data, bytes, sizeof bytes);
    sm_wire_free(&e);
    zmq_close(s);
    run_stop(r);
    snprintf(path, sizeof path, "%s/files/%.20s", r->dir, wrong);
    assert_int_equal(access(path, R_OK), -1);
}

static unsigned files_in(const char *dir) {
    unsigned n = 0;
    DIR *d = opendir(dir);
    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n - 2;
}

static void a_full_store_makes_room_by_what_no_job_names(void **state) {
    struct run *r = *state;
    char dir[96], path[200], pipeline[128], first[SM_SHA_HEX] = "", sha256[SM_SHA_HEX];
    static const uint8_t bytes[] = "one more";
    uint32_t code;
    snprintf(dir, sizeof dir, "%s/files", r->dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    for (unsigned i = 0; i < SM_MAX_KEPT_FILES; i++) {
        char name[SM_SHA_HEX];
        snprintf(name, sizeof name, "%064x", i);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        FILE *f = fopen(path, "wb");
        assert_true(f != NULL && fputc('x', f) == 'x');
        fclose(f);
    }
    /* whichever the broker finds first is the oldest, were it not for the job */
    DIR *d = opendir(dir);
    for (const struct dirent *e; first[0] == 0 && (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') snprintf(first, sizeof first, "%.64s", e->d_name);
    closedir(d);
    sm_sha256(bytes, sizeof bytes, sha256);
    snprintf(pipeline, sizeof pipeline, "{\"artifacts\":[\"%s\"]}", first);
    Shardmill__JobSpec spec = spec_of("/nowhere/index");
    spec.pipeline = pipeline;
    run_start(r);
    void *s = dial(r);
    submit(s, &spec);
    assert_int_equal(put(s, sha256, bytes, sizeof bytes, 0, sizeof bytes, NULL, &code),
                     sizeof bytes);
    assert_int_equal(code, 0);
    assert_int_equal(files_in(dir), SM_MAX_KEPT_FILES);
    snprintf(path, sizeof path, "%s/%s", dir, first);
    assert_int_equal(access(path, R_OK), 0);
    zmq_close(s);
    run_stop(r);
}

static void a_large_index_is_verified_a_slice_at_a_time(void **state) {
    struct run *r = *state;
    enum { N = 20 << 20 };
    char path[96], digest[SM_XXH_HEX];
    unsigned waits = 0;
    uint8_t *bytes = malloc(N);
    memset(bytes, 0x5a, N);
    snprintf(path, sizeof path, "%s/index", r->dir);
    FILE *f = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, N, f), N);
    fclose(f);
    sm_xxh(bytes, N, digest);
    Shardmill__JobSpec spec = spec_of(path);
    spec.index_digest = digest;
    run_start(r);
    void *s = dial(r);
    submit(s, &spec);
    for (;;) {
        sm_envelope *e = ask_artifact(s, "", SHARDMILL__ENVELOPE__BODY_FILE_CHUNK);
        const size_t n = e->file_chunk->data.len;
        assert_int_equal(e->file_chunk->total, N);
        sm_wire_free(&e);
        if (n > 0) break;
        assert_true(++waits < 10);
    }
    assert_int_equal(waits, 2);
    free(bytes);
    zmq_close(s);
    run_stop(r);
}

static void garbage_is_counted_and_dropped_and_the_next_message_is_answered(void **state) {
    struct run *r = *state;
    run_start(r);
    void *s = dial(r);
    zmq_send(s, "garbage", 7, 0);
    zmq_send(s, "", 0, 0);
    zmq_send(s, "one", 3, ZMQ_SNDMORE);
    zmq_send(s, "two", 3, 0);
    uint8_t *mass = calloc(1, 500000);
    memset(mass, 0x82, 500000);
    zmq_send(s, mass, 500000, 0);
    free(mass);
    Shardmill__StatusGet get = SHARDMILL__STATUS_GET__INIT;
    say(s, SHARDMILL__ENVELOPE__BODY_STATUS_GET, &get);
    sm_envelope *e = hear(s, SHARDMILL__ENVELOPE__BODY_STATUS);
    assert_int_equal(e->status->dropped, 4);
    sm_wire_free(&e);
    zmq_close(s);
    run_stop(r);
}

static void a_second_broker_on_the_same_state_is_refused_and_told_the_pid(void **state) {
    struct run *r = *state;
    char pid[32];
    run_start(r);
    struct run second = {.context = r->context};
    memcpy(second.dir, r->dir, sizeof second.dir);
    pthread_mutex_init(&second.lock, NULL);
    pthread_cond_init(&second.changed, NULL);
    run_start(&second);
    run_stop(&second);
    assert_int_equal(second.rc, -1);
    assert_int_equal(second.err.code, SM_E_BUSY);
    snprintf(pid, sizeof pid, "process id %d", (int)getpid());
    assert_non_null(strstr(second.err.text, pid));
    run_stop(r);
}

static void a_bind_that_others_can_reach_is_refused(void **state) {
    struct run *r = *state;
    const char *bad[] = {"tcp://*:5570",           "tcp://0.0.0.0:5570",
                         "tcp://192.168.1.2:5570", "tcp://127.0.0.1.evil.org:5570",
                         "tcp://1270.0.0.1:1",     "tcp://[::]:5570",
                         "udp://127.0.0.1:1",      "tcp://",
                         "127.0.0.1:5570",         ""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        void *s = NULL;
        struct sm_err err;
        assert_int_equal(sm_wire_bind(r->context, bad[i], &s, NULL, &err), -1);
        assert_int_equal(err.code, SM_E_USAGE);
    }
    void *s = NULL;
    struct sm_err err;
    char bound[256];
    assert_int_equal(sm_wire_bind(r->context, "tcp://localhost:*", &s, bound, &err), 0);
    assert_memory_equal(bound, "tcp://127.0.0.1:", 16);
    zmq_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_job_runs_to_its_end_across_a_restart_of_the_broker, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_index_file_arrives_in_chunks_as_it_is_on_disk, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            only_artifacts_that_the_job_names_and_that_are_right_are_handed_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_was_put_is_kept_for_the_job_that_names_it,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_not_what_its_name_says_is_not_kept, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_full_store_makes_room_by_what_no_job_names, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_large_index_is_verified_a_slice_at_a_time, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_file_that_is_not_the_jobs_index_is_not_handed_out, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            garbage_is_counted_and_dropped_and_the_next_message_is_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_second_broker_on_the_same_state_is_refused_and_told_the_pid, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bind_that_others_can_reach_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
