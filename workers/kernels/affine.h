/* Affine warps of a tile with the results of Pillow, byte for byte: Image.rotate and
 * Image.transform(AFFINE), which is what torchvision runs on PIL images. No antialias; pixels whose
 * source lies outside get the fill colour, unblended; bilinear truncates to 8 bits; bicubic has a =
 * -1. The ops RandomRotation and RandomAffine call it. */
#pragma once

#include "workers/image.h"

#include <stdbool.h>

/* A map from the output to the input: xin = m[0] x + m[1] y + m[2], yin = m[3] x + m[4] y + m[5],
 * with x and y at the centres of pixels (0.5, 1.5, …). */
struct sm_map {
    double m[6];
};

/* What a rotation does: a number of quarter turns when that is exact, else a map. */
struct sm_rotation {
    int quarters; /* 0 to 3, counter-clockwise; -1: use the map */
    struct sm_map map;
    int width, height; /* of the output */
};

/* Counter-clockwise by angle (degrees) around center (x, y from the upper left; NULL: the middle).
 * With expand the output holds the whole rotated picture, else it keeps its size. */
struct sm_rotation sm_rotation_make(int width, int height, double angle, bool expand,
                                    const double center[2]);

/* torchvision's affine: rotate clockwise by angle, scale, shear (degrees) around center, then move
 * by translate. */
struct sm_map sm_map_affine(const double center[2], double angle, const double translate[2],
                            double scale, const double shear[2]);

/* Fills out from in; both have the same channels, 8 bits, and do not overlap. filter is SM_NEAREST,
 * SM_BILINEAR or SM_BICUBIC. fill has one value for each channel. */
void sm_affine(const struct sm_tile *in, struct sm_tile *out, const struct sm_map *map,
               enum sm_filter filter, const uint8_t fill[3]);
/* The same, plainly: the reference that the tests compare sm_affine with. */
void sm_affine_plain(const struct sm_tile *in, struct sm_tile *out, const struct sm_map *map,
                     enum sm_filter filter, const uint8_t fill[3]);

/* Turns counter-clockwise by 0 to 3 quarters; out has the turned size and does not overlap in. */
void sm_turn(const struct sm_tile *in, struct sm_tile *out, int quarters);
