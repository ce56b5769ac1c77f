/* The growing buffer: doubling up to its maximum, never beyond. */
#include "lib/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sm_buf_init(struct sm_buf *b, size_t max) {
    assert(max > 0 && max < SIZE_MAX / 2);
    *b = (struct sm_buf){.max = max};
}

void sm_buf_release(struct sm_buf *b) {
    free(b->data);
    *b = (struct sm_buf){.max = b->max};
}

void sm_buf_reset(struct sm_buf *b) {
    b->len = 0;
    b->full = false;
    if (b->data != NULL) b->data[0] = 0;
}

void *sm_buf_room(struct sm_buf *b, size_t n) {
    if (b->full || n > b->max - b->len) {
        b->full = true;
        return NULL;
    }
    size_t need = b->len + n + 1;
    if (need > b->cap) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap < need)
            cap *= 2;
        if (cap > b->max + 1) cap = b->max + 1;
        char *data = realloc(b->data, cap);
        if (data == NULL) {
            b->full = true;
            return NULL;
        }
        b->data = data;
        b->cap = cap;
    }
    b->data[b->len + n] = 0;
    return b->data + b->len;
}

bool sm_buf_add(struct sm_buf *b, const void *bytes, size_t n) {
    char *to = sm_buf_room(b, n);
    if (to == NULL) return false;
    if (n) memcpy(to, bytes, n);
    b->len += n;
    return true;
}

bool sm_buf_text(struct sm_buf *b, const char *text) {
    return sm_buf_add(b, text, strlen(text));
}

bool sm_buf_printf(struct sm_buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    assert(n >= 0);
    char *to = sm_buf_room(b, (size_t)n);
    if (to == NULL) return false;
    va_start(ap, fmt);
    vsnprintf(to, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return true;
}

bool sm_buf_float(struct sm_buf *b, float x) {
    char text[32];
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) break;
    }
    return sm_buf_text(b, text);
}

/* Length of the UTF-8 sequence at s (1 to 4), or 0 where there is none. */
static int utf8_len(const unsigned char *s) {
    if (s[0] < 0x80) return 1;
    int n = s[0] >= 0xc2 && s[0] < 0xe0   ? 2
            : s[0] >= 0xe0 && s[0] < 0xf0 ? 3
            : s[0] >= 0xf0 && s[0] < 0xf5 ? 4
                                          : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (n == 3 && ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] >= 0xa0))) return 0;
    if (n == 4 && ((s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] >= 0x90))) return 0;
    return n;
}

bool sm_utf8(const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    for (int n; *s != 0; s += n)
        if ((n = utf8_len(s)) == 0) return false;
    return true;
}

bool sm_buf_quoted(struct sm_buf *b, const char *text) {
    static const char safe[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
    for (; *text != 0; text++)
        sm_buf_printf(b, strchr(safe, *text) != NULL ? "%c" : "%%%02X", (unsigned char)*text);
    return !b->full;
}

bool sm_buf_json(struct sm_buf *b, const char *text) {
    sm_buf_text(b, "\"");
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int n = utf8_len(s);
        if (n == 0) {
            sm_buf_text(b, "\\ufffd");
            s++;
        } else if (n > 1) {
            sm_buf_add(b, s, (size_t)n);
            s += n;
        } else {
            if (*s == '"' || *s == '\\')
                sm_buf_printf(b, "\\%c", *s);
            else if (*s == '\n')
                sm_buf_text(b, "\\n");
            else if (*s == '\t')
                sm_buf_text(b, "\\t");
            else if (*s < 0x20 || *s == 0x7f)
                sm_buf_printf(b, "\\u%04x", *s);
            else
                sm_buf_add(b, s, 1);
            s++;
        }
    }
    return sm_buf_text(b, "\"");
}
