/* The index of a table while it is made: rows come in one after the other, in the end names are
 * sorted, categories and labels get their final numbers and the file is written. Private to the
 * sources: csv_table.c and npy.c call it, index.c opens what comes out (lib/index.h). */
#pragma once

#include "lib/fs.h"
#include "workers/sources/scan.h"
#include "workers/sources/words.h"

struct sm_table_column {
    char *name;            /* owned */
    int kind;              /* enum sm_column_kind */
    struct sm_words words; /* categories, numbered by first use */
};

struct sm_table_build {
    struct sm_scan *scan; /* its source, strings and classes are used, and no entries */
    const char *index_path;
    struct sm_newfile *file;
    bool is_double, has_matrix, has_groups;
    struct sm_table_column *columns;
    size_t n_columns;
    struct sm_index_file *files; /* name: a string of the scan */
    int64_t *times;              /* of the files */
    size_t n_files;
    uint8_t labels_digest[16]; /* of labels that stand in files of their own */
    struct sm_words words;     /* labels, numbered by first use */
    uint32_t *labels;
    uint64_t *groups;
    uint64_t rows, rows_cap;
    struct sm_index_bad_row *bad; /* text: a string of the scan */
    uint64_t n_bad, bad_cap;
    struct sm_index_mark *marks;
    uint64_t n_marks, marks_cap;
};

/* Bytes of a row of its matrix. */
static inline size_t sm_table_build_row_bytes(const struct sm_table_build *b) {
    return b->n_columns * (b->is_double ? sizeof(double) : sizeof(float));
}
/* Begins with no rows, or begins again. files and columns stay. */
int sm_table_start(struct sm_table_build *b, struct sm_err *err);
/* One more sound row. Its elements, when has_matrix, are added to b->file by the caller. */
int sm_table_row(struct sm_table_build *b, const char *label, size_t label_n, uint64_t group,
                 struct sm_err *err);
/* A row that cannot be read: listed, or refused when source.on_error is fail. */
int sm_table_bad(struct sm_table_build *b, const struct sm_index_bad_row *bad, const char *text,
                 struct sm_err *err);
/* Where a row of a csv begins; told of the first of every SM_INDEX_MARK_ROWS rows of a file. */
int sm_table_mark(struct sm_table_build *b, const struct sm_index_mark *mark, struct sm_err *err);
int sm_table_finish(struct sm_table_build *b, struct sm_err *err);
void sm_table_release(struct sm_table_build *b);
/* The files of a path as the index names them: relative to the scan's root. */
struct sm_files;
int sm_table_files(struct sm_table_build *b, const struct sm_files *files, struct sm_err *err);

/* One for each format; called by scan.c. */
int sm_scan_csv(struct sm_scan *s, const char *index_path, struct sm_err *err);
int sm_scan_npy(struct sm_scan *s, const char *index_path, struct sm_err *err);
