/* A bounded reader of tar archives (ustar, pax, GNU long names). It yields regular files by offset
 * and refuses whatever is not data: absolute names, `..`, links, devices, sparse files, sizes
 * beyond the archive. Private to the sources. */
#pragma once

#include "lib/err.h"
#include "lib/limits.h"

#include <stdint.h>

struct sm_tar; /* an open archive */

struct sm_tar_member {
    char name[SM_MAX_PATH_BYTES];
    uint64_t header, offset, length; /* of its first header, its bytes, their number */
};

/* name is used in errors. Keeps both. */
int sm_tar_open(struct sm_tar **gives, int fd, uint64_t archive_bytes, const char *name,
                struct sm_err *err);
/* 1: the next regular file; 0: the end; -1: the archive is not sound, err names it and the offset.
 */
int sm_tar_next(struct sm_tar *t, struct sm_tar_member *member, struct sm_err *err);
void sm_tar_close(struct sm_tar **t);
