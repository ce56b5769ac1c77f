/* Grayscale: makes a picture grey, with one channel or three equal ones, as torchvision's; each
 * pixel is its luma, equal to Pillow's conversion to L byte for byte. */
#include "workers/kernels/colour.h"
#include "workers/ops/op.h"

struct params {
    int64_t num_output_channels;
};

static const struct sm_param params[] = {
    {.name = "num_output_channels",
     .type = SM_T_INT,
     .offset = offsetof(struct params, num_output_channels),
     .dflt = "1",
     .min = 1,
     .max = 3,
     .doc = "1, or 3 equal ones"},
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    return p->num_output_channels != 2
               ? 0
               : sm_fail(err, SM_E_PIPELINE, "'num_output_channels' is 1 or 3, not 2");
}

static int shape(const void *p_, const void *d_, struct sm_shape *s, struct sm_err *err) {
    const struct params *p = p_;
    (void)d_;
    if (s->is_float)
        return sm_fail(err, SM_E_PIPELINE, "it cannot follow Normalize (hint: put Normalize last)");
    s->channels = (int)p->num_output_channels;
    return 0;
}

/* One channel out of three equal ones, or back. */
static void channels_change(const struct sm_tile *from, struct sm_tile *to) {
    for (int y = 0; y < from->height; y++) {
        const uint8_t *in = sm_tile_row(from, y);
        uint8_t *out = sm_tile_row(to, y);
        for (int x = 0; x < from->width; x++)
            for (int c = 0; c < to->channels; c++)
                out[x * to->channels + c] = in[x * from->channels];
    }
}

static int apply(const void *p_, const void *d_, struct sm_image *image, struct sm_err *err) {
    const struct params *p = p_;
    struct sm_tile now, to;
    (void)d_;
    if (sm_image_channels(image) == 3) {
        if (sm_image_pixels(image, &now, err) < 0) return -1;
        sm_colour_gray(&now);
    }
    if (sm_image_channels(image) == (int)p->num_output_channels) return 0;
    if (sm_image_next(image, sm_image_width(image), sm_image_height(image),
                      (int)p->num_output_channels, false, &now, &to, err) < 0)
        return -1;
    channels_change(&now, &to);
    sm_image_swap(image);
    return 0;
}

const struct sm_op sm_op_grayscale = {
    .info = {.name = "Grayscale",
             .doc = "Makes a picture grey, with one channel or three equal ones.",
             .example = "Grayscale: {num_output_channels: 3}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params)},
    .check = check,
    .shape = shape,
    .apply = apply,
};
