/* Reading a command line against a command's table. */
#pragma once

#include "cli/cli.h"

/* Fills values (zeroed memory of command->values_size) and moves the operands to the front of argv,
 * which begins behind the command's name. *help: --help or -h was given, nothing else counts. */
int sm_options_read(const struct sm_command *command, int argc, char **argv, void *values,
                    int *n_operands, bool *help, struct sm_err *err);
