/* Sockets with every option set, and Envelopes packed and unpacked under limits. The broker's loop,
 * workers and clients call this; what is inside a message is theirs to read. */
#include "lib/wire.h"

#include "lib/batch.h"
#include "lib/limits.h"
#include "lib/zap.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#ifndef ZMQ_ZAP_ENFORCE_DOMAIN
#define ZMQ_ZAP_ENFORCE_DOMAIN 93 /* in libzmq since 4.3.0, in zmq.h among the drafts */
#endif

enum {
    HANDSHAKE_MS = 5000, /* a peer that does not finish its greeting is dropped */
    LINGER_MS = 500,     /* at close: what is queued may still leave, but exit never hangs */
    /* Per peer and direction. Control messages are small and most are answered one by one, but the
     * batches of a session that ends are freed all at once; what does not fit is lost, and a lease
     * among it is only missed when it expires. */
    QUEUE_MESSAGES = 4 * SM_BATCH_SLOTS,
    BACKLOG = 512,
    ZMTP_PING_MS = 2000, /* finds a dead network; a stuck process is found by our own heartbeats */
    ZMTP_DEAD_MS = 6000,
    RECONNECT_MS = 100,
    RECONNECT_MAX_MS = 2000,
    /* What malloc itself takes for a small piece; counted, or a million empty submessages would fit
       the budget. */
    PIECE_OVERHEAD = 16,
    CURVE_OVERHEAD = 64, /* 33 bytes around an encrypted frame, which count for its longest */
};

static int socket_new(void *context, int type, void **socket, struct sm_err *err);
static int endpoint_check(const char *endpoint, bool keys, char out[256], struct sm_err *err);
static int server_secure(void *socket, const struct sm_keys *keys, struct sm_err *err);
static int client_secure(void *socket, const char *endpoint,
                         const struct sm_wire_security *security, struct sm_err *err);
static int watch_start(void *context, void *socket, const char *endpoint,
                       const struct sm_wire_security *security, struct sm_err *err);
static int closed(void *socket, const struct sm_wire_security *security);
static int address_bind(void *socket, const char *endpoint, const char *address,
                        struct sm_err *err);

int sm_wire_bind(void *context, const char *endpoint, void **socket, char bound[256],
                 struct sm_err *err) {
    return sm_wire_bind_with(context, endpoint, NULL, socket, bound, err);
}

int sm_wire_connect(void *context, const char *endpoint, void **socket, struct sm_err *err) {
    return sm_wire_connect_with(context, endpoint, NULL, socket, err);
}

/* Keys of this side for the endpoint, or NULL. */
static const struct sm_keys *keys_for(const struct sm_wire_security *security,
                                      const char *endpoint) {
    return security != NULL && strncmp(endpoint, "tcp://", 6) == 0 ? security->keys : NULL;
}

int sm_wire_bind_with(void *context, const char *endpoint, const struct sm_wire_security *security,
                      void **socket, char bound[256], struct sm_err *err) {
    char address[256];
    const struct sm_keys *keys = keys_for(security, endpoint);
    struct sm_zap *zap = NULL;
    *socket = NULL;
    if (endpoint_check(endpoint, keys != NULL, address, err) != 0) return -1;
    void *s = NULL;
    if (socket_new(context, ZMQ_ROUTER, &s, err) != 0) return -1;
    int one = 1, zero = 0, backlog = BACKLOG, ipv6 = strchr(address, '[') != NULL;
    if (security != NULL && security->queue_max > 0)
        zmq_setsockopt(s, ZMQ_SNDHWM, &security->queue_max, sizeof security->queue_max);
    /* MANDATORY: a message to nobody is reported, not lost in silence. No HANDOVER: nobody takes
     * another's id. */
    zmq_setsockopt(s, ZMQ_ROUTER_MANDATORY, &one, sizeof one);
    zmq_setsockopt(s, ZMQ_ROUTER_HANDOVER, &zero, sizeof zero);
    zmq_setsockopt(s, ZMQ_BACKLOG, &backlog, sizeof backlog);
    zmq_setsockopt(s, ZMQ_IPV6, &ipv6, sizeof ipv6);
    if (strncmp(address, "ipc://", 6) == 0) {
        uid_t uid = getuid();
        zmq_setsockopt(s, ZMQ_IPC_FILTER_UID, &uid, sizeof uid);
    }
    /* the handler has its address before anybody can connect: without one libzmq would not ask */
    if (watch_start(context, s, endpoint, security, err) != 0 ||
        (keys != NULL &&
         (server_secure(s, keys, err) != 0 || sm_zap_open(context, keys, &zap, err) != 0)) ||
        address_bind(s, endpoint, address, err) != 0 ||
        (zap != NULL && sm_zap_serve(&zap, err) != 0)) {
        sm_zap_close(&zap);
        return closed(s, security);
    }
    if (bound != NULL) {
        size_t n = 256;
        if (zmq_getsockopt(s, ZMQ_LAST_ENDPOINT, bound, &n) != 0) memcpy(bound, address, 256);
    }
    *socket = s;
    return 0;
}

int sm_wire_connect_with(void *context, const char *endpoint,
                         const struct sm_wire_security *security, void **socket,
                         struct sm_err *err) {
    void *s = NULL;
    *socket = NULL;
    if (socket_new(context, ZMQ_DEALER, &s, err) != 0) return -1;
    /* IMMEDIATE stays off: a first message may be sent before the connection stands, and waits in
     * the (bounded) queue. */
    int first = RECONNECT_MS, max = RECONNECT_MAX_MS, ipv6 = strchr(endpoint, '[') != NULL;
    zmq_setsockopt(s, ZMQ_RECONNECT_IVL, &first, sizeof first);
    zmq_setsockopt(s, ZMQ_RECONNECT_IVL_MAX, &max, sizeof max);
    zmq_setsockopt(s, ZMQ_IPV6, &ipv6, sizeof ipv6);
    if (client_secure(s, endpoint, security, err) != 0 ||
        watch_start(context, s, endpoint, security, err) != 0)
        return closed(s, security);
    if (zmq_connect(s, endpoint) != 0) {
        sm_fail(err, SM_E_USAGE,
                "cannot connect to '%s': %s (hint: an endpoint looks like tcp://127.0.0.1:5570 "
                "or ipc:///run/user/1000/shardmill)",
                endpoint, zmq_strerror(errno));
        return closed(s, security);
    }
    *socket = s;
    return 0;
}

int sm_wire_send(void *socket, const struct sm_peer *peer, const sm_envelope *message,
                 struct sm_err *err) {
    size_t n = shardmill__envelope__get_packed_size(message);
    if (n > SM_MAX_MESSAGE_BYTES)
        return sm_fail(err, SM_E_INTERNAL, "a message of %zu bytes is longer than the %d allowed",
                       n, SM_MAX_MESSAGE_BYTES);
    zmq_msg_t frame;
    if (zmq_msg_init_size(&frame, n) != 0)
        return sm_fail(err, SM_E_MEMORY, "no memory for a message");
    shardmill__envelope__pack(message, zmq_msg_data(&frame));
    int rc = 0;
    if (peer != NULL) {
        do
            rc = zmq_send(socket, peer->id, peer->n, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        while (rc < 0 && errno == EINTR);
    }
    if (rc >= 0) {
        do
            rc = zmq_msg_send(&frame, socket, ZMQ_DONTWAIT);
        while (rc < 0 && errno == EINTR);
    }
    if (rc >= 0) return 1;
    int e = errno;
    zmq_msg_close(&frame);
    if (e == EAGAIN || e == EHOSTUNREACH) return 0;
    return sm_fail(err, SM_E_INTERNAL, "sending on a socket failed: %s", zmq_strerror(e));
}

/* Throws the rest of a message of several frames away. */
static void frames_drop(void *socket) {
    int more = 0;
    size_t n = sizeof more;
    while (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &n) == 0 && more) {
        zmq_msg_t rest;
        zmq_msg_init(&rest);
        int rc = zmq_msg_recv(&rest, socket, ZMQ_DONTWAIT);
        zmq_msg_close(&rest);
        if (rc < 0 && errno != EINTR) return;
    }
}

int sm_wire_receive(void *socket, struct sm_peer *peer, sm_envelope **message, struct sm_err *err) {
    zmq_msg_t frame;
    *message = NULL;
    zmq_msg_init(&frame);
    int rc = zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT);
    if (rc < 0) {
        zmq_msg_close(&frame);
        return 0;
    }
    if (peer != NULL) { /* a ROUTER puts the peer's routing id first: 1 to 255 bytes */
        size_t n = zmq_msg_size(&frame);
        assert(n <= sizeof peer->id);
        peer->n = (uint8_t)n;
        memcpy(peer->id, zmq_msg_data(&frame), n);
        if (!zmq_msg_more(&frame) || zmq_msg_recv(&frame, socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&frame);
            return sm_fail(err, SM_E_PROTOCOL, "a message without a body");
        }
    }
    if (zmq_msg_more(&frame)) {
        zmq_msg_close(&frame);
        frames_drop(socket);
        return sm_fail(err, SM_E_PROTOCOL, "a message of more than one frame");
    }
    *message = sm_wire_unpack(zmq_msg_data(&frame), zmq_msg_size(&frame), err);
    zmq_msg_close(&frame);
    return *message != NULL ? 1 : -1;
}

void sm_wire_free(sm_envelope **message) {
    if (*message == NULL) return;
    shardmill__envelope__free_unpacked(*message, NULL); /* what budget_alloc gave out is malloc's */
    *message = NULL;
}

size_t sm_wire_pack(const sm_envelope *message, uint8_t *out, size_t out_max) {
    size_t n = shardmill__envelope__get_packed_size(message);
    if (n > out_max || n > SM_MAX_MESSAGE_BYTES) return 0;
    return shardmill__envelope__pack(message, out);
}

static void *budget_alloc(void *data, size_t n) {
    size_t *left = data;
    if (n > *left || *left - n < PIECE_OVERHEAD) {
        *left = 0; /* stays over, whatever smaller piece is asked for next */
        return NULL;
    }
    *left -= n + PIECE_OVERHEAD;
    return malloc(n ? n : 1);
}

static void budget_free(void *data, void *piece) {
    (void)data;
    free(piece);
}

sm_envelope *sm_wire_unpack(const uint8_t *bytes, size_t n, struct sm_err *err) {
    if (n > SM_MAX_MESSAGE_BYTES) {
        sm_fail(err, SM_E_PROTOCOL, "a message of %zu bytes is longer than the %d allowed", n,
                SM_MAX_MESSAGE_BYTES);
        return NULL;
    }
    size_t left = SM_MAX_UNPACK_BYTES;
    ProtobufCAllocator budget = {
        .alloc = budget_alloc, .free = budget_free, .allocator_data = &left};
    sm_envelope *e = shardmill__envelope__unpack(&budget, n, bytes);
    if (e == NULL) {
        sm_fail(err, SM_E_PROTOCOL, "a message that does not unpack (%zu bytes)", n);
        return NULL;
    }
    if (e->protocol != SM_PROTOCOL) {
        sm_fail(err, SM_E_DIFFERS, "a message of protocol %u, and this is protocol %d", e->protocol,
                SM_PROTOCOL);
        sm_wire_free(&e);
        return NULL;
    }
    return e;
}

int64_t sm_now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t sm_now_ms(void) {
    return sm_now_ns() / 1000000;
}

static int socket_new(void *context, int type, void **socket, struct sm_err *err) {
    void *s = zmq_socket(context, type);
    if (s == NULL)
        return sm_fail(err, SM_E_INTERNAL, "cannot make a socket: %s", zmq_strerror(errno));
    int one = 1, linger = LINGER_MS, hwm = QUEUE_MESSAGES, handshake = HANDSHAKE_MS,
        ping = ZMTP_PING_MS, dead = ZMTP_DEAD_MS;
    int64_t max = SM_MAX_MESSAGE_BYTES;
    zmq_setsockopt(s, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(s, ZMQ_SNDHWM, &hwm, sizeof hwm);
    zmq_setsockopt(s, ZMQ_RCVHWM, &hwm, sizeof hwm);
    zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &max, sizeof max);
    zmq_setsockopt(s, ZMQ_HANDSHAKE_IVL, &handshake, sizeof handshake);
    zmq_setsockopt(s, ZMQ_HEARTBEAT_IVL, &ping, sizeof ping);
    zmq_setsockopt(s, ZMQ_HEARTBEAT_TIMEOUT, &dead, sizeof dead);
    zmq_setsockopt(s, ZMQ_HEARTBEAT_TTL, &dead, sizeof dead);
    zmq_setsockopt(s, ZMQ_TCP_KEEPALIVE, &one, sizeof one);
    *socket = s;
    return 0;
}

static int address_bind(void *socket, const char *endpoint, const char *address,
                        struct sm_err *err) {
    if (zmq_bind(socket, address) == 0) return 0;
    int e = errno;
    return sm_fail(err, e == EADDRINUSE ? SM_E_BUSY : SM_E_PEER, "cannot bind '%s': %s%s", endpoint,
                   zmq_strerror(e),
                   e == EADDRINUSE
                       ? " (hint: another broker listens there; --bind takes another port)"
                   : e == ENAMETOOLONG ? " (hint: the path of an ipc socket has at most 107 bytes)"
                                       : "");
}

static int closed(void *socket, const struct sm_wire_security *security) {
    if (security != NULL && security->watch != NULL) sm_watch_free(security->watch);
    zmq_close(socket);
    return -1;
}

static int watch_start(void *context, void *socket, const char *endpoint,
                       const struct sm_wire_security *security, struct sm_err *err) {
    if (security == NULL || security->watch == NULL) return 0;
    const struct sm_keys *keys = keys_for(security, endpoint);
    return sm_watch_new(context, socket, endpoint, keys != NULL ? sm_keys_dir(keys) : NULL,
                        security->watch, err);
}

static int pair_set(void *socket, const struct sm_keys *keys) {
    int64_t max = SM_MAX_MESSAGE_BYTES + CURVE_OVERHEAD;
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof max) |
           zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, sm_keys_public(keys), SM_KEY_TEXT) |
           zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, sm_keys_secret(keys), SM_KEY_TEXT);
}

/* ENFORCE_DOMAIN: should nobody answer libzmq's questions, nobody is let in. Its default is
 * everybody. */
static int server_secure(void *socket, const struct sm_keys *keys, struct sm_err *err) {
    int one = 1;
    if (pair_set(socket, keys) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &one, sizeof one) != 0 ||
        zmq_setsockopt(socket, ZMQ_ZAP_DOMAIN, SM_ZAP_DOMAIN, strlen(SM_ZAP_DOMAIN)) != 0 ||
        zmq_setsockopt(socket, ZMQ_ZAP_ENFORCE_DOMAIN, &one, sizeof one) != 0)
        return sm_fail(err, SM_E_KEY, "this libzmq cannot ask for keys: %s (hint: 4.3 with CURVE)",
                       zmq_strerror(errno));
    return 0;
}

static int client_secure(void *socket, const char *endpoint,
                         const struct sm_wire_security *security, struct sm_err *err) {
    const struct sm_keys *keys = keys_for(security, endpoint);
    if (keys == NULL || (security->server_key != NULL && security->server_key[0] == 0)) return 0;
    const char *server = security->server_key != NULL ? security->server_key : sm_keys_server(keys);
    if (!sm_key_valid(server))
        return sm_fail(err, SM_E_KEY, "what should be the public key of '%s' is none", endpoint);
    if (pair_set(socket, keys) != 0 ||
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, server, SM_KEY_TEXT) != 0)
        return sm_fail(err, SM_E_KEY, "this libzmq cannot use keys: %s (hint: 4.3 with CURVE)",
                       zmq_strerror(errno));
    return 0;
}

/* Copies the endpoint when nothing outside this host can reach it, or keys are asked for. libzmq
 * binds to addresses, never to host names, so localhost is written as the address that everyone
 * means. */
static int endpoint_check(const char *endpoint, bool keys, char out[256], struct sm_err *err) {
    if (strlen(endpoint) >= 256)
        return sm_fail(err, SM_E_USAGE, "an endpoint of more than 255 bytes");
    memset(out, 0, 256);
    strcpy(out, endpoint);
    if (strncmp(endpoint, "ipc://", 6) == 0 || strncmp(endpoint, "inproc://", 9) == 0) return 0;
    const char *port = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) != 0 || port == NULL || port < endpoint + 6)
        return sm_fail(
            err, SM_E_USAGE,
            "'%s' is not an endpoint (hint: tcp://127.0.0.1:5570 or ipc:///path/of/socket)",
            endpoint);
    char *end;
    long number = strcmp(port, ":*") == 0 ? 0 : strtol(port + 1, &end, 10);
    if (strcmp(port, ":*") != 0 && (end == port + 1 || *end != 0 || number < 0 || number > 65535))
        return sm_fail(err, SM_E_USAGE, "'%s' has no port from 0 to 65535", endpoint);
    char host[256] = {0};
    memcpy(host, endpoint + 6, (size_t)(port - endpoint - 6));
    struct in_addr v4;
    if (strcmp(host, "localhost") == 0) {
        strcpy(out, "tcp://127.0.0.1");
        strncat(out, port, 255 - strlen(out));
        return 0;
    }
    if (strcmp(host, "[::1]") == 0) return 0;
    if (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127) return 0;
    if (keys) return 0;
    return sm_fail(
        err, SM_E_USAGE,
        "'%s' can be reached from outside this host, and nothing there asks for a key (hint: "
        "shardmill keygen makes keys, --keys DIR uses them; or bind to 127.0.0.1)",
        endpoint);
}
