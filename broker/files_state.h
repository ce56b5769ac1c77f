/* The inside of the broker's files, shared by files.c (what is kept), files_put.c (pieces that
 * come) and files_get.c (pieces that are asked for). Private to these three. */
#pragma once

#include "broker/files.h"
#include "broker/known.h"
#include "lib/digest.h"
#include "lib/fs.h"
#include "lib/limits.h"

#include <stdbool.h>

enum {
    SEEN = 64,
    SILENT_MS = 120000, /* an upload without a new piece */
};

struct kept {
    char digest[SM_SHA_HEX];
    uint64_t bytes;
    int64_t used_ms;
    bool wanted;
    bool unread; /* it was put, or asked about by who would put it, and not read to its end since */
};

struct upload {
    char digest[SM_SHA_HEX];
    uint64_t total, got, synced;
    uint64_t digested; /* bytes that its digest is over: of an index not the times */
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
    struct seen {
        char digest[SM_SHA_HEX];
        char path[SM_MAX_PATH_BYTES];
    } seen[SEEN]; /* submitters' indexes that the broker can read */
    unsigned seen_next;
    int64_t ticked_ms;
};

/* files.c */
/* Sends a message of the loop's own; -1 only when the socket is broken. */
int files_say(void *socket, const struct sm_peer *peer, uint64_t instance,
              Shardmill__Envelope__BodyCase which, void *body, struct sm_err *err);
bool files_is_digest(const char *s);
bool files_is_sha(const char *digest);
struct kept *files_kept_find(struct sm_files *f, const char *digest);
/* NULL: no memory. */
struct kept *files_kept_add(struct sm_files *f, const char *digest, uint64_t bytes);
void files_path(const struct sm_files *f, const char *digest, char path[SM_MAX_PATH_BYTES + 80]);
/* Removes those that no job wants and that were used last before `before`; the oldest first, and
 * only until n more of so many bytes have room. What nobody has read yet is somebody's: it
 * has the time of an idle one. */
void files_unwanted_remove(struct sm_files *f, const struct sm_core *core, int64_t before, size_t n,
                           uint64_t room);

/* files_put.c */
void files_upload_end(struct upload *u);
/* Ends those that have stopped. */
void files_silent_end(struct sm_files *f);
