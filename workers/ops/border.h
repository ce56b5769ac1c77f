/* What the ops share that put a border around the picture: its rows of parameters, how wide it is
 * and what fills it. Only Pad and RandomCrop include it. */
#pragma once

#include "lib/limits.h"
#include "workers/ops/op.h"

#define BORDER_SIDES \
    "one for all sides, [left and right, top and bottom], or [left, top, right, bottom]"

#define BORDER_PADDING_PARAM(owner, what, ...)                                              \
    {                                                                                       \
        .name = "padding", .type = SM_T_NUMS, .offset = offsetof(owner, padding), .min = 0, \
        .max = SM_MAX_IMAGE_SIDE, .count_min = 1, .count_max = 4, .integral = true,         \
        .doc = what ": " BORDER_SIDES, __VA_ARGS__                                          \
    }
#define BORDER_FILL_PARAM(owner)                                                                   \
    {                                                                                              \
        .name = "fill", .type = SM_T_NUMS, .offset = offsetof(owner, fill), .dflt = "0", .min = 0, \
        .max = 255, .count_min = 1, .count_max = 3,                                                \
        .doc = "one value, or one for each channel; for padding_mode constant"                     \
    }
#define BORDER_MODE_PARAM(owner)                                                                \
    {                                                                                           \
        .name = "padding_mode", .type = SM_T_ENUM, .offset = offsetof(owner, padding_mode),     \
        .dflt = "constant", .choices = sm_padding_words,                                        \
        .doc = "constant, edge (the last pixel again), reflect or symmetric (mirrored without " \
               "or with the last pixel)"                                                        \
    }

/* In pixels. */
struct border {
    int left, top, right, bottom;
};

static inline int border_check(const struct sm_nums *padding, const struct sm_nums *fill,
                               struct sm_err *err) {
    if (padding->count == 3)
        return sm_fail(err, SM_E_PIPELINE,
                       "'padding' is a list of 3 numbers (hint: give 1, 2 or 4)");
    if (fill->count == 2)
        return sm_fail(err, SM_E_PIPELINE, "'fill' is a list of 2 numbers (hint: give 1 or 3)");
    return 0;
}

/* Without padding there is none. */
static inline struct border border_of(const struct sm_nums *padding) {
    const double *v = padding->v;
    const int n = padding->count;
    if (n == 0) return (struct border){0};
    if (n < 4) /* left and right, top and bottom */
        return (struct border){(int)v[0], (int)v[n - 1], (int)v[0], (int)v[n - 1]};
    return (struct border){(int)v[0], (int)v[1], (int)v[2], (int)v[3]};
}

static inline void border_fill(const struct sm_nums *fill, double out[3]) {
    for (int c = 0; c < 3; c++)
        out[c] = fill->v[fill->count == 3 ? c : 0];
}
