/* The part of a dataset that a job is of (the training or the held-out samples of a split), as
 * bitmaps over the index: n / 4 bytes, any sample of the part or of one of its classes by number.
 * Before: the index. After: places.c. */
#pragma once

#include "lib/err.h"
#include "pipelines/lang/pipeline.h"
#include "workers/sources/source.h"

struct sm_view;

/* part: enum sm_part_of. Keeps index. Which samples are held out follows from seed, split and index
 * alone: val x samples of them, rounded; with stratify each class gives val x its samples, rounded
 * down, and one more where the fraction is largest, but never its last. SM_E_PIPELINE when either
 * part would be empty. */
int sm_view_new(struct sm_view **gives, const struct sm_index *index,
                const struct sm_pipeline_split *split, uint64_t seed, int part, struct sm_err *err);
void sm_view_free(struct sm_view **v);
uint64_t sm_view_samples(const struct sm_view *v);
/* The i-th sample of the part in the order of the index. */
uint64_t sm_view_sample(const struct sm_view *v, uint64_t i);
uint64_t sm_view_class_samples(const struct sm_view *v, uint32_t label);
uint64_t sm_view_class_sample(const struct sm_view *v, uint32_t label, uint64_t k);
