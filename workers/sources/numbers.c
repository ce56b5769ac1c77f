/* Most cells are a sign, digits and perhaps a point. They are taken as vectors, four at once: signs
 * and points are found, the points closed up, the digits become numbers of eight by pairs, fours
 * and eights (after D. Lemire, "Number parsing at a gigabyte per second", 2021), and these are
 * divided by a power of ten and rounded once. There is no loop over bytes and hardly a branch that
 * hangs on a cell, since lengths of cells are as random as their values. What the vectors do not
 * take goes to number.c. */
#include "workers/sources/numbers.h"

#include "workers/sources/number.h"
#include "workers/sources/number_round.h"

#include <stdint.h>
#include <string.h>

/* Of a row, from some cell on. By value: what is stored for a cell could else change it, as far as
 * the compiler knows. */
struct cells {
    const char *bytes;
    const uint32_t *begins, *ends;
    uint32_t gap;
};

static inline struct cells cells_from(const struct sm_csv_row *row, size_t first) {
    return (struct cells){row->bytes, row->begins + first, row->ends + first, row->gap};
}

static bool parse_one(struct cells c, size_t cell, bool is_double, void *out, size_t i) {
    const uint32_t begin = c.begins[cell] + c.gap;
    double v;
    return sm_number_parse(c.bytes + begin, c.ends[cell] - begin, &v) == SM_NUMBER_FINITE &&
           sm_number_put(v, is_double, out, i);
}

size_t sm_numbers_parse_reference(const struct sm_csv_row *row, size_t first, size_t n,
                                  bool is_double, void *out) {
    const struct cells c = cells_from(row, first);
    for (size_t i = 0; i < n; i++)
        if (!parse_one(c, i, is_double, out, i)) return i;
    return n;
}

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define INLINE AVX2 __attribute__((always_inline)) static inline

enum { SHORT = 8, WIDE = 16, LONG = 32, GROUP = 4, MAX_HIGH = 1843 };
_Static_assert(LONG + 1 <= SM_CSV_BEFORE, "bytes before a cell are read with it");

INLINE __m128i load16(const void *p) {
    return _mm_loadu_si128((const __m128i *)p);
}

INLINE __m256i load32(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

INLINE __m256i pair(const void *low, const void *high) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(low)), load16(high), 1);
}

INLINE __m128i lengths(struct cells c, size_t i) {
    const __m128i gap = _mm_set1_epi32((int)c.gap);
    return _mm_sub_epi32(_mm_sub_epi32(load16(c.ends + i), load16(c.begins + i)), gap);
}

/* Digits, most significant first, become numbers of four; those of a and b numbers of eight: the
 * first 16 digits of a, the first of b, the other of a, the other of b. */
INLINE __m256i fours(__m256i digits) {
    const __m256i pairs = _mm256_maddubs_epi16(digits, _mm256_set1_epi16(10 | 1 << 8));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi32(100 | 1 << 16));
}

INLINE __m256i eights(__m256i a, __m256i b) {
    return _mm256_madd_epi16(_mm256_packus_epi32(fours(a), fours(b)),
                             _mm256_set1_epi32(10000 | 1 << 16));
}

/* Of numbers of two halves, 32 bits each, the more significant one first. */
INLINE __m256i halves(__m256i v, uint32_t base) {
    return _mm256_add_epi64(_mm256_mul_epu32(v, _mm256_set1_epi64x(base)),
                            _mm256_srli_epi64(v, 32));
}

/* What is left of bytes that are greater than 9. */
INLINE __m256i no_digits(__m256i v) {
    return _mm256_subs_epu8(v, _mm256_set1_epi8(9));
}

/* Of four whole numbers below 2^52. */
INLINE __m256d doubles(__m256i v) {
    const __m256d two52 = _mm256_set1_pd(0x1p52);
    return _mm256_sub_pd(_mm256_or_pd(_mm256_castsi256_pd(v), two52), two52);
}

/* --- four whole numbers of up to 8 bytes ------------------------------------------------------ */

static inline int64_t eight(const char *s) {
    int64_t v;
    memcpy(&v, s, SHORT);
    return v;
}

/* n: their lengths. False: some cell is something else. */
INLINE bool parse_whole(struct cells c, size_t i, __m128i n, __m256d *out) {
    const char *b = c.bytes - SHORT;
    const uint32_t *ends = c.ends + i;
    const __m256i less = _mm256_sub_epi64(_mm256_set1_epi64x(SHORT), _mm256_cvtepu32_epi64(n)),
                  kept = _mm256_sllv_epi64(_mm256_set1_epi8(-1), _mm256_slli_epi64(less, 3)),
                  first = _mm256_andnot_si256(_mm256_slli_epi64(kept, 8), kept);
    const __m256i v = _mm256_set_epi64x(eight(b + ends[3]), eight(b + ends[2]), eight(b + ends[1]),
                                        eight(b + ends[0])),
                  minus = _mm256_and_si256(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('-')), first),
                  there = _mm256_andnot_si256(minus, kept),
                  digits = _mm256_and_si256(_mm256_sub_epi8(v, _mm256_set1_epi8('0')), there);
    const __m256i none = _mm256_cmpeq_epi64(there, _mm256_setzero_si256()),
                  bad = _mm256_or_si256(none, no_digits(digits));
    if (!_mm256_testz_si256(bad, bad)) return false;
    const __m256i sign = _mm256_slli_epi64(_mm256_cmpeq_epi64(minus, first), 63);
    *out = _mm256_or_pd(doubles(halves(fours(digits), 10000)), _mm256_castsi256_pd(sign));
    return true;
}

/* --- four numbers of up to 16 bytes ----------------------------------------------------------- */

/* By where the point stands, from 1; 0: there is none. From MINUS on with a minus. Those from 17 on
 * are not used. */
enum { MINUS = 32 };
#define TENS(one)                                                                               \
    one, one * 1e15, one * 1e14, one * 1e13, one * 1e12, one * 1e11, one * 1e10, one * 1e9,     \
        one * 1e8, one * 1e7, one * 1e6, one * 1e5, one * 1e4, one * 1e3, one * 1e2, one * 1e1, \
        one, one, one, one, one, one, one, one, one, one, one, one, one, one, one, one
static const double tens[2 * MINUS] = {TENS(1.0), TENS(-1.0)};
#define COUNT(from)                                                                               \
    _mm_setr_epi8((from), (from) + 1, (from) + 2, (from) + 3, (from) + 4, (from) + 5, (from) + 6, \
                  (from) + 7, (from) + 8, (from) + 9, (from) + 10, (from) + 11, (from) + 12,      \
                  (from) + 13, (from) + 14, (from) + 15)

INLINE __m256i count_from(char from) {
    return _mm256_broadcastsi128_si256(COUNT(from));
}

/* One byte each, on both sides. */
INLINE __m256i spread(__m256i v, char low, char high) {
    return _mm256_shuffle_epi8(v, _mm256_set_m128i(_mm_set1_epi8(high), _mm_set1_epi8(low)));
}

/* Gives two cells' digits, and points among them; what stands before them, a minus too, is 0. cut:
 * the last byte before each. sums: where the point stands, from 1, and MINUS if there is one; two
 * sums for each cell. */
INLINE __m256i look(__m256i bytes, __m256i cut, __m256i *sums) {
    const __m256i minus = _mm256_and_si256(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('-')),
                                           _mm256_cmpeq_epi8(cut, count_from(-1))),
                  kept = _mm256_andnot_si256(minus, _mm256_cmpgt_epi8(count_from(0), cut)),
                  point = _mm256_and_si256(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('.')), kept);
    *sums = _mm256_sad_epu8(_mm256_or_si256(_mm256_and_si256(point, count_from(1)),
                                            _mm256_and_si256(minus, _mm256_set1_epi8(MINUS))),
                            _mm256_setzero_si256());
    return _mm256_and_si256(_mm256_sub_epi8(bytes, _mm256_set1_epi8('0')), kept);
}

/* What stands before the point moves one place on. Of more points, whose sum is the place of none
 * or of one, others stay, and are no digits. */
INLINE __m256i close_up(__m256i digits, __m256i point) {
    const __m256i moved = _mm256_cmpgt_epi8(point, count_from(0)); /* -1 */
    return _mm256_shuffle_epi8(digits, _mm256_add_epi8(count_from(0), moved));
}

/* n: their lengths. False: some cell is something else, or it has more digits than a double. */
INLINE bool parse_wide(struct cells c, size_t i, __m128i n, __m256d *out) {
    const char *b = c.bytes - WIDE;
    const uint32_t *ends = c.ends + i;
    const __m256i cut = _mm256_broadcastsi128_si256(_mm_sub_epi32(_mm_set1_epi32(WIDE - 1), n));
    __m256i even_sums, odd_sums; /* even: cells 0 and 2; odd: 1 and 3 */
    __m256i even = look(pair(b + ends[0], b + ends[2]), spread(cut, 0, 8), &even_sums);
    __m256i odd = look(pair(b + ends[1], b + ends[3]), spread(cut, 4, 12), &odd_sums);
    const __m256i found = _mm256_add_epi64(_mm256_unpacklo_epi64(even_sums, odd_sums),
                                           _mm256_unpackhi_epi64(even_sums, odd_sums)),
                  point = _mm256_and_si256(found, _mm256_set1_epi64x(MINUS - 1)),
                  no_point = _mm256_cmpeq_epi64(point, _mm256_setzero_si256()); /* -1 */
    even = close_up(even, spread(point, 0, 0));
    odd = close_up(odd, spread(point, 8, 8));
    const __m256i v = halves(eights(even, odd), 100000000);
    /* negative: without the minus and the point there is no digit */
    const __m256i less =
        _mm256_sub_epi64(_mm256_sub_epi64(_mm256_cvtepu32_epi64(n), _mm256_srli_epi64(found, 5)),
                         _mm256_add_epi64(no_point, _mm256_set1_epi64x(2)));
    const __m256i bad =
        _mm256_or_si256(_mm256_or_si256(no_digits(even), no_digits(odd)),
                        _mm256_or_si256(_mm256_srli_epi64(v, 52), _mm256_srli_epi64(less, 63)));
    if (!_mm256_testz_si256(bad, bad)) return false;
    _Alignas(32) uint64_t at[GROUP];
    _mm256_store_si256((__m256i *)at, found);
    const __m256d power = _mm256_set_pd(tens[at[3]], tens[at[2]], tens[at[1]], tens[at[0]]);
    *out = _mm256_div_pd(doubles(v), power); /* both are exact: rounds once */
    return true;
}

/* --- numbers of up to 32 bytes ---------------------------------------------------------------- */

/* 32 bytes from last[n] on: the last n are set; from front[n] on: all but the last n. */
#define FF8 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
#define OO8 0, 0, 0, 0, 0, 0, 0, 0
static _Alignas(64) const uint8_t last[2 * LONG] = {OO8, OO8, OO8, OO8, FF8, FF8, FF8, FF8};
static _Alignas(64) const uint8_t front[2 * LONG] = {FF8, FF8, FF8, FF8, OO8, OO8, OO8, OO8};

/* One long cell's steps wait for each other, and a processor that looks 200 instructions ahead sees
 * but two cells: so some of them are first all looked at, then all rounded. */
enum { SOME = 16 };
struct long_cells {
    _Alignas(32) uint64_t high[SOME], low[SOME]; /* 16 digits and 16 */
    uint8_t behind[SOME];                        /* digits behind the point */
    uint8_t negative[SOME], sound[SOME];
};

/* Digits of the k-th without the point. */
INLINE __m256i look_long(struct cells c, size_t i, struct long_cells *l, size_t k) {
    const uint32_t begin = c.begins[i] + c.gap, end = c.ends[i];
    const bool negative = c.bytes[begin] == '-';
    uint32_t n = end - begin - negative;
    n = n <= LONG ? n : 0; /* of an empty cell before a minus that delimits, too */
    const char *bytes = c.bytes + end - LONG;
    const __m256i v = load32(bytes), moved = load32(bytes - 1);
    const uint32_t points =
                       (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_set1_epi8('.'))),
                   own = points & (uint32_t)(UINT64_MAX << (LONG - n));
    const bool has_point = own != 0;
    const uint32_t behind = LONG - 1 - (uint32_t)__builtin_ctz(own | 1u << (LONG - 1));
    const __m256i before = load32(front + (has_point ? behind : LONG)),
                  kept = load32(last + n - has_point);
    const __m256i digits = _mm256_and_si256(
        _mm256_sub_epi8(_mm256_blendv_epi8(v, moved, before), _mm256_set1_epi8('0')), kept);
    const __m256i bad = no_digits(digits);
    l->behind[k] = (uint8_t)behind;
    l->negative[k] = negative;
    l->sound[k] = (uint8_t)((n > has_point) & (behind < SM_POWERS) & _mm256_testz_si256(bad, bad));
    return digits;
}

/* Cells of any kind, room being for an even number of them: n are wanted. Returns how many, as
 * sm_numbers_parse. */
INLINE size_t parse_long(struct cells c, size_t i, size_t n, bool is_double, void *out, size_t at) {
    struct long_cells l;
    for (size_t k = 0; k < n; k += 2) {
        const __m256i a = look_long(c, i + k, &l, k), b = look_long(c, i + k + 1, &l, k + 1);
        const __m256i v = halves(eights(a, b), 100000000);
        _mm_store_si128((__m128i *)&l.high[k], _mm256_castsi256_si128(v));
        _mm_store_si128((__m128i *)&l.low[k], _mm256_extracti128_si256(v, 1));
    }
    for (size_t k = 0; k < n; k++) {
        if (!l.sound[k] || l.high[k] > MAX_HIGH) {
            if (!parse_one(c, i + k, is_double, out, at + k)) return k;
            continue;
        }
        const uint64_t value = l.high[k] * 10000000000000000 + l.low[k];
        const double v = value == 0 ? 0 : sm_quotient_round(value, l.behind[k]);
        sm_number_put(sm_signed(v, l.negative[k]), is_double, out, at + k); /* far from infinite */
    }
    return n;
}

/* --- rows ------------------------------------------------------------------------------------- */

INLINE void put_four(__m256d v, size_t n, bool is_double, void *out, size_t i) {
    double four[GROUP];
    if (n == GROUP && is_double) {
        _mm256_storeu_pd((double *)out + i, v);
    } else if (n == GROUP) {
        _mm_storeu_ps((float *)out + i, _mm256_cvtpd_ps(v));
    } else {
        _mm256_storeu_pd(four, v);
        for (size_t k = 0; k < n; k++)
            sm_number_put(four[k], is_double, out, i + k);
    }
}

INLINE bool has_long(__m128i lengths) {
    return _mm_movemask_epi8(_mm_cmpgt_epi32(lengths, _mm_set1_epi32(WIDE))) != 0;
}

/* The first n of four cells. False: some cell is something else. */
INLINE bool parse_four(struct cells c, size_t i, __m128i length, size_t n, bool is_double,
                       void *out, size_t at) {
    __m256d v;
    const __m128i beyond = _mm_cmpgt_epi32(length, _mm_set1_epi32(SHORT));
    const bool is_short = _mm_movemask_epi8(beyond) == 0;
    if (!(is_short && parse_whole(c, i, length, &v)) && !parse_wide(c, i, length, &v)) return false;
    put_four(v, n, is_double, out, at);
    return true;
}

/* Fewer than four: the last stands for those that are missing. */
INLINE size_t parse_few(struct cells c, size_t n, bool is_double, void *out) {
    uint32_t begins[GROUP], ends[GROUP];
    for (size_t k = 0; k < GROUP; k++) {
        begins[k] = c.begins[k < n ? k : n - 1];
        ends[k] = c.ends[k < n ? k : n - 1];
    }
    const struct cells four = {c.bytes, begins, ends, c.gap};
    const __m128i length = lengths(four, 0);
    if (!has_long(length) && parse_four(four, 0, length, n, is_double, out, 0)) return n;
    return parse_long(four, 0, n, is_double, out, 0);
}

INLINE size_t parse_avx2(struct cells c, size_t n, bool is_double, void *out) {
    if (n < GROUP) return n == 0 ? 0 : parse_few(c, n, is_double, out);
    for (size_t i = 0, done; i < n; i += done) {
        if (n - i < GROUP) i = n - GROUP; /* some once more */
        done = GROUP;
        const __m128i length = lengths(c, i);
        const bool is_long = has_long(length);
        if (!is_long && parse_four(c, i, length, GROUP, is_double, out, i)) continue;
        while (is_long && done < SOME && i + done + GROUP <= n && has_long(lengths(c, i + done)))
            done += GROUP;
        const size_t got = parse_long(c, i, done, is_double, out, i);
        if (got < done) return i + got;
    }
    return n;
}

AVX2 static size_t floats_avx2(struct cells c, size_t n, void *out) {
    return parse_avx2(c, n, false, out);
}

AVX2 static size_t doubles_avx2(struct cells c, size_t n, void *out) {
    return parse_avx2(c, n, true, out);
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
}
#endif

size_t sm_numbers_parse(const struct sm_csv_row *row, size_t first, size_t n, bool is_double,
                        void *out) {
#ifdef __x86_64__
    const struct cells c = cells_from(row, first);
    if (has_avx2()) return is_double ? doubles_avx2(c, n, out) : floats_avx2(c, n, out);
#endif
    return sm_numbers_parse_reference(row, first, n, is_double, out);
}
