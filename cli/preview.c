/* Every picture of the sheet is decoded and augmented in a cage, as in a run: one cage for the
 * pipeline, one that only shrinks the source. Before: cmd_preview.c. Rows leave for preview_rows.c
 * and preview_table.c. Comes before a run: look at it, then `expand`. */
#include "cli/preview.h"

#include "cli/fit.h"
#include "cli/preview_state.h"
#include "lib/fs.h"
#include "lib/permutation.h"
#include "workers/engine.h"
#include "workers/ops/op.h"
#include "workers/table/artifact.h"

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

static int open_dataset(struct preview *v, struct sm_err *err);
static int learn(struct preview *v, struct sm_err *err);
static int open_places(struct preview *v, struct sm_err *err);
static int preview_images(struct preview *v, struct sm_err *err);

int sm_preview(struct sm_pipeline *pipeline, const struct sm_preview_options *options,
               struct sm_err *err) {
    struct preview v = {.pipeline = pipeline, .options = options};
    int r = -1;
    if (open_dataset(&v, err) == 0 && learn(&v, err) == 0 && open_places(&v, err) == 0)
        r = sm_source_is_table(&pipeline->source) ? preview_table(&v, err)
            : sm_pipeline_is_rows(pipeline)       ? preview_rows(&v, err)
                                                  : preview_images(&v, err);
    sm_sheet_free(&v.sheet);
    sm_cage_free(&v.augment);
    sm_cage_free(&v.shrink);
    sm_reader_free(&v.reader);
    sm_places_free(&v.places);
    if (v.has_neighbours) sm_artifact_close(&v.neighbours);
    sm_dataset_close(&v.data);
    free(v.samples);
    free(v.copies);
    free(v.n_copies);
    return r;
}

/* --- the dataset, and what the ops learn from it ---------------------------------------------- */

/* What a pipeline learns is kept, and so is its index; else nothing is. */
static int open_dataset(struct preview *v, struct sm_err *err) {
    const struct sm_pipeline_source *source = &v->pipeline->source;
    if (sm_pipeline_learns(v->pipeline)) {
        if (sm_fs_mkdirs(v->options->state_dir, err) < 0) return -1;
        if (realpath(v->options->state_dir, v->state) == NULL)
            return sm_fail_errno(err, "cannot use '%s'", v->options->state_dir);
        if (snprintf(v->artifacts, sizeof v->artifacts, "%s/%s", v->state, SM_ARTIFACTS_NAME) >=
            (int)sizeof v->artifacts)
            return sm_fail(err, SM_E_USAGE, "the path of '%s' is too long", v->state);
        if (sm_dataset_open(&v->data, source, v->state, false, err) < 0) return -1;
    } else {
        bool kept;
        if (sm_dataset_look(&v->data, source, v->options->state_dir, true, &kept, err) < 0)
            return -1;
    }
    v->reader = sm_reader_new(v->data.root);
    return v->reader == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
}

static int learn(struct preview *v, struct sm_err *err) {
    struct sm_fit_options options = sm_fit_options_of(v->options->common, v->state, NULL);
    options.quiet = true;
    return sm_fit_ensure(v->pipeline, &options, &v->data, NULL, err);
}

static int open_places(struct preview *v, struct sm_err *err) {
    const struct sm_pipeline *p = v->pipeline;
    if (p->rebalance_artifact != NULL) {
        if (sm_artifact_open(&v->neighbours, v->artifacts, p->rebalance_artifact, err) < 0)
            return -1;
        v->has_neighbours = true;
    }
    if (sm_places_new(&v->places, p, v->data.index, SM_PART_TRAIN,
                      v->has_neighbours ? &v->neighbours : NULL, err) < 0)
        return -1;
    v->plan = (struct sm_plan){.samples = sm_places_samples(v->places),
                               .copies = (uint32_t)p->expand.copies,
                               .shuffle = p->output.shuffle,
                               .seed = (uint64_t)p->seed,
                               .epoch = v->options->epoch};
    return 0;
}

/* --- which samples ---------------------------------------------------------------------------- */

int preview_class(const struct preview *v, uint32_t *label, struct sm_err *err) {
    uint32_t n = sm_index_classes(v->data.index);
    const char **names = calloc(n, sizeof *names);
    if (names == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (*label = 0; *label < n; ++*label) {
        names[*label] = sm_index_class(v->data.index, *label);
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
int preview_choose(struct preview *v, struct sm_err *err) {
    uint32_t classes = sm_index_classes(v->data.index), first = 0, end = classes;
    size_t want = (size_t)v->options->samples;
    if (v->options->class_name != NULL) {
        if (preview_class(v, &first, err) < 0) return -1;
        end = first + 1;
    }
    v->samples = calloc(want, sizeof *v->samples);
    if (v->samples == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    bool more = true;
    for (uint64_t turn = 0; v->n_samples < want && more; turn++) {
        more = false;
        for (uint32_t c = first; c < end && v->n_samples < want; c++) {
            uint64_t n = sm_places_class_samples(v->places, c);
            if (turn >= n) continue;
            struct sm_permutation order =
                sm_permutation_make(n, (uint64_t)v->pipeline->seed, v->options->epoch);
            v->samples[v->n_samples++] =
                sm_places_class_sample(v->places, c, sm_permutation_at(&order, turn));
            more = true;
        }
    }
    return v->n_samples
               ? 0
               : sm_fail(err, SM_E_DATASET, "class '%s' has no samples", v->options->class_name);
}

/* Keeps the first few copies of a sample, by number. */
static void keep_copy(struct preview *v, size_t i, struct preview_copy copy) {
    const size_t most = (size_t)v->options->copies;
    struct preview_copy *kept = v->copies + i * most;
    size_t n = v->n_copies[i];
    if (n == most && copy.copy >= kept[most - 1].copy) return;
    if (n < most) v->n_copies[i]++, n++;
    for (n--; n > 0 && kept[n - 1].copy > copy.copy; n--)
        kept[n] = kept[n - 1];
    kept[n] = copy;
}

/* How a sample is drawn in this epoch: as copies 0, 1, … or, where classes are rebalanced, as the
 * positions say. */
static int find_copies(struct preview *v, struct sm_err *err) {
    v->copies = calloc(v->n_samples * (size_t)v->options->copies, sizeof *v->copies);
    v->n_copies = calloc(v->n_samples, sizeof *v->n_copies);
    if (v->copies == NULL || v->n_copies == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (v->pipeline->rebalance == NULL) {
        for (size_t i = 0; i < v->n_samples; i++)
            for (uint32_t c = 0; c < (uint32_t)v->options->copies; c++)
                keep_copy(v, i, (struct preview_copy){.copy = c});
        return 0;
    }
    const uint64_t positions = sm_plan_positions(&v->plan);
    for (uint64_t at = 0; at < positions && at < PREVIEW_SCAN_MAX; at++) {
        const struct sm_placed placed = sm_places_at(v->places, &v->plan, at);
        for (size_t i = 0; i < v->n_samples; i++)
            if (v->samples[i] == placed.sample)
                keep_copy(v, i, (struct preview_copy){placed.copy, placed.added});
    }
    return 0;
}

/* --- the sheet of images ---------------------------------------------------------------------- */

static int open_cages(struct preview *v, struct sm_err *err);
static int add_row(struct preview *v, size_t i, struct sm_err *err);

static int preview_images(struct preview *v, struct sm_err *err) {
    char title[512];
    snprintf(title, sizeof title,
             "%s, seed %" PRId64 ", epoch %u: the source, then what a trainer sees",
             v->pipeline->name, v->pipeline->seed, v->options->epoch);
    if (preview_choose(v, err) < 0 || find_copies(v, err) < 0 || open_cages(v, err) < 0 ||
        sm_sheet_new(&v->sheet, title, (int)v->options->copies + 1, (int)v->options->tile, err) < 0)
        return -1;
    for (size_t i = 0; i < v->n_samples; i++)
        if (add_row(v, i, err) < 0) return -1;
    return sm_sheet_write(&v->sheet, v->options->out_path, err);
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

int preview_cage(struct sm_cage **cage, const struct sm_pipeline *p,
                 const struct sm_preview_options *preview, struct sm_err *err) {
    struct sm_buf json;
    struct sm_cage_options options = {.no_sandbox = !preview->common->sandbox,
                                      .no_fuse = !preview->common->fuse};
    sm_buf_init(&json, 1 << 20);
    sm_pipeline_json(p, &json);
    int r = json.full ? sm_fail(err, SM_E_PIPELINE, "the pipeline is too long")
                      : sm_cage_new(cage, json.data, &options, err);
    sm_buf_release(&json);
    return r;
}

static int open_cages(struct preview *v, struct sm_err *err) {
    struct sm_pipeline picture;
    struct sm_op_node *ops = calloc(v->pipeline->n_ops + 1, sizeof *ops);
    if (ops == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    as_picture(v->pipeline, &picture, ops);
    int r = preview_cage(&v->augment, &picture, v->options, err);
    free(ops);
    return r == 0 ? preview_shrink(v, err) : -1;
}

static int set_number(const struct sm_op *op, void *params, const char *name, int value,
                      struct sm_err *err) {
    char text[32];
    snprintf(text, sizeof text, "%d", value);
    return sm_param_set_text(sm_param_find(op->info.params, op->info.n_params, name), params, text,
                             err);
}

/* The long side becomes the tile's. */
int preview_shrink(struct preview *v, struct sm_err *err) {
    const int tile = (int)v->options->tile;
    const struct sm_op *resize = sm_op_find("Resize");
    struct sm_op_node node = {.info = &resize->info, .params = calloc(1, resize->info.params_size)};
    struct sm_pipeline picture = *v->pipeline, none = *v->pipeline;
    if (node.params == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    none.n_ops = 0;
    as_picture(&none, &picture, &node);
    picture.n_ops = 1;
    sm_param_defaults(resize->info.params, resize->info.n_params, node.params);
    int r = set_number(resize, node.params, "size", tile - 1, err);
    if (r == 0) r = set_number(resize, node.params, "max_size", tile, err);
    if (r == 0) r = preview_cage(&v->shrink, &picture, v->options, err);
    free(node.params);
    return r;
}

int preview_make(struct preview *v, struct sm_cage *cage, uint64_t sample, struct preview_copy copy,
                 struct sm_engine_result *result, const uint8_t **out, const char **draws,
                 struct sm_err *err) {
    struct sm_entry entry = sm_index_entry(v->data.index, sample);
    size_t max;
    uint8_t *input = sm_cage_input(cage, 0, &max);
    if (sm_reader_read(v->reader, &entry, input, max, err) < 0) return -1;
    struct sm_engine_request request = {.seed = (uint64_t)v->pipeline->seed,
                                        .epoch = v->options->epoch,
                                        .sample = sample,
                                        .copy = copy.copy,
                                        .added = copy.added,
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

static int add_cell(struct preview *v, struct sm_cage *cage, uint64_t sample,
                    struct preview_copy copy, const char *caption, struct sm_err *err) {
    struct sm_engine_result result = {0};
    const uint8_t *out = NULL;
    const char *draws = NULL;
    struct sm_buf text;
    sm_buf_init(&text, 16384);
    sm_buf_text(&text, caption);
    int r;
    if (preview_make(v, cage, sample, copy, &result, &out, &draws, err) < 0) {
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

int preview_add_source(struct preview *v, uint64_t sample, struct sm_err *err) {
    struct sm_entry entry = sm_index_entry(v->data.index, sample);
    char caption[2 * PATH_MAX];
    snprintf(caption, sizeof caption, "%s\n%s%s%s", sm_index_class(v->data.index, entry.label),
             entry.file, entry.member ? "!" : "", entry.member ? entry.member : "");
    return add_cell(v, v->shrink, sample, (struct preview_copy){0}, caption, err);
}

static int add_row(struct preview *v, size_t i, struct sm_err *err) {
    const size_t most = (size_t)v->options->copies;
    if (preview_add_source(v, v->samples[i], err) < 0) return -1;
    for (size_t c = 0; c < most; c++) {
        const struct preview_copy copy = v->copies[i * most + c];
        int r;
        if (c < v->n_copies[i])
            r = add_cell(v, v->augment, v->samples[i], copy, copy.added ? "added" : "", err);
        else
            r = sm_sheet_add(v->sheet, NULL, 0, 0, 0, c == 0 ? "not drawn in this epoch" : "", err);
        if (r < 0) return -1;
    }
    return 0;
}
