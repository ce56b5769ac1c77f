/* The arithmetic of k-means (Lloyd 1982) on blocks of rows: nearest centres, sums of clusters, new
 * centres, and the whole of it on a matrix that lies in memory. Before: workers/ops/kmeans.c hands
 * in blocks, less the means of their columns. After: centres and labels. Everything in a fixed
 * order; of equally near centres the first counts. */
#pragma once

#include "workers/table/blas.h"
#include "workers/table/rows.h"

/* Centres in the element type of the rows, with which blocks are compared. */
struct sm_centers {
    size_t k, d;
    bool is_double;
    void *panels; /* of -2 times the centres: workers/kernels/dots.h */
    void *norms;  /* [k]: squared lengths, of the element type */
    void *scores; /* of a piece of rows */
};

/* Prepares k centres [k][d] for rows of this element type; release with sm_centers_free. */
int sm_centers_make(struct sm_centers *c, const double *centers, size_t k, size_t d, bool is_double,
                    struct sm_err *err);
void sm_centers_free(struct sm_centers *c);

/* labels[i]: the centre nearest to row i of x (x->n rows, d columns), whatever stands beside it. */
void sm_kmeans_assign(struct sm_centers *c, const struct sm_rows *x, uint32_t *labels);
/* sums[k][d] and counts[k] += the rows, by label. */
void sm_kmeans_add(const struct sm_rows *x, const uint32_t *labels, double *sums, double *counts);
/* Squared distance of row i from a centre, term by term. */
double sm_kmeans_distance(const struct sm_rows *x, size_t i, const double *center);

/* Whether a cluster has no row. */
static inline bool sm_kmeans_any_empty(const double *counts, size_t k) {
    for (size_t j = 0; j < k; j++)
        if (counts[j] == 0) return true;
    return false;
}

/* The rows that are farthest from their centres, farthest first, of equals the smaller row: what an
 * empty cluster gets. Rows that lie on their centre are none. */
enum { SM_FARTHEST_MAX = 64 };
struct sm_farthest {
    uint64_t n;
    struct {
        double distance;
        uint64_t row, label;
    } of[SM_FARTHEST_MAX];
    double values[]; /* [SM_FARTHEST_MAX][d] */
};
static inline size_t sm_farthest_bytes(size_t d) {
    return sizeof(struct sm_farthest) + SM_FARTHEST_MAX * d * sizeof(double);
}
void sm_farthest_add(struct sm_farthest *f, double distance, uint64_t row, uint32_t label,
                     const double *values, size_t d);
/* Row i of x, which is row number `first + i`. scratch: d numbers. */
void sm_farthest_rows(struct sm_farthest *f, const struct sm_rows *x, uint64_t first,
                      const uint32_t *labels, const double *centers, double *scratch);

/* centers[k][d] become the means of their clusters; an empty one takes the next of the farthest
 * rows out of its cluster (as scikit-learn does), or stays. sums and counts are used up. Returns by
 * how much the centres moved: the sum of squares. */
double sm_kmeans_move(double *centers, size_t k, size_t d, double *sums, double *counts,
                      const struct sm_farthest *farthest);

enum sm_kmeans_init { SM_KMEANS_PLUSPLUS, SM_KMEANS_RANDOM };
struct sm_kmeans_options {
    size_t k;
    int init; /* enum sm_kmeans_init */
    size_t runs, max_iter;
    double tol; /* of what sm_kmeans_move returns */
    uint64_t seed;
};
/* k-means on rows in memory (x->n >= k): each run from a start of its own, with the seeding of
 * Arthur and Vassilvitskii (2007) and 2 + log k tries for each centre; centers[k][d] of the run
 * whose sum of squared distances is least, and how many steps that took. */
int sm_kmeans_solve(const struct sm_rows *x, const struct sm_kmeans_options *o, double *centers,
                    size_t *steps, struct sm_err *err);
