/* The AVX2 loops behind rows.c: each does as many columns as fit and returns how many; the plain
 * loops do the rest. Only rows.c and rows_avx2.c include it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

bool sm_rows_has_avx2(void);
size_t sm_row_sums_avx2(const float *x, size_t columns, double *n, double *sum);
size_t sm_row_squares_avx2(const float *x, size_t columns, const double *mean, double *squares);
size_t sm_row_scale_avx2(const float *x, size_t columns, const double *shift, const double *scale,
                         float *out);
size_t sm_row_centre_avx2(const float *x, size_t columns, const double *mean, float *out);
/* *all becomes false when one of those cells is not finite. */
size_t sm_row_finite_avx2(const float *x, size_t n, bool *all);
size_t sm_row_narrow_avx2(const double *from, size_t n, double factor, float *to);
size_t sm_row_mix_avx2(const float *from, const float *to, size_t n, double gap, float *row);
size_t sm_row_scatter_avx2(double *into, const float *more, size_t n, double factor,
                           const double *d);
