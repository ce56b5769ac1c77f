/* RobustScaler: (x - median) / (difference of two quantiles) of each column, as scikit-learn's. The
 * quantiles are exact (workers/table/quantiles.h). Missing cells stay missing. */
#include "workers/ops/columns.h"
#include "workers/table/quantiles.h"

#include <float.h>

struct params {
    bool with_centering, with_scaling;
    struct sm_nums quantile_range;
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "with_centering",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, with_centering),
     .dflt = "true",
     .doc = "subtract the median"},
    {.name = "with_scaling",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, with_scaling),
     .dflt = "true",
     .doc = "divide by the difference of the two quantiles"},
    {.name = "quantile_range",
     .type = SM_T_NUMS,
     .offset = offsetof(struct params, quantile_range),
     .dflt = "[25, 75]",
     .max = 100,
     .count_min = 2,
     .count_max = 2,
     .doc = "the two quantiles, in percent"},
    COLUMNS_PARAM(struct params, "all that hold numbers"),
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    if (p->quantile_range.count == 2 && p->quantile_range.v[0] <= p->quantile_range.v[1]) return 0;
    return sm_fail(err, SM_E_PIPELINE, "'quantile_range' must run from small to large");
}

static struct sm_quantiles wanted(const struct sm_fit_context *c) {
    const struct params *p = c->params;
    return (struct sm_quantiles){3,
                                 {p->quantile_range.v[0] / 100, 0.5, p->quantile_range.v[1] / 100}};
}

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    const struct sm_quantiles q = wanted(c);
    if (columns_check(c->in, &p->columns, SM_COLUMN_NUMBER, err) != 0) return -1;
    return sm_quantiles_begin(c, &q, state, err);
}

static size_t partial_bytes(const struct sm_fit_context *c, const struct sm_buf *state) {
    const struct sm_quantiles q = wanted(c);
    return sm_quantiles_partial(c, &q, state);
}

static int map(const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_rows *block, uint64_t first, void *partial, struct sm_err *err) {
    const struct sm_quantiles q = wanted(c);
    (void)first, (void)err;
    sm_quantiles_map(c, &q, state, block, partial);
    return 0;
}

static void merge(const struct sm_fit_context *c, const struct sm_buf *state, void *into,
                  const void *other) {
    const struct sm_quantiles q = wanted(c);
    sm_quantiles_merge(c, &q, state, into, other);
}

static int learn(const struct sm_fit_context *c, const double *q, const double *counts,
                 struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct params *p = c->params;
    const size_t n = c->in->n;
    double *center = calloc(2 * n + 1, sizeof *center), *scale = center + n;
    uint8_t *picked = calloc(n + 1, 1);
    int failed = center == NULL || picked == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) columns_pick(c->in, &p->columns, SM_COLUMN_NUMBER, picked);
    for (size_t k = 0; !failed && k < n; k++) {
        scale[k] = 1;
        if (!picked[k]) continue;
        if (counts[k] == 0) failed = column_empty(c, k, err);
        if (p->with_centering) center[k] = q[3 * k + 1];
        const double range = q[3 * k + 2] - q[3 * k];
        if (!failed) failed = learned_finite(c, k, "its median", center[k], err);
        if (!failed && p->with_scaling)
            failed = learned_finite(c, k, "the difference of its quantiles", range, err);
        if (p->with_scaling && range >= 10 * DBL_EPSILON) scale[k] = range;
    }
    if (!failed) failed = learned_add(a, arena, "center_", SM_ARRAY_F64, n, 0, center, err);
    if (!failed) failed = learned_add(a, arena, "scale_", SM_ARRAY_F64, n, 0, scale, err);
    free(center);
    free(picked);
    return failed;
}

static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct sm_quantiles wants = wanted(c);
    double *q = calloc(4 * c->in->n + 1, sizeof *q), *counts = q + 3 * c->in->n;
    if (q == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *done = sm_quantiles_next(c, &wants, state, merged, q, counts);
    int failed = *done ? learn(c, q, counts, a, arena, err) : 0;
    free(q);
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
    return scales_prepare(in, &p->columns, "center_", true, learned, err);
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const size_t n = in->n;
    const double *center = learned_find(learned, "center_", SM_ARRAY_F64, n),
                 *scale = learned_find(learned, "scale_", SM_ARRAY_F64, n);
    (void)params_, (void)faults;
    if (center == NULL || scale == NULL) return learned_wrong(err);
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < n; k++)
            sm_rows_put(out, i, k, (sm_rows_cell(block, i, k) - center[k]) / scale[k]);
    return 0;
}

static const struct sm_row_op rows = {
    .schema = schema, .fit = &fit, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_robust_scaler = {
    .info = {.name = "RobustScaler",
             .doc =
                 "Shifts each column to median 0 and scales it by the difference of two quantiles, "
                 "which outliers do not move.",
             .example = "RobustScaler: {quantile_range: [10, 90]}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .rows = true},
    .check = check,
    .rows = &rows,
};
