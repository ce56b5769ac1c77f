/* The index of a dataset, mapped read-only. Written by scan.c, perhaps fetched from a broker;
 * nothing in it is believed before its size, checksum and every offset have been checked, so that
 * later access needs no checks. */
#include "workers/sources/scan.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

struct sm_index {
    const uint8_t *bytes;
    size_t n;
    bool mapped;
    const struct sm_index_header *header;
    const struct sm_index_record *entries;
    const struct sm_index_class_record *classes;
    const uint64_t *by_class;
    const char *strings;
    char digest[SM_XXH_HEX];
};

static int lay_out(struct sm_index *x, const char *name, struct sm_err *err);
static int verify(const struct sm_index *x, const char *name, struct sm_err *err);
static int open_bytes(struct sm_index **gives, const void *bytes, size_t n, const char *name,
                      struct sm_err *err);

int sm_index_open(struct sm_index **gives, const char *index_path, struct sm_err *err) {
    *gives = NULL;
    int fd = open(index_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return sm_fail_errno(err, "cannot open the index '%s'", index_path);
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
        close(fd);
        return sm_fail(err, SM_E_DATASET, "'%s' is not an index", index_path);
    }
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    int failed = map == MAP_FAILED ? sm_fail_errno(err, "cannot map '%s'", index_path) : 0;
    close(fd);
    if (failed) return -1;
    if (open_bytes(gives, map, (size_t)st.st_size, index_path, err) != 0) {
        munmap(map, (size_t)st.st_size);
        return -1;
    }
    (*gives)->mapped = true;
    return 0;
}

int sm_index_open_bytes(struct sm_index **gives, const void *bytes, size_t n, struct sm_err *err) {
    return open_bytes(gives, bytes, n, "(from the broker)", err);
}

static int open_bytes(struct sm_index **gives, const void *bytes, size_t n, const char *name,
                      struct sm_err *err) {
    *gives = NULL;
    assert((uintptr_t)bytes % 8 == 0);
    struct sm_index *x = calloc(1, sizeof *x);
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    x->bytes = bytes;
    x->n = n;
    if (lay_out(x, name, err) != 0 || verify(x, name, err) != 0) {
        free(x);
        return -1;
    }
    sm_xxh(bytes, n, x->digest);
    *gives = x;
    return 0;
}

void sm_index_close(struct sm_index **xp) {
    struct sm_index *x = *xp;
    if (x == NULL) return;
    if (x->mapped) munmap((void *)x->bytes, x->n);
    free(x);
    *xp = NULL;
}

static int damaged(const char *name, const char *what, struct sm_err *err) {
    return sm_fail(err, SM_E_DATASET,
                   "the index '%s' is damaged: %s (hint: remove it, it is built again)", name,
                   what);
}

/* Finds the tables; their sizes must make up the file exactly. */
static int lay_out(struct sm_index *x, const char *name, struct sm_err *err) {
    const struct sm_index_header *h = (const void *)x->bytes;
    if (x->n < sizeof *h + SM_INDEX_TRAILER ||
        memcmp(h->magic, SM_INDEX_MAGIC, sizeof h->magic) != 0)
        return damaged(name, "no header", err);
    if (h->version != SM_INDEX_VERSION)
        return sm_fail(err, SM_E_DATASET, "the index '%s' has version %u, this program reads %d",
                       name, h->version, SM_INDEX_VERSION);
    uint64_t strings = sm_index_strings(h, x->n);
    if (strings == 0) return damaged(name, "wrong size", err);
    x->header = h;
    x->entries = (const void *)(h + 1);
    x->classes = (const void *)(x->entries + h->samples);
    x->by_class = (const void *)(x->classes + h->classes);
    x->strings = (const char *)x->bytes + strings;
    return 0;
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

static int verify(const struct sm_index *x, const char *name, struct sm_err *err) {
    size_t body = x->n - SM_INDEX_TRAILER;
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits(x->bytes, body));
    if (memcmp(sum.digest, x->bytes + body, sizeof sum.digest) != 0)
        return damaged(name, "its checksum differs", err);
    const struct sm_index_header *h = x->header;
    if (memchr(h->dataset_digest, 0, sizeof h->dataset_digest) !=
            h->dataset_digest + SM_XXH_HEX - 1 ||
        x->strings[h->string_bytes - 1] != 0 || !entries_are_sound(x) || !classes_are_sound(x))
        return damaged(name, "an offset leads outside", err);
    return 0;
}

uint64_t sm_index_samples(const struct sm_index *x) {
    return x->header->samples;
}

uint32_t sm_index_classes(const struct sm_index *x) {
    return (uint32_t)x->header->classes;
}

const char *sm_index_class(const struct sm_index *x, uint32_t label) {
    assert(label < x->header->classes);
    return x->strings + x->classes[label].name;
}

uint64_t sm_index_class_samples(const struct sm_index *x, uint32_t label) {
    assert(label < x->header->classes);
    return x->classes[label].samples;
}

uint64_t sm_index_class_sample(const struct sm_index *x, uint32_t label, uint64_t k) {
    assert(k < sm_index_class_samples(x, label));
    return x->by_class[x->classes[label].first + k];
}

uint64_t sm_index_class_rank(const struct sm_index *x, uint64_t sample) {
    assert(sample < x->header->samples);
    const struct sm_index_class_record *k = &x->classes[x->entries[sample].label];
    uint64_t low = 0, high = k->samples - 1;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (x->by_class[k->first + middle] < sample)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t sm_index_ignored(const struct sm_index *x) {
    return x->header->ignored;
}

struct sm_entry sm_index_entry(const struct sm_index *x, uint64_t sample) {
    assert(sample < x->header->samples);
    const struct sm_index_record *e = &x->entries[sample];
    return (struct sm_entry){.file = x->strings + e->file,
                             .member = e->member == SM_INDEX_NONE ? NULL : x->strings + e->member,
                             .offset = e->offset,
                             .length = e->length,
                             .label = e->label,
                             .mtime_ns = e->mtime_ns,
                             .file_bytes = e->file_bytes,
                             .checksum = e->checksum};
}

const char *sm_index_dataset_digest(const struct sm_index *x) {
    return x->header->dataset_digest;
}

const char *sm_index_digest(const struct sm_index *x) {
    return x->digest;
}
