/* Codes lie in panels of 16 rows: two columns of each row side by side, as the instruction that
 * multiplies and adds pairs wants them, and zeros behind the last ones. Both
 * factors of a product are read from panels. */
#include "workers/kernels/codes.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2")))
#endif

enum { LARGEST = 32766, PANEL = SM_CODES_PANEL, PAIRS = 2 * PANEL, MOST_COLUMNS = 1 << 24 };

static bool has_avx2(void) {
#ifdef __x86_64__
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

/* Pairs of columns in a panel: an even number. */
static size_t pairs_of(size_t d) {
    return (d + 3) / 4 * 2;
}

static size_t panel_codes(size_t d) {
    return pairs_of(d) * PAIRS;
}

size_t sm_codes_padded(size_t n) {
    return (n + PANEL - 1) / PANEL * PANEL;
}

size_t sm_codes_bytes(size_t n, size_t d) {
    return sm_codes_padded(n) / PANEL * panel_codes(d) * sizeof(int16_t);
}

static int16_t *row_of(const struct sm_codes *c, size_t i) {
    return c->codes + i / PANEL * panel_codes(c->d) + i % PANEL * 2;
}

struct sm_codes sm_codes_from(const struct sm_codes *c, size_t i) {
    assert(i % PANEL == 0);
    return (struct sm_codes){row_of(c, i), c->units + i, c->d};
}

/* |product of two rows - that of what their codes stand for| <= (2 e + e e) times both lengths,
 * when e is the length of a row's error in lengths of the row. */
double sm_codes_error(size_t d) {
    const double e = 0.51 * sqrt((double)d) / LARGEST;
    return 2 * e + e * e;
}

/* --- codes ------------------------------------------------------------------------------------ */

static void row_rest(const float *x, float scale, size_t k, size_t d, int16_t *to) {
    for (; k < d; k++)
        to[k / 2 * PAIRS + k % 2] = (int16_t)lrintf(x[k] * scale);
}

#ifdef __x86_64__
AVX2 static size_t row_avx2(const float *x, float scale, size_t d, int16_t *to) {
    const __m256 s = _mm256_set1_ps(scale);
    size_t k = 0;
    for (; k + 8 <= d; k += 8, to += 4 * PAIRS) {
        const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + k), s));
        const __m128i pairs =
            _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
        const int32_t four[] = {_mm_extract_epi32(pairs, 0), _mm_extract_epi32(pairs, 1),
                                _mm_extract_epi32(pairs, 2), _mm_extract_epi32(pairs, 3)};
        for (size_t i = 0; i < 4; i++)
            memcpy(to + i * PAIRS, &four[i], sizeof four[i]);
    }
    return k;
}
#endif

static void make(const float *x, const float *norms, size_t n, bool fast, struct sm_codes *c) {
    const size_t d = c->d;
    assert(d <= MOST_COLUMNS);
    memset(c->codes, 0, sm_codes_bytes(n, d));
    for (size_t i = 0; i < sm_codes_padded(n); i++) {
        c->units[i] = 0;
        if (i >= n || !(norms[i] >= FLT_MIN && norms[i] <= FLT_MAX)) continue;
        int16_t *to = row_of(c, i);
        const float length = sqrtf(norms[i]), scale = LARGEST / length;
        size_t done = 0;
        c->units[i] = length / LARGEST;
#ifdef __x86_64__
        if (fast) done = row_avx2(x + i * d, scale, d, to);
#endif
        (void)fast;
        row_rest(x + i * d, scale, done, d, to);
    }
}

void sm_codes_make(const float *x, const float *norms, size_t n, struct sm_codes *codes) {
    make(x, norms, n, has_avx2(), codes);
}

void sm_codes_make_plain(const float *x, const float *norms, size_t n, struct sm_codes *codes) {
    make(x, norms, n, false, codes);
}

/* --- products --------------------------------------------------------------------------------- */

void sm_codes_dots_plain(const struct sm_codes *a, size_t i0, size_t rows, const struct sm_codes *b,
                         size_t k0, size_t columns, float *y) {
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < columns; k++) {
            const int16_t *p = row_of(a, i0 + i), *q = row_of(b, k0 + k);
            int32_t sum = 0;
            for (size_t j = 0; j < pairs_of(a->d); j++, p += PAIRS, q += PAIRS)
                sum += p[0] * q[0] + p[1] * q[1];
            y[i * SM_CODES_COLUMNS + k] = (float)sum * (-2 * a->units[i0 + i]) * b->units[k0 + k];
        }
}

#ifdef __x86_64__
/* gcc would make all products of a step before it adds any up, and run out of registers: so it
 * shall think that somebody looks at each sum. */
#define ADD(sum, x, y)                                    \
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(x, y)); \
    __asm__("" : "+x"(sum));
#define ROW(r)                                     \
    {                                              \
        int32_t pair;                              \
        memcpy(&pair, x + 2 * r, sizeof pair);     \
        const __m256i v = _mm256_set1_epi32(pair); \
        ADD(a##r, v, p)                            \
        ADD(b##r, v, q)                            \
    }
#define STEP                                                             \
    {                                                                    \
        const __m256i p = _mm256_loadu_si256((const void *)c),           \
                      q = _mm256_loadu_si256((const void *)(c + PANEL)); \
        ROW(0) ROW(1) ROW(2) ROW(3) x += PAIRS;                          \
        c += PAIRS;                                                      \
    }
#define PUT(r)                                                                                    \
    {                                                                                             \
        const __m256 unit = _mm256_set1_ps(-2 * x_units[r]);                                      \
        const __m256 low = _mm256_mul_ps(_mm256_cvtepi32_ps(a##r), unit),                         \
                     high = _mm256_mul_ps(_mm256_cvtepi32_ps(b##r), unit);                        \
        _mm256_storeu_ps(y + r * SM_CODES_COLUMNS, _mm256_mul_ps(low, _mm256_loadu_ps(c_units))); \
        _mm256_storeu_ps(y + r * SM_CODES_COLUMNS + 8,                                            \
                         _mm256_mul_ps(high, _mm256_loadu_ps(c_units + 8)));                      \
    }

/* Four rows by a panel. */
AVX2 static void tile(const int16_t *x, const float *x_units, const int16_t *c,
                      const float *c_units, size_t pairs, float *y) {
    __m256i a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0};
    for (size_t j = 0; j < pairs; j += 2) {
        STEP STEP
    }
    PUT(0) PUT(1) PUT(2) PUT(3)
}
#undef ADD
#undef ROW
#undef STEP
#undef PUT
#endif

void sm_codes_dots(const struct sm_codes *a, size_t i0, size_t rows, const struct sm_codes *b,
                   size_t k0, size_t columns, float *y) {
    assert(i0 % PANEL == 0 && k0 % PANEL == 0 && columns <= SM_CODES_COLUMNS);
#ifdef __x86_64__
    if (has_avx2()) {
        for (size_t k = 0; k < columns; k += PANEL) /* a panel of each stays in the nearest cache */
            for (size_t i = 0; i < rows; i += SM_CODES_ROWS)
                tile(row_of(a, i0 + i), a->units + i0 + i, row_of(b, k0 + k), b->units + k0 + k,
                     pairs_of(a->d), y + i * SM_CODES_COLUMNS + k);
        return;
    }
#endif
    sm_codes_dots_plain(a, i0, rows, b, k0, columns, y);
}
