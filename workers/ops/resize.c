/* Resize: to a fixed size, or so that the shorter side has a given length. */
#include "lib/limits.h"
#include "workers/ops/op.h"

struct resize {
    struct sm_nums size, max_size;
    int interpolation;
    bool antialias;
};

static const struct sm_param params[] = {
    {.name = "size",
     .type = SM_T_NUMS,
     .offset = offsetof(struct resize, size),
     .min = 1,
     .max = SM_MAX_IMAGE_SIDE,
     .count_min = 1,
     .count_max = 2,
     .integral = true,
     .doc = "one number: the shorter side, the other keeps the ratio; or [height, width]"},
    {.name = "interpolation",
     .type = SM_T_ENUM,
     .offset = offsetof(struct resize, interpolation),
     .dflt = "bilinear",
     .choices = sm_filter_words,
     .doc = "the filter"},
    {.name = "max_size",
     .type = SM_T_NUMS,
     .offset = offsetof(struct resize, max_size),
     .dflt = "null",
     .min = 1,
     .max = SM_MAX_IMAGE_SIDE,
     .count_min = 1,
     .count_max = 1,
     .null_ok = true,
     .integral = true,
     .doc = "the longer side is not made longer than this; only with one number as size"},
    {.name = "antialias",
     .type = SM_T_BOOL,
     .offset = offsetof(struct resize, antialias),
     .dflt = "true",
     .doc =
         "stretch bilinear and bicubic filters when shrinking, as PIL does; false: as torch's interpolate"},
};

static int check(const void *p, struct sm_err *err) {
    const struct resize *r = p;
    if (r->max_size.count == 0) return 0;
    if (r->size.count == 2)
        return sm_fail(
            err, SM_E_PIPELINE,
            "'max_size' needs 'size' to be one number (hint: with [height, width] both sides are fixed)");
    if (r->max_size.v[0] <= r->size.v[0])
        return sm_fail(err, SM_E_PIPELINE, "'max_size' must be greater than 'size', %g",
                       r->size.v[0]);
    return 0;
}

static int at_least_1(int v) {
    return v < 1 ? 1 : v;
}

static int shape(const void *p, const void *draw, struct sm_shape *s, struct sm_err *err) {
    const struct resize *r = p;
    (void)draw;
    if (s->is_float)
        return sm_fail(err, SM_E_PIPELINE, "it cannot follow Normalize (hint: put Normalize last)");
    if (r->size.count == 2) {
        s->height = (int)r->size.v[0];
        s->width = (int)r->size.v[1];
        return 0;
    }
    if (s->width == 0 || s->height == 0) {
        s->width = s->height = 0;
        return 0;
    }
    const bool tall = s->width <= s->height;
    int near = (int)r->size.v[0];
    /* in double, because Python divides so: int(size * long / short) */
    double ratio = (double)near * (tall ? s->height : s->width) / (tall ? s->width : s->height);
    int far = ratio > 1e9 ? (int)1e9 : (int)ratio;
    if (r->max_size.count > 0 && far > r->max_size.v[0]) {
        near = (int)(r->max_size.v[0] * near / far);
        far = (int)r->max_size.v[0];
    }
    s->width = at_least_1(tall ? near : far);
    s->height = at_least_1(tall ? far : near);
    return 0;
}

static int apply(const void *p, const void *draw, struct sm_image *image, struct sm_err *err) {
    const struct resize *r = p;
    struct sm_shape s = {.width = sm_image_width(image), .height = sm_image_height(image)};
    if (shape(p, draw, &s, err) != 0) return -1;
    return sm_image_resize(image, s.width, s.height, (enum sm_filter)r->interpolation, r->antialias,
                           err);
}

const struct sm_op sm_op_resize = {
    .info = {.name = "Resize",
             .doc = "Resamples to a size. Shrinking with antialias equals PIL's resize.",
             .example = "Resize: {size: 256}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct resize)},
    .check = check,
    .shape = shape,
    .apply = apply,
};
