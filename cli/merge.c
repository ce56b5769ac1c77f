/* Slices made side by side become one run: every slice's record is read, what is missing or does
 * not fit is named, and the manifest is written by the function that one run would have used. Comes
 * after: `expand --slice K/N` on N hosts. */
#include "cli/merge.h"

#include "cli/expand_folder.h"
#include "lib/fs.h"
#include "lib/limits.h"
#include "workers/sinks/sink.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int find_slices(const char *dir, uint32_t *slices, struct sm_err *err);
static int add_slice(struct sm_run *all, const char *dir, uint32_t slice, uint32_t slices,
                     bool verify, struct sm_err *err);
static void forget_slices(const char *dir, uint32_t slices);

int sm_merge(const char *dir, bool verify, struct sm_run *run, bool *was_done, struct sm_err *err) {
    *run = (struct sm_run){0};
    uint32_t slices = 0;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/" SM_MANIFEST_NAME, dir);
    if (find_slices(dir, &slices, err) < 0) return -1;
    if (slices == 0) {
        *was_done = access(path, F_OK) == 0; /* merged before */
        if (*was_done) return sm_run_read(run, path, err);
        return sm_fail(err, SM_E_MISSING,
                       "no slices in '%s' (hint: shardmill expand FILE -o %s --slice 1/N)", dir,
                       dir);
    }
    for (uint32_t k = 0; k < slices; k++)
        if (add_slice(run, dir, k, slices, verify, err) < 0) return -1;
    run->slice = 0;
    run->slices = 1;
    if (run->n_shards != sm_plan_shards(&run->plan))
        return sm_fail(err, SM_E_INTERNAL, "the slices hold %zu shards of %" PRIu64, run->n_shards,
                       sm_plan_shards(&run->plan));
    sm_sink_sweep(dir);
    if (sm_run_write_manifest(run, dir, err) < 0) return -1;
    forget_slices(dir, slices);
    return 0;
}

/* N of the slice records that are there; two different N do not belong together. */
static int find_slices(const char *dir, uint32_t *slices, struct sm_err *err) {
    DIR *d = opendir(dir);
    if (d == NULL) return sm_fail_errno(err, "cannot read '%s'", dir);
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d)) != NULL;) {
        unsigned k, n;
        int end = 0;
        if (sscanf(e->d_name, "slice-%u-of-%u.json%n", &k, &n, &end) != 2 || e->d_name[end] != 0 ||
            end == 0)
            continue;
        if (n == 0 || n > SM_MAX_SLICES || (*slices != 0 && *slices != n))
            r = sm_fail(err, SM_E_DIFFERS,
                        "'%s' holds slices of %u and of %u (hint: remove the ones that are old)",
                        dir, *slices, n);
        *slices = n;
    }
    closedir(d);
    return r;
}

static int check_shard(const char *dir, const struct sm_run *run, const struct sm_shard_record *s,
                       bool verify, struct sm_err *err) {
    char path[PATH_MAX + SM_PART_NAME_MAX], name[SM_PART_NAME_MAX];
    struct stat st;
    sm_shard_file(s->shard, run->format, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (stat(path, &st) < 0) return sm_fail_errno(err, "cannot find shard '%s'", path);
    if ((uint64_t)st.st_size != s->bytes)
        return sm_fail(err, SM_E_CHANGED, "shard '%s' has %jd bytes, its record says %" PRIu64,
                       path, (intmax_t)st.st_size, s->bytes);
    if (!verify) return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sm_fail_errno(err, "cannot read shard '%s'", path);
    struct sm_hash *hash = sm_hash_new_sha256();
    if (hash == NULL) {
        close(fd);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    char buffer[1 << 16], hex[SM_SHA_HEX];
    ssize_t n;
    for (uint64_t at = 0; (n = sm_fs_pread(fd, buffer, sizeof buffer, at)) > 0; at += (uint64_t)n)
        sm_hash_add(hash, buffer, (size_t)n);
    sm_hash_end(&hash, hex);
    if (n < 0) sm_fail_errno(err, "cannot read shard '%s'", path);
    close(fd);
    if (n == 0 && strcmp(hex, s->sha256) != 0)
        return sm_fail(err, SM_E_CHECKSUM, "shard '%s' has sha256 %s, its record says %s", path,
                       hex, s->sha256);
    return n < 0 ? -1 : 0;
}

/* Moves a slice's counts, records and quarantined positions over into the whole. */
static int take(struct sm_run *all, struct sm_run *part, const char *path, struct sm_err *err) {
    if (part->n_classes != all->n_classes)
        return sm_fail(err, SM_E_DIFFERS, "'%s' has other classes than the slices before it", path);
    for (size_t c = 0; c < all->n_classes; c++) {
        all->counts[c].planned += part->counts[c].planned;
        all->counts[c].quarantined += part->counts[c].quarantined;
        all->counts[c].in_shards += part->counts[c].in_shards;
    }
    for (size_t i = 0; i < part->n_shards; i++)
        if (sm_run_add_shard(all, &part->shards[i], err) < 0) return -1;
    struct sm_bad *bad = realloc(all->bad, (all->n_bad + part->n_bad + 1) * sizeof *bad);
    if (bad == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    all->bad = bad;
    if (part->n_bad) memcpy(bad + all->n_bad, part->bad, part->n_bad * sizeof *bad);
    all->n_bad += part->n_bad;
    all->max_bad = all->n_bad;
    part->n_bad = 0; /* their strings have moved */
    if (all->fingerprint == NULL) {
        all->fingerprint = part->fingerprint;
        part->fingerprint = NULL;
    }
    return 0;
}

static int add_slice(struct sm_run *all, const char *dir, uint32_t slice, uint32_t slices,
                     bool verify, struct sm_err *err) {
    char path[PATH_MAX + 64], name[64], what[256];
    sm_slice_file(slice, slices, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (access(path, F_OK) != 0)
        return sm_fail(
            err, SM_E_MISSING,
            "slice %u/%u is not there: no '%s' (hint: run `shardmill expand … --slice %u/%u`)",
            slice + 1, slices, path, slice + 1, slices);
    struct sm_run part;
    if (sm_run_read(&part, path, err) < 0) return -1;
    int r = 0;
    for (size_t i = 0; i < part.n_shards && r == 0; i++)
        r = check_shard(dir, &part, &part.shards[i], verify, err);
    if (r == 0 && part.n_shards != sm_run_slice_shards(&part))
        r = sm_fail(err, SM_E_INTERNAL, "'%s' lists %zu shards of %" PRIu64, path, part.n_shards,
                    sm_run_slice_shards(&part));
    if (r == 0 && slice == 0) {
        *all = part; /* the first one brings the header */
        return 0;
    }
    if (r == 0 && sm_run_differs(&part, all, what, sizeof what) != NULL)
        r = sm_fail(err, SM_E_DIFFERS, "slice %u/%u differs from slice 1 in %s", slice + 1, slices,
                    what);
    if (r == 0 && part.fingerprint != NULL && all->fingerprint != NULL &&
        strcmp(part.fingerprint, all->fingerprint) != 0)
        r = sm_fail(err, SM_E_DIFFERS, "slice %u/%u was made by '%s', the others by '%s'",
                    slice + 1, slices, part.fingerprint, all->fingerprint);
    if (r == 0) r = take(all, &part, path, err);
    sm_run_release(&part);
    return r;
}

static void forget_slices(const char *dir, uint32_t slices) {
    char path[PATH_MAX + 64], name[64];
    for (uint32_t k = 0; k < slices; k++) {
        sm_slice_file(k, slices, name);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/" SM_STATE_NAME, dir);
    sm_folder_forget(path);
}
