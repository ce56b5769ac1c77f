/* Numbers of many cells at once: what csv_table.c spends its time in. Before: csv.c cuts a row into
 * fields. After: the matrix. */
#pragma once

#include "workers/sources/csv.h"

#include <stddef.h>

/* Parses fields until one is no finite number, and returns how many were: out has as many doubles,
 * each as sm_number_parse gives it. SM_CSV_BEFORE bytes before each field can be read. */
size_t sm_numbers_parse(const struct sm_csv_field *fields, size_t n, double *out);
