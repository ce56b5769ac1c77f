/* What `explain` tells of rows: columns, what each op on rows makes of them and has to learn, rows
 * that cannot be read. Before: the pipeline is loaded, its dataset indexed. After: cmd_explain.c
 * prints it. */
#pragma once

#include "cli/dataset.h"
#include "lib/buf.h"
#include "pipelines/lang/pipeline.h"

struct sm_row_plan;

/* Runs the schemas of all ops on rows and asks each that learns whether it can, before anything is
 * read. rows: of the training part, 0: not known. dir: of artifacts, for ops of which p->artifacts
 * knows one. file: for errors, which name line, column and op. A table needs data->index. */
int sm_row_plan_new(struct sm_row_plan **gives, const struct sm_pipeline *p, const char *file,
                    const struct sm_dataset *data, uint64_t rows, const char *dir,
                    struct sm_err *err);
/* The same walk before a fit, which otherwise would find out op after op, and of images when all
 * are decoded. Errors name line and column. */
int sm_row_plan_check(const struct sm_pipeline *p, const struct sm_dataset *data, const char *dir,
                      struct sm_err *err);
void sm_row_plan_free(struct sm_row_plan **plan);
/* Columns that come out; 0: only a fit tells. */
size_t sm_row_plan_columns(const struct sm_row_plan *plan);
/* The columns of a table with kinds, missing cells and categories; rows that cannot be read. */
void sm_row_plan_table_text(const struct sm_row_plan *plan, struct sm_buf *out);
/* A line for each op. */
void sm_row_plan_ops_text(const struct sm_row_plan *plan, struct sm_buf *out);
/* `"table": {…}, "features": […]`, of images without the first. */
void sm_row_plan_json(const struct sm_row_plan *plan, struct sm_buf *out);
/* "1.5 MiB" */
void sm_bytes_text(double bytes, struct sm_buf *out);
/* Text that may hold anything, for a terminal: control characters become '?'. */
void sm_name_text(const char *name, struct sm_buf *out);
