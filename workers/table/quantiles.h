/* Exact quantiles of every column, in rounds: each round counts eight more bits of the values in
 * their order, so memory is 2 KiB for a column and order statistic, however many rows there are.
 * Missing cells are left out. Row ops that learn quantiles build their fit of these
 * (workers/table/fit.h). */
#pragma once

#include "workers/table/fit.h"

enum { SM_QUANTILES_MAX = 4 };

/* Which quantiles, 0 to 1 each. */
struct sm_quantiles {
    size_t n;
    double q[SM_QUANTILES_MAX];
};

int sm_quantiles_begin(const struct sm_fit_context *c, const struct sm_quantiles *q,
                       struct sm_buf *state, struct sm_err *err);
size_t sm_quantiles_partial(const struct sm_fit_context *c, const struct sm_quantiles *q,
                            const struct sm_buf *state);
void sm_quantiles_map(const struct sm_fit_context *c, const struct sm_quantiles *q,
                      const struct sm_buf *state, const struct sm_rows *block, void *partial);
void sm_quantiles_merge(const struct sm_fit_context *c, const struct sm_quantiles *q,
                        const struct sm_buf *state, void *into, const void *other);
/* True when they are found: out[column * q->n + i] (NaN for a column without values), numpy's
 * linear interpolation between order statistics; counts[column]: cells that are not missing. */
bool sm_quantiles_next(const struct sm_fit_context *c, const struct sm_quantiles *q,
                       struct sm_buf *state, const void *merged, double *out, double *counts);
