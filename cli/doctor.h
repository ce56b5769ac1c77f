/* Checks of the machine. */
#pragma once

#include "lib/buf.h"

#include <stdbool.h>

enum sm_health { SM_HEALTH_OK, SM_HEALTH_WARN, SM_HEALTH_BAD };

/* Runs every check and writes one line for each (json: an object). Returns the worst. */
enum sm_health sm_doctor(bool json, struct sm_buf *out);
