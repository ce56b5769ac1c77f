/* One arena per request or parsed file: many small allocations, freed in one call. Memory is zeroed
 * and 16-aligned. */
#pragma once

#include <stddef.h>

struct sm_arena {
    struct sm_arena_block *blocks;
    size_t used, max; /* bytes given out; allocation fails beyond max */
};

void sm_arena_init(struct sm_arena *a, size_t max);
void sm_arena_release(struct sm_arena *a);
/* Lends n zeroed bytes until the release; NULL beyond the maximum. */
void *sm_arena_alloc(struct sm_arena *a, size_t n);
char *sm_arena_str(struct sm_arena *a, const char *s);
char *sm_arena_strn(struct sm_arena *a, const char *s, size_t n);
