/* What the pipeline file says about a CSV: how its fields are delimited, and what a cell means: a
 * number, a missing cell, or a word. Private to the sources. */
#pragma once

#include "pipelines/lang/pipeline.h"
#include "workers/sources/csv.h"
#include "workers/sources/number.h"

/* Opens a file with the source's delimiter and skip_initial_space. */
int sm_csv_open_as(struct sm_csv **gives, const char *path, const struct sm_pipeline_source *source,
                   struct sm_err *err);

enum sm_cell { SM_CELL_MISSING, SM_CELL_NUMBER, SM_CELL_OVERFLOW, SM_CELL_WORD };

/* How cells are read. */
struct sm_cells {
    const char *const *missing; /* words for missing cells */
    size_t n;
    bool starts[256]; /* bytes that such a word starts with */
    bool numbers;     /* some word is a number */
    char decimal;     /* before a fraction */
    bool plain;       /* what looks like a number is one, with a point */
};

/* The words of source.missing, when it is null those that pandas' read_csv takes for missing; and
 * source.decimal. */
void sm_cells_init(struct sm_cells *m, const struct sm_pipeline_source *source);
/* With another decimal than the point, which then is none. */
enum sm_number sm_cell_decimal(const struct sm_cells *m, const struct sm_csv_field *f, double *out);
/* Whatever words say. */
static inline enum sm_number sm_cell_parse(const struct sm_cells *m, const struct sm_csv_field *f,
                                           double *out) {
    return m->decimal == '.' ? sm_number_parse(f->s, f->n, out) : sm_cell_decimal(m, f, out);
}
/* Blanks around a cell do not count. An empty cell, quoted or not, is missing. */
bool sm_cell_is_missing(const struct sm_cells *m, const struct sm_csv_field *f);
/* SM_CELL_OVERFLOW: it has no finite double. */
static inline enum sm_cell sm_cell_number(const struct sm_cells *m, const struct sm_csv_field *f,
                                          double *out) {
    if (m->numbers && sm_cell_is_missing(m, f)) return SM_CELL_MISSING;
    enum sm_number n = sm_cell_parse(m, f, out);
    if (n == SM_NUMBER_FINITE) return SM_CELL_NUMBER;
    if (n == SM_NUMBER_INFINITE) return SM_CELL_OVERFLOW;
    return sm_cell_is_missing(m, f) ? SM_CELL_MISSING : SM_CELL_WORD;
}
