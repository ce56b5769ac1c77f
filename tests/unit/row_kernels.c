/* Loops over float32 rows: for every length, with cells that are no numbers and at odd addresses,
 * the same bits as the plain formula, whichever instructions this machine has. */
#include "workers/kernels/rows.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 3, COLUMNS = 37 };

static float cells[ROWS * COLUMNS + 1];
static double a[COLUMNS], b[COLUMNS];

static double next(uint32_t *bits) {
    *bits = *bits * 1664525 + 1013904223;
    return (double)(*bits >> 8) / 8388608 - 1;
}

/* odd: with cells that are no numbers. */
static const float *fill(bool odd) {
    uint32_t bits = 3;
    for (size_t i = 0; i <= ROWS * COLUMNS; i++)
        cells[i] = (float)(next(&bits) * 100);
    for (size_t k = 0; k < COLUMNS; k++) {
        a[k] = next(&bits);
        b[k] = next(&bits) + 2;
    }
    for (size_t i = 0; odd && i < ROWS * COLUMNS; i += 5)
        cells[i + 1] = i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -1e-42f;
    return cells + 1; /* at an odd address */
}

static void same(float got, float want) {
    if (isnan(want) ? !isnan(got) : memcmp(&got, &want, sizeof got) != 0)
        fail_msg("%.9g, not %.9g", (double)got, (double)want);
}

static void same_double(double got, double want) {
    if (isnan(want) ? !isnan(got) : memcmp(&got, &want, sizeof got) != 0)
        fail_msg("%.17g, not %.17g", got, want);
}

static void sums_are_the_formulas(void **state) {
    (void)state;
    const float *x = fill(true);
    for (size_t d = 1; d <= COLUMNS; d++) {
        double n[COLUMNS] = {0}, sum[COLUMNS] = {0}, squares[COLUMNS] = {0};
        sm_rows_sums(x, ROWS, d, n, sum);
        sm_rows_squares(x, ROWS, d, a, squares);
        for (size_t k = 0; k < d; k++) {
            double want_n = 0, want = 0, want_squares = 0;
            for (size_t i = 0; i < ROWS; i++) {
                const double v = (double)x[i * d + k];
                if (isnan(v)) continue;
                want_n++;
                want += v;
                want_squares += (v - a[k]) * (v - a[k]);
            }
            same_double(n[k], want_n);
            same_double(sum[k], want);
            same_double(squares[k], want_squares);
        }
    }
}

static void cells_are_the_formulas(void **state) {
    (void)state;
    const float *x = fill(true);
    float scaled[ROWS * COLUMNS], centred[ROWS * COLUMNS], narrow[COLUMNS], mixed[COLUMNS];
    for (size_t d = 1; d <= COLUMNS; d++) {
        sm_rows_scale(x, ROWS, d, a, b, scaled);
        sm_rows_centre(x, ROWS, d, a, centred);
        for (size_t i = 0; i < ROWS * d; i++) {
            same(scaled[i], (float)(((double)x[i] - a[i % d]) / b[i % d]));
            same(centred[i], (float)((double)x[i] - a[i % d]));
        }
        memcpy(centred, x, ROWS * d * sizeof *x);
        sm_rows_centre(centred, ROWS, d, a, centred); /* in its place */
        for (size_t i = 0; i < ROWS * d; i++)
            same(centred[i], (float)((double)x[i] - a[i % d]));
        sm_rows_narrow(b, d, 1 / 3.0, narrow);
        sm_rows_mix(x, x + d, d, 0.3, mixed);
        memcpy(centred, x, d * sizeof *x);
        sm_rows_mix(centred, x + d, d, 0.3, centred); /* in its place */
        for (size_t k = 0; k < d; k++) {
            same(narrow[k], (float)(b[k] * (1 / 3.0)));
            same(mixed[k], (float)((double)x[k] + 0.3 * ((double)x[d + k] - (double)x[k])));
            same(centred[k], mixed[k]);
        }
    }
}

static void a_cell_that_is_no_number_is_found_wherever_it_is(void **state) {
    (void)state;
    const float odd[] = {NAN, INFINITY, -INFINITY};
    const float *x = fill(false);
    for (size_t n = 1; n <= COLUMNS; n++) {
        assert_true(sm_rows_finite(x, n));
        for (size_t at = 0; at < n; at++) {
            const float was = x[at];
            cells[1 + at] = odd[at % 3];
            assert_false(sm_rows_finite(x, n));
            assert_true(sm_rows_finite(x, at));
            cells[1 + at] = was;
        }
    }
}

static void scatters_are_the_formulas(void **state) {
    (void)state;
    const float *x = fill(true);
    for (size_t d = 1; d <= COLUMNS; d++) {
        double into[COLUMNS];
        memcpy(into, b, sizeof into);
        sm_rows_scatter(into, x, d, 0.7, a);
        for (size_t k = 0; k < d; k++)
            same_double(into[k], b[k] + ((double)x[k] + 0.7 * a[k]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_the_formulas),
        cmocka_unit_test(cells_are_the_formulas),
        cmocka_unit_test(a_cell_that_is_no_number_is_found_wherever_it_is),
        cmocka_unit_test(scatters_are_the_formulas),
    };
    return cmocka_run_group_tests_name("row_kernels", tests, NULL, NULL);
}
