/* A balanced Feistel network over the smallest even number of bits that holds n, with
 * cycle-walking: a value outside [0, n) is sent round again (Black and Rogaway, "Ciphers with
 * Arbitrary Finite Domains", 2002). The domain is less than 4 n, so a walk takes fewer than four
 * steps on average. The round function is one Philox block. */
#include "lib/permutation.h"

#include "lib/rng.h"

#include <assert.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

enum {
    ROUNDS = 8,
    LANES = 16,
    PIECE = 256,
    ORDER_TWEAK = 0x6f726465, /* keeps the order's numbers apart from every op's */
};

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

/* --- many at once --- */

#ifdef __x86_64__
#define AVX2 __attribute__((target("avx2")))
enum { VECTORS = LANES / 4 };

/* round_bits of LANES halves. A block of Philox in each 64-bit lane: a number is its lower half,
 * and what stands above it takes no part in a product. */
AVX2 static inline __attribute__((always_inline)) void
rounds_bits(const struct sm_permutation *p, int round, const __m256i *half, __m256i *out) {
    const __m256i m0 = _mm256_set1_epi64x(SM_PHILOX_M0), m1 = _mm256_set1_epi64x(SM_PHILOX_M1),
                  mask = _mm256_set1_epi64x((INT64_C(1) << p->half_bits) - 1);
    __m256i c0[VECTORS], c1[VECTORS], c2[VECTORS], c3[VECTORS];
    uint32_t k0 = p->key[0], k1 = p->key[1];
    for (int l = 0; l < VECTORS; l++) {
        c0[l] = half[l];
        c1[l] = _mm256_set1_epi64x(round);
        c2[l] = _mm256_set1_epi64x(p->tweak);
        c3[l] = _mm256_set1_epi64x(ORDER_TWEAK);
    }
    for (int i = 0; i < SM_PHILOX_ROUNDS; i++, k0 += SM_PHILOX_W0, k1 += SM_PHILOX_W1) {
        const __m256i key0 = _mm256_set1_epi64x(k0), key1 = _mm256_set1_epi64x(k1);
        for (int l = 0; l < VECTORS; l++) {
            const __m256i a = _mm256_mul_epu32(m0, c0[l]), b = _mm256_mul_epu32(m1, c2[l]);
            c0[l] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(b, 32), c1[l]), key0);
            c1[l] = b;
            c2[l] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(a, 32), c3[l]), key1);
            c3[l] = a;
        }
    }
    for (int l = 0; l < VECTORS; l++)
        out[l] = _mm256_and_si256(c0[l], mask);
}

AVX2 static void forward_many_avx2(const struct sm_permutation *p, uint64_t v[LANES]) {
    const __m256i mask = _mm256_set1_epi64x((INT64_C(1) << p->half_bits) - 1);
    const __m128i bits = _mm_cvtsi32_si128(p->half_bits);
    __m256i left[VECTORS], right[VECTORS], next[VECTORS];
    for (int l = 0; l < VECTORS; l++) {
        const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)(v + 4 * l));
        left[l] = _mm256_srl_epi64(both, bits);
        right[l] = _mm256_and_si256(both, mask);
    }
    for (int r = 0; r < ROUNDS; r++) {
        rounds_bits(p, r, right, next);
        for (int l = 0; l < VECTORS; l++) {
            next[l] = _mm256_xor_si256(left[l], next[l]);
            left[l] = right[l];
            right[l] = next[l];
        }
    }
    for (int l = 0; l < VECTORS; l++)
        _mm256_storeu_si256((__m256i *)(void *)(v + 4 * l),
                            _mm256_or_si256(_mm256_sll_epi64(left[l], bits), right[l]));
}
#endif

static void forward_many(const struct sm_permutation *p, uint64_t v[LANES]) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) {
        forward_many_avx2(p, v);
        return;
    }
#endif
    for (int l = 0; l < LANES; l++)
        v[l] = forward(p, v[l]);
}

/* Values that came out too large walk on, side by side with each other. */
static void piece_walk(const struct sm_permutation *p, uint64_t *v, size_t n) {
    uint16_t walking[PIECE];
    size_t m = n;
    for (size_t i = 0; i < n; i++)
        walking[i] = (uint16_t)i;
    while (m > 0) {
        size_t left = 0;
        for (size_t i = 0; i < m; i += LANES) {
            uint64_t lanes[LANES] = {0};
            const size_t there = m - i < LANES ? m - i : LANES;
            for (size_t l = 0; l < there; l++)
                lanes[l] = v[walking[i + l]];
            forward_many(p, lanes);
            for (size_t l = 0; l < there; l++) {
                const uint16_t at = walking[i + l];
                v[at] = lanes[l];
                if (lanes[l] >= p->n) walking[left++] = at;
            }
        }
        m = left;
    }
}

void sm_permutation_many(const struct sm_permutation *p, uint64_t *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        assert(v[i] < p->n);
    for (size_t i = 0; i < n; i += PIECE)
        piece_walk(p, v + i, n - i < PIECE ? n - i : PIECE);
}

uint64_t sm_permutation_find(const struct sm_permutation *p, uint64_t v) {
    assert(v < p->n);
    do
        v = backward(p, v);
    while (v >= p->n);
    return v;
}
