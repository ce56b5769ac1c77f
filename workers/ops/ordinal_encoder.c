/* OrdinalEncoder: a category becomes its number among those that occur in training, sorted, as
 * scikit-learn's; a missing cell stays missing unless it is given a value. */
#include "workers/ops/categories.h"

enum unknown { ERROR, USE_ENCODED_VALUE };
static const char *const unknowns[] = {"error", "use_encoded_value", NULL};

struct params {
    int handle_unknown; /* enum unknown */
    struct sm_any unknown_value, encoded_missing_value;
    struct grouping grouping;
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "handle_unknown",
     .type = SM_T_ENUM,
     .offset = offsetof(struct params, handle_unknown),
     .dflt = "error",
     .choices = unknowns,
     .doc =
         "a category that did not occur in training: the row is quarantined, or gets unknown_value"},
    {.name = "unknown_value",
     .type = SM_T_ANY,
     .offset = offsetof(struct params, unknown_value),
     .dflt = "null",
     .null_ok = true,
     .doc = "for use_encoded_value: a number; null: missing"},
    {.name = "encoded_missing_value",
     .type = SM_T_ANY,
     .offset = offsetof(struct params, encoded_missing_value),
     .dflt = "null",
     .null_ok = true,
     .doc = "what a missing cell becomes, a number; null: it stays missing"},
    GROUPING_PARAMS(struct params),
    COLUMNS_PARAM(struct params, "all that hold categories"),
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    if (p->unknown_value.kind == SM_ANY_WORD || p->encoded_missing_value.kind == SM_ANY_WORD)
        return sm_fail(err, SM_E_PIPELINE,
                       "'unknown_value' and 'encoded_missing_value' are numbers");
    return grouping_check(&p->grouping, err);
}

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    (void)state;
    return columns_check(c->in, &p->columns, SM_COLUMN_CATEGORY, err);
}

/* A value with a meaning of its own is no category's number, as scikit-learn demands. */
static int value_is_free(const char *name, const struct sm_any *value,
                         const struct sm_column *column, const int64_t *codes, struct sm_err *err) {
    for (uint32_t i = 0; value->kind == SM_ANY_NUMBER && i < column->n_categories; i++)
        if (codes[i] >= 0 && (double)codes[i] == value->number)
            return sm_fail(err, SM_E_PIPELINE,
                           "'%s' %g is the number of category '%.80s' of column '%.80s' (hint: -1)",
                           name, value->number, column->categories[i], column->name);
    return 0;
}

static int values_are_free(const struct sm_fit_context *c, const uint64_t *counts,
                           const int64_t *codes, struct sm_err *err) {
    const struct params *p = c->params;
    uint8_t *picked = calloc(c->in->n + 1, 1);
    int failed = picked == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) columns_pick(c->in, &p->columns, SM_COLUMN_CATEGORY, picked);
    for (size_t k = 0, at = 0; !failed && k < c->in->n; at += categories_cells(c->in, k), k++) {
        const struct sm_column *column = &c->in->columns[k];
        if (!picked[k]) continue;
        if (p->handle_unknown == USE_ENCODED_VALUE)
            failed = value_is_free("unknown_value", &p->unknown_value, column, codes + at, err);
        if (!failed && counts[at + column->n_categories] > 0)
            failed = value_is_free("encoded_missing_value", &p->encoded_missing_value, column,
                                   codes + at, err);
    }
    free(picked);
    return failed;
}

static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct params *p = c->params;
    (void)state;
    *done = true;
    if (categories_learn(c, &p->grouping, false, merged, a, arena, err) != 0) return -1;
    return values_are_free(c, merged, sm_artifact_find(a, "codes_")->data, err);
}

static const struct sm_fit fit = {begin, categories_partial_bytes, categories_map, categories_merge,
                                  next};

/* The columns become numbers. */
static int schema(const void *params_, const struct sm_artifact *learned,
                  const struct sm_schema *in, struct sm_schema *out, struct sm_arena *arena,
                  struct sm_err *err) {
    const struct params *p = params_;
    (void)learned;
    if (columns_check(in, &p->columns, SM_COLUMN_CATEGORY, err) != 0 ||
        sm_schema_copy(out, in, arena, err) != 0)
        return -1;
    uint8_t *picked = calloc(in->n + 1, 1);
    if (picked == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    columns_pick(in, &p->columns, SM_COLUMN_CATEGORY, picked);
    for (size_t k = 0; k < in->n; k++)
        if (picked[k]) out->columns[k] = (struct sm_column){.name = out->columns[k].name};
    free(picked);
    return 0;
}

static double number_or_missing(const struct sm_any *value) {
    return value->kind == SM_ANY_NUMBER ? value->number : NAN;
}

static int prepare(const void *params_, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err) {
    const struct params *p = params_;
    const struct known known = known_find(learned, in);
    if (columns_prepare(in, &p->columns, SM_COLUMN_CATEGORY, learned, err) != 0) return -1;
    return known_is_sound(&known, in, false) ? 0 : learned_wrong(err);
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const struct params *p = params_;
    const int64_t *codes = known_find(learned, in).codes;
    const uint8_t *picked = learned->prepared;
    if (codes == NULL) return learned_wrong(err);
    rows_copy(block, out);
    for (size_t k = 0; k < in->n; codes += categories_cells(in, k), k++)
        for (size_t i = 0; picked[k] && i < block->n; i++) {
            const long at = categories_cell(&in->columns[k], sm_rows_cell(block, i, k));
            if (at == (long)in->columns[k].n_categories)
                sm_rows_put(out, i, k, number_or_missing(&p->encoded_missing_value));
            else if (at >= 0 && codes[at] >= 0)
                sm_rows_put(out, i, k, (double)codes[at]);
            else if (p->handle_unknown == USE_ENCODED_VALUE)
                sm_rows_put(out, i, k, number_or_missing(&p->unknown_value));
            else
                category_fault(faults, i, &in->columns[k], at);
        }
    return 0;
}

static const struct sm_row_op rows = {
    .schema = schema, .fit = &fit, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_ordinal_encoder = {
    .info = {.name = "OrdinalEncoder",
             .doc = "Turns each category into its number among those that occur in training.",
             .example = "OrdinalEncoder: {handle_unknown: use_encoded_value, unknown_value: -1}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .rows = true},
    .check = check,
    .rows = &rows,
};
