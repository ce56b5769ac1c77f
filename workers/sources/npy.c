/* See npy.h: the header's one line of Python is read by hand, with limits, because an array may
 * come from anywhere. npy_table.c scans with it, table_read.c reads rows. */
#include "workers/sources/npy.h"

#include "lib/fs.h"
#include "lib/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX_BYTES = 12, MAGIC_BYTES = 6, ITEM_BYTES_MAX = 4096 };

static const struct {
    char letter;
    uint8_t item; /* bytes; 0: as the header says */
    bool single;
} types[SM_NPY_TYPES] = {
    [SM_NPY_F4] = {'f', 4, true},     [SM_NPY_F8] = {'f', 8, false},
    [SM_NPY_I1] = {'i', 1, true},     [SM_NPY_I2] = {'i', 2, true},
    [SM_NPY_I4] = {'i', 4, false},    [SM_NPY_I8] = {'i', 8, false},
    [SM_NPY_U1] = {'u', 1, true},     [SM_NPY_U2] = {'u', 2, true},
    [SM_NPY_U4] = {'u', 4, false},    [SM_NPY_U8] = {'u', 8, false},
    [SM_NPY_BOOL] = {'b', 1, true},   [SM_NPY_TEXT] = {'U', 0, false},
    [SM_NPY_BYTES] = {'S', 0, false},
};

static int parse_header(const char *text, struct sm_npy *out, bool *fortran);

bool sm_npy_is_single(int type) {
    return types[type].single;
}

size_t sm_npy_item(int type) {
    return types[type].item;
}

int sm_npy_header(int fd, const char *name, uint64_t file_bytes, struct sm_npy *out,
                  struct sm_err *err) {
    unsigned char prefix[PREFIX_BYTES];
    ssize_t got = sm_fs_pread(fd, prefix, sizeof prefix, 0);
    if (got < 0) return sm_fail_errno(err, "cannot read '%s'", name);
    if (got < PREFIX_BYTES || memcmp(prefix, "\x93NUMPY", MAGIC_BYTES) != 0)
        return sm_fail(err, SM_E_DATASET, "'%s' is no .npy file (hint: numpy.save)", name);
    bool old = prefix[MAGIC_BYTES] == 1;
    size_t start = old ? 10 : 12, n = (size_t)prefix[8] | (size_t)prefix[9] << 8;
    if (!old) n |= (size_t)prefix[10] << 16 | (size_t)prefix[11] << 24;
    if (prefix[MAGIC_BYTES] < 1 || prefix[MAGIC_BYTES] > 3 || n > SM_MAX_NPY_HEADER_BYTES)
        return sm_fail(err, SM_E_DATASET, "'%s' has a header that numpy does not write", name);
    char *text = calloc(1, n + 1);
    if (text == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *out = (struct sm_npy){.data = start + n};
    bool fortran = false;
    bool ok = sm_fs_pread(fd, text, n, start) == (ssize_t)n && strlen(text) == n &&
              parse_header(text, out, &fortran) == 0;
    text[n < 100 ? n : 100] = 0;
    text[strcspn(text, "\n")] = 0;
    int failed = 0;
    uint64_t elements, bytes;
    if (!ok)
        failed = sm_fail(err, SM_E_DATASET,
                         "'%s' has a header that is not read here: %s (hint: one or two axes of "
                         "little-endian f4, f8, i1 to i8, u1 to u8, bool; labels also U or S)",
                         name, text);
    else if (fortran && out->ndim > 1)
        failed = sm_fail(err, SM_E_DATASET,
                         "'%s' lies column by column (hint: numpy.save(…, "
                         "numpy.ascontiguousarray(a)))",
                         name);
    else if (__builtin_mul_overflow(out->shape[0], out->shape[1], &elements) ||
             __builtin_mul_overflow(elements, out->item, &bytes) || out->data > file_bytes ||
             bytes > file_bytes - out->data)
        failed = sm_fail(err, SM_E_DATASET, "'%s' ends before its %llu x %llu elements do", name,
                         (unsigned long long)out->shape[0], (unsigned long long)out->shape[1]);
    free(text);
    return failed;
}

static const char *skip_blanks(const char *p) {
    return p + strspn(p, " \t\n");
}

/* After a comma or before the closing bracket. */
static bool take(const char **p, const char *token) {
    *p = skip_blanks(*p);
    if (strncmp(*p, token, strlen(token)) != 0) return false;
    *p += strlen(token);
    return true;
}

static bool take_descr(const char **p, struct sm_npy *out) {
    if (!take(p, "'")) return false;
    char order = *(*p)++;
    if (order == 0) return false;
    char letter = *(*p)++;
    if (letter == 0 || strspn(*p, "0123456789") > 6) return false;
    char *end;
    unsigned long size = strtoul(*p, &end, 10);
    if (end == *p || *end != '\'') return false;
    *p = end + 1;
    for (int i = 0; i < SM_NPY_TYPES; i++) {
        if (types[i].letter != letter || (types[i].item != 0 && types[i].item != size)) continue;
        out->type = i;
        out->item = i == SM_NPY_TEXT ? 4 * size : size;
        bool bytes = size == 1 || i == SM_NPY_BYTES;
        return size > 0 && out->item <= ITEM_BYTES_MAX && (order == '<' || (order == '|' && bytes));
    }
    return false;
}

static bool take_shape(const char **p, struct sm_npy *out) {
    if (!take(p, "(")) return false;
    out->shape[0] = out->shape[1] = 1;
    out->ndim = 0;
    while (!take(p, ")")) {
        size_t digits = strspn(*p, "0123456789");
        if (digits == 0 || digits > 18 || out->ndim == 2) return false;
        out->shape[out->ndim++] = strtoull(*p, NULL, 10);
        *p += digits;
        if (take(p, ")")) break;
        if (!take(p, ",")) return false;
    }
    return out->ndim > 0;
}

static int parse_header(const char *p, struct sm_npy *out, bool *fortran) {
    bool descr = false, order = false, shape = false;
    if (!take(&p, "{")) return -1;
    while (!take(&p, "}")) {
        bool ok = false;
        if (take(&p, "'descr':"))
            ok = descr = take_descr(&p, out);
        else if (take(&p, "'fortran_order':"))
            ok = order = (*fortran = take(&p, "True")) || take(&p, "False");
        else if (take(&p, "'shape':"))
            ok = shape = take_shape(&p, out);
        if (!ok || (!take(&p, ",") && *skip_blanks(p) != '}')) return -1;
    }
    return descr && order && shape && *skip_blanks(p) == 0 ? 0 : -1;
}

bool sm_npy_fits(const struct sm_index_file *f, uint64_t columns) {
    if (f->type >= SM_NPY_TEXT) return false;
    const uint64_t own = columns + (f->skip != UINT32_MAX);
    return f->columns == own && (f->skip == UINT32_MAX || f->skip < own) &&
           f->data <= f->file_bytes &&
           f->rows <= (f->file_bytes - f->data) / (own * types[f->type].item);
}

/* One loop for each pair of types, so that none has a switch inside. */
#define CONVERT(from_type, to_type)                        \
    do {                                                   \
        const from_type *s = from;                         \
        to_type *d = to;                                   \
        for (size_t r = 0; r < n; r++)                     \
            for (uint32_t c = 0; c < f->columns; c++, s++) \
                if (c != f->skip) *d++ = (to_type)*s;      \
    } while (0)
#define CONVERT_TO(from_type)       \
    if (is_double)                  \
        CONVERT(from_type, double); \
    else                            \
        CONVERT(from_type, float);  \
    return

void sm_npy_convert(const struct sm_index_file *f, const void *from, size_t n, bool is_double,
                    void *to) {
    if (f->skip == UINT32_MAX && (int)f->type == (is_double ? SM_NPY_F8 : SM_NPY_F4)) {
        memcpy(to, from, n * f->columns * types[f->type].item);
        return;
    }
    switch (f->type) {
    case SM_NPY_F4:
        CONVERT_TO(float);
    case SM_NPY_F8:
        CONVERT_TO(double);
    case SM_NPY_I1:
        CONVERT_TO(int8_t);
    case SM_NPY_I2:
        CONVERT_TO(int16_t);
    case SM_NPY_I4:
        CONVERT_TO(int32_t);
    case SM_NPY_I8:
        CONVERT_TO(int64_t);
    case SM_NPY_U2:
        CONVERT_TO(uint16_t);
    case SM_NPY_U4:
        CONVERT_TO(uint32_t);
    case SM_NPY_U8:
        CONVERT_TO(uint64_t);
    default:
        CONVERT_TO(uint8_t);
    }
}
