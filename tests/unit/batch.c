/* The layout of a batch in memory: what a trainer reads in place must lie where the header says,
 * and a header that lies must not be believed. */
#include "lib/batch.h"
#include "lib/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct sm_batch_header shape(uint32_t count, uint32_t dtype, uint32_t c, uint32_t h,
                                    uint32_t w) {
    return (struct sm_batch_header){
        .count = count, .dtype = dtype, .channels = c, .height = h, .width = w};
}

/* A batch with bytes in it, exactly as long as it says, so that a sanitizer sees what lies beyond.
 */
static uint8_t *make(struct sm_batch_header *h) {
    struct sm_err err = {0};
    assert_int_equal(sm_batch_layout(h, &err), 0);
    uint8_t *b = malloc(h->bytes);
    for (uint64_t i = 0; i < h->bytes; i++)
        b[i] = (uint8_t)(i * 31 + i / 251);
    memcpy(b, h, sizeof *h);
    return b;
}

static void arrays_do_not_overlap_and_are_aligned(void **state) {
    (void)state;
    for (uint32_t dtype = 0; dtype < 5; dtype++)
        for (uint32_t count = 1; count < 130; count += 3) {
            struct sm_batch_header h = shape(count, dtype, 3, 5, 7);
            assert_int_equal(sm_batch_layout(&h, NULL), 0);
            static const unsigned element[] = {1, 4, 2, 2, 8};
            assert_int_equal(sm_batch_sample_bytes(&h), 3 * 5 * 7 * element[dtype]);
            assert_true(h.tensor >= SM_BATCH_HEADER);
            assert_true(h.label >= h.tensor + count * sm_batch_sample_bytes(&h));
            assert_true(h.index >= h.label + 8ull * count);
            assert_true(h.position >= h.index + 8ull * count);
            assert_true(h.flags >= h.position + 8ull * count);
            assert_true(h.bytes >= h.flags + count);
            const uint64_t at[] = {h.tensor, h.label, h.index, h.position, h.flags, h.bytes};
            for (int i = 0; i < 6; i++)
                assert_int_equal(at[i] % SM_BATCH_ALIGN, 0);
        }
}

static void weights_lie_behind_all_that_was_there_before(void **state) {
    (void)state;
    for (uint32_t count = 1; count < 130; count += 3) {
        struct sm_batch_header without = shape(count, 1, 3, 5, 7), with = without;
        with.weight = 1; /* wanted */
        assert_int_equal(sm_batch_layout(&without, NULL), 0);
        assert_int_equal(sm_batch_layout(&with, NULL), 0);
        assert_int_equal(without.weight, 0);
        assert_int_equal(with.weight, without.bytes);
        assert_int_equal(with.weight % SM_BATCH_ALIGN, 0);
        assert_int_equal(with.bytes % SM_BATCH_ALIGN, 0);
        assert_in_range(with.bytes, with.weight + 4ull * count, with.weight + 4ull * count + 63);
        assert_int_equal(with.flags, without.flags);
        struct sm_batch_array arrays[SM_BATCH_ARRAYS];
        assert_int_equal(sm_batch_arrays(&without, arrays), 5);
        assert_int_equal(sm_batch_arrays(&with, arrays), 6);
        assert_int_equal(arrays[5].offset, with.weight);
        assert_int_equal(arrays[5].bytes, 4 * count);
    }
}

/* Both digests are of the version that knew no weights: whoever kept digests finds them again. */
static void a_batch_without_weights_is_the_one_of_before(void **state) {
    (void)state;
    struct sm_batch_header h = shape(5, 0, 3, 3, 3);
    uint8_t *b = make(&h);
    char digest[SM_XXH_HEX];
    assert_int_equal(h.bytes, 576);
    assert_int_equal(h.version, 1);
    sm_batch_digest(b, digest);
    assert_string_equal(digest, "8480354f1054267509616b044ccd123e");
    sm_xxh(b, SM_BATCH_HEADER, digest);
    assert_string_equal(digest, "58eea2940574df5c4dee7ff2323937a8");
    free(b);
}

static void rows_have_one_side_and_nothing_else(void **state) {
    (void)state;
    struct sm_batch_header h = shape(9, 4, 1, 1, 30);
    h.layout = 2;
    assert_int_equal(sm_batch_layout(&h, NULL), 0);
    assert_int_equal(sm_batch_sample_bytes(&h), 30 * 8);
    assert_int_equal(h.version, 1); /* what images had before still has these bytes */
    struct sm_batch_header bad[] = {h, h, h};
    bad[0].channels = 3;
    bad[1].height = 2;
    bad[2].layout = 3;
    for (int i = 0; i < 3; i++) {
        struct sm_err err = {0};
        assert_int_equal(sm_batch_layout(&bad[i], &err), -1);
        assert_int_equal(err.code, SM_E_PROTOCOL);
    }
}

static void sizes_without_end_are_refused_before_they_overflow(void **state) {
    (void)state;
    struct sm_batch_header big[] = {
        shape(SM_MAX_BATCH_SAMPLES + 1, 0, 1, 1, 1),
        shape(1, 0, UINT32_MAX, UINT32_MAX, UINT32_MAX),
        shape(1, 1, 1u << 16, 1u << 16, 1u << 31),
        shape(65536, 1, 3, 224, 224),
        shape(2, 0, 1, 1u << 15, 1u << 15),
        shape(1, 0, 1, 1u << 15, 1u << 15), /* the tensor alone would just fit */
    };
    for (size_t i = 0; i < sizeof big / sizeof *big; i++) {
        struct sm_err err = {0};
        assert_int_equal(sm_batch_layout(&big[i], &err), -1);
        assert_int_equal(err.code, SM_E_TOO_LARGE);
    }
    struct sm_batch_header none[] = {shape(0, 0, 3, 4, 4), shape(1, 5, 3, 4, 4),
                                     shape(1, 0, 0, 4, 4), shape(1, 0, 3, 4, 0)};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct sm_err err = {0};
        assert_int_equal(sm_batch_layout(&none[i], &err), -1);
        assert_int_equal(err.code, SM_E_PROTOCOL);
    }
}

static void expect_no_lie(struct sm_batch_header h) {
    struct sm_batch_header got;
    uint8_t *b = make(&h);
    assert_int_equal(sm_batch_check(b, h.bytes, &got, NULL), 0);
    assert_memory_equal(&got, &h, sizeof h);
    for (uint64_t n = 0; n < h.bytes; n += 7) /* cut */
        assert_int_equal(sm_batch_check(b, n, &got, NULL), -1);
    /* any single bit of the header that describes the arrays; epoch, step and first are facts that
     * memory cannot contradict, and a layout of the other kind is of the same size */
    for (size_t bit = 0; bit < 8 * offsetof(struct sm_batch_header, reserved); bit++) {
        size_t byte = bit / 8;
        bool fact = (byte >= offsetof(struct sm_batch_header, epoch) &&
                     byte < offsetof(struct sm_batch_header, bytes)) ||
                    bit == 8 * offsetof(struct sm_batch_header, layout);
        if (fact) continue;
        b[byte] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(sm_batch_check(b, h.bytes, &got, NULL), -1);
        b[byte] ^= (uint8_t)(1 << bit % 8);
    }
    free(b);
}

static void a_header_that_lies_is_not_believed(void **state) {
    (void)state;
    struct sm_batch_header h = shape(6, 1, 3, 4, 5);
    expect_no_lie(h);
    h.weight = 1;
    expect_no_lie(h);
}

static void a_version_that_is_not_known_is_told(void **state) {
    (void)state;
    struct sm_batch_header h = shape(6, 1, 3, 4, 5), got;
    struct sm_err err = {0};
    h.weight = 1;
    uint8_t *b = make(&h);
    assert_int_equal(h.version, SM_BATCH_VERSION);
    ((struct sm_batch_header *)b)->version++;
    assert_int_equal(sm_batch_check(b, h.bytes, &got, &err), -1);
    assert_int_equal(err.code, SM_E_DIFFERS);
    assert_non_null(strstr(err.text, "version 3"));
    free(b);
}

static void expect_digested(struct sm_batch_header h) {
    uint8_t *b = make(&h);
    char before[SM_XXH_HEX], after[SM_XXH_HEX];
    sm_batch_digest(b, before);
    const uint64_t arrays[][2] = {{h.tensor, 27 * 5}, {h.label, 40}, {h.index, 40},
                                  {h.position, 40},   {h.flags, 5},  {h.weight, 20}};
    for (uint64_t i = SM_BATCH_HEADER; i < h.bytes; i++) {
        bool inside = false;
        for (int k = 0; k < (h.weight != 0 ? 6 : 5); k++)
            inside |= i >= arrays[k][0] && i < arrays[k][0] + arrays[k][1];
        b[i] ^= 0x40;
        sm_batch_digest(b, after);
        b[i] ^= 0x40;
        assert_int_equal(strcmp(before, after) != 0, inside);
    }
    ((struct sm_batch_header *)b)->step = 99; /* who made it when is not part of it */
    sm_batch_digest(b, after);
    assert_string_equal(before, after);
    free(b);
}

static void the_digest_is_of_what_trainers_read_and_of_nothing_else(void **state) {
    (void)state;
    struct sm_batch_header h = shape(5, 0, 3, 3, 3);
    expect_digested(h);
    h.weight = 1;
    expect_digested(h);
}

static void the_chain_depends_on_order_and_on_every_step(void **state) {
    (void)state;
    char a[SM_XXH_HEX], b[SM_XXH_HEX];
    sm_xxh("a", 1, a);
    sm_xxh("b", 1, b);
    char ab[SM_XXH_HEX] = "", ba[SM_XXH_HEX] = "", only[SM_XXH_HEX] = "", want[SM_XXH_HEX];
    sm_batch_chain(ab, a);
    sm_batch_chain(only, a);
    assert_string_equal(ab, only);
    sm_xxh(a, 32, want);
    assert_string_equal(ab, want); /* the first link is the digest of the digest's text */
    char two[65];
    memcpy(two, ab, 32);
    memcpy(two + 32, b, 33);
    sm_xxh(two, 64, want);
    sm_batch_chain(ab, b);
    assert_string_equal(ab, want);
    sm_batch_chain(ba, b);
    sm_batch_chain(ba, a);
    assert_string_not_equal(ab, ba);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_do_not_overlap_and_are_aligned),
        cmocka_unit_test(weights_lie_behind_all_that_was_there_before),
        cmocka_unit_test(a_batch_without_weights_is_the_one_of_before),
        cmocka_unit_test(rows_have_one_side_and_nothing_else),
        cmocka_unit_test(sizes_without_end_are_refused_before_they_overflow),
        cmocka_unit_test(a_header_that_lies_is_not_believed),
        cmocka_unit_test(a_version_that_is_not_known_is_told),
        cmocka_unit_test(the_digest_is_of_what_trainers_read_and_of_nothing_else),
        cmocka_unit_test(the_chain_depends_on_order_and_on_every_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
