/* See table_build.h. The matrix is written as it comes, with categories numbered by first use; when
 * all are known, their numbers are replaced in place by those of the sorted words. */
#include "workers/sources/table_build.h"

#include "workers/sources/files.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

/* The caches keep a piece between reading and hashing. It is aligned as the file's pages are: some
 * processors copy to a place a few bytes further on in a page several times slower. */
enum { PIECE_BYTES = 64 << 10, PAGE = 4096 };

static int number_labels(struct sm_table_build *b, struct sm_err *err);
static int renumber_categories(struct sm_table_build *b, struct sm_err *err);
static int write_tables(struct sm_table_build *b, struct sm_err *err);
static int seal(struct sm_table_build *b, struct sm_index_header *h, const struct sm_index_table *t,
                struct sm_err *err);

int sm_table_start(struct sm_table_build *b, struct sm_err *err) {
    static const uint8_t header[SM_INDEX_MATRIX];
    sm_newfile_abandon(&b->file);
    sm_words_release(&b->words);
    b->words.max = SM_MAX_CLASSES;
    for (size_t i = 0; i < b->n_columns; i++) {
        sm_words_release(&b->columns[i].words);
        b->columns[i].words.max = SM_MAX_TABLE_CATEGORIES;
    }
    b->rows = b->n_bad = b->n_marks = 0;
    if (sm_newfile_open(&b->file, b->index_path, err) != 0) return -1;
    return sm_newfile_add(b->file, header, sizeof header, err);
}

int sm_table_files(struct sm_table_build *b, const struct sm_files *files, struct sm_err *err) {
    b->files = calloc(files->n, sizeof *b->files);
    b->times = calloc(files->n, sizeof *b->times);
    b->n_files = files->n;
    if (b->files == NULL || b->times == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    size_t root = strlen(b->scan->root);
    for (size_t i = 0; i < files->n; i++) {
        const char *path = files->paths[i];
        if (strncmp(path, b->scan->root, root) == 0 && path[root] == '/') path += root + 1;
        b->files[i].name = sm_scan_string(b->scan, path);
        if (b->files[i].name == SM_INDEX_NONE) return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    return 0;
}

void sm_table_release(struct sm_table_build *b) {
    sm_newfile_abandon(&b->file);
    sm_words_release(&b->words);
    for (size_t i = 0; i < b->n_columns; i++) {
        sm_words_release(&b->columns[i].words);
        free(b->columns[i].name);
    }
    free(b->columns);
    free(b->files);
    free(b->times);
    free(b->labels);
    free(b->groups);
    free(b->bad);
    free(b->marks);
}

static int grow_rows(struct sm_table_build *b, struct sm_err *err) {
    if (b->rows < b->rows_cap) return 0;
    if (b->rows >= SM_MAX_TABLE_ROWS)
        return sm_fail(err, SM_E_DATASET, "a table of more than %d rows", SM_MAX_TABLE_ROWS);
    uint64_t cap = b->rows_cap * 2 + 4096;
    uint32_t *labels = reallocarray(b->labels, cap, sizeof *labels);
    if (labels != NULL) b->labels = labels;
    uint64_t *groups = b->groups;
    if (b->has_groups) groups = reallocarray(b->groups, cap, sizeof *groups);
    if (labels == NULL || (b->has_groups && groups == NULL))
        return sm_fail(err, SM_E_MEMORY, "out of memory after %llu rows",
                       (unsigned long long)b->rows);
    b->groups = groups;
    b->rows_cap = cap;
    return 0;
}

/* Rows of a class often follow each other, and without labels there is one class: then nothing is
 * looked up. */
static bool is_last_label(const struct sm_table_build *b, const char *label, size_t n) {
    if (b->rows == 0) return false;
    const char *last = sm_words_text(&b->words, b->labels[b->rows - 1]);
    return strnlen(last, n + 1) == n && memcmp(last, label, n) == 0;
}

int sm_table_row(struct sm_table_build *b, const char *label, size_t label_n, uint64_t group,
                 struct sm_err *err) {
    if (grow_rows(b, err) != 0) return -1;
    int64_t word = is_last_label(b, label, label_n)
                       ? b->labels[b->rows - 1]
                       : sm_words_add(&b->words, label, label_n, "the label", err);
    if (word < 0) return -1;
    b->labels[b->rows] = (uint32_t)word;
    if (b->has_groups) b->groups[b->rows] = group;
    b->rows++;
    return 0;
}

int sm_table_bad(struct sm_table_build *b, const struct sm_index_bad_row *bad, const char *text,
                 struct sm_err *err) {
    const char *file = b->scan->strings + b->files[bad->file].name;
    if (b->scan->source->on_error == SM_ON_ERROR_FAIL)
        return sm_fail(err, SM_E_DATASET,
                       "'%s', row %llu, line %llu, byte %llu: %s (hint: source.on_error: "
                       "quarantine goes on without such rows)",
                       file, (unsigned long long)bad->row, (unsigned long long)bad->line,
                       (unsigned long long)bad->offset, text);
    if (b->n_bad >= SM_MAX_TABLE_BAD_ROWS)
        return sm_fail(err, SM_E_DATASET,
                       "more than %d rows cannot be read; the last: '%s', line %llu: %s (hint: "
                       "are source.delimiter and source.header right?)",
                       SM_MAX_TABLE_BAD_ROWS, file, (unsigned long long)bad->line, text);
    if (b->n_bad == b->bad_cap) {
        struct sm_index_bad_row *more = reallocarray(b->bad, b->bad_cap * 2 + 64, sizeof *more);
        if (more == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        b->bad = more;
        b->bad_cap = b->bad_cap * 2 + 64;
    }
    b->bad[b->n_bad] = *bad;
    b->bad[b->n_bad].text = sm_scan_string(b->scan, text);
    if (b->bad[b->n_bad].text == SM_INDEX_NONE) return sm_fail(err, SM_E_MEMORY, "out of memory");
    b->n_bad++;
    return 0;
}

int sm_table_mark(struct sm_table_build *b, const struct sm_index_mark *mark, struct sm_err *err) {
    if (b->n_marks == b->marks_cap) {
        struct sm_index_mark *more = reallocarray(b->marks, b->marks_cap * 2 + 64, sizeof *more);
        if (more == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        b->marks = more;
        b->marks_cap = b->marks_cap * 2 + 64;
    }
    b->marks[b->n_marks++] = *mark;
    return 0;
}

int sm_table_finish(struct sm_table_build *b, struct sm_err *err) {
    if (b->rows == 0) {
        const char *text = b->n_bad == 0 ? "" : b->scan->strings + b->bad[0].text;
        return sm_fail(err, SM_E_DATASET, "no row in '%s' can be used%s%s", b->scan->source->path,
                       b->n_bad == 0 ? ": it has none" : "; the first: ", text);
    }
    if (number_labels(b, err) != 0) return -1;
    if (b->has_matrix && renumber_categories(b, err) != 0) return -1;
    return write_tables(b, err);
}

/* Labels become class numbers, and the classes count their rows. */
static int number_labels(struct sm_table_build *b, struct sm_err *err) {
    for (uint32_t i = 0; i < b->words.n; i++)
        if (sm_scan_label(b->scan, sm_words_text(&b->words, i), err) != (int64_t)i) return -1;
    uint32_t *class_of;
    if (sm_scan_classes(b->scan, &class_of, err) != 0) return -1;
    for (uint64_t i = 0; i < b->rows; i++) {
        b->labels[i] = class_of[b->labels[i]];
        b->scan->classes[b->labels[i]].samples++;
    }
    free(class_of);
    for (uint32_t c = 1; c < b->scan->n_classes; c++)
        b->scan->classes[c].first = b->scan->classes[c - 1].first + b->scan->classes[c - 1].samples;
    return 0;
}

/* Gives for each category, numbered by first use, its place among the sorted ones; NULL for a
 * column of numbers. */
static int rank_categories(const struct sm_table_build *b, uint32_t **ranks, struct sm_err *err) {
    for (size_t i = 0; i < b->n_columns; i++) {
        const struct sm_words *w = &b->columns[i].words;
        if (b->columns[i].kind != SM_COLUMN_CATEGORY || w->n == 0) continue;
        uint32_t *order = calloc(w->n, sizeof *order);
        ranks[i] = calloc(w->n, sizeof **ranks);
        if (order == NULL || ranks[i] == NULL) {
            free(order);
            return sm_fail(err, SM_E_MEMORY, "out of memory");
        }
        sm_words_sort(w, order);
        for (uint32_t k = 0; k < w->n; k++)
            ranks[i][order[k]] = k;
        free(order);
    }
    return 0;
}

static void renumber(const struct sm_table_build *b, uint32_t *const *ranks, void *rows, size_t n) {
    for (size_t c = 0; c < b->n_columns; c++) {
        const uint32_t *rank = ranks[c];
        if (rank == NULL) continue;
        double *f64 = (double *)rows + c;
        float *f32 = (float *)rows + c;
        for (size_t r = 0; r < n; r++) {
            double v = b->is_double ? f64[r * b->n_columns] : f32[r * b->n_columns];
            if (isnan(v)) continue;
            if (b->is_double)
                f64[r * b->n_columns] = rank[(uint32_t)v];
            else
                f32[r * b->n_columns] = (float)rank[(uint32_t)v];
        }
    }
}

static int rewrite(const struct sm_table_build *b, uint32_t *const *ranks, struct sm_err *err) {
    int fd = sm_newfile_fd(b->file, err);
    if (fd < 0) return -1;
    const size_t row = sm_table_build_row_bytes(b);
    const size_t piece = PIECE_BYTES / row + 1;
    void *rows = malloc(piece * row);
    if (rows == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed = 0;
    for (uint64_t at = 0; at < b->rows && !failed; at += piece) {
        size_t n = b->rows - at < piece ? (size_t)(b->rows - at) : piece;
        off_t offset = (off_t)(SM_INDEX_MATRIX + at * row);
        if (sm_fs_pread(fd, rows, n * row, (uint64_t)offset) != (ssize_t)(n * row))
            failed = sm_fail_errno(err, "cannot read back '%s'", b->index_path);
        if (!failed) renumber(b, ranks, rows, n);
        if (!failed && pwrite(fd, rows, n * row, offset) != (ssize_t)(n * row))
            failed = sm_fail_errno(err, "cannot write '%s'", b->index_path);
    }
    free(rows);
    return failed;
}

static int renumber_categories(struct sm_table_build *b, struct sm_err *err) {
    uint32_t **ranks = calloc(b->n_columns, sizeof *ranks);
    if (ranks == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed = rank_categories(b, ranks, err);
    bool any = false;
    for (size_t i = 0; i < b->n_columns; i++)
        any = any || ranks[i] != NULL;
    if (any && !failed) failed = rewrite(b, ranks, err);
    for (size_t i = 0; i < b->n_columns; i++)
        free(ranks[i]);
    free(ranks);
    return failed;
}

/* What the tables hold once strings have their final places: the classes' names first. */
struct tables {
    struct sm_scan strings; /* only its pool is used */
    struct sm_index_column *columns;
    uint64_t *categories, n_categories;
    uint32_t *by_class;
};

static bool pool(struct tables *t, const char *text, uint64_t *at) {
    *at = sm_scan_string(&t->strings, text);
    return *at != SM_INDEX_NONE;
}

static bool pool_columns(struct sm_table_build *b, struct tables *t) {
    for (size_t i = 0; i < b->n_columns; i++)
        t->n_categories += b->columns[i].words.n;
    t->columns = calloc(b->n_columns + 1, sizeof *t->columns);
    t->categories = calloc(t->n_categories + 1, sizeof *t->categories);
    bool ok = t->columns != NULL && t->categories != NULL;
    uint64_t next = 0;
    for (size_t i = 0; i < b->n_columns && ok; i++) {
        const struct sm_table_column *c = &b->columns[i];
        t->columns[i] = (struct sm_index_column){
            .kind = (uint32_t)c->kind, .first_category = next, .categories = c->words.n};
        ok = pool(t, c->name, &t->columns[i].name);
        uint32_t *order = calloc((size_t)c->words.n + 1, sizeof *order);
        ok = ok && order != NULL;
        if (ok) sm_words_sort(&c->words, order);
        for (uint32_t k = 0; k < c->words.n && ok; k++)
            ok = pool(t, sm_words_text(&c->words, order[k]), &t->categories[next++]);
        free(order);
    }
    return ok;
}

static bool collect(struct sm_table_build *b, struct tables *t) {
    struct sm_scan *s = b->scan;
    bool ok = true;
    for (uint32_t c = 0; c < s->n_classes && ok; c++)
        ok = pool(t, s->strings + s->classes[c].name, &s->classes[c].name);
    for (size_t i = 0; i < b->n_files && ok; i++)
        ok = pool(t, s->strings + b->files[i].name, &b->files[i].name);
    ok = ok && pool_columns(b, t);
    for (uint64_t i = 0; i < b->n_bad && ok; i++)
        ok = pool(t, s->strings + b->bad[i].text, &b->bad[i].text);
    t->by_class = calloc(b->rows, sizeof *t->by_class);
    uint64_t *next = calloc(s->n_classes, sizeof *next);
    ok = ok && t->by_class != NULL && next != NULL;
    for (uint64_t i = 0; i < b->rows && ok; i++)
        t->by_class[s->classes[b->labels[i]].first + next[b->labels[i]]++] = (uint32_t)i;
    free(next);
    return ok;
}

/* Names, kinds and categories of the columns, names of the classes, bytes of the files. */
static int dataset_digest(const struct sm_table_build *b, const struct tables *t,
                          char hex[SM_XXH_HEX], struct sm_err *err) {
    struct sm_hash *h = sm_hash_new_xxh();
    if (h == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < b->n_files; i++) {
        sm_hash_add(h, &b->files[i].file_bytes, sizeof b->files[i].file_bytes);
        sm_hash_add(h, b->files[i].digest, sizeof b->files[i].digest);
    }
    sm_hash_add(h, b->labels_digest, sizeof b->labels_digest);
    for (uint32_t c = 0; c < b->scan->n_classes; c++) {
        const char *name = t->strings.strings + b->scan->classes[c].name;
        sm_hash_add(h, name, strlen(name) + 1);
    }
    for (size_t i = 0; i < b->n_columns; i++) {
        const struct sm_index_column *c = &t->columns[i];
        const char *name = t->strings.strings + c->name;
        sm_hash_add(h, name, strlen(name) + 1);
        sm_hash_add(h, &c->kind, sizeof c->kind);
        sm_hash_add(h, &c->categories, sizeof c->categories);
        for (uint64_t k = 0; k < c->categories; k++) {
            const char *word = t->strings.strings + t->categories[c->first_category + k];
            sm_hash_add(h, word, strlen(word) + 1);
        }
    }
    sm_hash_end(&h, hex);
    return 0;
}

static int add_tables(struct sm_table_build *b, const struct tables *t, struct sm_err *err) {
    const struct sm_scan *s = b->scan;
    const struct {
        const void *bytes;
        size_t n;
    } parts[] = {
        {s->classes, s->n_classes * sizeof *s->classes},
        {b->files, b->n_files * sizeof *b->files},
        {t->columns, b->n_columns * sizeof *t->columns},
        {t->categories, t->n_categories * sizeof *t->categories},
        {b->bad, b->n_bad * sizeof *b->bad},
        {b->marks, b->n_marks * sizeof *b->marks},
        {b->groups, b->has_groups ? b->rows * sizeof *b->groups : 0},
        {b->labels, b->rows * sizeof *b->labels},
        {t->by_class, b->rows * sizeof *t->by_class},
        {t->strings.strings, t->strings.n_strings},
        {b->times, b->n_files * sizeof *b->times},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (sm_newfile_add(b->file, parts[i].bytes, parts[i].n, err) != 0) return -1;
    return 0;
}

static int write_tables(struct sm_table_build *b, struct sm_err *err) {
    struct tables t = {0};
    int failed = collect(b, &t) ? 0 : sm_fail(err, SM_E_MEMORY, "out of memory for the index");
    const uint64_t end =
        SM_INDEX_MATRIX + (b->has_matrix ? b->rows * sm_table_build_row_bytes(b) : 0);
    static const uint8_t zeros[SM_INDEX_TABLES_ALIGNED];
    size_t pad = (size_t)(-end % SM_INDEX_TABLES_ALIGNED);
    if (!failed) failed = sm_newfile_add(b->file, zeros, pad, err);
    if (!failed) failed = add_tables(b, &t, err);
    struct sm_index_header h = {.magic = SM_INDEX_MAGIC,
                                .version = SM_INDEX_VERSION,
                                .kind = SM_INDEX_TABLE,
                                .samples = b->rows,
                                .classes = b->scan->n_classes,
                                .string_bytes = t.strings.n_strings,
                                .times = b->n_files};
    if (!failed) failed = dataset_digest(b, &t, h.dataset_digest, err);
    const struct sm_index_table table = {.files = b->n_files,
                                         .columns = b->n_columns,
                                         .categories = t.n_categories,
                                         .bad_rows = b->n_bad,
                                         .marks = b->n_marks,
                                         .tables = end + pad,
                                         .is_double = b->is_double,
                                         .has_groups = b->has_groups,
                                         .has_matrix = b->has_matrix};
    if (!failed) failed = seal(b, &h, &table, err);
    free(t.strings.strings);
    free(t.columns);
    free(t.categories);
    free(t.by_class);
    return failed;
}

/* The header goes to its place, the checksum over all behind. */
static int seal(struct sm_table_build *b, struct sm_index_header *h, const struct sm_index_table *t,
                struct sm_err *err) {
    int fd = sm_newfile_fd(b->file, err);
    if (fd < 0) return -1;
    if (pwrite(fd, h, sizeof *h, 0) != (ssize_t)sizeof *h ||
        pwrite(fd, t, sizeof *t, sizeof *h) != (ssize_t)sizeof *t)
        return sm_fail_errno(err, "cannot write '%s'", b->index_path);
    uint8_t *piece = aligned_alloc(PAGE, PIECE_BYTES);
    XXH3_state_t *hash = XXH3_createState();
    int failed = piece == NULL || hash == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) XXH3_128bits_reset(hash);
    uint64_t at = 0;
    for (ssize_t n = 1; n > 0 && !failed; at += (uint64_t)(n > 0 ? n : 0)) {
        n = sm_fs_pread(fd, piece, PIECE_BYTES, at);
        if (n < 0) failed = sm_fail_errno(err, "cannot read back '%s'", b->index_path);
        if (n > 0) XXH3_128bits_update(hash, piece, (size_t)n);
    }
    XXH128_canonical_t sum;
    if (!failed) {
        XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(hash));
        failed = sm_newfile_add(b->file, sum.digest, sizeof sum.digest, err);
    }
    XXH3_freeState(hash);
    free(piece);
    return failed ? -1 : sm_newfile_commit(&b->file, err);
}
