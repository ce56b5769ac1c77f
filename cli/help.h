/* Help and documents, all made from the tables of commands, ops and sections. */
#pragma once

#include "cli/cli.h"
#include "lib/buf.h"

/* `shardmill --help` and `shardmill COMMAND --help`. */
void sm_help_overview(struct sm_buf *out);
void sm_help_command(const struct sm_command *command, struct sm_buf *out);
/* Appends text wrapped at `width` columns; lines after the first are indented. *column: where the
 * text begins. */
void sm_help_wrap(struct sm_buf *out, const char *text, int column, int indent, int width);
/* An option's documentation with its range and default, one line. */
void sm_option_doc(const struct sm_option *o, struct sm_buf *out);
/* A switch that is on unless `--no-name` is given: help shows it in that form. */
bool sm_option_is_on(const struct sm_option *o);

/* What `shardmill docs NAME` prints. */
void sm_doc_man(struct sm_buf *out);    /* roff */
void sm_doc_bash(struct sm_buf *out);   /* completion */
void sm_doc_schema(struct sm_buf *out); /* JSON Schema, draft-07, of a pipeline file */
void sm_doc_ops(struct sm_buf *out);    /* Markdown: ops and sections */
void sm_doc_limits(struct sm_buf *out); /* Markdown: lib/limits.h */
/* One op as `shardmill ops NAME` prints it. */
struct sm_op;
void sm_help_op(const struct sm_op *op, struct sm_buf *out);
