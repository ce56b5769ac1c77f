/* Which categories of a column are infrequent, by their counts among the training rows, as
 * scikit-learn decides it. Before: the encoders count (workers/ops/categories.h). After: infrequent
 * categories share one number. */
#pragma once

#include "lib/err.h"

#include <stddef.h>
#include <stdint.h>

/* Both 0: no category is infrequent. */
struct sm_infrequent {
    /* Fewer cells than this are infrequent: a count from 1 on, below 1 a share of the rows. */
    double min_frequency;
    /* At most so many are left, the infrequent ones together counting as one. */
    uint64_t max_categories;
};

/* Marks them in `infrequent`, zeroed, a byte for each of n categories; one with a count of 0 does
 * not occur and is never marked. Of equal counts the first are marked. O(n log n). Fails only for
 * want of memory. Source: _identify_infrequent of sklearn/preprocessing/_encoders.py; with
 * max_categories 1 all are infrequent, as from version 1.3 on. */
int sm_infrequent_mark(const struct sm_infrequent *rule, const uint64_t *counts, size_t n,
                       uint64_t rows, uint8_t *infrequent, struct sm_err *err);
