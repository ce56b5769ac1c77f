/* Rows out of .npy files where they lie. Private to table_read.c, which is before it. */
#pragma once

#include "workers/sources/index_open.h"

struct sm_arrays;

/* Whether a file may be mapped whole: a fit of a large table under a limit of memory shall not lose
 * it to a mapping. */
bool sm_table_may_map(uint64_t bytes);

/* The i-th of n samples that are read, and how many from it on follow each other; samples NULL: all
 * do, from `first` on. */
static inline uint64_t sm_sample_at(const uint64_t *samples, uint64_t first, size_t i) {
    return samples == NULL ? first + i : samples[i];
}
static inline size_t sm_samples_run(const uint64_t *samples, size_t i, size_t n) {
    if (samples == NULL) return n - i;
    size_t k = 1;
    while (i + k < n && samples[i + k] == samples[i] + k)
        k++;
    return k;
}

/* root: the dataset's folder; kept as it is. */
struct sm_arrays *sm_arrays_new(const struct sm_index *index, const char *root);
void sm_arrays_free(struct sm_arrays *a);
/* Row i of out becomes samples[i], or sample first + i when samples is NULL. SM_E_CHANGED: a file
 * is not the one that was indexed. */
int sm_arrays_read(struct sm_arrays *a, const uint64_t *samples, uint64_t first, size_t n,
                   struct sm_rows *out, struct sm_err *err);
