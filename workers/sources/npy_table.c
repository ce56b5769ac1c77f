/* The `npy` source: one or several arrays of rows, which stay where they are; the index notes where
 * each begins, its type, and the labels out of an array of their own. Every byte is read once, for
 * the digest and to find rows with infinities. Called by scan.c; table_build.c writes the index. */
#include "workers/sources/files.h"
#include "workers/sources/npy.h"
#include "workers/sources/table_build.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { PIECE_BYTES = 1 << 20, LABEL_BYTES = 2048 };

struct npy_table {
    struct sm_table_build b;
    struct sm_files arrays, labels;
    uint32_t group; /* column, UINT32_MAX: none */
    uint64_t row;
    uint8_t *piece;
    /* the labels' array that is open */
    size_t label_file;
    int label_fd;
    struct sm_npy label;
    uint64_t label_next;
    uint8_t *label_piece;
    uint64_t label_piece_first, label_piece_n; /* elements in it */
    XXH3_state_t *label_hash;
};

static int list_files(struct npy_table *t, struct sm_err *err);
static int read_headers(struct npy_table *t, struct sm_err *err);
static int read_array(struct npy_table *t, size_t i, struct sm_err *err);
static int next_label(struct npy_table *t, char text[LABEL_BYTES], struct sm_err *err);
static int no_label_left(struct npy_table *t, struct sm_err *err);

int sm_scan_npy(struct sm_scan *s, const char *index_path, struct sm_err *err) {
    struct npy_table t = {.b = {.scan = s, .index_path = index_path}, .label_fd = -1};
    t.piece = malloc(PIECE_BYTES);
    t.label_piece = malloc(PIECE_BYTES);
    t.label_hash = XXH3_createState();
    int failed = t.piece == NULL || t.label_piece == NULL || t.label_hash == NULL
                     ? sm_fail(err, SM_E_MEMORY, "out of memory")
                     : 0;
    if (!failed) XXH3_128bits_reset(t.label_hash);
    if (!failed) failed = list_files(&t, err);
    if (!failed) failed = sm_table_files(&t.b, &t.arrays, err);
    if (!failed) failed = read_headers(&t, err);
    if (!failed) failed = sm_table_start(&t.b, err);
    for (size_t i = 0; i < t.arrays.n && !failed; i++)
        failed = read_array(&t, i, err);
    if (!failed && t.labels.n > 0) failed = no_label_left(&t, err);
    if (!failed) {
        XXH128_canonical_t sum;
        XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(t.label_hash));
        memcpy(t.b.labels_digest, sum.digest, sizeof t.b.labels_digest);
        failed = sm_table_finish(&t.b, err);
    }
    sm_table_release(&t.b);
    sm_files_release(&t.arrays);
    sm_files_release(&t.labels);
    XXH3_freeState(t.label_hash);
    if (t.label_fd >= 0) close(t.label_fd);
    free(t.piece);
    free(t.label_piece);
    return failed;
}

static bool is_label(const struct npy_table *t, const char *path) {
    for (size_t i = 0; i < t->labels.n; i++)
        if (strcmp(t->labels.paths[i], path) == 0) return true;
    return false;
}

/* The labels may lie in the arrays' folder. */
static int list_files(struct npy_table *t, struct sm_err *err) {
    const struct sm_pipeline_source *s = t->b.scan->source;
    if (s->categorical.count > 0)
        return sm_fail(err, SM_E_PIPELINE,
                       "source.categorical: the columns of an npy array are numbers");
    if (s->numeric.count > 0)
        return sm_fail(err, SM_E_PIPELINE,
                       "source.numeric: the columns of an npy array are numbers anyway");
    if (sm_files_list(&t->arrays, s->path, ".npy", err) != 0) return -1;
    if (s->label == NULL) return 0;
    char path[2 * SM_MAX_PATH_BYTES];
    snprintf(path, sizeof path, "%s%s%s", s->label[0] == '/' ? "" : t->b.scan->root,
             s->label[0] == '/' ? "" : "/", s->label);
    if (sm_files_list(&t->labels, path, ".npy", err) != 0)
        return err == NULL || err->code != SM_E_MISSING
                   ? sm_err_context(err, "source.label")
                   : sm_fail(err, SM_E_MISSING,
                             "source.label: '%s' is not there (hint: a path seen from the data's "
                             "folder, '%s')",
                             path, t->b.scan->root);
    size_t kept = 0;
    for (size_t i = 0; i < t->arrays.n; i++) {
        if (is_label(t, t->arrays.paths[i]))
            free(t->arrays.paths[i]);
        else
            t->arrays.paths[kept++] = t->arrays.paths[i];
    }
    t->arrays.n = kept;
    return kept > 0 ? 0
                    : sm_fail(err, SM_E_DATASET, "'%s' has no array beside the labels", s->path);
}

static int open_array(const char *path, int *fd, struct sm_npy *npy, struct stat *st,
                      struct sm_err *err) {
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd < 0) return sm_fail_errno(err, "cannot open '%s'", path);
    if (fstat(*fd, st) != 0 || !S_ISREG(st->st_mode))
        return sm_fail(err, SM_E_DATASET, "'%s' is not a file", path);
    return sm_npy_header(*fd, path, (uint64_t)st->st_size, npy, err);
}

/* The columns are called x0, x1, … as scikit-learn calls what has no names. */
static int name_columns(struct npy_table *t, uint64_t n, struct sm_err *err) {
    const char *by = t->b.scan->source->group;
    t->group = UINT32_MAX;
    if (by != NULL) {
        const char *number = by[0] == 'x' ? by + 1 : by;
        size_t digits = strspn(number, "0123456789");
        unsigned long at =
            digits > 0 && digits < 9 && number[digits] == 0 ? strtoul(number, NULL, 10) : n;
        if (at >= n)
            return sm_fail(err, SM_E_PIPELINE, "split.by '%s': the arrays have columns 0 to %llu",
                           by, (unsigned long long)n - 1);
        t->group = (uint32_t)at;
        t->b.has_groups = true;
    }
    t->b.columns = calloc(n, sizeof *t->b.columns);
    if (t->b.columns == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < n; c++) {
        if (c == t->group) continue;
        if (asprintf(&t->b.columns[t->b.n_columns].name, "x%u", c) < 0)
            return sm_fail(err, SM_E_MEMORY, "out of memory");
        t->b.n_columns++;
    }
    return t->b.n_columns > 0 ? 0
                              : sm_fail(err, SM_E_DATASET, "the arrays have no column of features");
}

static int check_shape(const struct npy_table *t, const char *path, const struct sm_npy *npy,
                       uint64_t columns, struct sm_err *err) {
    if (npy->ndim != 2 || npy->type >= SM_NPY_TEXT)
        return sm_fail(err, SM_E_DATASET,
                       "'%s' is no matrix of numbers (hint: two axes, rows and columns)", path);
    if (npy->shape[1] == 0 || npy->shape[1] > SM_MAX_TABLE_COLUMNS)
        return sm_fail(err, SM_E_DATASET, "'%s' has %llu columns, not 1 to %d", path,
                       (unsigned long long)npy->shape[1], SM_MAX_TABLE_COLUMNS);
    if (npy->shape[1] != columns)
        return sm_fail(err, SM_E_DATASET, "'%s' has %llu columns, '%s' has %llu", path,
                       (unsigned long long)npy->shape[1], t->arrays.paths[0],
                       (unsigned long long)columns);
    if (npy->shape[0] > SM_MAX_TABLE_ROWS)
        return sm_fail(err, SM_E_DATASET, "'%s' has more than %d rows", path, SM_MAX_TABLE_ROWS);
    return 0;
}

static int read_headers(struct npy_table *t, struct sm_err *err) {
    t->b.is_double = t->b.scan->source->float64;
    uint64_t columns = 0, row = 0;
    for (size_t i = 0; i < t->arrays.n; i++) {
        int fd;
        struct sm_npy npy;
        struct stat st;
        int failed = open_array(t->arrays.paths[i], &fd, &npy, &st, err);
        if (fd >= 0) close(fd);
        if (i == 0 && !failed) columns = npy.shape[1];
        if (!failed) failed = check_shape(t, t->arrays.paths[i], &npy, columns, err);
        if (i == 0 && !failed) failed = name_columns(t, columns, err);
        if (failed) return -1;
        struct sm_index_file *f = &t->b.files[i];
        f->first = row;
        f->rows = npy.shape[0];
        f->file_bytes = (uint64_t)st.st_size;
        t->b.times[i] = sm_fs_mtime_ns(&st);
        f->data = npy.data;
        f->type = (uint32_t)npy.type;
        f->columns = (uint32_t)columns;
        f->skip = t->group;
        row += f->rows;
        t->b.is_double = t->b.is_double || !sm_npy_is_single(npy.type);
    }
    return 0;
}

/* The column of the first infinity of a row, or -1. */
static long find_infinity(const struct sm_index_file *f, const uint8_t *row) {
    for (uint32_t c = 0; c < f->columns; c++) {
        float f32 = 0;
        double f64 = 0;
        if (c == f->skip) continue;
        if (f->type == SM_NPY_F4) memcpy(&f32, row + c * sizeof f32, sizeof f32);
        if (f->type == SM_NPY_F8) memcpy(&f64, row + c * sizeof f64, sizeof f64);
        if (isinf(f32) || isinf(f64)) return c;
    }
    return -1;
}

static int take_row(struct npy_table *t, size_t i, const uint8_t *row, struct sm_err *err) {
    const struct sm_index_file *f = &t->b.files[i];
    const size_t item = sm_npy_item((int)f->type);
    char label[LABEL_BYTES] = "", text[64];
    int got = t->labels.n > 0 ? next_label(t, label, err) : 1;
    if (got == 0) {
        const struct sm_index_file *last = &t->b.files[t->arrays.n - 1];
        got = sm_fail(err, SM_E_DATASET, "there are fewer labels in '%s' than rows: %llu for %llu",
                      t->b.scan->source->label, (unsigned long long)t->row,
                      (unsigned long long)(last->first + last->rows));
    }
    if (got < 0) return -1;
    long infinite = f->type <= SM_NPY_F8 ? find_infinity(f, row) : -1;
    if (infinite >= 0) {
        uint64_t in_file = t->row - f->first;
        const struct sm_index_bad_row bad = {.row = t->row,
                                             .line = in_file + 1,
                                             .offset = f->data + in_file * f->columns * item,
                                             .file = (uint32_t)i,
                                             .code = SM_E_DECODE};
        snprintf(text, sizeof text, "an infinity in column 'x%ld'", infinite);
        return sm_table_bad(&t->b, &bad, text, err);
    }
    uint64_t group = t->group == UINT32_MAX ? 0 : XXH3_64bits(row + t->group * item, item);
    return sm_table_row(&t->b, label, strlen(label), group, err);
}

static int read_array(struct npy_table *t, size_t i, struct sm_err *err) {
    const char *path = t->arrays.paths[i];
    const struct sm_index_file *f = &t->b.files[i];
    const size_t row = f->columns * sm_npy_item((int)f->type);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return sm_fail_errno(err, "cannot open '%s'", path);
    XXH3_state_t *hash = XXH3_createState();
    int failed = hash == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) XXH3_128bits_reset(hash);
    const uint64_t end = f->data + f->rows * row;
    for (uint64_t at = 0; at < end && !failed;) {
        bool rows = at >= f->data;
        uint64_t stop = rows ? end : f->data;
        size_t n = rows ? PIECE_BYTES / row * row : PIECE_BYTES;
        if (n > stop - at) n = (size_t)(stop - at);
        if (sm_fs_pread(fd, t->piece, n, at) != (ssize_t)n)
            failed = sm_fail(err, SM_E_CHANGED, "'%s' became shorter while it was read", path);
        if (!failed) XXH3_128bits_update(hash, t->piece, n);
        for (size_t k = 0; rows && k < n && !failed; k += row, t->row++)
            failed = take_row(t, i, t->piece + k, err);
        at += n;
    }
    if (!failed) {
        XXH128_canonical_t sum;
        XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(hash));
        memcpy(t->b.files[i].digest, sum.digest, sizeof sum.digest);
    }
    XXH3_freeState(hash);
    close(fd);
    return failed;
}

/* UTF-32 to UTF-8; the padding's NULs end it. */
static void put_text(const uint8_t *from, size_t n, char *out) {
    for (size_t i = 0; i < n; i += 4) {
        uint32_t c;
        memcpy(&c, from + i, 4);
        if (c == 0) break;
        if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) c = 0xFFFD;
        if (c < 0x80) {
            *out++ = (char)c;
        } else if (c < 0x800) {
            *out++ = (char)(0xC0 | c >> 6);
            *out++ = (char)(0x80 | (c & 63));
        } else if (c < 0x10000) {
            *out++ = (char)(0xE0 | c >> 12);
            *out++ = (char)(0x80 | (c >> 6 & 63));
            *out++ = (char)(0x80 | (c & 63));
        } else {
            *out++ = (char)(0xF0 | c >> 18);
            *out++ = (char)(0x80 | (c >> 12 & 63));
            *out++ = (char)(0x80 | (c >> 6 & 63));
            *out++ = (char)(0x80 | (c & 63));
        }
    }
    *out = 0;
}

/* A label as text: a whole number in decimal digits, a word as it is. */
static void format_label(const struct sm_npy *npy, const uint8_t *from, char text[LABEL_BYTES]) {
    uint64_t u = 0;
    int64_t v = 0;
    memcpy(&u, from, npy->item < sizeof u ? npy->item : sizeof u);
    switch (npy->type) {
    case SM_NPY_I1:
        v = (int8_t)u;
        break;
    case SM_NPY_I2:
        v = (int16_t)u;
        break;
    case SM_NPY_I4:
        v = (int32_t)u;
        break;
    default:
        v = (int64_t)u;
    }
    if (npy->type == SM_NPY_TEXT)
        put_text(from, npy->item, text);
    else if (npy->type == SM_NPY_BYTES)
        snprintf(text, LABEL_BYTES, "%.*s", (int)npy->item, (const char *)from);
    else if (npy->type >= SM_NPY_I1 && npy->type <= SM_NPY_I8)
        snprintf(text, LABEL_BYTES, "%lld", (long long)v);
    else
        snprintf(text, LABEL_BYTES, "%llu", (unsigned long long)u);
}

/* 1: the next file of labels is open; 0: there is none; -1. */
static int open_labels(struct npy_table *t, struct sm_err *err) {
    if (t->label_fd >= 0) close(t->label_fd);
    t->label_fd = -1;
    if (t->label_file == t->labels.n) return 0;
    const char *path = t->labels.paths[t->label_file++];
    struct stat st;
    if (open_array(path, &t->label_fd, &t->label, &st, err) != 0) return -1;
    t->label_next = t->label_piece_first = t->label_piece_n = 0;
    if (t->label.shape[1] != 1 || t->label.type <= SM_NPY_F8 || t->label.item > LABEL_BYTES / 2)
        return sm_fail(err, SM_E_DATASET,
                       "'%s' holds no labels (hint: one axis of integers or short names)", path);
    return 1;
}

/* 1: a label; 0: there is none left; -1. */
static int next_label(struct npy_table *t, char text[LABEL_BYTES], struct sm_err *err) {
    while (t->label_fd < 0 || t->label_next == t->label.shape[0]) {
        const int opened = open_labels(t, err);
        if (opened <= 0) return opened;
    }
    const size_t item = t->label.item;
    if (t->label_next == t->label_piece_first + t->label_piece_n) {
        uint64_t left = t->label.shape[0] - t->label_next;
        size_t n = PIECE_BYTES / item < left ? PIECE_BYTES / item : (size_t)left;
        if (sm_fs_pread(t->label_fd, t->label_piece, n * item,
                        t->label.data + t->label_next * item) != (ssize_t)(n * item))
            return sm_fail(err, SM_E_CHANGED, "'%s' became shorter while it was read",
                           t->labels.paths[t->label_file - 1]);
        t->label_piece_first = t->label_next;
        t->label_piece_n = n;
    }
    format_label(&t->label, t->label_piece + (t->label_next - t->label_piece_first) * item, text);
    XXH3_128bits_update(t->label_hash, text, strlen(text) + 1);
    t->label_next++;
    return 1;
}

/* Behind the last row: every file of labels is looked at, even when the rows had enough. */
static int no_label_left(struct npy_table *t, struct sm_err *err) {
    char text[LABEL_BYTES];
    const int got = next_label(t, text, err);
    if (got <= 0) return got;
    return sm_fail(err, SM_E_DATASET, "there are more labels in '%s' than the %llu rows",
                   t->b.scan->source->label, (unsigned long long)t->row);
}
