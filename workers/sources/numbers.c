/* Most cells are a sign, digits and perhaps a point. Four of up to 16 bytes are taken as vectors:
 * points are found and closed up, the digits become two numbers of eight by pairs, fours and eights
 * (after D. Lemire, "Number parsing at a gigabyte per second", 2021), and one division by an exact
 * power of ten rounds once. Whole numbers of up to 8 bytes need less than that; longer cells are
 * taken one by one, as numbers of up to 32 digits, and rounded as number_round.h says. There is no
 * loop and hardly a branch in these, since lengths of cells are as random as their values. All else
 * goes to number.c. */
#include "workers/sources/numbers.h"

#include "workers/sources/number.h"
#include "workers/sources/number_round.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

/* False: it is no finite number of the type. */
static inline bool put(double v, bool is_double, void *out, size_t i) {
    if (is_double) {
        ((double *)out)[i] = v;
        return true;
    }
    ((float *)out)[i] = (float)v;
    return !isinf((float)v);
}

static bool parse_one(const struct sm_csv_row *row, size_t cell, bool is_double, void *out,
                      size_t i) {
    const struct sm_csv_field f = sm_csv_cell(row, cell);
    double v;
    return sm_number_parse(f.s, f.n, &v) == SM_NUMBER_FINITE && put(v, is_double, out, i);
}

size_t sm_numbers_parse_reference(const struct sm_csv_row *row, size_t first, size_t n,
                                  bool is_double, void *out) {
    for (size_t i = 0; i < n; i++)
        if (!parse_one(row, first + i, is_double, out, i)) return i;
    return n;
}

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define INLINE AVX2 __attribute__((always_inline)) static inline

enum { SHORT = 8, WIDE = 16, LONG = 32, GROUP = 4, POINTS = WIDE + 1, MAX_HIGH = 1843 };
_Static_assert(LONG + 1 <= SM_CSV_BEFORE, "bytes before a cell are read with it");

/* Of a point at place p: the bytes before it move one place on. The last row is of none. */
#define ROW(p)                                                                                     \
    {                                                                                              \
        (0 > (p) ? 0 : -1), (1 > (p) ? 1 : 0), (2 > (p) ? 2 : 1), (3 > (p) ? 3 : 2),               \
            (4 > (p) ? 4 : 3), (5 > (p) ? 5 : 4), (6 > (p) ? 6 : 5), (7 > (p) ? 7 : 6),            \
            (8 > (p) ? 8 : 7), (9 > (p) ? 9 : 8), (10 > (p) ? 10 : 9), (11 > (p) ? 11 : 10),       \
            (12 > (p) ? 12 : 11), (13 > (p) ? 13 : 12), (14 > (p) ? 14 : 13), (15 > (p) ? 15 : 14) \
    }
static _Alignas(64) const int8_t closed[POINTS][WIDE] = {
    ROW(0), ROW(1),  ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7), ROW(8),
    ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15), ROW(-1)};
/* What a point at place p divides by, with the sign. */
#define TENS(one)                                                                          \
    {                                                                                      \
        one * 1e15, one * 1e14, one * 1e13, one * 1e12, one * 1e11, one * 1e10, one * 1e9, \
            one * 1e8, one * 1e7, one * 1e6, one * 1e5, one * 1e4, one * 1e3, one * 1e2,   \
            one * 1e1, one, one                                                            \
    }
static const double tens[2][POINTS] = {TENS(1.0), TENS(-1.0)};
/* From byte n on: the last n bytes of a vector of 32 are set, from LONG + n on those of one of 16.
 * From byte LONG + n on backwards: all but the last n. */
#define FF8 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
#define OO8 0, 0, 0, 0, 0, 0, 0, 0
static _Alignas(64) const uint8_t last[2 * LONG] = {OO8, OO8, OO8, OO8, FF8, FF8, FF8, FF8};
static _Alignas(64) const uint8_t front[2 * LONG] = {FF8, FF8, FF8, FF8, OO8, OO8, OO8, OO8};

/* Two vectors of 16 bytes. */
INLINE __m256i pair(const void *low, const void *high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                                   _mm_loadu_si128((const __m128i *)high), 1);
}

/* 16 digits on each side, most significant first, become four numbers of four on each. */
INLINE __m256i fours(__m256i digits) {
    const __m256i pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(10 | 1 << 8));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi32(100 | 1 << 16));
}

/* Of numbers of two halves, 32 bits each, the more significant one first. */
INLINE __m256i halves(__m256i v, uint32_t base) {
    return _mm256_add_epi64(_mm256_mul_epu32(v, _mm256_set1_epi64x(base)),
                            _mm256_srli_epi64(v, 32));
}

/* Which bytes are greater than 9. */
INLINE __m256i no_digits(__m256i v) {
    return _mm256_subs_epu8(v, _mm256_set1_epi8(9));
}

/* Of four whole numbers below 2^52. */
INLINE __m256d doubles(__m256i v) {
    const __m256d two52 = _mm256_set1_pd(0x1p52);
    return _mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(v), two52), two52);
}

/* Where a cell begins and ends, and whether it has a minus. */
struct cell {
    const char *end;
    size_t n; /* without the minus */
    bool negative;
};

INLINE struct cell cell_at(const struct sm_csv_row *row, size_t i) {
    const char *s = row->bytes + (uint32_t)(row->begins[i] + row->gap);
    struct cell c = {.end = row->bytes + row->ends[i], .negative = *s == '-'};
    c.n = (size_t)(c.end - s) - c.negative;
    return c;
}

static inline int64_t eight(const char *s) {
    int64_t v;
    memcpy(&v, s, SHORT);
    return v;
}

/* Four whole numbers of 1 to 8 bytes. False: look closer. */
INLINE bool parse_whole(const struct sm_csv_row *row, size_t i, __m128i lengths, __m256d *out) {
    const char *b = row->bytes - SHORT;
    const uint32_t *ends = row->ends + i;
    const __m256i v = _mm256_set_epi64x(eight(b + ends[3]), eight(b + ends[2]), eight(b + ends[1]),
                                        eight(b + ends[0])),
                  n = _mm256_cvtepu32_epi64(lengths), all = _mm256_set1_epi8(-1),
                  kept = _mm256_sllv_epi64(
                      all, _mm256_slli_epi64(_mm256_sub_epi64(_mm256_set1_epi64x(SHORT), n), 3)),
                  first = _mm256_andnot_si256(_mm256_slli_epi64(kept, 8), kept),
                  minus = _mm256_and_si256(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('-')), first),
                  digits = _mm256_andnot_si256(
                      minus, _mm256_and_si256(_mm256_sub_epi8(v, _mm256_set1_epi8('0')), kept)),
                  none = _mm256_and_si256(minus, _mm256_cmpeq_epi64(kept, first)),
                  bad = _mm256_or_si256(no_digits(digits), none);
    if (!_mm256_testz_si256(bad, bad)) return false;
    const __m256d sign =
        _mm256_and_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(minus, first)), _mm256_set1_pd(-0.0));
    *out = _mm256_or_pd(doubles(halves(fours(digits), 10000)), sign);
    return true;
}

/* Two cells' digits without the points, whose places are filled in; short_of: negative when one
 * has no digit. */
INLINE __m256i close_up(const struct cell *a, const struct cell *b, unsigned point[2],
                        int *short_of) {
    const uint8_t *kept = last + LONG - WIDE;
    const __m256i bytes = pair(a->end - WIDE, b->end - WIDE);
    const __m256i points = _mm256_and_si256(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('.')),
                                            pair(kept + a->n, kept + b->n));
    const uint32_t at = (uint32_t)_mm256_movemask_epi8(points), none = 1 << WIDE;
    point[0] = (unsigned)__builtin_ctz(at | none);
    point[1] = (unsigned)__builtin_ctz(at >> WIDE | none);
    const size_t na = a->n - (point[0] < WIDE), nb = b->n - (point[1] < WIDE);
    *short_of |= ((int)na - 1) | ((int)nb - 1);
    return _mm256_and_si256(_mm256_shuffle_epi8(_mm256_sub_epi8(bytes, _mm256_set1_epi8('0')),
                                                pair(closed[point[0]], closed[point[1]])),
                            pair(kept + na, kept + nb));
}

/* Four numbers of 1 to 16 bytes. False: look closer. */
INLINE bool parse_wide(const struct sm_csv_row *row, size_t i, __m256d *out) {
    const struct cell a = cell_at(row, i), b = cell_at(row, i + 1), c = cell_at(row, i + 2),
                      d = cell_at(row, i + 3);
    unsigned ac[2], bd[2];
    int short_of = 0;
    const __m256i first = close_up(&a, &c, ac, &short_of), second = close_up(&b, &d, bd, &short_of);
    const __m256i eights = _mm256_madd_epi16(_mm256_packus_epi32(fours(first), fours(second)),
                                             _mm256_set1_epi32(10000 | 1 << 16));
    const __m256i values = halves(eights, 100000000);
    /* a second point is no digit either */
    const __m256i bad = _mm256_or_si256(_mm256_or_si256(no_digits(first), no_digits(second)),
                                        _mm256_srli_epi64(values, 52));
    if (!_mm256_testz_si256(bad, bad) || short_of < 0) return false;
    const __m256d power = _mm256_set_pd(tens[d.negative][bd[1]], tens[c.negative][ac[1]],
                                        tens[b.negative][bd[0]], tens[a.negative][ac[0]]);
    *out = _mm256_div_pd(doubles(values), power);
    return true;
}

/* One number of up to 32 digits and a point among them. False: look closer. */
INLINE bool parse_long(const struct sm_csv_row *row, size_t i, double *out) {
    if (row->ends[i] == row->begins[i] + row->gap) return false;
    const struct cell c = cell_at(row, i);
    if (c.n - 1 >= LONG) return false;
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)(c.end - LONG)),
                  moved = _mm256_loadu_si256((const __m256i *)(const void *)(c.end - LONG - 1)),
                  kept = _mm256_loadu_si256((const __m256i *)(const void *)(last + c.n));
    const uint32_t points = (uint32_t)_mm256_movemask_epi8(
        _mm256_and_si256(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('.')), kept));
    const bool has_point = points != 0;
    const unsigned k = LONG - 1 - (unsigned)__builtin_ctz(points | 1u << 31); /* digits behind */
    const size_t n = c.n - has_point;
    /* what stands before the point moves one place on */
    const __m256i before =
        _mm256_loadu_si256((const __m256i *)(const void *)(front + (has_point ? k : LONG)));
    const __m256i digits = _mm256_and_si256(
        _mm256_sub_epi8(_mm256_blendv_epi8(bytes, moved, before), _mm256_set1_epi8('0')),
        _mm256_loadu_si256((const __m256i *)(const void *)(last + n)));
    const __m256i bad = no_digits(digits), four = fours(digits);
    const __m256i eights =
        _mm256_madd_epi16(_mm256_packus_epi32(four, four), _mm256_set1_epi32(10000 | 1 << 16));
    const __m256i both = halves(eights, 100000000); /* 16 digits on each side */
    const uint64_t high = (uint64_t)_mm_cvtsi128_si64(_mm256_castsi256_si128(both)),
                   low = (uint64_t)_mm_cvtsi128_si64(_mm256_extracti128_si256(both, 1));
    if (!_mm256_testz_si256(bad, bad) || n == 0 || high > MAX_HIGH || k >= SM_POWERS) return false;
    const uint64_t value = high * 10000000000000000 + low;
    *out = sm_signed(value == 0 ? 0 : sm_quotient_round(value, k), c.negative);
    return true;
}

INLINE bool parse_group(const struct sm_csv_row *row, size_t i, __m256d *out) {
    const __m128i begins = _mm_loadu_si128((const __m128i *)(const void *)(row->begins + i)),
                  ends = _mm_loadu_si128((const __m128i *)(const void *)(row->ends + i)),
                  lengths =
                      _mm_sub_epi32(_mm_sub_epi32(ends, begins), _mm_set1_epi32((int)row->gap)),
                  less = _mm_sub_epi32(lengths, _mm_set1_epi32(1));
    const __m128i is_short = _mm_cmpeq_epi32(_mm_srli_epi32(less, 3), _mm_setzero_si128()),
                  is_wide = _mm_cmpeq_epi32(_mm_srli_epi32(less, 4), _mm_setzero_si128());
    if (_mm_movemask_epi8(is_short) == 0xffff && parse_whole(row, i, lengths, out)) return true;
    return _mm_movemask_epi8(is_wide) == 0xffff && parse_wide(row, i, out);
}

INLINE bool parse_single(const struct sm_csv_row *row, size_t cell, bool is_double, void *out,
                         size_t i) {
    double v;
    if (parse_long(row, cell, &v)) return put(v, is_double, out, i); /* far from infinite */
    return parse_one(row, cell, is_double, out, i);
}

INLINE size_t parse_avx2(const struct sm_csv_row *row, size_t first, size_t n, bool is_double,
                         void *out) {
    for (size_t i = 0; i < n;) {
        if (n - i < GROUP && n >= GROUP) i = n - GROUP; /* some once more */
        __m256d four;
        if (n >= GROUP && parse_group(row, first + i, &four)) {
            if (is_double)
                _mm256_storeu_pd((double *)out + i, four);
            else
                _mm_storeu_ps((float *)out + i, _mm256_cvtpd_ps(four));
            i += GROUP;
            continue;
        }
        const size_t end = n - i < GROUP ? n : i + GROUP;
        for (; i < end; i++)
            if (!parse_single(row, first + i, is_double, out, i)) return i;
    }
    return n;
}

AVX2 static size_t floats_avx2(const struct sm_csv_row *row, size_t first, size_t n, void *out) {
    return parse_avx2(row, first, n, false, out);
}

AVX2 static size_t doubles_avx2(const struct sm_csv_row *row, size_t first, size_t n, void *out) {
    return parse_avx2(row, first, n, true, out);
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}
#endif

size_t sm_numbers_parse(const struct sm_csv_row *row, size_t first, size_t n, bool is_double,
                        void *out) {
#ifdef __x86_64__
    if (has_avx2())
        return is_double ? doubles_avx2(row, first, n, out) : floats_avx2(row, first, n, out);
#endif
    return sm_numbers_parse_reference(row, first, n, is_double, out);
}
