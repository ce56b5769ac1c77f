/* Everything that is not JPEG: the one libvips loader for the format, failing on any error, pixels
 * pulled strip by strip through a region on this thread. All rows are read to the end, so a cut
 * file is found whatever the window. */
#include "lib/limits.h"
#include "workers/decode.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <vips/vips.h>

enum { STRIP_ROWS = 16 }; /* what libvips' sequential loaders deliver at a time */

struct sm_vips {
    struct sm_decode_options options;
    VipsImage *image;
    enum sm_pixels pixels;
    struct sm_block narrow; /* one row of 16-bit samples cut to 8 */
};

struct sm_vips *sm_vips_new(const struct sm_decode_options *options) {
    struct sm_vips *v = calloc(1, sizeof *v);
    if (v != NULL) v->options = *options;
    return v;
}

void sm_vips_free(struct sm_vips **v) {
    if (*v == NULL) return;
    sm_vips_close(*v);
    sm_block_release(&(*v)->narrow);
    free(*v);
    *v = NULL;
}

void sm_vips_close(struct sm_vips *v) {
    if (v->image != NULL) g_object_unref(v->image);
    v->image = NULL;
}

/* --- words of errors --- */

static char last_warning[256]; /* of GLib's log: libvips says there what it does not say in its
                                  error buffer */

static GLogWriterOutput keep_warning(GLogLevelFlags level, const GLogField *fields, gsize n,
                                     gpointer data) {
    (void)data;
    if ((level & (G_LOG_LEVEL_WARNING | G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_ERROR)) == 0)
        return G_LOG_WRITER_HANDLED;
    for (gsize i = 0; i < n; i++)
        if (strcmp(fields[i].key, "MESSAGE") == 0) {
            const char *text = fields[i].value;
            size_t length = fields[i].length < 0 ? strlen(text) : (size_t)fields[i].length;
            if (length >= sizeof last_warning) length = sizeof last_warning - 1;
            memcpy(last_warning, text, length);
            last_warning[length] = 0;
        }
    return G_LOG_WRITER_HANDLED;
}

void sm_vips_log_install(void) {
    g_log_set_writer_func(keep_warning, NULL, NULL);
}

const char *sm_vips_words(void) {
    static char words[256];
    const char *from = vips_error_buffer();
    if (from[0] == 0) from = last_warning;
    if (from[0] == 0) from = "the decoder gave no reason";
    size_t n = 0;
    for (; from[n] != 0 && n < sizeof words - 1; n++)
        words[n] = from[n] == '\n' ? ';' : from[n];
    while (n > 0 && (words[n - 1] == ';' || words[n - 1] == ' '))
        n--;
    words[n] = 0;
    vips_error_clear();
    last_warning[0] = 0;
    return words;
}

/* --- header --- */

static const char *const names[SM_FORMAT_COUNT] = {"jpeg", "png", "webp", "gif", "tiff"};

static VipsImage *load(enum sm_format format, const uint8_t *bytes, size_t n) {
    VipsImage *image = NULL;
    void *from = (void *)(uintptr_t)bytes;
    vips_error_clear();
    last_warning[0] = 0;
    switch (format) {
    case SM_FORMAT_PNG:
        vips_pngload_buffer(from, n, &image, "access", VIPS_ACCESS_SEQUENTIAL, "fail_on",
                            VIPS_FAIL_ON_ERROR, NULL);
        break;
    case SM_FORMAT_WEBP:
        vips_webpload_buffer(from, n, &image, "access", VIPS_ACCESS_SEQUENTIAL, "fail_on",
                             VIPS_FAIL_ON_ERROR, NULL);
        break;
    case SM_FORMAT_GIF:
        vips_gifload_buffer(from, n, &image, "access", VIPS_ACCESS_SEQUENTIAL, "fail_on",
                            VIPS_FAIL_ON_ERROR, "n", 1, NULL);
        break;
    case SM_FORMAT_TIFF:
        vips_tiffload_buffer(from, n, &image, "access", VIPS_ACCESS_SEQUENTIAL, "fail_on",
                             VIPS_FAIL_ON_ERROR, NULL);
        break;
    default:
        assert(!"not a format of libvips");
    }
    return image;
}

static int fail(enum sm_format format, struct sm_err *err) {
    const char *words = sm_vips_words();
    bool cut = strcasestr(words, "truncated") || strcasestr(words, "premature") ||
               strcasestr(words, "end of") || strcasestr(words, "EOF") ||
               strcasestr(words, "out of data");
    return sm_fail(err, cut ? SM_E_TRUNCATED : SM_E_DECODE, "%s: %s", names[format], words);
}

static int choose_pixels(struct sm_vips *v, enum sm_format format, struct sm_err *err) {
    const VipsBandFormat band = vips_image_get_format(v->image);
    const VipsInterpretation space = vips_image_get_interpretation(v->image);
    const int bands = vips_image_get_bands(v->image);
    if (band != VIPS_FORMAT_UCHAR && band != VIPS_FORMAT_USHORT)
        return sm_fail(err, SM_E_FORMAT, "%s: samples of type '%s' are not read here",
                       names[format], vips_enum_nick(VIPS_TYPE_BAND_FORMAT, (int)band));
    switch (space) {
    case VIPS_INTERPRETATION_B_W:
    case VIPS_INTERPRETATION_GREY16:
    case VIPS_INTERPRETATION_sRGB:
    case VIPS_INTERPRETATION_RGB:
    case VIPS_INTERPRETATION_RGB16:
        if (bands >= 1 && bands <= 4) {
            static const enum sm_pixels kinds[] = {SM_PIXELS_GREY, SM_PIXELS_GREY_ALPHA,
                                                   SM_PIXELS_RGB, SM_PIXELS_RGB_ALPHA};
            v->pixels = kinds[bands - 1];
            return 0;
        }
        break;
    case VIPS_INTERPRETATION_CMYK:
        if (bands == 4) {
            v->pixels = SM_PIXELS_CMYK;
            return 0;
        }
        break;
    default:
        break;
    }
    return sm_fail(err, SM_E_FORMAT, "%s: %d bands of colour space '%s' are not read here",
                   names[format], bands, vips_enum_nick(VIPS_TYPE_INTERPRETATION, (int)space));
}

int sm_vips_open(struct sm_vips *v, enum sm_format format, const uint8_t *bytes, size_t n,
                 struct sm_header *header, struct sm_err *err) {
    v->image = load(format, bytes, n);
    if (v->image == NULL) return fail(format, err);
    *header = (struct sm_header){
        .width = vips_image_get_width(v->image),
        .height = vips_image_get_height(v->image),
        .bands = vips_image_get_bands(v->image),
        .orientation = v->options.exif ? vips_image_get_orientation(v->image) : 1,
    };
    if (choose_pixels(v, format, err) != 0) {
        sm_vips_close(v);
        return -1;
    }
    return 0;
}

/* --- pixels --- */

/* One row of the window from the region's strip into the tile. */
static void take_row(struct sm_vips *v, const uint8_t *from, uint8_t *to, int width) {
    const int bands = vips_image_get_bands(v->image);
    if (vips_image_get_format(v->image) == VIPS_FORMAT_USHORT) {
        const uint16_t *wide = (const uint16_t *)from;
        for (int i = 0; i < width * bands; i++)
            v->narrow.data[i] = (uint8_t)(wide[i] >> 8);
        from = v->narrow.data;
    }
    sm_convert_row(from, v->pixels, to, v->options.channels, width,
                   v->options.background ? v->options.rgb : NULL);
}

static int pull(struct sm_vips *v, VipsRegion *region, struct sm_rect window,
                const struct sm_tile *tile) {
    const int width = vips_image_get_width(v->image), height = vips_image_get_height(v->image);
    for (int y = 0; y < height; y += STRIP_ROWS) {
        VipsRect strip = {0, y, width, height - y < STRIP_ROWS ? height - y : STRIP_ROWS};
        if (vips_region_prepare(region, &strip) != 0) return -1;
        for (int row = y; row < y + strip.height; row++) {
            if (row < window.y || row >= window.y + window.height) continue;
            take_row(v, VIPS_REGION_ADDR(region, window.x, row),
                     tile->u8 + (size_t)(row - window.y) * tile->stride, window.width);
        }
    }
    return 0;
}

int sm_vips_read(struct sm_vips *v, struct sm_rect window, struct sm_block *to,
                 struct sm_tile *tile, struct sm_err *err) {
    const size_t stride = ((size_t)window.width * (size_t)v->options.channels + 15) & ~(size_t)15;
    if (sm_block_reserve(to, stride * (size_t)window.height, err) != 0) return -1;
    if (sm_block_reserve(&v->narrow, (size_t)window.width * SM_MAX_IMAGE_BANDS, err) != 0)
        return -1;
    *tile = (struct sm_tile){.u8 = to->data,
                             .width = window.width,
                             .height = window.height,
                             .channels = v->options.channels,
                             .stride = stride};
    vips_error_clear();
    last_warning[0] = 0;
    VipsRegion *region = vips_region_new(v->image);
    int failed = region == NULL || pull(v, region, window, tile) != 0;
    if (region != NULL) g_object_unref(region);
    return failed ? sm_fail(err, SM_E_DECODE, "%s", sm_vips_words()) : 0;
}

/* --- warming --- */

/* One pixel in each format. */
static const uint8_t tiny_png[] = {
    0x89, 'P',  'N',  'G', 0x0d, 0x0a, 0x1a, 0x0a, 0,    0,   0,    0x0d, 'I',  'H',  'D',  'R', 0,
    0,    0,    1,    0,   0,    0,    1,    8,    0,    0,   0,    0,    0x3a, 0x7e, 0x9b, 'U', 0,
    0,    0,    0x0a, 'I', 'D',  'A',  'T',  'x',  0x9c, 'c', 0x60, 0,    0,    0,    2,    0,   1,
    'H',  0xaf, 0xa4, 'q', 0,    0,    0,    0,    'I',  'E', 'N',  'D',  0xae, 'B',  0x60, 0x82};
static const uint8_t tiny_webp[] = {'R',  'I',  'F', 'F',  0x24, 0,    0,    0,    'W',  'E',  'B',
                                    'P',  'V',  'P', 0x38, 0x20, 0x18, 0,    0,    0,    0x30, 1,
                                    0,    0x9d, 1,   0x2a, 1,    0,    1,    0,    2,    0xc0, 'L',
                                    0x25, 0xa4, 0,   3,    'p',  0,    0xfe, 0xf8, 0x1f, 0x80, 0};
static const uint8_t tiny_gif[] = {'G', 'I', 'F', '8', '9',  'a',  1,    0,   1, 0, 0x80, 0,
                                   0,   0,   0,   0,   0xff, 0xff, 0xff, ',', 0, 0, 0,    0,
                                   1,   0,   1,   0,   0,    2,    2,    'D', 1, 0, ';'};
static const uint8_t tiny_tiff[] = {
    'I', 'I', 42, 0, 10, 0, 0, 0, 0x7f, 0, /* the pixel at 8, the directory at 10 */
    9,   0,                                /* entries: tag, type (3 short, 4 long), count, value */
    0,   1,   3,  0, 1,  0, 0, 0, 1,    0, 0, 0, /* width */
    1,   1,   3,  0, 1,  0, 0, 0, 1,    0, 0, 0, /* height */
    2,   1,   3,  0, 1,  0, 0, 0, 8,    0, 0, 0, /* bits */
    3,   1,   3,  0, 1,  0, 0, 0, 1,    0, 0, 0, /* no compression */
    6,   1,   3,  0, 1,  0, 0, 0, 1,    0, 0, 0, /* black is zero */
    17,  1,   4,  0, 1,  0, 0, 0, 8,    0, 0, 0, /* strip's offset */
    21,  1,   3,  0, 1,  0, 0, 0, 1,    0, 0, 0, /* samples a pixel */
    22,  1,   3,  0, 1,  0, 0, 0, 1,    0, 0, 0, /* rows a strip */
    23,  1,   4,  0, 1,  0, 0, 0, 1,    0, 0, 0, /* strip's bytes */
    0,   0,   0,  0};

int sm_decoders_warm(struct sm_err *err) {
    static const struct {
        const uint8_t *bytes;
        size_t n;
    } tiny[SM_FORMAT_COUNT] = {[SM_FORMAT_PNG] = {tiny_png, sizeof tiny_png},
                               [SM_FORMAT_WEBP] = {tiny_webp, sizeof tiny_webp},
                               [SM_FORMAT_GIF] = {tiny_gif, sizeof tiny_gif},
                               [SM_FORMAT_TIFF] = {tiny_tiff, sizeof tiny_tiff}};
    const struct sm_decode_options options = {.channels = 3, .exif = true};
    struct sm_vips *v = sm_vips_new(&options);
    struct sm_block block = {0};
    int failed = v == NULL ? sm_fail(err, SM_E_MEMORY, "no memory for a decoder") : 0;
    for (int f = SM_FORMAT_PNG; f < SM_FORMAT_COUNT && !failed; f++) {
        struct sm_header header;
        struct sm_tile tile;
        failed = sm_vips_open(v, (enum sm_format)f, tiny[f].bytes, tiny[f].n, &header, err) != 0 ||
                 sm_vips_read(v, (struct sm_rect){0, 0, 1, 1}, &block, &tile, err) != 0;
        if (failed)
            sm_err_context(err, "libvips cannot read %s (hint: is a module of libvips missing?)",
                           names[f]);
        sm_vips_close(v);
    }
    sm_block_release(&block);
    sm_vips_free(&v);
    return failed ? -1 : 0;
}
