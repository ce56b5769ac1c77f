/* The methods of `rebalance:` as the pipeline's parser wants them. */
#include "workers/rebalance/method.h"

#include <assert.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>

enum { NAMES_MAX = 32 };

static const char *names[NAMES_MAX];
static struct sm_op_table table;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void table_fill(void);

const struct sm_op_table *sm_method_table(void) {
    pthread_once(&once, table_fill);
    return &table;
}

const struct sm_method *sm_method_of(const struct sm_op_node *node) {
    return (const struct sm_method *)((const char *)node->info - offsetof(struct sm_method, info));
}

static const struct sm_op_info *info_find(const char *name) {
    for (size_t i = 0; i < sm_methods_count; i++)
        if (strcmp(sm_methods[i]->info.name, name) == 0) return &sm_methods[i]->info;
    return NULL;
}

static int params_check(const struct sm_op_info *info, const void *params, struct sm_err *err) {
    const struct sm_method *m =
        (const struct sm_method *)((const char *)info - offsetof(struct sm_method, info));
    return m->check == NULL ? 0 : m->check(params, err);
}

static void table_fill(void) {
    assert(sm_methods_count <= NAMES_MAX);
    for (size_t i = 0; i < sm_methods_count; i++)
        names[i] = sm_methods[i]->info.name;
    table = (struct sm_op_table){
        .find = info_find, .names = names, .n_names = sm_methods_count, .check = params_check};
}
