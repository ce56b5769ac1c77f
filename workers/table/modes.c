/* Sorted tables of numbers and their counts: binary search, and insertion while there is room. */
#include "workers/table/modes.h"

#include <assert.h>
#include <string.h>

void sm_modes_add(struct sm_modes *m, double x, uint64_t count) {
    size_t low = 0, high = (size_t)m->distinct;
    m->n += count;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (m->of[middle].value < x)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < m->distinct && m->of[low].value == x) {
        m->of[low].count += count;
        return;
    }
    if (m->distinct == SM_MODES_MAX) {
        m->overflow = true;
        return;
    }
    memmove(&m->of[low + 1], &m->of[low], (m->distinct - low) * sizeof *m->of);
    m->of[low] = (struct sm_mode_value){x, count};
    m->distinct++;
}

void sm_modes_merge(struct sm_modes *into, const struct sm_modes *other) {
    into->overflow |= other->overflow;
    for (size_t i = 0; i < other->distinct; i++)
        sm_modes_add(into, other->of[i].value, other->of[i].count);
}

double sm_modes_most(const struct sm_modes *m) {
    size_t most = 0;
    assert(m->distinct > 0);
    for (size_t i = 1; i < m->distinct; i++)
        if (m->of[i].count > m->of[most].count) most = i;
    return m->of[most].value;
}
