/* Rows out of .npy files. Runs of rows are read at once. Rows here and there, as a shuffled epoch
 * wants them, come from a mapping, where a row costs no system call; a file that is cut short
 * meanwhile is an error like any other (lib/guard.h). Before: table_read.c. After: a block. */
#include "workers/sources/table_arrays.h"

#include "lib/fs.h"
#include "lib/guard.h"
#include "workers/sources/npy.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* What is mapped although the address space of the process is limited; and how long runs are on
 * average when rows count as here and there. */
enum { PIECE_BYTES = 256 << 10, OPEN = 64, SHORT_RUN = 4 };
static const uint64_t LIMITED_MAP_BYTES = 64 << 20;

/* A file that is open, in the slot of its number. */
struct opened {
    const struct sm_index_file *file; /* NULL: none */
    int fd;
    uint64_t looked_at; /* the read in which it was last seen to be unchanged */
    int64_t time;       /* of the file when it was known to be what was indexed */
    const uint8_t *map;
    bool no_map; /* it cannot be had */
};

struct sm_arrays {
    const struct sm_index *index;
    const char *root;
    struct opened open[OPEN];
    uint64_t reads;
    uint8_t *piece; /* rows as they lie in the file */
    size_t piece_n;
};

/* A read that is under way. */
struct reading {
    struct sm_arrays *a;
    const uint64_t *samples;
    uint64_t first;
    size_t n;
    struct sm_rows *out;
    struct sm_err *err;
    bool scattered;
    int failed;
    const struct sm_index_file *file; /* that was read last */
};

static const char *name_of(const struct sm_arrays *a, const struct sm_index_file *f) {
    return a->index->strings + f->name;
}

struct sm_arrays *sm_arrays_new(const struct sm_index *index, const char *root) {
    struct sm_arrays *a = calloc(1, sizeof *a);
    if (a == NULL) return NULL;
    a->index = index;
    a->root = root;
    return a;
}

static void opened_close(struct opened *o) {
    if (o->file == NULL) return;
    if (o->map != NULL) munmap((void *)(uintptr_t)o->map, o->file->file_bytes);
    close(o->fd);
    *o = (struct opened){0};
}

void sm_arrays_free(struct sm_arrays *a) {
    if (a == NULL) return;
    for (int i = 0; i < OPEN; i++)
        opened_close(&a->open[i]);
    free(a->piece);
    free(a);
}

/* --- files ------------------------------------------------------------------------------------ */

static int file_open(struct sm_arrays *a, struct opened *o, const struct sm_index_file *f,
                     struct sm_err *err) {
    char path[2 * SM_MAX_PATH_BYTES];
    sm_table_file_path(a->index, a->root, f, path);
    opened_close(o);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 && errno == ENOENT)
        return sm_fail(err, SM_E_CHANGED,
                       "'%s' is no longer there, but the dataset was indexed with it", path);
    if (fd < 0) return sm_fail_errno(err, "cannot open '%s'", path);
    *o = (struct opened){
        .file = f, .fd = fd, .time = sm_index_time(a->index, (uint64_t)(f - a->index->files))};
    return 0;
}

/* Reads all of a file that was touched: whether its bytes are those that were indexed. */
static bool is_same(const struct opened *o) {
    const struct sm_index_file *f = o->file;
    const uint64_t end = f->data + f->rows * f->columns * sm_npy_item((int)f->type);
    XXH128_canonical_t sum = {{0}};
    XXH3_state_t *hash = XXH3_createState();
    uint8_t *piece = malloc(PIECE_BYTES);
    bool ok = hash != NULL && piece != NULL;
    if (ok) XXH3_128bits_reset(hash);
    for (uint64_t at = 0; ok && at < end;) {
        const size_t n = end - at < PIECE_BYTES ? (size_t)(end - at) : PIECE_BYTES;
        ok = sm_fs_pread(o->fd, piece, n, at) == (ssize_t)n;
        if (ok) XXH3_128bits_update(hash, piece, n);
        at += n;
    }
    if (ok) XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(hash));
    XXH3_freeState(hash);
    free(piece);
    return ok && memcmp(sum.digest, f->digest, sizeof sum.digest) == 0;
}

/* Once in each read: whether it still is what was indexed. */
static int file_look(struct sm_arrays *a, struct opened *o, struct sm_err *err) {
    const struct sm_index_file *f = o->file;
    struct stat st;
    if (o->looked_at == a->reads) return 0;
    if (fstat(o->fd, &st) != 0) return sm_fail_errno(err, "cannot read '%s'", name_of(a, f));
    const int64_t time = sm_fs_mtime_ns(&st);
    if ((uint64_t)st.st_size != f->file_bytes || (time != o->time && !is_same(o)))
        return sm_fail(err, SM_E_CHANGED,
                       "'%s' changed after the dataset was indexed (hint: start a new run, into "
                       "another folder)",
                       name_of(a, f));
    o->time = time;
    o->looked_at = a->reads;
    return 0;
}

bool sm_table_may_map(uint64_t bytes) {
    struct rlimit limit;
    return bytes <= LIMITED_MAP_BYTES ||
           (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY);
}

/* A mapping that cannot be had is no failure: rows are then read one by one. */
static void file_map(struct opened *o) {
    if (o->map != NULL || o->no_map) return;
    void *map = sm_table_may_map(o->file->file_bytes)
                    ? mmap(NULL, o->file->file_bytes, PROT_READ, MAP_SHARED, o->fd, 0)
                    : MAP_FAILED;
    o->no_map = map == MAP_FAILED;
    if (o->no_map) return;
    madvise(map, o->file->file_bytes, MADV_RANDOM); /* or each row would read many pages ahead */
    o->map = map;
}

/* --- rows ------------------------------------------------------------------------------------- */

static bool is_scattered(const struct reading *r) {
    size_t runs = 0;
    for (size_t i = 0; i < r->n; i += sm_samples_run(r->samples, i, r->n))
        runs++;
    return runs * SHORT_RUN > r->n;
}

/* k rows of a file that follow each other, from its `row`-th on, by system calls. */
static int run_read(struct sm_arrays *a, const struct opened *o, uint64_t row, size_t k,
                    uint8_t *to, struct sm_err *err) {
    const struct sm_index_file *f = o->file;
    const size_t from_row = f->columns * sm_npy_item((int)f->type),
                 to_row = sm_table_row_bytes(a->index);
    const size_t piece = PIECE_BYTES / from_row + 1;
    if (a->piece_n < piece * from_row) {
        free(a->piece);
        a->piece_n = piece * from_row;
        a->piece = malloc(a->piece_n);
        if (a->piece == NULL) a->piece_n = 0;
        if (a->piece == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    for (size_t i = 0, n; i < k; i += n) {
        n = k - i < piece ? k - i : piece;
        ssize_t got = sm_fs_pread(o->fd, a->piece, n * from_row, f->data + (row + i) * from_row);
        if (got < 0) return sm_fail_errno(err, "cannot read '%s'", name_of(a, f));
        if ((size_t)got < n * from_row)
            return sm_fail(err, SM_E_CHANGED, "'%s' became shorter while it was read",
                           name_of(a, f));
        sm_npy_convert(f, a->piece, n, a->index->schema.is_double, to + i * to_row);
    }
    return 0;
}

/* The run that begins with the i-th row; its length goes to *k. */
static int run_next(struct reading *r, size_t i, size_t *k) {
    struct sm_arrays *a = r->a;
    const struct sm_index *x = a->index;
    const uint64_t sample = sm_sample_at(r->samples, r->first, i), row = sm_index_row(x, sample);
    const struct sm_index_file *f = r->file = sm_table_file(x, row);
    struct opened *o = &a->open[(size_t)(f - x->files) % OPEN];
    uint8_t *to = (uint8_t *)r->out->data + i * sm_table_row_bytes(x);
    *k = sm_samples_run(r->samples, i, r->n);
    if (*k > f->first + f->rows - row) *k = (size_t)(f->first + f->rows - row);
    /* no bad row may lie within the run */
    while (*k > 1 && sm_index_row(x, sample + *k - 1) != row + *k - 1)
        *k /= 2;
    if ((o->file != f && file_open(a, o, f, r->err) != 0) || file_look(a, o, r->err) != 0)
        return -1;
    if (r->scattered) file_map(o);
    if (o->map == NULL || !r->scattered) return run_read(a, o, row - f->first, *k, to, r->err);
    sm_npy_convert(f, o->map + f->data + (row - f->first) * f->columns * sm_npy_item((int)f->type),
                   *k, x->schema.is_double, to);
    return 0;
}

static void rows_read(void *context) {
    struct reading *r = context;
    for (size_t i = 0, k; r->failed == 0 && i < r->n; i += k)
        r->failed = run_next(r, i, &k);
}

int sm_arrays_read(struct sm_arrays *a, const uint64_t *samples, uint64_t first, size_t n,
                   struct sm_rows *out, struct sm_err *err) {
    struct reading r = {.a = a, .samples = samples, .first = first, .n = n, .out = out, .err = err};
    a->reads++;
    r.scattered = is_scattered(&r);
    if (!sm_guard(rows_read, &r))
        return sm_fail(err, SM_E_CHANGED, "'%s' became shorter while it was read",
                       name_of(a, r.file));
    return r.failed;
}
