/* Columns of float32 rows, four or eight at a time. Multiplications and additions stay apart (no
 * fused ones), so that every cell comes out as in the plain loops of rows.c. */
#include "workers/kernels/rows_fast.h"

#ifdef __x86_64__
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

enum { FOUR = 4, EIGHT = 8 };

bool sm_rows_has_avx2(void) {
    return __builtin_cpu_supports("avx2");
}

AVX2 static inline __m256d four(const float *x) {
    return _mm256_cvtps_pd(_mm_loadu_ps(x));
}

AVX2 size_t sm_row_sums_avx2(const float *x, size_t columns, double *n, double *sum) {
    const __m256d one = _mm256_set1_pd(1);
    size_t k = 0;
    for (; k + FOUR <= columns; k += FOUR) {
        const __m256d v = four(x + k), there = _mm256_cmp_pd(v, v, _CMP_ORD_Q);
        _mm256_storeu_pd(n + k, _mm256_add_pd(_mm256_loadu_pd(n + k), _mm256_and_pd(there, one)));
        _mm256_storeu_pd(sum + k, _mm256_add_pd(_mm256_loadu_pd(sum + k), _mm256_and_pd(there, v)));
    }
    return k;
}

AVX2 size_t sm_row_squares_avx2(const float *x, size_t columns, const double *mean,
                                double *squares) {
    size_t k = 0;
    for (; k + FOUR <= columns; k += FOUR) {
        const __m256d v = four(x + k), there = _mm256_cmp_pd(v, v, _CMP_ORD_Q),
                      d = _mm256_and_pd(there, _mm256_sub_pd(v, _mm256_loadu_pd(mean + k)));
        _mm256_storeu_pd(squares + k,
                         _mm256_add_pd(_mm256_loadu_pd(squares + k), _mm256_mul_pd(d, d)));
    }
    return k;
}

AVX2 size_t sm_row_scale_avx2(const float *x, size_t columns, const double *shift,
                              const double *scale, float *out) {
    size_t k = 0;
    for (; k + FOUR <= columns; k += FOUR) {
        const __m256d d = _mm256_sub_pd(four(x + k), _mm256_loadu_pd(shift + k));
        _mm_storeu_ps(out + k, _mm256_cvtpd_ps(_mm256_div_pd(d, _mm256_loadu_pd(scale + k))));
    }
    return k;
}

AVX2 size_t sm_row_centre_avx2(const float *x, size_t columns, const double *mean, float *out) {
    size_t k = 0;
    for (; k + FOUR <= columns; k += FOUR)
        _mm_storeu_ps(out + k,
                      _mm256_cvtpd_ps(_mm256_sub_pd(four(x + k), _mm256_loadu_pd(mean + k))));
    return k;
}

/* x - x is 0 of a finite number and NaN of any other. */
AVX2 size_t sm_row_finite_avx2(const float *x, size_t n, bool *all) {
    __m256 odd = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + EIGHT <= n; i += EIGHT) {
        const __m256 v = _mm256_loadu_ps(x + i);
        odd = _mm256_or_ps(odd, _mm256_sub_ps(v, v));
    }
    *all = _mm256_movemask_ps(_mm256_cmp_ps(odd, odd, _CMP_UNORD_Q)) == 0;
    return i;
}

AVX2 size_t sm_row_narrow_avx2(const double *from, size_t n, double factor, float *to) {
    const __m256d f = _mm256_set1_pd(factor);
    size_t i = 0;
    for (; i + FOUR <= n; i += FOUR)
        _mm_storeu_ps(to + i, _mm256_cvtpd_ps(_mm256_mul_pd(_mm256_loadu_pd(from + i), f)));
    return i;
}

AVX2 size_t sm_row_scatter_avx2(double *into, const float *more, size_t n, double factor,
                                const double *d) {
    const __m256d f = _mm256_set1_pd(factor);
    size_t k = 0;
    for (; k + FOUR <= n; k += FOUR) {
        const __m256d add = _mm256_add_pd(four(more + k), _mm256_mul_pd(f, _mm256_loadu_pd(d + k)));
        _mm256_storeu_pd(into + k, _mm256_add_pd(_mm256_loadu_pd(into + k), add));
    }
    return k;
}

AVX2 size_t sm_row_mix_avx2(const float *from, const float *to, size_t n, double gap, float *row) {
    const __m256d g = _mm256_set1_pd(gap);
    size_t k = 0;
    for (; k + FOUR <= n; k += FOUR) {
        const __m256d f = four(from + k), d = _mm256_sub_pd(four(to + k), f);
        _mm_storeu_ps(row + k, _mm256_cvtpd_ps(_mm256_add_pd(f, _mm256_mul_pd(g, d))));
    }
    return k;
}
#else
bool sm_rows_has_avx2(void) {
    return false;
}
size_t sm_row_sums_avx2(const float *x, size_t columns, double *n, double *sum) {
    (void)x, (void)columns, (void)n, (void)sum;
    return 0;
}
size_t sm_row_squares_avx2(const float *x, size_t columns, const double *mean, double *squares) {
    (void)x, (void)columns, (void)mean, (void)squares;
    return 0;
}
size_t sm_row_scale_avx2(const float *x, size_t columns, const double *shift, const double *scale,
                         float *out) {
    (void)x, (void)columns, (void)shift, (void)scale, (void)out;
    return 0;
}
size_t sm_row_centre_avx2(const float *x, size_t columns, const double *mean, float *out) {
    (void)x, (void)columns, (void)mean, (void)out;
    return 0;
}
size_t sm_row_finite_avx2(const float *x, size_t n, bool *all) {
    (void)x, (void)n, (void)all;
    return 0;
}
size_t sm_row_narrow_avx2(const double *from, size_t n, double factor, float *to) {
    (void)from, (void)n, (void)factor, (void)to;
    return 0;
}
size_t sm_row_scatter_avx2(double *into, const float *more, size_t n, double factor,
                           const double *d) {
    (void)into, (void)more, (void)n, (void)factor, (void)d;
    return 0;
}
size_t sm_row_mix_avx2(const float *from, const float *to, size_t n, double gap, float *row) {
    (void)from, (void)to, (void)n, (void)gap, (void)row;
    return 0;
}
#endif
