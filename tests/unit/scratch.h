/* A folder for one test, and files in it. Removed by scratch_remove, also when the test made more.
 */
#pragma once

#include <assert.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct scratch {
    char dir[256];
};

static inline struct scratch scratch_make(void) {
    struct scratch s;
    const char *base = getenv("TMPDIR");
    snprintf(s.dir, sizeof s.dir, "%s/shardmill-test-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(s.dir) == NULL) abort();
    return s;
}

static inline int scratch_remove_one(const char *path, const struct stat *st, int type,
                                     struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static inline void scratch_remove(struct scratch *s) {
    nftw(s->dir, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* The path of a name in the folder; lent until the fourth call after. */
static inline const char *scratch_path(const struct scratch *s, const char *name) {
    static char paths[4][1024];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", s->dir, name);
    return path;
}

/* Writes a file, and the folders above it. */
static inline void scratch_write(const struct scratch *s, const char *name, const void *bytes,
                                 size_t n) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", s->dir, name);
    for (char *p = path + strlen(s->dir) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = 0;
        mkdir(path, 0777);
        *p = '/';
    }
    FILE *f = fopen(path, "wb");
    if (f == NULL || fwrite(bytes, 1, n, f) != n || fclose(f) != 0) abort();
}

static inline void scratch_text(const struct scratch *s, const char *name, const char *text) {
    scratch_write(s, name, text, strlen(text));
}

/* Reads a whole file. Gives. */
static inline void *scratch_read(const char *path, size_t *n) {
    *n = 0;
    FILE *f = fopen(path, "rb");
    if (f == NULL) return NULL;
    size_t cap = 1 << 20;
    char *bytes = malloc(cap);
    for (size_t got; bytes != NULL && (got = fread(bytes + *n, 1, cap - *n, f)) > 0;) {
        *n += got;
        if (*n == cap) bytes = realloc(bytes, cap *= 2);
    }
    fclose(f);
    return bytes;
}
