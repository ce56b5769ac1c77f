/* Moves the pixels of an affine warp: a plain loop for each filter, and the choice between them and
 * the AVX2 rows of affine_avx2.c. Comes after affine_map.c, which makes the map. Whatever the path,
 * the bytes are Pillow's: nearest steps in 16.16 fixed point (or by repeated addition when the map
 * only scales), the others in doubles without fusing. */
#include "workers/kernels/affine_rows.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static void warp(const struct sm_tile *in, struct sm_tile *out, const struct sm_map *map,
                 enum sm_filter filter, const uint8_t *fill, bool fast);

void sm_affine(const struct sm_tile *in, struct sm_tile *out, const struct sm_map *map,
               enum sm_filter filter, const uint8_t fill[3]) {
    warp(in, out, map, filter, fill, true);
}

void sm_affine_plain(const struct sm_tile *in, struct sm_tile *out, const struct sm_map *map,
                     enum sm_filter filter, const uint8_t fill[3]) {
    warp(in, out, map, filter, fill, false);
}

static void put(uint8_t *out, const uint8_t *pixel, int channels) {
    for (int c = 0; c < channels; c++)
        out[c] = pixel[c];
}

static void fill_pixels(uint8_t *row, int from, int to, int channels, const uint8_t *fill) {
    for (int x = from; x < to; x++)
        put(row + x * channels, fill, channels);
}

static uint8_t *row_of(const struct sm_tile *t, int y) {
    return t->u8 + (size_t)y * t->stride;
}

/* ---- nearest ---- */

/* The whole coordinate, or -1 when it lies outside [0, size). */
static int whole(double v, int size) {
    return v >= 0 && v < size ? (int)v : -1;
}

/* Nearest neighbour when x and y do not mix. The coordinates are running sums, as Pillow's are. */
static void warp_scale(const struct sm_tile *in, struct sm_tile *out, const double *m,
                       const uint8_t *fill) {
    int n = in->channels;
    double yo = m[5] + m[4] * 0.5;
    for (int y = 0; y < out->height; y++, yo += m[4]) {
        int yin = whole(yo, in->height);
        double xo = m[2] + m[0] * 0.5;
        uint8_t *to = row_of(out, y);
        for (int x = 0; x < out->width; x++, xo += m[0]) {
            int xin = yin < 0 ? -1 : whole(xo, in->width);
            put(to + x * n, xin < 0 ? fill : row_of(in, yin) + xin * n, n);
        }
    }
}

/* Nearest neighbour of a map that fixed point cannot hold. */
static void warp_nearest_double(const struct sm_tile *in, struct sm_tile *out, const double *m,
                                const uint8_t *fill) {
    int n = in->channels;
    double xo = m[2] + m[1] * 0.5 + m[0] * 0.5, yo = m[5] + m[4] * 0.5 + m[3] * 0.5;
    for (int y = 0; y < out->height; y++, xo += m[1], yo += m[4]) {
        double xx = xo, yy = yo;
        uint8_t *to = row_of(out, y);
        for (int x = 0; x < out->width; x++, xx += m[0], yy += m[3]) {
            int xin = whole(xx, in->width), yin = whole(yy, in->height);
            put(to + x * n, xin < 0 || yin < 0 ? fill : row_of(in, yin) + xin * n, n);
        }
    }
}

static bool fixed_holds(const double *m, int x, int y) {
    return fabs(x * m[0] + y * m[1] + m[2]) < 32768.0 && fabs(x * m[3] + y * m[4] + m[5]) < 32768.0;
}

/* 16.16; a step that is too long for it belongs to an output one pixel wide or high and is never
 * used. */
static int64_t fixed(double v) {
    double f = floor(v * 65536.0 + 0.5);
    return f < -0x1p40 || f > 0x1p40 ? 0 : (int64_t)f;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return a / b + (a % b > 0);
}

/* Cuts [*lo, *hi) down to the i for which 0 <= start + i * step < limit. */
static void span_cut(int64_t start, int64_t step, int64_t limit, int *lo, int *hi) {
    if (step == 0) {
        if (start < 0 || start >= limit) *hi = *lo;
        return;
    }
    if (step < 0) start = limit - 1 - start, step = -step; /* the same condition, seen from above */
    int64_t first = ceil_div(-start, step), past = ceil_div(limit - start, step);
    if (past < *hi) *hi = past < *lo ? *lo : (int)past;
    if (first > *lo) *lo = first > *hi ? *hi : (int)first;
}

static void row_nearest(const struct sm_tile *in, uint8_t *to, int lo, int hi, int64_t xx,
                        int64_t yy, int64_t dx, int64_t dy) {
    int n = in->channels;
    xx += lo * dx, yy += lo * dy;
    for (int x = lo; x < hi; x++, xx += dx, yy += dy)
        put(to + x * n, row_of(in, (int)(yy >> 16)) + (xx >> 16) * n, n);
}

static void warp_fixed(const struct sm_tile *in, struct sm_tile *out, const double *m,
                       const uint8_t *fill, bool fast) {
    int n = in->channels;
    int64_t a0 = fixed(m[0]), a1 = fixed(m[1]), a3 = fixed(m[3]), a4 = fixed(m[4]);
    int64_t xx = fixed(m[2] + m[0] * 0.5 + m[1] * 0.5), yy = fixed(m[5] + m[3] * 0.5 + m[4] * 0.5);
    for (int y = 0; y < out->height; y++, xx += a1, yy += a4) {
        int lo = 0, hi = out->width;
        span_cut(xx, a0, (int64_t)in->width << 16, &lo, &hi);
        span_cut(yy, a3, (int64_t)in->height << 16, &lo, &hi);
        uint8_t *to = row_of(out, y);
        fill_pixels(to, 0, lo, n, fill);
        fill_pixels(to, hi, out->width, n, fill);
        if (fast && n == 3)
            sm_row_nearest_avx2(in, to, lo, hi, xx, yy, a0, a3);
        else
            row_nearest(in, to, lo, hi, xx, yy, a0, a3);
    }
}

/* ---- bilinear and bicubic ---- */

static int clamp(int v, int size) {
    return v < 0 ? 0 : v < size ? v : size - 1;
}

static double lerp(double a, double b, double d) {
    return a + (b - a) * d;
}

void sm_tap_bilinear(const struct sm_tile *in, double xin, double yin, uint8_t *out) {
    int n = in->channels, x = (int)floor(xin - 0.5), y = (int)floor(yin - 0.5);
    double dx = xin - 0.5 - x, dy = yin - 0.5 - y;
    const uint8_t *top = row_of(in, clamp(y, in->height)),
                  *bottom = row_of(in, clamp(y + 1, in->height));
    int x0 = clamp(x, in->width) * n, x1 = clamp(x + 1, in->width) * n;
    for (int c = 0; c < n; c++) {
        double v1 = lerp(top[x0 + c], top[x1 + c], dx);
        double v2 = lerp(bottom[x0 + c], bottom[x1 + c], dx);
        out[c] = (uint8_t)lerp(v1, v2, dy);
    }
}

static double cubic(double v1, double v2, double v3, double v4, double d) {
    double p2 = -v1 + v3, p3 = 2 * (v1 - v2) + v3 - v4, p4 = -v1 + v2 - v3 + v4;
    return v2 + d * (p2 + d * (p3 + d * p4));
}

void sm_tap_bicubic(const struct sm_tile *in, double xin, double yin, uint8_t *out) {
    int n = in->channels, x = (int)floor(xin - 0.5), y = (int)floor(yin - 0.5);
    double dx = xin - 0.5 - x, dy = yin - 0.5 - y;
    int xs[4];
    const uint8_t *rows[4];
    for (int i = 0; i < 4; i++) {
        xs[i] = clamp(x - 1 + i, in->width) * n;
        rows[i] = row_of(in, clamp(y - 1 + i, in->height));
    }
    for (int c = 0; c < n; c++) {
        double v[4];
        for (int i = 0; i < 4; i++) {
            const uint8_t *p = rows[i] + c;
            v[i] = cubic(p[xs[0]], p[xs[1]], p[xs[2]], p[xs[3]], dx);
        }
        double r = cubic(v[0], v[1], v[2], v[3], dy);
        out[c] = r <= 0 ? 0 : r >= 255 ? 255 : (uint8_t)r;
    }
}

static void row_smooth(const struct sm_tile *in, uint8_t *to, int width, const double *m, double yc,
                       enum sm_filter filter, const uint8_t *fill) {
    int n = in->channels;
    for (int x = 0; x < width; x++, to += n) {
        double xc = x + 0.5;
        double xin = m[0] * xc + m[1] * yc + m[2], yin = m[3] * xc + m[4] * yc + m[5];
        if (!(xin >= 0 && xin < in->width && yin >= 0 && yin < in->height))
            put(to, fill, n);
        else if (filter == SM_BILINEAR)
            sm_tap_bilinear(in, xin, yin, to);
        else
            sm_tap_bicubic(in, xin, yin, to);
    }
}

static void warp_smooth(const struct sm_tile *in, struct sm_tile *out, const double *m,
                        enum sm_filter filter, const uint8_t *fill, bool fast) {
    for (int y = 0; y < out->height; y++) {
        uint8_t *to = row_of(out, y);
        if (fast && in->channels == 3)
            sm_row_smooth_avx2(in, to, out->width, m, y + 0.5, filter, fill);
        else
            row_smooth(in, to, out->width, m, y + 0.5, filter, fill);
    }
}

static void warp(const struct sm_tile *in, struct sm_tile *out, const struct sm_map *map,
                 enum sm_filter filter, const uint8_t *fill, bool fast) {
    assert(!in->is_float && !out->is_float && in->channels == out->channels);
    assert(filter == SM_NEAREST || filter == SM_BILINEAR || filter == SM_BICUBIC);
    const double *m = map->m;
    int w = out->width, h = out->height;
    fast = fast && sm_affine_has_avx2();
    if (filter != SM_NEAREST)
        warp_smooth(in, out, m, filter, fill, fast);
    else if (m[1] == 0 && m[3] == 0)
        warp_scale(in, out, m, fill);
    else if (fixed_holds(m, 0, 0) && fixed_holds(m, w, h) && fixed_holds(m, 0, h) &&
             fixed_holds(m, w, 0))
        warp_fixed(in, out, m, fill, fast);
    else
        warp_nearest_double(in, out, m, fill);
}

/* ---- quarter turns ---- */

void sm_turn(const struct sm_tile *in, struct sm_tile *out, int quarters) {
    assert(!in->is_float && !out->is_float && in->channels == out->channels);
    int n = in->channels, w = in->width, h = in->height;
    bool across = quarters & 1;
    assert(out->width == (across ? h : w) && out->height == (across ? w : h));
    enum { BLOCK = 16 }; /* a quarter turn reads columns: square blocks keep them in the cache */
    for (int by = 0; by < out->height; by += BLOCK)
        for (int bx = 0; bx < out->width; bx += BLOCK)
            for (int y = by; y < out->height && y < by + BLOCK; y++)
                for (int x = bx; x < out->width && x < bx + BLOCK; x++) {
                    int xin = quarters == 0   ? x
                              : quarters == 1 ? w - 1 - y
                              : quarters == 2 ? w - 1 - x
                                              : y;
                    int yin = quarters == 0   ? y
                              : quarters == 1 ? x
                              : quarters == 2 ? h - 1 - y
                                              : h - 1 - x;
                    put(row_of(out, y) + x * n, row_of(in, yin) + xin * n, n);
                }
}
