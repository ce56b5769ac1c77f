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

enum { ROWS = 37, COLUMNS = 9, WIDE = 133 };

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

static void sums_are_the_formulas(void **state) {
    (void)state;
    float y[ROWS * COLUMNS];
    double yd[ROWS * COLUMNS];
    for (size_t d = 1; d <= WIDE; d += 11) {
        sm_dots_float(x, ROWS, c, COLUMNS, d, y);
        sm_dots_double(xd, ROWS, cd, COLUMNS, d, yd);
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
        sm_dots_float(x, ROWS, c, n, WIDE, all);
        sm_dots_double(xd, ROWS, cd, n, WIDE, alld);
        for (size_t i = 0; i < ROWS; i++) {
            sm_dots_float(x + i * WIDE, 1, c, n, WIDE, one);
            assert_memory_equal(one, all + i * n, n * sizeof *one);
            sm_dots_float(x + i * WIDE, 1, c + (n - 1) * WIDE, 1, WIDE, column);
            assert_memory_equal(column, all + i * n + n - 1, sizeof *column);
            sm_dots_double(xd + i * WIDE, 1, cd, n, WIDE, oned);
            assert_memory_equal(oned, alld + i * n, n * sizeof *oned);
        }
    }
}

/* The order of the header, written out: the same bits as the fast path of this machine. */
static void the_order_of_sums_is_the_stated_one(void **state) {
    (void)state;
    float y[1];
    double yd[1];
    for (size_t d = 1; d <= WIDE; d++) {
        float lane[8] = {0};
        double laned[4] = {0};
        size_t j = 0;
        for (; j + 8 <= d; j += 8)
            for (size_t k = 0; k < 8; k++)
                lane[k] += x[j + k] * c[j + k];
        float sum = ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
                    ((lane[1] + lane[5]) + (lane[3] + lane[7]));
        for (; j < d; j++)
            sum += x[j] * c[j];
        sm_dots_float(x, 1, c, 1, d, y);
        assert_memory_equal(&sum, y, sizeof sum);
        for (j = 0; j + 4 <= d; j += 4)
            for (size_t k = 0; k < 4; k++)
                laned[k] += xd[j + k] * cd[j + k];
        double sumd = (laned[0] + laned[2]) + (laned[1] + laned[3]);
        for (; j < d; j++)
            sumd += xd[j] * cd[j];
        sm_dots_double(xd, 1, cd, 1, d, yd);
        assert_memory_equal(&sumd, yd, sizeof sumd);
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
