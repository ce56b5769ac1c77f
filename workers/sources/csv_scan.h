/* What csv.c asks of runs of bytes. Private to the sources. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sm_csv_marks {
    uint32_t *at, *others; /* the caller's, room for as many as there are bytes */
    size_t n, n_others;
    bool plain; /* every byte is ASCII and none is NUL */
};

/* Lists the places of the delimiter, quotes, CR and LF in n < 2^32 bytes, and which of these are
 * no delimiter. */
void sm_csv_mark(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m);
/* The same, a byte at a time, and as without AVX2; the tests compare. */
void sm_csv_mark_reference(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m);
void sm_csv_mark_sse2(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m);
/* Why bytes are no text: a NUL, or no UTF-8 (RFC 3629: no surrogates, nothing overlong); or NULL.
 */
const char *sm_csv_text_fault(const char *bytes, size_t n);
