/* The files that a broker keeps: what stays when room is needed, what goes when it is idle, and
 * what uploads that are under way leave to the next one. The clock is the real one; a test moves
 * the times that files have. */
#include "broker/files_state.h"
#include "lib/wire.h"
#include "tests/unit/desk.h"
#include "tests/unit/scratch.h"

#include <sys/statvfs.h>
#include <zmq.h>

enum { LONG_MS = 3600000, MIB = 1 << 20 };

struct rig {
    struct scratch s;
    struct desk desk;
    struct sm_files *files;
    void *context, *router, *dealer;
    struct sm_peer peer;
};

static sm_envelope *receive(void *socket, struct sm_peer *peer) {
    sm_envelope *e = NULL;
    zmq_pollitem_t item = {.socket = socket, .events = ZMQ_POLLIN};
    while (sm_wire_receive(socket, peer, &e, NULL) != 1)
        assert_int_equal(zmq_poll(&item, 1, 10000), 1);
    return e;
}

static int setup(void **state) {
    struct rig *r = calloc(1, sizeof *r);
    struct sm_err err = {0};
    char endpoint[256];
    r->s = scratch_make();
    desk_open(&r->desk, 1);
    assert_int_equal(sm_files_open(&r->files, r->s.dir, &err), 0);
    r->context = zmq_ctx_new();
    assert_int_equal(sm_wire_bind(r->context, "tcp://127.0.0.1:*", &r->router, endpoint, &err), 0);
    assert_int_equal(sm_wire_connect(r->context, endpoint, &r->dealer, &err), 0);
    Shardmill__Bye bye = SHARDMILL__BYE__INIT; /* for the peer's routing id */
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.body_case = SHARDMILL__ENVELOPE__BODY_BYE;
    e.bye = &bye;
    assert_int_equal(sm_wire_send(r->dealer, NULL, &e, &err), 1);
    sm_envelope *said = receive(r->router, &r->peer);
    sm_wire_free(&said);
    *state = r;
    return 0;
}

static int teardown(void **state) {
    struct rig *r = *state;
    zmq_close(r->dealer);
    zmq_close(r->router);
    zmq_ctx_term(r->context);
    sm_files_close(&r->files);
    desk_close(&r->desk);
    scratch_remove(&r->s);
    free(r);
    return 0;
}

/* A first piece, or a question; the code of the answer. */
static uint32_t put(struct rig *r, const char *digest, const void *bytes, size_t n,
                    uint64_t total) {
    Shardmill__FilePut m = SHARDMILL__FILE_PUT__INIT;
    struct sm_err err = {0};
    m.digest = (char *)digest;
    m.total = total;
    m.data = (ProtobufCBinaryData){.len = n, .data = (uint8_t *)(size_t)bytes};
    assert_int_equal(sm_files_put(r->files, r->desk.core, r->router, &r->peer, &m, 1, &err), 0);
    sm_envelope *e = receive(r->dealer, NULL);
    assert_int_equal(e->body_case, SHARDMILL__ENVELOPE__BODY_FILE_KEPT);
    const uint32_t code = e->file_kept->code;
    if (code == 0 && n > 0) assert_true(e->file_kept->got > 0);
    sm_wire_free(&e);
    return code;
}

/* Puts the text whole and fills its digest. */
static void put_text(struct rig *r, const char *text, char sha256[SM_SHA_HEX]) {
    sm_sha256(text, strlen(text), sha256);
    assert_int_equal(put(r, sha256, text, strlen(text), strlen(text)), SM_E_OK);
}

static void hand_out(struct rig *r, const char *digest) {
    struct sm_err err = {0};
    const struct sm_action a = {.kind = SM_ACTION_FILE,
                                .peer = &r->peer,
                                .job = "job",
                                .file_digest = digest,
                                .file_path = ""};
    assert_int_equal(sm_files_send(r->files, r->router, &a, &err), 0);
    sm_envelope *e = receive(r->dealer, NULL);
    assert_int_equal(e->body_case, SHARDMILL__ENVELOPE__BODY_FILE_CHUNK);
    sm_wire_free(&e);
}

static bool is_kept(struct rig *r, const char *digest) {
    return files_kept_find(r->files, digest) != NULL;
}

/* Every name is taken, and this file is the oldest. */
static void fill(struct rig *r, const char *oldest) {
    while (r->files->n < SM_MAX_KEPT_FILES) {
        char name[SM_SHA_HEX];
        snprintf(name, sizeof name, "%064zx", r->files->n);
        assert_non_null(files_kept_add(r->files, name, 1));
    }
    files_kept_find(r->files, oldest)->used_ms -= 10000;
}

/* A round of a fit is complete, and its submitter has not read the partials yet. */
static void what_nobody_has_read_yet_stays_when_room_is_needed(void **state) {
    struct rig *r = *state;
    char partial[SM_SHA_HEX], other[SM_SHA_HEX];
    put_text(r, "a partial", partial);
    fill(r, partial);
    put_text(r, "one more", other);
    assert_true(is_kept(r, partial));
    hand_out(r, partial);
    put_text(r, "a partial", partial); /* another round has come to the same */
    fill(r, partial);
    put_text(r, "and one more", other);
    assert_true(is_kept(r, partial));
    hand_out(r, partial);
    fill(r, partial);
    put_text(r, "and another", other);
    assert_false(is_kept(r, partial));
}

/* Between two rounds of a fit no job wants the index: its time begins only there. */
static void a_files_idle_time_begins_when_no_job_wants_it(void **state) {
    struct rig *r = *state;
    char index[SM_XXH_HEX];
    sm_xxh("an index", 8, index);
    assert_int_equal(put(r, index, "an index", 8, 8), SM_E_OK);
    Shardmill__JobSpec spec = desk_spec(4, 1, 1);
    spec.kind = SHARDMILL__JOB_KIND__FIT;
    spec.index_digest = index;
    desk_submit(&r->desk, "job", &spec);
    for (int running = 1; running >= 0; running--) {
        if (running) files_kept_find(r->files, index)->used_ms -= LONG_MS;
        r->files->ticked_ms -= LONG_MS;
        sm_files_tick(r->files, r->desk.core);
        assert_true(is_kept(r, index));
        Shardmill__Cancel cancel = SHARDMILL__CANCEL__INIT;
        cancel.job = "job";
        desk_say(&r->desk, 99, SHARDMILL__ENVELOPE__BODY_CANCEL, &cancel);
    }
    files_kept_find(r->files, index)->used_ms -= LONG_MS;
    r->files->ticked_ms -= LONG_MS;
    sm_files_tick(r->files, r->desk.core);
    assert_false(is_kept(r, index));
}

static void an_upload_that_moves_is_not_ended_for_another(void **state) {
    struct rig *r = *state;
    char name[SM_SHA_HEX];
    for (unsigned i = 0; i <= SM_MAX_KEPT_OPEN; i++) {
        snprintf(name, sizeof name, "%064x", i);
        assert_int_equal(put(r, name, "x", 1, 2), i < SM_MAX_KEPT_OPEN ? SM_E_OK : SM_E_BUSY);
    }
    assert_int_equal(put(r, name, NULL, 0, 2), SM_E_OK); /* a question is not in the way */
    r->files->uploads[7].moved_ms -= LONG_MS;
    assert_int_equal(put(r, name, "x", 1, 2), SM_E_OK);
    for (unsigned i = 0; i < SM_MAX_KEPT_OPEN; i++)
        assert_non_null(r->files->uploads[i].file);
}

static void uploads_under_way_count_as_files_that_are_kept(void **state) {
    struct rig *r = *state;
    char first[SM_SHA_HEX], index[SM_XXH_HEX], kept[SM_SHA_HEX];
    memset(first, 'a', sizeof first);
    memset(index, 'b', sizeof index);
    first[SM_SHA_HEX - 1] = index[SM_XXH_HEX - 1] = 0;
    put_text(r, "kept", kept);
    hand_out(r, kept);
    assert_int_equal(put(r, first, "x", 1, MIB), SM_E_OK);
    assert_int_equal(put(r, index, "x", 1, (uint64_t)SM_MAX_KEPT_MIB << 20), SM_E_BUSY);
    assert_int_equal(put(r, index, "x", 1, ((uint64_t)SM_MAX_KEPT_MIB << 20) + 1), SM_E_TOO_LARGE);
    assert_int_equal(put(r, index, "x", 1, UINT64_MAX), SM_E_TOO_LARGE);
    assert_true(is_kept(r, kept)); /* it would not have helped */
    fill(r, kept);
    for (size_t i = 0; i < r->files->n; i++)
        r->files->kept[i].unread = true;
    index[0] = 'c';
    assert_int_equal(put(r, index, "x", 1, 2), SM_E_TOO_LARGE);
    r->files->n--; /* the place of the one that is under way */
    assert_int_equal(put(r, index, "x", 1, 2), SM_E_BUSY);
}

/* On a disk that is smaller than what a broker keeps, since more is refused before. */
static void uploads_under_way_leave_the_journals_part_of_the_disk(void **state) {
    struct rig *r = *state;
    struct statvfs disk;
    char dir[] = "/dev/shm/shardmill-test-XXXXXX", first[SM_XXH_HEX], second[SM_XXH_HEX];
    memset(first, 'a', sizeof first);
    memset(second, 'b', sizeof second);
    first[SM_XXH_HEX - 1] = second[SM_XXH_HEX - 1] = 0;
    if (mkdtemp(dir) == NULL) skip();
    snprintf(r->files->dir, sizeof r->files->dir, "%s", dir);
    assert_int_equal(statvfs(dir, &disk), 0);
    const uint64_t most = (uint64_t)disk.f_bavail * disk.f_frsize / 3 * 2;
    const bool fits = most > 512 * (uint64_t)MIB && most < (uint64_t)SM_MAX_KEPT_MIB << 19;
    if (fits) {
        assert_int_equal(put(r, first, "x", 1, most), SM_E_OK);
        assert_int_equal(put(r, second, "x", 1, most), SM_E_DISK_FULL);
        files_upload_end(&r->files->uploads[0]);
        assert_int_equal(put(r, second, "x", 1, most), SM_E_OK);
        files_upload_end(&r->files->uploads[0]);
    }
    rmdir(dir);
    if (!fits) skip();
}

static void a_piece_has_a_limit(void **state) {
    struct rig *r = *state;
    const size_t n = SM_MAX_FILE_PUT_BYTES + 1;
    char name[SM_SHA_HEX];
    memset(name, 'a', sizeof name);
    name[SM_SHA_HEX - 1] = 0;
    void *bytes = calloc(1, n);
    assert_int_equal(put(r, name, bytes, n, MIB), SM_E_PROTOCOL);
    assert_int_equal(put(r, name, bytes, n - 1, MIB), SM_E_OK);
    free(bytes);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_nobody_has_read_yet_stays_when_room_is_needed),
        TEST(a_files_idle_time_begins_when_no_job_wants_it),
        TEST(an_upload_that_moves_is_not_ended_for_another),
        TEST(uploads_under_way_count_as_files_that_are_kept),
        TEST(uploads_under_way_leave_the_journals_part_of_the_disk),
        TEST(a_piece_has_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
