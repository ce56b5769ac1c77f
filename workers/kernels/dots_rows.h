/* The loops of dots.c for one type, included once for each: T, VECTOR (of LANES T), FMA, SET, LOAD,
 * FUSED, and NAME, which puts the type's name in. Tiles of six rows by two vectors of columns stay
 * in registers for a whole run. A tile at the border reads its last row again instead of one that
 * is not there, and stores only what is. */

size_t NAME(sm_panels, _bytes)(size_t n, size_t d) {
    return (n + 2 * LANES - 1) / (2 * LANES) * (2 * LANES) * d * sizeof(T);
}

/* Panels of two vectors of columns of the result: what is multiplied at a step lies together. */
void NAME(sm_panels, )(const T *c, size_t n, size_t d, T *panels) {
    for (size_t k = 0; k < n; k += 2 * LANES, panels += 2 * LANES * d)
        for (size_t j = 0; j < d; j++)
            for (size_t t = 0; t < 2 * LANES; t++)
                panels[j * 2 * LANES + t] = k + t < n ? c[(k + t) * d + j] : 0;
}

void NAME(sm_dots, _plain)(const T *x, size_t rows, const T *panels, size_t n, size_t d, T *y) {
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < n; k++) {
            const T *c = panels + k / (2 * LANES) * (2 * LANES) * d + k % (2 * LANES);
            T total = 0;
            for (size_t from = 0; from < d; from += SM_DOTS_RUN) {
                T sum = 0;
                for (size_t j = from; j < d && j < from + SM_DOTS_RUN; j++)
                    sum = FUSED(x[i * d + j], c[j * 2 * LANES], sum);
                total = from == 0 ? sum : total + sum;
            }
            y[i * n + k] = total;
        }
}

#ifdef __x86_64__
#define STEP(r)             \
    v = SET(x##r[j]);       \
    a##r = FMA(v, p, a##r); \
    b##r = FMA(v, q, b##r);
#define PUT(r)      \
    t[r][0] = a##r; \
    t[r][1] = b##r;
#define ADD(r)       \
    t[r][0] += a##r; \
    t[r][1] += b##r;

AVX2 static void NAME(tile, )(const T *x, size_t rows, const T *c, size_t d, VECTOR t[6][2]) {
    const T *x0 = x, *x1 = rows > 1 ? x0 + d : x0, *x2 = rows > 2 ? x1 + d : x1,
            *x3 = rows > 3 ? x2 + d : x2, *x4 = rows > 4 ? x3 + d : x3,
            *x5 = rows > 5 ? x4 + d : x4;
    for (size_t from = 0; from < d; from += SM_DOTS_RUN) {
        VECTOR a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0}, a4 = {0}, a5 = {0};
        VECTOR b0 = {0}, b1 = {0}, b2 = {0}, b3 = {0}, b4 = {0}, b5 = {0};
        const size_t to = d - from < SM_DOTS_RUN ? d : from + SM_DOTS_RUN;
        for (size_t j = from; j < to; j++) {
            const VECTOR p = LOAD(c + j * 2 * LANES), q = LOAD(c + j * 2 * LANES + LANES);
            VECTOR v;
            STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5)
        }
        if (from == 0) {
            PUT(0) PUT(1) PUT(2) PUT(3) PUT(4) PUT(5)
        } else {
            ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5)
        }
    }
}

AVX2 static void NAME(fast, )(const T *x, size_t rows, const T *panels, size_t n, size_t d, T *y) {
    for (size_t i = 0; i < rows; i += 6)
        for (size_t k = 0; k < n; k += 2 * LANES) {
            const size_t there = rows - i < 6 ? rows - i : 6, columns = n - k;
            VECTOR t[6][2];
            NAME(tile, )(x + i * d, there, panels + k * d, d, t);
            for (size_t r = 0; r < there; r++) {
                T *to = y + (i + r) * n + k;
                if (columns >= 2 * LANES)
                    memcpy(to, t[r], sizeof t[r]);
                else
                    for (size_t u = 0; u < columns; u++)
                        to[u] = ((const T *)t[r])[u];
            }
        }
}
#undef STEP
#undef PUT
#undef ADD
#endif

void NAME(sm_dots, )(const T *x, size_t rows, const T *panels, size_t n, size_t d, T *y) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        NAME(fast, )(x, rows, panels, n, d, y);
        return;
    }
#endif
    NAME(sm_dots, _plain)(x, rows, panels, n, d, y);
}
