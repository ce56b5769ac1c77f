/* One chunk of an index file or an artifact beside it, read where the submitter wrote it, sent to
 * the worker that asked. The worker asks for the next chunk itself, and compares the digest of the
 * whole with the job's. */
#include "broker/index.h"

#include "lib/digest.h"
#include "lib/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES = 256 << 10, KNOWN = 64 };

/* Files that have been read whole and found to have this digest. */
struct sm_index_known {
    struct known {
        dev_t dev;
        ino_t ino;
        off_t size;
        struct timespec mtime;
        char digest[SM_SHA_HEX]; /* XXH3 or SHA-256, as it was asked for */
    } files[KNOWN];
    unsigned next;
};

static bool is_the_file(struct sm_index_known *known, int fd, const struct stat *st,
                        const char *digest);
static bool is_sha(const char *digest);
static int refuse(void *socket, const struct sm_action *a, const struct sm_err *why,
                  struct sm_err *err);

struct sm_index_known *sm_index_known_new(void) {
    return calloc(1, sizeof(struct sm_index_known));
}

int sm_index_send(void *socket, struct sm_index_known *known, const struct sm_action *a,
                  struct sm_err *err) {
    struct sm_err why;
    struct stat st;
    ssize_t n = -1;
    uint8_t *bytes = malloc(CHUNK_BYTES);
    int fd = open(a->file_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (bytes == NULL)
        sm_fail(&why, SM_E_MEMORY, "no memory for a chunk of the index");
    else if (fd < 0 || fstat(fd, &st) != 0)
        sm_fail_errno(&why, "cannot open '%s'", a->file_path);
    else if (!S_ISREG(st.st_mode) || a->offset > (uint64_t)st.st_size)
        sm_fail(&why, SM_E_DATASET, "'%s' is no file of so many bytes", a->file_path);
    else if (!is_the_file(known, fd, &st, a->file_digest))
        sm_fail(&why, SM_E_CHANGED, "'%s' is not the file of digest '%.64s'", a->file_path,
                a->file_digest);
    else if ((n = pread(fd, bytes, CHUNK_BYTES, (off_t)a->offset)) < 0)
        sm_fail_errno(&why, "cannot read '%s'", a->file_path);
    if (fd >= 0) close(fd);
    int rc;
    if (n < 0) {
        rc = refuse(socket, a, &why, err);
    } else {
        Shardmill__IndexChunk m = SHARDMILL__INDEX_CHUNK__INIT;
        m.job = (char *)a->job;
        m.offset = a->offset;
        m.total = (uint64_t)st.st_size;
        if (is_sha(a->file_digest)) m.sha256 = (char *)a->file_digest;
        m.data = (ProtobufCBinaryData){.len = (size_t)n, .data = bytes};
        sm_envelope e = SHARDMILL__ENVELOPE__INIT;
        e.protocol = SM_PROTOCOL;
        e.instance = a->instance;
        e.body_case = SHARDMILL__ENVELOPE__BODY_INDEX_CHUNK;
        e.index_chunk = &m;
        rc = sm_wire_send(socket, a->peer, &e, err);
    }
    free(bytes);
    return rc < 0 ? -1 : 0;
}

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
    return sm_wire_send(socket, a->peer, &e, err);
}

static bool is_sha(const char *digest) {
    return strlen(digest) == SM_SHA_HEX - 1;
}

/* Fills the digest of the whole file; a wrong one when it cannot be read. */
static void file_digest(int fd, bool sha, char digest[SM_SHA_HEX]) {
    uint8_t piece[64 << 10];
    struct sm_hash *hash = sha ? sm_hash_new_sha256() : sm_hash_new_xxh();
    off_t at = 0;
    for (ssize_t n; (n = pread(fd, piece, sizeof piece, at)) > 0; at += n)
        sm_hash_add(hash, piece, (size_t)n);
    sm_hash_end(&hash, digest);
}

/* A broker hands out the files that the job was submitted with and no other: whoever could submit a
 * job with any path would read any file of the broker's user. Each file is read once for it; then
 * its identity, size and time are enough. */
static bool is_the_file(struct sm_index_known *known, int fd, const struct stat *st,
                        const char *digest) {
    for (unsigned i = 0; i < KNOWN; i++) {
        const struct known *k = &known->files[i];
        if (strlen(k->digest) == strlen(digest) && k->ino == st->st_ino && k->dev == st->st_dev &&
            k->size == st->st_size && k->mtime.tv_sec == st->st_mtim.tv_sec &&
            k->mtime.tv_nsec == st->st_mtim.tv_nsec)
            return strcmp(k->digest, digest) == 0;
    }
    const bool sha = is_sha(digest);
    if (st->st_size == 0 || (sha && st->st_size > SM_MAX_ARTIFACT_BYTES)) return false;
    struct known *k = &known->files[known->next++ % KNOWN];
    *k = (struct known){
        .dev = st->st_dev, .ino = st->st_ino, .size = st->st_size, .mtime = st->st_mtim};
    file_digest(fd, sha, k->digest);
    return strcmp(k->digest, digest) == 0;
}
