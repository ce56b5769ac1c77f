/* Pixel formats of decoders to the pipeline's mode, one row at a time. Called by the readers in
 * workers/decode_*.c. */
#include "workers/kernels/convert.h"

#include <string.h>

struct colour {
    int r, g, b;
};

static inline int over(int c, int alpha, int background) {
    int t = background * (255 - alpha) + c * alpha + 128;
    return ((t >> 8) + t) >> 8;
}

static inline struct colour blend(struct colour c, int alpha, const uint8_t *background) {
    if (background == NULL) return c;
    return (struct colour){over(c.r, alpha, background[0]), over(c.g, alpha, background[1]),
                           over(c.b, alpha, background[2])};
}

static inline int ink(int c, int light) {
    int v = light - sm_muldiv255(c, light);
    return v < 0 ? 0 : v;
}

static inline struct colour pixel(const uint8_t *in, enum sm_pixels pixels,
                                  const uint8_t *background) {
    switch (pixels) {
    case SM_PIXELS_GREY:
        return (struct colour){in[0], in[0], in[0]};
    case SM_PIXELS_GREY_ALPHA:
        return blend((struct colour){in[0], in[0], in[0]}, in[1], background);
    case SM_PIXELS_RGB:
        return (struct colour){in[0], in[1], in[2]};
    case SM_PIXELS_RGB_ALPHA:
        return blend((struct colour){in[0], in[1], in[2]}, in[3], background);
    case SM_PIXELS_CMYK:
        break;
    }
    int light = 255 - in[3];
    return (struct colour){ink(in[0], light), ink(in[1], light), ink(in[2], light)};
}

/* Inlined once for each kind, so that the switch above is gone from the loop. */
__attribute__((always_inline)) static inline void convert(const uint8_t *in, enum sm_pixels pixels,
                                                          int bands, uint8_t *out, int channels,
                                                          int n, const uint8_t *background) {
    for (int i = 0; i < n; i++, in += bands, out += channels) {
        struct colour c = pixel(in, pixels, background);
        if (channels == 1) {
            out[0] = bands <= 2 && background == NULL ? (uint8_t)c.r : sm_luma(c.r, c.g, c.b);
            continue;
        }
        out[0] = (uint8_t)c.r;
        out[1] = (uint8_t)c.g;
        out[2] = (uint8_t)c.b;
    }
}

void sm_convert_row(const uint8_t *in, enum sm_pixels pixels, uint8_t *out, int channels, int n,
                    const uint8_t *background) {
    switch (pixels) {
    case SM_PIXELS_GREY:
        if (channels == 1)
            memmove(out, in, (size_t)n);
        else
            convert(in, SM_PIXELS_GREY, 1, out, 3, n, NULL);
        return;
    case SM_PIXELS_RGB:
        if (channels == 3)
            memmove(out, in, (size_t)n * 3);
        else
            convert(in, SM_PIXELS_RGB, 3, out, 1, n, NULL);
        return;
    case SM_PIXELS_GREY_ALPHA:
        convert(in, SM_PIXELS_GREY_ALPHA, 2, out, channels, n, background);
        return;
    case SM_PIXELS_RGB_ALPHA:
        convert(in, SM_PIXELS_RGB_ALPHA, 4, out, channels, n, background);
        return;
    case SM_PIXELS_CMYK:
        convert(in, SM_PIXELS_CMYK, 4, out, channels, n, NULL);
        return;
    }
}
