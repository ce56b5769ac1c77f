/* The handshakes of one socket, as its owner sees them: how many failed, and why. libzmq drops and
 * retries such connections in silence. One thread: the socket's. */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_watch;

/* Before the socket binds or connects. keys_dir (may be NULL) is for the sentences. Gives. */
int sm_watch_new(void *context, void *socket, const char *endpoint, const char *keys_dir,
                 struct sm_watch **gives, struct sm_err *err);
/* Before the socket is closed: libzmq's thread would wait for ever for a reader that is gone. */
void sm_watch_free(struct sm_watch **watch);

/* Connections so far that did not get through their handshake: no key, a wrong one, too
 * slow. (What is no ZeroMQ at all libzmq drops without an event.) Call it often: events are queued
 * until then. */
uint64_t sm_watch_failed(struct sm_watch *watch);
/* Of a socket that connects: whether there is no use in waiting. Then err says why: not allowed,
 * wrong key, keys on one side only. A connection that broke off once is none of these. libzmq does
 * not try again after some of them: a new socket does. May take a second, once. */
bool sm_watch_hopeless(struct sm_watch *watch, struct sm_err *err);
