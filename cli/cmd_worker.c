/* `shardmill worker`: makes samples for a broker until it is told to stop. Next in the flow:
 * workers/shell.c. */
#include "cli/cli.h"
#include "lib/limits.h"
#include "workers/shell.h"

struct values {
    struct sm_common common;
    int64_t cage_memory_mb, batch_memory_mb;
    const char *data_bind, *advertise;
};

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n, (void)operands;
    const volatile sig_atomic_t *stop = sm_cli_stop();
    struct sm_worker_options options = {.endpoint = v->common.broker,
                                        .no_sandbox = !v->common.sandbox,
                                        .no_fuse = !v->common.fuse,
                                        .cage_memory = (uint64_t)v->cage_memory_mb << 20,
                                        .batch_memory = (uint64_t)v->batch_memory_mb << 20,
                                        .data_bind = v->data_bind,
                                        .advertise = v->advertise};
    struct sm_err err = {0};
    struct sm_keys *keys = NULL;
    int rc = sm_keys_load(NULL, &keys, &err);
    options.keys = keys;
    if (rc == 0) rc = sm_worker_run(&options, stop, &err);
    sm_keys_free(&keys);
    return rc == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    {.param = {.name = "broker",
               .type = SM_T_STR,
               .offset = SM_COMMON(broker),
               .doc = "endpoint of the broker, such as tcp://127.0.0.1:5570"},
     .metavar = "ENDPOINT",
     .required = true},
    SM_OPTION_KEYS,
    SM_OPTION_FUSE,
    SM_OPTION_SANDBOX,
    {.param = {.name = "cage-memory",
               .type = SM_T_INT,
               .offset = AT(cage_memory_mb),
               .dflt = "1200",
               .min = 256,
               .max = 65536,
               .doc = "address space of a cage; an image that needs more is quarantined"},
     .metavar = "MB"},
    {.param = {.name = "batch-memory",
               .type = SM_T_INT,
               .offset = AT(batch_memory_mb),
               .dflt = "256",
               .min = 1,
               .max = 1048576,
               .doc = "memory for batches that trainers have not released yet"},
     .metavar = "MB"},
    {.param = {.name = "data-bind",
               .type = SM_T_STR,
               .offset = AT(data_bind),
               .dflt = "tcp://127.0.0.1:*",
               .doc =
                   "where trainers on other hosts fetch batches; beyond loopback with keys only"},
     .metavar = "ENDPOINT"},
    {.param = {.name = "advertise",
               .type = SM_T_STR,
               .offset = AT(advertise),
               .doc =
                   "the host or endpoint that they are told instead (behind a NAT or a forwarded "
                   "port)"},
     .metavar = "HOST"},
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill worker --broker tcp://127.0.0.1:5570",
    "shardmill worker --broker ipc:///run/shardmill/broker --cage-memory 2000", NULL};

const struct sm_command sm_cmd_worker = {
    .name = "worker",
    .order = 51,
    .brief = "make samples for a broker",
    .operands = "",
    .details =
        "Works for one broker until SIGTERM or SIGINT, and waits for it when it is not there. It uses about one core; start "
        "as many as there are cores. It can be stopped or killed at any time: what it was making is made again elsewhere.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};
