/* Tables from file to rows: kinds of columns, classes, rows that cannot be read, what a table that
 * cannot be used gets, and that nothing in a damaged index is believed. */
#include "lib/fs.h"
#include "lib/index.h"
#include "tests/unit/scratch.h"
#include "workers/sources/source.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct table {
    struct scratch s;
    char path[512];
    struct sm_pipeline_source source;
    struct sm_index *index;
    struct sm_table *rows;
};

static struct table table_make(void) {
    struct table t = {.s = scratch_make(), .source = {.format = SM_SOURCE_CSV}};
    return t;
}

static void table_close(struct table *t) {
    sm_table_close(&t->rows);
    sm_index_close(&t->index);
}

static void table_open(struct table *t, const char *name) {
    struct sm_err err = {0};
    char root[SM_MAX_PATH_BYTES];
    table_close(t);
    snprintf(t->path, sizeof t->path, "%s/%s", t->s.dir, name);
    t->source.path = t->path;
    if (sm_index_build(&t->source, scratch_path(&t->s, "index"), &err) != 0 ||
        sm_index_open(&t->index, scratch_path(&t->s, "index"), &err) != 0 ||
        sm_source_root(&t->source, root, &err) != 0 ||
        sm_table_open(&t->rows, t->index, root, &err) != 0)
        fail_msg("%s", err.text);
}

static void table_done(struct table *t) {
    table_close(t);
    scratch_remove(&t->s);
}

static void refuse(struct table *t, const char *name, int code, const char *part) {
    struct sm_err err = {0};
    snprintf(t->path, sizeof t->path, "%s/%s", t->s.dir, name);
    t->source.path = t->path;
    assert_int_equal(sm_index_build(&t->source, scratch_path(&t->s, "index"), &err), -1);
    if (strstr(err.text, part) == NULL) fail_msg("'%s' is not in: %s", part, err.text);
    assert_string_equal(sm_code_word((int)err.code), sm_code_word(code));
}

static double cell(struct table *t, uint64_t sample, size_t column) {
    struct sm_err err;
    struct sm_rows r;
    const struct sm_schema *s = sm_index_schema(t->index);
    assert_int_equal(sm_rows_alloc(&r, 1, s->n, s->is_double, &err), 0);
    if (sm_table_read(t->rows, NULL, sample, 1, &r, &err) != 0) fail_msg("%s", err.text);
    double v = r.is_double ? r.f64[column] : r.f32[column];
    sm_rows_free(&r);
    return v;
}

static void kinds_names_and_classes_come_from_the_whole_table(void **state) {
    (void)state;
    struct table t = table_make();
    scratch_text(&t.s, "t.csv",
                 "age,colour,size,y\n1,red,NA,dog\n2.5,blue,3,cat\n,,-4,dog\n"
                 "7,\"green\",5,ant\n");
    t.source.label = "y";
    table_open(&t, "t.csv");
    const struct sm_schema *s = sm_index_schema(t.index);
    assert_true(sm_index_is_table(t.index));
    assert_int_equal(s->n, 3);
    assert_false(s->is_double);
    assert_string_equal(s->columns[1].name, "colour");
    assert_int_equal(s->columns[0].kind, SM_COLUMN_NUMBER);
    assert_int_equal(s->columns[1].kind, SM_COLUMN_CATEGORY);
    assert_int_equal(s->columns[1].n_categories, 3);
    assert_string_equal(s->columns[1].categories[0], "blue");
    assert_string_equal(s->columns[1].categories[2], "red");
    assert_int_equal(sm_index_samples(t.index), 4);
    assert_int_equal(sm_index_classes(t.index), 3);
    assert_string_equal(sm_index_class(t.index, 0), "ant");
    assert_int_equal(sm_index_label(t.index, 0), 2);
    assert_int_equal(sm_index_class_samples(t.index, 2), 2);
    assert_int_equal(sm_index_class_sample(t.index, 2, 1), 2);
    assert_int_equal(sm_index_class_rank(t.index, 2), 1);
    assert_true(cell(&t, 0, 0) == 1 && cell(&t, 1, 0) == 2.5 && isnan(cell(&t, 2, 0)));
    assert_true(cell(&t, 0, 1) == 2 && cell(&t, 1, 1) == 0 && isnan(cell(&t, 2, 1)) &&
                cell(&t, 3, 1) == 1);
    assert_true(isnan(cell(&t, 0, 2)) && cell(&t, 2, 2) == -4);
    assert_string_equal(sm_index_entry(t.index, 3).file, "t.csv");
    assert_int_equal(sm_index_entry(t.index, 3).label, 0);
    table_done(&t);
}

static void a_header_is_recognised_by_the_rule_or_forced(void **state) {
    (void)state;
    struct table t = table_make();
    scratch_text(&t.s, "numbers.csv", "1,2\n3,4\n");
    table_open(&t, "numbers.csv");
    assert_int_equal(sm_index_samples(t.index), 2);
    assert_string_equal(sm_index_schema(t.index)->columns[1].name, "x1");
    assert_int_equal(sm_index_classes(t.index), 1);
    assert_string_equal(sm_index_class(t.index, 0), "");
    t.source.header = SM_HEADER_TRUE;
    table_open(&t, "numbers.csv");
    assert_int_equal(sm_index_samples(t.index), 1);
    assert_string_equal(sm_index_schema(t.index)->columns[1].name, "2");
    t.source.header = SM_HEADER_AUTO;
    scratch_text(&t.s, "pandas.csv", ",a,b\n0,1,2\n");
    table_open(&t, "pandas.csv");
    assert_int_equal(sm_index_samples(t.index), 1);
    assert_string_equal(sm_index_schema(t.index)->columns[0].name, "x0");
    scratch_text(&t.s, "twice.csv", "a,a\nb,c\n");
    table_open(&t, "twice.csv");
    assert_int_equal(sm_index_samples(t.index), 2);
    t.source.header = SM_HEADER_TRUE;
    refuse(&t, "twice.csv", SM_E_DATASET, "the same name");
    t.source.header = SM_HEADER_FALSE;
    scratch_text(&t.s, "words.csv", "a,b\nc,d\n");
    table_open(&t, "words.csv");
    assert_int_equal(sm_index_samples(t.index), 2);
    table_done(&t);
}

static void a_header_with_numbers_or_doubled_names_is_not_taken_for_data(void **state) {
    (void)state;
    struct table t = table_make();
    static const char *const numeric[] = {"z"};
    scratch_text(&t.s, "pandas.csv", "0,1,label\n1.5,2,0\n2.5,3,1\n");
    t.source.label = "2";
    refuse(&t, "pandas.csv", SM_E_DATASET, "'label' stands over numbers, but '0' is a number");
    refuse(&t, "pandas.csv", SM_E_DATASET, "source.header: yes, or no");
    t.source.label = "label";
    table_open(&t, "pandas.csv");
    assert_int_equal(sm_index_samples(t.index), 2);
    assert_string_equal(sm_index_schema(t.index)->columns[0].name, "0");
    scratch_text(&t.s, "words.csv", "0,z\n1,2\n");
    t.source.label = NULL;
    t.source.numeric = (struct sm_strs){.v = numeric, .count = 1};
    table_open(&t, "words.csv");
    assert_int_equal(sm_index_samples(t.index), 1);
    t.source.numeric = (struct sm_strs){0};
    scratch_text(&t.s, "twice.csv", "a,b,a\n1,2,3\n4,5,6\n");
    refuse(&t, "twice.csv", SM_E_DATASET, "the same name");
    scratch_text(&t.s, "data.csv", "no,1,no\nyes,2,no\n");
    table_open(&t, "data.csv");
    assert_int_equal(sm_index_samples(t.index), 2);
    t.source.header = SM_HEADER_FALSE;
    t.source.label = "y";
    scratch_text(&t.s, "named.csv", "x,y\n1,2\n");
    refuse(&t, "named.csv", SM_E_PIPELINE, "it stands in the first row: source.header: yes");
    table_done(&t);
}

static void a_column_that_is_not_there_is_told_with_those_that_are(void **state) {
    (void)state;
    struct table t = table_make();
    scratch_text(&t.s, "t.csv", "a;b;y\n1;2;3\n");
    t.source.label = "y";
    refuse(&t, "t.csv", SM_E_PIPELINE, "its one column is 'a;b;y': is source.delimiter right?");
    scratch_text(&t.s, "t.csv", "alpha,beta,c,d,e,f,g,h\n1,2,3,4,5,6,7,8\n");
    refuse(&t, "t.csv", SM_E_PIPELINE, "the columns are alpha, beta, c, d, e, f and 2 more");
    table_done(&t);
}

static void a_column_declared_numeric_keeps_its_kind_and_loses_its_bad_rows(void **state) {
    (void)state;
    struct table t = table_make();
    static const char *const numeric[] = {"x"}, *const label[] = {"y"};
    scratch_text(&t.s, "t.csv", "x,z,y\n1,5,a\nn.a.,6,b\nNA,7,a\ninf,8,b\n4,9,b\n");
    t.source.label = "y";
    t.source.numeric = (struct sm_strs){.v = numeric, .count = 1};
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_schema(t.index)->columns[0].kind, SM_COLUMN_NUMBER);
    assert_int_equal(sm_index_samples(t.index), 3);
    assert_true(cell(&t, 0, 0) == 1 && isnan(cell(&t, 1, 0)) && cell(&t, 2, 0) == 4);
    assert_int_equal(sm_index_bad_rows(t.index), 2);
    struct sm_bad_row bad = sm_index_bad_row(t.index, 0);
    assert_true(bad.row == 1 && bad.line == 3 && bad.offset == 12);
    assert_string_equal(bad.text, "'n.a.' in column 'x' is no number (hint: source.missing lists "
                                  "words for missing cells)");
    bad = sm_index_bad_row(t.index, 1);
    assert_non_null(strstr(bad.text, "'inf' in column 'x' is infinite"));
    assert_non_null(strstr(bad.text, "source.missing"));
    t.source.on_error = SM_ON_ERROR_FAIL;
    refuse(&t, "t.csv", SM_E_DATASET, "line 3, byte 12: 'n.a.' in column 'x' is no number");
    t.source.categorical = t.source.numeric;
    refuse(&t, "t.csv", SM_E_PIPELINE, "source.numeric 'x' is among source.categorical too");
    t.source.categorical = (struct sm_strs){.v = label, .count = 1};
    refuse(&t, "t.csv", SM_E_PIPELINE, "source.categorical 'y' is what source.label names");
    table_done(&t);
}

static void a_word_after_thousands_of_numbers_still_makes_a_category(void **state) {
    (void)state;
    struct table t = table_make();
    char *text = calloc(1, 1 << 20);
    size_t n = (size_t)sprintf(text, "a,b,y\n");
    for (int i = 0; i < 30000; i++)
        n += (size_t)sprintf(text + n, "%d,%s,%d\n", i % 7,
                             i == 29990 ? "word"
                             : i == 5   ? "1e99"
                                        : "8",
                             i % 3);
    scratch_text(&t.s, "t.csv", text);
    t.source.label = "2";
    t.source.on_error = SM_ON_ERROR_FAIL; /* 1e99 is a word here, no overflow */
    table_open(&t, "t.csv");
    const struct sm_schema *s = sm_index_schema(t.index);
    assert_int_equal(sm_index_samples(t.index), 30000);
    assert_int_equal(s->columns[0].kind, SM_COLUMN_NUMBER);
    assert_int_equal(s->columns[1].n_categories, 3);
    assert_string_equal(s->columns[1].categories[2], "word");
    assert_true(cell(&t, 29990, 1) == 2 && cell(&t, 29991, 1) == 1 && cell(&t, 5, 1) == 0);
    assert_true(cell(&t, 29991, 0) == 29991 % 7);
    struct sm_rows all;
    struct sm_err err;
    uint64_t some[] = {29999, 5, 5, 6, 7, 0};
    assert_int_equal(sm_rows_alloc(&all, 6, 2, false, &err), 0);
    assert_int_equal(sm_table_read(t.rows, some, 0, 6, &all, &err), 0);
    for (int i = 0; i < 6; i++)
        assert_true(all.f32[2 * i] == (float)(some[i] % 7));
    sm_rows_free(&all);
    free(text);
    table_done(&t);
}

static void a_header_that_cannot_be_is_told_with_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"a,b,a\n1,2,3\n", "0 and 2 are both 'a' (hint: rename one)"},
        {"a,5,a\n1,2,3\n", "0 and 2 are both 'a' (hint: rename one, or source.header: no)"},
        {"x1,,y\n1,2,3\n", "0 and 1 are both 'x1' (hint: rename one; a column without a name"},
        {"a,b\nr1,1,2\nr2,3,4\n", "has 2 names, and each row has 3 fields (hint: R's row names"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct table t = table_make();
        scratch_text(&t.s, "t.csv", cases[i].text);
        t.source.header = SM_HEADER_TRUE;
        refuse(&t, "t.csv", SM_E_DATASET, cases[i].says);
        table_done(&t);
    }
    struct table t = table_make(); /* one row is longer: it is quarantined */
    scratch_text(&t.s, "t.csv", "a,b\n1,2,3\n3,4\n");
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_bad_rows(t.index), 1);
    table_done(&t);
}

static void a_first_row_that_counts_up_is_doubtful(void **state) {
    (void)state;
    static const char *const doubtful[] = {"0,1,2\n5,6,7\n", ",0,1,2\n0,5,6,7\n"},
                             *const data[] = {"0,1\n5,6\n", "0,1,3\n5,6,7\n", "1,2,3\n5,6,7\n",
                                              "0,1,2.0\n5,6,7\n"};
    struct table t = table_make();
    for (size_t i = 0; i < 2; i++) {
        scratch_text(&t.s, "t.csv", doubtful[i]);
        t.source.header = SM_HEADER_AUTO;
        refuse(&t, "t.csv", SM_E_DATASET, "it counts from 0 to 2, as pandas names columns");
        t.source.header = SM_HEADER_FALSE;
        table_open(&t, "t.csv");
        assert_int_equal(sm_index_samples(t.index), 2);
        t.source.header = SM_HEADER_TRUE;
        table_open(&t, "t.csv");
        assert_int_equal(sm_index_samples(t.index), 1);
    }
    t.source.header = SM_HEADER_AUTO;
    for (size_t i = 0; i < sizeof data / sizeof *data; i++) {
        scratch_text(&t.s, "t.csv", data[i]);
        table_open(&t, "t.csv");
        assert_int_equal(sm_index_samples(t.index), 2);
    }
    table_done(&t);
}

static void a_label_that_is_a_word_for_missing_is_told(void **state) {
    (void)state;
    struct table t = table_make();
    static const char *const listed[] = {"None"};
    scratch_text(&t.s, "t.csv", "x,y\n1,a\n2,None\n3, \n4,\n");
    t.source.label = "y";
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_bad_rows(t.index), 3);
    assert_string_equal(sm_index_bad_row(t.index, 0).text,
                        "the label is missing: 'None' counts as a missing cell (hint: "
                        "source.missing: [])");
    assert_string_equal(sm_index_bad_row(t.index, 1).text, "the label is missing");
    assert_string_equal(sm_index_bad_row(t.index, 2).text, "the label is missing");
    t.source.missing = (struct sm_strs){.v = listed, .count = 1};
    table_open(&t, "t.csv");
    assert_non_null(strstr(sm_index_bad_row(t.index, 0).text, "source.missing lists it"));
    t.source.missing.count = 0; /* [] */
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_bad_rows(t.index), 2);
    assert_int_equal(sm_index_classes(t.index), 2);
    table_done(&t);
}

static void rows_that_cannot_be_read_are_listed_and_the_others_keep_their_numbers(void **state) {
    (void)state;
    struct table t = table_make();
    static const char text[] =
        "a,b,y\n1,2,0\n1,2\n3,\"4\"x,1\n5,1e999,1\n1e39,1,0\n6,7,\n8,\xFF,1\n"
        "9,10,1\n";
    scratch_text(&t.s, "t.csv", text);
    t.source.label = "y";
    t.source.header = SM_HEADER_TRUE;
    table_open(&t, "t.csv");
    static const struct {
        uint64_t row, line;
        const char *text;
    } want[] = {{1, 3, "2 fields where 3 are expected"},
                {2, 4, "a quoted field goes on behind its closing quote"},
                {3, 5, "'1e999' in column 'b' overflows a number"},
                {4, 6, "'1e39' in column 'a' overflows float32 (hint: output: {dtype: float64})"},
                {5, 7, "the label is missing"},
                {6, 8, "the row is not UTF-8 (hint: of Latin-1: iconv -f LATIN1 -t UTF-8)"}};
    assert_int_equal(sm_index_samples(t.index), 2);
    assert_int_equal(sm_index_bad_rows(t.index), 6);
    const char *line = text;
    for (uint64_t i = 0, l = 1; i < 6; i++) {
        struct sm_bad_row b = sm_index_bad_row(t.index, i);
        for (; l < want[i].line; l++)
            line = strchr(line, '\n') + 1;
        assert_int_equal(b.row, want[i].row);
        assert_int_equal(b.line, want[i].line);
        assert_int_equal(b.offset, line - text);
        assert_string_equal(b.text, want[i].text);
        assert_string_equal(b.file, "t.csv");
        assert_true(sm_code_charges_sample((int)b.code));
    }
    assert_int_equal(sm_index_row(t.index, 0), 0);
    assert_int_equal(sm_index_row(t.index, 1), 7);
    assert_true(cell(&t, 1, 0) == 9 && cell(&t, 1, 1) == 10);
    t.source.float64 = true;
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_samples(t.index), 3);
    assert_true(cell(&t, 1, 0) == 1e39);
    t.source.on_error = SM_ON_ERROR_FAIL;
    refuse(&t, "t.csv", SM_E_DATASET, "row 1, line 3, byte 12: 2 fields where 3 are expected");
    table_done(&t);
}

static void a_table_that_cannot_be_used_is_refused_by_name(void **state) {
    (void)state;
    struct table t = table_make();
    refuse(&t, "none.csv", SM_E_MISSING, "is not there");
    scratch_text(&t.s, "empty.csv", "");
    refuse(&t, "empty.csv", SM_E_DATASET, "is empty");
    scratch_text(&t.s, "head.csv", "a,b\n");
    refuse(&t, "head.csv", SM_E_DATASET, "it has none");
    scratch_text(&t.s, "bad.csv", "a,b\n1\n2,3,4\n");
    refuse(&t, "bad.csv", SM_E_DATASET, "1 field where 2 are expected");
    scratch_text(&t.s, "t.csv", "alpha,beta\n1,2\n");
    t.source.label = "bet";
    refuse(&t, "t.csv", SM_E_PIPELINE, "did you mean 'beta'?");
    t.source.label = "2";
    refuse(&t, "t.csv", SM_E_PIPELINE, "no such column");
    t.source.label = "beta";
    t.source.group = "gamma";
    refuse(&t, "t.csv", SM_E_PIPELINE, "split.by 'gamma'");
    t.source.group = "alpha";
    refuse(&t, "t.csv", SM_E_DATASET, "no column beside the label");
    t.source.group = NULL;
    t.source.delimiter = "ab";
    refuse(&t, "t.csv", SM_E_PIPELINE, "source.delimiter 'ab'");
    t.source.delimiter = "\"";
    refuse(&t, "t.csv", SM_E_PIPELINE, "source.delimiter");
    table_done(&t);
}

static void several_files_are_one_table_and_must_have_one_header(void **state) {
    (void)state;
    struct table t = table_make();
    scratch_text(&t.s, "d/b.csv", "x,y\n3,1\nbad\n4,0\n");
    scratch_text(&t.s, "d/a.csv", "x,y\n1,0\n2,1\n");
    scratch_text(&t.s, "d/notes.txt", "no");
    t.source.label = "y";
    static const char *const paths[] = {"d", "d/*.csv"};
    for (int i = 0; i < 2; i++) {
        table_open(&t, paths[i]);
        assert_int_equal(sm_index_samples(t.index), 4);
        for (uint64_t k = 0; k < 4; k++)
            assert_true(cell(&t, k, 0) == (double)k + 1);
        assert_string_equal(sm_index_entry(t.index, 1).file, "a.csv");
        assert_string_equal(sm_index_entry(t.index, 3).file, "b.csv");
        assert_int_equal(sm_index_row(t.index, 3), 4);
        assert_string_equal(sm_index_bad_row(t.index, 0).file, "b.csv");
        assert_int_equal(sm_index_bad_row(t.index, 0).line, 3);
    }
    scratch_text(&t.s, "r-08.csv", "x,y\n8,1\n");
    scratch_text(&t.s, "r-09.csv", "x,y\n9,1\n");
    scratch_text(&t.s, "r-10.csv", "x,y\n10,0\n");
    table_open(&t, "r-{08..10}.csv");
    assert_int_equal(sm_index_samples(t.index), 3);
    assert_true(cell(&t, 2, 0) == 10);
    refuse(&t, "r-{08..11}.csv", SM_E_MISSING, "r-11.csv");
    scratch_text(&t.s, "d/c.csv", "x,z\n1,0\n");
    refuse(&t, "d", SM_E_DATASET, "column 1 is 'z', there 'y'");
    scratch_text(&t.s, "d/c.csv", "x,y,z\n1,0,1\n");
    refuse(&t, "d", SM_E_DATASET, "it has 3 columns, there are 2");
    scratch_text(&t.s, "d/c.csv", "\xFF,y\n1,0\n");
    refuse(&t, "d", SM_E_DATASET, "c.csv' cannot be read: the row is not UTF-8");
    scratch_text(&t.s, "d/c.csv", "x,y\n1,0\n");
    table_open(&t, "d");
    assert_int_equal(sm_index_samples(t.index), 5);
    scratch_text(&t.s, "d/D.CSV", "x,y\n1,0\n");
    table_open(&t, "d");
    assert_int_equal(sm_index_samples(t.index), 6); /* in any case */
    table_done(&t);
}

static void an_index_is_current_until_one_of_its_files_changes(void **state) {
    (void)state;
    struct table t = table_make();
    char root[512];
    snprintf(root, sizeof root, "%s/d", t.s.dir);
    scratch_text(&t.s, "d/a.csv", "x\n1\n");
    scratch_text(&t.s, "d/b.csv", "x\n2\n");
    table_open(&t, "d");
    assert_true(sm_index_is_current(t.index, root));
    scratch_text(&t.s, "d/b.csv", "x\n2\n3\n");
    assert_false(sm_index_is_current(t.index, root));
    unlink(scratch_path(&t.s, "d/b.csv"));
    assert_false(sm_index_is_current(t.index, root));
    table_done(&t);
}

/* Else a run could not be resumed over a table that was only touched. */
static void the_index_digest_does_not_follow_time_and_the_index_does(void **state) {
    (void)state;
    struct table t = table_make();
    char digest[SM_XXH_HEX];
    const struct timespec when[2] = {{5, 0}, {5, 7}};
    scratch_text(&t.s, "t.csv", "x,y\n1,a\n2,b\n");
    t.source.label = "y";
    table_open(&t, "t.csv");
    strcpy(digest, sm_index_digest(t.index));
    assert_int_equal(utimensat(AT_FDCWD, scratch_path(&t.s, "t.csv"), when, 0), 0);
    assert_false(sm_index_is_current(t.index, t.s.dir));
    table_open(&t, "t.csv");
    assert_true(sm_index_is_current(t.index, t.s.dir));
    assert_true(sm_index_entry(t.index, 0).mtime_ns == 5000000007);
    assert_string_equal(sm_index_digest(t.index), digest);
    scratch_text(&t.s, "t.csv", "x,y\n1,a\n3,b\n");
    table_open(&t, "t.csv");
    assert_string_not_equal(sm_index_digest(t.index), digest);
    table_done(&t);
}

static void labels_that_begin_alike_are_told_apart(void **state) {
    (void)state;
    struct table t = table_make();
    static const char *const label[] = {"a", "a", "ab", "ab", "a", "abc", "b", "ab", "a"};
    scratch_text(&t.s, "t.csv", "x,y\n1,a\n1,a\n1,ab\n1,ab\n1,a\n1,abc\n1,b\n1,ab\n1,a\n");
    t.source.label = "y";
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_classes(t.index), 4);
    for (uint64_t i = 0; i < sizeof label / sizeof *label; i++)
        assert_string_equal(sm_index_class(t.index, sm_index_label(t.index, i)), label[i]);
    table_done(&t);
}

static void number_labels_are_class_indices_and_groups_follow_their_text(void **state) {
    (void)state;
    struct table t = table_make();
    scratch_text(&t.s, "t.csv", "g,x,y\np1,1,10\np2,2,9\np1,3,9\n");
    t.source.label = "y";
    t.source.group = "g";
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_classes(t.index), 11);
    assert_int_equal(sm_index_label(t.index, 0), 10);
    assert_int_equal(sm_index_class_samples(t.index, 9), 2);
    assert_int_equal(sm_index_schema(t.index)->n, 1);
    assert_true(sm_index_group(t.index, 0) == sm_index_group(t.index, 2));
    assert_true(sm_index_group(t.index, 0) != sm_index_group(t.index, 1));
    table_done(&t);
}

static void categorical_makes_categories_of_numbers(void **state) {
    (void)state;
    struct table t = table_make();
    static const char *const columns[] = {"zip"};
    scratch_text(&t.s, "t.csv", "zip,x\n10,1\n9,2\n10,3\n");
    t.source.categorical = (struct sm_strs){.v = columns, .count = 1};
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_schema(t.index)->columns[0].n_categories, 2);
    assert_true(cell(&t, 0, 0) == 1 && cell(&t, 1, 0) == 0 && cell(&t, 2, 0) == 1);
    table_done(&t);
}

static void words_that_are_all_numbers_are_sorted_by_value(void **state) {
    (void)state;
    struct table t = table_make();
    static const char *const columns[] = {"c"}, *const order[] = {"-2", "0", "1.5", "2", "10"};
    scratch_text(&t.s, "t.csv", "c,d,y\n10,10,8\n2,2,-3\n-2,b,10\n1.5,1,-1\n0,0,0\n");
    t.source.categorical = (struct sm_strs){.v = columns, .count = 1};
    t.source.label = "y";
    table_open(&t, "t.csv");
    const struct sm_schema *s = sm_index_schema(t.index);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(s->columns[0].categories[i], order[i]);
    assert_true(cell(&t, 0, 0) == 4 && cell(&t, 2, 0) == 0);
    assert_string_equal(s->columns[1].categories[2], "10"); /* a word among them: as bytes */
    static const char *const classes[] = {"-3", "-1", "0", "8", "10"};
    for (uint32_t i = 0; i < 5; i++)
        assert_string_equal(sm_index_class(t.index, i), classes[i]);
    table_done(&t);
}

/* As the adult table is written: ", " between the cells. */
static void skipped_spaces_are_in_no_name_no_word_and_no_group(void **state) {
    (void)state;
    struct table t = table_make();
    scratch_text(&t.s, "t.csv", "g, age, job, y\np, 39, \"a, b\", no\np,  40, ?, no\n");
    t.source.skip_initial_space = true;
    t.source.label = "y";
    t.source.group = "g";
    static const char *const missing[] = {"?"};
    t.source.missing = (struct sm_strs){.v = missing, .count = 1};
    table_open(&t, "t.csv");
    const struct sm_schema *s = sm_index_schema(t.index);
    assert_string_equal(s->columns[0].name, "age");
    assert_int_equal(s->columns[0].n_categories, 0);
    assert_string_equal(s->columns[1].name, "job");
    assert_int_equal(s->columns[1].n_categories, 1);
    assert_true(cell(&t, 1, 0) == 40 && cell(&t, 0, 1) == 0 && isnan(cell(&t, 1, 1)));
    t.source.delimiter = " ";
    refuse(&t, "t.csv", SM_E_PIPELINE, "spaces are what delimits");
    table_done(&t);
}

static void rows_here_and_there_come_from_a_mapping_that_may_be_cut_short(void **state) {
    (void)state;
    enum { ROWS = 20000 };
    struct table t = table_make();
    struct sm_err err = {0};
    struct sm_rows r;
    struct stat st;
    uint64_t some[4] = {ROWS - 1, 7, 3, 11000};
    char *text = malloc(ROWS * 24), *to = text;
    to += sprintf(to, "a,b\n");
    for (int i = 0; i < ROWS; i++)
        to += sprintf(to, "%d,%d.5\n", i, -i);
    scratch_text(&t.s, "long.csv", text);
    free(text);
    table_open(&t, "long.csv");
    assert_int_equal(sm_rows_alloc(&r, 4, 2, false, &err), 0);
    assert_int_equal(sm_table_read(t.rows, some, 0, 4, &r, &err), 0);
    for (size_t i = 0; i < 4; i++)
        assert_true(r.f32[2 * i] == (float)some[i] && r.f32[2 * i + 1] == -(float)some[i] - 0.5f);
    /* only the matrix: what else there is of an index lies in memory */
    const char *index = scratch_path(&t.s, "index");
    assert_int_equal(stat(index, &st), 0);
    assert_int_equal(truncate(index, 8192), 0);
    assert_int_equal(sm_table_read(t.rows, some, 0, 4, &r, &err), -1);
    assert_int_equal(err.code, SM_E_CHANGED);
    assert_int_equal(truncate(index, st.st_size), 0);
    sm_rows_free(&r);
    table_done(&t);
}

static void the_dataset_digest_follows_content_and_not_name_or_time(void **state) {
    (void)state;
    struct table t = table_make();
    char digest[4][SM_XXH_HEX];
    static const char *const files[] = {"a.csv", "b.csv", "c.csv", "a.csv"};
    scratch_text(&t.s, "a.csv", "x,y\n1,2\n3,4\n");
    scratch_text(&t.s, "b.csv", "x,y\n1,2\n3,4\n");
    scratch_text(&t.s, "c.csv", "x,y\n1,2\n3,5\n");
    for (int i = 0; i < 4; i++) {
        t.source.label = i == 3 ? "y" : NULL;
        table_open(&t, files[i]);
        strcpy(digest[i], sm_index_dataset_digest(t.index));
    }
    assert_string_equal(digest[0], digest[1]);
    assert_string_not_equal(digest[0], digest[2]);
    assert_string_not_equal(digest[0], digest[3]);
    table_done(&t);
}

static void numbers_may_have_a_comma_for_a_point(void **state) {
    (void)state;
    struct table t = table_make();
    t.source.delimiter = ";";
    t.source.decimal = ",";
    t.source.float64 = true;
    scratch_text(&t.s, "t.csv", "a;b\n1,5;2\n-2,25e1;\"3,125\"\n;0,1\n,5;1e400\n");
    table_open(&t, "t.csv");
    assert_int_equal(sm_index_schema(t.index)->columns[0].kind, SM_COLUMN_NUMBER);
    assert_int_equal(sm_index_samples(t.index), 3); /* the last overflows */
    assert_true(cell(&t, 0, 0) == 1.5 && cell(&t, 1, 0) == -22.5 && isnan(cell(&t, 2, 0)));
    assert_true(cell(&t, 0, 1) == 2 && cell(&t, 1, 1) == 3.125 && cell(&t, 2, 1) == 0.1);
    scratch_text(&t.s, "t.csv", "a;b\n1.000;2\n1,5;3\n");
    table_open(&t, "t.csv"); /* a point is no point, so what has one is a word */
    assert_int_equal(sm_index_schema(t.index)->columns[0].kind, SM_COLUMN_CATEGORY);
    t.source.delimiter = ",";
    refuse(&t, "t.csv", SM_E_PIPELINE, "source.decimal is ',', and so is the delimiter");
    t.source.decimal = "7";
    refuse(&t, "t.csv", SM_E_PIPELINE, "source.decimal '7' cannot be");
    table_done(&t);
}

/* Two files of more rows than a mark is for, with newlines in quotes, empty lines, rows that cannot
 * be read and both ends of lines: each row is found where it was written. */
static void any_row_is_found_by_line_and_offset(void **state) {
    enum { ROWS = 2 * SM_INDEX_MARK_ROWS + 300 };
    (void)state;
    struct table t = table_make();
    struct sm_err err = {0};
    struct place {
        uint64_t line, offset;
        bool bad;
    } *at = calloc((size_t)2 * ROWS, sizeof *at);
    for (int f = 0; f < 2; f++) {
        struct sm_buf text;
        sm_buf_init(&text, 1 << 20);
        sm_buf_printf(&text, "%sa,b\n", f ? "\xEF\xBB\xBF" : "");
        uint64_t line = 2;
        for (int i = 0; i < ROWS; i++) {
            const bool wide = i % 7 == 3;
            if (i % 11 == 0) sm_buf_text(&text, "\r\n"), line++;
            at[f * ROWS + i] = (struct place){line, text.len, i % 97 == 5};
            sm_buf_printf(&text, "%d,%s%s", i, wide ? "\"x\ny\"" : "z",
                          i % 97 == 5 ? ",too many" : "");
            sm_buf_text(&text, i % 5 ? "\n" : "\r\n");
            line += 1 + wide;
        }
        scratch_write(&t.s, f ? "d/b.csv" : "d/a.csv", text.data, text.len);
        sm_buf_release(&text);
    }
    t.source.header = SM_HEADER_TRUE;
    table_open(&t, "d");
    struct sm_finder *finder;
    assert_int_equal(sm_finder_open(&finder, t.index, &t.source, t.path, &err), 0);
    const uint64_t n = sm_index_samples(t.index);
    uint64_t bad = 0;
    for (uint64_t i = 0; i < (uint64_t)2 * ROWS; i++)
        bad += at[i].bad;
    assert_int_equal(n, (uint64_t)2 * ROWS - bad);
    for (uint64_t k = 0; k < 3 * n; k++) { /* in order, backwards, criss-cross */
        const uint64_t sample = k < n ? k : k < 2 * n ? 2 * n - 1 - k : k * 977 % n;
        const uint64_t row = sm_index_row(t.index, sample);
        struct sm_found found;
        if (sm_finder_find(finder, sample, &found, &err) != 0) fail_msg("%s", err.text);
        assert_int_equal(found.line, at[row].line);
        assert_int_equal(found.offset, at[row].offset);
        assert_string_equal(found.file, row < ROWS ? "a.csv" : "b.csv");
    }
    sm_finder_close(&finder);
    scratch_text(&t.s, "d/b.csv", "a,b\n1,2\n");
    assert_int_equal(sm_finder_open(&finder, t.index, &t.source, t.path, &err), 0);
    struct sm_found found;
    assert_int_equal(sm_finder_find(finder, n - 1, &found, &err), -1);
    assert_int_equal(err.code, SM_E_CHANGED);
    sm_finder_close(&finder);
    free(at);
    table_done(&t);
}

/* With its checksum put right, so that the checks behind it are reached. */
static void seal(uint8_t *bytes, size_t n) {
    char hex[SM_XXH_HEX];
    sm_xxh(bytes, n - 16, hex);
    for (size_t i = 0; i < 16; i++) {
        unsigned byte;
        sscanf(hex + 2 * i, "%2x", &byte);
        bytes[n - 16 + i] = (uint8_t)byte;
    }
}

/* Whatever stands in an index that opens, its rows can be asked for without leaving it. */
static void walk_index(const struct sm_index *x) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < sm_index_samples(x); i++) {
        uint32_t label = sm_index_label(x, i);
        sum += sm_index_row(x, i) + sm_index_group(x, i) + sm_index_class_rank(x, i);
        sum += strlen(sm_index_entry(x, i).file) + strlen(sm_index_class(x, label));
    }
    for (uint64_t i = 0; i < sm_index_bad_rows(x); i++)
        sum += strlen(sm_index_bad_row(x, i).text) + strlen(sm_index_bad_row(x, i).file);
    const struct sm_schema *s = sm_index_is_table(x) ? sm_index_schema(x) : NULL;
    for (size_t c = 0; s != NULL && c < s->n; c++)
        for (uint32_t k = 0; k < s->columns[c].n_categories; k++)
            sum += strlen(s->columns[c].categories[k]);
    assert_true(sum > 0);
}

static void no_byte_of_a_damaged_index_leads_outside(void **state) {
    (void)state;
    struct table t = table_make();
    struct sm_buf buf;
    struct sm_err err;
    struct sm_index *x;
    sm_buf_init(&buf, 1 << 20);
    scratch_text(&t.s, "t.csv", "g,c,x,y\na,red,1,0\nb,blue,2,2\nbad\na,red,3,0\n");
    t.source.label = "y";
    t.source.group = "g";
    table_open(&t, "t.csv");
    assert_int_equal(sm_fs_read_file(scratch_path(&t.s, "index"), 1 << 20, &buf, &err), 0);
    size_t n = buf.len, opened = 0;
    uint8_t *bytes = aligned_alloc(64, (n + 63) / 64 * 64);
    memcpy(bytes, buf.data, n);
    assert_int_equal(sm_index_open_bytes(&x, bytes, n, &err), 0);
    assert_string_equal(sm_index_digest(x), sm_index_digest(t.index));
    walk_index(x);
    sm_index_close(&x);
    for (size_t i = 0; i < n - 16; i = i == 320 ? 4096 : i + 1) {
        bytes[i] ^= 1;
        assert_int_equal(sm_index_open_bytes(&x, bytes, n, NULL), -1);
        bytes[i] ^= 1;
        for (int v = 0; v < 3; v++) {
            uint8_t was = bytes[i];
            bytes[i] = v == 0 ? (uint8_t)~was : v == 1 ? (uint8_t)(was + 1) : 0x80;
            seal(bytes, n);
            if (sm_index_open_bytes(&x, bytes, n, NULL) == 0) {
                walk_index(x);
                sm_index_close(&x);
                opened++;
            }
            bytes[i] = was;
        }
    }
    seal(bytes, n);
    for (size_t cut = 0; cut < n; cut += cut < 4096 ? 512 : 1)
        assert_int_equal(sm_index_open_bytes(&x, bytes, cut, NULL), -1);
    assert_true(opened > 0); /* letters of names, the matrix */
    free(bytes);
    sm_buf_release(&buf);
    table_done(&t);
}

/* Bytes of a table are changed at random: whatever comes out is an index or a sentence. */
static void mutated_tables_never_break_the_reader(void **state) {
    (void)state;
    struct table t = table_make();
    static const char seed[] = "id,colour,w,y\n1,red,0.5,a\n2,\"bl\"\"ue\",1e3,b\n3,,NA,a\n"
                               "4,\"x\ny\",-7.25,b\n5,\xC3\xA9,1e400,c\n";
    static const char soup[] = "\",\n\r\0\xFF 9e.-";
    char text[sizeof seed];
    uint64_t random = 12345;
    int sound = 0;
    t.source.label = "3";
    t.source.header = SM_HEADER_TRUE;
    for (int i = 0; i < 400; i++) {
        memcpy(text, seed, sizeof seed);
        for (int k = 0; k < 1 + i % 6; k++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            text[(random >> 33) % (sizeof seed - 1)] = soup[(random >> 20) % (sizeof soup - 1)];
        }
        scratch_write(&t.s, "t.csv", text, sizeof seed - 1);
        snprintf(t.path, sizeof t.path, "%s/t.csv", t.s.dir);
        t.source.path = t.path;
        struct sm_err err = {0};
        struct sm_index *x;
        if (sm_index_build(&t.source, scratch_path(&t.s, "index"), &err) != 0) {
            assert_true(strlen(err.text) > 0);
            continue;
        }
        if (sm_index_open(&x, scratch_path(&t.s, "index"), &err) != 0) fail_msg("%s", err.text);
        walk_index(x);
        sm_index_close(&x);
        sound++;
    }
    assert_true(sound > 100);
    table_done(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        /* first: cmocka takes signals back before each test, and a guard asks for its own once */
        cmocka_unit_test(rows_here_and_there_come_from_a_mapping_that_may_be_cut_short),
        cmocka_unit_test(kinds_names_and_classes_come_from_the_whole_table),
        cmocka_unit_test(a_header_is_recognised_by_the_rule_or_forced),
        cmocka_unit_test(a_header_that_cannot_be_is_told_with_what_is_wrong),
        cmocka_unit_test(a_first_row_that_counts_up_is_doubtful),
        cmocka_unit_test(a_label_that_is_a_word_for_missing_is_told),
        cmocka_unit_test(a_header_with_numbers_or_doubled_names_is_not_taken_for_data),
        cmocka_unit_test(a_column_that_is_not_there_is_told_with_those_that_are),
        cmocka_unit_test(a_column_declared_numeric_keeps_its_kind_and_loses_its_bad_rows),
        cmocka_unit_test(a_word_after_thousands_of_numbers_still_makes_a_category),
        cmocka_unit_test(rows_that_cannot_be_read_are_listed_and_the_others_keep_their_numbers),
        cmocka_unit_test(a_table_that_cannot_be_used_is_refused_by_name),
        cmocka_unit_test(several_files_are_one_table_and_must_have_one_header),
        cmocka_unit_test(an_index_is_current_until_one_of_its_files_changes),
        cmocka_unit_test(the_index_digest_does_not_follow_time_and_the_index_does),
        cmocka_unit_test(labels_that_begin_alike_are_told_apart),
        cmocka_unit_test(number_labels_are_class_indices_and_groups_follow_their_text),
        cmocka_unit_test(categorical_makes_categories_of_numbers),
        cmocka_unit_test(words_that_are_all_numbers_are_sorted_by_value),
        cmocka_unit_test(skipped_spaces_are_in_no_name_no_word_and_no_group),
        cmocka_unit_test(the_dataset_digest_follows_content_and_not_name_or_time),
        cmocka_unit_test(numbers_may_have_a_comma_for_a_point),
        cmocka_unit_test(any_row_is_found_by_line_and_offset),
        cmocka_unit_test(no_byte_of_a_damaged_index_leads_outside),
        cmocka_unit_test(mutated_tables_never_break_the_reader),
    };
    return cmocka_run_group_tests_name("table_index", tests, NULL, NULL);
}
