/* `shardmill docs NAME`: the documents that `make docs` and `make install` put in place. Hidden:
 * users get them installed. */
#include "cli/help.h"

#include <string.h>

enum { TEXT_BYTES_MAX = 16 << 20 };

static const struct {
    const char *name;
    void (*write)(struct sm_buf *out);
} docs[] = {
    {"man", sm_doc_man}, {"bash", sm_doc_bash},     {"schema", sm_doc_schema},
    {"ops", sm_doc_ops}, {"limits", sm_doc_limits},
};

static int run(const void *values, int n, char **operands) {
    (void)values, (void)n;
    struct sm_err err;
    for (size_t i = 0; i < sizeof docs / sizeof *docs; i++) {
        if (strcmp(docs[i].name, operands[0]) != 0) continue;
        struct sm_buf out;
        sm_buf_init(&out, TEXT_BYTES_MAX);
        docs[i].write(&out);
        fputs(out.data, stdout);
        sm_buf_release(&out);
        return SM_EXIT_DONE;
    }
    sm_fail(&err, SM_E_USAGE, "no document '%.60s' (hint: man, bash, schema, ops or limits)",
            operands[0]);
    return sm_cli_fail(&err);
}

const struct sm_command sm_cmd_docs = {
    .name = "docs",
    .order = 101,
    .hidden = true,
    .brief = "print a document that is made from the tables: man, bash, schema, ops or limits",
    .operands = "NAME",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_DOC,
    .values_size = sizeof(struct sm_common),
    .run = run,
};
