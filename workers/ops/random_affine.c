/* RandomAffine: a random rotation, shift, scale and shear in one warp that keeps the picture's
 * size. Draws the six numbers; workers/kernels/affine.h moves the pixels, equal to torchvision on
 * PIL images byte for byte. */
#include "workers/kernels/affine.h"
#include "workers/ops/warp.h"

#include <math.h>
#include <string.h>

struct params {
    struct sm_nums degrees, translate, scale, shear;
    int interpolation;
    struct sm_nums fill, center;
};

struct draw {
    double angle;
    int64_t translate_x, translate_y;
    double scale, shear_x, shear_y;
};

static const struct sm_param params[] = {
    WARP_DEGREES_PARAM(struct params, "clockwise"),
    {.name = "translate",
     .type = SM_T_NUMS,
     .offset = offsetof(struct params, translate),
     .dflt = "null",
     .min = 0,
     .max = 1,
     .count_min = 2,
     .count_max = 2,
     .null_ok = true,
     .doc = "largest shift across and down, as shares of width and height; null: none"},
    {.name = "scale",
     .type = SM_T_NUMS,
     .offset = offsetof(struct params, scale),
     .dflt = "null",
     .min = 0,
     .max = 1000,
     .count_min = 2,
     .count_max = 2,
     .null_ok = true,
     .doc = "smallest and largest scale, above 0; null: none"},
    {.name = "shear",
     .type = SM_T_NUMS,
     .offset = offsetof(struct params, shear),
     .dflt = "null",
     .min = -360,
     .max = 360,
     .count_min = 2,
     .count_max = 4,
     .null_ok = true,
     .doc = "degrees along x, from [-d, d] or [min, max]; 4 numbers: along y too"},
    WARP_INTERPOLATION_PARAM(struct params),
    WARP_FILL_PARAM(struct params),
    WARP_CENTER_PARAM(struct params, "that rotation, scale and shear keep"),
};

static const struct sm_param draws[] = {
    {.name = "angle",
     .type = SM_T_NUM,
     .offset = offsetof(struct draw, angle),
     .doc = "degrees, clockwise"},
    {.name = "translate_x",
     .type = SM_T_INT,
     .offset = offsetof(struct draw, translate_x),
     .doc = "pixels to the right"},
    {.name = "translate_y",
     .type = SM_T_INT,
     .offset = offsetof(struct draw, translate_y),
     .doc = "pixels down"},
    {.name = "scale",
     .type = SM_T_NUM,
     .offset = offsetof(struct draw, scale),
     .doc = "1: as it was"},
    {.name = "shear_x",
     .type = SM_T_NUM,
     .offset = offsetof(struct draw, shear_x),
     .doc = "degrees"},
    {.name = "shear_y",
     .type = SM_T_NUM,
     .offset = offsetof(struct draw, shear_y),
     .doc = "degrees"},
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    const char *fault = warp_range_fault(&p->degrees, 0);
    if (fault) return sm_fail(err, SM_E_PIPELINE, "'degrees' %s", fault);
    fault = warp_range_fault(&p->shear, 0);
    if (!fault && p->shear.count == 4) fault = warp_range_fault(&p->shear, 1);
    if (fault) return sm_fail(err, SM_E_PIPELINE, "'shear' %s", fault);
    if (p->shear.count == 3)
        return sm_fail(err, SM_E_PIPELINE, "'shear' takes one number, 2 or 4, not 3");
    if (p->translate.scalar || p->center.scalar || p->scale.scalar)
        return sm_fail(err, SM_E_PIPELINE, "'%s' takes two numbers",
                       p->translate.scalar ? "translate"
                       : p->scale.scalar   ? "scale"
                                           : "center");
    if (p->scale.count && !(p->scale.v[0] > 0 && p->scale.v[0] <= p->scale.v[1]))
        return sm_fail(err, SM_E_PIPELINE, "'scale' must be above 0, its minimum first");
    return 0;
}

static int shape(const void *p_, const void *d_, struct sm_shape *s, struct sm_err *err) {
    (void)d_;
    const struct params *p = p_;
    return warp_shape(&p->fill, s, err);
}

/* Whole pixels, halves to the even one, as Python rounds. */
static int64_t shift_draw(double share, int size, struct sm_rng *rng) {
    double most = share * size;
    return (int64_t)nearbyint(sm_rng_uniform(rng, -most, most));
}

static void draw(const void *p_, const struct sm_shape *in, struct sm_rng *rng, void *d_) {
    const struct params *p = p_;
    struct draw *d = d_;
    *d = (struct draw){.angle = warp_range_draw(&p->degrees, 0, rng), .scale = 1};
    if (p->translate.count) {
        d->translate_x = shift_draw(p->translate.v[0], in->width, rng);
        d->translate_y = shift_draw(p->translate.v[1], in->height, rng);
    }
    if (p->scale.count) d->scale = sm_rng_uniform(rng, p->scale.v[0], p->scale.v[1]);
    if (p->shear.count) d->shear_x = warp_range_draw(&p->shear, 0, rng);
    if (p->shear.count == 4) d->shear_y = warp_range_draw(&p->shear, 1, rng);
}

static struct sm_map map_of(const struct params *p, const struct draw *d, int width, int height) {
    const double middle[2] = {width * 0.5, height * 0.5};
    const double translate[2] = {(double)d->translate_x, (double)d->translate_y};
    const double shear[2] = {d->shear_x, d->shear_y};
    return sm_map_affine(p->center.count ? p->center.v : middle, d->angle, translate, d->scale,
                         shear);
}

static int apply(const void *p_, const void *d_, struct sm_image *image, struct sm_err *err) {
    const struct params *p = p_;
    int width = sm_image_width(image), height = sm_image_height(image);
    struct sm_map map = map_of(p, d_, width, height);
    struct sm_tile now, next;
    if (sm_image_next(image, width, height, sm_image_channels(image), false, &now, &next, err) < 0)
        return -1;
    uint8_t fill[3];
    warp_fill(&p->fill, fill);
    sm_affine(&now, &next, &map, warp_filters[p->interpolation], fill);
    sm_image_swap(image);
    return 0;
}

const struct sm_op sm_op_random_affine = {
    .info = {.name = "RandomAffine",
             .doc =
                 "Rotates, shifts, scales and shears at random, with torchvision's results on PIL "
                 "images.",
             .example = "RandomAffine: {degrees: 10, translate: [0.1, 0.1], scale: [0.9, 1.1]}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params)},
    .draws = draws,
    .n_draws = sizeof draws / sizeof *draws,
    .draw_size = sizeof(struct draw),
    .check = check,
    .shape = shape,
    .draw = draw,
    .apply = apply,
};
