/* RandomRotation: turns the picture by a random angle. Draws the angle; quarter turns move pixels
 * without resampling where Pillow's Image.rotate does so, everything else is a warp of
 * workers/kernels/affine.h. Equal to Pillow byte for byte. */
#include "workers/kernels/affine.h"
#include "workers/ops/warp.h"

struct params {
    struct sm_nums degrees;
    int interpolation;
    bool expand;
    struct sm_nums center, fill;
};

struct draw {
    double angle;
};

static const struct sm_param params[] = {
    WARP_DEGREES_PARAM(struct params, "counter-clockwise"),
    WARP_INTERPOLATION_PARAM(struct params),
    {.name = "expand",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, expand),
     .dflt = "false",
     .doc = "grow the picture so that all of it stays; otherwise it keeps its size"},
    WARP_CENTER_PARAM(struct params, "to turn around, from the upper left"),
    WARP_FILL_PARAM(struct params),
};

static const struct sm_param draws[] = {
    {.name = "angle",
     .type = SM_T_NUM,
     .offset = offsetof(struct draw, angle),
     .doc = "degrees, counter-clockwise"},
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    const char *fault = warp_range_fault(&p->degrees, 0);
    if (fault) return sm_fail(err, SM_E_PIPELINE, "'degrees' %s", fault);
    if (p->center.scalar) return sm_fail(err, SM_E_PIPELINE, "'center' takes two numbers, [x, y]");
    return 0;
}

static struct sm_rotation rotation(const struct params *p, const struct draw *d, int width,
                                   int height) {
    return sm_rotation_make(width, height, d->angle, p->expand,
                            p->center.count ? p->center.v : NULL);
}

static int shape(const void *p_, const void *d_, struct sm_shape *s, struct sm_err *err) {
    const struct params *p = p_;
    if (warp_shape(&p->fill, s, err) < 0) return -1;
    if (!p->expand) return 0;
    if (!d_ || !s->width || !s->height) {
        s->width = s->height = 0;
        return 0;
    }
    struct sm_rotation r = rotation(p, d_, s->width, s->height);
    s->width = r.width;
    s->height = r.height;
    return 0;
}

static void draw(const void *p_, const struct sm_shape *in, struct sm_rng *rng, void *d_) {
    (void)in;
    const struct params *p = p_;
    ((struct draw *)d_)->angle = warp_range_draw(&p->degrees, 0, rng);
}

static int apply(const void *p_, const void *d_, struct sm_image *image, struct sm_err *err) {
    const struct params *p = p_;
    struct sm_rotation r = rotation(p, d_, sm_image_width(image), sm_image_height(image));
    if (r.quarters == 0) return 0;
    struct sm_tile now, next;
    if (sm_image_next(image, r.width, r.height, sm_image_channels(image), false, &now, &next, err) <
        0)
        return -1;
    uint8_t fill[3];
    warp_fill(&p->fill, fill);
    if (r.quarters > 0)
        sm_turn(&now, &next, r.quarters);
    else
        sm_affine(&now, &next, &r.map, warp_filters[p->interpolation], fill);
    sm_image_swap(image);
    return 0;
}

const struct sm_op sm_op_random_rotation = {
    .info = {.name = "RandomRotation",
             .doc =
                 "Turns the picture by a random angle, with the results of Pillow's Image.rotate.",
             .example = "RandomRotation: {degrees: 15, interpolation: bilinear}",
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
