/* The index of a dataset, mapped read-only (of a table without its matrix). Written by scan.c or
 * table_build.c, perhaps fetched from a broker; nothing in it is believed before its size, checksum
 * and every offset have been checked, so that later access needs no checks. */
#include "workers/sources/index_open.h"

#include "lib/fs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* The caches keep a piece between reading and hashing. It is aligned as the file's pages are: some
 * processors copy to a place a few bytes further on in a page several times slower. */
enum { PIECE_BYTES = 64 << 10, PAGE = 4096 };

static int open_bytes(struct sm_index *x, const char *name, struct sm_err *err);
static int check_sums(struct sm_index *x, const char *name, struct sm_err *err);
static int lay_out(struct sm_index *x, const char *name, struct sm_err *err);
static bool is_sound(const struct sm_index *x);
static int map_file(struct sm_index *x, const char *name, struct sm_err *err);

static struct sm_index *index_new(int fd, uint64_t n) {
    struct sm_index *x = calloc(1, sizeof *x);
    if (x == NULL) return NULL;
    x->fd = fd;
    x->n = n;
    return x;
}

int sm_index_open(struct sm_index **gives, const char *index_path, struct sm_err *err) {
    *gives = NULL;
    int fd = open(index_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return sm_fail_errno(err, "cannot open the index '%s'", index_path);
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
        close(fd);
        return sm_fail(err, SM_E_DATASET, "'%s' is not an index", index_path);
    }
    struct sm_index *x = index_new(fd, (uint64_t)st.st_size);
    if (x == NULL) {
        close(fd);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    if (check_sums(x, index_path, err) != 0 || map_file(x, index_path, err) != 0 ||
        open_bytes(x, index_path, err) != 0) {
        sm_index_close(&x);
        return -1;
    }
    *gives = x;
    return 0;
}

int sm_index_open_bytes(struct sm_index **gives, const void *bytes, size_t n, struct sm_err *err) {
    static const char name[] = "(from the broker)";
    *gives = NULL;
    assert((uintptr_t)bytes % 8 == 0);
    struct sm_index *x = index_new(-1, n);
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    x->bytes = bytes;
    if (check_sums(x, name, err) != 0 || open_bytes(x, name, err) != 0) {
        sm_index_close(&x);
        return -1;
    }
    *gives = x;
    return 0;
}

void sm_index_close(struct sm_index **xp) {
    struct sm_index *x = *xp;
    if (x == NULL) return;
    if (x->map != NULL) munmap(x->map, x->map_n);
    if (x->tables_map != NULL) munmap(x->tables_map, x->tables_map_n);
    if (x->fd >= 0) close(x->fd);
    if (x->table != NULL) sm_arena_release(&x->arena);
    free(x);
    *xp = NULL;
}

static int damaged(const char *name, const char *what, struct sm_err *err) {
    return sm_fail(err, SM_E_DATASET,
                   "the index '%s' is damaged: %s (hint: remove it, it is built again)", name,
                   what);
}

/* The next bytes of the index, from memory or from its file, which is read in pieces so that a
 * large matrix never lies in memory. */
static const uint8_t *piece_at(const struct sm_index *x, uint64_t at, size_t n, uint8_t *piece) {
    if (x->bytes != NULL) return x->bytes + at;
    return sm_fs_pread(x->fd, piece, n, at) == (ssize_t)n ? piece : NULL;
}

static void tell_digest(struct sm_index *x, const XXH3_state_t *hash) {
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(hash));
    for (size_t i = 0; i < sizeof sum.digest; i++)
        snprintf(x->digest + 2 * i, 3, "%02x", sum.digest[i]);
}

/* The digest, which leaves out the times; and the trailer, which is that of all before it. */
static int check_sums(struct sm_index *x, const char *name, struct sm_err *err) {
    if (x->n < sizeof *x->header + SM_INDEX_TRAILER) return damaged(name, "no header", err);
    uint8_t *piece = aligned_alloc(PAGE, PIECE_BYTES);
    XXH3_state_t *hash = XXH3_createState();
    int failed = piece == NULL || hash == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) XXH3_128bits_reset(hash);
    XXH128_canonical_t sum;
    const uint64_t sealed = x->n - SM_INDEX_TRAILER;
    uint64_t digested = sealed;
    for (uint64_t at = 0; at < x->n && !failed;) {
        uint64_t end = at < digested ? digested : at < sealed ? sealed : x->n;
        size_t n = end - at < PIECE_BYTES ? (size_t)(end - at) : PIECE_BYTES;
        const uint8_t *p = piece_at(x, at, n, piece);
        if (p == NULL) {
            failed = sm_fail(err, SM_E_IO, "cannot read the index '%s'", name);
        } else if (at == sealed) {
            XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(hash));
            if (memcmp(sum.digest, p, sizeof sum.digest) != 0)
                failed = damaged(name, "its checksum differs", err);
        }
        if (p != NULL && at == 0) digested = sm_index_digested(p, n, x->n);
        if (digested > sealed) digested = sealed; /* it is none, which check_header says */
        if (p != NULL && at == 0 && n > digested) n = (size_t)digested;
        if (p != NULL) XXH3_128bits_update(hash, p, n);
        at += n;
        if (p != NULL && at == digested) tell_digest(x, hash);
    }
    XXH3_freeState(hash);
    free(piece);
    return failed;
}

static int check_header(const struct sm_index *x, const char *name, struct sm_err *err) {
    const struct sm_index_header *h = (const void *)x->bytes;
    if (memcmp(h->magic, SM_INDEX_MAGIC, sizeof h->magic) != 0)
        return damaged(name, "no header", err);
    if (h->version != SM_INDEX_VERSION)
        return sm_fail(err, SM_E_DATASET, "the index '%s' has version %u, this program reads %d",
                       name, h->version, SM_INDEX_VERSION);
    return sm_index_strings(h, x->n) == 0 ? damaged(name, "wrong size", err) : 0;
}

/* Images: all of it. A table: its first page, and what stands behind the matrix. */
static int map_file(struct sm_index *x, const char *name, struct sm_err *err) {
    struct sm_index_header h;
    if (sm_fs_pread(x->fd, &h, sizeof h, 0) != (ssize_t)sizeof h)
        return sm_fail(err, SM_E_IO, "cannot read the index '%s'", name);
    bool table = h.kind == SM_INDEX_TABLE && x->n > SM_INDEX_MATRIX;
    x->map_n = table ? SM_INDEX_MATRIX : (size_t)x->n;
    void *map = mmap(NULL, x->map_n, PROT_READ, MAP_SHARED, x->fd, 0);
    if (map == MAP_FAILED) return sm_fail_errno(err, "cannot map '%s'", name);
    x->bytes = x->map = map;
    if (!table) {
        close(x->fd);
        x->fd = -1;
        return 0;
    }
    const struct sm_index_table *t = (const void *)(x->bytes + sizeof h);
    if (t->tables >= x->n) return damaged(name, "an offset leads outside", err);
    uint64_t from = t->tables / SM_INDEX_MATRIX * SM_INDEX_MATRIX;
    x->tables_map_n = (size_t)(x->n - from);
    map = mmap(NULL, x->tables_map_n, PROT_READ, MAP_SHARED, x->fd, (off_t)from);
    if (map == MAP_FAILED) return sm_fail_errno(err, "cannot map '%s'", name);
    x->tables_map = map;
    x->tables = (const uint8_t *)map + (t->tables - from);
    return 0;
}

static int open_bytes(struct sm_index *x, const char *name, struct sm_err *err) {
    if (check_header(x, name, err) != 0 || lay_out(x, name, err) != 0) return -1;
    if (!is_sound(x)) return damaged(name, "an offset leads outside", err);
    return x->table == NULL ? 0 : sm_table_make_schema(x, err);
}

/* Finds the tables; their sizes must make up the file exactly. */
static int lay_out(struct sm_index *x, const char *name, struct sm_err *err) {
    const struct sm_index_header *h = (const void *)x->bytes;
    x->header = h;
    if (h->kind == SM_INDEX_TABLE) {
        const struct sm_index_table *t = (const void *)(h + 1);
        if (x->tables == NULL && t->tables < x->n) x->tables = x->bytes + t->tables;
        if (x->fd < 0 && t->has_matrix) x->matrix = x->bytes + SM_INDEX_MATRIX;
        x->table = t;
        bool ok = x->tables != NULL && sm_table_lay_out(x);
        if (!ok) x->table = NULL;
        return ok ? 0 : damaged(name, "wrong size", err);
    }
    x->entries = (const void *)(h + 1);
    x->classes = (const void *)(x->entries + h->samples);
    x->by_class = (const void *)(x->classes + h->classes);
    x->strings = (const char *)x->bytes + sm_index_strings(h, x->n);
    x->times = (const uint8_t *)x->strings + h->string_bytes;
    return h->times == 0 || h->times == h->samples ? 0 : damaged(name, "wrong size", err);
}

static bool is_string(const struct sm_index *x, uint64_t at) {
    return at < x->header->string_bytes; /* the last byte of the strings is NUL */
}

static bool classes_are_sound(const struct sm_index *x) {
    uint64_t first = 0;
    for (uint64_t c = 0; c < x->header->classes; c++) {
        const struct sm_index_class_record *k = &x->classes[c];
        if (!is_string(x, k->name) || k->first != first || k->samples > x->header->samples - first)
            return false;
        for (uint64_t i = first; i < first + k->samples; i++) {
            if (x->by_class[i] >= x->header->samples || x->entries[x->by_class[i]].label != c ||
                (i > first && x->by_class[i] <= x->by_class[i - 1]))
                return false;
        }
        first += k->samples;
    }
    return first == x->header->samples;
}

static bool entries_are_sound(const struct sm_index *x) {
    for (uint64_t i = 0; i < x->header->samples; i++) {
        const struct sm_index_record *e = &x->entries[i];
        if (!is_string(x, e->file) || (e->member != SM_INDEX_NONE && !is_string(x, e->member)) ||
            e->label >= x->header->classes || e->offset > e->file_bytes ||
            e->length > e->file_bytes - e->offset)
            return false;
    }
    return true;
}

static bool is_sound(const struct sm_index *x) {
    const struct sm_index_header *h = x->header;
    if (memchr(h->dataset_digest, 0, sizeof h->dataset_digest) !=
            h->dataset_digest + SM_XXH_HEX - 1 ||
        x->strings[h->string_bytes - 1] != 0)
        return false;
    return x->table != NULL ? sm_table_is_sound(x) : entries_are_sound(x) && classes_are_sound(x);
}

uint64_t sm_index_samples(const struct sm_index *x) {
    return x->header->samples;
}

uint32_t sm_index_classes(const struct sm_index *x) {
    return (uint32_t)x->header->classes;
}

uint32_t sm_index_classes_occur(const struct sm_index *x) {
    uint32_t n = 0;
    for (uint64_t c = 0; c < x->header->classes; c++)
        n += x->classes[c].samples > 0;
    return n;
}

const char *sm_index_class(const struct sm_index *x, uint32_t label) {
    assert(label < x->header->classes);
    return x->strings + x->classes[label].name;
}

uint64_t sm_index_class_samples(const struct sm_index *x, uint32_t label) {
    assert(label < x->header->classes);
    return x->classes[label].samples;
}

static uint64_t by_class_at(const struct sm_index *x, uint64_t i) {
    return x->table != NULL ? x->rows_by_class[i] : x->by_class[i];
}

uint32_t sm_index_label(const struct sm_index *x, uint64_t sample) {
    assert(sample < x->header->samples);
    return x->table != NULL ? x->labels[sample] : x->entries[sample].label;
}

uint64_t sm_index_class_sample(const struct sm_index *x, uint32_t label, uint64_t k) {
    assert(k < sm_index_class_samples(x, label));
    return by_class_at(x, x->classes[label].first + k);
}

uint64_t sm_index_class_rank(const struct sm_index *x, uint64_t sample) {
    assert(sample < x->header->samples);
    const struct sm_index_class_record *k = &x->classes[sm_index_label(x, sample)];
    uint64_t low = 0, high = k->samples - 1;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (by_class_at(x, k->first + middle) < sample)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t sm_index_ignored(const struct sm_index *x) {
    return x->header->ignored;
}

int64_t sm_index_time(const struct sm_index *x, uint64_t n) {
    int64_t time;
    if (x->header->times == 0) return x->entries[n].mtime_ns;
    memcpy(&time, x->times + n * sizeof time, sizeof time);
    return time;
}

/* A row as an entry: the file it came from. */
static struct sm_entry row_entry(const struct sm_index *x, uint64_t sample) {
    const struct sm_index_file *f = sm_table_file(x, sm_index_row(x, sample));
    return (struct sm_entry){.file = x->strings + f->name,
                             .label = x->labels[sample],
                             .mtime_ns = sm_index_time(x, (uint64_t)(f - x->files)),
                             .file_bytes = f->file_bytes};
}

struct sm_entry sm_index_entry(const struct sm_index *x, uint64_t sample) {
    assert(sample < x->header->samples);
    if (x->table != NULL) return row_entry(x, sample);
    const struct sm_index_record *e = &x->entries[sample];
    return (struct sm_entry){.file = x->strings + e->file,
                             .member = e->member == SM_INDEX_NONE ? NULL : x->strings + e->member,
                             .offset = e->offset,
                             .length = e->length,
                             .label = e->label,
                             .mtime_ns = sm_index_time(x, sample),
                             .file_bytes = e->file_bytes,
                             .checksum = e->checksum};
}

const char *sm_index_dataset_digest(const struct sm_index *x) {
    return x->header->dataset_digest;
}

const char *sm_index_digest(const struct sm_index *x) {
    return x->digest;
}
