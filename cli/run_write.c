/* Writes the record of a run: header, slice, manifest, quarantine. Everything goes through one
 * buffer that is emptied into the file when it is long. Before: the shards are sealed. Readers rely
 * on the manifest's fields: when you change one, raise SM_MANIFEST_VERSION and tell
 * proto/PROTOCOL.md. */
#include "cli/run.h"

#include "lib/buf.h"
#include "lib/fs.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { PIECE_BYTES = 1 << 20 };

struct out {
    struct sm_newfile *file;
    struct sm_buf buf;
    struct sm_err *err;
    bool failed;
};

static int out_open(struct out *o, const char *path, struct sm_err *err) {
    *o = (struct out){.err = err};
    sm_buf_init(&o->buf, 2 * PIECE_BYTES);
    return sm_newfile_open(&o->file, path, err);
}

static void out_flush(struct out *o, size_t when_over) {
    if (o->failed || o->buf.len <= when_over) return;
    if (o->buf.full)
        o->failed = sm_fail(o->err, SM_E_MEMORY, "out of memory") < 0;
    else
        o->failed = sm_newfile_add(o->file, o->buf.data, o->buf.len, o->err) < 0;
    sm_buf_reset(&o->buf);
}

static int out_close(struct out *o) {
    out_flush(o, 0);
    sm_buf_release(&o->buf);
    if (o->failed) {
        sm_newfile_abandon(&o->file);
        return -1;
    }
    return sm_newfile_commit(&o->file, o->err);
}

static void put_text(struct out *o, const char *name, const char *text) {
    sm_buf_printf(&o->buf, ",\n\"%s\": ", name);
    sm_buf_json(&o->buf, text);
}

static void put_texts(struct out *o, const char *name, char *const *texts, size_t n) {
    sm_buf_printf(&o->buf, ",\n\"%s\": [", name);
    for (size_t i = 0; i < n; i++) {
        sm_buf_text(&o->buf, i ? ", " : "");
        sm_buf_json(&o->buf, texts[i]);
        out_flush(o, PIECE_BYTES);
    }
    sm_buf_text(&o->buf, "]");
}

static void put_header(struct out *o, const struct sm_run *r) {
    struct sm_buf *b = &o->buf;
    sm_buf_printf(b, "{\n\"version\": %d,\n\"name\": ", SM_MANIFEST_VERSION);
    sm_buf_json(b, r->name);
    sm_buf_printf(b, ",\n\"pipeline_digest\": \"%s\",\n\"dataset_digest\": \"%s\",\n",
                  r->pipeline_digest, r->dataset_digest);
    if (r->asked_digest[0] != 0) sm_buf_printf(b, "\"asked_digest\": \"%s\",\n", r->asked_digest);
    sm_buf_printf(b, "\"seed\": %" PRIu64 ",\n\"epoch\": %u,\n\"fingerprint\": ", r->plan.seed,
                  r->plan.epoch);
    sm_buf_json(b, r->fingerprint ? r->fingerprint : "");
    sm_buf_printf(b,
                  ",\n\"samples\": %" PRIu64 ",\n\"copies\": %u,\n\"shuffle\": %s,\n"
                  "\"samples_per_shard\": %" PRIu64 ",\n\"format\": \"%s\"",
                  r->plan.samples, r->plan.copies, r->plan.shuffle ? "true" : "false",
                  r->plan.shard_samples, sm_shard_words[r->format]);
    if (r->part != NULL) put_text(o, "part", r->part);
    if (r->rebalance != NULL) put_text(o, "rebalance", r->rebalance);
    if (r->weights) sm_buf_text(b, ",\n\"weights\": true");
    if (r->n_columns > 0) put_texts(o, "columns", r->columns, r->n_columns);
    put_texts(o, "classes", r->classes, r->n_classes);
}

/* Of a job that rebalances: where its samples of the class come from. */
static void put_account(struct out *o, const struct sm_run_class *n, bool weights) {
    sm_buf_printf(&o->buf,
                  ", \"present\": %" PRIu64 ", \"distinct\": %" PRIu64 ", \"repeated\": %" PRIu64
                  ", \"synthetic\": %" PRIu64 ", \"log_prior_shift\": ",
                  n->present, n->distinct, n->repeated, n->synthetic);
    if (isfinite(n->log_prior_shift)) /* 17 digits read back equal */
        sm_buf_printf(&o->buf, "%.17g", n->log_prior_shift);
    else
        sm_buf_text(&o->buf, "null");
    if (weights) sm_buf_printf(&o->buf, ", \"weight\": %.17g", n->weight);
}

static void put_counts(struct out *o, const struct sm_run *r) {
    uint64_t planned = sm_run_planned(r);
    sm_buf_printf(&o->buf,
                  ",\n\"planned\": %" PRIu64 ",\n\"written\": %" PRIu64 ",\n\"quarantined\": %zu",
                  planned, planned - r->n_bad, r->n_bad);
    if (r->unreadable > 0)
        sm_buf_printf(&o->buf, ",\n\"unreadable_rows\": %" PRIu64, r->unreadable);
    sm_buf_text(&o->buf, ",\n\"per_class\": {");
    for (size_t c = 0; c < r->n_classes; c++) {
        const struct sm_run_class *n = &r->counts[c];
        sm_buf_text(&o->buf, c ? ",\n  " : "\n  ");
        sm_buf_json(&o->buf, r->classes[c]);
        sm_buf_printf(&o->buf,
                      ": {\"planned\": %" PRIu64 ", \"written\": %" PRIu64
                      ", \"quarantined\": %" PRIu64 ", \"in_shards\": %" PRIu64,
                      n->planned, n->planned - n->quarantined, n->quarantined, n->in_shards);
        if (r->rebalance != NULL) put_account(o, n, r->weights);
        sm_buf_text(&o->buf, "}");
        out_flush(o, PIECE_BYTES);
    }
    sm_buf_text(&o->buf, "\n}");
}

static void put_shards(struct out *o, const struct sm_run *r) {
    sm_buf_text(&o->buf, ",\n\"shards\": [");
    for (size_t i = 0; i < r->n_shards; i++) {
        const struct sm_shard_record *s = &r->shards[i];
        char name[SM_PART_NAME_MAX];
        sm_shard_file(s->shard, r->format, name);
        sm_buf_printf(&o->buf,
                      "%s{\"name\": \"%s\", \"samples\": %" PRIu64 ", \"bytes\": %" PRIu64
                      ", \"sha256\": \"%s\"}",
                      i ? ",\n  " : "\n  ", name, s->samples, s->bytes, s->sha256);
        out_flush(o, PIECE_BYTES);
    }
    sm_buf_text(&o->buf, "\n]");
}

static void put_bad(struct out *o, const struct sm_run *r, const struct sm_bad *b) {
    sm_buf_printf(&o->buf, "{\"sample\": %" PRIu64, b->sample);
    if (b->row >= 0) sm_buf_printf(&o->buf, ", \"row\": %" PRId64, b->row);
    sm_buf_text(&o->buf, ", \"file\": ");
    sm_buf_json(&o->buf, b->file);
    if (b->line > 0) sm_buf_printf(&o->buf, ", \"line\": %" PRIu64, b->line);
    if (b->row < 0 || b->line > 0) sm_buf_printf(&o->buf, ", \"offset\": %" PRIu64, b->offset);
    sm_buf_text(&o->buf, ", \"class\": ");
    sm_buf_json(&o->buf, r->classes[b->label]);
    sm_buf_text(&o->buf, ", \"stage\": ");
    sm_buf_json(&o->buf, b->stage);
    sm_buf_text(&o->buf, ", \"code\": ");
    sm_buf_json(&o->buf, b->code);
    sm_buf_text(&o->buf, ", \"text\": ");
    sm_buf_json(&o->buf, b->text);
    out_flush(o, PIECE_BYTES);
}

/* A row that is no sample, since it could not be read. */
static void put_line(struct out *o, const struct sm_bad_line *l) {
    sm_buf_printf(&o->buf, "{\"row\": %" PRIu64 ", \"file\": ", l->row);
    sm_buf_json(&o->buf, l->file);
    sm_buf_printf(&o->buf, ", \"line\": %" PRIu64 ", \"offset\": %" PRIu64, l->line, l->offset);
    sm_buf_text(&o->buf, ", \"stage\": \"index\", \"code\": ");
    sm_buf_json(&o->buf, l->code);
    sm_buf_text(&o->buf, ", \"text\": ");
    sm_buf_json(&o->buf, l->text);
    out_flush(o, PIECE_BYTES);
}

int sm_run_write_header(const struct sm_run *r, const char *path, struct sm_err *err) {
    struct out o;
    if (out_open(&o, path, err) < 0) return -1;
    put_header(&o, r);
    sm_buf_text(&o.buf, "\n}\n");
    return out_close(&o);
}

int sm_run_write_slice(const struct sm_run *r, const char *dir, struct sm_err *err) {
    char path[4096], name[64];
    sm_slice_file(r->slice, r->slices, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    struct out o;
    if (out_open(&o, path, err) < 0) return -1;
    put_header(&o, r);
    sm_buf_printf(&o.buf, ",\n\"slice\": %u,\n\"slices\": %u", r->slice, r->slices);
    put_counts(&o, r);
    put_shards(&o, r);
    sm_buf_text(&o.buf, ",\n\"bad\": [");
    for (size_t i = 0; i < r->n_bad; i++) {
        sm_buf_text(&o.buf, i ? ",\n  " : "\n  ");
        put_bad(&o, r, &r->bad[i]);
        sm_buf_printf(&o.buf, ", \"position\": %" PRIu64 "}", r->bad[i].position);
    }
    sm_buf_text(&o.buf, "\n],\n\"lines\": [");
    for (size_t i = 0; i < r->n_lines; i++) {
        sm_buf_text(&o.buf, i ? ",\n  " : "\n  ");
        put_line(&o, &r->lines[i]);
        sm_buf_text(&o.buf, "}");
    }
    sm_buf_text(&o.buf, "\n]\n}\n");
    return out_close(&o);
}

static int by_shard(const void *a, const void *b) {
    const struct sm_shard_record *x = a, *y = b;
    return x->shard < y->shard ? -1 : x->shard > y->shard;
}

/* One line for each row that could not be read when the table was indexed, and for each sample,
 * with the positions where it was missed. */
static int write_quarantine(const struct sm_run *r, const char *dir, struct sm_err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/" SM_QUARANTINE_NAME, dir);
    struct out o;
    if (out_open(&o, path, err) < 0) return -1;
    for (size_t i = 0; i < r->n_lines; i++) {
        put_line(&o, &r->lines[i]);
        sm_buf_text(&o.buf, "}\n");
    }
    for (size_t i = 0; i < r->n_bad;) {
        put_bad(&o, r, &r->bad[i]);
        sm_buf_text(&o.buf, ", \"positions\": [");
        size_t j = i;
        for (; j < r->n_bad && r->bad[j].sample == r->bad[i].sample; j++) {
            sm_buf_printf(&o.buf, "%s%" PRIu64, j > i ? ", " : "", r->bad[j].position);
            out_flush(&o, PIECE_BYTES);
        }
        sm_buf_text(&o.buf, "]}\n");
        i = j;
    }
    return out_close(&o);
}

int sm_run_write_manifest(struct sm_run *r, const char *dir, struct sm_err *err) {
    if (r->n_shards) qsort(r->shards, r->n_shards, sizeof *r->shards, by_shard);
    sm_run_sort_bad(r);
    if (write_quarantine(r, dir, err) < 0) return -1;
    char path[4096];
    snprintf(path, sizeof path, "%s/" SM_MANIFEST_NAME, dir);
    struct out o;
    if (out_open(&o, path, err) < 0) return -1;
    put_header(&o, r);
    put_counts(&o, r);
    put_shards(&o, r);
    sm_buf_text(&o.buf, "\n}\n");
    return out_close(&o);
}
