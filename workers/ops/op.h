/* What an op is. One op is one file here, named after it, that defines `const struct sm_op
 * sm_op_<file>`; the build makes the list from the file names. Roles are strict:
 *
 *   shape  declares the size that comes out, before anything runs;
 *   draw   is the only place that may use randomness; it sees sizes, never pixels, and fills the
 * op's draw struct; apply  is a pure function of (parameters, draw, image).
 *
 * Both structs are described by tables, so that the parser, help, schema, ops.md and a sample's
 * JSON need nothing else. */
#pragma once

#include "lib/err.h"
#include "lib/param.h"
#include "lib/rng.h"
#include "pipelines/lang/pipeline.h"
#include "workers/image.h"
#include "workers/table/fit.h"

#include <stddef.h>

/* Width, height and channels; 0 where a sample decides (before it is read). */
struct sm_shape {
    int width, height, channels;
    bool is_float; /* after Normalize: float32 */
};

/* What an op on rows is (StandardScaler, PCA, …): a matrix in, a matrix out, for a whole block at
 * once and without chance. sm_op.rows points at it; shape, draw and apply are then NULL. */
struct sm_row_op {
    /* in -> out: names and kinds of the columns that come out; memory from the arena. learned is
     * NULL before the fit: then a number of columns that only the fit decides is refused by out->n
     * = 0. A column that the op cannot take is an error that names it. */
    int (*schema)(const void *params, const struct sm_artifact *learned, const struct sm_schema *in,
                  struct sm_schema *out, struct sm_arena *arena, struct sm_err *err);
    const struct sm_fit *fit; /* NULL: there is nothing to learn */
    /* Optional: checks what was learned and sets learned->prepared (and release) to what apply
     * needs of it, or of the parameters, in another form, once for all blocks. Of an op without a
     * fit learned holds nothing else. */
    int (*prepare)(const void *params, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err);
    /* Writes out (allocated: in->n rows, out's columns); pure. Rows that it cannot take go to
     * faults. in and out never overlap. Element types of in and out are equal. */
    int (*apply)(const void *params, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err);
};

struct sm_op {
    struct sm_op_info info; /* name, doc, parameters: what the pipeline file shows */
    const struct sm_param *draws;
    size_t n_draws, draw_size;
    /* Checks what ranges cannot say (size too many numbers for this op, min above max). Optional.
     */
    int (*check)(const void *params, struct sm_err *err);
    /* in -> out. draw is NULL before chance has spoken; then a size that depends on it becomes 0.
     */
    int (*shape)(const void *params, const void *draw, struct sm_shape *shape, struct sm_err *err);
    /* Optional: an op without it is not random. *in is the size of this sample at this point of the
     * chain. */
    void (*draw)(const void *params, const struct sm_shape *in, struct sm_rng *rng, void *draw);
    int (*apply)(const void *params, const void *draw, struct sm_image *image, struct sm_err *err);
    /* Control ops only: whether child i runs under this draw. The chain draws and applies the
     * children itself. */
    bool (*selects)(const void *params, const void *draw, size_t child);
    const struct sm_row_op *rows; /* an op on rows */
};

/* The generated list, sorted by name. */
extern const struct sm_op *const sm_ops[];
extern const size_t sm_ops_count;
const struct sm_op *sm_op_find(const char *name);
/* The same list for the pipeline's parser, which also calls each op's check. */
const struct sm_op_table *sm_op_table(void);
