/* Leases: what lies in the part or batch, what fills the place of a bad sample, and that nothing
 * but the plan decides a byte of it. Real cages make real samples. */
#include "workers/lease.h"
#include "lib/plan.h"
#include "tests/unit/samples.h"
#include "tests/unit/scratch.h"
#include "workers/cage_page.h"
#include "workers/ops/op.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>

#include <cmocka.h>
#include <jansson.h>

/* Two classes of six and one picture, three copies each. */
enum {
    CATS = 6,
    DOGS = 6,
    FISH = 1,
    SAMPLES = CATS + DOGS + FISH,
    COPIES = 3,
    POSITIONS = SAMPLES * COPIES
};

struct rig {
    struct scratch s;
    char root[300], out[300];
    struct sm_pipeline pipeline;
    struct sm_index *index;
    struct sm_places *places;
    struct sm_lease_job job;
};

static void write_picture(const struct rig *r, const char *name, int i) {
    struct bytes b = make_jpeg(40 + i, 30 + 2 * i, 10 * i);
    scratch_write(&r->s, name, b.data, b.n);
    free(b.data);
}

static void build_index(struct rig *r) {
    struct sm_err err = {0};
    sm_places_free(&r->places);
    sm_index_close(&r->index);
    sm_reader_free(&r->job.reader);
    if (sm_index_build(&r->pipeline.source, scratch_path(&r->s, "index"), &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(sm_index_open(&r->index, scratch_path(&r->s, "index"), &err), 0);
    assert_int_equal(sm_index_samples(r->index), SAMPLES);
    r->job.index = r->index;
    if (sm_places_new(&r->places, &r->pipeline, r->index, SM_PART_TRAIN, NULL, &err) != 0)
        fail_msg("%s", err.text);
    r->job.places = r->places;
    r->job.plan.samples = sm_places_samples(r->places);
    r->job.reader = sm_reader_new(r->root);
}

static struct rig *rig_new(const char *more) {
    struct rig *r = calloc(1, sizeof *r);
    char text[2048], name[64];
    struct sm_err err = {0};
    r->s = scratch_make();
    snprintf(r->root, sizeof r->root, "%s/d", r->s.dir);
    snprintf(r->out, sizeof r->out, "%s/out", r->s.dir);
    assert_int_equal(mkdir(r->out, 0777), 0);
    for (int i = 0; i < SAMPLES; i++) {
        const char *class = i < CATS ? "cat" : i < CATS + DOGS ? "dog" : "fish";
        snprintf(name, sizeof name, "d/%s/%02d.jpg", class, i);
        write_picture(r, name, i);
    }
    snprintf(
        text, sizeof text,
        "{\"version\":1,%s\"source\":{\"path\":\"%s\"%s},\"ops\":[{\"RandomCrop\":{\"size\":[16,16]}},"
        "{\"RandomHorizontalFlip\":{\"p\":0.5}}%s],\"output\":{%s},\"expand\":{\"encode\":\"%s\",\"copies\":3,\"originals\":%s}}",
        strstr(more, "balanced") ? "\"rebalance\":{\"RandomOverSampler\":{}}," : "", r->root,
        strstr(more, "fail") ? ",\"on_error\":\"fail\"" : "",
        strstr(more, "float") ? ",{\"Normalize\":{\"mean\":[0.5],\"std\":[0.2]}}" : "",
        strstr(more, "float")     ? "\"dtype\":\"float32\",\"layout\":\"NHWC\""
        : strstr(more, "weights") ? "\"weights\":true"
                                  : "",
        strstr(more, "tensor") ? "tensor" : "png", strstr(more, "originals") ? "true" : "false");
    if (sm_pipeline_parse(&r->pipeline, "p", text, strlen(text), sm_op_table(), &err) != 0)
        fail_msg("%s", err.text);
    struct sm_cage_options options = {0};
    if (sm_cage_new(&r->job.cage, text, &options, &err) != 0) fail_msg("%s", err.text);
    r->job.pipeline = &r->pipeline;
    r->job.out_dir = r->out;
    r->job.plan = (struct sm_plan){
        .samples = SAMPLES, .copies = COPIES, .shuffle = true, .seed = 11, .shard_samples = 100};
    build_index(r);
    return r;
}

static void rig_free(struct rig *r) {
    sm_cage_free(&r->job.cage);
    sm_reader_free(&r->job.reader);
    sm_places_free(&r->places);
    sm_index_close(&r->index);
    sm_pipeline_release(&r->pipeline);
    scratch_remove(&r->s);
    free(r);
}

/* A finished part. */
struct part {
    uint8_t *tar;
    size_t n, n_bad;
    struct sm_quarantined bad[POSITIONS];
    int failed;
    struct sm_err err;
};

static void part_free(struct part *p) {
    free(p->tar);
    free(p);
}

/* Runs a lease to its end; before each step `disturb` (may be NULL) may hurt something. */
static struct part *run_range(struct rig *r, uint64_t first, uint32_t count, const uint64_t *skip,
                              size_t n_skip, void (*disturb)(struct rig *, uint32_t done)) {
    struct part *p = calloc(1, sizeof *p);
    struct sm_lease *l;
    struct sm_range range = {
        .part = {.first = first, .count = count}, .last = true, .skip = skip, .n_skip = n_skip};
    p->failed = sm_lease_start(&l, &r->job, &range, &p->err);
    for (int more = 0; !p->failed && more == 0;) {
        if (disturb != NULL) disturb(r, sm_lease_done(l));
        struct pollfd fd = {.fd = sm_lease_fd(l), .events = POLLIN};
        poll(&fd, 1, sm_lease_wait_ms(l));
        more = sm_lease_step(l, &p->err);
        p->failed = more < 0;
    }
    if (!p->failed) {
        const struct sm_quarantined *bad = sm_lease_quarantined(l, &p->n_bad);
        if (p->n_bad > 0) memcpy(p->bad, bad, p->n_bad * sizeof *bad);
        struct sm_part *part = sm_lease_take_part(l);
        uint64_t bytes;
        char sha[SM_SHA_HEX], name[SM_PART_NAME_MAX], path[600];
        assert_int_equal(sm_part_finish(&part, true, &bytes, sha, &p->err), 0);
        sm_part_file(&range.part, name);
        snprintf(path, sizeof path, "%s/%s", r->out, name);
        p->tar = scratch_read(path, &p->n);
        assert_int_equal(p->n, bytes);
        assert_int_equal(unlink(path), 0);
    }
    sm_lease_free(&l);
    return p;
}

static struct part *run_all(struct rig *r) {
    return run_range(r, 0, POSITIONS, NULL, 0, NULL);
}

/* The i-th member of a tar: its name and bytes; lent. */
static const char *member(const struct part *p, size_t i, const uint8_t **bytes, size_t *n) {
    size_t at = 0;
    for (;; i--) {
        assert_true(at + 512 <= p->n && p->tar[at] != 0);
        *n = strtoul((const char *)p->tar + at + 124, NULL, 8);
        *bytes = p->tar + at + 512;
        if (i == 0) return (const char *)p->tar + at;
        at += 512 + (*n + 511) / 512 * 512;
    }
}

/* KEY.json of a position, parsed. Gives. */
static json_t *description(const struct part *p, uint64_t position) {
    const uint8_t *bytes;
    size_t n;
    member(p, position * 3 + 2, &bytes, &n);
    json_t *root = json_loadb((const char *)bytes, n, 0, NULL);
    assert_non_null(root);
    return root;
}

static long number(json_t *root, const char *key) {
    json_t *v = json_object_get(root, key);
    assert_true(json_is_integer(v));
    return (long)json_integer_value(v);
}

static void a_part_holds_each_position_with_image_label_and_description(void **state) {
    (void)state;
    struct rig *r = rig_new("");
    struct part *p = run_all(r);
    if (p->failed) fail_msg("%s", p->err.text);
    assert_int_equal(p->n_bad, 0);
    for (uint64_t i = 0; i < POSITIONS; i++) {
        struct sm_place place = sm_plan_at(&r->job.plan, i);
        struct sm_entry e = sm_index_entry(r->index, place.sample);
        const uint8_t *bytes;
        size_t n;
        char want[32];
        snprintf(want, sizeof want, "%010d.png", (int)i);
        assert_string_equal(member(p, i * 3, &bytes, &n), want);
        assert_memory_equal(bytes, "\x89PNG", 4);
        snprintf(want, sizeof want, "%010d.cls", (int)i);
        assert_string_equal(member(p, i * 3 + 1, &bytes, &n), want);
        assert_int_equal(n, 1);
        assert_int_equal(*bytes - '0', e.label);
        json_t *d = description(p, i);
        assert_string_equal(json_string_value(json_object_get(d, "source")), e.file);
        assert_string_equal(json_string_value(json_object_get(d, "class")),
                            sm_index_class(r->index, e.label));
        assert_int_equal(number(d, "copy"), place.copy);
        assert_int_equal(number(d, "epoch"), 0);
        assert_int_equal(number(d, "position"), i);
        assert_int_equal(number(d, "sample"), place.sample);
        assert_int_equal(json_array_size(json_object_get(d, "draws")), 2);
        assert_null(json_object_get(d, "substitute_for"));
        json_decref(d);
    }
    part_free(p);
    rig_free(r);
}

/* Every third step the cage dies. */
static void kill_cages(struct rig *r, uint32_t done) {
    static uint32_t killed_at = UINT32_MAX;
    if (done % 3 != 0 || killed_at == done) return;
    killed_at = done;
    kill(sm_cage_pid(r->job.cage), SIGKILL);
}

static void the_bytes_do_not_depend_on_how_leases_are_cut_or_cages_die(void **state) {
    (void)state;
    struct rig *r = rig_new("");
    scratch_text(&r->s, "d/cat/02.jpg", "rotten");
    build_index(r);
    struct part *whole = run_all(r), *hurt = run_range(r, 0, POSITIONS, NULL, 0, kill_cages);
    assert_true(sm_cage_replaced(r->job.cage) >= POSITIONS / 3);
    assert_int_equal(hurt->n, whole->n);
    assert_memory_equal(hurt->tar, whole->tar, whole->n);
    size_t at = 0;
    static const uint32_t cuts[] = {1, 2, 5, 13, POSITIONS - 21};
    for (size_t k = 0, first = 0; k < sizeof cuts / sizeof *cuts; first += cuts[k++]) {
        struct part *p = run_range(r, first, cuts[k], NULL, 0, NULL);
        size_t n = p->n - 1024; /* without the end of the archive */
        assert_memory_equal(p->tar, whole->tar + at, n);
        at += n;
        part_free(p);
    }
    assert_int_equal(at + 1024, whole->n);
    part_free(hurt);
    part_free(whole);
    rig_free(r);
}

static void a_bad_sample_is_quarantined_and_its_place_filled_from_its_class(void **state) {
    (void)state;
    struct rig *r = rig_new("");
    scratch_text(&r->s, "d/dog/07.jpg", "text");
    scratch_text(&r->s, "d/dog/08.jpg", "");
    build_index(r);
    struct part *p = run_all(r);
    if (p->failed) fail_msg("%s", p->err.text);
    assert_int_equal(p->n_bad, 2 * COPIES);
    for (size_t i = 0; i < p->n_bad; i++) {
        const struct sm_quarantined *q = &p->bad[i];
        assert_true(i == 0 || q->position > p->bad[i - 1].position);
        assert_true(q->sample == 7 || q->sample == 8);
        assert_int_equal(q->code, q->sample == 7 ? SM_E_FORMAT : SM_E_EMPTY);
        assert_string_equal(q->stage, "decode");
        assert_true(q->text[0] != 0);
        assert_int_equal(q->substitute, 9); /* after 7 comes 8, which is bad too */
        json_t *d = description(p, q->position), *original = json_object_get(d, "substitute_for");
        assert_int_equal(number(d, "sample"), 9);
        assert_string_equal(json_string_value(json_object_get(d, "source")), "dog/09.jpg");
        assert_int_equal(number(d, "copy"), sm_plan_at(&r->job.plan, q->position).copy);
        assert_int_equal(number(original, "sample"), q->sample);
        assert_string_equal(json_string_value(json_object_get(original, "source")),
                            q->sample == 7 ? "dog/07.jpg" : "dog/08.jpg");
        json_decref(d);
    }
    part_free(p);
    rig_free(r);
}

static void the_only_sample_of_a_class_is_filled_from_the_next_class_round_the_end(void **state) {
    (void)state;
    struct rig *r = rig_new("");
    scratch_text(&r->s, "d/fish/12.jpg", "text");
    build_index(r);
    struct part *p = run_all(r);
    assert_int_equal(p->n_bad, COPIES);
    for (size_t i = 0; i < p->n_bad; i++) {
        const uint8_t *cls;
        size_t n;
        assert_int_equal(p->bad[i].sample, 12);
        assert_int_equal(p->bad[i].substitute, 0);
        member(p, p->bad[i].position * 3 + 1, &cls, &n);
        assert_int_equal(*cls, '0'); /* the class of what is really there */
    }
    part_free(p);
    rig_free(r);
}

static void a_skipped_position_is_not_read(void **state) {
    (void)state;
    struct rig *r = rig_new("");
    uint64_t skip[] = {4, 5};
    for (int i = 0; i < 2;
         i++) { /* nobody may touch it: reading would be an error that stops the run */
        struct sm_entry e = sm_index_entry(r->index, sm_plan_at(&r->job.plan, skip[i]).sample);
        char name[64];
        snprintf(name, sizeof name, "d/%s", e.file);
        if (e.label != 2) unlink(scratch_path(&r->s, name));
    }
    struct part *p = run_range(r, 4, 2, skip, 2, NULL);
    if (p->failed) fail_msg("%s", p->err.text);
    assert_int_equal(p->n_bad, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(p->bad[i].position, skip[i]);
        assert_int_equal(p->bad[i].code, SM_E_WORKER_DIED);
        assert_string_equal(p->bad[i].stage, "worker");
        assert_true(p->bad[i].substitute != sm_plan_at(&r->job.plan, 4).sample);
        assert_true(p->bad[i].substitute != sm_plan_at(&r->job.plan, 5).sample);
    }
    part_free(p);
    rig_free(r);
}

static void with_on_error_fail_the_lease_fails_by_the_files_name(void **state) {
    (void)state;
    struct rig *r = rig_new("fail");
    scratch_text(&r->s, "d/cat/03.jpg", "text");
    build_index(r);
    struct part *p = run_all(r);
    assert_true(p->failed);
    assert_string_equal(sm_code_word(p->err.code), "format");
    assert_non_null(strstr(p->err.text, "cat/03.jpg"));
    part_free(p);
    rig_free(r);
}

static void a_file_that_changed_fails_the_lease_and_is_no_bad_sample(void **state) {
    (void)state;
    struct rig *r = rig_new("");
    scratch_text(&r->s, "d/cat/03.jpg", "changed after indexing");
    struct part *p = run_all(r);
    assert_true(p->failed);
    assert_string_equal(sm_code_word(p->err.code), "changed");
    assert_non_null(strstr(p->err.text, "cat/03.jpg"));
    part_free(p);
    rig_free(r);
}

static void a_dataset_without_a_good_sample_fails_and_says_so(void **state) {
    (void)state;
    struct rig *r = rig_new("");
    for (int i = 0; i < SAMPLES; i++) {
        struct sm_entry e = sm_index_entry(r->index, (uint64_t)i);
        char name[64];
        snprintf(name, sizeof name, "d/%s", e.file);
        scratch_text(&r->s, name, "text");
    }
    build_index(r);
    struct part *p = run_all(r);
    assert_true(p->failed);
    assert_string_equal(sm_code_word(p->err.code), "dataset");
    assert_non_null(strstr(p->err.text, "whole dataset damaged"));
    part_free(p);
    rig_free(r);
}

static void copy_0_of_originals_is_the_source_files_bytes(void **state) {
    (void)state;
    struct rig *r = rig_new("originals");
    struct part *p = run_all(r);
    if (p->failed) fail_msg("%s", p->err.text);
    int originals = 0;
    for (uint64_t i = 0; i < POSITIONS; i++) {
        struct sm_place place = sm_plan_at(&r->job.plan, i);
        const uint8_t *bytes;
        size_t n, file_n;
        const char *name = member(p, i * 3, &bytes, &n);
        if (place.copy != 0) {
            assert_non_null(strstr(name, ".png"));
            continue;
        }
        char path[600];
        snprintf(path, sizeof path, "%s/%s", r->root, sm_index_entry(r->index, place.sample).file);
        void *file = scratch_read(path, &file_n);
        assert_non_null(strstr(name, ".jpg"));
        assert_int_equal(n, file_n);
        assert_memory_equal(bytes, file, n);
        free(file);
        originals++;
    }
    assert_int_equal(originals, SAMPLES);
    part_free(p);
    rig_free(r);
}

static void a_lease_given_up_leaves_no_file_and_the_next_one_runs(void **state) {
    (void)state;
    struct rig *r = rig_new("");
    struct sm_lease *l;
    struct sm_err err = {0};
    struct sm_range range = {.part = {.first = 0, .count = POSITIONS}};
    assert_int_equal(sm_lease_start(&l, &r->job, &range, &err), 0);
    sm_lease_free(&l);
    struct dirent **list;
    int n = scandir(r->out, &list, NULL, alphasort);
    assert_int_equal(n, 2); /* . and .. */
    for (int i = 0; i < n; i++)
        free(list[i]);
    free(list);
    struct part *p = run_all(r);
    assert_false(p->failed);
    part_free(p);
    rig_free(r);
}

/* ---- STEP ---- */

/* A batch made in memory that held something else before, with a guard behind it. */
struct batch {
    uint8_t *memory;
    struct sm_batch_header h;
    char digest[SM_XXH_HEX];
    size_t n_bad;
    struct sm_quarantined bad[POSITIONS];
    int failed;
    struct sm_err err;
};
enum { GUARD = 64 };

static void batch_free(struct batch *b) {
    for (int i = 0; i < GUARD; i++)
        assert_int_equal(b->memory[b->h.bytes + (uint64_t)i], 0xa5);
    free(b->memory);
    free(b);
}

static struct sm_batch_header header_of(const struct rig *r, uint32_t epoch, uint64_t first,
                                        uint32_t count) {
    struct sm_batch_header h = {.count = count,
                                .dtype = (uint32_t)r->pipeline.output.dtype,
                                .layout = (uint32_t)r->pipeline.output.layout,
                                .channels = 3,
                                .height = 16,
                                .width = 16,
                                .epoch = epoch,
                                .step = first / 5,
                                .first = first,
                                .weight = r->pipeline.output.weights};
    assert_int_equal(sm_batch_layout(&h, NULL), 0);
    return h;
}

static struct batch *run_header(struct rig *r, struct sm_batch_header h, const uint64_t *skip,
                                size_t n_skip, void (*disturb)(struct rig *, uint32_t done)) {
    struct batch *b = calloc(1, sizeof *b);
    struct sm_lease *l;
    b->h = h;
    b->memory = aligned_alloc(SM_BATCH_ALIGN, h.bytes + GUARD);
    memset(b->memory, 0xa5, h.bytes + GUARD);
    struct sm_batch_place place = {.memory = b->memory, .header = h};
    struct sm_range range = {.part = {.first = h.first, .count = h.count},
                             .batch = &place,
                             .skip = skip,
                             .n_skip = n_skip};
    b->failed = sm_lease_start(&l, &r->job, &range, &b->err);
    for (int more = 0; !b->failed && more == 0;) {
        struct sm_batch_header seen;
        assert_int_equal(sm_batch_check(b->memory, h.bytes, &seen, NULL), -1); /* void till whole */
        if (disturb != NULL) disturb(r, sm_lease_done(l));
        struct pollfd fd = {.fd = sm_lease_fd(l), .events = POLLIN};
        poll(&fd, 1, sm_lease_wait_ms(l));
        more = sm_lease_step(l, &b->err);
        b->failed = more < 0;
    }
    if (!b->failed) {
        const struct sm_quarantined *bad = sm_lease_quarantined(l, &b->n_bad);
        if (b->n_bad > 0) memcpy(b->bad, bad, b->n_bad * sizeof *bad);
        sm_lease_finish_batch(l, b->digest);
    }
    sm_lease_free(&l);
    return b;
}

static struct batch *run_step(struct rig *r, uint32_t epoch, uint64_t first, uint32_t count) {
    struct batch *b = run_header(r, header_of(r, epoch, first, count), NULL, 0, NULL);
    if (b->failed) fail_msg("%s", b->err.text);
    struct sm_batch_header seen;
    char digest[SM_XXH_HEX];
    assert_int_equal(sm_batch_check(b->memory, b->h.bytes, &seen, NULL), 0);
    assert_memory_equal(&seen, &b->h, sizeof seen);
    sm_batch_digest(b->memory, digest); /* over the finished bytes, by the plain way */
    assert_string_equal(digest, b->digest);
    return b;
}

/* A stream sees each sample once in an epoch. */
static struct rig *rig_of_stream(const char *more) {
    struct rig *r = rig_new(more);
    r->job.plan.copies = 1;
    scratch_text(&r->s, "d/dog/07.jpg", "text");
    build_index(r);
    return r;
}

/* What the i-th sample of a batch must be: the npy file, label and description of its position in
 * a part that was made offline. */
static void assert_sample(struct rig *r, const struct batch *b, uint32_t i, const struct part *p,
                          uint64_t position, int flags) {
    const uint8_t *npy, *cls;
    size_t n, cls_n, bytes = sm_batch_sample_bytes(&b->h);
    assert_non_null(strstr(member(p, position * 3, &npy, &n), ".npy"));
    member(p, position * 3 + 1, &cls, &cls_n);
    json_t *d = description(p, position);
    assert_true(n > bytes);
    assert_memory_equal(b->memory + b->h.tensor + i * bytes, npy + n - bytes, bytes);
    assert_int_equal(((int64_t *)(b->memory + b->h.label))[i], *cls - '0');
    assert_int_equal(((uint64_t *)(b->memory + b->h.index))[i], number(d, "sample"));
    assert_int_equal(((uint64_t *)(b->memory + b->h.position))[i], position);
    assert_int_equal(number(d, "epoch"), b->h.epoch);
    bool substitute = json_object_get(d, "substitute_for") != NULL;
    assert_int_equal(substitute, sm_plan_at(&r->job.plan, position).sample == 7);
    assert_int_equal(b->memory[b->h.flags + i], flags | (substitute ? SM_BATCH_SUBSTITUTE : 0));
    json_decref(d);
}

static void batches_hold_the_bytes_that_an_offline_run_writes_as_tensors(void **state) {
    (void)state;
    static const char *const kinds[] = {"tensor", "tensor float", "tensor originals"};
    for (int k = 0; k < 3; k++)
        for (uint32_t epoch = 0; epoch < 3; epoch += 2) {
            struct rig *r = rig_of_stream(kinds[k]);
            bool originals = r->pipeline.expand.originals;
            r->pipeline.expand.originals = false; /* offline; a batch never holds source files */
            r->job.plan.epoch = epoch;
            struct part *p = run_range(r, 0, SAMPLES, NULL, 0, NULL);
            if (p->failed) fail_msg("%s", p->err.text);
            r->pipeline.expand.originals = originals;
            r->job.plan.epoch = 99; /* the lease's own epoch counts */
            for (uint64_t first = 0; first < 30; first += 5) {
                struct batch *b = run_step(r, epoch, first, 5);
                r->job.plan.epoch = epoch;
                for (uint32_t i = 0; i < 5; i++) {
                    uint64_t g = first + i;
                    assert_sample(r, b, i, p, g % SAMPLES, g >= SAMPLES ? SM_BATCH_PADDING : 0);
                }
                r->job.plan.epoch = 99;
                batch_free(b);
            }
            part_free(p);
            rig_free(r);
        }
}

static void a_batch_has_one_digest_whatever_lay_there_and_whoever_dies(void **state) {
    (void)state;
    struct rig *r = rig_of_stream("tensor");
    struct batch *b = run_step(r, 1, 3, 13),
                 *hurt = run_header(r, header_of(r, 1, 3, 13), NULL, 0, kill_cages);
    assert_false(hurt->failed);
    assert_true(sm_cage_replaced(r->job.cage) >= 4);
    assert_string_equal(hurt->digest, b->digest);
    assert_memory_equal(hurt->memory, b->memory, b->h.bytes); /* what lies between arrays too */
    batch_free(hurt);
    struct batch *other = run_step(r, 2, 3, 13);
    assert_string_not_equal(other->digest, b->digest);
    batch_free(other);
    batch_free(b);
    rig_free(r);
}

static void a_bad_sample_is_told_once_by_the_batch_of_its_position(void **state) {
    (void)state;
    struct rig *r = rig_of_stream("tensor");
    r->job.plan.epoch = 1;
    uint64_t bad = 0;
    while (sm_plan_at(&r->job.plan, bad).sample != 7)
        bad++;
    struct batch *b = run_step(r, 1, bad, 1), *padding = run_step(r, 1, SAMPLES + bad, 1),
                 *both = run_step(r, 1, 0, 2 * SAMPLES);
    assert_int_equal(b->n_bad, 1);
    assert_int_equal(b->bad[0].position, bad);
    assert_int_equal(b->bad[0].sample, 7);
    assert_int_equal(b->bad[0].substitute, ((uint64_t *)(b->memory + b->h.index))[0]);
    assert_int_equal(padding->n_bad, 0); /* it is padding, told by whoever has the real place */
    assert_int_equal(both->n_bad, 1);
    assert_memory_equal(padding->memory + b->h.tensor, b->memory + b->h.tensor,
                        sm_batch_sample_bytes(&b->h));
    batch_free(both);
    batch_free(padding);
    batch_free(b);
    rig_free(r);
}

static void a_skipped_position_of_a_batch_is_filled_and_told(void **state) {
    (void)state;
    struct rig *r = rig_of_stream("tensor");
    r->job.plan.epoch = 4;
    uint64_t skip[] = {6};
    uint64_t sample = sm_plan_at(&r->job.plan, 6).sample;
    struct batch *b = run_header(r, header_of(r, 4, 5, 4), skip, 1, NULL);
    if (b->failed) fail_msg("%s", b->err.text);
    bool found = false;
    for (size_t i = 0; i < b->n_bad; i++)
        found |= b->bad[i].position == 6 && b->bad[i].sample == sample &&
                 b->bad[i].code == SM_E_WORKER_DIED;
    assert_true(found);
    assert_int_equal(b->memory[b->h.flags + 1], SM_BATCH_SUBSTITUTE);
    assert_true(((uint64_t *)(b->memory + b->h.index))[1] != sample);
    batch_free(b);
    rig_free(r);
}

static void a_sample_of_another_shape_never_enters_a_batch(void **state) {
    (void)state;
    struct rig *r = rig_of_stream("tensor");
    struct sm_batch_header h = header_of(r, 0, 0, 2);
    h.width = 15; /* a cage that makes 16 is as one that lies */
    assert_int_equal(sm_batch_layout(&h, NULL), 0);
    struct batch *b = run_header(r, h, NULL, 0, NULL);
    assert_true(b->failed);
    assert_string_equal(sm_code_word(b->err.code), "dataset");
    assert_non_null(strstr(b->err.text, "another shape"));
    batch_free(b);
    rig_free(r);
}

/* Six cats, six dogs and one fish of 13 become six of each of 18. Dog and fish cannot be read; what
 * stands in for the fish is of another class, and still has the fish's weight: it is the place's.
 */
static void a_weight_is_of_the_place_whatever_fills_it(void **state) {
    (void)state;
    struct rig *r = rig_of_stream("tensor weights balanced");
    const uint32_t n = 18, padded = 7;
    double sum = 0;
    uint32_t strange = 0;
    scratch_text(&r->s, "d/fish/12.jpg", "text");
    build_index(r);
    assert_int_equal(r->job.plan.samples, n);
    r->job.plan.epoch = 2;
    struct part *p = run_range(r, 0, n, NULL, 0, NULL);
    if (p->failed) fail_msg("%s", p->err.text);
    struct batch *b = run_step(r, 2, 0, n + padded);
    const float *weight = (const float *)(const void *)(b->memory + b->h.weight);
    const int64_t *label = (const int64_t *)(const void *)(b->memory + b->h.label);
    for (uint32_t i = 0; i < n; i++) {
        const struct sm_placed place = sm_places_at(r->places, &r->job.plan, i);
        const double want = place.label == 2 ? (1 / 13.0) / (6 / 18.0) : (6 / 13.0) / (6 / 18.0);
        assert_true(weight[i] == (float)want);
        strange += label[i] != place.label;
        sum += (double)weight[i];
        json_t *d = description(p, i);
        assert_true((float)json_number_value(json_object_get(d, "weight")) == weight[i]);
        json_decref(d);
    }
    assert_int_equal(strange, 6);
    assert_true(sum > n - 1e-5 && sum < n + 1e-5);
    for (uint32_t i = n; i < n + padded; i++) {
        assert_true(weight[i] == 0);
        assert_true(b->memory[b->h.flags + i] & SM_BATCH_PADDING);
    }
    part_free(p);
    batch_free(b);
    rig_free(r);
}

static void without_rebalancing_every_weight_is_1(void **state) {
    (void)state;
    struct rig *r = rig_of_stream("tensor weights"), *plain = rig_of_stream("tensor");
    struct batch *b = run_step(r, 1, 0, SAMPLES), *without = run_step(plain, 1, 0, SAMPLES);
    for (uint32_t i = 0; i < SAMPLES; i++)
        assert_true(((const float *)(const void *)(b->memory + b->h.weight))[i] == 1);
    /* nothing else is another */
    assert_int_equal(b->h.weight, without->h.bytes);
    assert_memory_equal(b->memory + SM_BATCH_HEADER, without->memory + SM_BATCH_HEADER,
                        without->h.bytes - SM_BATCH_HEADER);
    assert_string_not_equal(b->digest, without->digest);
    batch_free(without);
    batch_free(b);
    rig_free(plain);
    rig_free(r);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "cage") == 0) return sm_cage_main(argc - 1, argv + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_holds_each_position_with_image_label_and_description),
        cmocka_unit_test(the_bytes_do_not_depend_on_how_leases_are_cut_or_cages_die),
        cmocka_unit_test(a_bad_sample_is_quarantined_and_its_place_filled_from_its_class),
        cmocka_unit_test(the_only_sample_of_a_class_is_filled_from_the_next_class_round_the_end),
        cmocka_unit_test(a_skipped_position_is_not_read),
        cmocka_unit_test(with_on_error_fail_the_lease_fails_by_the_files_name),
        cmocka_unit_test(a_file_that_changed_fails_the_lease_and_is_no_bad_sample),
        cmocka_unit_test(a_dataset_without_a_good_sample_fails_and_says_so),
        cmocka_unit_test(copy_0_of_originals_is_the_source_files_bytes),
        cmocka_unit_test(a_lease_given_up_leaves_no_file_and_the_next_one_runs),
        cmocka_unit_test(batches_hold_the_bytes_that_an_offline_run_writes_as_tensors),
        cmocka_unit_test(a_batch_has_one_digest_whatever_lay_there_and_whoever_dies),
        cmocka_unit_test(a_bad_sample_is_told_once_by_the_batch_of_its_position),
        cmocka_unit_test(a_skipped_position_of_a_batch_is_filled_and_told),
        cmocka_unit_test(a_sample_of_another_shape_never_enters_a_batch),
        cmocka_unit_test(a_weight_is_of_the_place_whatever_fills_it),
        cmocka_unit_test(without_rebalancing_every_weight_is_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
