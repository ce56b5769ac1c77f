/* The `webdataset` source: tar shards in which the members of a sample share the name before their
 * first dot (its key): KEY.jpg or KEY.left.jpg beside KEY.cls or KEY.json. Called by scan.c; an
 * entry says where in which tar the image's bytes stand. */
#include "workers/sources/scan.h"

#include "lib/fs.h"
#include "workers/sources/files.h"
#include "workers/sources/tar.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { LABEL_BYTES = 256, JSON_BYTES = 1 << 20 };

struct shard {
    struct sm_scan *scan;
    const char *name; /* relative to the root */
    int fd;
    struct sm_index_record entry;
    char key[SM_MAX_PATH_BYTES]; /* of the sample that is being collected; "" none yet */
    uint64_t header;             /* where it starts */
    char image_extension[SM_MAX_PATH_BYTES]; /* all after the key; "" no image yet */
    bool has_cls, has_json;
    char label[LABEL_BYTES];
};

static int scan_one(void *scan, const char *name, struct sm_err *err);
static int scan_dir(struct sm_scan *s, struct sm_err *err);
static int scan_tar(struct sm_scan *s, const char *name, struct sm_err *err);
static int read_members(struct shard *t, struct sm_tar *tar, struct sm_err *err);
static int take_member(struct shard *t, const struct sm_tar_member *m, struct sm_err *err);
static int finish_sample(struct shard *t, struct sm_err *err);
static int check_keys(const struct sm_scan *s, uint64_t first, const char *name,
                      struct sm_err *err);
static int read_cls(struct shard *t, const struct sm_tar_member *m, struct sm_err *err);
static int read_json(struct shard *t, const struct sm_tar_member *m, struct sm_err *err);

int sm_scan_webdataset(struct sm_scan *s, struct sm_err *err) {
    const char *path = s->source->path;
    if (strcmp(s->root, path) == 0) return scan_dir(s, err);
    const char *slash = strrchr(path, '/');
    const char *name = strncmp(path, s->root, strlen(s->root)) == 0 && slash != NULL
                           ? path + strlen(s->root) + (strcmp(s->root, "/") != 0)
                           : path;
    return sm_files_brace(name, "name-{000000..000123}.tar", scan_one, s, err);
}

static int scan_one(void *scan, const char *name, struct sm_err *err) {
    return scan_tar(scan, name, err);
}

static int scan_dir(struct sm_scan *s, struct sm_err *err) {
    DIR *d = opendir(s->root);
    if (d == NULL) return sm_fail_errno(err, "cannot read the folder '%s'", s->root);
    int failed = 0;
    unsigned long tars = 0;
    for (struct dirent *e; !failed && (e = readdir(d)) != NULL;) {
        const char *dot = strrchr(e->d_name, '.');
        if (e->d_name[0] == '.' || dot == NULL) continue;
        if (strcmp(dot, ".tar") != 0) {
            s->ignored++;
            continue;
        }
        tars++;
        failed = scan_tar(s, e->d_name, err);
    }
    closedir(d);
    if (!failed && tars == 0)
        return sm_fail(
            err, SM_E_DATASET,
            "no .tar in '%s' (hint: source.format: folder reads class folders of images)", s->root);
    return failed;
}

static int scan_tar(struct sm_scan *s, const char *name, struct sm_err *err) {
    char full[2 * SM_MAX_PATH_BYTES];
    snprintf(full, sizeof full, "%s/%s", s->root, name);
    struct shard *t = calloc(1, sizeof *t);
    if (t == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *t = (struct shard){.scan = s, .name = name};
    t->fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    struct sm_tar *tar = NULL;
    int failed =
        t->fd < 0 || fstat(t->fd, &st) != 0 ? sm_fail_errno(err, "cannot open '%s'", full) : 0;
    if (!failed && !S_ISREG(st.st_mode))
        failed = sm_fail(err, SM_E_DATASET, "'%s' is not a file", full);
    if (!failed) failed = sm_tar_open(&tar, t->fd, (uint64_t)st.st_size, full, err);
    if (!failed) {
        t->entry.file = sm_scan_string(s, name);
        sm_scan_stat(&t->entry, &st);
        if (t->entry.file == SM_INDEX_NONE) failed = sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    uint64_t first = s->n_entries;
    if (!failed) failed = read_members(t, tar, err);
    if (!failed) failed = check_keys(s, first, full, err);
    sm_tar_close(&tar);
    if (t->fd >= 0) close(t->fd);
    free(t);
    return failed;
}

static int read_members(struct shard *t, struct sm_tar *tar, struct sm_err *err) {
    struct sm_tar_member *m = malloc(sizeof *m);
    if (m == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int more;
    while ((more = sm_tar_next(tar, m, err)) == 1)
        if (take_member(t, m, err) != 0) {
            more = -1;
            break;
        }
    free(m);
    return more < 0 ? -1 : finish_sample(t, err);
}

static int unsound(const struct shard *t, uint64_t at, const char *what, const char *name,
                   struct sm_err *err) {
    return sm_fail(err, SM_E_DATASET, "'%s/%s' at offset %llu: '%s' %s", t->scan->root, t->name,
                   (unsigned long long)at, name, what);
}

/* The key ends at the first dot of the last component. */
static const char *find_extension(const char *name) {
    const char *slash = strrchr(name, '/'), *base = slash == NULL ? name : slash + 1;
    const char *dot = strchr(base, '.');
    return dot == NULL || dot == base ? NULL : dot + 1;
}

static int take_image(struct shard *t, const struct sm_tar_member *m, const char *extension,
                      struct sm_err *err) {
    if (strcasecmp(t->image_extension, extension) == 0)
        return unsound(t, m->header, "is there twice", m->name, err);
    /* the first image of a sample is its image; KEY.jpg goes before KEY.depth.png, wherever they
     * stand */
    bool plain = strchr(extension, '.') == NULL, before = strchr(t->image_extension, '.') == NULL;
    if (t->image_extension[0] != 0 && (before || !plain)) return 0;
    snprintf(t->image_extension, sizeof t->image_extension, "%s", extension);
    t->entry.offset = m->offset;
    t->entry.length = m->length;
    if (!t->scan->source->checksum) return 0;
    return sm_scan_checksum(t->fd, t->name, m->offset, m->length, &t->entry.checksum, err);
}

static int take_member(struct shard *t, const struct sm_tar_member *m, struct sm_err *err) {
    const char *extension = find_extension(m->name);
    if (extension == NULL) {
        t->scan->ignored++;
        return 0;
    }
    size_t n = (size_t)(extension - m->name) - 1;
    if (strncmp(t->key, m->name, n) != 0 || t->key[n] != 0) {
        if (finish_sample(t, err) != 0) return -1;
        memcpy(t->key, m->name, n);
        t->key[n] = 0;
        t->header = m->header;
    }
    if (sm_scan_is_image(t->scan, extension - 1)) return take_image(t, m, extension, err);
    if (strcasecmp(extension, "cls") == 0) return read_cls(t, m, err);
    if (strcasecmp(extension, "json") == 0) return read_json(t, m, err);
    return 0;
}

/* Adds what has been collected under the present key. */
static int finish_sample(struct shard *t, struct sm_err *err) {
    bool has_image = t->image_extension[0] != 0, has_key = t->key[0] != 0;
    if (has_key && !has_image) t->scan->ignored++;
    if (has_image) {
        if (t->label[0] == 0)
            return unsound(t, t->header, "has no label (hint: KEY.cls, or \"class\" in KEY.json)",
                           t->key, err);
        int64_t label = sm_scan_label(t->scan, t->label, err);
        if (label < 0) return -1;
        t->entry.label = (uint32_t)label;
        t->entry.member = sm_scan_string(t->scan, t->key);
        if (t->entry.member == SM_INDEX_NONE) return sm_fail(err, SM_E_MEMORY, "out of memory");
        if (sm_scan_add(t->scan, &t->entry, err) != 0) return -1;
    }
    t->key[0] = t->image_extension[0] = t->label[0] = 0;
    t->has_cls = t->has_json = false;
    t->entry.checksum = 0;
    return 0;
}

static int compare_strings(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A key that comes back after another one would be two samples of one name. */
static int check_keys(const struct sm_scan *s, uint64_t first, const char *name,
                      struct sm_err *err) {
    uint64_t n = s->n_entries - first;
    const char **keys = calloc(n + 1, sizeof *keys);
    if (keys == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint64_t i = 0; i < n; i++)
        keys[i] = s->strings + s->entries[first + i].member;
    qsort(keys, n, sizeof *keys, compare_strings);
    const char *twice = NULL;
    for (uint64_t i = 1; i < n && twice == NULL; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0) twice = keys[i];
    uint64_t at = 0; /* of its second image */
    for (uint64_t i = first; i < s->n_entries && twice != NULL; i++)
        if (strcmp(s->strings + s->entries[i].member, twice) == 0) at = s->entries[i].offset;
    int failed = 0;
    if (twice != NULL)
        failed = sm_fail(err, SM_E_DATASET, "'%s' at offset %llu: the key '%s' is there twice",
                         name, (unsigned long long)at, twice);
    free(keys);
    return failed;
}

/* Reads a small member whole. Gives, with a NUL behind it. */
static char *read_text(struct shard *t, const struct sm_tar_member *m, size_t max,
                       struct sm_err *err) {
    if (m->length > max) {
        unsound(t, m->header, "is too long for a label", m->name, err);
        return NULL;
    }
    char *text = malloc((size_t)m->length + 1);
    if (text == NULL) {
        sm_fail(err, SM_E_MEMORY, "out of memory");
        return NULL;
    }
    ssize_t n = sm_fs_pread(t->fd, text, (size_t)m->length, m->offset);
    if (n != (ssize_t)m->length) {
        sm_fail_errno(err, "cannot read '%s' in '%s'", m->name, t->name);
        free(text);
        return NULL;
    }
    text[m->length] = 0;
    return text;
}

/* Keeps a label without the blanks around it. */
static int set_label(struct shard *t, const struct sm_tar_member *m, const char *text, size_t n,
                     struct sm_err *err) {
    while (n > 0 && strchr(" \t\r\n", text[n - 1]) != NULL)
        n--;
    while (n > 0 && strchr(" \t\r\n", *text) != NULL)
        text++, n--;
    bool ok = n > 0 && n < sizeof t->label;
    for (size_t i = 0; i < n && ok; i++)
        ok = (unsigned char)text[i] >= ' ' && text[i] != 127;
    if (!ok) return unsound(t, m->header, "holds no label of one line", m->name, err);
    memcpy(t->label, text, n);
    t->label[n] = 0;
    return 0;
}

static int read_cls(struct shard *t, const struct sm_tar_member *m, struct sm_err *err) {
    if (t->has_cls) return unsound(t, m->header, "is there twice", m->name, err);
    char *text = read_text(t, m, 4 * LABEL_BYTES, err);
    if (text == NULL) return -1;
    t->has_cls = true;
    int failed = set_label(t, m, text, (size_t)m->length, err);
    free(text);
    return failed;
}

/* The label of a KEY.json counts when there is no KEY.cls. */
static int read_json(struct shard *t, const struct sm_tar_member *m, struct sm_err *err) {
    if (t->has_json) return unsound(t, m->header, "is there twice", m->name, err);
    char *text = read_text(t, m, JSON_BYTES, err);
    if (text == NULL) return -1;
    json_error_t where;
    json_t *root = json_loadb(text, (size_t)m->length, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (root == NULL) return unsound(t, m->header, "is not JSON", m->name, err);
    t->has_json = true;
    json_t *label = json_object_get(root, "class");
    if (label == NULL) label = json_object_get(root, "label");
    char number[32];
    int failed = 0;
    if (!t->has_cls && json_is_string(label))
        failed = set_label(t, m, json_string_value(label), json_string_length(label), err);
    if (!t->has_cls && json_is_integer(label)) {
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(label));
        failed = set_label(t, m, number, strlen(number), err);
    }
    json_decref(root);
    return failed;
}
