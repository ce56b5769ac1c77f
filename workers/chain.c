/* The chain: compile once, then for each sample draw and apply. */
#include "workers/chain.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int flatten(struct sm_chain *c, const struct sm_op_node *ops, size_t n, struct sm_err *err);
static int shapes_compile(struct sm_chain *c, size_t begin, size_t end, struct sm_shape *shape,
                          struct sm_err *err);
static int shape_check(struct sm_shape shape, enum sm_code code, struct sm_err *err);
static int draw_steps(struct sm_chain *c, size_t begin, size_t end, const struct sm_chain_sample *s,
                      struct sm_shape *shape, struct sm_err *err);

int sm_chain_compile(struct sm_chain *c, const struct sm_op_node *ops, size_t n, struct sm_shape in,
                     struct sm_err *err) {
    *c = (struct sm_chain){.in = in};
    if (flatten(c, ops, n, err) != 0) return -1;
    c->draws = calloc(1, c->draws_bytes + 1);
    if (c->draws == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for the draws of a chain");
    c->out = in;
    return shapes_compile(c, 0, c->n, &c->out, err);
}

void sm_chain_release(struct sm_chain *c) {
    free(c->draws);
    *c = (struct sm_chain){0};
}

/* --- compile --- */

static int flatten(struct sm_chain *c, const struct sm_op_node *ops, size_t n, struct sm_err *err) {
    for (size_t i = 0; i < n; i++) {
        if (c->n == SM_MAX_OPS)
            return sm_fail(err, SM_E_PIPELINE, "more than %d ops in a chain, nested ones included",
                           SM_MAX_OPS);
        struct sm_step *step = &c->steps[c->n++];
        *step = (struct sm_step){
            .op = sm_op_find(ops[i].info->name), .node = &ops[i], .draw = c->draws_bytes};
        assert(step->op != NULL && (step->op->draw == NULL || step->op->draw_size > 0));
        assert(!step->op->info.control || step->op->selects != NULL);
        c->draws_bytes += (step->op->draw_size + 15) & ~(size_t)15;
        if (flatten(c, ops[i].children, ops[i].n_children, err) != 0) return -1;
        step->end = c->n;
    }
    return 0;
}

static int fail_at(const struct sm_step *step, struct sm_err *err) {
    err->code = SM_E_PIPELINE;
    return sm_err_at(err, step->node->line, step->node->column, step->op->info.name);
}

/* A child that may or may not run: what differs is unknown until chance has spoken, but the kind
 * must not differ. */
static int shape_merge(struct sm_shape *shape, struct sm_shape other, struct sm_err *err) {
    if (shape->channels != other.channels || shape->is_float != other.is_float)
        return sm_fail(
            err, SM_E_PIPELINE,
            "whether it runs is left to chance, and it changes the kind of image (hint: move it out)");
    if (shape->width != other.width) shape->width = 0;
    if (shape->height != other.height) shape->height = 0;
    return 0;
}

static int children_compile(struct sm_chain *c, size_t parent, struct sm_shape *shape,
                            struct sm_err *err) {
    for (size_t i = parent + 1; i < c->steps[parent].end; i = c->steps[i].end) {
        struct sm_shape other = *shape;
        if (shapes_compile(c, i, c->steps[i].end, &other, err) != 0) return -1;
        if (shape_merge(shape, other, err) != 0) return fail_at(&c->steps[i], err);
    }
    return 0;
}

static int shapes_compile(struct sm_chain *c, size_t begin, size_t end, struct sm_shape *shape,
                          struct sm_err *err) {
    for (size_t i = begin; i < end; i = c->steps[i].end) {
        struct sm_step *step = &c->steps[i];
        if (step->op->shape != NULL && step->op->shape(step->node->params, NULL, shape, err) != 0)
            return fail_at(step, err);
        if (shape_check(*shape, SM_E_PIPELINE, err) != 0) return fail_at(step, err);
        if (step->op->info.control && children_compile(c, i, shape, err) != 0) return -1;
        step->out = *shape;
    }
    return 0;
}

static int shape_check(struct sm_shape s, enum sm_code code, struct sm_err *err) {
    if (s.width > SM_MAX_IMAGE_SIDE || s.height > SM_MAX_IMAGE_SIDE ||
        (int64_t)s.width * s.height > SM_MAX_IMAGE_PIXELS)
        return sm_fail(err, code,
                       "it makes an image of %d x %d, beyond the limits (side %d, pixels %d)",
                       s.width, s.height, SM_MAX_IMAGE_SIDE, SM_MAX_IMAGE_PIXELS);
    return 0;
}

/* --- a sample --- */

static void *step_draw(const struct sm_chain *c, const struct sm_step *step) {
    return step->op->draw != NULL ? c->draws + step->draw : NULL;
}

int sm_chain_draw(struct sm_chain *c, const struct sm_chain_sample *s, struct sm_shape in,
                  struct sm_shape *out, struct sm_err *err) {
    memset(c->draws, 0, c->draws_bytes);
    for (size_t i = 0; i < c->n; i++)
        c->steps[i].runs = false;
    *out = in;
    return draw_steps(c, 0, c->n, s, out, err);
}

static int draw_children(struct sm_chain *c, size_t parent, const struct sm_chain_sample *s,
                         struct sm_shape *shape, struct sm_err *err) {
    const struct sm_step *step = &c->steps[parent];
    size_t child = 0;
    for (size_t i = parent + 1; i < step->end; i = c->steps[i].end, child++)
        if (step->op->selects(step->node->params, step_draw(c, step), child) &&
            draw_steps(c, i, c->steps[i].end, s, shape, err) != 0)
            return -1;
    return 0;
}

static int draw_steps(struct sm_chain *c, size_t begin, size_t end, const struct sm_chain_sample *s,
                      struct sm_shape *shape, struct sm_err *err) {
    for (size_t i = begin; i < end; i = c->steps[i].end) {
        struct sm_step *step = &c->steps[i];
        void *draw = step_draw(c, step);
        const struct sm_shape before = *shape;
        step->runs = true;
        /* the shape says whether the op can work on this picture at all, so it comes before the
         * draw too */
        if (step->op->shape != NULL && draw != NULL &&
            step->op->shape(step->node->params, NULL, shape, err) != 0)
            return sm_err_context(err, "'%s'", step->op->info.name);
        *shape = before;
        if (draw != NULL) {
            struct sm_rng rng = sm_rng_op(s->seed, s->epoch, s->sample, s->copy, (uint32_t)i);
            step->op->draw(step->node->params, &before, &rng, draw);
        }
        if ((step->op->shape != NULL &&
             step->op->shape(step->node->params, draw, shape, err) != 0) ||
            shape_check(*shape, SM_E_TOO_LARGE, err) != 0)
            return sm_err_context(err, "'%s'", step->op->info.name);
        if (step->op->info.control && draw_children(c, i, s, shape, err) != 0) return -1;
    }
    return 0;
}

int sm_chain_apply(const struct sm_chain *c, struct sm_image *image, struct sm_err *err) {
    for (size_t i = 0; i < c->n; i++) {
        const struct sm_step *step = &c->steps[i];
        if (!step->runs || step->op->apply == NULL) continue;
        if (step->op->apply(step->node->params, step_draw(c, step), image, err) != 0)
            return sm_err_context(err, "'%s'", step->op->info.name);
    }
    return 0;
}

void sm_chain_json(const struct sm_chain *c, struct sm_buf *out) {
    const char *comma = "";
    sm_buf_text(out, "[");
    for (size_t i = 0; i < c->n; i++) {
        const struct sm_step *step = &c->steps[i];
        if (!step->runs || step->op->n_draws == 0) continue;
        sm_buf_printf(out, "%s{\"op\":\"%s\"", comma, step->op->info.name);
        for (size_t k = 0; k < step->op->n_draws; k++) {
            sm_buf_printf(out, ",\"%s\":", step->op->draws[k].name);
            sm_param_json(&step->op->draws[k], c->draws + step->draw, out);
        }
        sm_buf_text(out, "}");
        comma = ",";
    }
    sm_buf_text(out, "]");
}
