/* See csv.h. The buffer's delimiters, quotes and newlines are found 64 bytes at a time and listed.
 * A row in which none but its newline is no delimiter needs nothing else: the marks are its cells'
 * places. The others are cut by a walk from one mark to the next. */
#include "workers/sources/csv.h"

#include "lib/fs.h"
#include "lib/limits.h"
#include "workers/sources/csv_scan.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { BUFFER_BYTES = 128 << 10, FIELDS = 256 };

struct sm_csv {
    int fd;
    char *path, delimiter;
    char *store;  /* of buffer, with bytes before it that can be read */
    char *buffer; /* cap bytes and a byte more */
    size_t cap, used;
    bool skip_space;    /* at the beginning of a field */
    bool eof, skipping; /* the rest of a line is to be passed over */
    bool plain;         /* every byte of the buffer is ASCII and none is NUL */
    uint64_t base;      /* offset in the file of the buffer's first byte */
    /* Places of delimiters, quotes and newlines; the last is `used`, and marks[-1] the byte before
     * the first row. others: which marks are no delimiter, the last one among them. */
    uint32_t *marks, *others;
    size_t next;             /* mark at or behind `at` */
    size_t next_other;       /* of others: at or before the first that is not before `next` */
    size_t at;               /* where the next row begins */
    uint64_t line;           /* number of the line there */
    uint32_t *begins, *ends; /* fields of a row that was walked */
    size_t *doubled;         /* those that have doubled quotes */
    size_t n_fields, fields_cap, n_doubled;
    XXH3_state_t *hash;
};

/* How the walk over a row ends. */
enum walk { WALK_ROW, WALK_MORE, WALK_BAD_QUOTE, WALK_UNENDED, WALK_NO_MEMORY };

static int refill(struct sm_csv *c, struct sm_err *err);
static int skip_line(struct sm_csv *c, struct sm_err *err);
static bool plain_row(struct sm_csv *c, struct sm_csv_row *row);
static enum walk walk_row(struct sm_csv *c, size_t *end, size_t *mark, uint64_t *line);
static int give_row(struct sm_csv *c, size_t end, struct sm_csv_row *row);

/* For a buffer of so many bytes. */
static bool reserve_marks(struct sm_csv *c, size_t cap) {
    uint32_t *marks = c->marks == NULL ? NULL : c->marks - 1;
    marks = reallocarray(marks, cap + 2, sizeof *marks);
    if (marks != NULL) c->marks = marks + 1;
    uint32_t *others = marks == NULL ? NULL : reallocarray(c->others, cap + 1, sizeof *others);
    if (others != NULL) c->others = others;
    return others != NULL;
}

int sm_csv_open(struct sm_csv **gives, const char *path, char delimiter, struct sm_err *err) {
    return sm_csv_open_sized(gives, path, delimiter, BUFFER_BYTES, err);
}

int sm_csv_open_sized(struct sm_csv **gives, const char *path, char delimiter, size_t buffer_bytes,
                      struct sm_err *err) {
    *gives = NULL;
    assert(delimiter > 0 && strchr("\"\r\n", delimiter) == NULL);
    struct sm_csv *c = calloc(1, sizeof *c);
    if (c == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *c = (struct sm_csv){.fd = -1, .delimiter = delimiter, .line = 1, .cap = buffer_bytes};
    c->path = strdup(path);
    c->store = calloc(1, SM_CSV_BEFORE + c->cap + 1);
    c->buffer = c->store + SM_CSV_BEFORE;
    const bool marks = reserve_marks(c, c->cap);
    c->hash = XXH3_createState();
    int failed = 0;
    if (c->path == NULL || c->store == NULL || !marks || c->hash == NULL)
        failed = sm_fail(err, SM_E_MEMORY, "out of memory");
    if (!failed) c->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (!failed && c->fd < 0) failed = sm_fail_errno(err, "cannot open '%s'", path);
    struct stat st;
    if (!failed && (fstat(c->fd, &st) != 0 || !S_ISREG(st.st_mode)))
        failed = sm_fail(err, SM_E_DATASET, "'%s' is not a file", path);
    if (!failed) {
        XXH3_128bits_reset(c->hash);
        failed = refill(c, err);
        while (!failed && c->used < 3 && !c->eof)
            failed = refill(c, err);
    }
    if (failed) {
        sm_csv_close(&c);
        return -1;
    }
    if (c->used >= 3 && memcmp(c->buffer, "\xEF\xBB\xBF", 3) == 0) {
        c->at = 3;
        c->marks[-1] = 2;
    }
    *gives = c;
    return 0;
}

void sm_csv_close(struct sm_csv **cp) {
    struct sm_csv *c = *cp;
    if (c == NULL) return;
    if (c->fd >= 0) close(c->fd);
    XXH3_freeState(c->hash);
    free(c->path);
    free(c->store);
    free(c->marks == NULL ? NULL : c->marks - 1);
    free(c->others);
    free(c->doubled);
    free(c->begins);
    free(c->ends);
    free(c);
    *cp = NULL;
}

void sm_csv_skip_initial_space(struct sm_csv *c) {
    assert(c->delimiter != ' ');
    c->skip_space = true;
}

int sm_csv_seek(struct sm_csv *c, uint64_t offset, uint64_t line, struct sm_err *err) {
    c->base = offset;
    c->used = c->at = 0;
    c->line = line;
    c->eof = c->skipping = false;
    return refill(c, err);
}

uint64_t sm_csv_bytes(const struct sm_csv *c) {
    return c->base + c->used;
}

void sm_csv_digest(const struct sm_csv *c, uint8_t digest[16]) {
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(c->hash));
    memcpy(digest, sum.digest, 16);
}

static int is_bad(struct sm_csv_row *row, enum sm_code code, const char *text) {
    row->code = code;
    snprintf(row->text, sizeof row->text, "%s", text);
    row->n = 0;
    return 1;
}

/* What stopped the walk is the row's fault. */
static int give_bad(struct sm_csv *c, enum walk how, size_t mark, uint64_t line,
                    struct sm_csv_row *row) {
    c->skipping = true;
    if (how == WALK_BAD_QUOTE) { /* go on behind the line in which it stands */
        c->at = c->marks[mark - 1];
        c->next = mark;
        c->line = line;
        return is_bad(row, SM_E_DECODE, "a quoted field goes on behind its closing quote");
    }
    if (how == WALK_UNENDED) return is_bad(row, SM_E_DECODE, "a quote is never closed");
    return is_bad(row, SM_E_TOO_LARGE, "a row longer than a row may be, or a quote never closed");
}

/* Whether the row is longer than a row may be: by its bytes alone, however many of them and of
 * those behind it the buffer happens to hold. WALK_MORE: end is not known, but not before `used`.
 */
static bool too_long(const struct sm_csv *c, enum walk how, size_t end, size_t mark) {
    if (how == WALK_BAD_QUOTE) end = (size_t)c->marks[mark - 1] + 2; /* the byte at fault is seen */
    if (how == WALK_UNENDED || how == WALK_MORE) end = c->used;
    return end - c->at > SM_MAX_CSV_ROW_BYTES;
}

int sm_csv_next(struct sm_csv *c, struct sm_csv_row *row, struct sm_err *err) {
    for (;;) {
        if (c->skipping && skip_line(c, err) != 0) return -1;
        if (c->at == c->used && c->eof) return 0;
        row->line = c->line;
        row->offset = c->base + c->at;
        row->code = SM_E_OK;
        if (plain_row(c, row)) return 1;
        size_t end = 0, mark = 0;
        uint64_t line = c->line;
        enum walk how = walk_row(c, &end, &mark, &line);
        if (how == WALK_NO_MEMORY) return sm_fail(err, SM_E_MEMORY, "out of memory");
        if (too_long(c, how, end, mark)) {
            how = WALK_MORE;
        } else if (how == WALK_MORE) {
            if (refill(c, err) != 0) return -1;
            continue;
        }
        if (how != WALK_ROW) return give_bad(c, how, mark, line, row);
        bool empty = c->at < c->used && (c->buffer[c->at] == '\n' || c->buffer[c->at] == '\r');
        size_t was = c->at;
        int got = empty ? 0 : give_row(c, end, row);
        assert(c->marks[mark] >= end && end > was);
        c->at = end;
        c->next = mark;
        c->line = line;
        if (!empty) return got;
    }
}

/* Keeps what is not used up, reads on and finds the marks anew. */
static int refill(struct sm_csv *c, struct sm_err *err) {
    if (c->eof) return 0;
    memmove(c->buffer, c->buffer + c->at, c->used - c->at);
    c->base += c->at;
    c->used -= c->at;
    c->at = 0;
    if (c->used > c->cap / 2) {
        size_t cap = c->cap * 2;
        char *store = realloc(c->store, SM_CSV_BEFORE + cap + 1);
        if (store != NULL) {
            c->store = store;
            c->buffer = store + SM_CSV_BEFORE;
        }
        if (store == NULL || !reserve_marks(c, cap))
            return sm_fail(err, SM_E_MEMORY, "out of memory");
        c->cap = cap;
    }
    ssize_t n = sm_fs_pread(c->fd, c->buffer + c->used, c->cap - c->used, c->base + c->used);
    if (n < 0) return sm_fail_errno(err, "cannot read '%s'", c->path);
    XXH3_128bits_update(c->hash, c->buffer + c->used, (size_t)n);
    c->used += (size_t)n;
    c->eof = c->used < c->cap;
    c->buffer[c->used] = '\n'; /* so that the byte behind can be looked at */
    struct sm_csv_marks m = {.at = c->marks, .others = c->others};
    sm_csv_mark(c->buffer, c->used, c->delimiter, &m);
    c->marks[-1] = UINT32_MAX;
    c->marks[m.n] = (uint32_t)c->used;
    c->others[m.n_others] = (uint32_t)m.n;
    c->plain = m.plain;
    c->next = c->next_other = 0;
    return 0;
}

/* Passes over the rest of the line at `at`, its newline included. */
static int skip_line(struct sm_csv *c, struct sm_err *err) {
    for (;;) {
        size_t k = c->next, at;
        while ((at = c->marks[k]) < c->used && c->buffer[at] != '\n' && c->buffer[at] != '\r')
            k++;
        bool whole = at < c->used && (c->buffer[at] == '\n' || at + 1 < c->used || c->eof);
        if (whole) {
            bool two = c->buffer[at] == '\r' && at + 1 < c->used && c->buffer[at + 1] == '\n';
            c->at = at + 1 + two;
            c->next = k + 1 + two;
            c->line++;
            break;
        }
        c->at = at;
        c->next = k;
        if (c->eof) break;
        if (refill(c, err) != 0) return -1;
    }
    c->skipping = false;
    return 0;
}

static bool grow_fields(struct sm_csv *c) {
    size_t cap = c->fields_cap == 0 ? FIELDS : c->fields_cap * 2;
    size_t *doubled = reallocarray(c->doubled, cap, sizeof *doubled);
    if (doubled != NULL) c->doubled = doubled;
    uint32_t *begins = doubled == NULL ? NULL : reallocarray(c->begins, cap, sizeof *begins);
    if (begins != NULL) c->begins = begins;
    uint32_t *ends = begins == NULL ? NULL : reallocarray(c->ends, cap, sizeof *ends);
    if (ends == NULL) return false;
    c->ends = ends;
    c->fields_cap = cap;
    return true;
}

/* Beyond the limit fields are only counted. */
static bool add_field(struct sm_csv *c, size_t from, size_t to, bool doubled) {
    if (c->n_fields >= c->fields_cap && c->fields_cap <= SM_MAX_TABLE_COLUMNS && !grow_fields(c))
        return false;
    if (c->n_fields < c->fields_cap) {
        if (doubled) c->doubled[c->n_doubled++] = c->n_fields;
        c->begins[c->n_fields] = (uint32_t)from;
        c->ends[c->n_fields] = (uint32_t)to;
    }
    c->n_fields++;
    return true;
}

/* The byte behind the buffer is a newline, so it ends there. */
static size_t skip_spaces(const char *b, size_t at) {
    while (b[at] == ' ')
        at++;
    return at;
}

/* Fields without quotes, as far as the next mark is a delimiter: most of a table. */
static void add_plain(struct sm_csv *c, size_t *from, size_t *mark) {
    const char *b = c->buffer;
    const char delimiter = c->delimiter;
    const uint32_t *marks = c->marks + *mark;
    const size_t most = c->n_fields < c->fields_cap ? c->fields_cap - c->n_fields : 0;
    uint32_t *begins = c->begins + c->n_fields, *ends = c->ends + c->n_fields;
    size_t s = *from, n = 0;
    /* the last mark leads to a newline, so it ends here */
    for (size_t to; n < most && b[to = marks[n]] == delimiter; s = to + 1) {
        begins[n] = (uint32_t)s;
        ends[n++] = (uint32_t)to;
    }
    for (size_t i = 0; c->skip_space && i < n; i++)
        begins[i] = (uint32_t)skip_spaces(b, begins[i]);
    c->n_fields += n;
    *from = c->skip_space ? skip_spaces(b, s) : s;
    *mark += n;
}

/* From the quote at marks[*k] to its closing one, whose place it fills in. */
static enum walk walk_quoted(const struct sm_csv *c, size_t *k, size_t *close, bool *doubled,
                             uint64_t *line) {
    const char *b = c->buffer;
    for (size_t i = *k + 1;; i++) {
        size_t at = c->marks[i];
        if (at + 1 >= c->used && !c->eof) return WALK_MORE;
        if (at == c->used) return WALK_UNENDED;
        if (b[at] == '"') {
            if (at + 1 < c->used && b[at + 1] == '"') {
                *doubled = true;
                i++;
                continue;
            }
            *close = at;
            *k = i + 1;
            return WALK_ROW;
        }
        *line += b[at] == '\n' || (b[at] == '\r' && b[at + 1] != '\n');
    }
}

/* Cuts the row at `at` into places; end: where the next one begins, mark: the first mark from there
 * on, line: its number. Of WALK_BAD_QUOTE: mark is behind the closing quote. */
static enum walk walk_row(struct sm_csv *c, size_t *end, size_t *mark, uint64_t *line) {
    const char *b = c->buffer;
    size_t s = c->at, k = c->next;
    c->n_fields = c->n_doubled = 0;
    for (;;) {
        add_plain(c, &s, &k);
        size_t from = s, to = c->marks[k];
        bool doubled = false;
        if (to == s && b[s] == '"' && s < c->used) {
            enum walk how = walk_quoted(c, &k, &to, &doubled, line);
            if (how != WALK_ROW) return how;
            from = s + 1;
            s = to + 1;
            *mark = k;
            if (s < c->used && b[s] != c->delimiter && b[s] != '\n' && b[s] != '\r')
                return WALK_BAD_QUOTE;
        } else {
            while (b[to] == '"' && to < c->used)
                to = c->marks[++k];
            s = to;
        }
        if (s >= c->used && !c->eof) return WALK_MORE;
        if (!add_field(c, from, to, doubled)) return WALK_NO_MEMORY;
        *end = s;
        *mark = k;
        if (s >= c->used) return WALK_ROW;
        k++;
        if (b[s++] == c->delimiter) continue;
        if (b[s - 1] == '\r' && s >= c->used && !c->eof) return WALK_MORE;
        bool two = b[s - 1] == '\r' && s < c->used && b[s] == '\n';
        *end = s + two;
        *mark = k + two;
        (*line)++;
        return WALK_ROW;
    }
}

/* Makes two quotes one, in place. */
static size_t undouble(char *s, size_t n) {
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        s[out++] = s[i];
        i += s[i] == '"';
    }
    return out;
}

static int give_row(struct sm_csv *c, size_t end, struct sm_csv_row *row) {
    row->n = 0;
    if (!c->plain) {
        const char *why = sm_csv_text_fault(c->buffer + c->at, end - c->at);
        if (why != NULL) return is_bad(row, SM_E_DECODE, why);
    }
    if (c->n_fields > SM_MAX_TABLE_COLUMNS)
        return is_bad(row, SM_E_TOO_LARGE, "more fields than a table may have columns");
    for (size_t i = 0; end - c->at > SM_MAX_CSV_FIELD_BYTES && i < c->n_fields; i++)
        if (c->ends[i] - c->begins[i] > SM_MAX_CSV_FIELD_BYTES)
            return is_bad(row, SM_E_TOO_LARGE, "a field longer than a field may be");
    for (size_t i = 0; i < c->n_doubled; i++) {
        const size_t k = c->doubled[i];
        const uint32_t begin = c->begins[k];
        c->ends[k] = begin + (uint32_t)undouble(c->buffer + begin, c->ends[k] - begin);
    }
    row->bytes = c->buffer;
    row->begins = c->begins;
    row->ends = c->ends;
    row->gap = 0;
    row->n = c->n_fields;
    return 1;
}

/* A row of which only the newline is no delimiter, and that breaks no rule. False: look closer. */
static bool plain_row(struct sm_csv *c, struct sm_csv_row *row) {
    while (c->others[c->next_other] < c->next)
        c->next_other++;
    const char *b = c->buffer;
    const uint32_t *ends = c->marks + c->next;
    const size_t last = c->others[c->next_other], end = c->marks[last], n = last - c->next + 1;
    const bool two = b[end] == '\r'; /* and LF: the only other end of such a row */
    /* at the buffer's end, perhaps for want of bytes, the walk looks */
    if (end + two >= c->used || b[end + two] != '\n' || end == c->at) return false;
    if (c->skip_space || end - c->at > SM_MAX_CSV_FIELD_BYTES || n > SM_MAX_TABLE_COLUMNS ||
        ends[-1] + 1 != (uint32_t)c->at)
        return false;
    if (!c->plain && sm_csv_text_fault(b + c->at, end - c->at) != NULL) return false;
    row->bytes = b;
    row->begins = ends - 1;
    row->ends = ends;
    row->gap = 1;
    row->n = n;
    c->at = end + 1 + two;
    c->next = last + 1 + two;
    c->next_other += 1 + two;
    c->line++;
    return true;
}
