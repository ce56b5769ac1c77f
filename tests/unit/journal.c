/* The journal under what disks do: what is committed comes back; a file that is cut or flipped
 * anywhere is refused, or gives a state that once was committed; a full disk acknowledges nothing.
 */
#include "broker/journal.h"

#include "tests/unit/desk.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STATES_MAX = 64, FILE_MAX = 4 << 20 };

struct bench {
    char dir[64];
    struct desk desk;
    struct sm_journal *journal;
    char *states[STATES_MAX]; /* the job's status after each commit, as packed bytes in hex */
    size_t n_states;
};

static int setup(void **state) {
    struct bench *b = calloc(1, sizeof *b);
    strcpy(b->dir, "/tmp/sm-journal-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    *state = b;
    return 0;
}

static int teardown(void **state) {
    struct bench *b = *state;
    char command[96];
    sm_journal_close(&b->journal);
    if (b->desk.core != NULL) desk_close(&b->desk);
    snprintf(command, sizeof command, "rm -rf %s", b->dir);
    assert_int_equal(system(command), 0);
    for (size_t i = 0; i < b->n_states; i++)
        free(b->states[i]);
    free(b);
    return 0;
}

/* Everything that a client can see of the job, as text. Answers while a worker is there would name
 * it, so none is. */
static char *portrait(struct desk *d) {
    Shardmill__ResultsGet get = SHARDMILL__RESULTS_GET__INIT;
    get.job = "job";
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    const Shardmill__JobStatus *s = desk_status(d);
    if (s == NULL) return strdup("none");
    Shardmill__JobStatus copy = *s;
    copy.in_work = copy.workers = 0;
    copy.leases_lost = 0;
    copy.waits_for = "";
    e.body_case = SHARDMILL__ENVELOPE__BODY_JOB_STATUS;
    e.job_status = &copy;
    uint8_t bytes[65536];
    size_t n = shardmill__envelope__pack(&e, bytes);
    desk_say(d, 99, SHARDMILL__ENVELOPE__BODY_RESULTS_GET, &get);
    const sm_envelope *r = desk_sent(d, 99, SHARDMILL__ENVELOPE__BODY_RESULTS);
    n += shardmill__envelope__pack(r, bytes + n);
    char *hex = calloc(2 * n + 1, 1);
    for (size_t i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
    return hex;
}

static void commit(struct bench *b) {
    struct sm_err err;
    assert_int_equal(sm_journal_commit(b->journal, &b->desk.actions, &err), 0);
}

static void state_keep(struct bench *b) {
    char *now = portrait(&b->desk);
    if (b->n_states > 0 && strcmp(now, b->states[b->n_states - 1]) == 0) {
        free(now);
        return;
    }
    assert_true(b->n_states < STATES_MAX);
    b->states[b->n_states++] = now;
}

static int journal_open(struct bench *b, struct sm_err *err) {
    uint32_t incarnation = 0;
    if (sm_journal_open(&b->journal, b->dir, &incarnation, err) != 0) return -1;
    desk_open(&b->desk, incarnation);
    if (sm_journal_load(b->journal, b->desk.core, err) == 0) return 0;
    desk_close(&b->desk);
    sm_journal_close(&b->journal);
    return -1;
}

static void journal_shut(struct bench *b) {
    desk_close(&b->desk);
    sm_journal_close(&b->journal);
}

static void death(struct bench *b) {
    desk_hello(&b->desk, 1, "f");
    commit(b);
    desk_ready(&b->desk, 1);
    commit(b);
    desk_gone(&b->desk, 1);
    commit(b);
    state_keep(b);
}

/* A job with a bit of everything: parts, a sealed shard, bad samples, a sample quarantined by the
 * broker. */
static void work(struct bench *b) {
    struct sm_err err;
    Shardmill__JobSpec spec = desk_spec(20, 8, 3);
    spec.name = "name";
    assert_int_equal(journal_open(b, &err), 0);
    state_keep(b);
    desk_submit(&b->desk, "job", &spec);
    commit(b);
    state_keep(b);
    for (int i = 0; i < 5; i++)
        death(b);
    desk_hello(&b->desk, 1, "f");
    for (int i = 0; i < 9; i++) {
        struct desk_lease l = desk_ready(&b->desk, 1);
        commit(b);
        size_t bad = l.kind == SHARDMILL__LEASE_KIND__RANGE && i % 3 == 1 && l.n_skip == 0;
        assert_int_equal(desk_done(&b->desk, 1, &l, desk_sha, bad), 1);
        commit(b);
        state_keep(b);
    }
    assert_true(b->n_states >= 8);
}

static void what_is_committed_comes_back_with_a_new_incarnation(void **state) {
    struct bench *b = *state;
    struct sm_err err;
    work(b);
    char *before = portrait(&b->desk);
    struct poison poison = b->desk.core->jobs->poisons[0];
    journal_shut(b);
    assert_int_equal(journal_open(b, &err), 0);
    assert_int_equal(b->desk.core->options.incarnation, 2);
    char *after = portrait(&b->desk);
    assert_string_equal(before, after);
    assert_int_equal(b->desk.core->jobs->n_poisons, 1);
    assert_true(b->desk.core->jobs->poisons[0].position == poison.position);
    assert_true(b->desk.core->jobs->poisons[0].fence == poison.fence);
    free(before);
    free(after);
}

static void a_remade_shard_and_a_forgotten_job_stay_gone(void **state) {
    struct bench *b = *state;
    struct sm_err err;
    Shardmill__JobSpec spec = desk_spec(2, 2, 1);
    assert_int_equal(journal_open(b, &err), 0);
    desk_submit(&b->desk, "job", &spec);
    commit(b);
    desk_hello(&b->desk, 1, "f");
    for (int i = 0; i < 2; i++) {
        struct desk_lease l = desk_ready(&b->desk, 1);
        commit(b);
        desk_done(&b->desk, 1, &l, desk_sha, 0);
        commit(b);
    }
    struct desk_lease seal = desk_ready(&b->desk, 1);
    assert_int_equal(seal.n_parts, 2);
    desk_fail(&b->desk, 1, &seal, SM_E_PART_MISSING, "a part is gone");
    commit(b);
    journal_shut(b);
    assert_int_equal(journal_open(b, &err), 0);
    assert_int_equal(desk_status(&b->desk)->made, 0);
    sm_actions_reset(&b->desk.actions);
    b->desk.core->out = &b->desk.actions;
    core_persist(b->desk.core, &(struct sm_record){.kind = SM_RECORD_FORGET, .job = "job"});
    commit(b);
    journal_shut(b);
    assert_int_equal(journal_open(b, &err), 0);
    assert_null(b->desk.core->jobs);
}

static size_t file_read(const char *path, uint8_t *bytes) {
    FILE *f = fopen(path, "rb");
    if (f == NULL) return 0;
    size_t n = fread(bytes, 1, FILE_MAX, f);
    fclose(f);
    return n;
}

static void file_write(const char *path, const uint8_t *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* Opens the damaged folder: refused by the file's name, or one of the states that were once
 * committed. */
static bool opens_or_refuses(struct bench *b, const char *what, size_t at) {
    struct sm_err err = {0};
    if (journal_open(b, &err) != 0) {
        if (strstr(err.text, "state.db") == NULL)
            fail_msg("%s at %zu: refused without the file's name: %s", what, at, err.text);
        return false;
    }
    char *now = portrait(&b->desk);
    bool known = false;
    for (size_t i = 0; i < b->n_states; i++)
        known = known || strcmp(now, b->states[i]) == 0;
    free(now);
    journal_shut(b);
    if (!known) fail_msg("%s at %zu: the journal came back in a state that never was", what, at);
    return true;
}

/* A flipped byte may hit space that nothing uses; then all must be there. */
static void a_flipped_byte_is_refused_or_changes_nothing(void **state) {
    struct bench *b = *state;
    char path[96];
    static uint8_t good[FILE_MAX], bad[FILE_MAX];
    work(b);
    journal_shut(b);
    snprintf(path, sizeof path, "%s/state.db", b->dir);
    size_t n = file_read(path, good), refused = 0;
    char *last = b->states[b->n_states - 1];
    b->states[b->n_states - 1] = b->states[0];
    b->states[0] = last;
    size_t keep = b->n_states;
    b->n_states = 1; /* nothing older is good enough */
    for (size_t at = 0; at < n; at += at < 512 ? 7 : 61) {
        memcpy(bad, good, n);
        bad[at] ^= (uint8_t)(1 + at % 255);
        file_write(path, bad, n);
        refused += !opens_or_refuses(b, "flipped", at);
    }
    b->n_states = keep;
    assert_true(refused > 20);
}

static void a_cut_database_is_refused(void **state) {
    struct bench *b = *state;
    char path[96];
    static uint8_t good[FILE_MAX];
    work(b);
    journal_shut(b);
    snprintf(path, sizeof path, "%s/state.db", b->dir);
    size_t n = file_read(path, good);
    for (size_t cut = 1; cut < n; cut += 509) {
        file_write(path, good, cut);
        assert_false(opens_or_refuses(b, "cut", cut));
    }
}

/* The log of a broker that was killed, cut anywhere: only whole transactions count. */
static void a_cut_or_flipped_log_gives_a_state_that_was_once_committed(void **state) {
    struct bench *b = *state;
    char path[96], log[96];
    static uint8_t db[FILE_MAX], wal[FILE_MAX];
    work(b);
    snprintf(path, sizeof path, "%s/state.db", b->dir);
    snprintf(log, sizeof log, "%s/state.db-wal", b->dir);
    size_t n_db = file_read(path, db), n_wal = file_read(log, wal), came_back = 0;
    assert_true(n_wal > 10000);
    journal_shut(b);
    for (size_t at = 0; at <= n_wal; at += 1499) {
        for (int flip = 0; flip < 2; flip++) {
            file_write(path, db, n_db);
            if (flip && at < n_wal) wal[at] ^= 0x55;
            file_write(log, wal, flip ? n_wal : at);
            if (flip && at < n_wal) wal[at] ^= 0x55;
            came_back += opens_or_refuses(b, flip ? "log flipped" : "log cut", at);
            unlink(log);
        }
    }
    assert_true(came_back > 10);
}

static void a_newer_schema_is_refused(void **state) {
    struct bench *b = *state;
    struct sm_err err;
    char path[96];
    sqlite3 *db = NULL;
    work(b);
    journal_shut(b);
    snprintf(path, sizeof path, "%s/state.db", b->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    assert_int_equal(journal_open(b, &err), -1);
    assert_int_equal(err.code, SM_E_DIFFERS);
}

static void sql(struct bench *b, const char *text) {
    char path[96];
    sqlite3 *db = NULL;
    snprintf(path, sizeof path, "%s/state.db", b->dir);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void stream_submit(struct bench *b) {
    Shardmill__JobSpec spec = desk_spec(16, 0, 0);
    spec.kind = SHARDMILL__JOB_KIND__STREAM;
    spec.name = "pets";
    spec.batch_size = 2;
    spec.batch_bytes = 1 << 20;
    desk_submit(&b->desk, "stream", &spec);
    commit(b);
}

static void persist(struct bench *b, struct sm_record r) {
    sm_actions_reset(&b->desk.actions);
    b->desk.core->out = &b->desk.actions;
    r.job = "stream";
    core_persist(b->desk.core, &r);
    commit(b);
}

static struct job *stream_of(struct bench *b) {
    struct job *job = core_job_find(b->desk.core, "stream");
    assert_non_null(job);
    return job;
}

static void again(struct bench *b) {
    struct sm_err err = {0};
    journal_shut(b);
    if (journal_open(b, &err) != 0) fail_msg("%s", err.text);
}

static void assert_commit(const struct job *job, uint32_t rank, bool set, uint32_t epoch,
                          uint64_t position) {
    assert_int_equal(job->run.commits[rank].set, set);
    if (!set) return;
    assert_int_equal(job->run.commits[rank].epoch, epoch);
    assert_int_equal(job->run.commits[rank].position, position);
}

static void runs_and_commits_come_back_each_rank_with_its_last(void **state) {
    struct bench *b = *state;
    struct sm_err err;
    assert_int_equal(journal_open(b, &err), 0);
    stream_submit(b);
    persist(b,
            (struct sm_record){.kind = SM_RECORD_RUN, .world_size = 3, .epoch = 1, .position = 4});
    persist(b, (struct sm_record){.kind = SM_RECORD_COMMIT, .epoch = 1, .position = 10});
    persist(b, (struct sm_record){.kind = SM_RECORD_COMMIT, .rank = 2, .epoch = 1, .position = 10});
    persist(b, (struct sm_record){.kind = SM_RECORD_COMMIT, .rank = 2, .epoch = 2});
    persist(b, (struct sm_record){.kind = SM_RECORD_QUARANTINE, .position = 7});
    again(b);
    const struct job *job = stream_of(b);
    assert_int_equal(job->run.world_size, 3);
    assert_int_equal(job->run.epoch, 1);
    assert_int_equal(job->run.position, 4);
    assert_commit(job, 0, true, 1, 10);
    assert_commit(job, 1, false, 0, 0);
    assert_commit(job, 2, true, 2, 0);
    assert_int_equal(job->n_poisons, 1);
    assert_int_equal(job->poisons[0].position, 7);
}

static void a_new_run_takes_the_commits_of_the_last_one_with_it(void **state) {
    struct bench *b = *state;
    struct sm_err err;
    assert_int_equal(journal_open(b, &err), 0);
    stream_submit(b);
    persist(b, (struct sm_record){.kind = SM_RECORD_RUN, .world_size = 2});
    persist(b, (struct sm_record){.kind = SM_RECORD_COMMIT, .rank = 1, .position = 8});
    persist(b, (struct sm_record){.kind = SM_RECORD_RUN, .world_size = 1, .position = 8});
    again(b); /* rank 1 is beyond the new world: its row would contradict the run */
    assert_int_equal(stream_of(b)->run.world_size, 1);
    assert_int_equal(stream_of(b)->run.position, 8);
    assert_commit(stream_of(b), 0, false, 0, 0);
    persist(b, (struct sm_record){.kind = SM_RECORD_FORGET});
    again(b);
    assert_null(core_job_find(b->desk.core, "stream"));
    stream_submit(b); /* the same id anew has nothing of the old one */
    again(b);
    assert_int_equal(stream_of(b)->run.world_size, 0);
}

static void a_stream_row_that_contradicts_is_refused(void **state) {
    struct bench *b = *state;
    struct sm_err err = {0};
    assert_int_equal(journal_open(b, &err), 0);
    stream_submit(b);
    persist(b, (struct sm_record){.kind = SM_RECORD_RUN, .world_size = 2});
    persist(b, (struct sm_record){.kind = SM_RECORD_COMMIT, .rank = 1, .position = 8});
    journal_shut(b);
    sql(b, "UPDATE commits SET position = 10"); /* its checksum says otherwise */
    assert_int_equal(journal_open(b, &err), -1);
    assert_non_null(strstr(err.text, "checksum"));
    sql(b, "UPDATE commits SET position = 8");
    assert_int_equal(journal_open(b, &err), 0);
    assert_commit(stream_of(b), 1, true, 0, 8);
    journal_shut(b);
    sql(b, "DELETE FROM runs"); /* a commit of no run */
    assert_int_equal(journal_open(b, &err), -1);
    assert_non_null(strstr(err.text, "state.db"));
}

/* Schema 1 is schema 2 without the tables of streams. */
static void a_journal_from_before_streams_keeps_all_and_takes_streams(void **state) {
    struct bench *b = *state;
    struct sm_err err;
    work(b);
    char *before = portrait(&b->desk);
    journal_shut(b);
    sql(b, "DROP TABLE runs; DROP TABLE commits; PRAGMA user_version = 1");
    assert_int_equal(journal_open(b, &err), 0);
    char *after = portrait(&b->desk);
    assert_string_equal(before, after);
    stream_submit(b);
    persist(b, (struct sm_record){.kind = SM_RECORD_RUN, .world_size = 1, .position = 2});
    persist(b, (struct sm_record){.kind = SM_RECORD_COMMIT, .position = 6});
    again(b); /* and is not taken for schema 1 once more */
    assert_commit(stream_of(b), 0, true, 0, 6);
    free(before);
    free(after);
}

static void a_full_disk_fails_the_commit_and_loses_nothing_that_was_acknowledged(void **state) {
    struct bench *b = *state;
    struct sm_err err = {0};
    char log[96];
    struct stat st;
    struct rlimit before, tight;
    work(b);
    char *then = portrait(&b->desk);
    snprintf(log, sizeof log, "%s/state.db-wal", b->dir);
    assert_int_equal(stat(log, &st), 0);
    struct desk_lease l = desk_ready(&b->desk, 1);
    desk_done(&b->desk, 1, &l, desk_sha, 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    tight = before;
    tight.rlim_cur = (rlim_t)st.st_size + 100;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    int rc = sm_journal_commit(b->journal, &b->desk.actions, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(rc, -1);
    assert_non_null(strstr(err.text, "state.db"));
    journal_shut(b);
    assert_int_equal(journal_open(b, &err), 0);
    char *now = portrait(&b->desk);
    assert_string_equal(then, now);
    free(then);
    free(now);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_is_committed_comes_back_with_a_new_incarnation),
        TEST(a_remade_shard_and_a_forgotten_job_stay_gone),
        TEST(a_flipped_byte_is_refused_or_changes_nothing),
        TEST(a_cut_database_is_refused),
        TEST(a_cut_or_flipped_log_gives_a_state_that_was_once_committed),
        TEST(a_newer_schema_is_refused),
        TEST(runs_and_commits_come_back_each_rank_with_its_last),
        TEST(a_new_run_takes_the_commits_of_the_last_one_with_it),
        TEST(a_stream_row_that_contradicts_is_refused),
        TEST(a_journal_from_before_streams_keeps_all_and_takes_streams),
        TEST(a_full_disk_fails_the_commit_and_loses_nothing_that_was_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
