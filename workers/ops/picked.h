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

enum { SERIES_NAME = 40 };

/* The name of the j-th new column of a series, or of its only one (j < 0): pca0, pca1, …; of the
 * second op of the kind pca_2_0, pca_2_1, … */
static inline void series_name(const char *word, int series, long j, char name[SERIES_NAME]) {
    int n = snprintf(name, SERIES_NAME, "%s", word);
    if (series > 1) n += snprintf(name + n, (size_t)(SERIES_NAME - n), "_%d", series);
    if (j >= 0) snprintf(name + n, (size_t)(SERIES_NAME - n), series > 1 ? "_%ld" : "%ld", j);
}

/* The first series (from 1) of which none of the columns that stay has a name; n: new columns, 0:
 * one without a number. */
static inline int series_free(const struct sm_schema *in, const struct picked *picked,
                              const char *word, size_t n) {
    struct sm_schema_names by_name = sm_schema_names_make(in);
    char name[SERIES_NAME];
    int series = 0;
    for (bool taken = true; taken;) {
        series++;
        taken = false;
        for (size_t j = 0; j < (n > 0 ? n : 1) && !taken; j++) {
            series_name(word, series, n > 0 ? (long)j : -1, name);
            const long c = sm_schema_names_find(&by_name, name);
            taken = c >= 0;
            for (size_t i = 0; i < picked->n && taken; i++)
                taken = picked->at[i] != (size_t)c;
        }
    }
    sm_schema_names_release(&by_name);
    return series;
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
