/* digits / 10^k to the nearest double, ties to even: by one multiplication with a reciprocal, and
 * only where that leaves the last bit open, by an exact division. Private to number.c and
 * numbers.c, which have it inlined: it is most of the work on a long number. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { SM_POWERS = 28 }; /* 5^27 is the last below 2^64 */

/* 5^k, shifted so that its highest bit is set, and floor((2^128 - 1) / it) - 2^64. */
struct sm_power {
    uint64_t shifted, inverse;
    int shift, scale; /* scale: 1021 + shift - k, for a double's biased exponent */
};
extern const struct sm_power sm_powers[SM_POWERS];

double sm_quotient_exact(uint64_t digits, unsigned k);

/* Signs are as random as values: no branch. */
static inline double sm_signed(double v, bool negative) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof v);
    bits |= (uint64_t)negative << 63;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* digits > 0, k < SM_POWERS. With n and d the digits and the power, shifted up to their highest
 * bit, 2^64 + inverse is below 2^128 / d by 1 at most, so n 2^64 / d is above q by less than 2,
 * carry or not. 11 bits of q are cut off: unless the middle between two doubles lies in that gap,
 * it is known on which side of it the quotient lies. */
static inline double sm_quotient_round(uint64_t digits, unsigned k) {
    const struct sm_power *p = &sm_powers[k];
    const int shift = __builtin_clzll(digits);
    const uint64_t n = digits << shift,
                   sum = n + (uint64_t)(((unsigned __int128)n * p->inverse) >> 64);
    const unsigned carry = sum < n;
    const uint64_t q = sum >> carry | (uint64_t)carry << 63, lost = q & 0x7FF;
    if (lost - 0x3FF <= 1) return sm_quotient_exact(digits, k);
    /* the highest of the 53 bits adds one to the exponent, as does a carry out of all of them */
    const int exponent = p->scale - shift + (int)carry;
    const uint64_t bits = ((uint64_t)exponent << 52) + (q >> 11) + (lost > 0x400);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
