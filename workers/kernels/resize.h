/* Resampling of uint8 tiles. The antialiased filters are Pillow's (src/libImaging/Resample.c): the
 * filter is stretched by the scale, its window is clipped at the border and renormalised, weights
 * are rounded to 22 bits after the point, the horizontal pass comes first and leaves 8 bits between
 * the passes. Results equal PIL's bit for bit. */
#pragma once

#include "workers/image.h"
#include "workers/kernels/block.h"

#include <stdint.h>

/* One axis of a resampling: output i is the sum of weight[i * taps + t] * in[first[i] + t], t <
 * count[i]. */
struct sm_resize_axis {
    int out, taps; /* taps: the most that one output needs */
    int32_t *first, *count, *weight;
    int32_t *packed; /* the weights as the horizontal vector kernel wants them */
    size_t outs_cap, weights_cap, packed_cap;
};

/* Memory that is kept from one resampling to the next; belongs to one thread. */
struct sm_resizer {
    struct sm_resize_axis x, y;
    struct sm_block between; /* the 8-bit intermediate */
    bool reference;          /* plain loops only */
};

/* Zeroes it; SHARDMILL_KERNELS=reference in the environment forces the plain loops. */
void sm_resizer_init(struct sm_resizer *r);
void sm_resizer_release(struct sm_resizer *r);

/* Both tiles have SM_TILE_SLACK bytes behind their last row.
 * Fills out (its size says the new size; channels equal in's). Without antialias bilinear and
 * bicubic are torch's point-sampled interpolate (align_corners=False, bicubic a = -0.75, rounded
 * half to even); box, hamming and lanczos are antialiased always; nearest is torch's `nearest`,
 * nearest-exact its `nearest-exact` and PIL's NEAREST. */
int sm_resize(struct sm_resizer *r, const struct sm_tile *in, const struct sm_tile *out,
              enum sm_filter filter, bool antialias, struct sm_err *err);

/* The weights alone, for tests. */
int sm_resize_weights(struct sm_resize_axis *a, int in, int out, enum sm_filter filter,
                      struct sm_err *err);

/* The vector kernels (resize_avx2.c); bytes equal to the plain loops in resize.c. */
bool sm_resize_avx2_ok(void);
int sm_resize_avx2_pack(struct sm_resize_axis *x, struct sm_err *err);
void sm_resize_avx2_rows(const struct sm_resize_axis *x, const struct sm_tile *in,
                         const struct sm_tile *out);
void sm_resize_avx2_columns(const struct sm_resize_axis *y, const struct sm_tile *in,
                            const struct sm_tile *out);
