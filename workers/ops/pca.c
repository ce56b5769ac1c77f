/* PCA: projects rows on the directions of largest variance, as scikit-learn's. Up to a few thousand
 * columns by the eigenvectors of their covariance, beyond by subspace iteration with a few more
 * directions than are wanted (Halko, Martinsson, Tropp 2011). Sign rule of scikit-learn >= 1.5: the
 * entry of largest size of each component is positive. */
#include "workers/ops/pca.h"

#include "lib/limits.h"
#include "workers/kernels/dots.h"
#include "workers/kernels/rows.h"
#include "workers/ops/picked.h"
#include "workers/table/scatter.h"
#include "workers/table/subspace.h"

#include <assert.h>
#include <float.h>

enum solver { AUTO, COVARIANCE_EIGH, RANDOMIZED };
static const char *const solvers[] = {"auto", "covariance_eigh", "randomized", NULL};
enum { COVARIANCE_COLUMNS_MAX = 4000 };
static_assert(SM_MAX_COVARIANCE_BYTES == 8192 * 8192 * 8, "svd_solver's text says so");

struct params {
    struct sm_any n_components;
    bool whiten;
    int svd_solver; /* enum solver */
    int64_t n_oversamples, iterated_power;
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "n_components",
     .type = SM_T_ANY,
     .offset = offsetof(struct params, n_components),
     .dflt = "null",
     .null_ok = true,
     .max = SM_MAX_FEATURES,
     .doc = "how many, or (0.9, below 1) the share of the variance to keep; null: all"},
    {.name = "whiten",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, whiten),
     .dflt = "false",
     .doc = "scale each component to variance 1"},
    {.name = "svd_solver",
     .type = SM_T_ENUM,
     .offset = offsetof(struct params, svd_solver),
     .dflt = "auto",
     .choices = solvers,
     .doc = "auto: covariance_eigh up to 4000 columns, and whenever n_components is no whole "
            "number (over 8192 columns that is refused); else randomized"},
    {.name = "n_oversamples",
     .type = SM_T_INT,
     .offset = offsetof(struct params, n_oversamples),
     .dflt = "10",
     .max = 1000,
     .doc = "randomized: directions beside those that are wanted"},
    {.name = "iterated_power",
     .type = SM_T_INT,
     .offset = offsetof(struct params, iterated_power),
     .dflt = "7",
     .min = 1,
     .max = 100,
     .doc = "randomized: rounds over the data"},
    COLUMNS_PARAM(struct params, "all that hold numbers; the others come behind the components"),
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    const struct sm_any *n = &p->n_components;
    if (n->kind == SM_ANY_NULL) return 0;
    /* 1.0 is a share, of which none is left to cut off; scikit-learn refuses it too */
    if (n->kind == SM_ANY_NUMBER && n->number > 0 &&
        (n->fraction ? n->number < 1 : trunc(n->number) == n->number))
        return p->svd_solver != RANDOMIZED || n->number >= 1
                   ? 0
                   : sm_fail(err, SM_E_PIPELINE,
                             "svd_solver: randomized needs a whole n_components");
    return sm_fail(err, SM_E_PIPELINE,
                   "'n_components' is a whole number of at least 1 (without a point), a share "
                   "between 0 and 1, which itself is none, or null");
}

/* --- what is summed --------------------------------------------------------------------------- */

static bool by_covariance(const struct params *p, size_t columns) {
    return p->svd_solver == COVARIANCE_EIGH ||
           (p->svd_solver == AUTO &&
            (columns <= COVARIANCE_COLUMNS_MAX || p->n_components.kind != SM_ANY_NUMBER ||
             p->n_components.number < 1));
}

const char *sm_pca_route(const void *params_, const struct sm_schema *in) {
    const struct params *p = params_;
    struct picked picked;
    if (picked_make(in, &p->columns, &picked, NULL) != 0) return solvers[p->svd_solver];
    free(picked.at);
    return solvers[by_covariance(p, picked.n) ? COVARIANCE_EIGH : RANDOMIZED];
}

/* The state: this head, then (randomized, from the second round on) mean[d] and Q[d][l]. */
struct head {
    uint64_t round, columns, directions;
    double total; /* variance times (n - 1) of all columns together */
};

/* The partial: this head, mean[d], then the scatter [d][d], or W[d][l], or nothing but squares. */
struct sums {
    double n, squares;
    uint64_t missing_column, missing; /* 1 + the first column with a missing cell; how many cells */
    /* of float64 the largest number's size, and 1 + its column: who is to blame for an overflow */
    double largest;
    uint64_t largest_column;
};

static struct head head_of(const struct sm_buf *state) {
    struct head h;
    memcpy(&h, state->data, sizeof h);
    return h;
}

static const double *state_mean(const struct sm_buf *state) {
    return (const double *)(const void *)(state->data + sizeof(struct head));
}

static double *sums_mean(void *partial) {
    return (double *)(void *)((struct sums *)partial + 1);
}

/* What no fit could hold is refused before anything is read. */
static int size_check(const struct head *h, struct sm_err *err) {
    const uint64_t square = h->columns * h->columns * sizeof(double),
                   directions = h->columns * (h->directions + 2) * sizeof(double);
    const double mib = 1 << 20;
    if (h->directions == 0 && square > SM_MAX_COVARIANCE_BYTES)
        return sm_fail(
            err, SM_E_TOO_LARGE,
            "the covariance of %llu columns takes %llu bytes (%.0f MiB), at most %.0f MiB "
            "(hint: n_components: 100, or another whole number, is found without it by "
            "the randomized solver; or fewer columns)",
            (unsigned long long)h->columns, (unsigned long long)square, (double)square / mib,
            SM_MAX_COVARIANCE_BYTES / mib);
    if (h->directions > 0 && directions > SM_MAX_ARTIFACT_BYTES)
        return sm_fail(
            err, SM_E_TOO_LARGE,
            "%llu directions of %llu columns take %llu bytes (%.0f MiB), at most %.0f MiB "
            "(hint: a smaller n_components)",
            (unsigned long long)h->directions, (unsigned long long)h->columns,
            (unsigned long long)directions, (double)directions / mib, SM_MAX_ARTIFACT_BYTES / mib);
    return 0;
}

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    struct picked picked;
    if (columns_check(c->in, &p->columns, SM_COLUMN_NUMBER, err) != 0 ||
        picked_make(c->in, &p->columns, &picked, err) != 0)
        return -1;
    free(picked.at);
    const uint64_t most = picked.n < c->rows ? picked.n : c->rows;
    struct head h = {.columns = picked.n};
    const double wanted = p->n_components.kind == SM_ANY_NUMBER ? p->n_components.number : 0;
    if (picked.n == 0) return sm_fail(err, SM_E_PIPELINE, "there is no column of numbers");
    if (wanted >= 1 && wanted > (double)most)
        return sm_fail(err, SM_E_DATASET,
                       "n_components is %.0f, and %llu rows of %zu columns have at most %llu",
                       wanted, (unsigned long long)c->rows, picked.n, (unsigned long long)most);
    if (c->rows < 2) return sm_fail(err, SM_E_DATASET, "one row has no variance");
    if (!by_covariance(p, picked.n)) {
        h.directions = (uint64_t)wanted + (uint64_t)p->n_oversamples;
        if (wanted == 0 || h.directions > most) h.directions = most; /* null: all there are */
    }
    if (size_check(&h, err) != 0) return -1;
    return sm_buf_add(state, &h, sizeof h) ? 0 : sm_fail(err, SM_E_MEMORY, "out of memory");
}

static size_t partial_bytes(const struct sm_fit_context *c, const struct sm_buf *state) {
    const struct head h = head_of(state);
    (void)c;
    size_t cells = h.columns;
    if (h.directions == 0)
        cells += h.columns * h.columns;
    else if (h.round > 0)
        cells = h.columns * h.directions;
    return sizeof(struct sums) + cells * sizeof(double);
}

/* Copies the picked columns as double, less their means when they are given. */
static void centre(const struct sm_rows *block, const struct picked *picked, const double *mean,
                   double *out) {
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < picked->n; k++)
            out[i * picked->n + k] =
                sm_rows_cell(block, i, picked->at[k]) - (mean != NULL ? mean[k] : 0);
}

static void largest_note(struct sums *s, double size, uint64_t column) {
    if (!(size > s->largest)) return;
    s->largest = size;
    s->largest_column = column;
}

/* Notes a missing cell; the sums are worth nothing then. */
static bool has_missing(const struct sm_rows *block, const struct picked *picked, struct sums *s) {
    if (!block->is_double && sm_rows_finite(block->f32, block->n * block->columns)) return false;
    const uint64_t before = s->missing;
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < picked->n; k++) {
            const double x = sm_rows_cell(block, i, picked->at[k]);
            if (isfinite(x))
                largest_note(s, fabs(x), picked->at[k] + 1);
            else if (s->missing++ == 0)
                s->missing_column = picked->at[k] + 1;
        }
    return s->missing > before;
}

static struct sm_scatter scatter_in(const struct head *h, struct sums *s) {
    double *mean = sums_mean(s);
    return (struct sm_scatter){.columns = h->columns,
                               .n = &s->n,
                               .squares = &s->squares,
                               .mean = mean,
                               .scatter = h->directions == 0 ? mean + h->columns : NULL};
}

/* Float32 blocks: the picked columns go to the sums as they are. */
static int map_moments_float(const struct head *h, const struct sm_rows *block,
                             const struct picked *picked, struct sums *s, struct sm_err *err) {
    const struct sm_scatter to = scatter_in(h, s);
    const size_t d = picked->n;
    if (d == block->columns) return sm_scatter_add_float(&to, block->f32, block->n, err);
    float *x = malloc((block->n * d + 1) * sizeof *x);
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < d; k++)
            x[i * d + k] = block->f32[i * block->columns + picked->at[k]];
    int failed = sm_scatter_add_float(&to, x, block->n, err);
    free(x);
    return failed;
}

static int map_double(const struct head *h, const struct sm_buf *state, const struct sm_rows *block,
                      const struct picked *picked, struct sums *s, struct sm_err *err) {
    const struct sm_scatter to = scatter_in(h, s);
    double *x = malloc((block->n * picked->n + 1) * sizeof *x);
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    centre(block, picked, h->round > 0 ? state_mean(state) : NULL, x);
    int failed = h->round > 0 ? sm_subspace_add(x, block->n, h->columns, h->directions,
                                                state_mean(state) + h->columns, sums_mean(s), err)
                              : sm_scatter_add(&to, x, block->n, err);
    free(x);
    return failed;
}

static int map(const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_rows *block, uint64_t first, void *partial, struct sm_err *err) {
    const struct head h = head_of(state);
    const struct params *p = c->params;
    struct picked picked;
    (void)first;
    if (picked_make(c->in, &p->columns, &picked, err) != 0) return -1;
    int failed = 0;
    if (!has_missing(block, &picked, partial))
        failed = h.round == 0 && !block->is_double
                     ? map_moments_float(&h, block, &picked, partial, err)
                     : map_double(&h, state, block, &picked, partial, err);
    free(picked.at);
    return failed;
}

static void merge(const struct sm_fit_context *c, const struct sm_buf *state, void *into,
                  const void *other) {
    const struct head h = head_of(state);
    struct sums *a = into;
    const struct sums *b = other;
    double *va = sums_mean(into);
    const double *vb = (const double *)(const void *)(b + 1);
    (void)c;
    if (a->missing == 0) a->missing_column = b->missing_column;
    a->missing += b->missing;
    largest_note(a, b->largest, b->largest_column);
    if (h.round > 0) {
        for (size_t i = 0; i < h.columns * h.directions; i++)
            va[i] += vb[i];
        return;
    }
    struct sums other_own = *b;
    const struct sm_scatter to = scatter_in(&h, a);
    const struct sm_scatter from = {.columns = h.columns,
                                    .n = &other_own.n,
                                    .squares = &other_own.squares,
                                    .mean = (double *)(uintptr_t)vb,
                                    .scatter = (double *)(uintptr_t)(vb + h.columns)};
    sm_scatter_merge(&to, &from);
}

/* --- what is learned -------------------------------------------------------------------------- */

/* The entry of largest size becomes positive; of equals the first decides. */
static void sign_fix(double *component, size_t n) {
    size_t at = 0;
    for (size_t k = 1; k < n; k++)
        if (fabs(component[k]) > fabs(component[at])) at = k;
    if (component[at] < 0)
        for (size_t k = 0; k < n; k++)
            component[k] = -component[k];
}

/* How many components are kept, of `found` with these variances (falling). */
static size_t kept(const struct params *p, const double *variance, size_t found, double total) {
    const struct sm_any *n = &p->n_components;
    if (n->kind != SM_ANY_NUMBER) return found;
    if (n->number >= 1) return (size_t)n->number < found ? (size_t)n->number : found;
    double sum = 0;
    for (size_t k = 0; k < found; k++) {
        sum += variance[k] / total;
        if (sum > n->number) return k + 1;
    }
    return found;
}

struct result {
    size_t columns, found; /* found rows of vectors */
    double rows, total;    /* total: variance of all columns */
    const double *mean;
    double *vectors, *values; /* by falling value: variances */
};

static int learn(const struct params *p, struct result *r, struct sm_artifact *a,
                 struct sm_arena *arena, struct sm_err *err) {
    if (!(r->total > 0))
        return sm_fail(err, SM_E_DATASET, "all rows are equal: there is no variance to find");
    const size_t n = kept(p, r->values, r->found, r->total), d = r->columns;
    double *extra = calloc(3 * n + 1, sizeof *extra), *ratio = extra, *singular = ratio + n;
    if (extra == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    double sum = 0;
    for (size_t k = 0; k < n; k++) {
        sign_fix(r->vectors + k * d, d);
        ratio[k] = r->values[k] / r->total;
        singular[k] = sqrt(r->values[k] * (r->rows - 1));
        sum += r->values[k];
    }
    const size_t most = d < (size_t)r->rows ? d : (size_t)r->rows;
    const double noise = n < most ? (r->total - sum) / (double)(most - n) : 0;
    int failed =
        learned_add(a, arena, "components_", SM_ARRAY_F64, n, d, r->vectors, err) != 0 ||
        learned_add(a, arena, "mean_", SM_ARRAY_F64, d, 0, r->mean, err) != 0 ||
        learned_add(a, arena, "explained_variance_", SM_ARRAY_F64, n, 0, r->values, err) != 0 ||
        learned_add(a, arena, "explained_variance_ratio_", SM_ARRAY_F64, n, 0, ratio, err) != 0 ||
        learned_add(a, arena, "singular_values_", SM_ARRAY_F64, n, 0, singular, err) != 0 ||
        learned_add(a, arena, "n_samples_", SM_ARRAY_F64, 1, 0, &r->rows, err) != 0 ||
        learned_add(a, arena, "noise_variance_", SM_ARRAY_F64, 1, 0, &noise, err) != 0;
    free(extra);
    return failed ? -1 : 0;
}

static int next_covariance(const struct sm_fit_context *c, const struct sums *s,
                           struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    struct sums *own = (struct sums *)(uintptr_t)s; /* the merged partial is ours to change */
    const struct params *p = c->params;
    double *mean = sums_mean(own);
    struct picked picked;
    if (picked_make(c->in, &p->columns, &picked, err) != 0) return -1;
    const size_t d = picked.n;
    free(picked.at);
    double *scatter = mean + d, *values = calloc(d + 1, sizeof *values);
    if (values == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    double total = 0;
    for (size_t i = 0; i < d; i++) {
        for (size_t k = 0; k <= i; k++)
            scatter[i * d + k] /= s->n - 1;
        total += scatter[i * d + i];
    }
    int failed = sm_eigen(scatter, d, values, err);
    if (!failed) {
        struct result r = {.columns = d,
                           .found = d < (size_t)s->n ? d : (size_t)s->n,
                           .rows = s->n,
                           .total = total,
                           .mean = mean,
                           .vectors = scatter,
                           .values = values};
        failed = learn(p, &r, a, arena, err);
    }
    free(values);
    return failed;
}

/* The first round of the randomized way gave means and squares; then W = C Q for a Q that turns
 * towards the components; the last W gives the small problem Q' C Q. */
static int next_randomized(const struct sm_fit_context *c, struct sm_buf *state,
                           const struct sums *s, bool *done, struct sm_artifact *a,
                           struct sm_arena *arena, struct sm_err *err) {
    const struct params *p = c->params;
    struct head h = head_of(state);
    const size_t d = h.columns, l = h.directions;
    const double *w = (const double *)(const void *)(s + 1);
    if (h.round == 0) {
        h.round = 1;
        h.total = s->squares;
        double *q = malloc(d * l * sizeof *q);
        if (q == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        int failed = sm_subspace_begin(c->seed, d, l, q, err);
        sm_buf_reset(state);
        sm_buf_add(state, &h, sizeof h);
        sm_buf_add(state, w, d * sizeof *w); /* the means */
        sm_buf_add(state, q, d * l * sizeof *q);
        free(q);
        return failed;
    }
    double *q = (double *)(void *)(state->data + sizeof h) + d;
    if (h.round <= (uint64_t)p->iterated_power) {
        h.round++;
        memcpy(state->data, &h, sizeof h);
        memcpy(q, w, d * l * sizeof *q);
        return sm_orthonormal(q, d, l, err);
    }
    const double rows = (double)c->rows;
    double *vectors = calloc(l * d + l + 1, sizeof *vectors), *values = vectors + l * d;
    if (vectors == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed = sm_subspace_end(q, w, d, l, rows, vectors, values, err);
    if (!failed) {
        struct result r = {.columns = d,
                           .found = l,
                           .rows = rows,
                           .total = h.total / (rows - 1),
                           .mean = state_mean(state),
                           .vectors = vectors,
                           .values = values};
        failed = learn(p, &r, a, arena, err);
    }
    *done = true;
    free(vectors);
    return failed;
}

static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct sums *s = merged;
    if (s->missing > 0)
        return sm_fail(err, SM_E_DATASET,
                       "column '%.80s' has missing or infinite cells (%llu in all columns), which "
                       "it cannot use (hint: SimpleImputer before it)",
                       c->in->columns[s->missing_column - 1].name, (unsigned long long)s->missing);
    if (s->largest_column > 0 && !isfinite(s->squares))
        return learned_finite(c, s->largest_column - 1, "the sum of its squares", s->squares, err);
    if (head_of(state).directions > 0) return next_randomized(c, state, s, done, a, arena, err);
    *done = true;
    return next_covariance(c, s, a, arena, err);
}

static const struct sm_fit fit = {begin, partial_bytes, map, merge, next};

/* --- rows ------------------------------------------------------------------------------------- */

static int schema(const void *params_, const struct sm_artifact *learned,
                  const struct sm_schema *in, struct sm_schema *out, struct sm_arena *arena,
                  struct sm_err *err) {
    const struct params *p = params_;
    *out = (struct sm_schema){.is_double = in->is_double};
    if (columns_check(in, &p->columns, SM_COLUMN_NUMBER, err) != 0) return -1;
    if (learned == NULL) return 0;
    struct picked picked;
    if (picked_make(in, &p->columns, &picked, err) != 0) return -1;
    const struct sm_array *components = sm_artifact_find(learned, "components_");
    int failed = components == NULL || components->ndim != 2 || components->shape[1] != picked.n ||
                         components->shape[0] > picked.n
                     ? learned_wrong(err)
                     : 0;
    const size_t n = failed ? 0 : (size_t)components->shape[0], rest = in->n - picked.n;
    struct sm_schema made = {.n = n + rest, .is_double = in->is_double};
    made.columns = calloc(made.n + 1, sizeof *made.columns);
    char(*names)[SERIES_NAME] = calloc(n + 1, sizeof *names);
    if (!failed && (made.columns == NULL || names == NULL))
        failed = sm_fail(err, SM_E_MEMORY, "out of memory");
    const int series = failed ? 0 : series_free(in, &picked, "pca", n);
    for (size_t k = 0; !failed && k < n; k++) {
        series_name("pca", series, (long)k, names[k]);
        made.columns[k] = (struct sm_column){.name = names[k]};
    }
    if (!failed) picked_rest_schema(in, &picked, made.columns + n);
    if (!failed) failed = sm_schema_copy(out, &made, arena, err);
    free(made.columns);
    free(names);
    free(picked.at);
    return failed;
}

/* What apply needs of what was learned. */
struct projection {
    size_t n; /* components */
    struct picked picked;
    const double *mean;
    double *whitened; /* what a double's component is divided by; NULL: nothing */
    void *panels;     /* of the components; of float they are whitened already */
};

static void release(void *prepared) {
    struct projection *t = prepared;
    free(t->picked.at);
    free(t->whitened);
    free(t->panels);
    free(t);
}

static int panels_make(struct projection *t, const double *components, bool is_double,
                       struct sm_err *err) {
    const size_t n = t->n, d = t->picked.n;
    if (is_double) {
        t->panels = malloc(sm_panels_double_bytes(n, d) + 1);
        if (t->panels == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        sm_panels_double(components, n, d, t->panels);
        return 0;
    }
    float *narrow = malloc((n * d + 1) * sizeof *narrow);
    t->panels = malloc(sm_panels_float_bytes(n, d) + 1);
    int failed =
        narrow == NULL || t->panels == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    for (size_t k = 0; !failed && k < n; k++)
        sm_rows_narrow(components + k * d, d, t->whitened != NULL ? 1 / t->whitened[k] : 1,
                       narrow + k * d);
    if (!failed) sm_panels_float(narrow, n, d, t->panels);
    free(narrow);
    return failed;
}

static int prepare(const void *params_, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err) {
    const struct params *p = params_;
    struct projection *t = calloc(1, sizeof *t);
    if (t == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    learned->prepared = t;
    learned->release = release;
    if (picked_make(in, &p->columns, &t->picked, err) != 0) return -1;
    const struct sm_array *components = sm_artifact_find(learned, "components_");
    const size_t d = t->picked.n;
    t->n = components != NULL && components->ndim == 2 ? (size_t)components->shape[0] : 0;
    const double *found = learned_find(learned, "components_", SM_ARRAY_F64, t->n * d),
                 *variance = learned_find(learned, "explained_variance_", SM_ARRAY_F64, t->n);
    t->mean = learned_find(learned, "mean_", SM_ARRAY_F64, d);
    if (found == NULL || t->mean == NULL || variance == NULL ||
        !learned_are_finite(found, t->n * d) || !learned_are_finite(t->mean, d) ||
        (p->whiten && !learned_are_finite(variance, t->n)))
        return learned_wrong(err);
    if (p->whiten) {
        t->whitened = malloc((t->n + 1) * sizeof *t->whitened);
        if (t->whitened == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        for (size_t k = 0; k < t->n; k++)
            t->whitened[k] = sqrt(variance[k] > 0 ? variance[k] : DBL_EPSILON);
    }
    return panels_make(t, found, in->is_double, err);
}

/* Float32 rows: centred in float64, multiplied in float32. */
static int project_float(const struct projection *t, const struct sm_rows *block, float *y,
                         struct sm_err *err) {
    const size_t rows = block->n, d = t->picked.n;
    float *x = malloc((rows * d + 1) * sizeof *x);
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    const bool gather = d < block->columns;
    for (size_t i = 0; gather && i < rows; i++)
        for (size_t k = 0; k < d; k++)
            x[i * d + k] = block->f32[i * block->columns + t->picked.at[k]];
    sm_rows_centre(gather ? x : block->f32, rows, d, t->mean, x);
    sm_dots_float(x, rows, t->panels, t->n, d, y);
    free(x);
    return 0;
}

static int project_double(const struct projection *t, const struct sm_rows *block, double *y,
                          struct sm_err *err) {
    const size_t rows = block->n, d = t->picked.n;
    double *x = malloc((rows * d + 1) * sizeof *x);
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    centre(block, &t->picked, t->mean, x);
    sm_dots_double(x, rows, t->panels, t->n, d, y);
    for (size_t i = 0; t->whitened != NULL && i < rows; i++)
        for (size_t k = 0; k < t->n; k++)
            y[i * t->n + k] /= t->whitened[k];
    free(x);
    return 0;
}

/* A row with a missing cell is a fault; its numbers are not looked at, and no other row's depend
 * on them. */
static void faults_find(const struct sm_rows *block, const struct sm_schema *in,
                        const struct picked *picked, struct sm_row_faults *faults) {
    if (!block->is_double && sm_rows_finite(block->f32, block->n * block->columns)) return;
    picked_faults(block, in, picked, faults);
}

static int project(const struct projection *t, const struct sm_rows *block, struct sm_rows *out,
                   struct sm_err *err) {
    if (out->columns == t->n)
        return block->is_double ? project_double(t, block, out->f64, err)
                                : project_float(t, block, out->f32, err);
    struct sm_rows y;
    if (sm_rows_alloc(&y, block->n, t->n, block->is_double, err) != 0) return -1;
    int failed = block->is_double ? project_double(t, block, y.f64, err)
                                  : project_float(t, block, y.f32, err);
    for (size_t i = 0; !failed && i < block->n; i++)
        for (size_t k = 0; k < t->n; k++)
            sm_rows_put(out, i, k, sm_rows_cell(&y, i, k));
    if (!failed) picked_rest(block, &t->picked, out, t->n);
    sm_rows_free(&y);
    return failed;
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const struct projection *t = learned->prepared;
    (void)params_;
    faults_find(block, in, &t->picked, faults);
    if (project(t, block, out, err) != 0) return -1;
    if (out->is_double || !sm_rows_finite(out->f32, out->n * out->columns))
        picked_overflows(out, t->n, faults);
    return 0;
}

static const struct sm_row_op rows = {
    .schema = schema, .fit = &fit, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_pca = {
    .info = {.name = "PCA",
             .doc = "Projects rows on the directions of largest variance.",
             .example = "PCA: {n_components: 0.95}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .rows = true},
    .check = check,
    .rows = &rows,
};
