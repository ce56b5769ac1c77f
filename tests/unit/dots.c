/* Products of rows: what the plain formula says, and the same bits wherever a row stands and
 * whatever stands beside it. */
#include "workers/kernels/dots.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 37, COLUMNS = 21, WIDE = 277 };

static float x[ROWS * WIDE], c[COLUMNS * WIDE];
static double xd[ROWS * WIDE], cd[COLUMNS * WIDE];

static int fill(void **state) {
    (void)state;
    uint32_t bits = 7;
    for (size_t i = 0; i < ROWS * WIDE; i++)
        xd[i] = x[i] = (float)((bits = bits * 1664525 + 1013904223) >> 8) / 8388608 - 1;
    for (size_t i = 0; i < COLUMNS * WIDE; i++)
        cd[i] = c[i] = (float)((bits = bits * 1664525 + 1013904223) >> 8) / 8388608 - 1;
    return 0;
}

static void dots(const float *rows, size_t n_rows, const float *columns, size_t n, size_t d,
                 float *y) {
    static float panels[32 * WIDE];
    assert_true(sm_panels_float_bytes(n, d) <= sizeof panels);
    sm_panels_float(columns, n, d, panels);
    sm_dots_float(rows, n_rows, panels, n, d, y);
}

static void dots_double(const double *rows, size_t n_rows, const double *columns, size_t n,
                        size_t d, double *y) {
    static double panels[32 * WIDE];
    assert_true(sm_panels_double_bytes(n, d) <= sizeof panels);
    sm_panels_double(columns, n, d, panels);
    sm_dots_double(rows, n_rows, panels, n, d, y);
}

static void sums_are_the_formulas(void **state) {
    (void)state;
    float y[ROWS * COLUMNS];
    double yd[ROWS * COLUMNS];
    for (size_t d = 1; d <= WIDE; d += 11) {
        dots(x, ROWS, c, COLUMNS, d, y);
        dots_double(xd, ROWS, cd, COLUMNS, d, yd);
        for (size_t i = 0; i < ROWS; i++)
            for (size_t k = 0; k < COLUMNS; k++) {
                double want = 0, size = 0;
                for (size_t j = 0; j < d; j++) {
                    want += xd[i * d + j] * cd[k * d + j];
                    size += fabs(xd[i * d + j] * cd[k * d + j]);
                }
                assert_true(fabs(yd[i * COLUMNS + k] - want) <= 1e-15 * size * (double)d);
                assert_true(fabs((double)y[i * COLUMNS + k] - want) <= 1e-7 * size * (double)d);
            }
    }
}

static void a_rows_bits_do_not_tell_where_it_stood(void **state) {
    (void)state;
    static float all[ROWS * COLUMNS], one[COLUMNS], column[1];
    static double alld[ROWS * COLUMNS], oned[COLUMNS];
    for (size_t n = 1; n <= COLUMNS; n++) {
        dots(x, ROWS, c, n, WIDE, all);
        dots_double(xd, ROWS, cd, n, WIDE, alld);
        for (size_t i = 0; i < ROWS; i++) {
            dots(x + i * WIDE, 1, c, n, WIDE, one);
            assert_memory_equal(one, all + i * n, n * sizeof *one);
            dots(x + i * WIDE, 1, c + (n - 1) * WIDE, 1, WIDE, column);
            assert_memory_equal(column, all + i * n + n - 1, sizeof *column);
            dots_double(xd + i * WIDE, 1, cd, n, WIDE, oned);
            assert_memory_equal(oned, alld + i * n, n * sizeof *oned);
        }
    }
}

/* The order of the header, written out: the same bits as the fast path of this machine, and as the
 * plain one; with numbers that are none, too. */
static void the_order_of_sums_is_the_stated_one(void **state) {
    (void)state;
    static float y[ROWS * COLUMNS], plain[ROWS * COLUMNS], panels[32 * WIDE];
    static double yd[ROWS * COLUMNS], plaind[ROWS * COLUMNS], panelsd[32 * WIDE];
    x[5] = xd[5] = INFINITY;
    x[WIDE + 7] = xd[WIDE + 7] = NAN;
    x[2 * WIDE + 9] = 1e-42f; /* what has lost its leading bit */
    for (size_t d = 1; d <= WIDE; d += d > 12 && d < WIDE - 12 ? 17 : 1)
        for (size_t n = 1; n <= COLUMNS; n += 4) {
            sm_panels_float(c, n, d, panels);
            sm_panels_double(cd, n, d, panelsd);
            sm_dots_float(x, ROWS, panels, n, d, y);
            sm_dots_float_plain(x, ROWS, panels, n, d, plain);
            sm_dots_double(xd, ROWS, panelsd, n, d, yd);
            sm_dots_double_plain(xd, ROWS, panelsd, n, d, plaind);
            for (size_t i = 0; i < ROWS * n; i++) {
                float total = 0, sum = 0;
                for (size_t j = 0; j < d; j++) {
                    if (j % SM_DOTS_RUN == 0 && j > 0) {
                        total = j == SM_DOTS_RUN ? sum : total + sum;
                        sum = 0;
                    }
                    sum = fmaf(x[i / n * d + j], c[i % n * d + j], sum);
                }
                total = d <= SM_DOTS_RUN ? sum : total + sum;
                assert_true(isnan(total) ? isnan(y[i]) && isnan(plain[i])
                                         : memcmp(&total, &y[i], sizeof total) == 0 &&
                                               memcmp(&total, &plain[i], sizeof total) == 0);
                assert_true(isnan(yd[i]) ? isnan(plaind[i])
                                         : memcmp(&yd[i], &plaind[i], sizeof yd[i]) == 0);
            }
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(sums_are_the_formulas, fill),
        cmocka_unit_test_setup(a_rows_bits_do_not_tell_where_it_stood, fill),
        cmocka_unit_test_setup(the_order_of_sums_is_the_stated_one, fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
