/* `shardmill cage`, hidden: the process in which a worker has its samples made. Next in the flow:
 * workers/cage_main.c. */
#include "cli/cli.h"
#include "workers/cage.h"

const struct sm_command sm_cmd_cage = {
    .name = "cage",
    .hidden = true,
    .brief = "started by a worker; not for the command line",
    .operands = "",
    .run_raw = sm_cage_main,
};
