/* What a command is. One command is one file cli/cmd_NAME.c that defines `const struct sm_command
 * sm_cmd_NAME`; the build makes the list from the file names, and main, help, man page, completion
 * and tests read the tables. Next in the flow: main.c finds the command, options.c fills its
 * struct, its run() works. */
#pragma once

#include "lib/err.h"
#include "lib/param.h"
#include "pipelines/lang/pipeline.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The four ways in which any command ends. */
enum sm_exit {
    SM_EXIT_DONE = 0,
    SM_EXIT_FAILED = 1,
    SM_EXIT_USAGE = 2,      /* wrong use, or a pipeline file that is not valid */
    SM_EXIT_QUARANTINE = 3, /* done, but more samples quarantined than allowed */
};

/* An option: `--name VALUE`, or for a bool `--name` and `--no-name`. The row's dflt is filled in
 * first; with dflt NULL the option has none and what is not given stays 0 (in sm_common: see
 * there). */
struct sm_option {
    struct sm_param param; /* name without dashes; offset in the command's own struct */
    const char *metavar;   /* "DIR"; of a bool NULL */
    char letter;           /* `-o`; 0 for none */
    bool required;
    bool hidden; /* works, but help does not show it */
};

/* What several commands share. It is the first member of each command's struct, so that these rows
 * fit everywhere. */
struct sm_common {
    const char *source; /* NULL: the file's own */
    int64_t seed;       /* -1: the file's own */
    int64_t workers;    /* 0: one for each core */
    const char *broker; /* NULL: an embedded one */
    const char
        *keys; /* main puts it into SHARDMILL_KEYS, where children and sm_keys_load find it */
    bool json, quiet;
    bool sandbox; /* decode in a cage */
    bool fuse;    /* the engine's short cuts, which change no byte */
    int part;     /* enum sm_part_of */
};

#define SM_COMMON(member) offsetof(struct sm_common, member)
#define SM_OPTION_SOURCE                                                               \
    {                                                                                  \
        .param = {.name = "source",                                                    \
                  .type = SM_T_STR,                                                    \
                  .offset = SM_COMMON(source),                                         \
                  .doc = "read the data from here instead of the file's source.path"}, \
        .metavar = "PATH"                                                              \
    }
#define SM_OPTION_SEED                                    \
    {                                                     \
        .param = {.name = "seed",                         \
                  .type = SM_T_INT,                       \
                  .offset = SM_COMMON(seed),              \
                  .max = (double)INT64_MAX,               \
                  .doc = "another seed than the file's"}, \
        .metavar = "N"                                    \
    }
#define SM_OPTION_WORKERS                                                       \
    {                                                                           \
        .param = {.name = "workers",                                            \
                  .type = SM_T_INT,                                             \
                  .offset = SM_COMMON(workers),                                 \
                  .min = 1,                                                     \
                  .max = 1024,                                                  \
                  .doc = "worker processes (without this: one for each core)"}, \
        .metavar = "N"                                                          \
    }
#define SM_OPTION_BROKER                                                                \
    {                                                                                   \
        .param = {.name = "broker",                                                     \
                  .type = SM_T_STR,                                                     \
                  .offset = SM_COMMON(broker),                                          \
                  .doc = "endpoint of a running broker, such as tcp://127.0.0.1:5570"}, \
        .metavar = "ENDPOINT"                                                           \
    }
#define SM_OPTION_KEYS                                                             \
    {                                                                              \
        .param = {.name = "keys",                                                  \
                  .type = SM_T_STR,                                                \
                  .offset = SM_COMMON(keys),                                       \
                  .doc = "folder of CURVE keys, for tcp (without this: the one "   \
                         "that the environment's SHARDMILL_KEYS names, or none)"}, \
        .metavar = "DIR"                                                           \
    }
#define SM_OPTION_JSON                        \
    {                                         \
        .param = {                            \
            .name = "json",                   \
            .type = SM_T_BOOL,                \
            .offset = SM_COMMON(json),        \
            .dflt = "false",                  \
            .doc = "print the result as JSON" \
        }                                     \
    }
#define SM_OPTION_QUIET                                              \
    {                                                                \
        .param = {.name = "quiet",                                   \
                  .type = SM_T_BOOL,                                 \
                  .offset = SM_COMMON(quiet),                        \
                  .dflt = "false",                                   \
                  .doc = "no progress and no summary, errors only"}, \
        .letter = 'q'                                                \
    }

#define SM_OPTION_SANDBOX                                                      \
    {                                                                          \
        .param = {                                                             \
            .name = "sandbox",                                                 \
            .type = SM_T_BOOL,                                                 \
            .offset = SM_COMMON(sandbox),                                      \
            .dflt = "true",                                                    \
            .doc = "decode without a cage, on a machine whose kernel has none" \
        }                                                                      \
    }

#define SM_OPTION_FUSE                                                                    \
    {                                                                                     \
        .param = {                                                                        \
            .name = "fuse",                                                               \
            .type = SM_T_BOOL,                                                            \
            .offset = SM_COMMON(fuse),                                                    \
            .dflt = "true",                                                               \
            .doc = "op by op from a whole decode: slower, and the bytes must be the same" \
        }                                                                                 \
    }
/* Rows whose value lies in the command's own struct, at `at`. */
#define SM_OPTION_EPOCH(at)                                \
    {                                                      \
        .param = {.name = "epoch",                         \
                  .type = SM_T_INT,                        \
                  .offset = at,                            \
                  .dflt = "0",                             \
                  .max = (double)UINT32_MAX,               \
                  .doc = "which epoch's order and draws"}, \
        .metavar = "N"                                     \
    }
/* The folder in which commands find what others have found out. */
#define SM_STREAM_STATE "./shardmill-state"
#define SM_OPTION_STATE(at, text)          \
    {                                      \
        .param = {.name = "state",         \
                  .type = SM_T_STR,        \
                  .offset = at,            \
                  .dflt = SM_STREAM_STATE, \
                  .doc = text},            \
        .metavar = "DIR"                   \
    }
#define SM_OPTION_REINDEX(at)                                                          \
    {                                                                                  \
        .param = {                                                                     \
            .name = "reindex",                                                         \
            .type = SM_T_BOOL,                                                         \
            .offset = at,                                                              \
            .dflt = "false",                                                           \
            .doc = "look at the dataset anew instead of using the index that is there" \
        }                                                                              \
    }

/* The choices of --part, in the order of enum sm_part_of. */
extern const char *const sm_parts[];
#define SM_OPTION_PART                                                             \
    {                                                                              \
        .param = {.name = "part",                                                  \
                  .type = SM_T_ENUM,                                               \
                  .offset = SM_COMMON(part),                                       \
                  .dflt = "train",                                                 \
                  .choices = sm_parts,                                             \
                  .doc = "which part of a dataset that the pipeline file splits"}, \
        .metavar = "PART"                                                          \
    }

/* What shell completion offers for an operand. */
enum sm_operand {
    SM_OPERAND_NONE,
    SM_OPERAND_PIPELINE,
    SM_OPERAND_DIR,
    SM_OPERAND_OP,
    SM_OPERAND_COMMAND,
    SM_OPERAND_DOC
};

struct sm_command {
    const char *name;
    int order;            /* its place in lists; commands in the order in which a user meets them */
    bool hidden;          /* not in lists */
    const char *brief;    /* one line */
    const char *operands; /* "FILE…", "[NAME]", "" */
    int operands_min, operands_max;
    enum sm_operand operand;
    const char *details;         /* paragraphs, parted by empty lines; may be NULL */
    const char *const *examples; /* command lines, ended by NULL; may be NULL */
    const struct sm_option *options;
    size_t n_options;
    size_t values_size; /* of the command's struct, which begins with struct sm_common */
    int (*run)(const void *values, int n_operands, char **operands);
    /* Instead of all that: gets its own name and what follows on the command line, unread. */
    int (*run_raw)(int argc, char **argv);
};

/* The generated list, in no special order. */
extern const struct sm_command *const sm_commands[];
extern const size_t sm_commands_count;
const struct sm_command *sm_command_find(const char *name);
/* Fills out (sm_commands_count pointers) by order, without the hidden ones; returns how many. */
size_t sm_commands_sorted(const struct sm_command **out);
/* "unknown command 'x' (hint: …)" */
int sm_command_unknown(const char *name, struct sm_err *err);

/* From here on SIGTERM and SIGINT set the number that is lent, and end nothing by themselves; 0
 * until then. */
const volatile sig_atomic_t *sm_cli_stop(void);
/* While on, those signals end the process as it stands: for work that leaves nothing half and looks
 * at no flag. */
void sm_cli_stop_at_once(bool on);
/* Prints an error to stderr and returns the exit code that belongs to it. */
int sm_cli_fail(const struct sm_err *err);
/* sm_pipeline_load with the common options --source, --seed and --part put over it. Whatever is
 * wrong with the file is SM_E_PIPELINE, and so exit 2. *p is to be released in any case. */
int sm_cli_load(struct sm_pipeline *p, const char *path, const struct sm_common *common,
                struct sm_err *err);
