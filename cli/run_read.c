/* Reads back what run_write.c wrote: for a run that is resumed or was complete, and for merge. */
#include "cli/run.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t number(json_t *o, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(o, key));
}

static const char *word(json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s != NULL ? s : "";
}

static char *text(json_t *o, const char *key) {
    return strdup(word(o, key));
}

static int fail_memory(struct sm_err *err) {
    return sm_fail(err, SM_E_MEMORY, "out of memory");
}

static int read_classes(struct sm_run *r, json_t *root, const char *path, struct sm_err *err) {
    json_t *classes = json_object_get(root, "classes"), *per = json_object_get(root, "per_class");
    r->n_classes = json_array_size(classes);
    r->classes = calloc(r->n_classes + 1, sizeof *r->classes);
    r->counts = calloc(r->n_classes + 1, sizeof *r->counts);
    if (r->classes == NULL || r->counts == NULL) return fail_memory(err);
    for (size_t c = 0; c < r->n_classes; c++) {
        const char *name = json_string_value(json_array_get(classes, c));
        if (name == NULL) return sm_fail(err, SM_E_IO, "'%s': a class has no name", path);
        r->classes[c] = strdup(name);
        if (r->classes[c] == NULL) return fail_memory(err);
        json_t *n = json_object_get(per, name);
        const json_t *shift = json_object_get(n, "log_prior_shift");
        r->counts[c] = (struct sm_run_class){
            .planned = number(n, "planned"),
            .quarantined = number(n, "quarantined"),
            .in_shards = number(n, "in_shards"),
            .present = number(n, "present"),
            .distinct = number(n, "distinct"),
            .repeated = number(n, "repeated"),
            .synthetic = number(n, "synthetic"),
            .log_prior_shift = json_is_number(shift) ? json_number_value(shift) : NAN,
            .weight = json_number_value(json_object_get(n, "weight"))};
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
        if (!sm_run_has_shard(r, &s))
            return sm_fail(err, SM_E_IO,
                           "'%s': the plan has no shard '%.64s' of %" PRIu64 " samples", path, name,
                           s.samples);
        memcpy(s.sha256, sha, SM_SHA_HEX);
        if (sm_run_add_shard(r, &s, err) < 0) return -1;
    }
    return 0;
}

static int keep_bad(struct sm_run *r, json_t *item, uint64_t position, const char *path,
                    struct sm_err *err) {
    const json_t *row = json_object_get(item, "row");
    struct sm_bad b = {.position = position,
                       .sample = number(item, "sample"),
                       .row = row != NULL ? json_integer_value(row) : -1,
                       .line = number(item, "line"),
                       .offset = number(item, "offset"),
                       .file = (char *)word(item, "file"),
                       .stage = (char *)word(item, "stage"),
                       .code = (char *)word(item, "code"),
                       .text = (char *)word(item, "text")};
    while (b.label < r->n_classes && strcmp(word(item, "class"), r->classes[b.label]) != 0)
        b.label++;
    if (b.label == r->n_classes)
        return sm_fail(err, SM_E_IO, "'%s': quarantined sample %zu has no known class", path,
                       r->n_bad);
    return sm_run_keep_bad(r, &b, err);
}

static int read_bad(struct sm_run *r, json_t *root, const char *path, struct sm_err *err) {
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(root, "bad"), i, item) {
        if (keep_bad(r, item, number(item, "position"), path, err) < 0) return -1;
    }
    return 0;
}

/* A line stands for a sample and has the positions where it was missed; the lines of rows that are
 * no samples have none. */
int sm_run_read_quarantine(struct sm_run *r, const char *dir, struct sm_err *err) {
    char path[4096];
    uint64_t expected = 0;
    for (size_t c = 0; c < r->n_classes; c++)
        expected += r->counts[c].quarantined;
    snprintf(path, sizeof path, "%s/" SM_QUARANTINE_NAME, dir);
    FILE *f = fopen(path, "re");
    if (f == NULL) return sm_fail_errno(err, "cannot read '%s'", path);
    int failed = 0;
    for (json_t *line; !failed && (line = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL)) != NULL;) {
        size_t i;
        json_t *position;
        json_array_foreach(json_object_get(line, "positions"), i, position) {
            failed = keep_bad(r, line, (uint64_t)json_integer_value(position), path, err);
            if (failed) break;
        }
        json_decref(line);
    }
    fclose(f);
    if (!failed && r->n_bad != expected)
        return sm_fail(err, SM_E_IO,
                       "'%s' names %zu positions of %" PRIu64 " (hint: remove the folder)", path,
                       r->n_bad, expected);
    return failed;
}

static int read_lines(struct sm_run *r, json_t *root, struct sm_err *err) {
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(root, "lines"), i, item) {
        struct sm_bad_line line = {.row = number(item, "row"),
                                   .line = number(item, "line"),
                                   .offset = number(item, "offset"),
                                   .file = (char *)word(item, "file"),
                                   .code = (char *)word(item, "code"),
                                   .text = (char *)word(item, "text")};
        if (sm_run_add_line(r, &line, err) < 0) return -1;
    }
    r->unreadable = number(root, "unreadable_rows"); /* a manifest has the number alone */
    return 0;
}

static int read_columns(struct sm_run *r, json_t *root, struct sm_err *err) {
    size_t i;
    json_t *item, *columns = json_object_get(root, "columns");
    if (json_object_get(root, "part") != NULL && (r->part = text(root, "part")) == NULL)
        return fail_memory(err);
    if (json_object_get(root, "rebalance") != NULL &&
        (r->rebalance = text(root, "rebalance")) == NULL)
        return fail_memory(err);
    r->columns = calloc(json_array_size(columns) + 1, sizeof *r->columns);
    if (r->columns == NULL) return fail_memory(err);
    json_array_foreach(columns, i, item) {
        const char *name = json_string_value(item);
        r->columns[r->n_columns] = strdup(name != NULL ? name : "");
        if (r->columns[r->n_columns++] == NULL) return fail_memory(err);
    }
    return 0;
}

/* A record from before there were rows has no format: its shards are tars. */
static int read_format(struct sm_run *r, json_t *root, const char *path, struct sm_err *err) {
    const char *format = json_string_value(json_object_get(root, "format"));
    if (format == NULL) return 0;
    for (int i = SM_SHARD_TAR; i <= SM_SHARD_NPY; i++)
        if (strcmp(format, sm_shard_words[i]) == 0) {
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
    r->slice = (uint32_t)number(root, "slice");
    r->slices = json_object_get(root, "slices") ? (uint32_t)number(root, "slices") : 1;
    if (p == NULL || d == NULL || r->plan.samples == 0 || r->plan.copies == 0 ||
        r->plan.shard_samples == 0 || r->slice >= r->slices) {
        sm_fail(err, SM_E_IO, "'%s' is not the record of a run", path);
        goto done;
    }
    snprintf(r->pipeline_digest, sizeof r->pipeline_digest, "%s", p);
    snprintf(r->dataset_digest, sizeof r->dataset_digest, "%s", d);
    snprintf(r->asked_digest, sizeof r->asked_digest, "%s", word(root, "asked_digest"));
    r->weights = json_is_true(json_object_get(root, "weights"));
    r->name = text(root, "name");
    r->fingerprint = text(root, "fingerprint");
    if (r->name == NULL || r->fingerprint == NULL) {
        fail_memory(err);
        goto done;
    }
    if (r->fingerprint[0] == 0) {
        free(r->fingerprint);
        r->fingerprint = NULL;
    }
    if (read_format(r, root, path, err) == 0 && read_classes(r, root, path, err) == 0 &&
        read_columns(r, root, err) == 0 && read_records(r, root, path, err) == 0 &&
        read_bad(r, root, path, err) == 0 && read_lines(r, root, err) == 0)
        result = 0;
done:
    json_decref(root);
    if (result < 0) sm_run_release(r);
    return result;
}
