/* The rows of affine.c for three channels in AVX2. A smooth pixel's channels lie in the lanes of
 * one vector of doubles and go through the same multiplications and additions in the same order as
 * the plain ones, unfused, so the bytes are equal; pixels at the border go to the plain taps. On
 * other machines the functions exist and are never called. */
#include "workers/kernels/affine_rows.h"

#include <assert.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))

bool sm_affine_has_avx2(void) {
    return __builtin_cpu_supports("avx2");
}

/* Four bytes of a pixel (the fourth is the next one's) as integers. */
AVX2 static inline __m128i load_pixel(const uint8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm_cvtepu8_epi32(_mm_cvtsi32_si128(four));
}

AVX2 static inline void store_pixel(uint8_t *to, __m256d v) {
    __m128i i = _mm256_cvttpd_epi32(v);
    i = _mm_packus_epi16(_mm_packus_epi32(i, i), i);
    uint32_t four = (uint32_t)_mm_cvtsi128_si32(i);
    uint16_t two = (uint16_t)four;
    memcpy(to, &two, 2);
    to[2] = (uint8_t)(four >> 16);
}

AVX2 static inline __m256d lerp_bytes(const uint8_t *p, __m256d d) {
    __m128i a = load_pixel(p), b = load_pixel(p + 3);
    return _mm256_add_pd(_mm256_cvtepi32_pd(a),
                         _mm256_mul_pd(_mm256_cvtepi32_pd(_mm_sub_epi32(b, a)), d));
}

AVX2 static inline void bilinear(const uint8_t *p, size_t stride, double dx, double dy,
                                 uint8_t *to) {
    __m256d x = _mm256_set1_pd(dx), y = _mm256_set1_pd(dy);
    __m256d top = lerp_bytes(p, x), bottom = lerp_bytes(p + stride, x);
    store_pixel(to, _mm256_add_pd(top, _mm256_mul_pd(_mm256_sub_pd(bottom, top), y)));
}

/* v2 + d * (p2 + d * (p3 + d * p4)) */
AVX2 static inline __m256d horner(__m256d v2, __m256d p2, __m256d p3, __m256d p4, __m256d d) {
    __m256d r = _mm256_add_pd(p3, _mm256_mul_pd(d, p4));
    r = _mm256_add_pd(p2, _mm256_mul_pd(d, r));
    return _mm256_add_pd(v2, _mm256_mul_pd(d, r));
}

/* Along a row the factors are small whole numbers, so they are made in integers. */
AVX2 static inline __m256d cubic_bytes(const uint8_t *p, __m256d d) {
    __m128i a = load_pixel(p), b = load_pixel(p + 3), c = load_pixel(p + 6), e = load_pixel(p + 9);
    __m128i ab = _mm_sub_epi32(a, b), ce = _mm_sub_epi32(c, e);
    __m128i p3 = _mm_add_epi32(_mm_add_epi32(ab, ab), ce);
    __m128i p4 = _mm_sub_epi32(_mm_setzero_si128(), _mm_add_epi32(ab, ce));
    return horner(_mm256_cvtepi32_pd(b), _mm256_cvtepi32_pd(_mm_sub_epi32(c, a)),
                  _mm256_cvtepi32_pd(p3), _mm256_cvtepi32_pd(p4), d);
}

AVX2 static inline void bicubic(const uint8_t *p, size_t stride, double dx, double dy,
                                uint8_t *to) {
    __m256d x = _mm256_set1_pd(dx), y = _mm256_set1_pd(dy);
    __m256d a = cubic_bytes(p, x), b = cubic_bytes(p + stride, x);
    __m256d c = cubic_bytes(p + 2 * stride, x), e = cubic_bytes(p + 3 * stride, x);
    __m256d p2 = _mm256_sub_pd(c, a), ab = _mm256_sub_pd(a, b);
    __m256d p3 = _mm256_sub_pd(_mm256_add_pd(_mm256_add_pd(ab, ab), c), e);
    __m256d p4 = _mm256_add_pd(_mm256_sub_pd(_mm256_sub_pd(b, a), c), e);
    __m256d r = horner(b, p2, p3, p4, y);
    store_pixel(to, _mm256_min_pd(_mm256_max_pd(r, _mm256_setzero_pd()), _mm256_set1_pd(255)));
}

static void nearest_pixels(const struct sm_tile *in, uint8_t *to, int lo, int hi, int64_t xx,
                           int64_t yy, int64_t dx, int64_t dy) {
    xx += lo * dx, yy += lo * dy;
    for (int x = lo; x < hi; x++, xx += dx, yy += dy)
        memcpy(to + x * 3, in->u8 + (size_t)(yy >> 16) * in->stride + (xx >> 16) * 3, 3);
}

/* One row; called with a constant filter, so that the compiler makes two loops of it. */
AVX2 static inline __attribute__((always_inline)) void row_smooth(const struct sm_tile *in,
                                                                  uint8_t *to, int width,
                                                                  const double *m, double yc,
                                                                  const uint8_t *fill, bool cubic) {
    /* taps before and after the whole coordinate; one more column because loads are four bytes wide
     */
    int before = cubic, after = cubic ? 2 : 1;
    double w = in->width, h = in->height, my = m[1] * yc, ny = m[4] * yc;
    for (int i = 0; i < width; i++, to += 3) {
        double xc = i + 0.5, xin = m[0] * xc + my + m[2], yin = m[3] * xc + ny + m[5];
        if (!(xin >= 0 && xin < w && yin >= 0 && yin < h)) {
            memcpy(to, fill, 3);
            continue;
        }
        double xs = xin - 0.5, ys = yin - 0.5;
        int x = (int)xs, y = (int)ys;
        if (xs < before || ys < before || x + after + 1 >= in->width || y + after >= in->height) {
            (cubic ? sm_tap_bicubic : sm_tap_bilinear)(in, xin, yin, to);
            continue;
        }
        const uint8_t *p = in->u8 + (size_t)(y - before) * in->stride + (x - before) * 3;
        if (cubic)
            bicubic(p, in->stride, xs - x, ys - y, to);
        else
            bilinear(p, in->stride, xs - x, ys - y, to);
    }
}

AVX2 void sm_row_smooth_avx2(const struct sm_tile *in, uint8_t *to, int width, const double *m,
                             double yc, enum sm_filter filter, const uint8_t *fill) {
    if (filter == SM_BICUBIC)
        row_smooth(in, to, width, m, yc, fill, true);
    else
        row_smooth(in, to, width, m, yc, fill, false);
}

/* Eight pixels: their addresses are gathered as 32-bit words, which end one byte after the pixel;
 * the picture's last pixel has no such byte, so a block that may touch it is left to the plain
 * loop. */
AVX2 void sm_row_nearest_avx2(const struct sm_tile *in, uint8_t *to, int lo, int hi, int64_t xx,
                              int64_t yy, int64_t dx, int64_t dy) {
    const __m256i ramp = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i pack = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0,
                                          1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const __m256i stride = _mm256_set1_epi32((int)in->stride), three = _mm256_set1_epi32(3);
    const __m256i last =
        _mm256_set1_epi32((in->height - 1) * (int)in->stride + (in->width - 1) * 3 - 1);
    __m256i dx8 = _mm256_mullo_epi32(ramp, _mm256_set1_epi32((int)dx));
    __m256i dy8 = _mm256_mullo_epi32(ramp, _mm256_set1_epi32((int)dy));
    int x = lo;
    for (; x + 8 <= hi; x += 8) {
        __m256i xs = _mm256_add_epi32(_mm256_set1_epi32((int)(xx + x * dx)), dx8);
        __m256i ys = _mm256_add_epi32(_mm256_set1_epi32((int)(yy + x * dy)), dy8);
        __m256i at = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(ys, 16), stride),
                                      _mm256_mullo_epi32(_mm256_srli_epi32(xs, 16), three));
        if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(at, last))) {
            nearest_pixels(in, to, x, x + 8, xx, yy, dx, dy);
            continue;
        }
        __m256i v = _mm256_shuffle_epi8(_mm256_i32gather_epi32((const int *)in->u8, at, 1), pack);
        __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
        uint8_t *p = to + x * 3;
        _mm_storeu_si128((__m128i *)p, low);
        _mm_storel_epi64((__m128i *)(p + 12), high);
        int32_t end = _mm_extract_epi32(high, 2);
        memcpy(p + 20, &end, 4);
    }
    nearest_pixels(in, to, x, hi, xx, yy, dx, dy);
}

#else
bool sm_affine_has_avx2(void) {
    return false;
}
void sm_row_nearest_avx2(const struct sm_tile *in, uint8_t *to, int lo, int hi, int64_t xx,
                         int64_t yy, int64_t dx, int64_t dy) {
    (void)in, (void)to, (void)lo, (void)hi, (void)xx, (void)yy, (void)dx, (void)dy;
    assert(!"this machine has no AVX2");
}
void sm_row_smooth_avx2(const struct sm_tile *in, uint8_t *to, int width, const double *m,
                        double yc, enum sm_filter filter, const uint8_t *fill) {
    (void)in, (void)to, (void)width, (void)m, (void)yc, (void)filter, (void)fill;
    assert(!"this machine has no AVX2");
}
#endif
