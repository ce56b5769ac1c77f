/* A balanced Feistel network over the smallest even number of bits that holds n, with cycle-walking: a value outside
 * [0, n) is sent round again (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002). The domain is less than
 * 4 n, so a walk takes fewer than four steps on average. The round function is one Philox block. */
#include "lib/permutation.h"

#include "lib/rng.h"

#include <assert.h>

enum { ROUNDS = 8, ORDER_TWEAK = 0x6f726465 }; /* the tweak keeps the order's numbers apart from every op's */

struct sm_permutation sm_permutation_make(uint64_t n, uint64_t seed, uint32_t epoch) {
    assert(n > 0 && n <= UINT64_C(1) << 62);
    int bits = 1;
    while (bits < 31 && (UINT64_C(1) << (2 * bits)) < n)
        bits++;
    return (struct sm_permutation){
        .n = n, .half_bits = bits, .key = {(uint32_t)seed, (uint32_t)(seed >> 32)}, .tweak = epoch};
}

static uint32_t round_bits(const struct sm_permutation *p, int round, uint32_t half) {
    uint32_t counter[4] = {half, (uint32_t)round, p->tweak, ORDER_TWEAK}, out[4];
    sm_philox(counter, p->key, out);
    return out[0] & (uint32_t)((UINT64_C(1) << p->half_bits) - 1);
}

static uint64_t forward(const struct sm_permutation *p, uint64_t v) {
    uint32_t left = (uint32_t)(v >> p->half_bits),
             right = (uint32_t)(v & ((UINT64_C(1) << p->half_bits) - 1));
    for (int r = 0; r < ROUNDS; r++) {
        uint32_t next = left ^ round_bits(p, r, right);
        left = right;
        right = next;
    }
    return (uint64_t)left << p->half_bits | right;
}

static uint64_t backward(const struct sm_permutation *p, uint64_t v) {
    uint32_t left = (uint32_t)(v >> p->half_bits),
             right = (uint32_t)(v & ((UINT64_C(1) << p->half_bits) - 1));
    for (int r = ROUNDS - 1; r >= 0; r--) {
        uint32_t before = right ^ round_bits(p, r, left);
        right = left;
        left = before;
    }
    return (uint64_t)left << p->half_bits | right;
}

uint64_t sm_permutation_at(const struct sm_permutation *p, uint64_t i) {
    assert(i < p->n);
    do
        i = forward(p, i);
    while (i >= p->n);
    return i;
}

uint64_t sm_permutation_find(const struct sm_permutation *p, uint64_t v) {
    assert(v < p->n);
    do
        v = backward(p, v);
    while (v >= p->n);
    return v;
}
