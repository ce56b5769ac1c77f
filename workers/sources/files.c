/* See files.h. Called by the scans of tables and of tars; nothing is opened here but folders. */
#include "workers/sources/files.h"

#include "lib/limits.h"

#include <dirent.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

int sm_files_brace(const char *path, const char *example,
                   int (*each)(void *context, const char *path, struct sm_err *err), void *context,
                   struct sm_err *err) {
    const char *open = strchr(path, '{');
    if (open == NULL) return each(context, path, err);
    char *after;
    unsigned long long first = strtoull(open + 1, &after, 10), last = 0;
    int width = (int)(after - open - 1);
    const char *second = after + 2;
    bool ok = width > 0 && width < 16 && strncmp(after, "..", 2) == 0;
    if (ok) last = strtoull(second, &after, 10);
    ok = ok && after > second && *after == '}' && last >= first && last - first < SM_MAX_CLASSES;
    if (!ok) return sm_fail(err, SM_E_USAGE, "'%s' is no range of files (hint: %s)", path, example);
    if (open[1] != '0') width = 1;
    for (unsigned long long i = first; i <= last; i++) {
        char one[SM_MAX_PATH_BYTES];
        int n = snprintf(one, sizeof one, "%.*s%0*llu%s", (int)(open - path), path, width, i,
                         after + 1);
        if (n < 0 || (size_t)n >= sizeof one)
            return sm_fail(err, SM_E_USAGE, "the path is too long");
        if (sm_files_brace(one, example, each, context, err) != 0) return -1;
    }
    return 0;
}

static int add(void *context, const char *path, struct sm_err *err) {
    struct sm_files *f = context;
    if (f->n >= SM_MAX_TABLE_FILES)
        return sm_fail(err, SM_E_DATASET, "a table of more than %d files", SM_MAX_TABLE_FILES);
    if (f->n == f->cap) {
        char **paths = reallocarray(f->paths, f->cap * 2 + 16, sizeof *paths);
        if (paths == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        f->paths = paths;
        f->cap = f->cap * 2 + 16;
    }
    f->paths[f->n] = strdup(path);
    if (f->paths[f->n] == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    f->n++;
    return 0;
}

static int compare(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_folder(struct sm_files *f, const char *path, const char *extension,
                      struct sm_err *err) {
    DIR *dir = opendir(path);
    if (dir == NULL) return sm_fail_errno(err, "cannot read the folder '%s'", path);
    int failed = 0;
    for (struct dirent *e; !failed && (e = readdir(dir)) != NULL;) {
        const char *dot = strrchr(e->d_name, '.');
        if (e->d_name[0] == '.' || dot == NULL || strcasecmp(dot, extension) != 0) continue;
        char full[2 * SM_MAX_PATH_BYTES];
        snprintf(full, sizeof full, "%s/%s", path, e->d_name);
        failed = add(f, full, err);
    }
    closedir(dir);
    return failed;
}

static int add_glob(struct sm_files *f, const char *path, struct sm_err *err) {
    glob_t g;
    int failed = glob(path, GLOB_NOSORT, NULL, &g);
    if (failed == GLOB_NOMATCH) return 0;
    if (failed) return sm_fail(err, SM_E_IO, "cannot look for '%s'", path);
    for (size_t i = 0; i < g.gl_pathc && !failed; i++)
        failed = add(f, g.gl_pathv[i], err);
    globfree(&g);
    return failed;
}

int sm_files_list(struct sm_files *f, const char *path, const char *extension, struct sm_err *err) {
    *f = (struct sm_files){0};
    struct stat st;
    bool there = stat(path, &st) == 0, sorted = false;
    char example[64];
    snprintf(example, sizeof example, "name-{000..123}%s", extension);
    int failed;
    if (there && S_ISDIR(st.st_mode))
        failed = add_folder(f, path, extension, err);
    else if (there)
        failed = add(f, path, err);
    else if ((sorted = strchr(path, '{') != NULL))
        failed = sm_files_brace(path, example, add, f, err);
    else if (strpbrk(path, "*?[") != NULL)
        failed = add_glob(f, path, err);
    else
        failed = sm_fail(err, SM_E_MISSING,
                         "'%s' is not there (hint: source.path in the file, or --source)", path);
    if (!failed && f->n == 0)
        failed = sm_fail(err, SM_E_DATASET, "no %s file in '%s'", extension, path);
    if (!failed && !sorted) qsort(f->paths, f->n, sizeof *f->paths, compare);
    if (failed) sm_files_release(f);
    return failed;
}

void sm_files_release(struct sm_files *f) {
    for (size_t i = 0; i < f->n; i++)
        free(f->paths[i]);
    free(f->paths);
    *f = (struct sm_files){0};
}
