/* Every picture of the sheet is decoded and augmented in a cage, as in a run: one cage for the
 * pipeline, one that only shrinks the source. Comes before a run: look at it, then `expand`. */
#include "cli/preview.h"

#include "cli/dataset.h"
#include "cli/sheet.h"
#include "lib/fs.h"
#include "lib/permutation.h"
#include "workers/cage.h"
#include "workers/engine.h"
#include "workers/ops/op.h"
#include "workers/sources/source.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NPY_HEAD = 10 };

struct preview {
    const struct sm_pipeline *pipeline;
    const struct sm_preview_options *options;
    struct sm_dataset data;
    struct sm_index *index; /* the dataset's */
    struct sm_reader *reader;
    struct sm_cage *augment,
        *shrink; /* the pipeline's cage, and the one for the source beside it */
    struct sm_sheet *sheet;
    uint64_t *samples;
    size_t n_samples;
};

static int open_dataset(struct preview *v, struct sm_err *err);
static int choose_samples(struct preview *v, struct sm_err *err);
static int open_cages(struct preview *v, int tile, struct sm_err *err);
static int add_row(struct preview *v, uint64_t sample, struct sm_err *err);

int sm_preview(const struct sm_pipeline *pipeline, const struct sm_preview_options *options,
               struct sm_err *err) {
    struct preview v = {.pipeline = pipeline, .options = options};
    char title[512];
    snprintf(title, sizeof title,
             "%s, seed %" PRId64 ", epoch %u: the source, then what a trainer sees", pipeline->name,
             pipeline->seed, options->epoch);
    int tile = (int)options->tile, r = -1;
    if (open_dataset(&v, err) == 0 && choose_samples(&v, err) == 0 &&
        open_cages(&v, tile, err) == 0 &&
        sm_sheet_new(&v.sheet, title, (int)options->copies + 1, tile, err) == 0)
        r = 0;
    for (size_t i = 0; i < v.n_samples && r == 0; i++)
        r = add_row(&v, v.samples[i], err);
    if (r == 0) r = sm_sheet_write(&v.sheet, options->out_path, err);
    sm_sheet_free(&v.sheet);
    sm_cage_free(&v.augment);
    sm_cage_free(&v.shrink);
    sm_reader_free(&v.reader);
    sm_dataset_close(&v.data);
    free(v.samples);
    return r;
}

static int open_dataset(struct preview *v, struct sm_err *err) {
    bool kept;
    if (sm_dataset_look(&v->data, &v->pipeline->source, true, &kept, err) < 0) return -1;
    v->index = v->data.index;
    v->reader = sm_reader_new(v->data.root);
    return v->reader == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
}

static int find_class(const struct preview *v, uint32_t *label, struct sm_err *err) {
    uint32_t n = sm_index_classes(v->index);
    const char **names = calloc(n, sizeof *names);
    if (names == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (*label = 0; *label < n; ++*label) {
        names[*label] = sm_index_class(v->index, *label);
        if (strcmp(names[*label], v->options->class_name) == 0) break;
    }
    int r = 0;
    if (*label == n) {
        const char *near = sm_nearest(v->options->class_name, names, n);
        r = sm_fail(err, SM_E_USAGE, "no class '%s' in the dataset%s%s%s", v->options->class_name,
                    near ? " (hint: did you mean '" : "", near ? near : "", near ? "'?)" : "");
    }
    free(names);
    return r;
}

/* Class by class in turns, so that every class has its k-th row before any has its k+1st; within a
 * class in an order that depends on the seed. */
static int choose_samples(struct preview *v, struct sm_err *err) {
    uint32_t classes = sm_index_classes(v->index), first = 0, end = classes;
    size_t want = (size_t)v->options->samples;
    if (v->options->class_name != NULL) {
        if (find_class(v, &first, err) < 0) return -1;
        end = first + 1;
    }
    v->samples = calloc(want, sizeof *v->samples);
    if (v->samples == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    bool more = true;
    for (uint64_t turn = 0; v->n_samples < want && more; turn++) {
        more = false;
        for (uint32_t c = first; c < end && v->n_samples < want; c++) {
            uint64_t n = sm_index_class_samples(v->index, c);
            if (turn >= n) continue;
            struct sm_permutation order =
                sm_permutation_make(n, (uint64_t)v->pipeline->seed, v->options->epoch);
            v->samples[v->n_samples++] =
                sm_index_class_sample(v->index, c, sm_permutation_at(&order, turn));
            more = true;
        }
    }
    return v->n_samples
               ? 0
               : sm_fail(err, SM_E_DATASET, "class '%s' has no samples", v->options->class_name);
}

/* The pipeline as a picture: no Normalize, uint8, rows of pixels. */
static void as_picture(const struct sm_pipeline *from, struct sm_pipeline *to,
                       struct sm_op_node *ops) {
    *to = *from;
    to->ops = ops;
    to->n_ops = 0;
    for (size_t i = 0; i < from->n_ops; i++)
        if (strcmp(from->ops[i].info->name, "Normalize") != 0) ops[to->n_ops++] = from->ops[i];
    to->output.dtype = SM_DTYPE_UINT8;
    to->output.layout = SM_LAYOUT_NHWC;
    to->expand.encode = SM_ENCODE_TENSOR;
    to->expand.originals = false;
}

static int open_cage(struct sm_cage **cage, const struct sm_pipeline *p,
                     const struct sm_preview_options *preview, struct sm_err *err) {
    struct sm_buf json;
    struct sm_cage_options options = {.no_sandbox = preview->no_sandbox,
                                      .no_fuse = preview->no_fuse};
    sm_buf_init(&json, 1 << 20);
    sm_pipeline_json(p, &json);
    int r = json.full ? sm_fail(err, SM_E_PIPELINE, "the pipeline is too long")
                      : sm_cage_new(cage, json.data, &options, err);
    sm_buf_release(&json);
    return r;
}

static int open_cages(struct preview *v, int tile, struct sm_err *err) {
    struct sm_pipeline picture;
    struct sm_op_node *ops = calloc(v->pipeline->n_ops + 1, sizeof *ops);
    if (ops == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    as_picture(v->pipeline, &picture, ops);
    int r = open_cage(&v->augment, &picture, v->options, err);
    const struct sm_op *resize = sm_op_find("Resize");
    void *params = calloc(1, resize->info.params_size);
    if (r == 0 && params != NULL) { /* the long side becomes the tile's */
        char size[32], longest[32];
        snprintf(size, sizeof size, "%d", tile - 1);
        snprintf(longest, sizeof longest, "%d", tile);
        sm_param_defaults(resize->info.params, resize->info.n_params, params);
        r = sm_param_set_text(sm_param_find(resize->info.params, resize->info.n_params, "size"),
                              params, size, err);
        if (r == 0)
            r = sm_param_set_text(
                sm_param_find(resize->info.params, resize->info.n_params, "max_size"), params,
                longest, err);
        ops[0] = (struct sm_op_node){.info = &resize->info, .params = params};
        picture.n_ops = 1;
        if (r == 0) r = open_cage(&v->shrink, &picture, v->options, err);
    }
    free(params);
    free(ops);
    return r;
}

/* One sample through one cage, waiting for it. out and draws are lent until the next. */
static int make_one(struct preview *v, struct sm_cage *cage, uint64_t sample, uint32_t copy,
                    struct sm_engine_result *result, const uint8_t **out, const char **draws,
                    struct sm_err *err) {
    struct sm_entry entry = sm_index_entry(v->index, sample);
    size_t max;
    uint8_t *input = sm_cage_input(cage, 0, &max);
    if (sm_reader_read(v->reader, &entry, input, max, err) < 0) return -1;
    struct sm_engine_request request = {.seed = (uint64_t)v->pipeline->seed,
                                        .epoch = v->options->epoch,
                                        .sample = sample,
                                        .copy = copy,
                                        .tensor = true,
                                        .n_bytes = entry.length};
    if (sm_cage_submit(cage, 0, &request, err) < 0) return -1;
    for (;;) {
        struct pollfd fd = {.fd = sm_cage_fd(cage), .events = POLLIN};
        if (poll(&fd, 1, sm_cage_wait_ms(cage)) < 0 && errno != EINTR)
            return sm_fail_errno(err, "cannot wait for the cage");
        int r = sm_cage_collect(cage, result, out, draws, err);
        if (r != 0) return r < 0 ? -1 : 0;
    }
}

/* The pixels inside a .npy; NULL when it is not what the result says (a cage is not believed). */
static const uint8_t *npy_pixels(const uint8_t *out, const struct sm_engine_result *r) {
    if (r->n_bytes < NPY_HEAD || memcmp(out, "\x93NUMPY\x01", 7) != 0) return NULL;
    size_t head = NPY_HEAD + out[8] + 256u * out[9];
    size_t pixels = (size_t)r->width * (size_t)r->height * (size_t)r->channels;
    return head + pixels == r->n_bytes ? out + head : NULL;
}

/* Whether chance said no: the op changed nothing, and the sheet says nothing of it. */
static bool left_alone(json_t *op) {
    const char *key;
    json_t *value;
    json_object_foreach(op, key,
                        value) if (strcmp(key, "op") != 0 && !json_is_false(value)) return false;
    return true;
}

/* ": top 12, left 40, …" */
static void values_text(json_t *op, struct sm_buf *text) {
    const char *key, *before = ": ";
    json_t *value;
    json_object_foreach(op, key, value) {
        if (strcmp(key, "op") == 0 || json_is_true(value)) continue;
        sm_buf_printf(text, "%s%s ", before, key);
        if (json_is_real(value)) {
            sm_buf_printf(text, "%.3g", json_real_value(value));
        } else {
            char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(3));
            sm_buf_text(text, dump ? dump : "?");
            free(dump);
        }
        before = ", ";
    }
}

/* A line for each op that did something: its name, and the values that were drawn. */
static void draws_text(const char *json, size_t n, struct sm_buf *text) {
    json_t *draws = json_loadb(json, n, 0, NULL), *op;
    size_t i;
    json_array_foreach(draws, i, op) {
        const char *name = json_string_value(json_object_get(op, "op"));
        if (left_alone(op)) continue;
        sm_buf_printf(text, "%s%s", text->len ? "\n" : "", name ? name : "?");
        values_text(op, text);
    }
    json_decref(draws);
}

static int add_cell(struct preview *v, struct sm_cage *cage, uint64_t sample, uint32_t copy,
                    const char *caption, struct sm_err *err) {
    struct sm_engine_result result = {0};
    const uint8_t *out = NULL;
    const char *draws = NULL;
    struct sm_buf text;
    sm_buf_init(&text, 16384);
    sm_buf_text(&text, caption);
    int r;
    if (make_one(v, cage, sample, copy, &result, &out, &draws, err) < 0) {
        if (!sm_code_charges_sample(err->code)) {
            sm_buf_release(&text);
            return -1;
        }
        sm_buf_printf(&text, "%squarantined (%s): %s", text.len ? "\n" : "",
                      sm_code_word(err->code), err->text);
        r = sm_sheet_add(v->sheet, NULL, 0, 0, 0, text.data, err);
    } else {
        const uint8_t *pixels = npy_pixels(out, &result);
        if (cage == v->shrink)
            sm_buf_printf(&text, "\n%d x %d", result.in_width, result.in_height);
        else
            draws_text(draws, result.draws_bytes, &text);
        r = pixels == NULL ? sm_fail(err, SM_E_INTERNAL, "the cage gave no picture")
                           : sm_sheet_add(v->sheet, pixels, result.width, result.height,
                                          result.channels, text.data ? text.data : "", err);
    }
    sm_buf_release(&text);
    return r;
}

static int add_row(struct preview *v, uint64_t sample, struct sm_err *err) {
    struct sm_entry entry = sm_index_entry(v->index, sample);
    char caption[2 * PATH_MAX];
    snprintf(caption, sizeof caption, "%s\n%s%s%s", sm_index_class(v->index, entry.label),
             entry.file, entry.member ? "!" : "", entry.member ? entry.member : "");
    if (add_cell(v, v->shrink, sample, 0, caption, err) < 0) return -1;
    for (uint32_t copy = 0; copy < (uint32_t)v->options->copies; copy++)
        if (add_cell(v, v->augment, sample, copy, "", err) < 0) return -1;
    return 0;
}
