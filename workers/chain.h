/* A compiled chain of ops: nodes of the pipeline file flattened in depth-first order, each with its
 * position (which names its random stream), shapes checked before anything runs. For a sample all
 * draws come first, then everything is applied, so that the decoder already knows the window. Used
 * by workers/engine.c. */
#pragma once

#include "lib/buf.h"
#include "lib/err.h"
#include "lib/limits.h"
#include "workers/ops/op.h"

struct sm_step {
    const struct sm_op *op;
    const struct sm_op_node *node;
    size_t draw;         /* offset of its draw struct in chain.draws */
    size_t end;          /* index behind its children; children are flattened right behind it */
    struct sm_shape out; /* as far as it is known before a sample is read */
    bool runs;           /* in the sample at hand */
};

struct sm_chain {
    struct sm_step steps[SM_MAX_OPS];
    size_t n;
    unsigned char *draws;
    size_t draws_bytes;
    struct sm_shape in, out; /* out: as far as it is known */
};

/* Which sample: the name of its random streams. */
struct sm_chain_sample {
    uint64_t seed, sample;
    uint32_t epoch, copy;
};

/* Checks shapes from `in` on; errors are SM_E_PIPELINE and name line, column and op. Keeps ops. */
int sm_chain_compile(struct sm_chain *c, const struct sm_op_node *ops, size_t n, struct sm_shape in,
                     struct sm_err *err);
void sm_chain_release(struct sm_chain *c);

/* Draws everything for a sample of this size; fills *out. */
int sm_chain_draw(struct sm_chain *c, const struct sm_chain_sample *s, struct sm_shape in,
                  struct sm_shape *out, struct sm_err *err);
/* Runs the ops that were drawn. */
int sm_chain_apply(const struct sm_chain *c, struct sm_image *image, struct sm_err *err);
/* Appends what was drawn: [{"op":"RandomHorizontalFlip","flip":true},…], in chain order; ops
 * without chance and children that were not chosen are left out. */
void sm_chain_json(const struct sm_chain *c, struct sm_buf *out);
