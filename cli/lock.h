/* NAME.lock beside a pipeline file NAME.yaml: what the pipeline had learned when it was reviewed.
 * JSON that diffs well: the dataset's digest and counts, the pipeline with every default filled in,
 * the artifact of each op that learns, the versions that made them. `shardmill fit` writes it;
 * expand, serve and submit keep to it; `check --locked` compares. */
#pragma once

#include "cli/fit.h"

struct sm_lock;

/* "x/NAME.lock" of "x/NAME.yaml". SM_E_USAGE when that is too long. */
int sm_lock_path(const char *file, char path[PATH_MAX], struct sm_err *err);
/* SM_E_MISSING when there is none; SM_E_DIFFERS when it is none of ours. Gives. */
int sm_lock_read(struct sm_lock **gives, const char *path, struct sm_err *err);
void sm_lock_free(struct sm_lock **lock);
/* The digest that it has for the op at this place under this key; NULL: another key, or none. */
const char *sm_lock_artifact(const struct sm_lock *lock, size_t op, const char *key);
/* Everything that is known without fitting: SM_E_DIFFERS names the first thing that is not as it
 * was, down to the parameter ("ops[1].PCA.n_components is 8, was 4"). */
int sm_lock_compare(const struct sm_lock *lock, const struct sm_pipeline *p,
                    const struct sm_dataset *data, struct sm_err *err);
/* Whether each op that learns has its entry: SM_E_DIFFERS names the first that has none. */
int sm_lock_knows(const struct sm_lock *lock, const struct sm_pipeline *p,
                  const struct sm_dataset *data, struct sm_err *err);
int sm_lock_write(const char *path, const struct sm_pipeline *p, const struct sm_dataset *data,
                  const struct sm_fits *fits, struct sm_err *err);
