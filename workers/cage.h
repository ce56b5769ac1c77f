/* The cage: a process of its own in which a sample is decoded, augmented and encoded. It has no
 * socket, no file and no executable mapping (seccomp, Landlock, no_new_privs, rlimits); what it has
 * is a piece of memory that it shares with its shell and one byte each way. The shell believes
 * nothing that comes out of it without checking. */
#pragma once

#include "lib/err.h"
#include "workers/engine.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_cage; /* the shell's end; belongs to one thread */

struct sm_cage_options {
    bool no_sandbox;
    bool no_fuse;          /* SM_ENGINE_NO_FUSE */
    uint64_t memory_bytes; /* address space beside the shared memory; 0: SM_MAX_CAGE_MEMORY_BYTES */
    int64_t cpu_ms, wall_ms; /* 0: SM_MAX_SAMPLE_CPU_MS, SM_MAX_SAMPLE_WALL_MS */
};

/* Starts a cage for one pipeline (its canonical JSON). The process is this program with the hidden
 * command `cage`. */
int sm_cage_new(struct sm_cage **gives, const char *pipeline_json,
                const struct sm_cage_options *options, struct sm_err *err);
void sm_cage_free(struct sm_cage **c);

/* Two input slots, so that the next file is read while this one is worked on. */
enum { SM_CAGE_SLOTS = 2 };
uint8_t *sm_cage_input(struct sm_cage *c, int slot, size_t *max);
/* Hands a slot over. request.bytes is ignored: the bytes are in the slot. One sample is in work at
 * a time. */
int sm_cage_submit(struct sm_cage *c, int slot, const struct sm_engine_request *request,
                   struct sm_err *err);
/* The descriptor that becomes readable when the sample is done or the cage is dead, and how long to
 * wait at most. */
int sm_cage_fd(const struct sm_cage *c);
int sm_cage_wait_ms(const struct sm_cage *c);
/* Call when the descriptor is readable or the time is over. 0: not yet; 1: result is filled, *out
 * and *draws are lent until sm_cage_input is asked for the same slot again, so the next sample may
 * be submitted before they are stored; -1: the sample failed, err says how. A dead or late cage is
 * replaced at once, the sample tried again in the next (SM_MAX_SAMPLE_CAGES in all) and then
 * charged: SM_E_CAGE_DIED, SM_E_TIME_LIMIT or SM_E_MEMORY_LIMIT. Too much processor time is charged
 * at once: it does not depend on what else the machine does. A code that does not charge a sample
 * (SM_E_SANDBOX, …) means that no new cage could be started. */
int sm_cage_collect(struct sm_cage *c, struct sm_engine_result *result, const uint8_t **out,
                    const char **draws, struct sm_err *err);
/* Gives the sample in work up, if there is one: its cage is ended. */
void sm_cage_abandon(struct sm_cage *c);
/* How many cages have been replaced so far. */
uint64_t sm_cage_replaced(const struct sm_cage *c);

/* What a caged process must not be able to do; `shardmill doctor` and the tests run each in a real
 * cage. */
enum sm_probe {
    SM_PROBE_OPEN,
    SM_PROBE_SOCKET,
    SM_PROBE_EXEC,
    SM_PROBE_PTRACE,
    SM_PROBE_FORK,
    SM_PROBE_MAP_EXEC,
    SM_PROBE_KILL,
    SM_PROBE_COUNT
};
const char *sm_probe_name(enum sm_probe probe);
/* true: refused (the call failed or the cage was killed for it; it has been replaced). */
bool sm_cage_probe(struct sm_cage *c, enum sm_probe probe, struct sm_err *err);

/* The body of the hidden command: never returns to anything but exit. */
int sm_cage_main(int argc, char **argv);
