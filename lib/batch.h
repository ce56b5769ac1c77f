/* A batch as it lies in memory: one header, then arrays on 64-byte boundaries. Workers write it,
 * trainers read it in place; the same bytes travel to other hosts. Little-endian. If you change it,
 * raise SM_BATCH_VERSION.
 *
 *   header   128 bytes
 *   tensor   count x (C,H,W) or (H,W,C) elements of dtype; of rows count x columns, which the
 *            header says as channels 1, height 1, width columns
 *   label    int64[count]
 *   index    uint64[count]  the sample's index in the dataset (of the sample that is really there)
 *   position uint64[count]  in the epoch
 *   flags    uint8[count]   SM_BATCH_PADDING, SM_BATCH_SUBSTITUTE
 *   weight   float32[count] only when asked for: importance weights, natural / drawn probability of
 *            what the plan puts there; 0 of padding. float32, as losses are: that one rounding of
 *            2^-24 is far below what the mean of a batch can tell
 *
 * A batch without weights has the bytes that it had before there were any, and version 1; one with
 * weights has version 2, so that a reader from before says so instead of reading on. */
#pragma once

#include "lib/digest.h"
#include "lib/err.h"

#include <stdint.h>

#define SM_BATCH_VERSION 2       /* the last one, and that of a batch with weights */
#define SM_BATCH_VERSION_PLAIN 1 /* of a batch without */
enum {
    SM_BATCH_ALIGN = 64,
    SM_BATCH_HEADER = 128,
    SM_BATCH_SLOTS =
        1024, /* batches that a worker's memory holds at once, however small they are */
};
enum { SM_BATCH_PADDING = 1, SM_BATCH_SUBSTITUTE = 2 };

struct sm_batch_header {
    char magic[8]; /* "SMBATCH" */
    uint32_t version, count;
    uint32_t dtype,
        layout; /* enum sm_dtype, enum sm_layout of pipelines/lang/pipeline.h, as numbers */
    uint32_t channels, height, width;
    uint32_t epoch;
    uint64_t step, first;                           /* global index of the first sample */
    uint64_t bytes;                                 /* of all, header included */
    uint64_t tensor, label, index, position, flags; /* offsets */
    uint64_t weight;                                /* the same; 0: no weights */
    uint8_t reserved[16];
};

/* Fills the offsets and bytes of a header whose count, dtype, layout, channels, height and width
 * are set, and weight to something else than 0 if there are to be weights. Pure arithmetic: the
 * submitter uses it for JobSpec.batch_bytes. SM_E_TOO_LARGE beyond SM_MAX_BATCH_BYTES. */
int sm_batch_layout(struct sm_batch_header *h, struct sm_err *err);
uint64_t sm_batch_sample_bytes(const struct sm_batch_header *h);
/* Checks a header that came from outside against the bytes that are there: every array inside,
 * aligned, in order. */
int sm_batch_check(const void *bytes, uint64_t n, struct sm_batch_header *fills,
                   struct sm_err *err);
/* The arrays of a laid out header in the order in which they lie and are digested; returns how many
 * there are. */
struct sm_batch_array {
    uint64_t offset, bytes;
};
enum { SM_BATCH_ARRAYS = 6 };
int sm_batch_arrays(const struct sm_batch_header *h, struct sm_batch_array arrays[SM_BATCH_ARRAYS]);
/* XXH3-128 over tensor, label, index, position, flags and, if there are any, weights: the same for
 * any worker, attempt or way of transport. */
void sm_batch_digest(const void *batch, char hex[SM_XXH_HEX]);
/* The epoch's chain: digest of (chain so far, step's digest); start with "". */
void sm_batch_chain(char chain[SM_XXH_HEX], const char digest[SM_XXH_HEX]);
