/* What colour.c and colour_avx2.c share; nobody else includes it. */
#pragma once

#include "workers/kernels/colour.h"

#include <stdbool.h>
#include <stdint.h>

/* What depends on one byte of HSV alone, made once. */
struct sm_hsv_tables {
    int32_t sector[256]; /* by hue: 0 to 5 */
    float part[256];     /* by hue: how far into the sector, 0 to 1 */
    float share[256];    /* by saturation: 0 to 1 */
};
const struct sm_hsv_tables *sm_hsv_tables(void);

/* The step of 8-bit hue for a factor. */
uint8_t sm_hue_step(double factor);

bool sm_colour_has_avx2(void);
/* Each works on the first pixels (bytes, for blend) of a row and returns how many; the caller does
 * the rest plainly. */
int sm_row_blend_avx2(uint8_t *row, int bytes, int value, float factor);
int sm_row_luma_sum_avx2(const uint8_t *row, int width, uint64_t *sum);
int sm_row_saturate_avx2(uint8_t *row, int width, float factor);
int sm_row_hue_avx2(uint8_t *row, int width, uint8_t step);
int sm_row_gray_avx2(uint8_t *row, int width);
