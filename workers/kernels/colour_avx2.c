/* The rows of colour.c in AVX2, eight pixels of three channels at a time, as one 32-bit word each.
 * Same types, same order of operations and no fusing, so the bytes are equal to the plain loops'.
 * Loads reach four bytes beyond the eight pixels, so the last pixels of a row are left to the plain
 * loop. On other machines nothing is done here. */
#include "workers/kernels/colour_rows.h"

#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))

bool sm_colour_has_avx2(void) {
    return __builtin_cpu_supports("avx2");
}

/* Pixels that may be loaded eight by eight. */
static int blocks(int width) {
    return width < 10 ? 0 : (width - 2) / 8 * 8;
}

AVX2 static inline __m256i load8(const uint8_t *p) {
    const __m256i spread = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1, 0,
                                            1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    __m128i low = _mm_loadu_si128((const __m128i *)p),
            high = _mm_loadu_si128((const __m128i *)(p + 12));
    return _mm256_shuffle_epi8(_mm256_set_m128i(high, low), spread);
}

/* Exactly 24 bytes, because what follows is still to be read. */
AVX2 static inline void store8(uint8_t *p, __m256i v) {
    const __m256i pack = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1, 0,
                                          1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    v = _mm256_shuffle_epi8(v, pack);
    __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
    int32_t end = _mm_extract_epi32(high, 2);
    _mm_storeu_si128((__m128i *)p, low);
    _mm_storel_epi64((__m128i *)(p + 12), high);
    memcpy(p + 20, &end, 4);
}

AVX2 static inline __m256i red(__m256i v) {
    return _mm256_and_si256(v, _mm256_set1_epi32(255));
}
AVX2 static inline __m256i green(__m256i v) {
    return _mm256_and_si256(_mm256_srli_epi32(v, 8), _mm256_set1_epi32(255));
}
AVX2 static inline __m256i blue(__m256i v) {
    return _mm256_srli_epi32(v, 16);
}
AVX2 static inline __m256i join(__m256i r, __m256i g, __m256i b) {
    return _mm256_or_si256(r, _mm256_or_si256(_mm256_slli_epi32(g, 8), _mm256_slli_epi32(b, 16)));
}

AVX2 static inline __m256i blend8(__m256i value, __m256i v, __m256 factor) {
    __m256 f = _mm256_mul_ps(factor, _mm256_cvtepi32_ps(_mm256_sub_epi32(v, value)));
    f = _mm256_add_ps(_mm256_cvtepi32_ps(value), f);
    f = _mm256_min_ps(_mm256_max_ps(f, _mm256_setzero_ps()), _mm256_set1_ps(255));
    return _mm256_cvttps_epi32(f);
}

AVX2 int sm_row_blend_avx2(uint8_t *row, int bytes, int value, float factor) {
    __m256i from = _mm256_set1_epi32(value);
    __m256 f = _mm256_set1_ps(factor);
    int x = 0;
    for (; x + 16 <= bytes; x += 16) {
        __m128i v = _mm_loadu_si128((const __m128i *)(row + x));
        __m256i a = blend8(from, _mm256_cvtepu8_epi32(v), f);
        __m256i b = blend8(from, _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)), f);
        __m256i ab = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
        v = _mm_packus_epi16(_mm256_castsi256_si128(ab), _mm256_extracti128_si256(ab, 1));
        _mm_storeu_si128((__m128i *)(row + x), v);
    }
    return x;
}

AVX2 static inline __m256i luma8(__m256i v) {
    __m256i l = _mm256_mullo_epi32(red(v), _mm256_set1_epi32(19595));
    l = _mm256_add_epi32(l, _mm256_mullo_epi32(green(v), _mm256_set1_epi32(38470)));
    l = _mm256_add_epi32(l, _mm256_mullo_epi32(blue(v), _mm256_set1_epi32(7471)));
    return _mm256_srli_epi32(_mm256_add_epi32(l, _mm256_set1_epi32(0x8000)), 16);
}

AVX2 int sm_row_luma_sum_avx2(const uint8_t *row, int width, uint64_t *sum) {
    int n = blocks(width);
    __m256i total = _mm256_setzero_si256(); /* a lane sees at most 4096 pixels of a row of 32768 */
    for (int x = 0; x < n; x += 8)
        total = _mm256_add_epi32(total, luma8(load8(row + x * 3)));
    uint32_t lanes[8];
    _mm256_storeu_si256((__m256i *)lanes, total);
    for (int i = 0; i < 8; i++)
        *sum += lanes[i];
    return n;
}

AVX2 int sm_row_saturate_avx2(uint8_t *row, int width, float factor) {
    int n = blocks(width);
    __m256 f = _mm256_set1_ps(factor);
    for (int x = 0; x < n; x += 8) {
        __m256i v = load8(row + x * 3), l = luma8(v);
        store8(row + x * 3,
               join(blend8(l, red(v), f), blend8(l, green(v), f), blend8(l, blue(v), f)));
    }
    return n;
}

AVX2 int sm_row_gray_avx2(uint8_t *row, int width) {
    int n = blocks(width);
    for (int x = 0; x < n; x += 8) {
        __m256i l = luma8(load8(row + x * 3));
        store8(row + x * 3, join(l, l, l));
    }
    return n;
}

/* ---- hue: Pillow's mixture of float and double, the doubles in two halves ---- */

struct halves {
    __m256d low, high;
};

AVX2 static inline struct halves widen(__m256 f) {
    return (struct halves){_mm256_cvtps_pd(_mm256_castps256_ps128(f)),
                           _mm256_cvtps_pd(_mm256_extractf128_ps(f, 1))};
}
AVX2 static inline __m256 narrow(__m256d low, __m256d high) {
    return _mm256_set_m128(_mm256_cvtpd_ps(high), _mm256_cvtpd_ps(low));
}
AVX2 static inline __m256i truncate(__m256d low, __m256d high) {
    return _mm256_set_m128i(_mm256_cvttpd_epi32(high), _mm256_cvttpd_epi32(low));
}

/* base + a - b in doubles, then float. */
AVX2 static inline __m256 sector_hue(double base, __m256 a, __m256 b) {
    struct halves wa = widen(a), wb = widen(b);
    __m256d k = _mm256_set1_pd(base);
    return narrow(_mm256_sub_pd(_mm256_add_pd(k, wa.low), wb.low),
                  _mm256_sub_pd(_mm256_add_pd(k, wa.high), wb.high));
}

/* x / 6 + 1 without its whole part. */
AVX2 static inline __m256d turn_part(__m256d x) {
    x = _mm256_add_pd(_mm256_div_pd(x, _mm256_set1_pd(6)), _mm256_set1_pd(1));
    return _mm256_sub_pd(x, _mm256_floor_pd(x));
}

AVX2 static inline __m256i times255(__m256 f) {
    struct halves w = widen(f);
    __m256d k = _mm256_set1_pd(255);
    return truncate(_mm256_mul_pd(w.low, k), _mm256_mul_pd(w.high, k));
}

/* Hue and saturation; both 0 where the pixel is grey. */
AVX2 static inline void hue_saturation(__m256i r, __m256i g, __m256i b, __m256i most, __m256i *hue,
                                       __m256i *saturation) {
    __m256i least = _mm256_min_epi32(r, _mm256_min_epi32(g, b));
    __m256i grey = _mm256_cmpeq_epi32(most, least);
    __m256 range = _mm256_cvtepi32_ps(_mm256_sub_epi32(most, least));
    __m256 rc = _mm256_div_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(most, r)), range);
    __m256 gc = _mm256_div_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(most, g)), range);
    __m256 bc = _mm256_div_ps(_mm256_cvtepi32_ps(_mm256_sub_epi32(most, b)), range);
    __m256 h = _mm256_blendv_ps(sector_hue(4, gc, rc), sector_hue(2, rc, bc),
                                _mm256_castsi256_ps(_mm256_cmpeq_epi32(g, most)));
    h = _mm256_blendv_ps(h, _mm256_sub_ps(bc, gc),
                         _mm256_castsi256_ps(_mm256_cmpeq_epi32(r, most)));
    struct halves w = widen(h);
    h = narrow(turn_part(w.low), turn_part(w.high));
    __m256 s = _mm256_div_ps(range, _mm256_cvtepi32_ps(most));
    *hue = _mm256_andnot_si256(grey, times255(h));
    *saturation = _mm256_andnot_si256(grey, times255(s));
}

/* v * (1 - x), rounded; no value in use is just below a half, which the tests check for all. */
AVX2 static inline __m256i shade(__m256 v, struct halves x) {
    struct halves w = widen(v);
    __m256d one = _mm256_set1_pd(1), half = _mm256_set1_pd(0.5);
    return truncate(_mm256_add_pd(_mm256_mul_pd(w.low, _mm256_sub_pd(one, x.low)), half),
                    _mm256_add_pd(_mm256_mul_pd(w.high, _mm256_sub_pd(one, x.high)), half));
}

AVX2 static inline __m256i choose(__m256i sector, int k, __m256i yes, __m256i no) {
    return _mm256_blendv_epi8(no, yes, _mm256_cmpeq_epi32(sector, _mm256_set1_epi32(k)));
}

AVX2 static inline __m256i rgb_of(__m256i hue, __m256i saturation, __m256i value,
                                  const struct sm_hsv_tables *t) {
    __m256i sector = _mm256_i32gather_epi32(t->sector, hue, 4);
    __m256 f = _mm256_i32gather_ps(t->part, hue, 4),
           s = _mm256_i32gather_ps(t->share, saturation, 4);
    __m256 v = _mm256_cvtepi32_ps(value);
    struct halves ws = widen(s), wf = widen(f);
    __m256d one = _mm256_set1_pd(1);
    struct halves rest = {_mm256_mul_pd(ws.low, _mm256_sub_pd(one, wf.low)),
                          _mm256_mul_pd(ws.high, _mm256_sub_pd(one, wf.high))};
    __m256i p = shade(v, ws), q = shade(v, widen(_mm256_mul_ps(s, f))), u = shade(v, rest);
    /*          0      1      2      3      4      5
     *  red     v      q      p      p      u      v
     *  green   u      v      v      q      p      p
     *  blue    p      p      u      v      v      q */
    __m256i r = choose(sector, 1, q, choose(sector, 4, u, value));
    r = choose(sector, 2, p, choose(sector, 3, p, r));
    __m256i g = choose(sector, 0, u, choose(sector, 3, q, value));
    g = choose(sector, 4, p, choose(sector, 5, p, g));
    __m256i b = choose(sector, 2, u, choose(sector, 5, q, value));
    b = choose(sector, 0, p, choose(sector, 1, p, b));
    return join(r, g, b);
}

AVX2 int sm_row_hue_avx2(uint8_t *row, int width, uint8_t step) {
    const struct sm_hsv_tables *t = sm_hsv_tables();
    int n = blocks(width);
    for (int x = 0; x < n; x += 8) {
        __m256i px = load8(row + x * 3), r = red(px), g = green(px), b = blue(px), hue, saturation;
        __m256i most = _mm256_max_epi32(r, _mm256_max_epi32(g, b));
        hue_saturation(r, g, b, most, &hue, &saturation);
        hue = _mm256_and_si256(_mm256_add_epi32(hue, _mm256_set1_epi32(step)),
                               _mm256_set1_epi32(255));
        store8(row + x * 3, rgb_of(hue, saturation, most, t));
    }
    return n;
}

#else
bool sm_colour_has_avx2(void) {
    return false;
}
int sm_row_blend_avx2(uint8_t *row, int bytes, int value, float factor) {
    (void)row, (void)bytes, (void)value, (void)factor;
    return 0;
}
int sm_row_luma_sum_avx2(const uint8_t *row, int width, uint64_t *sum) {
    (void)row, (void)width, (void)sum;
    return 0;
}
int sm_row_saturate_avx2(uint8_t *row, int width, float factor) {
    (void)row, (void)width, (void)factor;
    return 0;
}
int sm_row_hue_avx2(uint8_t *row, int width, uint8_t step) {
    (void)row, (void)width, (void)step;
    return 0;
}
int sm_row_gray_avx2(uint8_t *row, int width) {
    (void)row, (void)width;
    return 0;
}
#endif
