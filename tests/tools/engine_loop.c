/* The bare chain, for benchmarks: reads files, runs the engine over each in one process and throws
 * the results away. usage: engine_loop PIPELINE COPIES FILE…    prints samples per second and what
 * the last result was. */
#include "lib/fs.h"
#include "lib/limits.h"
#include "lib/wire.h"
#include "workers/engine.h"
#include "workers/ops/op.h"

#include <stdio.h>
#include <stdlib.h>

static int fail(const struct sm_err *err) {
    fprintf(stderr, "%s\n", err->text);
    return 1;
}

int main(int argc, char **argv) {
    struct sm_err err;
    struct sm_pipeline pipeline;
    struct sm_engine *engine = NULL;
    struct sm_engine_result result = {0};
    if (argc < 4) return 2;
    uint32_t copies = (uint32_t)atoi(argv[2]);
    if (sm_engine_start(argv[0], &err) < 0 ||
        sm_pipeline_load(&pipeline, argv[1], sm_op_table(), &err) < 0 ||
        sm_engine_new(&engine, &pipeline, 0, &err) < 0)
        return fail(&err);
    uint8_t *out = malloc(SM_MAX_RESULT_BYTES);
    char *draws = malloc(SM_MAX_DRAWS_BYTES);
    struct sm_buf file;
    sm_buf_init(&file, SM_MAX_SAMPLE_BYTES);
    int64_t start = sm_now_ns();
    uint64_t n = 0;
    for (uint32_t copy = 0; copy < copies; copy++)
        for (int i = 3; i < argc; i++, n++) {
            sm_buf_reset(&file);
            if (sm_fs_read_file(argv[i], SM_MAX_SAMPLE_BYTES, &file, &err) < 0) return fail(&err);
            struct sm_engine_request request = {.seed = (uint64_t)pipeline.seed,
                                                .sample = (uint64_t)(i - 3),
                                                .copy = copy,
                                                .bytes = (const uint8_t *)file.data,
                                                .n_bytes = file.len};
            if (sm_engine_make(engine, &request, out, SM_MAX_RESULT_BYTES, draws, &result, &err) <
                0)
                return fail(&err);
        }
    double seconds = (double)(sm_now_ns() - start) / 1e9;
    printf("%.1f samples/s, %s of %d x %d\n", (double)n / seconds, result.extension, result.width,
           result.height);
    sm_buf_release(&file);
    free(out);
    free(draws);
    sm_engine_free(&engine);
    sm_pipeline_release(&pipeline);
    return 0;
}
