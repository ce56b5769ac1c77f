/* The two passes of the antialiased resize with AVX2, chosen at run time by
 * workers/kernels/resize.c. A 22-bit weight does not fit pmaddwd's 16 bits, so it is split into w =
 * high * 4096 + low; sums modulo 2^32 are linear, so the result equals the plain loop's bit for
 * bit. On other processors the file holds only the answer "no". */
#include "workers/kernels/resize.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { SPLIT_BITS = 12, SPLIT_MASK = (1 << SPLIT_BITS) - 1, WEIGHT_BITS = 22 };

bool sm_resize_avx2_ok(void) {
    return __builtin_cpu_supports("avx2");
}

static int pack_reserve(struct sm_resize_axis *x, size_t pairs, struct sm_err *err) {
    if (pairs <= x->packed_cap) return 0;
    free(x->packed);
    x->packed = malloc(pairs * 2 * sizeof *x->packed);
    x->packed_cap = x->packed != NULL ? pairs : 0;
    if (x->packed == NULL)
        return sm_fail(err, SM_E_MEMORY, "no memory for the weights of a resize");
    return 0;
}

/* Two weights as one dword for pmaddwd, low parts and high parts. */
static inline int32_t pair_low(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)(a & SPLIT_MASK) | (uint32_t)(b & SPLIT_MASK) << 16);
}

static inline int32_t pair_high(int32_t a, int32_t b) {
    return (int32_t)(((uint32_t)(a >> SPLIT_BITS) & 0xffff) | (uint32_t)(b >> SPLIT_BITS) << 16);
}

static size_t pairs_max(const struct sm_resize_axis *x) {
    return ((size_t)x->taps + 1) / 2;
}

/* For each output its pairs of taps: low parts, high parts. */
int sm_resize_avx2_pack(struct sm_resize_axis *x, struct sm_err *err) {
    const size_t pairs = pairs_max(x);
    if (pack_reserve(x, (size_t)x->out * pairs, err) != 0) return -1;
    for (int i = 0; i < x->out; i++) {
        const int32_t *weight = x->weight + (size_t)i * (size_t)x->taps;
        int32_t *to = x->packed + (size_t)i * pairs * 2;
        for (int t = 0; t < x->count[i]; t += 2, to += 2) {
            const int32_t second = t + 1 < x->count[i] ? weight[t + 1] : 0;
            to[0] = pair_low(weight[t], second);
            to[1] = pair_high(weight[t], second);
        }
    }
    return 0;
}

/* Two rows, one in each half: their next two pixels as words R0 R1 G0 G1 B0 B1 0 0. */
__attribute__((target("avx2"), always_inline)) static inline __m256i two_pixels(const uint8_t *a,
                                                                                const uint8_t *b) {
    const __m256i spread =
        _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 0, -1, 3, -1, 1,
                         -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    __m256i both = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)a));
    both = _mm256_inserti128_si256(both, _mm_loadl_epi64((const __m128i *)b), 1);
    return _mm256_shuffle_epi8(both, spread);
}

__attribute__((target("avx2"))) static inline __m256i finish(__m256i low, __m256i high) {
    return _mm256_srai_epi32(_mm256_add_epi32(low, _mm256_slli_epi32(high, SPLIT_BITS)),
                             WEIGHT_BITS);
}

/* Four rows at once, so that a pair's weights are loaded once for all of them. Each store but the
 * last of a row is of four bytes; the next pixel overwrites the fourth. */
__attribute__((target("avx2"))) static void
rows_4(const struct sm_resize_axis *x, const uint8_t *const from[4], uint8_t *const to[4]) {
    const size_t pairs = pairs_max(x);
    const __m256i half = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1));
    const uint8_t *const f0 = from[0], *const f1 = from[1], *const f2 = from[2],
                         *const f3 = from[3];
    for (int i = 0; i < x->out; i++) {
        const int32_t *weight = x->packed + (size_t)i * pairs * 2;
        __m256i low01 = half, low23 = half, high01 = _mm256_setzero_si256(), high23 = high01;
        size_t at = (size_t)x->first[i] * 3;
        for (int t = 0; t < x->count[i]; t += 2, at += 6, weight += 2) {
            const __m256i w_low = _mm256_set1_epi32(weight[0]),
                          w_high = _mm256_set1_epi32(weight[1]);
            const __m256i p01 = two_pixels(f0 + at, f1 + at), p23 = two_pixels(f2 + at, f3 + at);
            low01 = _mm256_add_epi32(low01, _mm256_madd_epi16(p01, w_low));
            low23 = _mm256_add_epi32(low23, _mm256_madd_epi16(p23, w_low));
            high01 = _mm256_add_epi32(high01, _mm256_madd_epi16(p01, w_high));
            high23 = _mm256_add_epi32(high23, _mm256_madd_epi16(p23, w_high));
        }
        __m256i v = _mm256_packs_epi32(finish(low01, high01), finish(low23, high23));
        v = _mm256_packus_epi16(v, v); /* halves: row 0, row 2; row 1, row 3 */
        const uint64_t even = (uint64_t)_mm256_extract_epi64(v, 0),
                       odd = (uint64_t)_mm256_extract_epi64(v, 2);
        const uint32_t rgb[4] = {(uint32_t)even, (uint32_t)odd, (uint32_t)(even >> 32),
                                 (uint32_t)(odd >> 32)};
        if (i + 1 < x->out)
            for (int k = 0; k < 4; k++)
                memcpy(to[k] + i * 3, &rgb[k], 4);
        else
            for (int k = 0; k < 4; k++)
                memcpy(to[k] + i * 3, &rgb[k], 3);
    }
}

__attribute__((target("avx2"))) void sm_resize_avx2_rows(const struct sm_resize_axis *x,
                                                         const struct sm_tile *in,
                                                         const struct sm_tile *out) {
    assert(in->channels == 3 && x->out == out->width);
    for (int row = 0; row < out->height; row += 4) {
        const uint8_t *from[4];
        uint8_t *to[4];
        for (int k = 0; k < 4; k++) { /* at the bottom the last row is made more than once */
            int at = row + k < out->height ? row + k : out->height - 1;
            from[k] = sm_tile_row(in, at);
            to[k] = sm_tile_row(out, at);
        }
        rows_4(x, from, to);
    }
}

/* Sixteen bytes of one output row. from points at the first source row, moved to the column. */
__attribute__((target("avx2"))) static inline __m128i columns_16(const uint8_t *from, size_t stride,
                                                                 const int32_t *weight, int count) {
    __m256i low0 = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1)), low1 = low0;
    __m256i high0 = _mm256_setzero_si256(), high1 = high0;
    for (int t = 0; t < count; t += 2, from += 2 * stride) {
        const bool two = t + 1 < count;
        const int32_t w0 = weight[t], w1 = two ? weight[t + 1] : 0;
        __m256i a = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)from));
        __m256i b = two ? _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(from + stride)))
                        : _mm256_setzero_si256();
        __m256i ab0 = _mm256_unpacklo_epi16(a, b), ab1 = _mm256_unpackhi_epi16(a, b);
        __m256i w_low = _mm256_set1_epi32(pair_low(w0, w1));
        __m256i w_high = _mm256_set1_epi32(pair_high(w0, w1));
        low0 = _mm256_add_epi32(low0, _mm256_madd_epi16(ab0, w_low));
        low1 = _mm256_add_epi32(low1, _mm256_madd_epi16(ab1, w_low));
        high0 = _mm256_add_epi32(high0, _mm256_madd_epi16(ab0, w_high));
        high1 = _mm256_add_epi32(high1, _mm256_madd_epi16(ab1, w_high));
    }
    __m256i v = _mm256_packs_epi32(finish(low0, high0), finish(low1, high1));
    return _mm_packus_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

__attribute__((target("avx2"))) void sm_resize_avx2_columns(const struct sm_resize_axis *y,
                                                            const struct sm_tile *in,
                                                            const struct sm_tile *out) {
    assert(y->out == out->height);
    const size_t n = (size_t)out->width * (size_t)out->channels;
    for (int row = 0; row < out->height; row++) {
        const uint8_t *from = in->u8 + (size_t)y->first[row] * in->stride;
        const int32_t *weight = y->weight + (size_t)row * (size_t)y->taps;
        uint8_t *to = out->u8 + (size_t)row * out->stride;
        for (size_t i = 0; i < n; i += 16) {
            __m128i v = columns_16(from + i, in->stride, weight, y->count[row]);
            if (i + 16 <= n) {
                _mm_storeu_si128((__m128i *)(to + i), v);
            } else {
                uint8_t tail[16];
                _mm_storeu_si128((__m128i *)tail, v);
                memcpy(to + i, tail, n - i);
            }
        }
    }
}

#else

bool sm_resize_avx2_ok(void) {
    return false;
}
int sm_resize_avx2_pack(struct sm_resize_axis *x, struct sm_err *err) {
    (void)x;
    return sm_fail(err, SM_E_INTERNAL, "no vector kernel on this processor");
}
void sm_resize_avx2_rows(const struct sm_resize_axis *x, const struct sm_tile *in,
                         const struct sm_tile *out) {
    (void)x, (void)in, (void)out;
    assert(!"no vector kernel on this processor");
}
void sm_resize_avx2_columns(const struct sm_resize_axis *y, const struct sm_tile *in,
                            const struct sm_tile *out) {
    (void)y, (void)in, (void)out;
    assert(!"no vector kernel on this processor");
}

#endif
