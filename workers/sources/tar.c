/* Reads tar headers, never extracts. Names are keys and not paths, so whatever could be misused as
 * a path is refused; every length is checked against the archive before it is believed. Called by
 * webdataset.c. */
#include "workers/sources/tar.h"

#include "lib/fs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 512, WINDOW = 64 << 10 };

struct sm_tar {
    int fd;
    uint64_t end, at; /* bytes of the archive; where the next header stands */
    const char *name;
    uint64_t window_at; /* a stretch of the archive that has been read */
    size_t window_n;
    uint8_t window[WINDOW];
    char long_name[SM_MAX_PATH_BYTES]; /* from an extended header, for the next member; "" none */
    uint64_t long_size;
    bool has_long_size;
    uint64_t first_header;
    uint8_t extended[SM_MAX_TAR_HEADERS_BYTES + 1];
};

static int read_header(struct sm_tar *t, uint8_t header[BLOCK], struct sm_err *err);
static int take_extended(struct sm_tar *t, char type, uint64_t size, struct sm_err *err);
static int take_member(struct sm_tar *t, const uint8_t *header, uint64_t size,
                       struct sm_tar_member *member, struct sm_err *err);
static bool parse_number(const uint8_t *field, size_t n, uint64_t *out);

int sm_tar_open(struct sm_tar **gives, int fd, uint64_t archive_bytes, const char *name,
                struct sm_err *err) {
    *gives = calloc(1, sizeof **gives);
    if (*gives == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    **gives = (struct sm_tar){.fd = fd, .end = archive_bytes, .name = name};
    return 0;
}

void sm_tar_close(struct sm_tar **t) {
    free(*t);
    *t = NULL;
}

static int unsound(const struct sm_tar *t, const char *what, struct sm_err *err) {
    return sm_fail(err, SM_E_DATASET, "'%s' at offset %llu: %s", t->name, (unsigned long long)t->at,
                   what);
}

/* Lends n bytes of the archive; NULL with err. */
static const uint8_t *look(struct sm_tar *t, uint64_t at, size_t n, struct sm_err *err) {
    if (at < t->window_at || at + n > t->window_at + t->window_n) {
        ssize_t got = sm_fs_pread(t->fd, t->window, WINDOW, at);
        if (got < 0) {
            sm_fail_errno(err, "cannot read '%s' at offset %llu", t->name, (unsigned long long)at);
            return NULL;
        }
        t->window_at = at;
        t->window_n = (size_t)got;
        if (t->window_n < n) {
            unsound(t, "the archive is cut", err);
            return NULL;
        }
    }
    return t->window + (at - t->window_at);
}

int sm_tar_next(struct sm_tar *t, struct sm_tar_member *member, struct sm_err *err) {
    uint8_t header[BLOCK];
    t->long_name[0] = 0;
    t->has_long_size = false;
    t->first_header = t->at;
    for (;;) {
        int more = read_header(t, header, err);
        if (more <= 0) return more;
        uint64_t size;
        if (!parse_number(header + 124, 12, &size))
            return unsound(t, "a size that is no number", err);
        char type = (char)header[156];
        bool extended = type == 'x' || type == 'g' || type == 'L' || type == 'K';
        if (!extended && t->has_long_size) size = t->long_size;
        if (type == '5') size = 0; /* a folder: its size field means nothing */
        if (size > t->end - t->at - BLOCK)
            return unsound(t, "a member that is longer than the archive", err);
        if (extended) {
            if (take_extended(t, type, size, err) != 0) return -1;
        } else if (type == '0' || type == 0 || type == '7') {
            return take_member(t, header, size, member, err);
        } else if (type == '1' || type == '2') {
            return unsound(t, "a link (hint: pack the files themselves, tar --dereference)", err);
        } else if (type != '5') {
            return unsound(t, "a member that is neither file nor folder", err);
        }
        t->at += BLOCK + (size + BLOCK - 1) / BLOCK * BLOCK;
        if (type == '5') {
            t->long_name[0] = 0;
            t->has_long_size = false;
            t->first_header = t->at;
        }
    }
}

static bool checksum_fits(const uint8_t header[BLOCK]) {
    uint64_t wanted;
    if (!parse_number(header + 148, 8, &wanted)) return false;
    uint64_t sum = 0;
    for (int i = 0; i < BLOCK; i++)
        sum += i >= 148 && i < 156 ? ' ' : header[i];
    return sum == wanted;
}

/* 1: a header; 0: the end-of-archive mark. A missing mark means a cut archive. */
static int read_header(struct sm_tar *t, uint8_t header[BLOCK], struct sm_err *err) {
    if (t->end < BLOCK || t->at > t->end - BLOCK)
        return unsound(t, "the archive ends without its end mark; it has been cut", err);
    const uint8_t *block = look(t, t->at, BLOCK, err);
    if (block == NULL) return -1;
    memcpy(header, block, BLOCK);
    static const uint8_t zeros[BLOCK];
    if (memcmp(header, zeros, BLOCK) == 0) return 0;
    if (!checksum_fits(header))
        return unsound(t, "not a tar header (hint: compressed shards are not read)", err);
    return 1;
}

/* Octal digits, or a big-endian number behind the byte 0x80. */
static bool parse_number(const uint8_t *field, size_t n, uint64_t *out) {
    uint64_t v = 0;
    if (field[0] & 0x80) {
        if (field[0] != 0x80) return false;
        for (size_t i = 1; i < n; i++) {
            if (v >> 55 != 0) return false;
            v = v << 8 | field[i];
        }
        *out = v;
        return true;
    }
    size_t i = 0, digits = 0;
    while (i < n && field[i] == ' ')
        i++;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++, digits++)
        v = v << 3 | (uint64_t)(field[i] - '0');
    for (; i < n; i++)
        if (field[i] != 0 && field[i] != ' ') return false;
    *out = v;
    return digits > 0;
}

/* One pax record: "LENGTH KEY=VALUE\n". Returns its length, 0 when it is malformed. */
static size_t parse_record(const char *text, size_t n, const char **key, const char **value) {
    char *after;
    errno = 0;
    unsigned long length = strtoul(text, &after, 10);
    if (errno != 0 || after == text || *after != ' ' || length > n || length < 5) return 0;
    if (text[length - 1] != '\n' || after >= text + length) return 0;
    char *equals = memchr(after + 1, '=', length - (size_t)(after + 1 - text));
    if (equals == NULL) return 0;
    *equals = 0;
    ((char *)text)[length - 1] = 0;
    *key = after + 1;
    *value = equals + 1;
    return length;
}

static int set_long_name(struct sm_tar *t, const char *name, size_t n, struct sm_err *err) {
    if (n >= sizeof t->long_name) return unsound(t, "a name that is too long", err);
    if (memchr(name, 0, n) != NULL) return unsound(t, "a name with a NUL in it", err);
    memcpy(t->long_name, name, n);
    t->long_name[n] = 0;
    return 0;
}

static int take_pax(struct sm_tar *t, size_t n, struct sm_err *err) {
    for (size_t at = 0; at < n;) {
        const char *key, *value, *text = (const char *)t->extended + at;
        size_t length = parse_record(text, n - at, &key, &value);
        if (length == 0) return unsound(t, "a malformed extended header", err);
        size_t value_n = (size_t)(text + length - 1 - value);
        if (strncmp(key, "GNU.sparse", 10) == 0) return unsound(t, "a sparse file", err);
        if (strcmp(key, "path") == 0 && set_long_name(t, value, value_n, err) != 0) return -1;
        if (strcmp(key, "size") == 0) {
            char *after;
            errno = 0;
            t->long_size = strtoull(value, &after, 10);
            if (errno != 0 || after == value || *after != 0 || *value == '-')
                return unsound(t, "a size that is no number", err);
            t->has_long_size = true;
        }
        at += length;
    }
    return 0;
}

static int take_extended(struct sm_tar *t, char type, uint64_t size, struct sm_err *err) {
    if (size > SM_MAX_TAR_HEADERS_BYTES)
        return unsound(t, "an extended header that is too long", err);
    if (type == 'g' || type == 'K') return 0; /* of the whole archive, or of a link */
    for (uint64_t done = 0; done < size;) {
        size_t n = size - done < BLOCK ? (size_t)(size - done) : BLOCK;
        const uint8_t *bytes = look(t, t->at + BLOCK + done, n, err);
        if (bytes == NULL) return -1;
        memcpy(t->extended + done, bytes, n);
        done += n;
    }
    t->extended[size] = 0;
    if (type == 'x') return take_pax(t, (size_t)size, err);
    return set_long_name(t, (char *)t->extended, strnlen((char *)t->extended, (size_t)size), err);
}

static bool is_plain_name(const char *name) {
    if (name[0] == 0 || name[0] == '/') return false;
    for (const char *p = name; p != NULL; p = strchr(p, '/')) {
        p += *p == '/';
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == 0)) return false;
    }
    return true;
}

static int take_member(struct sm_tar *t, const uint8_t *header, uint64_t size,
                       struct sm_tar_member *member, struct sm_err *err) {
    const char *name = (const char *)header, *prefix = (const char *)header + 345;
    if (t->long_name[0] != 0)
        strcpy(member->name, t->long_name);
    else if (memcmp(header + 257, "ustar\0", 6) == 0 && prefix[0] != 0)
        snprintf(member->name, sizeof member->name, "%.155s/%.100s", prefix, name);
    else
        snprintf(member->name, sizeof member->name, "%.100s", name);
    if (!is_plain_name(member->name))
        return unsound(t, "an absolute name, or one with '..' in it", err);
    member->header = t->first_header;
    member->offset = t->at + BLOCK;
    member->length = size;
    uint64_t whole = (size + BLOCK - 1) / BLOCK * BLOCK;
    t->at += BLOCK + whole;
    return 1;
}
