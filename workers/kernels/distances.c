/* Distances of rows and looks at tiles of products: plain loops, and four or eight at a time where
 * the machine has AVX2, with the same results. */
#include "workers/kernels/distances.h"

#include <assert.h>

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

/* What is left of a row behind its last eight numbers. */
static double distance_rest(const float *x, const float *y, size_t from, size_t n, double sum) {
    for (size_t k = from; k < n; k++) {
        const double d = (double)x[k] - (double)y[k];
        sum += d * d;
    }
    return sum;
}

double sm_distance_float_plain(const float *x, const float *y, size_t n) {
    double s[8] = {0};
    size_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (size_t l = 0; l < 8; l++) {
            const double d = (double)x[k + l] - (double)y[k + l];
            s[l] += d * d;
        }
    const double sum = ((s[0] + s[2]) + (s[4] + s[6])) + ((s[1] + s[3]) + (s[5] + s[7]));
    return distance_rest(x, y, k, n, sum);
}

#ifdef __x86_64__
AVX2 static inline __m256d squares(const float *x, const float *y) {
    const __m256d d =
        _mm256_sub_pd(_mm256_cvtps_pd(_mm_loadu_ps(x)), _mm256_cvtps_pd(_mm_loadu_ps(y)));
    return _mm256_mul_pd(d, d);
}

AVX2 static double distance_avx2(const float *x, const float *y, size_t n) {
    __m256d low = _mm256_setzero_pd(), high = low;
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        low = _mm256_add_pd(low, squares(x + k, y + k));
        high = _mm256_add_pd(high, squares(x + k + 4, y + k + 4));
    }
    const __m128d all =
        _mm_add_pd(_mm_add_pd(_mm256_castpd256_pd128(low), _mm256_extractf128_pd(low, 1)),
                   _mm_add_pd(_mm256_castpd256_pd128(high), _mm256_extractf128_pd(high, 1)));
    return distance_rest(x, y, k, n, _mm_cvtsd_f64(all) + _mm_cvtsd_f64(_mm_unpackhi_pd(all, all)));
}
#endif

double sm_distance_float(const float *x, const float *y, size_t n) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) return distance_avx2(x, y, n);
#endif
    return sm_distance_float_plain(x, y, n);
}

/* Inlined: a call out of a loop for AVX2 would leave the upper halves of its registers in use, and
 * what follows would wait for them. */
static inline __attribute__((always_inline)) uint64_t look_rest(const struct sm_look *l, size_t at,
                                                                float own_worst) {
    uint64_t near = 0;
    for (; at < l->end; at++) {
        const float low =
            (l->norm + l->norms[at]) * l->slack.keep + l->products[at] - l->slack.tiny;
        near |= (uint64_t)(!(low > own_worst) || !(low > l->worst[at])) << at;
    }
    return near;
}

uint64_t sm_look_plain(const struct sm_look *l, float own_worst) {
    assert(l->end <= SM_LOOK_MOST);
    return look_rest(l, 0, own_worst);
}

#ifdef __x86_64__
AVX2 static inline uint64_t eight_near(const struct sm_look *l, size_t at, __m256 own_worst) {
    const __m256 norms = _mm256_add_ps(_mm256_set1_ps(l->norm), _mm256_loadu_ps(l->norms + at));
    const __m256 kept = _mm256_mul_ps(norms, _mm256_set1_ps(l->slack.keep));
    const __m256 low = _mm256_sub_ps(_mm256_add_ps(kept, _mm256_loadu_ps(l->products + at)),
                                     _mm256_set1_ps(l->slack.tiny));
    const __m256 far =
        _mm256_and_ps(_mm256_cmp_ps(low, own_worst, _CMP_GT_OQ),
                      _mm256_cmp_ps(low, _mm256_loadu_ps(l->worst + at), _CMP_GT_OQ));
    return (uint64_t)(_mm256_movemask_ps(far) ^ 0xff);
}

AVX2 static uint64_t look_avx2(const struct sm_look *l, float own_worst) {
    const __m256 own = _mm256_set1_ps(own_worst);
    uint64_t near = 0;
    size_t at = 0;
    for (; at + 8 <= l->end; at += 8)
        near |= eight_near(l, at, own) << at;
    return near | look_rest(l, at, own_worst);
}
#endif

uint64_t sm_look(const struct sm_look *l, float own_worst) {
    assert(l->end <= SM_LOOK_MOST);
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) return look_avx2(l, own_worst);
#endif
    return look_rest(l, 0, own_worst);
}
