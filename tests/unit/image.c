/* Decoding: a window equals the same part of a whole decode, whatever the file; what is not a whole
 * picture is refused with words; modes, alpha, depth and orientation come out as asked. */
#include "workers/image.h"
#include "lib/limits.h"
#include "tests/unit/pictures.h"
#include "workers/decode.h"
#include "workers/encode.h"
#include "workers/engine.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Photos beside the checkout, or where SHARDMILL_PHOTOS says; without them the test is skipped. */
static const char *photos_folder(void) {
    const char *folder = getenv("SHARDMILL_PHOTOS");
    return folder != NULL ? folder : "../shared/data/photos";
}

static const struct sm_decode_options rgb = {.channels = 3, .exif = true};

static struct sm_rect random_window(int width, int height, uint32_t *state) {
    struct sm_rect w = {.width = 1 + (int)(noise(state) % (unsigned)width),
                        .height = 1 + (int)(noise(state) % (unsigned)height)};
    w.x = (int)(noise(state) % (unsigned)(width - w.width + 1));
    w.y = (int)(noise(state) % (unsigned)(height - w.height + 1));
    return w;
}

/* Reads windows and compares each with the whole decode. Returns how many differ. */
static int windows_differ(const uint8_t *bytes, size_t n, const struct sm_decode_options *options,
                          int windows, uint32_t *state) {
    struct sm_decode_options all = *options;
    all.whole = true;
    struct sm_decoder *part = sm_decoder_new(options), *whole = sm_decoder_new(&all);
    struct sm_block a = {0}, b = {0}, spare = {0};
    struct sm_tile full, tile;
    struct sm_err err;
    int differ = 0;
    assert_int_equal(sm_decoder_open(whole, bytes, n, &err), 0);
    const int width = sm_decoder_width(whole), height = sm_decoder_height(whole);
    assert_int_equal(
        sm_decoder_read(whole, (struct sm_rect){0, 0, width, height}, &a, &spare, &full, &err), 0);
    for (int i = 0; i < windows; i++) {
        struct sm_rect w =
            i == 0 ? (struct sm_rect){0, 0, width, height} : random_window(width, height, state);
        bool equal = true;
        assert_int_equal(sm_decoder_open(part, bytes, n, &err), 0);
        assert_int_equal(sm_decoder_read(part, w, &b, &spare, &tile, &err), 0);
        assert_true(tile.width == w.width && tile.height == w.height &&
                    tile.channels == options->channels);
        for (int y = 0; y < w.height && equal; y++)
            equal = memcmp(sm_tile_row(&tile, y), sm_tile_row(&full, w.y + y) + w.x * tile.channels,
                           (size_t)(w.width * tile.channels)) == 0;
        if (!equal)
            print_error("window %d %d %d %d of %d x %d differs\n", w.x, w.y, w.width, w.height,
                        width, height);
        differ += !equal;
    }
    sm_decoder_free(&part);
    sm_decoder_free(&whole);
    sm_block_release(&a);
    sm_block_release(&b);
    sm_block_release(&spare);
    return differ;
}

static void a_window_of_a_jpeg_equals_the_whole_decode(void **state) {
    static const int sizes[][2] = {{1, 1},    {7, 9},    {16, 16},  {33, 65},
                                   {130, 97}, {255, 64}, {64, 250}, {301, 223}};
    uint32_t seed = 11;
    (void)state;
    for (int k = 0; k < JPEG_KINDS; k++)
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
            for (int channels = 1; channels <= 3; channels += 2) {
                struct sm_decode_options options = {.channels = channels};
                struct picture p = picture_jpeg(&jpeg_kinds[k], sizes[s][0], sizes[s][1], 0);
                int differ = windows_differ(p.bytes, p.n, &options, 25, &seed);
                if (differ) print_error("%s\n", jpeg_kinds[k].name);
                assert_int_equal(differ, 0);
                free(p.bytes);
            }
}

static uint32_t photos_seed = 12;

static int photo(const char *path, const struct stat *st, int kind, struct FTW *where) {
    (void)where;
    if (kind != FTW_F) return 0;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t *bytes = malloc((size_t)st->st_size);
    assert_int_equal(fread(bytes, 1, (size_t)st->st_size, file), st->st_size);
    fclose(file);
    int differ = windows_differ(bytes, (size_t)st->st_size, &rgb, 6, &photos_seed);
    if (differ) print_error("%s\n", path);
    assert_int_equal(differ, 0);
    free(bytes);
    return 0;
}

static void a_window_of_every_photo_equals_the_whole_decode(void **state) {
    (void)state;
    if (nftw(photos_folder(), photo, 8, FTW_PHYS) != 0) skip();
}

static void a_window_of_a_png_equals_the_whole_decode(void **state) {
    uint32_t seed = 13;
    (void)state;
    uint8_t *pixels = pattern(75, 53, 3);
    for (int interlaced = 0; interlaced < 2; interlaced++) {
        struct picture p = picture_png(pixels, 75 * 3, 75, 53, 8, PNG_COLOR_TYPE_RGB, interlaced);
        assert_int_equal(windows_differ(p.bytes, p.n, &rgb, 30, &seed), 0);
        free(p.bytes);
    }
    free(pixels);
}

/* A whole decode into a tile that is lent until the next call. */
static struct sm_tile decode(const struct picture *p, const struct sm_decode_options *options) {
    static struct sm_block to, spare;
    struct sm_decoder *d = sm_decoder_new(options);
    struct sm_tile tile;
    struct sm_err err = {0};
    int failed =
        sm_decoder_open(d, p->bytes, p->n, &err) != 0 ||
        sm_decoder_read(d, (struct sm_rect){0, 0, sm_decoder_width(d), sm_decoder_height(d)}, &to,
                        &spare, &tile, &err) != 0;
    if (failed) print_error("%s\n", err.text);
    assert_false(failed);
    sm_decoder_free(&d);
    return tile;
}

static void exif_orientation_turns_the_picture_upright_and_windows_with_it(void **state) {
    uint32_t seed = 14;
    (void)state;
    const int w = 45, h = 28;
    struct picture plain = picture_jpeg(&jpeg_kinds[0], w, h, 0);
    uint8_t stored[45 * 28 * 3];
    struct sm_tile t = decode(&plain, &rgb);
    for (int y = 0; y < h; y++)
        memcpy(stored + y * w * 3, sm_tile_row(&t, y), (size_t)w * 3);
    for (int o = 1; o <= 8; o++) {
        struct picture p = picture_jpeg(&jpeg_kinds[0], w, h, o);
        t = decode(&p, &rgb);
        assert_int_equal(t.width, o >= 5 ? h : w);
        for (int y = 0; y < t.height; y++)
            for (int x = 0; x < t.width; x++) {
                /* the definition of each value, as EXIF words it: where row 0 and column 0 lie */
                const int at[9][2] = {[1] = {x, y},
                                      [2] = {w - 1 - x, y},
                                      [3] = {w - 1 - x, h - 1 - y},
                                      [4] = {x, h - 1 - y},
                                      [5] = {y, x},
                                      [6] = {y, h - 1 - x},
                                      [7] = {w - 1 - y, h - 1 - x},
                                      [8] = {w - 1 - y, x}};
                assert_memory_equal(sm_tile_row(&t, y) + x * 3,
                                    stored + (at[o][1] * w + at[o][0]) * 3, 3);
            }
        assert_int_equal(windows_differ(p.bytes, p.n, &rgb, 20, &seed), 0);
        const struct sm_decode_options as_stored = {.channels = 3};
        t = decode(&p, &as_stored);
        assert_int_equal(t.width, w);
        free(p.bytes);
    }
    free(plain.bytes);
}

static void grey_palette_depth_and_alpha_come_out_as_declared(void **state) {
    const struct sm_decode_options grey = {.channels = 1};
    const struct sm_decode_options over = {.channels = 3, .background = true, .rgb = {255, 0, 100}};
    (void)state;
    const uint8_t g[2] = {10, 200};
    struct picture p = picture_png(g, 2, 2, 1, 8, PNG_COLOR_TYPE_GRAY, 0);
    assert_memory_equal(decode(&p, &rgb).u8, ((uint8_t[]){10, 10, 10, 200, 200, 200}), 6);
    assert_memory_equal(decode(&p, &grey).u8, g, 2);
    free(p.bytes);

    const uint8_t deep[6] = {0x12, 0xff, 0x80, 0x00, 0xff, 0x7f};
    p = picture_png(deep, 6, 1, 1, 16, PNG_COLOR_TYPE_RGB, 0);
    assert_memory_equal(decode(&p, &rgb).u8, ((uint8_t[]){0x12, 0x80, 0xff}), 3);
    free(p.bytes);
    p = picture_png(deep, 6, 3, 1, 16, PNG_COLOR_TYPE_GRAY, 0);
    assert_memory_equal(decode(&p, &grey).u8, ((uint8_t[]){0x12, 0x80, 0xff}), 3);
    free(p.bytes);

    const uint8_t index[1] = {0x1b}; /* 0 1 2 3, two bits each */
    p = picture_png(index, 1, 4, 1, 2, PNG_COLOR_TYPE_PALETTE, 0);
    assert_memory_equal(decode(&p, &rgb).u8,
                        ((uint8_t[]){10, 20, 30, 200, 100, 50, 0, 255, 0, 255, 255, 255}), 12);
    assert_int_equal(decode(&p, &grey).u8[2], 150); /* (38470 * 255 + 0x8000) >> 16 */
    free(p.bytes);

    const uint8_t alpha[8] = {100, 150, 200, 128, 9, 8, 7, 0};
    p = picture_png(alpha, 8, 2, 1, 8, PNG_COLOR_TYPE_RGB_ALPHA, 0);
    assert_memory_equal(decode(&p, &rgb).u8, ((uint8_t[]){100, 150, 200, 9, 8, 7}), 6);
    assert_memory_equal(decode(&p, &over).u8, ((uint8_t[]){177, 75, 150, 255, 0, 100}), 6);
    free(p.bytes);
}

static void cmyk_is_read_inverted_and_turned_to_rgb_by_pils_formula(void **state) {
    (void)state;
    const uint8_t ink[4] = {0, 100, 255, 50};
    uint8_t out[3], grey[1];
    sm_convert_row(ink, SM_PIXELS_CMYK, out, 3, 1, NULL);
    assert_memory_equal(out, ((uint8_t[]){205, 125, 0}), 3);
    sm_convert_row(ink, SM_PIXELS_CMYK, grey, 1, 1, NULL);
    assert_int_equal(grey[0], sm_luma(205, 125, 0));
}

static enum sm_code code_of(const uint8_t *bytes, size_t n,
                            const struct sm_decode_options *options) {
    static struct sm_block to, spare;
    struct sm_decoder *d = sm_decoder_new(options);
    struct sm_tile tile;
    struct sm_err err = {.code = SM_E_OK};
    uint8_t *exact = malloc(n ? n : 1); /* so that a sanitizer sees a read behind the end */
    memcpy(exact, bytes, n);
    if (sm_decoder_open(d, exact, n, &err) == 0 &&
        sm_decoder_read(d, (struct sm_rect){0, 0, 1, 1}, &to, &spare, &tile, &err) == 0)
        err.code = SM_E_OK;
    else
        assert_true(err.code != SM_E_OK && err.text[0] != 0 &&
                    sm_code_charges_sample((int)err.code));
    sm_decoder_free(&d);
    free(exact);
    return err.code;
}

static void a_cut_jpeg_is_found_although_only_a_corner_is_wanted(void **state) {
    (void)state;
    for (int k = 0; k < JPEG_KINDS; k++) {
        struct picture p = picture_jpeg(&jpeg_kinds[k], 60, 44, 0);
        for (size_t n = 0; n < p.n; n += n < 700 ? 1 : 13)
            if (code_of(p.bytes, n, &rgb) == SM_E_OK)
                fail_msg("%s cut at %zu of %zu", jpeg_kinds[k].name, n, p.n);
        assert_int_equal(code_of(p.bytes, p.n / 2, &rgb), SM_E_TRUNCATED);
        assert_int_equal(code_of(p.bytes, p.n, &rgb), SM_E_OK);
        free(p.bytes);
    }
}

static void a_cut_png_is_found_at_every_length(void **state) {
    (void)state;
    uint8_t *pixels = pattern(40, 30, 3);
    struct picture p = picture_png(pixels, 120, 40, 30, 8, PNG_COLOR_TYPE_RGB, 0);
    for (size_t n = 0; n < p.n; n++)
        assert_int_not_equal(code_of(p.bytes, n, &rgb), SM_E_OK);
    assert_int_equal(code_of(p.bytes, p.n - 20, &rgb), SM_E_TRUNCATED);
    assert_int_equal(code_of(p.bytes, p.n, &rgb), SM_E_OK);
    free(p.bytes);
    free(pixels);
}

static void a_cut_webp_is_found_at_every_length(void **state) {
    (void)state;
    static uint8_t bytes[1 << 16];
    uint8_t *pixels = pattern(40, 30, 3);
    const struct sm_tile tile = {
        .u8 = pixels, .width = 40, .height = 30, .channels = 3, .stride = 120};
    struct sm_err err;
    size_t whole;
    assert_int_equal(sm_encode_webp(&tile, 80, bytes, sizeof bytes, &whole, &err), 0);
    for (size_t n = 0; n < whole; n++)
        assert_int_not_equal(code_of(bytes, n, &rgb), SM_E_OK);
    assert_int_equal(code_of(bytes, whole - 9, &rgb), SM_E_TRUNCATED);
    assert_int_equal(code_of(bytes, whole, &rgb), SM_E_OK);
    free(pixels);
}

/* One grey pixel row of 20 at the end, behind its directory. */
static void a_cut_tiff_is_found_at_every_length(void **state) {
    const struct sm_decode_options options = {.channels = 1, .tiff = true};
    static const uint16_t tags[][3] = {{256, 3, 20}, {257, 3, 1}, {258, 3, 8},
                                       {259, 3, 1},  {262, 3, 1}, {273, 4, 0},
                                       {277, 3, 1},  {278, 3, 1}, {279, 4, 20}};
    enum { TAGS = sizeof tags / sizeof *tags, PIXELS = 8 + 2 + 12 * TAGS + 4 };
    uint8_t bytes[PIXELS + 20] = {'I', 'I', 42, 0, 8, 0, 0, 0, TAGS};
    (void)state;
    for (int i = 0; i < TAGS; i++) {
        const uint16_t value = tags[i][0] == 273 ? PIXELS : tags[i][2];
        uint8_t *entry = bytes + 10 + 12 * i;
        memcpy(entry, tags[i], 4);
        entry[4] = 1;
        memcpy(entry + 8, &value, 2);
    }
    for (size_t n = 0; n < sizeof bytes; n++)
        assert_int_not_equal(code_of(bytes, n, &options), SM_E_OK);
    assert_int_equal(code_of(bytes, sizeof bytes - 1, &options), SM_E_TRUNCATED);
    assert_int_equal(code_of(bytes, sizeof bytes, &options), SM_E_OK);
}

static void trailing_bytes_behind_a_whole_picture_do_no_harm(void **state) {
    (void)state;
    struct picture p = picture_jpeg(&jpeg_kinds[3], 60, 44, 0);
    p.bytes = realloc(p.bytes, p.n + 100);
    memset(p.bytes + p.n, 0, 50);
    assert_int_equal(code_of(p.bytes, p.n + 50, &rgb), SM_E_OK);
    memset(p.bytes + p.n, 'x', 100);
    assert_int_equal(code_of(p.bytes, p.n + 100, &rgb), SM_E_OK);
    free(p.bytes);
}

static void damage_in_a_jpegs_data_is_an_error(void **state) {
    (void)state;
    struct picture p = picture_jpeg(&jpeg_kinds[3], 160, 120, 0);
    /* an end marker where data should be: the decoder must not make up the rest */
    p.bytes[p.n / 2] = 0xff;
    p.bytes[p.n / 2 + 1] = 0xd9;
    const struct sm_decode_options whole = {.channels = 3, .whole = true};
    assert_int_not_equal(code_of(p.bytes, p.n, &whole), SM_E_OK);
    free(p.bytes);
}

static void what_is_no_image_is_named(void **state) {
    static const struct {
        const char *bytes, *word;
        size_t n;
    } cases[] = {{"", "no bytes", 0},
                 {"hello, this is a text file\n", "text", 27},
                 {"\x1f\x8b\x08\0\0\0\0\0\0\x03", "gzip", 10},
                 {"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG", 41},
                 {"GIF89a\1\0\1\0", "GIF", 10},
                 {"II*\0\x08\0\0\0", "TIFF", 8},
                 {"\0\0\0\x18"
                  "ftypheic",
                  "HEIF", 12},
                 {"%PDF-1.4", "PDF", 8},
                 {"\0\0\0\0\0\0\0\0", "zero", 8},
                 {"\x01\x02\x03\x04\x05\xfe", "01 02 03", 6},
                 {"\xff", "ff", 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sm_decoder *d = sm_decoder_new(&rgb);
        struct sm_err err;
        assert_int_equal(sm_decoder_open(d, (const uint8_t *)cases[i].bytes, cases[i].n, &err), -1);
        assert_int_equal(err.code, i == 0 ? SM_E_EMPTY : SM_E_FORMAT);
        if (strstr(err.text, cases[i].word) == NULL) print_error("%s\n", err.text);
        assert_non_null(strstr(err.text, cases[i].word));
        sm_decoder_free(&d);
    }
}

static void a_header_that_promises_too_much_is_refused_before_any_pixel(void **state) {
    (void)state;
    uint8_t dot[1] = {0};
    struct picture p = picture_png(dot, 1, 1, 1, 8, PNG_COLOR_TYPE_GRAY, 0);
    static const uint32_t sides[][2] = {{60000, 60000}, {32769, 1}, {10001, 10000}};
    for (int i = 0; i < 3; i++) {
        for (int k = 0; k < 4; k++) {
            p.bytes[16 + k] = (uint8_t)(sides[i][0] >> (24 - 8 * k));
            p.bytes[20 + k] = (uint8_t)(sides[i][1] >> (24 - 8 * k));
        }
        uint32_t crc = 0xffffffff;
        for (int b = 12; b < 29; b++) {
            crc ^= p.bytes[b];
            for (int bit = 0; bit < 8; bit++)
                crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        }
        for (int k = 0; k < 4; k++)
            p.bytes[29 + k] = (uint8_t)(~crc >> (24 - 8 * k));
        assert_int_equal(code_of(p.bytes, p.n, &rgb), SM_E_TOO_LARGE);
    }
    free(p.bytes);
}

static void bits_flipped_anywhere_never_crash_the_reader(void **state) {
    uint32_t seed = 15;
    (void)state;
    for (int k = 0; k < JPEG_KINDS; k++) {
        struct picture p = picture_jpeg(&jpeg_kinds[k], 70, 50, 6);
        for (int i = 0; i < 150; i++) {
            size_t at = noise(&seed) % p.n;
            uint8_t keep = p.bytes[at];
            p.bytes[at] ^= (uint8_t)(1 << noise(&seed) % 8);
            code_of(p.bytes, p.n, &rgb);
            p.bytes[at] = keep;
        }
        free(p.bytes);
    }
}

static int start(void **state) {
    struct sm_err err;
    (void)state;
    if (sm_engine_start("image", &err) == 0) return 0;
    print_error("%s\n", err.text);
    return -1;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_window_of_a_jpeg_equals_the_whole_decode),
        cmocka_unit_test(a_window_of_every_photo_equals_the_whole_decode),
        cmocka_unit_test(a_window_of_a_png_equals_the_whole_decode),
        cmocka_unit_test(exif_orientation_turns_the_picture_upright_and_windows_with_it),
        cmocka_unit_test(grey_palette_depth_and_alpha_come_out_as_declared),
        cmocka_unit_test(cmyk_is_read_inverted_and_turned_to_rgb_by_pils_formula),
        cmocka_unit_test(a_cut_jpeg_is_found_although_only_a_corner_is_wanted),
        cmocka_unit_test(a_cut_png_is_found_at_every_length),
        cmocka_unit_test(a_cut_webp_is_found_at_every_length),
        cmocka_unit_test(a_cut_tiff_is_found_at_every_length),
        cmocka_unit_test(trailing_bytes_behind_a_whole_picture_do_no_harm),
        cmocka_unit_test(damage_in_a_jpegs_data_is_an_error),
        cmocka_unit_test(what_is_no_image_is_named),
        cmocka_unit_test(a_header_that_promises_too_much_is_refused_before_any_pixel),
        cmocka_unit_test(bits_flipped_anywhere_never_crash_the_reader),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
