/* RandomVerticalFlip: mirrors top to bottom with probability p. */
#include "workers/ops/flip.h"

static int apply(const void *p, const void *from, struct sm_image *image, struct sm_err *err) {
    (void)p;
    return flip_apply(from, image, false, true, err);
}

const struct sm_op sm_op_random_vertical_flip = FLIP_OP("RandomVerticalFlip", "top to bottom");
