/* Loops of the search for neighbours: for every length the bits of the plain ones, and no near
 * pair is passed over. */
#include "workers/kernels/distances.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { LONGEST = 150, COLUMNS = SM_LOOK_MOST };

static uint32_t bits = 11;

static float next(void) {
    bits = bits * 1664525 + 1013904223;
    return (float)((double)(bits >> 8) / 8388608 - 1);
}

static void a_distance_is_the_plain_one_and_near_the_formula(void **state) {
    (void)state;
    float x[LONGEST + 1], y[LONGEST + 1];
    for (size_t i = 0; i <= LONGEST; i++) {
        x[i] = next() * 1000;
        y[i] = next();
    }
    for (size_t n = 0; n <= LONGEST; n++) {
        const double fast = sm_distance_float(x + 1, y + 1, n),
                     plain = sm_distance_float_plain(x + 1, y + 1, n);
        double want = 0;
        for (size_t i = 1; i <= n; i++)
            want += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        assert_memory_equal(&fast, &plain, sizeof fast);
        assert_true(fabs(fast - want) <= 1e-14 * want);
    }
}

/* Every place is near in turn, by its own list or by the row's; undefined and infinite ones are. */
static void a_near_pair_is_found_wherever_it_is(void **state) {
    (void)state;
    static const float near[] = {0.5f, 1.5f, NAN, -INFINITY};
    float products[COLUMNS], norms[COLUMNS], worst[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++) {
        products[i] = 3 + next();
        norms[i] = 0;
        worst[i] = i % 2 == 0 ? -INFINITY : 1;
    }
    for (size_t end = 0; end <= COLUMNS; end++) {
        const struct sm_look look = {products, norms, worst, end, 0, {1, 0}};
        assert_int_equal(sm_look(&look, 1), 0);
        assert_int_equal(sm_look_plain(&look, 1), 0);
        for (size_t i = 0; i < end; i++) {
            const float was = products[i], was_worst = worst[i];
            products[i] = near[i % 4];
            if (i % 4 == 1) worst[i] = 2; /* near by its own list alone */
            assert_true(sm_look(&look, 1) == UINT64_C(1) << i);
            assert_true(sm_look_plain(&look, 1) == UINT64_C(1) << i);
            products[i] = was;
            worst[i] = was_worst;
        }
    }
}

static void looks_are_the_plain_ones(void **state) {
    (void)state;
    float products[COLUMNS], norms[COLUMNS], worst[COLUMNS];
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < COLUMNS; i++) {
            products[i] = -2 - next();
            norms[i] = 1 + next() / 2;
            worst[i] = next();
        }
        const size_t end = (size_t)round % (COLUMNS + 1);
        const struct sm_look look = {products, norms, worst, end, 1, {0.999f, 1e-6f}};
        const float own = next();
        assert_true(sm_look(&look, own) == sm_look_plain(&look, own));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_distance_is_the_plain_one_and_near_the_formula),
        cmocka_unit_test(a_near_pair_is_found_wherever_it_is),
        cmocka_unit_test(looks_are_the_plain_ones),
    };
    return cmocka_run_group_tests_name("distances", tests, NULL, NULL);
}
