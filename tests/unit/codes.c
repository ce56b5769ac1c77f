/* Rows as codes: what they stand for is as near as is promised, products are off by no more than
 * the stated error, and fast loops give the bytes of the plain ones. */
#include "workers/kernels/codes.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 53, WIDEST = 133 };

static uint32_t bits;

static float next(void) {
    bits = bits * 1664525 + 1013904223;
    return (float)((double)(bits >> 8) / 8388608 - 1);
}

static double product(const float *x, const float *y, size_t d) {
    double sum = 0;
    for (size_t k = 0; k < d; k++)
        sum += (double)x[k] * (double)y[k];
    return sum;
}

struct coded {
    float x[ROWS * WIDEST], norms[ROWS];
    struct sm_codes fast, plain;
};

/* Rows of all kinds: even ones, such with one large number, long and short ones. */
static struct coded *coded_make(size_t d) {
    struct coded *c = calloc(1, sizeof *c);
    bits = (uint32_t)d;
    for (size_t i = 0; i < ROWS; i++) {
        float *row = c->x + i * d;
        for (size_t k = 0; k < d; k++)
            row[k] = i % 5 == 0 ? 1 : i % 5 == 1 ? next() / 1e6f : next();
        if (i % 5 == 1 || i % 5 == 2) row[i % d] = -40;
        for (size_t k = 0; k < d; k++)
            row[k] = ldexpf(row[k], (int)(i % 7) * 5 - 15);
        c->norms[i] = (float)product(row, row, d);
    }
    for (int i = 0; i < 2; i++) {
        struct sm_codes *codes = i == 0 ? &c->fast : &c->plain;
        codes->d = d;
        codes->codes = malloc(sm_codes_bytes(ROWS, d));
        codes->units = malloc(sm_codes_padded(ROWS) * sizeof *codes->units);
        assert_true(codes->codes != NULL && codes->units != NULL);
    }
    return c;
}

static void coded_free(struct coded *c) {
    free(c->fast.codes);
    free(c->fast.units);
    free(c->plain.codes);
    free(c->plain.units);
    free(c);
}

static void codes_are_the_plain_ones(void **state) {
    (void)state;
    for (size_t d = 1; d <= WIDEST; d++)
        for (size_t n = 0; n <= ROWS; n += n < 35 ? 1 : 6) {
            struct coded *c = coded_make(d);
            sm_codes_make(c->x, c->norms, n, &c->fast);
            sm_codes_make_plain(c->x, c->norms, n, &c->plain);
            assert_memory_equal(c->fast.codes, c->plain.codes, sm_codes_bytes(n, d));
            assert_memory_equal(c->fast.units, c->plain.units,
                                sm_codes_padded(n) * sizeof *c->fast.units);
            coded_free(c);
        }
}

static void products_are_the_plain_ones_and_off_by_no_more_than_is_stated(void **state) {
    (void)state;
    static float fast[64 * SM_CODES_COLUMNS], plain[64 * SM_CODES_COLUMNS];
    for (size_t d = 1; d <= WIDEST; d += d < 20 ? 1 : 7) {
        struct coded *c = coded_make(d);
        sm_codes_make(c->x, c->norms, ROWS, &c->fast);
        for (size_t i0 = 0; i0 < ROWS; i0 += SM_CODES_PANEL)
            for (size_t k0 = 0; k0 < ROWS; k0 += SM_CODES_PANEL) {
                const size_t rows = ROWS - i0, columns = ROWS - k0;
                sm_codes_dots(&c->fast, i0, rows, &c->fast, k0, columns, fast);
                sm_codes_dots_plain(&c->fast, i0, rows, &c->fast, k0, columns, plain);
                for (size_t i = 0; i < rows; i++)
                    for (size_t k = 0; k < columns; k++) {
                        const size_t at = i * SM_CODES_COLUMNS + k;
                        const double want =
                            -2 * product(c->x + (i0 + i) * d, c->x + (k0 + k) * d, d);
                        const double lengths =
                            sqrt((double)c->norms[i0 + i] * (double)c->norms[k0 + k]);
                        assert_memory_equal(&fast[at], &plain[at], sizeof *fast);
                        assert_true(fabs((double)fast[at] - want) <=
                                    2 * lengths * (sm_codes_error(d) + 8 * FLT_EPSILON));
                    }
            }
        coded_free(c);
    }
}

/* The largest sums that there are: rows times themselves, and times what is opposite. */
static void no_sum_overflows(void **state) {
    (void)state;
    enum { D = 70000 };
    float *x = malloc(4 * D * sizeof *x), norms[4], y[4 * SM_CODES_COLUMNS];
    struct sm_codes c = {malloc(sm_codes_bytes(4, D)), malloc(16 * sizeof(float)), D};
    assert_true(x != NULL && c.codes != NULL && c.units != NULL);
    for (size_t k = 0; k < D; k++) {
        x[k] = 1;
        x[D + k] = -1;
        x[2 * D + k] = k == 9;
        x[3 * D + k] = k == 8 || k == 9 ? -1 : 0;
    }
    for (size_t i = 0; i < 4; i++)
        norms[i] = (float)product(x + i * D, x + i * D, D);
    sm_codes_make(x, norms, 4, &c);
    sm_codes_dots(&c, 0, 4, &c, 0, 4, y);
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < 4; k++)
            assert_true(
                fabs((double)y[i * SM_CODES_COLUMNS + k] + 2 * product(x + i * D, x + k * D, D)) <=
                2.001 * sm_codes_error(D) * sqrt((double)norms[i] * (double)norms[k]));
    free(x);
    free(c.codes);
    free(c.units);
}

static void a_row_without_a_length_gets_zeros(void **state) {
    (void)state;
    enum { D = 11 };
    const float lengths[] = {0, NAN, INFINITY, FLT_MIN / 2, 1};
    float x[5 * D];
    int16_t codes[16 * 12];
    float units[16];
    struct sm_codes c = {codes, units, D};
    assert_true(sm_codes_bytes(5, D) == sizeof codes);
    for (size_t i = 0; i < 5 * D; i++)
        x[i] = i == 2 * D ? NAN : 0.3f;
    sm_codes_make(x, lengths, 5, &c);
    for (size_t i = 0; i < 16; i++) {
        assert_true((units[i] != 0) == (i == 4));
        for (size_t k = 0; k < D; k++)
            assert_true((codes[k / 2 * 32 + i * 2 + k % 2] != 0) == (i == 4));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(codes_are_the_plain_ones),
        cmocka_unit_test(products_are_the_plain_ones_and_off_by_no_more_than_is_stated),
        cmocka_unit_test(no_sum_overflows),
        cmocka_unit_test(a_row_without_a_length_gets_zeros),
    };
    return cmocka_run_group_tests_name("codes", tests, NULL, NULL);
}
