/* k-means on blocks of rows: products go through OpenBLAS in pieces of a fixed size, sums are in
 * double. Used by workers/ops/kmeans.c for the rounds of its fit and, on a sample of the rows, for
 * where the rounds start. */
#include "workers/table/kmeans.h"

#include "lib/rng.h"
#include "workers/kernels/dots.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A squared distance that is only rounding, as a share of the row's squared length. */
#define ON_CENTER 1e-28

enum { PIECE_ROWS = 256, LANES = 8, TRIES_MAX = 32 };

#define T float
#define INT int32_t
#define GEMM sgemm
#define PANELS sm_panels_float
#define DOTS sm_dots_float
#define NAME(x) x##_f32
#include "workers/table/kmeans_rows.h"
#undef T
#undef INT
#undef GEMM
#undef PANELS
#undef DOTS
#undef NAME
#define T double
#define INT int64_t
#define GEMM dgemm
#define PANELS sm_panels_double
#define DOTS sm_dots_double
#define NAME(x) x##_f64
#include "workers/table/kmeans_rows.h"

int sm_centers_make(struct sm_centers *c, const double *centers, size_t k, size_t d, bool is_double,
                    struct sm_err *err) {
    const size_t element = is_double ? sizeof(double) : sizeof(float);
    *c = (struct sm_centers){.k = k, .d = d, .is_double = is_double};
    const size_t bytes = is_double ? sm_panels_double_bytes(k, d) : sm_panels_float_bytes(k, d);
    c->panels = malloc(bytes + 1);
    c->norms = malloc(k * element);
    c->scores = malloc(PIECE_ROWS * k * element);
    void *scratch = malloc(k * d * element + 1);
    if (c->panels == NULL || c->norms == NULL || c->scores == NULL || scratch == NULL) {
        sm_centers_free(c);
        free(scratch);
        return sm_fail(err, SM_E_MEMORY, "no memory for %zu clusters", k);
    }
    if (is_double)
        centers_make_f64(c, centers, scratch);
    else
        centers_make_f32(c, centers, scratch);
    free(scratch);
    return 0;
}

void sm_centers_free(struct sm_centers *c) {
    free(c->panels);
    free(c->norms);
    free(c->scores);
    *c = (struct sm_centers){0};
}

void sm_kmeans_assign(struct sm_centers *c, const struct sm_rows *x, uint32_t *labels) {
    if (x->is_double)
        assign_f64(c, x->f64, x->n, labels);
    else
        assign_f32(c, x->f32, x->n, labels);
}

void sm_kmeans_add(const struct sm_rows *x, const uint32_t *labels, double *sums, double *counts) {
    if (x->is_double)
        add_f64(x->f64, x->n, x->columns, labels, sums, counts);
    else
        add_f32(x->f32, x->n, x->columns, labels, sums, counts);
}

double sm_kmeans_distance(const struct sm_rows *x, size_t i, const double *center) {
    const size_t d = x->columns;
    return x->is_double ? distance_f64(x->f64 + i * d, d, center)
                        : distance_f32(x->f32 + i * d, d, center);
}

static void row_copy(const struct sm_rows *x, size_t i, double *to) {
    for (size_t k = 0; k < x->columns; k++)
        to[k] = x->is_double ? x->f64[i * x->columns + k] : (double)x->f32[i * x->columns + k];
}

/* --- clusters that nobody is near --------------------------------------------------------------
 */

void sm_farthest_add(struct sm_farthest *f, double distance, uint64_t row, uint32_t label,
                     const double *values, size_t d) {
    size_t n = f->n, at = n;
    if (!(distance > 0)) return;
    while (at > 0 && (f->of[at - 1].distance < distance ||
                      (f->of[at - 1].distance == distance && f->of[at - 1].row > row)))
        at--;
    if (at == SM_FARTHEST_MAX) return;
    if (n == SM_FARTHEST_MAX) n--;
    memmove(&f->of[at + 1], &f->of[at], (n - at) * sizeof *f->of);
    memmove(f->values + (at + 1) * d, f->values + at * d, (n - at) * d * sizeof *f->values);
    f->of[at].distance = distance;
    f->of[at].row = row;
    f->of[at].label = label;
    memcpy(f->values + at * d, values, d * sizeof *values);
    f->n = n + 1;
}

static double square(const double *v, size_t d) {
    double sum = 0;
    for (size_t k = 0; k < d; k++)
        sum += v[k] * v[k];
    return sum;
}

void sm_farthest_rows(struct sm_farthest *f, const struct sm_rows *x, uint64_t first,
                      const uint32_t *labels, const double *centers, double *scratch) {
    for (size_t i = 0; i < x->n; i++) {
        const double distance = sm_kmeans_distance(x, i, centers + labels[i] * x->columns);
        if (f->n == SM_FARTHEST_MAX && distance < f->of[SM_FARTHEST_MAX - 1].distance) continue;
        row_copy(x, i, scratch);
        if (distance <= ON_CENTER * square(scratch, x->columns)) continue;
        sm_farthest_add(f, distance, first + i, labels[i], scratch, x->columns);
    }
}

/* The next of the farthest rows leaves its cluster and is the empty cluster j. */
static void refill(size_t j, size_t d, double *sums, double *counts,
                   const struct sm_farthest *farthest, size_t next) {
    const size_t from = farthest->of[next].label;
    const double *values = farthest->values + next * d;
    for (size_t i = 0; i < d; i++) {
        sums[from * d + i] -= values[i];
        sums[j * d + i] = values[i];
    }
    counts[from]--;
    counts[j] = 1;
}

double sm_kmeans_move(double *centers, size_t k, size_t d, double *sums, double *counts,
                      const struct sm_farthest *farthest) {
    double moved = 0;
    size_t next = 0;
    for (size_t j = 0; farthest != NULL && j < k && next < farthest->n; j++)
        if (counts[j] == 0) refill(j, d, sums, counts, farthest, next++);
    for (size_t j = 0; j < k; j++) {
        if (!(counts[j] > 0)) continue;
        for (size_t i = 0; i < d; i++) {
            const double v = sums[j * d + i] / counts[j], by = v - centers[j * d + i];
            moved += by * by;
            centers[j * d + i] = v;
        }
    }
    return moved;
}

/* --- in memory ----------------------------------------------------------------------------------
 */

struct solve {
    const struct sm_blas *blas;
    const struct sm_rows *x;
    const struct sm_kmeans_options *o;
    double *centers, *sums, *counts;
    struct sm_farthest *farthest;
    uint32_t *labels;
    double *lengths, *nearest, *tried, *scratch; /* of the seeding */
    void *products;
    size_t tries;
};

static void solve_free(struct solve *s) {
    free(s->centers);
    free(s->farthest);
    free(s->labels);
    free(s->lengths);
    free(s->products);
}

static int solve_make(struct solve *s, const struct sm_rows *x, const struct sm_kmeans_options *o,
                      struct sm_err *err) {
    const size_t k = o->k, d = x->columns, n = x->n;
    *s = (struct solve){.blas = sm_blas(err), .x = x, .o = o};
    if (s->blas == NULL) return -1;
    s->tries = 2 + (size_t)log((double)k);
    if (s->tries > TRIES_MAX) s->tries = TRIES_MAX;
    s->centers = malloc((2 * k * d + k) * sizeof(double) + 1);
    s->farthest = malloc(sm_farthest_bytes(d));
    s->labels = malloc(n * sizeof *s->labels);
    s->lengths = malloc(((2 + s->tries) * n + d) * sizeof(double));
    s->products = malloc(s->tries * (n + d) * sm_rows_element(x));
    if (s->centers == NULL || s->farthest == NULL || s->labels == NULL || s->lengths == NULL ||
        s->products == NULL) {
        solve_free(s);
        return sm_fail(err, SM_E_MEMORY, "no memory for k-means on %zu rows", n);
    }
    s->sums = s->centers + k * d;
    s->counts = s->sums + k * d;
    s->nearest = s->lengths + n;
    s->tried = s->nearest + n;
    s->scratch = s->tried + s->tries * n;
    memset(s->scratch, 0, d * sizeof(double));
    for (size_t i = 0; i < n; i++)
        s->lengths[i] = sm_kmeans_distance(x, i, s->scratch); /* from the origin */
    return 0;
}

static void distances_from(struct solve *s, const size_t *tries, size_t n) {
    const struct sm_rows *x = s->x;
    if (x->is_double)
        distances_from_f64(s->blas, x->f64, s->lengths, x->n, x->columns, tries, n, s->products,
                           s->tried);
    else
        distances_from_f32(s->blas, x->f32, s->lengths, x->n, x->columns, tries, n, s->products,
                           s->tried);
}

/* The row at which the running sum of the distances passes v. */
static size_t at_sum(const double *distances, size_t n, double v) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        if ((sum += distances[i]) > v) return i;
    return n - 1;
}

/* Takes the try that leaves the least sum of distances, which it returns. */
static double best_try(struct solve *s, size_t tries, size_t *best) {
    const size_t n = s->x->n;
    double least = INFINITY;
    *best = 0;
    for (size_t t = 0; t < tries; t++) {
        double sum = 0, *of = s->tried + t * n;
        for (size_t i = 0; i < n; i++) {
            if (s->nearest[i] < of[i]) of[i] = s->nearest[i];
            sum += of[i];
        }
        if (sum < least) {
            least = sum;
            *best = t;
        }
    }
    memcpy(s->nearest, s->tried + *best * n, n * sizeof *s->nearest);
    return least;
}

static void seed_plusplus(struct solve *s, struct sm_rng *rng) {
    const size_t n = s->x->n, d = s->x->columns;
    size_t tries[TRIES_MAX], best;
    tries[0] = (size_t)sm_rng_below(rng, n);
    for (size_t i = 0; i < n; i++)
        s->nearest[i] = INFINITY;
    distances_from(s, tries, 1);
    double sum = best_try(s, 1, &best);
    row_copy(s->x, tries[best], s->centers);
    for (size_t j = 1; j < s->o->k; j++) {
        for (size_t t = 0; t < s->tries; t++)
            tries[t] = at_sum(s->nearest, n, sm_rng_double(rng) * sum);
        distances_from(s, tries, s->tries);
        sum = best_try(s, s->tries, &best);
        row_copy(s->x, tries[best], s->centers + j * d);
    }
}

/* k different rows, each set of them as likely (Floyd's algorithm would need a set; n is small). */
static int seed_random(struct solve *s, struct sm_rng *rng, struct sm_err *err) {
    const size_t n = s->x->n;
    size_t *rows = malloc(n * sizeof *rows);
    if (rows == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for k-means on %zu rows", n);
    for (size_t i = 0; i < n; i++)
        rows[i] = i;
    for (size_t j = 0; j < s->o->k; j++) {
        const size_t at = j + (size_t)sm_rng_below(rng, n - j), row = rows[at];
        rows[at] = rows[j];
        rows[j] = row;
        row_copy(s->x, row, s->centers + j * s->x->columns);
    }
    free(rows);
    return 0;
}

/* Labels by the present centres, then their sums; true when a cluster is empty. */
static int label_all(struct solve *s, struct sm_err *err) {
    struct sm_centers c;
    if (sm_centers_make(&c, s->centers, s->o->k, s->x->columns, s->x->is_double, err) != 0)
        return -1;
    sm_kmeans_assign(&c, s->x, s->labels);
    sm_centers_free(&c);
    return 0;
}

static int lloyd(struct solve *s, double *inertia, size_t *steps, struct sm_err *err) {
    const size_t k = s->o->k, d = s->x->columns;
    for (*steps = 0; *steps < s->o->max_iter;) {
        ++*steps;
        memset(s->sums, 0, (k * d + k) * sizeof *s->sums);
        if (label_all(s, err) != 0) return -1;
        sm_kmeans_add(s->x, s->labels, s->sums, s->counts);
        s->farthest->n = 0;
        if (sm_kmeans_any_empty(s->counts, k))
            sm_farthest_rows(s->farthest, s->x, 0, s->labels, s->centers, s->scratch);
        if (sm_kmeans_move(s->centers, k, d, s->sums, s->counts, s->farthest) <= s->o->tol) break;
    }
    if (label_all(s, err) != 0) return -1;
    *inertia = 0;
    for (size_t i = 0; i < s->x->n; i++)
        *inertia += sm_kmeans_distance(s->x, i, s->centers + s->labels[i] * d);
    return 0;
}

int sm_kmeans_solve(const struct sm_rows *x, const struct sm_kmeans_options *o, double *centers,
                    size_t *steps, struct sm_err *err) {
    struct solve s;
    double best = INFINITY;
    if (solve_make(&s, x, o, err) != 0) return -1;
    int failed = 0;
    for (size_t run = 0; !failed && run < o->runs; run++) {
        struct sm_rng rng = sm_rng_op(o->seed, 0, run, 0, SM_RNG_KMEANS);
        double inertia;
        size_t taken;
        if (o->init == SM_KMEANS_PLUSPLUS)
            seed_plusplus(&s, &rng);
        else
            failed = seed_random(&s, &rng, err);
        if (!failed) failed = lloyd(&s, &inertia, &taken, err);
        if (failed || (run > 0 && !(inertia < best))) continue;
        best = inertia;
        *steps = taken;
        memcpy(centers, s.centers, o->k * x->columns * sizeof *centers);
    }
    solve_free(&s);
    return failed;
}
