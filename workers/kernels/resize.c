/* Resampling: the weights of an axis, the plain loops over them, and the choice between plain and
 * vector loops. Called by workers/image.c with the window that the ops asked for; the result goes
 * on down the chain. */
#include "workers/kernels/resize.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_BITS = 22 };

static int resize_antialiased(struct sm_resizer *r, const struct sm_tile *in,
                              const struct sm_tile *out, enum sm_filter filter, struct sm_err *err);
static int resize_nearest(struct sm_resizer *r, const struct sm_tile *in, const struct sm_tile *out,
                          bool exact, struct sm_err *err);
static int resize_points(struct sm_resizer *r, const struct sm_tile *in, const struct sm_tile *out,
                         bool cubic, struct sm_err *err);

void sm_resizer_init(struct sm_resizer *r) {
    const char *kernels = getenv("SHARDMILL_KERNELS");
    *r = (struct sm_resizer){.reference = kernels != NULL && strcmp(kernels, "reference") == 0};
}

static void axis_release(struct sm_resize_axis *a) {
    free(a->first);
    free(a->count);
    free(a->weight);
    free(a->packed);
}

void sm_resizer_release(struct sm_resizer *r) {
    axis_release(&r->x);
    axis_release(&r->y);
    sm_block_release(&r->between);
    *r = (struct sm_resizer){0};
}

int sm_resize(struct sm_resizer *r, const struct sm_tile *in, const struct sm_tile *out,
              enum sm_filter filter, bool antialias, struct sm_err *err) {
    assert(!in->is_float && !out->is_float && in->channels == out->channels);
    assert(in->width > 0 && in->height > 0 && out->width > 0 && out->height > 0);
    if (filter == SM_NEAREST || filter == SM_NEAREST_EXACT)
        return resize_nearest(r, in, out, filter == SM_NEAREST_EXACT, err);
    if (!antialias && (filter == SM_BILINEAR || filter == SM_BICUBIC))
        return resize_points(r, in, out, filter == SM_BICUBIC, err);
    return resize_antialiased(r, in, out, filter, err);
}

/* --- weights --- */

static double filter_box(double x) {
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

static double filter_bilinear(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double filter_hamming(double x) {
    x = fabs(x);
    if (x == 0.0) return 1.0;
    if (x >= 1.0) return 0.0;
    x *= M_PI;
    return sin(x) / x * (0.54f + 0.46f * cos(x));
}

/* Keys' cubic with a = -0.5. */
static double filter_bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= M_PI;
    return sin(x) / x;
}

static double filter_lanczos(double x) {
    return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

static const struct {
    double (*at)(double);
    double support;
} filters[] = {
    [SM_BILINEAR] = {filter_bilinear, 1.0}, [SM_BICUBIC] = {filter_bicubic, 2.0},
    [SM_BOX] = {filter_box, 0.5},           [SM_HAMMING] = {filter_hamming, 1.0},
    [SM_LANCZOS] = {filter_lanczos, 3.0},
};

/* Room for `outs` outputs and `weights` weights; keeps what is large enough. */
static int axis_reserve(struct sm_resize_axis *a, size_t outs, size_t weights, struct sm_err *err) {
    if (outs > a->outs_cap) {
        free(a->first);
        free(a->count);
        a->first = malloc(outs * sizeof *a->first);
        a->count = malloc(outs * sizeof *a->count);
        a->outs_cap = a->first != NULL && a->count != NULL ? outs : 0;
    }
    if (weights > a->weights_cap) {
        free(a->weight);
        a->weight = malloc(weights * sizeof *a->weight);
        a->weights_cap = a->weight != NULL ? weights : 0;
    }
    if (outs > a->outs_cap || weights > a->weights_cap)
        return sm_fail(err, SM_E_MEMORY, "no memory for the weights of a resize to %zu pixels",
                       outs);
    return 0;
}

static int32_t weight_round(double w) {
    return (int32_t)(w < 0 ? -0.5 + w * (1 << WEIGHT_BITS) : 0.5 + w * (1 << WEIGHT_BITS));
}

int sm_resize_weights(struct sm_resize_axis *a, int in, int out, enum sm_filter filter,
                      struct sm_err *err) {
    const double scale = (double)in / out, stretch = scale < 1.0 ? 1.0 : scale;
    const double support = filters[filter].support * stretch, step = 1.0 / stretch;
    const int taps = (int)ceil(support) * 2 + 1;
    if (axis_reserve(a, (size_t)out, (size_t)out * (size_t)taps, err) != 0) return -1;
    double *w = malloc((size_t)taps * sizeof *w);
    if (w == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for the weights of a resize");
    a->out = out;
    a->taps = taps;
    for (int i = 0; i < out; i++) {
        double centre = (i + 0.5) * scale, sum = 0.0;
        int first = (int)(centre - support + 0.5), end = (int)(centre + support + 0.5);
        if (first < 0) first = 0;
        if (end > in) end = in;
        int count = end - first;
        for (int t = 0; t < count; t++)
            sum += w[t] = filters[filter].at((t + first - centre + 0.5) * step);
        int32_t *to = a->weight + (size_t)i * (size_t)taps;
        for (int t = 0; t < count; t++)
            to[t] = weight_round(sum != 0.0 ? w[t] / sum : w[t]);
        memset(to + count, 0, (size_t)(taps - count) * sizeof *to);
        a->first[i] = first;
        a->count[i] = count;
    }
    free(w);
    return 0;
}

/* --- the two passes, plainly --- */

static uint8_t clip(int32_t sum) {
    sum >>= WEIGHT_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void resize_rows(const struct sm_resize_axis *x, const struct sm_tile *in,
                        const struct sm_tile *out) {
    for (int row = 0; row < out->height; row++) {
        const uint8_t *from = in->u8 + (size_t)row * in->stride;
        uint8_t *to = out->u8 + (size_t)row * out->stride;
        for (int i = 0; i < out->width; i++) {
            const int32_t *weight = x->weight + (size_t)i * (size_t)x->taps;
            for (int c = 0; c < in->channels; c++) {
                int32_t sum = 1 << (WEIGHT_BITS - 1);
                for (int t = 0; t < x->count[i]; t++)
                    sum += from[(x->first[i] + t) * in->channels + c] * weight[t];
                *to++ = clip(sum);
            }
        }
    }
}

static void resize_columns(const struct sm_resize_axis *y, const struct sm_tile *in,
                           const struct sm_tile *out) {
    const int n = out->width * out->channels;
    for (int row = 0; row < out->height; row++) {
        const uint8_t *from = in->u8 + (size_t)y->first[row] * in->stride;
        const int32_t *weight = y->weight + (size_t)row * (size_t)y->taps;
        uint8_t *to = out->u8 + (size_t)row * out->stride;
        for (int i = 0; i < n; i++) {
            int32_t sum = 1 << (WEIGHT_BITS - 1);
            for (int t = 0; t < y->count[row]; t++)
                sum += from[(size_t)t * in->stride + (size_t)i] * weight[t];
            to[i] = clip(sum);
        }
    }
}

static void copy_rows(const struct sm_tile *in, const struct sm_tile *out) {
    for (int row = 0; row < out->height; row++)
        memcpy(out->u8 + (size_t)row * out->stride, in->u8 + (size_t)row * in->stride,
               (size_t)out->width * (size_t)out->channels);
}

static int pass_rows(struct sm_resizer *r, const struct sm_tile *in, const struct sm_tile *out,
                     enum sm_filter filter, struct sm_err *err) {
    if (sm_resize_weights(&r->x, in->width, out->width, filter, err) != 0) return -1;
    if (r->reference || in->channels != 3 || !sm_resize_avx2_ok()) {
        resize_rows(&r->x, in, out);
        return 0;
    }
    if (sm_resize_avx2_pack(&r->x, err) != 0) return -1;
    sm_resize_avx2_rows(&r->x, in, out);
    return 0;
}

static int pass_columns(struct sm_resizer *r, const struct sm_tile *in, const struct sm_tile *out,
                        enum sm_filter filter, struct sm_err *err) {
    if (sm_resize_weights(&r->y, in->height, out->height, filter, err) != 0) return -1;
    if (r->reference || !sm_resize_avx2_ok())
        resize_columns(&r->y, in, out);
    else
        sm_resize_avx2_columns(&r->y, in, out);
    return 0;
}

static int resize_antialiased(struct sm_resizer *r, const struct sm_tile *in,
                              const struct sm_tile *out, enum sm_filter filter,
                              struct sm_err *err) {
    const bool across = in->width != out->width, down = in->height != out->height;
    if (!across && !down) {
        copy_rows(in, out);
        return 0;
    }
    if (!down) return pass_rows(r, in, out, filter, err);
    if (!across) return pass_columns(r, in, out, filter, err);

    struct sm_tile between = *out;
    between.height = in->height;
    between.stride = ((size_t)out->width * (size_t)out->channels + 63) & ~(size_t)63;
    if (sm_block_reserve(&r->between, between.stride * (size_t)in->height, err) != 0) return -1;
    between.u8 = r->between.data;
    if (pass_rows(r, in, &between, filter, err) != 0) return -1;
    return pass_columns(r, &between, out, filter, err);
}

/* --- nearest, and torch's point sampling --- */

/* Torch's `nearest` takes the upper left of what a pixel covers. */
static int nearest_index(int i, int in, int out) {
    int at = (int)floorf((float)i * ((float)in / (float)out));
    return at < in ? at : in - 1;
}

/* `nearest-exact` takes the middle, which Pillow reaches by adding up in doubles. */
static int nearest_next(double *middle, int in, int out) {
    int at = (int)*middle;
    *middle += (double)in / out;
    return at < in ? at : in - 1;
}

static int resize_nearest(struct sm_resizer *r, const struct sm_tile *in, const struct sm_tile *out,
                          bool exact, struct sm_err *err) {
    if (axis_reserve(&r->x, (size_t)out->width, 0, err) != 0) return -1;
    const int channels = in->channels;
    double x = (double)in->width / out->width * 0.5, y = (double)in->height / out->height * 0.5;
    for (int i = 0; i < out->width; i++)
        r->x.first[i] = channels * (exact ? nearest_next(&x, in->width, out->width)
                                          : nearest_index(i, in->width, out->width));
    for (int row = 0; row < out->height; row++) {
        const int at = exact ? nearest_next(&y, in->height, out->height)
                             : nearest_index(row, in->height, out->height);
        const uint8_t *from = in->u8 + (size_t)at * in->stride;
        uint8_t *to = out->u8 + (size_t)row * out->stride;
        for (int i = 0; i < out->width; i++, to += channels)
            for (int c = 0; c < channels; c++)
                to[c] = from[r->x.first[i] + c];
    }
    return 0;
}

/* The taps of one output: up to four source indices, clamped to the border, and their float
 * weights. */
struct point {
    int at[4];
    float weight[4];
};

static float cubic_near(float x, float a) {
    return ((a + 2) * x - (a + 3)) * x * x + 1;
}

static float cubic_far(float x, float a) {
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
}

static struct point point_at(int i, float scale, int in, bool cubic) {
    struct point p = {0};
    float at = scale * ((float)i + 0.5f) - 0.5f;
    if (!cubic && at < 0) at = 0;
    const int base = (int)floorf(at);
    const float t = at - (float)base;
    if (cubic) {
        const float a = -0.75f;
        p.weight[0] = cubic_far(t + 1, a);
        p.weight[1] = cubic_near(t, a);
        p.weight[2] = cubic_near(1 - t, a);
        p.weight[3] = cubic_far(2 - t, a);
    } else {
        p.weight[1] = 1 - t;
        p.weight[2] = t;
    }
    for (int k = 0; k < 4; k++) {
        int index = base - 1 + k;
        p.at[k] = index < 0 ? 0 : index >= in ? in - 1 : index;
    }
    return p;
}

static float point_row(const uint8_t *from, const struct point *x, int channels, int c) {
    float sum = 0;
    for (int k = 0; k < 4; k++)
        sum += x->weight[k] * (float)from[x->at[k] * channels + c];
    return sum;
}

static uint8_t round_clip(float v) {
    return (uint8_t)(v <= 0 ? 0 : v >= 255 ? 255 : nearbyintf(v));
}

static int resize_points(struct sm_resizer *r, const struct sm_tile *in, const struct sm_tile *out,
                         bool cubic, struct sm_err *err) {
    struct point *xs = malloc((size_t)out->width * sizeof *xs);
    if (xs == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for a resize");
    (void)r;
    for (int i = 0; i < out->width; i++)
        xs[i] = point_at(i, (float)in->width / (float)out->width, in->width, cubic);
    for (int row = 0; row < out->height; row++) {
        const struct point y =
            point_at(row, (float)in->height / (float)out->height, in->height, cubic);
        uint8_t *to = out->u8 + (size_t)row * out->stride;
        for (int i = 0; i < out->width; i++)
            for (int c = 0; c < in->channels; c++) {
                float sum = 0;
                for (int k = 0; k < 4; k++)
                    if (y.weight[k] != 0)
                        sum += y.weight[k] * point_row(in->u8 + (size_t)y.at[k] * in->stride,
                                                       &xs[i], in->channels, c);
                *to++ = round_clip(sum);
            }
    }
    free(xs);
    return 0;
}
