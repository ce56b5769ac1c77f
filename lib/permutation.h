/* A keyed permutation of [0, n): the order of an epoch, computable at any position in O(1) time and
 * memory. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sm_permutation {
    uint64_t n;
    int half_bits; /* the Feistel network works on 2 * half_bits >= log2(n) bits */
    uint32_t key[2], tweak;
};

/* The order of one epoch under one seed. n > 0. */
struct sm_permutation sm_permutation_make(uint64_t n, uint64_t seed, uint32_t epoch);
/* Where position i of the order points; i < n, the result is < n. */
uint64_t sm_permutation_at(const struct sm_permutation *p, uint64_t i);
/* The same for each of n positions, in place: many at once take a fraction of the time. */
void sm_permutation_many(const struct sm_permutation *p, uint64_t *v, size_t n);
/* The position that points to v. */
uint64_t sm_permutation_find(const struct sm_permutation *p, uint64_t v);
