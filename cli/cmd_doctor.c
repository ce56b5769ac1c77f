/* `shardmill doctor`: is this machine fit, and does the cage hold on it? Next in the flow:
 * cli/doctor.c. */
#include "cli/cli.h"
#include "cli/doctor.h"

struct values {
    struct sm_common common;
};

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n, (void)operands;
    struct sm_buf out;
    sm_buf_init(&out, 1 << 20);
    enum sm_health worst = sm_doctor(v->common.json, &out);
    fputs(out.data, stdout);
    sm_buf_release(&out);
    return worst == SM_HEALTH_BAD ? SM_EXIT_FAILED : SM_EXIT_DONE;
}

static const struct sm_option options[] = {SM_OPTION_JSON};
static const char *const examples[] = {"shardmill doctor", NULL};

const struct sm_command sm_cmd_doctor = {
    .name = "doctor",
    .order = 60,
    .brief = "check this machine, and try every refusal of the cage on it",
    .operands = "",
    .details =
        "One line for each check; exit 1 when something is bad. Warnings tell what is slower or weaker than it could be.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};
