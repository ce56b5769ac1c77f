/* Merging the slices of an expansion. */
#pragma once

#include "cli/run.h"

#include <stdbool.h>

/* Checks that every slice of DIR is there and fits the others and that each shard has the recorded
 * size (verify: and digest), then writes the manifest of the whole and removes the slices' records.
 * A folder that was merged before
 * (*was_done) is only read. Fills *run in any case (to be released). */
int sm_merge(const char *dir, bool verify, struct sm_run *run, bool *was_done, struct sm_err *err);
