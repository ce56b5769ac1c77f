/* Blocks of rows: their memory, how a column is found, and which fault of several is told. */
#include "workers/table/rows.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void a_block_is_aligned_and_one_too_large_is_refused(void **state) {
    (void)state;
    struct sm_err err;
    struct sm_rows r;
    assert_int_equal(sm_rows_alloc(&r, 3, 5, true, &err), 0);
    assert_int_equal((uintptr_t)r.data % 64, 0);
    memset(r.data, 1, 3 * 5 * sizeof(double));
    sm_rows_free(&r);
    assert_null(r.data);
    assert_int_equal(sm_rows_alloc(&r, 0, 5, false, &err), 0);
    sm_rows_free(&r);
    assert_int_equal(sm_rows_alloc(&r, SIZE_MAX / 2, 5, false, &err), -1);
    assert_int_equal(err.code, SM_E_TOO_LARGE);
    assert_int_equal(sm_rows_alloc(&r, SIZE_MAX / 8, 1, true, &err), -1);
}

static void a_large_block_is_whole_up_to_its_last_byte(void **state) {
    (void)state;
    struct sm_err err;
    struct sm_rows r;
    /* around whole and half pages of 2 MiB */
    static const size_t kib[] = {4095, 4096, 4097, 5119, 5120, 5121, 6144, 7813};
    for (size_t i = 0; i < sizeof kib / sizeof *kib; i++) {
        assert_int_equal(sm_rows_alloc(&r, kib[i], 256, false, &err), 0);
        assert_int_equal((uintptr_t)r.data % 64, 0);
        memset(r.data, 1, kib[i] << 10);
        assert_int_equal(((uint8_t *)r.data)[(kib[i] << 10) - 1], 1);
        sm_rows_free(&r);
    }
}

static void a_name_wins_over_a_number_and_nothing_else_is_found(void **state) {
    (void)state;
    struct sm_column columns[] = {{.name = "age"}, {.name = "0"}, {.name = ""}};
    struct sm_schema s = {.columns = columns, .n = 3};
    assert_int_equal(sm_schema_find(&s, "age"), 0);
    assert_int_equal(sm_schema_find(&s, "0"), 1);
    assert_int_equal(sm_schema_find(&s, "2"), 2);
    assert_int_equal(sm_schema_find(&s, ""), 2);
    static const char *const none[] = {"3", "-1", "1x", "Age", "18446744073709551616", "+1"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(sm_schema_find(&s, none[i]), -1);
}

static void names_are_found_among_many_as_one_by_one(void **state) {
    (void)state;
    enum { N = 3000 };
    static struct sm_column columns[N];
    static char names[N][24];
    const struct sm_schema s = {.columns = columns, .n = N};
    for (size_t i = 0; i < N; i++) { /* some twice, some that are numbers of others */
        snprintf(names[i], sizeof names[i], i % 3 == 0 ? "%zu" : "x%zu", i % 2 == 0 ? i / 4 : i);
        columns[i].name = names[i];
    }
    struct sm_schema_names by_name = sm_schema_names_make(&s), without = {.schema = &s};
    for (size_t i = 0; i < N + 10; i++) {
        char text[16];
        snprintf(text, sizeof text, "%zu", i);
        assert_int_equal(sm_schema_names_find(&by_name, text), sm_schema_find(&s, text));
        snprintf(text, sizeof text, "x%zu", i);
        assert_int_equal(sm_schema_names_find(&by_name, text), sm_schema_find(&s, text));
        assert_int_equal(sm_schema_names_find(&without, text), sm_schema_find(&s, text));
    }
    sm_schema_names_release(&by_name);
}

static void the_text_tells_of_the_first_bad_row_whatever_the_order(void **state) {
    (void)state;
    uint8_t bad[8] = {0};
    struct sm_row_faults f = {.bad = bad};
    sm_row_fault(&f, 5, "row five, %d", 1);
    sm_row_fault(&f, 2, "row two");
    sm_row_fault(&f, 2, "row two again");
    sm_row_fault(&f, 7, "row seven");
    assert_int_equal(f.n_bad, 3);
    assert_int_equal(f.first, 2);
    assert_string_equal(f.text, "row two");
    assert_true(bad[2] && bad[5] && bad[7] && !bad[0]);
}

static void a_copied_schema_stands_alone(void **state) {
    (void)state;
    struct sm_err err;
    struct sm_arena arena;
    sm_arena_init(&arena, 1 << 16);
    char name[] = "colour", red[] = "red";
    const char *categories[] = {"blue", red};
    struct sm_column columns[] = {
        {.name = "n"},
        {.name = name, .kind = SM_COLUMN_CATEGORY, .categories = categories, .n_categories = 2}};
    struct sm_schema from = {.columns = columns, .n = 2, .is_double = true}, to;
    assert_int_equal(sm_schema_copy(&to, &from, &arena, &err), 0);
    name[0] = red[0] = 'X';
    categories[0] = NULL;
    assert_string_equal(to.columns[1].name, "colour");
    assert_string_equal(to.columns[1].categories[0], "blue");
    assert_string_equal(to.columns[1].categories[1], "red");
    assert_int_equal(to.columns[1].kind, SM_COLUMN_CATEGORY);
    assert_true(to.is_double);
    sm_arena_release(&arena);
    sm_arena_init(&arena, 8);
    assert_int_equal(sm_schema_copy(&to, &from, &arena, &err), -1);
    assert_int_equal(err.code, SM_E_MEMORY);
    sm_arena_release(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_aligned_and_one_too_large_is_refused),
        cmocka_unit_test(a_large_block_is_whole_up_to_its_last_byte),
        cmocka_unit_test(a_name_wins_over_a_number_and_nothing_else_is_found),
        cmocka_unit_test(names_are_found_among_many_as_one_by_one),
        cmocka_unit_test(the_text_tells_of_the_first_bad_row_whatever_the_order),
        cmocka_unit_test(a_copied_schema_stands_alone),
    };
    return cmocka_run_group_tests_name("rows", tests, NULL, NULL);
}
