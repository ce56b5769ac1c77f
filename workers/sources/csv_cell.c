/* See csv_cell.h. csv_table.c asks this for every cell, so the common case, a number, comes first.
 */
#include "workers/sources/csv_cell.h"

#include "workers/sources/number.h"

#include <string.h>

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

void sm_missing_init(struct sm_missing *m, const struct sm_pipeline_source *source) {
    *m = (struct sm_missing){.words = source->missing.v, .n = source->missing.count};
    if (source->missing.v == NULL)
        *m = (struct sm_missing){.words = pandas_words,
                                 .n = sizeof pandas_words / sizeof *pandas_words};
    for (size_t i = 0; i < m->n; i++) {
        double v;
        m->starts[(unsigned char)m->words[i][0]] = true;
        if (sm_number_parse(m->words[i], strlen(m->words[i]), &v) != SM_NUMBER_NONE)
            m->numbers = true;
    }
}

bool sm_cell_is_missing(const struct sm_missing *m, const struct sm_csv_field *f) {
    const char *s = f->s;
    size_t n = f->n;
    for (; n > 0 && (*s == ' ' || *s == '\t'); s++)
        n--;
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    if (n == 0) return true;
    if (!m->starts[(unsigned char)*s]) return false;
    for (size_t i = 0; i < m->n; i++)
        if (strncmp(m->words[i], s, n) == 0 && m->words[i][n] == 0) return true;
    return false;
}
