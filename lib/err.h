/* Errors that are not the programmer's: bad data, a full disk, a lost peer. A function that can
 * meet one returns -1 (or NULL) and fills a struct sm_err where it happened; callers pass it up and
 * add context at most once. A programmer's mistake is an assert, and asserts stay on. */
#pragma once

#include <stdarg.h>
#include <stddef.h>

/* The stable list of codes: the word that users see in quarantine.jsonl and in messages, and what
 * it means. The first block charges a sample; the second stops a run. Append only: the numbers
 * travel in messages. */
#define SM_CODES(X)                                                                      \
    X(OK, "ok", "no error")                                                              \
    X(EMPTY, "empty", "the file has no bytes")                                           \
    X(FORMAT, "format", "not a format that is read here")                                \
    X(TRUNCATED, "truncated", "the file ends before the image does")                     \
    X(DECODE, "decode", "the decoder found damage")                                      \
    X(TOO_LARGE, "too-large", "more bytes, pixels or bands than the limits allow")       \
    X(OP, "op", "an op cannot work on this sample")                                      \
    X(TIME_LIMIT, "time-limit", "the sample took longer than a sample may")              \
    X(MEMORY_LIMIT, "memory-limit", "the sample needs more memory than a cage may have") \
    X(CAGE_DIED, "cage-died", "the sample killed its cage")                              \
    X(WORKER_DIED, "worker-died", "the sample killed three workers")                     \
    X(UNREADABLE, "unreadable", "the file may not be read by this user")                 \
    X(CHECKSUM, "checksum", "the bytes differ from the recorded checksum")               \
    X(USAGE, "usage", "wrong use of the command line")                                   \
    X(PIPELINE, "pipeline", "the pipeline file is not valid")                            \
    X(DATASET, "dataset", "the dataset cannot be used")                                  \
    X(CHANGED, "changed", "a file changed after the dataset was indexed")                \
    X(MISSING, "missing", "a file or folder is not there")                               \
    X(IO, "io", "reading or writing failed")                                             \
    X(DISK_FULL, "disk-full", "no room left on the disk")                                \
    X(MEMORY, "memory", "out of memory")                                                 \
    X(PROTOCOL, "protocol", "a message that breaks the protocol")                        \
    X(PEER, "peer", "a peer does not answer")                                            \
    X(BUSY, "busy", "something else holds it")                                           \
    X(DIFFERS, "differs", "pipeline, dataset, seed or fingerprint is another one")       \
    X(PART_MISSING, "part-missing", "a part of a shard is not there")                    \
    X(SANDBOX, "sandbox", "the sandbox cannot be set up")                                \
    X(CANCELLED, "cancelled", "stopped on request")                                      \
    X(QUARANTINE, "quarantine", "more samples quarantined than the run allows")          \
    X(INTERNAL, "internal", "a promise inside shardmill was broken")                     \
    X(KEY, "key", "a key is missing, wrong, not allowed, or open to others")             \
    X(TIMEOUT, "timeout", "what was waited for did not come in time")

enum sm_code {
#define X(id, word, doc) SM_E_##id,
    SM_CODES(X)
#undef X
        SM_E_COUNT
};

struct sm_err {
    enum sm_code code;
    char text[1024]; /* what failed, on what, (hint); lower case, no full stop; never empty after a
                        failure */
};

/* The code's word ("too-large"); "unknown" for a number that is none. */
const char *sm_code_word(int code);
/* The number of a word, or -1. */
int sm_code_find(const char *word);
/* One line about it. */
const char *sm_code_doc(int code);
/* Whether this failure is the sample's fault (it is quarantined) rather than the machine's (the run
 * stops). */
int sm_code_charges_sample(int code);

/* Fills err (which may be NULL) and returns -1. */
int sm_fail(struct sm_err *err, enum sm_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with ": strerror(errno)" behind it; ENOSPC and EDQUOT become SM_E_DISK_FULL, ENOENT
 * SM_E_MISSING, else SM_E_IO. */
int sm_fail_errno(struct sm_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "…: " before the text that is there. Returns -1. */
int sm_err_context(struct sm_err *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts the place of an op in its file before the text: "line 3, column 5: 'PCA': …" (op may be
 * NULL). Leaves a text that begins with a place: of an op before this one, or of this one by a
 * worker, from which only code and text come. Returns -1. */
int sm_err_at(struct sm_err *err, int line, int column, const char *op);
