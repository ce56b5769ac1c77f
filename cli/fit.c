/* Walks the ops of a pipeline in their order and sees to it that each one that learns has its
 * artifact: found by its key, or fitted (table/fit.h, neighbours.h) here or by workers
 * (fit_rounds.h). A key is remembered only when the artifact lies there, so an interrupted fit
 * leaves nothing half. */
#include "cli/fit.h"

#include "cli/explain_rows.h"
#include "cli/fit_images.h"
#include "cli/fit_rounds.h"
#include "cli/fit_watch.h"
#include "cli/lock.h"
#include "lib/fs.h"
#include "workers/engine.h"
#include "workers/features.h"
#include "workers/fit_input.h"
#include "workers/neighbours.h"
#include "workers/rebalance/method.h"
#include "workers/table/blas.h"

#include <assert.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARENA_MAX = SM_MAX_ARTIFACT_BYTES, TREE_DEPTH = 16 };
enum { STATE_MAX = 64 << 20 }; /* bytes of means beyond which a search is not shared */

struct phase {
    struct sm_pipeline *p;
    const struct sm_fit_options *options;
    const struct sm_dataset *data;
    struct sm_lock *lock; /* NULL: none */
    const char **learned; /* p->artifacts, as it fills */
    char artifacts[PATH_MAX];
    char dir[PATH_MAX]; /* for what is needed while fits run; "" as long as it is not there */
    char features[PATH_MAX];
    struct sm_fits *fits;
    bool checked; /* no op refuses what is known before the first fit */
};

static int lock_open(struct phase *f, struct sm_err *err);
static int phase_open(struct phase *f, struct sm_err *err);
static int place_ensure(struct phase *f, size_t op, struct sm_err *err);
static int op_fit(struct phase *f, size_t op, struct sm_fitted *fitted, struct sm_err *err);
static int rebalance_fit(struct phase *f, struct sm_fitted *fitted, struct sm_err *err);
static void phase_close(struct phase *f);

bool sm_op_learns(const struct sm_op_node *node) {
    const struct sm_op *op = sm_op_find(node->info->name);
    return op != NULL && op->rows != NULL && op->rows->fit != NULL;
}

/* Rebalancing is of the training part alone. */
static bool rebalance_learns(const struct sm_pipeline *p) {
    return p->rebalance != NULL && p->part == SM_PART_TRAIN && sm_method_learns(p->rebalance);
}

bool sm_pipeline_learns(const struct sm_pipeline *p) {
    if (rebalance_learns(p)) return true;
    for (size_t i = 0; i < p->n_ops; i++)
        if (sm_op_learns(&p->ops[i])) return true;
    return false;
}

struct sm_fit_options sm_fit_options_of(const struct sm_common *common, const char *state,
                                        const char *lock) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return (struct sm_fit_options){.state = state,
                                   .lock = lock,
                                   .broker = common->broker,
                                   .workers = common->workers > 0 ? (int)common->workers
                                              : cores > 0         ? (int)cores
                                                                  : 1,
                                   .no_sandbox = !common->sandbox,
                                   .quiet = common->quiet};
}

int sm_fit_ensure(struct sm_pipeline *p, const struct sm_fit_options *options,
                  const struct sm_dataset *data, struct sm_fits *fits, struct sm_err *err) {
    struct sm_fits own = {0};
    struct phase f = {.p = p, .options = options, .data = data, .fits = fits ? fits : &own};
    *f.fits = (struct sm_fits){0};
    int failed = lock_open(&f, err);
    if (failed || !sm_pipeline_learns(p)) {
        sm_lock_free(&f.lock);
        return failed;
    }
    failed = phase_open(&f, err);
    if (!failed && rebalance_learns(p)) failed = place_ensure(&f, p->n_ops, err);
    for (size_t i = 0; !failed && i < p->n_ops; i++)
        if (sm_op_learns(&p->ops[i])) failed = place_ensure(&f, i, err);
    phase_close(&f);
    sm_fits_release(&own);
    return failed;
}

void sm_fits_release(struct sm_fits *fits) {
    free(fits->list);
    *fits = (struct sm_fits){0};
}

const char *sm_fit_fingerprint(void) {
    static char text[SM_MAX_FINGERPRINT_BYTES];
    const struct sm_blas *blas = sm_blas(NULL);
    const char *engine = sm_engine_fingerprint();
    const bool named = strstr(engine, "OpenBLAS") != NULL;
    snprintf(text, sizeof text, "%s%s%s", engine, named || blas == NULL ? "" : "; ",
             named || blas == NULL ? "" : blas->version);
    return text;
}

/* What decides the artifact: the source's options, the split, the ops up to this one with what
 * those before it have learned, the dataset, the seed and the versions. */
void sm_fit_key(const struct sm_pipeline *p, size_t op, const char *dataset_digest,
                char key[SM_XXH_HEX]) {
    struct sm_pipeline upto = *p;
    char digest[SM_XXH_HEX], text[SM_MAX_FINGERPRINT_BYTES + 256];
    const bool rebalance = op == p->n_ops; /* learns from rows as they are in the source */
    upto.n_ops = rebalance ? 0 : op + 1;
    if (upto.artifacts.count > op || rebalance) upto.artifacts.count = rebalance ? 0 : op;
    upto.part = SM_PART_TRAIN;
    if (!rebalance) upto.rebalance = NULL;
    upto.rebalance_artifact = NULL;
    upto.output = (struct sm_pipeline_output){0};
    upto.expand = (struct sm_pipeline_expand){0};
    sm_pipeline_digest(&upto, digest);
    const int version = p->split.val > 0 ? 3 : 2; /* of what a split holds out: workers/view.c */
    int n = snprintf(text, sizeof text, "fit %d %s %s %" PRId64 " %s", version, digest,
                     dataset_digest, p->seed, sm_fit_fingerprint());
    sm_xxh(text, (size_t)n, key);
}

/* What the lock says holds for all of the pipeline and the dataset, learned from or not; so a run
 * refuses what `check --locked` does. */
static int lock_open(struct phase *f, struct sm_err *err) {
    const char *path = f->options->lock;
    if (path == NULL || access(path, F_OK) != 0) return 0;
    if (sm_lock_read(&f->lock, path, err) != 0) return -1;
    return sm_lock_compare(f->lock, f->p, f->data, err);
}

static int phase_open(struct phase *f, struct sm_err *err) {
    const struct sm_fit_options *o = f->options;
    struct sm_pipeline *p = f->p;
    f->learned = sm_arena_alloc(&p->arena, p->n_ops * sizeof *f->learned);
    f->fits->list = calloc(p->n_ops + 1, sizeof *f->fits->list);
    if (f->learned == NULL || f->fits->list == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < p->n_ops; i++)
        f->learned[i] = "";
    p->artifacts = (struct sm_strs){.v = f->learned, .count = p->n_ops};
    if (strlen(o->state) > sizeof f->artifacts - 128)
        return sm_fail(err, SM_E_USAGE, "the path of '%s' is too long", o->state);
    snprintf(f->artifacts, sizeof f->artifacts, "%s/" SM_ARTIFACTS_NAME, o->state);
    if (sm_fs_mkdirs(f->artifacts, err) < 0) return -1;
    sm_fs_sweep(f->artifacts);
    return 0;
}

/* --- what was learned before ------------------------------------------------------------------ */

static void key_path(const struct phase *f, const char *key, char path[PATH_MAX + 80]) {
    snprintf(path, PATH_MAX + 80, "%s/%s.fit", f->artifacts, key);
}

/* Fills sha256 when the fit of this key has been made and its artifact is whole. */
static bool remembered(const struct phase *f, const char *key, char sha256[SM_SHA_HEX]) {
    char path[PATH_MAX + 80];
    struct sm_buf text;
    struct sm_artifact a;
    key_path(f, key, path);
    sm_buf_init(&text, SM_SHA_HEX);
    bool found = sm_fs_read_file(path, SM_SHA_HEX, &text, NULL) == 0 && text.len >= SM_SHA_HEX - 1;
    if (found) snprintf(sha256, SM_SHA_HEX, "%.64s", text.data);
    sm_buf_release(&text);
    found = found && sm_artifact_open(&a, f->artifacts, sha256, NULL) == 0;
    if (found) sm_artifact_close(&a);
    return found;
}

void sm_fit_look(struct sm_pipeline *p, const char *state, const struct sm_dataset *data) {
    struct phase f = {.p = p};
    char key[SM_XXH_HEX], sha256[SM_SHA_HEX];
    f.learned = sm_arena_alloc(&p->arena, p->n_ops * sizeof *f.learned);
    if (f.learned == NULL) return;
    for (size_t i = 0; i < p->n_ops; i++)
        f.learned[i] = "";
    p->artifacts = (struct sm_strs){.v = f.learned, .count = p->n_ops};
    snprintf(f.artifacts, sizeof f.artifacts, "%.*s/" SM_ARTIFACTS_NAME, PATH_MAX - 128, state);
    for (size_t i = 0; i < p->n_ops; i++) {
        if (!sm_op_learns(&p->ops[i])) continue;
        sm_fit_key(p, i, sm_index_dataset_digest(data->index), key);
        const char *kept = remembered(&f, key, sha256) ? sm_arena_str(&p->arena, sha256) : NULL;
        if (kept == NULL) return;
        f.learned[i] = kept;
    }
}

static int remember(const struct phase *f, const char *key, const char *sha256,
                    struct sm_err *err) {
    char path[PATH_MAX + 80], line[SM_SHA_HEX + 1];
    key_path(f, key, path);
    int n = snprintf(line, sizeof line, "%s\n", sha256);
    return sm_fs_write_file(path, line, (size_t)n, err);
}

/* Takes over what a fit of this key has learned in another state folder. */
static bool borrowed(const struct phase *f, const char *key, char sha256[SM_SHA_HEX]) {
    char from[PATH_MAX + 80], to[PATH_MAX + 80];
    struct phase other = *f;
    const char *state = f->options->borrow;
    if (state == NULL || strlen(state) > sizeof other.artifacts - 128) return false;
    snprintf(other.artifacts, sizeof other.artifacts, "%s/" SM_ARTIFACTS_NAME, state);
    if (!remembered(&other, key, sha256)) return false;
    snprintf(from, sizeof from, "%s/%s.npz", other.artifacts, sha256);
    snprintf(to, sizeof to, "%s/%s.npz", f->artifacts, sha256);
    return sm_fs_copy_file(from, to, NULL) == 0 && remember(f, key, sha256, NULL) == 0;
}

/* A line about an artifact for people: its arrays, single numbers as such, and of a PCA how much of
 * the variance it keeps. */
static int facts_fill(const struct phase *f, struct sm_fitted *fitted, struct sm_err *err) {
    struct sm_artifact a;
    struct sm_buf text;
    if (sm_artifact_open(&a, f->artifacts, fitted->sha256, err) != 0) return -1;
    sm_buf_init(&text, sizeof fitted->facts - 1);
    fitted->bytes = a.bytes;
    for (size_t i = 0; i < a.n; i++) {
        const struct sm_array *x = &a.arrays[i];
        const uint64_t n = x->shape[0] * (x->ndim == 2 ? x->shape[1] : 1);
        const double *v = x->type == SM_ARRAY_F64 ? x->data : NULL;
        double sum = 0;
        sm_buf_printf(&text, "%s%s", i ? ", " : "", x->name);
        if (n == 1 && v != NULL)
            sm_buf_printf(&text, " %.6g", v[0]);
        else if (x->ndim == 2)
            sm_buf_printf(&text, " [%" PRIu64 ", %" PRIu64 "]", x->shape[0], x->shape[1]);
        else
            sm_buf_printf(&text, " [%" PRIu64 "]", x->shape[0]);
        if (v == NULL || strcmp(x->name, "explained_variance_ratio_") != 0) continue;
        for (uint64_t k = 0; k < n; k++)
            sum += v[k];
        sm_buf_printf(&text, " sum %.6g", sum);
    }
    snprintf(fitted->facts, sizeof fitted->facts, "%s", text.data != NULL ? text.data : "");
    sm_buf_release(&text);
    sm_artifact_close(&a);
    return 0;
}

/* --- one op ----------------------------------------------------------------------------------- */

static const struct sm_op_node *node_of(const struct sm_pipeline *p, size_t op) {
    return op < p->n_ops ? &p->ops[op] : p->rebalance;
}

static int fail_at(const struct phase *f, size_t op, struct sm_err *err) {
    const struct sm_op_node *node = node_of(f->p, op);
    return sm_err_context(err, "line %d, column %d: '%s'", node->line, node->column,
                          node->info->name);
}

/* The lock's digest for this fit. */
static int lock_ask(const struct phase *f, size_t op, const char *key, const char **pinned,
                    struct sm_err *err) {
    *pinned = f->lock != NULL ? sm_lock_artifact(f->lock, op, key) : NULL;
    if (f->lock == NULL || *pinned != NULL) return 0;
    return sm_fail(err, SM_E_DIFFERS, "'%s' does not know the fit of '%s' (hint: shardmill fit)",
                   f->options->lock, node_of(f->p, op)->info->name);
}

/* op: n_ops stands for rebalancing. */
static int place_ensure(struct phase *f, size_t op, struct sm_err *err) {
    struct sm_fitted *fitted = &f->fits->list[f->fits->n];
    const char *pinned;
    fitted->op = op;
    fitted->name = node_of(f->p, op)->info->name;
    sm_fit_key(f->p, op, sm_index_dataset_digest(f->data->index), fitted->key);
    if (lock_ask(f, op, fitted->key, &pinned, err) != 0) return -1;
    if (!remembered(f, fitted->key, fitted->sha256) && !borrowed(f, fitted->key, fitted->sha256)) {
        fitted->fresh = true;
        if (!f->checked && sm_row_plan_check(f->p, f->data, f->artifacts, err) != 0) return -1;
        f->checked = true;
        if (!f->options->quiet)
            fprintf(stderr, "shardmill: fits '%s' (line %d)\n", fitted->name,
                    node_of(f->p, op)->line);
        if ((op < f->p->n_ops ? op_fit(f, op, fitted, err) : rebalance_fit(f, fitted, err)) != 0 ||
            remember(f, fitted->key, fitted->sha256, err) != 0)
            return -1;
    }
    if (pinned != NULL && strcmp(pinned, fitted->sha256) != 0)
        return sm_fail(err, SM_E_DIFFERS,
                       "'%s' has learned %.12s…, and '%s' says %.12s… (hint: was the lock file "
                       "changed by hand, or made on another kind of machine? shardmill fit)",
                       fitted->name, fitted->sha256, f->options->lock, pinned);
    char *sha = sm_arena_str(&f->p->arena, fitted->sha256);
    if (sha == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (op < f->p->n_ops)
        f->learned[op] = sha;
    else
        f->p->rebalance_artifact = sha;
    f->fits->n++;
    return facts_fill(f, fitted, err);
}

/* The folder for what is needed while fits run. */
static int working_folder(struct phase *f, const char *key, struct sm_err *err) {
    if (f->dir[0] != 0) return 0;
    snprintf(f->dir, sizeof f->dir, "%.*s/fit/%s", (int)(sizeof f->dir - 64), f->options->state,
             key);
    return sm_fs_mkdirs(f->dir, err);
}

/* Of images their features are made, once for all their fits. */
static int images_features(struct phase *f, const char *key, struct sm_err *err) {
    if (sm_source_is_table(&f->p->source) || f->features[0] != 0) return 0;
    if (working_folder(f, key, err) < 0) return -1;
    snprintf(f->features, sizeof f->features, "%.*s/" SM_FIT_FEATURES_NAME,
             (int)(sizeof f->features - 32), f->dir);
    return sm_fit_images(f->p, f->options, f->dir, err);
}

static bool is_large(const struct phase *f, const struct sm_fit_context *c) {
    const struct sm_fit_options *o = f->options;
    const uint64_t bound = o->spread_bytes != 0 ? o->spread_bytes : SM_FIT_SPREAD,
                   row = c->in->n * (c->in->is_double ? sizeof(double) : sizeof(float));
    return (o->workers > 1 || o->broker != NULL) && c->rows >= (bound + row - 1) / row;
}

/* Runs the rounds and writes the artifact. */
static int learn(struct phase *f, const struct sm_fit_source *source, struct sm_fit_input *in,
                 struct sm_fitted *fitted, struct sm_err *err) {
    const struct sm_fit_context *c = sm_fit_input_context(in);
    const struct sm_fit_rows all = sm_fit_input_rows(in);
    struct sm_fit_watch watch;
    sm_fit_watch_begin(&watch, f->options->quiet);
    const struct sm_fit_rows rows = sm_fit_watch_rows(&watch, &all, c->rows);
    struct sm_fit_crew *crew = NULL;
    struct sm_fit_executor executor = {0};
    struct sm_artifact artifact;
    struct sm_arena arena;
    int failed = 0;
    sm_arena_init(&arena, ARENA_MAX);
    if (is_large(f, c)) {
        failed = working_folder(f, fitted->key, err);
        if (!failed)
            failed = sm_fit_crew_start(&crew, f->options, source, f->data, f->dir, &watch, err);
        if (!failed) executor = sm_fit_crew_executor(crew);
    }
    sm_cli_stop_at_once(true); /* but for the rounds of a crew, which looks at the flag */
    if (!failed)
        failed = sm_fit_run(sm_fit_input_fit(in), c, &rows, crew != NULL ? &executor : NULL,
                            &artifact, &arena, err);
    sm_cli_stop_at_once(false);
    sm_fit_crew_stop(&crew);
    sm_fit_watch_end(&watch);
    if (failed) {
        if (err->code != SM_E_CANCELLED && strncmp(err->text, "line ", 5) != 0)
            fail_at(f, source->op, err);
    } else {
        failed = sm_artifact_write(&artifact, f->artifacts, err);
    }
    if (!failed) snprintf(fitted->sha256, sizeof fitted->sha256, "%s", artifact.sha256);
    sm_arena_release(&arena);
    return failed;
}

static int op_fit(struct phase *f, size_t op, struct sm_fitted *fitted, struct sm_err *err) {
    struct sm_fit_input *in = NULL;
    if (images_features(f, fitted->key, err) < 0) return -1;
    const struct sm_fit_source source = {.pipeline = f->p,
                                         .op = op,
                                         .index = f->data->index,
                                         .root = f->data->root,
                                         .artifacts = f->artifacts,
                                         .features = f->features};
    if (sm_fit_input_new(&in, &source, err) < 0) return -1;
    int failed = learn(f, &source, in, fitted, err);
    sm_fit_input_free(&in);
    return failed;
}

/* Whether a search for neighbours is worth to be shared. What workers of a broker save nobody
 * knows. */
static bool is_long(const struct phase *f, const struct sm_neighbours_plan *plan) {
    const struct sm_fit_options *o = f->options;
    if ((o->workers < 2 && o->broker == NULL) || plan->rows == 0 || plan->state_bytes > STATE_MAX)
        return false;
    if (o->spread_bytes != 0)
        return plan->rows >= (o->spread_bytes + plan->row_bytes - 1) / plan->row_bytes;
    const double there = o->broker != NULL ? 0 : plan->there / o->workers;
    return plan->here - there >= SM_SEARCH_SPREAD;
}

/* By workers. */
static int neighbours_spread(struct phase *f, const struct sm_places *places,
                             struct sm_fitted *fitted, struct sm_fit_watch *watch,
                             struct sm_artifact *artifact, struct sm_arena *arena,
                             struct sm_err *err) {
    const struct sm_fit_source source = {.pipeline = f->p,
                                         .op = f->p->n_ops,
                                         .index = f->data->index,
                                         .root = f->data->root,
                                         .artifacts = f->artifacts};
    struct sm_neighbours_search *search = NULL;
    struct sm_fit_crew *crew = NULL;
    struct sm_fit_round round = {.seed = (uint64_t)f->p->seed, .blas = ""};
    struct sm_buf state;
    sm_buf_init(&state, STATE_MAX);
    sm_cli_stop_at_once(true); /* but for the round, which looks at the flag */
    int failed = sm_neighbours_search_new(&search, places, f->data->root, err);
    if (!failed) failed = sm_neighbours_state(search, &state, err);
    sm_cli_stop_at_once(false);
    if (!failed) failed = working_folder(f, fitted->key, err);
    if (!failed)
        failed = sm_fit_crew_start(&crew, f->options, &source, f->data, f->dir, watch, err);
    if (!failed) {
        const struct sm_neighbours_plan *plan = sm_neighbours_search_plan(search);
        round.state = &state;
        round.ranges = plan->ranges;
        round.bytes = round.stride = plan->partial_bytes;
        round.partials = sm_arena_alloc(arena, plan->ranges * plan->partial_bytes);
        failed = round.partials == NULL ? sm_fail(err, SM_E_MEMORY, "no memory for the neighbours")
                                        : sm_fit_crew_round(crew, &round, err);
    }
    if (!failed) failed = sm_neighbours_finish(search, round.partials, artifact, arena, err);
    sm_fit_crew_stop(&crew);
    sm_buf_release(&state);
    sm_neighbours_search_free(&search);
    return failed;
}

static void rows_told(void *watch, uint64_t done, uint64_t total) {
    sm_fit_watch_show(watch, done, total, NULL);
}

/* Neighbours or scales of synthetic rows. */
static int neighbours_fit(struct phase *f, const struct sm_places *places, struct sm_fitted *fitted,
                          struct sm_artifact *artifact, struct sm_arena *arena,
                          struct sm_err *err) {
    struct sm_fit_watch watch;
    const struct sm_neighbours_plan plan = sm_neighbours_plan(places);
    const struct sm_neighbours_watch told = {rows_told, &watch};
    const bool spread = is_long(f, &plan);
    sm_fit_watch_begin(&watch, f->options->quiet);
    sm_fit_watch_only(&watch, spread ? "ranges of rows" : "rows");
    int failed;
    if (spread) {
        failed = neighbours_spread(f, places, fitted, &watch, artifact, arena, err);
    } else {
        sm_cli_stop_at_once(true);
        failed = sm_neighbours_learn(places, f->data->root, &told, artifact, arena, err);
        sm_cli_stop_at_once(false);
    }
    sm_fit_watch_end(&watch);
    if (failed && err->code != SM_E_CANCELLED) fail_at(f, f->p->n_ops, err);
    return failed;
}

static int rebalance_fit(struct phase *f, struct sm_fitted *fitted, struct sm_err *err) {
    struct sm_places *places = NULL;
    struct sm_artifact artifact = {0};
    struct sm_arena arena;
    sm_arena_init(&arena, ARENA_MAX);
    int failed = sm_places_new(&places, f->p, f->data->index, SM_PART_TRAIN, NULL, err);
    if (!failed) failed = neighbours_fit(f, places, fitted, &artifact, &arena, err);
    if (!failed) failed = sm_artifact_write(&artifact, f->artifacts, err);
    if (!failed) snprintf(fitted->sha256, sizeof fitted->sha256, "%s", artifact.sha256);
    sm_places_free(&places);
    sm_arena_release(&arena);
    return failed;
}

/* --- the end ---------------------------------------------------------------------------------- */

static int entry_remove(const char *path, const struct stat *st, int kind, struct FTW *at) {
    (void)st, (void)kind, (void)at;
    remove(path);
    return 0;
}

/* What was needed for a while goes, also after a failure; only what a stopped expansion of images
 * has made so far stays, to be gone on with. */
static void phase_close(struct phase *f) {
    const bool resumable = f->features[0] != 0 && access(f->features, F_OK) != 0;
    sm_lock_free(&f->lock);
    if (f->dir[0] == 0 || resumable) return;
    nftw(f->dir, entry_remove, TREE_DEPTH, FTW_DEPTH | FTW_PHYS);
    char above[PATH_MAX];
    sm_fs_dirname(f->dir, above, sizeof above);
    rmdir(above); /* when nothing else is in it */
}
