/* What the two encoders of categories share: which categories occur among the training rows. A
 * missing cell counts as a category of its own, the last one, as scikit-learn's nan. Only they
 * include it. */
#pragma once

#include "workers/ops/columns.h"
#include "workers/table/infrequent.h"

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

/* Categories that are rare count as one, "infrequent", as scikit-learn's min_frequency (a number of
 * rows, or below 1 a share of them) and max_categories (with that one). null: no limit. */
struct grouping {
    struct sm_any min_frequency, max_categories;
};

#define GROUPING_PARAMS(owner)                                                                    \
    {.name = "min_frequency",                                                                     \
     .type = SM_T_ANY,                                                                            \
     .offset = offsetof(owner, grouping.min_frequency),                                           \
     .dflt = "null",                                                                              \
     .null_ok = true,                                                                             \
     .doc = "categories of fewer training rows count as one; below 1 it is a share of the rows"}, \
    {                                                                                             \
        .name = "max_categories", .type = SM_T_ANY,                                               \
        .offset = offsetof(owner, grouping.max_categories), .dflt = "null", .null_ok = true,      \
        .doc = "at most so many of each column; the rarest count as one"                          \
    }

static inline bool grouping_is_on(const struct grouping *g) {
    return g->min_frequency.kind != SM_ANY_NULL || g->max_categories.kind != SM_ANY_NULL;
}

static inline int grouping_check(const struct grouping *g, struct sm_err *err) {
    const struct sm_any *f = &g->min_frequency, *m = &g->max_categories;
    if (f->kind != SM_ANY_NULL && !(f->kind == SM_ANY_NUMBER && f->number > 0 &&
                                    (f->number < 1 || f->number == floor(f->number))))
        return sm_fail(err, SM_E_PIPELINE,
                       "'min_frequency' is a whole number of rows, or a share above 0 and below 1");
    if (m->kind != SM_ANY_NULL &&
        !(m->kind == SM_ANY_NUMBER && m->number >= 1 && m->number == floor(m->number)))
        return sm_fail(err, SM_E_PIPELINE, "'max_categories' is a whole number of at least 1");
    return 0;
}

/* Marks the rare ones of a column's n cells, of which those with a count of 0 do not occur. */
static inline int grouping_mark(const struct grouping *g, const uint64_t *counts, size_t n,
                                uint64_t rows, uint8_t *rare, struct sm_err *err) {
    const struct sm_infrequent rule = {
        .min_frequency = g->min_frequency.kind == SM_ANY_NUMBER ? g->min_frequency.number : 0,
        .max_categories = g->max_categories.kind == SM_ANY_NUMBER
                              ? (uint64_t)fmin(g->max_categories.number, (double)n + 1)
                              : 0};
    return sm_infrequent_mark(&rule, counts, n, rows, rare, err);
}

/* Learns the array "codes_": for each cell of each column's table its number among those that
 * occur, or -1; all rare ones have the number behind the others'. And "counts_"; and with grouping
 * "infrequent_", which of them are rare. missing: a missing cell may be rare too. */
static inline int categories_learn(const struct sm_fit_context *c, const struct grouping *g,
                                   bool missing, const void *merged, struct sm_artifact *a,
                                   struct sm_arena *arena, struct sm_err *err) {
    const uint64_t *counts = merged;
    const size_t n = categories_all(c->in);
    int64_t *codes = calloc(2 * n + 1, sizeof *codes), *seen = codes + n;
    uint8_t *rare = calloc(n + 1, 1);
    int failed = codes == NULL || rare == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    for (size_t k = 0, at = 0; !failed && k < c->in->n; k++) {
        const size_t cells = categories_cells(c->in, k);
        int64_t code = 0;
        if (cells > 0 && grouping_is_on(g))
            failed =
                grouping_mark(g, counts + at, missing ? cells : cells - 1, c->rows, rare + at, err);
        for (size_t i = at; i < at + cells; i++)
            codes[i] = counts[i] > 0 && !rare[i] ? code++ : -1;
        /* a missing cell that is not grouped stands behind the rare ones */
        if (cells > 0 && !missing && codes[at + cells - 1] >= 0) code--;
        for (size_t i = at; i < at + cells; i++) {
            if (rare[i]) codes[i] = code;
            seen[i] = (int64_t)counts[i];
        }
        at += cells;
    }
    if (!failed) failed = learned_add(a, arena, "codes_", SM_ARRAY_I64, n, 0, codes, err);
    if (!failed) failed = learned_add(a, arena, "counts_", SM_ARRAY_I64, n, 0, seen, err);
    if (!failed && grouping_is_on(g))
        failed = learned_add(a, arena, "infrequent_", SM_ARRAY_U8, n, 0, rare, err);
    free(codes);
    free(rare);
    return failed;
}

/* What was learned of all columns' cells. */
struct known {
    const int64_t *codes;
    const uint8_t *rare; /* NULL: none is */
};

static inline struct known known_find(const struct sm_artifact *learned,
                                      const struct sm_schema *in) {
    const size_t n = categories_all(in);
    return (struct known){learned_find(learned, "codes_", SM_ARRAY_I64, n),
                          learned_find(learned, "infrequent_", SM_ARRAY_U8, n)};
}

/* Whether it is what categories_learn writes: of each column's categories those that occur count
 * from 0 up, and the rare ones share the number behind. missing: as there. */
static inline bool known_is_sound(const struct known *known, const struct sm_schema *in,
                                  bool missing) {
    if (known->codes == NULL) return false;
    for (size_t k = 0, at = 0; k < in->n; at += categories_cells(in, k), k++) {
        const size_t cells = categories_cells(in, k), n = cells > 0 && !missing ? cells - 1 : cells;
        int64_t next = 0;
        for (size_t i = at; i < at + n; i++)
            if ((known->rare == NULL || !known->rare[i]) && known->codes[i] != -1 &&
                known->codes[i] != next++)
                return false;
        for (size_t i = at; known->rare != NULL && i < at + n; i++)
            if (known->rare[i] && known->codes[i] != next) return false;
    }
    return true;
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
