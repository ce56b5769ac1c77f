/* What affine.c and affine_avx2.c share; nobody else includes it. */
#pragma once

#include "workers/kernels/affine.h"

/* One output pixel from a source point inside the picture; taps beyond its border repeat it. */
void sm_tap_bilinear(const struct sm_tile *in, double xin, double yin, uint8_t *out);
void sm_tap_bicubic(const struct sm_tile *in, double xin, double yin, uint8_t *out);

/* Whether this machine runs the rows below. */
bool sm_affine_has_avx2(void);
/* Pixels lo to hi of a row by 16.16 steps from (xx, yy) at x = 0; all of them lie inside. Three
 * channels. */
void sm_row_nearest_avx2(const struct sm_tile *in, uint8_t *to, int lo, int hi, int64_t xx,
                         int64_t yy, int64_t dx, int64_t dy);
/* A whole row of bilinear or bicubic, yc being its centre. Three channels. */
void sm_row_smooth_avx2(const struct sm_tile *in, uint8_t *to, int width, const double *m,
                        double yc, enum sm_filter filter, const uint8_t *fill);
