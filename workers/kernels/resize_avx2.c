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
enum { GROUP_TAPS = 4, GROUP_WORDS = 32 }; /* a group: 16 low words, then 16 high ones */

bool sm_resize_avx2_ok(void) {
    return __builtin_cpu_supports("avx2");
}

static int pack_reserve(struct sm_resize_axis *x, size_t words, struct sm_err *err) {
    if (words <= x->packed_cap) return 0;
    free(x->packed);
    x->packed = aligned_alloc(64, (words * sizeof *x->packed + 63) & ~(size_t)63);
    x->packed_cap = x->packed != NULL ? words : 0;
    if (x->packed == NULL)
        return sm_fail(err, SM_E_MEMORY, "no memory for the weights of a resize");
    return 0;
}

static size_t groups_max(const struct sm_resize_axis *x) {
    return ((size_t)x->taps + GROUP_TAPS - 1) / GROUP_TAPS;
}

/* Weights of taps 0 and 1 stand three times in the lower half (red, green, blue), those of 2 and 3
 * in the upper. */
int sm_resize_avx2_pack(struct sm_resize_axis *x, struct sm_err *err) {
    const size_t groups = groups_max(x);
    if (pack_reserve(x, (size_t)x->out * groups * GROUP_WORDS, err) != 0) return -1;
    for (int i = 0; i < x->out; i++) {
        const int32_t *weight = x->weight + (size_t)i * (size_t)x->taps;
        int16_t *to = x->packed + (size_t)i * groups * GROUP_WORDS;
        for (int t = 0; t < x->count[i]; t += GROUP_TAPS, to += GROUP_WORDS)
            for (int word = 0; word < 16; word++) {
                int tap = t + (word / 8) * 2 + word % 2;
                int32_t w = tap < x->count[i] && word % 8 < 6 ? weight[tap] : 0;
                to[word] = (int16_t)(w & SPLIT_MASK);
                to[word + 16] = (int16_t)(w >> SPLIT_BITS);
            }
    }
    return 0;
}

/* Red, green and blue of one output pixel in the low three dwords: (high << 12) + low + half,
 * shifted down. */
__attribute__((target("avx2"))) static inline __m128i rows_finish(__m256i low, __m256i high) {
    __m256i both = _mm256_add_epi32(low, _mm256_slli_epi32(high, SPLIT_BITS));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
    return _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(1 << (WEIGHT_BITS - 1))), WEIGHT_BITS);
}

/* n rows (1 to 4) at once, so that a group's weights are loaded once for all of them. */
__attribute__((target("avx2"), always_inline)) static inline void
rows_block(const struct sm_resize_axis *x, const uint8_t *const from[4], uint8_t *const to[4],
           int n) {
    const size_t groups = groups_max(x);
    const __m256i spread =
        _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, 6, -1, 9, -1, 7,
                         -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    for (int i = 0; i < x->out; i++) {
        const __m256i *weight = (const __m256i *)(x->packed + (size_t)i * groups * GROUP_WORDS);
        __m256i low[4], high[4];
        for (int k = 0; k < n; k++)
            low[k] = high[k] = _mm256_setzero_si256();
        size_t at = (size_t)x->first[i] * 3;
        for (int t = 0; t < x->count[i]; t += GROUP_TAPS, at += GROUP_TAPS * 3, weight += 2) {
            const __m256i w_low = _mm256_load_si256(weight), w_high = _mm256_load_si256(weight + 1);
            for (int k = 0; k < n; k++) {
                __m256i pixels = _mm256_shuffle_epi8(
                    _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(from[k] + at))),
                    spread);
                low[k] = _mm256_add_epi32(low[k], _mm256_madd_epi16(pixels, w_low));
                high[k] = _mm256_add_epi32(high[k], _mm256_madd_epi16(pixels, w_high));
            }
        }
        for (int k = 0; k < n; k++) {
            __m128i v = rows_finish(low[k], high[k]);
            v = _mm_packus_epi16(_mm_packs_epi32(v, v), v);
            uint32_t rgb = (uint32_t)_mm_cvtsi128_si32(v);
            memcpy(to[k] + i * 3, &rgb, i + 1 < x->out ? 4 : 3);
        }
    }
}

__attribute__((target("avx2"))) void sm_resize_avx2_rows(const struct sm_resize_axis *x,
                                                         const struct sm_tile *in,
                                                         const struct sm_tile *out) {
    assert(in->channels == 3 && x->out == out->width);
    int row = 0;
    for (; row < out->height; row += 4) {
        const uint8_t *from[4];
        uint8_t *to[4];
        int n = out->height - row < 4 ? out->height - row : 4;
        for (int k = 0; k < n; k++) {
            from[k] = in->u8 + (size_t)(row + k) * in->stride;
            to[k] = out->u8 + (size_t)(row + k) * out->stride;
        }
        if (n == 4)
            rows_block(x, from, to, 4);
        else
            for (int k = 0; k < n; k++)
                rows_block(x, from + k, to + k, 1);
    }
}

/* Two weights as one dword for pmaddwd, low parts and high parts. */
static inline int32_t pair_low(int32_t a, int32_t b) {
    return (int32_t)((uint32_t)(a & SPLIT_MASK) | (uint32_t)(b & SPLIT_MASK) << 16);
}

static inline int32_t pair_high(int32_t a, int32_t b) {
    return (int32_t)(((uint32_t)(a >> SPLIT_BITS) & 0xffff) | (uint32_t)(b >> SPLIT_BITS) << 16);
}

__attribute__((target("avx2"))) static inline __m256i columns_finish(__m256i low, __m256i high) {
    __m256i sum = _mm256_add_epi32(low, _mm256_slli_epi32(high, SPLIT_BITS));
    sum = _mm256_add_epi32(sum, _mm256_set1_epi32(1 << (WEIGHT_BITS - 1)));
    return _mm256_srai_epi32(sum, WEIGHT_BITS);
}

/* Sixteen bytes of one output row. from points at the first source row, moved to the column. */
__attribute__((target("avx2"))) static inline __m128i columns_16(const uint8_t *from, size_t stride,
                                                                 const int32_t *weight, int count) {
    __m256i low0 = _mm256_setzero_si256(), low1 = low0, high0 = low0, high1 = low0;
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
    __m256i v = _mm256_packs_epi32(columns_finish(low0, high0), columns_finish(low1, high1));
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
