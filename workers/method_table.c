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

static const struct sm_any *shrinkage_of(const struct sm_op_node *node) {
    const struct sm_method *m = sm_method_of(node);
    const struct sm_any *s = m->shrinkage != NULL ? m->shrinkage(node->params) : NULL;
    return s != NULL && s->kind != SM_ANY_NULL ? s : NULL;
}

bool sm_method_learns(const struct sm_op_node *node) {
    return sm_method_of(node)->neighbours != NULL || shrinkage_of(node) != NULL;
}

int sm_method_columns(const struct sm_op_node *node, const struct sm_schema *schema,
                      struct sm_err *err) {
    const struct sm_method *m = sm_method_of(node);
    return m->columns == NULL ? 0 : m->columns(schema, err);
}

double sm_method_shrinkage(const struct sm_op_node *node, const char *class_name) {
    const struct sm_any *s = shrinkage_of(node);
    if (s == NULL || s->kind == SM_ANY_NUMBER) return s != NULL ? s->number : 0;
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->names[i], class_name) == 0) return s->values[i];
    return 0;
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
