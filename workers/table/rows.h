/* Table rows as they flow through the row ops: a schema (columns) and a block of rows (a matrix).
 * Before: sources/ read a block out of the index, or a lease collects images as features. After:
 * row ops (workers/ops/op.h) turn block into block; the last one goes into a batch or a shard. */
#pragma once

#include "lib/arena.h"
#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sm_column_kind {
    SM_COLUMN_NUMBER,
    SM_COLUMN_CATEGORY, /* a cell holds the index into categories, as a number */
};

/* NaN is a missing cell, whatever the kind. */
struct sm_column {
    const char *name;
    int kind;                      /* enum sm_column_kind */
    const char *const *categories; /* sorted: by value when all are numbers, else as bytes */
    uint32_t n_categories;
};

struct sm_schema {
    struct sm_column *columns;
    size_t n;
    bool is_double; /* element type of the matrix: float64, else float32 */
};

/* n rows of schema.n elements each, C-contiguous; 64-byte aligned where we allocate. */
struct sm_rows {
    size_t n, columns;
    bool is_double;
    union {
        void *data;
        float *f32;
        double *f64;
    };
};

/* Rows that an op cannot take (an unseen category, NaN where none may be): the first fault of each
 * row counts. An op goes on with the other rows; what it writes for a bad row is not looked at. */
struct sm_row_faults {
    uint8_t *bad; /* one byte a row; 0: sound */
    size_t n_bad;
    size_t first; /* the first bad row, of which text speaks */
    char text[160];
};

static inline size_t sm_rows_element(const struct sm_rows *r) {
    return r->is_double ? sizeof(double) : sizeof(float);
}
/* A cell, whatever the element type. */
static inline double sm_rows_cell(const struct sm_rows *r, size_t row, size_t column) {
    const size_t at = row * r->columns + column;
    return r->is_double ? r->f64[at] : (double)r->f32[at];
}
static inline void sm_rows_put(struct sm_rows *r, size_t row, size_t column, double v) {
    const size_t at = row * r->columns + column;
    if (r->is_double)
        r->f64[at] = v;
    else
        r->f32[at] = (float)v;
}
/* Allocates data for n rows; release with sm_rows_free. SM_E_MEMORY, SM_E_TOO_LARGE. */
int sm_rows_alloc(struct sm_rows *r, size_t n, size_t columns, bool is_double, struct sm_err *err);
void sm_rows_free(struct sm_rows *r);
/* Notes a fault of a row; the text is kept for the first row only. */
void sm_row_fault(struct sm_row_faults *f, size_t row, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The column of this name or, when the text is a whole number, at this place; -1: none. */
long sm_schema_find(const struct sm_schema *s, const char *name);
/* The same for many names: a look at a few columns for each instead of all. Keeps s. Without memory
 * it is slower, not wrong. */
struct sm_schema_names {
    const struct sm_schema *schema;
    uint32_t *slots; /* open addressing: column + 1; owned */
    size_t n_slots;
};
struct sm_schema_names sm_schema_names_make(const struct sm_schema *s);
void sm_schema_names_release(struct sm_schema_names *n);
long sm_schema_names_find(const struct sm_schema_names *n, const char *name);
/* A name that two columns have; NULL: none. */
const char *sm_schema_twice(const struct sm_schema *s);
/* A copy whose names live in the arena. */
int sm_schema_copy(struct sm_schema *to, const struct sm_schema *from, struct sm_arena *arena,
                   struct sm_err *err);
