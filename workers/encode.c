/* PNG by libpng and WebP by libvips, into the caller's memory. */
#include "workers/encode.h"
#include "workers/decode.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>
#include <vips/vips.h>

struct png_out {
    uint8_t *out;
    size_t max, n;
    struct sm_err *err;
};

static void png_put(png_structp png, png_bytep bytes, size_t n) {
    struct png_out *o = png_get_io_ptr(png);
    if (n > o->max - o->n) {
        sm_fail(o->err, SM_E_TOO_LARGE, "the encoded png does not fit into the result's memory");
        png_longjmp(png, 1);
    }
    memcpy(o->out + o->n, bytes, n);
    o->n += n;
}

static void png_flushed(png_structp png) {
    (void)png;
}

static void png_failed(png_structp png, const char *text) {
    struct png_out *o = png_get_error_ptr(png);
    sm_fail(o->err, SM_E_OP, "cannot encode a png: %s", text);
    png_longjmp(png, 1);
}

static void png_warned(png_structp png, const char *text) {
    (void)png, (void)text;
}

static int png_write_tile(png_structp png, png_infop info, const struct sm_tile *tile,
                          struct png_out *o) {
    if (setjmp(png_jmpbuf(png))) return -1;
    png_set_write_fn(png, o, png_put, png_flushed);
    png_set_IHDR(png, info, (png_uint_32)tile->width, (png_uint_32)tile->height, 8,
                 tile->channels == 1 ? PNG_COLOR_TYPE_GRAY : PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < tile->height; y++)
        png_write_row(png, sm_tile_row(tile, y));
    png_write_end(png, info);
    return 0;
}

int sm_encode_png(const struct sm_tile *tile, uint8_t *out, size_t out_max, size_t *n,
                  struct sm_err *err) {
    struct png_out o = {.out = out, .max = out_max, .err = err};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &o, png_failed, png_warned);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
    int failed = info == NULL ? sm_fail(err, SM_E_MEMORY, "no memory for a png")
                              : png_write_tile(png, info, tile, &o);
    png_destroy_write_struct(&png, &info);
    *n = o.n;
    return failed ? -1 : 0;
}

const char *sm_encode_png_version(void) {
    return png_get_libpng_ver(NULL);
}

/* libvips wants rows without gaps. */
static VipsImage *packed(const struct sm_tile *tile) {
    const size_t row = (size_t)tile->width * (size_t)tile->channels;
    uint8_t *bytes = malloc(row * (size_t)tile->height);
    if (bytes == NULL) return NULL;
    for (int y = 0; y < tile->height; y++)
        memcpy(bytes + (size_t)y * row, sm_tile_row(tile, y), row);
    VipsImage *image =
        vips_image_new_from_memory_copy(bytes, row * (size_t)tile->height, tile->width,
                                        tile->height, tile->channels, VIPS_FORMAT_UCHAR);
    free(bytes);
    if (image != NULL)
        image->Type = tile->channels == 1 ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB;
    return image;
}

int sm_encode_webp(const struct sm_tile *tile, int quality, uint8_t *out, size_t out_max, size_t *n,
                   struct sm_err *err) {
    VipsImage *image = packed(tile);
    if (image == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for a webp");
    void *bytes = NULL;
    size_t length = 0;
    int failed = vips_webpsave_buffer(image, &bytes, &length, "Q", quality, NULL);
    g_object_unref(image);
    if (failed) return sm_fail(err, SM_E_OP, "cannot encode a webp: %s", sm_vips_words());
    if (length <= out_max) memcpy(out, bytes, length);
    g_free(bytes);
    if (length > out_max)
        return sm_fail(err, SM_E_TOO_LARGE,
                       "the encoded webp does not fit into the result's memory");
    *n = length;
    return 0;
}
