/* Philox4x32-10 and what is drawn from it. */
#include "lib/rng.h"

#include <assert.h>

void sm_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < SM_PHILOX_ROUNDS; round++) {
        uint64_t a = (uint64_t)SM_PHILOX_M0 * c0, b = (uint64_t)SM_PHILOX_M1 * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += SM_PHILOX_W0;
        k1 += SM_PHILOX_W1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* The name has 224 bits and key and counter only 192, so it goes in two steps: seed and (epoch,
 * copy, sample) make a key of 64 bits and two counter words of 64 more; the op's position stays in
 * the counter. Two samples share a stream with probability 2^-128. */
struct sm_rng sm_rng_op(uint64_t seed, uint32_t epoch, uint64_t sample, uint32_t copy,
                        uint32_t op) {
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t name[4] = {epoch, copy, (uint32_t)sample, (uint32_t)(sample >> 32)}, out[4];
    sm_philox(name, key, out);
    return (struct sm_rng){.key = {out[0], out[1]}, .counter = {0, op, out[2], out[3]}, .used = 4};
}

uint32_t sm_rng_u32(struct sm_rng *r) {
    if (r->used == 4) {
        sm_philox(r->counter, r->key, r->block);
        r->counter[0]++;
        r->used = 0;
    }
    return r->block[r->used++];
}

static uint64_t u64(struct sm_rng *r) {
    uint64_t lo = sm_rng_u32(r);
    return lo | (uint64_t)sm_rng_u32(r) << 32;
}

double sm_rng_double(struct sm_rng *r) {
    return (double)(u64(r) >> 11) * 0x1p-53;
}

double sm_rng_uniform(struct sm_rng *r, double lo, double hi) {
    return lo + (hi - lo) * sm_rng_double(r);
}

uint64_t sm_rng_below(struct sm_rng *r, uint64_t n) {
    assert(n > 0);
    for (;;) {
        unsigned __int128 m = (unsigned __int128)u64(r) * n;
        if ((uint64_t)m >= n || (uint64_t)m >= -n % n) return (uint64_t)(m >> 64);
    }
}

int sm_rng_chance(struct sm_rng *r, double p) {
    return sm_rng_double(r) < p;
}
