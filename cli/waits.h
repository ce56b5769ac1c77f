/* How long a trainer waited for each batch: counts in buckets that grow by an eighth of an octave,
 * so that a run of any length takes the same memory and a quantile is right within 9 %. */
#pragma once

#include <stdint.h>

enum { SM_WAITS_BUCKETS = 8 * 40 };

struct sm_waits {
    uint64_t counts[SM_WAITS_BUCKETS], n;
    int64_t total_ns, longest_ns;
};

void sm_waits_add(struct sm_waits *w, int64_t ns);
/* Milliseconds below which a share (0 to 1) of the waits lies. */
double sm_waits_quantile_ms(const struct sm_waits *w, double share);
