/* Rows out of an index: of a csv from its matrix, of npy from the arrays where they lie
 * (table_arrays.c). Runs of rows that follow each other are read at once; a csv's matrix is mapped
 * when a lease gathers its rows one by one. Before: index.c. After: fits and leases. */
#include "workers/sources/index_open.h"

#include "lib/fs.h"
#include "lib/guard.h"
#include "workers/sources/table_arrays.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LONG_RUN_BYTES = 64 << 10 }; /* for which the system reads ahead better than a mapping */

struct sm_table {
    const struct sm_index *index;
    char root[SM_MAX_PATH_BYTES];
    const uint8_t *matrix; /* of a csv, when it is in memory or mapped */
    void *map;
    size_t map_n;
    struct sm_arrays *arrays; /* npy */
};

static int read_matrix(const struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                       struct sm_rows *out, struct sm_err *err);

int sm_table_open(struct sm_table **gives, const struct sm_index *index, const char *root,
                  struct sm_err *err) {
    *gives = NULL;
    assert(index->table != NULL);
    if (strlen(root) >= SM_MAX_PATH_BYTES)
        return sm_fail(err, SM_E_USAGE, "the path of the dataset is too long");
    struct sm_table *t = calloc(1, sizeof *t);
    if (t == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    t->index = index;
    t->matrix = index->matrix;
    strcpy(t->root, root);
    if (!index->table->has_matrix) {
        t->arrays = sm_arrays_new(index, t->root);
        if (t->arrays == NULL) {
            free(t);
            return sm_fail(err, SM_E_MEMORY, "out of memory");
        }
    }
    *gives = t;
    return 0;
}

void sm_table_close(struct sm_table **tp) {
    struct sm_table *t = *tp;
    if (t == NULL) return;
    sm_arrays_free(t->arrays);
    if (t->map != NULL) munmap(t->map, t->map_n);
    free(t);
    *tp = NULL;
}

/* Before the first gather. A map that cannot be had is no failure: rows are then read one by one.
 */
static void map_matrix(struct sm_table *t) {
    const struct sm_index *x = t->index;
    const uint64_t bytes = SM_INDEX_MATRIX + x->header->samples * sm_table_row_bytes(x);
    if (t->matrix != NULL || !x->table->has_matrix || !sm_table_may_map(bytes)) return;
    t->map_n = (size_t)bytes;
    t->map = mmap(NULL, t->map_n, PROT_READ, MAP_SHARED, x->fd, 0);
    if (t->map == MAP_FAILED) t->map = NULL;
    if (t->map == NULL) return;
    madvise(t->map, t->map_n, MADV_RANDOM); /* or each row would read many pages ahead */
    t->matrix = (const uint8_t *)t->map + SM_INDEX_MATRIX;
}

int sm_table_read(struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                  struct sm_rows *out, struct sm_err *err) {
    const struct sm_index *x = t->index;
    assert(out->n == n && out->columns == x->schema.n && out->is_double == x->schema.is_double);
    assert(samples != NULL || (first <= x->header->samples && n <= x->header->samples - first));
    if (samples != NULL) map_matrix(t);
    return x->table->has_matrix ? read_matrix(t, samples, first, n, out, err)
                                : sm_arrays_read(t->arrays, samples, first, n, out, err);
}

const void *sm_table_lend(struct sm_table *t, uint64_t sample) {
    assert(sample < t->index->header->samples);
    if (t->matrix == NULL) map_matrix(t);
    return t->matrix == NULL ? NULL : t->matrix + sample * sm_table_row_bytes(t->index);
}

struct reading {
    const struct sm_table *t;
    const uint64_t *samples;
    uint64_t first;
    size_t n;
    uint8_t *to;
    struct sm_err *err;
    int failed;
};

static int read_run(const struct reading *r, uint64_t sample, size_t bytes, uint8_t *to) {
    const struct sm_table *t = r->t;
    const uint64_t at = sample * sm_table_row_bytes(t->index);
    if (t->matrix != NULL && (t->map == NULL || bytes < LONG_RUN_BYTES)) {
        memcpy(to, t->matrix + at, bytes);
        return 0;
    }
    const ssize_t got = sm_fs_pread(t->index->fd, to, bytes, SM_INDEX_MATRIX + at);
    if (got < 0) return sm_fail_errno(r->err, "cannot read rows from the index");
    if ((size_t)got == bytes) return 0;
    return sm_fail(r->err, SM_E_CHANGED, "the index became shorter after it was opened");
}

static void runs_read(void *context) {
    struct reading *r = context;
    const size_t row = sm_table_row_bytes(r->t->index);
    for (size_t i = 0, k; i < r->n && r->failed == 0; i += k) {
        k = sm_samples_run(r->samples, i, r->n);
        const uint64_t sample = sm_sample_at(r->samples, r->first, i);
        assert(sample + k <= r->t->index->header->samples);
        r->failed = read_run(r, sample, k * row, r->to + i * row);
    }
}

static int read_matrix(const struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                       struct sm_rows *out, struct sm_err *err) {
    struct reading r = {t, samples, first, n, out->data, err, 0};
    if (sm_guard(runs_read, &r)) return r.failed;
    return sm_fail(err, SM_E_CHANGED, "the index became shorter after it was opened");
}
