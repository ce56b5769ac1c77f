/* The decoders: encoded bytes in, a window of upright pixels out. Formats are told apart by their
 * magic bytes here, never by libvips' generic open; JPEG goes to libjpeg-turbo, which can decode a
 * window alone, everything else to the one libvips loader that fits. Sizes are checked against
 * lib/limits.h before a pixel is touched. Comes after: workers/image.c. */
#pragma once

#include "lib/err.h"
#include "workers/image.h"
#include "workers/kernels/block.h"
#include "workers/kernels/convert.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sm_format {
    SM_FORMAT_JPEG,
    SM_FORMAT_PNG,
    SM_FORMAT_WEBP,
    SM_FORMAT_GIF,
    SM_FORMAT_TIFF,
    SM_FORMAT_COUNT
};

struct sm_decode_options {
    int channels;    /* 1 or 3: what comes out */
    bool background; /* blend over rgb; else alpha is dropped, as PIL's convert("RGB") does */
    uint8_t rgb[3];
    bool exif;      /* turn pictures upright */
    bool gif, tiff; /* read these too */
    bool whole;     /* decode every pixel although a window would do (the reference) */
};

struct sm_rect {
    int x, y, width, height;
};

struct sm_decoder; /* belongs to one thread */

struct sm_decoder *sm_decoder_new(const struct sm_decode_options *options);
void sm_decoder_free(struct sm_decoder **d);

/* Reads the header. Keeps bytes until the close. Zero bytes: SM_E_EMPTY; a format that is not read:
 * SM_E_FORMAT, naming what it looks like; too large: SM_E_TOO_LARGE; cut: SM_E_TRUNCATED; else
 * SM_E_DECODE. A failed open is closed. */
int sm_decoder_open(struct sm_decoder *d, const uint8_t *bytes, size_t n, struct sm_err *err);
void sm_decoder_close(struct sm_decoder *d);
int sm_decoder_width(const struct sm_decoder *d); /* upright */
int sm_decoder_height(const struct sm_decoder *d);
const char *
sm_decoder_extension(const struct sm_decoder *d); /* "jpg", "png", "webp", "gif", "tif" */

/* Decodes the window (upright coordinates) into the block `to`; *tile is lent until the block is
 * used again. `spare` may be used on the way. Pixels equal those of a whole decode bit for bit. The
 * end of the file is always checked, so a cut file fails whatever the window. Once per open. */
int sm_decoder_read(struct sm_decoder *d, struct sm_rect window, struct sm_block *to,
                    struct sm_block *spare, struct sm_tile *tile, struct sm_err *err);

/* Loads one tiny picture with every libvips loader, so that later nothing has to be opened. Needs
 * vips_init before. */
int sm_decoders_warm(struct sm_err *err);
/* The last words of libvips, or of GLib's log, or a sentence of ours: never empty. Clears them. */
const char *sm_vips_words(void);
/* Installs the GLib log writer that keeps the last warning. */
void sm_vips_log_install(void);

/* --- between decode.c and the two readers --- */

struct sm_header {
    int width, height; /* as stored */
    int bands;
    int orientation; /* 1 to 8, as in EXIF */
};

struct sm_jpeg;
struct sm_jpeg *sm_jpeg_new(const struct sm_decode_options *options);
void sm_jpeg_free(struct sm_jpeg **j);
int sm_jpeg_open(struct sm_jpeg *j, const uint8_t *bytes, size_t n, struct sm_header *header,
                 struct sm_err *err);
int sm_jpeg_read(struct sm_jpeg *j, struct sm_rect window, struct sm_block *to,
                 struct sm_tile *tile, struct sm_err *err);
void sm_jpeg_close(struct sm_jpeg *j);
/* The EXIF orientation of a JPEG file's bytes, 1 when there is none or it makes no sense. */
int sm_jpeg_orientation(const uint8_t *bytes, size_t n);

struct sm_vips;
struct sm_vips *sm_vips_new(const struct sm_decode_options *options);
void sm_vips_free(struct sm_vips **v);
int sm_vips_open(struct sm_vips *v, enum sm_format format, const uint8_t *bytes, size_t n,
                 struct sm_header *header, struct sm_err *err);
int sm_vips_read(struct sm_vips *v, struct sm_rect window, struct sm_block *to,
                 struct sm_tile *tile, struct sm_err *err);
void sm_vips_close(struct sm_vips *v);
