/* Normal numbers. A file of its own, since the client library is linked without libm. */
#include "lib/rng.h"

#include <math.h>

/* ln(u), 0 < u <= 1: u = m 2^e with m around 1, and ln(m) = 2 atanh((m - 1) / (m + 1)). */
static double own_log(double u) {
    int e;
    double m = frexp(u, &e), sum = 0;
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    const double s = (m - 1) / (m + 1), square = s * s; /* at most 0.0295 */
    for (int k = 23; k >= 1; k -= 2)
        sum = sum * square + 1.0 / k;
    return 2 * s * sum + e * 0.69314718055994531;
}

/* cos(2 pi v), 0 <= v < 1: the quarter is exact, and the rest at most an eighth of a turn. */
static double own_cos_turn(double v) {
    const int quarter = (int)(4 * v + 0.5);
    const double angle = (4 * v - quarter) * 1.57079632679489662, square = angle * angle;
    const int odd = quarter & 1; /* a sine */
    double sum = 0;
    for (int k = 18 + odd; k >= 2; k -= 2)
        sum = (1 - sum) * square / (k * (k - 1));
    sum = odd ? angle * (1 - sum) : 1 - sum;
    return quarter == 1 || quarter == 2 ? -sum : sum;
}

double sm_rng_normal(struct sm_rng *r) {
    const double u = 1 - sm_rng_double(r), v = sm_rng_double(r);
    return sqrt(-2 * own_log(u)) * own_cos_turn(v);
}
