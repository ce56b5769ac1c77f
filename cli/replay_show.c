/* What a batch that was made again looks like: as .npy files with the trainer's own tensor and
 * importance weights, or as a contact sheet. Before: replay.c has made it. */
#include "cli/replay.h"
#include "cli/sheet.h"
#include "lib/fs.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NPY_HEAD = 128, TILE = 224, COLUMNS_MAX = 8, PICTURES_MAX = 256 };

static size_t element_bytes(uint32_t dtype) {
    return dtype == SM_DTYPE_UINT8 ? 1 : dtype == SM_DTYPE_FLOAT32 ? 4 : 2;
}

/* An array of the batch as numpy.save would write it. shape: as Python writes it. */
static int npy_write(const char *path, const char *type, const char *shape, const void *bytes,
                     size_t n_bytes, struct sm_err *err) {
    char head[NPY_HEAD + 1];
    int n = snprintf(head, sizeof head,
                     "%.6s%c%c%c%c{'descr': '%s', 'fortran_order': False, 'shape': %s, }",
                     "\x93NUMPY", 1, 1, 1, 1, type, shape);
    memcpy(head + 6, "\1\0", 2);
    head[8] = (char)(NPY_HEAD - 10);
    head[9] = 0;
    memset(head + n, ' ', (size_t)(NPY_HEAD - n));
    head[NPY_HEAD - 1] = '\n';
    struct sm_newfile *file = NULL;
    if (sm_newfile_open(&file, path, err) < 0) return -1;
    if (sm_newfile_add(file, head, NPY_HEAD, err) < 0 ||
        sm_newfile_add(file, bytes, n_bytes, err) < 0) {
        sm_newfile_abandon(&file);
        return -1;
    }
    return sm_newfile_commit(&file, err);
}

int sm_replay_write_tensor(const struct sm_replay *r, const char *path, struct sm_err *err) {
    static const char *const types[] = {"|u1", "<f4", "<f2", "<V2", "<f8"};
    const struct sm_batch_header *h = &r->batch;
    char shape[96];
    if (h->layout == SM_LAYOUT_NCHW)
        snprintf(shape, sizeof shape, "(%u, %u, %u, %u)", h->count, h->channels, h->height,
                 h->width);
    else if (h->layout == SM_LAYOUT_NHWC)
        snprintf(shape, sizeof shape, "(%u, %u, %u, %u)", h->count, h->height, h->width,
                 h->channels);
    else
        snprintf(shape, sizeof shape, "(%u, %u)", h->count, h->width);
    return npy_write(path, types[h->dtype], shape, r->memory + h->tensor,
                     sm_batch_sample_bytes(h) * h->count, err);
}

int sm_replay_write_weights(const struct sm_replay *r, const char *path, struct sm_err *err) {
    const struct sm_batch_header *h = &r->batch;
    char shape[32];
    if (h->weight == 0)
        return sm_fail(
            err, SM_E_USAGE,
            "the batches of job '%s' carry no importance weights (hint: output: {weights: "
            "true} in the pipeline file)",
            r->job->spec->name);
    snprintf(shape, sizeof shape, "(%u,)", h->count);
    return npy_write(path, "<f4", shape, r->memory + h->weight, sizeof(float) * h->count, err);
}

/* ---- pictures ---- */

static float half_value(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value = exponent == 0    ? ldexpf((float)fraction, -24)
                  : exponent == 31 ? (fraction ? NAN : INFINITY)
                                   : ldexpf((float)(fraction + 1024), exponent - 25);
    return bits & 0x8000 ? -value : value;
}

static float element_at(const uint8_t *tensor, uint32_t dtype, size_t i) {
    const uint8_t *at = tensor + i * element_bytes(dtype);
    uint16_t half;
    uint32_t wide;
    float value;
    if (dtype == SM_DTYPE_UINT8) return at[0];
    if (dtype == SM_DTYPE_FLOAT32) {
        memcpy(&value, at, sizeof value);
        return value;
    }
    memcpy(&half, at, sizeof half);
    if (dtype == SM_DTYPE_FLOAT16) return half_value(half);
    wide = (uint32_t)half << 16; /* bfloat16 is the upper half of a float */
    memcpy(&value, &wide, sizeof value);
    return value;
}

struct range {
    float low, high;
};

/* What is black and what is white: 0 to 255, 0 to 1, or (after Normalize) what the batch has. */
static struct range range_of(const struct sm_replay *r) {
    const struct sm_batch_header *h = &r->batch;
    const size_t n = sm_batch_sample_bytes(h) * h->count / element_bytes(h->dtype);
    struct range range = {0, h->dtype == SM_DTYPE_UINT8 ? 255 : 1};
    for (size_t i = 0; h->dtype != SM_DTYPE_UINT8 && i < n; i++) {
        float v = element_at(r->memory + h->tensor, h->dtype, i);
        if (v < range.low) range.low = v;
        if (v > range.high) range.high = v;
    }
    return range;
}

/* Rows of pixels as a sheet wants them. */
static void picture_fill(const struct sm_replay *r, uint32_t sample, struct range range,
                         uint8_t *pixels) {
    const struct sm_batch_header *h = &r->batch;
    const uint8_t *tensor = r->memory + h->tensor + sample * sm_batch_sample_bytes(h);
    const size_t area = (size_t)h->width * h->height, channels = h->channels;
    const float scale = 255 / (range.high - range.low);
    for (size_t p = 0; p < area; p++)
        for (size_t c = 0; c < channels; c++) {
            size_t from = h->layout == SM_LAYOUT_NCHW ? c * area + p : p * channels + c;
            float v = (element_at(tensor, h->dtype, from) - range.low) * scale + 0.5f;
            pixels[p * channels + c] = v > 0 ? v < 255 ? (uint8_t)v : 255 : 0; /* NaN is black */
        }
}

static int picture_add(const struct sm_replay *r, struct sm_sheet *sheet, uint32_t i,
                       struct range range, uint8_t *pixels, struct sm_err *err) {
    const struct sm_batch_header *h = &r->batch;
    uint64_t index, position;
    memcpy(&index, r->memory + h->index + i * sizeof index, sizeof index);
    memcpy(&position, r->memory + h->position + i * sizeof position, sizeof position);
    uint8_t flags = r->memory[h->flags + i];
    struct sm_entry e = sm_index_entry(r->job->index, index);
    struct sm_buf text;
    sm_buf_init(&text, 1 << 16);
    sm_buf_printf(&text, "%s\n%s%s%s\nposition %" PRIu64 ", sample %" PRIu64 "%s%s",
                  sm_index_class(r->job->index, e.label), e.file, e.member ? "!" : "",
                  e.member ? e.member : "", position, index,
                  flags & SM_BATCH_PADDING ? "\npadding" : "",
                  flags & SM_BATCH_SUBSTITUTE ? "\nstands in for one that cannot be read" : "");
    if (h->weight != 0) {
        float weight;
        memcpy(&weight, r->memory + h->weight + i * sizeof weight, sizeof weight);
        sm_buf_printf(&text, "\nweight %.4g", (double)weight);
    }
    picture_fill(r, i, range, pixels);
    int result = sm_sheet_add(sheet, pixels, (int)h->width, (int)h->height, (int)h->channels,
                              text.data, err);
    sm_buf_release(&text);
    return result;
}

int sm_replay_write_sheet(const struct sm_replay *r, const char *path, struct sm_err *err) {
    const struct sm_batch_header *h = &r->batch;
    if (h->layout == SM_LAYOUT_ROWS)
        return sm_fail(
            err, SM_E_USAGE,
            "a batch of rows has no pictures (hint: --tensor FILE.npy writes its matrix)");
    const struct range range = range_of(r);
    uint32_t shown = h->count < PICTURES_MAX ? h->count : PICTURES_MAX;
    int columns = (int)ceil(sqrt(shown));
    if (columns > COLUMNS_MAX) columns = COLUMNS_MAX;
    char title[512];
    snprintf(title, sizeof title, "%s, epoch %u, step %" PRIu64 ": %u of %u samples, digest %s",
             r->job->spec->name, h->epoch, h->step, shown, h->count, r->digest);
    uint8_t *pixels = malloc((size_t)h->width * h->height * h->channels);
    struct sm_sheet *sheet = NULL;
    if (pixels == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int result = sm_sheet_new(&sheet, title, columns, TILE, err);
    for (uint32_t i = 0; i < shown && result == 0; i++)
        result = picture_add(r, sheet, i, range, pixels, err);
    if (result == 0) result = sm_sheet_write(&sheet, path, err);
    sm_sheet_free(&sheet);
    free(pixels);
    return result;
}
