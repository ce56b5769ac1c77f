/* JPEG by libjpeg-turbo: baseline, 4:2:0, the given quality, as PIL writes by default. */
#include "workers/encode.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#include <jerror.h>

struct sm_encoder {
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr handlers;
    struct jpeg_destination_mgr to;
    jmp_buf jump;
    struct sm_err *err;
};

struct job {
    const struct sm_tile *tile;
    int quality;
};

static void on_error(j_common_ptr c) {
    struct sm_encoder *e = c->client_data;
    char text[JMSG_LENGTH_MAX] = "";
    c->err->format_message(c, text);
    sm_fail(e->err, c->err->msg_code == JERR_OUT_OF_MEMORY ? SM_E_MEMORY : SM_E_OP,
            "cannot encode a jpeg: %s", text);
    longjmp(e->jump, 1);
}

static void on_output(j_common_ptr c) {
    (void)c;
}

static void to_begin(j_compress_ptr c) {
    (void)c;
}

static boolean to_full(j_compress_ptr c) {
    struct sm_encoder *e = c->client_data;
    sm_fail(e->err, SM_E_TOO_LARGE, "the encoded jpeg does not fit into the result's memory");
    longjmp(e->jump, 1);
}

static int guard(struct sm_encoder *e, void (*body)(struct sm_encoder *, const struct job *),
                 const struct job *job, struct sm_err *err) {
    e->err = err;
    if (setjmp(e->jump)) {
        jpeg_abort_compress(&e->c);
        return -1;
    }
    body(e, job);
    return 0;
}

static void create(struct sm_encoder *e, const struct job *job) {
    (void)job;
    jpeg_create_compress(&e->c);
}

struct sm_encoder *sm_encoder_new(void) {
    struct sm_encoder *e = calloc(1, sizeof *e);
    if (e == NULL) return NULL;
    e->c.err = jpeg_std_error(&e->handlers);
    e->handlers.error_exit = on_error;
    e->handlers.output_message = on_output;
    e->c.client_data = e;
    if (guard(e, create, NULL, NULL) != 0) {
        free(e);
        return NULL;
    }
    e->to = (struct jpeg_destination_mgr){
        .init_destination = to_begin, .empty_output_buffer = to_full, .term_destination = to_begin};
    e->c.dest = &e->to;
    return e;
}

void sm_encoder_free(struct sm_encoder **e) {
    if (*e == NULL) return;
    jpeg_destroy_compress(&(*e)->c);
    free(*e);
    *e = NULL;
}

static void write_tile(struct sm_encoder *e, const struct job *job) {
    struct jpeg_compress_struct *c = &e->c;
    const struct sm_tile *t = job->tile;
    c->image_width = (JDIMENSION)t->width;
    c->image_height = (JDIMENSION)t->height;
    c->input_components = t->channels;
    c->in_color_space = t->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(c);
    jpeg_set_quality(c, job->quality, TRUE);
    jpeg_start_compress(c, TRUE);
    for (int y = 0; y < t->height; y++) {
        JSAMPROW row = sm_tile_row(t, y);
        jpeg_write_scanlines(c, &row, 1);
    }
    jpeg_finish_compress(c);
}

int sm_encode_jpeg(struct sm_encoder *e, const struct sm_tile *tile, int quality, uint8_t *out,
                   size_t out_max, size_t *n, struct sm_err *err) {
    const struct job job = {.tile = tile, .quality = quality};
    if (out_max == 0) /* libjpeg puts a byte first and asks for room afterwards */
        return sm_fail(err, SM_E_TOO_LARGE,
                       "the encoded jpeg does not fit into the result's memory");
    e->to.next_output_byte = out;
    e->to.free_in_buffer = out_max;
    if (guard(e, write_tile, &job, err) != 0) return -1;
    *n = out_max - e->to.free_in_buffer;
    return 0;
}
