/* Serving index files to workers: the broker hands out the bytes and never looks inside. */
#pragma once

#include "broker/core.h"

/* Carries out SM_ACTION_INDEX: a chunk as IndexChunk, or Refused when the file cannot be read. -1
 * only when the socket is broken. */
int sm_index_send(void *socket, const struct sm_action *action, struct sm_err *err);
