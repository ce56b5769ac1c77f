/* A job as its worker gets to know it: the spec from the broker, the index from its path or in
 * pieces from the broker, and what of both is refused. */
#include "workers/job.h"
#include "lib/limits.h"
#include "tests/unit/samples.h"
#include "tests/unit/scratch.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct sm_job_options options; /* no others, unless a test says so */

struct rig {
    struct scratch s;
    char root[300], index_path[300], digest[SM_XXH_HEX], dataset[SM_XXH_HEX], pipeline[600];
    uint8_t *index;
    size_t n;
};

static struct rig rig_new(void) {
    struct rig r = {.s = scratch_make()};
    struct bytes b = make_jpeg(20, 20, 1);
    struct sm_err err = {0};
    struct sm_index *index;
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof name, "d/c%d/%d.jpg", i % 3, i);
        scratch_write(&r.s, name, b.data, b.n);
    }
    free(b.data);
    snprintf(r.root, sizeof r.root, "%s/d", r.s.dir);
    snprintf(r.index_path, sizeof r.index_path, "%s/index", r.s.dir);
    snprintf(r.pipeline, sizeof r.pipeline,
             "{\"version\":1,\"source\":{\"path\":\"%s\"},\"ops\":[{\"Resize\":{\"size\":8}}]}",
             r.root);
    struct sm_pipeline_source source = {.format = SM_SOURCE_FOLDER, .path = r.root};
    assert_int_equal(sm_index_build(&source, r.index_path, &err), 0);
    assert_int_equal(sm_index_open(&index, r.index_path, &err), 0);
    strcpy(r.digest, sm_index_digest(index));
    strcpy(r.dataset, sm_index_dataset_digest(index));
    sm_index_close(&index);
    r.index = scratch_read(r.index_path, &r.n);
    return r;
}

static void rig_free(struct rig *r) {
    free(r->index);
    scratch_remove(&r->s);
}

static Shardmill__JobSpec spec_of(struct rig *r) {
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    spec.pipeline = r->pipeline;
    spec.index_path = r->index_path;
    spec.index_digest = r->digest;
    spec.dataset_digest = r->dataset;
    spec.source_root = r->root;
    spec.out_dir = r->s.dir;
    spec.samples = 40;
    spec.copies = 2;
    spec.shard_samples = 30;
    return spec;
}

/* The spec as it comes over the wire. */
static void give_spec(struct sm_job *job, Shardmill__JobSpec *spec) {
    Shardmill__Job body = SHARDMILL__JOB__INIT;
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    static uint8_t packed[1 << 16];
    struct sm_err err = {0};
    body.job = job->id;
    body.spec = spec;
    e.protocol = SM_PROTOCOL;
    e.body_case = SHARDMILL__ENVELOPE__BODY_JOB;
    e.job = &body;
    size_t n = sm_wire_pack(&e, packed, sizeof packed);
    assert_true(n > 0);
    sm_envelope *message = sm_wire_unpack(packed, n, &err);
    assert_non_null(message);
    sm_job_take_spec(job, &message, &options);
    sm_wire_free(&message);
}

static void give_piece(struct sm_job *job, const struct rig *r, uint64_t offset, size_t n,
                       uint64_t total) {
    Shardmill__FileChunk m = SHARDMILL__FILE_CHUNK__INIT;
    m.job = job->id;
    m.offset = offset;
    m.total = total;
    m.data = (ProtobufCBinaryData){.len = n, .data = r->index + offset};
    sm_job_take_piece(job, &m, &options);
}

static void assert_broken(const struct sm_job *job, const char *code, const char *says) {
    assert_int_equal(job->state, SM_JOB_BROKEN);
    assert_string_equal(sm_code_word(job->err.code), code);
    if (strstr(job->err.text, says) == NULL) fail_msg("'%s' is not in: %s", says, job->err.text);
}

static void an_index_at_its_path_is_used_at_once(void **state) {
    (void)state;
    struct rig r = rig_new();
    struct sm_job *job = sm_job_new("j");
    Shardmill__JobSpec spec = spec_of(&r);
    give_spec(job, &spec);
    if (job->state != SM_JOB_READY) fail_msg("%s", job->err.text);
    sm_job_free(&job);
    rig_free(&r);
}

static void an_index_that_is_not_there_is_fetched_in_pieces(void **state) {
    (void)state;
    struct rig r = rig_new();
    struct sm_job *job = sm_job_new("j");
    Shardmill__JobSpec spec = spec_of(&r);
    unlink(r.index_path);
    give_spec(job, &spec);
    for (uint64_t at = 0; at < r.n; at += 1000) {
        size_t n = r.n - at < 1000 ? (size_t)(r.n - at) : 1000;
        assert_int_equal(job->state, SM_JOB_ASK_FILES);
        Shardmill__FileGet asks = SHARDMILL__FILE_GET__INIT;
        sm_job_ask_piece(job, &asks);
        assert_int_equal(asks.offset, at);
        assert_string_equal(asks.sha256, "");
        if (at > 0) give_piece(job, &r, at - 1000, 1000, r.n); /* doubled on the way */
        give_piece(job, &r, at, 0, r.n);                       /* the broker has not read it yet */
        give_piece(job, &r, at, n, r.n);
    }
    if (job->state != SM_JOB_READY) fail_msg("%s", job->err.text);
    assert_int_equal(sm_index_samples(job->lease.index), 40);
    sm_job_free(&job);
    rig_free(&r);
}

static void jobs_of_one_index_share_it(void **state) {
    (void)state;
    struct rig r = rig_new();
    struct sm_job *jobs[3] = {sm_job_new("a"), NULL, sm_job_new("b")}, *last = sm_job_new("c");
    Shardmill__JobSpec spec = spec_of(&r);
    give_spec(jobs[0], &spec);
    assert_int_equal(jobs[0]->state, SM_JOB_READY);
    unlink(r.index_path);
    options = (struct sm_job_options){.others = jobs, .n_others = 3};
    give_spec(jobs[2], &spec);
    assert_int_equal(jobs[2]->state, SM_JOB_READY);
    assert_ptr_equal(jobs[2]->index, jobs[0]->index);
    sm_job_free(&jobs[0]);
    give_spec(last, &spec);
    assert_int_equal(last->state, SM_JOB_READY);
    sm_job_free(&jobs[2]);
    assert_int_equal(sm_index_samples(last->index), 40);
    sm_job_free(&last);
    options = (struct sm_job_options){0};
    rig_free(&r);
}

static void another_index_at_the_path_is_not_taken_for_the_jobs(void **state) {
    (void)state;
    struct rig r = rig_new();
    struct sm_job *job = sm_job_new("j");
    Shardmill__JobSpec spec = spec_of(&r);
    r.digest[0] = r.digest[0] == '0' ? '1' : '0';
    give_spec(job, &spec);
    assert_int_equal(job->state, SM_JOB_ASK_FILES);
    give_piece(job, &r, 0, r.n, r.n); /* the broker has that other one too */
    assert_broken(job, "differs", "not the one that the job was submitted with");
    sm_job_free(&job);
    rig_free(&r);
}

static void an_index_that_changes_while_it_is_fetched_breaks_the_job(void **state) {
    (void)state;
    struct rig r = rig_new();
    Shardmill__JobSpec spec = spec_of(&r);
    unlink(r.index_path);
    for (int k = 0; k < 3; k++) {
        struct sm_job *job = sm_job_new("j");
        give_spec(job, &spec);
        give_piece(job, &r, 0, 500, r.n);
        if (k == 0) give_piece(job, &r, 500, 500, r.n + 1); /* another length */
        if (k == 1) give_piece(job, &r, 500, r.n - 500, r.n - 1);
        if (k == 2) give_piece(job, &r, 500, 0, 500); /* nothing more comes */
        assert_broken(job, "changed", "changed while it was fetched");
        sm_job_free(&job);
    }
    rig_free(&r);
}

/* A pipeline whose last op has learned something that does not lie beside the index. */
static struct sm_job *job_that_lacks(struct rig *r, const char *sha256) {
    struct sm_job *job = sm_job_new("j");
    snprintf(r->pipeline, sizeof r->pipeline,
             "{\"version\":1,\"source\":{\"path\":\"%s\"},\"ops\":[{\"Resize\":{\"size\":8}},"
             "\"Flatten\",\"StandardScaler\"],\"artifacts\":[\"\",\"\",\"%s\"]}",
             r->root, sha256);
    Shardmill__JobSpec spec = spec_of(r);
    give_spec(job, &spec);
    return job;
}

static void give_learned(struct sm_job *job, const char *sha256, uint64_t offset, const char *bytes,
                         uint64_t total) {
    Shardmill__FileChunk m = SHARDMILL__FILE_CHUNK__INIT;
    m.job = job->id;
    m.offset = offset;
    m.total = total;
    m.sha256 = (char *)sha256;
    m.data = (ProtobufCBinaryData){.len = strlen(bytes), .data = (uint8_t *)bytes};
    sm_job_take_piece(job, &m, &options);
}

static void what_was_learned_is_asked_for_by_its_hash_and_verified(void **state) {
    (void)state;
    struct rig r = rig_new();
    char sha[SM_SHA_HEX];
    memset(sha, '5', sizeof sha);
    sha[SM_SHA_HEX - 1] = 0;
    struct sm_job *job = job_that_lacks(&r, sha);
    Shardmill__FileGet asks = SHARDMILL__FILE_GET__INIT;
    assert_int_equal(job->state, SM_JOB_ASK_FILES);
    give_learned(job, sha, 0, "first ", 12);
    give_learned(job, sha, 0, "first ", 12); /* doubled on the way */
    give_learned(job, "", 6, "second", 12);  /* of the index */
    sm_job_ask_piece(job, &asks);
    assert_string_equal(asks.sha256, sha);
    assert_int_equal(asks.offset, 6);
    assert_int_equal(job->state, SM_JOB_ASK_FILES);
    give_learned(job, sha, 6, "second", 12);
    assert_broken(job, "differs", "for '555555555555");
    sm_job_free(&job);
    rig_free(&r);
}

static void what_was_learned_has_a_limit_and_one_length(void **state) {
    (void)state;
    struct rig r = rig_new();
    char sha[SM_SHA_HEX];
    memset(sha, 'a', sizeof sha);
    sha[SM_SHA_HEX - 1] = 0;
    struct sm_job *job = job_that_lacks(&r, sha);
    give_learned(job, sha, 0, "x", (uint64_t)SM_MAX_ARTIFACT_BYTES + 1);
    assert_broken(job, "protocol", "at most 1073741824");
    sm_job_free(&job);
    job = job_that_lacks(&r, sha);
    give_learned(job, sha, 0, "x", 12);
    give_learned(job, sha, 1, "x", 13);
    assert_broken(job, "changed", "changed while it was fetched");
    sm_job_free(&job);
    job = job_that_lacks(&r, "../../etc/passwd");
    assert_broken(job, "pipeline", "is no SHA-256");
    sm_job_free(&job);
    rig_free(&r);
}

/* A name of 64 characters that leads out of the folder of links, to a file called victim.npz. */
static void what_is_no_sha256_never_names_a_file(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    struct sm_pipeline p = {0};
    struct sm_job_learned l = {0};
    struct sm_err err = {0};
    struct stat st;
    char name[SM_SHA_HEX];
    const char *folder = strrchr(s.dir, '/') + 1;
    const size_t n = strlen(folder) + strlen("/victim");
    memset(name, '/', sizeof name);
    memcpy(name, "..", 2);
    snprintf(name + SM_SHA_HEX - 1 - n, n + 1, "%s/victim", folder);
    assert_int_equal(strlen(name), SM_SHA_HEX - 1);
    scratch_text(&s, "victim.npz", "mine");
    for (int k = 0; k < 3; k++) {
        const char *ops[] = {k == 0 ? name : ""};
        p.artifacts = (struct sm_strs){.v = ops, .count = 1};
        p.rebalance_artifact = k == 1 ? name : NULL;
        assert_int_equal(sm_job_learned_begin(&l, &p, s.dir, k == 2 ? name : NULL, &err), -1);
        assert_int_equal(err.code, SM_E_PROTOCOL);
        sm_job_learned_release(&l);
        assert_int_equal(stat(scratch_path(&s, "victim.npz"), &st), 0);
    }
    scratch_remove(&s);
}

/* Two ops that have learned the same, and a third that has not come: the folder goes, links and
 * all. */
static void what_was_fetched_is_linked_once_and_removed(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    struct sm_pipeline p = {0};
    struct sm_job_learned l = {0};
    struct sm_err err = {0};
    struct stat st;
    char first[SM_SHA_HEX], dir[SM_MAX_PATH_BYTES];
    sm_sha256("bytes", 5, first);
    const char *ops[] = {first, first,
                         "5555555555555555555555555555555555555555555555555555555555555555"};
    p.artifacts = (struct sm_strs){.v = ops, .count = 3};
    assert_int_equal(sm_job_learned_begin(&l, &p, s.dir, NULL, &err), 0);
    assert_string_equal(l.wanted, first);
    assert_int_equal(sm_job_learned_take(&l, "bytes", 5, 5, &err), 0);
    assert_string_equal(l.wanted, ops[2]);
    snprintf(dir, sizeof dir, "%s", l.dir);
    assert_int_equal(stat(dir, &st), 0);
    sm_job_learned_release(&l);
    assert_int_equal(stat(dir, &st), -1);
    scratch_remove(&s);
}

static void a_spec_that_cannot_be_breaks_the_job_and_not_the_worker(void **state) {
    (void)state;
    struct rig r = rig_new();
    static char endless[SM_MAX_PATH_BYTES + 1];
    memset(endless, 'x', SM_MAX_PATH_BYTES);
    for (int k = 0; k < 8; k++) {
        struct sm_job *job = sm_job_new("j");
        Shardmill__JobSpec spec = spec_of(&r);
        if (k == 0) spec.samples = 0;
        if (k == 1) spec.samples = UINT64_MAX;
        if (k == 2) spec.copies = 0;
        if (k == 3) spec.shard_samples = UINT64_MAX;
        if (k == 4) spec.out_dir = endless;
        if (k == 5) spec.source_root = "";
        if (k == 6) spec.copies = SM_MAX_COPIES + 1;
        if (k == 7) spec.index_path = endless;
        give_spec(job, &spec);
        assert_broken(job, "protocol", "out of range");
        sm_job_free(&job);
    }
    struct sm_job *job = sm_job_new("j");
    Shardmill__JobSpec spec = spec_of(&r);
    spec.samples = 41;
    give_spec(job, &spec);
    assert_broken(job, "differs", "an epoch has 40 samples");
    sm_job_free(&job);
    rig_free(&r);
}

/* Ranges that a submitter of another version counts otherwise, and a search that nothing needs. */
static void a_search_for_neighbours_has_the_ranges_that_the_worker_counts(void **state) {
    (void)state;
    static const struct {
        const char *rebalance;
        uint64_t ranges;
        const char *code, *says; /* NULL: it is ready */
    } cases[] = {{"\"SMOTE\":{\"k_neighbors\":2}", 1, NULL, NULL},
                 {"\"SMOTE\":{\"k_neighbors\":2}", 2, "differs", "1 ranges here and 2"},
                 {"\"RandomOverSampler\":{}", 1, "protocol", "nothing needs"}};
    struct scratch s = scratch_make();
    struct sm_err err = {0};
    struct sm_index *index;
    char path[400], at[400];
    scratch_text(&s, "t.csv", "a,y\n1,0\n2,0\n3,0\n4,0\n5,0\n6,1\n7,1\n8,1\n");
    snprintf(path, sizeof path, "%s/t.csv", s.dir);
    snprintf(at, sizeof at, "%s/index", s.dir);
    struct sm_pipeline_source source = {.format = SM_SOURCE_CSV, .path = path, .label = "y"};
    assert_int_equal(sm_index_build(&source, at, &err), 0);
    assert_int_equal(sm_index_open(&index, at, &err), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char pipeline[900];
        snprintf(pipeline, sizeof pipeline,
                 "{\"version\":1,\"source\":{\"format\":\"csv\",\"path\":\"%s\",\"label\":\"y\"},"
                 "\"rebalance\":{%s}}",
                 path, cases[i].rebalance);
        Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
        spec.kind = SHARDMILL__JOB_KIND__FIT;
        spec.pipeline = pipeline;
        spec.index_path = at;
        spec.index_digest = (char *)sm_index_digest(index);
        spec.dataset_digest = (char *)sm_index_dataset_digest(index);
        spec.source_root = s.dir;
        spec.samples = cases[i].ranges;
        spec.copies = spec.shard_samples = 1;
        struct sm_job *job = sm_job_new("j");
        give_spec(job, &spec);
        if (cases[i].says != NULL)
            assert_broken(job, cases[i].code, cases[i].says);
        else if (job->state != SM_JOB_READY)
            fail_msg("%s", job->err.text);
        sm_job_free(&job);
    }
    sm_index_close(&index);
    scratch_remove(&s);
}

static void a_lease_outside_of_its_job_is_refused(void **state) {
    (void)state;
    struct rig r = rig_new();
    struct sm_job *job = sm_job_new("j");
    Shardmill__JobSpec spec = spec_of(&r); /* shards of 30, 30, 20 positions */
    give_spec(job, &spec);
    static const struct {
        uint64_t shard, first;
        uint32_t count;
        bool ok;
    } cases[] = {{0, 0, 30, true},          {2, 60, 20, true},         {1, 45, 15, true},
                 {0, 0, 31, false},         {2, 60, 21, false},        {1, 29, 2, false},
                 {3, 90, 1, false},         {0, 0, 0, false},          {0, 30, 1, false},
                 {1, 59, 2, false},         {0, UINT64_MAX, 2, false}, {UINT64_MAX, 0, 1, false},
                 {0, 29, UINT32_MAX, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Shardmill__Lease m = SHARDMILL__LEASE__INIT;
        m.shard = cases[i].shard;
        m.first = cases[i].first;
        m.count = cases[i].count;
        struct sm_err err = {0};
        if ((sm_job_check_lease(job, &m, &err) == 0) != cases[i].ok) fail_msg("case %zu", i);
    }
    sm_job_free(&job);
    rig_free(&r);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "cage") == 0) return sm_cage_main(argc - 1, argv + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_index_at_its_path_is_used_at_once),
        cmocka_unit_test(an_index_that_is_not_there_is_fetched_in_pieces),
        cmocka_unit_test(jobs_of_one_index_share_it),
        cmocka_unit_test(another_index_at_the_path_is_not_taken_for_the_jobs),
        cmocka_unit_test(an_index_that_changes_while_it_is_fetched_breaks_the_job),
        cmocka_unit_test(what_was_learned_is_asked_for_by_its_hash_and_verified),
        cmocka_unit_test(what_was_learned_has_a_limit_and_one_length),
        cmocka_unit_test(what_is_no_sha256_never_names_a_file),
        cmocka_unit_test(what_was_fetched_is_linked_once_and_removed),
        cmocka_unit_test(a_spec_that_cannot_be_breaks_the_job_and_not_the_worker),
        cmocka_unit_test(a_search_for_neighbours_has_the_ranges_that_the_worker_counts),
        cmocka_unit_test(a_lease_outside_of_its_job_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
