/* Rows as whole numbers of 16 bits, for products that need not be exact but whose error must have a
 * bound: of those a processor makes nearly twice as many at a time as of float32 ones. Before:
 * centred rows of a class (workers/neighbours_search.c). After: a tile of products, by which pairs
 * that cannot be near are passed over. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Rows in panels of SM_CODES_PANEL. A code is off by at most 0.51 of a unit, and a row is 32766
 * units long. */
enum { SM_CODES_PANEL = 16 };
struct sm_codes {
    int16_t *codes;
    float *units; /* what 1 stands for in each row; 0 behind the last row */
    size_t d;
};

/* For n rows of d: bytes of codes, and how many units. */
size_t sm_codes_bytes(size_t n, size_t d);
size_t sm_codes_padded(size_t n);
/* The codes from row i on, which begins a panel. */
struct sm_codes sm_codes_from(const struct sm_codes *codes, size_t i);
/* norms: squared lengths. A row that has none in float32, or too small a one, gets zeros. */
void sm_codes_make(const float *x, const float *norms, size_t n, struct sm_codes *codes);
void sm_codes_make_plain(const float *x, const float *norms, size_t n, struct sm_codes *codes);
/* A product of two rows out of their codes is off by at most this times both lengths (and what
 * float32 rounds). */
double sm_codes_error(size_t d);

/* y[i * SM_CODES_COLUMNS + k] = -2 times the product of row i0 + i of a with row k0 + k of b, for
 * i < rows and k < columns, at most SM_CODES_COLUMNS; i0 and k0 begin panels. Up to the next
 * multiples of SM_CODES_ROWS and SM_CODES_PANEL y is written to as well. Sums are of whole numbers
 * and do not overflow, so all machines give the same bytes. */
enum { SM_CODES_ROWS = 4, SM_CODES_COLUMNS = 64 };
void sm_codes_dots(const struct sm_codes *a, size_t i0, size_t rows, const struct sm_codes *b,
                   size_t k0, size_t columns, float *y);
void sm_codes_dots_plain(const struct sm_codes *a, size_t i0, size_t rows, const struct sm_codes *b,
                         size_t k0, size_t columns, float *y);
