/* RandomResizedCrop: a window of random area and aspect ratio, resized. The window is
 * torchvision's: ten tries to fit one, then the largest centred window within the ratios. The crop
 * comes before the resize, so the filter never sees pixels outside of it. */
#include "lib/limits.h"
#include "workers/ops/op.h"

#include <math.h>

enum { TRIES = 10 };

struct random_resized_crop {
    struct sm_nums size, scale, ratio;
    int interpolation;
    bool antialias;
};

struct drawn {
    int64_t top, left, height, width;
};

static const struct sm_param params[] = {
    {.name = "size",
     .type = SM_T_NUMS,
     .offset = offsetof(struct random_resized_crop, size),
     .min = 1,
     .max = SM_MAX_IMAGE_SIDE,
     .count_min = 1,
     .count_max = 2,
     .integral = true,
     .doc = "what comes out; one number: a square; or [height, width]"},
    {.name = "scale",
     .type = SM_T_NUMS,
     .offset = offsetof(struct random_resized_crop, scale),
     .dflt = "[0.08, 1.0]",
     .min = 0,
     .max = 1e6,
     .count_min = 2,
     .count_max = 2,
     .doc = "bounds of the window's share of the picture's area"},
    {.name = "ratio",
     .type = SM_T_NUMS,
     .offset = offsetof(struct random_resized_crop, ratio),
     .dflt = "[0.75, 1.3333333333333333]",
     .min = 1e-6,
     .max = 1e6,
     .count_min = 2,
     .count_max = 2,
     .doc = "bounds of the window's width divided by its height"},
    {.name = "interpolation",
     .type = SM_T_ENUM,
     .offset = offsetof(struct random_resized_crop, interpolation),
     .dflt = "bilinear",
     .choices = sm_filter_words,
     .doc = "the filter"},
    {.name = "antialias",
     .type = SM_T_BOOL,
     .offset = offsetof(struct random_resized_crop, antialias),
     .dflt = "true",
     .doc =
         "stretch bilinear and bicubic filters when shrinking, as PIL does; false: as torch's interpolate"},
};

static const struct sm_param draws[] = {
    {.name = "top",
     .type = SM_T_INT,
     .offset = offsetof(struct drawn, top),
     .doc = "first row of the window"},
    {.name = "left",
     .type = SM_T_INT,
     .offset = offsetof(struct drawn, left),
     .doc = "first column"},
    {.name = "height",
     .type = SM_T_INT,
     .offset = offsetof(struct drawn, height),
     .doc = "rows, before the resize"},
    {.name = "width",
     .type = SM_T_INT,
     .offset = offsetof(struct drawn, width),
     .doc = "columns, before the resize"},
};

static int check(const void *p, struct sm_err *err) {
    const struct random_resized_crop *r = p;
    if (r->scale.v[0] > r->scale.v[1])
        return sm_fail(err, SM_E_PIPELINE, "'scale' has its minimum %g above its maximum %g",
                       r->scale.v[0], r->scale.v[1]);
    if (r->ratio.v[0] > r->ratio.v[1])
        return sm_fail(err, SM_E_PIPELINE, "'ratio' has its minimum %g above its maximum %g",
                       r->ratio.v[0], r->ratio.v[1]);
    return 0;
}

static int shape(const void *p, const void *from, struct sm_shape *s, struct sm_err *err) {
    const struct random_resized_crop *r = p;
    (void)from;
    if (s->is_float)
        return sm_fail(err, SM_E_PIPELINE, "it cannot follow Normalize (hint: put Normalize last)");
    s->height = (int)r->size.v[0];
    s->width = (int)r->size.v[r->size.count - 1];
    return 0;
}

static int64_t clamp(int64_t v, int64_t max) {
    return v < 1 ? 1 : v > max ? max : v;
}

/* The largest window within the ratios, in the middle. */
static void draw_centre(const struct random_resized_crop *r, int64_t width, int64_t height,
                        struct drawn *d) {
    const double ratio = (double)width / (double)height;
    d->width = width;
    d->height = height;
    if (ratio < r->ratio.v[0])
        d->height = clamp((int64_t)nearbyint((double)width / r->ratio.v[0]), height);
    else if (ratio > r->ratio.v[1])
        d->width = clamp((int64_t)nearbyint((double)height * r->ratio.v[1]), width);
    d->top = (height - d->height) / 2;
    d->left = (width - d->width) / 2;
}

static void draw(const void *p, const struct sm_shape *in, struct sm_rng *rng, void *to) {
    const struct random_resized_crop *r = p;
    struct drawn *d = to;
    const double area = (double)in->width * in->height;
    /* in long double, rounded once: libm picks other code for exp and log on other processors, and
     * the last bit of a double would follow it */
    const double ratio_min = (double)logl(r->ratio.v[0]), ratio_max = (double)logl(r->ratio.v[1]);
    for (int i = 0; i < TRIES; i++) {
        const double part = area * sm_rng_uniform(rng, r->scale.v[0], r->scale.v[1]);
        const double ratio = (double)expl(sm_rng_uniform(rng, ratio_min, ratio_max));
        const double width = nearbyint(sqrt(part * ratio)), height = nearbyint(sqrt(part / ratio));
        if (!(width > 0 && width <= in->width && height > 0 && height <= in->height)) continue;
        d->width = (int64_t)width;
        d->height = (int64_t)height;
        d->top = (int64_t)sm_rng_below(rng, (uint64_t)(in->height - d->height + 1));
        d->left = (int64_t)sm_rng_below(rng, (uint64_t)(in->width - d->width + 1));
        return;
    }
    draw_centre(r, in->width, in->height, d);
}

static int apply(const void *p, const void *from, struct sm_image *image, struct sm_err *err) {
    const struct random_resized_crop *r = p;
    const struct drawn *d = from;
    sm_image_crop(image, (int)d->left, (int)d->top, (int)d->width, (int)d->height);
    return sm_image_resize(image, (int)r->size.v[r->size.count - 1], (int)r->size.v[0],
                           (enum sm_filter)r->interpolation, r->antialias, err);
}

const struct sm_op sm_op_random_resized_crop = {
    .info =
        {.name = "RandomResizedCrop",
         .doc =
             "Crops a window of random area and aspect ratio and resizes it. Only the window is decoded.",
         .example = "RandomResizedCrop: {size: 224}",
         .params = params,
         .n_params = sizeof params / sizeof *params,
         .params_size = sizeof(struct random_resized_crop)},
    .draws = draws,
    .n_draws = sizeof draws / sizeof *draws,
    .draw_size = sizeof(struct drawn),
    .check = check,
    .shape = shape,
    .draw = draw,
    .apply = apply,
};
