/* Files as a careful program handles them: a new file has its name only when it is complete and on
 * the disk, a read or write that a signal cuts short goes on, and a full disk says how many bytes
 * were missing. */
#pragma once

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* A file under a temporary name (".tmp-…" in the same folder, unique across processes and hosts)
 * that takes its real name by the commit and only then. While it is open it is locked (flock), so
 * that a sweep leaves it alone. */
struct sm_newfile;
int sm_newfile_open(struct sm_newfile **gives, const char *path, struct sm_err *err);
int sm_newfile_add(struct sm_newfile *f, const void *bytes, size_t n, struct sm_err *err);
/* For a writer that goes back: writes what is buffered and lends the descriptor, for pread and
 * pwrite below what was added; -1 with err. */
int sm_newfile_fd(struct sm_newfile *f, struct sm_err *err);
/* Writes what is buffered, fsync, rename, fsync of the folder. Takes *f in any case; after a
 * failure no file has the name (one that had it before is gone too when only the fsync of the
 * folder failed). */
int sm_newfile_commit(struct sm_newfile **f, struct sm_err *err);
/* Throws it away. *f may be NULL. */
void sm_newfile_abandon(struct sm_newfile **f);

/* All of it at once. */
int sm_fs_write_file(const char *path, const void *bytes, size_t n, struct sm_err *err);
/* Appends the file's bytes; more than max: SM_E_TOO_LARGE. */
int sm_fs_read_file(const char *path, size_t max, struct sm_buf *out, struct sm_err *err);

/* A file of the same bytes under another name: complete, or not there. */
int sm_fs_copy_file(const char *from, const char *to, struct sm_err *err);

/* Reads until n bytes, the end of the file or an error: bytes read, or -1 with errno. */
ssize_t sm_fs_pread(int fd, void *out, size_t n, uint64_t offset);
/* When a file was last written, in ns. */
static inline int64_t sm_fs_mtime_ns(const struct stat *st) {
    return (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
}
/* Makes the folder and those above it. */
int sm_fs_mkdirs(const char *path, struct sm_err *err);
int sm_fs_sync_dir(const char *path, struct sm_err *err);
/* Renames and makes it durable; undone when the folder cannot be synced. */
int sm_fs_rename(const char *from, const char *to, struct sm_err *err);
/* Fills dir with the folder part of a path: "." when there is none. */
void sm_fs_dirname(const char *path, char *dir, size_t dir_max);
/* Makes a folder under TMPDIR (without it /tmp) for files that nobody else needs; fills path. The
 * caller removes it. */
int sm_fs_temp_folder(char path[SM_MAX_PATH_BYTES], struct sm_err *err);
/* The same, one at a time. The end removes it with the files in it, and so do SIGINT, SIGTERM and
 * SIGHUP, which then end the process as they would have. */
int sm_fs_scratch_begin(char path[SM_MAX_PATH_BYTES], struct sm_err *err);
void sm_fs_scratch_end(void);
/* Removes the temporary files in a folder that nobody holds open any more. */
void sm_fs_sweep(const char *dir);
