/* RepeatFactor: the sampling of LVIS (Gupta, Dollar and Girshick, "LVIS: A Dataset for Large
 * Vocabulary Instance Segmentation", CVPR 2019, section 4.2): a class of frequency f comes
 * max(1, sqrt(t / f)) times. */
#include "workers/rebalance/method.h"

#include <inttypes.h>
#include <math.h>
#include <stddef.h>

struct params {
    double threshold;
};

static const struct sm_param params[] = {
    {.name = "threshold",
     .type = SM_T_NUM,
     .offset = offsetof(struct params, threshold),
     .dflt = "0.001",
     .min = 1e-12,
     .max = 1,
     .doc = "t: share of the samples below which a class is repeated"},
    {.name = "augment_minority",
     .type = SM_T_OPS,
     .dflt = "[]",
     .doc = "images: ops for added copies alone, after 'ops'"},
};

static int plan(const void *p_, const struct sm_method_data *data, struct sm_rebalance *r,
                struct sm_err *err) {
    const double t = ((const struct params *)p_)->threshold;
    uint64_t all = 0;
    (void)data, (void)err;
    r->method = SM_REBALANCE_COUNTS;
    for (uint32_t c = 0; c < r->classes; c++)
        all += r->of[c].present;
    for (uint32_t c = 0; c < r->classes; c++) {
        struct sm_rebalance_class *of = &r->of[c];
        if (of->present == 0) continue;
        const double f = (double)of->present / (double)all, times = sqrt(t / f);
        of->drawn = of->present;
        if (times > 1) of->drawn = (uint64_t)floor(times * (double)of->present + 0.5);
    }
    return 0;
}

const struct sm_method sm_method_repeat_factor = {
    .info = {.name = "RepeatFactor",
             .doc = "Repeats the samples of a class of frequency f max(1, sqrt(t / f)) times, as "
                    "LVIS does; the counts are that rounded to whole samples.",
             .example = "RepeatFactor: {threshold: 0.001}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .control = true},
    .plan = plan,
};
