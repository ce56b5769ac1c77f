/* Pad: a border on each side. */
#include "lib/limits.h"
#include "workers/ops/op.h"

struct pad {
    struct sm_nums padding, fill;
    int padding_mode;
};

static const struct sm_param params[] = {
    {.name = "padding",
     .type = SM_T_NUMS,
     .offset = offsetof(struct pad, padding),
     .min = 0,
     .max = SM_MAX_IMAGE_SIDE,
     .count_min = 1,
     .count_max = 4,
     .integral = true,
     .doc =
         "pixels: one for all sides, [left and right, top and bottom], or [left, top, right, bottom]"},
    {.name = "fill",
     .type = SM_T_NUMS,
     .offset = offsetof(struct pad, fill),
     .dflt = "0",
     .min = 0,
     .max = 255,
     .count_min = 1,
     .count_max = 3,
     .doc = "one value, or one for each channel; for padding_mode constant"},
    {.name = "padding_mode",
     .type = SM_T_ENUM,
     .offset = offsetof(struct pad, padding_mode),
     .dflt = "constant",
     .choices = sm_padding_words,
     .doc =
         "constant, edge (the last pixel again), reflect or symmetric (mirrored without or with the last pixel)"},
};

static int check(const void *p, struct sm_err *err) {
    const struct pad *a = p;
    if (a->padding.count == 3)
        return sm_fail(err, SM_E_PIPELINE,
                       "'padding' is a list of 3 numbers (hint: give 1, 2 or 4)");
    if (a->fill.count == 2)
        return sm_fail(err, SM_E_PIPELINE, "'fill' is a list of 2 numbers (hint: give 1 or 3)");
    return 0;
}

struct sides {
    int left, top, right, bottom;
};

static struct sides sides(const struct pad *a) {
    const double *v = a->padding.v;
    const int n = a->padding.count;
    return (struct sides){(int)v[0], (int)v[n == 1 ? 0 : 1], (int)v[n == 4 ? 2 : 0],
                          (int)v[n == 4   ? 3
                                 : n == 2 ? 1
                                          : 0]};
}

static int shape(const void *p, const void *draw, struct sm_shape *s, struct sm_err *err) {
    const struct sides b = sides(p);
    (void)draw, (void)err;
    if (s->width > 0) s->width += b.left + b.right;
    if (s->height > 0) s->height += b.top + b.bottom;
    return 0;
}

static int apply(const void *p, const void *draw, struct sm_image *image, struct sm_err *err) {
    const struct pad *a = p;
    const struct sides b = sides(a);
    double fill[3];
    (void)draw;
    for (int c = 0; c < 3; c++)
        fill[c] = a->fill.v[a->fill.count == 3 ? c : 0];
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
