/* ClassBalancedBatches: n classes with m samples each in every batch, as metric learning wants
 * them. */
#include "workers/rebalance/method.h"

#include <inttypes.h>
#include <stddef.h>

struct params {
    int64_t n_classes, n_samples;
};

static const struct sm_param params[] = {
    {.name = "n_classes",
     .type = SM_T_INT,
     .offset = offsetof(struct params, n_classes),
     .min = 1,
     .max = 65536,
     .doc = "classes of a batch, all different"},
    {.name = "n_samples",
     .type = SM_T_INT,
     .offset = offsetof(struct params, n_samples),
     .min = 1,
     .max = 65536,
     .doc = "samples of each of them; n_classes x n_samples is output.batch_size"},
    {.name = "augment_minority",
     .type = SM_T_OPS,
     .dflt = "[]",
     .doc = "images: ops for added copies alone, after 'ops'"},
};

static int plan(const void *p_, const struct sm_method_data *data, struct sm_rebalance *r,
                struct sm_err *err) {
    const struct params *p = p_;
    uint32_t classes = 0;
    for (uint32_t c = 0; c < r->classes; c++)
        classes += r->of[c].present > 0;
    if (p->n_classes > classes)
        return sm_fail(err, SM_E_PIPELINE,
                       "'n_classes' is %" PRId64 ", and %" PRIu32 " classes have samples",
                       p->n_classes, classes);
    if ((uint64_t)(p->n_classes * p->n_samples) != data->batch_size)
        return sm_fail(err, SM_E_PIPELINE,
                       "%" PRId64 " classes x %" PRId64 " samples are %" PRId64
                       ", and output.batch_size is %" PRIu64 " (hint: output: {batch_size: %" PRId64
                       "})",
                       p->n_classes, p->n_samples, p->n_classes * p->n_samples, data->batch_size,
                       p->n_classes * p->n_samples);
    r->method = SM_REBALANCE_BATCHES;
    r->batch_classes = (uint32_t)p->n_classes;
    r->batch_samples = (uint32_t)p->n_samples;
    return 0;
}

const struct sm_method sm_method_class_balanced_batches = {
    .info = {.name = "ClassBalancedBatches",
             .doc =
                 "Fills each batch with n_samples samples of each of n_classes classes. An epoch "
                 "shows every class equally often and has at least as many samples as the "
                 "dataset.",
             .example = "ClassBalancedBatches: {n_classes: 8, n_samples: 4}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .control = true},
    .plan = plan,
};
