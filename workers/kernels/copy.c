/* Pixels from here to there. Used by workers/image.c for what the ops ask, and by workers/engine.c
 * to write the result into the caller's memory. */
#include "workers/kernels/copy.h"

#include <assert.h>
#include <string.h>

__attribute__((always_inline)) static inline void flip_row(uint8_t *row, int width, size_t pixel) {
    for (int a = 0, b = width - 1; a < b; a++, b--) {
        uint8_t keep[12];
        memcpy(keep, row + (size_t)a * pixel, pixel);
        memcpy(row + (size_t)a * pixel, row + (size_t)b * pixel, pixel);
        memcpy(row + (size_t)b * pixel, keep, pixel);
    }
}

void sm_flip_across(const struct sm_tile *t) {
    const size_t pixel = sm_tile_pixel(t);
    for (int y = 0; y < t->height; y++) {
        if (pixel == 3)
            flip_row(sm_tile_row(t, y), t->width, 3);
        else if (pixel == 1)
            flip_row(sm_tile_row(t, y), t->width, 1);
        else
            flip_row(sm_tile_row(t, y), t->width, pixel);
    }
}

void sm_flip_down(const struct sm_tile *t) {
    const size_t bytes = (size_t)t->width * sm_tile_pixel(t);
    for (int a = 0, b = t->height - 1; a < b; a++, b--) {
        uint8_t *top = sm_tile_row(t, a), *bottom = sm_tile_row(t, b), keep[4096];
        for (size_t at = 0; at < bytes; at += sizeof keep) {
            size_t n = bytes - at < sizeof keep ? bytes - at : sizeof keep;
            memcpy(keep, top + at, n);
            memcpy(top + at, bottom + at, n);
            memcpy(bottom + at, keep, n);
        }
    }
}

void sm_table_apply(const struct sm_tile *in, const float (*table)[256],
                    const struct sm_tile *out) {
    assert(!in->is_float && out->is_float);
    for (int y = 0; y < in->height; y++) {
        const uint8_t *from = sm_tile_row(in, y);
        float *to = (float *)sm_tile_row(out, y);
        for (int x = 0; x < in->width; x++)
            for (int c = 0; c < in->channels; c++)
                *to++ = table[c][*from++];
    }
}

/* --- padding --- */

/* Where index i of the padded axis comes from in [0, n). */
static int pad_index(int i, int n, enum sm_padding mode) {
    if (i >= 0 && i < n) return i;
    if (mode == SM_PAD_EDGE || n == 1) return i < 0 ? 0 : n - 1;
    const int period = mode == SM_PAD_REFLECT ? 2 * (n - 1) : 2 * n;
    i %= period;
    if (i < 0) i += period;
    if (i < n) return i;
    return mode == SM_PAD_REFLECT ? period - i : period - 1 - i;
}

static void fill_pixel(uint8_t *to, const struct sm_tile *t, const double fill[3]) {
    for (int c = 0; c < t->channels; c++) {
        if (t->is_float)
            memcpy(to + (size_t)c * sizeof(float), &(float){(float)fill[c]}, sizeof(float));
        else
            to[c] = (uint8_t)(fill[c] < 0 ? 0 : fill[c] > 255 ? 255 : fill[c]);
    }
}

static void pad_row_part(const uint8_t *from, int in_width, uint8_t *to, int begin, int end,
                         int left, enum sm_padding mode, const struct sm_tile *t,
                         const double fill[3]) {
    const size_t pixel = sm_tile_pixel(t);
    for (int x = begin; x < end; x++)
        if (from == NULL || mode == SM_PAD_CONSTANT)
            fill_pixel(to + (size_t)x * pixel, t, fill);
        else
            memcpy(to + (size_t)x * pixel,
                   from + (size_t)pad_index(x - left, in_width, mode) * pixel, pixel);
}

void sm_pad(const struct sm_tile *in, const struct sm_tile *out, int left, int top,
            enum sm_padding mode, const double fill[3]) {
    const size_t pixel = sm_tile_pixel(in);
    int begin = left < 0 ? 0 : left < out->width ? left : out->width;
    int end = left + in->width < out->width ? left + in->width : out->width;
    if (end < begin) end = begin;
    for (int y = 0; y < out->height; y++) {
        uint8_t *to = sm_tile_row(out, y);
        const bool inside = y - top >= 0 && y - top < in->height;
        if (!inside && mode == SM_PAD_CONSTANT) {
            pad_row_part(NULL, in->width, to, 0, out->width, left, mode, out, fill);
            continue;
        }
        const uint8_t *from = sm_tile_row(in, pad_index(y - top, in->height, mode));
        pad_row_part(from, in->width, to, 0, begin, left, mode, out, fill);
        if (end > begin)
            memcpy(to + (size_t)begin * pixel, from + (size_t)(begin - left) * pixel,
                   (size_t)(end - begin) * pixel);
        pad_row_part(from, in->width, to, end, out->width, left, mode, out, fill);
    }
}
