/* A file comes in pieces, each hashed as it comes, under a temporary name; when it is whole and its
 * digest is its name, it is kept. Files that no job names are a cache: they go when they have not
 * been asked for in a while, or earlier when room is needed. */
#include "broker/files.h"

#include "broker/known.h"
#include "lib/digest.h"
#include "lib/fs.h"
#include "lib/limits.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    CHUNK_BYTES = 256 << 10,
    SYNC_BYTES = 16 << 20, /* on the disk one after the other: no sync takes long */
    RESERVE_BYTES = 64 << 20,
    TICK_MS = 60000,
    IDLE_MS = 600000,   /* a file that no job wants stays so long after it was last asked for */
    SILENT_MS = 120000, /* an upload without a new piece */
};

struct kept {
    char digest[SM_SHA_HEX];
    uint64_t bytes;
    int64_t used_ms;
    bool wanted;
};

struct upload {
    char digest[SM_SHA_HEX];
    uint64_t total, got, synced;
    int64_t moved_ms;
    struct sm_newfile *file; /* NULL: this place is free */
    struct sm_hash *hash;
};

struct sm_files {
    char dir[SM_MAX_PATH_BYTES];
    struct kept *kept;
    size_t n, cap;
    uint64_t bytes; /* of all that is kept */
    struct upload uploads[SM_MAX_KEPT_OPEN];
    struct sm_known *known;
    int64_t ticked_ms;
};

static struct kept *kept_find(struct sm_files *f, const char *digest);
static struct kept *kept_add(struct sm_files *f, const char *digest, uint64_t bytes);
static void kept_remove(struct sm_files *f, struct kept *k);
static void path_of(const struct sm_files *f, const char *digest,
                    char path[SM_MAX_PATH_BYTES + 80]);
static void upload_end(struct upload *u);
static int take(struct sm_files *f, const struct sm_core *core, const Shardmill__FilePut *m,
                uint64_t *got, struct sm_err *why);

static bool is_digest(const char *s) {
    const size_t n = strlen(s);
    return (n == SM_XXH_HEX - 1 || n == SM_SHA_HEX - 1) && strspn(s, "0123456789abcdef") == n;
}

static bool is_sha(const char *digest) {
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
        if (is_digest(e->d_name) && fstatat(dirfd(dir), e->d_name, &st, 0) == 0 &&
            S_ISREG(st.st_mode))
            kept_add(f, e->d_name, (uint64_t)st.st_size);
    }
    closedir(dir);
    return 0;
}

void sm_files_close(struct sm_files **fp) {
    struct sm_files *f = *fp;
    if (f == NULL) return;
    for (size_t i = 0; i < SM_MAX_KEPT_OPEN; i++)
        upload_end(&f->uploads[i]);
    sm_known_free(&f->known);
    free(f->kept);
    free(f);
    *fp = NULL;
}

/* --- what is kept ----------------------------------------------------------------------------- */

static struct kept *kept_find(struct sm_files *f, const char *digest) {
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->kept[i].digest, digest) == 0) return &f->kept[i];
    return NULL;
}

/* NULL: no memory; then the file is found by the next broker. */
static struct kept *kept_add(struct sm_files *f, const char *digest, uint64_t bytes) {
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
    path_of(f, k->digest, path);
    unlink(path);
    f->bytes -= k->bytes;
    *k = f->kept[--f->n];
}

static void path_of(const struct sm_files *f, const char *digest,
                    char path[SM_MAX_PATH_BYTES + 80]) {
    snprintf(path, SM_MAX_PATH_BYTES + 80, "%s/%s", f->dir, digest);
}

static void want(void *files, const char *digest) {
    struct kept *k = kept_find(files, digest);
    if (k != NULL) k->wanted = true;
}

/* Removes those that no job wants and that were used last before `before`; the oldest first, and
 * only until so many bytes and one more name have room. */
static void unwanted_remove(struct sm_files *f, const struct sm_core *core, int64_t before,
                            uint64_t room) {
    const uint64_t max = (uint64_t)SM_MAX_KEPT_MIB << 20;
    for (size_t i = 0; i < f->n; i++)
        f->kept[i].wanted = false;
    sm_core_wants(core, want, f);
    while (f->n >= SM_MAX_KEPT_FILES || f->bytes > max - room) {
        struct kept *oldest = NULL;
        for (size_t i = 0; i < f->n; i++) {
            struct kept *k = &f->kept[i];
            if (!k->wanted && k->used_ms < before &&
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
    for (size_t i = 0; i < SM_MAX_KEPT_OPEN; i++)
        if (now - f->uploads[i].moved_ms > SILENT_MS) upload_end(&f->uploads[i]);
    for (size_t i = 0; i < f->n; i++)
        old |= f->kept[i].used_ms < now - IDLE_MS;
    if (old) unwanted_remove(f, core, now - IDLE_MS, (uint64_t)SM_MAX_KEPT_MIB << 20);
}

/* --- pieces that come ------------------------------------------------------------------------- */

static int answer_kept(void *socket, const struct sm_peer *peer, uint64_t instance,
                       const Shardmill__FilePut *m, uint64_t got, const struct sm_err *why,
                       struct sm_err *err) {
    Shardmill__FileKept kept = SHARDMILL__FILE_KEPT__INIT;
    kept.digest = m->digest;
    kept.got = got;
    if (why != NULL) kept.code = why->code, kept.text = (char *)why->text;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.instance = instance;
    e.body_case = SHARDMILL__ENVELOPE__BODY_FILE_KEPT;
    e.file_kept = &kept;
    return sm_wire_send(socket, peer, &e, err) < 0 ? -1 : 0;
}

int sm_files_put(struct sm_files *f, const struct sm_core *core, void *socket,
                 const struct sm_peer *peer, const Shardmill__FilePut *m, uint64_t instance,
                 struct sm_err *err) {
    struct sm_err why = {0};
    uint64_t got = 0;
    const int failed = take(f, core, m, &got, &why);
    return answer_kept(socket, peer, instance, m, got, failed ? &why : NULL, err);
}

static void upload_end(struct upload *u) {
    sm_newfile_abandon(&u->file);
    if (u->hash != NULL) sm_hash_end(&u->hash, NULL);
    *u = (struct upload){0};
}

static struct upload *upload_find(struct sm_files *f, const char *digest) {
    for (size_t i = 0; i < SM_MAX_KEPT_OPEN; i++)
        if (f->uploads[i].file != NULL && strcmp(f->uploads[i].digest, digest) == 0)
            return &f->uploads[i];
    return NULL;
}

/* The journal lies on the same disk: files never take the last of it. */
static int disk_check(const struct sm_files *f, uint64_t total, struct sm_err *why) {
    struct statvfs disk;
    if (statvfs(f->dir, &disk) != 0) return 0;
    const uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (free_bytes >= RESERVE_BYTES && free_bytes - RESERVE_BYTES >= total) return 0;
    return sm_fail(why, SM_E_DISK_FULL,
                   "the broker's disk has room for %llu MiB, and %d of them are kept for its "
                   "journal (hint: free some room in '%s')",
                   (unsigned long long)(free_bytes >> 20), RESERVE_BYTES >> 20, f->dir);
}

/* The place that is free, or that of the upload which has not moved for longest: whoever it was
 * begins again. */
static int upload_begin(struct sm_files *f, const struct sm_core *core, const char *digest,
                        uint64_t total, struct upload **gives, struct sm_err *why) {
    char path[SM_MAX_PATH_BYTES + 80];
    struct upload *u = &f->uploads[0];
    for (size_t i = 1; i < SM_MAX_KEPT_OPEN && u->file != NULL; i++)
        if (f->uploads[i].file == NULL || f->uploads[i].moved_ms < u->moved_ms) u = &f->uploads[i];
    upload_end(u);
    if (f->n >= SM_MAX_KEPT_FILES || f->bytes > ((uint64_t)SM_MAX_KEPT_MIB << 20) - total)
        unwanted_remove(f, core, INT64_MAX, total);
    if (f->n >= SM_MAX_KEPT_FILES || f->bytes > ((uint64_t)SM_MAX_KEPT_MIB << 20) - total)
        return sm_fail(why, SM_E_TOO_LARGE,
                       "this broker keeps %zu files of %llu MiB for its jobs, and has no room for "
                       "%llu MiB more (hint: cancel jobs that are no longer needed)",
                       f->n, (unsigned long long)(f->bytes >> 20),
                       (unsigned long long)(total >> 20));
    path_of(f, digest, path);
    if (sm_fs_mkdirs(f->dir, why) < 0 || disk_check(f, total, why) < 0 ||
        sm_newfile_open(&u->file, path, why) < 0)
        return -1;
    snprintf(u->digest, sizeof u->digest, "%s", digest);
    u->total = total;
    u->hash = is_sha(digest) ? sm_hash_new_sha256() : sm_hash_new_xxh();
    *gives = u;
    return 0;
}

static int upload_add(struct sm_files *f, struct upload *u, const ProtobufCBinaryData *data,
                      struct sm_err *why) {
    char found[SM_SHA_HEX];
    if (sm_newfile_add(u->file, data->data, data->len, why) != 0) return -1;
    sm_hash_add(u->hash, data->data, data->len);
    u->got += data->len;
    u->moved_ms = sm_now_ms();
    if (u->got - u->synced >= SYNC_BYTES) {
        const int fd = sm_newfile_fd(u->file, why);
        if (fd < 0) return -1;
        if (fdatasync(fd) != 0) return sm_fail_errno(why, "cannot keep '%s'", u->digest);
        u->synced = u->got;
    }
    if (u->got < u->total) return 0;
    sm_hash_end(&u->hash, found);
    if (strcmp(found, u->digest) != 0)
        return sm_fail(why, SM_E_DIFFERS, "what came for '%s' is '%s'", u->digest, found);
    if (sm_newfile_commit(&u->file, why) != 0) return -1;
    kept_add(f, u->digest, u->total);
    return 0;
}

/* Whether the broker sees the submitter's index. Who asks for it later compares its digest. */
static bool is_seen(const char *path, uint64_t bytes) {
    struct stat st;
    return path[0] == '/' && stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
           (uint64_t)st.st_size == bytes && access(path, R_OK) == 0;
}

/* Fills how much is there. Pieces that do not begin there are passed over: they are doubled, or of
 * an upload that was given up. */
static int take(struct sm_files *f, const struct sm_core *core, const Shardmill__FilePut *m,
                uint64_t *got, struct sm_err *why) {
    const uint64_t max =
        is_sha(m->digest) ? (uint64_t)SM_MAX_ARTIFACT_BYTES : (uint64_t)SM_MAX_KEPT_MIB << 20;
    if (!is_digest(m->digest) || m->total == 0 || m->offset > m->total ||
        m->data.len > m->total - m->offset)
        return sm_fail(why, SM_E_PROTOCOL, "a file that cannot be");
    if (m->total > max)
        return sm_fail(why, SM_E_TOO_LARGE, "a file of %llu bytes is longer than a broker keeps",
                       (unsigned long long)m->total);
    struct kept *k = kept_find(f, m->digest);
    struct upload *u = upload_find(f, m->digest);
    if (k != NULL) k->used_ms = sm_now_ms();
    if (k != NULL || (!is_sha(m->digest) && is_seen(m->path, m->total))) {
        *got = m->total;
        return 0;
    }
    if (u != NULL && u->total != m->total) upload_end(u), u = NULL;
    if (u == NULL && m->data.len > 0 && m->offset == 0 &&
        upload_begin(f, core, m->digest, m->total, &u, why) != 0)
        return -1;
    if (u != NULL && m->data.len > 0 && m->offset == u->got &&
        upload_add(f, u, &m->data, why) != 0) {
        upload_end(u);
        return -1;
    }
    *got = u != NULL ? u->got : 0;
    if (u != NULL && u->got == u->total) upload_end(u);
    return 0;
}

/* --- pieces that are asked for ---------------------------------------------------------------- */

static int refuse(void *socket, const struct sm_action *a, const struct sm_err *why,
                  struct sm_err *err) {
    Shardmill__Refused m = SHARDMILL__REFUSED__INIT;
    m.code = why->code;
    m.text = (char *)why->text;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.instance = a->instance;
    e.body_case = SHARDMILL__ENVELOPE__BODY_REFUSED;
    e.refused = &m;
    return sm_wire_send(socket, a->peer, &e, err) < 0 ? -1 : 0;
}

/* Fills what lies at a->offset; *n 0 below the end: the file is not known yet. A broker hands out
 * the files that a job was submitted with and no other: whoever could submit a job with any path
 * would read any file of the broker's user. */
static int piece_read(struct sm_files *f, const struct sm_action *a, uint8_t bytes[CHUNK_BYTES],
                      size_t *n, uint64_t *total, struct sm_err *why) {
    char path[SM_MAX_PATH_BYTES + 80];
    struct stat st;
    struct kept *k = kept_find(f, a->file_digest);
    ssize_t got = 0;
    int failed = 0;
    if (k != NULL) {
        path_of(f, k->digest, path);
        k->used_ms = sm_now_ms();
    } else {
        snprintf(path, sizeof path, "%s", a->file_path);
    }
    if (path[0] == 0)
        return sm_fail(why, SM_E_MISSING, "this broker does not keep '%.64s'", a->file_digest);
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        failed = sm_fail_errno(why, "cannot open '%s'", path);
    } else if (!S_ISREG(st.st_mode) || a->offset > (uint64_t)st.st_size) {
        failed = sm_fail(why, SM_E_DATASET, "'%s' is no file of so many bytes", path);
    } else {
        const enum sm_knowledge known =
            k != NULL ? SM_KNOWN_SAME
            : is_sha(a->file_digest) && st.st_size > SM_MAX_ARTIFACT_BYTES
                ? SM_KNOWN_OTHER
                : sm_known_ask(f->known, fd, &st, a->file_digest);
        if (known == SM_KNOWN_OTHER)
            failed = sm_fail(why, SM_E_CHANGED, "'%s' is not the file of digest '%.64s'", path,
                             a->file_digest);
        else if (known == SM_KNOWN_SAME &&
                 (got = sm_fs_pread(fd, bytes, CHUNK_BYTES, a->offset)) < 0)
            failed = sm_fail_errno(why, "cannot read '%s'", path);
        *total = (uint64_t)st.st_size;
    }
    if (fd >= 0) close(fd);
    *n = failed ? 0 : (size_t)got;
    return failed;
}

int sm_files_send(struct sm_files *f, void *socket, const struct sm_action *a, struct sm_err *err) {
    struct sm_err why = {0};
    Shardmill__FileChunk m = SHARDMILL__FILE_CHUNK__INIT;
    size_t n = 0;
    uint8_t *bytes = malloc(CHUNK_BYTES);
    int failed = bytes == NULL ? sm_fail(&why, SM_E_MEMORY, "no memory for a piece of a file")
                               : piece_read(f, a, bytes, &n, &m.total, &why);
    if (!failed) {
        m.job = (char *)a->job;
        m.offset = a->offset;
        if (is_sha(a->file_digest)) m.sha256 = (char *)a->file_digest;
        m.data = (ProtobufCBinaryData){.len = n, .data = bytes};
        sm_envelope e = SHARDMILL__ENVELOPE__INIT;
        e.protocol = SM_PROTOCOL;
        e.instance = a->instance;
        e.body_case = SHARDMILL__ENVELOPE__BODY_FILE_CHUNK;
        e.file_chunk = &m;
        failed = sm_wire_send(socket, a->peer, &e, err) < 0 ? -1 : 0;
    } else {
        failed = refuse(socket, a, &why, err);
    }
    free(bytes);
    return failed;
}
