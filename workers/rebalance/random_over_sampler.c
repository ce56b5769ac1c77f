/* RandomOverSampler: samples of small classes come more than once in an epoch. */
#include "workers/sampling_strategy.h"

#include <inttypes.h>
#include <stddef.h>
#include <string.h>

struct params {
    struct sm_any sampling_strategy, shrinkage;
};

static const struct sm_param params[] = {
    SM_STRATEGY_PARAM(struct params, sm_strategy_over_words,
                      "which classes grow to the size of the largest; of two classes, the ratio "
                      "that they get; or a count for each class"),
    {.name = "shrinkage",
     .type = SM_T_ANY,
     .offset = offsetof(struct params, shrinkage),
     .dflt = "null",
     .null_ok = true,
     .map_ok = true,
     .max = 1e300,
     .choices = (const char *const[]){NULL},
     .doc = "tables: width of the noise around an added row (a smoothed bootstrap), for all or for "
            "each class"},
    {.name = "augment_minority",
     .type = SM_T_OPS,
     .dflt = "[]",
     .doc = "images: ops for added copies alone, after 'ops'"},
};

static const struct sm_any *shrinkage(const void *p) {
    return &((const struct params *)p)->shrinkage;
}

static int check(const void *p, struct sm_err *err) {
    return sm_strategy_check(&((const struct params *)p)->sampling_strategy, err);
}

/* Noise needs numbers, and a factor for every class that is added to. */
static int shrinkage_check(const struct sm_any *s, const struct sm_method_data *data,
                           const struct sm_rebalance *r, struct sm_err *err) {
    if (data->schema == NULL)
        return sm_fail(err, SM_E_PIPELINE,
                       "'shrinkage' is noise around rows, and the source holds images");
    for (size_t i = 0; i < data->schema->n; i++)
        if (data->schema->columns[i].kind != SM_COLUMN_NUMBER)
            return sm_fail(err, SM_E_PIPELINE,
                           "'shrinkage' is noise on numbers, and column '%.60s' holds categories",
                           data->schema->columns[i].name);
    for (uint32_t c = 0; s->kind == SM_ANY_MAP && c < r->classes; c++) {
        size_t i = 0;
        while (i < s->count && strcmp(s->names[i], data->classes[c]) != 0)
            i++;
        if (i == s->count && r->of[c].drawn > r->of[c].present)
            return sm_fail(err, SM_E_PIPELINE,
                           "'shrinkage' has no factor for class '%.60s', to which %" PRIu64
                           " samples are added",
                           data->classes[c], r->of[c].drawn - r->of[c].present);
    }
    return sm_strategy_names(s, "shrinkage", data, r, err);
}

static int plan(const void *p_, const struct sm_method_data *data, struct sm_rebalance *r,
                struct sm_err *err) {
    const struct params *p = p_;
    r->method = SM_REBALANCE_COUNTS;
    if (sm_strategy_over(&p->sampling_strategy, data, r, err) != 0) return -1;
    return p->shrinkage.kind == SM_ANY_NULL ? 0 : shrinkage_check(&p->shrinkage, data, r, err);
}

const struct sm_method sm_method_random_over_sampler = {
    .info = {.name = "RandomOverSampler",
             .doc = "Draws samples of small classes again until the classes are level. Each is "
                    "drawn equally often, give or take one; which ones come once more differs by "
                    "epoch.",
             .example = "RandomOverSampler: {sampling_strategy: not majority}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .control = true},
    .check = check,
    .plan = plan,
    .shrinkage = shrinkage,
};
