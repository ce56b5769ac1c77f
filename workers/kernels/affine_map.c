/* The arithmetic of rotations and affine maps before any pixel moves: from drawn angles and shifts
 * to six coefficients and the output's size, in the order of operations of Pillow and torchvision,
 * so that the coefficients are theirs to the last bit. Comes after an op's draw; sm_affine takes
 * the map. */
#include "workers/kernels/affine.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static const double radians_per_degree = 3.14159265358979323846 / 180.0;

/* Long double on purpose: the C library picks between variants of sin with and without fused
 * multiply-add by the processor, and they may differ in the last bit; the long double ones have one
 * variant, and rounded to double they are the correctly rounded value but for one argument in some
 * thousands. */
static double sine(double x) {
    return (double)sinl(x);
}
static double cosine(double x) {
    return (double)cosl(x);
}
static double tangent(double x) {
    return (double)tanl(x);
}

/* Python's round(x, 15): to the nearest decimal, judged on the exact value of x. */
static double round15(double x) {
    char text[40];
    snprintf(text, sizeof text, "%.15f", x);
    return strtod(text, NULL);
}

/* Python's x % 360.0: in [0, 360). */
static double degrees_wrap(double x) {
    double r = fmod(x, 360.0);
    return r < 0 ? r + 360.0 : r + 0.0;
}

static void map_point(const struct sm_map *map, double x, double y, double *xout, double *yout) {
    const double *m = map->m;
    double a = m[0] * x + m[1] * y + m[2], b = m[3] * x + m[4] * y + m[5];
    *xout = a;
    *yout = b;
}

static int quarters_of(double angle, int width, int height, bool expand) {
    if (angle == 0) return 0;
    if (angle == 180) return 2;
    if ((angle == 90 || angle == 270) && (expand || width == height)) return angle == 90 ? 1 : 3;
    return -1;
}

/* Makes the output as large as the bounding box of the turned picture, and keeps the picture in its
 * middle. */
static void rotation_expand(struct sm_rotation *r, int width, int height) {
    const double corners[4][2] = {{0, 0}, {width, 0}, {width, height}, {0, height}};
    double left = INFINITY, right = -INFINITY, top = INFINITY, bottom = -INFINITY;
    for (int i = 0; i < 4; i++) {
        double x, y;
        map_point(&r->map, corners[i][0], corners[i][1], &x, &y);
        left = fmin(left, x), right = fmax(right, x);
        top = fmin(top, y), bottom = fmax(bottom, y);
    }
    r->width = (int)(ceil(right) - floor(left));
    r->height = (int)(ceil(bottom) - floor(top));
    map_point(&r->map, -(r->width - width) / 2.0, -(r->height - height) / 2.0, &r->map.m[2],
              &r->map.m[5]);
}

struct sm_rotation sm_rotation_make(int width, int height, double angle, bool expand,
                                    const double center[2]) {
    assert(width > 0 && height > 0);
    angle = degrees_wrap(angle);
    struct sm_rotation r = {.quarters = -1, .width = width, .height = height};
    if (!center) r.quarters = quarters_of(angle, width, height, expand);
    if (r.quarters == 1 || r.quarters == 3) r.width = height, r.height = width;
    if (r.quarters >= 0) return r;

    double cx = center ? center[0] : width / 2.0, cy = center ? center[1] : height / 2.0;
    double turn = -(angle * radians_per_degree);
    double c = round15(cosine(turn)), s = round15(sine(turn));
    r.map = (struct sm_map){{c, s, 0, round15(-sine(turn)), c, 0}};
    map_point(&r.map, -cx, -cy, &r.map.m[2], &r.map.m[5]);
    r.map.m[2] += cx;
    r.map.m[5] += cy;
    if (expand) rotation_expand(&r, width, height);
    return r;
}

/* The inverse of T C R(angle) S(scale) SHy SHx C^-1, where T moves by translate and C to the
 * center; the determinant of rotation and shears is 1, so the inverse needs no division but by the
 * scale. */
struct sm_map sm_map_affine(const double center[2], double angle, const double translate[2],
                            double scale, const double shear[2]) {
    assert(scale > 0);
    double rot = angle * radians_per_degree;
    double sx = shear[0] * radians_per_degree, sy = shear[1] * radians_per_degree;
    double cx = center[0], cy = center[1], tx = translate[0], ty = translate[1];

    double a = cosine(rot - sy) / cosine(sy);
    double b = -cosine(rot - sy) * tangent(sx) / cosine(sy) - sine(rot);
    double c = sine(rot - sy) / cosine(sy);
    double d = -sine(rot - sy) * tangent(sx) / cosine(sy) + cosine(rot);

    struct sm_map map = {{d / scale, -b / scale, 0.0 / scale, -c / scale, a / scale, 0.0 / scale}};
    double *m = map.m;
    m[2] += m[0] * (-cx - tx) + m[1] * (-cy - ty);
    m[5] += m[3] * (-cx - tx) + m[4] * (-cy - ty);
    m[2] += cx;
    m[5] += cy;
    return map;
}
