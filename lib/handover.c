/* SCM_RIGHTS with SO_PEERCRED: one message of eight bytes (how long the memory is) with one
 * descriptor. workers/batches.c gives, client/c takes. */
#include "lib/handover.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 128 };

/* "@name" is the abstract address NUL, name. */
static socklen_t address_of(const char *name, struct sockaddr_un *a) {
    size_t n = strlen(name);
    if (name[0] != '@' || n < 2 || n > sizeof a->sun_path) return 0;
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(a->sun_path + 1, name + 1, n - 1);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
}

int sm_handover_listen(int *fd, char name[SM_HANDOVER_NAME], struct sm_err *err) {
    unsigned long long random[2];
    struct sockaddr_un a;
    *fd = -1;
    if (getrandom(random, sizeof random, 0) != sizeof random)
        return sm_fail_errno(err, "cannot get random bytes");
    snprintf(name, SM_HANDOVER_NAME, "@shardmill-%016llx%016llx", random[0], random[1]);
    socklen_t n = address_of(name, &a);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s < 0) return sm_fail_errno(err, "cannot make a socket");
    if (bind(s, (struct sockaddr *)&a, n) != 0 || listen(s, BACKLOG) != 0) {
        sm_fail_errno(err, "cannot listen on '%s'", name);
        close(s);
        return -1;
    }
    *fd = s;
    return 0;
}

static bool is_same_user(int s) {
    struct ucred peer;
    socklen_t n = sizeof peer;
    return getsockopt(s, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.uid == geteuid();
}

union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

int sm_handover_give(int listen_fd, int memory_fd, uint64_t bytes) {
    int s = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (s < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    union control control = {0};
    struct iovec part = {&bytes, sizeof bytes};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &memory_fd, sizeof memory_fd);
    /* an empty fresh socket has room for eight bytes, so this is sent at once or never */
    bool given = is_same_user(s) && sendmsg(s, &m, MSG_NOSIGNAL) == (ssize_t)sizeof bytes;
    close(s);
    return given ? 1 : -1;
}

/* The descriptor of a message; -1 none. */
static int receive(int s, uint64_t *bytes) {
    union control control;
    struct iovec part = {bytes, sizeof *bytes};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    ssize_t n;
    do
        n = recvmsg(s, &m, MSG_CMSG_CLOEXEC | MSG_WAITALL);
    while (n < 0 && errno == EINTR);
    int fd = -1;
    struct cmsghdr *c = n >= 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c != NULL && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    if (n == (ssize_t)sizeof *bytes || fd < 0) return fd;
    close(fd);
    return -1;
}

static int check_memory(int fd, uint64_t bytes, const char *name, struct sm_err *err) {
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || fstat(fd, &st) != 0 || bytes == 0 ||
        (uint64_t)st.st_size < bytes)
        return sm_fail(err, SM_E_PROTOCOL, "what '%s' hands out is not the memory of a worker",
                       name);
    return 0;
}

int sm_handover_take(const char *name, int timeout_ms, int *fd, uint64_t *bytes,
                     struct sm_err *err) {
    struct sockaddr_un a;
    socklen_t n = address_of(name, &a);
    *fd = -1;
    if (n == 0) return sm_fail(err, SM_E_PROTOCOL, "'%.80s' is not a worker's address", name);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0) return sm_fail_errno(err, "cannot make a socket");
    struct timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    if (timeout_ms <= 0) limit.tv_usec = 1; /* zero would mean for ever */
    setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(s, (struct sockaddr *)&a, n) != 0) {
        sm_fail(err, SM_E_PEER, "no worker listens at '%s': %s", name, strerror(errno));
    } else if (!is_same_user(s)) {
        sm_fail(err, SM_E_PEER, "the worker at '%s' is another user's", name);
    } else {
        *fd = receive(s, bytes);
        if (*fd < 0)
            sm_fail(err, SM_E_PEER, "the worker at '%s' did not hand its memory out", name);
    }
    close(s);
    if (*fd >= 0 && check_memory(*fd, *bytes, name, err) != 0) {
        close(*fd);
        *fd = -1;
    }
    return *fd >= 0 ? 0 : -1;
}

bool sm_handover_there(const char *name) {
    struct sockaddr_un a;
    socklen_t n = address_of(name, &a);
    int s = n != 0 ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    if (s < 0) return n != 0; /* no descriptor is left to ask with: it is not said to be gone */
    bool there = connect(s, (struct sockaddr *)&a, n) == 0 || errno != ECONNREFUSED;
    close(s);
    return there;
}

void sm_handover_host(char host[SM_HANDOVER_HOST]) {
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, host, SM_HANDOVER_HOST - 1) : 0;
    if (fd >= 0) close(fd);
    host[n > 0 ? n : 0] = 0;
    host[strcspn(host, "\n")] = 0;
}
