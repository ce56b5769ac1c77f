/* A descriptor of memory goes from one process to another of the same user, over an abstract Unix
 * address: it has no file, so nothing is left when its owner is killed. Workers hand out their
 * batch memory, trainers on the same host take it, once per worker. */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    SM_HANDOVER_NAME = 64,
    SM_HANDOVER_HOST = 64
}; /* bytes of an address, "@shardmill-…", with its NUL */

/* Gives a listening socket (non-blocking) under a fresh random address, which fills name. */
int sm_handover_listen(int *fd, char name[SM_HANDOVER_NAME], struct sm_err *err);
/* Answers one waiting peer with the descriptor and the bytes behind it. Never waits. 1: given; 0:
 * nobody waits; -1: a peer of another user, or one that had gone. */
int sm_handover_give(int listen_fd, int memory_fd, uint64_t bytes);
/* Asks the address, gives a descriptor of at least *bytes bytes that nobody can shorten any more
 * (so reading it never faults). Waits at most so long; SM_E_PEER when nobody is there. */
int sm_handover_take(const char *name, int timeout_ms, int *fd, uint64_t *bytes,
                     struct sm_err *err);
/* Whether somebody listens at the address still; asked without waiting. A worker that has died, or
 * has taken fresh memory, does not. */
bool sm_handover_there(const char *name);
/* Fills host with what names this boot of this kernel: only where it is the same can memory be
 * shared. Empty when that cannot be told. */
void sm_handover_host(char host[SM_HANDOVER_HOST]);
