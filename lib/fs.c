/* Atomic files, durable renames, reads and writes that survive signals. Sinks, the dataset's index,
 * the manifest and the broker's state all write through this; it calls only the kernel. */
#include "lib/fs.h"

#include "lib/limits.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 << 10, ORPHAN_S = 24 * 3600 };
static const char TEMPORARY[] = ".tmp-";

struct sm_newfile {
    int fd;
    char *path, *temporary;
    uint8_t *buffer;
    size_t used;
};

static int flush(struct sm_newfile *f, struct sm_err *err);
static int write_fully(struct sm_newfile *f, const uint8_t *bytes, size_t n, struct sm_err *err);

static int open_temporary(struct sm_newfile *f, struct sm_err *err) {
    char dir[SM_MAX_PATH_BYTES];
    sm_fs_dirname(f->path, dir, sizeof dir);
    const char *slash = strrchr(f->path, '/'), *base = slash == NULL ? f->path : slash + 1;
    for (int tries = 0; tries < 16; tries++) {
        uint64_t unique = 0;
        if (getrandom(&unique, sizeof unique, 0) != sizeof unique) break;
        free(f->temporary);
        int n = asprintf(&f->temporary, "%s/%s%016llx-%s", dir, TEMPORARY,
                         (unsigned long long)unique, base);
        if (n < 0) f->temporary = NULL;
        if (n < 0) return sm_fail(err, SM_E_MEMORY, "out of memory");
        f->fd = open(f->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (f->fd < 0 && errno != EEXIST) break;
        if (f->fd < 0) continue;
        flock(f->fd, LOCK_EX); /* a filesystem without locks: the sweep goes by age */
        struct stat st;
        if (fstat(f->fd, &st) == 0 && st.st_nlink > 0) return 0;
        close(f->fd); /* a sweep came between */
        f->fd = -1;
    }
    return sm_fail_errno(err, "cannot write '%s'", f->path);
}

int sm_newfile_open(struct sm_newfile **gives, const char *path, struct sm_err *err) {
    *gives = NULL;
    if (strlen(path) + 2 > SM_MAX_PATH_BYTES)
        return sm_fail(err, SM_E_USAGE, "the path is too long");
    struct sm_newfile *f = calloc(1, sizeof *f);
    if (f == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    f->fd = -1;
    f->path = strdup(path);
    f->buffer = malloc(BUFFER_BYTES);
    if (f->path == NULL || f->buffer == NULL) {
        sm_newfile_abandon(&f);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    if (open_temporary(f, err) != 0) {
        sm_newfile_abandon(&f);
        return -1;
    }
    *gives = f;
    return 0;
}

int sm_newfile_add(struct sm_newfile *f, const void *bytes, size_t n, struct sm_err *err) {
    if (f->used + n > BUFFER_BYTES && flush(f, err) != 0) return -1;
    if (n > BUFFER_BYTES / 2) {
        if (flush(f, err) != 0) return -1;
        return write_fully(f, bytes, n, err);
    }
    if (n > 0) memcpy(f->buffer + f->used, bytes, n);
    f->used += n;
    return 0;
}

int sm_newfile_fd(struct sm_newfile *f, struct sm_err *err) {
    return flush(f, err) != 0 ? -1 : f->fd;
}

int sm_newfile_commit(struct sm_newfile **fp, struct sm_err *err) {
    struct sm_newfile *f = *fp;
    int failed = flush(f, err);
    if (!failed && fsync(f->fd) != 0) failed = sm_fail_errno(err, "cannot write '%s'", f->path);
    if (!failed && rename(f->temporary, f->path) != 0)
        failed = sm_fail_errno(err, "cannot give '%s' its name", f->path);
    if (!failed) {
        free(f->temporary);
        f->temporary = NULL;
        char dir[SM_MAX_PATH_BYTES];
        sm_fs_dirname(f->path, dir, sizeof dir);
        failed = sm_fs_sync_dir(dir, err);
        if (failed) unlink(f->path);
    }
    sm_newfile_abandon(fp);
    return failed;
}

void sm_newfile_abandon(struct sm_newfile **fp) {
    struct sm_newfile *f = *fp;
    if (f == NULL) return;
    if (f->temporary != NULL && f->fd >= 0) unlink(f->temporary);
    if (f->fd >= 0) close(f->fd);
    free(f->temporary);
    free(f->path);
    free(f->buffer);
    free(f);
    *fp = NULL;
}

static int flush(struct sm_newfile *f, struct sm_err *err) {
    size_t n = f->used;
    f->used = 0;
    return write_fully(f, f->buffer, n, err);
}

static int write_fully(struct sm_newfile *f, const uint8_t *bytes, size_t n, struct sm_err *err) {
    while (n > 0) {
        ssize_t w = write(f->fd, bytes, n);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0 && (errno == ENOSPC || errno == EDQUOT))
            return sm_fail(
                err, SM_E_DISK_FULL,
                "cannot write '%s': no room left on the disk, %zu bytes missing (hint: free "
                "some room and run the same command again)",
                f->path, n);
        if (w < 0) return sm_fail_errno(err, "cannot write '%s'", f->path);
        bytes += w;
        n -= (size_t)w;
    }
    return 0;
}

int sm_fs_write_file(const char *path, const void *bytes, size_t n, struct sm_err *err) {
    struct sm_newfile *f;
    if (sm_newfile_open(&f, path, err) != 0) return -1;
    if (sm_newfile_add(f, bytes, n, err) != 0) {
        sm_newfile_abandon(&f);
        return -1;
    }
    return sm_newfile_commit(&f, err);
}

int sm_fs_copy_file(const char *from, const char *to, struct sm_err *err) {
    uint8_t piece[64 << 10];
    struct sm_newfile *f = NULL;
    ssize_t n = -1;
    const int fd = open(from, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) return sm_fail_errno(err, "cannot open '%s'", from);
    int failed = sm_newfile_open(&f, to, err);
    for (uint64_t at = 0; !failed && (n = sm_fs_pread(fd, piece, sizeof piece, at)) > 0;
         at += (uint64_t)n)
        failed = sm_newfile_add(f, piece, (size_t)n, err);
    if (!failed && n < 0) failed = sm_fail_errno(err, "cannot read '%s'", from);
    if (!failed) failed = sm_newfile_commit(&f, err);
    sm_newfile_abandon(&f);
    close(fd);
    return failed;
}

int sm_fs_read_file(const char *path, size_t max, struct sm_buf *out, struct sm_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return sm_fail_errno(err, "cannot open '%s'", path);
    uint8_t chunk[16384];
    int failed = 0;
    size_t got = 0;
    for (ssize_t n = 1; n > 0 && !failed;) {
        n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR) {
            n = 1;
            continue;
        }
        if (n < 0) failed = sm_fail_errno(err, "cannot read '%s'", path);
        if (n > 0 && ((got += (size_t)n) > max || !sm_buf_add(out, chunk, (size_t)n)))
            failed = sm_fail(err, SM_E_TOO_LARGE, "'%s' has more than %zu bytes", path, max);
    }
    close(fd);
    return failed;
}

ssize_t sm_fs_pread(int fd, void *out, size_t n, uint64_t offset) {
    size_t got = 0;
    while (got < n) {
        ssize_t r = pread(fd, (char *)out + got, n - got, (off_t)(offset + got));
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return -1;
        if (r == 0) break;
        got += (size_t)r;
    }
    return (ssize_t)got;
}

int sm_fs_mkdirs(const char *path, struct sm_err *err) {
    char copy[SM_MAX_PATH_BYTES];
    if (strlen(path) >= sizeof copy) return sm_fail(err, SM_E_USAGE, "the path is too long");
    strcpy(copy, path);
    for (char *p = copy + 1; *p != 0; p++) {
        if (*p != '/') continue;
        *p = 0;
        mkdir(copy, 0777); /* whether it worked shows at the last one */
        *p = '/';
    }
    struct stat st;
    if (mkdir(copy, 0777) == 0) return 0;
    int why = errno;
    if (stat(copy, &st) == 0 && S_ISDIR(st.st_mode)) return 0;
    errno = why;
    return sm_fail_errno(err, "cannot make the folder '%s'", path);
}

int sm_fs_sync_dir(const char *path, struct sm_err *err) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return sm_fail_errno(err, "cannot open the folder '%s'", path);
    int failed = 0;
    if (fsync(fd) != 0 && errno != EINVAL) /* EINVAL: a filesystem that cannot */
        failed = sm_fail_errno(err, "cannot sync the folder '%s'", path);
    close(fd);
    return failed;
}

int sm_fs_rename(const char *from, const char *to, struct sm_err *err) {
    char dir[SM_MAX_PATH_BYTES];
    sm_fs_dirname(to, dir, sizeof dir);
    if (rename(from, to) != 0) return sm_fail_errno(err, "cannot give '%s' its name", to);
    if (sm_fs_sync_dir(dir, err) == 0) return 0;
    if (rename(to, from) != 0) unlink(to);
    return -1;
}

void sm_fs_dirname(const char *path, char *dir, size_t dir_max) {
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : slash == path ? 1 : (size_t)(slash - path);
    assert(n + 2 <= dir_max);
    memcpy(dir, path, n);
    if (n == 0) dir[n++] = '.';
    dir[n] = 0;
}

/* --- the scratch folder: its end may come in a signal handler, so only system calls here --- */

static const int scratch_signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { SCRATCH_SIGNALS = sizeof scratch_signals / sizeof *scratch_signals };
static char scratch[SM_MAX_PATH_BYTES];
static struct sigaction scratch_before[SCRATCH_SIGNALS];

/* Empties a folder and the folders in it, `levels` deep, and closes it. */
static void folder_empty(int dir, int levels) {
    struct entry {
        uint64_t inode, next;
        uint16_t bytes;
        uint8_t type;
        char name[];
    };
    _Alignas(uint64_t) char list[4096];
    for (long n; dir >= 0 && (n = syscall(SYS_getdents64, dir, list, sizeof list)) > 0;)
        for (long at = 0; at < n; at += ((struct entry *)(list + at))->bytes) {
            const char *name = ((struct entry *)(list + at))->name;
            const bool self = name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
            if (self || unlinkat(dir, name, 0) == 0 || levels == 0) continue;
            folder_empty(openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW),
                         levels - 1);
            unlinkat(dir, name, AT_REMOVEDIR);
        }
    if (dir >= 0) close(dir);
}

static void scratch_remove(void) {
    folder_empty(open(scratch, O_RDONLY | O_DIRECTORY | O_CLOEXEC), 2);
    rmdir(scratch);
}

static void scratch_signal(int number) {
    scratch_remove();
    for (int i = 0; i < SCRATCH_SIGNALS; i++)
        if (scratch_signals[i] == number) sigaction(number, &scratch_before[i], NULL);
    raise(number);
}

int sm_fs_temp_folder(char path[SM_MAX_PATH_BYTES], struct sm_err *err) {
    const char *in = getenv("TMPDIR");
    int n = snprintf(path, SM_MAX_PATH_BYTES, "%s/shardmill-XXXXXX", in && in[0] ? in : "/tmp");
    if (n < 0 || n >= SM_MAX_PATH_BYTES)
        return sm_fail(err, SM_E_USAGE, "the path in TMPDIR is too long");
    if (mkdtemp(path) == NULL)
        return sm_fail_errno(err, "cannot make the folder '%s' (hint: TMPDIR names another place)",
                             path);
    return 0;
}

int sm_fs_scratch_begin(char path[SM_MAX_PATH_BYTES], struct sm_err *err) {
    assert(scratch[0] == 0 && "one scratch folder at a time");
    if (sm_fs_temp_folder(path, err) != 0) return -1;
    strcpy(scratch, path);
    struct sigaction action = {.sa_handler = scratch_signal};
    for (int i = 0; i < SCRATCH_SIGNALS; i++) {
        sigaction(scratch_signals[i], NULL, &scratch_before[i]);
        if (scratch_before[i].sa_handler == SIG_DFL) sigaction(scratch_signals[i], &action, NULL);
    }
    return 0;
}

void sm_fs_scratch_end(void) {
    if (scratch[0] == 0) return;
    scratch_remove();
    for (int i = 0; i < SCRATCH_SIGNALS; i++)
        sigaction(scratch_signals[i], &scratch_before[i], NULL);
    scratch[0] = 0;
}

/* A temporary file whose writer is dead can be locked; where locks do not work, it must be a day
 * old. */
static bool is_orphan(int fd) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
    struct stat st;
    if (errno == EWOULDBLOCK || fstat(fd, &st) != 0) return false;
    return time(NULL) - st.st_mtime > ORPHAN_S;
}

void sm_fs_sweep(const char *dir) {
    DIR *d = opendir(dir);
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strncmp(e->d_name, TEMPORARY, sizeof TEMPORARY - 1) != 0) continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;
        if (is_orphan(fd)) unlinkat(dirfd(d), e->d_name, 0);
        close(fd);
    }
    closedir(d);
}
