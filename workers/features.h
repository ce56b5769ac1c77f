/* The rows' half of a pipeline: the ops behind Flatten, or all ops of a table, compiled against the
 * dataset's columns and what the fits have learned. Leases, fits, previews and the layout of a
 * batch ask here. Before: engine.h makes images into rows, or a table is read (sources/). After:
 * batches and shards. */
#pragma once

#include "lib/batch.h"
#include "pipelines/lang/pipeline.h"
#include "workers/ops/op.h"
#include "workers/sinks/sink.h"
#include "workers/sources/source.h"
#include "workers/table/rows.h"

struct sm_features;

/* Compiles the first n_ops top-level ops (n_ops = p->n_ops: all), of which those that learn find
 * what they have learned as p->artifacts says in artifact_dir/<sha256>.npz. index is needed for
 * tables and may be NULL for images. Errors name line, column and op. SM_E_MISSING: an artifact is
 * not there, or an op that must be fitted has none. Keeps p. */
int sm_features_new(struct sm_features **gives, const struct sm_pipeline *p, size_t n_ops,
                    const struct sm_index *index, const char *artifact_dir, struct sm_err *err);
void sm_features_free(struct sm_features **f);

/* What goes in (of images: channels x height x width columns "p0", "p1", … of float32) and what
 * comes out. Lends. */
const struct sm_schema *sm_features_in(const struct sm_features *f);
const struct sm_schema *sm_features_out(const struct sm_features *f);
/* Runs the row ops over a block, in blocks of a fixed size, so that a row's bytes never depend on
 * the rows beside it. out is allocated: in->n rows. A row that an op makes infinite is a fault, as
 * one that it cannot take. Belongs to one thread. */
int sm_features_apply(struct sm_features *f, const struct sm_rows *in, struct sm_rows *out,
                      struct sm_row_faults *faults, struct sm_err *err);
/* The same of the ops on rows from the first-th to the one before the end-th: in has the columns
 * behind `first` of them, out those behind `end`. One part after the other gives the same bytes as
 * all at once. */
int sm_features_apply_part(struct sm_features *f, size_t first, size_t end,
                           const struct sm_rows *in, struct sm_rows *out,
                           struct sm_row_faults *faults, struct sm_err *err);
/* The columns behind the first n ops on rows. Lends. */
const struct sm_schema *sm_features_behind(const struct sm_features *f, size_t n);
/* Of memory that blocks on their way from op to op take. */
size_t sm_features_bytes(const struct sm_features *f);
/* Notes the rows of out that cannot leave: with an infinite cell or, narrow, one that is infinite
 * in float32. A missing cell may leave. */
void sm_features_leave(const struct sm_features *f, const struct sm_rows *out, bool narrow,
                       struct sm_row_faults *faults);
/* What the rows of its shards look like, but for the classes and the plan. rebalances: the part
 * that is written is rebalanced. */
struct sm_row_format sm_features_shard(const struct sm_pipeline *p, const struct sm_features *f,
                                       bool rebalances);
/* What a batch of this pipeline looks like: images (f is NULL), or rows. Fills a laid out header;
 * the submitter uses it for JobSpec.batch_bytes, workers come to the same. SM_E_PIPELINE when
 * images have sizes of their own. */
int sm_features_layout(const struct sm_pipeline *p, const struct sm_features *f, uint32_t count,
                       struct sm_batch_header *header, struct sm_err *err);
