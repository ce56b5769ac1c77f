/* `shardmill submit`: gives a running broker a pipeline to stream. Before: cli/stream.c describes
 * the job. Next in the flow: broker/jobs.c. */
#include "cli/client.h"
#include "cli/hand_over.h"
#include "cli/stream.h"

#include <inttypes.h>

enum { PATIENCE_MS = 10000 };

struct values {
    struct sm_common common;
    const char *state;
    int64_t epochs;
    bool reindex;
};

static void result_print(const struct sm_stream *s, bool json) {
    uint64_t steps = sm_stream_steps(&s->spec, 1);
    if (!json) {
        printf("%s\n", s->id);
        return;
    }
    struct sm_buf name;
    sm_buf_init(&name, 4096);
    sm_buf_json(&name, s->spec.name);
    printf("{\"job\":\"%s\",\"name\":%s,\"samples\":%" PRIu64
           ",\"batch_size\":%u,\"batch_bytes\":%" PRIu64 ",\"steps\":%" PRIu64
           ",\"epochs\":%u,\"pipeline_digest\":\"%s\",\"dataset_digest\":\"%s\"}\n",
           s->id, name.data, s->spec.samples, s->spec.batch_size, s->spec.batch_bytes, steps,
           s->spec.epochs, s->pipeline_digest, s->spec.dataset_digest);
    sm_buf_release(&name);
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    struct sm_stream_options options = {.common = &v->common,
                                        .state_dir = v->state,
                                        .epochs = (uint32_t)v->epochs,
                                        .reindex = v->reindex,
                                        .stop = sm_cli_stop()};
    const char *endpoint = v->common.broker != NULL ? v->common.broker : SM_BROKER_ENDPOINT;
    struct sm_stream stream;
    struct sm_client *client = NULL;
    struct sm_err err = {0};
    int r = sm_stream_open(&stream, operands[0], &options, &err);
    if (r == 0) r = sm_client_new(&client, endpoint, NULL, &err);
    if (r == 0) r = sm_hand_over_job(client, &stream.pipeline, &stream.spec, &err);
    if (r == 0) r = sm_client_submit(client, stream.id, &stream.spec, PATIENCE_MS, &err);
    if (r == 0 && !v->common.quiet) result_print(&stream, v->common.json);
    sm_client_free(&client);
    sm_stream_release(&stream);
    return r == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    SM_OPTION_BROKER,
    SM_OPTION_KEYS,
    SM_OPTION_SOURCE,
    SM_OPTION_SEED,
    SM_OPTION_PART,
    {.param = {.name = "epochs",
               .type = SM_T_INT,
               .offset = AT(epochs),
               .dflt = "0",
               .max = (double)UINT32_MAX,
               .doc = "epochs after which the job is complete, 0: without end"},
     .metavar = "N"},
    SM_OPTION_STATE(
        AT(state),
        "folder for the dataset's index and what the ops have learned; the broker keeps what workers "
        "on other hosts need of it"),
    SM_OPTION_REINDEX(AT(reindex)),
    SM_OPTION_WORKERS, /* of fits, which come first */
    SM_OPTION_SANDBOX,
    SM_OPTION_JSON,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill submit pipelines/photos.yaml --source ~/pets",
    "shardmill submit photos.yaml --broker ipc:///run/shardmill/broker --epochs 90 --json", NULL};

const struct sm_command sm_cmd_submit = {
    .name = "submit",
    .order = 42,
    .brief = "give a running broker a pipeline to stream to trainers",
    .operands = "FILE",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_PIPELINE,
    .details =
        "Indexes the dataset, submits the job and prints its id. Workers begin when the first trainer "
        "attaches, by the job's name or id. The same file, dataset and seed again are the same job; one that "
        "was cancelled begins again where its trainers committed. Only the part that --part names is "
        "submitted: the held-out part is a job of its own.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};
