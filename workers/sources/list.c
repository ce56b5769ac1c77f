/* The `list` source: a text file with a path and a label on each line, `path<TAB>label` or `path
 * label`; a # starts a comment line. Called by scan.c, which sorts the entries by path. */
#include "workers/sources/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct list {
    struct sm_scan *scan;
    const char *name;
    unsigned long line;
};

static int add_line(struct list *l, char *text, struct sm_err *err);
static int add_file(struct list *l, const char *path, uint32_t label, struct sm_err *err);

int sm_scan_list(struct sm_scan *s, struct sm_err *err) {
    struct list l = {.scan = s, .name = s->source->path};
    FILE *f = fopen(l.name, "re");
    if (f == NULL)
        return sm_fail_errno(err, "cannot open the list '%s' (hint: source.path, or --source)",
                             l.name);
    static char text[SM_MAX_LIST_LINE_BYTES + 2];
    int failed = 0;
    while (!failed && fgets(text, sizeof text, f) != NULL) {
        l.line++;
        size_t n = strlen(text);
        bool whole = n > 0 && text[n - 1] == '\n';
        if (!whole && !feof(f))
            failed =
                sm_fail(err, SM_E_DATASET, "%s:%lu: a line longer than %d bytes, or one with a NUL",
                        l.name, l.line, SM_MAX_LIST_LINE_BYTES);
        else
            failed = add_line(&l, text, err);
    }
    if (!failed && ferror(f)) failed = sm_fail_errno(err, "cannot read the list '%s'", l.name);
    fclose(f);
    return failed;
}

/* Splits off the last field: at the last tab when there is one, else at the last blank. */
static int add_line(struct list *l, char *text, struct sm_err *err) {
    text[strcspn(text, "\r\n")] = 0;
    char *path = text + strspn(text, " \t");
    if (*path == 0 || *path == '#') return 0;
    for (size_t n = strlen(path); n > 0 && strchr(" \t", path[n - 1]) != NULL;)
        path[--n] = 0;
    char *cut = strrchr(path, '\t');
    if (cut == NULL) cut = strrchr(path, ' ');
    if (cut == NULL)
        return sm_fail(err, SM_E_DATASET, "%s:%lu: '%s' has no label (hint: path, tab, label)",
                       l->name, l->line, path);
    const char *label = cut + 1;
    while (cut > path && strchr(" \t", cut[-1]) != NULL)
        cut--;
    *cut = 0;
    int64_t id = sm_scan_label(l->scan, label, err);
    if (id < 0) return sm_err_context(err, "%s:%lu", l->name, l->line);
    return add_file(l, path, (uint32_t)id, err);
}

static int add_file(struct list *l, const char *path, uint32_t label, struct sm_err *err) {
    char full[2 * SM_MAX_PATH_BYTES];
    if (strlen(path) >= SM_MAX_PATH_BYTES)
        return sm_fail(err, SM_E_DATASET, "%s:%lu: a path longer than %d bytes", l->name, l->line,
                       SM_MAX_PATH_BYTES);
    snprintf(full, sizeof full, "%s%s%s", path[0] == '/' ? "" : l->scan->root,
             path[0] == '/' ? "" : "/", path);
    struct stat st;
    if (stat(full, &st) != 0)
        return sm_fail_errno(err, "%s:%lu: cannot read '%s'", l->name, l->line, path);
    if (!S_ISREG(st.st_mode))
        return sm_fail(err, SM_E_DATASET, "%s:%lu: '%s' is not a file", l->name, l->line, path);
    struct sm_index_record e = {.member = SM_INDEX_NONE, .label = label};
    e.length = (uint64_t)st.st_size;
    sm_scan_stat(&e, &st);
    if (l->scan->source->checksum) {
        int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0) return sm_fail_errno(err, "%s:%lu: cannot open '%s'", l->name, l->line, path);
        int failed = sm_scan_checksum(fd, path, 0, e.length, &e.checksum, err);
        close(fd);
        if (failed) return -1;
    }
    e.file = sm_scan_string(l->scan, path);
    if (e.file == SM_INDEX_NONE) return sm_fail(err, SM_E_MEMORY, "out of memory");
    return sm_scan_add(l->scan, &e, err);
}
