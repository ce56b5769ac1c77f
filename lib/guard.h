/* Reading through a mapping of a file that somebody may cut short meanwhile: the signal that tells
 * of a missing page becomes a return value. Comes before every look at a mapped dataset. */
#pragma once

#include <stdbool.h>

/* Runs body(context). False: a page of a mapping was not there, and body was left where it read it
 * (it must hold no lock and own nothing then). Not for nesting. */
bool sm_guard(void (*body)(void *context), void *context);
