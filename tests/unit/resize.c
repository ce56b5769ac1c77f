/* Resampling: the vector kernels against the plain loops bit for bit, and the plain loops against
 * the formula in doubles. */
#include "workers/kernels/resize.h"
#include "tests/unit/pictures.h"
#include "workers/kernels/copy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const enum sm_filter smooth[] = {SM_BILINEAR, SM_BICUBIC, SM_BOX, SM_HAMMING, SM_LANCZOS};
enum { SMOOTH = sizeof smooth / sizeof *smooth };

static struct sm_tile tile_new(int width, int height, int channels) {
    return (struct sm_tile){
        .u8 = calloc(1, (size_t)width * (size_t)height * (size_t)channels + SM_TILE_SLACK),
        .width = width,
        .height = height,
        .channels = channels,
        .stride = (size_t)width * (size_t)channels};
}

static struct sm_tile tile_noise(int width, int height, int channels, uint32_t *state) {
    struct sm_tile t = tile_new(width, height, channels);
    for (size_t i = 0; i < t.stride * (size_t)height; i++)
        t.u8[i] = (uint8_t)(noise(state) % 3 ? noise(state) : noise(state) % 2 * 255);
    return t;
}

static void compare(const struct sm_tile *in, int width, int height, enum sm_filter filter) {
    struct sm_tile fast = tile_new(width, height, in->channels),
                   plain = tile_new(width, height, in->channels);
    struct sm_resizer r, reference;
    sm_resizer_init(&r);
    sm_resizer_init(&reference);
    r.reference = false;
    reference.reference = true;
    assert_int_equal(sm_resize(&r, in, &fast, filter, true, NULL), 0);
    assert_int_equal(sm_resize(&reference, in, &plain, filter, true, NULL), 0);
    assert_memory_equal(fast.u8, plain.u8, fast.stride * (size_t)height);
    sm_resizer_release(&r);
    sm_resizer_release(&reference);
    free(fast.u8);
    free(plain.u8);
}

static void vector_kernels_equal_the_plain_loops_at_random_sizes(void **state) {
    uint32_t seed = 1;
    (void)state;
    for (int i = 0; i < 400; i++) {
        int channels = noise(&seed) % 4 ? 3 : 1;
        struct sm_tile in =
            tile_noise(1 + (int)(noise(&seed) % 90), 1 + (int)(noise(&seed) % 90), channels, &seed);
        compare(&in, 1 + (int)(noise(&seed) % 90), 1 + (int)(noise(&seed) % 90),
                smooth[i % SMOOTH]);
        free(in.u8);
    }
}

static void vector_kernels_equal_the_plain_loops_at_large_scales(void **state) {
    uint32_t seed = 2;
    (void)state;
    for (int f = 0; f < SMOOTH; f++) {
        struct sm_tile in = tile_noise(1500, 11, 3, &seed), tall = tile_noise(5, 1500, 3, &seed);
        compare(&in, 1, 3, smooth[f]);
        compare(&in, 7, 11, smooth[f]);
        compare(&tall, 5, 2, smooth[f]);
        compare(&tall, 40, 1, smooth[f]);
        free(in.u8);
        free(tall.u8);
    }
}

static void rows_with_gaps_are_left_alone(void **state) {
    uint32_t seed = 3;
    (void)state;
    struct sm_tile in = tile_noise(31, 17, 3, &seed), out = tile_new(64, 9, 3);
    struct sm_resizer r;
    sm_resizer_init(&r);
    memset(out.u8, 0xa5, out.stride * 9);
    out.width = 13;
    assert_int_equal(sm_resize(&r, &in, &out, SM_BICUBIC, true, NULL), 0);
    for (int y = 0; y < 9; y++)
        for (size_t i = 13 * 3; i < out.stride; i++)
            assert_int_equal(sm_tile_row(&out, y)[i], 0xa5);
    sm_resizer_release(&r);
    free(in.u8);
    free(out.u8);
}

/* One axis in doubles, straight from the definition. */
static double at_double(const uint8_t *line, int n, int out, int i) {
    double scale = (double)n / out, stretch = scale < 1 ? 1 : scale, centre = (i + 0.5) * scale,
           sum = 0, all = 0;
    for (int k = 0; k < n; k++) {
        double w = 1 - fabs((k + 0.5 - centre) / stretch);
        if (w <= 0) continue;
        sum += w * line[k];
        all += w;
    }
    return sum / all;
}

static void bilinear_is_the_stretched_triangle(void **state) {
    uint32_t seed = 4;
    (void)state;
    for (int n = 1; n < 60; n += 3)
        for (int out = 1; out < 60; out += 7) {
            struct sm_tile in = tile_noise(n, 1, 1, &seed), to = tile_new(out, 1, 1);
            struct sm_resizer r;
            sm_resizer_init(&r);
            assert_int_equal(sm_resize(&r, &in, &to, SM_BILINEAR, true, NULL), 0);
            for (int i = 0; i < out; i++)
                assert_true(fabs(to.u8[i] - at_double(in.u8, n, out, i)) < 0.51);
            sm_resizer_release(&r);
            free(in.u8);
            free(to.u8);
        }
}

static void a_flat_picture_stays_flat_with_every_filter(void **state) {
    (void)state;
    for (int filter = SM_NEAREST; filter <= SM_LANCZOS; filter++)
        for (int antialias = 0; antialias < 2; antialias++)
            for (int value = 0; value < 256; value += 51) {
                struct sm_tile in = tile_new(37, 23, 3), out = tile_new(50, 9, 3);
                struct sm_resizer r;
                sm_resizer_init(&r);
                memset(in.u8, value, in.stride * 23);
                assert_int_equal(sm_resize(&r, &in, &out, (enum sm_filter)filter, antialias, NULL),
                                 0);
                for (size_t i = 0; i < out.stride * 9; i++)
                    assert_int_equal(out.u8[i], value);
                sm_resizer_release(&r);
                free(in.u8);
                free(out.u8);
            }
}

static void nearest_takes_torchs_pixel_and_exact_the_centres(void **state) {
    (void)state;
    uint8_t line[10 + SM_TILE_SLACK] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, out[4 + SM_TILE_SLACK];
    struct sm_tile in = {.u8 = line, .width = 10, .height = 1, .channels = 1, .stride = 10};
    struct sm_tile to = {.u8 = out, .width = 4, .height = 1, .channels = 1, .stride = 4};
    struct sm_resizer r;
    sm_resizer_init(&r);
    sm_resize(&r, &in, &to, SM_NEAREST, true, NULL);
    assert_memory_equal(out, ((uint8_t[]){0, 2, 5, 7}), 4);
    sm_resize(&r, &in, &to, SM_NEAREST_EXACT, true, NULL);
    assert_memory_equal(out, ((uint8_t[]){1, 3, 6, 8}), 4);
    sm_resizer_release(&r);
}

static void planes_by_vectors_equal_the_plain_loop(void **state) {
    uint32_t seed = 5;
    uint8_t from[100 * 3], plain[300], fast[300];
    (void)state;
    if (!sm_resize_avx2_ok()) skip();
    for (int n = 0; n <= 100; n++)
        for (int flip = 0; flip < 2; flip++) {
            for (int i = 0; i < n * 3; i++)
                from[i] = (uint8_t)noise(&seed);
            memset(plain, 1, sizeof plain);
            memset(fast, 1, sizeof fast);
            sm_planes_plain(from, (struct sm_planes){plain, plain + 100, plain + 200}, n, flip);
            sm_planes_avx2(from, (struct sm_planes){fast, fast + 100, fast + 200}, n, flip);
            assert_memory_equal(plain, fast, sizeof plain);
            for (int i = 0; i < n; i++)
                assert_int_equal(plain[100 + i], from[(flip ? n - 1 - i : i) * 3 + 1]);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vector_kernels_equal_the_plain_loops_at_random_sizes),
        cmocka_unit_test(vector_kernels_equal_the_plain_loops_at_large_scales),
        cmocka_unit_test(rows_with_gaps_are_left_alone),
        cmocka_unit_test(bilinear_is_the_stretched_triangle),
        cmocka_unit_test(a_flat_picture_stays_flat_with_every_filter),
        cmocka_unit_test(planes_by_vectors_equal_the_plain_loop),
        cmocka_unit_test(nearest_takes_torchs_pixel_and_exact_the_centres),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
