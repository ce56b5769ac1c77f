/* The ledger of a trainer that only counts: one line for each sample that it was given, and a line
 * for each checkpoint. A ledger that is opened again is cut back to its last checkpoint, as a
 * trainer's history is when it restarts: what it holds is what was trained on.
 *
 *   s EPOCH POSITION INDEX FLAGS DIGEST   a sample: flags as in lib/batch.h, XXH3-128 of its tensor
 *   c TOKEN                               a checkpoint */
#pragma once

#include "client/c/shardmill.h"
#include "lib/err.h"

enum { SM_TOKEN_BYTES = 256 };

struct sm_ledger;

/* Opens or begins it. Fills token with that of the last checkpoint, or with "". */
int sm_ledger_open(struct sm_ledger **gives, const char *path, char token[SM_TOKEN_BYTES],
                   struct sm_err *err);
void sm_ledger_close(struct sm_ledger **l);
int sm_ledger_add(struct sm_ledger *l, const struct sm_batch_view *view, struct sm_err *err);
/* Makes all of it durable; only then may the token be committed. */
int sm_ledger_checkpoint(struct sm_ledger *l, const char *token, struct sm_err *err);
