/* The inside of a cage: starts the engine, locks itself in, then makes one sample after the other
 * as its shell asks. What comes before is cage.c, which starts this process; what it makes is
 * checked by cage_check.c. */
#include "workers/cage_page.h"

#include "pipelines/lang/pipeline.h"
#include "workers/ops/op.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static struct sm_cage_memory *memory;
static uint64_t address_space;

static int start(const char *argv0, bool sandbox, unsigned flags, struct sm_pipeline *pipeline,
                 struct sm_engine **engine, struct sm_err *err);
static void answer(uint64_t seq, int failed, const struct sm_engine_result *result,
                   const struct sm_err *err);
static void serve(struct sm_engine *engine);

/* argv: cage PARENT SANDBOX BYTES FUSE; see spawn() in cage.c. */
int sm_cage_main(int argc, char **argv) {
    if (argc != 5) {
        fputs("shardmill cage is started by a worker, not by hand\n", stderr);
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != (pid_t)atol(argv[1])) return 1; /* it died before we asked to die with it */
    memory = mmap(NULL, sizeof *memory, PROT_READ | PROT_WRITE, MAP_SHARED, SM_CAGE_MEMORY, 0);
    if (memory == MAP_FAILED) return 1;
    close(SM_CAGE_MEMORY);
    address_space = strtoull(argv[3], NULL, 10);
    struct sm_pipeline pipeline = {0};
    struct sm_engine *engine = NULL;
    struct sm_err err = {0};
    uint64_t seq = memory->page.request.seq;
    unsigned flags = strcmp(argv[4], "0") == 0 ? SM_ENGINE_NO_FUSE : 0;
    int failed = start(argv[0], strcmp(argv[2], "1") == 0, flags, &pipeline, &engine, &err);
    answer(seq, failed, NULL, &err);
    if (!failed) serve(engine);
    return failed ? 1 : 0;
}

/* Memory that is out ends in abort() or a trap inside the libraries; say so before the end. */
static void on_abort(int signal_number) {
    size_t probe = address_space / 4;
    if (probe > 0 && mmap(NULL, probe, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
        memory->page.out_of_memory = 1;
    _exit(128 + signal_number);
}

static int start(const char *argv0, bool sandbox, unsigned flags, struct sm_pipeline *pipeline,
                 struct sm_engine **engine, struct sm_err *err) {
    signal(SIGABRT, on_abort);
    signal(SIGTRAP, on_abort);
    signal(SIGXFSZ, SIG_IGN);
    if (sm_engine_start(argv0, err) != 0) return -1;
    if (sandbox && sm_cage_lock(address_space + sizeof *memory, err) != 0) return -1;
    uint64_t n = memory->page.pipeline_bytes;
    if (n > sizeof memory->pipeline) return sm_fail(err, SM_E_PIPELINE, "the pipeline is too long");
    if (sm_pipeline_parse(pipeline, "pipeline", memory->pipeline, n, sm_op_table(), err) != 0)
        return -1;
    return sm_engine_new(engine, pipeline, flags, err);
}

static void tell(void) {
    while (write(SM_CAGE_SOCKET, "", 1) < 0 && errno == EINTR)
        ;
}

static void answer(uint64_t seq, int failed, const struct sm_engine_result *r,
                   const struct sm_err *err) {
    struct sm_cage_answer a = {.seq = seq, .status = failed ? -1 : 0};
    if (failed) {
        a.code = (uint32_t)err->code;
        snprintf(a.text, sizeof a.text, "%.*s", (int)sizeof a.text - 1, err->text);
    } else if (r != NULL) {
        a.n_bytes = r->n_bytes;
        a.draws_bytes = r->draws_bytes;
        a.width = r->width;
        a.height = r->height;
        a.channels = r->channels;
        a.in_width = r->in_width;
        a.in_height = r->in_height;
        snprintf(a.extension, sizeof a.extension, "%s", r->extension);
    }
    memory->page.answer = a;
    tell();
}

static void make(struct sm_engine *engine, const struct sm_cage_request *ask) {
    uint32_t slot = ask->slot % SM_CAGE_SLOTS;
    struct sm_engine_request request = {
        .seed = ask->seed,
        .epoch = ask->epoch,
        .sample = ask->sample,
        .copy = ask->copy,
        .original = ask->original != 0,
        .tensor = ask->tensor != 0,
        .added = ask->added != 0,
        .bytes = memory->input[slot],
        .n_bytes = ask->n_bytes,
    };
    struct sm_engine_result result = {0};
    struct sm_err err = {0};
    int failed = sm_engine_make(engine, &request, memory->result[slot], SM_MAX_RESULT_BYTES,
                                memory->draws[slot], &result, &err);
    answer(ask->seq, failed, &result, &err);
}

static void probe(const struct sm_cage_request *ask) {
    struct sm_err err = {.code = SM_E_SANDBOX, .text = "refused"};
    bool refused = sm_probe_run(ask->probe % SM_PROBE_COUNT);
    answer(ask->seq, refused ? -1 : 0, NULL, &err);
}

static void serve(struct sm_engine *engine) {
    for (;;) {
        char byte;
        ssize_t n = read(SM_CAGE_SOCKET, &byte, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return; /* the shell is gone */
        struct sm_cage_request ask = memory->page.request;
        if (ask.ask == SM_CAGE_PROBE)
            probe(&ask);
        else
            make(engine, &ask);
    }
}
