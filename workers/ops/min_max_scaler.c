/* MinMaxScaler: brings the smallest and largest value of each column to the ends of a range, as
 * scikit-learn's. Missing cells stay missing; a constant column goes to the lower end. */
#include "workers/ops/columns.h"

#include <float.h>

struct params {
    struct sm_nums feature_range;
    bool clip;
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "feature_range",
     .type = SM_T_NUMS,
     .offset = offsetof(struct params, feature_range),
     .dflt = "[0, 1]",
     .min = -1e12,
     .max = 1e12,
     .count_min = 2,
     .count_max = 2,
     .doc = "where the smallest and the largest value go"},
    {.name = "clip",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, clip),
     .dflt = "false",
     .doc = "values beyond those that were learned from are cut to the range"},
    COLUMNS_PARAM(struct params, "all that hold numbers"),
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    if (p->feature_range.count == 2 && p->feature_range.v[0] < p->feature_range.v[1]) return 0;
    return sm_fail(err, SM_E_PIPELINE, "'feature_range' must run from small to large");
}

struct extent {
    double n, low, high;
};

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    (void)state;
    return columns_check(c->in, &p->columns, SM_COLUMN_NUMBER, err);
}

static size_t partial_bytes(const struct sm_fit_context *c, const struct sm_buf *state) {
    (void)state;
    return c->in->n * sizeof(struct extent);
}

static void extent_add(struct extent *e, double n, double low, double high) {
    if (n == 0) return;
    if (e->n == 0 || low < e->low) e->low = low;
    if (e->n == 0 || high > e->high) e->high = high;
    e->n += n;
}

static int map(const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_rows *block, uint64_t first, void *partial, struct sm_err *err) {
    (void)state, (void)first, (void)err;
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < c->in->n; k++) {
            const double x = sm_rows_cell(block, i, k);
            extent_add((struct extent *)partial + k, x == x, x, x);
        }
    return 0;
}

static void merge(const struct sm_fit_context *c, const struct sm_buf *state, void *into,
                  const void *other) {
    const struct extent *b = other;
    (void)state;
    for (size_t k = 0; k < c->in->n; k++)
        extent_add((struct extent *)into + k, b[k].n, b[k].low, b[k].high);
}

static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct params *p = c->params;
    const struct extent *e = merged;
    const size_t n = c->in->n;
    double *low = calloc(4 * n + 1, sizeof *low), *high = low + n, *scale = high + n,
           *min = scale + n;
    uint8_t *picked = calloc(n + 1, 1);
    int failed = low == NULL || picked == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    (void)state;
    if (!failed) columns_pick(c->in, &p->columns, SM_COLUMN_NUMBER, picked);
    for (size_t k = 0; !failed && k < n; k++) {
        scale[k] = 1;
        if (!picked[k]) continue;
        if (e[k].n == 0) failed = column_empty(c, k, err);
        low[k] = e[k].low;
        high[k] = e[k].high;
        double range = high[k] - low[k];
        if (range < 10 * DBL_EPSILON) range = 1; /* scikit-learn's _handle_zeros_in_scale */
        if (!failed) failed = learned_finite(c, k, "its range", range, err);
        scale[k] = (p->feature_range.v[1] - p->feature_range.v[0]) / range;
        min[k] = p->feature_range.v[0] - low[k] * scale[k];
        if (!failed) failed = learned_finite(c, k, "what it is shifted by", min[k], err);
    }
    *done = true;
    if (!failed) failed = learned_add(a, arena, "data_min_", SM_ARRAY_F64, n, 0, low, err);
    if (!failed) failed = learned_add(a, arena, "data_max_", SM_ARRAY_F64, n, 0, high, err);
    if (!failed) failed = learned_add(a, arena, "scale_", SM_ARRAY_F64, n, 0, scale, err);
    if (!failed) failed = learned_add(a, arena, "min_", SM_ARRAY_F64, n, 0, min, err);
    free(low);
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
    return scales_prepare(in, &p->columns, "min_", false, learned, err);
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const struct params *p = params_;
    const size_t n = in->n;
    const double *scale = learned_find(learned, "scale_", SM_ARRAY_F64, n),
                 *min = learned_find(learned, "min_", SM_ARRAY_F64, n);
    const uint8_t *picked = learned->prepared;
    (void)faults;
    if (scale == NULL || min == NULL) return learned_wrong(err);
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < n; k++) {
            double x = sm_rows_cell(block, i, k) * scale[k] + min[k];
            if (p->clip && picked[k]) {
                if (x < p->feature_range.v[0]) x = p->feature_range.v[0];
                if (x > p->feature_range.v[1]) x = p->feature_range.v[1];
            }
            sm_rows_put(out, i, k, x);
        }
    return 0;
}

static const struct sm_row_op rows = {
    .schema = schema, .fit = &fit, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_min_max_scaler = {
    .info = {.name = "MinMaxScaler",
             .doc =
                 "Brings the smallest and the largest value of each column to the ends of a range.",
             .example = "MinMaxScaler: {feature_range: [-1, 1]}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .rows = true},
    .check = check,
    .rows = &rows,
};
