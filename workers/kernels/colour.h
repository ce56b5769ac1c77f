/* Colour changes of an 8-bit tile in place, with the results of Pillow, byte for byte:
 * ImageEnhance's Brightness, Contrast and Color, conversion to L, and the 8-bit HSV round trip with
 * which torchvision shifts the hue of PIL images. The ops ColorJitter and RandomGrayscale call it.
 * Each has a plain twin, the reference that the tests compare it with. */
#pragma once

#include "workers/image.h"

/* Towards (factor below 1) or away from a grey value: value + factor * (v - value), truncated.
 * Brightness: value 0. Contrast: value sm_colour_mean. */
void sm_colour_blend(struct sm_tile *tile, int value, double factor);
void sm_colour_blend_plain(struct sm_tile *tile, int value, double factor);

/* Mean luma, rounded to the nearest whole number, halves up. */
int sm_colour_mean(const struct sm_tile *tile);
int sm_colour_mean_plain(const struct sm_tile *tile);

/* Towards or away from each pixel's own luma. One channel: unchanged. */
void sm_colour_saturate(struct sm_tile *tile, double factor);
void sm_colour_saturate_plain(struct sm_tile *tile, double factor);

/* Turns the hue by factor (-0.5 to 0.5) of the circle. One channel: unchanged. */
void sm_colour_hue(struct sm_tile *tile, double factor);
void sm_colour_hue_plain(struct sm_tile *tile, double factor);

/* Replaces each pixel by its luma (ITU-R 601-2, in 16.16). One channel: unchanged. */
void sm_colour_gray(struct sm_tile *tile);
void sm_colour_gray_plain(struct sm_tile *tile);
