/* Key files: made, read and checked, and the list of who may connect. A secret stays in one page
 * of memory that is locked, left out of core dumps, not there after a fork, and wiped at the end
 * (libzmq's own copy in a socket is libzmq's). */
#include "lib/keys.h"

#include "lib/limits.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum {
    KEY_FILE_BYTES = 4096,
    READ_AGAIN_NS = 1000000000, /* a file changed in place does not change its folder */
    /* what others may have of a file, at most */
    OTHERS_READ = 077,
    OTHERS_WRITE = 022,
};

/* One page of its own. */
struct sm_keys {
    char secret[SM_KEY_TEXT], public[SM_KEY_TEXT], server[SM_KEY_TEXT];
    char dir[PATH_MAX - 256];
};
enum { KEYS_BYTES = 4096 };
_Static_assert(sizeof(struct sm_keys) <= KEYS_BYTES, "the keys fit their page");

struct sm_allowed {
    char dir[PATH_MAX], own[SM_KEY_TEXT];
    struct timespec changed, read; /* of the folder; when we read it */
    char (*keys)[SM_KEY_TEXT];     /* sorted */
    size_t n, max;
};

struct key_file {
    char secret[SM_KEY_TEXT], public[SM_KEY_TEXT]; /* "": it has none */
};

static int path_join(char path[PATH_MAX], const char *dir, const char *name, struct sm_err *err);
static int key_file_read(const char *path, int forbidden, struct key_file *fills,
                         struct sm_err *err);
static int key_file_write(const char *path, const char *public_key, const char *secret_key,
                          struct sm_err *err);

/* ---- making ---- */

/* The last part of a folder's path, as a name for the file that allows it. */
static const char *base_name(const char *path, char name[NAME_MAX + 1]) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    snprintf(name, NAME_MAX + 1, "%.*s", (int)(end - begin < 200 ? end - begin : 200),
             path + begin);
    return name;
}

static int folder_make(const char *path, struct sm_err *err) {
    if (mkdir(path, 0755) == 0 || errno == EEXIST) return 0;
    return sm_fail_errno(err, "cannot make the folder '%s'", path);
}

/* Trust in both directions: the peer gets the broker's key, the broker's folder gets the peer's. */
static int join_broker(const char *dir, const char *broker, const char *public_key,
                       struct sm_err *err) {
    char path[PATH_MAX], name[NAME_MAX + 1], file[NAME_MAX + 16];
    struct key_file theirs;
    if (path_join(path, broker, "public.key", err) != 0 ||
        key_file_read(path, OTHERS_WRITE, &theirs, err) != 0)
        return -1;
    if (path_join(path, dir, "server.key", err) != 0 ||
        key_file_write(path, theirs.public, NULL, err) != 0)
        return -1;
    snprintf(file, sizeof file, "allowed/%s.key", base_name(dir, name));
    if (path_join(path, broker, file, err) != 0) return -1;
    return key_file_write(path, public_key, NULL, err);
}

int sm_keys_make(const char *dir, const char *join, char public_key[SM_KEY_TEXT],
                 struct sm_err *err) {
    char secret[SM_KEY_TEXT], secret_path[PATH_MAX], public_path[PATH_MAX], allowed[PATH_MAX];
    struct stat there;
    if (path_join(secret_path, dir, "secret.key", err) != 0 ||
        path_join(public_path, dir, "public.key", err) != 0 ||
        path_join(allowed, dir, "allowed", err) != 0 || folder_make(dir, err) != 0)
        return -1;
    if (lstat(public_path, &there) == 0)
        return sm_fail(err, SM_E_BUSY,
                       "'%s' is there already and is not written over (hint: take another folder, "
                       "or move the old keys away)",
                       public_path);
    if (zmq_curve_keypair(public_key, secret) != 0)
        return sm_fail(err, SM_E_KEY, "cannot make keys: %s", zmq_strerror(errno));
    int rc = key_file_write(secret_path, public_key, secret, err);
    explicit_bzero(secret, sizeof secret);
    if (rc != 0) return -1;
    if (key_file_write(public_path, public_key, NULL, err) != 0) {
        unlink(secret_path);
        return -1;
    }
    if (folder_make(allowed, err) != 0) return -1;
    return join != NULL ? join_broker(dir, join, public_key, err) : 0;
}

static int write_all(int fd, const char *text, size_t n) {
    while (n > 0) {
        ssize_t w = write(fd, text, n);
        if (w < 0 && errno == EINTR) continue;
        if (w <= 0) return -1;
        text += w;
        n -= (size_t)w;
    }
    return fsync(fd);
}

static int key_file_write(const char *path, const char *public_key, const char *secret_key,
                          struct sm_err *err) {
    char text[512];
    int n = snprintf(text, sizeof text,
                     "# CURVE %s of shardmill (CZMQ's certificate format)\n"
                     "metadata\ncurve\n    public-key = \"%s\"\n",
                     secret_key != NULL ? "key pair: keep it secret" : "public key", public_key);
    if (secret_key != NULL)
        n += snprintf(text + n, sizeof text - (size_t)n, "    secret-key = \"%s\"\n", secret_key);
    mode_t mode = secret_key != NULL ? 0600 : 0644;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
    int rc = 0;
    if (fd < 0 && errno == EEXIST)
        rc = sm_fail(err, SM_E_BUSY,
                     "'%s' is there already and is not written over (hint: take another folder, or "
                     "move the old keys away)",
                     path);
    else if (fd < 0)
        rc = sm_fail_errno(err, "cannot make '%s'", path);
    else if (fchmod(fd, mode) != 0 || write_all(fd, text, (size_t)n) != 0) {
        rc = sm_fail_errno(err, "cannot write '%s'", path);
        unlink(path);
    }
    if (fd >= 0) close(fd);
    explicit_bzero(text, sizeof text);
    return rc;
}

/* ---- loading ---- */

bool sm_key_valid(const char *text) {
    uint8_t bytes[32];
    bool valid = strlen(text) == SM_KEY_TEXT - 1 && zmq_z85_decode(bytes, text) != NULL;
    explicit_bzero(bytes, sizeof bytes);
    return valid;
}

static int pair_load(const char *dir, struct sm_keys *keys, struct sm_err *err) {
    char path[PATH_MAX], derived[SM_KEY_TEXT] = "";
    struct key_file file = {0};
    int rc = -1;
    if (path_join(path, dir, "secret.key", err) == 0 &&
        key_file_read(path, OTHERS_READ, &file, err) == 0) {
        if (file.secret[0] == 0)
            sm_fail(err, SM_E_KEY, "'%s' has no secret key", path);
        else if (zmq_curve_public(derived, file.secret) != 0 || strcmp(derived, file.public) != 0)
            sm_fail(err, SM_E_KEY, "the two keys in '%s' do not belong together", path);
        else
            rc = 0;
        memcpy(keys->secret, file.secret, SM_KEY_TEXT);
        memcpy(keys->public, file.public, SM_KEY_TEXT);
    } else if (err != NULL && err->code == SM_E_MISSING)
        sm_fail(err, SM_E_KEY, "no key in '%s' (hint: shardmill keygen '%s')", dir, dir);
    explicit_bzero(&file, sizeof file);
    return rc;
}

static int server_load(const char *dir, struct sm_keys *keys, struct sm_err *err) {
    char path[PATH_MAX];
    struct key_file file;
    if (path_join(path, dir, "server.key", err) != 0) return -1;
    if (access(path, F_OK) != 0 && errno == ENOENT) return 0;
    if (key_file_read(path, OTHERS_WRITE, &file, err) != 0) return -1;
    memcpy(keys->server, file.public, SM_KEY_TEXT);
    explicit_bzero(&file, sizeof file);
    return 0;
}

int sm_keys_load(const char *dir, struct sm_keys **gives, struct sm_err *err) {
    *gives = NULL;
    if (dir == NULL || dir[0] == 0) dir = getenv(SM_KEYS_ENV);
    if (dir == NULL || dir[0] == 0) return 0;
    struct sm_keys *keys =
        mmap(NULL, KEYS_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (keys == MAP_FAILED) return sm_fail(err, SM_E_MEMORY, "no memory for keys");
    mlock(keys, KEYS_BYTES); /* these three are comfort: a machine that refuses them still works */
    madvise(keys, KEYS_BYTES, MADV_DONTDUMP);
    madvise(keys, KEYS_BYTES, MADV_WIPEONFORK);
    int rc = 0;
    if ((size_t)snprintf(keys->dir, sizeof keys->dir, "%s", dir) >= sizeof keys->dir)
        rc = sm_fail(err, SM_E_USAGE, "a path of more than %zu bytes", sizeof keys->dir - 1);
    if (rc == 0) rc = pair_load(dir, keys, err);
    if (rc == 0) rc = server_load(dir, keys, err);
    if (rc != 0) sm_keys_free(&keys);
    *gives = keys;
    return rc;
}

void sm_keys_free(struct sm_keys **keys) {
    if (*keys == NULL) return;
    explicit_bzero(*keys, KEYS_BYTES);
    munmap(*keys, KEYS_BYTES);
    *keys = NULL;
}

const char *sm_keys_dir(const struct sm_keys *keys) {
    return keys->dir;
}
const char *sm_keys_public(const struct sm_keys *keys) {
    return keys->public;
}
const char *sm_keys_secret(const struct sm_keys *keys) {
    return keys->secret;
}
const char *sm_keys_server(const struct sm_keys *keys) {
    return keys->server[0] != 0 ? keys->server : keys->public;
}

static int path_join(char path[PATH_MAX], const char *dir, const char *name, struct sm_err *err) {
    if (snprintf(path, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
        return sm_fail(err, SM_E_USAGE, "a path of more than %d bytes", PATH_MAX - 1);
    return 0;
}

/* `    public-key = "…"`: fills value when the line is about name. -1: it is, and is no key. */
static int line_take(const char *line, const char *name, char value[SM_KEY_TEXT]) {
    line += strspn(line, " \t");
    size_t n = strlen(name);
    if (strncmp(line, name, n) != 0) return 0;
    line += n;
    line += strspn(line, " \t");
    if (*line++ != '=') return 0;
    line += strspn(line, " \t");
    if (*line++ != '"') return -1;
    const char *end = strchr(line, '"');
    if (end == NULL || end - line != SM_KEY_TEXT - 1) return -1;
    memcpy(value, line, SM_KEY_TEXT - 1);
    value[SM_KEY_TEXT - 1] = 0;
    return sm_key_valid(value) ? 0 : -1;
}

static int key_file_parse(char *text, const char *path, struct key_file *fills,
                          struct sm_err *err) {
    int rc = 0;
    char *rest = text;
    for (char *line = strtok_r(text, "\r\n", &rest); line != NULL && rc == 0;
         line = strtok_r(NULL, "\r\n", &rest)) {
        rc = line_take(line, "public-key", fills->public);
        if (rc == 0) rc = line_take(line, "secret-key", fills->secret);
    }
    if (rc != 0 || fills->public[0] == 0)
        return sm_fail(err, SM_E_KEY,
                       "'%s' is not a key file (hint: shardmill keygen makes them: a line "
                       "public-key = \"40 characters\")",
                       path);
    return 0;
}

/* forbidden: the mode bits that it must not have. */
static int key_file_read(const char *path, int forbidden, struct key_file *fills,
                         struct sm_err *err) {
    char text[KEY_FILE_BYTES + 1];
    struct stat st;
    *fills = (struct key_file){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = -1;
    if (fd < 0 || fstat(fd, &st) != 0) {
        sm_fail_errno(err, "cannot read the key file '%s'", path);
    } else if (!S_ISREG(st.st_mode) || st.st_size > KEY_FILE_BYTES) {
        sm_fail(err, SM_E_KEY, "'%s' is not a key file", path);
    } else if ((st.st_mode & (mode_t)forbidden) != 0 ||
               (st.st_uid != geteuid() && st.st_uid != 0)) {
        sm_fail(err, SM_E_KEY, "others can %s the key file '%s' (mode %04o) (hint: chmod %s '%s')",
                forbidden == OTHERS_READ ? "read" : "change", path, (unsigned)st.st_mode & 07777,
                forbidden == OTHERS_READ ? "600" : "go-w", path);
    } else {
        ssize_t n = read(fd, text, KEY_FILE_BYTES);
        if (n < 0) sm_fail_errno(err, "cannot read the key file '%s'", path);
        text[n > 0 ? n : 0] = 0;
        if (n >= 0) rc = key_file_parse(text, path, fills, err);
    }
    if (fd >= 0) close(fd);
    explicit_bzero(text, sizeof text);
    if (rc != 0) explicit_bzero(fills, sizeof *fills);
    return rc;
}

/* ---- who may connect ---- */

int sm_allowed_open(const struct sm_keys *keys, struct sm_allowed **gives, struct sm_err *err) {
    struct stat st;
    struct sm_allowed *a = calloc(1, sizeof *a);
    *gives = NULL;
    if (a == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    memcpy(a->own, keys->public, SM_KEY_TEXT);
    int rc = path_join(a->dir, keys->dir, "allowed", err);
    if (rc == 0 && (stat(a->dir, &st) != 0 || !S_ISDIR(st.st_mode)))
        rc = sm_fail(err, SM_E_KEY,
                     "no folder '%s' (hint: it holds the public.key of each who may connect)",
                     a->dir);
    else if (rc == 0 && (st.st_mode & OTHERS_WRITE) != 0)
        rc = sm_fail(err, SM_E_KEY,
                     "others can write to the folder '%s', and so let anyone in (hint: chmod go-w "
                     "'%s')",
                     a->dir, a->dir);
    if (rc != 0)
        sm_allowed_free(&a);
    else
        *gives = a;
    return rc;
}

static int key_compare(const void *a, const void *b) {
    return strcmp(a, b);
}

static void allowed_add(struct sm_allowed *a, const char key[SM_KEY_TEXT]) {
    if (a->n == a->max) {
        size_t max = a->max == 0 ? 64 : a->max * 2;
        void *more = realloc(a->keys, max * sizeof *a->keys);
        if (more == NULL) return; /* whoever is not in the list is not let in */
        a->keys = more;
        a->max = max;
    }
    memcpy(a->keys[a->n++], key, SM_KEY_TEXT);
}

/* Files that are no keys, and those that others can change, let nobody in. */
static void allowed_read(struct sm_allowed *a) {
    a->n = 0;
    DIR *dir = opendir(a->dir);
    if (dir == NULL) return;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL && a->n < SM_MAX_ALLOWED_KEYS) {
        char path[PATH_MAX];
        struct key_file file;
        if (entry->d_name[0] == '.' || path_join(path, a->dir, entry->d_name, NULL) != 0) continue;
        if (key_file_read(path, OTHERS_WRITE, &file, NULL) != 0) continue;
        allowed_add(a, file.public);
        explicit_bzero(&file, sizeof file);
    }
    closedir(dir);
    if (a->n > 0) qsort(a->keys, a->n, sizeof *a->keys, key_compare);
}

static void allowed_refresh(struct sm_allowed *a) {
    struct stat st;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (stat(a->dir, &st) != 0) st.st_mtim = (struct timespec){0};
    int64_t age =
        (int64_t)(now.tv_sec - a->read.tv_sec) * 1000000000 + now.tv_nsec - a->read.tv_nsec;
    if (age < READ_AGAIN_NS && st.st_mtim.tv_sec == a->changed.tv_sec &&
        st.st_mtim.tv_nsec == a->changed.tv_nsec)
        return;
    a->changed = st.st_mtim;
    a->read = now;
    allowed_read(a);
}

bool sm_allowed_has(struct sm_allowed *a, const char key[SM_KEY_TEXT]) {
    allowed_refresh(a);
    if (strcmp(key, a->own) == 0) return true;
    return a->n > 0 && bsearch(key, a->keys, a->n, sizeof *a->keys, key_compare) != NULL;
}

const char *sm_allowed_dir(const struct sm_allowed *a) {
    return a->dir;
}

void sm_allowed_free(struct sm_allowed **a) {
    if (*a == NULL) return;
    free((*a)->keys);
    free(*a);
    *a = NULL;
}
