/* JPEG by libjpeg-turbo's own interface, because only that decodes a window: rows above are
 * skipped, columns beside are not transformed, and decoding stops below, unless the file does not
 * end as a JPEG must: then all of it is decoded, so that a cut file is found whatever the window.
 * Every warning that means damage is an error. */
#include "lib/limits.h"
#include "workers/decode.h"

#include <assert.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

enum { SCANS_MAX = 500, ROWS_AT_ONCE = 16 };

struct sm_jpeg {
    struct jpeg_decompress_struct c;
    struct jpeg_error_mgr handlers;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    struct sm_err *err; /* of the call that is running */
    struct sm_decode_options options;
    const uint8_t *bytes;
    size_t n;
    bool ends; /* the last bytes are an end-of-image marker */
};

static int jpeg_guard(struct sm_jpeg *j, void (*body)(struct sm_jpeg *, void *), void *arg,
                      struct sm_err *err);
static void on_error(j_common_ptr c);
static void on_message(j_common_ptr c, int level);
static void on_output(j_common_ptr c);
static void on_progress(j_common_ptr c);

static void create(struct sm_jpeg *j, void *arg) {
    (void)arg;
    jpeg_create_decompress(&j->c);
}

struct sm_jpeg *sm_jpeg_new(const struct sm_decode_options *options) {
    struct sm_jpeg *j = calloc(1, sizeof *j);
    if (j == NULL) return NULL;
    j->options = *options;
    j->c.err = jpeg_std_error(&j->handlers);
    j->handlers.error_exit = on_error;
    j->handlers.emit_message = on_message;
    j->handlers.output_message = on_output;
    j->c.client_data = j;
    if (jpeg_guard(j, create, NULL, NULL) != 0) {
        free(j);
        return NULL;
    }
    j->progress.progress_monitor = on_progress;
    j->c.progress = &j->progress;
    return j;
}

void sm_jpeg_free(struct sm_jpeg **j) {
    if (*j == NULL) return;
    jpeg_destroy_decompress(&(*j)->c);
    free(*j);
    *j = NULL;
}

/* --- errors --- */

/* libjpeg reports by calling back and must not be returned to: everything that calls it runs in
 * here. */
static int jpeg_guard(struct sm_jpeg *j, void (*body)(struct sm_jpeg *, void *), void *arg,
                      struct sm_err *err) {
    j->err = err;
    if (setjmp(j->jump)) {
        jpeg_abort_decompress(&j->c);
        return -1;
    }
    body(j, arg);
    return 0;
}

static enum sm_code code_of(int message) {
    switch (message) {
    case JWRN_JPEG_EOF:
    case JERR_INPUT_EMPTY:
    case JERR_INPUT_EOF:
        return SM_E_TRUNCATED;
    case JERR_OUT_OF_MEMORY:
        return SM_E_MEMORY;
    default:
        return SM_E_DECODE;
    }
}

static void on_error(j_common_ptr c) {
    struct sm_jpeg *j = c->client_data;
    char text[JMSG_LENGTH_MAX] = "";
    c->err->format_message(c, text);
    sm_fail(j->err, code_of(c->err->msg_code), "jpeg: %s",
            text[0] ? text : "the decoder gave no reason");
    longjmp(j->jump, 1);
}

/* Harmless: an odd version number in a header, and padding before the end marker, which some
 * cameras write. */
static bool is_harmless(j_common_ptr c) {
    switch (c->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
        return true;
    case JWRN_EXTRANEOUS_DATA:
        return c->err->msg_parm.i[1] == JPEG_EOI;
    default:
        return false;
    }
}

static void on_message(j_common_ptr c, int level) {
    if (level < 0 && !is_harmless(c)) on_error(c);
}

static void on_output(j_common_ptr c) {
    (void)c;
}

/* A progressive file may hold scans without end, each of them a pass over the whole image. */
static void on_progress(j_common_ptr c) {
    struct sm_jpeg *j = c->client_data;
    if (c->is_decompressor && ((j_decompress_ptr)c)->input_scan_number > SCANS_MAX) {
        sm_fail(j->err, SM_E_TOO_LARGE, "jpeg: more than %d scans", SCANS_MAX);
        longjmp(j->jump, 1);
    }
}

/* --- header --- */

static bool has_end(const uint8_t *bytes, size_t n) {
    while (n > 2 && bytes[n - 1] == 0)
        n--;
    return n >= 4 && bytes[n - 2] == 0xff && bytes[n - 1] == JPEG_EOI;
}

static void read_header(struct sm_jpeg *j, void *arg) {
    (void)arg;
    jpeg_mem_src(&j->c, j->bytes, j->n);
    jpeg_read_header(&j->c, TRUE);
}

int sm_jpeg_open(struct sm_jpeg *j, const uint8_t *bytes, size_t n, struct sm_header *header,
                 struct sm_err *err) {
    j->bytes = bytes;
    j->n = n;
    j->ends = has_end(bytes, n);
    if (jpeg_guard(j, read_header, NULL, err) != 0) return -1;
    int bands = j->c.num_components;
    if (bands != 1 && bands != 3 && bands != 4) {
        sm_jpeg_close(j);
        return sm_fail(err, SM_E_FORMAT, "jpeg: %d components are not read here", bands);
    }
    *header =
        (struct sm_header){.width = (int)j->c.image_width,
                           .height = (int)j->c.image_height,
                           .bands = bands,
                           .orientation = j->options.exif ? sm_jpeg_orientation(bytes, n) : 1};
    return 0;
}

void sm_jpeg_close(struct sm_jpeg *j) {
    jpeg_abort_decompress(&j->c);
}

/* --- pixels --- */

struct reading {
    struct sm_rect window;
    struct sm_block *to;
    struct sm_tile *tile;
};

static void choose_colours(struct sm_jpeg *j) {
    struct jpeg_decompress_struct *c = &j->c;
    c->dct_method = JDCT_ISLOW;
    c->do_fancy_upsampling = TRUE;
    if (c->num_components == 4)
        c->out_color_space = JCS_CMYK;
    else if (c->num_components == 1 && j->options.channels == 1)
        c->out_color_space = JCS_GRAYSCALE;
    else
        c->out_color_space = JCS_RGB;
}

/* The columns to decode: the window and, where colour is stored at less than full width, one block
 * on each side, because upsampling looks at its neighbours. Returns the column at which rows then
 * begin. */
static int crop_columns(struct jpeg_decompress_struct *c, int x, int width) {
    const int margin = c->max_h_samp_factor > 1 ? c->max_h_samp_factor * DCTSIZE : 0;
    int begin = x - margin < 0 ? 0 : x - margin, end = x + width + margin;
    if (end > (int)c->output_width) end = (int)c->output_width;
    if (begin == 0 && end == (int)c->output_width) return 0;
    JDIMENSION offset = (JDIMENSION)begin, columns = (JDIMENSION)(end - begin);
    jpeg_crop_scanline(c, &offset, &columns);
    return (int)offset;
}

/* The row to begin with: that of the window's first block, or of the block above where rows are
 * upsampled too. */
static int first_row(const struct jpeg_decompress_struct *c, int y) {
    const int block = c->max_v_samp_factor * DCTSIZE, above = c->max_v_samp_factor > 1 ? 1 : 0;
    return y / block <= above ? 0 : (y / block - above) * block;
}

static void read_rows(struct jpeg_decompress_struct *c, uint8_t *to, size_t stride, int n) {
    JSAMPROW rows[ROWS_AT_ONCE];
    while (n > 0) {
        int want = n < ROWS_AT_ONCE ? n : ROWS_AT_ONCE;
        for (int i = 0; i < want; i++)
            rows[i] = to + (size_t)i * stride;
        int got = (int)jpeg_read_scanlines(c, rows, (JDIMENSION)want);
        if (got == 0) ERREXIT(c, JERR_INPUT_EOF);
        to += (size_t)got * stride;
        n -= got;
    }
}

/* Decodes what is left. A skip that reaches the bottom only pretends to (libjpeg-turbo declares the
 * image finished without looking at it), so the last row is read. */
static void read_rest(struct jpeg_decompress_struct *c, uint8_t *row) {
    if (c->output_scanline + 1 < c->output_height)
        jpeg_skip_scanlines(c, c->output_height - 1 - c->output_scanline);
    if (c->output_scanline < c->output_height) read_rows(c, row, 0, 1);
    jpeg_finish_decompress(c);
}

static void read_window(struct sm_jpeg *j, void *arg) {
    struct reading *r = arg;
    struct jpeg_decompress_struct *c = &j->c;
    choose_colours(j);
    jpeg_start_decompress(c);

    struct sm_rect w = r->window;
    if (j->options.whole) w = (struct sm_rect){0, 0, (int)c->output_width, (int)c->output_height};
    const int left = crop_columns(c, w.x, w.width), top = first_row(c, w.y), end = w.y + w.height;
    const size_t bands = (size_t)c->output_components;
    const size_t stride = ((size_t)c->output_width * bands + 15) & ~(size_t)15;
    if (sm_block_reserve(r->to, stride * (size_t)(end - top + 1), j->err) != 0) longjmp(j->jump, 1);
    if (top > 0 && (int)jpeg_skip_scanlines(c, (JDIMENSION)top) != top) ERREXIT(c, JERR_INPUT_EOF);
    read_rows(c, r->to->data, stride, end - top);

    if (!j->ends || j->options.whole) read_rest(c, r->to->data + stride * (size_t)(end - top));
    *r->tile = (struct sm_tile){.u8 = r->to->data + (size_t)(r->window.y - top) * stride +
                                      (size_t)(r->window.x - left) * bands,
                                .width = r->window.width,
                                .height = r->window.height,
                                .channels = (int)bands,
                                .stride = stride};
}

/* Four inks are stored inverted, by Adobe's custom, which PIL takes for granted too. */
static void invert_row(uint8_t *row, int n) {
    for (int i = 0; i < n; i++)
        row[i] = (uint8_t)(255 - row[i]);
}

static void convert_tile(const struct sm_decode_options *options, struct sm_tile *tile) {
    if (tile->channels == options->channels) return;
    const enum sm_pixels pixels = tile->channels == 4 ? SM_PIXELS_CMYK : SM_PIXELS_RGB;
    for (int row = 0; row < tile->height; row++) {
        uint8_t *at = tile->u8 + (size_t)row * tile->stride;
        if (pixels == SM_PIXELS_CMYK) invert_row(at, tile->width * 4);
        sm_convert_row(at, pixels, at, options->channels, tile->width, NULL);
    }
    tile->channels = options->channels;
}

int sm_jpeg_read(struct sm_jpeg *j, struct sm_rect window, struct sm_block *to,
                 struct sm_tile *tile, struct sm_err *err) {
    struct reading r = {.window = window, .to = to, .tile = tile};
    if (jpeg_guard(j, read_window, &r, err) != 0) return -1;
    convert_tile(&j->options, tile);
    return 0;
}

/* --- EXIF --- */

static unsigned number(const uint8_t *p, int bytes, bool big) {
    unsigned v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (unsigned)p[i] << 8 * (big ? bytes - 1 - i : i);
    return v;
}

/* The orientation tag of a TIFF directory, as EXIF embeds one. */
static int tiff_orientation(const uint8_t *p, size_t n) {
    if (n < 14 || (memcmp(p, "II*\0", 4) != 0 && memcmp(p, "MM\0*", 4) != 0)) return 1;
    const bool big = p[0] == 'M';
    size_t at = number(p + 4, 4, big);
    if (at > n - 2) return 1;
    unsigned entries = number(p + at, 2, big);
    for (at += 2; entries > 0 && at + 12 <= n; entries--, at += 12) {
        if (number(p + at, 2, big) != 0x0112) continue;
        unsigned value = number(p + at + 8, 2, big);
        bool is_short = number(p + at + 2, 2, big) == 3;
        return is_short && value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

int sm_jpeg_orientation(const uint8_t *bytes, size_t n) {
    size_t at = 2;
    while (at + 4 <= n && bytes[at] == 0xff) {
        int marker = bytes[at + 1];
        if (marker == 0xff) {
            at++;
            continue;
        }
        if (marker == 0xda || marker == 0xd9) return 1;
        size_t length = number(bytes + at + 2, 2, true);
        if (length < 2 || length > n - at - 2) return 1;
        const uint8_t *body = bytes + at + 4;
        if (marker == 0xe1 && length >= 8 && memcmp(body, "Exif\0\0", 6) == 0)
            return tiff_orientation(body + 6, length - 8);
        at += 2 + length;
    }
    return 1;
}
