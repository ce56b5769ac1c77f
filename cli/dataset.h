/* A pipeline's dataset as commands want it: where it lies, and its index, built once and kept in a
 * folder. Comes after: the plan, which counts on the index. */
#pragma once

#include "workers/sources/source.h"

#include <limits.h>
#include <stdbool.h>

struct sm_dataset {
    char root[SM_MAX_PATH_BYTES]; /* where the entries' paths start */
    char index_path[PATH_MAX];
    struct sm_index *index;
};

/* Opens the index that lies in dir (absolute, there), or builds it: when there is none, when it
 * does not verify, or when a fresh one is wanted. */
int sm_dataset_open(struct sm_dataset *d, const struct sm_pipeline_source *source, const char *dir,
                    bool fresh, struct sm_err *err);
/* The same for a command that only looks: the index that a serve keeps in the folder `state`, else
 * one that leaves no file behind. *kept says which. */
int sm_dataset_look(struct sm_dataset *d, const struct sm_pipeline_source *source,
                    const char *state, bool fresh, bool *kept, struct sm_err *err);
void sm_dataset_close(struct sm_dataset *d);
