/* The engine: one encoded sample in, one result out, as a pure function of (pipeline, seed, epoch,
 * sample, copy, bytes). It reads no file, no clock and no other sample, so it can run in a cage.
 * Comes after: the sink that stores the result. */
#pragma once

#include "lib/err.h"
#include "pipelines/lang/pipeline.h"

#include <stdint.h>

struct sm_engine; /* a compiled pipeline; belongs to one thread */

enum sm_engine_flags {
    /* op by op, whole decode: the reference that the fused plan is compared with */
    SM_ENGINE_NO_FUSE = 1,
};

/* Starts libvips and the decoders with every fence up (concurrency 1, no operation cache, untrusted
 * loaders blocked, a GLib log writer). Once per process, before any thread. */
int sm_engine_start(const char *argv0, struct sm_err *err);

/* Compiles: shapes are checked through the whole chain, positions are given to the ops. Keeps p. */
int sm_engine_new(struct sm_engine **gives, const struct sm_pipeline *p, unsigned flags,
                  struct sm_err *err);
void sm_engine_free(struct sm_engine **e);

struct sm_engine_request {
    uint64_t seed;
    uint32_t epoch;
    uint64_t sample;
    uint32_t copy;
    bool original; /* the result is the input's own bytes; they are still decoded once, so that a
                      bad file is found */
    bool added;    /* a copy that rebalancing added: `augment_minority` applies too */
    bool tensor;   /* the result is the tensor (an .npy file), whatever expand.encode says */
    const uint8_t *bytes;
    size_t n_bytes;
};

struct sm_engine_result {
    size_t n_bytes;
    /* "jpg", "png", "webp", "npy"; of an original the source's. A tensor is an .npy file: a header
     * of a multiple of 64 bytes, then width * height * channels elements, the last ones of n_bytes;
     * bfloat16 has the type '<V2', which numpy opens as raw pairs of bytes. */
    char extension[8];
    int width, height, channels;
    int in_width, in_height; /* of the source, upright */
    size_t draws_bytes;      /* length of the JSON array in draws:
                                [{"op":"RandomHorizontalFlip","flip":true}, …] */
};

/* Fills out (at most out_max bytes) and draws (at most SM_MAX_DRAWS_BYTES). On failure err->code
 * says whose fault it was. */
int sm_engine_make(struct sm_engine *e, const struct sm_engine_request *request, uint8_t *out,
                   size_t out_max, char *draws, struct sm_engine_result *result,
                   struct sm_err *err);

/* What `explain` prints: the plan as text, one line an op with its output shape, what is fused,
 * bytes of a sample. */
void sm_engine_explain(const struct sm_engine *e, struct sm_buf *out);

/* Versions and instruction set that decide bytes: "shardmill 1; libjpeg-turbo 2.1.5;
 * libvips 8.14.1". */
const char *sm_engine_fingerprint(void);
