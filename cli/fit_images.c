/* Runs the image ops of a pipeline as an expansion to npy shards, and copies the features out of
 * their records. Random ops before Flatten draw what they draw in epoch 0. */
#include "cli/fit_images.h"

#include "cli/expand.h"
#include "cli/run.h"
#include "lib/fs.h"
#include "workers/features.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    SHARD_SAMPLES = 1024,
    RECORD_TAIL = 2 * sizeof(int64_t), /* behind the features: label and sample */
};

static volatile sig_atomic_t never;

static int copy_out(const struct sm_run *run, const char *dir, struct sm_err *err);

int sm_fit_images(const struct sm_pipeline *p, const struct sm_fit_options *o, const char *dir,
                  struct sm_err *err) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/" SM_FIT_FEATURES_NAME, dir);
    if (access(path, F_OK) == 0) return 0;
    struct sm_pipeline images = *p;
    images.n_ops = sm_pipeline_image_ops(p);
    images.name = NULL;
    images.part = SM_PART_TRAIN;
    images.rebalance = NULL;
    images.rebalance_after = 0;
    images.rebalance_artifact = NULL;
    images.artifacts.count = 0; /* an empty list, not none */
    images.output.shuffle = false;
    images.output.dtype = SM_DTYPE_FLOAT32;
    images.output.weights = false; /* a record ends with its sample */
    images.expand = (struct sm_pipeline_expand){.copies = 1,
                                                .encode = SM_ENCODE_NPY,
                                                .quality = p->expand.quality,
                                                .samples_per_shard = SHARD_SAMPLES};
    const struct sm_expand_options options = {.out_dir = dir,
                                              .broker = o->broker,
                                              .workers = o->workers,
                                              .no_sandbox = o->no_sandbox,
                                              .quiet = o->quiet,
                                              .slices = 1,
                                              .stop = o->stop != NULL ? o->stop : &never};
    struct sm_run run = {0};
    enum sm_expand_end end;
    int failed = sm_expand(&images, &options, &run, &end, err);
    if (!failed && end == SM_EXPAND_WAS_DONE) /* a call ended before the features were whole */
        failed = sm_run_read_quarantine(&run, dir, err);
    if (!failed) failed = copy_out(&run, dir, err);
    sm_run_release(&run);
    return failed;
}

static int by_position(const void *a, const void *b) {
    const uint64_t x = ((const struct sm_bad *)a)->position,
                   y = ((const struct sm_bad *)b)->position;
    return x < y ? -1 : x > y;
}

/* Whether another image fills this place. */
static bool is_bad(const struct sm_run *run, uint64_t position) {
    const struct sm_bad key = {.position = position};
    return run->n_bad > 0 &&
           bsearch(&key, run->bad, run->n_bad, sizeof *run->bad, by_position) != NULL;
}

/* Where an npy file's records begin; 0: it is none that we wrote. */
static size_t npy_start(int fd) {
    uint8_t head[12];
    if (sm_fs_pread(fd, head, sizeof head, 0) != sizeof head || memcmp(head, "\x93NUMPY", 6) != 0)
        return 0;
    if (head[6] == 1) return 10 + (size_t)(head[8] | head[9] << 8);
    return 12 + ((size_t)head[8] | (size_t)head[9] << 8 | (size_t)head[10] << 16 |
                 (size_t)head[11] << 24);
}

static int shard_copy(const struct sm_run *run, const struct sm_shard_record *shard,
                      const char *path, struct sm_newfile *to, struct sm_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sm_fail_errno(err, "cannot read '%s'", path);
    const size_t start = npy_start(fd);
    const uint64_t all = start > 0 && shard->bytes > start ? shard->bytes - start : 0;
    if (all == 0 || all % shard->samples != 0 || all / shard->samples <= RECORD_TAIL) {
        close(fd);
        return sm_fail(err, SM_E_IO, "'%s' holds no records of features", path);
    }
    const size_t record = (size_t)(all / shard->samples), features = record - RECORD_TAIL;
    uint8_t *bytes = malloc(record);
    int failed = bytes == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    const uint64_t first = sm_plan_shard_first(&run->plan, shard->shard);
    for (uint64_t i = 0; !failed && i < shard->samples; i++) {
        if (is_bad(run, first + i)) continue;
        if (sm_fs_pread(fd, bytes, features, start + i * record) != (ssize_t)features)
            failed = sm_fail_errno(err, "cannot read '%s'", path);
        else
            failed = sm_newfile_add(to, bytes, features, err);
    }
    free(bytes);
    close(fd);
    return failed;
}

static int copy_out(const struct sm_run *run, const char *dir, struct sm_err *err) {
    char path[PATH_MAX + SM_PART_NAME_MAX], name[SM_PART_NAME_MAX];
    struct sm_newfile *to = NULL;
    if (run->n_bad > 0) qsort(run->bad, run->n_bad, sizeof *run->bad, by_position);
    snprintf(path, sizeof path, "%s/" SM_FIT_FEATURES_NAME, dir);
    if (sm_newfile_open(&to, path, err) < 0) return -1;
    for (size_t i = 0; i < run->n_shards; i++) {
        sm_shard_file(run->shards[i].shard, SM_SHARD_NPY, name);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        if (shard_copy(run, &run->shards[i], path, to, err) < 0) {
            sm_newfile_abandon(&to);
            return -1;
        }
    }
    if (sm_newfile_commit(&to, err) < 0) return -1;
    for (size_t i = 0; i < run->n_shards; i++) { /* the disk holds the features once */
        sm_shard_file(run->shards[i].shard, SM_SHARD_NPY, name);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        unlink(path);
    }
    return 0;
}
