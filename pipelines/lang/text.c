/* Places in a text and the errors that point at them. Used by the YAML reader and by the checks of
 * what it read. */
#include "pipelines/lang/text.h"

#include "lib/limits.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    EXCERPT_COLUMNS = 160,
    WHAT_BYTES = 400,
};

/* Bytes of the character at s; a byte that starts none counts as one and *valid says so. */
static size_t char_bytes(const char *s, const char *end, bool *valid) {
    const unsigned char *u = (const unsigned char *)s;
    size_t n = u[0] < 0x80                   ? 1
               : u[0] >= 0xc2 && u[0] < 0xe0 ? 2
               : u[0] >= 0xe0 && u[0] < 0xf0 ? 3
               : u[0] >= 0xf0 && u[0] < 0xf5 ? 4
                                             : 0;
    *valid = n > 0 && (size_t)(end - s) >= n;
    for (size_t i = 1; *valid && i < n; i++)
        *valid = (u[i] & 0xc0) == 0x80;
    if (*valid && n == 3)
        *valid = !(u[0] == 0xe0 && u[1] < 0xa0) && !(u[0] == 0xed && u[1] >= 0xa0);
    if (*valid && n == 4)
        *valid = !(u[0] == 0xf0 && u[1] < 0x90) && !(u[0] == 0xf4 && u[1] >= 0x90);
    return *valid ? n : 1;
}

static size_t line_start(const struct sm_text *t, size_t offset) {
    while (offset > 0 && t->bytes[offset - 1] != '\n')
        offset--;
    return offset;
}

static size_t line_end(const struct sm_text *t, size_t offset) {
    while (offset < t->n && t->bytes[offset] != '\n' && t->bytes[offset] != '\r')
        offset++;
    return offset;
}

struct sm_text_place sm_text_place(const struct sm_text *t, size_t offset) {
    struct sm_text_place place = {1, 1};
    if (offset > t->n) offset = t->n;
    size_t start = line_start(t, offset);
    for (size_t i = 0; i < start; i++)
        place.line += t->bytes[i] == '\n';
    if (start == 0 && offset >= 3 && memcmp(t->bytes, "\xef\xbb\xbf", 3) == 0)
        start = 3; /* a byte order mark takes no column */
    for (size_t i = start; i < offset; place.column++) {
        bool valid;
        i += char_bytes(t->bytes + i, t->bytes + offset, &valid);
    }
    return place;
}

/* A text that is built in err->text and never overruns it. */
struct writer {
    char *at, *end;
};

static void put(struct writer *w, const char *s, size_t n) {
    if ((size_t)(w->end - w->at) <= n) return;
    memcpy(w->at, s, n);
    w->at += n;
    *w->at = 0;
}

/* One character of the line: control characters and broken bytes become one '?' each. */
static void put_char(struct writer *w, const char *s, size_t n, bool valid) {
    bool plain = valid && (n > 1 || ((unsigned char)*s >= 0x20 && *s != 0x7f) || *s == '\t');
    put(w, plain ? s : "?", plain ? n : 1);
}

/* Appends the line and the caret. Columns are counted from 0 here. */
static void put_excerpt(struct writer *w, const struct sm_text *t, size_t offset, int column) {
    size_t start = line_start(t, offset), end = line_end(t, offset);
    if (start == 0 && end >= 3 && memcmp(t->bytes, "\xef\xbb\xbf", 3) == 0) start = 3;
    int width = EXCERPT_COLUMNS;
    /* at worst four bytes a column for the line and one for the caret's */
    while (width > 8 && (w->end - w->at) < 5 * width + 16)
        width -= 8;
    int total = sm_text_place(t, end).column - 1;
    int first = total <= width || column < width / 2 ? 0 : column - width / 2;
    char caret[EXCERPT_COLUMNS + 8];
    int n = 0, at = 0;
    put(w, "\n", 1);
    for (size_t i = start; i < end && at < first + width; at++) {
        bool valid;
        size_t bytes = char_bytes(t->bytes + i, t->bytes + end, &valid);
        if (at >= first) put_char(w, t->bytes + i, bytes, valid);
        if (at >= first && at < column) caret[n++] = t->bytes[i] == '\t' ? '\t' : ' ';
        i += bytes;
    }
    caret[n] = '^';
    put(w, "\n", 1);
    put(w, caret, (size_t)n + 1);
}

/* A message may quote what stands in the file, and that must not reach a terminal as a command. */
static void make_printable(char *text) {
    for (unsigned char *s = (unsigned char *)text; *s; s++) {
        if (*s < 0x20 || *s == 0x7f) *s = '?';
        if (s[0] == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0) s[0] = s[1] = '?';
    }
}

int sm_text_fail(const struct sm_text *t, size_t offset, struct sm_err *err, const char *fmt, ...) {
    if (err == NULL) return -1;
    if (offset > t->n) offset = t->n;
    char what[WHAT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    make_printable(what);
    struct sm_text_place place = sm_text_place(t, offset);
    err->code = SM_E_PIPELINE;
    int n = snprintf(err->text, sizeof err->text, "%.300s:%d:%d: %s", t->name, place.line,
                     place.column, what);
    struct writer w = {err->text + n, err->text + sizeof err->text};
    put_excerpt(&w, t, offset, place.column - 1);
    return -1;
}

int sm_text_check(const struct sm_text *t, struct sm_err *err) {
    if (t->n > SM_MAX_YAML_BYTES)
        return sm_text_fail(t, SM_MAX_YAML_BYTES, err, "the file is longer than %d bytes",
                            SM_MAX_YAML_BYTES);
    for (size_t i = 0; i < t->n;) {
        bool valid;
        const unsigned char *s = (const unsigned char *)t->bytes + i;
        size_t n = char_bytes(t->bytes + i, t->bytes + t->n, &valid);
        if (!valid)
            return sm_text_fail(t, i, err,
                                "byte 0x%02x is not UTF-8 (hint: save the file as UTF-8)", *s);
        if (*s == '\r' && (i + 1 == t->n || s[1] != '\n'))
            return sm_text_fail(t, i, err, "a carriage return without a line feed");
        bool control = (*s < 0x20 && *s != '\t' && *s != '\n' && *s != '\r') || *s == 0x7f;
        if (control || (*s == 0xc2 && s[1] < 0xa0))
            return sm_text_fail(t, i, err, "control character 0x%02x is not allowed here",
                                control ? *s : s[1]);
        i += n;
    }
    return 0;
}
