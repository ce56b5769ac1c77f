/* CenterCrop: the middle of the picture; black around it when the picture is smaller. */
#include "lib/limits.h"
#include "workers/ops/op.h"

#include <math.h>

struct center_crop {
    struct sm_nums size;
};

static const struct sm_param params[] = {
    {.name = "size",
     .type = SM_T_NUMS,
     .offset = offsetof(struct center_crop, size),
     .min = 1,
     .max = SM_MAX_IMAGE_SIDE,
     .count_min = 1,
     .count_max = 2,
     .integral = true,
     .doc = "one number: a square; or [height, width]"},
};

static int shape(const void *p, const void *draw, struct sm_shape *s, struct sm_err *err) {
    const struct center_crop *c = p;
    (void)draw, (void)err;
    s->height = (int)c->size.v[0];
    s->width = (int)c->size.v[c->size.count - 1];
    return 0;
}

/* Where the picture's edge lies on the canvas: half of what is missing, or minus half of what is
 * too much, ties to even. */
static int offset(int picture, int canvas) {
    return picture < canvas ? (canvas - picture) / 2 : -(int)nearbyint((picture - canvas) / 2.0);
}

static int apply(const void *p, const void *draw, struct sm_image *image, struct sm_err *err) {
    static const double black[3] = {0};
    struct sm_shape s = {0};
    shape(p, draw, &s, err);
    return sm_image_place(image, offset(sm_image_width(image), s.width),
                          offset(sm_image_height(image), s.height), s.width, s.height,
                          SM_PAD_CONSTANT, black, err);
}

const struct sm_op sm_op_center_crop = {
    .info = {.name = "CenterCrop",
             .doc = "Crops the middle. A picture smaller than the crop is padded with black.",
             .example = "CenterCrop: {size: 224}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct center_crop)},
    .shape = shape,
    .apply = apply,
};
