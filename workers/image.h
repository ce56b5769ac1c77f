/* The image that flows through a chain of ops. It is lazy at both ends: as long as only crops have
 * been asked for, nothing is decoded, and the first op that wants pixels has just that window
 * decoded; flips and Normalize at the end are only noted and happen while the result is written. So
 * RandomResizedCrop pushes its crop down into the decoder without knowing that a decoder exists.
 * Pixels are interleaved uint8 (or float32 after Normalize). */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that are readable behind the last row of every tile: the vector kernels load whole vectors.
 */
enum { SM_TILE_SLACK = 64 };

/* A view of pixels: rows of width * channels elements, `stride` bytes apart. */
struct sm_tile {
    union {
        uint8_t *u8;
        float *f32;
    };
    int width, height, channels; /* channels: 1 or 3 */
    size_t stride;               /* bytes */
    bool is_float;
};

/* Bytes of one pixel. */
static inline size_t sm_tile_pixel(const struct sm_tile *t) {
    return (size_t)t->channels * (t->is_float ? sizeof(float) : 1);
}
static inline uint8_t *sm_tile_row(const struct sm_tile *t, int y) {
    return t->u8 + (size_t)y * t->stride;
}

enum sm_filter {
    SM_NEAREST,
    SM_NEAREST_EXACT,
    SM_BILINEAR,
    SM_BICUBIC,
    SM_BOX,
    SM_HAMMING,
    SM_LANCZOS
};
/* The words of torchvision's InterpolationMode, in the order of enum sm_filter, for SM_T_ENUM. */
extern const char *const sm_filter_words[];

struct sm_image; /* owns two pooled tiles (now and next) and the undecoded source */

int sm_image_width(const struct sm_image *im);
int sm_image_height(const struct sm_image *im);
int sm_image_channels(const struct sm_image *im);

/* Narrows the window; the rectangle lies inside. Nothing is copied. */
void sm_image_crop(struct sm_image *im, int x, int y, int width, int height);
/* Mirrors left to right or top to bottom; noted, and done when pixels are next wanted or written.
 */
int sm_image_flip(struct sm_image *im, bool across, bool down, struct sm_err *err);
/* Resamples the window to a new size with Pillow's algorithm (antialias) or torch's point sampling
 * (without). */
int sm_image_resize(struct sm_image *im, int width, int height, enum sm_filter filter,
                    bool antialias, struct sm_err *err);
/* A canvas of width x height with the image's corner at (left, top), which may be negative; what
 * the image does not cover is filled as the mode says. A canvas that lies inside the image is only
 * a crop. fill: one value a channel. */
enum sm_padding { SM_PAD_CONSTANT, SM_PAD_EDGE, SM_PAD_REFLECT, SM_PAD_SYMMETRIC };
extern const char *const sm_padding_words[];
int sm_image_place(struct sm_image *im, int left, int top, int width, int height,
                   enum sm_padding mode, const double fill[3], struct sm_err *err);
/* (v / 255 - mean[c]) / std[c] in float32; the image is float afterwards. Noted as well. One entry
 * a channel. */
int sm_image_normalize(struct sm_image *im, const float *mean, const float *std,
                       struct sm_err *err);
/* Lends the pixels for writing, decoding them if need be. Valid until the next call on the image.
 */
int sm_image_pixels(struct sm_image *im, struct sm_tile *tile, struct sm_err *err);
/* Lends a new tile of the given size beside the present one (`now`, also lent): the op fills next
 * from now, then calls sm_image_swap. Contents of next are undefined. */
int sm_image_next(struct sm_image *im, int width, int height, int channels, bool is_float,
                  struct sm_tile *now, struct sm_tile *next, struct sm_err *err);
void sm_image_swap(struct sm_image *im);

/* --- for the engine alone --- */

struct sm_decoder;

/* fuse: be lazy as described above; else decode everything at once and do each step when it is
 * asked for. */
struct sm_image *sm_image_new(bool fuse);
void sm_image_free(struct sm_image **im);
/* Begins with the picture that the decoder has open. Keeps d until the next open. */
int sm_image_open(struct sm_image *im, struct sm_decoder *d, int channels, struct sm_err *err);

/* The end of the chain: pixels plus what was only noted. Lent until the next call on the image. */
struct sm_image_end {
    struct sm_tile tile;
    bool flip_x, flip_y;
    const float (*table)[256]; /* NULL, or for each channel the float that stands for a byte */
};
int sm_image_end(struct sm_image *im, struct sm_image_end *end, struct sm_err *err);
