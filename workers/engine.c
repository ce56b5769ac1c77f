/* The engine: header, draws, window, ops, result. A lease's worker (or its cage) calls
 * sm_engine_make for each sample; the sink stores what comes out. */
#include "workers/engine.h"
#include "lib/limits.h"
#include "workers/chain.h"
#include "workers/decode.h"
#include "workers/encode.h"
#include "workers/kernels/copy.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <vips/vips.h>

enum { NPY_ALIGN = 64, NPY_HEADER_MAX = 192 };

struct sm_engine {
    const struct sm_pipeline *pipeline;
    bool fuse;
    int channels;
    int dtype, layout; /* of tensors; of images that become rows float32, channel by channel */
    struct sm_chain chain;
    struct sm_chain added; /* the chain of copies that rebalancing added */
    bool has_added;
    struct sm_op_node *added_ops;
    struct sm_decoder *decoder, *whole; /* whole: every pixel, for originals and the reference */
    struct sm_encoder *encoder;
    struct sm_image *image;
    struct sm_buf draws;
    uint32_t bytes_table[256]; /* v / 255 in the output's type */
    uint32_t table[3][256];    /* for the sample at hand */
};

static bool started;

static const struct dtype {
    int size;
    const char
        *descr; /* numpy's; it has no bfloat16, so those open as '<V2', as ml_dtypes writes them */
    uint32_t (*bits)(float v);
} dtypes[] = {[SM_DTYPE_UINT8] = {1, "|u1", NULL},
              [SM_DTYPE_FLOAT32] = {4, "<f4", sm_float_bits32},
              [SM_DTYPE_FLOAT16] = {2, "<f2", sm_float_bits16},
              [SM_DTYPE_BFLOAT16] = {2, "<V2", sm_float_bitsb16}};
static const char *const dtype_words[] = {"uint8", "float32", "float16", "bfloat16"};

static int check_output(const struct sm_engine *e, struct sm_err *err);
static int compile_added(struct sm_engine *e, struct sm_shape in, struct sm_err *err);
static int write_result(struct sm_engine *e, const struct sm_engine_request *request, uint8_t *out,
                        size_t out_max, struct sm_engine_result *result, struct sm_err *err);
static int make_original(struct sm_engine *e, const struct sm_engine_request *request, uint8_t *out,
                         size_t out_max, struct sm_engine_result *result, struct sm_err *err);

/* --- start --- */

int sm_engine_start(const char *argv0, struct sm_err *err) {
    if (getenv("VIPS_UNLIMITED") != NULL)
        return sm_fail(
            err, SM_E_USAGE,
            "VIPS_UNLIMITED is set, which takes the limits off libvips' decoders (hint: unset VIPS_UNLIMITED)");
    if (started) return 0;
    sm_vips_log_install();
    if (VIPS_INIT(argv0) != 0)
        return sm_fail(err, SM_E_INTERNAL, "cannot start libvips: %s", sm_vips_words());
    vips_concurrency_set(1);
    vips_cache_set_max(0);
    vips_cache_set_max_mem(0);
    vips_cache_set_max_files(0);
    vips_block_untrusted_set(TRUE);
    if (sm_decoders_warm(err) != 0) return -1;
    uint8_t pixel[SM_TILE_SLACK] = {0}, out[4096];
    struct sm_tile tile = {.u8 = pixel, .width = 1, .height = 1, .channels = 3, .stride = 3};
    size_t n;
    if (sm_encode_webp(&tile, 90, out, sizeof out, &n, err) != 0 ||
        sm_encode_png(&tile, out, sizeof out, &n, err) != 0)
        return -1;
    started = true;
    return 0;
}

const char *sm_engine_fingerprint(void) {
    static char text[160];
#define NUMBER(x) #x
#define TEXT(x) NUMBER(x)
    snprintf(text, sizeof text, "shardmill 1; libjpeg-turbo %s; libvips %d.%d.%d; libpng %s",
             TEXT(LIBJPEG_TURBO_VERSION), vips_version(0), vips_version(1), vips_version(2),
             sm_encode_png_version());
    return text;
}

static struct sm_decode_options decode_options(const struct sm_pipeline_source *s, bool whole) {
    struct sm_decode_options o = {.channels = s->mode == SM_MODE_L ? 1 : 3,
                                  .background = s->background.count > 0,
                                  .exif = s->exif,
                                  .gif = s->gif,
                                  .tiff = s->tiff,
                                  .whole = whole};
    for (int c = 0; c < 3 && o.background; c++)
        o.rgb[c] = (uint8_t)s->background.v[s->background.count == 3 ? c : 0];
    return o;
}

int sm_engine_new(struct sm_engine **gives, const struct sm_pipeline *p, unsigned flags,
                  struct sm_err *err) {
    assert(started);
    struct sm_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for an engine");
    e->pipeline = p;
    e->fuse = (flags & SM_ENGINE_NO_FUSE) == 0;
    e->channels = p->source.mode == SM_MODE_L ? 1 : 3;
    sm_buf_init(&e->draws, SM_MAX_DRAWS_BYTES - 1);
    const struct sm_decode_options options = decode_options(&p->source, !e->fuse);
    const struct sm_decode_options whole = decode_options(&p->source, true);
    e->decoder = sm_decoder_new(&options);
    e->whole = sm_decoder_new(&whole);
    e->encoder = sm_encoder_new();
    e->image = sm_image_new(e->fuse);
    const bool rows = sm_pipeline_is_rows(p);
    e->dtype = rows ? SM_DTYPE_FLOAT32 : p->output.dtype;
    e->layout = rows ? SM_LAYOUT_NCHW : p->output.layout;
    for (int v = 0; v < 256 && e->dtype != SM_DTYPE_UINT8; v++)
        e->bytes_table[v] = dtypes[e->dtype].bits((float)v / 255.0f);
    const struct sm_shape in = {.channels = e->channels};
    int failed =
        e->decoder == NULL || e->whole == NULL || e->encoder == NULL || e->image == NULL
            ? sm_fail(err, SM_E_MEMORY, "no memory for an engine")
            : sm_chain_compile(&e->chain, p->ops, sm_pipeline_image_ops(p), in, err) != 0 ||
                  check_output(e, err) != 0 || compile_added(e, in, err) != 0;
    if (failed) {
        sm_engine_free(&e);
        return -1;
    }
    *gives = e;
    return 0;
}

void sm_engine_free(struct sm_engine **e) {
    if (*e == NULL) return;
    sm_chain_release(&(*e)->chain);
    sm_chain_release(&(*e)->added);
    free((*e)->added_ops);
    sm_decoder_free(&(*e)->decoder);
    sm_decoder_free(&(*e)->whole);
    sm_encoder_free(&(*e)->encoder);
    sm_image_free(&(*e)->image);
    sm_buf_release(&(*e)->draws);
    free(*e);
    *e = NULL;
}

/* The ops of `augment_minority` run where the image is still one of bytes: before Normalize or
 * Flatten, else at the end. They may not change what comes out. */
static int compile_added(struct sm_engine *e, struct sm_shape in, struct sm_err *err) {
    const struct sm_pipeline *p = e->pipeline;
    const struct sm_op_node *more = p->rebalance;
    const size_t n = sm_pipeline_image_ops(p);
    if (more == NULL || more->n_children == 0) return 0;
    size_t at = 0;
    while (at < n && strcmp(p->ops[at].info->name, "Normalize") != 0 &&
           strcmp(p->ops[at].info->name, "Flatten") != 0)
        at++;
    if (n + more->n_children > SM_MAX_OPS)
        return sm_fail(err, SM_E_PIPELINE, "more than %d ops with those of 'augment_minority'",
                       SM_MAX_OPS);
    e->added_ops = calloc(n + more->n_children, sizeof *e->added_ops);
    if (e->added_ops == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for an engine");
    memcpy(e->added_ops, p->ops, at * sizeof *p->ops);
    memcpy(e->added_ops + at, more->children, more->n_children * sizeof *p->ops);
    memcpy(e->added_ops + at + more->n_children, p->ops + at, (n - at) * sizeof *p->ops);
    e->has_added = true;
    if (sm_chain_compile(&e->added, e->added_ops, n + more->n_children, in, err) != 0) return -1;
    const struct sm_shape *a = &e->chain.out, *b = &e->added.out;
    if (a->width == b->width && a->height == b->height && a->channels == b->channels &&
        a->is_float == b->is_float)
        return 0;
    return sm_fail(err, SM_E_PIPELINE,
                   "line %d: 'augment_minority' changes the size or kind of the images (hint: only "
                   "ops that keep it, such as flips, RandomRotation, ColorJitter)",
                   more->line);
}

static int check_output(const struct sm_engine *e, struct sm_err *err) {
    if (!e->chain.out.is_float || sm_pipeline_is_rows(e->pipeline)) return 0;
    if (e->pipeline->expand.encode != SM_ENCODE_TENSOR)
        return sm_fail(
            err, SM_E_PIPELINE,
            "after 'Normalize' the image is float32, which only a tensor can hold (hint: expand: {encode: tensor}, or remove Normalize)");
    if (e->pipeline->output.dtype == SM_DTYPE_UINT8)
        return sm_fail(
            err, SM_E_PIPELINE,
            "after 'Normalize' the image is float32, but output.dtype is uint8 (hint: output: {dtype: float32})");
    return 0;
}

/* --- a sample --- */

static int make_changed(struct sm_engine *e, const struct sm_engine_request *request, uint8_t *out,
                        size_t out_max, struct sm_engine_result *result, struct sm_err *err) {
    const struct sm_chain_sample sample = {.seed = request->seed,
                                           .sample = request->sample,
                                           .epoch = request->epoch,
                                           .copy = request->copy};
    struct sm_shape in = {.channels = e->channels}, shape;
    if (sm_decoder_open(e->decoder, request->bytes, request->n_bytes, err) != 0) return -1;
    in.width = result->in_width = sm_decoder_width(e->decoder);
    in.height = result->in_height = sm_decoder_height(e->decoder);
    struct sm_chain *chain = request->added && e->has_added ? &e->added : &e->chain;
    if (sm_chain_draw(chain, &sample, in, &shape, err) != 0) return -1;
    if (sm_image_open(e->image, e->decoder, e->channels, err) != 0) return -1;
    if (sm_chain_apply(chain, e->image, err) != 0) return -1;
    sm_chain_json(chain, &e->draws);
    return write_result(e, request, out, out_max, result, err);
}

int sm_engine_make(struct sm_engine *e, const struct sm_engine_request *request, uint8_t *out,
                   size_t out_max, char *draws, struct sm_engine_result *result,
                   struct sm_err *err) {
    *result = (struct sm_engine_result){0};
    sm_buf_reset(&e->draws);
    int failed = request->original ? make_original(e, request, out, out_max, result, err)
                                   : make_changed(e, request, out, out_max, result, err);
    sm_decoder_close(e->decoder);
    sm_decoder_close(e->whole);
    if (failed) return -1;
    if (e->draws.full)
        return sm_fail(err, SM_E_OP, "what was drawn takes more than %d bytes", SM_MAX_DRAWS_BYTES);
    memcpy(draws, e->draws.data, e->draws.len + 1);
    result->draws_bytes = e->draws.len;
    return 0;
}

static int make_original(struct sm_engine *e, const struct sm_engine_request *request, uint8_t *out,
                         size_t out_max, struct sm_engine_result *result, struct sm_err *err) {
    struct sm_image_end end;
    if (sm_decoder_open(e->whole, request->bytes, request->n_bytes, err) != 0) return -1;
    result->in_width = result->width = sm_decoder_width(e->whole);
    result->in_height = result->height = sm_decoder_height(e->whole);
    result->channels = e->channels;
    if (sm_image_open(e->image, e->whole, e->channels, err) != 0 ||
        sm_image_end(e->image, &end, err) != 0)
        return -1;
    if (request->n_bytes > out_max)
        return sm_fail(err, SM_E_TOO_LARGE, "%zu bytes do not fit into the result's memory",
                       request->n_bytes);
    memcpy(out, request->bytes, request->n_bytes);
    result->n_bytes = request->n_bytes;
    snprintf(result->extension, sizeof result->extension, "%s", sm_decoder_extension(e->whole));
    sm_buf_text(&e->draws, "[]");
    return 0;
}

/* --- the result --- */

/* numpy's format 1.0: magic, version, length of the header, a Python dict, padded so that the data
 * is aligned. */
static size_t npy_header(char text[NPY_HEADER_MAX], const char *descr, const int shape[3]) {
    char dict[NPY_HEADER_MAX];
    int n = snprintf(dict, sizeof dict,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%d, %d, %d), }", descr,
                     shape[0], shape[1], shape[2]);
    size_t total = ((size_t)n + 11 + NPY_ALIGN - 1) / NPY_ALIGN * NPY_ALIGN;
    assert(total <= NPY_HEADER_MAX);
    memset(text, ' ', total);
    memcpy(text, "\x93NUMPY\x01", 8);
    text[8] = (char)((total - 10) & 0xff);
    text[9] = (char)((total - 10) >> 8);
    memcpy(text + 10, dict, (size_t)n);
    text[total - 1] = '\n';
    return total;
}

/* What each byte becomes in the output's type; NULL when it stays what it is. */
static const uint32_t (*byte_table(struct sm_engine *e, const struct sm_image_end *end))[256] {
    const struct dtype *type = &dtypes[e->dtype];
    if (end->table == NULL && type->bits == NULL) return NULL;
    for (int c = 0; c < end->tile.channels; c++) {
        if (end->table == NULL)
            memcpy(e->table[c], e->bytes_table, sizeof e->table[c]);
        else
            for (int v = 0; v < 256; v++)
                e->table[c][v] = type->bits(end->table[c][v]);
    }
    return e->table;
}

static int write_tensor(struct sm_engine *e, const struct sm_image_end *end, uint8_t *out,
                        size_t out_max, struct sm_engine_result *result, struct sm_err *err) {
    const struct dtype *type = &dtypes[e->dtype];
    const struct sm_tile *t = &end->tile;
    const bool planes = e->layout == SM_LAYOUT_NCHW;
    const int chw[3] = {t->channels, t->height, t->width},
              hwc[3] = {t->height, t->width, t->channels};
    char header[NPY_HEADER_MAX];
    const size_t n_header = npy_header(header, type->descr, planes ? chw : hwc);
    const size_t n =
        (size_t)t->width * (size_t)t->height * (size_t)t->channels * (size_t)type->size;
    if (n > SM_MAX_RESULT_BYTES || n_header + n > out_max)
        return sm_fail(err, SM_E_TOO_LARGE,
                       "a tensor of %zu bytes does not fit into the result's memory", n);
    memcpy(out, header, n_header);
    const struct sm_layout_job job = {.tile = *t,
                                      .flip_x = end->flip_x,
                                      .flip_y = end->flip_y,
                                      .planes = planes,
                                      .size = type->size,
                                      .table = t->is_float ? NULL : byte_table(e, end),
                                      .narrow = type->bits};
    sm_layout_write(&job, out + n_header);
    result->n_bytes = n_header + n;
    memcpy(result->extension, "npy", 4);
    return 0;
}

static int write_picture(struct sm_engine *e, uint8_t *out, size_t out_max,
                         struct sm_engine_result *result, struct sm_err *err) {
    static const char *const extensions[] = {"jpg", "png", "webp"};
    const int encode = e->pipeline->expand.encode, quality = (int)e->pipeline->expand.quality;
    struct sm_tile tile;
    if (sm_image_pixels(e->image, &tile, err) != 0) return -1;
    assert(!tile.is_float && encode < SM_ENCODE_TENSOR);
    snprintf(result->extension, sizeof result->extension, "%s", extensions[encode]);
    if (encode == SM_ENCODE_JPEG)
        return sm_encode_jpeg(e->encoder, &tile, quality, out, out_max, &result->n_bytes, err);
    if (encode == SM_ENCODE_PNG) return sm_encode_png(&tile, out, out_max, &result->n_bytes, err);
    return sm_encode_webp(&tile, quality, out, out_max, &result->n_bytes, err);
}

static int write_result(struct sm_engine *e, const struct sm_engine_request *request, uint8_t *out,
                        size_t out_max, struct sm_engine_result *result, struct sm_err *err) {
    result->width = sm_image_width(e->image);
    result->height = sm_image_height(e->image);
    result->channels = sm_image_channels(e->image);
    if (!request->tensor && e->pipeline->expand.encode < SM_ENCODE_TENSOR)
        return write_picture(e, out, out_max, result, err);
    struct sm_image_end end;
    if (sm_image_end(e->image, &end, err) != 0) return -1;
    return write_tensor(e, &end, out, out_max, result, err);
}

/* --- explain --- */

static void explain_shape(const struct sm_shape *s, struct sm_buf *out) {
    sm_buf_printf(out, "%d x ", s->channels);
    if (s->height > 0)
        sm_buf_printf(out, "%d x ", s->height);
    else
        sm_buf_text(out, "? x ");
    if (s->width > 0)
        sm_buf_printf(out, "%d", s->width);
    else
        sm_buf_text(out, "?");
    sm_buf_text(out, s->is_float ? " float32" : " uint8");
}

static int step_depth(const struct sm_chain *c, size_t i) {
    int depth = 0;
    for (size_t k = 0; k < i; k++)
        depth += c->steps[k].end > i;
    return depth;
}

void sm_engine_explain(const struct sm_engine *e, struct sm_buf *out) {
    const struct sm_chain *c = &e->chain;
    const struct sm_pipeline_source *s = &e->pipeline->source;
    sm_buf_printf(out, "decode   jpeg, png, webp%s%s to %s, limits %d pixels a side, %d in all\n",
                  s->gif ? ", gif" : "", s->tiff ? ", tiff" : "", e->channels == 1 ? "L" : "RGB",
                  SM_MAX_IMAGE_SIDE, SM_MAX_IMAGE_PIXELS);
    for (size_t i = 0; i < c->n; i++) {
        sm_buf_printf(out, "%3zu      %*s%-*s ", i, step_depth(c, i) * 2, "",
                      24 - step_depth(c, i) * 2, c->steps[i].op->info.name);
        explain_shape(&c->steps[i].out, out);
        sm_buf_printf(out, "%s\n", c->steps[i].op->draw != NULL ? "  random" : "");
    }
    sm_buf_text(
        out,
        e->fuse
            ? "fused    crops before the first pixel op go into the decoder; flips and Normalize at the end happen while the result is written\n"
            : "fused    nothing: op by op, whole decode\n");
    if (sm_pipeline_is_rows(e->pipeline)) return; /* the rest is told by features.h */
    const struct sm_pipeline_output *o = &e->pipeline->output;
    if (e->pipeline->expand.encode < SM_ENCODE_TENSOR) {
        static const char *const words[] = {"jpeg", "png", "webp"};
        sm_buf_printf(out, "encode   %s, quality %d\n", words[e->pipeline->expand.encode],
                      (int)e->pipeline->expand.quality);
    }
    sm_buf_printf(out, "tensor   %s %s", o->layout == SM_LAYOUT_NCHW ? "CHW" : "HWC",
                  dtype_words[o->dtype]);
    if (c->out.width > 0 && c->out.height > 0)
        sm_buf_printf(out, ", %zu bytes a sample",
                      (size_t)c->out.width * (size_t)c->out.height * (size_t)c->out.channels *
                          (size_t)dtypes[o->dtype].size);
    sm_buf_text(out, "\n");
}
