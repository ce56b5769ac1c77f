/* The end of a run as a person or a program reads it. */
#pragma once

#include "cli/cli.h"
#include "cli/run.h"

/* Prints the summary (a table per class; with --json an object) and returns the exit code: 3 when
 * more than the allowed share is quarantined. */
int sm_summary(const struct sm_run *r, const char *dir, bool was_done, double max_quarantine,
               const struct sm_common *common);
