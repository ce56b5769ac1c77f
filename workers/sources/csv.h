/* A reader of CSV (RFC 4180): bytes of a file become rows of fields, a row at a time, in bounded
 * memory. Before: csv_table.c opens the files. After: it turns fields into numbers and categories.
 *
 * What is a row is what Python's `csv.reader(f, strict=True)` yields: fields stand between
 * delimiters, spaces belong to them; one that begins with a quote ends at the next quote that is
 * not doubled, and newlines within it are its own; a quote in the middle of a field is a character
 * like any other. A row ends with LF, CR LF or CR. Empty lines are passed over, as is a byte order
 * mark at the file's beginning. */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sm_csv; /* an open file */

enum { SM_CSV_BEFORE = 64 }; /* bytes before a row's bytes that can be read */

/* The cells are kept as places: those of a row without quotes, which are most, need no work at all,
 * since each begins behind the delimiter that ends the one before. */
struct sm_csv_row {
    const char *bytes;             /* lent until the next call, as the places are */
    const uint32_t *begins, *ends; /* cell i stands from begins[i] + gap on up to ends[i] */
    uint32_t gap;
    size_t n;
    uint64_t line, offset; /* line from 1, byte offset of its first byte in the file */
    enum sm_code code;     /* not SM_E_OK: the row cannot be read, text says why */
    char text[96];
};

struct sm_csv_field {
    const char *s; /* quotes taken off; not ended by NUL */
    size_t n;
};

static inline struct sm_csv_field sm_csv_cell(const struct sm_csv_row *row, size_t i) {
    const uint32_t begin = row->begins[i] + row->gap; /* wraps at the first byte: -1 + 1 */
    return (struct sm_csv_field){.s = row->bytes + begin, .n = row->ends[i] - begin};
}

/* delimiter: any ASCII character but a quote, a newline and NUL. Gives. */
int sm_csv_open(struct sm_csv **gives, const char *path, char delimiter, struct sm_err *err);
/* The same with a buffer of another size, which grows when a row needs it: for tests. */
int sm_csv_open_sized(struct sm_csv **gives, const char *path, char delimiter, size_t buffer_bytes,
                      struct sm_err *err);
void sm_csv_close(struct sm_csv **c);
/* From the next row on spaces (U+0020) at a field's beginning do not belong to it, as with Python's
 * skipinitialspace; a quote behind them opens the field. The delimiter is not a space. */
void sm_csv_skip_initial_space(struct sm_csv *c);
/* Goes on at `offset`, where a row begins, on line `line`. From then on the digest is not the
 * file's. */
int sm_csv_seek(struct sm_csv *c, uint64_t offset, uint64_t line, struct sm_err *err);
/* 1: a row, sound or not; 0: the file's end; -1: reading failed. After a row that cannot be read it
 * goes on at the next line: behind the fault, or behind the row's first line when a quote never
 * ends. */
int sm_csv_next(struct sm_csv *c, struct sm_csv_row *row, struct sm_err *err);
/* Of the file, at its end: how many bytes it had, and their XXH3-128 as canonical bytes. */
uint64_t sm_csv_bytes(const struct sm_csv *c);
void sm_csv_digest(const struct sm_csv *c, uint8_t digest[16]);
