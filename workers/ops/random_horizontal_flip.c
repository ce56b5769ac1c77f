/* RandomHorizontalFlip: mirrors left to right with probability p. */
#include "workers/ops/flip.h"

static int apply(const void *p, const void *from, struct sm_image *image, struct sm_err *err) {
    (void)p;
    return flip_apply(from, image, true, false, err);
}

const struct sm_op sm_op_random_horizontal_flip = FLIP_OP("RandomHorizontalFlip", "left to right");
