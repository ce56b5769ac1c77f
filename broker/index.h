/* Serving index files to workers: the broker hands out the bytes and never looks inside. */
#pragma once

#include "broker/core.h"

struct sm_index_known; /* which files are known to be the index of which digest; freed by free() */
struct sm_index_known *sm_index_known_new(void);

/* Carries out SM_ACTION_INDEX: a chunk as IndexChunk, or Refused when the file cannot be read or is
 * another one. -1 only when the socket is broken. */
int sm_index_send(void *socket, struct sm_index_known *known, const struct sm_action *action,
                  struct sm_err *err);
