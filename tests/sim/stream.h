/* Streams under the simulator: see stream.c. */
#pragma once

#include "tests/sim/sim.h"

/* One job from its first Attach to its last epoch; true when all held. wrong: what did not. */
bool stream_epoch(uint64_t seed, uint64_t epoch, struct stats *stats, char wrong[256]);
