/* Ops on rows, one by one: that ranges mapped elsewhere give the same artifact, and what becomes of
 * missing cells, unseen categories and columns that nobody asked for. Numbers are compared with
 * scikit-learn's in tests/parity/test_rows.py. */
#include "lib/rng.h"
#include "workers/ops/op.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

enum { ROWS_MAX = 64, NAME = 24 };

/* One op of a pipeline, fitted. */
struct fitted {
    struct sm_pipeline pipeline;
    const struct sm_row_op *op;
    const void *params;
    struct sm_artifact learned;
    struct sm_schema out;
    struct sm_arena arena;
    struct sm_err err;
};

struct matrix {
    const struct sm_schema *schema;
    size_t n;
    const double *cells;
};

static int matrix_read(void *context, uint64_t first, struct sm_rows *out, struct sm_err *err) {
    const struct matrix *m = context;
    (void)err;
    for (size_t i = 0; i < out->n * out->columns; i++) {
        const double v = m->cells[first * out->columns + i];
        if (out->is_double)
            out->f64[i] = v;
        else
            out->f32[i] = (float)v;
    }
    return 0;
}

static void op_parse(struct fitted *f, const char *op) {
    char text[8192];
    memset(f, 0, sizeof *f);
    sm_arena_init(&f->arena, (size_t)1 << 28);
    int n = snprintf(text, sizeof text,
                     "version: 1\nseed: 5\nsource: {format: npy, path: x}\nops:\n  - %s\n", op);
    if (sm_pipeline_parse(&f->pipeline, "test", text, (size_t)n, sm_op_table(), &f->err) != 0)
        fail_msg("%s", f->err.text);
    f->op = sm_op_find(f->pipeline.ops[0].info->name)->rows;
    f->params = f->pipeline.ops[0].params;
}

static int op_fit(struct fitted *f, const char *op, struct matrix *m,
                  const struct sm_fit_executor *executor) {
    op_parse(f, op);
    const struct sm_fit_context c = {f->params, m->schema, m->n, (uint64_t)f->pipeline.seed};
    const struct sm_fit_rows rows = {matrix_read, m};
    if (f->op->fit != NULL &&
        sm_fit_run(f->op->fit, &c, &rows, executor, &f->learned, &f->arena, &f->err) != 0)
        return -1;
    if (f->op->schema(f->params, f->op->fit != NULL ? &f->learned : NULL, m->schema, &f->out,
                      &f->arena, &f->err) != 0)
        return -1;
    return f->op->prepare != NULL ? f->op->prepare(f->params, &f->learned, m->schema, &f->err) : 0;
}

static void op_free(struct fitted *f) {
    sm_artifact_close(&f->learned);
    sm_pipeline_release(&f->pipeline);
    sm_arena_release(&f->arena);
}

/* Applies it to rows of the matrix m; out: of f->out.n columns. Gives the faults. */
static struct sm_row_faults op_apply(struct fitted *f, const struct matrix *m, double *out) {
    static uint8_t bad[ROWS_MAX];
    struct sm_row_faults faults = {.bad = memset(bad, 0, sizeof bad)};
    struct sm_rows in, to;
    assert_in_range(m->n, 0, ROWS_MAX);
    assert_int_equal(sm_rows_alloc(&in, m->n, m->schema->n, m->schema->is_double, &f->err), 0);
    assert_int_equal(sm_rows_alloc(&to, m->n, f->out.n, m->schema->is_double, &f->err), 0);
    matrix_read((void *)(uintptr_t)m, 0, &in, &f->err);
    if (f->op->apply(f->params, &f->learned, m->schema, &in, &to, &faults, &f->err) != 0)
        fail_msg("%s", f->err.text);
    for (size_t i = 0; i < to.n * to.columns; i++)
        out[i] = to.is_double ? to.f64[i] : (double)to.f32[i];
    sm_rows_free(&in);
    sm_rows_free(&to);
    return faults;
}

static void assert_cells(const double *got, const double *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!(isnan(want[i]) ? isnan(got[i]) : fabs(got[i] - want[i]) <= 1e-12))
            fail_msg("cell %zu is %g, not %g", i, got[i], want[i]);
}

static void assert_names(const struct sm_schema *s, const char *const *names) {
    size_t n = 0;
    while (names[n] != NULL)
        n++;
    assert_int_equal(s->n, n);
    for (size_t k = 0; k < n; k++)
        assert_string_equal(s->columns[k].name, names[k]);
}

/* --- the same artifact, wherever ranges are mapped -------------------------------------------- */

struct elsewhere {
    const struct sm_fit_rows rows;
    uint64_t ranges;
};

/* Partials made last to first, each in memory of its own, as other processes would. */
static int round_elsewhere(void *context, const struct sm_fit *fit, const struct sm_fit_context *c,
                           const struct sm_buf *state, uint64_t ranges, size_t bytes,
                           void *partials, struct sm_err *err) {
    struct elsewhere *e = context;
    struct sm_buf copy;
    sm_buf_init(&copy, state->max);
    assert_true(sm_buf_add(&copy, state->data, state->len));
    if (ranges > e->ranges) e->ranges = ranges;
    for (uint64_t i = ranges; i-- > 0;) {
        void *partial = aligned_alloc(64, (bytes + 63) / 64 * 64);
        assert_non_null(partial);
        memset(partial, 0xa5, bytes);
        assert_int_equal(sm_fit_map(fit, c, &copy, &e->rows, i, partial, err), 0);
        memcpy((uint8_t *)partials + i * bytes, partial, bytes);
        free(partial);
    }
    sm_buf_release(&copy);
    return 0;
}

static void assert_same_learned(const char *op, const struct sm_artifact *a,
                                const struct sm_artifact *b) {
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const struct sm_array *x = &a->arrays[i], *y = &b->arrays[i];
        const uint64_t n = x->shape[0] * (x->ndim == 2 ? x->shape[1] : 1);
        assert_string_equal(x->name, y->name);
        assert_memory_equal(x->shape, y->shape, sizeof x->shape);
        if (memcmp(x->data, y->data, n * sm_array_bytes(x->type)) != 0)
            fail_msg("%s: '%s' depends on who maps", op, x->name);
    }
}

static const char *const letters[] = {"a", "b", "c", "d"};

static double *cells_random(size_t n, size_t columns, size_t categories) {
    double *cells = malloc(n * columns * sizeof *cells);
    assert_non_null(cells);
    for (size_t i = 0; i < n; i++) {
        struct sm_rng rng = sm_rng_op(3, 0, i, 0, 0);
        const double shift = (double)sm_rng_below(&rng, 5) * 3;
        for (size_t k = 0; k < columns; k++)
            cells[i * columns + k] = k >= columns - categories
                                         ? (double)sm_rng_below(&rng, 4)
                                         : shift + sm_rng_double(&rng) + (double)k;
    }
    return cells;
}

static struct sm_schema schema_make(struct sm_column *columns, size_t n, size_t categories,
                                    bool is_double, char names[][NAME]) {
    for (size_t k = 0; k < n; k++) {
        snprintf(names[k], NAME, "x%zu", k);
        columns[k] = (struct sm_column){.name = names[k]};
        if (k >= n - categories) {
            columns[k].kind = SM_COLUMN_CATEGORY;
            columns[k].categories = letters;
            columns[k].n_categories = 4;
        }
    }
    return (struct sm_schema){columns, n, is_double};
}

static void what_is_learned_does_not_depend_on_who_maps(void **state) {
    static const char *const ops[] = {
        "StandardScaler",
        "MinMaxScaler",
        "RobustScaler",
        "SimpleImputer",
        "SimpleImputer: {strategy: median}",
        "SimpleImputer: {strategy: most_frequent}",
        "OneHotEncoder",
        "OrdinalEncoder",
        "PCA: {n_components: 3}",
        "PCA: {n_components: 3, svd_solver: randomized}",
        "KMeans: {n_clusters: 7}",
        "KMeans: {n_clusters: 40, init: random, n_init: 1, output: distances}",
    };
    enum { COLUMNS = 16, CATEGORIES = 2, N = 70000 };
    struct sm_column columns[COLUMNS];
    char names[COLUMNS][NAME];
    double *cells = cells_random(N, COLUMNS, CATEGORIES);
    (void)state;
    for (size_t i = 0; i < 2 * sizeof ops / sizeof *ops; i++) {
        const char *op = ops[i / 2];
        const struct sm_schema schema =
            schema_make(columns, COLUMNS, CATEGORIES, i % 2 == 1, names);
        struct matrix m = {&schema, N, cells};
        struct fitted here, there;
        struct elsewhere e = {{matrix_read, &m}, 0};
        const struct sm_fit_executor executor = {round_elsewhere, &e};
        if (op_fit(&here, op, &m, NULL) != 0) fail_msg("%s: %s", op, here.err.text);
        if (op_fit(&there, op, &m, &executor) != 0) fail_msg("%s: %s", op, there.err.text);
        assert_true(e.ranges > 1); /* else there is nothing to compare */
        assert_same_learned(op, &here.learned, &there.learned);
        op_free(&here);
        op_free(&there);
    }
    free(cells);
}

/* Two points many times over and a third once, which the sample of the start does not hold: its
 * cluster is empty until a round over all rows finds who is farthest. */
static void an_empty_cluster_takes_the_farthest_row_of_all_ranges(void **state) {
    enum { N = 70000, LONELY = 44444 };
    struct sm_column column = {.name = "x"};
    const struct sm_schema schema = {&column, 1, true};
    double *cells = malloc(N * sizeof *cells);
    (void)state;
    assert_non_null(cells);
    for (size_t i = 0; i < N; i++)
        cells[i] = i == LONELY ? 50 : (double)(i % 2);
    struct matrix m = {&schema, N, cells};
    struct elsewhere e = {{matrix_read, &m}, 0};
    const struct sm_fit_executor executor = {round_elsewhere, &e};
    for (int k = 3; k <= 4; k++) /* of four clusters one stays empty, and the fit ends */
        for (int i = 0; i < 2; i++) {
            struct fitted f;
            char op[40];
            snprintf(op, sizeof op, "KMeans: {n_clusters: %d}", k);
            assert_int_equal(op_fit(&f, op, &m, i == 0 ? NULL : &executor), 0);
            const struct sm_array *centers = sm_artifact_find(&f.learned, "cluster_centers_");
            const double *at = centers->data,
                         steps = *(const double *)sm_artifact_find(&f.learned, "n_iter_")->data;
            bool found = false;
            for (int j = 0; j < k; j++)
                found |= fabs(at[j] - 50) < 1e-9;
            assert_true(found);
            assert_in_range((long)steps, 3, 5); /* the sample's too, and not for ever */
            op_free(&f);
        }
    free(cells);
}

/* --- encoders --------------------------------------------------------------------------------- */

static struct sm_column mixed_columns[] = {
    {.name = "age"},
    {.name = "pet", .kind = SM_COLUMN_CATEGORY, .categories = letters, .n_categories = 4},
    {.name = "sex", .kind = SM_COLUMN_CATEGORY, .categories = letters, .n_categories = 4},
};
static const struct sm_schema mixed = {mixed_columns, 3, true};
/* pet: a, b, d; sex: b, c */
static const double training[] = {10, 3, 1, 20, 0, 2, 30, 1, 1, 40, 0, 2};

static void categories_become_columns_behind_the_numbers(void **state) {
    (void)state;
    struct fitted f;
    double out[24];
    struct matrix m = {&mixed, 4, training};
    assert_int_equal(op_fit(&f, "OneHotEncoder", &m, NULL), 0);
    assert_names(&f.out,
                 (const char *[]){"age", "pet_a", "pet_b", "pet_d", "sex_b", "sex_c", NULL});
    assert_int_equal(op_apply(&f, &m, out).n_bad, 0);
    const double want[] = {10, 0, 0, 1, 1, 0, 20, 1, 0, 0, 0, 1,
                           30, 0, 1, 0, 1, 0, 40, 1, 0, 0, 0, 1};
    assert_cells(out, want, 24);
    op_free(&f);
}

static void the_first_category_is_dropped_of_each_or_of_two(void **state) {
    (void)state;
    struct fitted f;
    double out[24];
    struct matrix m = {&mixed, 4, training};
    assert_int_equal(op_fit(&f, "OneHotEncoder: {drop: first}", &m, NULL), 0);
    assert_names(&f.out, (const char *[]){"age", "pet_b", "pet_d", "sex_c", NULL});
    op_apply(&f, &m, out);
    assert_cells(out, (const double[]){10, 0, 1, 0, 20, 0, 0, 1, 30, 1, 0, 0, 40, 0, 0, 1}, 16);
    op_free(&f);
    assert_int_equal(op_fit(&f, "OneHotEncoder: {drop: if_binary}", &m, NULL), 0);
    assert_names(&f.out, (const char *[]){"age", "pet_a", "pet_b", "pet_d", "sex_c", NULL});
    op_free(&f);
    assert_int_equal(op_fit(&f, "OneHotEncoder: {columns: [sex]}", &m, NULL), 0);
    assert_names(&f.out, (const char *[]){"age", "pet", "sex_b", "sex_c", NULL});
    assert_int_equal(f.out.columns[1].kind, SM_COLUMN_CATEGORY);
    assert_string_equal(f.out.columns[1].categories[3], "d");
    op_free(&f);
}

static void a_category_that_training_had_not_is_a_fault_that_names_it_or_nothing(void **state) {
    (void)state;
    struct fitted f;
    double out[24];
    /* pet c was not there, sex d neither, nor a missing one */
    const double later[] = {1, 2, 1, 2, 0, 1, 3, 0, 3, 4, 0, NAN};
    struct matrix m = {&mixed, 4, training}, unseen = {&mixed, 4, later};
    assert_int_equal(op_fit(&f, "OneHotEncoder", &m, NULL), 0);
    struct sm_row_faults faults = op_apply(&f, &unseen, out);
    assert_int_equal(faults.n_bad, 3);
    assert_true(faults.bad[0] && !faults.bad[1] && faults.bad[2] && faults.bad[3]);
    assert_int_equal(faults.first, 0);
    assert_string_equal(faults.text, "column 'pet': category 'c' did not occur in training");
    op_free(&f);
    assert_int_equal(op_fit(&f, "OneHotEncoder: {handle_unknown: ignore}", &m, NULL), 0);
    assert_int_equal(op_apply(&f, &unseen, out).n_bad, 0);
    const double want[] = {1, 0, 0, 0, 1, 0, 2, 1, 0, 0, 1, 0, 3, 1, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0};
    assert_cells(out, want, 24);
    op_free(&f);
    assert_int_equal(op_fit(&f, "OrdinalEncoder", &m, NULL), 0);
    faults = op_apply(&f, &unseen, out);
    assert_true(faults.bad[0] && !faults.bad[1] && faults.bad[2] && !faults.bad[3]);
    op_free(&f);
}

static void a_missing_category_is_one_of_its_own_where_training_had_it(void **state) {
    (void)state;
    struct fitted f;
    double out[16];
    const double holed[] = {1, NAN, 0, 2, 1, 0};
    struct matrix m = {&mixed, 2, holed};
    assert_int_equal(op_fit(&f, "OneHotEncoder", &m, NULL), 0);
    assert_names(&f.out, (const char *[]){"age", "pet_b", "pet_nan", "sex_a", NULL});
    assert_int_equal(op_apply(&f, &m, out).n_bad, 0);
    assert_cells(out, (const double[]){1, 0, 1, 1, 2, 1, 0, 1}, 8);
    op_free(&f);
}

static void ordinals_count_what_occurs_and_unknown_and_missing_have_their_values(void **state) {
    (void)state;
    struct fitted f;
    double out[12];
    const double later[] = {1, 2, NAN, 2, 3, 2, 3, 1, 3};
    struct matrix m = {&mixed, 4, training}, other = {&mixed, 3, later};
    assert_int_equal(op_fit(&f, "OrdinalEncoder", &m, NULL), 0);
    assert_int_equal(f.out.columns[1].kind, SM_COLUMN_NUMBER);
    op_apply(&f, &m, out);
    assert_cells(out, (const double[]){10, 2, 0, 20, 0, 1, 30, 1, 0, 40, 0, 1}, 12);
    op_free(&f);
    assert_int_equal(
        op_fit(&f, "OrdinalEncoder: {handle_unknown: use_encoded_value, unknown_value: -1}", &m,
               NULL),
        0);
    assert_int_equal(op_apply(&f, &other, out).n_bad, 0);
    assert_cells(out, (const double[]){1, -1, NAN, 2, 2, 1, 3, 1, -1}, 9);
    op_free(&f);
    assert_int_equal(op_fit(&f,
                            "OrdinalEncoder: {handle_unknown: use_encoded_value, unknown_value: "
                            "-1, encoded_missing_value: -2}",
                            &m, NULL),
                     0);
    op_apply(&f, &other, out);
    assert_cells(out, (const double[]){1, -1, -2, 2, 2, 1, 3, 1, -1}, 9);
    op_free(&f);
}

/* Column "pet" alone, so many cells of each: a, b, c, d, missing. */
static size_t pets(double *cells, const size_t *counts) {
    size_t n = 0;
    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < counts[i]; j++)
            cells[n++] = i < 4 ? (double)i : NAN;
    return n;
}

static struct sm_column pet_column[] = {
    {.name = "pet", .kind = SM_COLUMN_CATEGORY, .categories = letters, .n_categories = 4},
};
static const struct sm_schema pet = {pet_column, 1, true};

static void infrequent_categories_share_a_column_and_ties_go_to_the_first(void **state) {
    static const struct {
        const char *op;
        const char *names[6];
    } cases[] = {
        {"OneHotEncoder: {min_frequency: 3}", {"pet_b", "pet_d", "pet_infrequent_sklearn"}},
        {"OneHotEncoder: {min_frequency: 0.25}", {"pet_b", "pet_infrequent_sklearn"}},
        {"OneHotEncoder: {min_frequency: 1}", {"pet_a", "pet_b", "pet_c", "pet_d", "pet_nan"}},
        /* a, c and the missing ones occur twice each: the first of them become infrequent */
        {"OneHotEncoder: {max_categories: 4}",
         {"pet_b", "pet_d", "pet_nan", "pet_infrequent_sklearn"}},
        {"OneHotEncoder: {max_categories: 5}",
         {"pet_b", "pet_c", "pet_d", "pet_nan", "pet_infrequent_sklearn"}},
        {"OneHotEncoder: {max_categories: 6}", {"pet_a", "pet_b", "pet_c", "pet_d", "pet_nan"}},
        {"OneHotEncoder: {max_categories: 1}", {"pet_infrequent_sklearn"}},
        {"OneHotEncoder: {min_frequency: 3, drop: first}", {"pet_d", "pet_infrequent_sklearn"}},
        {"OneHotEncoder: {min_frequency: 0.25, drop: if_binary}", {"pet_infrequent_sklearn"}},
    };
    double cells[16];
    struct matrix m = {&pet, pets(cells, (const size_t[]){2, 7, 2, 3, 2}), cells};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fitted f;
        const char *names[7] = {NULL};
        memcpy(names, cases[i].names, sizeof cases[i].names);
        assert_int_equal(op_fit(&f, cases[i].op, &m, NULL), 0);
        assert_names(&f.out, names);
        op_free(&f);
    }
}

static void what_was_never_seen_counts_as_infrequent_where_there_is_such_a_column(void **state) {
    double cells[16], out[9];
    const double unseen[] = {3, 1, 0};
    struct matrix m = {&pet, pets(cells, (const size_t[]){1, 7, 2, 0, 0}), cells},
                  other = {&pet, 3, unseen};
    struct fitted f;
    (void)state;
    assert_int_equal(
        op_fit(&f, "OneHotEncoder: {min_frequency: 2, handle_unknown: infrequent_if_exist}", &m,
               NULL),
        0);
    assert_int_equal(op_apply(&f, &other, out).n_bad, 0);
    assert_cells(out, (const double[]){0, 0, 1, 1, 0, 0, 0, 0, 1}, 9);
    op_free(&f);
    assert_int_equal(op_fit(&f, "OneHotEncoder: {handle_unknown: infrequent_if_exist}", &m, NULL),
                     0);
    op_apply(&f, &other, out);
    assert_cells(out, (const double[]){0, 0, 0, 0, 1, 0, 1, 0, 0}, 9);
    op_free(&f);
    assert_int_equal(op_fit(&f, "OneHotEncoder: {min_frequency: 2}", &m, NULL), 0);
    const struct sm_row_faults faults = op_apply(&f, &other, out);
    assert_true(faults.n_bad == 1 && faults.bad[0]);
    op_free(&f);
}

static void an_ordinals_missing_cells_are_never_infrequent_and_its_values_are_free(void **state) {
    double cells[16], out[16];
    struct matrix m = {&pet, pets(cells, (const size_t[]){2, 3, 2, 3, 1}), cells};
    struct fitted f;
    (void)state;
    assert_int_equal(
        op_fit(&f, "OrdinalEncoder: {min_frequency: 3, encoded_missing_value: -9}", &m, NULL), 0);
    op_apply(&f, &m, out);
    assert_cells(out, (const double[]){2, 2, 0, 0, 0, 2, 2, 1, 1, 1, -9}, 11);
    op_free(&f);
    assert_int_equal(op_fit(&f, "OrdinalEncoder: {max_categories: 3}", &m, NULL), 0);
    op_apply(&f, &m, out);
    assert_cells(out, (const double[]){2, 2, 0, 0, 0, 2, 2, 1, 1, 1, NAN}, 11);
    op_free(&f);
    assert_int_equal(op_fit(&f, "OrdinalEncoder: {encoded_missing_value: 3}", &m, NULL), -1);
    assert_non_null(strstr(f.err.text, "'encoded_missing_value' 3 is the number of category 'd'"));
    op_free(&f);
    assert_int_equal(op_fit(&f,
                            "OrdinalEncoder: {handle_unknown: use_encoded_value, unknown_value: 0}",
                            &m, NULL),
                     -1);
    assert_non_null(strstr(f.err.text, "of column 'pet'"));
    op_free(&f);
}

/* --- mixed tables ----------------------------------------------------------------------------- */

static void the_most_frequent_category_fills_and_numbers_are_left_alone(void **state) {
    (void)state;
    struct fitted f;
    double out[12];
    const double holed[] = {NAN, NAN, 1, 20, 0, 2, 30, 1, NAN, 40, 0, 2};
    struct matrix m = {&mixed, 4, holed};
    assert_int_equal(op_fit(&f, "SimpleImputer: {strategy: most_frequent}", &m, NULL), 0);
    op_apply(&f, &m, out);
    assert_cells(out, (const double[]){NAN, 0, 1, 20, 0, 2, 30, 1, 2, 40, 0, 2}, 12);
    op_free(&f);
}

static void a_constant_that_is_no_category_becomes_one_and_the_others_move_up(void **state) {
    (void)state;
    struct fitted f;
    double out[12];
    const double holed[] = {-0.0, NAN, 1, 20, 3, 2, NAN, 1, NAN, 40, 0, 3};
    struct matrix m = {&mixed, 4, holed};
    assert_int_equal(
        op_fit(&f, "SimpleImputer: {strategy: constant, fill_value: bb, columns: [pet]}", &m, NULL),
        0);
    op_apply(&f, &m, out);
    assert_cells(out, (const double[]){0, 2, 1, 20, 4, 2, NAN, 1, NAN, 40, 0, 3}, 12);
    assert_true(signbit(out[0])); /* numbers are not touched */
    assert_int_equal(f.out.columns[1].n_categories, 5);
    for (size_t i = 0; i < 5; i++)
        assert_string_equal(f.out.columns[1].categories[i],
                            ((const char *const[]){"a", "b", "bb", "c", "d"})[i]);
    assert_int_equal(f.out.columns[2].n_categories, 4);
    op_free(&f);
}

/* As the index sorts them: by value where all are numbers, of which 0x5 and inf are none. */
static void a_new_category_stands_where_the_index_would_put_it(void **state) {
    static const struct {
        const char *words[3];
        const char *fill, *want[4];
    } cases[] = {
        {{"1", "9", "10"}, "7", {"1", "7", "9", "10"}},
        {{"1", "9", "10"}, "1.0", {"1", "1.0", "9", "10"}},
        {{"0x5", "10", "9"}, "7", {"0x5", "10", "7", "9"}},
        {{"1", "9", "10"}, "0x5", {"0x5", "1", "9", "10"}},
        {{"10", "9", "inf"}, "7", {"10", "7", "9", "inf"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fitted f;
        char op[100];
        struct sm_column column = {"c", SM_COLUMN_CATEGORY, cases[i].words, 3};
        const struct sm_schema schema = {&column, 1, true};
        struct matrix m = {&schema, 1, (const double[]){0}};
        snprintf(op, sizeof op, "SimpleImputer: {strategy: constant, fill_value: \"%s\"}",
                 cases[i].fill);
        if (op_fit(&f, op, &m, NULL) != 0) fail_msg("%s: %s", op, f.err.text);
        assert_int_equal(f.out.columns[0].n_categories, 4);
        for (size_t k = 0; k < 4; k++)
            assert_string_equal(f.out.columns[0].categories[k], cases[i].want[k]);
        op_free(&f);
    }
}

static void scalers_pass_categories_by(void **state) {
    static const char *const ops[] = {"StandardScaler", "MinMaxScaler", "RobustScaler"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fitted f;
        double out[12];
        struct matrix m = {&mixed, 4, training};
        assert_int_equal(op_fit(&f, ops[i], &m, NULL), 0);
        op_apply(&f, &m, out);
        for (size_t k = 0; k < 12; k++)
            assert_true(k % 3 == 0 ? out[k] != training[k] : out[k] == training[k]);
        op_free(&f);
    }
}

static void an_imputer_of_numbers_says_how_categories_are_filled(void **state) {
    static const char *const ops[] = {"SimpleImputer: {columns: [pet]}",
                                      "SimpleImputer: {strategy: constant, fill_value: 0, columns: "
                                      "[age, pet]}"};
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct fitted f;
        struct matrix m = {&mixed, 4, training};
        assert_int_equal(op_fit(&f, ops[i], &m, NULL), -1);
        assert_non_null(strstr(f.err.text, "'pet' holds categories"));
        assert_non_null(strstr(f.err.text, "most_frequent"));
        op_free(&f);
    }
    struct fitted f;
    struct matrix m = {&mixed, 4, training};
    assert_int_equal(
        op_fit(&f, "SimpleImputer: {strategy: constant, fill_value: \"0\", columns: [pet]}", &m,
               NULL),
        0);
    op_free(&f);
}

static void an_op_for_numbers_refuses_a_column_of_categories_by_its_name(void **state) {
    static const char *const ops[] = {"StandardScaler: {columns: [pet]}", "PCA: {columns: [pet]}",
                                      "KMeans: {columns: [pet]}", "OneHotEncoder: {columns: [age]}",
                                      "OrdinalEncoder: {columns: [age]}"};
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct fitted f;
        struct matrix m = {&mixed, 4, training};
        assert_int_equal(op_fit(&f, ops[i], &m, NULL), -1);
        assert_int_equal(f.err.code, SM_E_PIPELINE);
        assert_non_null(strstr(f.err.text, i < 3 ? "'pet' holds categories" : "'age' holds numb"));
        op_free(&f);
    }
}

static void clusters_and_components_come_first_and_the_others_behind_them(void **state) {
    (void)state;
    struct fitted f;
    double out[20];
    struct matrix m = {&mixed, 4, training};
    assert_int_equal(op_fit(&f, "KMeans: {n_clusters: 2}", &m, NULL), 0);
    assert_names(&f.out, (const char *[]){"kmeans", "pet", "sex", NULL});
    assert_int_equal(f.out.columns[0].kind, SM_COLUMN_CATEGORY);
    assert_int_equal(f.out.columns[0].n_categories, 2);
    op_apply(&f, &m, out);
    for (size_t i = 0; i < 4; i++) { /* 10 and 20, 30 and 40 */
        assert_true(out[i * 3] == (i < 2 ? out[0] : 1 - out[0]));
        assert_cells(out + i * 3 + 1, training + i * 3 + 1, 2);
    }
    op_free(&f);
    assert_int_equal(op_fit(&f, "KMeans: {n_clusters: 2, output: distances}", &m, NULL), 0);
    assert_names(&f.out, (const char *[]){"kmeans0", "kmeans1", "pet", "sex", NULL});
    op_apply(&f, &m, out);
    assert_cells(out, out[0] < 10 ? (const double[]){5, 25, 3, 1} : (const double[]){25, 5, 3, 1},
                 4);
    op_free(&f);
    assert_int_equal(op_fit(&f, "PCA: {n_components: 1}", &m, NULL), 0);
    assert_names(&f.out, (const char *[]){"pca0", "pet", "sex", NULL});
    op_apply(&f, &m, out);
    assert_cells(out, (const double[]){-15, 3, 1, -5, 0, 2, 5, 1, 1, 15, 0, 2}, 12);
    op_free(&f);
}

static void pca_keeps_as_many_components_as_it_was_asked_for(void **state) {
    (void)state;
    enum { N = 40, COLUMNS = 7 };
    double cells[N * COLUMNS];
    struct sm_column columns[COLUMNS];
    struct sm_rng rng = sm_rng_op(1, 0, 0, 0, 7);
    for (size_t i = 0; i < N * COLUMNS; i++)
        cells[i] = sm_rng_double(&rng);
    for (size_t k = 0; k < COLUMNS; k++)
        columns[k] = (struct sm_column){.name = "abcdefg" + k};
    const struct sm_schema schema = {columns, COLUMNS, true};
    struct matrix m = {&schema, N, cells};
    static const struct {
        const char *op;
        size_t n;
    } asked[] = {{"PCA: {svd_solver: randomized, n_oversamples: 3}", 7},
                 {"PCA: {svd_solver: randomized, n_oversamples: 3, n_components: 2}", 2},
                 {"PCA: {n_components: 1}", 1},
                 {"PCA", 7}};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        struct fitted f;
        if (op_fit(&f, asked[i].op, &m, NULL) != 0) fail_msg("%s", f.err.text);
        assert_int_equal(f.out.n, asked[i].n);
        op_free(&f);
    }
    static const char *const wrong[] = {"n_components: 1.0", "n_components: 3.0",
                                        "n_components: 0.5, svd_solver: randomized"};
    for (size_t i = 0; i < 3; i++) {
        char text[200];
        struct sm_pipeline p;
        struct sm_err err = {0};
        int n =
            snprintf(text, sizeof text,
                     "version: 1\nsource: {format: npy, path: x}\nops:\n  - PCA: {%s}\n", wrong[i]);
        assert_int_equal(sm_pipeline_parse(&p, "test", text, (size_t)n, sm_op_table(), &err), -1);
        assert_non_null(strstr(err.text, "n_components"));
        sm_pipeline_release(&p);
    }
}

static void labels_of_many_clusters_are_sorted_as_their_numbers(void **state) {
    (void)state;
    struct fitted f;
    double cells[36];
    for (size_t i = 0; i < 12; i++) {
        cells[i * 3] = (double)i * 100;
        cells[i * 3 + 1] = cells[i * 3 + 2] = 0;
    }
    struct matrix m = {&mixed, 12, cells};
    assert_int_equal(op_fit(&f, "KMeans: {n_clusters: 12}", &m, NULL), 0);
    const struct sm_column *label = &f.out.columns[0];
    assert_string_equal(label->categories[2], "02");
    for (uint32_t j = 1; j < label->n_categories; j++)
        assert_true(strcmp(label->categories[j - 1], label->categories[j]) < 0);
    op_free(&f);
}

static void a_row_that_lacks_a_number_is_a_fault_and_its_neighbours_are_not(void **state) {
    static const char *const ops[] = {"PCA: {n_components: 1}", "KMeans: {n_clusters: 2}",
                                      "KMeans: {n_clusters: 2, output: distances}"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct fitted f;
        double out[20], sound[20];
        double holed[12];
        memcpy(holed, training, sizeof holed);
        holed[3] = i == 0 ? NAN : INFINITY;
        struct matrix m = {&mixed, 4, training}, other = {&mixed, 4, holed};
        assert_int_equal(op_fit(&f, ops[i], &m, NULL), 0);
        op_apply(&f, &m, sound);
        const struct sm_row_faults faults = op_apply(&f, &other, out);
        assert_int_equal(faults.n_bad, 1);
        assert_true(faults.bad[1]);
        assert_string_equal(faults.text, "column 'age' is missing or infinite");
        assert_cells(out, sound, f.out.n);
        assert_cells(out + 2 * f.out.n, sound + 2 * f.out.n, 2 * f.out.n);
        op_free(&f);
    }
}

static void numbers_too_large_to_learn_from_are_refused_by_their_column(void **state) {
    static const char *const ops[] = {
        "StandardScaler",
        "MinMaxScaler",
        "RobustScaler",
        "SimpleImputer",
        "PCA: {n_components: 1}",
        "PCA: {n_components: 1, svd_solver: randomized}",
        "KMeans: {n_clusters: 2}",
    };
    double cells[32];
    struct sm_column columns[] = {{.name = "low"}, {.name = "high"}};
    const struct sm_schema schema = {columns, 2, true};
    struct matrix m = {&schema, 16, cells};
    (void)state;
    for (size_t i = 0; i < 16; i++) {
        cells[2 * i] = (double)i;
        cells[2 * i + 1] = i % 2 ? 1.7e308 : -1.7e308;
    }
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct fitted f;
        const bool mean = strncmp(ops[i], "Simple", 6) == 0;
        for (size_t k = 0; mean && k < 16; k++)
            cells[2 * k + 1] = 1.7e308;
        if (op_fit(&f, ops[i], &m, NULL) == 0) fail_msg("%s learns of overflows", ops[i]);
        assert_int_equal(f.err.code, SM_E_DATASET);
        if (strstr(f.err.text, "column 'high' has numbers too large") == NULL)
            fail_msg("%s: %s", ops[i], f.err.text);
        op_free(&f);
        for (size_t k = 0; k < 16; k++)
            cells[2 * k + 1] = k % 2 ? 1.7e308 : -1.7e308;
    }
}

static void a_row_whose_products_overflow_is_a_fault(void **state) {
    static const char *const ops[] = {"PCA", "KMeans: {n_clusters: 2}",
                                      "KMeans: {n_clusters: 2, output: distances}"};
    const double small[] = {1, 2, 3, 1, -2, 4}, large[] = {1, 2, 1e100, -1e100, 1.7e308, -1.7e308};
    struct sm_column columns[] = {{.name = "a"}, {.name = "b"}};
    const struct sm_schema schema = {columns, 2, true};
    struct matrix m = {&schema, 3, small}, other = {&schema, 3, large};
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct fitted f;
        double out[6];
        if (op_fit(&f, ops[i], &m, NULL) != 0) fail_msg("%s", f.err.text);
        const struct sm_row_faults faults = op_apply(&f, &other, out);
        assert_false(faults.bad[0]);
        assert_true(faults.bad[2]);
        assert_non_null(strstr(faults.text, "too large"));
        op_free(&f);
    }
}

static void what_was_learned_of_other_columns_is_refused(void **state) {
    static const char *const ops[] = {
        "StandardScaler", "MinMaxScaler",   "RobustScaler",           "SimpleImputer",
        "OneHotEncoder",  "OrdinalEncoder", "PCA: {n_components: 1}", "KMeans: {n_clusters: 2}"};
    (void)state;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct fitted f;
        struct sm_column more[5];
        memcpy(more, mixed_columns, sizeof mixed_columns);
        more[3] = more[0];
        more[4] = more[1];
        more[3].name = "height";
        more[4].name = "house";
        const struct sm_schema wider = {more, 5, true};
        struct matrix m = {&mixed, 4, training};
        struct sm_schema out;
        struct sm_rows in, to;
        uint8_t bad[4] = {0};
        struct sm_row_faults faults = {.bad = bad};
        if (op_fit(&f, ops[i], &m, NULL) != 0) fail_msg("%s: %s", ops[i], f.err.text);
        assert_int_equal(sm_rows_alloc(&in, 4, 5, true, &f.err), 0);
        assert_int_equal(sm_rows_alloc(&to, 4, 20, true, &f.err), 0);
        memset(in.data, 0, 4 * 5 * sizeof(double));
        int refused = f.op->schema(f.params, &f.learned, &wider, &out, &f.arena, &f.err) != 0;
        if (!refused && f.op->prepare != NULL) {
            f.learned.release(f.learned.prepared);
            refused = f.op->prepare(f.params, &f.learned, &wider, &f.err) != 0;
        }
        if (!refused) {
            to.columns = out.n;
            refused = f.op->apply(f.params, &f.learned, &wider, &in, &to, &faults, &f.err) != 0;
        }
        if (!refused) fail_msg("%s takes what it learned of other columns", ops[i]);
        assert_int_equal(f.err.code, SM_E_DIFFERS);
        sm_rows_free(&in);
        sm_rows_free(&to);
        op_free(&f);
    }
}

/* --- damaged artifacts ------------------------------------------------------------------------ */

static uint64_t array_cells(const struct sm_array *a) {
    return a->shape[0] * (a->ndim == 2 ? a->shape[1] : 1);
}

/* What was learned, in memory of its own, of which every byte can be changed and none behind it
 * read unseen. */
static struct sm_artifact learned_copy(const struct sm_artifact *a) {
    struct sm_artifact copy = {.n = a->n};
    for (size_t i = 0; i < a->n; i++) {
        const size_t bytes = (size_t)array_cells(&a->arrays[i]) * sm_array_bytes(a->arrays[i].type);
        void *data = malloc(bytes);
        assert_non_null(data);
        memcpy(data, a->arrays[i].data, bytes);
        copy.arrays[i] = a->arrays[i];
        copy.arrays[i].data = data;
    }
    return copy;
}

static void learned_copy_free(struct sm_artifact *a) {
    for (size_t i = 0; i < a->n; i++)
        free((void *)(uintptr_t)a->arrays[i].data);
    sm_artifact_close(a);
}

/* Every cell of a sound row is one that its column can have. */
static void assert_rows_sound(const char *op, const struct sm_schema *s, const struct sm_rows *rows,
                              const uint8_t *bad) {
    for (size_t i = 0; i < rows->n; i++)
        for (size_t k = 0; k < s->n && !bad[i]; k++) {
            const double x = sm_rows_cell(rows, i, k);
            if (s->columns[k].kind == SM_COLUMN_CATEGORY && !isnan(x) &&
                !(x >= 0 && x < s->columns[k].n_categories))
                fail_msg("%s: '%s' is category %g", op, s->columns[k].name, x);
        }
}

/* As features.c does it: the schema, what is prepared, the rows. Whether the op took it. */
static bool learned_use(struct fitted *f, const char *op, struct sm_artifact *learned,
                        const struct matrix *m) {
    struct sm_arena arena;
    struct sm_schema out = {0};
    struct sm_rows in = {0}, to = {0};
    uint8_t bad[ROWS_MAX] = {0};
    struct sm_row_faults faults = {.bad = bad};
    sm_arena_init(&arena, (size_t)1 << 28);
    f->err = (struct sm_err){0};
    bool taken =
        f->op->schema(f->params, learned, m->schema, &out, &arena, &f->err) == 0 &&
        (f->op->prepare == NULL || f->op->prepare(f->params, learned, m->schema, &f->err) == 0);
    if (taken) {
        assert_int_equal(sm_rows_alloc(&in, m->n, m->schema->n, m->schema->is_double, &f->err), 0);
        assert_int_equal(sm_rows_alloc(&to, m->n, out.n, m->schema->is_double, &f->err), 0);
        matrix_read((void *)(uintptr_t)m, 0, &in, &f->err);
        taken = f->op->apply(f->params, learned, m->schema, &in, &to, &faults, &f->err) == 0;
        if (taken) assert_rows_sound(op, &out, &to, bad);
    }
    if (!taken && f->err.code != SM_E_DIFFERS) fail_msg("%s: %s", op, f->err.text);
    sm_rows_free(&in);
    sm_rows_free(&to);
    sm_arena_release(&arena);
    return taken;
}

static const double wrong_numbers[] = {NAN, INFINITY, -INFINITY, 0,   -1,    0.5,    1,
                                       2,   3,        4,         1e9, 1e308, -1e308, 5e-324};
static const int64_t wrong_codes[] = {-2, -1, 0, 1, 2, 3, 4, 5, 1e9, INT64_MIN, INT64_MAX};
static const uint8_t wrong_marks[] = {0, 1, 255};

static size_t wrong_of(int type, const void **values) {
    *values = type == SM_ARRAY_F64   ? (const void *)wrong_numbers
              : type == SM_ARRAY_I64 ? (const void *)wrong_codes
                                     : (const void *)wrong_marks;
    return type == SM_ARRAY_F64   ? sizeof wrong_numbers / sizeof *wrong_numbers
           : type == SM_ARRAY_I64 ? sizeof wrong_codes / sizeof *wrong_codes
                                  : sizeof wrong_marks / sizeof *wrong_marks;
}

static const char *const learning_ops[] = {
    "StandardScaler",
    "StandardScaler: {with_mean: false, columns: [age]}",
    "MinMaxScaler",
    "MinMaxScaler: {clip: true}",
    "RobustScaler",
    "SimpleImputer: {add_indicator: true}",
    "SimpleImputer: {strategy: median}",
    "SimpleImputer: {strategy: most_frequent, columns: [age, pet]}",
    "SimpleImputer: {strategy: constant, fill_value: bb}",
    "OneHotEncoder",
    "OneHotEncoder: {drop: first, handle_unknown: ignore}",
    "OneHotEncoder: {max_categories: 2, handle_unknown: infrequent_if_exist}",
    "OrdinalEncoder",
    "OrdinalEncoder: {min_frequency: 2}",
    "PCA: {n_components: 1, columns: [age], whiten: true}",
    "KMeans: {n_clusters: 2, columns: [age]}",
    "KMeans: {n_clusters: 2, columns: [age], output: distances}",
};

/* Any one value of any array, and any array missing, cut off, longer or of another type. */
static void
whatever_stands_in_an_artifact_nothing_outside_is_read_and_no_category_made_up(void **state) {
    static const double holed[] = {NAN, NAN, 1, 20, 3, 2, 30, 1, NAN, 1e30, 0, 3};
    (void)state;
    for (size_t i = 0; i < 2 * sizeof learning_ops / sizeof *learning_ops; i++) {
        const char *op = learning_ops[i / 2];
        struct sm_schema schema = mixed;
        schema.is_double = i % 2 == 0;
        struct matrix m = {&schema, 4, training}, probe = {&schema, 4, holed};
        struct fitted f;
        if (op_fit(&f, op, &m, NULL) != 0) fail_msg("%s: %s", op, f.err.text);
        struct sm_artifact sound = learned_copy(&f.learned);
        if (!learned_use(&f, op, &sound, &probe)) fail_msg("%s: %s", op, f.err.text);
        learned_copy_free(&sound);
        for (size_t k = 0; k < f.learned.n; k++) {
            const struct sm_array *array = &f.learned.arrays[k];
            const size_t size = sm_array_bytes(array->type);
            const void *values;
            const size_t n = wrong_of(array->type, &values);
            for (size_t j = 0; j < n * array_cells(array); j++) {
                struct sm_artifact wrong = learned_copy(&f.learned);
                memcpy((uint8_t *)(uintptr_t)wrong.arrays[k].data + j / n * size,
                       (const uint8_t *)values + j % n * size, size);
                learned_use(&f, op, &wrong, &probe);
                learned_copy_free(&wrong);
            }
            for (int how = 0; how < 5; how++) {
                struct sm_artifact wrong = learned_copy(&f.learned);
                struct sm_array *of = &wrong.arrays[k];
                if (how == 0) of->name[0] = '-';
                if (how == 1) of->shape[0]--;
                if (how == 2) of->ndim = 3 - of->ndim; /* shape[1] of one axis is 0 */
                if (how == 3) of->type = of->type == SM_ARRAY_U8 ? SM_ARRAY_F32 : SM_ARRAY_U8;
                if (how == 4) of->shape[0] = of->shape[1] = 0;
                learned_use(&f, op, &wrong, &probe);
                learned_copy_free(&wrong);
            }
        }
        op_free(&f);
    }
}

static void what_makes_no_sense_is_refused_before_a_row_is_read(void **state) {
    static const struct {
        const char *op, *array;
        size_t at;
        double value;
    } wrong[] = {
        {"StandardScaler", "scale_", 0, 0},
        {"StandardScaler", "mean_", 0, NAN},
        {"StandardScaler", "scale_", 1, 2}, /* of a column of categories */
        {"MinMaxScaler", "min_", 2, 1},
        {"MinMaxScaler", "scale_", 0, INFINITY},
        {"RobustScaler", "scale_", 0, 0},
        {"SimpleImputer", "statistics_", 0, NAN},
        {"SimpleImputer: {strategy: most_frequent}", "statistics_", 1, 1e9},
        {"SimpleImputer: {strategy: most_frequent}", "statistics_", 1, 4},
        {"SimpleImputer: {strategy: most_frequent}", "statistics_", 1, -1},
        {"SimpleImputer: {strategy: most_frequent}", "statistics_", 0, 7},
        {"SimpleImputer: {strategy: constant, fill_value: bb}", "statistics_", 1, 5},
        {"OneHotEncoder", "codes_", 0, 1e9},
        {"OneHotEncoder", "codes_", 0, 1}, /* two of one number */
        {"OneHotEncoder", "codes_", 0, -2},
        {"OneHotEncoder: {max_categories: 2}", "infrequent_", 0, 1},
        {"OrdinalEncoder", "codes_", 0, 7},
        {"PCA: {n_components: 1, columns: [age]}", "components_", 0, NAN},
        {"PCA: {n_components: 1, columns: [age]}", "mean_", 0, INFINITY},
        {"KMeans: {n_clusters: 2, columns: [age]}", "cluster_centers_", 1, NAN},
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct matrix m = {&mixed, 4, training};
        struct fitted f;
        if (op_fit(&f, wrong[i].op, &m, NULL) != 0) fail_msg("%s: %s", wrong[i].op, f.err.text);
        struct sm_artifact learned = learned_copy(&f.learned);
        const struct sm_array *array = sm_artifact_find(&learned, wrong[i].array);
        assert_non_null(array);
        void *data = (void *)(uintptr_t)array->data;
        if (array->type == SM_ARRAY_F64)
            ((double *)data)[wrong[i].at] = wrong[i].value;
        else if (array->type == SM_ARRAY_I64)
            ((int64_t *)data)[wrong[i].at] = (int64_t)wrong[i].value;
        else
            ((uint8_t *)data)[wrong[i].at] = (uint8_t)wrong[i].value;
        if (learned_use(&f, wrong[i].op, &learned, &m))
            fail_msg("%s takes a '%s' of %g", wrong[i].op, wrong[i].array, wrong[i].value);
        learned_copy_free(&learned);
        op_free(&f);
    }
}

/* --- many columns ----------------------------------------------------------------------------- */

/* All columns by name, from the last to the first. Looking for each name among all columns for each
 * column would take minutes. */
static void hundreds_of_named_columns_are_found_at_once(void **state) {
    static const char *const ops[] = {"SimpleImputer: {strategy: most_frequent", "SelectColumns: {",
                                      "DropColumns: {", "StandardScaler: {"};
    enum { COLUMNS = 600 };
    static struct sm_column columns[COLUMNS + 1];
    static char names[COLUMNS + 1][NAME], text[COLUMNS * 8 + 256];
    static double cells[2 * (COLUMNS + 1)], out[2 * (COLUMNS + 1)];
    const struct sm_schema schema = schema_make(columns, COLUMNS + 1, 0, true, names);
    struct matrix m = {&schema, 2, cells};
    (void)state;
    for (size_t i = 0; i < 2 * (COLUMNS + 1); i++)
        cells[i] = (double)(i % (COLUMNS + 1));
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct fitted f;
        int n = sprintf(text, "%s%scolumns: [", ops[i], i == 0 ? ", " : "");
        for (size_t k = COLUMNS; k-- > 0;)
            n += sprintf(text + n, "x%zu%s", k, k > 0 ? ", " : "]}");
        const clock_t start = clock();
        if (op_fit(&f, text, &m, NULL) != 0) fail_msg("%s: %s", ops[i], f.err.text);
        op_apply(&f, &m, out);
        assert_true(clock() - start < 10 * CLOCKS_PER_SEC);
        assert_int_equal(f.out.n, i == 1 ? COLUMNS : i == 2 ? 1 : COLUMNS + 1);
        assert_true(out[0] == (i == 1 ? COLUMNS - 1 : i == 2 ? COLUMNS : 0));
        op_free(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_learned_does_not_depend_on_who_maps),
        cmocka_unit_test(an_empty_cluster_takes_the_farthest_row_of_all_ranges),
        cmocka_unit_test(categories_become_columns_behind_the_numbers),
        cmocka_unit_test(the_first_category_is_dropped_of_each_or_of_two),
        cmocka_unit_test(a_category_that_training_had_not_is_a_fault_that_names_it_or_nothing),
        cmocka_unit_test(a_missing_category_is_one_of_its_own_where_training_had_it),
        cmocka_unit_test(ordinals_count_what_occurs_and_unknown_and_missing_have_their_values),
        cmocka_unit_test(infrequent_categories_share_a_column_and_ties_go_to_the_first),
        cmocka_unit_test(what_was_never_seen_counts_as_infrequent_where_there_is_such_a_column),
        cmocka_unit_test(an_ordinals_missing_cells_are_never_infrequent_and_its_values_are_free),
        cmocka_unit_test(the_most_frequent_category_fills_and_numbers_are_left_alone),
        cmocka_unit_test(a_constant_that_is_no_category_becomes_one_and_the_others_move_up),
        cmocka_unit_test(a_new_category_stands_where_the_index_would_put_it),
        cmocka_unit_test(scalers_pass_categories_by),
        cmocka_unit_test(an_imputer_of_numbers_says_how_categories_are_filled),
        cmocka_unit_test(an_op_for_numbers_refuses_a_column_of_categories_by_its_name),
        cmocka_unit_test(clusters_and_components_come_first_and_the_others_behind_them),
        cmocka_unit_test(pca_keeps_as_many_components_as_it_was_asked_for),
        cmocka_unit_test(labels_of_many_clusters_are_sorted_as_their_numbers),
        cmocka_unit_test(a_row_that_lacks_a_number_is_a_fault_and_its_neighbours_are_not),
        cmocka_unit_test(numbers_too_large_to_learn_from_are_refused_by_their_column),
        cmocka_unit_test(a_row_whose_products_overflow_is_a_fault),
        cmocka_unit_test(what_was_learned_of_other_columns_is_refused),
        cmocka_unit_test(
            whatever_stands_in_an_artifact_nothing_outside_is_read_and_no_category_made_up),
        cmocka_unit_test(what_makes_no_sense_is_refused_before_a_row_is_read),
        cmocka_unit_test(hundreds_of_named_columns_are_found_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
