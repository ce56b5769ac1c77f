/* One frame of `top`: what a broker's Status says, and rates against the frame before. */
#pragma once

#include "lib/buf.h"
#include "lib/wire.h"

struct sm_top; /* remembers the counts of the last frame */

struct sm_top *sm_top_new(void);
void sm_top_free(struct sm_top **top);
/* Appends the frame: lines of at most `columns` columns, at most `rows` of them (0: all). color:
 * with ANSI attributes. */
void sm_top_frame(struct sm_top *top, const Shardmill__Status *status, const char *endpoint,
                  int64_t now_ms, int columns, int rows, bool color, struct sm_buf *out);
