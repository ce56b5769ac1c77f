/* Reads one sample's bytes by its index entry, straight into the memory that the shell shares with
 * its cage. What may pass (EIO, ESTALE) is tried again and then stops the lease; it is never taken
 * for a bad sample. */
#include "workers/sources/source.h"

#include "lib/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

enum { OPEN_FILES = 8, TRIES = 5, FIRST_PAUSE_MS = 15 };

struct sm_reader {
    char root[SM_MAX_PATH_BYTES];
    struct {
        char *file; /* a tar that stays open; NULL: free */
        int fd;
        uint64_t used; /* when last */
    } open[OPEN_FILES];
    uint64_t clock;
};

static int read_once(struct sm_reader *r, const struct sm_entry *entry, void *out, bool *may_pass,
                     bool *touched, struct sm_err *err);
static int changed(const struct sm_entry *e, struct sm_err *err);
static void close_kept(struct sm_reader *r, const char *file);

struct sm_reader *sm_reader_new(const char *root) {
    struct sm_reader *r = calloc(1, sizeof *r);
    if (r == NULL || strlen(root) >= sizeof r->root) {
        free(r);
        return NULL;
    }
    strcpy(r->root, root);
    return r;
}

void sm_reader_free(struct sm_reader **rp) {
    if (*rp == NULL) return;
    for (int i = 0; i < OPEN_FILES; i++)
        if ((*rp)->open[i].file != NULL) close_kept(*rp, (*rp)->open[i].file);
    free(*rp);
    *rp = NULL;
}

static void name_entry(const struct sm_entry *e, char *out, size_t n) {
    snprintf(out, n, "%s%s%s", e->file, e->member == NULL ? "" : "!",
             e->member == NULL ? "" : e->member);
}

int sm_reader_read(struct sm_reader *r, const struct sm_entry *entry, void *out, size_t out_max,
                   struct sm_err *err) {
    struct sm_err own;
    if (err == NULL) err = &own;
    char name[SM_MAX_PATH_BYTES];
    bool touched = false;
    name_entry(entry, name, sizeof name);
    if (entry->length > out_max)
        return sm_fail(err, SM_E_TOO_LARGE,
                       "'%s' has %llu bytes, more than the %zu that a sample may have", name,
                       (unsigned long long)entry->length, out_max);
    for (int i = 0;; i++) {
        bool may_pass = false;
        if (read_once(r, entry, out, &may_pass, &touched, err) == 0) break;
        if (!may_pass || i + 1 == TRIES) return -1;
        close_kept(r, entry->file);
        long ms = FIRST_PAUSE_MS << (2 * i); /* 15, 60, 240, 960 */
        nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    }
    if (entry->checksum == 0) return 0;
    uint64_t sum = XXH3_64bits(out, (size_t)entry->length);
    if ((sum == 0 ? 1 : sum) == entry->checksum) return 0;
    if (touched) return changed(entry, err);
    return sm_fail(err, SM_E_CHECKSUM, "'%s' differs from the checksum in the index", name);
}

static bool can_pass(int e) {
    return e == EIO || e == ESTALE || e == ETIMEDOUT || e == EAGAIN || e == ENFILE || e == EMFILE ||
           e == EREMOTEIO || e == ECONNRESET || e == EHOSTDOWN || e == ENOTCONN;
}

static void close_kept(struct sm_reader *r, const char *file) {
    for (int i = 0; i < OPEN_FILES; i++) {
        if (r->open[i].file == NULL || strcmp(r->open[i].file, file) != 0) continue;
        close(r->open[i].fd);
        char *gone = r->open[i].file;
        r->open[i].file = NULL;
        free(gone);
        return;
    }
}

static int find_kept(struct sm_reader *r, const char *file) {
    for (int i = 0; i < OPEN_FILES; i++) {
        if (r->open[i].file == NULL || strcmp(r->open[i].file, file) != 0) continue;
        r->open[i].used = ++r->clock;
        return r->open[i].fd;
    }
    return -1;
}

/* Keeps a tar open in place of the one that has not been used for longest. */
static void keep(struct sm_reader *r, const char *file, int fd) {
    int oldest = 0;
    for (int i = 0; i < OPEN_FILES && r->open[oldest].file != NULL; i++)
        if (r->open[i].file == NULL || r->open[i].used < r->open[oldest].used) oldest = i;
    char *copy = strdup(file);
    if (copy == NULL) {
        close(fd);
        return;
    }
    if (r->open[oldest].file != NULL) close_kept(r, r->open[oldest].file);
    r->open[oldest].file = copy;
    r->open[oldest].fd = fd;
    r->open[oldest].used = ++r->clock;
}

static int changed(const struct sm_entry *e, struct sm_err *err) {
    return sm_fail(
        err, SM_E_CHANGED,
        "'%s' changed after the dataset was indexed (hint: start a new run, into another folder)",
        e->file);
}

/* touched: it has another time, and its checksum is to tell whether it is another file. */
static int check_unchanged(int fd, const struct sm_entry *e, bool *may_pass, bool *touched,
                           struct sm_err *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) {
        *may_pass = can_pass(errno);
        return sm_fail_errno(err, "cannot read '%s'", e->file);
    }
    *touched = sm_fs_mtime_ns(&st) != e->mtime_ns;
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size == e->file_bytes &&
        (!*touched || e->checksum != 0))
        return 0;
    return changed(e, err);
}

/* Leaves errno for the caller. */
static int open_file(struct sm_reader *r, const struct sm_entry *e, struct sm_err *err) {
    char path[2 * SM_MAX_PATH_BYTES];
    snprintf(path, sizeof path, "%s%s%s", e->file[0] == '/' ? "" : r->root,
             e->file[0] == '/' ? "" : "/", e->file);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0) return fd;
    if (errno == EACCES || errno == EPERM)
        return sm_fail(err, SM_E_UNREADABLE, "'%s' may not be read by this user", e->file);
    if (errno != ENOENT) return sm_fail_errno(err, "cannot open '%s'", path);
    return sm_fail(
        err, SM_E_CHANGED,
        "'%s' is no longer there, but the dataset was indexed with it (hint: put it back, or "
        "start a new run, into another folder)",
        path);
}

static int read_once(struct sm_reader *r, const struct sm_entry *e, void *out, bool *may_pass,
                     bool *touched, struct sm_err *err) {
    int fd = find_kept(r, e->file);
    bool kept = fd >= 0;
    if (!kept && (fd = open_file(r, e, err)) < 0) {
        *may_pass = can_pass(errno);
        return -1;
    }
    int failed = check_unchanged(fd, e, may_pass, touched, err);
    ssize_t n = failed ? 0 : sm_fs_pread(fd, out, (size_t)e->length, e->offset);
    if (n < 0) {
        *may_pass = can_pass(errno);
        failed = sm_fail_errno(err, "cannot read '%s'", e->file);
    }
    if (!failed && (uint64_t)n < e->length)
        failed = sm_fail(err, SM_E_CHANGED, "'%s' became shorter after the dataset was indexed",
                         e->file);
    if (kept) return failed;
    if (e->member != NULL && !failed)
        keep(r, e->file, fd);
    else
        close(fd);
    return failed;
}
