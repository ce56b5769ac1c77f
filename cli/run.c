/* Writing and reading the record of a run. Comes after: the shards are sealed. Readers of the
 * manifest rely on its fields: when you change one, raise SM_MANIFEST_VERSION and tell
 * proto/PROTOCOL.md. */
#include "cli/run.h"

#include "lib/buf.h"
#include "lib/fs.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 1 << 20 };

static const char *const formats[] = {"tar", "csv", "npy"}; /* of enum sm_shard_format */

void sm_run_release(struct sm_run *r) {
    for (size_t i = 0; i < r->n_classes; i++)
        free(r->classes[i]);
    for (size_t i = 0; i < r->n_bad; i++) {
        free(r->bad[i].file);
        free(r->bad[i].stage);
        free(r->bad[i].code);
        free(r->bad[i].text);
    }
    free(r->classes);
    free(r->counts);
    free(r->shards);
    free(r->bad);
    free(r->name);
    free(r->fingerprint);
    *r = (struct sm_run){0};
}

/* Room for one more element in a growing array. */
static int grow(void **array, size_t n, size_t *max, size_t size, struct sm_err *err) {
    if (n < *max) return 0;
    size_t wanted = *max ? *max * 2 : 64;
    void *bigger = realloc(*array, wanted * size);
    if (bigger == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *array = bigger;
    *max = wanted;
    return 0;
}

int sm_run_add_shard(struct sm_run *r, const struct sm_shard_record *record, struct sm_err *err) {
    if (grow((void **)&r->shards, r->n_shards, &r->max_shards, sizeof *r->shards, err) < 0)
        return -1;
    r->shards[r->n_shards++] = *record;
    return 0;
}

int sm_run_add_bad(struct sm_run *r, const struct sm_bad *bad, uint32_t substitute_label,
                   struct sm_err *err) {
    assert(bad->label < r->n_classes && substitute_label < r->n_classes);
    if (grow((void **)&r->bad, r->n_bad, &r->max_bad, sizeof *r->bad, err) < 0) return -1;
    struct sm_bad *b = &r->bad[r->n_bad];
    *b = *bad;
    b->file = strdup(bad->file);
    b->stage = strdup(bad->stage);
    b->code = strdup(bad->code);
    b->text = strdup(bad->text);
    r->n_bad++;
    r->counts[bad->label].quarantined++;
    r->counts[bad->label].in_shards--;
    r->counts[substitute_label].in_shards++;
    return 0;
}

uint64_t sm_run_slice_shards(const struct sm_run *r) {
    uint64_t all = sm_plan_shards(&r->plan);
    return all > r->slice ? (all - r->slice + r->slices - 1) / r->slices : 0;
}

uint64_t sm_run_planned(const struct sm_run *r) {
    uint64_t planned = 0;
    for (size_t c = 0; c < r->n_classes; c++)
        planned += r->counts[c].planned;
    return planned;
}

const char *sm_run_differs(const struct sm_run *now, const struct sm_run *before, char *text,
                           size_t text_max) {
    if (strcmp(now->pipeline_digest, before->pipeline_digest) != 0)
        snprintf(text, text_max, "the pipeline (digest %s, was %s)", now->pipeline_digest,
                 before->pipeline_digest);
    else if (now->plan.seed != before->plan.seed)
        snprintf(text, text_max, "the seed (%" PRIu64 ", was %" PRIu64 ")", now->plan.seed,
                 before->plan.seed);
    else if (strcmp(now->dataset_digest, before->dataset_digest) != 0)
        snprintf(text, text_max, "the dataset (digest %s, was %s)", now->dataset_digest,
                 before->dataset_digest);
    else if (now->plan.epoch != before->plan.epoch)
        snprintf(text, text_max, "the epoch (%u, was %u)", now->plan.epoch, before->plan.epoch);
    else
        return NULL;
    return text;
}

void sm_slice_file(uint32_t slice, uint32_t slices, char name[64]) {
    snprintf(name, 64, "slice-%u-of-%u.json", slice + 1, slices);
}

/* ---- writing: everything goes through one buffer that is emptied into the file when it is long
 * ---- */

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

static void put_header(struct out *o, const struct sm_run *r) {
    struct sm_buf *b = &o->buf;
    sm_buf_printf(b, "{\n\"version\": %d,\n\"name\": ", SM_MANIFEST_VERSION);
    sm_buf_json(b, r->name);
    sm_buf_printf(b, ",\n\"pipeline_digest\": \"%s\",\n\"dataset_digest\": \"%s\",\n",
                  r->pipeline_digest, r->dataset_digest);
    sm_buf_printf(b, "\"seed\": %" PRIu64 ",\n\"epoch\": %u,\n\"fingerprint\": ", r->plan.seed,
                  r->plan.epoch);
    sm_buf_json(b, r->fingerprint ? r->fingerprint : "");
    sm_buf_printf(b,
                  ",\n\"samples\": %" PRIu64 ",\n\"copies\": %u,\n\"shuffle\": %s,\n"
                  "\"samples_per_shard\": %" PRIu64 ",\n\"format\": \"%s\",\n\"classes\": [",
                  r->plan.samples, r->plan.copies, r->plan.shuffle ? "true" : "false",
                  r->plan.shard_samples, formats[r->format]);
    for (size_t c = 0; c < r->n_classes; c++) {
        sm_buf_text(b, c ? ", " : "");
        sm_buf_json(b, r->classes[c]);
        out_flush(o, PIECE_BYTES);
    }
    sm_buf_text(b, "]");
}

static void put_counts(struct out *o, const struct sm_run *r) {
    uint64_t planned = sm_run_planned(r);
    sm_buf_printf(&o->buf,
                  ",\n\"planned\": %" PRIu64 ",\n\"written\": %" PRIu64 ",\n\"quarantined\": %zu,\n"
                  "\"per_class\": {",
                  planned, planned - r->n_bad, r->n_bad);
    for (size_t c = 0; c < r->n_classes; c++) {
        const struct sm_class_count *n = &r->counts[c];
        sm_buf_text(&o->buf, c ? ",\n  " : "\n  ");
        sm_buf_json(&o->buf, r->classes[c]);
        sm_buf_printf(&o->buf,
                      ": {\"planned\": %" PRIu64 ", \"written\": %" PRIu64
                      ", \"quarantined\": %" PRIu64 ", \"in_shards\": %" PRIu64 "}",
                      n->planned, n->planned - n->quarantined, n->quarantined, n->in_shards);
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
    sm_buf_printf(&o->buf, "{\"sample\": %" PRIu64 ", \"file\": ", b->sample);
    sm_buf_json(&o->buf, b->file);
    sm_buf_printf(&o->buf, ", \"offset\": %" PRIu64 ", \"class\": ", b->offset);
    sm_buf_json(&o->buf, r->classes[b->label]);
    sm_buf_text(&o->buf, ", \"stage\": ");
    sm_buf_json(&o->buf, b->stage);
    sm_buf_text(&o->buf, ", \"code\": ");
    sm_buf_json(&o->buf, b->code);
    sm_buf_text(&o->buf, ", \"text\": ");
    sm_buf_json(&o->buf, b->text);
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
    sm_buf_text(&o.buf, "\n]\n}\n");
    return out_close(&o);
}

static int by_shard(const void *a, const void *b) {
    const struct sm_shard_record *x = a, *y = b;
    return x->shard < y->shard ? -1 : x->shard > y->shard;
}

static int by_sample(const void *a, const void *b) {
    const struct sm_bad *x = a, *y = b;
    if (x->sample != y->sample) return x->sample < y->sample ? -1 : 1;
    return x->position < y->position ? -1 : x->position > y->position;
}

/* One line for each sample, with the positions where it was missed. */
static int write_quarantine(const struct sm_run *r, const char *dir, struct sm_err *err) {
    char path[4096];
    snprintf(path, sizeof path, "%s/" SM_QUARANTINE_NAME, dir);
    struct out o;
    if (out_open(&o, path, err) < 0) return -1;
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
    if (r->n_bad) qsort(r->bad, r->n_bad, sizeof *r->bad, by_sample);
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

/* ---- reading ---- */

static uint64_t number(json_t *o, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

static char *text(json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return strdup(s ? s : "");
}

static int read_classes(struct sm_run *r, json_t *root, const char *path, struct sm_err *err) {
    json_t *classes = json_object_get(root, "classes"), *per = json_object_get(root, "per_class");
    r->n_classes = json_array_size(classes);
    r->classes = calloc(r->n_classes + 1, sizeof *r->classes);
    r->counts = calloc(r->n_classes + 1, sizeof *r->counts);
    if (r->classes == NULL || r->counts == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t c = 0; c < r->n_classes; c++) {
        const char *name = json_string_value(json_array_get(classes, c));
        if (name == NULL) return sm_fail(err, SM_E_IO, "'%s': a class has no name", path);
        r->classes[c] = strdup(name);
        json_t *n = json_object_get(per, name);
        r->counts[c] = (struct sm_class_count){number(n, "planned"), number(n, "quarantined"),
                                               number(n, "in_shards")};
    }
    return 0;
}

static int read_records(struct sm_run *r, json_t *root, const char *path, struct sm_err *err) {
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(root, "shards"), i, item) {
        struct sm_shard_record s = {.samples = number(item, "samples"),
                                    .bytes = number(item, "bytes")};
        const char *name = json_string_value(json_object_get(item, "name"));
        const char *sha = json_string_value(json_object_get(item, "sha256"));
        char expected[SM_PART_NAME_MAX] = "";
        if (name == NULL || sha == NULL || strlen(sha) != SM_SHA_HEX - 1 ||
            sscanf(name, "shard-%" SCNu64, &s.shard) != 1)
            return sm_fail(err, SM_E_IO, "'%s': shard %zu is not well formed", path, i);
        sm_shard_file(s.shard, r->format, expected);
        if (strcmp(name, expected) != 0)
            return sm_fail(err, SM_E_IO, "'%s': shard '%.64s' is not named '%s'", path, name,
                           expected);
        memcpy(s.sha256, sha, SM_SHA_HEX);
        if (sm_run_add_shard(r, &s, err) < 0) return -1;
    }
    json_array_foreach(json_object_get(root, "bad"), i, item) {
        if (grow((void **)&r->bad, r->n_bad, &r->max_bad, sizeof *r->bad, err) < 0) return -1;
        struct sm_bad *b = &r->bad[r->n_bad++];
        *b = (struct sm_bad){.position = number(item, "position"),
                             .sample = number(item, "sample"),
                             .offset = number(item, "offset"),
                             .file = text(item, "file"),
                             .stage = text(item, "stage"),
                             .code = text(item, "code"),
                             .text = text(item, "text")};
        const char *class = json_string_value(json_object_get(item, "class"));
        while (b->label < r->n_classes && strcmp(class ? class : "", r->classes[b->label]) != 0)
            b->label++;
        if (b->label == r->n_classes)
            return sm_fail(err, SM_E_IO, "'%s': quarantined sample %zu has no known class", path,
                           i);
    }
    return 0;
}

/* A record from before there were rows has no format: its shards are tars. */
static int read_format(struct sm_run *r, json_t *root, const char *path, struct sm_err *err) {
    const char *format = json_string_value(json_object_get(root, "format"));
    if (format == NULL) return 0;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(format, formats[i]) == 0) {
            r->format = (enum sm_shard_format)i;
            return 0;
        }
    return sm_fail(err, SM_E_IO, "'%s': shards of format '%.32s'", path, format);
}

int sm_run_read(struct sm_run *r, const char *path, struct sm_err *err) {
    *r = (struct sm_run){0};
    json_error_t why;
    json_t *root = json_load_file(path, 0, &why);
    if (root == NULL) return sm_fail(err, SM_E_IO, "cannot read '%s': %s", path, why.text);
    int result = -1;
    if (number(root, "version") != SM_MANIFEST_VERSION) {
        sm_fail(err, SM_E_IO, "'%s' has version %" PRIu64 ", this program knows %d", path,
                number(root, "version"), SM_MANIFEST_VERSION);
        goto done;
    }
    const char *p = json_string_value(json_object_get(root, "pipeline_digest"));
    const char *d = json_string_value(json_object_get(root, "dataset_digest"));
    r->plan = (struct sm_plan){.samples = number(root, "samples"),
                               .copies = (uint32_t)number(root, "copies"),
                               .shuffle = json_is_true(json_object_get(root, "shuffle")),
                               .seed = number(root, "seed"),
                               .epoch = (uint32_t)number(root, "epoch"),
                               .shard_samples = number(root, "samples_per_shard")};
    if (p == NULL || d == NULL || r->plan.samples == 0 || r->plan.copies == 0 ||
        r->plan.shard_samples == 0) {
        sm_fail(err, SM_E_IO, "'%s' is not the record of a run", path);
        goto done;
    }
    snprintf(r->pipeline_digest, sizeof r->pipeline_digest, "%s", p);
    snprintf(r->dataset_digest, sizeof r->dataset_digest, "%s", d);
    r->name = text(root, "name");
    r->fingerprint = text(root, "fingerprint");
    if (r->fingerprint != NULL && r->fingerprint[0] == 0) {
        free(r->fingerprint);
        r->fingerprint = NULL;
    }
    r->slice = (uint32_t)number(root, "slice");
    r->slices = json_object_get(root, "slices") ? (uint32_t)number(root, "slices") : 1;
    if (read_format(r, root, path, err) == 0 && read_classes(r, root, path, err) == 0 &&
        read_records(r, root, path, err) == 0)
        result = 0;
done:
    json_decref(root);
    if (result < 0) sm_run_release(r);
    return result;
}
