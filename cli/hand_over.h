/* Files that a broker is to keep for a job: what a submitter's folder has and workers on other
 * hosts may not see. Before: fits are made, the spec is written. After: the job is submitted. Every
 * part may be done again: what the broker has is not sent twice. */
#pragma once

#include "cli/client.h"
#include "pipelines/lang/pipeline.h"

#include <stddef.h>

/* What the job of this spec needs: the artifacts that its pipeline names, which lie beside the
 * index, and the index itself where the broker cannot see it at its path. */
int sm_hand_over_job(struct sm_client *c, const struct sm_pipeline *p,
                     const Shardmill__JobSpec *spec, struct sm_err *err);
/* These bytes, whose SHA-256 is digest. */
int sm_hand_over_bytes(struct sm_client *c, const char *digest, const void *bytes, size_t n,
                       struct sm_err *err);
/* The way back: reads a file of n bytes of the job, named by its SHA-256, and verifies it. */
int sm_hand_back(struct sm_client *c, const char *job, const char *sha256, void *bytes, size_t n,
                 struct sm_err *err);
