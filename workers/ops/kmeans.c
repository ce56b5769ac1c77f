/* KMeans: the nearest of k centres, or the distances from all of them, as a feature; Lloyd's
 * algorithm with k-means++. It starts on a sample of the rows (all of them when there are few),
 * where it tries n_init starts to their end; the best goes on over all rows, one round of the fit
 * for each step. Stops as scikit-learn's does. */
#include "workers/table/kmeans.h"
#include "lib/limits.h"
#include "workers/kernels/dots.h"
#include "workers/ops/picked.h"
#include "workers/table/sample.h"

enum output { LABEL, DISTANCES };
static const char *const inits[] = {"k-means++", "random", NULL};
static const char *const outputs[] = {"label", "distances", NULL};
static const char *const words[] = {"auto", NULL};

enum {
    CLUSTERS_MAX = 4096,
    SAMPLE_ROWS = 8192,          /* at least, where there are so many, */
    SAMPLE_CLUSTER_ROWS = 128,   /* or so many for each cluster; */
    SAMPLE_BYTES = 16 << 20,     /* at most so many bytes, */
    SAMPLE_CLUSTER_ROWS_MIN = 2, /* but so many rows for each cluster */
    SMALL_CELLS = 1 << 22,       /* rows x columns x clusters of a sample */
    SMALL_STARTS = 4,            /* for each start that is asked for, where the sample is small */
};

struct params {
    int64_t n_clusters, max_iter;
    int init; /* enum sm_kmeans_init */
    struct sm_any n_init;
    double tol;
    int output; /* enum output */
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "n_clusters",
     .type = SM_T_INT,
     .offset = offsetof(struct params, n_clusters),
     .dflt = "8",
     .min = 1,
     .max = CLUSTERS_MAX,
     .doc = "how many clusters"},
    {.name = "init",
     .type = SM_T_ENUM,
     .offset = offsetof(struct params, init),
     .dflt = "k-means++",
     .choices = inits,
     .doc = "how the first centres are chosen"},
    {.name = "n_init",
     .type = SM_T_ANY,
     .offset = offsetof(struct params, n_init),
     .dflt = "auto",
     .choices = words,
     .integral = true,
     .min = 1,
     .max = 1000,
     .doc = "how many starts, of which the best counts; auto: 1 of k-means++, 10 of random"},
    {.name = "max_iter",
     .type = SM_T_INT,
     .offset = offsetof(struct params, max_iter),
     .dflt = "300",
     .min = 1,
     .max = 10000,
     .doc = "steps at most, of a start on the sample and again over all rows"},
    {.name = "tol",
     .type = SM_T_NUM,
     .offset = offsetof(struct params, tol),
     .dflt = "0.0001",
     .min = 0,
     .max = 1,
     .doc = "ends when the squares of the centres' moves sum to less, as a share of the variance"},
    {.name = "output",
     .type = SM_T_ENUM,
     .offset = offsetof(struct params, output),
     .dflt = "label",
     .choices = outputs,
     .doc = "the nearest centre's number as a category, or the distance from each centre"},
    COLUMNS_PARAM(struct params, "all that hold numbers; the others come behind the result"),
};

/* --- the fit ---------------------------------------------------------------------------------- */

enum phase { SAMPLING, LLOYD, FAREWELL, SCORING };

/* The state: this head, then mean[d], then (from LLOYD on) centers[k][d], less the means. */
struct head {
    uint64_t phase, columns, clusters, places;
    uint64_t start, steps; /* of the start that was kept, on the sample; over all rows */
    double tol;
};

/* Heads of partials. SAMPLING: this, mean[d], m2[d], the sample. LLOYD: counts[k], sums[k][d].
 * FAREWELL, where a cluster is empty: the same and the farthest rows. SCORING: inertia. */
struct moments {
    double n;
    uint64_t missing_column, missing; /* 1 + the first column with a missing cell; how many cells */
};

static struct head head_of(const struct sm_buf *state) {
    struct head h;
    memcpy(&h, state->data, sizeof h);
    return h;
}

static double *state_mean(const struct sm_buf *state) {
    return (double *)(void *)(state->data + sizeof(struct head));
}

static double *state_centers(const struct sm_buf *state) {
    return state_mean(state) + head_of(state).columns;
}

static struct sm_sample *sample_of(const struct head *h, void *partial) {
    return (void *)((double *)(void *)((struct moments *)partial + 1) + 2 * h->columns);
}

static struct sm_farthest *farthest_of(const struct head *h, void *partial) {
    return (void *)((double *)partial + h->clusters * (h->columns + 1));
}

/* Few rows: some more starts cost nothing, and the best of more is never worse. */
static size_t runs_of(const struct params *p, const struct head *h) {
    const size_t more = h->places * h->columns * h->clusters <= SMALL_CELLS ? SMALL_STARTS : 1;
    if (p->n_init.kind == SM_ANY_NUMBER) return (size_t)p->n_init.number * more;
    return (p->init == SM_KMEANS_RANDOM ? 10 : 1) * more;
}

static uint64_t sample_places(uint64_t rows, uint64_t clusters, size_t row_bytes) {
    uint64_t n = clusters * SAMPLE_CLUSTER_ROWS, least = clusters * SAMPLE_CLUSTER_ROWS_MIN;
    if (n < SAMPLE_ROWS) n = SAMPLE_ROWS;
    if (n > SAMPLE_BYTES / row_bytes) n = SAMPLE_BYTES / row_bytes;
    if (n < least) n = least;
    return n < rows ? n : rows;
}

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    struct picked picked;
    if (columns_check(c->in, &p->columns, SM_COLUMN_NUMBER, err) != 0 ||
        picked_make(c->in, &p->columns, &picked, err) != 0)
        return -1;
    free(picked.at);
    if (picked.n == 0) return sm_fail(err, SM_E_PIPELINE, "there is no column of numbers");
    if ((uint64_t)p->n_clusters > c->rows)
        return sm_fail(err, SM_E_DATASET, "%llu rows cannot make %lld clusters",
                       (unsigned long long)c->rows, (long long)p->n_clusters);
    if ((uint64_t)p->n_clusters * picked.n > SM_MAX_CENTER_CELLS)
        return sm_fail(
            err, SM_E_TOO_LARGE,
            "%lld clusters of %zu columns are more than %d numbers (hint: PCA before it)",
            (long long)p->n_clusters, picked.n, SM_MAX_CENTER_CELLS);
    const struct head h = {
        .columns = picked.n,
        .clusters = (uint64_t)p->n_clusters,
        .places = sample_places(c->rows, (uint64_t)p->n_clusters,
                                picked.n * (c->in->is_double ? sizeof(double) : sizeof(float)))};
    if (!sm_buf_add(state, &h, sizeof h)) return sm_fail(err, SM_E_MEMORY, "out of memory");
    return 0;
}

static size_t partial_bytes(const struct sm_fit_context *c, const struct sm_buf *state) {
    const struct head h = head_of(state);
    const size_t sums = h.clusters * (h.columns + 1) * sizeof(double);
    switch ((enum phase)h.phase) {
    case SAMPLING:
        return sizeof(struct moments) + 2 * h.columns * sizeof(double) +
               sm_sample_bytes(h.places, h.columns, c->in->is_double);
    case LLOYD:
        return sums;
    case FAREWELL:
        return sums + sm_farthest_bytes(h.columns);
    case SCORING:
        return sizeof(double);
    }
    return 0;
}

/* The picked columns in a matrix of their own, in the same element type, less mean (or NULL). */
static void centre(const struct sm_rows *block, const struct picked *picked, const double *mean,
                   struct sm_rows *out) {
    const size_t d = picked->n;
    for (size_t i = 0; i < block->n; i++)
        if (block->is_double)
            for (size_t k = 0; k < d; k++)
                out->f64[i * d + k] =
                    block->f64[i * block->columns + picked->at[k]] - (mean != NULL ? mean[k] : 0);
        else
            for (size_t k = 0; k < d; k++)
                out->f32[i * d + k] =
                    (float)((double)block->f32[i * block->columns + picked->at[k]] -
                            (mean != NULL ? mean[k] : 0));
}

static void moments_note(struct moments *m, const struct sm_rows *x, const size_t *at, double *mean,
                         double *m2) {
    for (size_t i = 0; i < x->n; i++) {
        m->n++;
        for (size_t k = 0; k < x->columns; k++) {
            const double v = sm_rows_cell(x, i, k), by = v - mean[k];
            if (!isfinite(v) && m->missing++ == 0) m->missing_column = at[k] + 1;
            mean[k] += by / m->n;
            m2[k] += by * (v - mean[k]);
        }
    }
}

static int map_sample(const struct sm_fit_context *c, const struct head *h,
                      const struct picked *picked, const struct sm_rows *x, uint64_t first,
                      void *partial) {
    double *mean = (double *)(void *)((struct moments *)partial + 1);
    moments_note(partial, x, picked->at, mean, mean + h->columns);
    sm_sample_add(sample_of(h, partial), h->places, x, first, c->seed);
    return 0;
}

static int map_step(const struct sm_buf *state, const struct sm_rows *x, uint64_t first,
                    void *partial, struct sm_err *err) {
    const struct head h = head_of(state);
    const double *at = state_centers(state);
    double *counts = partial, *sums = counts + h.clusters;
    struct sm_centers centers;
    if (sm_centers_make(&centers, at, h.clusters, h.columns, x->is_double, err) != 0) return -1;
    uint32_t *labels = malloc(x->n * sizeof *labels);
    double *scratch = malloc(h.columns * sizeof *scratch);
    int failed = labels == NULL || scratch == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) sm_kmeans_assign(&centers, x, labels);
    if (!failed && h.phase == SCORING)
        for (size_t i = 0; i < x->n; i++)
            *counts += sm_kmeans_distance(x, i, at + labels[i] * h.columns);
    if (!failed && h.phase != SCORING) sm_kmeans_add(x, labels, sums, counts);
    if (!failed && h.phase == FAREWELL)
        sm_farthest_rows(farthest_of(&h, partial), x, first, labels, at, scratch);
    sm_centers_free(&centers);
    free(labels);
    free(scratch);
    return failed;
}

static int map(const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_rows *block, uint64_t first, void *partial, struct sm_err *err) {
    const struct params *p = c->params;
    const struct head h = head_of(state);
    struct picked picked;
    struct sm_rows x;
    if (picked_make(c->in, &p->columns, &picked, err) != 0) return -1;
    int failed = sm_rows_alloc(&x, block->n, picked.n, block->is_double, err);
    if (!failed) {
        centre(block, &picked, h.phase == SAMPLING ? NULL : state_mean(state), &x);
        failed = h.phase == SAMPLING ? map_sample(c, &h, &picked, &x, first, partial)
                                     : map_step(state, &x, first, partial, err);
        sm_rows_free(&x);
    }
    free(picked.at);
    return failed;
}

static void merge_sample(const struct sm_fit_context *c, const struct head *h, struct moments *a,
                         const struct moments *b) {
    double *mean = (double *)(void *)(a + 1), *m2 = mean + h->columns;
    const double *mean_b = (const double *)(const void *)(b + 1), *m2_b = mean_b + h->columns;
    const double n = a->n + b->n;
    for (size_t k = 0; k < h->columns; k++) {
        const double by = mean_b[k] - mean[k];
        mean[k] += by * b->n / n;
        m2[k] += m2_b[k] + by * by * a->n * b->n / n;
    }
    if (a->missing == 0) a->missing_column = b->missing_column;
    a->missing += b->missing;
    a->n = n;
    sm_sample_merge(sample_of(h, a), h->places, h->columns, c->in->is_double,
                    sample_of(h, (void *)(uintptr_t)b));
}

static void merge(const struct sm_fit_context *c, const struct sm_buf *state, void *into,
                  const void *other) {
    const struct head h = head_of(state);
    double *a = into;
    const double *b = other;
    if (h.phase == SAMPLING) {
        merge_sample(c, &h, into, other);
        return;
    }
    const size_t n = h.phase == SCORING ? 1 : h.clusters * (h.columns + 1);
    for (size_t i = 0; i < n; i++)
        a[i] += b[i];
    if (h.phase != FAREWELL) return;
    const struct sm_farthest *f = farthest_of(&h, (void *)(uintptr_t)other);
    for (size_t i = 0; i < f->n; i++)
        sm_farthest_add(farthest_of(&h, into), f->of[i].distance, f->of[i].row,
                        (uint32_t)f->of[i].label, f->values + i * h.columns, h.columns);
}

/* The spread of a column that overflows leaves nothing to compare distances with. */
static int spreads_check(const struct sm_fit_context *c, const double *m2, struct sm_err *err) {
    const struct params *p = c->params;
    struct picked picked;
    double all = 0;
    if (picked_make(c->in, &p->columns, &picked, err) != 0) return -1;
    size_t widest = 0;
    for (size_t k = 0; k < picked.n; k++) {
        all += m2[k];
        if (!(m2[k] <= m2[widest])) widest = k;
    }
    int failed = picked.n == 0 ? 0
                               : learned_finite(c, picked.at[widest], "the sum of its squares",
                                                isfinite(all) ? 0 : all, err);
    free(picked.at);
    return failed;
}

/* The best start on the sample; the state becomes that of the first step over all rows. */
static int next_start(const struct sm_fit_context *c, struct sm_buf *state, void *merged,
                      struct sm_err *err) {
    const struct params *p = c->params;
    struct head h = head_of(state);
    const struct moments *m = merged;
    double *mean = (double *)(void *)((struct moments *)merged + 1), *m2 = mean + h.columns;
    struct sm_sample *sample = sample_of(&h, merged);
    struct sm_rows x, centred;
    size_t start = 0;
    if (m->missing > 0)
        return sm_fail(err, SM_E_DATASET,
                       "column '%.80s' has missing or infinite cells (%llu in all columns), which "
                       "it cannot use (hint: SimpleImputer before it)",
                       c->in->columns[m->missing_column - 1].name, (unsigned long long)m->missing);
    if (spreads_check(c, m2, err) != 0) return -1;
    for (size_t k = 0; k < h.columns; k++)
        h.tol += m2[k] / m->n / (double)h.columns;
    h.tol *= p->tol;
    const struct sm_kmeans_options o = {.k = h.clusters,
                                        .init = p->init,
                                        .runs = runs_of(p, &h),
                                        .max_iter = (size_t)p->max_iter,
                                        .tol = h.tol,
                                        .seed = c->seed};
    double *centers = calloc(h.clusters * h.columns, sizeof *centers);
    if (centers == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed = sm_rows_alloc(&x, sample->n, h.columns, c->in->is_double, err);
    if (!failed) {
        sm_sample_rows(sample, h.places, &x);
        centred = x;
        for (size_t i = 0; i < x.n; i++)
            for (size_t k = 0; k < h.columns; k++)
                sm_rows_put(&centred, i, k, sm_rows_cell(&x, i, k) - mean[k]);
        failed = sm_kmeans_solve(&centred, &o, centers, &start, err);
        h.start = start;
        sm_rows_free(&x);
    }
    h.phase = LLOYD;
    sm_buf_reset(state);
    sm_buf_add(state, &h, sizeof h);
    sm_buf_add(state, mean, h.columns * sizeof *mean);
    sm_buf_add(state, centers, h.clusters * h.columns * sizeof *centers);
    free(centers);
    return failed;
}

static void next_step(const struct sm_fit_context *c, struct sm_buf *state, void *merged) {
    const struct params *p = c->params;
    struct head h = head_of(state);
    double *counts = merged;
    if (h.phase == LLOYD && sm_kmeans_any_empty(counts, h.clusters)) {
        h.phase = FAREWELL; /* the same step again, and who is farthest */
    } else {
        const double moved =
            sm_kmeans_move(state_centers(state), h.clusters, h.columns, counts + h.clusters, counts,
                           h.phase == FAREWELL ? farthest_of(&h, merged) : NULL);
        h.steps++;
        h.phase = moved <= h.tol || h.steps == (uint64_t)p->max_iter ? SCORING : LLOYD;
    }
    memcpy(state->data, &h, sizeof h);
}

static int learn(const struct sm_buf *state, double inertia, struct sm_artifact *a,
                 struct sm_arena *arena, struct sm_err *err) {
    const struct head h = head_of(state);
    /* where the sample is all rows, the steps over all only confirm what was found there */
    const double *mean = state_mean(state), steps = (double)(h.start + h.steps);
    double *centers = state_centers(state);
    for (size_t j = 0; j < h.clusters; j++)
        for (size_t k = 0; k < h.columns; k++)
            centers[j * h.columns + k] += mean[k];
    return learned_add(a, arena, "cluster_centers_", SM_ARRAY_F64, h.clusters, h.columns, centers,
                       err) != 0 ||
                   learned_add(a, arena, "mean_", SM_ARRAY_F64, h.columns, 0, mean, err) != 0 ||
                   learned_add(a, arena, "inertia_", SM_ARRAY_F64, 1, 0, &inertia, err) != 0 ||
                   learned_add(a, arena, "n_iter_", SM_ARRAY_F64, 1, 0, &steps, err) != 0
               ? -1
               : 0;
}

static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    void *own = (void *)(uintptr_t)merged; /* the merged partial is ours to change */
    switch ((enum phase)head_of(state).phase) {
    case SAMPLING:
        return next_start(c, state, own, err);
    case LLOYD:
    case FAREWELL:
        next_step(c, state, own);
        return 0;
    case SCORING:
        *done = true;
        return learn(state, *(const double *)merged, a, arena, err);
    }
    return 0;
}

static const struct sm_fit fit = {begin, partial_bytes, map, merge, next};

/* --- rows ------------------------------------------------------------------------------------- */

/* Numbers of equal length, so that they are sorted as bytes too. */
static int label_make(struct sm_column *column, size_t k, int series, struct sm_arena *arena,
                      struct sm_err *err) {
    char text[SERIES_NAME];
    const int width = snprintf(text, sizeof text, "%zu", k - 1);
    const char **names = sm_arena_alloc(arena, k * sizeof *names);
    int failed = names == NULL;
    for (size_t j = 0; !failed && j < k; j++) {
        snprintf(text, sizeof text, "%0*zu", width, j);
        failed = (names[j] = sm_arena_str(arena, text)) == NULL;
    }
    series_name("kmeans", series, -1, text);
    *column = (struct sm_column){.name = sm_arena_str(arena, text),
                                 .kind = SM_COLUMN_CATEGORY,
                                 .categories = names,
                                 .n_categories = (uint32_t)k};
    failed = failed || column->name == NULL;
    return failed ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
}

static int distances_make(struct sm_column *columns, size_t k, int series, struct sm_arena *arena,
                          struct sm_err *err) {
    for (size_t j = 0; j < k; j++) {
        char text[SERIES_NAME];
        series_name("kmeans", series, (long)j, text);
        columns[j] = (struct sm_column){.name = sm_arena_str(arena, text)};
        if (columns[j].name == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    return 0;
}

static int schema(const void *params_, const struct sm_artifact *learned,
                  const struct sm_schema *in, struct sm_schema *out, struct sm_arena *arena,
                  struct sm_err *err) {
    const struct params *p = params_;
    const size_t k = (size_t)p->n_clusters, n = p->output == LABEL ? 1 : k;
    struct picked picked;
    (void)learned;
    if (columns_check(in, &p->columns, SM_COLUMN_NUMBER, err) != 0 ||
        picked_make(in, &p->columns, &picked, err) != 0)
        return -1;
    struct sm_schema made = {.n = n + in->n - picked.n, .is_double = in->is_double};
    made.columns = calloc(made.n, sizeof *made.columns);
    int failed = made.columns == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    const int series = failed ? 0 : series_free(in, &picked, "kmeans", p->output == LABEL ? 0 : k);
    if (!failed)
        failed = p->output == LABEL ? label_make(made.columns, k, series, arena, err)
                                    : distances_make(made.columns, k, series, arena, err);
    if (!failed) {
        picked_rest_schema(in, &picked, made.columns + n);
        failed = sm_schema_copy(out, &made, arena, err);
    }
    free(made.columns);
    free(picked.at);
    return failed;
}

/* What apply needs of what was learned. Centres are less the columns' means, as rows will be. */
struct nearness {
    struct picked picked;
    const double *mean;
    struct sm_centers centers; /* output: label */
    double *panels, *norms;    /* output: distances */
};

static void release(void *prepared) {
    struct nearness *t = prepared;
    sm_centers_free(&t->centers);
    free(t->picked.at);
    free(t->panels);
    free(t->norms);
    free(t);
}

static int distances_prepare(struct nearness *t, const double *at, size_t k, struct sm_err *err) {
    const size_t d = t->picked.n;
    t->panels = malloc(sm_panels_double_bytes(k, d) + 1);
    t->norms = malloc(k * sizeof *t->norms);
    if (t->panels == NULL || t->norms == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t j = 0; j < k; j++) {
        t->norms[j] = 0;
        for (size_t i = 0; i < d; i++)
            t->norms[j] += at[j * d + i] * at[j * d + i];
    }
    sm_panels_double(at, k, d, t->panels);
    return 0;
}

static int prepare(const void *params_, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err) {
    const struct params *p = params_;
    const size_t k = (size_t)p->n_clusters;
    struct nearness *t = calloc(1, sizeof *t);
    if (t == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    learned->prepared = t;
    learned->release = release;
    if (picked_make(in, &p->columns, &t->picked, err) != 0) return -1;
    const size_t d = t->picked.n;
    const double *found = learned_find(learned, "cluster_centers_", SM_ARRAY_F64, k * d);
    t->mean = learned_find(learned, "mean_", SM_ARRAY_F64, d);
    if (found == NULL || t->mean == NULL) return learned_wrong(err);
    double *at = malloc((k * d + 1) * sizeof *at);
    if (at == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t j = 0; j < k * d; j++)
        at[j] = found[j] - t->mean[j % d];
    int failed = !learned_are_finite(at, k * d) ? learned_wrong(err)
                 : p->output == LABEL ? sm_centers_make(&t->centers, at, k, d, in->is_double, err)
                                      : distances_prepare(t, at, k, err);
    free(at);
    return failed;
}

/* A row so long that its distance from every centre overflows is near none. */
static void lengths_check(const struct sm_rows *x, struct sm_row_faults *faults) {
    for (size_t i = 0; x->is_double && i < x->n; i++) {
        double length = 0;
        for (size_t j = 0; j < x->columns; j++)
            length += x->f64[i * x->columns + j] * x->f64[i * x->columns + j];
        if (isinf(length)) sm_row_fault(faults, i, "its numbers are too large for a distance");
    }
}

/* sqrt(|x|^2 - 2 x c + |c|^2) in double, the way of scikit-learn's euclidean_distances. */
static int distances_write(const struct nearness *t, const struct sm_rows *x, size_t k,
                           struct sm_rows *out, struct sm_err *err) {
    const size_t d = x->columns, n = x->n;
    double *rows = malloc((n * (d + k) + 1) * sizeof *rows), *products = rows + n * d;
    if (rows == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < n * d; i++)
        rows[i] = x->is_double ? x->f64[i] : (double)x->f32[i];
    sm_dots_double(rows, n, t->panels, k, d, products);
    for (size_t i = 0; i < n; i++) {
        double length = 0;
        for (size_t j = 0; j < d; j++)
            length += rows[i * d + j] * rows[i * d + j];
        for (size_t j = 0; j < k; j++) {
            const double v = length - 2 * products[i * k + j] + t->norms[j];
            sm_rows_put(out, i, j, v > 0 ? sqrt(v) : 0);
        }
    }
    free(rows);
    return 0;
}

static int labels_write(struct nearness *t, const struct sm_rows *x, struct sm_rows *out,
                        struct sm_err *err) {
    uint32_t *labels = malloc((x->n + 1) * sizeof *labels);
    if (labels == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    sm_kmeans_assign(&t->centers, x, labels);
    for (size_t i = 0; i < x->n; i++)
        sm_rows_put(out, i, 0, labels[i]);
    free(labels);
    return 0;
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const struct params *p = params_;
    struct nearness *t = learned->prepared;
    struct sm_rows x = {0};
    const size_t k = (size_t)p->n_clusters;
    if (sm_rows_alloc(&x, block->n, t->picked.n, in->is_double, err) != 0) return -1;
    picked_faults(block, in, &t->picked, faults);
    centre(block, &t->picked, t->mean, &x);
    lengths_check(&x, faults);
    int failed =
        p->output == LABEL ? labels_write(t, &x, out, err) : distances_write(t, &x, k, out, err);
    picked_rest(block, &t->picked, out, p->output == LABEL ? 1 : k);
    sm_rows_free(&x);
    return failed;
}

static const struct sm_row_op rows = {
    .schema = schema, .fit = &fit, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_kmeans = {
    .info = {.name = "KMeans",
             .doc = "The nearest of k centres that were learned, or the distances from them.",
             .example = "KMeans: {n_clusters: 16, output: distances}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .rows = true},
    .rows = &rows,
};
