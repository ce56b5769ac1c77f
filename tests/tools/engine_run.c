/* Runs the engine on one file, for the parity tests and the bench: `engine_run PIPELINE IMAGE OUT
 * [options]` writes the result and prints the draws as JSON; with `--serve` it does so for each
 * line of stdin (the same words, between tabs), because starting takes ten times as long as a
 * picture; with `--bench PASSES FILE...` it makes tensors of many files and prints the seconds of
 * each pass. */
#include "lib/limits.h"
#include "workers/engine.h"
#include "workers/ops/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct file {
    uint8_t *bytes;
    size_t n;
};

static struct sm_engine_request request = {0};
static unsigned flags;
static bool explain, serves;
static int passes;
static char draws[SM_MAX_DRAWS_BYTES];
static uint8_t *out;

static int read_file(const char *path, struct file *f) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) return -1;
    long n = ftell(file);
    rewind(file);
    *f = (struct file){.bytes = malloc((size_t)n + 1), .n = (size_t)n};
    int failed = f->bytes == NULL || fread(f->bytes, 1, f->n, file) != f->n;
    fclose(file);
    return failed ? -1 : 0;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fail(const struct sm_err *err) {
    fprintf(stderr, "engine_run: %s: %s\n", sm_code_word((int)err->code), err->text);
    return 1;
}

/* One line per pass, when a line comes in on stdin: so that a script alternates us with something
 * else. */
static int bench(struct sm_engine *e, char **paths, int n) {
    struct file *files = calloc((size_t)n, sizeof *files);
    struct sm_engine_result result;
    struct sm_err err;
    char line[8];
    for (int i = 0; i < n; i++)
        if (read_file(paths[i], &files[i]) != 0)
            return fprintf(stderr, "engine_run: cannot read '%s'\n", paths[i]), 1;
    for (int pass = 0; pass < passes; pass++) {
        if (fgets(line, sizeof line, stdin) == NULL) break;
        request.epoch = (uint32_t)pass;
        double begin = seconds();
        for (int i = 0; i < n; i++) {
            request.sample = (uint64_t)i;
            request.bytes = files[i].bytes;
            request.n_bytes = files[i].n;
            if (sm_engine_make(e, &request, out, SM_MAX_RESULT_BYTES, draws, &result, &err) != 0)
                return fail(&err);
        }
        printf("%.6f\n", seconds() - begin);
        fflush(stdout);
    }
    for (int i = 0; i < n; i++)
        free(files[i].bytes);
    free(files);
    return 0;
}

static int once(struct sm_engine *e, const char *image, const char *to, struct sm_err *err) {
    struct sm_engine_result result;
    struct file in;
    if (read_file(image, &in) != 0) return sm_fail_errno(err, "cannot read '%s'", image);
    request.bytes = in.bytes;
    request.n_bytes = in.n;
    int failed = sm_engine_make(e, &request, out, SM_MAX_RESULT_BYTES, draws, &result, err);
    free(in.bytes);
    if (failed) return -1;
    FILE *file = fopen(to, "wb");
    if (file == NULL || fwrite(out, 1, result.n_bytes, file) != result.n_bytes || fclose(file) != 0)
        return sm_fail_errno(err, "cannot write '%s'", to);
    return 0;
}

/* Takes the options out of argv; returns how many words are left. */
static int options(int argc, char **argv) {
    int n = 0;
    for (int i = 0; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "0";
        if (strcmp(argv[i], "--no-fuse") == 0)
            flags |= SM_ENGINE_NO_FUSE;
        else if (strcmp(argv[i], "--tensor") == 0)
            request.tensor = true;
        else if (strcmp(argv[i], "--original") == 0)
            request.original = true;
        else if (strcmp(argv[i], "--explain") == 0)
            explain = true;
        else if (strcmp(argv[i], "--serve") == 0)
            serves = true;
        else if (strcmp(argv[i], "--seed") == 0)
            request.seed = strtoull(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--epoch") == 0)
            request.epoch = (uint32_t)strtoul(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--sample") == 0)
            request.sample = strtoull(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--copy") == 0)
            request.copy = (uint32_t)strtoul(value, NULL, 10), i++;
        else if (strcmp(argv[i], "--bench") == 0)
            passes = atoi(value), i++;
        else
            argv[n++] = argv[i];
    }
    return n;
}

static int pipeline_once(char **words, struct sm_err *err) {
    struct sm_pipeline pipeline = {0};
    struct sm_engine *engine = NULL;
    int failed = sm_pipeline_load(&pipeline, words[0], sm_op_table(), err) != 0 ||
                 sm_engine_new(&engine, &pipeline, flags, err) != 0 ||
                 once(engine, words[1], words[2], err) != 0;
    sm_engine_free(&engine);
    sm_pipeline_release(&pipeline);
    return failed;
}

/* Answers each line with one: the draws, or {"error": text}. */
static int serve(void) {
    enum { WORDS = 32 };
    char *line = NULL, *words[WORDS];
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        int n = 0;
        for (char *word = strtok(line, "\t\n"); word != NULL && n < WORDS;
             word = strtok(NULL, "\t\n"))
            words[n++] = word;
        request = (struct sm_engine_request){0};
        flags = 0;
        struct sm_err err = {0};
        struct sm_buf answer;
        sm_buf_init(&answer, 1 << 16);
        if (options(n, words) != 3)
            sm_fail(&err, SM_E_USAGE, "a line is PIPELINE, IMAGE, OUT, options");
        if (err.code || pipeline_once(words, &err)) {
            sm_buf_text(&answer, "{\"error\": ");
            sm_buf_json(&answer, err.text);
            sm_buf_text(&answer, "}");
        }
        puts(err.code ? answer.data : draws);
        fflush(stdout);
        sm_buf_release(&answer);
    }
    free(line);
    return 0;
}

/* One pipeline, one picture or the bench. */
static int run(int n, char **words) {
    struct sm_pipeline pipeline = {0};
    struct sm_engine *engine = NULL;
    struct sm_err err = {0};
    int status;
    if (sm_pipeline_load(&pipeline, words[0], sm_op_table(), &err) != 0 ||
        sm_engine_new(&engine, &pipeline, flags, &err) != 0) {
        status = fail(&err);
    } else {
        if (explain) {
            struct sm_buf text;
            sm_buf_init(&text, 1 << 16);
            sm_engine_explain(engine, &text);
            fprintf(stderr, "%s%s\n", text.data, sm_engine_fingerprint());
            sm_buf_release(&text);
        }
        if (passes)
            status = bench(engine, words + 1, n - 1);
        else
            status = once(engine, words[1], words[2], &err) != 0 ? fail(&err) : puts(draws) == EOF;
    }
    sm_engine_free(&engine);
    sm_pipeline_release(&pipeline);
    return status;
}

int main(int argc, char **argv) {
    struct sm_err err = {0};
    int n = options(argc, argv), status;
    if (!serves && n < (passes ? 3 : 4)) {
        fprintf(
            stderr,
            "usage: engine_run PIPELINE IMAGE OUT [--seed N] [--epoch N] [--sample N] [--copy N] [--no-fuse] "
            "[--tensor] [--original] [--explain]\n       engine_run --serve\n       engine_run PIPELINE "
            "--bench PASSES IMAGE...\n");
        return 2;
    }
    out = malloc(SM_MAX_RESULT_BYTES);
    if (out == NULL || sm_engine_start(argv[0], &err) != 0)
        status = fail(&err);
    else
        status = serves ? serve() : run(n - 1, argv + 1);
    free(out);
    return status;
}
