/* How a broker's jobs and workers are shown: by status, jobs and top. */
#pragma once

#include "lib/buf.h"
#include "lib/wire.h"

const char *sm_state_word(Shardmill__JobState state);
void sm_duration_text(uint64_t ms, char text[32]);
/* The table of jobs, or "no jobs". */
void sm_status_jobs_print(const Shardmill__Status *s);
/* `"key":"text"` and what stands behind it. */
void sm_json_text(struct sm_buf *b, const char *key, const char *text, const char *behind);
void sm_status_job_json(struct sm_buf *b, const Shardmill__JobStatus *j);
void sm_status_worker_json(struct sm_buf *b, const Shardmill__WorkerStatus *w);
