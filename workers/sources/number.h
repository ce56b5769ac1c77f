/* Decimal numbers as they stand in tables: text to the nearest double, ties to even, as C's strtod
 * in the C locale and Python's float. Before: csv.c cuts a row into fields. After: the matrix. */
#pragma once

#include <stddef.h>

enum sm_number {
    SM_NUMBER_NONE,     /* it is no number */
    SM_NUMBER_FINITE,   /* *out is it */
    SM_NUMBER_INFINITE, /* it overflows, or is written as inf or infinity */
};

/* [+-] digits [. digits] [e [+-] digits], blanks and tabs around; a digit on one side of the point
 * is enough. inf and infinity in any case; nan is no number here, it means a missing cell. A text
 * longer than 1,000 bytes is no number. */
enum sm_number sm_number_parse(const char *s, size_t n, double *out);
/* The same by strtod; the tests compare. */
enum sm_number sm_number_parse_reference(const char *s, size_t n, double *out);
