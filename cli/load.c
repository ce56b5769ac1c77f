/* A pipeline file as commands want it: parsed against the ops of this program, with the common
 * options put over it. After it: a command compiles it (workers/engine.h) or submits it (client.h).
 */
#include "cli/cli.h"
#include "workers/ops/op.h"

int sm_cli_load(struct sm_pipeline *p, const char *path, const struct sm_common *common,
                struct sm_err *err) {
    if (sm_pipeline_load(p, path, sm_op_table(), err) != 0) {
        if (err->code != SM_E_MEMORY) err->code = SM_E_PIPELINE;
        return -1;
    }
    if (common->source != NULL) p->source.path = common->source;
    if (common->seed >= 0) p->seed = common->seed;
    return 0;
}
