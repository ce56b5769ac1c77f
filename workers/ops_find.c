/* An op by its name, from the list that the build makes of the file names in workers/ops/. */
#include "workers/ops/op.h"

#include <string.h>

const struct sm_op *sm_op_find(const char *name) {
    for (size_t i = 0; i < sm_ops_count; i++)
        if (strcmp(sm_ops[i]->info.name, name) == 0) return sm_ops[i];
    return NULL;
}
