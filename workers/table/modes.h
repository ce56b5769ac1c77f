/* The most frequent number of a column, exactly: a sorted table of the different ones and how often
 * each occurs. Columns with more than a few are refused rather than answered roughly. Before:
 * blocks of a fit. After: SimpleImputer. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SM_MODES_MAX = 1024 }; /* different numbers of a column */
struct sm_modes {             /* all zeros: none yet */
    uint64_t n, distinct;
    bool overflow; /* there are more */
    struct sm_mode_value {
        double value;
        uint64_t count;
    } of[SM_MODES_MAX]; /* by value */
};

/* One more cell, not NaN. */
void sm_modes_add(struct sm_modes *m, double x, uint64_t count);
/* into takes in other. Whether there are too many does not depend on the order of merges. */
void sm_modes_merge(struct sm_modes *into, const struct sm_modes *other);
/* Of equally frequent ones the smallest, as scipy.stats.mode. There is at least one. */
double sm_modes_most(const struct sm_modes *m);
