/* The memory that decoders, tiles and kernels keep between samples. */
#include "workers/kernels/block.h"
#include "workers/image.h"

#include <stdlib.h>

int sm_block_reserve(struct sm_block *b, size_t bytes, struct sm_err *err) {
    if (bytes + SM_TILE_SLACK <= b->cap) return 0;
    size_t cap = (bytes + SM_TILE_SLACK + 4095) & ~(size_t)4095;
    free(b->data);
    b->data = aligned_alloc(64, cap);
    b->cap = b->data != NULL ? cap : 0;
    if (b->data == NULL)
        return sm_fail(err, SM_E_MEMORY, "no memory for %zu bytes of pixels", bytes);
    return 0;
}

void sm_block_release(struct sm_block *b) {
    free(b->data);
    *b = (struct sm_block){0};
}
