/* A sample of the training rows that does not depend on who reads them: the rows with the smallest
 * random keys, a key being a function of seed and row number alone. A fit collects it as part of a
 * partial (workers/table/fit.h); with no more rows than places it is all of them. */
#pragma once

#include "workers/table/rows.h"

/* The places of one sample; plain bytes, zeroed before the first row. */
struct sm_sample {
    uint64_t n;
    struct {
        uint64_t key, row, place; /* a heap: the largest key first */
    } of[];
    /* then places x columns cells */
};

size_t sm_sample_bytes(size_t places, size_t columns, bool is_double);
/* Offers the rows of a block; its first one is row number `first`. */
void sm_sample_add(struct sm_sample *s, size_t places, const struct sm_rows *block, uint64_t first,
                   uint64_t seed);
void sm_sample_merge(struct sm_sample *s, size_t places, size_t columns, bool is_double,
                     const struct sm_sample *other);
/* Fills out (allocated: s->n rows) in the order of the rows' numbers. */
void sm_sample_rows(struct sm_sample *s, size_t places, struct sm_rows *out);
