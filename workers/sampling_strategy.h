/* `sampling_strategy` of the methods that add to classes or take from them: words, a ratio, or a
 * map of targets to counts of an epoch, with the rules of imbalanced-learn
 * (imblearn.utils.check_sampling_strategy). Before: workers/rebalance/. After: lib/rebalance.h. */
#pragma once

#include "workers/rebalance/method.h"

extern const char *const sm_strategy_over_words[], *const sm_strategy_under_words[];

/* The row of a method's table; S is its struct, which has a member of this name. */
#define SM_STRATEGY_PARAM(S, words, text)                                                        \
    {                                                                                            \
        .name = "sampling_strategy", .type = SM_T_ANY, .offset = offsetof(S, sampling_strategy), \
        .dflt = "auto", .map_ok = true, .choices = words, .doc = text                            \
    }

/* A ratio lies in (0, 1]; targets are whole numbers. */
int sm_strategy_check(const struct sm_any *strategy, struct sm_err *err);
/* Fill drawn of every class from present; SM_E_PIPELINE naming class and count. */
int sm_strategy_over(const struct sm_any *strategy, const struct sm_method_data *data,
                     struct sm_rebalance *r, struct sm_err *err);
int sm_strategy_under(const struct sm_any *strategy, const struct sm_method_data *data,
                      struct sm_rebalance *r, struct sm_err *err);
/* Every name of a map is a class that has samples. what: the parameter's name. */
int sm_strategy_names(const struct sm_any *map, const char *what, const struct sm_method_data *data,
                      const struct sm_rebalance *r, struct sm_err *err);

/* What SMOTE and SMOTENC have in common. */
struct sm_smote_params {
    struct sm_any sampling_strategy;
    int64_t k_neighbors;
    const char *after; /* NULL: rows of the source; the parser knows the op's place */
};
enum { SM_SMOTE_PARAMS = 3 };
extern const struct sm_param sm_smote_params[SM_SMOTE_PARAMS];
int sm_smote_check(const void *params, struct sm_err *err);
uint32_t sm_smote_neighbours(const void *params);
/* Counts, and k + 1 rows in each class that is added to. name: of the method. */
int sm_smote_plan(const void *params, const char *name, const struct sm_method_data *data,
                  struct sm_rebalance *r, struct sm_err *err);
