/* The plain loops over matrices of float32, and the AVX2 ones before them where the machine has
 * them. Comes after a block of rows was read; row ops merge or write what comes out. */
#include "workers/kernels/rows.h"

#include "workers/kernels/rows_fast.h"

#include <math.h>
#include <pthread.h>

static bool fast;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void look(void) {
    fast = sm_rows_has_avx2();
}

static bool has_avx2(void) {
    pthread_once(&once, look);
    return fast;
}

void sm_rows_sums(const float *x, size_t rows, size_t columns, double *n, double *sum) {
    const bool f = has_avx2();
    for (size_t i = 0; i < rows; i++, x += columns)
        for (size_t k = f ? sm_row_sums_avx2(x, columns, n, sum) : 0; k < columns; k++) {
            const bool there = x[k] == x[k];
            n[k] += there;
            sum[k] += there ? (double)x[k] : 0;
        }
}

void sm_rows_squares(const float *x, size_t rows, size_t columns, const double *mean,
                     double *squares) {
    const bool f = has_avx2();
    for (size_t i = 0; i < rows; i++, x += columns)
        for (size_t k = f ? sm_row_squares_avx2(x, columns, mean, squares) : 0; k < columns; k++) {
            const double d = x[k] == x[k] ? (double)x[k] - mean[k] : 0;
            squares[k] += d * d;
        }
}

void sm_rows_scale(const float *x, size_t rows, size_t columns, const double *shift,
                   const double *scale, float *out) {
    const bool f = has_avx2();
    for (size_t i = 0; i < rows; i++, x += columns, out += columns)
        for (size_t k = f ? sm_row_scale_avx2(x, columns, shift, scale, out) : 0; k < columns; k++)
            out[k] = (float)(((double)x[k] - shift[k]) / scale[k]);
}

void sm_rows_centre(const float *x, size_t rows, size_t columns, const double *mean, float *out) {
    const bool f = has_avx2();
    for (size_t i = 0; i < rows; i++, x += columns, out += columns)
        for (size_t k = f ? sm_row_centre_avx2(x, columns, mean, out) : 0; k < columns; k++)
            out[k] = (float)((double)x[k] - mean[k]);
}

bool sm_rows_finite(const float *x, size_t n) {
    bool all = true;
    for (size_t i = has_avx2() ? sm_row_finite_avx2(x, n, &all) : 0; i < n; i++)
        all &= (bool)isfinite(x[i]);
    return all;
}

void sm_rows_narrow(const double *from, size_t n, double factor, float *to) {
    for (size_t i = has_avx2() ? sm_row_narrow_avx2(from, n, factor, to) : 0; i < n; i++)
        to[i] = (float)(from[i] * factor);
}

void sm_rows_scatter(double *into, const float *more, size_t n, double factor, const double *d) {
    for (size_t k = has_avx2() ? sm_row_scatter_avx2(into, more, n, factor, d) : 0; k < n; k++)
        into[k] += (double)more[k] + factor * d[k];
}

void sm_rows_mix(const float *from, const float *to, size_t n, double gap, float *row) {
    for (size_t k = has_avx2() ? sm_row_mix_avx2(from, to, n, gap, row) : 0; k < n; k++)
        row[k] = (float)((double)from[k] + gap * ((double)to[k] - (double)from[k]));
}
