/* The last step of a tensor: flips, Normalize's table, element type and layout in one pass over the
 * pixels, written straight into the caller's memory. Comes after the chain of ops; what it writes
 * is what a trainer gets. */
#include "workers/kernels/copy.h"

#include <assert.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

uint32_t sm_float_bits32(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

uint32_t sm_float_bitsb16(float v) {
    uint32_t bits = sm_float_bits32(v);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40; /* not a number stays none */
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

uint32_t sm_float_bits16(float v) {
    const uint32_t bits = sm_float_bits32(v), sign = bits >> 16 & 0x8000,
                   mantissa = bits & 0x7fffff;
    const int exponent = (int)(bits >> 23 & 0xff) - 127 + 15;
    if (exponent == 255 - 127 + 15) return sign | 0x7c00 | (mantissa ? 0x200 : 0);
    if (exponent >= 31) return sign | 0x7c00;
    if (exponent < -10) return sign;
    /* normal: drop 13 bits; subnormal: the leading one becomes part of the mantissa and more bits
     * drop */
    const int drop = exponent > 0 ? 13 : 14 - exponent;
    const uint32_t whole = exponent > 0 ? (uint32_t)exponent << 23 | mantissa : mantissa | 0x800000;
    const uint32_t half = 1u << (drop - 1), rest = whole & ((1u << drop) - 1);
    uint32_t kept = whole >> drop;
    if (rest > half || (rest == half && (kept & 1)))
        kept++; /* a carry runs into the exponent, as it should */
    return sign | kept;
}

static inline void put(uint8_t *to, uint32_t element, int size) {
    memcpy(to, &element, (size_t)size);
}

/* One row, element by element. to_pixel and to_channel: bytes from one to the next in out. */
__attribute__((always_inline)) static inline void write_row(const struct sm_layout_job *job,
                                                            const uint8_t *from, uint8_t *to,
                                                            size_t to_pixel, size_t to_channel,
                                                            int size) {
    const struct sm_tile *t = &job->tile;
    const ptrdiff_t step = (ptrdiff_t)sm_tile_pixel(t) * (job->flip_x ? -1 : 1);
    if (job->flip_x) from += (size_t)(t->width - 1) * sm_tile_pixel(t);
    for (int x = 0; x < t->width; x++, from += step, to += to_pixel)
        for (int c = 0; c < t->channels; c++) {
            uint32_t element;
            if (t->is_float) {
                float v;
                memcpy(&v, from + (size_t)c * sizeof v, sizeof v);
                element = job->narrow(v);
            } else {
                element = job->table != NULL ? job->table[c][from[c]] : from[c];
            }
            put(to + (size_t)c * to_channel, element, size);
        }
}

/* --- the common case: uint8 RGB to planes, without a table --- */

void sm_planes_plain(const uint8_t *from, struct sm_planes to, int n, bool flip) {
    for (int x = 0; x < n; x++, from += 3) {
        const int at = flip ? n - 1 - x : x;
        to.r[at] = from[0];
        to.g[at] = from[1];
        to.b[at] = from[2];
    }
}

#if defined(__x86_64__)

/* Sixteen pixels are three vectors; a channel's bytes lie at stride 3 over them. Each mask picks
 * from one vector what it has of the channel and leaves zero elsewhere. */
#define Z -1
static const int8_t pick[3][3][16] = {
    {{0, 3, 6, 9, 12, 15, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z},
     {Z, Z, Z, Z, Z, Z, 2, 5, 8, 11, 14, Z, Z, Z, Z, Z},
     {Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, 1, 4, 7, 10, 13}},
    {{1, 4, 7, 10, 13, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z},
     {Z, Z, Z, Z, Z, 0, 3, 6, 9, 12, 15, Z, Z, Z, Z, Z},
     {Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, 2, 5, 8, 11, 14}},
    {{2, 5, 8, 11, 14, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z},
     {Z, Z, Z, Z, Z, 1, 4, 7, 10, 13, Z, Z, Z, Z, Z, Z},
     {Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, 0, 3, 6, 9, 12, 15}},
};
#undef Z

__attribute__((target("avx2"))) static inline __m128i channel(const __m128i v[3], int c) {
    __m128i a = _mm_shuffle_epi8(v[0], _mm_loadu_si128((const __m128i *)pick[c][0]));
    __m128i b = _mm_shuffle_epi8(v[1], _mm_loadu_si128((const __m128i *)pick[c][1]));
    __m128i d = _mm_shuffle_epi8(v[2], _mm_loadu_si128((const __m128i *)pick[c][2]));
    return _mm_or_si128(_mm_or_si128(a, b), d);
}

__attribute__((target("avx2"))) void sm_planes_avx2(const uint8_t *from, struct sm_planes to, int n,
                                                    bool flip) {
    const __m128i backwards = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    uint8_t *const planes[3] = {to.r, to.g, to.b};
    int x = 0;
    for (; x + 16 <= n; x += 16, from += 48) {
        const __m128i v[3] = {_mm_loadu_si128((const __m128i *)from),
                              _mm_loadu_si128((const __m128i *)(from + 16)),
                              _mm_loadu_si128((const __m128i *)(from + 32))};
        for (int c = 0; c < 3; c++) {
            __m128i line = channel(v, c);
            if (flip) line = _mm_shuffle_epi8(line, backwards);
            _mm_storeu_si128((__m128i *)(planes[c] + (flip ? n - 16 - x : x)), line);
        }
    }
    const int done = flip ? 0 : x;
    sm_planes_plain(from, (struct sm_planes){to.r + done, to.g + done, to.b + done}, n - x, flip);
}

static bool planes_fast(void) {
    return __builtin_cpu_supports("avx2");
}

#else

void sm_planes_avx2(const uint8_t *from, struct sm_planes to, int n, bool flip) {
    sm_planes_plain(from, to, n, flip);
}

static bool planes_fast(void) {
    return false;
}

#endif

void sm_layout_write(const struct sm_layout_job *job, uint8_t *out) {
    const struct sm_tile *t = &job->tile;
    const size_t size = (size_t)job->size, channels = (size_t)t->channels;
    const size_t plane = (size_t)t->width * (size_t)t->height * size;
    const size_t to_pixel = job->planes ? size : size * channels,
                 to_channel = job->planes ? plane : size;
    assert(t->is_float ? job->narrow != NULL : job->size == 1 || job->table != NULL);
    void (*const planes)(const uint8_t *, struct sm_planes, int, bool) =
        planes_fast() ? sm_planes_avx2 : sm_planes_plain;
    const bool bytes = !t->is_float && job->table == NULL;
    for (int y = 0; y < t->height; y++) {
        const uint8_t *from = sm_tile_row(t, job->flip_y ? t->height - 1 - y : y);
        uint8_t *to = out + (size_t)y * (size_t)t->width * to_pixel;
        if (bytes && job->planes && channels == 3)
            planes(from, (struct sm_planes){to, to + plane, to + 2 * plane}, t->width, job->flip_x);
        else if (bytes && !job->flip_x && (channels == 1 || !job->planes))
            memcpy(to, from, (size_t)t->width * channels);
        else if (size == 1)
            write_row(job, from, to, to_pixel, to_channel, 1);
        else if (size == 2)
            write_row(job, from, to, to_pixel, to_channel, 2);
        else
            write_row(job, from, to, to_pixel, to_channel, 4);
    }
}
