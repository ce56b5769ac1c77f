/* Normalize: from bytes to float32, (v / 255 - mean) / std for each channel. The last op of a chain
 * whose result is a tensor; it happens while the tensor is written. */
#include "workers/ops/op.h"

struct normalize {
    struct sm_nums mean, std;
};

static const struct sm_param params[] = {
    {.name = "mean",
     .type = SM_T_NUMS,
     .offset = offsetof(struct normalize, mean),
     .min = -1e6,
     .max = 1e6,
     .count_min = 1,
     .count_max = 3,
     .doc = "one value a channel (or one for all), of values between 0 and 1"},
    {.name = "std",
     .type = SM_T_NUMS,
     .offset = offsetof(struct normalize, std),
     .min = 1e-12,
     .max = 1e6,
     .count_min = 1,
     .count_max = 3,
     .doc = "one value a channel (or one for all), of values between 0 and 1"},
};

static int check(const void *p, struct sm_err *err) {
    const struct normalize *n = p;
    if (n->mean.count == 2 || n->std.count == 2)
        return sm_fail(err, SM_E_PIPELINE, "'%s' is a list of 2 numbers (hint: give 1 or 3)",
                       n->mean.count == 2 ? "mean" : "std");
    return 0;
}

static int shape(const void *p, const void *draw, struct sm_shape *s, struct sm_err *err) {
    const struct normalize *n = p;
    (void)draw;
    if (s->is_float) return sm_fail(err, SM_E_PIPELINE, "the image is normalized already");
    if (s->channels == 1 && (n->mean.count == 3 || n->std.count == 3))
        return sm_fail(
            err, SM_E_PIPELINE,
            "3 values for an image of 1 channel (hint: source: {mode: RGB}, or give 1 value)");
    s->is_float = true;
    return 0;
}

static int apply(const void *p, const void *draw, struct sm_image *image, struct sm_err *err) {
    const struct normalize *n = p;
    float mean[3], std[3];
    (void)draw;
    for (int c = 0; c < 3; c++) {
        mean[c] = (float)n->mean.v[n->mean.count == 3 ? c : 0];
        std[c] = (float)n->std.v[n->std.count == 3 ? c : 0];
    }
    return sm_image_normalize(image, mean, std, err);
}

const struct sm_op sm_op_normalize = {
    .info =
        {.name = "Normalize",
         .doc =
             "Makes float32 of bytes: (v / 255 - mean) / std. Needs encode: tensor and a float dtype.",
         .example = "Normalize: {mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}",
         .params = params,
         .n_params = sizeof params / sizeof *params,
         .params_size = sizeof(struct normalize)},
    .check = check,
    .shape = shape,
    .apply = apply,
};
