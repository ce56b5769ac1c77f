/* An index that is open. Private to index.c, table_index.c (what only tables have), table_find.c
 * and table_read.c with its table_arrays.c. */
#pragma once

#include "lib/arena.h"
#include "lib/index.h"
#include "workers/sources/source.h"

struct sm_index {
    const uint8_t *bytes; /* of a table in a file: the first SM_INDEX_MATRIX */
    uint64_t n;           /* of the whole file */
    void *map;            /* owned; NULL: the bytes are someone else's */
    size_t map_n;
    int fd; /* of a table in a file: its matrix is read, not mapped; else -1 */
    const struct sm_index_header *header;
    const struct sm_index_record *entries; /* of images */
    const struct sm_index_class_record *classes;
    const uint64_t *by_class;
    const char *strings;
    const uint8_t *times; /* header->times of int64_t, aligned to nothing */
    char digest[SM_XXH_HEX];
    /* of tables */
    const struct sm_index_table *table;
    const uint8_t *tables; /* from table->tables to the file's end */
    void *tables_map;      /* owned, or NULL */
    size_t tables_map_n;
    const struct sm_index_file *files;
    const struct sm_index_column *columns;
    const uint64_t *categories;
    const struct sm_index_bad_row *bad;
    const struct sm_index_mark *marks;
    const uint64_t *groups;
    const uint32_t *labels, *rows_by_class;
    const uint8_t *matrix; /* in memory, or NULL: at SM_INDEX_MATRIX in fd */
    struct sm_schema schema;
    struct sm_arena arena;
};

/* Bytes of a table's row as it is read. */
static inline size_t sm_table_row_bytes(const struct sm_index *x) {
    return x->schema.n * (x->schema.is_double ? sizeof(double) : sizeof(float));
}
/* Finds a table's tables, whose header has been checked; every offset is held against its bounds.
 * False: they cannot be. */
bool sm_table_lay_out(struct sm_index *x);
bool sm_table_is_sound(const struct sm_index *x);
/* The schema, whose strings are the index's. */
int sm_table_make_schema(struct sm_index *x, struct sm_err *err);
/* When the n-th file of a table, or an image's, had been written as it was indexed, in ns. */
int64_t sm_index_time(const struct sm_index *x, uint64_t n);
/* Of a csv: the last mark at or before a row that is counted with the bad ones. NULL: no csv. */
const struct sm_index_mark *sm_table_mark_before(const struct sm_index *x, uint64_t row);
void sm_table_file_path(const struct sm_index *x, const char *root,
                        const struct sm_index_file *file, char path[2 * SM_MAX_PATH_BYTES]);
/* The file of a row that is counted with the bad ones. */
const struct sm_index_file *sm_table_file(const struct sm_index *x, uint64_t row);
