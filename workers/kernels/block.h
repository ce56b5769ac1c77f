/* A piece of memory that is kept from one sample to the next and only ever grows, so that the hot
 * path does not allocate. Its bound is that of what is put in: lib/limits.h caps pixels and results
 * before anything is reserved. */
#pragma once

#include "lib/err.h"

#include <stddef.h>
#include <stdint.h>

struct sm_block {
    uint8_t *data; /* 64-aligned; contents are lost when it grows */
    size_t cap;
};

/* Makes room for `bytes` and SM_TILE_SLACK more. */
int sm_block_reserve(struct sm_block *b, size_t bytes, struct sm_err *err);
void sm_block_release(struct sm_block *b);
