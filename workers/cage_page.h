/* What lies in the memory that a shell shares with its cage, and the check of what comes out of it.
 * Private to the cage's two sides. */
#pragma once

#include "lib/limits.h"
#include "workers/cage.h"

#include <stddef.h>
#include <sys/types.h>

/* Descriptors of a caged process; it has no others (0, 1 and 2 are /dev/null). */
enum { SM_CAGE_SOCKET = 3, SM_CAGE_MEMORY = 4 };

enum sm_cage_ask { SM_CAGE_SAMPLE, SM_CAGE_PROBE };

struct sm_cage_request {
    uint64_t seq; /* rises by one; the answer carries it back */
    uint32_t ask; /* enum sm_cage_ask */
    uint32_t slot, probe;
    uint32_t epoch, copy;
    uint8_t original, tensor, added;
    uint64_t seed, sample, n_bytes;
};

/* Written by the cage: hostile until sm_cage_answer_check has seen a private copy of it. */
struct sm_cage_answer {
    uint64_t seq;
    int32_t status; /* 0 made, -1 failed */
    uint32_t code;
    char text[512];
    uint64_t n_bytes, draws_bytes;
    int32_t width, height, channels, in_width, in_height;
    char extension[8];
};

struct sm_cage_page {
    struct sm_cage_request request;
    struct sm_cage_answer answer;
    uint32_t out_of_memory; /* last words of a cage that aborts */
    uint64_t pipeline_bytes;
};

/* The whole memory. Untouched pages cost nothing, so each area has the size of its limit. There are
 * two areas for results too: the next sample is made while the shell still stores the last one. */
enum { SM_CAGE_PIPELINE_BYTES = 4 << 20, SM_CAGE_PAGE_BYTES = 64 << 10 };
struct sm_cage_memory {
    union {
        struct sm_cage_page page;
        uint8_t page_bytes[SM_CAGE_PAGE_BYTES];
    };
    char pipeline[SM_CAGE_PIPELINE_BYTES];
    char draws[SM_CAGE_SLOTS][SM_MAX_DRAWS_BYTES];
    uint8_t input[SM_CAGE_SLOTS][SM_MAX_SAMPLE_BYTES];
    uint8_t result[SM_CAGE_SLOTS][SM_MAX_RESULT_BYTES];
};

/* Whether an answer can be one to this request: every number is in its range, every text ends, the
 * draws are JSON. On success fills result or, for a sample that failed (then -1 with *failed set),
 * err. A code that would stop the run is turned into one that charges the sample: a cage has no say
 * over the run. Otherwise SM_E_CAGE_DIED. */
int sm_cage_answer_check(const struct sm_cage_answer *answer, uint64_t seq, const char *draws,
                         struct sm_engine_result *result, bool *failed, struct sm_err *err);

/* The process, for tests that hurt it. */
pid_t sm_cage_pid(const struct sm_cage *c);

/* cage_sandbox.c: locks the calling process in, for ever. */
int sm_cage_lock(uint64_t address_space, struct sm_err *err);
/* Whether this build keeps system calls and memory unlimited because a sanitizer needs them. */
bool sm_cage_is_relaxed(void);
/* cage_probe.c: tries it; true when the kernel refused. */
bool sm_probe_run(enum sm_probe probe);
