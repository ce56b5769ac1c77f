/* One chunk of an index file, read where the submitter wrote it, sent to the worker that asked. The
 * worker asks for the next chunk itself, and compares the digest of the whole with the job's. */
#include "broker/index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES = 256 << 10 };

static int refuse(void *socket, const struct sm_action *a, const struct sm_err *why,
                  struct sm_err *err);

int sm_index_send(void *socket, const struct sm_action *a, struct sm_err *err) {
    struct sm_err why;
    struct stat st;
    ssize_t n = -1;
    uint8_t *bytes = malloc(CHUNK_BYTES);
    int fd = open(a->index_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (bytes == NULL)
        sm_fail(&why, SM_E_MEMORY, "no memory for a chunk of the index");
    else if (fd < 0 || fstat(fd, &st) != 0)
        sm_fail_errno(&why, "cannot open the index '%s'", a->index_path);
    else if (!S_ISREG(st.st_mode) || a->offset > (uint64_t)st.st_size)
        sm_fail(&why, SM_E_DATASET, "the index '%s' is no file of so many bytes", a->index_path);
    else if ((n = pread(fd, bytes, CHUNK_BYTES, (off_t)a->offset)) < 0)
        sm_fail_errno(&why, "cannot read the index '%s'", a->index_path);
    if (fd >= 0) close(fd);
    int rc;
    if (n < 0) {
        rc = refuse(socket, a, &why, err);
    } else {
        Shardmill__IndexChunk m = SHARDMILL__INDEX_CHUNK__INIT;
        m.job = (char *)a->job;
        m.offset = a->offset;
        m.total = (uint64_t)st.st_size;
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
