/* The text of a pipeline file and errors that show a place in it. */
#pragma once

#include "lib/err.h"

#include <stddef.h>

struct sm_text {
    const char *name; /* of the file, for errors only */
    const char *bytes;
    size_t n;
};

struct sm_text_place {
    int line, column; /* 1-based; columns are characters */
};

/* Where a byte stands. offset may be n: the end. */
struct sm_text_place sm_text_place(const struct sm_text *t, size_t offset);

/* Fills err with "file:line:column: what", the line (cut to 160 columns around the place) and a
 * caret under the column. Returns -1. */
int sm_text_fail(const struct sm_text *t, size_t offset, struct sm_err *err, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Refuses what is not UTF-8 without control characters, so that nothing below meets it. */
int sm_text_check(const struct sm_text *t, struct sm_err *err);
