/* Artifacts as files: the same arrays are the same bytes, and bytes that were not written by us are
 * refused, whatever stands in them. */
#include "workers/table/artifact.h"

#include "lib/fs.h"
#include "lib/rng.h"
#include "tests/unit/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double components[2][3] = {{0.5, -1, 3e-300}, {2, 0, -0.0}};
static const float scale[] = {1.5f, 2.5f, -3, 4};
static const int64_t codes[] = {-1, 0, INT64_MAX};
static const uint32_t neighbours[] = {7, UINT32_MAX};
static const uint8_t flags[] = {1, 0, 255};

static struct sm_artifact sample_make(void) {
    struct sm_artifact a = {.n = 5};
    a.arrays[0] = (struct sm_array){"components_", SM_ARRAY_F64, 2, {2, 3}, components};
    a.arrays[1] = (struct sm_array){"scale_", SM_ARRAY_F32, 1, {4, 0}, scale};
    a.arrays[2] = (struct sm_array){"codes_", SM_ARRAY_I64, 1, {3, 0}, codes};
    a.arrays[3] = (struct sm_array){"neighbours", SM_ARRAY_U32, 2, {1, 2}, neighbours};
    a.arrays[4] = (struct sm_array){"flags", SM_ARRAY_U8, 1, {3, 0}, flags};
    return a;
}

/* The bytes of the file of `a`. Gives. */
static uint8_t *bytes_of(struct sm_artifact *a, const struct scratch *s, size_t *n) {
    struct sm_err err;
    char name[SM_SHA_HEX + 8];
    assert_int_equal(sm_artifact_write(a, s->dir, &err), 0);
    snprintf(name, sizeof name, "%s.npz", a->sha256);
    uint8_t *bytes = scratch_read(scratch_path(s, name), n);
    assert_non_null(bytes);
    assert_int_equal(*n, a->bytes);
    return bytes;
}

static void assert_same(const struct sm_artifact *a, const struct sm_artifact *b) {
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const struct sm_array *x = &a->arrays[i], *y = sm_artifact_find(b, x->name);
        assert_non_null(y);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->ndim, y->ndim);
        assert_int_equal(x->shape[0], y->shape[0]);
        assert_int_equal(x->shape[1], y->shape[1]);
        const uint64_t cells = x->shape[0] * (x->ndim == 2 ? x->shape[1] : 1);
        assert_memory_equal(x->data, y->data, cells * sm_array_bytes(x->type));
        assert_int_equal((uintptr_t)y->data % sm_array_bytes(x->type), 0);
    }
}

static void what_is_written_is_read_again_and_its_name_is_its_hash(void **state) {
    (void)state;
    struct sm_err err;
    struct scratch s = scratch_make();
    struct sm_artifact a = sample_make(), again = sample_make(), read;
    size_t n;
    uint8_t *bytes = bytes_of(&a, &s, &n);
    assert_int_equal(sm_artifact_open(&read, s.dir, a.sha256, &err), 0);
    assert_same(&a, &read);
    for (size_t i = 0; i < read.n; i++)
        assert_int_equal((uintptr_t)read.arrays[i].data % 64, 0);
    assert_null(sm_artifact_find(&read, "mean_"));
    sm_artifact_close(&read);
    assert_int_equal(sm_artifact_read(&read, bytes, n, &err), 0);
    assert_same(&a, &read);
    assert_string_equal(read.sha256, a.sha256);
    assert_int_equal(sm_artifact_write(&again, s.dir, &err), 0);
    assert_string_equal(again.sha256, a.sha256);
    free(bytes);
    scratch_remove(&s);
}

static void another_name_shape_type_or_bit_is_another_artifact(void **state) {
    (void)state;
    struct sm_err err;
    struct scratch s = scratch_make();
    struct sm_artifact a[6];
    float other[4];
    memcpy(other, scale, sizeof other);
    other[2] = 3;
    for (size_t i = 0; i < 6; i++)
        a[i] = sample_make();
    snprintf(a[1].arrays[1].name, SM_ARRAY_NAME_MAX, "scales");
    a[2].arrays[0].shape[0] = 3, a[2].arrays[0].shape[1] = 2;
    a[3].arrays[1].type = SM_ARRAY_U32;
    a[4].arrays[1].data = other;
    a[5].n = 4;
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(sm_artifact_write(&a[i], s.dir, &err), 0);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(a[i].sha256, a[k].sha256);
    }
    scratch_remove(&s);
}

static void arrays_without_cells_and_the_longest_name_survive(void **state) {
    (void)state;
    struct sm_err err;
    struct scratch s = scratch_make();
    struct sm_artifact a = {.n = SM_ARTIFACT_ARRAYS_MAX}, read;
    for (size_t i = 0; i < a.n; i++) {
        a.arrays[i] = (struct sm_array){"", SM_ARRAY_F64, 2, {0, i}, components};
        snprintf(a.arrays[i].name, SM_ARRAY_NAME_MAX, "%0*zu", SM_ARRAY_NAME_MAX - 1, i);
    }
    assert_int_equal(sm_artifact_write(&a, s.dir, &err), 0);
    assert_int_equal(sm_artifact_open(&read, s.dir, a.sha256, &err), 0);
    assert_same(&a, &read);
    sm_artifact_close(&read);
    scratch_remove(&s);
}

static void what_cannot_be_a_file_is_refused(void **state) {
    (void)state;
    struct sm_err err;
    struct scratch s = scratch_make();
    struct sm_artifact none = {0}, huge = sample_make();
    assert_int_equal(sm_artifact_write(&none, s.dir, &err), -1);
    huge.arrays[0].shape[0] = UINT64_MAX / 2;
    assert_int_equal(sm_artifact_write(&huge, s.dir, &err), -1);
    assert_int_equal(err.code, SM_E_TOO_LARGE);
    huge.arrays[0].shape[0] = 1 << 20, huge.arrays[0].shape[1] = 1 << 20;
    assert_int_equal(sm_artifact_write(&huge, s.dir, &err), -1);
    assert_int_equal(err.code, SM_E_TOO_LARGE);
    scratch_remove(&s);
}

static void a_file_that_is_missing_changed_or_misnamed_is_told_apart(void **state) {
    (void)state;
    struct sm_err err;
    struct scratch s = scratch_make();
    struct sm_artifact a = sample_make(), read;
    char name[SM_SHA_HEX + 8];
    size_t n;
    uint8_t *bytes = bytes_of(&a, &s, &n);
    snprintf(name, sizeof name, "%s.npz", a.sha256);
    bytes[n / 2] ^= 1;
    scratch_write(&s, name, bytes, n);
    assert_int_equal(sm_artifact_open(&read, s.dir, a.sha256, &err), -1);
    assert_int_equal(err.code, SM_E_CHANGED);
    scratch_write(&s, name, bytes, 0);
    assert_int_equal(sm_artifact_open(&read, s.dir, a.sha256, &err), -1);
    assert_int_equal(err.code, SM_E_CHANGED);
    remove(scratch_path(&s, name));
    assert_int_equal(sm_artifact_open(&read, s.dir, a.sha256, &err), -1);
    assert_int_equal(err.code, SM_E_MISSING);
    assert_int_equal(sm_artifact_open(&read, s.dir, "../../etc/passwd", &err), -1);
    assert_int_equal(err.code, SM_E_PROTOCOL);
    free(bytes);
    scratch_remove(&s);
}

/* Whether byte i is a cell of an array; all others follow from the arrays. */
static bool is_cell(const struct sm_artifact *a, const uint8_t *bytes, size_t i) {
    for (size_t k = 0; k < a->n; k++) {
        const struct sm_array *x = &a->arrays[k];
        const uint8_t *first = x->data;
        const uint64_t cells = x->shape[0] * (x->ndim == 2 ? x->shape[1] : 1);
        if (bytes + i >= first && bytes + i < first + cells * sm_array_bytes(x->type)) return true;
    }
    return false;
}

static void each_byte_that_is_no_cell_counts(void **state) {
    (void)state;
    struct sm_err err;
    struct scratch s = scratch_make();
    struct sm_artifact a = sample_make(), whole, read;
    size_t n;
    uint8_t *bytes = bytes_of(&a, &s, &n);
    assert_int_equal(sm_artifact_read(&whole, bytes, n, &err), 0);
    for (size_t i = 0; i < n; i++) {
        if (is_cell(&whole, bytes, i)) continue;
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (uint8_t)(1 << bit);
            if (sm_artifact_read(&read, bytes, n, &err) == 0)
                fail_msg("bit %d of byte %zu may be anything", bit, i);
            bytes[i] ^= (uint8_t)(1 << bit);
        }
    }
    assert_int_equal(sm_artifact_read(&read, bytes, n, &err), 0);
    free(bytes);
    scratch_remove(&s);
}

static void a_file_that_is_cut_or_longer_is_refused(void **state) {
    (void)state;
    struct sm_err err;
    struct scratch s = scratch_make();
    struct sm_artifact a = sample_make(), read;
    size_t n;
    uint8_t *bytes = bytes_of(&a, &s, &n);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *exact = malloc(cut + 1); /* so that a sanitizer sees the first byte behind it */
        memcpy(exact + 1, bytes, cut);
        assert_int_equal(sm_artifact_read(&read, exact + 1, cut, &err), -1);
        assert_int_equal(read.n, 0);
        free(exact);
    }
    uint8_t *longer = calloc(1, n + 1);
    memcpy(longer, bytes, n);
    assert_int_equal(sm_artifact_read(&read, longer, n + 1, &err), -1);
    free(longer);
    free(bytes);
    scratch_remove(&s);
}

/* Random damage, mostly in headers and with numbers that are likely to hurt: nothing is read
 * outside, and what is taken has its arrays inside. */
static void hostile_bytes_are_refused_or_stay_inside(void **state) {
    (void)state;
    static const uint8_t sharp[] = {0, 1, 0x7f, 0x80, 0xff, '9', '-', ')', '\'', '%'};
    struct sm_err err;
    struct scratch s = scratch_make();
    struct sm_artifact a = sample_make(), read;
    size_t n;
    uint8_t *bytes = bytes_of(&a, &s, &n), *bad = malloc(n);
    for (uint64_t round = 0; round < 20000; round++) {
        struct sm_rng rng = sm_rng_op(1, 0, round, 0, 0);
        memcpy(bad, bytes, n);
        for (uint64_t i = 1 + sm_rng_below(&rng, 6); i > 0; i--) {
            const size_t at = (size_t)sm_rng_below(&rng, n);
            const size_t run = 1 + (size_t)sm_rng_below(&rng, 4);
            for (size_t k = at; k < n && k < at + run; k++)
                bad[k] = sharp[sm_rng_below(&rng, sizeof sharp)];
        }
        if (sm_artifact_read(&read, bad, n, &err) != 0) continue;
        for (size_t i = 0; i < read.n; i++) {
            const struct sm_array *x = &read.arrays[i];
            const uint64_t cells = x->shape[0] * (x->ndim == 2 ? x->shape[1] : 1);
            assert_true((const uint8_t *)x->data + cells * sm_array_bytes(x->type) <= bad + n);
        }
    }
    free(bad);
    free(bytes);
    scratch_remove(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_again_and_its_name_is_its_hash),
        cmocka_unit_test(another_name_shape_type_or_bit_is_another_artifact),
        cmocka_unit_test(arrays_without_cells_and_the_longest_name_survive),
        cmocka_unit_test(what_cannot_be_a_file_is_refused),
        cmocka_unit_test(a_file_that_is_missing_changed_or_misnamed_is_told_apart),
        cmocka_unit_test(each_byte_that_is_no_cell_counts),
        cmocka_unit_test(a_file_that_is_cut_or_longer_is_refused),
        cmocka_unit_test(hostile_bytes_are_refused_or_stay_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
