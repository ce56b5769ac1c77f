/* One piece of a file for whoever asked: of one that is kept, or of what lies at a submitter's
 * path. Who asks compares the digest of the whole. Before: job_files.c says which files a job has.
 */
#include "broker/files_state.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int refuse(void *socket, const struct sm_action *a, const struct sm_err *why,
                  struct sm_err *err) {
    Shardmill__Refused m = SHARDMILL__REFUSED__INIT;
    m.code = why->code;
    m.text = (char *)why->text;
    m.job = (char *)a->job;
    return files_say(socket, a->peer, a->instance, SHARDMILL__ENVELOPE__BODY_REFUSED, &m, err);
}

/* Fills what lies at offset; *n 0 below the end: the file is not known yet. kept: it is one of the
 * broker's own. A broker hands out the files that a job was submitted with and no other: whoever
 * could submit a job with any path would read any file of the broker's user. */
static int path_read(struct sm_files *f, const struct sm_action *a, const char *path, bool kept,
                     uint8_t bytes[SM_MAX_FILE_GET_BYTES], size_t *n, uint64_t *total,
                     struct sm_err *why) {
    struct stat st;
    ssize_t got = 0;
    int failed = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) != 0) {
        failed = sm_fail_errno(why, "cannot open '%s'", path);
    } else if (!S_ISREG(st.st_mode) || a->offset > (uint64_t)st.st_size) {
        failed = sm_fail(why, SM_E_DATASET, "'%s' is no file of so many bytes", path);
    } else {
        const bool over = files_is_sha(a->file_digest) && st.st_size > SM_MAX_ARTIFACT_BYTES;
        const enum sm_knowledge known = kept   ? SM_KNOWN_SAME
                                        : over ? SM_KNOWN_OTHER
                                               : sm_known_ask(f->known, fd, &st, a->file_digest);
        if (known == SM_KNOWN_OTHER)
            failed = sm_fail(why, SM_E_CHANGED, "'%s' is not the file of digest '%.64s'", path,
                             a->file_digest);
        else if (known == SM_KNOWN_SAME &&
                 (got = sm_fs_pread(fd, bytes, SM_MAX_FILE_GET_BYTES, a->offset)) < 0)
            failed = sm_fail_errno(why, "cannot read '%s'", path);
        *total = (uint64_t)st.st_size;
    }
    if (fd >= 0) close(fd);
    *n = failed ? 0 : (size_t)got;
    return failed;
}

/* Where it is kept, else where the job says, else where it was seen last. */
static int piece_read(struct sm_files *f, const struct sm_action *a,
                      uint8_t bytes[SM_MAX_FILE_GET_BYTES], size_t *n, uint64_t *total,
                      struct sm_err *why) {
    char path[SM_MAX_PATH_BYTES + 80];
    struct kept *k = files_kept_find(f, a->file_digest);
    if (k != NULL) {
        files_path(f, k->digest, path);
        k->used_ms = sm_now_ms();
        const int failed = path_read(f, a, path, true, bytes, n, total, why);
        if (!failed && a->offset + *n == *total) k->unread = false;
        return failed;
    }
    if (a->file_path[0] == 0)
        return sm_fail(why, SM_E_MISSING, "this broker does not keep '%.64s'", a->file_digest);
    int failed = path_read(f, a, a->file_path, false, bytes, n, total, why);
    for (unsigned i = 0; failed && i < SEEN; i++)
        if (strcmp(f->seen[i].digest, a->file_digest) == 0)
            return path_read(f, a, f->seen[i].path, false, bytes, n, total, why);
    return failed;
}

int sm_files_send(struct sm_files *f, void *socket, const struct sm_action *a, struct sm_err *err) {
    struct sm_err why = {0};
    Shardmill__FileChunk m = SHARDMILL__FILE_CHUNK__INIT;
    size_t n = 0;
    uint8_t *bytes = malloc(SM_MAX_FILE_GET_BYTES);
    int failed = bytes == NULL ? sm_fail(&why, SM_E_MEMORY, "no memory for a piece of a file")
                               : piece_read(f, a, bytes, &n, &m.total, &why);
    if (!failed) {
        m.job = (char *)a->job;
        m.offset = a->offset;
        if (files_is_sha(a->file_digest)) m.sha256 = (char *)a->file_digest;
        m.data = (ProtobufCBinaryData){.len = n, .data = bytes};
        failed =
            files_say(socket, a->peer, a->instance, SHARDMILL__ENVELOPE__BODY_FILE_CHUNK, &m, err);
    } else {
        failed = refuse(socket, a, &why, err);
    }
    free(bytes);
    return failed;
}
