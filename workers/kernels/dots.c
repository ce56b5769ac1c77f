/* Tiles of four rows by two columns of the result, so that what is read is used more than once. A
 * tile at the border repeats the last row or column: it comes out the same and is stored again. One
 * text for both types and both instruction sets; products and sums are rounded one by one
 * (-ffp-contract=off), so all of them give the same bytes. */
#include "workers/kernels/dots.h"

#include <stdint.h>
#include <string.h>

typedef float floats __attribute__((vector_size(32)));
typedef double doubles __attribute__((vector_size(32)));

#define LOAD(v, from) memcpy(&(v), (from), sizeof(v))

static inline float sum_floats(const floats *v) {
    const floats a = *v;
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

static inline double sum_doubles(const doubles *v) {
    const doubles a = *v;
    return (a[0] + a[2]) + (a[1] + a[3]);
}

#define DOTS(name, type, vector, sum)                                                          \
    static inline __attribute__((always_inline)) void name##_tile(                             \
        const type *const x[4], const type *const c[2], size_t d, type out[4][2]) {            \
        enum { LANES = sizeof(vector) / sizeof(type) };                                        \
        vector a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0}; \
        size_t j = 0;                                                                          \
        for (; j + LANES <= d; j += LANES) {                                                   \
            vector p, q, r;                                                                    \
            LOAD(p, c[0] + j);                                                                 \
            LOAD(q, c[1] + j);                                                                 \
            LOAD(r, x[0] + j);                                                                 \
            a0 += r * p;                                                                       \
            b0 += r * q;                                                                       \
            LOAD(r, x[1] + j);                                                                 \
            a1 += r * p;                                                                       \
            b1 += r * q;                                                                       \
            LOAD(r, x[2] + j);                                                                 \
            a2 += r * p;                                                                       \
            b2 += r * q;                                                                       \
            LOAD(r, x[3] + j);                                                                 \
            a3 += r * p;                                                                       \
            b3 += r * q;                                                                       \
        }                                                                                      \
        const type s[4][2] = {{sum(&a0), sum(&b0)},                                            \
                              {sum(&a1), sum(&b1)},                                            \
                              {sum(&a2), sum(&b2)},                                            \
                              {sum(&a3), sum(&b3)}};                                           \
        memcpy(out, s, sizeof s);                                                              \
        for (; j < d; j++)                                                                     \
            for (int i = 0; i < 4; i++)                                                        \
                for (int k = 0; k < 2; k++)                                                    \
                    out[i][k] += x[i][j] * c[k][j];                                            \
    }                                                                                          \
    static inline __attribute__((always_inline)) void name##_all(                              \
        const type *x, size_t rows, const type *c, size_t n, size_t d, type *y) {              \
        for (size_t i = 0; i < rows; i += 4)                                                   \
            for (size_t k = 0; k < n; k += 2) {                                                \
                const type *rx[4], *ck[2];                                                     \
                type out[4][2];                                                                \
                for (size_t t = 0; t < 4; t++)                                                 \
                    rx[t] = x + (i + t < rows ? i + t : rows - 1) * d;                         \
                for (size_t t = 0; t < 2; t++)                                                 \
                    ck[t] = c + (k + t < n ? k + t : n - 1) * d;                               \
                name##_tile(rx, ck, d, out);                                                   \
                for (size_t t = 0; t < 4 && i + t < rows; t++)                                 \
                    for (size_t u = 0; u < 2 && k + u < n; u++)                                \
                        y[(i + t) * n + k + u] = out[t][u];                                    \
            }                                                                                  \
    }

DOTS(floats_dots, float, floats, sum_floats)
DOTS(doubles_dots, double, doubles, sum_doubles)

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2")))
AVX2 static void floats_avx2(const float *x, size_t rows, const float *c, size_t n, size_t d,
                             float *y) {
    floats_dots_all(x, rows, c, n, d, y);
}

AVX2 static void doubles_avx2(const double *x, size_t rows, const double *c, size_t n, size_t d,
                              double *y) {
    doubles_dots_all(x, rows, c, n, d, y);
}
#endif

void sm_dots_float(const float *x, size_t rows, const float *c, size_t n, size_t d, float *y) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) {
        floats_avx2(x, rows, c, n, d, y);
        return;
    }
#endif
    floats_dots_all(x, rows, c, n, d, y);
}

void sm_dots_double(const double *x, size_t rows, const double *c, size_t n, size_t d, double *y) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) {
        doubles_avx2(x, rows, c, n, d, y);
        return;
    }
#endif
    doubles_dots_all(x, rows, c, n, d, y);
}
