/* The engine end to end: fused equals op by op, results depend on nothing but the request, every
 * encoding and type holds what it should, and what cannot be made is refused with words. Pipelines
 * are parsed from text, as users write them. */
#include "workers/engine.h"
#include "lib/limits.h"
#include "tests/unit/pictures.h"
#include "workers/kernels/copy.h"
#include "workers/ops/op.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { OUT_MAX = 4 << 20 };

struct bench {
    struct sm_pipeline pipeline;
    struct sm_engine *engine;
    uint8_t *out;
    char draws[SM_MAX_DRAWS_BYTES];
    struct sm_engine_result result;
    struct sm_err err;
};

/* body: everything below `version` and `name`. Returns sm_engine_new's answer. */
static int bench_open(struct bench *b, const char *body, unsigned flags) {
    char text[4096];
    *b = (struct bench){.out = malloc(OUT_MAX)};
    snprintf(text, sizeof text,
             "version: 1\nname: test\nseed: 3\nsource: {format: folder, path: .%s", body);
    if (sm_pipeline_parse(&b->pipeline, "test.yaml", text, strlen(text), sm_op_table(), &b->err) !=
        0)
        return -1;
    return sm_engine_new(&b->engine, &b->pipeline, flags, &b->err);
}

static void bench_close(struct bench *b) {
    sm_engine_free(&b->engine);
    sm_engine_free(&b->engine);
    sm_pipeline_release(&b->pipeline);
    free(b->out);
}

static int make(struct bench *b, const struct picture *p, struct sm_engine_request request) {
    request.bytes = p->bytes;
    request.n_bytes = p->n;
    return sm_engine_make(b->engine, &request, b->out, OUT_MAX, b->draws, &b->result, &b->err);
}

#define CROP_AND_FLIPS \
    "}\nops:\n  - RandomResizedCrop: {size: 32}\n  - RandomHorizontalFlip: {}\n  - RandomVerticalFlip: {}\n"

static const char *const chains[] = {
    "}\nops:\n  - RandomApply:\n      p: 0.5\n      transforms:\n        - RandomResizedCrop: {size: 40}\n        - ColorJitter: {brightness: 0.4, hue: 0.1}\n  - RandomHorizontalFlip: {}\n  - RandomRotation: {degrees: 30}\n",
    CROP_AND_FLIPS,
    "}\nops:\n  - RandomHorizontalFlip: {}\n  - RandomCrop: {size: [30, 20], padding: 5, padding_mode: reflect}\n  - RandomVerticalFlip: {}\n",
    "}\nops:\n  - RandomVerticalFlip: {}\n  - RandomHorizontalFlip: {}\n  - RandomResizedCrop: {size: [20, 33], interpolation: bicubic}\n",
    "}\nops:\n  - RandomCrop: {size: 90, pad_if_needed: true, fill: [1, 2, 3]}\n  - RandomHorizontalFlip: {}\n  - CenterCrop: {size: [50, 120]}\n",
    "}\nops:\n  - Resize: {size: 40, max_size: 48}\n  - CenterCrop: {size: 32}\n  - Pad: {padding: [1, 2, 3, 4], padding_mode: symmetric}\n  - RandomHorizontalFlip: {}\n",
    ", mode: L}\nops:\n  - RandomHorizontalFlip: {}\n  - RandomResizedCrop: {size: 24, interpolation: lanczos}\n  - RandomVerticalFlip: {}\n",
    "}\nops:\n  - RandomResizedCrop: {size: 16}\n  - RandomHorizontalFlip: {}\n  - Normalize: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}\n  - RandomVerticalFlip: {}\noutput: {dtype: float32}\nexpand: {encode: tensor}\n",
    "}\nops:\n  - RandomCrop: {size: 20}\n  - Normalize: {mean: 0.5, std: 0.25}\n  - Pad: {padding: 2, padding_mode: edge}\n  - RandomHorizontalFlip: {}\noutput: {dtype: float16, layout: NHWC}\nexpand: {encode: tensor}\n",
};
enum { CHAINS = sizeof chains / sizeof *chains };

static void a_fused_plan_equals_op_by_op_bit_for_bit(void **state) {
    (void)state;
    struct bench *fused = malloc(sizeof *fused), *plain = malloc(sizeof *plain);
    for (int c = 0; c < CHAINS; c++) {
        assert_int_equal(bench_open(fused, chains[c], 0), 0);
        assert_int_equal(bench_open(plain, chains[c], SM_ENGINE_NO_FUSE), 0);
        for (int i = 0; i < 40; i++) {
            struct picture p = picture_jpeg(&jpeg_kinds[i % JPEG_KINDS], 61 + i, 97 - i, i % 9);
            struct sm_engine_request r = {
                .seed = 3, .sample = (uint64_t)i, .copy = 1, .tensor = i % 3 != 0};
            assert_int_equal(make(fused, &p, r), 0);
            assert_int_equal(make(plain, &p, r), 0);
            assert_string_equal(fused->draws, plain->draws);
            assert_int_equal(fused->result.n_bytes, plain->result.n_bytes);
            assert_memory_equal(fused->out, plain->out, fused->result.n_bytes);
            free(p.bytes);
        }
        bench_close(fused);
        bench_close(plain);
    }
    free(fused);
    free(plain);
}

static void a_result_depends_on_its_request_alone_and_not_on_what_was_made_before(void **state) {
    (void)state;
    struct bench *b = malloc(sizeof *b);
    assert_int_equal(bench_open(b, CROP_AND_FLIPS, 0), 0);
    struct picture p = picture_jpeg(&jpeg_kinds[3], 90, 70, 0),
                   other = picture_jpeg(&jpeg_kinds[6], 300, 200, 3);
    struct picture bad = {.bytes = other.bytes, .n = other.n / 3};
    const struct sm_engine_request r = {
        .seed = 3, .epoch = 1, .sample = 5, .copy = 2, .tensor = true};
    assert_int_equal(make(b, &p, r), 0);
    size_t n = b->result.n_bytes;
    uint8_t *first = malloc(n);
    char *draws = strdup(b->draws);
    memcpy(first, b->out, n);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(make(b, &other, (struct sm_engine_request){.sample = (uint64_t)i}), 0);
        assert_int_equal(make(b, &bad, (struct sm_engine_request){.sample = (uint64_t)i}), -1);
        assert_int_equal(b->err.code, SM_E_TRUNCATED);
        assert_int_equal(make(b, &p, r), 0);
        assert_memory_equal(b->out, first, n);
        assert_string_equal(b->draws, draws);
    }
    struct sm_engine_request changed[] = {r, r, r, r};
    changed[0].seed++;
    changed[1].epoch++;
    changed[2].sample++;
    changed[3].copy++;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(make(b, &p, changed[i]), 0);
        assert_string_not_equal(b->draws, draws);
    }
    free(draws);
    free(first);
    free(p.bytes);
    free(other.bytes);
    bench_close(b);
    free(b);
}

static void every_encoding_begins_as_its_format_does(void **state) {
    static const struct {
        const char *encode, *extension, *magic;
        int at;
    } cases[] = {{"jpeg", "jpg", "\xff\xd8\xff", 0},
                 {"png", "png", "\x89PNG", 0},
                 {"webp", "webp", "WEBP", 8},
                 {"tensor", "npy", "\x93NUMPY\x01", 0}};
    (void)state;
    struct bench *b = malloc(sizeof *b);
    struct picture p = picture_jpeg(&jpeg_kinds[0], 50, 40, 0);
    for (int mode = 0; mode < 2; mode++)
        for (int i = 0; i < 4; i++) {
            char body[200];
            snprintf(body, sizeof body,
                     "%s}\nops: [Resize: {size: [20, 30]}]\nexpand: {encode: %s}\n",
                     mode ? ", mode: L" : "", cases[i].encode);
            assert_int_equal(bench_open(b, body, 0), 0);
            assert_int_equal(make(b, &p, (struct sm_engine_request){0}), 0);
            assert_string_equal(b->result.extension, cases[i].extension);
            assert_memory_equal(b->out + cases[i].at, cases[i].magic, strlen(cases[i].magic));
            assert_true(b->result.width == 30 && b->result.height == 20 &&
                        b->result.channels == (mode ? 1 : 3));
            assert_true(b->result.in_width == 50 && b->result.in_height == 40);
            assert_string_equal(b->draws, "[]");
            struct picture back = {.bytes = b->out, .n = b->result.n_bytes};
            if (i < 3) { /* what was written can be read */
                struct bench *again = malloc(sizeof *again);
                assert_int_equal(bench_open(again, "}\n", 0), 0);
                assert_int_equal(make(again, &back, (struct sm_engine_request){0}), 0);
                assert_int_equal(again->result.width, 30);
                bench_close(again);
                free(again);
            }
            bench_close(b);
        }
    free(p.bytes);
    free(b);
}

static void a_result_that_does_not_fit_is_refused_and_nothing_is_written_behind(void **state) {
    static const char *const encodes[] = {"jpeg", "png", "webp", "tensor"};
    (void)state;
    struct bench *b = malloc(sizeof *b);
    struct picture p = picture_jpeg(&jpeg_kinds[0], 50, 40, 0);
    for (int i = 0; i < 4; i++) {
        char body[100];
        snprintf(body, sizeof body, "}\nexpand: {encode: %s}\n", encodes[i]);
        assert_int_equal(bench_open(b, body, 0), 0);
        for (size_t max = 0; max < 200; max += 50) {
            struct sm_engine_request r = {.bytes = p.bytes, .n_bytes = p.n, .original = max == 100};
            b->out[max] = 0x5a;
            assert_int_equal(
                sm_engine_make(b->engine, &r, b->out, max, b->draws, &b->result, &b->err), -1);
            assert_int_equal(b->err.code, SM_E_TOO_LARGE);
            assert_int_equal(b->out[max], 0x5a);
        }
        bench_close(b);
    }
    free(p.bytes);
    free(b);
}

static void an_original_keeps_its_bytes_but_a_damaged_one_is_found(void **state) {
    (void)state;
    struct bench *b = malloc(sizeof *b);
    assert_int_equal(bench_open(b, CROP_AND_FLIPS, 0), 0);
    struct picture p = picture_jpeg(&jpeg_kinds[3], 80, 60, 6);
    const struct sm_engine_request r = {.original = true};
    assert_int_equal(make(b, &p, r), 0);
    assert_int_equal(b->result.n_bytes, p.n);
    assert_memory_equal(b->out, p.bytes, p.n);
    assert_string_equal(b->result.extension, "jpg");
    assert_true(b->result.width == 60 && b->result.height == 80); /* upright */
    assert_string_equal(b->draws, "[]");
    p.n -= 40;
    assert_int_equal(make(b, &p, r), -1);
    assert_int_equal(b->err.code, SM_E_TRUNCATED);
    free(p.bytes);
    bench_close(b);
    free(b);
}

static const uint8_t *payload(const struct bench *b, size_t *n) {
    size_t header = 10 + b->out[8] + (size_t)b->out[9] * 256;
    assert_int_equal(header % 64, 0);
    assert_int_equal(b->out[header - 1], '\n');
    *n = b->result.n_bytes - header;
    return b->out + header;
}

static void tensors_hold_the_formula_in_every_type_and_layout(void **state) {
    static const char *const dtypes[] = {"uint8", "float32", "float16", "bfloat16"};
    static const char *const descrs[] = {"|u1", "<f4", "<f2", "<V2"};
    static const int sizes[] = {1, 4, 2, 2};
    uint8_t rows[2 * 3 * 3];
    (void)state;
    struct bench *b = malloc(sizeof *b);
    for (int i = 0; i < 18; i++)
        rows[i] = (uint8_t)(i * 14 + 3);
    struct picture p = picture_png(rows, 9, 3, 2, 8, PNG_COLOR_TYPE_RGB, 0);
    for (int nhwc = 0; nhwc < 2; nhwc++)
        for (int d = 0; d < 4; d++)
            for (int normal = 0; normal < (d ? 2 : 1); normal++) {
                char body[300];
                snprintf(
                    body, sizeof body,
                    "}\nops: [%s]\noutput: {layout: %s, dtype: %s}\nexpand: {encode: tensor}\n",
                    normal ? "Normalize: {mean: [0.1, 0.2, 0.3], std: [0.5, 0.25, 2]}"
                           : "Pad: {padding: 0}",
                    nhwc ? "NHWC" : "NCHW", dtypes[d]);
                assert_int_equal(bench_open(b, body, 0), 0);
                assert_int_equal(make(b, &p, (struct sm_engine_request){0}), 0);
                assert_non_null(strstr((char *)b->out + 10, descrs[d]));
                assert_non_null(strstr((char *)b->out + 10, nhwc ? "(2, 3, 3)" : "(3, 2, 3)"));
                size_t n;
                const uint8_t *data = payload(b, &n);
                assert_int_equal(n, 18 * sizes[d]);
                for (int i = 0; i < 18; i++) {
                    const int c = i % 3, at = nhwc ? i : c * 6 + i / 3;
                    static const float mean[] = {0.1f, 0.2f, 0.3f}, std[] = {0.5f, 0.25f, 2.0f};
                    float want = (float)rows[i] / 255.0f;
                    if (normal) want = (want - mean[c]) / std[c];
                    uint32_t bits = d == 0   ? rows[i]
                                    : d == 1 ? sm_float_bits32(want)
                                    : d == 2 ? sm_float_bits16(want)
                                             : sm_float_bitsb16(want);
                    assert_memory_equal(data + at * sizes[d], &bits, (size_t)sizes[d]);
                }
                bench_close(b);
            }
    free(p.bytes);
    free(b);
}

static double half_value(uint32_t h) {
    int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
    double v = e == 0 ? ldexp(m, -24) : e == 31 ? INFINITY : ldexp(m + 1024, e - 25);
    return h & 0x8000 ? -v : v;
}

static void halves_and_bfloats_are_the_nearest_ties_to_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double v = half_value(h), above = half_value(h + 1), middle = (v + above) / 2;
        assert_int_equal(sm_float_bits16((float)v), h);
        assert_int_equal(sm_float_bits16((float)-v), h | 0x8000);
        if (h + 1 == 0x7c00) middle = 65520; /* from here on infinite */
        assert_int_equal(sm_float_bits16((float)middle), h & 1 ? h + 1 : h);
        assert_int_equal(sm_float_bits16(nextafterf((float)middle, INFINITY)), h + 1);
        assert_int_equal(sm_float_bits16(nextafterf((float)middle, 0)), h);
    }
    assert_int_equal(sm_float_bits16(1e-9f), 0);
    assert_int_equal(sm_float_bits16(INFINITY), 0x7c00);
    assert_int_equal(sm_float_bits16(NAN) & 0x7e00, 0x7e00);
    assert_int_equal(sm_float_bitsb16(1.0f), 0x3f80);
    assert_int_equal(sm_float_bitsb16(1.00390625f), 0x3f80); /* a tie, to even */
    assert_int_equal(sm_float_bitsb16(1.01171875f), 0x3f82);
    assert_int_equal(sm_float_bitsb16(-INFINITY), 0xff80);
    assert_int_equal(sm_float_bitsb16(NAN) & 0x7fc0, 0x7fc0);
}

static void what_cannot_be_made_is_refused_before_anything_runs(void **state) {
    static const struct {
        const char *body, *word;
    } cases[] = {
        {"}\nops: [Normalize: {mean: 0, std: 1}]\noutput: {dtype: float32}\n", "encode: tensor"},
        {"}\nops: [Normalize: {mean: 0, std: 1}]\nexpand: {encode: tensor}\n", "dtype: float32"},
        {"}\nops:\n  - Normalize: {mean: 0, std: 1}\n  - Resize: {size: 4}\noutput: {dtype: float32}\nexpand: {encode: tensor}\n",
         "Normalize last"},
        {", mode: L}\nops: [Normalize: {mean: [0, 0, 0], std: 1}]\noutput: {dtype: float32}\nexpand: {encode: tensor}\n",
         "1 channel"},
        {"}\nops: [Pad: {padding: [1, 2, 3]}]\n", "1, 2 or 4"},
        {"}\nops: [Resize: {size: [4, 5], max_size: 9}]\n", "max_size"},
        {"}\nops: [Resize: {size: 9, max_size: 9}]\n", "greater"},
        {"}\nops: [RandomResizedCrop: {size: 9, scale: [1, 0.5]}]\n", "scale"},
        {"}\nops:\n  - Resize: {size: [4, 5]}\n  - RandomCrop: {size: 8}\n", "pad_if_needed"},
        {"}\nops:\n  - Resize: {size: 30000}\n  - Resize: {size: [30000, 30000]}\n", "limits"},
    };
    (void)state;
    struct bench *b = malloc(sizeof *b);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(bench_open(b, cases[i].body, 0), -1);
        assert_int_equal(b->err.code, SM_E_PIPELINE);
        if (strstr(b->err.text, cases[i].word) == NULL) print_error("%s\n", b->err.text);
        assert_non_null(strstr(b->err.text, cases[i].word));
        bench_close(b);
    }
    free(b);
}

static void a_picture_that_an_op_cannot_work_on_charges_the_sample_and_names_the_op(void **state) {
    (void)state;
    struct bench *b = malloc(sizeof *b);
    struct picture p = picture_jpeg(&jpeg_kinds[0], 20, 10, 0);
    assert_int_equal(bench_open(b, "}\nops: [RandomCrop: {size: 15}]\n", 0), 0);
    assert_int_equal(make(b, &p, (struct sm_engine_request){0}), -1);
    assert_int_equal(b->err.code, SM_E_OP);
    assert_non_null(strstr(b->err.text, "'RandomCrop'"));
    bench_close(b);
    free(p.bytes);
    p = picture_jpeg(&jpeg_kinds[0], 1000, 1, 0);
    assert_int_equal(bench_open(b, "}\nops: [Resize: {size: 100}]\n", 0), 0);
    assert_int_equal(make(b, &p, (struct sm_engine_request){0}), -1);
    assert_int_equal(b->err.code, SM_E_TOO_LARGE);
    bench_close(b);
    free(p.bytes);
    free(b);
}

static void a_drawn_crop_lies_in_the_picture_and_is_what_comes_out(void **state) {
    (void)state;
    struct bench *b = malloc(sizeof *b);
    uint8_t *rows = pattern(40, 30, 3);
    struct picture p = picture_png(rows, 120, 40, 30, 8, PNG_COLOR_TYPE_RGB, 0);
    assert_int_equal(
        bench_open(b, "}\nops: [RandomCrop: {size: [11, 13]}]\noutput: {layout: NHWC}\n", 0), 0);
    int moved = 0;
    for (int i = 0; i < 50; i++) {
        int top, left;
        size_t n;
        assert_int_equal(
            make(b, &p, (struct sm_engine_request){.sample = (uint64_t)i, .tensor = true}), 0);
        assert_int_equal(
            sscanf(b->draws, "[{\"op\":\"RandomCrop\",\"top\":%d,\"left\":%d", &top, &left), 2);
        assert_true(top >= 0 && left >= 0 && top + 11 <= 30 && left + 13 <= 40);
        const uint8_t *data = payload(b, &n);
        for (int y = 0; y < 11; y++)
            assert_memory_equal(data + y * 39, rows + (top + y) * 120 + left * 3, 39);
        moved += top != 0 || left != 0;
    }
    assert_true(moved > 40);
    bench_close(b);
    free(p.bytes);
    free(rows);
    free(b);
}

static void padding_modes_mirror_as_numpy_does(void **state) {
    static const struct {
        const char *mode;
        uint8_t want[9];
    } cases[] = {{"constant", {9, 9, 9, 1, 2, 3, 9, 9, 9}},
                 {"edge", {1, 1, 1, 1, 2, 3, 3, 3, 3}},
                 {"reflect", {2, 3, 2, 1, 2, 3, 2, 1, 2}},
                 {"symmetric", {3, 2, 1, 1, 2, 3, 3, 2, 1}}};
    const uint8_t row[3] = {1, 2, 3};
    (void)state;
    struct bench *b = malloc(sizeof *b);
    struct picture p = picture_png(row, 3, 3, 1, 8, PNG_COLOR_TYPE_GRAY, 0);
    for (int i = 0; i < 4; i++) {
        char body[200];
        size_t n;
        snprintf(body, sizeof body,
                 ", mode: L}\nops: [Pad: {padding: [3, 0], fill: 9, padding_mode: %s}]\n",
                 cases[i].mode);
        assert_int_equal(bench_open(b, body, 0), 0);
        assert_int_equal(make(b, &p, (struct sm_engine_request){.tensor = true}), 0);
        assert_memory_equal(payload(b, &n), cases[i].want, 9);
        bench_close(b);
    }
    free(p.bytes);
    free(b);
}

static void gif_and_tiff_are_read_on_request_only(void **state) {
    const uint8_t gif[] = {'G', 'I', 'F', '8', '9',  'a',  1,    0,   1, 0, 0x80, 0,
                           0,   10,  20,  30,  0xff, 0xff, 0xff, ',', 0, 0, 0,    0,
                           1,   0,   1,   0,   0,    2,    2,    'D', 1, 0, ';'};
    struct picture p = {.bytes = (uint8_t *)(uintptr_t)gif, .n = sizeof gif};
    (void)state;
    struct bench *b = malloc(sizeof *b);
    assert_int_equal(bench_open(b, "}\n", 0), 0);
    assert_int_equal(make(b, &p, (struct sm_engine_request){0}), -1);
    assert_int_equal(b->err.code, SM_E_FORMAT);
    bench_close(b);
    assert_int_equal(bench_open(b, ", gif: true}\n", 0), 0);
    assert_int_equal(make(b, &p, (struct sm_engine_request){.tensor = true}), 0);
    size_t n;
    assert_memory_equal(payload(b, &n), ((uint8_t[]){10, 20, 30}), 3);
    bench_close(b);
    free(b);
}

static void explain_names_every_op_and_the_bytes(void **state) {
    (void)state;
    struct bench *b = malloc(sizeof *b);
    struct sm_buf text;
    sm_buf_init(&text, 1 << 16);
    assert_int_equal(bench_open(b, CROP_AND_FLIPS, 0), 0);
    sm_engine_explain(b->engine, &text);
    assert_non_null(strstr(text.data, "RandomResizedCrop"));
    assert_non_null(strstr(text.data, "RandomVerticalFlip"));
    assert_non_null(strstr(text.data, "3072 bytes"));
    assert_non_null(strstr(sm_engine_fingerprint(), "libjpeg-turbo 2."));
    sm_buf_release(&text);
    bench_close(b);
    free(b);
}

static void a_set_vips_unlimited_stops_the_start(void **state) {
    (void)state;
    struct sm_err err;
    setenv("VIPS_UNLIMITED", "1", 1);
    assert_int_equal(sm_engine_start("engine", &err), -1);
    unsetenv("VIPS_UNLIMITED");
    assert_int_equal(sm_engine_start("engine", &err), 0);
}

static int start(void **state) {
    struct sm_err err;
    (void)state;
    return sm_engine_start("engine", &err);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fused_plan_equals_op_by_op_bit_for_bit),
        cmocka_unit_test(a_result_depends_on_its_request_alone_and_not_on_what_was_made_before),
        cmocka_unit_test(every_encoding_begins_as_its_format_does),
        cmocka_unit_test(a_result_that_does_not_fit_is_refused_and_nothing_is_written_behind),
        cmocka_unit_test(an_original_keeps_its_bytes_but_a_damaged_one_is_found),
        cmocka_unit_test(tensors_hold_the_formula_in_every_type_and_layout),
        cmocka_unit_test(halves_and_bfloats_are_the_nearest_ties_to_even),
        cmocka_unit_test(what_cannot_be_made_is_refused_before_anything_runs),
        cmocka_unit_test(a_picture_that_an_op_cannot_work_on_charges_the_sample_and_names_the_op),
        cmocka_unit_test(a_drawn_crop_lies_in_the_picture_and_is_what_comes_out),
        cmocka_unit_test(padding_modes_mirror_as_numpy_does),
        cmocka_unit_test(gif_and_tiff_are_read_on_request_only),
        cmocka_unit_test(explain_names_every_op_and_the_bytes),
        cmocka_unit_test(a_set_vips_unlimited_stops_the_start),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
