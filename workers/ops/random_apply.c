/* RandomApply: runs a list of ops with probability p, all of them or none. A control op: it draws
 * one decision, and the chain draws and applies the children itself, so shape and apply have
 * nothing to do here. */
#include "workers/ops/op.h"

struct params {
    double p;
};

struct draw {
    bool apply;
};

static const struct sm_param params[] = {
    {.name = "transforms", .type = SM_T_OPS, .doc = "the ops to run, in order"},
    {.name = "p",
     .type = SM_T_NUM,
     .offset = offsetof(struct params, p),
     .dflt = "0.5",
     .min = 0,
     .max = 1,
     .doc = "probability"},
};

static const struct sm_param draws[] = {
    {.name = "apply",
     .type = SM_T_BOOL,
     .offset = offsetof(struct draw, apply),
     .doc = "whether the ops were run"},
};

static int shape(const void *p_, const void *d_, struct sm_shape *s, struct sm_err *err) {
    (void)p_, (void)d_, (void)s, (void)err;
    return 0;
}

static void draw(const void *p_, const struct sm_shape *in, struct sm_rng *rng, void *d_) {
    (void)in;
    const struct params *p = p_;
    ((struct draw *)d_)->apply = sm_rng_chance(rng, p->p);
}

static int apply(const void *p_, const void *d_, struct sm_image *image, struct sm_err *err) {
    (void)p_, (void)d_, (void)image, (void)err;
    return 0;
}

static bool selects(const void *p_, const void *d_, size_t child) {
    (void)p_, (void)child;
    return ((const struct draw *)d_)->apply;
}

const struct sm_op sm_op_random_apply = {
    .info = {.name = "RandomApply",
             .doc = "Runs a list of ops with probability p, all of them or none.",
             .example = "RandomApply: {transforms: [{ColorJitter: {brightness: 0.4}}], p: 0.8}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .control = true},
    .draws = draws,
    .n_draws = sizeof draws / sizeof *draws,
    .draw_size = sizeof(struct draw),
    .shape = shape,
    .draw = draw,
    .apply = apply,
    .selects = selects,
};
