/* Finds a job's artifacts beside its index or asks for them by SHA-256. Fetched ones lie in memory;
 * a folder of links names them for as long as the job is being made ready. */
#include "workers/job_learned.h"

#include "lib/fs.h"
#include "lib/limits.h"
#include "workers/table/artifact.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *name_at(const struct sm_job_learned *l, size_t place);
static bool are_there(const struct sm_job_learned *l, const char *dir);
static void want_next(struct sm_job_learned *l);
static int link_path(const struct sm_job_learned *l, const char *sha, char path[SM_MAX_PATH_BYTES]);

int sm_job_learned_begin(struct sm_job_learned *l, const struct sm_pipeline *p, const char *beside,
                         const char *state, struct sm_err *err) {
    char dir[SM_MAX_PATH_BYTES];
    l->pipeline = p;
    l->state = state;
    l->n = p->artifacts.count + 2; /* the last places are rebalancing's and the state's */
    for (size_t i = 0; i < l->n; i++)
        if (name_at(l, i) != NULL && !sm_is_hex(name_at(l, i), SM_SHA_HEX - 1))
            return sm_fail(err, SM_E_PROTOCOL, "'%.80s' is no SHA-256", name_at(l, i));
    l->files = calloc(l->n, sizeof *l->files);
    if (l->files == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < l->n; i++)
        sm_fetched_init(&l->files[i]);
    const bool fetches = !are_there(l, beside);
    if (fetches && sm_fs_temp_folder(dir, err) != 0) return -1;
    l->dir = strdup(fetches ? dir : beside);
    if (l->dir == NULL) {
        if (fetches) rmdir(dir);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    l->fetches = fetches;
    if (!fetches) l->at = l->n - 1;
    want_next(l);
    return 0;
}

int sm_job_learned_take(struct sm_job_learned *l, const void *bytes, size_t n, uint64_t total,
                        struct sm_err *err) {
    struct sm_fetched *file = &l->files[l->at];
    char path[SM_MAX_PATH_BYTES], memory[64], found[SM_SHA_HEX];
    int r = sm_fetched_take(file, bytes, n, total, SM_MAX_ARTIFACT_BYTES, "what was learned", err);
    if (r <= 0) return r;
    sm_sha256(file->map, file->total, found);
    if (strcmp(found, l->wanted) != 0)
        return sm_fail(err, SM_E_DIFFERS, "the broker sent %.12s… for '%.12s…'", found, l->wanted);
    snprintf(memory, sizeof memory, "/proc/self/fd/%d", file->fd);
    if (l->at < l->n - 1 && (link_path(l, l->wanted, path) != 0 || symlink(memory, path) != 0))
        return sm_fail_errno(err, "cannot link '%.64s' in '%s'", l->wanted, l->dir);
    l->at++;
    want_next(l);
    return 0;
}

uint64_t sm_job_learned_offset(const struct sm_job_learned *l) {
    return l->wanted != NULL ? l->files[l->at].got : 0;
}

const struct sm_fetched *sm_job_learned_state(const struct sm_job_learned *l) {
    return &l->files[l->n - 1];
}

void sm_job_learned_release(struct sm_job_learned *l) {
    char path[SM_MAX_PATH_BYTES];
    for (size_t i = 0; l->files != NULL && i < l->n; i++) {
        const bool linked = i < l->at && i < l->n - 1 && l->files[i].fd >= 0;
        if (linked && link_path(l, name_at(l, i), path) == 0) unlink(path);
        sm_fetched_release(&l->files[i]);
    }
    if (l->fetches) rmdir(l->dir);
    free(l->files);
    free(l->dir);
    *l = (struct sm_job_learned){0};
}

/* What was learned at a place; NULL: nothing. */
static const char *name_at(const struct sm_job_learned *l, size_t place) {
    const struct sm_strs *ops = &l->pipeline->artifacts;
    const char *sha = place < ops->count    ? ops->v[place]
                      : place == ops->count ? l->pipeline->rebalance_artifact
                                            : l->state;
    return sha != NULL && sha[0] != 0 ? sha : NULL;
}

static bool are_there(const struct sm_job_learned *l, const char *dir) {
    struct sm_artifact a;
    for (size_t i = 0; i < l->n - 1; i++) {
        if (name_at(l, i) == NULL) continue;
        if (sm_artifact_open(&a, dir, name_at(l, i), NULL) != 0) return false;
        sm_artifact_close(&a);
    }
    return true;
}

static int link_path(const struct sm_job_learned *l, const char *sha,
                     char path[SM_MAX_PATH_BYTES]) {
    int n = snprintf(path, SM_MAX_PATH_BYTES, "%s/%s.npz", l->dir, sha);
    return n > 0 && n < SM_MAX_PATH_BYTES ? 0 : -1;
}

/* Whether a place before this one has the same name. */
static bool is_linked(const struct sm_job_learned *l, const char *sha) {
    for (size_t i = 0; i < l->at; i++)
        if (name_at(l, i) != NULL && strcmp(name_at(l, i), sha) == 0) return true;
    return false;
}

/* Two ops may have learned the same: it is fetched once. */
static void want_next(struct sm_job_learned *l) {
    for (l->wanted = NULL; l->at < l->n; l->at++) {
        const char *sha = name_at(l, l->at);
        if (sha == NULL || (l->at < l->n - 1 && is_linked(l, sha))) continue;
        l->wanted = sha;
        return;
    }
}
