/* What the two flips share: all but which way. Only RandomHorizontalFlip and RandomVerticalFlip
 * include it. */
#pragma once

#include "workers/ops/op.h"

struct flip {
    double p;
};

struct flip_draw {
    bool flip;
};

static const struct sm_param flip_params[] = {
    {.name = "p",
     .type = SM_T_NUM,
     .offset = offsetof(struct flip, p),
     .dflt = "0.5",
     .min = 0,
     .max = 1,
     .doc = "probability"},
};

static const struct sm_param flip_draws[] = {
    {.name = "flip",
     .type = SM_T_BOOL,
     .offset = offsetof(struct flip_draw, flip),
     .doc = "whether it was mirrored"},
};

static inline int flip_shape(const void *p, const void *from, struct sm_shape *s,
                             struct sm_err *err) {
    (void)p, (void)from, (void)s, (void)err;
    return 0;
}

static inline void flip_chance(const void *p, const struct sm_shape *in, struct sm_rng *rng,
                               void *to) {
    (void)in;
    ((struct flip_draw *)to)->flip = sm_rng_chance(rng, ((const struct flip *)p)->p);
}

static inline int flip_apply(const void *from, struct sm_image *image, bool across, bool down,
                             struct sm_err *err) {
    return ((const struct flip_draw *)from)->flip ? sm_image_flip(image, across, down, err) : 0;
}

#define FLIP_OP(word, way)                                                               \
    {                                                                                    \
        .info = {.name = word,                                                           \
                 .doc = "Mirrors the picture " way " with probability p.",               \
                 .example = word ": {p: 0.5}",                                           \
                 .params = flip_params,                                                  \
                 .n_params = sizeof flip_params / sizeof *flip_params,                   \
                 .params_size = sizeof(struct flip)},                                    \
        .draws = flip_draws, .n_draws = sizeof flip_draws / sizeof *flip_draws,          \
        .draw_size = sizeof(struct flip_draw), .shape = flip_shape, .draw = flip_chance, \
        .apply = apply                                                                   \
    }
