/* Most cells are a sign, digits and perhaps a point, in no more than 16 bytes. Those are taken as
 * one vector: the point is found and closed up, the digits become two numbers of eight by pairs,
 * fours and eights (after D. Lemire, "Number parsing at a gigabyte per second", 2021), and one
 * division by an exact power of ten rounds once. There is no loop and hardly a branch in it, since
 * lengths of cells are as random as their values. All else goes to number.c. */
#include "workers/sources/numbers.h"

#include "workers/sources/number.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))

enum { WIDE = SM_CSV_BEFORE };

/* Of a point at place p: the bytes before it move one place on. The last row is of none. */
#define ROW(p)                                                                                     \
    {                                                                                              \
        (0 > (p) ? 0 : -1), (1 > (p) ? 1 : 0), (2 > (p) ? 2 : 1), (3 > (p) ? 3 : 2),               \
            (4 > (p) ? 4 : 3), (5 > (p) ? 5 : 4), (6 > (p) ? 6 : 5), (7 > (p) ? 7 : 6),            \
            (8 > (p) ? 8 : 7), (9 > (p) ? 9 : 8), (10 > (p) ? 10 : 9), (11 > (p) ? 11 : 10),       \
            (12 > (p) ? 12 : 11), (13 > (p) ? 13 : 12), (14 > (p) ? 14 : 13), (15 > (p) ? 15 : 14) \
    }
static const int8_t closed[WIDE + 1][WIDE] = {ROW(0),  ROW(1),  ROW(2),  ROW(3),  ROW(4),  ROW(5),
                                              ROW(6),  ROW(7),  ROW(8),  ROW(9),  ROW(10), ROW(11),
                                              ROW(12), ROW(13), ROW(14), ROW(15), ROW(-1)};
/* From byte WIDE - n on: the last n bytes of a vector stay. */
static const uint8_t kept[2 * WIDE] = {
    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,    0,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
static const double tens[WIDE] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

/* The 16 digits, most significant first, as a number. */
AVX2 static inline uint64_t digits_value(__m128i digits) {
    const __m128i pairs = _mm_maddubs_epi16(
        digits, _mm_set_epi8(1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10));
    const __m128i fours = _mm_madd_epi16(pairs, _mm_set_epi16(1, 100, 1, 100, 1, 100, 1, 100));
    const __m128i eights = _mm_madd_epi16(_mm_packus_epi32(fours, fours),
                                          _mm_set_epi16(1, 10000, 1, 10000, 1, 10000, 1, 10000));
    const uint64_t both = (uint64_t)_mm_cvtsi128_si64(eights);
    return (both & UINT32_MAX) * 100000000 + (both >> 32);
}

/* False: look closer. */
AVX2 static inline bool vector_parse(const char *s, size_t length, double *out) {
    const bool negative = *s == '-';
    const size_t n = length - negative;
    if (n == 0 || n > WIDE) return false;
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(s + length - WIDE));
    const unsigned points =
        (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('.'))) >> (WIDE - n);
    const bool has_point = points != 0;
    const size_t at = has_point ? WIDE - n + (size_t)__builtin_ctz(points) : WIDE;
    __m128i digits = _mm_shuffle_epi8(_mm_sub_epi8(bytes, _mm_set1_epi8('0')),
                                      _mm_loadu_si128((const __m128i *)(const void *)closed[at]));
    digits = _mm_and_si128(digits,
                           _mm_loadu_si128((const __m128i *)(const void *)(kept + n - has_point)));
    /* a second point is no digit either */
    const __m128i nine = _mm_set1_epi8(9);
    const uint64_t value = digits_value(digits);
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_max_epu8(digits, nine), nine)) != 0xffff ||
        n == has_point || value > (uint64_t)1 << 53)
        return false;
    double v = (double)(int64_t)value / tens[has_point ? WIDE - 1 - at : 0];
    uint64_t bits;
    memcpy(&bits, &v, sizeof v);
    bits |= (uint64_t)negative << 63;
    memcpy(out, &bits, sizeof bits);
    return true;
}

AVX2 static size_t parse_avx2(const struct sm_csv_field *fields, size_t n, double *out) {
    for (size_t i = 0; i < n; i++) {
        const struct sm_csv_field *f = &fields[i];
        if (f->n == 0 || (!vector_parse(f->s, f->n, &out[i]) &&
                          sm_number_parse(f->s, f->n, &out[i]) != SM_NUMBER_FINITE))
            return i;
    }
    return n;
}
#endif

size_t sm_numbers_parse(const struct sm_csv_field *fields, size_t n, double *out) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) return parse_avx2(fields, n, out);
#endif
    for (size_t i = 0; i < n; i++)
        if (sm_number_parse(fields[i].s, fields[i].n, &out[i]) != SM_NUMBER_FINITE) return i;
    return n;
}
