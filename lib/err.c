/* Filling, prefixing and naming errors. Everything above calls this; it calls nothing of ours. */
#include "lib/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *word, *doc;
} codes[SM_E_COUNT] = {
#define X(id, word, doc) {word, doc},
    SM_CODES(X)
#undef X
};

const char *sm_code_word(int code) {
    return code >= 0 && code < SM_E_COUNT ? codes[code].word : "unknown";
}

const char *sm_code_doc(int code) {
    return code >= 0 && code < SM_E_COUNT ? codes[code].doc : "unknown";
}

int sm_code_find(const char *word) {
    for (int i = 0; i < SM_E_COUNT; i++)
        if (strcmp(codes[i].word, word) == 0) return i;
    return -1;
}

int sm_code_charges_sample(int code) {
    return code >= SM_E_EMPTY && code <= SM_E_CHECKSUM;
}

static void fill(struct sm_err *err, enum sm_code code, const char *fmt, va_list ap) {
    if (err == NULL) return;
    err->code = code;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    if (err->text[0] == 0) snprintf(err->text, sizeof err->text, "%s", sm_code_doc(code));
}

int sm_fail(struct sm_err *err, enum sm_code code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, fmt, ap);
    va_end(ap);
    return -1;
}

int sm_fail_errno(struct sm_err *err, const char *fmt, ...) {
    int e = errno;
    enum sm_code code = e == ENOSPC || e == EDQUOT ? SM_E_DISK_FULL
                        : e == ENOENT              ? SM_E_MISSING
                        : e == ENOMEM              ? SM_E_MEMORY
                                                   : SM_E_IO;
    va_list ap;
    va_start(ap, fmt);
    fill(err, code, fmt, ap);
    va_end(ap);
    if (err != NULL) {
        size_t n = strlen(err->text);
        snprintf(err->text + n, sizeof err->text - n, ": %s", strerror(e));
    }
    return -1;
}

int sm_err_context(struct sm_err *err, const char *fmt, ...) {
    if (err == NULL) return -1;
    char tail[sizeof err->text];
    memcpy(tail, err->text, sizeof tail);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text - 3)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %.*s",
                 (int)(sizeof err->text - (size_t)n - 3), tail);
    return -1;
}

#define PLACE "line %d, column %d"

int sm_err_at(struct sm_err *err, int line, int column, const char *op) {
    int l, c, end = 0;
    if (err == NULL || (sscanf(err->text, PLACE ":%n", &l, &c, &end) == 2 && end > 0)) return -1;
    if (op == NULL) return sm_err_context(err, PLACE, line, column);
    return sm_err_context(err, PLACE ": '%s'", line, column, op);
}
