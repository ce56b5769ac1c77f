/* What the two encoders of categories share: which categories occur among the training rows. A
 * missing cell counts as a category of its own, the last one, as scikit-learn's nan. Only they
 * include it. */
#pragma once

#include "workers/ops/columns.h"

/* Cells of a column's table: one for each category of the schema, one for "missing". */
static inline size_t categories_cells(const struct sm_schema *in, size_t column) {
    return in->columns[column].kind == SM_COLUMN_CATEGORY ? in->columns[column].n_categories + 1u
                                                          : 0;
}

static inline size_t categories_all(const struct sm_schema *in) {
    size_t n = 0;
    for (size_t k = 0; k < in->n; k++)
        n += categories_cells(in, k);
    return n;
}

/* The cell of a value in its column's table; -1 for what is no category. */
static inline long categories_cell(const struct sm_column *column, double x) {
    if (isnan(x)) return (long)column->n_categories;
    return x >= 0 && x < column->n_categories ? (long)x : -1;
}

static inline size_t categories_partial_bytes(const struct sm_fit_context *c,
                                              const struct sm_buf *state) {
    (void)state;
    return (categories_all(c->in) + 1) * sizeof(uint64_t);
}

static inline int categories_map(const struct sm_fit_context *c, const struct sm_buf *state,
                                 const struct sm_rows *block, uint64_t first, void *partial,
                                 struct sm_err *err) {
    uint64_t *counts = partial;
    (void)state, (void)first, (void)err;
    for (size_t k = 0; k < c->in->n; counts += categories_cells(c->in, k), k++) {
        if (c->in->columns[k].kind != SM_COLUMN_CATEGORY) continue;
        for (size_t i = 0; i < block->n; i++) {
            const long at = categories_cell(&c->in->columns[k], sm_rows_cell(block, i, k));
            if (at >= 0) counts[at]++;
        }
    }
    return 0;
}

static inline void categories_merge(const struct sm_fit_context *c, const struct sm_buf *state,
                                    void *into, const void *other) {
    (void)state;
    for (size_t i = 0; i < categories_all(c->in); i++)
        ((uint64_t *)into)[i] += ((const uint64_t *)other)[i];
}

/* Learns the array "codes_": for each cell of each column's table its number among those that
 * occur, or -1; and "counts_". */
static inline int categories_next(const struct sm_fit_context *c, struct sm_buf *state,
                                  const void *merged, bool *done, struct sm_artifact *a,
                                  struct sm_arena *arena, struct sm_err *err) {
    const uint64_t *counts = merged;
    const size_t n = categories_all(c->in);
    int64_t *codes = calloc(2 * n + 1, sizeof *codes), *seen = codes + n;
    (void)state;
    if (codes == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t k = 0, at = 0; k < c->in->n; k++)
        for (size_t i = 0, code = 0; i < categories_cells(c->in, k); i++, at++) {
            codes[at] = counts[at] > 0 ? (int64_t)code++ : -1;
            seen[at] = (int64_t)counts[at];
        }
    *done = true;
    int failed = learned_add(a, arena, "codes_", SM_ARRAY_I64, n, 0, codes, err);
    if (!failed) failed = learned_add(a, arena, "counts_", SM_ARRAY_I64, n, 0, seen, err);
    free(codes);
    return failed;
}

static inline const char *category_word(const struct sm_column *column, size_t at) {
    return at < column->n_categories ? column->categories[at] : "nan";
}

/* What is said of a row whose category did not occur among the training rows. */
static inline void category_fault(struct sm_row_faults *faults, size_t row,
                                  const struct sm_column *column, long at) {
    sm_row_fault(faults, row, "column '%.40s': category '%.40s' did not occur in training",
                 column->name, at >= 0 ? category_word(column, (size_t)at) : "?");
}
