/* What the output folder of an expansion holds already. */
#pragma once

#include "cli/run.h"

/* Compares the run (of a slice too) with what DIR has a record of. complete: all of it is there,
 * and *run becomes the record. Another run: SM_E_DIFFERS. A run that was begun, or nothing: its
 * record is there afterwards. */
int sm_folder_compare(const char *dir, struct sm_run *run, bool *complete, struct sm_err *err);
/* Whether every shard of the record is a file of its size; if not, name is the first that is none.
 */
bool sm_folder_shards(const char *dir, const struct sm_run *record, char name[SM_PART_NAME_MAX]);
/* Whether DIR holds the state of a run that can be resumed. */
bool sm_folder_started(const char *dir);
/* Removes DIR/.shardmill (or what is under it) when a run is over. */
void sm_folder_forget(const char *state_dir);
