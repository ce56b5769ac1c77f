/* What ops share that make new columns out of those they are given (KMeans, PCA): the places of
 * these columns, and the others, which come behind the result unchanged. Only such ops include it.
 */
#pragma once

#include "workers/ops/columns.h"

/* Places of the columns, rising. Release: free(at). */
struct picked {
    size_t n;
    size_t *at;
};

static inline int picked_make(const struct sm_schema *in, const struct sm_strs *names,
                              struct picked *picked, struct sm_err *err) {
    uint8_t *marks = calloc(in->n + 1, 1);
    *picked = (struct picked){.at = calloc(in->n + 1, sizeof *picked->at)};
    if (marks == NULL || picked->at == NULL) {
        free(marks);
        free(picked->at);
        sm_fail(err, SM_E_MEMORY, "out of memory");
        return -1;
    }
    columns_pick(in, names, SM_COLUMN_NUMBER, marks);
    for (size_t k = 0; k < in->n; k++)
        if (marks[k]) picked->at[picked->n++] = k;
    free(marks);
    return 0;
}

/* The other columns, in their order, to to[0…]. */
static inline void picked_rest_schema(const struct sm_schema *in, const struct picked *picked,
                                      struct sm_column *to) {
    for (size_t k = 0, next = 0; k < in->n; k++)
        if (next < picked->n && picked->at[next] == k)
            next++;
        else
            *to++ = in->columns[k];
}

/* Their cells, to out's columns from `at` on. */
static inline void picked_rest(const struct sm_rows *block, const struct picked *picked,
                               struct sm_rows *out, size_t at) {
    if (at == out->columns) return;
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0, next = 0, to = at; k < block->columns; k++)
            if (next < picked->n && picked->at[next] == k)
                next++;
            else
                sm_rows_put(out, i, to++, sm_rows_cell(block, i, k));
}

/* A row with a cell that is no finite number is bad. */
static inline void picked_faults(const struct sm_rows *block, const struct sm_schema *in,
                                 const struct picked *picked, struct sm_row_faults *faults) {
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < picked->n; k++)
            if (!isfinite(sm_rows_cell(block, i, picked->at[k]))) {
                sm_row_fault(faults, i, "column '%.60s' is missing or infinite",
                             in->columns[picked->at[k]].name);
                break;
            }
}

/* A row whose products overflow is bad: no number that came of them says anything. Looks at the
 * first n columns of what comes out. */
static inline void picked_overflows(const struct sm_rows *out, size_t n,
                                    struct sm_row_faults *faults) {
    for (size_t i = 0; i < out->n; i++)
        for (size_t k = 0; k < n; k++)
            if (!isfinite(sm_rows_cell(out, i, k))) {
                sm_row_fault(faults, i, "its numbers are too large to be multiplied");
                break;
            }
}
