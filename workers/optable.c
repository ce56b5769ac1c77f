/* The list of ops as the pipeline's parser wants it: names, parameter tables and the check of each.
 * Whoever parses a pipeline file or its JSON (command line, worker, cage) hands this table in. */
#include "workers/ops/op.h"
#include "workers/rebalance/method.h"

#include <assert.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

enum { NAMES_MAX = 256 };

static const char *names[NAMES_MAX];
static struct sm_op_table table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void table_fill(void);

const struct sm_op_table *sm_op_table(void) {
    pthread_once(&once, table_fill);
    return &table;
}

static const struct sm_op_info *info_find(const char *name) {
    for (size_t i = 0; i < sm_ops_count; i++)
        if (strcmp(sm_ops[i]->info.name, name) == 0) return &sm_ops[i]->info;
    return NULL;
}

static int params_check(const struct sm_op_info *info, const void *params, struct sm_err *err) {
    const struct sm_op *op =
        (const struct sm_op *)((const char *)info - offsetof(struct sm_op, info));
    return op->check == NULL ? 0 : op->check(params, err);
}

static void table_fill(void) {
    assert(sm_ops_count <= NAMES_MAX);
    for (size_t i = 0; i < sm_ops_count; i++)
        names[i] = sm_ops[i]->info.name;
    table = (struct sm_op_table){.find = info_find,
                                 .names = names,
                                 .n_names = sm_ops_count,
                                 .check = params_check,
                                 .rebalance = sm_method_table()};
}
