/* What stands at a position of an epoch, all told: order (lib/plan.h), rebalancing
 * (lib/rebalance.h) and the part of a split put together, with the index underneath. Leases,
 * explain, replay and the manifest ask here and nowhere else. */
#pragma once

#include "lib/plan.h"
#include "lib/rebalance.h"
#include "pipelines/lang/pipeline.h"
#include "workers/sources/source.h"
#include "workers/table/artifact.h"

struct sm_places;

/* A place filled. */
struct sm_placed {
    uint64_t sample; /* of the index; of a synthetic row: its parent */
    uint32_t copy;   /* part of the random key */
    uint32_t label;
    bool added; /* a copy that rebalancing added: augment_minority applies */
    bool synthetic;
    uint64_t neighbour; /* sample of the index towards which a synthetic row lies; with shrinkage
                           the parent itself */
    double gap;         /* 0 to 1: row = parent + gap x (neighbour - parent) */
    uint64_t parent;    /* number of the parent within its class */
    uint64_t chance;    /* with the epoch it names the stream of what is drawn for the row */
    uint32_t epoch;
    float weight; /* importance weight (lib/rebalance.h); without rebalancing 1 */
};

/* Checks and plans: classes against `rebalance:` (targets, k + 1 rows, weights…: SM_E_PIPELINE
 * naming class and count), the split against columns. part: enum sm_part_of; rebalancing is for
 * training only. Keeps p, index and neighbours. neighbours: of methods that learn
 * (workers/neighbours.h), NULL while they are not known yet (then only counts may be asked).
 */
int sm_places_new(struct sm_places **gives, const struct sm_pipeline *p,
                  const struct sm_index *index, int part, const struct sm_artifact *neighbours,
                  struct sm_err *err);
void sm_places_free(struct sm_places **p);

/* Virtual samples of an epoch: what JobSpec.samples and sm_plan.samples are. */
uint64_t sm_places_samples(const struct sm_places *p);
/* plan->samples is sm_places_samples. */
struct sm_placed sm_places_at(const struct sm_places *p, const struct sm_plan *plan,
                              uint64_t position);
/* Of n positions at once, in whatever order they are: that takes a fraction of the time. */
void sm_places_many(const struct sm_places *p, const struct sm_plan *plan,
                    const uint64_t *positions, size_t n, struct sm_placed *placed);

/* The part's own samples in the order of the index, for fits and neighbours. */
uint64_t sm_places_part_samples(const struct sm_places *p);
uint64_t sm_places_part_sample(const struct sm_places *p, uint64_t i);
uint64_t sm_places_class_samples(const struct sm_places *p, uint32_t label);
uint64_t sm_places_class_sample(const struct sm_places *p, uint32_t label, uint64_t k);
/* NULL: no rebalancing. Lends. */
const struct sm_rebalance *sm_places_rebalance(const struct sm_places *p);
/* What the places were made from, lent. */
const struct sm_pipeline *sm_places_pipeline(const struct sm_places *p);
const struct sm_index *sm_places_index(const struct sm_places *p);

/* The account of a class: in the dataset's part, per epoch, and of those how many distinct samples,
 * repeats and synthetic rows; log(share in the part) - log(share in an epoch); importance weight.
 * Of weights of rows and of draws with replacement the counts differ by epoch: these are of epoch
 * 0. */
struct sm_account {
    uint64_t present, drawn, distinct, repeated, synthetic;
    double log_prior_shift; /* log pi - log pi'; 0 where both are the same, and of a class without
                               samples; NaN when it has some and none is drawn */
    double weight;          /* mean importance weight: pi / pi' where each sample has its class's; 0
                               when nothing is drawn */
};
struct sm_account sm_places_account(const struct sm_places *p, uint32_t label);
