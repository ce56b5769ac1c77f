/* The first bytes of ZMTP 3 (ZeroMQ RFC 23), spoken by hand: ours up to the version, theirs up to
 * the mechanism. Asked by lib/watch.c, for its sentence about a connection that breaks off. */
#include "lib/greeting.h"

#include "lib/wire.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 1000,
    MECHANISM_AT = 12, /* behind the signature of 10 bytes and the version of 2 */
    MECHANISM_BYTES = 20,
};

static int address_connect(const char *endpoint) {
    char host[256] = {0};
    const char *port = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) != 0 || port == NULL || port < endpoint + 6 ||
        (size_t)(port - endpoint) - 6 >= sizeof host)
        return -1;
    memcpy(host, endpoint + 6, (size_t)(port - endpoint) - 6);
    size_t n = strlen(host);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') { /* IPv6 */
        memmove(host, host + 1, n - 2);
        host[n - 2] = 0;
    }
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, port + 1, &hints, &found) != 0) return -1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS) {
        close(fd);
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}

static bool ready(int fd, short events, int64_t deadline_ms) {
    for (;;) {
        int64_t left = deadline_ms - sm_now_ms();
        struct pollfd item = {.fd = fd, .events = events};
        int rc = left > 0 ? poll(&item, 1, (int)left) : 0;
        if (rc < 0 && errno == EINTR) continue;
        return rc > 0;
    }
}

enum sm_greeting sm_greeting_ask(const char *endpoint) {
    static const char ours[] = {'\xff', 0, 0, 0, 0, 0, 0, 0, 1, '\x7f', 3};
    char theirs[MECHANISM_AT + MECHANISM_BYTES];
    int64_t deadline_ms = sm_now_ms() + PATIENCE_MS;
    size_t n = 0;
    int fd = address_connect(endpoint);
    if (fd < 0) return SM_GREETING_UNKNOWN;
    if (ready(fd, POLLOUT, deadline_ms) &&
        send(fd, ours, sizeof ours, MSG_NOSIGNAL) == (ssize_t)sizeof ours)
        while (n < sizeof theirs && ready(fd, POLLIN, deadline_ms)) {
            ssize_t got = recv(fd, theirs + n, sizeof theirs - n, 0);
            if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN)) break;
            if (got > 0) n += (size_t)got;
        }
    close(fd);
    if (n < sizeof theirs || theirs[0] != '\xff') return SM_GREETING_UNKNOWN;
    if (strncmp(theirs + MECHANISM_AT, "NULL", MECHANISM_BYTES) == 0) return SM_GREETING_PLAIN;
    if (strncmp(theirs + MECHANISM_AT, "CURVE", MECHANISM_BYTES) == 0) return SM_GREETING_CURVE;
    return SM_GREETING_UNKNOWN;
}
