/* `shardmill help [COMMAND]`: the texts that --help gives. */
#include "cli/help.h"

static int run(const void *values, int n, char **operands) {
    (void)values;
    struct sm_buf text;
    struct sm_err err;
    const struct sm_command *command = n > 0 ? sm_command_find(operands[0]) : NULL;
    if (n > 0 && command == NULL) {
        sm_command_unknown(operands[0], &err);
        return sm_cli_fail(&err);
    }
    sm_buf_init(&text, 1 << 20);
    if (command != NULL)
        sm_help_command(command, &text);
    else
        sm_help_overview(&text);
    fputs(text.data, stdout);
    sm_buf_release(&text);
    return SM_EXIT_DONE;
}

const struct sm_command sm_cmd_help = {
    .name = "help",
    .order = 100,
    .brief = "this list, or all about one command",
    .operands = "[COMMAND]",
    .operands_max = 1,
    .operand = SM_OPERAND_COMMAND,
    .values_size = sizeof(struct sm_common),
    .run = run,
};
