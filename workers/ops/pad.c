/* Pad: a border on each side. */
#include "workers/ops/border.h"

struct pad {
    struct sm_nums padding, fill;
    int padding_mode;
};

static const struct sm_param params[] = {
    BORDER_PADDING_PARAM(struct pad, "pixels", .null_ok = false),
    BORDER_FILL_PARAM(struct pad),
    BORDER_MODE_PARAM(struct pad),
};

static int check(const void *p, struct sm_err *err) {
    const struct pad *a = p;
    return border_check(&a->padding, &a->fill, err);
}

static int shape(const void *p, const void *draw, struct sm_shape *s, struct sm_err *err) {
    const struct border b = border_of(&((const struct pad *)p)->padding);
    (void)draw, (void)err;
    if (s->width > 0) s->width += b.left + b.right;
    if (s->height > 0) s->height += b.top + b.bottom;
    return 0;
}

static int apply(const void *p, const void *draw, struct sm_image *image, struct sm_err *err) {
    const struct pad *a = p;
    const struct border b = border_of(&a->padding);
    double fill[3];
    (void)draw;
    border_fill(&a->fill, fill);
    return sm_image_place(image, b.left, b.top, sm_image_width(image) + b.left + b.right,
                          sm_image_height(image) + b.top + b.bottom,
                          (enum sm_padding)a->padding_mode, fill, err);
}

const struct sm_op sm_op_pad = {
    .info = {.name = "Pad",
             .doc = "Adds a border to each side.",
             .example = "Pad: {padding: [4, 8], padding_mode: reflect}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct pad)},
    .check = check,
    .shape = shape,
    .apply = apply,
};
