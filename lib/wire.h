/* Messages on ZeroMQ sockets. A message is one frame, a packed Envelope (proto/messages.proto); on
 * a ROUTER the peer's routing id stands before it. Every socket option of a careful deployment is
 * set here and nowhere else. */
#pragma once

#include "lib/err.h"
#include "lib/keys.h"
#include "lib/watch.h"
#include "messages.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

#define SM_PROTOCOL 1

typedef Shardmill__Envelope sm_envelope;

/* A routing id as libzmq made it (never chosen by the peer, never trusted as an identity). */
struct sm_peer {
    uint8_t n;
    uint8_t id[255];
};

/* How a socket is secured. All zero: not at all. Keys count on tcp only: ipc is for the same user
 * on the same host. */
struct sm_wire_security {
    const struct sm_keys *keys; /* this side's; NULL: it neither asks for a key nor shows one */
    const char *server_key; /* connect: whose key is expected. NULL: sm_keys_server; "": a peer that
                               was told by someone trusted to have none */
    int queue_max;          /* messages that wait for one peer; 0: enough for control messages */
    struct sm_watch **watch; /* gives (NULL: not wanted): the socket's handshakes; freed before the
                                socket is closed */
};
/* sm_wire_bind and sm_wire_connect with keys; security may be NULL. With keys, any address may be
 * bound, and only those whose public key is in the allowed folder get through. A context has one
 * such bind. */
int sm_wire_bind_with(void *context, const char *endpoint, const struct sm_wire_security *security,
                      void **socket, char bound[256], struct sm_err *err);
int sm_wire_connect_with(void *context, const char *endpoint,
                         const struct sm_wire_security *security, void **socket,
                         struct sm_err *err);

/* Binds a ROUTER. The endpoint must be ipc or on loopback (SM_E_USAGE otherwise: nothing outside
 * the host connects without a key). ipc is for the same user only. Gives the socket; *bound (may be
 * NULL) gets the endpoint with its real port. */
int sm_wire_bind(void *context, const char *endpoint, void **socket, char bound[256],
                 struct sm_err *err);
/* Connects a DEALER. */
int sm_wire_connect(void *context, const char *endpoint, void **socket, struct sm_err *err);

/* Sends; peer is NULL on a DEALER. 1 sent, 0 no room or no such peer now (nothing was sent), -1
 * broken. */
int sm_wire_send(void *socket, const struct sm_peer *peer, const sm_envelope *message,
                 struct sm_err *err);
/* Receives without waiting. 1: *message is given (sm_wire_free); 0: nothing there; -1: garbage
 * (wrong frames, over-long, does not unpack within SM_MAX_UNPACK_BYTES, another protocol version):
 * dropped, err says why. *peer may be NULL on a DEALER. */
int sm_wire_receive(void *socket, struct sm_peer *peer, sm_envelope **message, struct sm_err *err);
void sm_wire_free(sm_envelope **message);

/* The two halves without a socket, for tests, the simulator and fuzzing. */
size_t sm_wire_pack(const sm_envelope *message, uint8_t *out, size_t out_max); /* 0: does not fit */
sm_envelope *sm_wire_unpack(const uint8_t *bytes, size_t n, struct sm_err *err);

/* Milliseconds and nanoseconds of the monotonic clock. */
int64_t sm_now_ms(void);
int64_t sm_now_ns(void);
