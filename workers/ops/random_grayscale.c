/* RandomGrayscale: makes a picture grey with probability p and keeps its channels. Draws whether;
 * workers/kernels/colour.h puts each pixel's luma in all channels, equal to Pillow's conversion to
 * L byte for byte. */
#include "workers/kernels/colour.h"
#include "workers/ops/op.h"

struct params {
    double p;
};

struct draw {
    bool gray;
};

static const struct sm_param params[] = {
    {.name = "p",
     .type = SM_T_NUM,
     .offset = offsetof(struct params, p),
     .dflt = "0.1",
     .min = 0,
     .max = 1,
     .doc = "probability"},
};

static const struct sm_param draws[] = {
    {.name = "gray",
     .type = SM_T_BOOL,
     .offset = offsetof(struct draw, gray),
     .doc = "whether it was made grey"},
};

static int shape(const void *p_, const void *d_, struct sm_shape *s, struct sm_err *err) {
    (void)p_, (void)d_;
    if (s->is_float)
        return sm_fail(err, SM_E_PIPELINE, "it cannot follow Normalize (hint: put Normalize last)");
    return 0;
}

static void draw(const void *p_, const struct sm_shape *in, struct sm_rng *rng, void *d_) {
    (void)in;
    const struct params *p = p_;
    ((struct draw *)d_)->gray = sm_rng_chance(rng, p->p);
}

static int apply(const void *p_, const void *d_, struct sm_image *image, struct sm_err *err) {
    (void)p_;
    const struct draw *d = d_;
    struct sm_tile tile;
    if (!d->gray || sm_image_channels(image) == 1) return 0;
    if (sm_image_pixels(image, &tile, err) < 0) return -1;
    sm_colour_gray(&tile);
    return 0;
}

const struct sm_op sm_op_random_grayscale = {
    .info = {.name = "RandomGrayscale",
             .doc = "Makes a picture grey with probability p; the number of channels stays.",
             .example = "RandomGrayscale: {p: 0.2}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params)},
    .draws = draws,
    .n_draws = sizeof draws / sizeof *draws,
    .draw_size = sizeof(struct draw),
    .shape = shape,
    .draw = draw,
    .apply = apply,
};
