/* Encoded samples for tests: sound JPEGs, and the hostile ones that must each end with their code.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

struct bytes {
    uint8_t *data;
    size_t n;
};

/* A picture whose pixels follow from its size and shade. Gives (free data). */
static inline struct bytes make_jpeg_as(int width, int height, int shade, int progressive) {
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr errors;
    struct bytes out = {0};
    unsigned long n = 0;
    c.err = jpeg_std_error(&errors);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out.data, &n);
    c.image_width = (JDIMENSION)width;
    c.image_height = (JDIMENSION)height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    if (progressive) jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    uint8_t *row = malloc((size_t)width * 3);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width * 3; x++)
            row[x] = (uint8_t)(shade + x / 3 * (x % 3 + 1) + y * 2 + (x ^ y) % 7);
        JSAMPROW rows[1] = {row};
        jpeg_write_scanlines(&c, rows, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    free(row);
    out.n = n;
    return out;
}

static inline struct bytes make_jpeg(int width, int height, int shade) {
    return make_jpeg_as(width, height, shade, 0);
}

static inline void put_u32(uint8_t *out, uint32_t v) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Appends a PNG chunk. */
static inline size_t put_chunk(uint8_t *out, const char *type, const uint8_t *data, size_t n) {
    put_u32(out, (uint32_t)n);
    memcpy(out + 4, type, 4);
    if (n > 0) memcpy(out + 8, data, n);
    uint32_t crc = 0xffffffff;
    for (size_t i = 4; i < 8 + n; i++) {
        crc ^= out[i];
        for (int k = 0; k < 8; k++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    put_u32(out + 8 + n, ~crc);
    return n + 12;
}

/* The header of a PNG that claims this size, and next to no pixels behind it. Gives. */
static inline struct bytes make_png_header(uint32_t width, uint32_t height) {
    static const uint8_t deflated[] = {0x78, 0x9c, 0x63, 0x00, 0x00, 0x00, 0x01, 0x00, 0x01};
    struct bytes out = {.data = malloc(200)};
    uint8_t head[13] = {0};
    put_u32(head, width);
    put_u32(head + 4, height);
    head[8] = 8;
    head[9] = 2;
    memcpy(out.data, "\x89PNG\r\n\x1a\n", 8);
    out.n = 8;
    out.n += put_chunk(out.data + out.n, "IHDR", head, sizeof head);
    out.n += put_chunk(out.data + out.n, "IDAT", deflated, sizeof deflated);
    out.n += put_chunk(out.data + out.n, "IEND", NULL, 0);
    return out;
}

/* A compressed SVG, cut short: a generic open of libvips may look for its end for ever. */
static const uint8_t svgz[] =
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x75\xce\x41\x0a\xc3\x20\x10\x05\xd0\xab\xc8\x74\x1f\xa7"
    "\x31\x84\x52\xd4\x1c\x66\x62\x74\x20\x4d\x8a\xda\x98\xde\xbe\x4a\x17\x5d\x75\x35\x30\xff\x7d\xf8"
    "\x7a\x3a\x1f\xab\x38\x5c\x4c\xbc\x6f\x06\xae\x1d\xc2\x64\x75\x3a\xbc\xa8\xff\x2d\x19\x08\x39\x3f"
    "\xef\x52\x96\x52\xba\xa2\xba\x3d\x7a\xd9\x23\xa2\xac\x02\x44\xe1\x39\x87\x5a\xea\x11\x44\x70\xec"
    "\x43\x36\x70\x43\xb0\x3a\x3a\xca\xff\x52\xb1\xf0\xba\x1a\xb8\x28\x35\x8e\x44\x20\xad\x26\x8e\xb4"
    "\x3a\x41\xa7\x81\xa1\xe6\xf4\xfe\xde\x68\x40\xfd\xf8\xb2\x10\x21\x36\x9e\xdd\x99\x45\xb5\x63\x0d";
