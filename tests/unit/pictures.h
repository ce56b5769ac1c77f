/* Pictures for tests, made here: a smooth pattern with some noise on it, as JPEG of every kind and
 * as PNG. */
#pragma once

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

struct picture {
    uint8_t *bytes;
    size_t n;
};

struct jpeg_kind {
    const char *name;
    int components, h, v; /* sampling factors of the first component */
    int progressive, restart;
};

static const struct jpeg_kind jpeg_kinds[] = {
    {"4:4:4", 3, 1, 1, 0, 0},
    {"4:2:2", 3, 2, 1, 0, 0},
    {"4:4:0", 3, 1, 2, 0, 0},
    {"4:2:0", 3, 2, 2, 0, 0},
    {"4:1:1", 3, 4, 1, 0, 0},
    {"grey", 1, 1, 1, 0, 0},
    {"4:2:0 progressive", 3, 2, 2, 1, 0},
    {"4:4:4 progressive", 3, 1, 1, 1, 0},
    {"4:2:0 restart", 3, 2, 2, 0, 3},
    {"4:2:2 restart", 3, 2, 1, 0, 5},
    {"cmyk", 4, 1, 1, 0, 0},
    {"grey progressive", 1, 1, 1, 1, 0},
};
enum { JPEG_KINDS = sizeof jpeg_kinds / sizeof *jpeg_kinds };

/* A small generator of its own: tests must not depend on what they test. */
static inline uint32_t noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static inline uint8_t *pattern(int width, int height, int channels) {
    uint8_t *pixels = malloc((size_t)width * (size_t)height * (size_t)channels + 64), *to = pixels;
    uint32_t state = 7;
    assert(pixels != NULL);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < channels; c++)
                *to++ = (uint8_t)(((x * (c + 2) + y * (3 - c)) * 255 / (width + height + 1) +
                                   (int)(noise(&state) % 40)) &
                                  255);
    return pixels;
}

/* exif: orientation to write, 0 for none. */
static inline struct picture picture_jpeg(const struct jpeg_kind *kind, int width, int height,
                                          int exif) {
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr handlers;
    unsigned char *bytes = NULL;
    unsigned long n = 0;
    uint8_t *pixels = pattern(width, height, kind->components);
    c.err = jpeg_std_error(&handlers);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &bytes, &n);
    c.image_width = (JDIMENSION)width;
    c.image_height = (JDIMENSION)height;
    c.input_components = kind->components;
    c.in_color_space = kind->components == 1   ? JCS_GRAYSCALE
                       : kind->components == 3 ? JCS_RGB
                                               : JCS_CMYK;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 80, TRUE);
    c.comp_info[0].h_samp_factor = kind->h;
    c.comp_info[0].v_samp_factor = kind->v;
    c.restart_interval = (unsigned)kind->restart;
    if (kind->progressive) jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    if (exif) {
        const uint8_t tag[] = {'E', 'x', 'i', 'f', 0,    0, 'M', 'M', 0, 42, 0, 0, 0,
                               8,   0,   1,   1,   0x12, 0, 3,   0,   0, 0,  1, 0, (uint8_t)exif,
                               0,   0,   0,   0,   0,    0};
        jpeg_write_marker(&c, JPEG_APP0 + 1, tag, sizeof tag);
    }
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = pixels + (size_t)c.next_scanline * (size_t)width * (size_t)kind->components;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    free(pixels);
    return (struct picture){bytes, n};
}

static inline void picture_put(png_structp png, png_bytep bytes, size_t n) {
    struct picture *p = png_get_io_ptr(png);
    p->bytes = realloc(p->bytes, p->n + n);
    assert(p->bytes != NULL);
    memcpy(p->bytes + p->n, bytes, n);
    p->n += n;
}

/* Raw rows of `row` bytes each as they stand in the file (16-bit samples: big end first). */
static inline struct picture picture_png(const uint8_t *rows, size_t row, int width, int height,
                                         int depth, int type, int interlaced) {
    struct picture p = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &p, picture_put, NULL);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, depth, type,
                 interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (type == PNG_COLOR_TYPE_PALETTE) {
        const png_color colours[4] = {{10, 20, 30}, {200, 100, 50}, {0, 255, 0}, {255, 255, 255}};
        png_set_PLTE(png, info, colours, 4);
    }
    png_write_info(png, info);
    int passes = png_set_interlace_handling(png);
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < height; y++)
            png_write_row(png, (png_bytep)(uintptr_t)(rows + (size_t)y * row));
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return p;
}
