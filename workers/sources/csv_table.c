/* The `csv` source: rows of fields (csv.h) become rows of a matrix. The kinds of the columns are
 * guessed from the first rows and held against every row; when a later row shows that a column of
 * numbers has words, the files are read once more with what is known by then. Called by scan.c;
 * table_build.c writes the index. */
#include "lib/param.h"
#include "workers/sources/csv_cell.h"
#include "workers/sources/files.h"
#include "workers/sources/number.h"
#include "workers/sources/numbers.h"
#include "workers/sources/table_build.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    GUESS_ROWS = 1000,
    BLOCK_BYTES = 64 << 10,
    TEXT_BYTES = 240,
    SHOWN = 40,
    NAMES_SHOWN = 6,
    COUNTED_MIN = 3, /* so many cells that count up are no chance */
    HINT_BYTES = 512 /* holds so many names */
};
static const size_t NO_FIELD = SIZE_MAX;

struct csv_table {
    struct sm_table_build b;
    const struct sm_pipeline_source *source;
    struct sm_files files;
    struct sm_cells cells;
    bool header, maybe_data;        /* the header has numbers among the names */
    char **names;                   /* of all fields */
    const struct sm_csv_row *first; /* as long as its columns are chosen */
    bool *declared;                 /* of a column: source.numeric says that it is one of numbers */
    size_t n_fields, label, group;
    size_t *field;              /* of a column */
    size_t *numbers, n_numbers; /* columns of this kind */
    size_t *run; /* how many numbers from this one on have fields and columns that follow */
    size_t *words, n_words;
    bool contradicted; /* a column of numbers has words: this pass only finds more of those */
    bool again;        /* the second pass */
    uint8_t *block;    /* rows that wait to be written */
    size_t block_n, block_max;
    uint64_t row; /* data rows so far */
};

static int open_table(struct csv_table *t, struct sm_err *err);
static int guess_kinds(struct csv_table *t, struct sm_csv *csv, struct sm_csv_row *row,
                       struct sm_err *err);
static int read_files(struct csv_table *t, struct sm_err *err);
static int read_file(struct csv_table *t, size_t i, struct sm_err *err);
static int take_row(struct csv_table *t, size_t file, const struct sm_csv_row *row,
                    struct sm_err *err);
static void release(struct csv_table *t);

int sm_scan_csv(struct sm_scan *s, const char *index_path, struct sm_err *err) {
    struct csv_table t = {.source = s->source,
                          .b = {.scan = s, .index_path = index_path, .has_matrix = true}};
    t.b.is_double = s->source->float64;
    sm_cells_init(&t.cells, s->source);
    int failed = sm_files_list(&t.files, s->source->path, ".csv", err);
    if (!failed) failed = sm_table_files(&t.b, &t.files, err);
    if (!failed) failed = open_table(&t, err);
    if (!failed) failed = read_files(&t, err);
    if (!failed && (t.again = t.contradicted)) failed = read_files(&t, err);
    if (!failed && t.contradicted)
        failed = sm_fail(err, SM_E_CHANGED, "'%s' changed while it was read", s->source->path);
    if (!failed) failed = sm_table_finish(&t.b, err);
    release(&t);
    return failed;
}

static void release(struct csv_table *t) {
    sm_table_release(&t->b);
    sm_files_release(&t->files);
    for (size_t i = 0; i < t->n_fields && t->names != NULL; i++)
        free(t->names[i]);
    free(t->names);
    free(t->field);
    free(t->numbers);
    free(t->run);
    free(t->words);
    free(t->declared);
    free(t->block);
}

static int open_csv(const struct csv_table *t, size_t i, struct sm_csv **csv, struct sm_err *err) {
    return sm_csv_open_as(csv, t->files.paths[i], t->source, err);
}

static int check_delimiter(const struct csv_table *t, struct sm_err *err) {
    const char *d = t->source->delimiter, *point = t->source->decimal;
    if (point != NULL && *point != 0 &&
        (point[1] != 0 || *point <= ' ' || strchr("\"+-0123456789eE", *point) != NULL))
        return sm_fail(err, SM_E_PIPELINE,
                       "source.decimal '%.8s' cannot be: one character that no number begins with",
                       point);
    if (t->cells.decimal == (d == NULL || *d == 0 ? ',' : *d))
        return sm_fail(err, SM_E_PIPELINE,
                       "source.decimal is '%c', and so is the delimiter (hint: delimiter: \";\")",
                       t->cells.decimal);
    if (d == NULL || *d == 0) return 0;
    if (*d == ' ' && t->source->skip_initial_space)
        return sm_fail(err, SM_E_PIPELINE,
                       "source.skip_initial_space: spaces are what delimits the cells");
    if (d[1] == 0 && *d > 0 && strchr("\"\r\n", *d) == NULL) return 0;
    return sm_fail(err, SM_E_PIPELINE,
                   "source.delimiter '%s' cannot be: one ASCII character, no quote, no newline", d);
}

/* The name that a header gives to a field; of an empty one, or without a header, x and its place.
 */
static char *name_of(const struct csv_table *t, const struct sm_csv_row *row, size_t i) {
    const struct sm_csv_field f = sm_csv_cell(row, i);
    char *name = NULL;
    if (t->header && f.n > 0) return strndup(f.s, f.n);
    return asprintf(&name, "x%zu", i) < 0 ? NULL : name;
}

/* Whether the file names this cell as a column: then the first row holds names. A number names a
 * column by its place and says nothing. */
static bool is_named(const struct csv_table *t, const struct sm_csv_field *f) {
    const struct sm_pipeline_source *s = t->source;
    const struct sm_strs *const lists[] = {&s->categorical, &s->numeric};
    const char *const single[] = {s->label, s->group};
    double v;
    if (f->n == 0 || sm_cell_parse(&t->cells, f, &v) != SM_NUMBER_NONE) return false;
    for (size_t i = 0; i < 2; i++)
        if (single[i] != NULL && strlen(single[i]) == f->n && memcmp(single[i], f->s, f->n) == 0)
            return true;
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < lists[i]->count; k++)
            if (strlen(lists[i]->v[k]) == f->n && memcmp(lists[i]->v[k], f->s, f->n) == 0)
                return true;
    return false;
}

/* What the first row looks like. */
struct first_row {
    size_t filled, numbers, named; /* cells */
    bool distinct;
    size_t number, over; /* fields: a number; a word that stands over numbers alone. NO_FIELD */
};

static int look_at_cells(const struct csv_table *t, const struct sm_csv_row *row,
                         struct first_row *l, struct sm_err *err) {
    struct sm_words seen = {.max = UINT32_MAX};
    bool memory = true;
    *l = (struct first_row){.number = NO_FIELD, .over = NO_FIELD};
    for (size_t i = 0; i < row->n; i++) {
        const struct sm_csv_field f = sm_csv_cell(row, i);
        double v;
        if (sm_cell_parse(&t->cells, &f, &v) != SM_NUMBER_NONE) {
            if (l->numbers++ == 0) l->number = i;
        }
        l->named += is_named(t, &f);
        if (f.n == 0) continue;
        l->filled++;
        memory = memory && sm_words_add(&seen, f.s, f.n, "", NULL) >= 0;
    }
    l->distinct = seen.n == l->filled;
    sm_words_release(&seen);
    return memory ? 0 : sm_fail(err, SM_E_MEMORY, "out of memory");
}

/* Reads the beginning once more: which word of the first row stands over numbers alone. */
static int look_below(const struct csv_table *t, struct first_row *l, struct sm_err *err) {
    enum { WORD = 1, NUMBERS = 2 };
    struct sm_csv *csv;
    struct sm_csv_row row;
    if (open_csv(t, 0, &csv, err) != 0) return -1;
    int got = sm_csv_next(csv, &row, err);
    const size_t n = got == 1 ? row.n : 0;
    uint8_t *is = calloc(n + 1, 1);
    for (int r = 0; is != NULL && r <= GUESS_ROWS && got == 1; r++) {
        for (size_t i = 0; i < n && row.code == SM_E_OK && row.n == n; i++) {
            const struct sm_csv_field f = sm_csv_cell(&row, i);
            double v;
            const enum sm_cell cell = sm_cell_number(&t->cells, &f, &v);
            if (r == 0)
                is[i] = cell == SM_CELL_WORD ? WORD : 0;
            else if (cell == SM_CELL_WORD)
                is[i] = 0;
            else if (cell == SM_CELL_NUMBER && is[i] != 0)
                is[i] |= NUMBERS;
        }
        got = sm_csv_next(csv, &row, err);
    }
    sm_csv_close(&csv);
    for (size_t i = n; is != NULL && i-- > 0;)
        if (is[i] == (WORD | NUMBERS)) l->over = i;
    const bool memory = is != NULL;
    free(is);
    if (!memory) return sm_fail(err, SM_E_MEMORY, "out of memory");
    return got < 0 ? -1 : 0;
}

/* Whether the cells are 0, 1, 2 and so on, which pandas writes as the names of columns that have
 * none, behind an empty one over its index. */
static bool counts_up(const struct sm_csv_row *row) {
    const size_t index = row->n > 0 && sm_csv_cell(row, 0).n == 0;
    for (size_t i = index; i < row->n; i++) {
        const struct sm_csv_field f = sm_csv_cell(row, i);
        char number[24];
        const int n = snprintf(number, sizeof number, "%zu", i - index);
        if (f.n != (size_t)n || memcmp(f.s, number, f.n) != 0) return false;
    }
    return row->n >= COUNTED_MIN + index;
}

/* auto: the first row holds names when one of its cells is named in the pipeline file, or when no
 * cell of it is a number, not all are empty and those that are not differ. Else it is a row of
 * data, unless a word of it stands over numbers alone, or it counts up: then a person must say. */
static int find_header(struct csv_table *t, const struct sm_csv_row *row, struct sm_err *err) {
    const char *path = t->files.paths[0];
    struct first_row l;
    if (look_at_cells(t, row, &l, err) != 0) return -1;
    const bool is_auto = t->source->header == SM_HEADER_AUTO;
    t->header = t->source->header == SM_HEADER_TRUE;
    if (is_auto) t->header = l.named > 0 || (l.numbers == 0 && l.filled > 0 && l.distinct);
    if (is_auto && !t->header && counts_up(row))
        return sm_fail(err, SM_E_DATASET,
                       "the first row of '%s' may hold the names of the columns or not: it counts "
                       "from 0 to %zu, as pandas names columns (hint: source.header: yes, or no)",
                       path, l.numbers - 1);
    if (is_auto && !t->header && l.filled > 0) {
        if (look_below(t, &l, err) != 0) return -1;
        if (l.over != NO_FIELD && l.numbers > 0) {
            const struct sm_csv_field word = sm_csv_cell(row, l.over),
                                      number = sm_csv_cell(row, l.number);
            return sm_fail(err, SM_E_DATASET,
                           "the first row of '%s' may hold the names of the columns or not: '%.*s' "
                           "stands over numbers, but '%.*s' is a number itself (hint: "
                           "source.header: yes, or no)",
                           path, word.n < SHOWN ? (int)word.n : SHOWN, word.s,
                           number.n < SHOWN ? (int)number.n : SHOWN, number.s);
        }
        t->header = l.over != NO_FIELD;
    }
    t->maybe_data = t->header && l.numbers > 0;
    return 0;
}

/* As they are in the end: a column without a name may have got that of another. */
static int check_names(const struct csv_table *t, struct sm_err *err) {
    struct sm_words seen = {.max = UINT32_MAX};
    int failed = 0;
    for (size_t i = 0; !failed && i < t->n_fields; i++) {
        const int64_t first = sm_words_add(&seen, t->names[i], strlen(t->names[i]), "", NULL);
        if (first < 0) failed = sm_fail(err, SM_E_MEMORY, "out of memory");
        if (first < 0 || (size_t)first == i) continue;
        failed =
            sm_fail(err, SM_E_DATASET,
                    "two columns of '%s' have the same name: %lld and %zu are both '%.*s' "
                    "(hint: rename one%s)",
                    t->files.paths[0], (long long)first, i, SHOWN, t->names[i],
                    sm_csv_cell(t->first, (size_t)first).n == 0 || sm_csv_cell(t->first, i).n == 0
                        ? "; a column without a name is called x and its place"
                    : t->maybe_data ? ", or source.header: no"
                                    : "");
    }
    sm_words_release(&seen);
    return failed;
}

static int name_fields(struct csv_table *t, const struct sm_csv_row *row, struct sm_err *err) {
    const char *path = t->files.paths[0];
    if (row->code != SM_E_OK)
        return sm_fail(err, SM_E_DATASET, "the first row of '%s' cannot be read: %s", path,
                       row->text);
    if (find_header(t, row, err) != 0) return -1;
    t->names = calloc(row->n, sizeof *t->names);
    if (t->names == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    t->n_fields = row->n;
    for (size_t i = 0; i < row->n; i++)
        if ((t->names[i] = name_of(t, row, i)) == NULL)
            return sm_fail(err, SM_E_MEMORY, "out of memory");
    t->first = row;
    return check_names(t, err);
}

/* What to do about a name that no column has. */
static void hint_at(const struct csv_table *t, const char *name, char hint[HINT_BYTES]) {
    const char *near = sm_nearest(name, (const char *const *)t->names, t->n_fields);
    for (size_t i = 0; !t->header && i < t->first->n; i++) {
        const struct sm_csv_field f = sm_csv_cell(t->first, i);
        if (strlen(name) != f.n || memcmp(name, f.s, f.n) != 0) continue;
        snprintf(hint, HINT_BYTES, "it stands in the first row: source.header: yes");
        return;
    }
    if (t->n_fields == 1) {
        snprintf(hint, HINT_BYTES, "its one column is '%.*s': is source.delimiter right?", SHOWN,
                 t->names[0]);
        return;
    }
    size_t n = 0;
    if (near != NULL) n = (size_t)snprintf(hint, HINT_BYTES, "did you mean '%.*s'? ", SHOWN, near);
    n += (size_t)snprintf(hint + n, HINT_BYTES - n, "a name, or a number from 0; the columns are ");
    for (size_t i = 0; i < t->n_fields && i < NAMES_SHOWN; i++)
        n += (size_t)snprintf(hint + n, HINT_BYTES - n, "%s%.*s", i > 0 ? ", " : "", SHOWN,
                              t->names[i]);
    if (t->n_fields > NAMES_SHOWN)
        snprintf(hint + n, HINT_BYTES - n, " and %zu more", t->n_fields - NAMES_SHOWN);
}

/* A field by its name or its number. */
static int find_field(const struct csv_table *t, const char *what, const char *name, size_t *field,
                      struct sm_err *err) {
    for (*field = 0; *field < t->n_fields; ++*field)
        if (strcmp(t->names[*field], name) == 0) return 0;
    size_t digits = strspn(name, "0123456789");
    if (digits > 0 && digits < 9 && name[digits] == 0) *field = strtoul(name, NULL, 10);
    if (digits > 0 && name[digits] == 0 && *field < t->n_fields) return 0;
    char hint[HINT_BYTES];
    hint_at(t, name, hint);
    return sm_fail(err, SM_E_PIPELINE, "%s '%s': '%s' has no such column (hint: %s)", what, name,
                   t->files.paths[0], hint);
}

/* What source.categorical and source.numeric say of the columns. */
static int choose_kinds(struct csv_table *t, const char *what, const struct sm_strs *names,
                        int kind, struct sm_err *err) {
    for (size_t k = 0; k < names->count; k++) {
        size_t field, i = 0;
        if (find_field(t, what, names->v[k], &field, err) != 0) return -1;
        while (i < t->b.n_columns && t->field[i] != field)
            i++;
        if (i == t->b.n_columns)
            return sm_fail(err, SM_E_PIPELINE,
                           "%s '%s' is what %s names, which is no feature (hint: leave it out)",
                           what, names->v[k], field == t->label ? "source.label" : "split.by");
        if (kind == SM_COLUMN_NUMBER && t->b.columns[i].kind == SM_COLUMN_CATEGORY)
            return sm_fail(err, SM_E_PIPELINE,
                           "source.numeric '%s' is among source.categorical too (hint: leave it "
                           "out of one of them)",
                           names->v[k]);
        t->b.columns[i].kind = kind;
        t->declared[i] = kind == SM_COLUMN_NUMBER;
    }
    return 0;
}

/* Which fields are columns, and of which kind by what the file says. */
static int choose_columns(struct csv_table *t, struct sm_err *err) {
    const struct sm_pipeline_source *s = t->source;
    t->label = t->group = NO_FIELD;
    if (s->label != NULL && find_field(t, "source.label", s->label, &t->label, err) != 0) return -1;
    if (s->group != NULL && find_field(t, "split.by", s->group, &t->group, err) != 0) return -1;
    t->b.has_groups = t->group != NO_FIELD;
    t->b.columns = calloc(t->n_fields, sizeof *t->b.columns);
    t->field = calloc(t->n_fields, sizeof *t->field);
    t->numbers = calloc(t->n_fields, sizeof *t->numbers);
    t->run = calloc(t->n_fields, sizeof *t->run);
    t->words = calloc(t->n_fields, sizeof *t->words);
    t->declared = calloc(t->n_fields, sizeof *t->declared);
    if (t->b.columns == NULL || t->field == NULL || t->numbers == NULL || t->run == NULL ||
        t->words == NULL || t->declared == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < t->n_fields; i++) {
        if (i == t->label || i == t->group) continue;
        struct sm_table_column *c = &t->b.columns[t->b.n_columns];
        t->field[t->b.n_columns++] = i;
        if ((c->name = strdup(t->names[i])) == NULL)
            return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    if (t->b.n_columns == 0)
        return sm_fail(err, SM_E_DATASET,
                       "'%s' has no column beside the label (hint: is "
                       "source.delimiter right?)",
                       t->files.paths[0]);
    if (choose_kinds(t, "source.categorical", &s->categorical, SM_COLUMN_CATEGORY, err) != 0)
        return -1;
    return choose_kinds(t, "source.numeric", &s->numeric, SM_COLUMN_NUMBER, err);
}

/* Looks at the beginning of the first file. */
static int open_table(struct csv_table *t, struct sm_err *err) {
    if (check_delimiter(t, err) != 0) return -1;
    struct sm_csv *csv;
    if (open_csv(t, 0, &csv, err) != 0) return -1;
    struct sm_csv_row row;
    int got = sm_csv_next(csv, &row, err);
    if (got == 0) got = sm_fail(err, SM_E_DATASET, "'%s' is empty", t->files.paths[0]);
    int failed = got < 0 ? -1 : name_fields(t, &row, err);
    if (!failed) failed = choose_columns(t, err);
    if (!failed) failed = guess_kinds(t, csv, &row, err);
    sm_csv_close(&csv);
    if (failed) return -1;
    size_t bytes = sm_table_build_row_bytes(&t->b);
    t->block_max = BLOCK_BYTES / bytes + 1;
    t->block = malloc(t->block_max * bytes);
    return t->block == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
}

/* Makes a column of words of each column of numbers in which the row has a word. */
static bool contradict(struct csv_table *t, const struct sm_csv_row *row) {
    bool any = false;
    for (size_t i = 0; i < t->b.n_columns; i++) {
        const struct sm_csv_field f = sm_csv_cell(row, t->field[i]);
        double v;
        if (t->b.columns[i].kind != SM_COLUMN_NUMBER || t->declared[i] ||
            sm_cell_number(&t->cells, &f, &v) != SM_CELL_WORD)
            continue;
        t->b.columns[i].kind = SM_COLUMN_CATEGORY;
        any = true;
    }
    return any;
}

/* How many columns of numbers from the k-th on have fields and columns that follow each other. */
static size_t numbers_run(const struct csv_table *t, size_t k) {
    size_t n = 1;
    while (k + n < t->n_numbers && t->numbers[k + n] == t->numbers[k] + n &&
           t->field[t->numbers[k + n]] == t->field[t->numbers[k]] + n)
        n++;
    return n;
}

static void sort_by_kind(struct csv_table *t) {
    t->n_numbers = t->n_words = 0;
    for (size_t i = 0; i < t->b.n_columns; i++)
        if (t->b.columns[i].kind == SM_COLUMN_NUMBER)
            t->numbers[t->n_numbers++] = i;
        else
            t->words[t->n_words++] = i;
    for (size_t k = 0; k < t->n_numbers; k++)
        t->run[k] = numbers_run(t, k);
}

static int guess_kinds(struct csv_table *t, struct sm_csv *csv, struct sm_csv_row *row,
                       struct sm_err *err) {
    int got = t->header ? sm_csv_next(csv, row, err) : 1, rows = 0, longer = 0;
    for (int i = 0; i < GUESS_ROWS && got == 1; i++) {
        rows += row->code == SM_E_OK;
        longer += row->code == SM_E_OK && row->n == t->n_fields + 1;
        if (row->code == SM_E_OK && row->n == t->n_fields) contradict(t, row);
        got = sm_csv_next(csv, row, err);
    }
    if (got >= 0 && t->header && rows > 0 && longer == rows)
        return sm_fail(err, SM_E_DATASET,
                       "the header of '%s' has %zu name%s, and each row has %zu fields (hint: R's "
                       "row names need a name in front of the header, and a delimiter at a row's "
                       "end is one too many)",
                       t->files.paths[0], t->n_fields, t->n_fields == 1 ? "" : "s",
                       t->n_fields + 1);
    return got < 0 ? -1 : 0;
}

static int flush_block(struct csv_table *t, struct sm_err *err) {
    size_t n = t->block_n;
    t->block_n = 0;
    return sm_newfile_add(t->b.file, t->block, n * sm_table_build_row_bytes(&t->b), err);
}

static int read_files(struct csv_table *t, struct sm_err *err) {
    sort_by_kind(t);
    t->contradicted = false;
    t->block_n = 0;
    t->row = 0;
    if (sm_table_start(&t->b, err) != 0) return -1;
    for (size_t i = 0; i < t->files.n; i++)
        if (read_file(t, i, err) != 0) return -1;
    return flush_block(t, err);
}

/* Every file of a table begins with the same header. */
static int check_header(const struct csv_table *t, size_t i, const struct sm_csv_row *row,
                        struct sm_err *err) {
    const char *path = t->files.paths[i], *first = t->files.paths[0];
    if (row->code != SM_E_OK)
        return sm_fail(err, SM_E_DATASET, "the header of '%s' cannot be read: %s", path, row->text);
    for (size_t k = 0; k < t->n_fields && k < row->n; k++) {
        char *name = name_of(t, row, k);
        if (name == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        const bool same = strcmp(name, t->names[k]) == 0;
        if (!same)
            sm_fail(err, SM_E_DATASET,
                    "the header of '%s' is not that of '%s': column %zu is '%.*s', there '%.*s'",
                    path, first, k, SHOWN, name, SHOWN, t->names[k]);
        free(name);
        if (!same) return -1;
    }
    if (row->n == t->n_fields) return 0;
    return sm_fail(err, SM_E_DATASET,
                   "the header of '%s' is not that of '%s': it has %zu column%s, there are %zu",
                   path, first, row->n, row->n == 1 ? "" : "s", t->n_fields);
}

static int read_file(struct csv_table *t, size_t i, struct sm_err *err) {
    const char *path = t->files.paths[i];
    struct sm_index_file *file = &t->b.files[i];
    struct stat st;
    struct sm_csv *csv;
    if (stat(path, &st) != 0) return sm_fail_errno(err, "cannot read '%s'", path);
    if (open_csv(t, i, &csv, err) != 0) return -1;
    struct sm_csv_row row;
    int failed = 0, got = 1;
    if (t->header) {
        got = sm_csv_next(csv, &row, err);
        if (got == 1) failed = check_header(t, i, &row, err);
    }
    file->first = t->row;
    while (!failed && got == 1 && (got = sm_csv_next(csv, &row, err)) == 1) {
        const struct sm_index_mark mark = {t->row, row.line, row.offset};
        if ((t->row - file->first) % SM_INDEX_MARK_ROWS == 0)
            failed = sm_table_mark(&t->b, &mark, err);
        if (!failed) failed = take_row(t, i, &row, err);
        t->row++;
    }
    file->rows = t->row - file->first;
    file->file_bytes = sm_csv_bytes(csv);
    t->b.times[i] = sm_fs_mtime_ns(&st);
    sm_csv_digest(csv, file->digest);
    sm_csv_close(&csv);
    return failed || got < 0 ? -1 : 0;
}

/* The row of the block that is being filled. */
static inline void *row_at(const struct csv_table *t) {
    return t->block + t->block_n * sm_table_build_row_bytes(&t->b);
}

/* Why a cell of a column of numbers has no element. */
static void tell_cell(const struct csv_table *t, size_t column, const struct sm_csv_field *f,
                      enum sm_cell cell, char text[TEXT_BYTES]) {
    const int n = f->n < SHOWN ? (int)f->n : SHOWN;
    bool digits = false;
    for (size_t i = 0; i < f->n; i++)
        digits = digits || (f->s[i] >= '0' && f->s[i] <= '9');
    const char *what = cell == SM_CELL_WORD ? "is no number"
                       : cell == SM_CELL_NUMBER
                           ? "overflows float32 (hint: output: {dtype: float64})"
                       : digits ? "overflows a number"
                                : "is infinite, which no op takes";
    int end = snprintf(text, TEXT_BYTES, "'%.*s' in column '%.*s' %s", n, f->s, SHOWN,
                       t->b.columns[column].name, what);
    if (cell == SM_CELL_WORD || (cell == SM_CELL_OVERFLOW && !digits))
        snprintf(text + end, TEXT_BYTES - (size_t)end,
                 " (hint: source.missing lists words for missing cells)");
}

/* The k-th column of numbers, whatever its cell is. The first one that has no element is told in
 * text. */
static void take_number(struct csv_table *t, const struct sm_csv_row *row, size_t k, bool *sound,
                        char text[TEXT_BYTES]) {
    void *to = row_at(t);
    const size_t i = t->numbers[k];
    const struct sm_csv_field f = sm_csv_cell(row, t->field[i]);
    double v;
    enum sm_cell cell = sm_cell_number(&t->cells, &f, &v);
    if (cell == SM_CELL_NUMBER && sm_number_put(v, t->b.is_double, to, i)) return;
    if (cell == SM_CELL_WORD && t->b.columns[i].kind == SM_COLUMN_NUMBER && !t->declared[i])
        t->contradicted |= contradict(t, row);
    if (cell == SM_CELL_NUMBER || cell == SM_CELL_OVERFLOW ||
        (cell == SM_CELL_WORD && t->declared[i])) {
        if (*sound) tell_cell(t, i, &f, cell, text);
        *sound = false;
    }
    sm_number_put(NAN, t->b.is_double, to, i);
}

static bool take_numbers(struct csv_table *t, const struct sm_csv_row *row, char text[TEXT_BYTES]) {
    const size_t element = t->b.is_double ? sizeof(double) : sizeof(float);
    uint8_t *to = row_at(t);
    bool sound = true;
    for (size_t k = 0, n; k < t->n_numbers; k += n) {
        n = t->run[k];
        const size_t i = t->numbers[k];
        for (size_t got = 0; got < n; got++) {
            /* a number may stand for a missing cell, or have a comma: then each is looked at */
            if (t->cells.plain)
                got += sm_numbers_parse(row, t->field[i] + got, n - got, t->b.is_double,
                                        to + (i + got) * element);
            if (got < n) take_number(t, row, k + got, &sound, text);
        }
    }
    return sound;
}

static int take_words(struct csv_table *t, const struct sm_csv_row *row, struct sm_err *err) {
    for (size_t k = 0; k < t->n_words; k++) {
        struct sm_table_column *c = &t->b.columns[t->words[k]];
        const struct sm_csv_field f = sm_csv_cell(row, t->field[t->words[k]]);
        double v = NAN;
        if (!sm_cell_is_missing(&t->cells, &f)) {
            int64_t word = sm_words_add(&c->words, f.s, f.n, "a column", err);
            if (word < 0) return sm_err_context(err, "column '%s'", c->name);
            v = (double)word;
        }
        sm_number_put(v, t->b.is_double, row_at(t), t->words[k]);
    }
    return 0;
}

static int bad_row(struct csv_table *t, size_t file, const struct sm_csv_row *row, int code,
                   const char *text, struct sm_err *err) {
    const struct sm_index_bad_row bad = {.row = t->row,
                                         .line = row->line,
                                         .offset = row->offset,
                                         .file = (uint32_t)file,
                                         .code = (uint32_t)code};
    return t->contradicted ? 0 : sm_table_bad(&t->b, &bad, text, err);
}

static struct sm_csv_field cell_or_none(const struct sm_csv_row *row, size_t field) {
    return field == NO_FIELD ? (struct sm_csv_field){.s = ""} : sm_csv_cell(row, field);
}

/* A word may be a class that only looks like a missing cell. */
static void tell_label(const struct csv_table *t, const struct sm_csv_field *f,
                       char text[TEXT_BYTES]) {
    size_t blanks = 0;
    while (blanks < f->n && (f->s[blanks] == ' ' || f->s[blanks] == '\t'))
        blanks++;
    if (blanks == f->n)
        snprintf(text, TEXT_BYTES, "the label is missing");
    else
        snprintf(text, TEXT_BYTES,
                 "the label is missing: '%.*s' counts as a missing cell (hint: %s)",
                 (int)(f->n < SHOWN ? f->n : SHOWN), f->s,
                 t->source->missing.v == NULL ? "source.missing: []" : "source.missing lists it");
}

static int take_row(struct csv_table *t, size_t file, const struct sm_csv_row *row,
                    struct sm_err *err) {
    char text[TEXT_BYTES];
    if (row->code != SM_E_OK) return bad_row(t, file, row, (int)row->code, row->text, err);
    if (row->n != t->n_fields) {
        snprintf(text, sizeof text, "%zu field%s where %zu are expected", row->n,
                 row->n == 1 ? "" : "s", t->n_fields);
        return bad_row(t, file, row, SM_E_DECODE, text, err);
    }
    const struct sm_csv_field label = cell_or_none(row, t->label);
    bool sound = take_numbers(t, row, text);
    if (t->contradicted) return 0;
    if (t->label != NO_FIELD && sm_cell_is_missing(&t->cells, &label)) {
        tell_label(t, &label, text);
        return bad_row(t, file, row, SM_E_DECODE, text, err);
    }
    if (!sound && !t->again && t->source->on_error == SM_ON_ERROR_FAIL) {
        t->contradicted = true; /* it is no fault if the column turns out to have words */
        return 0;
    }
    if (!sound) return bad_row(t, file, row, SM_E_DECODE, text, err);
    if (take_words(t, row, err) != 0) return -1;
    const struct sm_csv_field group = cell_or_none(row, t->group);
    const uint64_t hash = t->group == NO_FIELD ? 0 : XXH3_64bits(group.s, group.n);
    if (sm_table_row(&t->b, label.s, label.n, hash, err) != 0) return -1;
    return ++t->block_n == t->block_max ? flush_block(t, err) : 0;
}
