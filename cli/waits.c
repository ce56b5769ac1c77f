/* Waits in buckets. Before: cli/trainer.c measures each. After: its summary. */
#include "cli/waits.h"

#include <math.h>

enum { PER_OCTAVE = 8, SMALLEST_NS = 1000 };

void sm_waits_add(struct sm_waits *w, int64_t ns) {
    int bucket = 0;
    if (ns > SMALLEST_NS) bucket = 1 + (int)(log2((double)ns / SMALLEST_NS) * PER_OCTAVE);
    if (bucket >= SM_WAITS_BUCKETS) bucket = SM_WAITS_BUCKETS - 1;
    w->counts[bucket]++;
    w->n++;
    w->total_ns += ns;
    if (ns > w->longest_ns) w->longest_ns = ns;
}

double sm_waits_quantile_ms(const struct sm_waits *w, double share) {
    uint64_t seen = 0, want = (uint64_t)ceil(share * (double)w->n);
    int bucket = 0;
    while (bucket < SM_WAITS_BUCKETS - 1 && (seen += w->counts[bucket]) < want)
        bucket++;
    double ms = SMALLEST_NS * exp2((double)bucket / PER_OCTAVE) / 1e6;
    double longest = (double)w->longest_ns / 1e6;
    return ms < longest ? ms : longest;
}
