/* Finds infrequent categories: first those below the least frequency, then the rarest of all until
 * no more are left than were asked for. Before: counts of a fit. After: an encoder's codes_. */
#include "workers/table/infrequent.h"

#include <stdlib.h>

struct category {
    uint64_t count;
    size_t at;
};

static int mark_rarest(size_t keep, const uint64_t *counts, size_t n, uint8_t *infrequent,
                       struct sm_err *err);

int sm_infrequent_mark(const struct sm_infrequent *rule, const uint64_t *counts, size_t n,
                       uint64_t rows, uint8_t *infrequent, struct sm_err *err) {
    const double least =
        rule->min_frequency < 1 ? (double)rows * rule->min_frequency : rule->min_frequency;
    size_t frequent = 0;
    for (size_t i = 0; i < n; i++) {
        infrequent[i] = counts[i] > 0 && (double)counts[i] < least;
        frequent += counts[i] > 0 && !infrequent[i];
    }
    /* scikit-learn counts the infrequent ones' number also where there are none yet: with as many
     * categories as max_categories the rarest becomes infrequent. */
    if (rule->max_categories == 0 || rule->max_categories > frequent) return 0;
    return mark_rarest((size_t)rule->max_categories - 1, counts, n, infrequent, err);
}

static int by_count(const void *a_, const void *b_) {
    const struct category *a = a_, *b = b_;
    if (a->count != b->count) return a->count < b->count ? -1 : 1;
    return a->at < b->at ? -1 : 1;
}

/* All that occur, but for the `keep` last of a stable sort by count. */
static int mark_rarest(size_t keep, const uint64_t *counts, size_t n, uint8_t *infrequent,
                       struct sm_err *err) {
    struct category *sorted = calloc(n + 1, sizeof *sorted);
    size_t occurring = 0;
    if (sorted == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < n; i++)
        if (counts[i] > 0) sorted[occurring++] = (struct category){counts[i], i};
    qsort(sorted, occurring, sizeof *sorted, by_count);
    for (size_t i = 0; i + keep < occurring; i++)
        infrequent[sorted[i].at] = 1;
    free(sorted);
    return 0;
}
