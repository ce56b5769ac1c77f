/* Which files a path names: one, a folder's of one kind, a brace range `x-{000..123}.csv`, or a
 * glob. Private to the sources. */
#pragma once

#include "lib/err.h"

#include <stddef.h>

/* Calls each(context, path) for every number of the ranges in braces, in order. example is for the
 * hint. */
int sm_files_brace(const char *path, const char *example,
                   int (*each)(void *context, const char *path, struct sm_err *err), void *context,
                   struct sm_err *err);

struct sm_files {
    char **paths;
    size_t n, cap;
};

/* The files of a path, sorted as bytes (of a brace range: in its order); at least one. extension:
 * ".csv", which files of a folder count. */
int sm_files_list(struct sm_files *f, const char *path, const char *extension, struct sm_err *err);
void sm_files_release(struct sm_files *f);
