/* Writes parts of shards as plain ustar (rows: see rows.c) and joins them to shards. Comes after
 * lease.c, which hands in finished samples; what is written here depends on them alone: no time, no
 * owner, no order of work. */
#include "workers/sinks/part.h"

#include "lib/fs.h"
#include "lib/limits.h"
#include "pipelines/lang/pipeline.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 512, NAME_BYTES = 100, COPY_BYTES = 1 << 20 };

static int add_member(struct sm_part *p, const char *key, const char *extension, const void *bytes,
                      size_t n, struct sm_err *err);
static bool path_of(const char *dir, const char *name, char path[SM_MAX_PATH_BYTES]);
static int read_shard(const char *path, uint64_t *bytes, char sha256[SM_SHA_HEX],
                      struct sm_err *err);
static int join_parts(const char *dir, const char *path, const struct sm_part_name *parts,
                      size_t n_parts, uint64_t *bytes, char sha256[SM_SHA_HEX], struct sm_err *err);

void sm_part_file(const struct sm_part_name *p, char name[SM_PART_NAME_MAX]) {
    snprintf(name, SM_PART_NAME_MAX, "shard-%06llu.%08llu-%u.g%u.part",
             (unsigned long long)p->shard, (unsigned long long)p->first, p->count, p->generation);
}

enum sm_shard_format sm_shard_format(int encode) {
    return encode == SM_ENCODE_CSV   ? SM_SHARD_CSV
           : encode == SM_ENCODE_NPY ? SM_SHARD_NPY
                                     : SM_SHARD_TAR;
}

const char *const sm_shard_words[] = {"tar", "csv", "npy", "partial"};
static const size_t formats = sizeof sm_shard_words / sizeof *sm_shard_words;

void sm_shard_file(uint64_t shard, enum sm_shard_format format, char name[SM_PART_NAME_MAX]) {
    assert((size_t)format < formats);
    snprintf(name, SM_PART_NAME_MAX, "shard-%06llu.%s", (unsigned long long)shard,
             sm_shard_words[format]);
}

int sm_part_open(struct sm_part **gives, const char *dir, const struct sm_part_name *name,
                 struct sm_err *err) {
    *gives = NULL;
    char file[SM_PART_NAME_MAX], path[SM_MAX_PATH_BYTES];
    sm_part_file(name, file);
    if (!path_of(dir, file, path)) return sm_fail(err, SM_E_USAGE, "the path is too long");
    struct sm_part *p = calloc(1, sizeof *p);
    if (p == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (sm_newfile_open(&p->file, path, err) != 0) {
        free(p);
        return -1;
    }
    p->sha = sm_hash_new_sha256();
    if (p->sha == NULL) {
        sm_part_abandon(&p);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    *gives = p;
    return 0;
}

int sm_part_add(struct sm_part *p, const char *key, const char *extension, const void *bytes,
                size_t n, uint32_t label, const char *json, size_t json_n, struct sm_err *err) {
    char cls[16];
    int cls_n = snprintf(cls, sizeof cls, "%u", label);
    if (add_member(p, key, extension, bytes, n, err) != 0) return -1;
    if (add_member(p, key, "cls", cls, (size_t)cls_n, err) != 0) return -1;
    return add_member(p, key, "json", json, json_n, err);
}

int sm_part_partial(struct sm_part *p, const void *bytes, size_t n, struct sm_err *err) {
    p->partial = true;
    return sm_part_put(p, bytes, n, err);
}

int sm_part_finish(struct sm_part **pp, bool last, uint64_t *bytes, char sha256[SM_SHA_HEX],
                   struct sm_err *err) {
    struct sm_part *p = *pp;
    static const uint8_t end[2 * BLOCK];
    const bool archive = p->rows == NULL && !p->partial;
    int failed = last && archive ? sm_part_put(p, end, sizeof end, err) : 0;
    if (!failed) {
        *bytes = p->bytes;
        sm_hash_end(&p->sha, sha256);
        failed = sm_newfile_commit(&p->file, err);
    }
    sm_part_abandon(pp);
    return failed;
}

void sm_part_abandon(struct sm_part **pp) {
    struct sm_part *p = *pp;
    if (p == NULL) return;
    sm_newfile_abandon(&p->file);
    sm_hash_end(&p->sha, NULL);
    sm_buf_release(&p->text);
    free(p);
    *pp = NULL;
}

/* A header whose every byte follows from name and size. */
static void make_header(uint8_t header[BLOCK], const char *name, size_t n) {
    memset(header, 0, BLOCK);
    memcpy(header, name, strlen(name));
    char *h = (char *)header;
    memcpy(h + 100, "0000644", 8);
    memcpy(h + 108, "0000000", 8);
    memcpy(h + 116, "0000000", 8);
    snprintf(h + 124, 12, "%011llo", (unsigned long long)n);
    memcpy(h + 136, "00000000000", 12);
    memset(h + 148, ' ', 8);
    h[156] = '0';
    memcpy(h + 257, "ustar", 6);
    memcpy(h + 263, "00", 2);
    memcpy(h + 329, "0000000", 8);
    memcpy(h + 337, "0000000", 8);
    unsigned sum = 0;
    for (int i = 0; i < BLOCK; i++)
        sum += header[i];
    snprintf(h + 148, 8, "%06o", sum);
    h[155] = ' ';
}

static int add_member(struct sm_part *p, const char *key, const char *extension, const void *bytes,
                      size_t n, struct sm_err *err) {
    char name[NAME_BYTES];
    int name_n = snprintf(name, sizeof name, "%s.%s", key, extension);
    assert(name_n > 0 && name_n < NAME_BYTES && n < (UINT64_C(1) << 33));
    uint8_t header[BLOCK];
    make_header(header, name, n);
    if (sm_part_put(p, header, sizeof header, err) != 0 || sm_part_put(p, bytes, n, err) != 0)
        return -1;
    static const uint8_t zeros[BLOCK];
    return sm_part_put(p, zeros, (BLOCK - n % BLOCK) % BLOCK, err);
}

int sm_part_put(struct sm_part *p, const void *bytes, size_t n, struct sm_err *err) {
    p->bytes += n;
    sm_hash_add(p->sha, bytes, n);
    return sm_newfile_add(p->file, bytes, n, err);
}

static bool path_of(const char *dir, const char *name, char path[SM_MAX_PATH_BYTES]) {
    int n = snprintf(path, SM_MAX_PATH_BYTES, "%s/%s", dir, name);
    return n > 0 && n < SM_MAX_PATH_BYTES;
}

static bool part_path(const char *dir, const struct sm_part_name *part,
                      char path[SM_MAX_PATH_BYTES]) {
    char name[SM_PART_NAME_MAX];
    sm_part_file(part, name);
    return path_of(dir, name, path);
}

int sm_seal(const char *dir, uint64_t shard, enum sm_shard_format format,
            const struct sm_part_name *parts, size_t n_parts, const char *sha256_of_single,
            uint64_t *bytes, char sha256[SM_SHA_HEX], struct sm_err *err) {
    char name[SM_PART_NAME_MAX], path[SM_MAX_PATH_BYTES], part[SM_MAX_PATH_BYTES];
    sm_shard_file(shard, format, name);
    if (!path_of(dir, name, path)) return sm_fail(err, SM_E_USAGE, "the path is too long");
    size_t there = 0, missing = n_parts;
    for (size_t i = 0; i < n_parts; i++) {
        part_path(dir, &parts[i], part);
        if (access(part, F_OK) == 0)
            there++;
        else if (missing == n_parts)
            missing = i;
    }
    int failed;
    if (there < n_parts || n_parts == 0) { /* a seal that was cut short after the rename */
        if (access(path, F_OK) != 0) {
            if (n_parts == 0) return sm_fail(err, SM_E_PART_MISSING, "'%s' has no parts", path);
            part_path(dir, &parts[missing], part);
            return sm_fail(err, SM_E_PART_MISSING, "'%s' is not there", part);
        }
        failed = read_shard(path, bytes, sha256, err);
    } else if (n_parts == 1 && sha256_of_single != NULL && sha256_of_single[0] != 0) {
        part_path(dir, &parts[0], part);
        struct stat st;
        failed = sm_fs_rename(part, path, err);
        if (!failed && stat(path, &st) != 0) failed = sm_fail_errno(err, "cannot read '%s'", path);
        if (!failed) {
            *bytes = (uint64_t)st.st_size;
            if (sha256 != sha256_of_single) snprintf(sha256, SM_SHA_HEX, "%s", sha256_of_single);
        }
    } else {
        failed = join_parts(dir, path, parts, n_parts, bytes, sha256, err);
    }
    for (size_t i = 0; i < n_parts && !failed; i++) {
        part_path(dir, &parts[i], part);
        unlink(part);
    }
    return failed;
}

struct copy {
    struct sm_newfile *to; /* NULL: only the digest is wanted */
    struct sm_hash *sha;
    uint64_t bytes;
    uint8_t *chunk;
};

static int copy_file(struct copy *c, const char *path, struct sm_err *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sm_fail_errno(err, "cannot open '%s'", path);
    int failed = 0;
    for (uint64_t at = 0; !failed;) {
        ssize_t n = sm_fs_pread(fd, c->chunk, COPY_BYTES, at);
        if (n < 0) failed = sm_fail_errno(err, "cannot read '%s'", path);
        if (n <= 0) break;
        sm_hash_add(c->sha, c->chunk, (size_t)n);
        if (c->to != NULL) failed = sm_newfile_add(c->to, c->chunk, (size_t)n, err);
        at += (uint64_t)n;
        c->bytes += (uint64_t)n;
    }
    close(fd);
    return failed;
}

static int copy_start(struct copy *c, struct sm_err *err) {
    *c = (struct copy){.sha = sm_hash_new_sha256(), .chunk = malloc(COPY_BYTES)};
    return c->sha != NULL && c->chunk != NULL ? 0 : sm_fail(err, SM_E_MEMORY, "out of memory");
}

static void copy_end(struct copy *c, int failed, uint64_t *bytes, char sha256[SM_SHA_HEX]) {
    sm_hash_end(&c->sha, failed ? NULL : sha256);
    if (!failed) *bytes = c->bytes;
    free(c->chunk);
}

static int read_shard(const char *path, uint64_t *bytes, char sha256[SM_SHA_HEX],
                      struct sm_err *err) {
    struct copy c;
    int failed = copy_start(&c, err);
    if (!failed) failed = copy_file(&c, path, err);
    copy_end(&c, failed, bytes, sha256);
    return failed;
}

static int join_parts(const char *dir, const char *path, const struct sm_part_name *parts,
                      size_t n_parts, uint64_t *bytes, char sha256[SM_SHA_HEX],
                      struct sm_err *err) {
    struct copy c;
    char part[SM_MAX_PATH_BYTES];
    int failed = copy_start(&c, err);
    if (!failed) failed = sm_newfile_open(&c.to, path, err);
    for (size_t i = 0; i < n_parts && !failed; i++) {
        part_path(dir, &parts[i], part);
        failed = copy_file(&c, part, err);
    }
    if (!failed) failed = sm_newfile_commit(&c.to, err);
    sm_newfile_abandon(&c.to);
    copy_end(&c, failed, bytes, sha256);
    return failed;
}

/* A part is of no use once its shard is there. */
static bool is_spent_part(int dir, const char *name) {
    unsigned long long shard, first;
    unsigned count, generation;
    int end = 0;
    if (sscanf(name, "shard-%llu.%llu-%u.g%u.part%n", &shard, &first, &count, &generation, &end) !=
            4 ||
        end == 0 || name[end] != 0)
        return false;
    for (size_t format = 0; format < formats; format++) {
        char final[SM_PART_NAME_MAX];
        sm_shard_file(shard, (enum sm_shard_format)format, final);
        if (faccessat(dir, final, F_OK, 0) == 0) return true;
    }
    return false;
}

void sm_sink_sweep(const char *dir) {
    sm_fs_sweep(dir);
    DIR *d = opendir(dir);
    if (d == NULL) return;
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (is_spent_part(dirfd(d), e->d_name)) unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}
