/* Means and scatter (sums of products of deviations) of rows, block after block, in float64.
 * Before: an op's map (workers/ops/pca.c) has a block of the columns that it works on. After: the
 * scatter's eigenvectors. */
#pragma once

#include "lib/err.h"

#include <stddef.h>

/* Lends; the memory belongs to a fit's partial. */
struct sm_scatter {
    size_t columns;
    double *n;       /* rows so far */
    double *squares; /* without scatter: squared deviations of all columns together */
    double *mean;    /* [columns] */
    double *scatter; /* [columns][columns], the lower half, row by row; NULL: squares alone */
};

/* Takes in rows x columns numbers, all finite, without gaps. x is used up: it holds the deviations
 * from the block's means then. */
int sm_scatter_add(const struct sm_scatter *to, double *x, size_t rows, struct sm_err *err);
/* The same of float32: the products are of float32, the block's deviations rounded to it. Blocks
 * are short and centred, so the products keep what matters. Leaves x. */
int sm_scatter_add_float(const struct sm_scatter *to, const float *x, size_t rows,
                         struct sm_err *err);
/* Takes in other's rows (Chan, Golub, LeVeque 1979). other's means are used up. */
void sm_scatter_merge(const struct sm_scatter *to, const struct sm_scatter *other);
