/* RandomHorizontalFlip: mirrors left to right with probability p. */
#include "workers/ops/op.h"

struct flip {
    double p;
};

struct drawn {
    bool flip;
};

static const struct sm_param params[] = {
    {.name = "p",
     .type = SM_T_NUM,
     .offset = offsetof(struct flip, p),
     .dflt = "0.5",
     .min = 0,
     .max = 1,
     .doc = "probability"},
};

static const struct sm_param draws[] = {
    {.name = "flip",
     .type = SM_T_BOOL,
     .offset = offsetof(struct drawn, flip),
     .doc = "whether it was mirrored"},
};

static int shape(const void *p, const void *from, struct sm_shape *s, struct sm_err *err) {
    (void)p, (void)from, (void)s, (void)err;
    return 0;
}

static void draw(const void *p, const struct sm_shape *in, struct sm_rng *rng, void *to) {
    (void)in;
    ((struct drawn *)to)->flip = sm_rng_chance(rng, ((const struct flip *)p)->p);
}

static int apply(const void *p, const void *from, struct sm_image *image, struct sm_err *err) {
    (void)p;
    if (!((const struct drawn *)from)->flip) return 0;
    return sm_image_flip(image, true, false, err);
}

const struct sm_op sm_op_random_horizontal_flip = {
    .info = {.name = "RandomHorizontalFlip",
             .doc = "Mirrors the picture left to right with probability p.",
             .example = "RandomHorizontalFlip: {p: 0.5}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct flip)},
    .draws = draws,
    .n_draws = sizeof draws / sizeof *draws,
    .draw_size = sizeof(struct drawn),
    .shape = shape,
    .draw = draw,
    .apply = apply,
};
