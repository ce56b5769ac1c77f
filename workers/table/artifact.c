/* Artifacts as .npz files: a zip archive without compression, one .npy for each array, in which
 * every byte follows from the arrays. Reading trusts nothing: each header is compared with what
 * writing would have put there. */
#include "workers/table/artifact.h"

#include "lib/fs.h"
#include "lib/limits.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    LOCAL_BYTES = 30,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    NAME_MAX_BYTES = SM_ARRAY_NAME_MAX + 4,
    NPY_MAX = 256,
    ALIGN = 64,
    DOS_DATE = 0x21, /* 1980-01-01, the first that a zip can hold */
};

static const struct {
    const char *descr;
    size_t bytes;
} types[] = {[SM_ARRAY_F64] = {"<f8", 8},
             [SM_ARRAY_F32] = {"<f4", 4},
             [SM_ARRAY_I64] = {"<i8", 8},
             [SM_ARRAY_U32] = {"<u4", 4},
             [SM_ARRAY_U8] = {"|u1", 1}};

/* Where the parts of one array lie in the file. */
struct entry {
    uint64_t local, npy, data, end;
    char name[NAME_MAX_BYTES + 1];
    char header[NPY_MAX]; /* of the .npy */
    size_t header_n, pad; /* pad: bytes of the local header's extra field, which aligns the data */
    uint64_t bytes;       /* of the data */
    uint32_t crc;
};

static int lay_out(const struct sm_artifact *a, struct entry entries[], uint64_t *total,
                   struct sm_err *err);
static int parse(struct sm_artifact *a, const uint8_t *bytes, uint64_t n, struct sm_err *err);

size_t sm_array_bytes(int type) {
    assert(type >= 0 && (size_t)type < sizeof types / sizeof *types);
    return types[type].bytes;
}

void sm_artifact_add(struct sm_artifact *a, const char *name, int type, uint64_t rows,
                     uint64_t columns, const void *data) {
    assert(a->n < SM_ARTIFACT_ARRAYS_MAX && strlen(name) < SM_ARRAY_NAME_MAX);
    struct sm_array *array = &a->arrays[a->n++];
    *array = (struct sm_array){
        .type = type, .ndim = columns > 0 ? 2 : 1, .shape = {rows, columns}, .data = data};
    strcpy(array->name, name);
}

const struct sm_array *sm_artifact_find(const struct sm_artifact *a, const char *name) {
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->arrays[i].name, name) == 0) return &a->arrays[i];
    return NULL;
}

static void put16(uint8_t *at, uint32_t v) {
    at[0] = (uint8_t)v;
    at[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *at, uint32_t v) {
    put16(at, v);
    put16(at + 2, v >> 16);
}

static uint32_t get16(const uint8_t *at) {
    return at[0] | (uint32_t)at[1] << 8;
}

static uint32_t get32(const uint8_t *at) {
    return get16(at) | get16(at + 2) << 16;
}

/* --- layout ----------------------------------------------------------------------------------- */

static bool array_bytes(const struct sm_array *a, uint64_t *bytes) {
    const uint64_t max = SM_MAX_ARTIFACT_BYTES;
    if (a->type < 0 || (size_t)a->type >= sizeof types / sizeof *types || a->ndim < 1 ||
        a->ndim > 2)
        return false;
    uint64_t n = types[a->type].bytes;
    for (int i = 0; i < a->ndim; i++) {
        if (a->shape[i] != 0 && n > max / a->shape[i]) return false;
        n *= a->shape[i];
    }
    *bytes = n;
    return true;
}

/* numpy's format 1.0, padded so that header and data together begin on 64 bytes. */
static void npy_header(const struct sm_array *a, struct entry *e) {
    char shape[64], dict[NPY_MAX];
    if (a->ndim == 1)
        snprintf(shape, sizeof shape, "(%llu,)", (unsigned long long)a->shape[0]);
    else
        snprintf(shape, sizeof shape, "(%llu, %llu)", (unsigned long long)a->shape[0],
                 (unsigned long long)a->shape[1]);
    int n = snprintf(dict, sizeof dict, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                     types[a->type].descr, shape);
    e->header_n = ((size_t)n + 11 + ALIGN - 1) / ALIGN * ALIGN;
    assert(e->header_n <= NPY_MAX);
    memset(e->header, ' ', e->header_n);
    memcpy(e->header, "\x93NUMPY\x01", 8);
    e->header[8] = (char)((e->header_n - 10) & 0xff);
    e->header[9] = (char)((e->header_n - 10) >> 8);
    memcpy(e->header + 10, dict, (size_t)n);
    e->header[e->header_n - 1] = '\n';
}

static int lay_out(const struct sm_artifact *a, struct entry entries[], uint64_t *total,
                   struct sm_err *err) {
    uint64_t at = 0, central = 0;
    if (a->n == 0 || a->n > SM_ARTIFACT_ARRAYS_MAX)
        return sm_fail(err, SM_E_INTERNAL, "an artifact of %zu arrays", a->n);
    for (size_t i = 0; i < a->n; i++) {
        struct entry *e = &entries[i];
        *e = (struct entry){.local = at};
        if (!array_bytes(&a->arrays[i], &e->bytes))
            return sm_fail(err, SM_E_TOO_LARGE, "the array '%s' of an artifact is too large",
                           a->arrays[i].name);
        snprintf(e->name, sizeof e->name, "%s.npy", a->arrays[i].name);
        npy_header(&a->arrays[i], e);
        const uint64_t plain = at + LOCAL_BYTES + strlen(e->name);
        e->pad = (size_t)((plain + 4 + ALIGN - 1) / ALIGN * ALIGN - plain); /* 4: its own head */
        e->npy = plain + e->pad;
        e->data = e->npy + e->header_n;
        at = e->end = e->data + e->bytes;
        central += CENTRAL_BYTES + strlen(e->name);
    }
    *total = at + central + END_BYTES;
    if (*total > SM_MAX_ARTIFACT_BYTES)
        return sm_fail(err, SM_E_TOO_LARGE, "an artifact of %llu bytes, at most %llu",
                       (unsigned long long)*total, (unsigned long long)SM_MAX_ARTIFACT_BYTES);
    return 0;
}

uint64_t sm_artifact_size(const struct sm_artifact *a) {
    struct entry entries[SM_ARTIFACT_ARRAYS_MAX];
    uint64_t total;
    return lay_out(a, entries, &total, NULL) == 0 ? total : 0;
}

/* The fields that local and central header share, from "version needed" on. */
static void common_put(uint8_t *at, const struct entry *e, size_t extra) {
    const uint32_t size = (uint32_t)(e->header_n + e->bytes);
    put16(at, 20);
    put16(at + 2, 0);
    put16(at + 4, 0); /* stored */
    put16(at + 6, 0);
    put16(at + 8, DOS_DATE);
    put32(at + 10, e->crc);
    put32(at + 14, size);
    put32(at + 18, size);
    put16(at + 22, (uint32_t)strlen(e->name));
    put16(at + 24, (uint32_t)extra);
}

/* Everything ahead of the data: n bytes of out. */
static size_t local_write(const struct entry *e, uint8_t out[]) {
    memset(out, 0, (size_t)(e->data - e->local));
    put32(out, 0x04034b50);
    common_put(out + 4, e, e->pad);
    memcpy(out + LOCAL_BYTES, e->name, strlen(e->name));
    uint8_t *extra = out + LOCAL_BYTES + strlen(e->name);
    put16(extra, 0x4d53); /* a field of our own, of zeros */
    put16(extra + 2, (uint32_t)e->pad - 4);
    memcpy(out + (e->npy - e->local), e->header, e->header_n);
    return (size_t)(e->data - e->local);
}

static size_t central_write(const struct entry *e, uint8_t out[]) {
    memset(out, 0, CENTRAL_BYTES);
    put32(out, 0x02014b50);
    put16(out + 4, 20);
    common_put(out + 6, e, 0);
    put32(out + 42, (uint32_t)e->local);
    memcpy(out + CENTRAL_BYTES, e->name, strlen(e->name));
    return CENTRAL_BYTES + strlen(e->name);
}

static void end_write(const struct entry *entries, size_t n, uint64_t total, uint8_t out[]) {
    const uint64_t central = entries[n - 1].end;
    memset(out, 0, END_BYTES);
    put32(out, 0x06054b50);
    put16(out + 8, (uint32_t)n);
    put16(out + 10, (uint32_t)n);
    put32(out + 12, (uint32_t)(total - END_BYTES - central));
    put32(out + 16, (uint32_t)central);
}

enum { HEAD_MAX = LOCAL_BYTES + NAME_MAX_BYTES + ALIGN + 4 + NPY_MAX };

/* Hands every byte of the file to put, in order. */
static int each_piece(const struct sm_artifact *a, const struct entry *entries, uint64_t total,
                      int (*put)(void *to, const void *bytes, size_t n, struct sm_err *err),
                      void *to, struct sm_err *err) {
    uint8_t head[HEAD_MAX];
    for (size_t i = 0; i < a->n; i++)
        if (put(to, head, local_write(&entries[i], head), err) != 0 ||
            put(to, a->arrays[i].data, entries[i].bytes, err) != 0)
            return -1;
    for (size_t i = 0; i < a->n; i++)
        if (put(to, head, central_write(&entries[i], head), err) != 0) return -1;
    end_write(entries, a->n, total, head);
    return put(to, head, END_BYTES, err);
}

static uint32_t crc_of(const struct sm_array *a, const struct entry *e) {
    uLong crc = crc32_z(0, (const Bytef *)e->header, e->header_n);
    return (uint32_t)crc32_z(crc, a->data, e->bytes);
}

/* --- writing ---------------------------------------------------------------------------------- */

static int hash_put(void *to, const void *bytes, size_t n, struct sm_err *err) {
    (void)err;
    sm_hash_add(to, bytes, n);
    return 0;
}

static int file_put(void *to, const void *bytes, size_t n, struct sm_err *err) {
    return sm_newfile_add(to, bytes, n, err);
}

int sm_artifact_write(struct sm_artifact *a, const char *dir, struct sm_err *err) {
    struct entry entries[SM_ARTIFACT_ARRAYS_MAX];
    uint64_t total;
    char path[SM_MAX_PATH_BYTES];
    if (lay_out(a, entries, &total, err) != 0) return -1;
    for (size_t i = 0; i < a->n; i++)
        entries[i].crc = crc_of(&a->arrays[i], &entries[i]);
    struct sm_hash *hash = sm_hash_new_sha256();
    if (hash == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    each_piece(a, entries, total, hash_put, hash, err);
    sm_hash_end(&hash, a->sha256);
    a->bytes = total;
    if (snprintf(path, sizeof path, "%s/%s.npz", dir, a->sha256) >= (int)sizeof path)
        return sm_fail(err, SM_E_USAGE, "the path of '%s' is too long", dir);
    struct sm_artifact there; /* a damaged one is replaced */
    if (sm_artifact_open(&there, dir, a->sha256, NULL) == 0) {
        sm_artifact_close(&there);
        return 0;
    }
    if (sm_fs_mkdirs(dir, err) != 0) return -1;
    struct sm_newfile *file;
    if (sm_newfile_open(&file, path, err) != 0) return -1;
    int failed = each_piece(a, entries, total, file_put, file, err);
    if (!failed) failed = sm_newfile_commit(&file, err);
    sm_newfile_abandon(&file);
    return failed;
}

/* --- reading ---------------------------------------------------------------------------------- */

int sm_artifact_open(struct sm_artifact *a, const char *dir, const char *sha256,
                     struct sm_err *err) {
    char path[SM_MAX_PATH_BYTES];
    struct stat st;
    *a = (struct sm_artifact){0};
    if (!sm_is_hex(sha256, SM_SHA_HEX - 1))
        return sm_fail(err, SM_E_PROTOCOL, "'%.80s' is no SHA-256 of an artifact", sha256);
    if (snprintf(path, sizeof path, "%s/%s.npz", dir, sha256) >= (int)sizeof path)
        return sm_fail(err, SM_E_USAGE, "the path of '%s' is too long", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return sm_fail(err, SM_E_MISSING,
                       "what was learned is not there: '%s' (hint: shardmill fit)", path);
    if (fd < 0) return sm_fail_errno(err, "cannot open '%s'", path);
    void *map = MAP_FAILED;
    if (fstat(fd, &st) == 0 && st.st_size > END_BYTES && st.st_size <= SM_MAX_ARTIFACT_BYTES)
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (map == MAP_FAILED)
        return sm_fail(err, SM_E_CHANGED, "'%s' is not an artifact (hint: remove it)", path);
    char found[SM_SHA_HEX];
    sm_sha256(map, (size_t)st.st_size, found);
    int failed = strcmp(found, sha256) != 0
                     ? sm_fail(err, SM_E_CHANGED,
                               "'%s' does not hold what its name says (hint: remove it)", path)
                     : parse(a, map, (uint64_t)st.st_size, err);
    if (failed) {
        munmap(map, (size_t)st.st_size);
        *a = (struct sm_artifact){0};
        return -1;
    }
    a->map = map;
    return 0;
}

int sm_artifact_read(struct sm_artifact *a, const void *bytes, uint64_t n, struct sm_err *err) {
    *a = (struct sm_artifact){0};
    char found[SM_SHA_HEX];
    sm_sha256(bytes, n, found);
    if (parse(a, bytes, n, err) == 0) {
        memcpy(a->sha256, found, sizeof found);
        return 0;
    }
    *a = (struct sm_artifact){0};
    return -1;
}

void sm_artifact_close(struct sm_artifact *a) {
    if (a->release != NULL) a->release(a->prepared);
    if (a->map != NULL) munmap(a->map, a->bytes);
    *a = (struct sm_artifact){0};
}

/* Reads one array's type and shape out of its .npy header. */
static bool npy_parse(const uint8_t *at, uint64_t left, struct sm_array *a) {
    char text[NPY_MAX + 1], descr[8], shape[64];
    if (left < 10 || memcmp(at, "\x93NUMPY\x01", 8) != 0) return false;
    const size_t n = get16(at + 8);
    if (n + 10 > NPY_MAX || n + 10 > left) return false;
    memcpy(text, at + 10, n);
    text[n] = 0;
    if (sscanf(text, "{'descr': '%7[^']', 'fortran_order': False, 'shape': (%63[^)])", descr,
               shape) != 2)
        return false;
    unsigned long long rows, columns;
    int end = 0;
    a->type = -1;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        if (strcmp(types[t].descr, descr) == 0) a->type = (int)t;
    if (sscanf(shape, "%llu, %llu%n", &rows, &columns, &end) == 2 && shape[end] == 0)
        a->ndim = 2;
    else if (sscanf(shape, "%llu,%n", &rows, &end) == 1 && end > 0 && shape[end] == 0)
        a->ndim = 1, columns = 0;
    else
        return false;
    a->shape[0] = rows;
    a->shape[1] = columns;
    return a->type >= 0;
}

/* What is read must be what would be written: names and shapes are taken from the headers, the file
 * laid out anew, and every byte beside the data compared. */
static int parse(struct sm_artifact *a, const uint8_t *bytes, uint64_t n, struct sm_err *err) {
    struct entry entries[SM_ARTIFACT_ARRAYS_MAX];
    uint64_t at = 0, total;
    static const char wrong[] = "an artifact that was not written by shardmill";
    if (n > SM_MAX_ARTIFACT_BYTES) return sm_fail(err, SM_E_TOO_LARGE, "%s", wrong);
    while (at + LOCAL_BYTES < n && get32(bytes + at) == 0x04034b50) {
        const size_t name_n = get16(bytes + at + 26), extra_n = get16(bytes + at + 28);
        const uint64_t npy = at + LOCAL_BYTES + name_n + extra_n, size = get32(bytes + at + 18);
        struct sm_array *array = &a->arrays[a->n];
        if (a->n == SM_ARTIFACT_ARRAYS_MAX || name_n <= 4 || name_n > NAME_MAX_BYTES - 1 ||
            npy > n || size > n - npy || !npy_parse(bytes + npy, n - npy, array))
            return sm_fail(err, SM_E_CHANGED, "%s", wrong);
        memcpy(array->name, bytes + at + LOCAL_BYTES, name_n - 4);
        array->name[name_n - 4] = 0;
        a->n++;
        at = npy + size;
    }
    if (a->n == 0 || lay_out(a, entries, &total, NULL) != 0 || total != n)
        return sm_fail(err, SM_E_CHANGED, "%s", wrong);
    uint8_t head[HEAD_MAX];
    uint64_t central = entries[a->n - 1].end;
    for (size_t i = 0; i < a->n; i++) {
        struct entry *e = &entries[i];
        a->arrays[i].data = bytes + e->data;
        e->crc = get32(bytes + e->local + 14);
        size_t length = local_write(e, head);
        if (memcmp(head, bytes + e->local, length) != 0)
            return sm_fail(err, SM_E_CHANGED, "%s", wrong);
        length = central_write(e, head);
        if (memcmp(head, bytes + central, length) != 0)
            return sm_fail(err, SM_E_CHANGED, "%s", wrong);
        central += length;
    }
    end_write(entries, a->n, total, head);
    if (memcmp(head, bytes + central, END_BYTES) != 0)
        return sm_fail(err, SM_E_CHANGED, "%s", wrong);
    a->bytes = n;
    return 0;
}
