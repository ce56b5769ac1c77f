/* What a scan of a dataset collects, whatever its format, before the index is written. Private to
 * the sources. */
#pragma once

#include "lib/index.h"
#include "workers/sources/source.h"

#include <stdbool.h>
#include <sys/stat.h>

struct sm_scan {
    const struct sm_pipeline_source *source;
    char root[SM_MAX_PATH_BYTES];
    struct sm_index_record *entries; /* label: index into labels, until they are sorted */
    uint64_t n_entries, entries_cap;
    char *strings;
    uint64_t n_strings, strings_cap;
    uint64_t *labels; /* offsets of their names, in the order of first use */
    uint64_t n_labels, labels_cap;
    uint32_t *label_slots; /* open addressing: label + 1 */
    uint64_t n_slots;
    uint64_t ignored;
    struct sm_index_class_record *classes;
    uint32_t n_classes;
};

/* Puts a string into the pool: its offset, or SM_INDEX_NONE when memory is out. */
uint64_t sm_scan_string(struct sm_scan *s, const char *text);
/* The number of a label's name, made when it is new; -1 with err. */
int64_t sm_scan_label(struct sm_scan *s, const char *name, struct sm_err *err);
/* Numbers the classes when all labels are known: fills s->classes (names only). Gives the class of
 * each label. */
int sm_scan_classes(struct sm_scan *s, uint32_t **class_of, struct sm_err *err);
/* Adds an entry. */
int sm_scan_add(struct sm_scan *s, const struct sm_index_record *entry, struct sm_err *err);
/* Size and time of a file as the index records them. */
void sm_scan_stat(struct sm_index_record *entry, const struct stat *st);
/* Whether a name's extension is one of a format that is read. */
bool sm_scan_is_image(const struct sm_scan *s, const char *name);
/* XXH3-64 of length bytes of an open file, never 0. */
int sm_scan_checksum(int fd, const char *name, uint64_t offset, uint64_t length, uint64_t *checksum,
                     struct sm_err *err);

/* One for each format: collect entries. */
int sm_scan_folder(struct sm_scan *s, struct sm_err *err);
int sm_scan_list(struct sm_scan *s, struct sm_err *err);
int sm_scan_webdataset(struct sm_scan *s, struct sm_err *err);
