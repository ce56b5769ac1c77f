/* A pipeline file as commands want it: parsed against the ops of this program, with the common
 * options put over it. After it: a command compiles it (workers/engine.h) or submits it (client.h).
 */
#include "cli/cli.h"
#include "workers/ops/op.h"

const char *const sm_parts[] = {"train", "val", NULL};

int sm_cli_load(struct sm_pipeline *p, const char *path, const struct sm_common *common,
                struct sm_err *err) {
    if (sm_pipeline_load(p, path, sm_op_table(), err) != 0) {
        if (err->code != SM_E_MEMORY) err->code = SM_E_PIPELINE;
        return -1;
    }
    if (common->source != NULL) p->source.path = common->source;
    if (common->seed >= 0) p->seed = common->seed;
    p->part = common->part;
    if (p->part == SM_PART_VAL && p->split.val == 0)
        return sm_fail(err, SM_E_PIPELINE,
                       "%s: nothing is held out for validation (hint: split: {val: 0.1})", path);
    return 0;
}
