/* Flatten: the image becomes a row, channel by channel, line by line, of values between 0 and 1 (or
 * what Normalize made of them). Nothing happens to the pixels: the engine writes a tensor of
 * float32, and the ops behind this one work on it (workers/features.h). */
#include "workers/ops/op.h"

static int shape(const void *params, const void *draw, struct sm_shape *shape, struct sm_err *err) {
    (void)params, (void)draw, (void)shape, (void)err;
    return 0;
}

static int apply(const void *params, const void *draw, struct sm_image *image, struct sm_err *err) {
    (void)params, (void)draw, (void)image, (void)err;
    return 0;
}

const struct sm_op sm_op_flatten = {
    .info = {.name = "Flatten",
             .doc = "Makes a row of an image, channel by channel: what follows works on rows.",
             .example = "Flatten"},
    .shape = shape,
    .apply = apply,
};
