/* The journal: what must survive the broker, in STATE_DIR/state.db (SQLite, WAL, synchronous=FULL),
 * with STATE_DIR/lock held by flock for the process' life. A commit that returned has reached the
 * disk; any failure stops the broker, and nothing that depends on it is acknowledged. Before it:
 * the core's PERSIST actions. After it: the SEND actions of the same batch. */
#pragma once

#include "broker/core.h"

#define SM_JOURNAL_SCHEMA 2

struct sm_journal;

/* Takes the lock (SM_E_BUSY names the process that holds it), opens or makes the database, verifies
 * every row and counts this start. A damaged or newer database is refused by name. Gives. */
int sm_journal_open(struct sm_journal **gives, const char *state_dir, uint32_t *incarnation,
                    struct sm_err *err);
void sm_journal_close(struct sm_journal **journal);
/* Replays everything into a new core. */
int sm_journal_load(struct sm_journal *journal, struct sm_core *core, struct sm_err *err);
/* Makes the PERSIST actions durable in one transaction; 0 when there are none. */
int sm_journal_commit(struct sm_journal *journal, const struct sm_actions *actions,
                      struct sm_err *err);
