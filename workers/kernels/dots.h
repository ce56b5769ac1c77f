/* Products of rows with the rows of a small matrix, as PCA projects: each of the products is summed
 * in one fixed order, whatever rows stand beside it and on every machine. A BLAS promises neither:
 * its kernels take the first and the last rows of a block another way. Before: a block of rows.
 * After: the op's output. */
#pragma once

#include <stddef.h>

/* y[i * n + k] = the sum over j of x[i * d + j] * c[k * d + j], for i < rows and k < n. Eight (of
 * float) or four (of double) running sums over j, added in pairs; then what is left of d. */
void sm_dots_float(const float *x, size_t rows, const float *c, size_t n, size_t d, float *y);
void sm_dots_double(const double *x, size_t rows, const double *c, size_t n, size_t d, double *y);
