/* The warps: small pictures against what Pillow 9.4 makes of them, each fast row against its plain
 * reference, and the maps' sizes and quarter turns. The tiles have no spare byte, so that a
 * sanitizer sees a tap beyond them. */
#include "workers/kernels/affine.h"
#include "lib/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct sm_tile tile_new(int width, int height, int channels, size_t gap) {
    struct sm_tile t = {.width = width, .height = height, .channels = channels};
    t.stride = (size_t)width * (size_t)channels + gap;
    t.u8 = malloc(t.stride * (size_t)(height - 1) + (size_t)width * (size_t)channels);
    assert_non_null(t.u8);
    return t;
}

static struct sm_tile tile_random(int width, int height, int channels, size_t gap,
                                  struct sm_rng *rng) {
    struct sm_tile t = tile_new(width, height, channels, gap);
    size_t n = t.stride * (size_t)(height - 1) + (size_t)width * (size_t)channels;
    for (size_t i = 0; i < n; i++)
        t.u8[i] = (uint8_t)sm_rng_u32(rng);
    return t;
}

static const uint8_t *at(const struct sm_tile *t, int x, int y) {
    return t->u8 + (size_t)y * t->stride + (size_t)x * (size_t)t->channels;
}

static void assert_tiles_equal(const struct sm_tile *a, const struct sm_tile *b) {
    assert_int_equal(a->width, b->width);
    assert_int_equal(a->height, b->height);
    for (int y = 0; y < a->height; y++)
        assert_memory_equal(at(a, 0, y), at(b, 0, y), (size_t)a->width * (size_t)a->channels);
}

/* (37 x + 91 y + 13 x y) mod 256, in each channel. */
static struct sm_tile pattern(int channels) {
    struct sm_tile t = tile_new(6, 5, channels, 0);
    for (int y = 0; y < 5; y++)
        for (int x = 0; x < 6; x++)
            memset((uint8_t *)(uintptr_t)at(&t, x, y), (x * 37 + y * 91 + x * y * 13) % 256,
                   (size_t)channels);
    return t;
}

static void assert_pattern_gives(const struct sm_map *map, enum sm_filter filter, int width,
                                 int height, const uint8_t *want) {
    static const uint8_t fill[3] = {7, 7, 7};
    for (int channels = 1; channels <= 3; channels += 2) {
        struct sm_tile in = pattern(channels), out = tile_new(width, height, channels, 0);
        for (int plain = 0; plain < 2; plain++) {
            (plain ? sm_affine_plain : sm_affine)(&in, &out, map, filter, fill);
            for (int i = 0; i < width * height * channels; i++)
                assert_int_equal(out.u8[i], want[i / channels]);
        }
        free(in.u8);
        free(out.u8);
    }
}

/* F.rotate(im, 30, fill=7) */
static void rotation_makes_the_bytes_of_pillow(void **state) {
    (void)state;
    static const uint8_t nearest[] = {7,   74,  111, 35,  85, 7,   37, 74,  241, 241,
                                      178, 241, 91,  141, 52, 115, 65, 141, 182, 245,
                                      169, 169, 119, 208, 7,  17,  93, 30,  119, 7};
    static const uint8_t bilinear[] = {7,   81,  115, 95,  77, 7,   30,  106, 204, 148,
                                       179, 202, 83,  164, 90, 143, 117, 110, 147, 208,
                                       135, 186, 163, 180, 7,  35,  140, 43,  101, 7};
    static const uint8_t bicubic[] = {7,   68,  117, 76,  69, 7,   17,  108, 252, 151,
                                      195, 244, 64,  189, 69, 128, 97,  85,  172, 242,
                                      135, 225, 185, 202, 7,  31,  127, 38,  62,  7};
    struct sm_rotation r = sm_rotation_make(6, 5, 30, false, NULL);
    assert_int_equal(r.quarters, -1);
    assert_pattern_gives(&r.map, SM_NEAREST, 6, 5, nearest);
    assert_pattern_gives(&r.map, SM_BILINEAR, 6, 5, bilinear);
    assert_pattern_gives(&r.map, SM_BICUBIC, 6, 5, bicubic);
}

/* F.rotate(im, 30, BILINEAR, expand=True, fill=7) */
static void expanding_rotation_makes_the_size_and_bytes_of_pillow(void **state) {
    (void)state;
    static const uint8_t want[] = {
        7,   7,   7,   7,  7,  7,   7,   7,   7,   7,   7,   7,   164, 169, 7,  7,   7,   7,
        81,  115, 95,  77, 7,  7,   7,   30,  106, 204, 148, 179, 202, 7,   7,  83,  164, 90,
        143, 117, 110, 7,  7,  147, 208, 135, 186, 163, 180, 7,   7,   7,   35, 140, 43,  101,
        7,   7,   7,   7,  94, 158, 7,   7,   7,   7,   7,   7,   7,   7,   7,  7,   7,   7};
    struct sm_rotation r = sm_rotation_make(6, 5, 30, true, NULL);
    assert_int_equal(r.width, 8);
    assert_int_equal(r.height, 9);
    assert_pattern_gives(&r.map, SM_BILINEAR, 8, 9, want);
}

/* F.affine(im, 20, [1, -1], 1.25, [10, -5], fill=7) */
static void affine_makes_the_bytes_of_torchvision(void **state) {
    (void)state;
    static const uint8_t nearest[] = {182, 182, 245, 191, 191, 241, 17,  93,  93,  52,
                                      115, 35,  108, 197, 169, 245, 245, 178, 7,   30,
                                      30,  119, 65,  65,  7,   7,   7,   119, 208, 41};
    static const uint8_t bilinear[] = {106, 185, 213, 143, 199, 190, 40,  99,  141, 81,
                                       127, 139, 142, 141, 133, 198, 169, 152, 7,   101,
                                       58,  162, 141, 96,  7,   7,   7,   151, 199, 96};
    static const uint8_t bicubic[] = {97,  209, 238, 148, 233, 206, 19,  82,  143, 49,
                                      107, 138, 158, 138, 137, 239, 176, 161, 7,   92,
                                      31,  175, 143, 67,  7,   7,   7,   176, 205, 87};
    const double center[2] = {3, 2.5}, translate[2] = {1, -1}, shear[2] = {10, -5};
    struct sm_map map = sm_map_affine(center, 20, translate, 1.25, shear);
    assert_pattern_gives(&map, SM_NEAREST, 6, 5, nearest);
    assert_pattern_gives(&map, SM_BILINEAR, 6, 5, bilinear);
    assert_pattern_gives(&map, SM_BICUBIC, 6, 5, bicubic);
}

static struct sm_map map_draw(int width, int height, int kind, struct sm_rng *rng) {
    double center[2] = {sm_rng_uniform(rng, -9, width + 9), sm_rng_uniform(rng, -9, height + 9)};
    double translate[2] = {(double)sm_rng_below(rng, 9), -(double)sm_rng_below(rng, 9)};
    double shear[2] = {sm_rng_uniform(rng, -50, 50), sm_rng_uniform(rng, -50, 50)};
    double scales[] = {1, 0.001, 300, sm_rng_uniform(rng, 0.2, 4)};
    if (kind % 3 == 0) shear[0] = shear[1] = 0;
    return sm_map_affine(center, kind % 5 == 0 ? 0 : sm_rng_uniform(rng, -200, 200), translate,
                         scales[kind % 4], shear);
}

static void fast_rows_equal_the_plain_ones_for_any_size_map_and_filter(void **state) {
    (void)state;
    static const enum sm_filter filters[] = {SM_NEAREST, SM_BILINEAR, SM_BICUBIC};
    struct sm_rng rng = sm_rng_op(1, 0, 0, 0, 0);
    for (int kind = 0; kind < 3000; kind++) {
        int width = 1 + (int)sm_rng_below(&rng, 40), height = 1 + (int)sm_rng_below(&rng, 40);
        int channels = kind % 7 ? 3 : 1;
        struct sm_tile in = tile_random(width, height, channels, sm_rng_below(&rng, 5), &rng);
        int out_width = 1 + (int)sm_rng_below(&rng, 60),
            out_height = 1 + (int)sm_rng_below(&rng, 9);
        struct sm_tile fast = tile_random(out_width, out_height, channels, 0, &rng);
        struct sm_tile plain = tile_random(out_width, out_height, channels, 3, &rng);
        struct sm_map map = map_draw(width, height, kind, &rng);
        const uint8_t fill[3] = {(uint8_t)kind, 200, 13};
        sm_affine(&in, &fast, &map, filters[kind % 3], fill);
        sm_affine_plain(&in, &plain, &map, filters[kind % 3], fill);
        assert_tiles_equal(&fast, &plain);
        free(in.u8);
        free(fast.u8);
        free(plain.u8);
    }
}

/* 16.16 cannot hold these coordinates; the doubles that replace it must not mix up inside and
 * outside. */
static void maps_far_outside_the_picture_give_only_the_fill(void **state) {
    (void)state;
    static const struct sm_map far[] = {{{1, 0.5, 1e7, 0.5, 1, 0}},
                                        {{1, 0, 1e300, 0, 1, -1e300}},
                                        {{1e30, 1e30, -1e30, 1e30, -1e30, 5e30}}};
    static const uint8_t fill[3] = {1, 2, 3};
    struct sm_rng rng = sm_rng_op(2, 0, 0, 0, 0);
    struct sm_tile in = tile_random(9, 9, 3, 0, &rng), out = tile_new(9, 9, 3, 0);
    for (size_t i = 0; i < 2 * 3; i++) {
        sm_affine(&in, &out, &far[i / 2], i % 2 ? SM_NEAREST : SM_BICUBIC, fill);
        for (int k = 0; k < 9 * 9 * 3; k++)
            assert_int_equal(out.u8[k], k % 3 + 1);
    }
    free(in.u8);
    free(out.u8);
}

static void quarter_turns_are_taken_where_pillow_takes_them(void **state) {
    (void)state;
    const double center[2] = {3, 3};
    static const struct {
        int width, height;
        double angle;
        bool expand;
        int quarters;
    } cases[] = {{6, 5, 0, false, 0},     {6, 5, 360, false, 0}, {6, 5, -720, true, 0},
                 {6, 5, 180, false, 2},   {6, 5, -180, true, 2}, {6, 5, 90, false, -1},
                 {6, 5, 90, true, 1},     {5, 5, 90, false, 1},  {5, 5, -90, false, 3},
                 {6, 5, 270, true, 3},    {6, 5, 450, true, 1},  {6, 5, 1e-9, false, -1},
                 {5, 5, 89.999, true, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sm_rotation r = sm_rotation_make(cases[i].width, cases[i].height, cases[i].angle,
                                                cases[i].expand, NULL);
        assert_int_equal(r.quarters, cases[i].quarters);
        bool across = r.quarters == 1 || r.quarters == 3;
        if (r.quarters >= 0) assert_int_equal(r.width, across ? cases[i].height : cases[i].width);
        r = sm_rotation_make(cases[i].width, cases[i].height, cases[i].angle, cases[i].expand,
                             center);
        assert_int_equal(r.quarters, -1);
    }
}

static void turning_moves_each_pixel_to_its_place(void **state) {
    (void)state;
    struct sm_rng rng = sm_rng_op(3, 0, 0, 0, 0);
    for (int channels = 1; channels <= 3; channels += 2) {
        int w = 37, h = 21; /* more than a block of the kernel, and no multiple */
        struct sm_tile in = tile_random(w, h, channels, 2, &rng);
        struct sm_tile once = tile_new(h, w, channels, 0), twice = tile_new(w, h, channels, 0);
        struct sm_tile thrice = tile_new(h, w, channels, 1), same = tile_new(w, h, channels, 0);
        sm_turn(&in, &once, 1);
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++) /* the right edge comes to the top */
                assert_memory_equal(at(&once, y, w - 1 - x), at(&in, x, y), (size_t)channels);
        sm_turn(&once, &same, 3);
        assert_tiles_equal(&same, &in);
        sm_turn(&once, &twice, 1);
        sm_turn(&in, &same, 2);
        assert_tiles_equal(&same, &twice);
        sm_turn(&twice, &thrice, 1);
        sm_turn(&thrice, &same, 1);
        assert_tiles_equal(&same, &in);
        sm_turn(&in, &same, 0);
        assert_tiles_equal(&same, &in);
        free(in.u8), free(once.u8), free(twice.u8), free(thrice.u8), free(same.u8);
    }
}

static void an_expanded_output_holds_every_corner(void **state) {
    (void)state;
    struct sm_rng rng = sm_rng_op(4, 0, 0, 0, 0);
    for (int i = 0; i < 2000; i++) {
        int w = 1 + (int)sm_rng_below(&rng, 300), h = 1 + (int)sm_rng_below(&rng, 300);
        struct sm_rotation r = sm_rotation_make(w, h, sm_rng_uniform(&rng, -500, 500), true, NULL);
        /* the map leads the middle to the middle, and its inverse (a rotation) takes corners into
         * the output */
        const double *m = r.map.m;
        double cx = r.width / 2.0, cy = r.height / 2.0;
        assert_true(r.width >= 1 && r.height >= 1);
        assert_true(fabs(m[0] * cx + m[1] * cy + m[2] - w / 2.0) < 1e-9);
        assert_true(fabs(m[3] * cx + m[4] * cy + m[5] - h / 2.0) < 1e-9);
        for (int k = 0; k < 4; k++) {
            double x = (k & 1 ? w : 0) - w / 2.0, y = (k & 2 ? h : 0) - h / 2.0;
            double ox = m[0] * x + m[3] * y + cx, oy = m[1] * x + m[4] * y + cy;
            assert_true(ox > -1 && ox < r.width + 1 && oy > -1 && oy < r.height + 1);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rotation_makes_the_bytes_of_pillow),
        cmocka_unit_test(expanding_rotation_makes_the_size_and_bytes_of_pillow),
        cmocka_unit_test(affine_makes_the_bytes_of_torchvision),
        cmocka_unit_test(fast_rows_equal_the_plain_ones_for_any_size_map_and_filter),
        cmocka_unit_test(maps_far_outside_the_picture_give_only_the_fill),
        cmocka_unit_test(quarter_turns_are_taken_where_pillow_takes_them),
        cmocka_unit_test(turning_moves_each_pixel_to_its_place),
        cmocka_unit_test(an_expanded_output_holds_every_corner),
    };
    return cmocka_run_group_tests_name("affine", tests, NULL, NULL);
}
