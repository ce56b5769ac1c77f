/* What csv.c asks of runs of bytes. Private to the sources. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lists the places of the delimiter, quotes, CR and LF in n < 2^32 bytes: marks has room for n.
 * plain: every byte is ASCII and none is NUL. Returns how many. */
size_t sm_csv_marks(const char *bytes, size_t n, char delimiter, uint32_t *marks, bool *plain);
/* The same, a byte at a time; the tests compare. */
size_t sm_csv_marks_reference(const char *bytes, size_t n, char delimiter, uint32_t *marks,
                              bool *plain);
/* Why bytes are no text: a NUL, or no UTF-8 (RFC 3629: no surrogates, nothing overlong); or NULL.
 */
const char *sm_csv_text_fault(const char *bytes, size_t n);
