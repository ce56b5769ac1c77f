/* The colour changes: single colours against what Pillow 9.4 makes of them, and each fast row
 * against its plain reference, for hue and luma on all 2^24 colours, for blends on all pairs of
 * grey value and byte. */
#include "workers/kernels/colour.h"
#include "lib/rng.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SIDE = 256 };

struct pair {
    uint8_t a[SIDE * SIDE * 3], b[SIDE * SIDE * 3];
    struct sm_tile fast, plain;
};

/* Two equal tiles on one struct's memory. */
static struct pair *pair_new(int width, int height, int channels) {
    struct pair *p = malloc(sizeof *p);
    assert_non_null(p);
    p->fast = (struct sm_tile){.u8 = p->a, .width = width, .height = height, .channels = channels};
    p->fast.stride = (size_t)width * (size_t)channels;
    p->plain = p->fast;
    p->plain.u8 = p->b;
    return p;
}

/* All colours of one red. */
static void pair_fill_reds(struct pair *p, int red) {
    for (int i = 0; i < SIDE * SIDE; i++) {
        p->a[i * 3] = (uint8_t)red;
        p->a[i * 3 + 1] = (uint8_t)(i >> 8);
        p->a[i * 3 + 2] = (uint8_t)i;
    }
    memcpy(p->b, p->a, sizeof p->a);
}

static void assert_pair_equal(const struct pair *p) {
    assert_memory_equal(p->a, p->b, p->fast.stride * (size_t)p->fast.height);
}

static void single_colours_become_what_pillow_makes_of_them(void **state) {
    (void)state;
    static const struct {
        uint8_t from[3], hue[4][3], saturated[3][3], bright[2][3], gray;
    } want[] = {
        {{200, 30, 60},
         {{200, 31, 62}, {200, 94, 31}, {86, 31, 200}, {31, 200, 162}},
         {{84, 84, 84}, {142, 57, 72}, {255, 0, 43}},
         {{60, 9, 18}, {255, 57, 114}},
         84},
        {{10, 240, 90},
         {{10, 240, 86}, {10, 240, 221}, {240, 205, 10}, {240, 10, 167}},
         {{154, 154, 154}, {82, 197, 122}, {0, 255, 45}},
         {{3, 72, 27}, {19, 255, 171}},
         154},
        {{0, 0, 255},
         {{0, 0, 255}, {150, 0, 255}, {0, 255, 132}, {255, 246, 0}},
         {{29, 29, 29}, {14, 14, 142}, {0, 0, 255}},
         {{0, 0, 76}, {0, 0, 255}},
         29},
        {{123, 122, 121},
         {{123, 122, 121}, {123, 123, 121}, {123, 121, 123}, {121, 122, 123}},
         {{122, 122, 122}, {122, 122, 121}, {123, 122, 120}},
         {{36, 36, 36}, {233, 231, 229}},
         122},
        {{17, 99, 203},
         {{18, 100, 203}, {44, 18, 203}, {18, 203, 31}, {203, 114, 18}},
         {{86, 86, 86}, {51, 92, 144}, {0, 108, 255}},
         {{5, 29, 60}, {32, 188, 255}},
         86},
    };
    static const double hues[] = {0, 0.1, -0.25, 0.5}, saturations[] = {0, 0.5, 1.7},
                        lights[] = {0.3, 1.9};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        uint8_t p[3];
        struct sm_tile t = {.u8 = p, .width = 1, .height = 1, .channels = 3, .stride = 3};
        for (int k = 0; k < 4; k++) {
            memcpy(p, want[i].from, 3);
            sm_colour_hue(&t, hues[k]);
            assert_memory_equal(p, want[i].hue[k], 3);
        }
        for (int k = 0; k < 3; k++) {
            memcpy(p, want[i].from, 3);
            sm_colour_saturate(&t, saturations[k]);
            assert_memory_equal(p, want[i].saturated[k], 3);
        }
        for (int k = 0; k < 2; k++) {
            memcpy(p, want[i].from, 3);
            sm_colour_blend(&t, 0, lights[k]);
            assert_memory_equal(p, want[i].bright[k], 3);
        }
        memcpy(p, want[i].from, 3);
        assert_int_equal(sm_colour_mean(&t), want[i].gray);
        sm_colour_gray(&t);
        for (int c = 0; c < 3; c++)
            assert_int_equal(p[c], want[i].gray);
    }
}

static void fast_hue_equals_the_plain_one_on_every_colour(void **state) {
    (void)state;
    static const double factors[] = {0, 0.31};
    struct pair *p = pair_new(SIDE, SIDE, 3);
    for (size_t k = 0; k < sizeof factors / sizeof *factors; k++) {
        for (int red = 0; red < 256; red++) {
            pair_fill_reds(p, red);
            sm_colour_hue(&p->fast, factors[k]);
            sm_colour_hue_plain(&p->plain, factors[k]);
            assert_pair_equal(p);
        }
    }
    free(p);
}

static void fast_grey_and_mean_equal_the_plain_ones_on_every_colour(void **state) {
    (void)state;
    struct pair *p = pair_new(SIDE, SIDE, 3);
    for (int red = 0; red < 256; red++) {
        pair_fill_reds(p, red);
        assert_int_equal(sm_colour_mean(&p->fast), sm_colour_mean_plain(&p->plain));
        sm_colour_gray(&p->fast);
        sm_colour_gray_plain(&p->plain);
        assert_pair_equal(p);
    }
    free(p);
}

static void fast_saturation_equals_the_plain_one(void **state) {
    (void)state;
    static const double factors[] = {0, 0.3, 1, 1.37, 40};
    struct pair *p = pair_new(SIDE, SIDE, 3);
    for (size_t k = 0; k < sizeof factors / sizeof *factors; k++) {
        for (int red = 0; red < 256; red += 5) {
            pair_fill_reds(p, red);
            sm_colour_saturate(&p->fast, factors[k]);
            sm_colour_saturate_plain(&p->plain, factors[k]);
            assert_pair_equal(p);
        }
    }
    free(p);
}

static void fast_blend_equals_the_plain_one_for_every_value_and_byte(void **state) {
    (void)state;
    static const double factors[] = {0, 0.1, 0.5, 0.99999999, 1, 1.0000001, 1.7, 1000};
    struct pair *p = pair_new(SIDE, SIDE, 3);
    for (size_t k = 0; k < sizeof factors / sizeof *factors; k++) {
        for (int value = 0; value < 256; value++) {
            pair_fill_reds(p, value);
            p->fast.height = p->plain.height = 2;
            sm_colour_blend(&p->fast, value, factors[k]);
            sm_colour_blend_plain(&p->plain, value, factors[k]);
            assert_pair_equal(p);
        }
    }
    free(p);
}

/* Widths around the eight pixels of a vector; what lies behind the row must stay. */
static void rows_of_any_width_change_only_their_own_bytes(void **state) {
    (void)state;
    struct sm_rng rng = sm_rng_op(5, 0, 0, 0, 0);
    for (int i = 0; i < 5 * 2 * 41; i++) {
        int what = i % 5, channels = i / 5 % 2 ? 3 : 1, width = 1 + i / 10;
        size_t n = (size_t)width * (size_t)channels;
        uint8_t *a = malloc(n), *b = malloc(n), *before = malloc(n);
        assert_true(a && b && before);
        for (size_t k = 0; k < n; k++)
            a[k] = b[k] = before[k] = (uint8_t)sm_rng_u32(&rng);
        struct sm_tile fast = {.u8 = a, .width = width, .height = 1, .channels = channels};
        fast.stride = n;
        struct sm_tile plain = fast;
        plain.u8 = b;
        if (what == 0) sm_colour_blend(&fast, 90, 1.5), sm_colour_blend_plain(&plain, 90, 1.5);
        if (what == 1) sm_colour_saturate(&fast, 0.2), sm_colour_saturate_plain(&plain, 0.2);
        if (what == 2) sm_colour_hue(&fast, 0.2), sm_colour_hue_plain(&plain, 0.2);
        if (what == 3) sm_colour_gray(&fast), sm_colour_gray_plain(&plain);
        assert_int_equal(sm_colour_mean(&fast), sm_colour_mean_plain(&plain));
        assert_memory_equal(a, b, n);
        if (channels == 1 && what != 0) assert_memory_equal(a, before, n);
        free(a), free(b), free(before);
    }
}

static void the_mean_rounds_halves_up(void **state) {
    (void)state;
    uint8_t p[] = {10, 11, 11, 10, 0, 0, 0, 1};
    struct sm_tile t = {.u8 = p, .width = 2, .height = 2, .channels = 1, .stride = 2};
    assert_int_equal(sm_colour_mean(&t), 11);
    t.u8 = p + 4;
    assert_int_equal(sm_colour_mean(&t), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_colours_become_what_pillow_makes_of_them),
        cmocka_unit_test(fast_hue_equals_the_plain_one_on_every_colour),
        cmocka_unit_test(fast_grey_and_mean_equal_the_plain_ones_on_every_colour),
        cmocka_unit_test(fast_saturation_equals_the_plain_one),
        cmocka_unit_test(fast_blend_equals_the_plain_one_for_every_value_and_byte),
        cmocka_unit_test(rows_of_any_width_change_only_their_own_bytes),
        cmocka_unit_test(the_mean_rounds_halves_up),
    };
    return cmocka_run_group_tests_name("colour", tests, NULL, NULL);
}
