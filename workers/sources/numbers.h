/* Numbers of many cells at once: what csv_table.c spends its time in. Before: csv.c cuts a row into
 * cells. After: the matrix. */
#pragma once

#include "workers/sources/csv.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* Element i of a row of the matrix. False: it overflows the type. */
static inline bool sm_number_put(double v, bool is_double, void *out, size_t i) {
    if (is_double) {
        ((double *)out)[i] = v;
        return true;
    }
    ((float *)out)[i] = (float)v;
    return !isinf((float)v);
}

/* Parses n cells of the row from `first` on, until one is no finite number of the matrix's type,
 * and returns how many were: out gets as many doubles, or floats, each as sm_number_parse gives it,
 * rounded once more for a float. What stands behind those in out[0..n) is undefined. */
size_t sm_numbers_parse(const struct sm_csv_row *row, size_t first, size_t n, bool is_double,
                        void *out);
/* The same, a cell at a time; the tests compare. */
size_t sm_numbers_parse_reference(const struct sm_csv_row *row, size_t first, size_t n,
                                  bool is_double, void *out);
