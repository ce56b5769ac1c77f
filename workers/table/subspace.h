/* Principal directions of rows: all of a small covariance by its eigenvectors, or the first few of
 * a large one by subspace iteration (Halko, Martinsson, Tropp 2011), round after round over the
 * rows. Before: PCA (workers/ops/pca.c) has centred rows or their scatter. After: it keeps what it
 * wants of the directions. Matrices lie row by row; d columns, l directions. */
#pragma once

#include "lib/err.h"

#include <stddef.h>
#include <stdint.h>

/* Eigenvalues and vectors of a symmetric n x n matrix of which the lower half is given: row i of a
 * becomes the vector of values[i]. Values fall; those below 0, which are rounding, are 0. */
int sm_eigen(double *a, size_t n, double *values, struct sm_err *err);

/* Q (d x l) to begin with: orthonormal, decided by the seed alone. */
int sm_subspace_begin(uint64_t seed, size_t d, size_t l, double *q, struct sm_err *err);
/* W (d x l) += X' (X Q), X rows x d and centred. The W of all rows is C Q times rows - 1. */
int sm_subspace_add(const double *x, size_t rows, size_t d, size_t l, const double *q, double *w,
                    struct sm_err *err);
/* Makes the columns of W orthonormal: the Q of the next round. */
int sm_orthonormal(double *w, size_t d, size_t l, struct sm_err *err);
/* The directions that lie in Q, by its W of n rows: vectors l x d and their variances, which fall.
 */
int sm_subspace_end(const double *q, const double *w, size_t d, size_t l, double n, double *vectors,
                    double *values, struct sm_err *err);
