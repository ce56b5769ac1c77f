/* Moving pixels without changing them (or only through a table): flips in place, padding, and the
 * way into the caller's tensor. Sizes are in pixels; tiles may be uint8 or float32 unless said
 * otherwise. */
#pragma once

#include "workers/image.h"

void sm_flip_across(const struct sm_tile *t);
void sm_flip_down(const struct sm_tile *t);
/* out[c] = table[c][in[c]]; in is uint8, out float32 of the same size. */
void sm_table_apply(const struct sm_tile *in, const float (*table)[256], const struct sm_tile *out);

/* out holds in at (left, top) and, around it, what the mode says; negative left or top cut off.
 * fill: one value a channel, for SM_PAD_CONSTANT, in units of the tile's type. Reflections repeat
 * when the padding is larger than the image. */
void sm_pad(const struct sm_tile *in, const struct sm_tile *out, int left, int top,
            enum sm_padding mode, const double fill[3]);

/* Writes a finished image as a tensor: planes (CHW) or interleaved (HWC), each element of `size`
 * bytes. A uint8 tile goes through table[c][v] (elements of 1, 2 or 4 bytes in the low bytes of
 * each word), a float32 tile through `narrow`. */
struct sm_layout_job {
    struct sm_tile tile;
    bool flip_x, flip_y;
    bool planes;
    int size;                     /* bytes of an element of out */
    const uint32_t (*table)[256]; /* uint8 tiles: NULL copies bytes */
    uint32_t (*narrow)(float v);  /* float32 tiles */
};
void sm_layout_write(const struct sm_layout_job *job, uint8_t *out);

/* n interleaved RGB pixels to three planes, from the last to the first when flip is set. Plainly,
 * and with vectors (AVX2 machines only); both write the same. */
struct sm_planes {
    uint8_t *r, *g, *b;
};
void sm_planes_plain(const uint8_t *from, struct sm_planes to, int n, bool flip);
void sm_planes_avx2(const uint8_t *from, struct sm_planes to, int n, bool flip);

/* Rounded to nearest, ties to even. */
uint32_t sm_float_bits32(float v);
uint32_t sm_float_bits16(float v);  /* IEEE half */
uint32_t sm_float_bitsb16(float v); /* bfloat16 */
