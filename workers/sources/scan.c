/* Builds a dataset's index: the format's scan collects entries, here they are sorted, their labels
 * become class numbers, and the file is written. Comes after: index.c maps that file, reader.c
 * reads the samples that it names. */
#include "workers/sources/scan.h"

#include "lib/fs.h"
#include "workers/sources/table_build.h"
#include "workers/sources/words.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

static int build_images(struct sm_scan *s, const char *index_path, struct sm_err *err);
static int collect(struct sm_scan *s, struct sm_err *err);
static int number_classes(struct sm_scan *s, struct sm_err *err);
static int count_classes(struct sm_scan *s, struct sm_err *err);
static int write_index(const struct sm_scan *s, const char *path, struct sm_err *err);
static int dataset_digest(const struct sm_scan *s, char hex[SM_XXH_HEX], struct sm_err *err);
static int compare_entries(const void *a, const void *b, void *scan);

int sm_index_build(const struct sm_pipeline_source *source, const char *index_path,
                   struct sm_err *err) {
    struct sm_scan s = {.source = source};
    int failed = sm_source_root(source, s.root, err);
    if (!failed)
        failed = source->format == SM_SOURCE_CSV   ? sm_scan_csv(&s, index_path, err)
                 : source->format == SM_SOURCE_NPY ? sm_scan_npy(&s, index_path, err)
                                                   : build_images(&s, index_path, err);
    free(s.entries);
    free(s.strings);
    free(s.labels);
    free(s.label_slots);
    free(s.classes);
    return failed;
}

static int build_images(struct sm_scan *s, const char *index_path, struct sm_err *err) {
    if (collect(s, err) != 0 || number_classes(s, err) != 0) return -1;
    qsort_r(s->entries, s->n_entries, sizeof *s->entries, compare_entries, s);
    return count_classes(s, err) != 0 ? -1 : write_index(s, index_path, err);
}

/* The folder itself, or that of the part before the first brace or wildcard. */
static void root_of_files(const char *path, char root[SM_MAX_PATH_BYTES]) {
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        strcpy(root, path);
        return;
    }
    char fixed[SM_MAX_PATH_BYTES];
    size_t n = stat(path, &st) == 0 ? strlen(path) : strcspn(path, "{*?[");
    memcpy(fixed, path, n);
    fixed[n] = 0;
    sm_fs_dirname(fixed, root, SM_MAX_PATH_BYTES);
}

int sm_source_root(const struct sm_pipeline_source *source, char root[SM_MAX_PATH_BYTES],
                   struct sm_err *err) {
    const char *path = source->path;
    if (path == NULL || *path == 0)
        return sm_fail(err, SM_E_USAGE, "no dataset is named (hint: source.path or --source)");
    if (strlen(path) + 2 > SM_MAX_PATH_BYTES)
        return sm_fail(err, SM_E_USAGE, "the path of the dataset is longer than %d bytes",
                       SM_MAX_PATH_BYTES);
    if (source->format == SM_SOURCE_FOLDER)
        strcpy(root, path);
    else if (source->format == SM_SOURCE_LIST)
        sm_fs_dirname(path, root, SM_MAX_PATH_BYTES);
    else
        root_of_files(path, root);
    return 0;
}

static int collect(struct sm_scan *s, struct sm_err *err) {
    int failed = s->source->format == SM_SOURCE_FOLDER ? sm_scan_folder(s, err)
                 : s->source->format == SM_SOURCE_LIST ? sm_scan_list(s, err)
                                                       : sm_scan_webdataset(s, err);
    if (failed) return failed;
    if (s->n_entries == 0)
        return sm_fail(
            err, SM_E_DATASET,
            "no image in '%s'; %llu other files were passed over (hint: .jpg, .jpeg, .png and "
            ".webp are read, .gif and .tif when source.gif or source.tiff is true)",
            s->source->path, (unsigned long long)s->ignored);
    return 0;
}

uint64_t sm_scan_string(struct sm_scan *s, const char *text) {
    size_t n = strlen(text) + 1;
    if (s->n_strings + n > s->strings_cap) {
        uint64_t cap = (s->n_strings + n) * 2 + 65536;
        char *grown = realloc(s->strings, cap);
        if (grown == NULL) return SM_INDEX_NONE;
        s->strings = grown;
        s->strings_cap = cap;
    }
    memcpy(s->strings + s->n_strings, text, n);
    s->n_strings += n;
    return s->n_strings - n;
}

/* Makes room for one more item of an array. */
static int grow(void *array, uint64_t n, uint64_t *cap, size_t size, struct sm_err *err) {
    if (n < *cap) return 0;
    uint64_t more = *cap * 2 + 1024;
    void *grown = reallocarray(*(void **)array, more, size);
    if (grown == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory after %llu entries", (unsigned long long)n);
    *(void **)array = grown;
    *cap = more;
    return 0;
}

static uint32_t *label_slot(struct sm_scan *s, const char *name) {
    uint64_t i = XXH3_64bits(name, strlen(name)) & (s->n_slots - 1);
    while (s->label_slots[i] != 0 &&
           strcmp(s->strings + s->labels[s->label_slots[i] - 1], name) != 0)
        i = (i + 1) & (s->n_slots - 1);
    return &s->label_slots[i];
}

static int grow_slots(struct sm_scan *s, struct sm_err *err) {
    if (s->n_labels * 2 < s->n_slots) return 0;
    free(s->label_slots);
    s->n_slots = s->n_slots == 0 ? 1024 : s->n_slots * 4;
    s->label_slots = calloc(s->n_slots, sizeof *s->label_slots);
    if (s->label_slots == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint64_t i = 0; i < s->n_labels; i++)
        *label_slot(s, s->strings + s->labels[i]) = (uint32_t)i + 1;
    return 0;
}

int64_t sm_scan_label(struct sm_scan *s, const char *name, struct sm_err *err) {
    if (grow_slots(s, err) != 0) return -1;
    uint32_t *slot = label_slot(s, name);
    if (*slot != 0) return *slot - 1;
    if (s->n_labels >= SM_MAX_CLASSES)
        return sm_fail(err, SM_E_DATASET, "more than %d classes", SM_MAX_CLASSES);
    if (grow(&s->labels, s->n_labels, &s->labels_cap, sizeof *s->labels, err) != 0) return -1;
    uint64_t at = sm_scan_string(s, name);
    if (at == SM_INDEX_NONE) return sm_fail(err, SM_E_MEMORY, "out of memory");
    s->labels[s->n_labels] = at;
    *slot = (uint32_t)++s->n_labels;
    return *slot - 1;
}

int sm_scan_add(struct sm_scan *s, const struct sm_index_record *entry, struct sm_err *err) {
    if (grow(&s->entries, s->n_entries, &s->entries_cap, sizeof *s->entries, err) != 0) return -1;
    s->entries[s->n_entries++] = *entry;
    return 0;
}

void sm_scan_stat(struct sm_index_record *entry, const struct stat *st) {
    entry->file_bytes = (uint64_t)st->st_size;
    entry->mtime_ns = sm_fs_mtime_ns(st);
}

bool sm_scan_is_image(const struct sm_scan *s, const char *name) {
    const char *dot = strrchr(name, '.');
    if (dot == NULL) return false;
    static const char *const always[] = {"jpg", "jpeg", "png", "webp"};
    for (size_t i = 0; i < sizeof always / sizeof *always; i++)
        if (strcasecmp(dot + 1, always[i]) == 0) return true;
    if (s->source->gif && strcasecmp(dot + 1, "gif") == 0) return true;
    return s->source->tiff && (strcasecmp(dot + 1, "tif") == 0 || strcasecmp(dot + 1, "tiff") == 0);
}

int sm_scan_checksum(int fd, const char *name, uint64_t offset, uint64_t length, uint64_t *checksum,
                     struct sm_err *err) {
    static uint8_t chunk[256 << 10];
    XXH3_state_t *x = XXH3_createState();
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    XXH3_64bits_reset(x);
    int failed = 0;
    while (length > 0 && !failed) {
        size_t want = length < sizeof chunk ? (size_t)length : sizeof chunk;
        ssize_t n = sm_fs_pread(fd, chunk, want, offset);
        if (n < 0)
            failed = sm_fail_errno(err, "cannot read '%s'", name);
        else if ((size_t)n < want)
            failed = sm_fail(err, SM_E_CHANGED, "'%s' became shorter while it was read", name);
        else
            XXH3_64bits_update(x, chunk, want);
        offset += want;
        length -= want;
    }
    *checksum = XXH3_64bits_digest(x);
    if (*checksum == 0) *checksum = 1;
    XXH3_freeState(x);
    return failed;
}

/* The value of a label that is a whole number as people write it, or -1. */
static int64_t whole_number(const char *text) {
    size_t n = strspn(text, "0123456789");
    if (n == 0 || n > 10 || text[n] != 0 || (n > 1 && text[0] == '0')) return -1;
    return (int64_t)strtoull(text, NULL, 10);
}

struct label {
    const char *name;
    int64_t number;
    uint32_t id;
};

static int compare_number_labels(const void *a, const void *b) {
    const struct label *x = a, *y = b;
    return sm_words_compare_numbers(x->name, y->name);
}

static int compare_labels(const void *a, const void *b) {
    const struct label *x = a, *y = b;
    if (x->number != y->number) return x->number < y->number ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Gives the sorted labels; numbers stay -1 unless each label is a whole one. Others, as -1 or 0.5,
 * are sorted by value. */
static struct label *sort_labels(const struct sm_scan *s, bool *numeric) {
    struct label *labels = calloc(s->n_labels, sizeof *labels);
    if (labels == NULL) return NULL;
    *numeric = s->source->format != SM_SOURCE_FOLDER;
    bool values = *numeric;
    for (uint64_t i = 0; i < s->n_labels; i++) {
        labels[i] = (struct label){s->strings + s->labels[i], -1, (uint32_t)i};
        *numeric = *numeric && whole_number(labels[i].name) >= 0;
        values = values && sm_word_is_number(labels[i].name);
    }
    for (uint64_t i = 0; i < s->n_labels && *numeric; i++)
        labels[i].number = whole_number(labels[i].name);
    qsort(labels, s->n_labels, sizeof *labels,
          values && !*numeric ? compare_number_labels : compare_labels);
    return labels;
}

static int name_classes(struct sm_scan *s, const struct label *labels, bool numeric,
                        uint32_t *class_of, struct sm_err *err) {
    int64_t top = numeric ? labels[s->n_labels - 1].number : (int64_t)s->n_labels - 1;
    if (top >= SM_MAX_CLASSES)
        return sm_fail(err, SM_E_DATASET,
                       "class %lld: a class number must be below %d (hint: use names as labels)",
                       (long long)top, SM_MAX_CLASSES);
    s->n_classes = (uint32_t)top + 1;
    s->classes = calloc(s->n_classes, sizeof *s->classes);
    if (s->classes == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint64_t i = 0; i < s->n_labels; i++) {
        uint32_t c = numeric ? (uint32_t)labels[i].number : (uint32_t)i;
        class_of[labels[i].id] = c;
        s->classes[c].name = s->labels[labels[i].id] + 1; /* 0: not named yet */
    }
    for (uint32_t c = 0; c < s->n_classes; c++) {
        char text[16];
        snprintf(text, sizeof text, "%u", c);
        if (s->classes[c].name == 0)
            s->classes[c].name = sm_scan_string(s, text);
        else
            s->classes[c].name--;
        if (s->classes[c].name == SM_INDEX_NONE) return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    return 0;
}

int sm_scan_classes(struct sm_scan *s, uint32_t **class_of, struct sm_err *err) {
    bool numeric;
    struct label *labels = sort_labels(s, &numeric);
    *class_of = calloc(s->n_labels, sizeof **class_of);
    int failed = labels == NULL || *class_of == NULL
                     ? sm_fail(err, SM_E_MEMORY, "out of memory")
                     : name_classes(s, labels, numeric, *class_of, err);
    free(labels);
    if (failed) {
        free(*class_of);
        *class_of = NULL;
    }
    return failed;
}

static int number_classes(struct sm_scan *s, struct sm_err *err) {
    uint32_t *class_of;
    if (sm_scan_classes(s, &class_of, err) != 0) return -1;
    for (uint64_t i = 0; i < s->n_entries; i++)
        s->entries[i].label = class_of[s->entries[i].label];
    free(class_of);
    return 0;
}

static int compare_entries(const void *a, const void *b, void *scan) {
    const struct sm_index_record *x = a, *y = b;
    const char *strings = ((struct sm_scan *)scan)->strings;
    int order = x->file == y->file ? 0 : strcmp(strings + x->file, strings + y->file);
    if (order != 0) return order;
    if (x->member != SM_INDEX_NONE && y->member != SM_INDEX_NONE)
        order = strcmp(strings + x->member, strings + y->member);
    return order != 0 ? order : (x->label > y->label) - (x->label < y->label);
}

static int count_classes(struct sm_scan *s, struct sm_err *err) {
    for (uint64_t i = 0; i < s->n_entries; i++)
        s->classes[s->entries[i].label].samples++;
    uint64_t first = 0;
    for (uint32_t c = 0; c < s->n_classes; c++) {
        struct sm_index_class_record *k = &s->classes[c];
        if (k->samples == 0 && s->source->format == SM_SOURCE_FOLDER)
            return sm_fail(
                err, SM_E_DATASET,
                "class '%s' has no image in '%s' (hint: put images there or remove the folder)",
                s->strings + k->name, s->source->path);
        k->first = first;
        first += k->samples;
    }
    return 0;
}

/* For each class its samples, in index order. Gives. */
static uint64_t *samples_by_class(const struct sm_scan *s) {
    uint64_t *out = calloc(s->n_entries, sizeof *out);
    uint64_t *next = calloc(s->n_classes, sizeof *next);
    for (uint64_t i = 0; i < s->n_entries && out != NULL && next != NULL; i++) {
        uint32_t c = s->entries[i].label;
        out[s->classes[c].first + next[c]++] = i;
    }
    if (next == NULL) {
        free(out);
        out = NULL;
    }
    free(next);
    return out;
}

struct writer {
    struct sm_newfile *file;
    XXH3_state_t *hash;
};

static int put(struct writer *w, const void *bytes, size_t n, struct sm_err *err) {
    XXH3_128bits_update(w->hash, bytes, n);
    return sm_newfile_add(w->file, bytes, n, err);
}

static int write_body(struct writer *w, const struct sm_scan *s, const uint64_t *by_class,
                      const int64_t *times, struct sm_err *err) {
    struct sm_index_header h = {.version = SM_INDEX_VERSION,
                                .samples = s->n_entries,
                                .classes = s->n_classes,
                                .string_bytes = s->n_strings,
                                .ignored = s->ignored,
                                .times = times != NULL ? s->n_entries : 0};
    memcpy(h.magic, SM_INDEX_MAGIC, sizeof h.magic);
    if (dataset_digest(s, h.dataset_digest, err) != 0 || put(w, &h, sizeof h, err) != 0 ||
        put(w, s->entries, s->n_entries * sizeof *s->entries, err) != 0 ||
        put(w, s->classes, s->n_classes * sizeof *s->classes, err) != 0 ||
        put(w, by_class, s->n_entries * sizeof *by_class, err) != 0 ||
        put(w, s->strings, s->n_strings, err) != 0 ||
        (times != NULL && put(w, times, s->n_entries * sizeof *times, err) != 0))
        return -1;
    XXH128_canonical_t sum;
    XXH128_canonicalFromHash(&sum, XXH3_128bits_digest(w->hash));
    return sm_newfile_add(w->file, sum.digest, sizeof sum.digest, err);
}

/* The order of the strings is the order in which the folder was read; the file must not show it.
 * The classes' names come first (lib/index.h). */
static int sort_strings(const struct sm_scan *s, struct sm_scan *sorted) {
    *sorted = *s;
    sorted->strings = NULL;
    sorted->n_strings = sorted->strings_cap = 0;
    sorted->entries = calloc(s->n_entries, sizeof *s->entries);
    sorted->classes = calloc(s->n_classes, sizeof *s->classes);
    bool ok = sorted->entries != NULL && sorted->classes != NULL;
    for (uint32_t c = 0; c < s->n_classes && ok; c++) {
        sorted->classes[c] = s->classes[c];
        sorted->classes[c].name = sm_scan_string(sorted, s->strings + s->classes[c].name);
        ok = sorted->classes[c].name != SM_INDEX_NONE;
    }
    for (uint64_t i = 0; i < s->n_entries && ok; i++) {
        const struct sm_index_record *from = &s->entries[i];
        struct sm_index_record *to = &sorted->entries[i];
        *to = *from;
        bool same = i > 0 && from->file == s->entries[i - 1].file; /* a tar's path stands once */
        to->file = same ? to[-1].file : sm_scan_string(sorted, s->strings + from->file);
        ok = to->file != SM_INDEX_NONE;
        if (ok && from->member != SM_INDEX_NONE) {
            to->member = sm_scan_string(sorted, s->strings + from->member);
            ok = to->member != SM_INDEX_NONE;
        }
    }
    return ok ? 0 : -1;
}

/* A checksum tells a file's content, so its time is not needed for that; without one it is all that
 * there is, and stays in its entry. Gives; NULL: they stay, or no memory. */
static int64_t *take_times(struct sm_scan *sorted) {
    if (!sorted->source->checksum) return NULL;
    int64_t *times = calloc(sorted->n_entries, sizeof *times);
    for (uint64_t i = 0; i < sorted->n_entries && times != NULL; i++) {
        times[i] = sorted->entries[i].mtime_ns;
        sorted->entries[i].mtime_ns = 0;
    }
    return times;
}

static int write_index(const struct sm_scan *s, const char *path, struct sm_err *err) {
    struct sm_scan sorted;
    struct writer w = {.hash = XXH3_createState()};
    int failed = sort_strings(s, &sorted) | (w.hash == NULL);
    uint64_t *by_class = failed ? NULL : samples_by_class(s);
    int64_t *times = failed ? NULL : take_times(&sorted);
    if (by_class == NULL || (s->source->checksum && times == NULL))
        failed = sm_fail(err, SM_E_MEMORY, "out of memory");
    if (!failed) {
        XXH3_128bits_reset(w.hash);
        failed = sm_newfile_open(&w.file, path, err);
    }
    if (!failed) failed = write_body(&w, &sorted, by_class, times, err);
    if (!failed) failed = sm_newfile_commit(&w.file, err);
    sm_newfile_abandon(&w.file);
    XXH3_freeState(w.hash);
    free(by_class);
    free(times);
    free(sorted.entries);
    free(sorted.classes);
    free(sorted.strings);
    return failed;
}

static int dataset_digest(const struct sm_scan *s, char hex[SM_XXH_HEX], struct sm_err *err) {
    struct sm_hash *h = sm_hash_new_xxh();
    if (h == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < s->n_classes; c++) {
        const char *name = s->strings + s->classes[c].name;
        sm_hash_add(h, name, strlen(name) + 1);
    }
    for (uint64_t i = 0; i < s->n_entries; i++) {
        const struct sm_index_record *e = &s->entries[i];
        const char *file = s->strings + e->file;
        const char *member = e->member == SM_INDEX_NONE ? "" : s->strings + e->member;
        uint64_t numbers[3] = {e->length, e->label, e->checksum};
        sm_hash_add(h, file, strlen(file) + 1);
        sm_hash_add(h, member, strlen(member) + 1);
        sm_hash_add(h, numbers, sizeof numbers);
    }
    sm_hash_end(&h, hex);
    return 0;
}
