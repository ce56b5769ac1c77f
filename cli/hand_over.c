/* Piece after piece, each from where the broker says that it stands. */
#include "cli/hand_over.h"

#include "lib/digest.h"
#include "lib/fs.h"
#include "lib/index.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 30000,
    BUSY_MS = 500,     /* asked again after so long, */
    STUCK_MS = 300000, /* until a file has not come further for so long, which is more than a broker
                          takes to end uploads that have stopped */
};

/* Where the bytes of a file are. */
struct origin {
    const uint8_t *bytes; /* NULL: behind fd, which may become shorter at any time */
    int fd;
    const char *path; /* of fd; for messages */
};

/* Fills how many bytes the broker has. */
static int piece_put(struct sm_client *c, Shardmill__FilePut *put, uint64_t *got,
                     struct sm_err *err) {
    sm_envelope m = SHARDMILL__ENVELOPE__INIT, *answer = NULL;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_FILE_PUT;
    m.file_put = put;
    for (bool ours = false; !ours;) {
        if (sm_client_ask(c, &m, SHARDMILL__ENVELOPE__BODY_FILE_KEPT, PATIENCE_MS, &answer, err) <
            0)
            return -1;
        const Shardmill__FileKept *kept = answer->file_kept;
        int failed = 0;
        ours = strcmp(kept->digest, put->digest) == 0; /* else of a file before this one */
        *got = kept->got;
        if (ours && kept->code != SM_E_OK)
            failed = sm_fail(err, kept->code < SM_E_COUNT ? (enum sm_code)kept->code : SM_E_PEER,
                             "the broker does not keep '%.12s…': %.700s", put->digest, kept->text);
        sm_wire_free(&answer);
        if (failed) return -1;
    }
    return 0;
}

static int piece_read(const struct origin *o, uint64_t offset, uint8_t *bytes, size_t n,
                      struct sm_err *err) {
    if (o->bytes != NULL) return memcpy(bytes, o->bytes + offset, n), 0;
    const ssize_t got = sm_fs_pread(o->fd, bytes, n, offset);
    if (got < 0) return sm_fail_errno(err, "cannot read '%s'", o->path);
    if ((size_t)got == n) return 0;
    return sm_fail(err, SM_E_CHANGED, "'%s' became shorter while it was sent to the broker",
                   o->path);
}

/* path: where the broker may see it, or NULL. */
static int put(struct sm_client *c, const char *digest, const char *path, const struct origin *o,
               uint64_t n, struct sm_err *err) {
    uint64_t got = 0, most = 0;
    int64_t moved_ms = sm_now_ms();
    int failed = 0;
    Shardmill__FilePut m = SHARDMILL__FILE_PUT__INIT;
    m.digest = (char *)digest;
    m.total = n;
    if (path != NULL) m.path = (char *)path;
    uint8_t *piece = malloc(SM_MAX_FILE_PUT_BYTES);
    if (piece == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (;;) {
        failed = piece_put(c, &m, &got, err);
        const bool busy = failed && err->code == SM_E_BUSY;
        if (failed && !busy) break;
        if (!failed && got >= n) break;
        if (got > most) most = got, moved_ms = sm_now_ms();
        if (sm_now_ms() - moved_ms > STUCK_MS) {
            if (!failed)
                failed = sm_fail(err, SM_E_PEER, "the broker does not come further with '%.12s…'",
                                 digest);
            break;
        }
        if (busy) {
            poll(NULL, 0, BUSY_MS);
            continue;
        }
        m.offset = got;
        m.data.data = piece;
        m.data.len = n - got < SM_MAX_FILE_PUT_BYTES ? (size_t)(n - got) : SM_MAX_FILE_PUT_BYTES;
        if ((failed = piece_read(o, got, piece, m.data.len, err)) != 0) break;
    }
    free(piece);
    return failed;
}

int sm_hand_over_bytes(struct sm_client *c, const char *digest, const void *bytes, size_t n,
                       struct sm_err *err) {
    return put(c, digest, NULL, &(struct origin){.bytes = bytes, .fd = -1}, n, err);
}

static int put_file(struct sm_client *c, const char *digest, const char *path, bool may_be_seen,
                    struct sm_err *err) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC), failed = 0;
    if (fd < 0 || fstat(fd, &st) != 0)
        failed = sm_fail_errno(err, "cannot read '%s'", path);
    else
        failed = put(c, digest, may_be_seen ? path : NULL, &(struct origin){.fd = fd, .path = path},
                     (uint64_t)st.st_size, err);
    if (fd >= 0) close(fd);
    return failed;
}

static int put_artifact(struct sm_client *c, const char *sha256, const char *index_path,
                        struct sm_err *err) {
    char path[SM_MAX_PATH_BYTES + 128];
    if (sha256 == NULL || sha256[0] == 0) return 0;
    snprintf(path, sizeof path, "%.*s" SM_ARTIFACTS_NAME "/%s.npz", sm_index_folder(index_path),
             index_path, sha256);
    return put_file(c, sha256, path, false, err);
}

int sm_hand_over_job(struct sm_client *c, const struct sm_pipeline *p,
                     const Shardmill__JobSpec *spec, struct sm_err *err) {
    if (put_file(c, spec->index_digest, spec->index_path, true, err) < 0) return -1;
    for (size_t i = 0; i < p->artifacts.count; i++)
        if (put_artifact(c, p->artifacts.v[i], spec->index_path, err) < 0) return -1;
    return put_artifact(c, p->rebalance_artifact, spec->index_path, err);
}

int sm_hand_back(struct sm_client *c, const char *job, const char *sha256, void *bytes, size_t n,
                 struct sm_err *err) {
    char found[SM_SHA_HEX];
    Shardmill__FileGet get = SHARDMILL__FILE_GET__INIT;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_FILE_GET;
    m.file_get = &get;
    get.job = (char *)job;
    get.sha256 = (char *)sha256;
    while (get.offset < n) {
        sm_envelope *answer = NULL;
        if (sm_client_ask(c, &m, SHARDMILL__ENVELOPE__BODY_FILE_CHUNK, PATIENCE_MS, &answer, err) <
            0)
            return -1;
        const Shardmill__FileChunk *piece = answer->file_chunk;
        const bool ours = piece->offset == get.offset && strcmp(piece->sha256, sha256) == 0;
        const size_t got = ours ? piece->data.len : 0;
        const bool fits = piece->total == n && got <= n - get.offset;
        if (ours && fits && got > 0) memcpy((char *)bytes + get.offset, piece->data.data, got);
        get.offset += ours && fits ? got : 0;
        sm_wire_free(&answer);
        if (ours && !fits)
            return sm_fail(err, SM_E_CHANGED, "the broker's '%.12s…' has another length", sha256);
    }
    sm_sha256(bytes, n, found);
    if (strcmp(found, sha256) == 0) return 0;
    return sm_fail(err, SM_E_CHANGED, "the broker sent %.12s… for '%.12s…'", found, sha256);
}
