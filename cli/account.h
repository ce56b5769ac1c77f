/* What rebalancing makes of the classes, as explain tells it. Before: places.h has planned. After:
 * cmd_explain.c prints it. */
#pragma once

#include "lib/buf.h"
#include "workers/neighbours.h"
#include "workers/places.h"

/* A line and a bar for each class: samples in the part that is drawn from; of an epoch the distinct
 * ones, repeats and synthetic rows; log of the share before less log of the share after, which
 * corrects a model's output; with output.weights also the weight, which corrects its loss. With
 * SMOTE and SMOTENC also what the search for neighbours takes, and behind which op it is. */
void sm_account_text(const struct sm_places *places, const struct sm_index *index,
                     const struct sm_neighbours_plan *search, struct sm_buf *out);
/* What a search for neighbours takes: `, "neighbours": {"rows": …}`, or nothing. */
void sm_account_search_json(const struct sm_places *places, const struct sm_neighbours_plan *search,
                            struct sm_buf *out);
/* The same of one class: `"per_epoch": …, "distinct": …, …`. */
void sm_account_json(const struct sm_places *places, uint32_t label, struct sm_buf *out);
