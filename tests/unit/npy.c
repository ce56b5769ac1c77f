/* Arrays of numpy as tables: every type becomes the same numbers, several arrays are one table, and
 * what a header or a label may not be. test_csv.py's neighbour for arrays is numpy itself: the
 * bytes here are those that numpy.save writes. */
#include "workers/sources/npy.h"
#include "tests/unit/scratch.h"
#include "workers/sources/source.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <utime.h>

#include <cmocka.h>

/* Writes an array of format 1.0 with this descr and shape. */
static void save(const struct scratch *s, const char *name, const char *descr, const char *shape,
                 const void *data, size_t n) {
    static uint8_t file[1 << 20];
    char dict[200];
    int length = snprintf(dict, sizeof dict,
                          "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    size_t header = (10 + (size_t)length + 1 + 63) / 64 * 64;
    memcpy(file, "\x93NUMPY\x01\x00", 8);
    file[8] = (uint8_t)(header - 10);
    file[9] = (uint8_t)((header - 10) >> 8);
    memset(file + 10, ' ', header - 10);
    memcpy(file + 10, dict, (size_t)length);
    file[header - 1] = '\n';
    memcpy(file + header, data, n);
    scratch_write(s, name, file, header + n);
}

struct table {
    struct scratch s;
    char path[512], root[SM_MAX_PATH_BYTES];
    struct sm_pipeline_source source;
    struct sm_index *index;
    struct sm_table *rows;
};

static int build(struct table *t, const char *name, struct sm_err *err) {
    snprintf(t->path, sizeof t->path, "%s/%s", t->s.dir, name);
    t->source.format = SM_SOURCE_NPY;
    t->source.path = t->path;
    return sm_index_build(&t->source, scratch_path(&t->s, "index"), err);
}

static void table_close(struct table *t) {
    sm_table_close(&t->rows);
    sm_index_close(&t->index);
}

static void table_open(struct table *t, const char *name) {
    struct sm_err err = {0};
    table_close(t);
    if (build(t, name, &err) != 0 ||
        sm_index_open(&t->index, scratch_path(&t->s, "index"), &err) != 0 ||
        sm_source_root(&t->source, t->root, &err) != 0 ||
        sm_table_open(&t->rows, t->index, t->root, &err) != 0)
        fail_msg("%s", err.text);
}

static void refuse(struct table *t, const char *name, const char *part) {
    struct sm_err err = {0};
    assert_int_equal(build(t, name, &err), -1);
    if (strstr(err.text, part) == NULL) fail_msg("'%s' is not in: %s", part, err.text);
}

/* All rows as doubles. */
static const double *all(struct table *t) {
    static double out[4096];
    struct sm_rows r;
    struct sm_err err;
    const struct sm_schema *s = sm_index_schema(t->index);
    size_t n = sm_index_samples(t->index);
    assert_int_equal(sm_rows_alloc(&r, n, s->n, s->is_double, &err), 0);
    if (sm_table_read(t->rows, NULL, 0, n, &r, &err) != 0) fail_msg("%s", err.text);
    for (size_t i = 0; i < n * s->n; i++)
        out[i] = r.is_double ? r.f64[i] : (double)r.f32[i];
    sm_rows_free(&r);
    return out;
}

static void every_type_becomes_the_same_numbers(void **state) {
    (void)state;
    struct table t = {.s = scratch_make()};
    static const float f4[] = {1, 2, 3, 4, 5, 6};
    static const double f8[] = {1, 2, 3, 4, 5, 6};
    static const int8_t i1[] = {1, 2, 3, 4, 5, 6};
    static const int16_t i2[] = {1, 2, 3, 4, 5, 6};
    static const int32_t i4[] = {1, 2, 3, 4, 5, 6};
    static const int64_t i8[] = {1, 2, 3, 4, 5, 6};
    static const struct {
        const char *descr;
        const void *data;
        size_t n;
        bool is_double;
    } types[] = {{"<f4", f4, sizeof f4, false}, {"<f8", f8, sizeof f8, true},
                 {"|i1", i1, sizeof i1, false}, {"<i2", i2, sizeof i2, false},
                 {"<i4", i4, sizeof i4, true},  {"<i8", i8, sizeof i8, true},
                 {"|u1", i1, sizeof i1, false}, {"<u2", i2, sizeof i2, false},
                 {"<u4", i4, sizeof i4, true},  {"<u8", i8, sizeof i8, true}};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        save(&t.s, "x.npy", types[k].descr, "(3, 2)", types[k].data, types[k].n);
        table_open(&t, "x.npy");
        assert_int_equal(sm_index_schema(t.index)->is_double, types[k].is_double);
        for (int i = 0; i < 6; i++)
            assert_true(all(&t)[i] == i + 1);
    }
    static const int8_t signs[] = {-1, -128, 127, 0};
    save(&t.s, "x.npy", "|i1", "(2, 2)", signs, sizeof signs);
    table_open(&t, "x.npy");
    assert_true(all(&t)[0] == -1 && all(&t)[1] == -128);
    t.source.float64 = true;
    table_open(&t, "x.npy");
    assert_true(sm_index_schema(t.index)->is_double && all(&t)[2] == 127);
    assert_string_equal(sm_index_schema(t.index)->columns[1].name, "x1");
    table_close(&t);
    scratch_remove(&t.s);
}

static void arrays_of_a_folder_and_their_labels_are_one_table(void **state) {
    (void)state;
    struct table t = {.s = scratch_make()};
    static const float a[] = {1, 10, 2, INFINITY, 3, 30}, b[] = {4, 40};
    static const int64_t y[] = {7, 7, 2, 0};
    save(&t.s, "d/a.npy", "<f4", "(3, 2)", a, sizeof a);
    save(&t.s, "d/b.npy", "<f4", "(1, 2)", b, sizeof b);
    save(&t.s, "d/y.npy", "<i8", "(4,)", y, sizeof y);
    t.source.label = "y.npy";
    table_open(&t, "d");
    assert_int_equal(sm_index_samples(t.index), 3);
    assert_int_equal(sm_index_classes(t.index), 8);
    assert_int_equal(sm_index_label(t.index, 0), 7);
    assert_int_equal(sm_index_label(t.index, 2), 0);
    assert_int_equal(sm_index_bad_rows(t.index), 1);
    assert_int_equal(sm_index_bad_row(t.index, 0).row, 1);
    assert_string_equal(sm_index_bad_row(t.index, 0).text, "an infinity in column 'x1'");
    assert_int_equal(sm_index_row(t.index, 1), 2);
    assert_string_equal(sm_index_entry(t.index, 2).file, "b.npy");
    struct sm_finder *finder;
    struct sm_found found;
    assert_int_equal(sm_finder_open(&finder, t.index, &t.source, t.path, NULL), 0);
    assert_int_equal(sm_finder_find(finder, 1, &found, NULL), 0); /* row 2 of a.npy */
    assert_int_equal(found.line, 3);
    assert_int_equal(found.offset, sm_index_bad_row(t.index, 0).offset + 2 * sizeof(float));
    assert_string_equal(found.file, "a.npy");
    sm_finder_close(&finder);
    static const double want[] = {1, 10, 3, 30, 4, 40};
    assert_memory_equal(all(&t), want, sizeof want);
    t.source.group = "x0";
    table_open(&t, "d");
    assert_int_equal(sm_index_schema(t.index)->n, 1);
    assert_true(sm_index_group(t.index, 0) != sm_index_group(t.index, 1));
    static const double one[] = {10, 30, 40};
    assert_memory_equal(all(&t), one, sizeof one);
    struct sm_rows r;
    struct sm_err err;
    uint64_t some[] = {2, 0, 1, 1};
    assert_int_equal(sm_rows_alloc(&r, 4, 1, false, &err), 0);
    assert_int_equal(sm_table_read(t.rows, some, 0, 4, &r, &err), 0);
    assert_true(r.f32[0] == 40 && r.f32[1] == 10 && r.f32[2] == 30 && r.f32[3] == 30);
    sm_rows_free(&r);
    table_close(&t);
    scratch_remove(&t.s);
}

/* More files than are kept open, rows in no order, bad ones between them. */
static void rows_here_and_there_are_those_of_a_whole_read(void **state) {
    (void)state;
    struct table t = {.s = scratch_make()};
    struct sm_err err = {0};
    enum { FILES = 90, ROWS = 11 };
    float x[ROWS * 2];
    for (int f = 0; f < FILES; f++) {
        char name[32];
        for (int i = 0; i < ROWS * 2; i++)
            x[i] = (float)(f * 100 + i);
        snprintf(name, sizeof name, "many/f%02d.npy", f);
        save(&t.s, name, "<f4", "(11, 2)", x, sizeof x);
    }
    table_open(&t, "many");
    const uint64_t n = sm_index_samples(t.index);
    assert_int_equal(n, FILES * ROWS);
    struct sm_rows whole, some;
    assert_int_equal(sm_rows_alloc(&whole, n, 2, false, &err), 0);
    assert_int_equal(sm_rows_alloc(&some, n, 2, false, &err), 0);
    if (sm_table_read(t.rows, NULL, 0, n, &whole, &err) != 0) fail_msg("%s", err.text);
    uint64_t samples[FILES * ROWS];
    for (uint64_t step = 1; step < n; step += 211) { /* 1: in order, as samples */
        for (uint64_t i = 0; i < n; i++)
            samples[i] = i * step % n;
        if (sm_table_read(t.rows, samples, 0, n, &some, &err) != 0) fail_msg("%s", err.text);
        for (uint64_t i = 0; i < n; i++)
            assert_memory_equal(some.f32 + 2 * i, whole.f32 + 2 * samples[i], 2 * sizeof(float));
    }
    sm_rows_free(&whole);
    sm_rows_free(&some);
    table_close(&t);
    scratch_remove(&t.s);
}

static void labels_may_be_names_and_must_be_as_many_as_rows(void **state) {
    (void)state;
    struct table t = {.s = scratch_make()};
    static const float x[] = {1, 2};
    static const uint32_t names[] = {'d', 'o', 'g', 0xE9, 0, 0};
    static const int8_t numbers[] = {-1, 5, 1};
    save(&t.s, "x.npy", "<f4", "(2, 1)", x, sizeof x);
    save(&t.s, "y.npy", "<U3", "(2,)", names, sizeof names);
    t.source.label = "y.npy";
    table_open(&t, "x.npy");
    assert_string_equal(sm_index_class(t.index, 0), "dog");
    assert_string_equal(sm_index_class(t.index, 1), "\xC3\xA9");
    save(&t.s, "y.npy", "|S3", "(2,)", "cat\0b\0", 6);
    table_open(&t, "x.npy");
    assert_int_equal(sm_index_classes(t.index), 2);
    save(&t.s, "y.npy", "|i1", "(2,)", numbers, 2);
    table_open(&t, "x.npy");
    assert_string_equal(sm_index_class(t.index, 0), "-1");
    save(&t.s, "y.npy", "|i1", "(3,)", numbers, 3);
    refuse(&t, "x.npy", "more labels");
    save(&t.s, "y.npy", "|i1", "(1,)", numbers, 1);
    refuse(&t, "x.npy", "fewer labels in 'y.npy' than rows: 1 for 2");
    save(&t.s, "y.npy", "<f4", "(2,)", x, sizeof x);
    refuse(&t, "x.npy", "holds no labels");
    /* the rows have their labels out of the first file; the second is looked at all the same */
    assert_int_equal(mkdir(scratch_path(&t.s, "labels"), 0777), 0);
    t.source.label = "labels";
    save(&t.s, "labels/0.npy", "|i1", "(2,)", numbers, 2);
    save(&t.s, "labels/1.npy", "|i1", "(0,)", numbers, 0);
    table_open(&t, "x.npy");
    scratch_text(&t.s, "labels/1.npy", "garbage");
    refuse(&t, "x.npy", "1.npy' is no .npy file");
    t.source.label = "none.npy";
    refuse(&t, "x.npy", "none.npy' is not there (hint: a path seen from the data's folder");
    table_close(&t);
    scratch_remove(&t.s);
}

static void an_array_whose_bytes_changed_after_indexing_is_told_by_name(void **state) {
    (void)state;
    struct table t = {.s = scratch_make()};
    static const float x[] = {1, 2}, other[] = {1, 3};
    struct sm_rows r;
    struct sm_err err;
    char digest[SM_XXH_HEX];
    save(&t.s, "x.npy", "<f4", "(2, 1)", x, sizeof x);
    table_open(&t, "x.npy");
    strcpy(digest, sm_index_digest(t.index));
    /* touched: its bytes tell that it is the same, and an index that is made anew has its digest */
    assert_int_equal(utime(scratch_path(&t.s, "x.npy"), &(struct utimbuf){1, 1}), 0);
    assert_int_equal(sm_rows_alloc(&r, 2, 1, false, &err), 0);
    assert_int_equal(sm_table_read(t.rows, NULL, 0, 2, &r, &err), 0);
    assert_true(r.f32[1] == 2);
    table_open(&t, "x.npy");
    assert_string_equal(sm_index_digest(t.index), digest);
    save(&t.s, "x.npy", "<f4", "(2, 1)", other, sizeof other);
    assert_int_equal(sm_table_read(t.rows, NULL, 0, 2, &r, &err), -1);
    assert_int_equal(err.code, SM_E_CHANGED);
    assert_non_null(strstr(err.text, "x.npy"));
    sm_rows_free(&r);
    table_close(&t);
    scratch_remove(&t.s);
}

static void what_is_no_matrix_of_numbers_is_refused(void **state) {
    (void)state;
    struct table t = {.s = scratch_make()};
    static const float x[] = {1, 2, 3, 4};
    static const struct {
        const char *descr, *shape, *why;
    } bad[] = {{">f4", "(2, 2)", "is not read here"},
               {"<f2", "(2, 2)", "is not read here"},
               {"|O", "(2, 2)", "is not read here"},
               {"<c8", "(2, 2)", "is not read here"},
               {"<f4", "(1, 2, 2)", "is not read here"},
               {"<f4", "()", "is not read here"},
               {"<f4", "(4,)", "no matrix of numbers"},
               {"<f4", "(2, 3)", "ends before its"},
               {"<f4", "(999999999999999999, 999999999999999999)", "ends before its"},
               {"<f4", "(-1, 2)", "is not read here"},
               {"<f4", "(2, 0)", "0 columns"},
               {"<U4", "(1, 1)", "no matrix of numbers"},
               {"<f4", "(0, 2)", "it has none"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        save(&t.s, "x.npy", bad[i].descr, bad[i].shape, x, sizeof x);
        refuse(&t, "x.npy", bad[i].why);
    }
    scratch_text(&t.s, "x.npy", "no array at all");
    refuse(&t, "x.npy", "is no .npy file");
    save(&t.s, "d/a.npy", "<f4", "(2, 2)", x, sizeof x);
    save(&t.s, "d/b.npy", "<f4", "(4, 1)", x, sizeof x);
    refuse(&t, "d", "has 1 columns");
    scratch_remove(&t.s);
}

/* Each byte of a header changed: it is read or refused, and nothing else happens. */
static void no_header_leads_outside_the_file(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    static const float x[] = {1, 2, 3, 4};
    static uint8_t bytes[256];
    save(&s, "x.npy", "<f4", "(2, 2)", x, sizeof x);
    int fd = open(scratch_path(&s, "x.npy"), O_RDWR);
    ssize_t n = read(fd, bytes, sizeof bytes);
    assert_true(n > 64);
    static const uint8_t values[] = {0, ' ', '\'', '(', ')', '9', 255};
    int sound = 0;
    for (ssize_t i = 0; i < n - (ssize_t)sizeof x; i++) {
        for (size_t v = 0; v < sizeof values; v++) {
            struct sm_npy npy;
            struct sm_err err = {0};
            assert_int_equal(pwrite(fd, &values[v], 1, i), 1);
            if (sm_npy_header(fd, "x.npy", (uint64_t)n, &npy, &err) == 0) {
                assert_true(npy.data + npy.shape[0] * npy.shape[1] * npy.item <= (uint64_t)n);
                sound++;
            } else {
                assert_true(strlen(err.text) > 0);
            }
        }
        assert_int_equal(pwrite(fd, &bytes[i], 1, i), 1);
    }
    assert_true(sound > 0);
    close(fd);
    scratch_remove(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_becomes_the_same_numbers),
        cmocka_unit_test(arrays_of_a_folder_and_their_labels_are_one_table),
        cmocka_unit_test(rows_here_and_there_are_those_of_a_whole_read),
        cmocka_unit_test(labels_may_be_names_and_must_be_as_many_as_rows),
        cmocka_unit_test(an_array_whose_bytes_changed_after_indexing_is_told_by_name),
        cmocka_unit_test(what_is_no_matrix_of_numbers_is_refused),
        cmocka_unit_test(no_header_leads_outside_the_file),
    };
    return cmocka_run_group_tests_name("npy", tests, NULL, NULL);
}
