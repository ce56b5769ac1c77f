/* Rows out of an index: of a csv from its matrix, of npy from the arrays where they lie. Runs of
 * rows that follow each other are read at once; the matrix of a small csv is mapped, because a
 * lease gathers its rows one by one. Before: index.c. After: fits and leases. */
#include "workers/sources/index_open.h"

#include "lib/fs.h"
#include "workers/sources/npy.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAP_BYTES = 256 << 20, PIECE_BYTES = 256 << 10 };

struct sm_table {
    const struct sm_index *index;
    char root[SM_MAX_PATH_BYTES];
    const uint8_t *matrix; /* of a csv, when it is in memory or mapped */
    void *map;
    size_t map_n;
    int fd; /* npy: the file that was read last, or -1 */
    const struct sm_index_file *open;
    uint8_t *piece; /* npy: rows as they lie in the file */
    size_t piece_n;
};

static int read_matrix(const struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                       struct sm_rows *out, struct sm_err *err);
static int read_arrays(struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                       struct sm_rows *out, struct sm_err *err);

static size_t row_bytes(const struct sm_index *x) {
    return x->schema.n * (x->schema.is_double ? sizeof(double) : sizeof(float));
}

int sm_table_open(struct sm_table **gives, const struct sm_index *index, const char *root,
                  struct sm_err *err) {
    *gives = NULL;
    assert(index->table != NULL);
    if (strlen(root) >= SM_MAX_PATH_BYTES)
        return sm_fail(err, SM_E_USAGE, "the path of the dataset is too long");
    struct sm_table *t = calloc(1, sizeof *t);
    if (t == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    t->index = index;
    t->fd = -1;
    t->matrix = index->matrix;
    strcpy(t->root, root);
    *gives = t;
    return 0;
}

void sm_table_close(struct sm_table **tp) {
    struct sm_table *t = *tp;
    if (t == NULL) return;
    if (t->fd >= 0) close(t->fd);
    if (t->map != NULL) munmap(t->map, t->map_n);
    free(t->piece);
    free(t);
    *tp = NULL;
}

/* Before the first gather. A map that cannot be had is no failure: rows are then read one by one.
 */
static void map_matrix(struct sm_table *t) {
    const struct sm_index *x = t->index;
    uint64_t bytes = x->header->samples * row_bytes(x);
    if (t->matrix != NULL || !x->table->has_matrix || bytes > MAP_BYTES) return;
    t->map_n = (size_t)(SM_INDEX_MATRIX + bytes);
    t->map = mmap(NULL, t->map_n, PROT_READ, MAP_SHARED, x->fd, 0);
    if (t->map == MAP_FAILED)
        t->map = NULL;
    else
        t->matrix = (const uint8_t *)t->map + SM_INDEX_MATRIX;
}

int sm_table_read(struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                  struct sm_rows *out, struct sm_err *err) {
    const struct sm_index *x = t->index;
    assert(out->n == n && out->columns == x->schema.n && out->is_double == x->schema.is_double);
    assert(samples != NULL || (first <= x->header->samples && n <= x->header->samples - first));
    if (samples != NULL) map_matrix(t);
    return x->table->has_matrix ? read_matrix(t, samples, first, n, out, err)
                                : read_arrays(t, samples, first, n, out, err);
}

static uint64_t sample_at(const uint64_t *samples, uint64_t first, size_t i) {
    return samples == NULL ? first + i : samples[i];
}

/* How many samples from the i-th on follow each other. */
static size_t run_length(const uint64_t *samples, size_t i, size_t n) {
    if (samples == NULL) return n - i;
    size_t k = 1;
    while (i + k < n && samples[i + k] == samples[i] + k)
        k++;
    return k;
}

static int read_matrix(const struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                       struct sm_rows *out, struct sm_err *err) {
    const size_t row = row_bytes(t->index);
    uint8_t *to = out->data;
    for (size_t i = 0, k; i < n; i += k) {
        k = run_length(samples, i, n);
        uint64_t sample = sample_at(samples, first, i);
        assert(sample + k <= t->index->header->samples);
        if (t->matrix != NULL) {
            memcpy(to + i * row, t->matrix + sample * row, k * row);
            continue;
        }
        ssize_t got =
            sm_fs_pread(t->index->fd, to + i * row, k * row, SM_INDEX_MATRIX + sample * row);
        if (got < 0) return sm_fail_errno(err, "cannot read rows from the index");
        if ((size_t)got < k * row)
            return sm_fail(err, SM_E_CHANGED, "the index became shorter after it was opened");
    }
    return 0;
}

static int open_array(struct sm_table *t, const struct sm_index_file *f, struct sm_err *err) {
    const char *name = t->index->strings + f->name;
    struct stat st;
    if (t->open != f) {
        char path[2 * SM_MAX_PATH_BYTES];
        snprintf(path, sizeof path, "%s%s%s", name[0] == '/' ? "" : t->root,
                 name[0] == '/' ? "" : "/", name);
        if (t->fd >= 0) close(t->fd);
        t->open = NULL;
        t->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        if (t->fd < 0 && errno == ENOENT)
            return sm_fail(err, SM_E_CHANGED,
                           "'%s' is no longer there, but the dataset was indexed with it", path);
        if (t->fd < 0) return sm_fail_errno(err, "cannot open '%s'", path);
        t->open = f;
    }
    if (fstat(t->fd, &st) != 0) return sm_fail_errno(err, "cannot read '%s'", name);
    if ((uint64_t)st.st_size == f->file_bytes &&
        (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec == f->mtime_ns)
        return 0;
    return sm_fail(err, SM_E_CHANGED,
                   "'%s' changed after the dataset was indexed (hint: start a new run, into "
                   "another folder)",
                   name);
}

/* k rows of a file that follow each other, from its `row`-th on. */
static int read_run(struct sm_table *t, const struct sm_index_file *f, uint64_t row, size_t k,
                    uint8_t *to, struct sm_err *err) {
    const size_t from_row = f->columns * sm_npy_item((int)f->type), to_row = row_bytes(t->index);
    const size_t piece = PIECE_BYTES / from_row + 1;
    if (t->piece_n < piece * from_row) {
        free(t->piece);
        t->piece_n = piece * from_row;
        t->piece = malloc(t->piece_n);
        if (t->piece == NULL) t->piece_n = 0;
        if (t->piece == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    for (size_t i = 0, n; i < k; i += n) {
        n = k - i < piece ? k - i : piece;
        ssize_t got = sm_fs_pread(t->fd, t->piece, n * from_row, f->data + (row + i) * from_row);
        const char *name = t->index->strings + f->name;
        if (got < 0) return sm_fail_errno(err, "cannot read '%s'", name);
        if ((size_t)got < n * from_row)
            return sm_fail(err, SM_E_CHANGED, "'%s' became shorter while it was read", name);
        sm_npy_convert(f, t->piece, n, t->index->schema.is_double, to + i * to_row);
    }
    return 0;
}

static int read_arrays(struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                       struct sm_rows *out, struct sm_err *err) {
    const struct sm_index *x = t->index;
    const struct sm_index_file *checked = NULL;
    uint8_t *to = out->data;
    for (size_t i = 0, k; i < n; i += k) {
        uint64_t sample = sample_at(samples, first, i), row = sm_index_row(x, sample);
        const struct sm_index_file *f = sm_table_file(x, row);
        k = run_length(samples, i, n);
        if (k > f->first + f->rows - row) k = (size_t)(f->first + f->rows - row);
        /* no bad row may lie within the run */
        while (k > 1 && sm_index_row(x, sample + k - 1) != row + k - 1)
            k /= 2;
        if (f != checked && open_array(t, f, err) != 0) return -1;
        checked = f;
        if (read_run(t, f, row - f->first, k, to + i * row_bytes(x), err) != 0) return -1;
    }
    return 0;
}
