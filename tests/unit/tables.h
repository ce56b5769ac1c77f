/* Pipelines over small tables for tests of places and synthetic rows: a file in a scratch folder,
 * its index, and what a pipeline makes of it. */
#pragma once

#include "lib/fs.h"
#include "tests/unit/scratch.h"
#include "workers/ops/op.h"
#include "workers/places.h"
#include "workers/sources/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct data {
    struct scratch s;
    struct sm_pipeline p;
    struct sm_index *index;
    struct sm_table *table;
    struct sm_places *places;
    char root[SM_MAX_PATH_BYTES];
    struct sm_err err;
};

static inline struct data data_make(void) {
    return (struct data){.s = scratch_make()};
}

static inline void data_close(struct data *d) {
    sm_places_free(&d->places);
    sm_table_close(&d->table);
    sm_index_close(&d->index);
    sm_pipeline_release(&d->p);
}

static inline void data_done(struct data *d) {
    data_close(d);
    scratch_remove(&d->s);
}

/* Opens the file `name` of the scratch folder. source: more keys of the source, `, label: y`; rest:
 * more of the pipeline. */
static inline void data_open(struct data *d, const char *name, const char *source,
                             const char *rest) {
    char text[2048];
    struct sm_err *err = &d->err;
    data_close(d);
    snprintf(text, sizeof text, "version: 1\nseed: 11\nsource: {path: %s/%s%s}\n%s", d->s.dir, name,
             source, rest);
    if (sm_pipeline_parse(&d->p, "t.yaml", text, strlen(text), sm_op_table(), err) != 0 ||
        sm_index_build(&d->p.source, scratch_path(&d->s, "index"), err) != 0 ||
        sm_index_open(&d->index, scratch_path(&d->s, "index"), err) != 0 ||
        sm_source_root(&d->p.source, d->root, err) != 0 ||
        sm_table_open(&d->table, d->index, d->root, err) != 0)
        fail_msg("%s", err->text);
}

static inline int data_place(struct data *d, int part, const struct sm_artifact *learned) {
    sm_places_free(&d->places);
    return sm_places_new(&d->places, &d->p, d->index, part, learned, &d->err);
}
