/* Ops on rows, block by block: the bytes of a row are the same alone, in a short block and anywhere
 * in a long one. Before: ops fitted on a table made here. After: nothing; blocks as workers cut
 * them are of any size. */
#include "lib/rng.h"
#include "workers/ops/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 203, COLUMNS = 37, OUT_MAX = 48 };

static struct sm_column columns[COLUMNS];
static double cells[ROWS * COLUMNS];

/* Some rows are equal or nearly, so that a label is a matter of a distance's last bits. */
static int table_make(void **state) {
    static char names[COLUMNS][8];
    (void)state;
    for (size_t k = 0; k < COLUMNS; k++) {
        snprintf(names[k], sizeof names[k], "x%zu", k);
        columns[k] = (struct sm_column){.name = names[k]};
    }
    for (size_t i = 0; i < ROWS; i++) {
        struct sm_rng rng = sm_rng_op(1, 0, i / 2, 0, 7);
        for (size_t k = 0; k < COLUMNS; k++)
            cells[i * COLUMNS + k] =
                (sm_rng_double(&rng) - 0.5) * (double)(1 + k) + (i % 2 ? 1e-7 * (double)k : 0);
    }
    return 0;
}

static void cells_copy(struct sm_rows *out, uint64_t first) {
    for (size_t i = 0; i < out->n * COLUMNS; i++)
        if (out->is_double)
            out->f64[i] = cells[first * COLUMNS + i];
        else
            out->f32[i] = (float)cells[first * COLUMNS + i];
}

static int table_read(void *context, uint64_t first, struct sm_rows *out, struct sm_err *err) {
    (void)context, (void)err;
    cells_copy(out, first);
    return 0;
}

/* One op of a pipeline, fitted on the table. */
struct fitted {
    struct sm_pipeline pipeline;
    struct sm_schema in, out;
    const struct sm_row_op *op;
    const void *params;
    struct sm_artifact learned;
    struct sm_arena arena;
    struct sm_err err;
};

static void op_fit(struct fitted *f, const char *op, bool is_double) {
    char text[512];
    memset(f, 0, sizeof *f);
    sm_arena_init(&f->arena, (size_t)1 << 28);
    f->in = (struct sm_schema){columns, COLUMNS, is_double};
    const int n =
        snprintf(text, sizeof text,
                 "version: 1\nseed: 5\nsource: {format: npy, path: x}\nops:\n  - %s\n", op);
    if (sm_pipeline_parse(&f->pipeline, "test", text, (size_t)n, sm_op_table(), &f->err) != 0)
        fail_msg("%s", f->err.text);
    f->op = sm_op_find(f->pipeline.ops[0].info->name)->rows;
    f->params = f->pipeline.ops[0].params;
    const struct sm_fit_context c = {f->params, &f->in, ROWS, 5};
    const struct sm_fit_rows rows = {table_read, NULL};
    if (sm_fit_run(f->op->fit, &c, &rows, NULL, &f->learned, &f->arena, &f->err) != 0 ||
        f->op->schema(f->params, &f->learned, &f->in, &f->out, &f->arena, &f->err) != 0 ||
        (f->op->prepare != NULL && f->op->prepare(f->params, &f->learned, &f->in, &f->err) != 0))
        fail_msg("%s: %s", op, f->err.text);
    assert_in_range(f->out.n, 1, OUT_MAX);
}

static void op_free(struct fitted *f) {
    sm_artifact_close(&f->learned);
    sm_pipeline_release(&f->pipeline);
    sm_arena_release(&f->arena);
}

/* Rows first … first + n - 1 as one block; out: their bytes. */
static void op_apply(struct fitted *f, size_t first, size_t n, uint8_t *out) {
    uint8_t bad[ROWS] = {0};
    struct sm_row_faults faults = {.bad = bad};
    struct sm_rows in, to;
    assert_int_equal(sm_rows_alloc(&in, n, COLUMNS, f->in.is_double, &f->err), 0);
    assert_int_equal(sm_rows_alloc(&to, n, f->out.n, f->in.is_double, &f->err), 0);
    cells_copy(&in, first);
    if (f->op->apply(f->params, &f->learned, &f->in, &in, &to, &faults, &f->err) != 0)
        fail_msg("%s", f->err.text);
    assert_int_equal(faults.n_bad, 0);
    memcpy(out, to.data, n * f->out.n * (f->in.is_double ? sizeof(double) : sizeof(float)));
    sm_rows_free(&in);
    sm_rows_free(&to);
}

static void blocks_compare(const char *op, bool is_double) {
    static const size_t sizes[] = {1, 2, 5, 6, 7, 16, 63, 64, 65, 97};
    static uint8_t whole[ROWS * OUT_MAX * sizeof(double)], part[sizeof whole];
    struct fitted f;
    op_fit(&f, op, is_double);
    const size_t row = f.out.n * (is_double ? sizeof(double) : sizeof(float));
    op_apply(&f, 0, ROWS, whole);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t first = 0; first < ROWS; first += sizes[i]) {
            const size_t n = ROWS - first < sizes[i] ? ROWS - first : sizes[i];
            op_apply(&f, first, n, part);
            if (memcmp(part, whole + first * row, n * row) != 0)
                fail_msg("%s, %s: rows from %zu on are others in a block of %zu", op,
                         is_double ? "float64" : "float32", first, n);
        }
    }
    op_free(&f);
}

static void labels_and_distances_do_not_depend_on_the_block(void **state) {
    (void)state;
    for (int is_double = 0; is_double < 2; is_double++) {
        blocks_compare("KMeans: {n_clusters: 23}", is_double);
        blocks_compare("KMeans: {n_clusters: 23, output: distances}", is_double);
        blocks_compare("KMeans: {n_clusters: 1, output: distances}", is_double);
    }
}

static void components_do_not_depend_on_the_block(void **state) {
    (void)state;
    for (int is_double = 0; is_double < 2; is_double++) {
        blocks_compare("PCA: {n_components: 19}", is_double);
        blocks_compare("PCA: {n_components: 17, whiten: true}", is_double);
        blocks_compare("PCA: {n_components: 3, svd_solver: randomized}", is_double);
    }
}

static void scaled_rows_do_not_depend_on_the_block(void **state) {
    (void)state;
    for (int is_double = 0; is_double < 2; is_double++)
        blocks_compare("StandardScaler", is_double);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_and_distances_do_not_depend_on_the_block),
        cmocka_unit_test(components_do_not_depend_on_the_block),
        cmocka_unit_test(scaled_rows_do_not_depend_on_the_block),
    };
    return cmocka_run_group_tests(tests, table_make, NULL);
}
