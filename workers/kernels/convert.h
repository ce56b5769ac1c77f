/* Rows of whatever a decoder delivers into rows of what the pipeline asked for: RGB or grey (L), 8
 * bits, no alpha. Formulas are PIL's: L = (19595 R + 38470 G + 7471 B + 0x8000) >> 16, CMYK by
 * MULDIV255, blending as Image.paste does. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum sm_pixels {
    SM_PIXELS_GREY,
    SM_PIXELS_GREY_ALPHA,
    SM_PIXELS_RGB,
    SM_PIXELS_RGB_ALPHA,
    SM_PIXELS_CMYK
};

/* n pixels of kind `pixels` to `channels` (1 or 3). background: NULL drops alpha, else three bytes.
 * in and out may be the same row when a pixel does not grow. */
void sm_convert_row(const uint8_t *in, enum sm_pixels pixels, uint8_t *out, int channels, int n,
                    const uint8_t *background);

/* (x * y / 255), rounded as PIL does. */
static inline int sm_muldiv255(int x, int y) {
    int t = x * y + 128;
    return ((t >> 8) + t) >> 8;
}

static inline uint8_t sm_luma(int r, int g, int b) {
    return (uint8_t)((19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16);
}
