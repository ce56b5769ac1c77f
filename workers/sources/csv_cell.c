/* See csv_cell.h. csv_table.c asks this for every cell, so the common case, a number, comes first.
 */
#include "workers/sources/csv_cell.h"

#include "workers/sources/number.h"

#include <string.h>

enum { LONGEST = 1024 }; /* a number with another decimal than the point */

/* pandas 2's STR_NA_VALUES without the empty one. */
static const char *const pandas_words[] = {
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
    "<NA>", "N/A",      "NA",  "NULL",    "NaN",      "None", "n/a",  "nan",    "null",
};

int sm_csv_open_as(struct sm_csv **gives, const char *path, const struct sm_pipeline_source *source,
                   struct sm_err *err) {
    const char *d = source->delimiter;
    if (sm_csv_open(gives, path, d == NULL || *d == 0 ? ',' : *d, err) != 0) return -1;
    if (source->skip_initial_space) sm_csv_skip_initial_space(*gives);
    return 0;
}

void sm_cells_init(struct sm_cells *m, const struct sm_pipeline_source *source) {
    const char *d = source->decimal;
    *m = (struct sm_cells){.missing = source->missing.v, .n = source->missing.count};
    if (source->missing.v == NULL)
        *m = (struct sm_cells){.missing = pandas_words,
                               .n = sizeof pandas_words / sizeof *pandas_words};
    m->decimal = d == NULL || *d == 0 ? '.' : *d;
    for (size_t i = 0; i < m->n; i++) {
        const struct sm_csv_field word = {m->missing[i], strlen(m->missing[i])};
        double v;
        m->starts[(unsigned char)*word.s] = true;
        if (sm_cell_parse(m, &word, &v) != SM_NUMBER_NONE) m->numbers = true;
    }
    m->plain = m->decimal == '.' && !m->numbers;
}

enum sm_number sm_cell_decimal(const struct sm_cells *m, const struct sm_csv_field *f,
                               double *out) {
    char text[LONGEST];
    if (f->n > sizeof text || memchr(f->s, '.', f->n) != NULL) return SM_NUMBER_NONE;
    for (size_t i = 0; i < f->n; i++)
        text[i] = f->s[i] == m->decimal ? '.' : f->s[i];
    return sm_number_parse(text, f->n, out);
}

bool sm_cell_is_missing(const struct sm_cells *m, const struct sm_csv_field *f) {
    const char *s = f->s;
    size_t n = f->n;
    for (; n > 0 && (*s == ' ' || *s == '\t'); s++)
        n--;
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    if (n == 0) return true;
    if (!m->starts[(unsigned char)*s]) return false;
    for (size_t i = 0; i < m->n; i++)
        if (strncmp(m->missing[i], s, n) == 0 && m->missing[i][n] == 0) return true;
    return false;
}
