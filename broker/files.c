/* What is kept, by its digest. Files that no job names are a cache: they go when they have not been
 * asked for in a while, or earlier when room is needed. Before: files_put.c. After: files_get.c. */
#include "broker/files_state.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    TICK_MS = 60000,
    IDLE_MS = 600000, /* a file that no job wants stays so long after it was last asked for */
};

static void kept_remove(struct sm_files *f, struct kept *k);

int files_say(void *socket, const struct sm_peer *peer, uint64_t instance,
              Shardmill__Envelope__BodyCase which, void *body, struct sm_err *err) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.instance = instance;
    e.body_case = which;
    e.hello = body; /* the union's members are all pointers to a message */
    return sm_wire_send(socket, peer, &e, err) < 0 ? -1 : 0;
}

bool files_is_digest(const char *s) {
    return sm_is_hex(s, SM_XXH_HEX - 1) || sm_is_hex(s, SM_SHA_HEX - 1);
}

bool files_is_sha(const char *digest) {
    return strlen(digest) == SM_SHA_HEX - 1;
}

int sm_files_open(struct sm_files **gives, const char *state_dir, struct sm_err *err) {
    struct sm_files *f = *gives = calloc(1, sizeof *f);
    if (f == NULL || (f->known = sm_known_new()) == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    const int n = snprintf(f->dir, sizeof f->dir, "%s/" SM_FILES_NAME, state_dir);
    if (n < 0 || (size_t)n >= sizeof f->dir - SM_SHA_HEX)
        return sm_fail(err, SM_E_USAGE, "the path of '%s' is too long", state_dir);
    f->ticked_ms = sm_now_ms();
    DIR *dir = opendir(f->dir);
    if (dir == NULL) return errno == ENOENT ? 0 : sm_fail_errno(err, "cannot read '%s'", f->dir);
    sm_fs_sweep(f->dir);
    for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
        struct stat st;
        if (files_is_digest(e->d_name) && fstatat(dirfd(dir), e->d_name, &st, 0) == 0 &&
            S_ISREG(st.st_mode))
            files_kept_add(f, e->d_name, (uint64_t)st.st_size);
    }
    closedir(dir);
    return 0;
}

void sm_files_close(struct sm_files **fp) {
    struct sm_files *f = *fp;
    if (f == NULL) return;
    for (size_t i = 0; i < SM_MAX_KEPT_OPEN; i++)
        files_upload_end(&f->uploads[i]);
    sm_known_free(&f->known);
    free(f->kept);
    free(f);
    *fp = NULL;
}

struct kept *files_kept_find(struct sm_files *f, const char *digest) {
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->kept[i].digest, digest) == 0) return &f->kept[i];
    return NULL;
}

struct kept *files_kept_add(struct sm_files *f, const char *digest, uint64_t bytes) {
    if (f->n == f->cap) {
        const size_t cap = f->cap ? 2 * f->cap : 16;
        struct kept *more = reallocarray(f->kept, cap, sizeof *more);
        if (more == NULL) return NULL;
        f->kept = more;
        f->cap = cap;
    }
    struct kept *k = &f->kept[f->n++];
    *k = (struct kept){.bytes = bytes, .used_ms = sm_now_ms()};
    snprintf(k->digest, sizeof k->digest, "%s", digest);
    f->bytes += bytes;
    return k;
}

static void kept_remove(struct sm_files *f, struct kept *k) {
    char path[SM_MAX_PATH_BYTES + 80];
    files_path(f, k->digest, path);
    unlink(path);
    f->bytes -= k->bytes;
    *k = f->kept[--f->n];
}

void files_path(const struct sm_files *f, const char *digest, char path[SM_MAX_PATH_BYTES + 80]) {
    snprintf(path, SM_MAX_PATH_BYTES + 80, "%s/%s", f->dir, digest);
}

static void want(void *files, const char *digest) {
    struct kept *k = files_kept_find(files, digest);
    if (k != NULL) k->wanted = true;
}

static void wanted_mark(struct sm_files *f, const struct sm_core *core) {
    for (size_t i = 0; i < f->n; i++)
        f->kept[i].wanted = false;
    sm_core_wants(core, want, f);
}

void files_unwanted_remove(struct sm_files *f, const struct sm_core *core, int64_t before, size_t n,
                           uint64_t room) {
    const uint64_t max = (uint64_t)SM_MAX_KEPT_MIB << 20;
    const int64_t idle = sm_now_ms() - IDLE_MS;
    wanted_mark(f, core);
    while (f->n + n > SM_MAX_KEPT_FILES || f->bytes > max - room) {
        struct kept *oldest = NULL;
        for (size_t i = 0; i < f->n; i++) {
            struct kept *k = &f->kept[i];
            if (!k->wanted && k->used_ms < (k->unread && idle < before ? idle : before) &&
                (oldest == NULL || k->used_ms < oldest->used_ms))
                oldest = k;
        }
        if (oldest == NULL) return;
        kept_remove(f, oldest);
    }
}

void sm_files_tick(struct sm_files *f, const struct sm_core *core) {
    const int64_t now = sm_now_ms();
    bool old = false;
    if (now - f->ticked_ms < TICK_MS) return;
    f->ticked_ms = now;
    files_silent_end(f);
    wanted_mark(f, core);
    for (size_t i = 0; i < f->n; i++) {
        struct kept *k = &f->kept[i];
        if (k->wanted) k->used_ms = now; /* its time begins when no job wants it */
        old |= k->used_ms < now - IDLE_MS;
    }
    if (old) files_unwanted_remove(f, core, now - IDLE_MS, 0, (uint64_t)SM_MAX_KEPT_MIB << 20);
}
