/* RandomCrop: a window of fixed size anywhere in the picture, after an optional border. */
#include "workers/ops/border.h"

struct random_crop {
    struct sm_nums size, padding, fill;
    bool pad_if_needed;
    int padding_mode;
};

struct drawn {
    int64_t top, left; /* of the crop, in the padded picture */
    int64_t height, width;
};

static const struct sm_param params[] = {
    {.name = "size",
     .type = SM_T_NUMS,
     .offset = offsetof(struct random_crop, size),
     .min = 1,
     .max = SM_MAX_IMAGE_SIDE,
     .count_min = 1,
     .count_max = 2,
     .integral = true,
     .doc = "one number: a square; or [height, width]"},
    BORDER_PADDING_PARAM(struct random_crop, "pixels of border before the crop", .dflt = "null",
                         .null_ok = true),
    {.name = "pad_if_needed",
     .type = SM_T_BOOL,
     .offset = offsetof(struct random_crop, pad_if_needed),
     .dflt = "false",
     .doc =
         "pad a picture that is smaller than the crop, by what is missing on both sides; else it is an error"},
    BORDER_FILL_PARAM(struct random_crop),
    BORDER_MODE_PARAM(struct random_crop),
};

static const struct sm_param draws[] = {
    {.name = "top",
     .type = SM_T_INT,
     .offset = offsetof(struct drawn, top),
     .doc = "first row, in the padded picture"},
    {.name = "left",
     .type = SM_T_INT,
     .offset = offsetof(struct drawn, left),
     .doc = "first column"},
    {.name = "height", .type = SM_T_INT, .offset = offsetof(struct drawn, height), .doc = "rows"},
    {.name = "width", .type = SM_T_INT, .offset = offsetof(struct drawn, width), .doc = "columns"},
};

static int check(const void *p, struct sm_err *err) {
    const struct random_crop *c = p;
    return border_check(&c->padding, &c->fill, err);
}

/* The border around a picture of this size. */
static struct border border(const struct random_crop *c, int width, int height) {
    struct border b = border_of(&c->padding);
    if (!c->pad_if_needed) return b;
    int missing_x = (int)c->size.v[c->size.count - 1] - (width + b.left + b.right);
    int missing_y = (int)c->size.v[0] - (height + b.top + b.bottom);
    if (missing_x > 0) {
        b.left += missing_x;
        b.right += missing_x;
    }
    if (missing_y > 0) {
        b.top += missing_y;
        b.bottom += missing_y;
    }
    return b;
}

static int shape(const void *p, const void *draw, struct sm_shape *s, struct sm_err *err) {
    const struct random_crop *c = p;
    const int height = (int)c->size.v[0], width = (int)c->size.v[c->size.count - 1];
    (void)draw;
    if (s->width > 0 && s->height > 0) {
        struct border b = border(c, s->width, s->height);
        if (s->width + b.left + b.right < width || s->height + b.top + b.bottom < height)
            return sm_fail(
                err, SM_E_OP,
                "a crop of %d x %d is larger than the picture of %d x %d (hint: pad_if_needed: true)",
                width, height, s->width, s->height);
    }
    s->height = height;
    s->width = width;
    return 0;
}

static void draw(const void *p, const struct sm_shape *in, struct sm_rng *rng, void *to) {
    const struct random_crop *c = p;
    struct drawn *d = to;
    struct border b = border(c, in->width, in->height);
    d->height = (int64_t)c->size.v[0];
    d->width = (int64_t)c->size.v[c->size.count - 1];
    const int64_t down = in->height + b.top + b.bottom - d->height;
    const int64_t across = in->width + b.left + b.right - d->width;
    d->top = down > 0 ? (int64_t)sm_rng_below(rng, (uint64_t)down + 1) : 0;
    d->left = across > 0 ? (int64_t)sm_rng_below(rng, (uint64_t)across + 1) : 0;
}

static int apply(const void *p, const void *from, struct sm_image *image, struct sm_err *err) {
    const struct random_crop *c = p;
    const struct drawn *d = from;
    struct border b = border(c, sm_image_width(image), sm_image_height(image));
    double fill[3];
    border_fill(&c->fill, fill);
    return sm_image_place(image, b.left - (int)d->left, b.top - (int)d->top, (int)d->width,
                          (int)d->height, (enum sm_padding)c->padding_mode, fill, err);
}

const struct sm_op sm_op_random_crop = {
    .info = {.name = "RandomCrop",
             .doc = "Crops a window of fixed size at a random place, after an optional border.",
             .example = "RandomCrop: {size: 32, padding: 4}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct random_crop)},
    .draws = draws,
    .n_draws = sizeof draws / sizeof *draws,
    .draw_size = sizeof(struct drawn),
    .check = check,
    .shape = shape,
    .draw = draw,
    .apply = apply,
};
