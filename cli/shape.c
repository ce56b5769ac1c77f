/* The shape that leaves a pipeline's chain, for check and explain. */
#include "cli/shape.h"

#include <stddef.h>
#include <stdio.h>

static const struct sm_op *op_of(const struct sm_op_node *node) {
    return (const struct sm_op *)((const char *)node->info - offsetof(struct sm_op, info));
}

static int ops_shape(const struct sm_op_node *ops, size_t n, struct sm_shape *shape,
                     struct sm_err *err);

/* Children may run or not: a side that only they change is open. */
static int children_shape(const struct sm_op_node *node, struct sm_shape *shape,
                          struct sm_err *err) {
    struct sm_shape then = *shape;
    if (ops_shape(node->children, node->n_children, &then, err) != 0) return -1;
    if (then.width != shape->width) shape->width = 0;
    if (then.height != shape->height) shape->height = 0;
    return 0;
}

static int ops_shape(const struct sm_op_node *ops, size_t n, struct sm_shape *shape,
                     struct sm_err *err) {
    for (size_t i = 0; i < n; i++) {
        const struct sm_op *op = op_of(&ops[i]);
        int rc = ops[i].info->control ? children_shape(&ops[i], shape, err)
                                      : op->shape(ops[i].params, NULL, shape, err);
        if (rc != 0) return sm_err_context(err, "'%s' on line %d", ops[i].info->name, ops[i].line);
    }
    return 0;
}

int sm_shape_out(const struct sm_pipeline *p, struct sm_shape *shape, struct sm_err *err) {
    *shape = (struct sm_shape){.channels = p->source.mode == SM_MODE_L ? 1 : 3};
    return ops_shape(p->ops, p->n_ops, shape, err);
}

const char *sm_dtype_word(int dtype) {
    static const char *const words[] = {"uint8", "float32", "float16", "bfloat16"};
    return words[dtype];
}

int sm_shape_text(const struct sm_pipeline *p, char *text, size_t max, struct sm_err *err) {
    struct sm_shape s;
    char size[32] = "any size";
    if (sm_shape_out(p, &s, err) != 0) return -1;
    if (s.width > 0 && s.height > 0) snprintf(size, sizeof size, "%dx%d", s.width, s.height);
    snprintf(text, max, "%s %s %s", size, s.channels == 1 ? "L" : "RGB",
             sm_dtype_word(p->output.dtype));
    return 0;
}

int64_t sm_shape_bytes(const struct sm_pipeline *p, const struct sm_shape *s) {
    int64_t element = p->output.dtype == SM_DTYPE_UINT8     ? 1
                      : p->output.dtype == SM_DTYPE_FLOAT32 ? 4
                                                            : 2;
    return (int64_t)s->width * s->height * s->channels * element;
}
