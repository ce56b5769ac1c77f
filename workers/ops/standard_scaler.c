/* StandardScaler: (x - mean) / standard deviation of each column, as scikit-learn's: missing cells
 * are left out of the sums and stay missing, a constant column is only shifted. Learns means and
 * squared deviations in float64, merged by Chan's formula (Chan, Golub, LeVeque 1979). */
#include "workers/kernels/rows.h"
#include "workers/ops/columns.h"

#include <float.h>

struct params {
    bool with_mean, with_std;
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "with_mean",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, with_mean),
     .dflt = "true",
     .doc = "subtract the mean"},
    {.name = "with_std",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, with_std),
     .dflt = "true",
     .doc = "divide by the standard deviation"},
    COLUMNS_PARAM(struct params, "all that hold numbers"),
};

/* Of each column; an array of these is the partial. */
struct moments {
    double n, mean, m2;
};

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    (void)state;
    return columns_check(c->in, &p->columns, SM_COLUMN_NUMBER, err);
}

static size_t partial_bytes(const struct sm_fit_context *c, const struct sm_buf *state) {
    (void)state;
    return c->in->n * sizeof(struct moments);
}

static void moments_merge(struct moments *a, const struct moments *b) {
    if (b->n == 0) return;
    const double n = a->n + b->n, d = b->mean - a->mean;
    a->mean += d * b->n / n;
    a->m2 += b->m2 + d * d * a->n * b->n / n;
    a->n = n;
}

static void map_double(const struct sm_rows *block, double *n, double *sum, double *m2) {
    const size_t columns = block->columns;
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < columns; k++) {
            const double x = block->f64[i * columns + k];
            n[k] += x == x;
            sum[k] += x == x ? x : 0;
        }
    for (size_t k = 0; k < columns; k++)
        sum[k] = n[k] > 0 ? sum[k] / n[k] : 0;
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < columns; k++) {
            const double x = block->f64[i * columns + k], d = x == x ? x - sum[k] : 0;
            m2[k] += d * d;
        }
}

static void map_float(const struct sm_rows *block, double *n, double *sum, double *m2) {
    const size_t columns = block->columns;
    sm_rows_sums(block->f32, block->n, columns, n, sum);
    for (size_t k = 0; k < columns; k++)
        sum[k] = n[k] > 0 ? sum[k] / n[k] : 0;
    sm_rows_squares(block->f32, block->n, columns, sum, m2);
}

/* Two passes over a block, which stays in the cache: counts and sums, which become means, then
 * squared deviations. */
static int map(const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_rows *block, uint64_t first, void *partial, struct sm_err *err) {
    const size_t columns = c->in->n;
    struct moments *total = partial;
    double *n = calloc(3 * columns, sizeof *n), *sum = n + columns, *m2 = sum + columns;
    (void)state, (void)first;
    if (n == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    (block->is_double ? map_double : map_float)(block, n, sum, m2);
    for (size_t k = 0; k < columns; k++)
        moments_merge(&total[k], &(struct moments){n[k], sum[k], m2[k]});
    free(n);
    return 0;
}

static void merge(const struct sm_fit_context *c, const struct sm_buf *state, void *into,
                  const void *other) {
    (void)state;
    for (size_t k = 0; k < c->in->n; k++)
        moments_merge((struct moments *)into + k, (const struct moments *)other + k);
}

/* Whether the variance is nothing but rounding; scikit-learn's _is_constant_feature. */
static bool is_constant(double var, double mean, double n) {
    const double eps = DBL_EPSILON, bound = n * eps * var + (n * mean * eps) * (n * mean * eps);
    return var <= bound;
}

static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct params *p = c->params;
    const struct moments *m = merged;
    const size_t n = c->in->n;
    double *mean = calloc(4 * n + 1, sizeof *mean), *var = mean + n, *scale = var + n,
           *seen = scale + n;
    uint8_t *picked = calloc(n + 1, 1);
    int failed = mean == NULL || picked == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    (void)state;
    if (!failed) columns_pick(c->in, &p->columns, SM_COLUMN_NUMBER, picked);
    for (size_t k = 0; !failed && k < n; k++) {
        scale[k] = 1;
        if (!picked[k]) continue;
        if (m[k].n == 0) failed = column_empty(c, k, err);
        mean[k] = m[k].mean;
        var[k] = m[k].m2 / m[k].n;
        seen[k] = m[k].n;
        if (!failed) failed = learned_finite(c, k, "its mean", mean[k], err);
        if (!failed && p->with_std) failed = learned_finite(c, k, "its variance", var[k], err);
        if (p->with_std && !is_constant(var[k], mean[k], m[k].n)) scale[k] = sqrt(var[k]);
    }
    *done = true;
    if (!failed) failed = learned_add(a, arena, "mean_", SM_ARRAY_F64, n, 0, mean, err);
    if (!failed) failed = learned_add(a, arena, "var_", SM_ARRAY_F64, n, 0, var, err);
    if (!failed) failed = learned_add(a, arena, "scale_", SM_ARRAY_F64, n, 0, scale, err);
    if (!failed) failed = learned_add(a, arena, "n_samples_seen_", SM_ARRAY_F64, n, 0, seen, err);
    free(mean);
    free(picked);
    return failed;
}

static const struct sm_fit fit = {begin, partial_bytes, map, merge, next};

static int schema(const void *params_, const struct sm_artifact *learned,
                  const struct sm_schema *in, struct sm_schema *out, struct sm_arena *arena,
                  struct sm_err *err) {
    const struct params *p = params_;
    (void)learned;
    return columns_keep(in, &p->columns, SM_COLUMN_NUMBER, out, arena, err);
}

static int prepare(const void *params_, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err) {
    const struct params *p = params_;
    return scales_prepare(in, &p->columns, "mean_", true, learned, err);
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const struct params *p = params_;
    const size_t n = in->n;
    const double *mean = learned_find(learned, "mean_", SM_ARRAY_F64, n),
                 *scale = learned_find(learned, "scale_", SM_ARRAY_F64, n);
    (void)faults;
    if (mean == NULL || scale == NULL) return learned_wrong(err);
    /* columns that are not picked have mean 0, scale 1 */
    double *none = p->with_mean ? NULL : calloc(n + 1, sizeof *none);
    const double *shift = p->with_mean ? mean : none;
    if (shift == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (block->is_double)
        for (size_t i = 0; i < block->n; i++)
            for (size_t k = 0; k < n; k++)
                out->f64[i * n + k] = (block->f64[i * n + k] - shift[k]) / scale[k];
    else
        sm_rows_scale(block->f32, block->n, n, shift, scale, out->f32);
    free(none);
    return 0;
}

static const struct sm_row_op rows = {
    .schema = schema, .fit = &fit, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_standard_scaler = {
    .info =
        {.name = "StandardScaler",
         .doc =
             "Shifts each column to mean 0 and scales it to variance 1; missing cells stay missing.",
         .example = "StandardScaler",
         .params = params,
         .n_params = sizeof params / sizeof *params,
         .params_size = sizeof(struct params),
         .rows = true},
    .rows = &rows,
};
