/* Text to double, correctly rounded. Up to 19 digits are an integer of 64 bits; with a power of ten
 * of up to 10^27 the product or quotient is known well enough in 128 bits and rounded once. All
 * else, a handful of cells in a real table, goes to strtod. */
#include "workers/sources/number.h"

#include "workers/sources/number_round.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { TEXT_BYTES = 1000, DIGITS = 19 };

static const bool little_endian = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;
static const uint32_t tens[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

struct decimal { /* digits x 10^exponent */
    uint64_t digits;
    int exponent;
    bool negative, exact; /* exact: digits holds all of them */
};

static inline bool common_parse(const char *s, const char *end, double *out);
static enum sm_number word_parse(const char *s, size_t n, double *out);
static inline const char *decimal_parse(const char *s, const char *end, struct decimal *d);
static inline bool decimal_round(const struct decimal *d, double *out);
static enum sm_number slow_parse(const char *s, size_t n, double *out);

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

static inline void trim(const char **s, const char **end) {
    while (*s < *end && is_blank(**s))
        ++*s;
    while (*end > *s && is_blank((*end)[-1]))
        --*end;
}

enum sm_number sm_number_parse(const char *s, size_t n, double *out) {
    const char *end = s + n;
    if (n == 0) return SM_NUMBER_NONE;
    if (common_parse(s, end, out)) return SM_NUMBER_FINITE;
    trim(&s, &end);
    struct decimal d;
    const char *stop = decimal_parse(s, end, &d);
    if (stop == NULL) return word_parse(s, (size_t)(end - s), out);
    if (stop != end || end - s > TEXT_BYTES) return SM_NUMBER_NONE;
    if (d.exact && decimal_round(&d, out)) return SM_NUMBER_FINITE;
    return slow_parse(s, (size_t)(end - s), out);
}

static enum sm_number word_parse(const char *s, size_t n, double *out) {
    bool negative = n > 0 && *s == '-';
    if (n > 0 && (*s == '-' || *s == '+')) s++, n--;
    if (!(n == 3 && strncasecmp(s, "inf", 3) == 0) &&
        !(n == 8 && strncasecmp(s, "infinity", 8) == 0))
        return SM_NUMBER_NONE;
    *out = negative ? -INFINITY : INFINITY;
    return SM_NUMBER_INFINITE;
}

/* Whether eight bytes are digits, and what number they make (little-endian, the first is the
 * highest): pairs, then fours, then eight. After D. Lemire, "Number parsing at a gigabyte per
 * second" (2021). */
static inline bool eight_digits(uint64_t v, uint64_t *value) {
    if (((v & 0xF0F0F0F0F0F0F0F0u) | (((v + 0x0606060606060606u) & 0xF0F0F0F0F0F0F0F0u) >> 4)) !=
        0x3333333333333333u)
        return false;
    v -= 0x3030303030303030u;
    v = v * 10 + (v >> 8);
    *value = (uint32_t)(((v & 0x000000FF000000FFu) * 0x000F424000000064u +
                         ((v >> 16) & 0x000000FF000000FFu) * 0x0000271000000001u) >>
                        32);
    return true;
}

/* Takes in digits, as long as there are some. */
static inline const char *digits_parse(const char *s, const char *end, uint64_t *digits) {
    uint64_t v, eight;
    while (little_endian && end - s >= 8) {
        memcpy(&v, s, 8);
        if (!eight_digits(v, &eight)) break;
        *digits = *digits * 100000000 + eight;
        s += 8;
    }
    for (unsigned c; s < end && (c = (unsigned)(*s - '0')) < 10; s++)
        *digits = *digits * 10 + c;
    return s;
}

/* The 1 to 8 digits before `end`, which has eight bytes before it: those that come before the
 * digits are taken for zeros. */
static inline bool last_digits(const char *end, size_t n, uint64_t *value) {
    uint64_t v;
    unsigned cut = 64 - 8 * (unsigned)n;
    memcpy(&v, end - 8, 8);
    return eight_digits((v >> cut << cut) | (0x3030303030303030u >> 1 >> (63 - cut)), value);
}

/* Digits from s to the end, at least one, when `end` has eight bytes before it. False: some byte is
 * none. Overflow of 64 bits is noticed by the count alone. */
static inline bool all_digits(const char *s, const char *end, uint64_t *digits) {
    uint64_t v, eight;
    for (; end - s > 8; s += 8) {
        memcpy(&v, s, 8);
        if (!eight_digits(v, &eight)) return false;
        *digits = *digits * tens[8] + eight;
    }
    if (!last_digits(end, (size_t)(end - s), &eight)) return false;
    *digits = *digits * tens[end - s] + eight;
    return true;
}

/* What most cells are, with as few branches as can be: a sign or none, a few digits, perhaps a
 * point and digits up to the end; at least 8 bytes in all when there is a point. False: look
 * closer. */
static inline bool common_parse(const char *s, const char *end, double *out) {
    const char *start = s;
    struct decimal d = {.negative = *s == '-'};
    s += d.negative;
    const char *whole = s;
    for (unsigned c; s < end && (c = (unsigned)(*s - '0')) < 10; s++)
        d.digits = d.digits * 10 + c;
    size_t n = (size_t)(s - whole), rest = (size_t)(end - s);
    if (n == 0 || n + rest - (rest != 0) > DIGITS || !little_endian) return false;
    if (rest == 0) {
        *out = sm_signed((double)d.digits, d.negative); /* rounds once, to nearest */
        return true;
    }
    if (*s != '.' || rest < 2 || end - start < 8) return false;
    if (!all_digits(s + 1, end, &d.digits)) return false;
    d.exponent = 1 - (int)rest;
    return decimal_round(&d, out);
}

static const char *exponent_parse(const char *s, const char *end, int *exponent) {
    const char *p = s + 1;
    bool negative = p < end && *p == '-';
    if (p < end && (*p == '-' || *p == '+')) p++;
    if (p == end || *p < '0' || *p > '9') return s;
    int e = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        if (e < 100000) e = e * 10 + (*p - '0');
    *exponent += negative ? -e : e;
    return p;
}

/* Zeros before the first digit that counts. */
static size_t leading_zeros(const char *s, const char *end) {
    size_t n = 0;
    for (s += *s == '-' || *s == '+'; s < end && (*s == '0' || *s == '.'); s++)
        n += *s == '0';
    return n;
}

/* Where the number that begins at s ends; NULL when none does. */
static inline const char *decimal_parse(const char *s, const char *end, struct decimal *d) {
    const char *start = s;
    *d = (struct decimal){.negative = s < end && *s == '-'};
    s += s < end && (*s == '-' || *s == '+');
    const char *whole = s;
    for (unsigned c; s < end && (c = (unsigned)(*s - '0')) < 10; s++)
        d->digits = d->digits * 10 + c;
    size_t n = (size_t)(s - whole);
    if (s < end && *s == '.') {
        const char *point = ++s;
        s = digits_parse(s, end, &d->digits);
        n += (size_t)(s - point);
        d->exponent = -(int)(s - point < TEXT_BYTES ? s - point : TEXT_BYTES);
    }
    if (n == 0) return NULL;
    if (s < end && (*s == 'e' || *s == 'E')) s = exponent_parse(s, end, &d->exponent);
    d->exact = n <= DIGITS || n - leading_zeros(start, s) <= DIGITS;
    return s;
}

#define SHIFT(p) __builtin_clzll(p)
#define SHIFTED(p) ((uint64_t)(p) << SHIFT(p))
#define POWER(k, p)                                                                         \
    {                                                                                       \
        SHIFTED(p),                                                                         \
            (uint64_t)((((unsigned __int128)~SHIFTED(p) << 64) | UINT64_MAX) / SHIFTED(p)), \
            SHIFT(p), 1021 + SHIFT(p) - (k)                                                 \
    }
const struct sm_power sm_powers[SM_POWERS] = {
    POWER(0, 1ull),
    POWER(1, 5ull),
    POWER(2, 25ull),
    POWER(3, 125ull),
    POWER(4, 625ull),
    POWER(5, 3125ull),
    POWER(6, 15625ull),
    POWER(7, 78125ull),
    POWER(8, 390625ull),
    POWER(9, 1953125ull),
    POWER(10, 9765625ull),
    POWER(11, 48828125ull),
    POWER(12, 244140625ull),
    POWER(13, 1220703125ull),
    POWER(14, 6103515625ull),
    POWER(15, 30517578125ull),
    POWER(16, 152587890625ull),
    POWER(17, 762939453125ull),
    POWER(18, 3814697265625ull),
    POWER(19, 19073486328125ull),
    POWER(20, 95367431640625ull),
    POWER(21, 476837158203125ull),
    POWER(22, 2384185791015625ull),
    POWER(23, 11920928955078125ull),
    POWER(24, 59604644775390625ull),
    POWER(25, 298023223876953125ull),
    POWER(26, 1490116119384765625ull),
    POWER(27, 7450580596923828125ull),
};

/* The quotient of (high, low) by a power, high < p->shifted: two multiplications (N. Möller and T.
 * Granlund, "Improved division by invariant integers", 2011, algorithm 4). */
static uint64_t divide(uint64_t high, uint64_t low, const struct sm_power *p, uint64_t *rest) {
    unsigned __int128 q = (unsigned __int128)p->inverse * high;
    q += ((unsigned __int128)high << 64) | low;
    uint64_t quotient = (uint64_t)(q >> 64) + 1;
    uint64_t r = low - quotient * p->shifted;
    if (r > (uint64_t)q) {
        quotient--;
        r += p->shifted;
    }
    if (r >= p->shifted) {
        quotient++;
        r -= p->shifted;
    }
    *rest = r;
    return quotient;
}

/* bits x 2^exponent, and a little more when sticky, to the nearest double. bits >= 2^62. The result
 * is far from the ends of the range of a double. */
static double round_bits(uint64_t bits, int exponent, bool sticky) {
    int drop = 11 - __builtin_clzll(bits); /* to 53 bits */
    uint64_t kept = bits >> drop, lost = bits & (((uint64_t)1 << drop) - 1);
    uint64_t half = (uint64_t)1 << (drop - 1);
    bool up = lost > half || (lost == half && (sticky || (kept & 1) != 0));
    kept += up; /* 2^53 is exact too */
    uint64_t scale = (uint64_t)(1023 + exponent + drop) << 52;
    double power_of_two;
    memcpy(&power_of_two, &scale, sizeof scale);
    return (double)kept * power_of_two;
}

double sm_quotient_exact(uint64_t digits, unsigned k) {
    const struct sm_power *p = &sm_powers[k];
    int shift = __builtin_clzll(digits);
    uint64_t n = digits << shift, rest;
    uint64_t q = divide(n >> 1, n << 63, p, &rest); /* n 2^63 / shifted: in [2^62, 2^64) */
    return round_bits(q, p->shift - shift - (int)k - 63, rest != 0);
}

static double product_round(uint64_t digits, unsigned k) {
    const struct sm_power *p = &sm_powers[k];
    unsigned __int128 v = (unsigned __int128)digits * (p->shifted >> p->shift);
    uint64_t high = (uint64_t)(v >> 64);
    int shift = high == 0 ? 64 + __builtin_clzll((uint64_t)v) : __builtin_clzll(high);
    v <<= shift;
    return round_bits((uint64_t)(v >> 64), 64 - shift + (int)k, (uint64_t)v != 0);
}

/* False: the power is out of range. */
static inline bool decimal_round(const struct decimal *d, double *out) {
    const int e = d->exponent;
    double v;
    if (d->digits == 0)
        v = 0;
    else if (e <= -SM_POWERS || e >= SM_POWERS)
        return false;
    else
        v = e < 0 ? sm_quotient_round(d->digits, (unsigned)-e)
                  : product_round(d->digits, (unsigned)e);
    *out = sm_signed(v, d->negative);
    return true;
}

static locale_t c_locale;

static void make_locale(void) {
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c_locale == (locale_t)0) abort(); /* the C locale needs no file: memory is out */
}

/* Of a text that is known to be a number. */
static enum sm_number slow_parse(const char *s, size_t n, double *out) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_locale);
    char text[TEXT_BYTES + 1];
    memcpy(text, s, n);
    text[n] = 0;
    *out = strtod_l(text, NULL, c_locale);
    return isinf(*out) ? SM_NUMBER_INFINITE : SM_NUMBER_FINITE;
}

static bool is_decimal(const char *s, const char *end) {
    if (s < end && (*s == '-' || *s == '+')) s++;
    bool digit = false, point = false;
    for (; s < end && ((*s >= '0' && *s <= '9') || (*s == '.' && !point)); s++)
        *s == '.' ? (point = true) : (digit = true);
    if (!digit) return false;
    if (s == end) return true;
    if (*s != 'e' && *s != 'E') return false;
    if (++s < end && (*s == '-' || *s == '+')) s++;
    if (s == end) return false;
    while (s < end && *s >= '0' && *s <= '9')
        s++;
    return s == end;
}

enum sm_number sm_number_parse_reference(const char *s, size_t n, double *out) {
    const char *end = s + n;
    trim(&s, &end);
    if (!is_decimal(s, end)) return word_parse(s, (size_t)(end - s), out);
    if (end - s > TEXT_BYTES) return SM_NUMBER_NONE;
    return slow_parse(s, (size_t)(end - s), out);
}
