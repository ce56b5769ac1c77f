/* Which files at submitters' paths have the digest that a job says: each is read once, a slice at a
 * time, so that the broker's loop never stands still over a large one. */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

struct sm_known;
struct sm_known *sm_known_new(void); /* NULL: no memory */
void sm_known_free(struct sm_known **known);

enum sm_knowledge { SM_KNOWN_OTHER, SM_KNOWN_SAME, SM_KNOWN_NOT_YET };
/* Whether the open file, whose fstat is st, has this digest: 64 hex digits of SHA-256, else of
 * XXH3-128. NOT_YET: another slice has been read; who asks again goes on. */
enum sm_knowledge sm_known_ask(struct sm_known *known, int fd, const struct stat *st,
                               const char *digest);
