/* Files by digest: what a job needs that not every worker has beside it. Submitters put artifacts
 * and states of fits here, workers partials; who asks for one gets it in pieces. They lie in
 * STATE/files under their digests and stay while a job names them. The broker never looks inside.
 * Before: loop.c hands FilePut and SM_ACTION_FILE in. */
#pragma once

#include "broker/core.h"

#define SM_FILES_NAME "files"

struct sm_files;
/* Takes up what an earlier broker has kept in the folder. */
int sm_files_open(struct sm_files **gives, const char *state_dir, struct sm_err *err);
void sm_files_close(struct sm_files **files);

/* One FilePut, answered with FileKept. core says which files jobs want, should room be needed. -1
 * only when the socket is broken. */
int sm_files_put(struct sm_files *files, const struct sm_core *core, void *socket,
                 const struct sm_peer *peer, const Shardmill__FilePut *m, uint64_t instance,
                 struct sm_err *err);
/* Carries out SM_ACTION_FILE: a piece as FileChunk, or Refused when the file cannot be read or is
 * another one. -1 only when the socket is broken. */
int sm_files_send(struct sm_files *files, void *socket, const struct sm_action *action,
                  struct sm_err *err);
/* When it is due: removes files that no job wants and nobody has asked for in a while, and ends
 * uploads that have stopped. */
void sm_files_tick(struct sm_files *files, const struct sm_core *core);
