/* Key files as an attacker or a hasty administrator would like them, and the list of who may
 * connect while it changes. */
#include "lib/keys.h"

#include "tests/unit/scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct scratch scratch;

static const char *path(const char *name) {
    return scratch_path(&scratch, name);
}

static int make_folder(void **state) {
    (void)state;
    unsetenv(SM_KEYS_ENV);
    scratch = scratch_make();
    return 0;
}

static int remove_folder(void **state) {
    (void)state;
    scratch_remove(&scratch);
    return 0;
}

static void read_text(const char *file, char text[4096]) {
    FILE *f = fopen(file, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, 4095, f);
    text[n] = 0;
    fclose(f);
}

static void write_text(const char *file, const char *text, mode_t mode) {
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    chmod(file, mode);
}

static void made(const char *name, char public_key[SM_KEY_TEXT]) {
    struct sm_err err;
    if (sm_keys_make(path(name), NULL, public_key, &err) != 0) fail_msg("%s", err.text);
}

static void a_secret_is_its_owners_alone_and_not_in_the_public_file(void **state) {
    (void)state;
    char public_key[SM_KEY_TEXT], text[4096];
    struct stat st;
    mode_t before = umask(0);
    made("a", public_key);
    umask(before);
    assert_int_equal(stat(path("a/secret.key"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(path("a/public.key"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    read_text(path("a/public.key"), text);
    assert_non_null(strstr(text, public_key));
    assert_null(strstr(text, "secret-key"));
    struct sm_keys *keys;
    struct sm_err err;
    assert_int_equal(sm_keys_load(path("a"), &keys, &err), 0);
    assert_string_equal(sm_keys_public(keys), public_key);
    assert_null(strstr(text, sm_keys_secret(keys)));
    assert_string_equal(sm_keys_server(keys), public_key); /* its own folder: its own broker */
    sm_keys_free(&keys);
    sm_keys_free(&keys);
}

static void keys_that_are_there_are_never_written_over(void **state) {
    (void)state;
    char public_key[SM_KEY_TEXT], other[SM_KEY_TEXT], before[4096], after[4096];
    struct sm_err err;
    made("a", public_key);
    read_text(path("a/secret.key"), before);
    assert_int_equal(sm_keys_make(path("a"), NULL, other, &err), -1);
    assert_int_equal(err.code, SM_E_BUSY);
    unlink(path("a/public.key")); /* also when only the secret is left, */
    assert_int_equal(sm_keys_make(path("a"), NULL, other, &err), -1);
    read_text(path("a/secret.key"), after);
    assert_string_equal(before, after);
    mkdir(path("b"), 0755); /* and not through a link */
    assert_int_equal(symlink(path("target"), path("b/secret.key")), 0);
    assert_int_equal(sm_keys_make(path("b"), NULL, other, &err), -1);
    assert_int_not_equal(access(path("target"), F_OK), 0);
}

static void a_secret_that_others_can_read_is_refused(void **state) {
    (void)state;
    char public_key[SM_KEY_TEXT];
    made("a", public_key);
    const mode_t modes[] = {0640, 0604, 0660, 0601};
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        struct sm_keys *keys;
        struct sm_err err;
        chmod(path("a/secret.key"), modes[i]);
        assert_int_equal(sm_keys_load(path("a"), &keys, &err), -1);
        assert_null(keys);
        assert_int_equal(err.code, SM_E_KEY);
        assert_non_null(strstr(err.text, "chmod 600"));
    }
}

static void a_server_key_that_others_can_change_is_refused(void **state) {
    (void)state;
    char public_key[SM_KEY_TEXT], text[4096];
    struct sm_keys *keys;
    struct sm_err err;
    made("a", public_key);
    made("b", public_key);
    read_text(path("b/public.key"), text);
    write_text(path("a/server.key"), text, 0664);
    assert_int_equal(sm_keys_load(path("a"), &keys, &err), -1);
    assert_int_equal(err.code, SM_E_KEY);
    chmod(path("a/server.key"), 0644);
    assert_int_equal(sm_keys_load(path("a"), &keys, &err), 0);
    assert_string_equal(sm_keys_server(keys), public_key);
    sm_keys_free(&keys);
}

static void files_that_are_no_keys_are_refused_and_not_repeated_in_the_message(void **state) {
    (void)state;
    char public_key[SM_KEY_TEXT], other[SM_KEY_TEXT], text[512];
    made("a", public_key);
    made("b", other);
    struct sm_keys *keys, *of_a;
    struct sm_err err;
    assert_int_equal(sm_keys_load(path("a"), &of_a, &err), 0);
    char mixed[512];
    snprintf(mixed, sizeof mixed, "public-key = \"%s\"\nsecret-key = \"%s\"\n", other,
             sm_keys_secret(of_a));
    snprintf(text, sizeof text, "public-key = \"%s\"\nsecret-key = \"%.39s\"\n", public_key,
             sm_keys_secret(of_a));
    const char *const bad[] = {"", "hello", "public-key = \"short\"", mixed, text};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text(path("a/secret.key"), bad[i], 0600);
        assert_int_equal(sm_keys_load(path("a"), &keys, &err), -1);
        assert_int_equal(err.code, SM_E_KEY);
        assert_null(strstr(err.text, sm_keys_secret(of_a)));
    }
    unlink(path("a/secret.key"));
    assert_int_equal(mkfifo(path("a/secret.key"), 0600), 0); /* and nobody waits for its writer */
    assert_int_equal(sm_keys_load(path("a"), &keys, &err), -1);
    unlink(path("a/secret.key"));
    assert_int_equal(sm_keys_load(path("a"), &keys, &err), -1);
    assert_non_null(strstr(err.text, "shardmill keygen"));
    sm_keys_free(&of_a);
}

static void certificates_of_czmq_and_pyzmq_are_read(void **state) {
    (void)state;
    char public_key[SM_KEY_TEXT], text[1024];
    struct sm_keys *keys, *again;
    struct sm_err err;
    made("a", public_key);
    assert_int_equal(sm_keys_load(path("a"), &keys, &err), 0);
    snprintf(text, sizeof text,
             "#   ****  Generated on 2023-05-01 12:00:00 by CZMQ  ****\n#   DO NOT PROVIDE THIS "
             "FILE TO OTHER USERS\n\nmetadata\n    name = \"x\"\ncurve\n    public-key = "
             "\"%s\"\n    secret-key = \"%s\"\n",
             public_key, sm_keys_secret(keys));
    write_text(path("a/secret.key"), text, 0400);
    assert_int_equal(sm_keys_load(path("a"), &again, &err), 0);
    assert_string_equal(sm_keys_secret(again), sm_keys_secret(keys));
    sm_keys_free(&keys);
    sm_keys_free(&again);
}

static void a_forked_child_has_no_secret(void **state) {
    (void)state;
    char public_key[SM_KEY_TEXT];
    struct sm_keys *keys;
    struct sm_err err;
    made("a", public_key);
    assert_int_equal(sm_keys_load(path("a"), &keys, &err), 0);
    pid_t child = fork();
    if (child == 0) _exit(sm_keys_secret(keys)[0] == 0 ? 0 : 1);
    int status = -1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(strlen(sm_keys_secret(keys)), SM_KEY_TEXT - 1);
    sm_keys_free(&keys);
}

static void the_environment_names_the_folder_when_nothing_else_does(void **state) {
    (void)state;
    char public_key[SM_KEY_TEXT];
    struct sm_keys *keys;
    struct sm_err err;
    made("a", public_key);
    assert_int_equal(sm_keys_load(NULL, &keys, &err), 0);
    assert_null(keys);
    setenv(SM_KEYS_ENV, path("a"), 1);
    assert_int_equal(sm_keys_load(NULL, &keys, &err), 0);
    assert_string_equal(sm_keys_public(keys), public_key);
    sm_keys_free(&keys);
    unsetenv(SM_KEYS_ENV);
}

static void joining_a_broker_is_trust_in_both_directions(void **state) {
    (void)state;
    char broker[SM_KEY_TEXT], trainer[SM_KEY_TEXT];
    struct sm_keys *keys;
    struct sm_allowed *allowed;
    struct sm_err err;
    made("broker", broker);
    assert_int_equal(sm_keys_make(path("trainer"), path("broker"), trainer, &err), 0);
    assert_int_equal(sm_keys_load(path("trainer"), &keys, &err), 0);
    assert_string_equal(sm_keys_server(keys), broker);
    sm_keys_free(&keys);
    assert_int_equal(sm_keys_load(path("broker"), &keys, &err), 0);
    assert_int_equal(sm_allowed_open(keys, &allowed, &err), 0);
    assert_true(sm_allowed_has(allowed, trainer));
    sm_allowed_free(&allowed);
    sm_keys_free(&keys);
}

static void a_key_is_allowed_as_long_as_its_file_is_there(void **state) {
    (void)state;
    char server[SM_KEY_TEXT], one[SM_KEY_TEXT], two[SM_KEY_TEXT], text[4096];
    struct sm_keys *keys;
    struct sm_allowed *allowed;
    struct sm_err err;
    made("s", server);
    made("one", one);
    made("two", two);
    assert_int_equal(sm_keys_load(path("s"), &keys, &err), 0);
    assert_int_equal(sm_allowed_open(keys, &allowed, &err), 0);
    assert_true(sm_allowed_has(allowed, server));
    assert_false(sm_allowed_has(allowed, one));
    read_text(path("one/public.key"), text);
    write_text(path("s/allowed/one.key"), text, 0644);
    read_text(path("two/public.key"), text);
    write_text(path("s/allowed/two.key"), text, 0666); /* anybody could have written it */
    write_text(path("s/allowed/README"), "not a key", 0644);
    struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}}; /* the folder has certainly changed */
    utimensat(AT_FDCWD, path("s/allowed"), old, 0);
    assert_true(sm_allowed_has(allowed, one));
    assert_false(sm_allowed_has(allowed, two));
    unlink(path("s/allowed/one.key"));
    assert_false(sm_allowed_has(allowed, one));
    sm_allowed_free(&allowed);
    chmod(path("s/allowed"), 0777);
    assert_int_equal(sm_allowed_open(keys, &allowed, &err), -1);
    assert_int_equal(err.code, SM_E_KEY);
    sm_keys_free(&keys);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_secret_is_its_owners_alone_and_not_in_the_public_file),
        TEST(keys_that_are_there_are_never_written_over),
        TEST(a_secret_that_others_can_read_is_refused),
        TEST(a_server_key_that_others_can_change_is_refused),
        TEST(files_that_are_no_keys_are_refused_and_not_repeated_in_the_message),
        TEST(certificates_of_czmq_and_pyzmq_are_read),
        TEST(a_forked_child_has_no_secret),
        TEST(the_environment_names_the_folder_when_nothing_else_does),
        TEST(joining_a_broker_is_trust_in_both_directions),
        TEST(a_key_is_allowed_as_long_as_its_file_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
