/* Where the arrays of a batch lie, and the digests over them. Workers fill what is laid out here
 * (workers/lease.c); the client checks it before a trainer sees it. */
#include "lib/batch.h"

#include "lib/limits.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct sm_batch_header) == SM_BATCH_HEADER, "the header has 128 bytes");

static const char magic[8] = "SMBATCH";

/* Bytes of an element, in the order of enum sm_dtype. */
static const uint8_t element_bytes[] = {1, 4, 2, 2, 8};
/* Of enum sm_layout; this room knows no pipelines. */
enum { DTYPES = sizeof element_bytes, LAYOUT_ROWS = 2, LAYOUTS };

static uint64_t align(uint64_t n) {
    return (n + SM_BATCH_ALIGN - 1) & ~(uint64_t)(SM_BATCH_ALIGN - 1);
}

/* false when the sizes are none or beyond what a batch may have; nothing can overflow then. */
static bool sample_bytes(const struct sm_batch_header *h, uint64_t *bytes) {
    const uint64_t max = SM_MAX_BATCH_BYTES;
    if (h->dtype >= DTYPES) return false;
    uint64_t n = element_bytes[h->dtype];
    const uint32_t sides[] = {h->channels, h->height, h->width};
    for (int i = 0; i < 3; i++) {
        if (sides[i] == 0 || sides[i] > max / n) return false;
        n *= sides[i];
    }
    *bytes = n;
    return true;
}

int sm_batch_layout(struct sm_batch_header *h, struct sm_err *err) {
    uint64_t sample;
    if (h->count == 0 || h->dtype >= DTYPES || h->layout >= LAYOUTS || h->channels == 0 ||
        h->height == 0 || h->width == 0 ||
        (h->layout == LAYOUT_ROWS && (h->channels != 1 || h->height != 1)))
        return sm_fail(err, SM_E_PROTOCOL, "a batch of no samples or of no known shape");
    if (h->count > SM_MAX_BATCH_SAMPLES || !sample_bytes(h, &sample) ||
        sample > SM_MAX_BATCH_BYTES / h->count)
        return sm_fail(err, SM_E_TOO_LARGE,
                       "a batch of %u samples of %u x %u x %u is beyond the %d bytes or %d samples "
                       "allowed (hint: a smaller output.batch_size or image)",
                       h->count, h->channels, h->height, h->width, SM_MAX_BATCH_BYTES,
                       SM_MAX_BATCH_SAMPLES);
    memcpy(h->magic, magic, sizeof magic);
    h->version = h->weight != 0 ? SM_BATCH_VERSION : SM_BATCH_VERSION_PLAIN;
    h->tensor = SM_BATCH_HEADER;
    h->label = align(h->tensor + sample * h->count);
    h->index = align(h->label + sizeof(int64_t) * h->count);
    h->position = align(h->index + sizeof(uint64_t) * h->count);
    h->flags = align(h->position + sizeof(uint64_t) * h->count);
    h->bytes = align(h->flags + h->count);
    if (h->weight != 0) {
        h->weight = h->bytes;
        h->bytes = align(h->weight + sizeof(float) * h->count);
    }
    if (h->bytes > SM_MAX_BATCH_BYTES)
        return sm_fail(err, SM_E_TOO_LARGE, "a batch of %llu bytes is beyond the %d allowed",
                       (unsigned long long)h->bytes, SM_MAX_BATCH_BYTES);
    return 0;
}

uint64_t sm_batch_sample_bytes(const struct sm_batch_header *h) {
    uint64_t bytes;
    bool known = sample_bytes(h, &bytes);
    assert(known);
    return bytes;
}

/* Where things lie follows from the shape, so a header that says otherwise is none of ours. */
int sm_batch_check(const void *bytes, uint64_t n, struct sm_batch_header *fills,
                   struct sm_err *err) {
    struct sm_batch_header h, want;
    if (n < sizeof h) return sm_fail(err, SM_E_PROTOCOL, "a batch without a header");
    memcpy(&h, bytes, sizeof h); /* once: the memory may be another's */
    if (memcmp(h.magic, magic, sizeof magic) != 0)
        return sm_fail(err, SM_E_PROTOCOL, "bytes that are not a batch");
    if (h.version < SM_BATCH_VERSION_PLAIN || h.version > SM_BATCH_VERSION)
        return sm_fail(err, SM_E_DIFFERS, "a batch of version %u, and this reads versions up to %d",
                       h.version, SM_BATCH_VERSION);
    want = h;
    if (sm_batch_layout(&want, err) != 0) return -1;
    if (memcmp(&want, &h, sizeof h) != 0)
        return sm_fail(err, SM_E_PROTOCOL, "a batch whose arrays lie where they cannot");
    if (h.bytes > n)
        return sm_fail(err, SM_E_PROTOCOL, "a batch of %llu bytes of which %llu are there",
                       (unsigned long long)h.bytes, (unsigned long long)n);
    *fills = h;
    return 0;
}

int sm_batch_arrays(const struct sm_batch_header *h,
                    struct sm_batch_array arrays[SM_BATCH_ARRAYS]) {
    const uint64_t n = h->count;
    arrays[0] = (struct sm_batch_array){h->tensor, sm_batch_sample_bytes(h) * n};
    arrays[1] = (struct sm_batch_array){h->label, sizeof(int64_t) * n};
    arrays[2] = (struct sm_batch_array){h->index, sizeof(uint64_t) * n};
    arrays[3] = (struct sm_batch_array){h->position, sizeof(uint64_t) * n};
    arrays[4] = (struct sm_batch_array){h->flags, n};
    arrays[5] = (struct sm_batch_array){h->weight, sizeof(float) * n};
    return h->weight != 0 ? SM_BATCH_ARRAYS : SM_BATCH_ARRAYS - 1;
}

void sm_batch_digest(const void *batch, char hex[SM_XXH_HEX]) {
    struct sm_batch_header h;
    struct sm_batch_array arrays[SM_BATCH_ARRAYS];
    memcpy(&h, batch, sizeof h);
    const int n = sm_batch_arrays(&h, arrays);
    struct sm_hash *hash = sm_hash_new_xxh();
    if (hash == NULL) abort(); /* of a trainer, for some hundred bytes */
    for (int i = 0; i < n; i++)
        sm_hash_add(hash, (const uint8_t *)batch + arrays[i].offset, arrays[i].bytes);
    sm_hash_end(&hash, hex);
}

void sm_batch_chain(char chain[SM_XXH_HEX], const char digest[SM_XXH_HEX]) {
    char both[2 * SM_XXH_HEX];
    const int n = snprintf(both, sizeof both, "%s%s", chain, digest);
    sm_xxh(both, (size_t)n, chain);
}
