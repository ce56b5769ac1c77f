/* RandomUnderSampler: of large classes only some samples come in an epoch. */
#include "workers/sampling_strategy.h"

#include <stddef.h>

struct params {
    struct sm_any sampling_strategy;
    bool replacement;
};

static const struct sm_param params[] = {
    SM_STRATEGY_PARAM(struct params, sm_strategy_under_words,
                      "which classes shrink to the size of the smallest; of two classes, the ratio "
                      "that they get; or a count for each class"),
    {.name = "replacement",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, replacement),
     .dflt = "false",
     .doc = "draw each time from the whole class, so that a sample may come twice"},
};

static int check(const void *p, struct sm_err *err) {
    return sm_strategy_check(&((const struct params *)p)->sampling_strategy, err);
}

static int plan(const void *p_, const struct sm_method_data *data, struct sm_rebalance *r,
                struct sm_err *err) {
    const struct params *p = p_;
    r->method = SM_REBALANCE_COUNTS;
    r->replacement = p->replacement;
    return sm_strategy_under(&p->sampling_strategy, data, r, err);
}

const struct sm_method sm_method_random_under_sampler = {
    .info = {.name = "RandomUnderSampler",
             .doc = "Draws fewer samples of large classes until the classes are level. Which ones "
                    "differs by epoch.",
             .example = "RandomUnderSampler: {sampling_strategy: not minority}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params)},
    .check = check,
    .plan = plan,
};
