/* SMOTE: rows are added to small classes on the way from a row to one of its neighbours (Chawla,
 * Bowyer, Hall and Kegelmeyer, "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 2002). */
#include "workers/sampling_strategy.h"

#include <inttypes.h>

static int columns(const struct sm_schema *schema, struct sm_err *err) {
    size_t categories = 0;
    const char *first = NULL;
    for (size_t i = 0; i < schema->n; i++) {
        if (schema->columns[i].kind == SM_COLUMN_NUMBER) continue;
        if (categories++ == 0) first = schema->columns[i].name;
    }
    if (categories == 0) return 0;
    return sm_fail(err, SM_E_PIPELINE,
                   "SMOTE works on numbers, and %zu column%s %s categories, '%.60s' first (hint: "
                   "SMOTENC)",
                   categories, categories == 1 ? "" : "s", categories == 1 ? "holds" : "hold",
                   first);
}

static int plan(const void *p, const struct sm_method_data *data, struct sm_rebalance *r,
                struct sm_err *err) {
    return sm_smote_plan(p, "SMOTE", data, r, err);
}

const struct sm_method sm_method_smote = {
    .info = {.name = "SMOTE",
             .doc = "Adds rows to small classes of a table: each lies between a row and one of its "
                    "nearest neighbours in the class.",
             .example = "SMOTE: {k_neighbors: 5}",
             .params = sm_smote_params,
             .n_params = SM_SMOTE_PARAMS,
             .params_size = sizeof(struct sm_smote_params)},
    .check = sm_smote_check,
    .columns = columns,
    .plan = plan,
    .neighbours = sm_smote_neighbours,
};
