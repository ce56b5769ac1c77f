/* Where a row stands in its file: of npy by arithmetic, of a csv by reading on from the last mark
 * before it (lib/index.h). Before: an op could not take the row. After: the quarantine names line
 * and byte offset, as it does of rows that could not be read. */
#include "lib/fs.h"
#include "workers/sources/csv_cell.h"
#include "workers/sources/index_open.h"
#include "workers/sources/npy.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

struct sm_finder {
    const struct sm_index *index;
    const struct sm_pipeline_source *source;
    const char *root;
    struct sm_csv *csv; /* of file; NULL: none is open */
    const struct sm_index_file *file;
    uint64_t next; /* the row that csv gives next */
    uint64_t row;  /* the last one that it gave, and where that began */
    uint64_t line, offset;
};

int sm_finder_open(struct sm_finder **gives, const struct sm_index *index,
                   const struct sm_pipeline_source *source, const char *root, struct sm_err *err) {
    assert(sm_index_is_table(index));
    struct sm_finder *f = *gives = calloc(1, sizeof *f);
    if (f == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *f = (struct sm_finder){.index = index, .source = source, .root = root, .row = UINT64_MAX};
    return 0;
}

void sm_finder_close(struct sm_finder **fp) {
    if (*fp == NULL) return;
    sm_csv_close(&(*fp)->csv);
    free(*fp);
    *fp = NULL;
}

static int changed(const struct sm_finder *f, const struct sm_index_file *file,
                   struct sm_err *err) {
    return sm_fail(err, SM_E_CHANGED, "'%s' changed after it was indexed",
                   f->index->strings + file->name);
}

/* So that csv gives the row, or one before it in the same stretch between marks, next. */
static int go_to(struct sm_finder *f, const struct sm_index_file *file, uint64_t row,
                 struct sm_err *err) {
    const struct sm_index_mark *mark = sm_table_mark_before(f->index, row);
    char path[2 * SM_MAX_PATH_BYTES];
    assert(mark != NULL && mark->row >= file->first);
    if (f->csv != NULL && f->file == file && f->next > mark->row && f->next <= row) return 0;
    if (f->csv == NULL || f->file != file) {
        sm_csv_close(&f->csv);
        f->file = file;
        struct stat st;
        sm_table_file_path(f->index, f->root, file, path);
        if (stat(path, &st) != 0) return sm_fail_errno(err, "cannot read '%s'", path);
        if ((uint64_t)st.st_size != file->file_bytes ||
            sm_fs_mtime_ns(&st) != sm_index_time(f->index, (uint64_t)(file - f->index->files)))
            return changed(f, file, err);
        if (sm_csv_open_as(&f->csv, path, f->source, err) != 0) return -1;
    }
    f->next = mark->row;
    return sm_csv_seek(f->csv, mark->offset, mark->line, err);
}

static int find_in_csv(struct sm_finder *f, const struct sm_index_file *file, uint64_t row,
                       struct sm_err *err) {
    struct sm_csv_row got;
    if (row == f->row) return 0;
    if (go_to(f, file, row, err) != 0) return -1;
    for (; f->next <= row; f->next++) {
        const int more = sm_csv_next(f->csv, &got, err);
        if (more < 0) return -1;
        if (more == 0) return changed(f, file, err);
    }
    f->row = row;
    f->line = got.line;
    f->offset = got.offset;
    return 0;
}

int sm_finder_find(struct sm_finder *f, uint64_t sample, struct sm_found *found,
                   struct sm_err *err) {
    const struct sm_index *x = f->index;
    const uint64_t row = sm_index_row(x, sample);
    const struct sm_index_file *file = sm_table_file(x, row);
    *found = (struct sm_found){.file = x->strings + file->name};
    if (x->table->has_matrix) {
        if (find_in_csv(f, file, row, err) != 0) return -1;
        found->line = f->line;
        found->offset = f->offset;
    } else {
        const uint64_t bytes = file->columns * (uint64_t)sm_npy_item((int)file->type),
                       in_file = row - file->first;
        found->line = in_file + 1;
        found->offset = file->data + in_file * bytes;
    }
    return 0;
}
