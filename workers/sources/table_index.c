/* What the index of a table tells beside what all indexes do: schema, rows, groups, rows that could
 * not be read. index.c opens and verifies the file with these; table_read.c reads its rows. */
#include "workers/sources/index_open.h"

#include "lib/fs.h"
#include "workers/sources/npy.h"

#include <assert.h>
#include <stdio.h>
#include <sys/stat.h>

static uint64_t element_bytes(const struct sm_index_table *t) {
    return t->is_double ? sizeof(double) : sizeof(float);
}

/* Takes n items off the front of what is left. */
static const void *take(const uint8_t **at, uint64_t *left, uint64_t n, size_t size) {
    const uint8_t *p = *at;
    if (p == NULL || n > *left / size) {
        *at = NULL;
        return NULL;
    }
    *at += n * size;
    *left -= n * size;
    return p;
}

bool sm_table_lay_out(struct sm_index *x) {
    const struct sm_index_table *t = x->table;
    const struct sm_index_header *h = x->header;
    uint64_t strings = sm_index_strings(h, x->n);
    if (t->columns == 0 || t->columns > SM_MAX_TABLE_COLUMNS || t->files == 0 ||
        t->files > SM_MAX_TABLE_FILES || t->tables > strings || t->is_double > 1)
        return false;
    uint64_t matrix = t->has_matrix ? h->samples * t->columns * element_bytes(t) : 0;
    uint64_t end = SM_INDEX_MATRIX + matrix;
    if (t->tables < end || t->tables - end >= SM_INDEX_TABLES_ALIGNED ||
        t->tables % SM_INDEX_TABLES_ALIGNED != 0)
        return false;
    const uint8_t *at = x->tables;
    uint64_t left = strings - t->tables;
    x->classes = take(&at, &left, h->classes, sizeof *x->classes);
    x->files = take(&at, &left, t->files, sizeof *x->files);
    x->columns = take(&at, &left, t->columns, sizeof *x->columns);
    x->categories = take(&at, &left, t->categories, sizeof *x->categories);
    x->bad = take(&at, &left, t->bad_rows, sizeof *x->bad);
    x->marks = take(&at, &left, t->marks, sizeof *x->marks);
    x->groups = take(&at, &left, t->has_groups ? h->samples : 0, sizeof *x->groups);
    x->labels = take(&at, &left, h->samples, sizeof *x->labels);
    x->rows_by_class = take(&at, &left, h->samples, sizeof *x->rows_by_class);
    x->strings = (const char *)at;
    if (at != NULL) x->times = at + h->string_bytes;
    return at != NULL && left == 0 && h->times == t->files;
}

static bool is_string(const struct sm_index *x, uint64_t at) {
    return at < x->header->string_bytes; /* the last byte of the strings is NUL */
}

/* Files and bad rows in order; together with the samples they make up all rows. */
static bool rows_are_sound(const struct sm_index *x) {
    const struct sm_index_table *t = x->table;
    uint64_t rows = 0;
    for (uint64_t i = 0; i < t->files; i++) {
        const struct sm_index_file *f = &x->files[i];
        if (!is_string(x, f->name) || f->first != rows ||
            f->rows > 2 * (uint64_t)SM_MAX_TABLE_ROWS - rows)
            return false;
        rows += f->rows;
        if (!t->has_matrix && !sm_npy_fits(f, t->columns)) return false;
    }
    for (uint64_t i = 0; i < t->bad_rows; i++) {
        const struct sm_index_bad_row *b = &x->bad[i];
        if (b->row >= rows || (i > 0 && b->row <= x->bad[i - 1].row) || b->file >= t->files ||
            b->code == SM_E_OK || b->code >= SM_E_COUNT || !is_string(x, b->text))
            return false;
    }
    return rows == x->header->samples + t->bad_rows;
}

static bool marks_are_sound(const struct sm_index *x) {
    const struct sm_index_table *t = x->table;
    uint64_t k = 0;
    for (uint64_t i = 0; i < t->files && t->has_matrix; i++) {
        const struct sm_index_file *f = &x->files[i];
        for (uint64_t row = 0; row < f->rows; row += SM_INDEX_MARK_ROWS, k++) {
            if (k >= t->marks) return false;
            const struct sm_index_mark *m = &x->marks[k];
            if (m->row != f->first + row || m->line == 0 || m->offset >= f->file_bytes)
                return false;
        }
    }
    return k == t->marks;
}

static bool columns_are_sound(const struct sm_index *x) {
    const struct sm_index_table *t = x->table;
    uint64_t next = 0;
    for (uint64_t i = 0; i < t->columns; i++) {
        const struct sm_index_column *c = &x->columns[i];
        if (!is_string(x, c->name) || c->first_category != next ||
            c->categories > t->categories - next || c->categories > SM_MAX_TABLE_CATEGORIES ||
            (c->kind != SM_COLUMN_CATEGORY && (c->kind != SM_COLUMN_NUMBER || c->categories > 0)))
            return false;
        next += c->categories;
    }
    for (uint64_t i = 0; i < t->categories; i++)
        if (!is_string(x, x->categories[i])) return false;
    return next == t->categories;
}

static bool labels_are_sound(const struct sm_index *x) {
    const uint64_t samples = x->header->samples;
    uint64_t first = 0;
    for (uint64_t i = 0; i < samples; i++)
        if (x->labels[i] >= x->header->classes) return false;
    for (uint64_t c = 0; c < x->header->classes; c++) {
        const struct sm_index_class_record *k = &x->classes[c];
        if (!is_string(x, k->name) || k->first != first || k->samples > samples - first)
            return false;
        const uint32_t *of = x->rows_by_class + first;
        for (uint64_t i = 0; i < k->samples; i++)
            if (of[i] >= samples || x->labels[of[i]] != c || (i > 0 && of[i] <= of[i - 1]))
                return false;
        first += k->samples;
    }
    return first == samples;
}

bool sm_table_is_sound(const struct sm_index *x) {
    return rows_are_sound(x) && marks_are_sound(x) && columns_are_sound(x) && labels_are_sound(x);
}

int sm_table_make_schema(struct sm_index *x, struct sm_err *err) {
    const struct sm_index_table *t = x->table;
    sm_arena_init(&x->arena, SIZE_MAX);
    struct sm_column *columns = sm_arena_alloc(&x->arena, t->columns * sizeof *columns);
    const char **words = sm_arena_alloc(&x->arena, (t->categories + 1) * sizeof *words);
    if (columns == NULL || words == NULL) {
        sm_arena_release(&x->arena);
        return sm_fail(err, SM_E_MEMORY, "out of memory for %llu columns",
                       (unsigned long long)t->columns);
    }
    for (uint64_t i = 0; i < t->categories; i++)
        words[i] = x->strings + x->categories[i];
    for (uint64_t i = 0; i < t->columns; i++) {
        const struct sm_index_column *c = &x->columns[i];
        columns[i] = (struct sm_column){.name = x->strings + c->name,
                                        .kind = (int)c->kind,
                                        .categories = words + c->first_category,
                                        .n_categories = c->categories};
    }
    x->schema = (struct sm_schema){
        .columns = columns, .n = (size_t)t->columns, .is_double = t->is_double != 0};
    return 0;
}

bool sm_index_is_table(const struct sm_index *x) {
    return x->table != NULL;
}

const struct sm_schema *sm_index_schema(const struct sm_index *x) {
    assert(x->table != NULL);
    return &x->schema;
}

/* Before the sample stand as many bad rows as make bad[k].row - k exceed it first at k. */
uint64_t sm_index_row(const struct sm_index *x, uint64_t sample) {
    assert(x->table != NULL && sample < x->header->samples);
    uint64_t low = 0, high = x->table->bad_rows;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (x->bad[middle].row - middle <= sample)
            low = middle + 1;
        else
            high = middle;
    }
    return sample + low;
}

uint64_t sm_index_group(const struct sm_index *x, uint64_t sample) {
    assert(x->table != NULL && sample < x->header->samples);
    return x->table->has_groups ? x->groups[sample] : 0;
}

void sm_table_file_path(const struct sm_index *x, const char *root,
                        const struct sm_index_file *file, char path[2 * SM_MAX_PATH_BYTES]) {
    const char *name = x->strings + file->name;
    const bool whole = name[0] == '/';
    snprintf(path, (size_t)2 * SM_MAX_PATH_BYTES, "%s%s%s", whole ? "" : root, whole ? "" : "/",
             name);
}

bool sm_index_is_current(const struct sm_index *x, const char *root) {
    for (uint64_t i = 0; x->table != NULL && i < x->table->files; i++) {
        const struct sm_index_file *f = &x->files[i];
        char path[2 * SM_MAX_PATH_BYTES];
        struct stat st;
        sm_table_file_path(x, root, f, path);
        if (stat(path, &st) != 0 || (uint64_t)st.st_size != f->file_bytes ||
            sm_fs_mtime_ns(&st) != sm_index_time(x, i))
            return false;
    }
    return true;
}

uint64_t sm_index_bad_rows(const struct sm_index *x) {
    return x->table == NULL ? 0 : x->table->bad_rows;
}

struct sm_bad_row sm_index_bad_row(const struct sm_index *x, uint64_t k) {
    assert(k < sm_index_bad_rows(x));
    const struct sm_index_bad_row *b = &x->bad[k];
    return (struct sm_bad_row){.row = b->row,
                               .line = b->line,
                               .offset = b->offset,
                               .file = x->strings + x->files[b->file].name,
                               .text = x->strings + b->text,
                               .code = (enum sm_code)b->code};
}

const struct sm_index_file *sm_table_file(const struct sm_index *x, uint64_t row) {
    uint64_t low = 0, high = x->table->files - 1;
    while (low < high) {
        uint64_t middle = (low + high + 1) / 2;
        if (x->files[middle].first <= row)
            low = middle;
        else
            high = middle - 1;
    }
    return &x->files[low];
}

const struct sm_index_mark *sm_table_mark_before(const struct sm_index *x, uint64_t row) {
    uint64_t low = 0, high = x->table->marks;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (x->marks[middle].row <= row)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? NULL : &x->marks[low - 1];
}
