/* What the ops that warp (RandomRotation, RandomAffine) share: rows of parameters, the filters that
 * a warp can use, the fill colour, a range of angles, and the refusal of float pixels. Only those
 * ops include it. */
#pragma once

#include "workers/ops/op.h"

/* The filters of a warp, in the words of torchvision's InterpolationMode. */
static const char *const warp_filter_words[] = {"nearest", "bilinear", "bicubic", NULL};
static const enum sm_filter warp_filters[] = {SM_NEAREST, SM_BILINEAR, SM_BICUBIC};

/* Rows of parameters. */
#define WARP_DEGREES_PARAM(owner, way)                                                          \
    {                                                                                           \
        .name = "degrees", .type = SM_T_NUMS, .offset = offsetof(owner, degrees), .min = -3600, \
        .max = 3600, .count_min = 2, .count_max = 2,                                            \
        .doc = "angle is drawn from [min, max], or from [-d, d] for one number d; " way         \
    }
#define WARP_INTERPOLATION_PARAM(owner)                                                       \
    {                                                                                         \
        .name = "interpolation", .type = SM_T_ENUM, .offset = offsetof(owner, interpolation), \
        .dflt = "nearest", .choices = warp_filter_words,                                      \
        .doc = "how pixels between pixels are made; without antialias"                        \
    }
#define WARP_FILL_PARAM(owner)                                                                     \
    {                                                                                              \
        .name = "fill", .type = SM_T_NUMS, .offset = offsetof(owner, fill), .dflt = "0", .min = 0, \
        .max = 255, .count_min = 1, .count_max = 3, .null_ok = true,                               \
        .doc = "colour of what lies outside the source: one number, or one for each channel"       \
    }
#define WARP_CENTER_PARAM(owner, what)                                                          \
    {                                                                                           \
        .name = "center", .type = SM_T_NUMS, .offset = offsetof(owner, center), .dflt = "null", \
        .min = -32768, .max = 32768, .count_min = 2, .count_max = 2, .null_ok = true,           \
        .doc = "x and y of the point " what "; null: the middle"                                \
    }

/* A number d means -d to d, a list its own limits. What is wrong with it, or NULL. */
static inline const char *warp_range_fault(const struct sm_nums *n, size_t pair) {
    if (n->scalar) return n->v[0] < 0 ? "must not be negative when it is one number" : NULL;
    return n->count && n->v[2 * pair] > n->v[2 * pair + 1] ? "has its minimum above its maximum"
                                                           : NULL;
}

static inline double warp_range_draw(const struct sm_nums *n, size_t pair, struct sm_rng *rng) {
    if (n->scalar) return sm_rng_uniform(rng, -n->v[0], n->v[0]);
    return sm_rng_uniform(rng, n->v[2 * pair], n->v[2 * pair + 1]);
}

/* One value for all channels or one for each; a fraction is cut off, as Pillow does. null is black.
 */
static inline void warp_fill(const struct sm_nums *fill, uint8_t out[3]) {
    for (int c = 0; c < 3; c++)
        out[c] = fill->count == 0 ? 0 : (uint8_t)fill->v[fill->count == 1 ? 0 : c];
}

static inline int warp_shape(const struct sm_nums *fill, const struct sm_shape *shape,
                             struct sm_err *err) {
    if (shape->is_float)
        return sm_fail(err, SM_E_PIPELINE, "it cannot follow Normalize (hint: put Normalize last)");
    if (fill->count > 1 && shape->channels && fill->count != shape->channels)
        return sm_fail(
            err, SM_E_PIPELINE,
            "'fill' has %d values for images of %d channel%s (hint: one number fills all channels)",
            fill->count, shape->channels, shape->channels == 1 ? "" : "s");
    return 0;
}
