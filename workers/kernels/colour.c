/* Colour changes: a plain loop for each, and the AVX2 rows of colour_avx2.c before it where the
 * machine has them. Comes after an op's draw of factors. Pillow mixes float and double; which is
 * which is kept here, because the results are truncated to 8 bits. */
#include "workers/kernels/colour_rows.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>

static uint8_t *row_of(const struct sm_tile *t, int y) {
    assert(!t->is_float);
    return t->u8 + (size_t)y * t->stride;
}

/* ---- blend: brightness and contrast ---- */

static uint8_t blend(int value, int v, float factor) {
    float f = (float)value + factor * (float)(v - value);
    return f <= 0 ? 0 : f >= 255 ? 255 : (uint8_t)f;
}

static void blend_rows(struct sm_tile *t, int value, double factor, bool fast) {
    float f = (float)factor;
    int n = t->width * t->channels;
    for (int y = 0; y < t->height; y++) {
        uint8_t *p = row_of(t, y);
        for (int x = fast ? sm_row_blend_avx2(p, n, value, f) : 0; x < n; x++)
            p[x] = blend(value, p[x], f);
    }
}

void sm_colour_blend(struct sm_tile *tile, int value, double factor) {
    blend_rows(tile, value, factor, sm_colour_has_avx2());
}

void sm_colour_blend_plain(struct sm_tile *tile, int value, double factor) {
    blend_rows(tile, value, factor, false);
}

/* ---- luma: mean, saturation, grey ---- */

static int luma(const uint8_t *p) {
    return (p[0] * 19595 + p[1] * 38470 + p[2] * 7471 + 0x8000) >> 16;
}

static int mean_luma(const struct sm_tile *t, bool fast) {
    uint64_t sum = 0;
    for (int y = 0; y < t->height; y++) {
        const uint8_t *p = row_of(t, y);
        if (t->channels == 1)
            for (int x = 0; x < t->width; x++)
                sum += p[x];
        else
            for (int x = fast ? sm_row_luma_sum_avx2(p, t->width, &sum) : 0; x < t->width; x++)
                sum += (uint64_t)luma(p + x * 3);
    }
    return (int)((double)sum / ((double)t->width * t->height) + 0.5);
}

int sm_colour_mean(const struct sm_tile *tile) {
    return mean_luma(tile, sm_colour_has_avx2());
}

int sm_colour_mean_plain(const struct sm_tile *tile) {
    return mean_luma(tile, false);
}

static void saturate_rows(struct sm_tile *t, double factor, bool fast) {
    if (t->channels != 3) return;
    float f = (float)factor;
    for (int y = 0; y < t->height; y++) {
        uint8_t *p = row_of(t, y);
        for (int x = fast ? sm_row_saturate_avx2(p, t->width, f) : 0; x < t->width; x++) {
            int l = luma(p + x * 3);
            for (int c = 0; c < 3; c++)
                p[x * 3 + c] = blend(l, p[x * 3 + c], f);
        }
    }
}

void sm_colour_saturate(struct sm_tile *tile, double factor) {
    saturate_rows(tile, factor, sm_colour_has_avx2());
}

void sm_colour_saturate_plain(struct sm_tile *tile, double factor) {
    saturate_rows(tile, factor, false);
}

static void gray_rows(struct sm_tile *t, bool fast) {
    if (t->channels != 3) return;
    for (int y = 0; y < t->height; y++) {
        uint8_t *p = row_of(t, y);
        for (int x = fast ? sm_row_gray_avx2(p, t->width) : 0; x < t->width; x++)
            p[x * 3] = p[x * 3 + 1] = p[x * 3 + 2] = (uint8_t)luma(p + x * 3);
    }
}

void sm_colour_gray(struct sm_tile *tile) {
    gray_rows(tile, sm_colour_has_avx2());
}

void sm_colour_gray_plain(struct sm_tile *tile) {
    gray_rows(tile, false);
}

/* ---- hue ---- */

static struct sm_hsv_tables tables;

static void tables_make(void) {
    for (int i = 0; i < 256; i++) {
        int sector = (int)floor((double)(float)i * 6.0 / 255.0);
        tables.part[i] = (float)((double)(float)i * 6.0 / 255.0 - (double)(float)sector);
        tables.sector[i] = sector % 6;
        tables.share[i] = (float)((double)(float)i / 255.0);
    }
}

const struct sm_hsv_tables *sm_hsv_tables(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, tables_make);
    return &tables;
}

/* Truncated, then wrapped to a byte: -0.1 turns by -25, which is 231. */
uint8_t sm_hue_step(double factor) {
    return (uint8_t)(int)(factor * 255);
}

static void hsv_of(const uint8_t *p, uint8_t hsv[3]) {
    int r = p[0], g = p[1], b = p[2];
    int most = r > g ? r : g, least = r < g ? r : g;
    if (b > most) most = b;
    if (b < least) least = b;
    hsv[2] = (uint8_t)most;
    hsv[0] = hsv[1] = 0;
    if (most == least) return;
    float range = (float)(most - least);
    float rc = (float)(most - r) / range, gc = (float)(most - g) / range,
          bc = (float)(most - b) / range;
    float h = r == most   ? bc - gc
              : g == most ? (float)(2.0 + (double)rc - (double)bc)
                          : (float)(4.0 + (double)gc - (double)rc);
    h = (float)fmod((double)h / 6.0 + 1.0, 1.0);
    hsv[0] = (uint8_t)(int)((double)h * 255.0);
    hsv[1] = (uint8_t)(int)((double)(range / (float)most) * 255.0);
}

static void hsv_to_rgb(const uint8_t hsv[3], const struct sm_hsv_tables *t, uint8_t *out) {
    float f = t->part[hsv[0]], s = t->share[hsv[1]];
    double v = hsv[2];
    uint8_t v8 = hsv[2], p = (uint8_t)(int)round(v * (1.0 - (double)s));
    uint8_t q = (uint8_t)(int)round(v * (1.0 - (double)(s * f)));
    uint8_t u = (uint8_t)(int)round(v * (1.0 - (double)s * (1.0 - (double)f)));
    const uint8_t by_sector[6][3] = {{v8, u, p}, {q, v8, p}, {p, v8, u},
                                     {p, q, v8}, {u, p, v8}, {v8, p, q}};
    const uint8_t *rgb = by_sector[t->sector[hsv[0]]];
    for (int c = 0; c < 3; c++)
        out[c] = hsv[1] == 0 ? v8 : rgb[c];
}

static void hue_rows(struct sm_tile *t, double factor, bool fast) {
    if (t->channels != 3) return;
    assert(factor >= -0.5 && factor <= 0.5);
    const struct sm_hsv_tables *hsv_tables = sm_hsv_tables();
    uint8_t step = sm_hue_step(factor), hsv[3];
    for (int y = 0; y < t->height; y++) {
        uint8_t *p = row_of(t, y);
        for (int x = fast ? sm_row_hue_avx2(p, t->width, step) : 0; x < t->width; x++) {
            hsv_of(p + x * 3, hsv);
            hsv[0] = (uint8_t)(hsv[0] + step);
            hsv_to_rgb(hsv, hsv_tables, p + x * 3);
        }
    }
}

void sm_colour_hue(struct sm_tile *tile, double factor) {
    hue_rows(tile, factor, sm_colour_has_avx2());
}

void sm_colour_hue_plain(struct sm_tile *tile, double factor) {
    hue_rows(tile, factor, false);
}
