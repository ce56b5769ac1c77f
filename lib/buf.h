/* A growing run of bytes that is given its maximum when it is made, so that nothing from outside
 * makes it grow without bound. Always NUL-terminated, so text can be read in place. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct sm_buf {
    char *data; /* NUL at data[len] */
    size_t len, cap, max;
    bool full; /* something did not fit; sticky, so that a writer may check once at the end */
};

void sm_buf_init(struct sm_buf *b, size_t max);
void sm_buf_release(struct sm_buf *b);
void sm_buf_reset(struct sm_buf *b);
/* Appends; false (and b->full) when the maximum or the memory is reached. */
bool sm_buf_add(struct sm_buf *b, const void *bytes, size_t n);
bool sm_buf_text(struct sm_buf *b, const char *text);
bool sm_buf_printf(struct sm_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Appends text as a JSON string, quotes included; bytes that are not UTF-8 become U+FFFD. */
bool sm_buf_json(struct sm_buf *b, const char *text);
/* Appends a finite number in the fewest digits that read back as the same float; JSON reads it. */
bool sm_buf_float(struct sm_buf *b, float x);
/* Whether all of text is UTF-8. */
bool sm_utf8(const char *text);
/* Appends text with every byte that a URL's path may not hold as %XX (RFC 3986; '/' stays). */
bool sm_buf_quoted(struct sm_buf *b, const char *text);
/* Room for n more bytes at the end, which the caller fills and then adds to len; NULL when full. */
void *sm_buf_room(struct sm_buf *b, size_t n);
