/* Products of rows with the rows of a small matrix, as PCA projects and KMeans measures: each of
 * the products is summed in one fixed order, whatever rows stand beside it and on every machine. A
 * BLAS promises neither: its kernels take the first and the last rows of a block another way.
 * Before: a block of rows. After: the op's output. */
#pragma once

#include <stddef.h>

/* The small matrix as the loops read it: made once, used for every block. n rows of d. */
size_t sm_panels_float_bytes(size_t n, size_t d);
size_t sm_panels_double_bytes(size_t n, size_t d);
void sm_panels_float(const float *c, size_t n, size_t d, float *panels);
void sm_panels_double(const double *c, size_t n, size_t d, double *panels);

/* y[i * n + k] = the sum over j of x[i * d + j] * c[k * d + j], for i < rows and k < n. Each run of
 * SM_DOTS_RUN columns is summed by itself, from its first column on and rounded once a column (a
 * fused multiplication and addition), and the runs are added one after the other. */
enum { SM_DOTS_RUN = 128 };
void sm_dots_float(const float *x, size_t rows, const float *panels, size_t n, size_t d, float *y);
void sm_dots_double(const double *x, size_t rows, const double *panels, size_t n, size_t d,
                    double *y);
/* The same bytes from plain loops: what a machine without AVX2 and FMA runs, and what tests
 * compare.
 */
void sm_dots_float_plain(const float *x, size_t rows, const float *panels, size_t n, size_t d,
                         float *y);
void sm_dots_double_plain(const double *x, size_t rows, const double *panels, size_t n, size_t d,
                          double *y);
