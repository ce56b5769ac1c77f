/* An open part, for the files of this folder: shard.c writes tar members, rows.c rows; both put
 * bytes into the same new file. */
#pragma once

#include "lib/buf.h"
#include "lib/fs.h"
#include "workers/sinks/sink.h"

struct sm_part {
    struct sm_newfile *file;
    struct sm_hash *sha;
    uint64_t bytes;
    const struct sm_row_format *rows; /* NULL: tar members, or a fit's partial */
    bool partial;
    struct sm_buf text; /* rows on their way into the file */
};

int sm_part_put(struct sm_part *p, const void *bytes, size_t n, struct sm_err *err);
