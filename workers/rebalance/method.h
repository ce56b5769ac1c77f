/* What a method of `rebalance:` is. One method is one file here, named after it, that defines
 * `const struct sm_method sm_method_<file>`; the build makes the list from the file names. plan
 * turns class counts into the counts of an epoch; the arithmetic that follows is lib/rebalance.h.
 */
#pragma once

#include "lib/err.h"
#include "lib/rebalance.h"
#include "pipelines/lang/pipeline.h"
#include "workers/table/rows.h"

#include <stdbool.h>
#include <stdint.h>

/* What a method may look at. r->of[c].present is filled when plan is called. */
struct sm_method_data {
    const char *const *classes; /* names, n of them */
    uint32_t n;
    const struct sm_schema *schema; /* of a table; NULL: images */
    uint64_t batch_size;            /* of output */
};

struct sm_method {
    struct sm_op_info info;
    int (*check)(const void *params, struct sm_err *err); /* what ranges cannot say; optional */
    /* Fills method and drawn (and weight) of each class. Everything that the data forbids is
     * SM_E_PIPELINE naming class and count. */
    int (*plan)(const void *params, const struct sm_method_data *data, struct sm_rebalance *r,
                struct sm_err *err);
    /* SMOTE and SMOTENC: whether rows of these columns can be mixed; SM_E_PIPELINE naming a column.
     * They are those of the source or, with `after`, of what comes out of that op. Optional. */
    int (*columns)(const struct sm_schema *schema, struct sm_err *err);
    /* SMOTE and SMOTENC: how many neighbours each row of a class that is added to needs; NULL for
     * methods that need none. */
    uint32_t (*neighbours)(const void *params);
    bool mixed; /* SMOTENC: categories count in distances, and those of a new row are voted on */
    /* Noise around added rows: a factor for all classes or for each, null: none. Optional. */
    const struct sm_any *(*shrinkage)(const void *params);
    /* The column of a table that holds the weight of each row, or NULL. Optional. */
    const char *(*column)(const void *params);
};

/* The generated list, sorted by name. */
extern const struct sm_method *const sm_methods[];
extern const size_t sm_methods_count;
/* The method of a pipeline's `rebalance:`. */
const struct sm_method *sm_method_of(const struct sm_op_node *node);
/* Whether it learns from rows before it can place one: neighbours, or scales of noise
 * (workers/neighbours.h). */
bool sm_method_learns(const struct sm_op_node *node);
/* Asks the method about the columns of the rows between which it makes others
 * (SM_E_PIPELINE). A method that does not look at them takes all. */
int sm_method_columns(const struct sm_op_node *node, const struct sm_schema *schema,
                      struct sm_err *err);
/* The factor of noise of a class, 0 for none. */
double sm_method_shrinkage(const struct sm_op_node *node, const char *class_name);
/* The list for the pipeline's parser. */
const struct sm_op_table *sm_method_table(void);
