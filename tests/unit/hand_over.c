/* A submitter's files on their way to a broker that is busy, and files that change under it. This
 * test plays the broker. */
#include "cli/hand_over.h"
#include "lib/limits.h"
#include "lib/wire.h"
#include "tests/unit/scratch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <zmq.h>

#include <cmocka.h>

enum { FILE_BYTES = 3 * SM_MAX_FILE_PUT_BYTES / 2 };

struct rig {
    struct scratch s;
    char endpoint[256], index[300];
    void *context, *router;
    pthread_t thread;
    int busy;            /* so many pieces are refused */
    const char *shrinks; /* the file that becomes shorter when its first piece has come */
    uint64_t got;
    unsigned questions;
    bool failed;
};

/* Answers until a Bye. */
static void *broker(void *arg) {
    struct rig *r = arg;
    for (bool on = true; on;) {
        struct sm_peer peer;
        sm_envelope *e = NULL, answer = SHARDMILL__ENVELOPE__INIT;
        zmq_pollitem_t item = {.socket = r->router, .events = ZMQ_POLLIN};
        zmq_poll(&item, 1, 100);
        if (sm_wire_receive(r->router, &peer, &e, NULL) != 1) continue;
        on = e->body_case == SHARDMILL__ENVELOPE__BODY_FILE_PUT;
        if (on) {
            const Shardmill__FilePut *m = e->file_put;
            Shardmill__FileKept kept = SHARDMILL__FILE_KEPT__INIT;
            kept.digest = m->digest;
            if (m->data.len == 0) r->questions++;
            if (m->data.len > 0 && r->busy > 0) {
                r->busy--;
                kept.code = SM_E_BUSY;
                kept.text = "for the test";
            } else if (m->offset == r->got) {
                r->got += m->data.len;
            }
            if (r->shrinks != NULL && r->got > 0) r->failed |= truncate(r->shrinks, r->got + 9);
            kept.got = r->got;
            answer.protocol = SM_PROTOCOL;
            answer.instance = 1;
            answer.body_case = SHARDMILL__ENVELOPE__BODY_FILE_KEPT;
            answer.file_kept = &kept;
            sm_wire_send(r->router, &peer, &answer, NULL);
        }
        sm_wire_free(&e);
    }
    return NULL;
}

/* Hands a job over whose index is a file of FILE_BYTES. */
static int hand_over(struct rig *r, struct sm_err *err) {
    struct sm_client *client = NULL;
    struct sm_pipeline p = {0};
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    void *bytes = calloc(1, FILE_BYTES);
    r->s = scratch_make();
    scratch_write(&r->s, "index", bytes, FILE_BYTES);
    snprintf(r->index, sizeof r->index, "%s/index", r->s.dir);
    free(bytes);
    if (r->shrinks != NULL) r->shrinks = r->index;
    r->context = zmq_ctx_new();
    assert_int_equal(sm_wire_bind(r->context, "tcp://127.0.0.1:*", &r->router, r->endpoint, err),
                     0);
    assert_int_equal(pthread_create(&r->thread, NULL, broker, r), 0);
    assert_int_equal(sm_client_new(&client, r->endpoint, NULL, err), 0);
    spec.index_path = r->index;
    spec.index_digest = "00112233445566778899aabbccddeeff";
    const int failed = sm_hand_over_job(client, &p, &spec, err);
    Shardmill__Bye bye = SHARDMILL__BYE__INIT;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    void *last;
    struct sm_err ignored;
    e.protocol = SM_PROTOCOL;
    e.body_case = SHARDMILL__ENVELOPE__BODY_BYE;
    e.bye = &bye;
    assert_int_equal(sm_wire_connect(r->context, r->endpoint, &last, &ignored), 0);
    assert_int_equal(sm_wire_send(last, NULL, &e, &ignored), 1);
    pthread_join(r->thread, NULL);
    sm_client_free(&client);
    zmq_close(last);
    zmq_close(r->router);
    zmq_ctx_term(r->context);
    scratch_remove(&r->s);
    assert_false(r->failed);
    return failed;
}

static void a_broker_that_is_busy_is_asked_again(void **state) {
    (void)state;
    struct rig r = {.busy = 2};
    struct sm_err err = {0};
    if (hand_over(&r, &err) != 0) fail_msg("%s", err.text);
    assert_int_equal(r.busy, 0);
    assert_int_equal(r.got, FILE_BYTES);
    assert_int_equal(r.questions, 1);
}

static void a_file_that_becomes_shorter_is_an_error_and_no_signal(void **state) {
    (void)state;
    struct rig r = {.shrinks = "the index"};
    struct sm_err err = {0};
    assert_int_equal(hand_over(&r, &err), -1);
    assert_int_equal(err.code, SM_E_CHANGED);
    assert_non_null(strstr(err.text, "became shorter"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broker_that_is_busy_is_asked_again),
        cmocka_unit_test(a_file_that_becomes_shorter_is_an_error_and_no_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
