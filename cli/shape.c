/* The shape that leaves a pipeline's chain, for check and explain. */
#include "cli/shape.h"

#include <stddef.h>
#include <stdio.h>

static const struct sm_op *op_of(const struct sm_op_node *node) {
    return (const struct sm_op *)((const char *)node->info - offsetof(struct sm_op, info));
}

static int ops_shape(const struct sm_op_node *ops, size_t n, const char *path,
                     struct sm_shape *shape, struct sm_err *err);

/* Children may run or not: a side that only they change is open. */
static int children_shape(const struct sm_op_node *node, const char *path, struct sm_shape *shape,
                          struct sm_err *err) {
    struct sm_shape then = *shape;
    if (ops_shape(node->children, node->n_children, path, &then, err) != 0) return -1;
    if (then.width != shape->width) shape->width = 0;
    if (then.height != shape->height) shape->height = 0;
    return 0;
}

static int ops_shape(const struct sm_op_node *ops, size_t n, const char *path,
                     struct sm_shape *shape, struct sm_err *err) {
    for (size_t i = 0; i < n; i++) {
        const struct sm_op_node *node = &ops[i];
        if (node->info->control) {
            if (children_shape(node, path, shape, err) != 0) return -1;
        } else if (op_of(node)->shape(node->params, NULL, shape, err) != 0) {
            err->code = SM_E_PIPELINE;
            return sm_err_context(err, "%s:%d:%d: '%s'", path, node->line, node->column,
                                  node->info->name);
        }
    }
    return 0;
}

int sm_cli_compile(const struct sm_pipeline *p, const char *path, struct sm_shape *shape,
                   struct sm_engine **engine, struct sm_err *err) {
    struct sm_engine *compiled = NULL;
    *shape = (struct sm_shape){.channels = p->source.mode == SM_MODE_L ? 1 : 3};
    if (engine != NULL) *engine = NULL;
    if (sm_source_is_table(&p->source)) return 0;
    if (ops_shape(p->ops, sm_pipeline_image_ops(p), path, shape, err) != 0) return -1;
    if (sm_engine_start("shardmill", err) != 0) return -1;
    if (sm_engine_new(&compiled, p, 0, err) != 0) {
        if (err->code != SM_E_MEMORY) err->code = SM_E_PIPELINE;
        return sm_err_context(err, "%s", path);
    }
    if (engine != NULL)
        *engine = compiled;
    else
        sm_engine_free(&compiled);
    return 0;
}

void sm_shape_text(const struct sm_pipeline *p, const struct sm_shape *shape, char *text,
                   size_t max) {
    static const char *const dtypes[] = {"uint8", "float32", "float16", "bfloat16", "float64"};
    char size[32] = "any size";
    if (sm_pipeline_is_rows(p)) {
        snprintf(text, max, "rows %s", dtypes[p->output.dtype]);
        return;
    }
    if (shape->width > 0 && shape->height > 0)
        snprintf(size, sizeof size, "%dx%d", shape->width, shape->height);
    snprintf(text, max, "%s %s %s", size, shape->channels == 1 ? "L" : "RGB",
             dtypes[p->output.dtype]);
}

int64_t sm_shape_bytes(const struct sm_pipeline *p, const struct sm_shape *shape) {
    int64_t element = p->output.dtype == SM_DTYPE_UINT8     ? 1
                      : p->output.dtype == SM_DTYPE_FLOAT32 ? 4
                                                            : 2;
    return (int64_t)shape->width * shape->height * shape->channels * element;
}
