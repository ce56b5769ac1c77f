/* How often a trainer was given each class: the audit of an epoch by class, for `read`. */
#pragma once

#include "client/c/shardmill.h"
#include "lib/buf.h"

#include <stdio.h>

/* Appends a JSON array of the last epoch's counts, in the order of labels: objects with class,
 * present (in the dataset's part), drawn (in an epoch, all ranks together) and delivered (to this
 * rank). "[]" when the job does not say. */
void sm_drawn_json(struct sm_loader *loader, struct sm_buf *out);
/* Prints what sm_drawn_json wrote in one line: "cat 34, dog 33, … and 5 more". Nothing for []. */
void sm_drawn_print(const char *json, FILE *to);
