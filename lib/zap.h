/* Who may connect: the answers to libzmq's questions about keys (ZAP, ZeroMQ RFC 27), for all
 * sockets of one context.
 *
 * This is not CZMQ's zauth, for reasons that were tried out: zauth serves only CZMQ's own context;
 * its actor ends when a signal interrupts its poll, and from then on libzmq lets in every key
 * unasked; it counts nothing. Here signals are blocked, and the thread ends with the context. */
#pragma once

#include "lib/err.h"
#include "lib/keys.h"

#define SM_ZAP_DOMAIN "shardmill"

struct sm_zap;

/* Two steps around the bind of a socket: first the handler has its address (and libzmq's questions
 * wait), then it answers. One for a context: SM_E_BUSY for a second. */
int sm_zap_open(void *context, const struct sm_keys *keys, struct sm_zap **gives,
                struct sm_err *err);
/* Takes *zap: a thread of its own answers until the context is terminated. */
int sm_zap_serve(struct sm_zap **zap, struct sm_err *err);
/* Instead of sm_zap_serve. *zap may be NULL. */
void sm_zap_close(struct sm_zap **zap);
