/* Loops of the search for neighbours: for every length the bits of the plain ones, and no strip
 * with a near pair is passed over. */
#include "workers/kernels/distances.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { LONGEST = 150, COLUMNS = 70 };

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
        const size_t left = end - end % SM_LOOK_STRIP;
        assert_int_equal(sm_look_next(&look, 0, 1), left);
        assert_int_equal(sm_look_next_plain(&look, 0, 1), left);
        for (size_t i = 0; i < left; i++) {
            const float was = products[i], was_worst = worst[i];
            products[i] = near[i % 4];
            if (i % 4 == 1) worst[i] = 2; /* near by its own list alone */
            assert_int_equal(sm_look_next(&look, 0, 1), i - i % SM_LOOK_STRIP);
            assert_int_equal(sm_look_next_plain(&look, 0, 1), i - i % SM_LOOK_STRIP);
            products[i] = was;
            worst[i] = was_worst;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_distance_is_the_plain_one_and_near_the_formula),
        cmocka_unit_test(a_near_pair_is_found_wherever_it_is),
    };
    return cmocka_run_group_tests_name("distances", tests, NULL, NULL);
}
