/* SMOTENC: SMOTE for tables that hold categories too. A category that differs adds the square of
 * the median of the standard deviations of the class's numbers to a squared distance, as in the
 * paper's section 6.1 and imbalanced-learn from 0.14 on (workers/neighbours.c); a new row gets the
 * category that most neighbours have. */
#include "workers/sampling_strategy.h"

static int columns(const struct sm_schema *schema, struct sm_err *err) {
    const size_t n = schema->n;
    size_t numbers = 0;
    for (size_t i = 0; i < n; i++)
        numbers += schema->columns[i].kind == SM_COLUMN_NUMBER;
    if (n == 0 || (numbers > 0 && numbers < n)) return 0;
    return sm_fail(err, SM_E_PIPELINE,
                   "SMOTENC works on numbers and categories, and all %zu columns hold %s%s", n,
                   numbers == 0 ? "categories" : "numbers",
                   numbers == 0 ? "" : " (hint: SMOTE, or source.categorical)");
}

static int plan(const void *p, const struct sm_method_data *data, struct sm_rebalance *r,
                struct sm_err *err) {
    return sm_smote_plan(p, "SMOTENC", data, r, err);
}

const struct sm_method sm_method_smotenc = {
    .info = {.name = "SMOTENC",
             .doc = "SMOTE for tables of numbers and categories: the numbers of an added row lie "
                    "between those of two rows, its categories are the neighbours' most frequent.",
             .example = "SMOTENC: {k_neighbors: 5}",
             .params = sm_smote_params,
             .n_params = SM_SMOTE_PARAMS,
             .params_size = sizeof(struct sm_smote_params)},
    .check = sm_smote_check,
    .columns = columns,
    .plan = plan,
    .neighbours = sm_smote_neighbours,
    .mixed = true,
};
