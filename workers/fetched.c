/* Pieces of a file are put together in a memfd; job.c asks for them one after the other and knows
 * by which digest the whole is right. */
#include "workers/fetched.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void sm_fetched_init(struct sm_fetched *f) {
    *f = (struct sm_fetched){.fd = -1};
}

int sm_fetched_take(struct sm_fetched *f, const void *bytes, size_t n, uint64_t total, uint64_t max,
                    const char *what, struct sm_err *err) {
    if (f->fd < 0) {
        if (total == 0 || total > max)
            return sm_fail(err, SM_E_PROTOCOL, "%s has %llu bytes, at most %llu can be", what,
                           (unsigned long long)total, (unsigned long long)max);
        f->fd = memfd_create("shardmill-fetched", MFD_CLOEXEC);
        if (f->fd < 0) return sm_fail_errno(err, "cannot make memory for %s", what);
        f->total = total;
    }
    if (total != f->total || n == 0 || n > f->total - f->got)
        return sm_fail(err, SM_E_CHANGED, "%s changed while it was fetched", what);
    for (size_t done = 0; done < n;) {
        ssize_t put = pwrite(f->fd, (const char *)bytes + done, n - done, (off_t)f->got);
        if (put < 0 && errno != EINTR) return sm_fail_errno(err, "cannot keep %s", what);
        done += put > 0 ? (size_t)put : 0;
        f->got += put > 0 ? (uint64_t)put : 0;
    }
    if (f->got < f->total) return 0;
    void *map = mmap(NULL, f->total, PROT_READ, MAP_SHARED, f->fd, 0);
    if (map == MAP_FAILED) return sm_fail_errno(err, "cannot map %s", what);
    f->map = map;
    return 1;
}

void sm_fetched_release(struct sm_fetched *f) {
    if (f->map != NULL) munmap(f->map, f->total);
    if (f->fd >= 0) close(f->fd);
    sm_fetched_init(f);
}
