/* ColorJitter: changes brightness, contrast, saturation and hue by random factors, in a random
 * order. Draws the order and the factors; workers/kernels/colour.h changes the pixels in place,
 * equal to torchvision on PIL images byte for byte. */
#include "workers/kernels/colour.h"
#include "workers/ops/op.h"

/* In the order of torchvision's fn_idx. */
enum { BRIGHTNESS, CONTRAST, SATURATION, HUE, KINDS };
static const char *const kind_names[KINDS] = {"brightness", "contrast", "saturation", "hue"};

struct params {
    struct sm_nums jitter[KINDS];
};

struct draw {
    struct sm_nums order;         /* a permutation of the kinds */
    struct sm_nums factor[KINDS]; /* null when the kind is off */
};

#define FACTOR_MAX 1000
#define PARAM(kind, word, lowest, highest, text)                                                \
    {                                                                                           \
        .name = word, .type = SM_T_NUMS, .offset = offsetof(struct params, jitter[kind]),       \
        .dflt = "0", .min = lowest, .max = highest, .count_min = 2, .count_max = 2, .doc = text \
    }

static const struct sm_param params[] = {
    PARAM(BRIGHTNESS, "brightness", 0, FACTOR_MAX,
          "factor from [max(0, 1 - b), 1 + b] for one number b, or from [min, max]; 0: off"),
    PARAM(CONTRAST, "contrast", 0, FACTOR_MAX, "as brightness, away from the picture's mean grey"),
    PARAM(SATURATION, "saturation", 0, FACTOR_MAX, "as brightness, away from each pixel's grey"),
    PARAM(HUE, "hue", -0.5, 0.5,
          "share of the circle, from [-h, h] for one number h, or from [min, max]; 0: off"),
};

#define DRAW(kind, word, text)                                                          \
    {                                                                                   \
        .name = word, .type = SM_T_NUMS, .offset = offsetof(struct draw, factor[kind]), \
        .null_ok = true, .doc = text                                                    \
    }

static const struct sm_param draws[] = {
    {.name = "order",
     .type = SM_T_NUMS,
     .offset = offsetof(struct draw, order),
     .count_min = KINDS,
     .count_max = KINDS,
     .integral = true,
     .doc = "what comes first: 0 brightness, 1 contrast, 2 saturation, 3 hue"},
    DRAW(BRIGHTNESS, "brightness", "factor; null: off"),
    DRAW(CONTRAST, "contrast", "factor; null: off"),
    DRAW(SATURATION, "saturation", "factor; null: off"),
    DRAW(HUE, "hue", "share of the colour circle; null: off"),
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    for (int k = 0; k < KINDS; k++) {
        const struct sm_nums *n = &p->jitter[k];
        if (n->scalar && n->v[0] < 0)
            return sm_fail(err, SM_E_PIPELINE, "'%s' must not be negative when it is one number",
                           kind_names[k]);
        if (!n->scalar && n->v[0] > n->v[1])
            return sm_fail(err, SM_E_PIPELINE, "'%s' has its minimum above its maximum",
                           kind_names[k]);
    }
    return 0;
}

static int shape(const void *p_, const void *d_, struct sm_shape *s, struct sm_err *err) {
    (void)p_, (void)d_;
    if (s->is_float)
        return sm_fail(err, SM_E_PIPELINE, "it cannot follow Normalize (hint: put Normalize last)");
    return 0;
}

/* The factor that leaves the picture as it is. */
static double neutral(int kind) {
    return kind == HUE ? 0 : 1;
}

static struct sm_nums factor_draw(const struct sm_nums *n, int kind, struct sm_rng *rng) {
    double middle = neutral(kind), lo = n->v[0], hi = n->v[1];
    if (n->scalar) {
        lo = middle - n->v[0];
        hi = middle + n->v[0];
        if (kind != HUE && lo < 0) lo = 0;
    }
    if (lo == middle && hi == middle) return (struct sm_nums){.count = 0};
    return (struct sm_nums){.count = 1, .scalar = true, .v = {sm_rng_uniform(rng, lo, hi)}};
}

static void draw(const void *p_, const struct sm_shape *in, struct sm_rng *rng, void *d_) {
    (void)in;
    const struct params *p = p_;
    struct draw *d = d_;
    d->order = (struct sm_nums){.count = KINDS, .v = {BRIGHTNESS, CONTRAST, SATURATION, HUE}};
    for (int i = KINDS - 1; i > 0; i--) {
        uint64_t j = sm_rng_below(rng, (uint64_t)i + 1);
        double t = d->order.v[i];
        d->order.v[i] = d->order.v[j];
        d->order.v[j] = t;
    }
    for (int k = 0; k < KINDS; k++)
        d->factor[k] = factor_draw(&p->jitter[k], k, rng);
}

static void change(struct sm_tile *tile, int kind, double factor) {
    switch (kind) {
    case BRIGHTNESS:
        sm_colour_blend(tile, 0, factor);
        break;
    case CONTRAST:
        sm_colour_blend(tile, sm_colour_mean(tile), factor);
        break;
    case SATURATION:
        sm_colour_saturate(tile, factor);
        break;
    case HUE:
        sm_colour_hue(tile, factor);
        break;
    }
}

static int apply(const void *p_, const void *d_, struct sm_image *image, struct sm_err *err) {
    (void)p_;
    const struct draw *d = d_;
    struct sm_tile tile;
    bool ready = false; /* nothing is decoded when every kind is off */
    for (int i = 0; i < KINDS; i++) {
        int kind = (int)d->order.v[i];
        if (!d->factor[kind].count) continue;
        if (!ready && sm_image_pixels(image, &tile, err) < 0) return -1;
        ready = true;
        change(&tile, kind, d->factor[kind].v[0]);
    }
    return 0;
}

const struct sm_op sm_op_color_jitter = {
    .info =
        {.name = "ColorJitter",
         .doc =
             "Changes brightness, contrast, saturation and hue at random, in a random order, with "
             "torchvision's results on PIL images.",
         .example = "ColorJitter: {brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}",
         .params = params,
         .n_params = sizeof params / sizeof *params,
         .params_size = sizeof(struct params)},
    .draws = draws,
    .n_draws = sizeof draws / sizeof *draws,
    .draw_size = sizeof(struct draw),
    .check = check,
    .shape = shape,
    .draw = draw,
    .apply = apply,
};
