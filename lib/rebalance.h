/* How an epoch is drawn from skewed classes: a pure map from a virtual sample to (class, k-th of
 * the class, copy, added or synthetic), made from class counts alone. Memory is O(classes), a
 * position costs O(log classes), and every count is exact. lib/plan.h shuffles the virtual samples;
 * the places of workers (workers/places.h) turn (class, k) into a sample of the index. */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Positions of an epoch; far beyond any dataset, and far below where products overflow. */
#define SM_REBALANCE_TOTAL_MAX (INT64_C(1) << 40)

enum sm_rebalance_method {
    SM_REBALANCE_COUNTS, /* a count for each class: all of it, then whole rounds of copies, the last
                            round a keyed choice that differs by epoch; or less than all of it */
    SM_REBALANCE_ROWS,   /* by a weight for each sample: systematic sampling over running sums */
    SM_REBALANCE_BATCHES, /* n classes x m samples in each batch */
    SM_REBALANCE_SMOTE,   /* counts, and what is added is synthetic */
};

struct sm_rebalance_class {
    uint64_t present; /* samples of the class in the part that is drawn from */
    uint64_t drawn;   /* positions of it in one epoch */
    uint64_t first;   /* running sum of drawn */
    double weight;
    double importance; /* share among the samples / share of an epoch; 0: nothing is drawn */
};

struct sm_rebalance {
    int method; /* enum sm_rebalance_method */
    uint64_t seed;
    uint32_t classes;
    struct sm_rebalance_class *of; /* owned */
    uint64_t total;                /* positions of an epoch */
    bool replacement; /* COUNTS: each draw by itself, so a sample may come twice before another */
    uint32_t with_samples;                 /* classes that have any */
    uint32_t batch_classes, batch_samples; /* BATCHES */
    uint64_t round_batches; /* BATCHES: batches after which every class came equally often */
    uint32_t *filled;       /* BATCHES: classes that have samples; owned */
    const double *sums;     /* ROWS: running sums of the rows' weights, lent; n = sums_n */
    uint64_t sums_n;
};

struct sm_drawn {
    uint32_t label;
    uint64_t k;     /* which of its class (ROWS: which sample of the part) */
    uint32_t copy;  /* 0: the first time in this epoch */
    bool added;     /* beyond what the class has: augment_minority applies */
    bool synthetic; /* SMOTE: k is the number of the synthetic row within its class */
};

/* After the methods have filled method, present and drawn (BATCHES: batch_classes and
 * batch_samples; ROWS: total and sums): running sums and totals. An epoch of BATCHES is the
 * smallest number of whole rounds with at least as many positions as there are samples.
 * SM_E_PIPELINE for an epoch of nothing or of more than SM_REBALANCE_TOTAL_MAX. */
int sm_rebalance_lay(struct sm_rebalance *r, struct sm_err *err);
/* What stands at a virtual sample v < total of an epoch. */
struct sm_drawn sm_rebalance_at(const struct sm_rebalance *r, uint32_t epoch, uint64_t v);
/* The importance weight of what was drawn: its natural probability / that with which it is drawn.
 * By counts it is that of the class, for repeats and synthetic rows too; so the weights of an epoch
 * have the mean 1, less the share of classes of which nothing is drawn. ROWS: (1 / n) / (w / sum of
 * w), where w is the distance of the running sums, by which it is drawn; the mean is that in
 * expectation over epochs. Always above 0. */
double sm_rebalance_importance(const struct sm_rebalance *r, const struct sm_drawn *drawn);
/* ROWS: how often row k of the part comes in an epoch. */
uint64_t sm_rebalance_row_count(const struct sm_rebalance *r, uint32_t epoch, uint64_t k);
void sm_rebalance_release(struct sm_rebalance *r);
