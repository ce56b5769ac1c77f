/* What comes off a socket is anybody's: packing and unpacking under their limits, and a hundred
 * thousand mutated messages. */
#include "lib/wire.h"

#include "lib/limits.h"
#include "lib/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A message with a bit of everything: strings, nested and repeated messages, packed numbers. */
static size_t sample(uint8_t *out, size_t max, int kind) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    Shardmill__Quarantined q = SHARDMILL__QUARANTINED__INIT, *qs[] = {&q, &q, &q};
    q.text = "cut short";
    q.stage = "decode";
    q.position = UINT64_MAX;
    Shardmill__Done done = SHARDMILL__DONE__INIT;
    done.job = "job";
    done.sha256 = "0123";
    done.quarantined = qs;
    done.n_quarantined = 3;
    uint64_t skip[] = {1, 1 << 20, UINT64_MAX};
    Shardmill__Part part = SHARDMILL__PART__INIT, *parts[] = {&part, &part};
    Shardmill__Lease lease = SHARDMILL__LEASE__INIT;
    lease.job = "job";
    lease.skip = skip;
    lease.n_skip = 3;
    lease.parts = parts;
    lease.n_parts = 2;
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    spec.pipeline = "{\"version\":1}";
    Shardmill__Submit submit = SHARDMILL__SUBMIT__INIT;
    submit.job = "job";
    submit.spec = &spec;
    uint8_t data[] = {1, 2, 3, 4, 5};
    Shardmill__IndexChunk chunk = SHARDMILL__INDEX_CHUNK__INIT;
    chunk.job = "job";
    chunk.data = (ProtobufCBinaryData){sizeof data, data};
    const struct {
        int which;
        void *body;
    } kinds[] = {{SHARDMILL__ENVELOPE__BODY_DONE, &done},
                 {SHARDMILL__ENVELOPE__BODY_LEASE, &lease},
                 {SHARDMILL__ENVELOPE__BODY_SUBMIT, &submit},
                 {SHARDMILL__ENVELOPE__BODY_INDEX_CHUNK, &chunk}};
    e.body_case = (Shardmill__Envelope__BodyCase)kinds[kind].which;
    e.hello = kinds[kind].body;
    return sm_wire_pack(&e, out, max);
}

static void a_message_comes_out_as_it_went_in(void **state) {
    (void)state;
    uint8_t bytes[1024];
    struct sm_err err;
    sm_envelope *e = sm_wire_unpack(bytes, sample(bytes, sizeof bytes, 0), &err);
    assert_non_null(e);
    assert_int_equal(e->body_case, SHARDMILL__ENVELOPE__BODY_DONE);
    assert_int_equal(e->done->n_quarantined, 3);
    assert_true(e->done->quarantined[2]->position == UINT64_MAX);
    assert_string_equal(e->done->quarantined[1]->text, "cut short");
    sm_wire_free(&e);
    assert_null(e);
    sm_wire_free(&e); /* may be called twice */
}

static void packing_into_too_little_room_writes_nothing(void **state) {
    (void)state;
    uint8_t bytes[1024];
    size_t n = sample(bytes, sizeof bytes, 0);
    memset(bytes, 0xee, sizeof bytes);
    assert_int_equal(sample(bytes, n - 1, 0), 0);
    for (size_t i = 0; i < sizeof bytes; i++)
        assert_int_equal(bytes[i], 0xee);
}

static void another_protocol_is_told_from_garbage(void **state) {
    (void)state;
    uint8_t bytes[64];
    struct sm_err err;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL + 1;
    size_t n = shardmill__envelope__pack(&e, bytes);
    assert_null(sm_wire_unpack(bytes, n, &err));
    assert_int_equal(err.code, SM_E_DIFFERS);
    assert_null(sm_wire_unpack((const uint8_t *)"\xff\xff", 2, &err));
    assert_int_equal(err.code, SM_E_PROTOCOL);
    assert_null(sm_wire_unpack((const uint8_t *)"", 0, &err)); /* an empty message: protocol 0 */
}

/* Two bytes on the wire become a struct of a hundred: without a budget, 1 MiB would ask for 70 MB.
 */
static void a_message_of_half_a_million_empty_submessages_is_refused_by_its_budget(void **state) {
    (void)state;
    size_t inner = 500000, n = 0;
    uint8_t *bytes = malloc(inner * 2 + 32);
    bytes[n++] = 0x08; /* protocol */
    bytes[n++] = SM_PROTOCOL;
    bytes[n++] = 0x72; /* field 14, Done */
    size_t len = inner * 2;
    bytes[n++] = (uint8_t)(len | 0x80);
    bytes[n++] = (uint8_t)(len >> 7 | 0x80);
    bytes[n++] = (uint8_t)(len >> 14);
    for (size_t i = 0; i < inner; i++) {
        bytes[n++] = 0x52; /* field 10, quarantined */
        bytes[n++] = 0;
    }
    struct sm_err err;
    assert_true(n < SM_MAX_MESSAGE_BYTES);
    assert_null(sm_wire_unpack(bytes, n, &err));
    assert_int_equal(err.code, SM_E_PROTOCOL);
    free(bytes);
}

static void a_message_longer_than_the_limit_is_refused_unread(void **state) {
    (void)state;
    struct sm_err err;
    uint8_t *bytes = calloc(1, (size_t)SM_MAX_MESSAGE_BYTES + 1);
    assert_null(sm_wire_unpack(bytes, (size_t)SM_MAX_MESSAGE_BYTES + 1, &err));
    assert_non_null(strstr(err.text, "longer than"));
    free(bytes);
}

static void a_hundred_thousand_mutated_messages_do_no_harm(void **state) {
    (void)state;
    uint8_t bytes[1024];
    int good = 0, bad = 0;
    for (uint64_t i = 0; i < 100000; i++) {
        struct sm_rng r = sm_rng_op(7, 0, i, 0, 0);
        memset(bytes, 0, sizeof bytes);
        size_t n = sample(bytes, sizeof bytes, (int)sm_rng_below(&r, 4));
        for (uint64_t k = 1 + sm_rng_below(&r, 4); k > 0; k--)
            bytes[sm_rng_below(&r, n)] = (uint8_t)sm_rng_u32(&r);
        if (sm_rng_chance(&r, 0.3)) n = sm_rng_below(&r, n + 1);
        uint8_t *exact = malloc(n + 1); /* of its own, so that a sanitizer sees one byte too many */
        memcpy(exact, bytes, n);
        struct sm_err err = {0};
        sm_envelope *e = sm_wire_unpack(exact, n, &err);
        if (e != NULL) {
            assert_true(shardmill__envelope__get_packed_size(e) <= 4096);
            good++;
        } else {
            assert_true(err.text[0] != 0);
            bad++;
        }
        sm_wire_free(&e);
        free(exact);
    }
    assert_true(good > 1000 && bad > 1000); /* both ways are walked */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_comes_out_as_it_went_in),
        cmocka_unit_test(packing_into_too_little_room_writes_nothing),
        cmocka_unit_test(another_protocol_is_told_from_garbage),
        cmocka_unit_test(a_message_of_half_a_million_empty_submessages_is_refused_by_its_budget),
        cmocka_unit_test(a_message_longer_than_the_limit_is_refused_unread),
        cmocka_unit_test(a_hundred_thousand_mutated_messages_do_no_harm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
