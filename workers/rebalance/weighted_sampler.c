/* WeightedSampler: samples come in proportion to a weight, of their class or of their own. */
#include "workers/sampling_strategy.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct params {
    struct sm_any weights;
    int64_t num_samples;
};

static const struct sm_param params[] = {
    {.name = "weights",
     .type = SM_T_ANY,
     .offset = offsetof(struct params, weights),
     .dflt = "balanced",
     .map_ok = true,
     .max = 1e300,
     .doc = "weight of each sample of a class, {name: weight} (not named: 1); balanced: the same "
            "share for each class; or the column of a table that holds the weight of each row"},
    {.name = "num_samples",
     .type = SM_T_INT,
     .offset = offsetof(struct params, num_samples),
     .dflt = "0",
     .max = (double)SM_REBALANCE_TOTAL_MAX,
     .doc = "samples of an epoch; 0: as many as there are"},
    {.name = "augment_minority",
     .type = SM_T_OPS,
     .dflt = "[]",
     .doc = "images: ops for added copies alone, after 'ops'"},
};

struct share {
    uint32_t label;
    double rest; /* of its quota, behind the point */
};

static int check(const void *p, struct sm_err *err) {
    if (((const struct params *)p)->weights.kind != SM_ANY_NUMBER) return 0;
    return sm_fail(err, SM_E_PIPELINE,
                   "'weights' is balanced, a column or a map {name: weight}, not one number");
}

static const char *column(const void *p) {
    const struct sm_any *w = &((const struct params *)p)->weights;
    return w->kind == SM_ANY_WORD && strcmp(w->word, "balanced") != 0 ? w->word : NULL;
}

/* Largest rest first; of equal ones the first class. */
static int share_compare(const void *a, const void *b) {
    const struct share *x = a, *y = b;
    if (x->rest != y->rest) return x->rest > y->rest ? -1 : 1;
    return x->label < y->label ? -1 : x->label > y->label;
}

/* Whole numbers in proportion to weight x present that add up to n: quotas are rounded down, and
 * what is left goes to the largest rests. */
static int apportion(struct sm_rebalance *r, uint64_t n, double sum, struct sm_err *err) {
    struct share *shares = calloc(r->classes, sizeof *shares);
    uint64_t given = 0;
    size_t count = 0;
    if (shares == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < r->classes; c++) {
        struct sm_rebalance_class *of = &r->of[c];
        const double quota = (double)n * (of->weight * (double)of->present / sum);
        of->drawn = (uint64_t)floor(quota);
        if (of->drawn > n - given) of->drawn = n - given; /* of rounding */
        given += of->drawn;
        if (quota > 0) shares[count++] = (struct share){c, quota - floor(quota)};
    }
    qsort(shares, count, sizeof *shares, share_compare);
    for (size_t i = 0; given < n; i++, given++)
        r->of[shares[i % count].label].drawn++;
    free(shares);
    return 0;
}

static double weight_of(const struct params *p, const char *name, uint64_t present, uint64_t all,
                        uint32_t classes) {
    const struct sm_any *w = &p->weights;
    if (w->kind == SM_ANY_WORD) /* as scikit-learn's class_weight */
        return (double)all / ((double)classes * (double)present);
    for (size_t i = 0; i < w->count; i++)
        if (strcmp(w->names[i], name) == 0) return w->values[i];
    return 1;
}

static int plan(const void *p_, const struct sm_method_data *data, struct sm_rebalance *r,
                struct sm_err *err) {
    const struct params *p = p_;
    uint64_t all = 0;
    uint32_t classes = 0;
    double sum = 0;
    for (uint32_t c = 0; c < r->classes; c++)
        all += r->of[c].present, classes += r->of[c].present > 0;
    const uint64_t n = p->num_samples > 0 ? (uint64_t)p->num_samples : all;
    if (column(p) != NULL) {
        if (data->schema == NULL)
            return sm_fail(err, SM_E_PIPELINE,
                           "'weights' names column '%.60s', and the source holds images",
                           column(p));
        r->method = SM_REBALANCE_ROWS;
        r->total = n;
        return 0;
    }
    r->method = SM_REBALANCE_COUNTS;
    if (sm_strategy_names(&p->weights, "weights", data, r, err) != 0) return -1;
    for (uint32_t c = 0; c < r->classes; c++) {
        struct sm_rebalance_class *of = &r->of[c];
        if (of->present == 0) continue;
        of->weight = weight_of(p, data->classes[c], of->present, all, classes);
        sum += of->weight * (double)of->present;
    }
    if (!(sum > 0) || isinf(sum))
        return sm_fail(err, SM_E_PIPELINE,
                       "'weights': the weights of all %" PRIu64 " samples add up to %g", all, sum);
    return apportion(r, n, sum, err);
}

const struct sm_method sm_method_weighted_sampler = {
    .info = {.name = "WeightedSampler",
             .doc =
                 "Draws samples in proportion to weights, as torch's WeightedRandomSampler does, "
                 "but without its chance: a sample comes as often as its weight says, give or "
                 "take one.",
             .example = "WeightedSampler: {weights: balanced}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .control = true},
    .check = check,
    .plan = plan,
    .column = column,
};
