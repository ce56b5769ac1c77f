/* Step -> positions. Global index of sample i of rank r in step k: entered + k B W + r B + i. */
#include "lib/steps.h"

#include <assert.h>

static uint64_t stride(const struct sm_steps *s) {
    return (uint64_t)s->batch_size * s->world_size;
}

uint64_t sm_steps_count(const struct sm_steps *s) {
    assert(s->positions > 0 && s->entered <= s->positions && s->batch_size > 0 &&
           s->world_size > 0);
    uint64_t left = s->positions - s->entered;
    return left / stride(s) + (!s->drop_last && left % stride(s) != 0);
}

/* How many of the batch_size indices from here on are positions of the epoch. */
static uint64_t real(const struct sm_steps *s, uint64_t first) {
    if (first >= s->positions) return 0;
    uint64_t n = s->positions - first;
    return n < s->batch_size ? n : s->batch_size;
}

struct sm_step sm_steps_at(const struct sm_steps *s, uint32_t rank, uint64_t k) {
    assert(rank < s->world_size && k < sm_steps_count(s));
    uint64_t begin = s->entered + k * stride(s), first = begin + (uint64_t)rank * s->batch_size;
    bool last = k + 1 == sm_steps_count(s);
    return (struct sm_step){.first = first,
                            .count = s->batch_size,
                            .padding = s->batch_size - (uint32_t)real(s, first),
                            .position = last ? s->positions : begin + stride(s)};
}

uint64_t sm_steps_dropped(const struct sm_steps *s, uint32_t rank) {
    assert(rank < s->world_size);
    if (!s->drop_last) return 0;
    return real(s, s->entered + sm_steps_count(s) * stride(s) + (uint64_t)rank * s->batch_size);
}

uint64_t sm_steps_planned(const struct sm_steps *s, uint32_t rank) {
    uint64_t n = sm_steps_count(s), planned = sm_steps_dropped(s, rank);
    if (n == 0) return planned;
    return planned + (n - 1) * s->batch_size + real(s, sm_steps_at(s, rank, n - 1).first);
}

bool sm_steps_boundary(const struct sm_steps *s, uint64_t position) {
    if (position == s->positions) return true;
    uint64_t d = position > s->entered ? position - s->entered : s->entered - position;
    return position < s->positions && d % stride(s) == 0;
}
