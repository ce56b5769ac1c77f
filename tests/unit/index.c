/* The sources and the index: which files are samples, in which order, what an unsound dataset gets,
 * and that nothing in a damaged index is believed. */
#include "lib/fs.h"
#include "tests/unit/scratch.h"
#include "workers/sources/source.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

#include <cmocka.h>

/* The next reads fail, in front of libc's. */
static int reads_to_fail, reads_failed;

ssize_t pread(int fd, void *out, size_t n, off_t at) {
    if (reads_to_fail > 0) {
        reads_to_fail--;
        reads_failed++;
        errno = EIO;
        return -1;
    }
    return syscall(SYS_pread64, fd, out, n, at);
}

static struct sm_pipeline_source source_of(int format, const char *path) {
    return (struct sm_pipeline_source){.format = format, .path = path};
}

static struct sm_index *build(const struct scratch *s, int format, const char *name) {
    struct sm_err err = {0};
    struct sm_index *index = NULL;
    char data[512];
    snprintf(data, sizeof data, "%s/%s", s->dir, name);
    struct sm_pipeline_source source = source_of(format, data);
    if (sm_index_build(&source, scratch_path(s, "index"), &err) != 0) fail_msg("%s", err.text);
    if (sm_index_open(&index, scratch_path(s, "index"), &err) != 0) fail_msg("%s", err.text);
    return index;
}

/* The error that a dataset gets. */
static struct sm_err refusal(const struct scratch *s, int format, const char *name) {
    struct sm_err err = {0};
    char data[512];
    snprintf(data, sizeof data, "%s/%s", s->dir, name);
    struct sm_pipeline_source source = source_of(format, data);
    assert_int_equal(sm_index_build(&source, scratch_path(s, "index"), &err), -1);
    assert_int_equal(access(scratch_path(s, "index"), F_OK), -1);
    return err;
}

static void assert_says(const struct sm_err *err, int code, const char *part) {
    if (strstr(err->text, part) == NULL) fail_msg("'%s' is not in: %s", part, err->text);
    assert_string_equal(sm_code_word(err->code), sm_code_word(code));
}

static void a_folder_yields_its_images_sorted_by_path_as_bytes(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "d/dog/b.JPG", "12");
    scratch_text(&s, "d/dog/deep/er/a.png", "1");
    scratch_text(&s, "d/dog/Z.webp", "1");
    scratch_text(&s, "d/cat.small/x.jpeg", "123");
    scratch_text(&s, "d/cat/x.jpg", "no image, but called one");
    scratch_text(&s, "d/cat/notes.txt", "1");
    scratch_text(&s, "d/cat/.hidden.jpg", "1");
    scratch_text(&s, "d/.git/x.jpg", "1");
    scratch_text(&s, "d/top.jpg", "1");
    scratch_text(&s, "d/dog/anim.gif", "1");
    struct sm_index *x = build(&s, SM_SOURCE_FOLDER, "d");
    static const char *const want[] = {"cat.small/x.jpeg", "cat/x.jpg", "dog/Z.webp", "dog/b.JPG",
                                       "dog/deep/er/a.png"};
    static const uint32_t label[] = {1, 0, 2, 2, 2};
    assert_int_equal(sm_index_samples(x), 5);
    for (uint64_t i = 0; i < 5; i++) {
        struct sm_entry e = sm_index_entry(x, i);
        assert_string_equal(e.file, want[i]);
        assert_int_equal(e.label, label[i]);
        assert_null(e.member);
    }
    assert_int_equal(sm_index_entry(x, 3).length, 2);
    assert_string_equal(sm_index_class(x, 0), "cat");
    assert_string_equal(sm_index_class(x, 1), "cat.small");
    assert_int_equal(sm_index_class_samples(x, 2), 3);
    for (uint64_t k = 0; k < 3; k++) {
        assert_int_equal(sm_index_class_sample(x, 2, k), 2 + k);
        assert_int_equal(sm_index_class_rank(x, 2 + k), k);
    }
    assert_int_equal(sm_index_ignored(x), 3); /* notes.txt, top.jpg, anim.gif */
    sm_index_close(&x);
    scratch_remove(&s);
}

static void the_order_of_making_files_leaves_no_trace_in_the_index(void **state) {
    (void)state;
    void *bytes[2];
    size_t n[2];
    for (int turn = 0; turn < 2; turn++) {
        struct scratch s = scratch_make();
        for (int i = 0; i < 200; i++) {
            char name[64];
            int k = turn == 0 ? i : 199 - i;
            snprintf(name, sizeof name, "d/class%d/%x-picture.jpg", k % 7, k * 7919);
            scratch_text(&s, name, name);
            struct timespec when[2] = {{1000 + k, 0}, {1000 + k, 5}};
            assert_int_equal(utimensat(AT_FDCWD, scratch_path(&s, name), when, 0), 0);
        }
        struct sm_index *x = build(&s, SM_SOURCE_FOLDER, "d");
        sm_index_close(&x);
        bytes[turn] = scratch_read(scratch_path(&s, "index"), &n[turn]);
        scratch_remove(&s);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    free(bytes[0]);
    free(bytes[1]);
}

static void links_to_files_are_followed_and_loops_of_folders_end(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "elsewhere.bin", "12345");
    scratch_text(&s, "d/cat/a.jpg", "1");
    assert_int_equal(symlink("../../elsewhere.bin", scratch_path(&s, "d/cat/b.jpg")), 0);
    assert_int_equal(symlink("..", scratch_path(&s, "d/cat/up")), 0);
    struct sm_index *x = build(&s, SM_SOURCE_FOLDER, "d");
    assert_int_equal(sm_index_samples(x), 2);
    assert_int_equal(sm_index_entry(x, 1).length, 5);
    sm_index_close(&x);
    scratch_remove(&s);
}

static void a_dataset_that_cannot_be_used_says_why(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    struct sm_err err = refusal(&s, SM_SOURCE_FOLDER, "nowhere");
    assert_says(&err, SM_E_MISSING, "nowhere");
    assert_int_equal(mkdir(scratch_path(&s, "bare"), 0777), 0);
    err = refusal(&s, SM_SOURCE_FOLDER, "bare");
    assert_says(&err, SM_E_DATASET, "no sub-folders");
    scratch_text(&s, "none/cat/readme.txt", "1");
    err = refusal(&s, SM_SOURCE_FOLDER, "none");
    assert_says(&err, SM_E_DATASET, "1 other files");
    scratch_text(&s, "half/cat/a.jpg", "1");
    assert_int_equal(mkdir(scratch_path(&s, "half/dog"), 0777), 0);
    err = refusal(&s, SM_SOURCE_FOLDER, "half");
    assert_says(&err, SM_E_DATASET, "class 'dog' has no image");
    assert_int_equal(symlink("gone", scratch_path(&s, "half/dog/b.jpg")), 0);
    err = refusal(&s, SM_SOURCE_FOLDER, "half");
    assert_says(&err, SM_E_DATASET,
                "class 'dog' has no image"); /* a link that leads nowhere is none */
    scratch_remove(&s);
}

static void a_list_takes_its_last_field_as_the_label(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "a b.jpg", "1");
    scratch_text(&s, "sub/c.png", "12");
    scratch_text(&s, "z.bin", "123");
    scratch_text(&s, "list.txt",
                 "# a comment\n\nz.bin dog\r\na b.jpg\tbig cat\n  sub/c.png   dog  \nz.bin\tcat");
    struct sm_index *x = build(&s, SM_SOURCE_LIST, "list.txt");
    assert_int_equal(sm_index_samples(x), 4);
    assert_string_equal(sm_index_entry(x, 0).file, "a b.jpg");
    assert_string_equal(sm_index_class(x, sm_index_entry(x, 0).label), "big cat");
    assert_string_equal(sm_index_entry(x, 1).file, "sub/c.png");
    assert_string_equal(sm_index_class(x, sm_index_entry(x, 1).label), "dog");
    assert_string_equal(sm_index_class(x, sm_index_entry(x, 2).label), "cat");
    assert_string_equal(sm_index_class(x, sm_index_entry(x, 3).label), "dog");
    sm_index_close(&x);
    scratch_remove(&s);
}

static void a_list_keeps_numbers_as_class_indices(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    for (int i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d.jpg", i);
        scratch_text(&s, name, "1");
    }
    scratch_text(&s, "list", "0.jpg 10\n1.jpg 9\n2.jpg 0\n");
    struct sm_index *x = build(&s, SM_SOURCE_LIST, "list");
    assert_int_equal(sm_index_classes(x), 11);
    assert_int_equal(sm_index_entry(x, 0).label, 10);
    assert_int_equal(sm_index_entry(x, 1).label, 9);
    assert_string_equal(sm_index_class(x, 10), "10");
    assert_string_equal(sm_index_class(x, 5), "5");
    assert_int_equal(sm_index_class_samples(x, 5), 0);
    sm_index_close(&x);
    scratch_text(&s, "huge", "0.jpg 4294967295\n");
    struct sm_err err = {0};
    struct sm_pipeline_source source = source_of(SM_SOURCE_LIST, scratch_path(&s, "huge"));
    assert_int_equal(sm_index_build(&source, scratch_path(&s, "index2"), &err), -1);
    assert_says(&err, SM_E_DATASET, "must be below");
    scratch_remove(&s);
}

static void a_bad_line_of_a_list_is_named_by_its_number(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "a.jpg", "1");
    scratch_text(&s, "l1", "a.jpg cat\na.jpg\n");
    struct sm_err err = refusal(&s, SM_SOURCE_LIST, "l1");
    assert_says(&err, SM_E_DATASET, "l1:2:");
    scratch_text(&s, "l2", "a.jpg cat\n\n# x\nb.jpg cat\n");
    err = refusal(&s, SM_SOURCE_LIST, "l2");
    assert_says(&err, SM_E_MISSING, "l2:4:");
    char *longest = malloc(20000);
    memset(longest, 'x', 19999);
    longest[19999] = 0;
    scratch_text(&s, "l3", longest);
    err = refusal(&s, SM_SOURCE_LIST, "l3");
    assert_says(&err, SM_E_DATASET, "l3:1:");
    free(longest);
    err = refusal(&s, SM_SOURCE_LIST, "l4");
    assert_says(&err, SM_E_MISSING, "l4");
    scratch_remove(&s);
}

/* Runs a Python program that writes tars in the scratch folder. */
static void python(const struct scratch *s, const char *program) {
    scratch_text(s, "make.py", program);
    char command[1024];
    snprintf(command, sizeof command, "cd %s && /usr/bin/python3 make.py", s->dir);
    assert_int_equal(system(command), 0);
}

static const char PREAMBLE[] = "import tarfile, io, json\n"
                               "def add(t, name, data=b'', **kw):\n"
                               "    i = tarfile.TarInfo(name); i.size = len(data)\n"
                               "    for k, v in kw.items(): setattr(i, k, v)\n"
                               "    t.addfile(i, io.BytesIO(data))\n";

static void python_tar(const struct scratch *s, const char *body) {
    char program[4096];
    snprintf(program, sizeof program, "%s%s", PREAMBLE, body);
    python(s, program);
}

static void shards_are_indexed_by_offset_and_read_back(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    python_tar(
        &s,
        "long = 'd/' * 80 + 'k' * 90\n"
        "for n, f in enumerate([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]):\n"
        "    t = tarfile.open('x-%02d.tar' % (n + 8), 'w', format=f)\n"
        "    t.addfile((lambda i: (setattr(i, 'type', tarfile.DIRTYPE), i)[1])(tarfile.TarInfo('d')))\n"
        "    add(t, 'b.jpg', b'B%d' % n); add(t, 'b.cls', b'7\\n')\n"
        "    add(t, 'a.json', json.dumps({'label': 3}).encode()); add(t, 'a.PNG', b'A' * 1000)\n"
        "    add(t, 'text.txt', b'x')\n"
        "    if f != tarfile.USTAR_FORMAT:\n"
        "        add(t, long + '.webp', b'long'); add(t, long + '.cls', b'0')\n"
        "    t.close()\n");
    struct sm_index *x = build(&s, SM_SOURCE_WEBDATASET, "x-{08..10}.tar");
    assert_int_equal(sm_index_samples(x), 8);
    assert_int_equal(sm_index_classes(x), 8);
    assert_int_equal(sm_index_ignored(x), 3);
    struct sm_reader *r = sm_reader_new(s.dir);
    struct sm_err err = {0};
    char bytes[2000];
    struct sm_entry a = sm_index_entry(x, 0), b = sm_index_entry(x, 4), c = sm_index_entry(x, 7);
    assert_string_equal(a.file, "x-08.tar");
    assert_string_equal(a.member, "a");
    assert_int_equal(a.length, 1000);
    assert_int_equal(sm_reader_read(r, &a, bytes, sizeof bytes, &err), 0);
    assert_true(bytes[0] == 'A' && bytes[999] == 'A');
    assert_string_equal(b.member,
                        "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/"
                        "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/"
                        "d/d/d/d/d/d/d/d/kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
                        "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk");
    assert_int_equal(sm_reader_read(r, &c, bytes, sizeof bytes, &err), 0);
    assert_memory_equal(bytes, "long", 4);
    assert_int_equal(sm_reader_read(r, &a, bytes, 999, &err), -1);
    assert_says(&err, SM_E_TOO_LARGE, "x-08.tar!a");
    sm_reader_free(&r);
    sm_index_close(&x);
    assert_int_equal(unlink(scratch_path(&s, "x-09.tar")), 0);
    assert_int_equal(unlink(scratch_path(&s, "index")), 0);
    err = refusal(&s, SM_SOURCE_WEBDATASET, "x-{08..10}.tar");
    assert_says(&err, SM_E_MISSING, "x-09.tar");
    x = build(&s, SM_SOURCE_WEBDATASET, "");
    assert_int_equal(sm_index_samples(x), 5);
    sm_index_close(&x);
    scratch_remove(&s);
}

static void an_unsound_tar_is_refused_by_name_and_offset(void **state) {
    (void)state;
    static const struct {
        const char *make, *says;
    } cases[] = {
        {"add(t, '/abs.jpg', b'x')", "absolute"},
        {"add(t, 'a/../../x.jpg', b'x')", "'..'"},
        {"add(t, 'x.jpg', type=tarfile.SYMTYPE, linkname='y')", "a link"},
        {"add(t, 'x.jpg', type=tarfile.LNKTYPE, linkname='y')", "a link"},
        {"add(t, 'x.jpg', type=tarfile.CHRTYPE)", "neither file nor folder"},
        {"add(t, 'x.jpg', type=tarfile.FIFOTYPE)", "neither file nor folder"},
        {"[(add(t, k + '.jpg', b'x'), add(t, k + '.cls', b'1')) for k in 'aba']",
         "'a' is there twice"},
        {"add(t, 'a.jpg', b'x'); add(t, 'a.jpg', b'y'); add(t, 'a.cls', b'1')", "is there twice"},
        {"add(t, 'ok.jpg', b'x' * 600); add(t, 'ok.txt', b'1')", "offset 0: 'ok' has no label"},
        {"add(t, 'a.jpg', b'x'); add(t, 'a.json', b'{\"class\": ')", "is not JSON"},
        {"add(t, 'a.jpg', b'x'); add(t, 'a.cls', b'two\\nlines')", "no label of one line"},
        {"add(t, 'a.jpg', b'x', pax_headers={'comment': 'c' * 70000})",
         "extended header that is too long"},
        {"add(t, 'a.jpg', b'x', pax_headers={'GNU.sparse.map': '0,1'})", "sparse"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct scratch s = scratch_make();
        char program[1024];
        snprintf(program, sizeof program, "t = tarfile.open('t.tar', 'w')\n%s\nt.close()\n",
                 cases[i].make);
        python_tar(&s, program);
        struct sm_err err = refusal(&s, SM_SOURCE_WEBDATASET, "t.tar");
        assert_says(&err, SM_E_DATASET, cases[i].says);
        assert_non_null(strstr(err.text, "t.tar' at offset"));
        scratch_remove(&s);
    }
}

static void a_tar_cut_or_changed_anywhere_is_an_error_or_the_same(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    python_tar(&s,
               "t = tarfile.open('good.tar', 'w', format=tarfile.PAX_FORMAT)\n"
               "for k in 'abc':\n"
               "    add(t, k + '\\u00e4.jpg', k.encode() * 700); add(t, k + '\\u00e4.cls', b'1')\n"
               "t.close()\n");
    size_t n;
    uint8_t *good = scratch_read(scratch_path(&s, "good.tar"), &n);
    struct sm_pipeline_source source = source_of(SM_SOURCE_WEBDATASET, NULL);
    char bad[300], index[300];
    snprintf(bad, sizeof bad, "%s/bad.tar", s.dir);
    snprintf(index, sizeof index, "%s/i", s.dir);
    source.path = bad;
    size_t members_end = n; /* python pads with zeros to 10240 */
    while (members_end > 0 && good[members_end - 1] == 0)
        members_end--;
    members_end = (members_end + 511) / 512 * 512;
    for (size_t cut = 0; cut < members_end + 512; cut += 37) {
        scratch_write(&s, "bad.tar", good, cut);
        struct sm_err err = {0};
        assert_int_equal(sm_index_build(&source, index, &err), -1);
        assert_true(err.code == SM_E_DATASET && err.text[0] != 0);
    }
    int found = 0;
    for (size_t at = 0; at < members_end; at += 11) {
        uint8_t was = good[at];
        good[at] ^= 0x80;
        scratch_write(&s, "bad.tar", good, n);
        struct sm_err err = {0};
        found += sm_index_build(&source, index, &err) != 0;
        good[at] = was;
    }
    assert_true(found > 100);
    free(good);
    scratch_remove(&s);
}

static void a_damaged_index_is_never_opened(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "d/a/1.jpg", "x");
    scratch_text(&s, "d/b/2.jpg", "y");
    struct sm_index *x = build(&s, SM_SOURCE_FOLDER, "d");
    sm_index_close(&x);
    size_t n;
    uint8_t *bytes = scratch_read(scratch_path(&s, "index"), &n);
    for (size_t bit = 0; bit < n * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(sm_index_open_bytes(&x, bytes, n, NULL), -1);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < n; cut++)
        assert_int_equal(sm_index_open_bytes(&x, bytes, cut, NULL), -1);
    assert_int_equal(sm_index_open_bytes(&x, bytes, n, NULL), 0);
    sm_index_close(&x);
    free(bytes);
    scratch_remove(&s);
}

static void a_file_that_changed_after_indexing_is_named(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "d/a/1.jpg", "first");
    scratch_text(&s, "d/a/2.jpg", "second");
    struct sm_index *x = build(&s, SM_SOURCE_FOLDER, "d");
    struct sm_reader *r = sm_reader_new(scratch_path(&s, "d"));
    struct sm_entry one = sm_index_entry(x, 0), two = sm_index_entry(x, 1);
    struct sm_err err = {0};
    char bytes[64];
    assert_int_equal(sm_reader_read(r, &one, bytes, sizeof bytes, &err), 0);
    assert_memory_equal(bytes, "first", 5);
    scratch_text(&s, "d/a/1.jpg", "longer than first");
    assert_int_equal(sm_reader_read(r, &one, bytes, sizeof bytes, &err), -1);
    assert_says(&err, SM_E_CHANGED, "a/1.jpg");
    assert_int_equal(unlink(scratch_path(&s, "d/a/2.jpg")), 0);
    assert_int_equal(sm_reader_read(r, &two, bytes, sizeof bytes, &err), -1);
    assert_says(&err, SM_E_CHANGED, "a/2.jpg");
    sm_reader_free(&r);
    sm_index_close(&x);
    scratch_remove(&s);
}

static void a_checksum_finds_a_flipped_bit_that_keeps_size_and_time(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "d/a/1.jpg", "bytes");
    struct sm_err err = {0};
    struct sm_pipeline_source source = source_of(SM_SOURCE_FOLDER, scratch_path(&s, "d"));
    source.checksum = true;
    assert_int_equal(sm_index_build(&source, scratch_path(&s, "index"), &err), 0);
    struct sm_index *x;
    assert_int_equal(sm_index_open(&x, scratch_path(&s, "index"), &err), 0);
    struct sm_entry e = sm_index_entry(x, 0);
    struct sm_reader *r = sm_reader_new(scratch_path(&s, "d"));
    char bytes[64];
    assert_int_equal(sm_reader_read(r, &e, bytes, sizeof bytes, &err), 0);
    struct stat st;
    assert_int_equal(stat(scratch_path(&s, "d/a/1.jpg"), &st), 0);
    scratch_text(&s, "d/a/1.jpg", "bytez");
    struct timespec when[2] = {st.st_atim, st.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, scratch_path(&s, "d/a/1.jpg"), when, 0), 0);
    assert_int_equal(sm_reader_read(r, &e, bytes, sizeof bytes, &err), -1);
    assert_says(&err, SM_E_CHECKSUM, "a/1.jpg");
    sm_reader_free(&r);
    sm_index_close(&x);
    scratch_remove(&s);
}

static void with_checksums_a_file_that_was_only_touched_is_the_same_file(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    struct sm_err err = {0};
    char digest[SM_XXH_HEX], bytes[64];
    const struct timespec when[2] = {{5, 0}, {5, 7}};
    char folder[512];
    scratch_text(&s, "d/a/1.jpg", "bytes");
    snprintf(folder, sizeof folder, "%s", scratch_path(&s, "d"));
    struct sm_pipeline_source source = source_of(SM_SOURCE_FOLDER, folder);
    source.checksum = true;
    struct sm_index *x;
    struct sm_reader *r = sm_reader_new(scratch_path(&s, "d"));
    for (int i = 0; i < 2; i++) {
        if (i == 1) sm_index_close(&x);
        assert_int_equal(sm_index_build(&source, scratch_path(&s, "index"), &err), 0);
        assert_int_equal(sm_index_open(&x, scratch_path(&s, "index"), &err), 0);
        struct sm_entry e = sm_index_entry(x, 0);
        assert_true(e.mtime_ns == (i == 0 ? e.mtime_ns : 5000000007));
        if (i == 1) assert_string_equal(sm_index_digest(x), digest);
        strcpy(digest, sm_index_digest(x));
        if (i == 0) utimensat(AT_FDCWD, scratch_path(&s, "d/a/1.jpg"), when, 0);
        assert_int_equal(sm_reader_read(r, &e, bytes, sizeof bytes, &err), 0);
        scratch_text(&s, "d/a/1.jpg", i == 0 ? "bytes" : "other");
        if (i == 0) utimensat(AT_FDCWD, scratch_path(&s, "d/a/1.jpg"), when, 0);
    }
    struct sm_entry e = sm_index_entry(x, 0);
    assert_int_equal(sm_reader_read(r, &e, bytes, sizeof bytes, &err), -1);
    assert_says(&err, SM_E_CHANGED, "a/1.jpg");
    sm_reader_free(&r);
    sm_index_close(&x);
    scratch_remove(&s);
}

static void
a_read_error_that_may_pass_is_tried_again_and_never_charged_to_the_sample(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "d/a/1.jpg", "bytes");
    struct sm_index *x = build(&s, SM_SOURCE_FOLDER, "d");
    struct sm_reader *r = sm_reader_new(scratch_path(&s, "d"));
    struct sm_entry e = sm_index_entry(x, 0);
    struct sm_err err = {0};
    char bytes[16];
    reads_to_fail = 2;
    assert_int_equal(sm_reader_read(r, &e, bytes, sizeof bytes, &err), 0);
    assert_memory_equal(bytes, "bytes", 5);
    assert_int_equal(reads_failed, 2);
    reads_to_fail = 1000;
    assert_int_equal(sm_reader_read(r, &e, bytes, sizeof bytes, &err), -1);
    reads_to_fail = 0;
    assert_true(reads_failed > 4 && reads_failed < 20);
    assert_says(&err, SM_E_IO, "a/1.jpg");
    assert_false(sm_code_charges_sample(err.code));
    sm_reader_free(&r);
    sm_index_close(&x);
    scratch_remove(&s);
}

static void the_dataset_digest_ignores_times_but_not_names_or_sizes(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    scratch_text(&s, "d/a/1.jpg", "x");
    char digest[4][SM_XXH_HEX];
    for (int i = 0; i < 4; i++) {
        struct timespec when[2] = {{5, 0}, {5, i == 1 ? 1 : 0}};
        if (i == 2) scratch_text(&s, "d/a/1.jpg", "xy");
        if (i == 3) assert_int_equal(rename(scratch_path(&s, "d/a"), scratch_path(&s, "d/b")), 0);
        if (i < 2) utimensat(AT_FDCWD, scratch_path(&s, "d/a/1.jpg"), when, 0);
        struct sm_index *x = build(&s, SM_SOURCE_FOLDER, "d");
        strcpy(digest[i], sm_index_dataset_digest(x));
        sm_index_close(&x);
    }
    assert_string_equal(digest[0], digest[1]);
    assert_string_not_equal(digest[1], digest[2]);
    assert_string_not_equal(digest[2], digest[3]);
    scratch_remove(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_yields_its_images_sorted_by_path_as_bytes),
        cmocka_unit_test(the_order_of_making_files_leaves_no_trace_in_the_index),
        cmocka_unit_test(links_to_files_are_followed_and_loops_of_folders_end),
        cmocka_unit_test(a_dataset_that_cannot_be_used_says_why),
        cmocka_unit_test(a_list_takes_its_last_field_as_the_label),
        cmocka_unit_test(a_list_keeps_numbers_as_class_indices),
        cmocka_unit_test(a_bad_line_of_a_list_is_named_by_its_number),
        cmocka_unit_test(shards_are_indexed_by_offset_and_read_back),
        cmocka_unit_test(an_unsound_tar_is_refused_by_name_and_offset),
        cmocka_unit_test(a_tar_cut_or_changed_anywhere_is_an_error_or_the_same),
        cmocka_unit_test(a_damaged_index_is_never_opened),
        cmocka_unit_test(a_file_that_changed_after_indexing_is_named),
        cmocka_unit_test(a_checksum_finds_a_flipped_bit_that_keeps_size_and_time),
        cmocka_unit_test(with_checksums_a_file_that_was_only_touched_is_the_same_file),
        cmocka_unit_test(a_read_error_that_may_pass_is_tried_again_and_never_charged_to_the_sample),
        cmocka_unit_test(the_dataset_digest_ignores_times_but_not_names_or_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
