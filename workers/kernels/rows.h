/* Loops over matrices of float32 that row ops spend their time in: sums and deviations of columns,
 * scaling, centring. Each cell's arithmetic is in float64 and in a fixed order, so the loop in C
 * and the one for AVX2 give the same bytes. Before: a block of rows (workers/table/rows.h). After:
 * the ops' sums, or OpenBLAS. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* n[k] += cells of column k that are not NaN, sum[k] += their sum. */
void sm_rows_sums(const float *x, size_t rows, size_t columns, double *n, double *sum);
/* squares[k] += (x - mean[k])^2 of the cells of column k that are not NaN. */
void sm_rows_squares(const float *x, size_t rows, size_t columns, const double *mean,
                     double *squares);
/* out = (x - shift[k]) / scale[k]. */
void sm_rows_scale(const float *x, size_t rows, size_t columns, const double *shift,
                   const double *scale, float *out);
/* out = x - mean[k]; out may be x. */
void sm_rows_centre(const float *x, size_t rows, size_t columns, const double *mean, float *out);
/* Whether no cell is NaN or infinite. */
bool sm_rows_finite(const float *x, size_t n);
/* to = from * factor. */
void sm_rows_narrow(const double *from, size_t n, double factor, float *to);
/* row = from + gap * (to - from), cell by cell; row may be from. */
void sm_rows_mix(const float *from, const float *to, size_t n, double gap, float *row);
/* into += more + factor * d: a row of a scatter matrix in Chan's merge. */
void sm_rows_scatter(double *into, const float *more, size_t n, double factor, const double *d);
