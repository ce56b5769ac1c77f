/* Arithmetic on the header of an index file, which may come from outside. */
#include "lib/index.h"

#include "lib/limits.h"

#include <stdbool.h>
#include <string.h>

static bool is_header(const struct sm_index_header *h, uint64_t total) {
    const uint64_t fixed = sizeof *h + SM_INDEX_TRAILER;
    return total >= fixed && memcmp(h->magic, SM_INDEX_MAGIC, sizeof h->magic) == 0 &&
           h->version == SM_INDEX_VERSION && h->times <= (total - fixed) / sizeof(int64_t);
}

uint64_t sm_index_digested(const void *beginning, size_t n, uint64_t total) {
    struct sm_index_header h;
    if (n < sizeof h) return total;
    memcpy(&h, beginning, sizeof h);
    return is_header(&h, total) ? total - SM_INDEX_TRAILER - h.times * sizeof(int64_t) : total;
}

uint64_t sm_index_strings(const struct sm_index_header *h, uint64_t total) {
    if (!is_header(h, total)) return 0;
    const uint64_t fixed = sizeof *h + SM_INDEX_TRAILER, times = h->times * sizeof(int64_t);
    const uint64_t per_sample = sizeof(struct sm_index_record) + sizeof(uint64_t);
    uint64_t rest = total - fixed - times;
    if (h->kind == SM_INDEX_TABLE) {
        const uint64_t least = SM_INDEX_MATRIX + times + SM_INDEX_TRAILER;
        if (h->samples == 0 || h->samples > SM_MAX_TABLE_ROWS || h->classes == 0 ||
            h->classes > SM_MAX_CLASSES || h->string_bytes == 0 || total < least ||
            h->string_bytes > total - least)
            return 0;
        return total - SM_INDEX_TRAILER - times - h->string_bytes;
    }
    if (h->kind != SM_INDEX_IMAGES) return 0;
    if (h->samples == 0 || h->samples > rest / per_sample) return 0;
    rest -= h->samples * per_sample;
    if (h->classes == 0 || h->classes > SM_MAX_CLASSES ||
        h->classes > rest / sizeof(struct sm_index_class_record))
        return 0;
    rest -= h->classes * sizeof(struct sm_index_class_record);
    if (h->string_bytes == 0 || h->string_bytes != rest) return 0;
    return total - SM_INDEX_TRAILER - times - h->string_bytes;
}
