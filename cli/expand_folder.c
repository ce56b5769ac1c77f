/* What the output folder of an expansion holds already: this run, complete or begun, another one,
 * or nothing. Before: expand.c has claimed the folder and knows the run. After: it goes on with the
 * run, or says that it was complete. */
#include "cli/expand_folder.h"

#include "workers/sinks/sink.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool holds_shards(const char *dir) {
    bool found = false;
    DIR *d = opendir(dir);
    if (d == NULL) return false;
    for (struct dirent *e; !found && (e = readdir(d)) != NULL;)
        found = strncmp(e->d_name, "shard-", 6) == 0;
    closedir(d);
    return found;
}

static int refuse(const char *dir, const char *what, struct sm_err *err) {
    return sm_fail(
        err, SM_E_DIFFERS,
        "'%s' holds a run that differs in %s (hint: choose another folder, or remove this one)",
        dir, what);
}

/* Whether the record at path says the same run; 1 yes, 0 no record, -1 another run or unreadable.
 */
static int compare_record(const char *dir, const struct sm_run *run, const char *path,
                          struct sm_run *before, struct sm_err *err) {
    if (access(path, F_OK) != 0) return 0;
    if (sm_run_read(before, path, err) < 0) return -1;
    char what[256];
    if (sm_run_differs(run, before, what, sizeof what) != NULL) {
        sm_run_release(before);
        return refuse(dir, what, err);
    }
    return 1;
}

/* Whether every shard of the record is a file of its size; if not, name is the first that is none.
 */
bool sm_folder_shards(const char *dir, const struct sm_run *record, char name[SM_PART_NAME_MAX]) {
    for (size_t i = 0; i < record->n_shards; i++) {
        char path[PATH_MAX + SM_PART_NAME_MAX];
        struct stat st;
        sm_shard_file(record->shards[i].shard, record->format, name);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        if (stat(path, &st) < 0 || (uint64_t)st.st_size != record->shards[i].bytes) return false;
    }
    return true;
}

/* A finished run, a run that was interrupted, another run, or nothing. */
int sm_folder_compare(const char *dir, struct sm_run *run, bool *complete, struct sm_err *err) {
    char path[PATH_MAX + 64], slice[64];
    struct sm_run before;
    const char *finished = SM_MANIFEST_NAME;
    bool known = false;
    for (int i = 0; i < 2; i++) { /* the whole run's manifest; then, for a slice, its own record */
        snprintf(path, sizeof path, "%s/%s", dir, finished);
        int same = compare_record(dir, run, path, &before, err);
        if (same < 0) return -1;
        char gone[SM_PART_NAME_MAX];
        bool there = same && sm_folder_shards(dir, &before, gone);
        if (same && !there)
            fprintf(stderr, "shardmill: '%s/%s' is missing or has another size: it is made again\n",
                    dir, gone);
        if (there) {
            *complete = true;
            sm_run_release(run);
            *run = before;
            return 0;
        }
        if (same) {
            sm_run_release(&before);
            unlink(path); /* it no longer says what is there */
            known = true;
        }
        if (run->slices == 1) break;
        sm_slice_file(run->slice, run->slices, slice);
        finished = slice;
    }
    snprintf(path, sizeof path, "%s/" SM_STATE_NAME "/run.json", dir);
    int same = compare_record(dir, run, path, &before, err);
    if (same < 0) return -1;
    if (same) {
        sm_run_release(&before);
        return 0;
    }
    if (!known && run->slices == 1 && holds_shards(dir))
        fprintf(
            stderr,
            "shardmill: '%s' holds shards without a record: shards of the same name are replaced\n",
            dir);
    return sm_run_write_header(run, path, err);
}

bool sm_folder_started(const char *dir) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" SM_STATE_NAME "/run.json", dir);
    return access(path, F_OK) == 0;
}

/* Of files. */
static void remove_folder(int dir, const char *name) {
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    unlinkat(dir, name, AT_REMOVEDIR);
}

void sm_folder_forget(const char *state_dir) {
    DIR *d = opendir(state_dir);
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            unlinkat(dirfd(d), e->d_name, 0);   /* folders of slices that are still at work stay */
    remove_folder(dirfd(d), SM_ARTIFACTS_NAME); /* what was fitted for this run alone */
    closedir(d);
    rmdir(state_dir);
}
