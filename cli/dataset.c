/* Finds or builds the index of a pipeline's dataset. The file's name holds what it was made from,
 * so that another source is never taken for the old one. Before: the pipeline is loaded. After:
 * expand, serve and submit plan with it. */
#include "cli/dataset.h"

#include "cli/cli.h"
#include "lib/fs.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static int describe(struct sm_dataset *d, const struct sm_pipeline_source *source, const char *dir,
                    struct sm_err *err);
static bool open_kept(struct sm_dataset *d);

int sm_dataset_open(struct sm_dataset *d, const struct sm_pipeline_source *source, const char *dir,
                    bool fresh, struct sm_err *err) {
    if (describe(d, source, dir, err) < 0) return -1;
    sm_cli_stop_at_once(true); /* an index has its name when it is whole */
    const bool kept = !fresh && open_kept(d);
    int failed = 0;
    if (!kept) failed = sm_index_build(source, d->index_path, err);
    if (!kept && !failed) failed = sm_index_open(&d->index, d->index_path, err);
    sm_cli_stop_at_once(false);
    return failed;
}

int sm_dataset_look(struct sm_dataset *d, const struct sm_pipeline_source *source,
                    const char *state, bool fresh, bool *kept, struct sm_err *err) {
    char dir[SM_MAX_PATH_BYTES];
    if (describe(d, source, state, err) < 0) return -1;
    *kept = !fresh && open_kept(d);
    if (*kept) return 0;
    struct sm_pipeline_source quick = *source;
    quick.checksum = false; /* reads every byte, and nothing is made of these samples */
    if (sm_fs_scratch_begin(dir, err) < 0) return -1;
    int r = sm_dataset_open(d, &quick, dir, true, err);
    sm_fs_scratch_end();
    return r;
}

void sm_dataset_close(struct sm_dataset *d) {
    sm_index_close(&d->index);
}

/* How a table is read; of a folder also which state of it, as another file may have come. */
static void describe_table(const struct sm_pipeline_source *s, struct sm_buf *from) {
    struct stat st;
    const struct sm_strs *const lists[] = {&s->missing, &s->categorical, &s->numeric};
    sm_buf_printf(from, " %d %d %d %d", s->header, s->float64, s->on_error, s->skip_initial_space);
    sm_buf_json(from, s->group != NULL ? s->group : "");
    sm_buf_json(from, s->label != NULL ? s->label : "");
    sm_buf_json(from, s->delimiter != NULL ? s->delimiter : "");
    sm_buf_json(from, s->decimal != NULL ? s->decimal : "");
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        sm_buf_printf(from, " %d", lists[i]->v == NULL);
        for (size_t k = 0; k < lists[i]->count; k++)
            sm_buf_json(from, lists[i]->v[k]);
    }
    if (stat(s->path, &st) == 0 && S_ISDIR(st.st_mode))
        sm_buf_printf(from, " %lld.%09ld", (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static int describe(struct sm_dataset *d, const struct sm_pipeline_source *source, const char *dir,
                    struct sm_err *err) {
    *d = (struct sm_dataset){0};
    if (sm_source_root(source, d->root, err) < 0) return -1;
    char digest[SM_XXH_HEX];
    struct sm_buf from;
    sm_buf_init(&from, 2 * SM_MAX_YAML_BYTES);
    sm_buf_printf(&from, "%s %s %d %d %d %d", d->root, source->path, source->format, source->gif,
                  source->tiff, source->checksum);
    if (sm_source_is_table(source)) describe_table(source, &from);
    sm_xxh(from.data, from.len, digest);
    bool full = from.full;
    sm_buf_release(&from);
    if (full) return sm_fail(err, SM_E_MEMORY, "out of memory");
    snprintf(d->index_path, sizeof d->index_path, "%.*s/index-%.16s",
             (int)(sizeof d->index_path - 32), dir, digest);
    return 0;
}

static bool open_kept(struct sm_dataset *d) {
    if (access(d->index_path, F_OK) != 0 || sm_index_open(&d->index, d->index_path, NULL) != 0)
        return false;
    if (sm_index_is_current(d->index, d->root)) return true;
    sm_index_close(&d->index);
    return false;
}
