/* The training rows as they enter an op that learns: rows of the training part, of a table or of
 * the features that images were made into, run through the row ops before it. Before: the index,
 * and what the ops before have learned. After: table/fit.h maps them, here or in a FIT lease. */
#pragma once

#include "pipelines/lang/pipeline.h"
#include "workers/sources/source.h"
#include "workers/table/fit.h"

struct sm_fit_source {
    const struct sm_pipeline *pipeline; /* with the artifacts of the ops before */
    size_t op;                          /* place of the op among the top-level ones */
    const struct sm_index *index;
    const char *root;      /* of the dataset */
    const char *artifacts; /* folder */
    const char *features;  /* of images: a file of float32 rows as Flatten leaves them, nothing else
                              in it; "" or NULL: a table */
};

/* In the folder of a FIT job: the state of its round. */
#define SM_FIT_STATE_NAME "state"

struct sm_fit_input;

/* Keeps what source names. Errors name line, column and op. */
int sm_fit_input_new(struct sm_fit_input **gives, const struct sm_fit_source *source,
                     struct sm_err *err);
void sm_fit_input_free(struct sm_fit_input **in);
/* All lent. A row that an op before cannot take ends the reading: SM_E_DATASET, naming the row. */
const struct sm_fit *sm_fit_input_fit(const struct sm_fit_input *in);
const struct sm_fit_context *sm_fit_input_context(const struct sm_fit_input *in);
struct sm_fit_rows sm_fit_input_rows(struct sm_fit_input *in);
