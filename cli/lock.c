/* Reads, compares and writes lock files. Paths of this machine are left out, so that the file is
 * the same in every checkout. */
#include "cli/lock.h"

#include "lib/fs.h"
#include "lib/limits.h"
#include "workers/places.h"
#include "workers/rebalance/method.h"

#include <assert.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 1, WHERE_MAX = 256, CLASSES_MAX = 1000 /* that are listed */ };

/* Enough to read back what people write; the keys of fits know every bit. */
#define REAL_DIGITS 15
#define REALS JSON_REAL_PRECISION(REAL_DIGITS)

struct sm_lock {
    json_t *root;
    char path[PATH_MAX];
};

static int differ(const struct sm_lock *lock, const char *where, json_t *now, json_t *was,
                  struct sm_err *err);

int sm_lock_path(const char *file, char path[PATH_MAX], struct sm_err *err) {
    const char *slash = strrchr(file, '/'), *dot = strrchr(file, '.');
    const size_t stem =
        dot != NULL && (slash == NULL || dot > slash + 1) ? (size_t)(dot - file) : strlen(file);
    if (stem > PATH_MAX - 16) return sm_fail(err, SM_E_USAGE, "the path of '%s' is too long", file);
    snprintf(path, PATH_MAX, "%.*s.lock", (int)stem, file);
    return 0;
}

int sm_lock_read(struct sm_lock **gives, const char *path, struct sm_err *err) {
    struct sm_buf text;
    json_error_t why;
    struct sm_lock *lock = calloc(1, sizeof *lock);
    *gives = NULL;
    if (lock == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    snprintf(lock->path, sizeof lock->path, "%s", path);
    sm_buf_init(&text, SM_MAX_LOCK_BYTES);
    int failed = sm_fs_read_file(path, SM_MAX_LOCK_BYTES, &text, err);
    if (!failed) {
        lock->root = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &why);
        if (json_integer_value(json_object_get(lock->root, "version")) != VERSION)
            failed = sm_fail(err, SM_E_DIFFERS,
                             "'%s' is no lock file of this version (hint: shardmill fit)", path);
    }
    sm_buf_release(&text);
    if (failed)
        sm_lock_free(&lock);
    else
        *gives = lock;
    return failed;
}

void sm_lock_free(struct sm_lock **lock) {
    if (*lock == NULL) return;
    json_decref((*lock)->root);
    free(*lock);
    *lock = NULL;
}

const char *sm_lock_artifact(const struct sm_lock *lock, size_t op, const char *key) {
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(lock->root, "artifacts"), i, item) {
        const char *has = json_string_value(json_object_get(item, "key"));
        if ((size_t)json_integer_value(json_object_get(item, "place")) == op && has != NULL &&
            strcmp(has, key) == 0)
            return json_string_value(json_object_get(item, "sha256"));
    }
    return NULL;
}

/* --- what it holds ---------------------------------------------------------------------------- */

/* The pipeline as a reader of the lock sees it: what was learned stands elsewhere in it, and where
 * the data lies is each machine's own. */
static json_t *pipeline_value(const struct sm_pipeline *p) {
    struct sm_buf text;
    sm_buf_init(&text, SM_MAX_LOCK_BYTES);
    sm_pipeline_json(p, &text);
    json_t *value = json_loadb(text.data, text.len, 0, NULL);
    sm_buf_release(&text);
    static const char *const set_by_programs[] = {"artifacts", "rebalance_artifact", "part"};
    for (size_t i = 0; i < sizeof set_by_programs / sizeof *set_by_programs; i++)
        json_object_del(value, set_by_programs[i]);
    json_object_del(json_object_get(value, "source"), "path");
    return value;
}

static json_t *dataset_value(const struct sm_pipeline *p, const struct sm_dataset *data,
                             struct sm_err *err) {
    struct sm_places *places = NULL;
    if (sm_places_new(&places, p, data->index, SM_PART_TRAIN, NULL, err) != 0) return NULL;
    json_t *classes = json_object();
    const uint32_t n = sm_index_classes(data->index);
    for (uint32_t c = 0; c < n && n <= CLASSES_MAX; c++)
        json_object_set_new(classes, sm_index_class(data->index, c),
                            json_integer((json_int_t)sm_index_class_samples(data->index, c)));
    json_t *value =
        json_pack("{s:s, s:I, s:I, s:o}", "digest", sm_index_dataset_digest(data->index), "samples",
                  (json_int_t)sm_index_samples(data->index), "training_samples",
                  (json_int_t)sm_places_part_samples(places), "classes", classes);
    sm_places_free(&places);
    if (value == NULL) sm_fail(err, SM_E_DATASET, "a name of a class is not UTF-8");
    return value;
}

static json_t *artifacts_value(const struct sm_fits *fits) {
    json_t *list = json_array();
    for (size_t i = 0; i < fits->n; i++) {
        const struct sm_fitted *f = &fits->list[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:I, s:s, s:s, s:I, s:s}", "op", f->name, "place",
                                        (json_int_t)f->op, "key", f->key, "sha256", f->sha256,
                                        "bytes", (json_int_t)f->bytes, "learned", f->facts));
    }
    return list;
}

int sm_lock_write(const char *path, const struct sm_pipeline *p, const struct sm_dataset *data,
                  const struct sm_fits *fits, struct sm_err *err) {
    json_t *dataset = dataset_value(p, data, err);
    if (dataset == NULL) return -1;
    json_t *root = json_pack("{s:i, s:s, s:s, s:o, s:o, s:o}", "version", VERSION, "shardmill",
                             SM_VERSION, "fingerprint", sm_fit_fingerprint(), "dataset", dataset,
                             "artifacts", artifacts_value(fits), "pipeline", pipeline_value(p));
    char *text = root != NULL ? json_dumps(root, JSON_INDENT(2) | REALS) : NULL;
    json_decref(root);
    if (text == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    const size_t n = strlen(text);
    text[n] = '\n'; /* in place of the NUL, which is not written */
    int failed = sm_fs_write_file(path, text, n + 1, err);
    free(text);
    return failed;
}

/* --- what differs ----------------------------------------------------------------------------- */

int sm_lock_compare(const struct sm_lock *lock, const struct sm_pipeline *p,
                    const struct sm_dataset *data, struct sm_err *err) {
    json_t *pipeline = pipeline_value(p);
    int r = differ(lock, "", pipeline, json_object_get(lock->root, "pipeline"), err);
    json_decref(pipeline);
    if (r != 0) return r;
    const json_t *dataset = json_object_get(lock->root, "dataset");
    const char *was = json_string_value(json_object_get(dataset, "digest")),
               *is = sm_index_dataset_digest(data->index);
    if (was == NULL || strcmp(was, is) != 0)
        return sm_fail(err, SM_E_DIFFERS,
                       "'%s' is stale: the dataset is another one: %" PRIu64
                       " samples and digest %.12s…, were %lld and %.12s… (hint: shardmill fit)",
                       lock->path, sm_index_samples(data->index), is,
                       (long long)json_integer_value(json_object_get(dataset, "samples")),
                       was != NULL ? was : "none");
    const char *made = json_string_value(json_object_get(lock->root, "fingerprint"));
    if (made == NULL || strcmp(made, sm_fit_fingerprint()) != 0)
        return sm_fail(err, SM_E_DIFFERS,
                       "'%s' is of other versions: '%s' here, '%s' there (hint: shardmill fit)",
                       lock->path, sm_fit_fingerprint(), made != NULL ? made : "");
    return 0;
}

/* Each op that learns has its entry, under the key that follows from what the ops before it are
 * said to have learned. */
int sm_lock_knows(const struct sm_lock *lock, const struct sm_pipeline *p,
                  const struct sm_dataset *data, struct sm_err *err) {
    struct sm_pipeline learned = *p;
    const char *said[SM_MAX_OPS + 1] = {NULL};
    char key[SM_XXH_HEX];
    assert(p->n_ops <= SM_MAX_OPS);
    learned.artifacts = (struct sm_strs){.v = said, .count = p->n_ops};
    for (size_t i = 0; i <= p->n_ops; i++) {
        const struct sm_op_node *node = i < p->n_ops ? &p->ops[i] : p->rebalance;
        said[i] = "";
        if (node == NULL || !(i < p->n_ops ? sm_op_learns(node) : sm_method_learns(node))) continue;
        sm_fit_key(&learned, i, sm_index_dataset_digest(data->index), key);
        said[i] = sm_lock_artifact(lock, i, key);
        if (said[i] == NULL)
            return sm_fail(err, SM_E_DIFFERS,
                           "'%s' is stale: it does not know the fit of '%s' (hint: shardmill fit)",
                           lock->path, node->info->name);
    }
    return 0;
}

static int differ_at(const struct sm_lock *lock, const char *where, json_t *now, json_t *was,
                     struct sm_err *err) {
    char *a = now != NULL ? json_dumps(now, JSON_ENCODE_ANY | JSON_COMPACT | REALS) : NULL,
         *b = was != NULL ? json_dumps(was, JSON_ENCODE_ANY | JSON_COMPACT | REALS) : NULL;
    sm_fail(err, SM_E_DIFFERS, "'%s' is stale: %s is %.80s, was %.80s (hint: shardmill fit)",
            lock->path, where[0] != 0 ? where : "the pipeline", a != NULL ? a : "not there",
            b != NULL ? b : "not there");
    free(a);
    free(b);
    return -1;
}

static bool scalar_equal(json_t *a, json_t *b) {
    char x[32], y[32];
    if (!json_is_real(a) || !json_is_real(b)) return json_equal(a, b);
    snprintf(x, sizeof x, "%.*g", REAL_DIGITS, json_real_value(a));
    snprintf(y, sizeof y, "%.*g", REAL_DIGITS, json_real_value(b));
    return strcmp(x, y) == 0;
}

/* "ops" -> "ops[1]" -> "ops[1].PCA" -> "ops[1].PCA.n_components" */
static int differ(const struct sm_lock *lock, const char *where, json_t *now, json_t *was,
                  struct sm_err *err) {
    char deeper[WHERE_MAX];
    const char *key;
    json_t *value;
    size_t i;
    if (json_is_object(now) && json_is_object(was)) {
        json_object_foreach(was, key, value) {
            snprintf(deeper, sizeof deeper, "%s%s%s", where, where[0] ? "." : "", key);
            if (json_object_get(now, key) == NULL) return differ_at(lock, deeper, NULL, value, err);
        }
        json_object_foreach(now, key, value) {
            snprintf(deeper, sizeof deeper, "%s%s%s", where, where[0] ? "." : "", key);
            if (differ(lock, deeper, value, json_object_get(was, key), err) != 0) return -1;
        }
        return 0;
    }
    if (json_is_array(now) && json_is_array(was) && json_array_size(now) == json_array_size(was)) {
        json_array_foreach(now, i, value) {
            snprintf(deeper, sizeof deeper, "%s[%zu]", where, i);
            if (differ(lock, deeper, value, json_array_get(was, i), err) != 0) return -1;
        }
        return 0;
    }
    return scalar_equal(now, was) ? 0 : differ_at(lock, where, now, was, err);
}
