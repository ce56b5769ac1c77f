/* Finds or builds the index of a pipeline's dataset. The file's name holds what it was made from,
 * so that another source is never taken for the old one. Before: the pipeline is loaded. After:
 * expand, serve and submit plan with it. */
#include "cli/dataset.h"

#include <stdio.h>
#include <unistd.h>

int sm_dataset_open(struct sm_dataset *d, const struct sm_pipeline_source *source, const char *dir,
                    bool fresh, struct sm_err *err) {
    *d = (struct sm_dataset){0};
    if (sm_source_root(source, d->root, err) < 0) return -1;
    char from[SM_MAX_PATH_BYTES + PATH_MAX + 64], digest[SM_XXH_HEX];
    int n = snprintf(from, sizeof from, "%s %s %d %d %d %d", d->root, source->path, source->format,
                     source->gif, source->tiff, source->checksum);
    sm_xxh(from, (size_t)n, digest);
    snprintf(d->index_path, sizeof d->index_path, "%.*s/index-%.16s",
             (int)(sizeof d->index_path - 32), dir, digest);
    if (!fresh && access(d->index_path, F_OK) == 0 &&
        sm_index_open(&d->index, d->index_path, NULL) == 0)
        return 0;
    if (sm_index_build(source, d->index_path, err) < 0) return -1;
    return sm_index_open(&d->index, d->index_path, err);
}

void sm_dataset_close(struct sm_dataset *d) {
    sm_index_close(&d->index);
}
