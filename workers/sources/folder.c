/* The `folder` source: each sub-folder of the root is a class, every image below it a sample.
 * Called by scan.c, which sorts what is collected here in whatever order the filesystem gives it.
 */
#include "workers/sources/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { DEPTH_MAX = 64 };

struct walk {
    struct sm_scan *scan;
    char path[SM_MAX_PATH_BYTES]; /* relative to the root */
    uint32_t label;
    int depth;
    struct {
        dev_t dev;
        ino_t ino;
    } above[DEPTH_MAX]; /* the folders that we are in, to see a loop of links */
};

static int walk_folder(struct walk *w, int parent, const char *name, struct sm_err *err);
static int visit(struct walk *w, int dir, const char *name, struct sm_err *err);
static int add_file(struct walk *w, int dir, const char *name, const struct stat *st,
                    struct sm_err *err);

int sm_scan_folder(struct sm_scan *s, struct sm_err *err) {
    struct stat st;
    if (stat(s->root, &st) != 0 && errno == ENOENT)
        return sm_fail(err, SM_E_MISSING,
                       "the folder '%s' is not there (hint: source.path in the file, or --source)",
                       s->root);
    if (stat(s->root, &st) != 0) return sm_fail_errno(err, "cannot read the folder '%s'", s->root);
    if (!S_ISDIR(st.st_mode))
        return sm_fail(
            err, SM_E_DATASET,
            "'%s' is not a folder (hint: source.format is list or webdataset for a file)", s->root);
    struct walk w = {.scan = s};
    if (walk_folder(&w, AT_FDCWD, s->root, err) != 0) return -1;
    if (s->n_labels == 0)
        return sm_fail(
            err, SM_E_DATASET,
            "'%s' has no sub-folders (hint: one folder for each class, images inside; or a "
            "list of paths and labels with source.format: list)",
            s->root);
    return 0;
}

/* Opens the folder and visits each name in it. */
static int walk_folder(struct walk *w, int parent, const char *name, struct sm_err *err) {
    const char *shown = w->depth == 0 ? w->scan->root : w->path;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        sm_fail_errno(err, "cannot read the folder '%s'", shown);
        if (fd >= 0) close(fd);
        return -1;
    }
    struct stat st;
    int failed = fstat(fd, &st) != 0 ? sm_fail_errno(err, "cannot read the folder '%s'", shown) : 0;
    for (int i = 0; i < w->depth && !failed; i++) {
        if (w->above[i].dev != st.st_dev || w->above[i].ino != st.st_ino) continue;
        closedir(dir);
        return 0; /* a link back to where we came from */
    }
    if (w->depth == DEPTH_MAX)
        failed = sm_fail(err, SM_E_DATASET, "'%s' is more than %d folders deep", shown, DEPTH_MAX);
    if (!failed) {
        w->above[w->depth].dev = st.st_dev;
        w->above[w->depth++].ino = st.st_ino;
        errno = 0;
        for (struct dirent *e; !failed && (e = readdir(dir)) != NULL; errno = 0)
            failed = visit(w, fd, e->d_name, err);
        if (!failed && errno != 0)
            failed = sm_fail_errno(err, "cannot read the folder '%s'", shown);
        w->depth--;
    }
    closedir(dir);
    return failed;
}

static int visit(struct walk *w, int dir, const char *name, struct sm_err *err) {
    if (name[0] == '.') return 0; /* hidden, and . and .. */
    size_t was = strlen(w->path), n = strlen(name);
    if (was + n + 2 > sizeof w->path)
        return sm_fail(err, SM_E_DATASET, "a path below '%s' is longer than %d bytes", w->path,
                       SM_MAX_PATH_BYTES);
    if (was > 0) strcat(w->path, "/");
    strcat(w->path, name);
    struct stat st;
    int failed = 0;
    if (fstatat(dir, name, &st, 0) != 0 && (errno == ENOENT || errno == ELOOP))
        w->scan->ignored++; /* a link that leads nowhere: no file, and no reason to stop */
    else if (fstatat(dir, name, &st, 0) != 0)
        failed = sm_fail_errno(err, "cannot read '%s'", w->path);
    else if (S_ISDIR(st.st_mode)) {
        int64_t label = w->depth > 1 ? w->label : sm_scan_label(w->scan, name, err);
        w->label = (uint32_t)label;
        failed = label < 0 ? -1 : walk_folder(w, dir, name, err);
    } else
        failed = add_file(w, dir, name, &st, err);
    w->path[was] = 0;
    return failed;
}

static int add_file(struct walk *w, int dir, const char *name, const struct stat *st,
                    struct sm_err *err) {
    if (w->depth < 2 || !S_ISREG(st->st_mode) || !sm_scan_is_image(w->scan, name)) {
        w->scan->ignored++;
        return 0;
    }
    struct sm_index_record e = {.member = SM_INDEX_NONE, .label = w->label};
    e.length = (uint64_t)st->st_size;
    sm_scan_stat(&e, st);
    if (w->scan->source->checksum) {
        int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 && errno != EACCES) return sm_fail_errno(err, "cannot open '%s'", w->path);
        /* one that may not be read is quarantined by whoever reads it */
        int failed = fd < 0 ? 0 : sm_scan_checksum(fd, w->path, 0, e.length, &e.checksum, err);
        if (fd >= 0) close(fd);
        if (failed) return -1;
    }
    e.file = sm_scan_string(w->scan, w->path);
    if (e.file == SM_INDEX_NONE) return sm_fail(err, SM_E_MEMORY, "out of memory");
    return sm_scan_add(w->scan, &e, err);
}
