/* Randomness as a counter, never as a state that outlives one call: Philox4x32-10 (Salmon, Moraes,
 * Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11). A stream is named by (seed,
 * epoch, sample, copy, op position); the same name gives the same numbers on every machine,
 * whatever was drawn before. */
#pragma once

#include <stdint.h>

struct sm_rng {
    uint32_t key[2];
    uint32_t counter[4]; /* [0] block, [1] op position, [2..3] from the name */
    uint32_t block[4];
    int used; /* words of block already given out */
};

/* Of philox4x32: multipliers, and what the key grows by in each round. */
#define SM_PHILOX_M0 0xD2511F53u
#define SM_PHILOX_M1 0xCD9E8D57u
#define SM_PHILOX_W0 0x9E3779B9u
#define SM_PHILOX_W1 0xBB67AE85u
enum { SM_PHILOX_ROUNDS = 10 };

/* The bare block function: ten rounds, Random123's philox4x32. */
void sm_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* What draws for something else than an op of a sample has its stream's number here, instead of the
 * op's: far above any op's place, and each once, so that no two ever share a stream. */
enum sm_rng_stream {
    SM_RNG_KMEANS = 0x4b4d0000,    /* first centres of a run */
    SM_RNG_PCA = 0x50434100,       /* directions that the randomized solver begins with */
    SM_RNG_ROUND = 0x52420000,     /* rebalancing: which samples a round of a class draws */
    SM_RNG_CLASSES = 0x52420001,   /* its order of classes in balanced batches */
    SM_RNG_OFFSET = 0x52420002,    /* its draws by weight */
    SM_RNG_SAMPLE = 0x534d0000,    /* which rows a fit looks at */
    SM_RNG_SPLIT = 0x53500000,     /* which samples are held out */
    SM_RNG_SYNTHETIC = 0x53590000, /* neighbour and gap of a synthetic row */
    SM_RNG_NOISE = 0x53590001,     /* of a smoothed bootstrap */
};

/* The stream of one op of one sample. op is the op's position in the chain (nested ops are numbered
 * through). */
struct sm_rng sm_rng_op(uint64_t seed, uint32_t epoch, uint64_t sample, uint32_t copy, uint32_t op);

uint32_t sm_rng_u32(struct sm_rng *r);
/* Uniform in [0, 1), 53 bits. */
double sm_rng_double(struct sm_rng *r);
/* Uniform in [lo, hi); lo when they are equal. */
double sm_rng_uniform(struct sm_rng *r, double lo, double hi);
/* Uniform integer in [0, n), without bias (Lemire's method); n > 0. */
uint64_t sm_rng_below(struct sm_rng *r, uint64_t n);
/* Standard normal, by Box and Muller ("A Note on the Generation of Random Normal Deviates", 1958)
 * with a logarithm and a cosine of its own: libm's differ in the last bit by processor. */
double sm_rng_normal(struct sm_rng *r);
/* True with probability p. */
int sm_rng_chance(struct sm_rng *r, double p);
