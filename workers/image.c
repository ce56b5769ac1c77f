/* The lazy image. workers/chain.c opens it on a decoder and runs the ops over it; workers/engine.c
 * writes what is there at the end. Three things wait until somebody needs them: decoding (the
 * window is known by then), flips, and Normalize. */
#include "workers/image.h"
#include "workers/decode.h"
#include "workers/kernels/copy.h"
#include "workers/kernels/resize.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const char *const sm_filter_words[] = {"nearest", "nearest-exact", "bilinear", "bicubic",
                                       "box",     "hamming",       "lanczos",  NULL};

const char *const sm_padding_words[] = {"constant", "edge", "reflect", "symmetric", NULL};

struct sm_image {
    bool fuse;
    struct sm_decoder *decoder; /* NULL once decoded */
    struct sm_rect window;      /* of the undecoded picture; its size holds later too */
    int channels;
    struct sm_tile now, next;
    struct sm_block blocks[2]; /* now lies in blocks[at] */
    int at;
    bool flip_x, flip_y; /* noted */
    bool normalized;     /* noted: table holds what a byte becomes */
    float table[3][256];
    struct sm_resizer resizer;
};

static int image_decode(struct sm_image *im, struct sm_err *err);
static int image_settle(struct sm_image *im, struct sm_err *err);
static int image_settle_flips(struct sm_image *im, struct sm_err *err);
static int next_reserve(struct sm_image *im, int width, int height, int channels, bool is_float,
                        struct sm_err *err);

struct sm_image *sm_image_new(bool fuse) {
    struct sm_image *im = calloc(1, sizeof *im);
    if (im == NULL) return NULL;
    im->fuse = fuse;
    sm_resizer_init(&im->resizer);
    return im;
}

void sm_image_free(struct sm_image **im) {
    if (*im == NULL) return;
    sm_block_release(&(*im)->blocks[0]);
    sm_block_release(&(*im)->blocks[1]);
    sm_resizer_release(&(*im)->resizer);
    free(*im);
    *im = NULL;
}

int sm_image_open(struct sm_image *im, struct sm_decoder *d, int channels, struct sm_err *err) {
    im->decoder = d;
    im->window = (struct sm_rect){0, 0, sm_decoder_width(d), sm_decoder_height(d)};
    im->channels = channels;
    im->flip_x = im->flip_y = im->normalized = false;
    return im->fuse ? 0 : image_decode(im, err);
}

int sm_image_width(const struct sm_image *im) {
    return im->window.width;
}

int sm_image_height(const struct sm_image *im) {
    return im->window.height;
}

int sm_image_channels(const struct sm_image *im) {
    return im->channels;
}

void sm_image_crop(struct sm_image *im, int x, int y, int width, int height) {
    assert(x >= 0 && y >= 0 && width > 0 && height > 0);
    assert(width <= im->window.width - x && height <= im->window.height - y);
    if (im->flip_x) x = im->window.width - x - width;
    if (im->flip_y) y = im->window.height - y - height;
    im->window.x += x;
    im->window.y += y;
    im->window.width = width;
    im->window.height = height;
    if (im->decoder != NULL) return;
    im->now.u8 = sm_tile_row(&im->now, y) + (size_t)x * sm_tile_pixel(&im->now);
    im->now.width = width;
    im->now.height = height;
}

int sm_image_flip(struct sm_image *im, bool across, bool down, struct sm_err *err) {
    im->flip_x ^= across;
    im->flip_y ^= down;
    return im->fuse ? 0 : image_settle_flips(im, err);
}

int sm_image_normalize(struct sm_image *im, const float *mean, const float *std,
                       struct sm_err *err) {
    if (im->decoder != NULL && image_decode(im, err) != 0) return -1;
    if (im->now.is_float || im->normalized)
        return sm_fail(err, SM_E_OP, "the image is normalized already");
    for (int c = 0; c < im->channels; c++)
        for (int v = 0; v < 256; v++)
            im->table[c][v] = ((float)v / 255.0f - mean[c]) / std[c];
    im->normalized = true;
    return im->fuse ? 0 : image_settle(im, err);
}

int sm_image_resize(struct sm_image *im, int width, int height, enum sm_filter filter,
                    bool antialias, struct sm_err *err) {
    if (width == im->window.width && height == im->window.height) return 0;
    struct sm_tile now, next;
    if (sm_image_next(im, width, height, im->channels, false, &now, &next, err) != 0) return -1;
    if (now.is_float) return sm_fail(err, SM_E_OP, "a normalized image cannot be resized");
    if (sm_resize(&im->resizer, &now, &next, filter, antialias, err) != 0) return -1;
    sm_image_swap(im);
    return 0;
}

/* What a constant border will cover need not be decoded: narrows to what is seen and moves the
 * corner along. */
static void crop_to_seen(struct sm_image *im, int *left, int *top, int width, int height) {
    int x = *left < 0 ? -*left : 0, y = *top < 0 ? -*top : 0;
    int right = *left + im->window.width < width ? im->window.width : width - *left;
    int bottom = *top + im->window.height < height ? im->window.height : height - *top;
    if (right <= x || bottom <= y) return; /* nothing is seen */
    sm_image_crop(im, x, y, right - x, bottom - y);
    *left += x;
    *top += y;
}

int sm_image_place(struct sm_image *im, int left, int top, int width, int height,
                   enum sm_padding mode, const double fill[3], struct sm_err *err) {
    if (left <= 0 && top <= 0 && left + im->window.width >= width &&
        top + im->window.height >= height) {
        sm_image_crop(im, -left, -top, width, height);
        return 0;
    }
    if (mode == SM_PAD_CONSTANT) crop_to_seen(im, &left, &top, width, height);
    struct sm_tile now, next;
    if (image_settle(im, err) != 0) return -1;
    if (sm_image_next(im, width, height, im->channels, im->now.is_float, &now, &next, err) != 0)
        return -1;
    sm_pad(&now, &next, left, top, mode, fill);
    sm_image_swap(im);
    return 0;
}

int sm_image_pixels(struct sm_image *im, struct sm_tile *tile, struct sm_err *err) {
    if (image_settle(im, err) != 0) return -1;
    *tile = im->now;
    return 0;
}

int sm_image_next(struct sm_image *im, int width, int height, int channels, bool is_float,
                  struct sm_tile *now, struct sm_tile *next, struct sm_err *err) {
    if (image_settle(im, err) != 0) return -1;
    if (next_reserve(im, width, height, channels, is_float, err) != 0) return -1;
    *now = im->now;
    *next = im->next;
    return 0;
}

void sm_image_swap(struct sm_image *im) {
    im->now = im->next;
    im->at ^= 1;
    im->window = (struct sm_rect){0, 0, im->now.width, im->now.height};
    im->channels = im->now.channels;
}

int sm_image_end(struct sm_image *im, struct sm_image_end *end, struct sm_err *err) {
    if (im->decoder != NULL && image_decode(im, err) != 0) return -1;
    *end = (struct sm_image_end){.tile = im->now,
                                 .flip_x = im->flip_x,
                                 .flip_y = im->flip_y,
                                 .table = im->normalized ? im->table : NULL};
    return 0;
}

/* --- what was put off --- */

static int image_decode(struct sm_image *im, struct sm_err *err) {
    if (sm_decoder_read(im->decoder, im->window, &im->blocks[im->at], &im->blocks[im->at ^ 1],
                        &im->now, err) != 0)
        return -1;
    assert(im->now.channels == im->channels);
    im->decoder = NULL;
    return 0;
}

static int next_reserve(struct sm_image *im, int width, int height, int channels, bool is_float,
                        struct sm_err *err) {
    im->next = (struct sm_tile){
        .width = width, .height = height, .channels = channels, .is_float = is_float};
    im->next.stride = ((size_t)width * sm_tile_pixel(&im->next) + 15) & ~(size_t)15;
    struct sm_block *block = &im->blocks[im->at ^ 1];
    if (sm_block_reserve(block, im->next.stride * (size_t)height, err) != 0) return -1;
    im->next.u8 = block->data;
    return 0;
}

static int image_settle_flips(struct sm_image *im, struct sm_err *err) {
    if (im->decoder != NULL && image_decode(im, err) != 0) return -1;
    if (im->flip_x) sm_flip_across(&im->now);
    if (im->flip_y) sm_flip_down(&im->now);
    im->flip_x = im->flip_y = false;
    return 0;
}

/* Afterwards `now` holds the image as the ops have made it so far. */
static int image_settle(struct sm_image *im, struct sm_err *err) {
    if (image_settle_flips(im, err) != 0) return -1;
    if (!im->normalized) return 0;
    if (next_reserve(im, im->now.width, im->now.height, im->channels, true, err) != 0) return -1;
    sm_table_apply(&im->now, im->table, &im->next);
    im->normalized = false;
    sm_image_swap(im);
    return 0;
}
