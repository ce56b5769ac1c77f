/* A file that comes in pieces, each hashed as it comes, under a temporary name: when it is whole
 * and its digest is its name, it is kept. Before: loop.c. After: files.c. */
#include "broker/files_state.h"

#include "lib/index.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    SYNC_BYTES = 16 << 20,    /* on the disk one after the other: no sync takes long */
    RESERVE_BYTES = 64 << 20, /* of the disk, for the journal */
};

static int take(struct sm_files *f, const struct sm_core *core, const Shardmill__FilePut *m,
                uint64_t *got, struct sm_err *why);

static int answer_kept(void *socket, const struct sm_peer *peer, uint64_t instance,
                       const Shardmill__FilePut *m, uint64_t got, const struct sm_err *why,
                       struct sm_err *err) {
    Shardmill__FileKept kept = SHARDMILL__FILE_KEPT__INIT;
    kept.digest = m->digest;
    kept.got = got;
    if (why != NULL) kept.code = why->code, kept.text = (char *)why->text;
    return files_say(socket, peer, instance, SHARDMILL__ENVELOPE__BODY_FILE_KEPT, &kept, err);
}

int sm_files_put(struct sm_files *f, const struct sm_core *core, void *socket,
                 const struct sm_peer *peer, const Shardmill__FilePut *m, uint64_t instance,
                 struct sm_err *err) {
    struct sm_err why = {0};
    uint64_t got = 0;
    const int failed = take(f, core, m, &got, &why);
    return answer_kept(socket, peer, instance, m, got, failed ? &why : NULL, err);
}

void files_upload_end(struct upload *u) {
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

void files_silent_end(struct sm_files *f) {
    const int64_t now = sm_now_ms();
    for (size_t i = 0; i < SM_MAX_KEPT_OPEN; i++)
        if (now - f->uploads[i].moved_ms > SILENT_MS) files_upload_end(&f->uploads[i]);
}

/* What is on its way: how many files, of how many bytes, and those of them that are to come. */
struct coming {
    size_t n;
    uint64_t bytes, left;
};

static struct coming coming_count(const struct sm_files *f) {
    struct coming c = {0};
    for (size_t i = 0; i < SM_MAX_KEPT_OPEN; i++) {
        const struct upload *u = &f->uploads[i];
        if (u->file == NULL) continue;
        c.n++;
        c.bytes += u->total;
        c.left += u->total - u->got;
    }
    return c;
}

/* The journal lies on the same disk: files never take the last of it. left: of uploads that are on
 * their way. */
static int disk_check(const struct sm_files *f, uint64_t total, uint64_t left, struct sm_err *why) {
    struct statvfs disk;
    if (statvfs(f->dir, &disk) != 0) return 0;
    const uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    const uint64_t taken = RESERVE_BYTES + left;
    if (free_bytes >= taken && free_bytes - taken >= total) return 0;
    return sm_fail(why, SM_E_DISK_FULL,
                   "the broker's disk has room for %llu MiB, and %d of them are kept for its "
                   "journal (hint: free some room in '%s')",
                   (unsigned long long)(free_bytes >> 20), RESERVE_BYTES >> 20, f->dir);
}

/* Whether so many more files of so many bytes in all may be kept. */
static bool has_room(const struct sm_files *f, size_t n, uint64_t bytes) {
    const uint64_t max = (uint64_t)SM_MAX_KEPT_MIB << 20;
    return f->n + n <= SM_MAX_KEPT_FILES && bytes <= max && f->bytes <= max - bytes;
}

static struct upload *upload_free(struct sm_files *f) {
    for (size_t i = 0; i < SM_MAX_KEPT_OPEN; i++)
        if (f->uploads[i].file == NULL) return &f->uploads[i];
    return NULL;
}

/* total is no more than a broker keeps. SM_E_BUSY: what is in the way are uploads that move; who
 * sends asks again. */
static int upload_begin(struct sm_files *f, const struct sm_core *core, const char *digest,
                        uint64_t total, struct upload **gives, struct sm_err *why) {
    char path[SM_MAX_PATH_BYTES + 80];
    files_silent_end(f);
    struct upload *u = upload_free(f);
    if (u == NULL)
        return sm_fail(why, SM_E_BUSY, "this broker is being sent %d files, which is its limit",
                       SM_MAX_KEPT_OPEN);
    const struct coming c = coming_count(f);
    const bool together = total + c.bytes <= (uint64_t)SM_MAX_KEPT_MIB << 20;
    if (together && !has_room(f, 1 + c.n, total + c.bytes))
        files_unwanted_remove(f, core, INT64_MAX, 1 + c.n, total + c.bytes);
    if (together && !has_room(f, 1, total))
        return sm_fail(why, SM_E_TOO_LARGE,
                       "this broker keeps %zu files of %llu MiB for its jobs, and has no room for "
                       "%llu MiB more (hint: cancel jobs that are no longer needed)",
                       f->n, (unsigned long long)(f->bytes >> 20),
                       (unsigned long long)(total >> 20));
    if (!has_room(f, 1 + c.n, total + c.bytes))
        return sm_fail(why, SM_E_BUSY,
                       "this broker is being sent %zu files of %llu MiB, and has no room for %llu "
                       "MiB more",
                       c.n, (unsigned long long)(c.bytes >> 20), (unsigned long long)(total >> 20));
    files_path(f, digest, path);
    if (sm_fs_mkdirs(f->dir, why) < 0 || disk_check(f, total, c.left, why) < 0 ||
        sm_newfile_open(&u->file, path, why) < 0)
        return -1;
    snprintf(u->digest, sizeof u->digest, "%s", digest);
    u->total = u->digested = total;
    u->hash = files_is_sha(digest) ? sm_hash_new_sha256() : sm_hash_new_xxh();
    if (u->hash == NULL) {
        files_upload_end(u);
        return sm_fail(why, SM_E_MEMORY, "out of memory");
    }
    *gives = u;
    return 0;
}

static int upload_add(struct sm_files *f, struct upload *u, const ProtobufCBinaryData *data,
                      struct sm_err *why) {
    char found[SM_SHA_HEX], path[SM_MAX_PATH_BYTES + 80];
    if (sm_newfile_add(u->file, data->data, data->len, why) != 0) return -1;
    if (u->got == 0 && !files_is_sha(u->digest))
        u->digested = sm_index_digested(data->data, data->len, u->total);
    if (u->got < u->digested)
        sm_hash_add(u->hash, data->data,
                    data->len < u->digested - u->got ? data->len : (size_t)(u->digested - u->got));
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
    struct kept *k = files_kept_add(f, u->digest, u->total);
    if (k == NULL) {
        files_path(f, u->digest, path);
        unlink(path);
        return sm_fail(why, SM_E_MEMORY, "no memory to keep '%s'", u->digest);
    }
    k->unread = true;
    return 0;
}

/* Whether the broker sees the submitter's index, which is then noted: a job may have been submitted
 * before with another path. Its digest is compared when somebody asks for it. */
static bool is_seen(struct sm_files *f, const Shardmill__FilePut *m) {
    struct stat st;
    if (m->path[0] != '/' || strlen(m->path) >= SM_MAX_PATH_BYTES || stat(m->path, &st) != 0 ||
        !S_ISREG(st.st_mode) || (uint64_t)st.st_size != m->total || access(m->path, R_OK) != 0)
        return false;
    unsigned at = 0;
    while (at < SEEN && strcmp(f->seen[at].digest, m->digest) != 0)
        at++;
    if (at == SEEN) at = f->seen_next++ % SEEN;
    snprintf(f->seen[at].digest, sizeof f->seen[at].digest, "%s", m->digest);
    snprintf(f->seen[at].path, sizeof f->seen[at].path, "%s", m->path);
    return true;
}

/* Fills how much is there. Pieces that do not begin there are passed over: they are doubled, or of
 * an upload that was given up. */
static int take(struct sm_files *f, const struct sm_core *core, const Shardmill__FilePut *m,
                uint64_t *got, struct sm_err *why) {
    const uint64_t max =
        files_is_sha(m->digest) ? (uint64_t)SM_MAX_ARTIFACT_BYTES : (uint64_t)SM_MAX_KEPT_MIB << 20;
    if (!files_is_digest(m->digest) || m->total == 0 || m->offset > m->total ||
        m->data.len > SM_MAX_FILE_PUT_BYTES || m->data.len > m->total - m->offset)
        return sm_fail(why, SM_E_PROTOCOL, "a file that cannot be");
    if (m->total > max)
        return sm_fail(why, SM_E_TOO_LARGE, "a file of %llu bytes is longer than a broker keeps",
                       (unsigned long long)m->total);
    struct kept *k = files_kept_find(f, m->digest);
    struct upload *u = upload_find(f, m->digest);
    if (k != NULL) {
        k->used_ms = sm_now_ms();
        k->unread = true;
    }
    if (k != NULL || (!files_is_sha(m->digest) && is_seen(f, m))) {
        *got = m->total;
        return 0;
    }
    if (u != NULL && u->total != m->total) files_upload_end(u), u = NULL;
    if (u == NULL && m->data.len > 0 && m->offset == 0 &&
        upload_begin(f, core, m->digest, m->total, &u, why) != 0)
        return -1;
    if (u != NULL && m->data.len > 0 && m->offset == u->got &&
        upload_add(f, u, &m->data, why) != 0) {
        files_upload_end(u);
        return -1;
    }
    *got = u != NULL ? u->got : 0;
    if (u != NULL && u->got == u->total) files_upload_end(u);
    return 0;
}
