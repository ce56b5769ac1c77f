/* Records to rows and back. Each row carries a checksum over its own fields, because SQLite has
 * none and a digit that flipped on the disk would otherwise become a wrong manifest. If you change
 * a table: raise SM_JOURNAL_SCHEMA, say in sm_journal_open what becomes of the older one, and
 * change write and load together. */
#include "broker/journal.h"

#include "broker/state.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

static const char schema[] =
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER, sum INTEGER) WITHOUT ROWID;"
    "CREATE TABLE jobs(id INTEGER PRIMARY KEY, job TEXT UNIQUE, spec BLOB, sum INTEGER);"
    "CREATE TABLE states(job TEXT PRIMARY KEY, state INTEGER, code INTEGER, text TEXT, sum INTEGER) WITHOUT ROWID;"
    "CREATE TABLE fingerprints(job TEXT PRIMARY KEY, fingerprint TEXT, sum INTEGER) WITHOUT ROWID;"
    "CREATE TABLE quarantine(job TEXT, position INTEGER, attempt INTEGER, sum INTEGER,"
    " PRIMARY KEY(job, position)) WITHOUT ROWID;"
    "CREATE TABLE done(job TEXT, shard INTEGER, first INTEGER, count INTEGER, generation INTEGER, bytes INTEGER,"
    " sha256 TEXT, cages INTEGER, quarantined BLOB, sum INTEGER, PRIMARY KEY(job, shard, first)) WITHOUT ROWID;"
    "CREATE TABLE sealed(job TEXT, shard INTEGER, bytes INTEGER, sha256 TEXT, quarantined BLOB, sum INTEGER,"
    " PRIMARY KEY(job, shard)) WITHOUT ROWID;";

/* What schema 2 added to 1. */
static const char schema_streams[] =
    "CREATE TABLE runs(job TEXT PRIMARY KEY, world_size INTEGER, epoch INTEGER, position INTEGER, sum INTEGER)"
    " WITHOUT ROWID;"
    "CREATE TABLE commits(job TEXT, rank INTEGER, epoch INTEGER, position INTEGER, sum INTEGER,"
    " PRIMARY KEY(job, rank)) WITHOUT ROWID;";

enum statement {
    S_META,
    S_JOB,
    S_STATE,
    S_FINGERPRINT,
    S_QUARANTINE,
    S_DONE,
    S_SEALED,
    S_RUN,
    S_COMMIT, /* write a row */
    S_REMAKE,
    S_FORGET,
    S_FORGET_STATE,
    S_FORGET_FINGERPRINT,
    S_FORGET_QUARANTINE,
    S_FORGET_DONE,
    S_FORGET_SEALED,
    S_FORGET_RUN,
    S_FORGET_COMMITS,
    S_COUNT
};

static const char *const statements[S_COUNT] = {
    [S_META] = "INSERT OR REPLACE INTO meta VALUES(?, ?, ?)",
    [S_JOB] = "INSERT INTO jobs(job, spec, sum) VALUES(?, ?, ?)",
    [S_STATE] = "INSERT OR REPLACE INTO states VALUES(?, ?, ?, ?, ?)",
    [S_FINGERPRINT] = "INSERT OR REPLACE INTO fingerprints VALUES(?, ?, ?)",
    [S_QUARANTINE] = "INSERT OR REPLACE INTO quarantine VALUES(?, ?, ?, ?)",
    [S_DONE] = "INSERT INTO done VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [S_SEALED] = "INSERT INTO sealed VALUES(?, ?, ?, ?, ?, ?)",
    [S_RUN] = "INSERT OR REPLACE INTO runs VALUES(?, ?, ?, ?, ?)",
    [S_COMMIT] = "INSERT OR REPLACE INTO commits VALUES(?, ?, ?, ?, ?)",
    [S_REMAKE] = "DELETE FROM done WHERE job = ? AND shard = ?",
    [S_FORGET] = "DELETE FROM jobs WHERE job = ?",
    [S_FORGET_STATE] = "DELETE FROM states WHERE job = ?",
    [S_FORGET_FINGERPRINT] = "DELETE FROM fingerprints WHERE job = ?",
    [S_FORGET_QUARANTINE] = "DELETE FROM quarantine WHERE job = ?",
    [S_FORGET_DONE] = "DELETE FROM done WHERE job = ?",
    [S_FORGET_SEALED] = "DELETE FROM sealed WHERE job = ?",
    [S_FORGET_RUN] = "DELETE FROM runs WHERE job = ?",
    [S_FORGET_COMMITS] = "DELETE FROM commits WHERE job = ?",
};

/* A column's value. Text and blobs are lent. */
struct value {
    const void *bytes; /* NULL: an integer */
    int64_t n;         /* the integer, or how many bytes */
};
enum { COLUMNS_MAX = 10, PAGE_BYTES = 4096 };
#define INT(v) \
    { NULL, (int64_t)(v) }
#define TEXT(s) \
    { (s), (int64_t)strlen(s) }

struct sm_journal {
    sqlite3 *db;
    int lock;
    char path[SM_MAX_PATH_BYTES + 16];
    sqlite3_stmt *prepared[S_COUNT];
};

static int lock_take(struct sm_journal *j, const char *state_dir, struct sm_err *err);
static int cut_check(struct sm_journal *j, struct sm_err *err);
static int schema_check(struct sm_journal *j, struct sm_err *err);
static int damaged(struct sm_journal *j, const char *what, struct sm_err *err);
static int incarnation_count(struct sm_journal *j, uint32_t *incarnation, struct sm_err *err);
static int record_write(struct sm_journal *j, const struct sm_record *r, struct sm_err *err);

static int db_fail(struct sm_journal *j, const char *what, struct sm_err *err) {
    int rc = sqlite3_errcode(j->db);
    enum sm_code code = rc == SQLITE_FULL   ? SM_E_DISK_FULL
                        : rc == SQLITE_BUSY ? SM_E_BUSY
                                            : SM_E_IO;
    struct statvfs fs;
    if (rc == SQLITE_FULL && statvfs(j->path, &fs) == 0) {
        uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
        return sm_fail(
            err, code,
            "cannot %s the journal '%s': no room left on the disk, at least %llu bytes missing (hint: "
            "free some room and run the same command again)",
            what, j->path,
            (unsigned long long)(room < PAGE_BYTES ? PAGE_BYTES - room : PAGE_BYTES));
    }
    const char *hint =
        rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB
            ? " (hint: the file is damaged; move it away and submit again, what is sealed is found on disk)"
            : "";
    return sm_fail(err, code, "cannot %s the journal '%s': %s%s", what, j->path,
                   sqlite3_errmsg(j->db), hint);
}

static int damaged(struct sm_journal *j, const char *what, struct sm_err *err) {
    return sm_fail(
        err, SM_E_IO,
        "the journal '%s' is damaged: %s (hint: move it away and submit again, what is sealed is found on disk)",
        j->path, what);
}

int sm_journal_open(struct sm_journal **gives, const char *state_dir, uint32_t *incarnation,
                    struct sm_err *err) {
    struct sm_journal *j = core_calloc(1, sizeof *j);
    *gives = NULL;
    j->lock = -1;
    if (strlen(state_dir) > SM_MAX_PATH_BYTES) {
        free(j);
        return sm_fail(err, SM_E_USAGE, "the path of the state folder is too long");
    }
    snprintf(j->path, sizeof j->path, "%s/state.db", state_dir);
    if (lock_take(j, state_dir, err) != 0) goto failed;
    if (cut_check(j, err) != 0) goto failed;
    if (sqlite3_open_v2(j->path, &j->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                        NULL) != SQLITE_OK) {
        db_fail(j, "open", err);
        goto failed;
    }
    sqlite3_extended_result_codes(j->db, 0);
    if (sqlite3_exec(
            j->db,
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA locking_mode = EXCLUSIVE;"
            "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY;",
            NULL, NULL, NULL) != SQLITE_OK) {
        db_fail(j, "open", err);
        goto failed;
    }
    if (schema_check(j, err) != 0) goto failed;
    for (int i = 0; i < S_COUNT; i++)
        if (sqlite3_prepare_v3(j->db, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &j->prepared[i],
                               NULL) != SQLITE_OK) {
            db_fail(j, "read", err);
            goto failed;
        }
    if (incarnation_count(j, incarnation, err) != 0) goto failed;
    *gives = j;
    return 0;
failed:
    sm_journal_close(&j);
    return -1;
}

void sm_journal_close(struct sm_journal **journal) {
    struct sm_journal *j = *journal;
    if (j == NULL) return;
    for (int i = 0; i < S_COUNT; i++)
        sqlite3_finalize(j->prepared[i]);
    sqlite3_close(j->db);
    if (j->lock >= 0) close(j->lock);
    free(j);
    *journal = NULL;
}

/* SQLite takes a file shorter than a page for a new one, and pads the last page of one that is cut.
 * With a log beside it the file may be shorter than it says: the log has the rest. */
static int cut_check(struct sm_journal *j, struct sm_err *err) {
    char log[sizeof j->path + 8];
    uint8_t head[32];
    struct stat st, log_st;
    if (stat(j->path, &st) != 0 || st.st_size == 0) return 0;
    if (st.st_size < PAGE_BYTES) return damaged(j, "it is shorter than a page", err);
    snprintf(log, sizeof log, "%s-wal", j->path);
    if (stat(log, &log_st) == 0 && log_st.st_size > 0) return 0;
    int fd = open(j->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sm_fail_errno(err, "cannot read the journal '%s'", j->path);
    ssize_t n = pread(fd, head, sizeof head, 0);
    close(fd);
    if (n != (ssize_t)sizeof head)
        return sm_fail_errno(err, "cannot read the journal '%s'", j->path);
    uint64_t page = (uint64_t)head[16] << 8 | head[17];
    uint64_t pages =
        (uint64_t)head[28] << 24 | (uint64_t)head[29] << 16 | (uint64_t)head[30] << 8 | head[31];
    if (page == 1) page = 65536;
    return (uint64_t)st.st_size < page * pages ? damaged(j, "it is cut short", err) : 0;
}

/* flock goes with the process, however it ends; the pid in the file is only for the message. */
static int lock_take(struct sm_journal *j, const char *state_dir, struct sm_err *err) {
    char path[SM_MAX_PATH_BYTES + 16], pid[32] = {0};
    if (mkdir(state_dir, 0700) != 0 && errno != EEXIST)
        return sm_fail_errno(err, "cannot make the state folder '%s'", state_dir);
    snprintf(path, sizeof path, "%s/lock", state_dir);
    j->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (j->lock < 0) return sm_fail_errno(err, "cannot open '%s'", path);
    if (flock(j->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return sm_fail_errno(err, "cannot lock '%s'", path);
        ssize_t n = pread(j->lock, pid, sizeof pid - 1, 0);
        pid[n > 0 ? strcspn(pid, "\n") : 0] = 0;
        return sm_fail(err, SM_E_BUSY,
                       "the state folder '%s' belongs to the broker with process id %s", state_dir,
                       pid[0] != 0 ? pid : "(not written yet)");
    }
    int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(j->lock, 0) != 0 || pwrite(j->lock, pid, (size_t)n, 0) != n)
        return sm_fail_errno(err, "cannot write '%s'", path);
    return 0;
}

static int ok_row(void *found, int n, char **values, char **names) {
    (void)names;
    if (n == 1 && values[0] != NULL && strcmp(values[0], "ok") == 0) *(bool *)found = true;
    return 0;
}

static int int_row(void *found, int n, char **values, char **names) {
    (void)names;
    if (n == 1 && values[0] != NULL) *(int *)found = atoi(values[0]);
    return 0;
}

/* In one transaction with the version: a journal has either all of a schema or nothing of it. */
static int tables_make(struct sm_journal *j, const char *before, struct sm_err *err) {
    char sql[sizeof schema + sizeof schema_streams + 128];
    snprintf(sql, sizeof sql, "BEGIN IMMEDIATE; %s %s PRAGMA user_version = %d; COMMIT;", before,
             schema_streams, SM_JOURNAL_SCHEMA);
    if (sqlite3_exec(j->db, sql, NULL, NULL, NULL) != SQLITE_OK) return db_fail(j, "make", err);
    return 0;
}

static int schema_check(struct sm_journal *j, struct sm_err *err) {
    int version = -1;
    bool ok = false;
    if (sqlite3_exec(j->db, "PRAGMA user_version", int_row, &version, NULL) != SQLITE_OK)
        return db_fail(j, "read", err);
    if (version == 0) {
        int tables = 0;
        if (sqlite3_exec(j->db, "SELECT count(*) FROM sqlite_master", int_row, &tables, NULL) !=
            SQLITE_OK)
            return db_fail(j, "read", err);
        if (tables != 0) return damaged(j, "it holds tables but no schema version", err);
        return tables_make(j, schema, err);
    }
    if (version > SM_JOURNAL_SCHEMA)
        return sm_fail(
            err, SM_E_DIFFERS,
            "the journal '%s' has schema %d, and this broker knows up to %d (hint: a newer "
            "shardmill wrote it)",
            j->path, version, SM_JOURNAL_SCHEMA);
    if (sqlite3_exec(j->db, "PRAGMA integrity_check(1)", ok_row, &ok, NULL) != SQLITE_OK)
        return db_fail(j, "read", err);
    if (!ok) return damaged(j, "its structure is broken", err);
    return version == 1 ? tables_make(j, "", err) : 0; /* 1 knew no streams: they are added */
}

static int64_t row_sum(const struct value *row, int n) {
    XXH3_state_t *x = XXH3_createState();
    assert(x != NULL);
    XXH3_64bits_reset(x);
    for (int i = 0; i < n; i++) {
        XXH3_64bits_update(x, &row[i].n, sizeof row[i].n);
        if (row[i].bytes != NULL && row[i].n > 0)
            XXH3_64bits_update(x, row[i].bytes, (size_t)row[i].n);
    }
    int64_t sum = (int64_t)XXH3_64bits_digest(x);
    XXH3_freeState(x);
    return sum;
}

/* Runs a statement with these values; sum: their checksum is bound behind them. */
static int row_write(struct sm_journal *j, enum statement which, const struct value *row, int n,
                     bool sum, struct sm_err *err) {
    sqlite3_stmt *s = j->prepared[which];
    for (int i = 0; i < n; i++) {
        int rc = row[i].bytes == NULL
                     ? sqlite3_bind_int64(s, i + 1, row[i].n)
                     : sqlite3_bind_blob64(s, i + 1, row[i].bytes, (sqlite3_uint64)row[i].n,
                                           SQLITE_STATIC);
        assert(rc == SQLITE_OK);
    }
    if (sum) sqlite3_bind_int64(s, n + 1, row_sum(row, n));
    int rc = sqlite3_step(s);
    if (rc != SQLITE_DONE) db_fail(j, "write", err);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return rc == SQLITE_DONE ? 0 : -1;
}

/* Reads the row that a SELECT stands on: as many values as the word of kinds has letters ('i'
 * integer, 'b' bytes that end in a NUL), then the checksum. */
static int row_read(struct sm_journal *j, sqlite3_stmt *s, const char *kinds, struct value *row,
                    struct sm_err *err) {
    int n = (int)strlen(kinds);
    for (int i = 0; i < n; i++) {
        bool integer = sqlite3_column_type(s, i) == SQLITE_INTEGER;
        if (integer != (kinds[i] == 'i')) return damaged(j, "a column of another type", err);
        row[i] =
            (struct value){.n = integer ? sqlite3_column_int64(s, i) : sqlite3_column_bytes(s, i)};
        if (integer) continue;
        const void *bytes = sqlite3_column_blob(s, i);
        row[i].bytes = bytes != NULL ? bytes : "";
    }
    if (row_sum(row, n) != sqlite3_column_int64(s, n))
        return damaged(j, "a row does not fit its checksum", err);
    return 0;
}

static int incarnation_count(struct sm_journal *j, uint32_t *incarnation, struct sm_err *err) {
    sqlite3_stmt *s = NULL;
    struct value row[COLUMNS_MAX] = {TEXT("incarnation"), INT(0)};
    if (sqlite3_prepare_v2(
            j->db, "SELECT name, value, sum FROM meta WHERE name = x'696e6361726e6174696f6e'", -1,
            &s, NULL) != SQLITE_OK)
        return db_fail(j, "read", err);
    int rc = sqlite3_step(s), bad = rc == SQLITE_ROW ? row_read(j, s, "bi", row, err) : 0;
    if (rc != SQLITE_ROW && rc != SQLITE_DONE) bad = db_fail(j, "read", err);
    int64_t value = row[1].n;
    sqlite3_finalize(s);
    if (bad) return -1;
    if (value < 0 || value >= UINT32_MAX) return damaged(j, "its starts cannot be so many", err);
    *incarnation = (uint32_t)(value + 1);
    struct value next[] = {TEXT("incarnation"), INT(value + 1)};
    return row_write(j, S_META, next, 2, true, err);
}

/* A list of quarantined positions travels in its row as the message that a client would get. */
static struct value quarantined_pack(const struct sm_record *r, uint8_t **owned) {
    Shardmill__ShardRecord m = SHARDMILL__SHARD_RECORD__INIT;
    m.quarantined = r->quarantined;
    m.n_quarantined = r->n_quarantined;
    size_t n = shardmill__shard_record__get_packed_size(&m);
    *owned = core_calloc(n + 1, 1);
    shardmill__shard_record__pack(&m, *owned);
    return (struct value){*owned, (int64_t)n};
}

static int job_forget(struct sm_journal *j, const struct sm_record *r, struct sm_err *err) {
    struct value row[] = {TEXT(r->job)};
    for (int s = S_FORGET; s <= S_FORGET_COMMITS; s++)
        if (row_write(j, (enum statement)s, row, 1, false, err) != 0) return -1;
    return 0;
}

static int part_write(struct sm_journal *j, const struct sm_record *r, struct sm_err *err) {
    uint8_t *packed = NULL;
    struct value q = quarantined_pack(r, &packed);
    struct value done[] = {TEXT(r->job),    INT(r->shard),      INT(r->first),
                           INT(r->count),   INT(r->generation), INT(r->bytes),
                           TEXT(r->sha256), INT(r->cages),      q};
    struct value sealed[] = {TEXT(r->job), INT(r->shard), INT(r->bytes), TEXT(r->sha256), q};
    int rc = r->kind == SM_RECORD_DONE ? row_write(j, S_DONE, done, 9, true, err)
                                       : row_write(j, S_SEALED, sealed, 5, true, err);
    free(packed);
    if (rc == 0 && r->kind == SM_RECORD_SEALED) rc = row_write(j, S_REMAKE, sealed, 2, false, err);
    return rc;
}

static int record_write(struct sm_journal *j, const struct sm_record *r, struct sm_err *err) {
    const char *text = r->text != NULL ? r->text : "";
    struct value job[] = {TEXT(r->job), {r->spec, (int64_t)r->spec_n}};
    struct value state[] = {TEXT(r->job), INT(r->state), INT(r->code), TEXT(text)};
    struct value fingerprint[] = {TEXT(r->job), TEXT(text)};
    struct value quarantine[] = {TEXT(r->job), INT(r->position), INT(r->attempt)};
    struct value shard[] = {TEXT(r->job), INT(r->shard)};
    struct value run[] = {TEXT(r->job), INT(r->world_size), INT(r->epoch), INT(r->position)};
    struct value commit[] = {TEXT(r->job), INT(r->rank), INT(r->epoch), INT(r->position)};
    switch (r->kind) {
    case SM_RECORD_JOB:
        return row_write(j, S_JOB, job, 2, true, err);
    case SM_RECORD_STATE:
        return row_write(j, S_STATE, state, 4, true, err);
    case SM_RECORD_FINGERPRINT:
        return row_write(j, S_FINGERPRINT, fingerprint, 2, true, err);
    case SM_RECORD_QUARANTINE:
        return row_write(j, S_QUARANTINE, quarantine, 3, true, err);
    case SM_RECORD_DONE:
    case SM_RECORD_SEALED:
        return part_write(j, r, err);
    case SM_RECORD_REMAKE:
        return row_write(j, S_REMAKE, shard, 2, false, err);
    case SM_RECORD_RUN: /* a new run has no commits yet */
        return row_write(j, S_FORGET_COMMITS, run, 1, false, err) != 0
                   ? -1
                   : row_write(j, S_RUN, run, 4, true, err);
    case SM_RECORD_COMMIT:
        return row_write(j, S_COMMIT, commit, 4, true, err);
    case SM_RECORD_FORGET:
        return job_forget(j, r, err);
    }
    assert(!"a record of unknown kind");
    return -1;
}

int sm_journal_commit(struct sm_journal *j, const struct sm_actions *actions, struct sm_err *err) {
    bool begun = false;
    for (size_t i = 0; i < actions->n; i++) {
        if (actions->list[i].kind != SM_ACTION_PERSIST) continue;
        if (!begun && sqlite3_exec(j->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
            return db_fail(j, "write", err);
        begun = true;
        if (record_write(j, &actions->list[i].record, err) != 0) return -1;
    }
    if (begun && sqlite3_exec(j->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK)
        return db_fail(j, "write", err);
    return 0;
}

/* How each table becomes records again, in an order in which no record needs a later one. */
static const struct table {
    const char *select, *kinds;
    enum sm_record_kind kind;
} tables[] = {
    {"SELECT job, spec, sum FROM jobs ORDER BY id", "bb", SM_RECORD_JOB},
    {"SELECT job, state, code, text, sum FROM states", "biib", SM_RECORD_STATE},
    {"SELECT job, fingerprint, sum FROM fingerprints", "bb", SM_RECORD_FINGERPRINT},
    {"SELECT job, position, attempt, sum FROM quarantine", "bii", SM_RECORD_QUARANTINE},
    {"SELECT job, shard, first, count, generation, bytes, sha256, cages, quarantined, sum FROM done ORDER BY job, shard, first",
     "biiiiibib", SM_RECORD_DONE},
    {"SELECT job, shard, bytes, sha256, quarantined, sum FROM sealed ORDER BY job, shard", "biibb",
     SM_RECORD_SEALED},
    {"SELECT job, world_size, epoch, position, sum FROM runs", "biii", SM_RECORD_RUN},
    {"SELECT job, rank, epoch, position, sum FROM commits", "biii", SM_RECORD_COMMIT},
};

static int record_load(struct sm_journal *j, struct sm_core *core, const struct table *t,
                       const struct value *v, struct sm_err *err) {
    char job[SM_MAX_JOB_ID_BYTES + 1] = {0}, sha[SM_SHA_HEX] = {0}, *text = NULL;
    struct sm_record r = {.kind = t->kind, .job = job, .sha256 = sha};
    struct value digest = {NULL, 64}, list = {NULL, 0}, words = {"", 0};
    switch (t->kind) {
    case SM_RECORD_JOB:
        r.spec = v[1].bytes, r.spec_n = (size_t)v[1].n;
        break;
    case SM_RECORD_STATE:
        r.state = (Shardmill__JobState)v[1].n, r.code = (uint32_t)v[2].n, words = v[3];
        break;
    case SM_RECORD_FINGERPRINT:
        words = v[1];
        break;
    case SM_RECORD_QUARANTINE:
        r.position = (uint64_t)v[1].n, r.attempt = (uint64_t)v[2].n;
        break;
    case SM_RECORD_RUN:
        r.world_size = (uint32_t)v[1].n;
        r.epoch = (uint32_t)v[2].n, r.position = (uint64_t)v[3].n;
        break;
    case SM_RECORD_COMMIT:
        r.rank = (uint32_t)v[1].n, r.epoch = (uint32_t)v[2].n, r.position = (uint64_t)v[3].n;
        break;
    case SM_RECORD_DONE:
        r.shard = (uint64_t)v[1].n, r.first = (uint64_t)v[2].n, r.count = (uint32_t)v[3].n;
        r.generation = (uint32_t)v[4].n, r.bytes = (uint64_t)v[5].n, digest = v[6],
        r.cages = (uint32_t)v[7].n, list = v[8];
        break;
    default:
        r.shard = (uint64_t)v[1].n, r.bytes = (uint64_t)v[2].n, digest = v[3], list = v[4];
    }
    if (v[0].n > SM_MAX_JOB_ID_BYTES || digest.n != 64)
        return damaged(j, "a column of a wrong length", err);
    memcpy(job, v[0].bytes, (size_t)v[0].n);
    if (digest.bytes != NULL) memcpy(sha, digest.bytes, 64);
    Shardmill__ShardRecord *m = NULL;
    if (list.bytes != NULL &&
        (m = shardmill__shard_record__unpack(NULL, (size_t)list.n, list.bytes)) == NULL)
        return damaged(j, "a list of quarantined samples does not unpack", err);
    if (m != NULL) r.quarantined = m->quarantined, r.n_quarantined = m->n_quarantined;
    r.text = text = strndup(words.bytes, (size_t)words.n);
    struct sm_err why;
    int rc = sm_core_load(core, &r, &why);
    if (m != NULL) shardmill__shard_record__free_unpacked(m, NULL);
    free(text);
    return rc == 0 ? 0 : damaged(j, why.text, err);
}

int sm_journal_load(struct sm_journal *j, struct sm_core *core, struct sm_err *err) {
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        sqlite3_stmt *s = NULL;
        if (sqlite3_prepare_v2(j->db, tables[t].select, -1, &s, NULL) != SQLITE_OK)
            return db_fail(j, "read", err);
        int rc;
        while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
            struct value row[COLUMNS_MAX];
            if (row_read(j, s, tables[t].kinds, row, err) != 0 ||
                record_load(j, core, &tables[t], row, err) != 0) {
                sqlite3_finalize(s);
                return -1;
            }
        }
        if (rc != SQLITE_DONE) db_fail(j, "read", err);
        sqlite3_finalize(s);
        if (rc != SQLITE_DONE) return -1;
    }
    return 0;
}
