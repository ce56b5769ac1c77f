/* Loops of the search for neighbours: the distance of two rows, and which products of a tile may
 * belong to near pairs. Before: tiles of products (dots.h). After: lists of neighbours
 * (workers/neighbours_search.c). */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The squared distance of two rows of n, in double: eight running sums, added in pairs, and then
 * what is left; the same on every machine. */
double sm_distance_float(const float *x, const float *y, size_t n);
double sm_distance_float_plain(const float *x, const float *y, size_t n);

/* How far a distance out of float32 products may be off. */
struct sm_slack {
    float keep, tiny; /* (sum of both norms) * keep + product - tiny is no more than the distance */
};

/* What a row is compared by with columns of a tile: products (times -2), squared lengths and the
 * worst of each list, side by side. */
struct sm_look {
    const float *products, *norms, *worst;
    size_t end;
    float norm;
    struct sm_slack slack;
};

/* A bit for each column: whether the pair may be nearer than own_worst or than its list's worst.
 * Infinite or undefined distances may be near. */
enum { SM_LOOK_MOST = 64 }; /* columns */
uint64_t sm_look(const struct sm_look *look, float own_worst);
uint64_t sm_look_plain(const struct sm_look *look, float own_worst);
