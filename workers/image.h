/* The image that flows through a chain of ops. It is lazy at its front: as long as only crops have been asked for, nothing
 * is decoded; the first op that wants pixels has just that window decoded. So RandomResizedCrop pushes its crop down
 * into the decoder without knowing that a decoder exists. Pixels are interleaved uint8 (or float32 after Normalize). */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

enum sm_filter { SM_NEAREST, SM_NEAREST_EXACT, SM_BILINEAR, SM_BICUBIC, SM_BOX, SM_HAMMING, SM_LANCZOS };
/* The words of torchvision's InterpolationMode, in the order of enum sm_filter, for SM_T_ENUM. */
extern const char *const sm_filter_words[];

struct sm_image; /* owns two pooled tiles (now and next) and the undecoded source */

int sm_image_width(const struct sm_image *im);
int sm_image_height(const struct sm_image *im);
int sm_image_channels(const struct sm_image *im);

/* Narrows the window; the rectangle lies inside. Nothing is copied. */
void sm_image_crop(struct sm_image *im, int x, int y, int width, int height);
/* Resamples the window to a new size with Pillow's algorithm (antialias) or torch's point sampling (without). */
int sm_image_resize(struct sm_image *im, int width, int height, enum sm_filter filter, bool antialias,
                    struct sm_err *err);
/* Lends the pixels for writing, decoding them if need be. Valid until the next call on the image. */
int sm_image_pixels(struct sm_image *im, struct sm_tile *tile, struct sm_err *err);
/* Lends a new tile of the given size beside the present one (`now`, also lent): the op fills next from now, then calls
 * sm_image_swap. Contents of next are undefined. */
int sm_image_next(struct sm_image *im, int width, int height, int channels, bool is_float,
                  struct sm_tile *now, struct sm_tile *next, struct sm_err *err);
void sm_image_swap(struct sm_image *im);
