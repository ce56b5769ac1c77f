/* The sheet of images that become features: what PCA has learned as pictures, and samples beside
 * what their features keep of them. The ops behind Flatten are undone from PCA back to the pixels,
 * as far as each can be. Before: preview.c has made or found the fits. After: sheet.c draws. */
#include "cli/preview_inverse.h"
#include "cli/preview_state.h"
#include "workers/chain.h"
#include "workers/features.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COLUMNS = 6, COMPONENTS_MAX = 16, SHOWN_FEATURES = 12 };

/* How numbers become grey: as the pixels that they are, or around 0. */
enum shading { AS_PIXELS, AROUND_ZERO };

struct feature_sheet {
    struct preview *v;
    struct preview_inverse inverse;
    struct sm_features *features; /* up to PCA, whose features are undone; without it, of all ops */
    size_t pixels;                /* channels x height x width */
    struct sm_rows in, out;       /* of one sample */
    double *x;                    /* pixels numbers */
    uint8_t *picture;
    int zoom; /* small pictures are shown larger, by a whole factor */
};

static int prepare(struct feature_sheet *s, struct sm_err *err);
static int add_learned(struct feature_sheet *s, struct sm_err *err);
static int add_sample(struct feature_sheet *s, uint64_t sample, struct sm_err *err);

int preview_rows(struct preview *v, struct sm_err *err) {
    struct feature_sheet s = {.v = v};
    int r = preview_choose(v, err);
    if (r == 0) r = prepare(&s, err);
    if (r == 0) r = add_learned(&s, err);
    for (size_t i = 0; r == 0 && i < v->n_samples; i++)
        r = add_sample(&s, v->samples[i], err);
    if (r == 0) r = sm_sheet_write(&v->sheet, v->options->out_path, err);
    preview_inverse_release(&s.inverse);
    sm_features_free(&s.features);
    sm_rows_free(&s.in);
    sm_rows_free(&s.out);
    free(s.x);
    free(s.picture);
    return r;
}

/* --- before the first picture ----------------------------------------------------------------- */

static int open_sheet(struct feature_sheet *s, struct sm_err *err) {
    const struct sm_pipeline *p = s->v->pipeline;
    const struct preview_inverse *inverse = &s->inverse;
    char title[512];
    int n = snprintf(title, sizeof title,
                     "%s, seed %" PRId64 ": %d x %d x %d = %zu numbers an image, %zu features",
                     p->name, p->seed, inverse->channels, inverse->height, inverse->width,
                     s->pixels, sm_features_out(s->features)->n);
    if (inverse->components > 0)
        snprintf(title + n, sizeof title - (size_t)n,
                 " of PCA; of a component grey is 0, black and white are its largest weight");
    return sm_sheet_new(&s->v->sheet, title, COLUMNS, (int)s->v->options->tile, err);
}

static int prepare(struct feature_sheet *s, struct sm_err *err) {
    struct preview *v = s->v;
    const struct sm_pipeline *p = v->pipeline;
    if (preview_inverse_open(&s->inverse, p, v->artifacts, err) < 0) return -1;
    const struct preview_inverse *inverse = &s->inverse;
    if (sm_features_new(&s->features, p, inverse->components > 0 ? inverse->end : p->n_ops, NULL,
                        v->artifacts, err) < 0)
        return -1;
    s->pixels = sm_features_in(s->features)->n;
    const int longest = inverse->width > inverse->height ? inverse->width : inverse->height;
    s->zoom = (int)v->options->tile / longest;
    if (s->zoom < 1) s->zoom = 1;
    s->x = calloc(s->pixels, sizeof *s->x);
    s->picture = calloc(s->pixels, (size_t)s->zoom * (size_t)s->zoom);
    if (s->x == NULL || s->picture == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (sm_rows_alloc(&s->in, 1, s->pixels, false, err) < 0 ||
        sm_rows_alloc(&s->out, 1, sm_features_out(s->features)->n, false, err) < 0 ||
        preview_shrink(v, err) < 0 || preview_cage(&v->augment, p, v->options, err) < 0)
        return -1;
    return open_sheet(s, err);
}

/* --- pictures of numbers ---------------------------------------------------------------------- */

static uint8_t grey(double v) {
    return (uint8_t)(v <= 0 ? 0 : v >= 255 ? 255 : v + 0.5);
}

/* channels x height x width numbers, as they leave Flatten, become one cell. */
static int add_numbers(struct feature_sheet *s, const double *x, enum shading shading,
                       const char *text, struct sm_err *err) {
    const struct preview_inverse *inverse = &s->inverse;
    const int width = inverse->width * s->zoom, height = inverse->height * s->zoom;
    const size_t plane = (size_t)inverse->width * (size_t)inverse->height;
    double largest = 0;
    for (size_t i = 0; i < s->pixels; i++) {
        const double v = fabs(x[i]) * inverse->std[i / plane];
        if (v > largest) largest = v;
    }
    uint8_t *to = s->picture;
    for (int y = 0; y < height; y++)
        for (int col = 0; col < width; col++)
            for (size_t c = 0; c < (size_t)inverse->channels; c++) {
                const double v = x[c * plane + (size_t)(y / s->zoom) * (size_t)inverse->width +
                                   (size_t)(col / s->zoom)] *
                                 inverse->std[c];
                *to++ = shading == AS_PIXELS ? grey((v + inverse->mean[c]) * 255)
                                             : grey(127.5 * (largest > 0 ? 1 + v / largest : 1));
            }
    return sm_sheet_add(s->v->sheet, s->picture, width, height, inverse->channels, text, err);
}

/* --- what was learned ------------------------------------------------------------------------- */

static int add_component(struct feature_sheet *s, size_t i, double *z, double sum,
                         struct sm_err *err) {
    const struct preview_inverse *inverse = &s->inverse;
    char text[160];
    z[i] = 1;
    preview_inverse_apply(inverse, z, true, s->x);
    z[i] = 0;
    snprintf(text, sizeof text, "component %zu: %.2f %%\n%.2f %% so far", i + 1,
             100 * inverse->ratio[i], 100 * sum);
    return add_numbers(s, s->x, AROUND_ZERO, text, err);
}

static int add_components(struct feature_sheet *s, double *z, struct sm_err *err) {
    const struct preview_inverse *inverse = &s->inverse;
    char text[160];
    double sum = 0;
    for (size_t i = 0; i < inverse->components; i++)
        sum += inverse->ratio[i];
    snprintf(text, sizeof text, "explained variance so far:\n%.2f %% in %zu component%s", 100 * sum,
             inverse->components, inverse->components == 1 ? "" : "s");
    if (sm_sheet_add_shares(s->v->sheet, inverse->ratio, inverse->components, text, err) < 0)
        return -1;
    sum = 0;
    for (size_t i = 0; i < inverse->components && i < COMPONENTS_MAX; i++) {
        sum += inverse->ratio[i];
        if (add_component(s, i, z, sum, err) < 0) return -1;
    }
    return 0;
}

/* The picture where every feature is 0 is the mean of PCA or StandardScaler. */
static int add_learned(struct feature_sheet *s, struct sm_err *err) {
    const struct preview_inverse *inverse = &s->inverse;
    if (!inverse->has_mean) return 0;
    double *z = calloc(inverse->components > 0 ? inverse->components : s->pixels, sizeof *z);
    if (z == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    preview_inverse_apply(inverse, z, false, s->x);
    int r = add_numbers(s, s->x, AS_PIXELS, "mean of the training images", err);
    if (r == 0 && inverse->components > 0) r = add_components(s, z, err);
    if (r == 0) r = sm_sheet_end_row(s->v->sheet, err);
    free(z);
    return r;
}

/* --- a sample --------------------------------------------------------------------------------- */

/* What the cage made: a .npy whose last bytes are the numbers. 1: a picture that cannot be read,
 * whose cells stay empty beside the source's reason. */
static int read_numbers(struct feature_sheet *s, uint64_t sample, struct sm_err *err) {
    struct sm_engine_result result = {0};
    const uint8_t *npy = NULL;
    const char *draws = NULL;
    const size_t bytes = s->pixels * sizeof(float);
    if (preview_make(s->v, s->v->augment, sample, (struct preview_copy){0}, &result, &npy, &draws,
                     err) < 0)
        return sm_code_charges_sample(err->code) ? 1 : -1;
    if (result.n_bytes < bytes) return sm_fail(err, SM_E_INTERNAL, "the cage gave too few numbers");
    memcpy(s->in.data, npy + result.n_bytes - bytes, bytes);
    for (size_t i = 0; i < s->pixels; i++)
        s->x[i] = (double)s->in.f32[i];
    return 0;
}

static void features_text(const struct sm_rows *out, struct sm_buf *text) {
    for (size_t i = 0; i < out->n * out->columns && i < SHOWN_FEATURES; i++)
        sm_buf_printf(text, "%s%.4g", i ? ", " : "features: ", (double)out->f32[i]);
    if (out->columns > SHOWN_FEATURES) sm_buf_text(text, ", …");
}

/* What the features keep of the picture; without PCA the features themselves. */
static int add_kept(struct feature_sheet *s, struct sm_err *err) {
    const struct preview_inverse *inverse = &s->inverse;
    const size_t n = s->out.columns, plane = (size_t)inverse->width * (size_t)inverse->height;
    struct sm_buf text;
    sm_buf_init(&text, 4096);
    int r;
    if (inverse->components == 0) {
        features_text(&s->out, &text);
        r = sm_sheet_add(s->v->sheet, NULL, 0, 0, 0, text.data, err);
    } else {
        double *z = calloc(n, sizeof *z), error = 0;
        if (z == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        for (size_t i = 0; i < n; i++)
            z[i] = (double)s->out.f32[i];
        preview_inverse_apply(inverse, z, false, s->x);
        for (size_t i = 0; i < s->pixels; i++) {
            const double d = 255 * inverse->std[i / plane] * (s->x[i] - (double)s->in.f32[i]);
            error += d * d;
        }
        sm_buf_printf(&text, "back from %zu features\nroot mean square error %.2f of 255", n,
                      sqrt(error / (double)s->pixels));
        r = add_numbers(s, s->x, AS_PIXELS, text.data, err);
        free(z);
    }
    sm_buf_release(&text);
    return r;
}

static int add_sample(struct feature_sheet *s, uint64_t sample, struct sm_err *err) {
    uint8_t bad = 0;
    struct sm_row_faults faults = {.bad = &bad};
    struct sm_sheet *sheet = s->v->sheet;
    if (preview_add_source(s->v, sample, err) < 0) return -1;
    int r = read_numbers(s, sample, err);
    if (r < 0) return -1;
    if (r > 0)
        return sm_sheet_add(sheet, NULL, 0, 0, 0, "", err) == 0
                   ? sm_sheet_add(sheet, NULL, 0, 0, 0, "", err)
                   : -1;
    if (add_numbers(s, s->x, AS_PIXELS, "before Flatten", err) < 0 ||
        sm_features_apply(s->features, &s->in, &s->out, &faults, err) < 0)
        return -1;
    if (bad) return sm_sheet_add(sheet, NULL, 0, 0, 0, faults.text, err);
    return add_kept(s, err);
}
