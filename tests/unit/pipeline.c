/* The pipeline file: what recipes mean, where each mistake is shown, and that no bytes, however
 * broken, do harm. The ops here are a table of the test's own, so that a mistake in an op cannot
 * hide one in the language. */
#include "pipelines/lang/pipeline.h"
#include "lib/limits.h"
#include "workers/ops/op.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* --- a few ops ------------------------------------------------------------------------------ */

struct knobs {
    struct sm_nums a, b, c, d, e;
    double p;
    int word;
    int64_t n;
    bool flag;
};

static const char *const filters[] = {"nearest", "bilinear", "bicubic", NULL};
#define NUMS(NAME, AT, DFLT, HI, LO_N, HI_N)                                                    \
    {                                                                                           \
        .name = NAME, .type = SM_T_NUMS, .offset = offsetof(struct knobs, AT), .dflt = DFLT,    \
        .min = 0, .max = HI, .count_min = LO_N, .count_max = HI_N, .null_ok = true, .doc = NAME \
    }
#define P \
    { .name = "p", .type = SM_T_NUM, .offset = offsetof(struct knobs, p), .dflt = "0.5", .max = 1 }
#define FILTER                                                                              \
    {                                                                                       \
        .name = "interpolation", .type = SM_T_ENUM, .offset = offsetof(struct knobs, word), \
        .dflt = "bilinear", .choices = filters                                              \
    }
#define FLAG(NAME) \
    { .name = NAME, .type = SM_T_BOOL, .offset = offsetof(struct knobs, flag), .dflt = "true" }
#define SIZE                                                                                      \
    {                                                                                             \
        .name = "size", .type = SM_T_NUMS, .offset = offsetof(struct knobs, a), .min = 1,         \
        .max = 32768, .count_min = 1, .count_max = 2, .integral = true, .doc = "height and width" \
    }

static const struct sm_param size_only[] = {SIZE};
static const struct sm_param resize[] = {SIZE, FILTER, FLAG("antialias")};
static const struct sm_param crop[] = {SIZE, NUMS("padding", b, "null", 1000, 2, 4)};
static const struct sm_param rrc[] = {SIZE, NUMS("scale", b, "[0.08, 1.0]", 1, 2, 2),
                                      NUMS("ratio", c, "[0.75, 1.3333333333333333]", 10, 2, 2),
                                      FILTER};
static const struct sm_param p_only[] = {P};
static const struct sm_param jitter[] = {
    NUMS("brightness", a, "0", 10, 2, 2), NUMS("contrast", b, "0", 10, 2, 2),
    NUMS("saturation", c, "0", 10, 2, 2), NUMS("hue", d, "0", 0.5, 2, 2)};
static const struct sm_param affine[] = {{.name = "degrees",
                                          .type = SM_T_NUMS,
                                          .offset = offsetof(struct knobs, a),
                                          .min = -360,
                                          .max = 360,
                                          .count_min = 2,
                                          .count_max = 2,
                                          .doc = "angles"},
                                         NUMS("translate", b, "null", 1, 2, 2),
                                         NUMS("scale", c, "null", 10, 2, 2),
                                         FILTER,
                                         NUMS("fill", d, "0", 255, 3, 3)};
static const struct sm_param normalize[] = {
    NUMS("mean", a, "0", 1, 1, 3),
    NUMS("std", b, "1", 1, 1, 3),
    {.name = "n", .type = SM_T_INT, .offset = offsetof(struct knobs, n), .dflt = "3"}};
static const struct sm_param apply[] = {{.name = "transforms", .type = SM_T_OPS, .doc = "the ops"},
                                        P};

#define ROWS(T) .params = T, .n_params = sizeof T / sizeof *T, .params_size = sizeof(struct knobs)
static const struct sm_op_info infos[] = {
    {.name = "CenterCrop", .example = "CenterCrop: {size: 224}", ROWS(size_only)},
    {.name = "ColorJitter", .example = "ColorJitter: {hue: 0.1}", ROWS(jitter)},
    {.name = "Normalize", .example = "Normalize: {mean: 0.5, std: 0.5}", ROWS(normalize)},
    {.name = "RandomAffine", .example = "RandomAffine: {degrees: 10}", ROWS(affine)},
    {.name = "RandomApply",
     .example = "RandomApply: {p: 0.5, transforms: [RandomGrayscale]}",
     ROWS(apply),
     .control = true},
    {.name = "RandomCrop", .example = "RandomCrop: {size: 32}", ROWS(crop)},
    {.name = "RandomGrayscale", .example = "RandomGrayscale: {p: 0.1}", ROWS(p_only)},
    {.name = "RandomHorizontalFlip", .example = "RandomHorizontalFlip: {p: 0.5}", ROWS(p_only)},
    {.name = "RandomResizedCrop", .example = "RandomResizedCrop: {size: 224}", ROWS(rrc)},
    {.name = "RandomRotation", .example = "RandomRotation: {degrees: 10}", ROWS(affine)},
    {.name = "RandomVerticalFlip", .example = "RandomVerticalFlip: {p: 0.5}", ROWS(p_only)},
    {.name = "Resize", .example = "Resize: {size: 224}", ROWS(resize)},
};
enum { N_INFOS = sizeof infos / sizeof *infos };

static const struct sm_op_info *info_find(const char *name) {
    for (int i = 0; i < N_INFOS; i++)
        if (strcmp(infos[i].name, name) == 0) return &infos[i];
    return NULL;
}

/* One rule that no range can say: a scale runs from small to large. */
static int params_check(const struct sm_op_info *info, const void *params, struct sm_err *err) {
    const struct knobs *k = params;
    if (info->params != rrc || k->b.count < 2 || k->b.v[0] <= k->b.v[1]) return 0;
    return sm_fail(err, SM_E_PIPELINE, "'scale' must run from small to large");
}

static const char *names[N_INFOS];
static struct sm_op_table table = {
    .find = info_find, .names = names, .n_names = N_INFOS, .check = params_check};

static const struct sm_op_table *used = &table;

static int table_setup(void **state) {
    (void)state;
    for (int i = 0; i < N_INFOS; i++)
        names[i] = infos[i].name;
    return 0;
}

/* --- helpers -------------------------------------------------------------------------------- */

static void parse_ok(struct sm_pipeline *p, const char *text) {
    struct sm_err err = {0};
    if (sm_pipeline_parse(p, "dir/test.yaml", text, strlen(text), used, &err) != 0)
        fail_msg("%s", err.text);
}

/* The pipeline's JSON, and that parsing the JSON gives the same JSON and digest. The caller frees.
 */
static char *json_of(const struct sm_pipeline *p) {
    struct sm_buf once, twice;
    struct sm_pipeline again;
    struct sm_err err = {0};
    char digest[SM_XXH_HEX], digest_again[SM_XXH_HEX];
    sm_buf_init(&once, 1 << 22);
    sm_buf_init(&twice, 1 << 22);
    sm_pipeline_json(p, &once);
    assert_false(once.full);
    if (sm_pipeline_parse(&again, "json", once.data, once.len, used, &err) != 0)
        fail_msg("%s", err.text);
    sm_pipeline_json(&again, &twice);
    assert_string_equal(once.data, twice.data);
    sm_pipeline_digest(p, digest);
    sm_pipeline_digest(&again, digest_again);
    assert_string_equal(digest, digest_again);
    sm_pipeline_release(&again);
    char *json = strdup(once.data);
    sm_buf_release(&once);
    sm_buf_release(&twice);
    return json;
}

#define HEAD "version: 1\nsource: {path: data}\n"

/* --- what a file means ---------------------------------------------------------------------- */

static void defaults_are_filled_in(void **state) {
    (void)state;
    struct sm_pipeline p;
    parse_ok(&p, HEAD "ops: [RandomHorizontalFlip]\n");
    char *json = json_of(&p);
    assert_string_equal(
        json, "{\"version\":1,\"name\":\"test\",\"seed\":0,\"rebalance\":null,"
              "\"ops\":[{\"RandomHorizontalFlip\":{\"p\":0.5}}],"
              "\"source\":{\"format\":\"folder\",\"path\":\"data\",\"on_error\":\"quarantine\","
              "\"mode\":\"RGB\",\"background\":null,\"exif\":true,\"gif\":false,\"tiff\":false,"
              "\"checksum\":false,\"label\":null,\"delimiter\":\",\","
              "\"skip_initial_space\":false,\"header\":\"auto\","
              "\"missing\":null,\"categorical\":[],\"float64\":false},"
              "\"split\":{\"val\":0,\"by\":null,\"stratify\":true},"
              "\"output\":{\"batch_size\":32,\"shuffle\":true,\"drop_last\":false,"
              "\"layout\":\"NCHW\",\"dtype\":\"uint8\"},"
              "\"expand\":{\"copies\":1,\"originals\":false,\"encode\":\"jpeg\",\"quality\":90,"
              "\"samples_per_shard\":1000}}");
    free(json);
    sm_pipeline_release(&p);
}

static void a_column_is_told_by_its_number_without_quotes(void **state) {
    (void)state;
    struct sm_pipeline p;
    parse_ok(&p, "version: 1\nsource: {path: d, format: csv, label: 4, skip_initial_space: true}\n"
                 "split: {val: 0.1, by: 2}\n");
    assert_string_equal(p.source.label, "4");
    assert_string_equal(p.source.group, "2");
    assert_true(p.source.skip_initial_space);
    char *json = json_of(&p); /* it reads back equal */
    assert_non_null(strstr(json, "\"label\":\"4\""));
    free(json);
    sm_pipeline_release(&p);
    parse_ok(&p, "version: 1\nsource: {path: d, format: npy}\nsplit: {val: 0.1, by: 2}\n");
    assert_string_equal(p.source.group, "2");
    sm_pipeline_release(&p);
}

static void ops_nest_and_know_their_places(void **state) {
    (void)state;
    struct sm_pipeline p;
    parse_ok(&p, HEAD "ops:\n"
                      "  - Resize: {size: [10, 20], interpolation: bicubic}\n"
                      "  - RandomApply:\n"
                      "      transforms:\n"
                      "        - RandomApply: {transforms: [RandomGrayscale], p: 0.25}\n"
                      "        - ColorJitter:\n"
                      "            hue: [0.1, 0.2]\n"
                      "  - RandomVerticalFlip:\n");
    assert_int_equal(p.n_ops, 3);
    const struct knobs *k = p.ops[0].params;
    assert_int_equal(k->a.count, 2);
    assert_true(k->a.v[1] == 20);
    assert_int_equal(k->word, 2);
    assert_true(k->flag);
    const struct sm_op_node *apply_node = &p.ops[1];
    assert_int_equal(apply_node->n_children, 2);
    assert_true(((const struct knobs *)apply_node->params)->p == 0.5);
    assert_int_equal(apply_node->line, 5);
    assert_int_equal(apply_node->column, 5);
    assert_string_equal(apply_node->children[0].children[0].info->name, "RandomGrayscale");
    assert_int_equal(apply_node->children[0].children[0].line, 7);
    assert_int_equal(apply_node->children[0].children[0].column, 38);
    k = apply_node->children[1].params;
    assert_true(k->d.count == 2 && !k->d.scalar && k->d.v[0] == 0.1);
    free(json_of(&p));
    sm_pipeline_release(&p);
}

static void the_digest_ignores_name_seed_and_path_and_nothing_else(void **state) {
    (void)state;
    struct sm_pipeline p;
    char base[SM_XXH_HEX], other[SM_XXH_HEX];
    parse_ok(&p, HEAD "ops: [RandomHorizontalFlip]\n");
    sm_pipeline_digest(&p, base);
    sm_pipeline_release(&p);
    static const struct {
        const char *text;
        bool same;
    } cases[] = {
        {"version: 1\nname: x\nseed: 7\nsource: {path: other}\nops: [RandomHorizontalFlip]\n",
         true},
        {HEAD "ops:\n  # with a comment\n  - RandomHorizontalFlip: {p: 0.50}\n", true},
        {HEAD "ops: [RandomHorizontalFlip: {p: 0.25}]\n", false},
        {HEAD "ops: [RandomVerticalFlip]\n", false},
        {HEAD "ops: [RandomHorizontalFlip]\nexpand: {copies: 2}\n", false},
        {HEAD "ops: [RandomHorizontalFlip]\noutput: {shuffle: false}\n", false},
        {HEAD "ops: [RandomHorizontalFlip]\noutput: {weights: false}\n", true},
        {HEAD "ops: [RandomHorizontalFlip]\noutput: {weights: true}\n", false},
        {"version: 1\nsource: {path: data, exif: false}\nops: [RandomHorizontalFlip]\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        parse_ok(&p, cases[i].text);
        sm_pipeline_digest(&p, other);
        assert_int_equal(strcmp(base, other) == 0, cases[i].same);
        sm_pipeline_release(&p);
    }
}

/* The digest is the one of before there was `weights`: jobs, tokens and manifests keep theirs. */
static void a_key_that_came_later_changes_nothing_until_it_is_used(void **state) {
    (void)state;
    struct sm_pipeline p;
    char digest[SM_XXH_HEX];
    parse_ok(&p, HEAD "ops: [RandomHorizontalFlip]\n");
    sm_pipeline_digest(&p, digest);
    assert_string_equal(digest, "868790ba0c02599c147ce943aea96811");
    sm_pipeline_release(&p);
    parse_ok(&p, HEAD "output: {weights: true}\n");
    assert_true(p.output.weights);
    char *json = json_of(&p); /* workers read it back */
    assert_non_null(strstr(json, "\"dtype\":\"uint8\",\"weights\":true}"));
    free(json);
    sm_pipeline_release(&p);
}

/* Recipes are loaded from the source tree, where `make test` runs. */
static void every_recipe_parses_and_round_trips(void **state) {
    (void)state;
    int seen = 0;
    used = sm_op_table(); /* recipes need the real ops and methods */
    DIR *dir = opendir("pipelines");
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir)) != NULL;) {
        size_t n = strlen(e->d_name);
        if (n < 5 || strcmp(e->d_name + n - 5, ".yaml") != 0) continue;
        char path[300];
        struct sm_pipeline p;
        struct sm_err err = {0};
        snprintf(path, sizeof path, "pipelines/%s", e->d_name);
        if (sm_pipeline_load(&p, path, used, &err) != 0) fail_msg("%s", err.text);
        const char *root = p.source.path[0] == '/' ? "/" : "pipelines/";
        assert_memory_equal(p.source.path, root, strlen(root));
        assert_memory_equal(p.name, e->d_name, n - 5);
        free(json_of(&p));
        sm_pipeline_release(&p);
        seen++;
    }
    closedir(dir);
    assert_true(seen >= 5);
    used = &table;
}

static uint64_t random_state;
static uint32_t rnd(uint32_t below) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7,
        random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 20) % below);
}

static void op_generate(struct sm_buf *out, int depth) {
    const struct sm_op_info *info = &infos[rnd(N_INFOS)];
    if (depth > 2 && info->control) info = &infos[0];
    sm_buf_printf(out, "{%s: {", info->name);
    for (size_t i = 0; i < info->n_params; i++) {
        const struct sm_param *q = &info->params[i];
        if (q->dflt != NULL && rnd(2)) continue;
        sm_buf_printf(out, "%s: ", q->name);
        double low = q->min > 0 ? q->min : 0, high = q->max > 0 ? q->max : 1;
        double x = q->integral ? 1 + rnd(300) : low + (high - low) * (1e4 + rnd(90000)) / 1e5;
        if (q->type == SM_T_OPS) {
            sm_buf_text(out, "[");
            for (uint32_t k = 0, n = rnd(3); k <= n; k++) {
                if (k) sm_buf_text(out, ", ");
                op_generate(out, depth + 1);
            }
            sm_buf_text(out, "]");
        } else if (q->type == SM_T_NUMS && q->count_min <= 2 && q->count_max >= 2 && rnd(2))
            sm_buf_printf(out, "[%.17g, %.17g]", q->integral ? x : 0.03125, x);
        else if (q->type == SM_T_BOOL)
            sm_buf_text(out, rnd(2) ? "true" : "False");
        else if (q->type == SM_T_ENUM)
            sm_buf_text(out, q->choices[rnd(3)]);
        else
            sm_buf_printf(out, "%.*g", q->type == SM_T_INT ? 0 : 17, q->type == SM_T_INT ? 4 : x);
        sm_buf_text(out, ", ");
    }
    sm_buf_text(out, "}}");
}

static void generated_pipelines_round_trip(void **state) {
    (void)state;
    random_state = 42;
    for (int i = 0; i < 300; i++) {
        struct sm_buf text;
        struct sm_pipeline p;
        sm_buf_init(&text, 1 << 20);
        sm_buf_printf(&text,
                      "version: 1\nname: \"n\\\"\\\\ü %d\"\nseed: %u\n"
                      "source: {path: 'a: b # %d', mode: %s, background: %s}\n"
                      "expand: {copies: %u, encode: %s}\noutput: {dtype: %s}\nops:\n",
                      i, rnd(1 << 30), i, rnd(2) ? "L" : "RGB", rnd(2) ? "[1, 2, 3]" : "~",
                      1 + rnd(100), rnd(2) ? "tensor" : "webp", rnd(2) ? "float32" : "uint8");
        for (uint32_t k = 0, n = rnd(5); k <= n; k++) {
            sm_buf_text(&text, " - ");
            op_generate(&text, 0);
            sm_buf_text(&text, "\n");
        }
        parse_ok(&p, text.data);
        free(json_of(&p));
        sm_pipeline_release(&p);
        sm_buf_release(&text);
    }
}

/* --- what is wrong, and where --------------------------------------------------------------- */

static const struct broken {
    const char *text;
    int line, column;
    const char *what; /* the message begins with this */
} broken[] = {
    /* keys */
    {"version: 1\nsourc: {path: x}\n", 2, 1,
     "unknown key 'sourc' in a pipeline file (hint: did you mean 'source'?)"},
    {HEAD "opz: []\n", 3, 1, "unknown key 'opz' in a pipeline file (hint: did you mean 'ops'?)"},
    {HEAD "batch_size: 3\n", 3, 1,
     "unknown key 'batch_size' in a pipeline file (hint: it belongs into 'output')"},
    {HEAD "expand: {seed: 3}\n", 3, 10,
     "unknown key 'seed' in 'expand' (hint: it belongs to the top level of the file)"},
    {HEAD "Resize: {size: 3}\n", 3, 1,
     "unknown key 'Resize' in a pipeline file (hint: an op stands in the list 'ops')"},
    {HEAD "csv: {label: x}\n", 3, 1, "unknown key 'csv' in a pipeline file"},
    {HEAD "label: x\n", 3, 1,
     "unknown key 'label' in a pipeline file (hint: it belongs into 'source')"},
    {"version: 1\nsource: {path: data, label: x}\n", 2, 22,
     "'label' is for tables, and the format is 'folder'"},
    {HEAD "output: {dtype: float64}\n", 3, 17, "images are uint8, float32, float16 or bfloat16"},
    {HEAD "expand: {encode: csv}\n", 3, 18, "csv and npy are for rows"},
    {"version: 1\nsource: {path: d, format: csv, mode: L}\n", 2, 32,
     "'mode' is for images, and the format is 'csv'"},
    {"version: 1\nsource: {path: d, format: csv, delimiter: ab}\n", 2, 43,
     "'delimiter' is one ASCII character"},
    {"version: 1\nsource: {path: d, format: csv}\nops:\n  - RandomHorizontalFlip\n", 4, 5,
     "'RandomHorizontalFlip' works on images, and the source is a table"},
    {HEAD "batch_ops: []\n", 3, 1, "unknown key 'batch_ops'"},
    {"version: 1\nsource:\n  path: x\n  formt: folder\n", 4, 3,
     "unknown key 'formt' in 'source' (hint: did you mean 'format'?)"},
    {HEAD "expand:\n  copys: 4\n", 4, 3,
     "unknown key 'copys' in 'expand' (hint: did you mean 'copies'?)"},
    {HEAD "expand:\n  zzz: 4\n", 4, 3,
     "unknown key 'zzz' in 'expand' (hint: it takes copies, originals, encode, quality, samples_per_shard)"},
    {HEAD "seed: 1\nseed: 2\n", 4, 1,
     "key 'seed' stands twice in this map (hint: first on line 3)"},
    {HEAD "ops:\n  - Resize: {size: 1, size: 2}\n", 4, 23, "key 'size' stands twice"},
    {HEAD "? [a, b]\n: 1\n", 3, 3, "a key must be a word, not a list"},
    {HEAD "{a: b}: 1\n", 3, 1, "a key must be a word, not a map"},
    {HEAD "<<: {seed: 1}\n", 3, 1, "unknown key '<<'"},
    /* what is missing */
    {"", 1, 1, "a pipeline file needs 'version' (hint: version: 1)"},
    {"# nothing but a comment\n", 1, 1, "a pipeline file needs 'version'"},
    {"source: {path: x}\n", 1, 1, "a pipeline file needs 'version'"},
    {"version: 1\nops: []\n", 1, 1, "'source' needs 'path'"},
    {"version: 1\nops: []\nsource: {}\n", 3, 1, "'source' needs 'path'"},
    {"version: 1\nops: []\nsource:\n", 3, 1, "'source' needs 'path'"},
    {HEAD "ops:\n  - Resize\n", 4, 5, "'Resize' needs 'size' (hint: Resize: {size: 224})"},
    {HEAD "ops:\n  - Resize: {antialias: true}\n", 4, 5, "'Resize' needs 'size'"},
    {HEAD "ops:\n  - RandomApply: {p: 1}\n", 4, 5, "'RandomApply' needs 'transforms'"},
    {HEAD "ops:\n", 3, 1, "'ops' has no value (hint: a list of ops, or [] for none)"},
    /* values */
    {"version: 2\nsource: {path: x}\n", 1, 10, "'version' must be 1, not 2"},
    {"version: one\n", 1, 10, "'version' must be 1, not 'one'"},
    {"version: '1'\n", 1, 10, "'version' must be 1, not '1'"},
    {"version:\n", 1, 1, "'version' must be 1, not null"},
    {HEAD "seed: -1\n", 3, 7, "'seed' must be a whole number of at least 0, not -1"},
    {HEAD "seed: 1.5\n", 3, 7, "'seed' must be a whole number of at least 0, not 1.5"},
    {HEAD "seed: 9223372036854775808\n", 3, 7, "'seed' must be a whole number of at least 0"},
    {HEAD "name: 12\n", 3, 7,
     "'name' must be text or null, not 12 (hint: in quotes it is text: \"12\")"},
    {HEAD "output:\n  shuffle: yes\n", 4, 12,
     "'shuffle' must be true or false, not 'yes' (hint: write true)"},
    {HEAD "output:\n  shuffle: 'true'\n", 4, 12, "'shuffle' must be true or false, not 'true'"},
    {HEAD "expand: {encode: jpg}\n", 3, 18,
     "'encode' must be one of jpeg, png, webp, tensor, csv, npy, auto, not 'jpg' (hint: did you mean 'jpeg'?)"},
    {HEAD "expand: {quality: 101}\n", 3, 19,
     "'quality' must be a whole number in [1, 100], not 101"},
    {HEAD "expand: {copies: 0}\n", 3, 18, "'copies' must be a whole number in [1, 65536], not 0"},
    {HEAD "expand: {copies: [4]}\n", 3, 18,
     "'copies' must be a whole number in [1, 65536], not a list of 1"},
    {HEAD "expand: {copies: {a: 4}}\n", 3, 18,
     "'copies' takes whole number in [1, 65536], not a map"},
    {HEAD "expand: [copies]\n", 3, 9,
     "'expand' must be a map, not a list (hint: expand: {copies: "},
    {HEAD "expand: 4\n", 3, 9, "'expand' must be a map, not a word"},
    {"version: 1\nsource: {path: x, background: [1, 2]}\n", 2, 31,
     "'background' must be a whole number in [0, 255], list of 3 or null, not a list of 2"},
    {"version: 1\nsource: {path: x, background: [1, 2, 256]}\n", 2, 38,
     "'background' must be a whole number in [0, 255], list of 3 or null, not 256"},
    {"version: 1\nsource: {path: ''}\n", 2, 16, "'path' must be text, not ''"},
    {HEAD "ops:\n  - RandomHorizontalFlip: {p: 1.5}\n", 4, 31,
     "'p' must be a number in [0, 1], not 1.5"},
    {HEAD "ops:\n  - RandomHorizontalFlip: {p: .nan}\n", 4, 31,
     "'p' must be a number in [0, 1], not .nan"},
    {HEAD "ops:\n  - Resize: {size: [1, [2]]}\n", 4, 24,
     "'size' takes whole number in [1, 32768] or list of 1 to 2, not a list"},
    {HEAD "ops:\n  - Resize: {size: 224.5}\n", 4, 20,
     "'size' must be a whole number in [1, 32768] or list of 1 to 2, not 224.5"},
    {HEAD "ops:\n  - Resize: {size: 224.0}\n", 4, 20,
     "'size' must be a whole number in [1, 32768] or list of 1 to 2, not 224.0 (hint: write 224)"},
    {HEAD "ops:\n  - RandomResizedCrop: {size: 9, scale: [0.9, 0.1]}\n", 4, 5,
     "'scale' must run from small to large"},
    /* ops */
    {HEAD "ops:\n  - RandomHorizonalFlip: {p: 0.5}\n", 4, 5,
     "unknown op 'RandomHorizonalFlip' (hint: did you mean 'RandomHorizontalFlip'?)"},
    {HEAD "ops:\n  - Mosaic\n", 4, 5, "unknown op 'Mosaic' (hint: 'shardmill ops' lists them)"},
    {HEAD "ops:\n  - Resize: {sise: 224}\n", 4, 14,
     "unknown parameter 'sise' in 'Resize' (hint: did you mean 'size'?)"},
    {HEAD "ops:\n  - RandomApply:\n      transforms:\n        - Rezise: {size: 2}\n", 6, 11,
     "unknown op 'Rezise' (hint: did you mean 'Resize'?)"},
    {HEAD "ops:\n  - Resize: 224\n", 4, 13,
     "the parameters of 'Resize' are a map, not a word (hint: Resize: {size: 224})"},
    {HEAD "ops:\n  - Resize: [224]\n", 4, 13, "the parameters of 'Resize' are a map, not a list"},
    {HEAD "ops:\n  - Resize:\n    size: 224\n", 5, 5,
     "one op a list item, but 'size' follows 'Resize'"},
    {HEAD "ops:\n  - [Resize]\n", 4, 5, "an op is a name or a one-key map, not a list"},
    {HEAD "ops:\n  -\n  - Resize: {size: 2}\n", 4, 3,
     "an op is a name or a one-key map, not nothing"},
    {HEAD "ops:\n  - {}\n", 4, 5, "an op needs a name"},
    {HEAD "ops:\n  Resize: {size: 224}\n", 4, 3,
     "'ops' must be a list of ops, not a map (hint: begin each op with '- ')"},
    {HEAD "ops: Resize\n", 3, 6, "'ops' must be a list of ops, not a word"},
    {HEAD "ops:\n  - RandomApply: {transforms: RandomGrayscale}\n", 4, 31,
     "'transforms' must be a list of ops, not a word"},
    /* YAML that is not for us */
    {HEAD "name: &x a\n", 3, 7, "anchors are not allowed"},
    {HEAD "name: *x\n", 3, 7, "aliases are not allowed"},
    {HEAD "name: !!str a\n", 3, 7, "tags are not allowed"},
    {HEAD "ops: !ops []\n", 3, 6, "tags are not allowed"},
    {"%YAML 1.1\n---\nversion: 1\n", 1, 1, "directives are not allowed"},
    {"version: 1\n---\nversion: 1\n", 2, 1, "a second document"},
    {"- version: 1\n", 1, 1, "a pipeline file is a map, not a list"},
    {"version\n", 1, 1, "a pipeline file is a map, not a word"},
    {"version: 1\nname: a\\0\nsource: {path: \"a\\0b\"}\n", 3, 16, "a NUL character in text"},
    /* YAML that is none */
    {"version: 1\n\tname: x\n", 2, 1, "a tab cannot indent (hint: use spaces)"},
    {HEAD "ops:\n\t- Resize: {size: 2}\n", 4, 1, "a tab cannot indent (hint: use spaces)"},
    {HEAD "expand: {copies: 4\nseed: 2\n", 4, 5,
     "a comma is missing before this (hint: or the '{' of line 3 is never closed)"},
    {HEAD "ops: [RandomGrayscale\n", 3, 6, "this '[' is never closed"},
    {HEAD "expand: {copies: 4\n", 3, 9, "this '{' is never closed"},
    {HEAD "name: \"cut\n", 3, 7, "this quote is never closed"},
    {HEAD "name: 'cut\n", 3, 7, "this quote is never closed"},
    {"version: 1\n  name: x\n", 1, 10, "the next line does not fit under this one"},
    {HEAD "seed 4\nname: x\n", 3, 1, "a key without ':'"},
    {HEAD "ops:\n  - RandomGrayscale\n - RandomGrayscale\n", 5, 2, "wrong indentation"},
    {HEAD "name: a: b\n", 3, 8, "a second ':' in one line (hint: put a value"},
    {HEAD "\"\\e[31m\": 1\n", 3, 1, "unknown key '?[31m' in a pipeline file"},
    {HEAD "\"\\u009b2J\": 1\n", 3, 1, "unknown key '??2J' in a pipeline file"},
    {"\xef\xbb\xbfvers: 1\n", 1, 1, "unknown key 'vers' in a pipeline file"},
    {"\xef\xbb\xbf{version: 1, nam: x}\n", 1, 14, "unknown key 'nam' in a pipeline file"},
    {HEAD "seed: ]\n", 3, 7, "a bracket that closes nothing"},
    /* bytes */
    {"version: 1\nname: caf\xe9\n", 2, 10, "byte 0xe9 is not UTF-8"},
    {"version: 1\nname: \xc3", 2, 7, "byte 0xc3 is not UTF-8"},
    {"version: 1\nname: é\xf0\x9f\n", 2, 8, "byte 0xf0 is not UTF-8"},
    {"version: 1\nname: \x1b[31m\n", 2, 7, "control character 0x1b is not allowed here"},
    {"version: 1\nname: a\rseed: 1\n", 2, 8, "a carriage return without a line feed"},
    {"version: 1\nname: ünïcödé\nséed: 1\n", 3, 1,
     "unknown key 'séed' in a pipeline file (hint: it takes version, name, "},
    {"version: 1\nname: {ü: 1}\n", 2, 7, "'name' takes text or null, not a map"},
    {"{\"version\":1,\"source\":{\"path\":\"é\",\"pth\":1}}", 1, 35,
     "unknown key 'pth' in 'source'"},
};

static void fail_expect(const struct broken *b, const char *text, size_t n) {
    struct sm_pipeline p;
    struct sm_err err = {0};
    char want[600];
    if (sm_pipeline_parse(&p, "f.yaml", text, n, &table, &err) == 0) fail_msg("accepted: %s", text);
    sm_pipeline_release(&p);
    assert_int_equal(err.code, SM_E_PIPELINE);
    snprintf(want, sizeof want, "f.yaml:%d:%d: %s", b->line, b->column, b->what);
    if (strncmp(err.text, want, strlen(want)) != 0)
        fail_msg("of\n%s\nwanted\n%s\ngot\n%s", text, want, err.text);
    /* the last line is blanks and a caret; a tab may stand for a tab */
    const char *caret = strrchr(err.text, '\n') + 1;
    assert_int_equal(strspn(caret, " \t") + 1, strlen(caret));
    assert_int_equal(caret[strlen(caret) - 1], '^');
    if (b->column <= 80) assert_int_equal(strlen(caret), b->column);
}

static void each_mistake_is_shown_at_its_place(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        fail_expect(&broken[i], broken[i].text, strlen(broken[i].text));
}

static void the_excerpt_shows_the_line_and_the_caret(void **state) {
    (void)state;
    struct sm_pipeline p;
    struct sm_err err;
    const char *text = HEAD "ops:\n  - Resize: {sise: 224}   # shorter side\n";
    assert_int_equal(sm_pipeline_parse(&p, "a.yaml", text, strlen(text), &table, &err), -1);
    sm_pipeline_release(&p);
    assert_string_equal(err.text,
                        "a.yaml:4:14: unknown parameter 'sise' in 'Resize' (hint: did you "
                        "mean 'size'?)\n"
                        "  - Resize: {sise: 224}   # shorter side\n"
                        "             ^");
}

static void a_long_line_is_cut_around_the_place(void **state) {
    (void)state;
    struct sm_pipeline p;
    struct sm_err err;
    struct sm_buf text;
    sm_buf_init(&text, 1 << 20);
    sm_buf_text(&text, "{\"version\":1,\"name\":\"");
    for (int i = 0; i < 2000; i++)
        sm_buf_text(&text, "é");
    sm_buf_text(&text, "\",\"sed\":3}");
    assert_int_equal(sm_pipeline_parse(&p, "a", text.data, text.len, &table, &err), -1);
    sm_pipeline_release(&p);
    assert_memory_equal(err.text, "a:1:2024: unknown key 'sed'", 27);
    const char *line = strchr(err.text, '\n') + 1, *caret = strrchr(err.text, '\n') + 1;
    int column = 0; /* of the caret, in characters of the shown line */
    for (const char *c = line; column < (int)strlen(caret) - 1; column++)
        for (c++; (*c & 0xc0) == 0x80; c++)
            ;
    const char *at = line;
    for (int i = 0; i < column; i++)
        for (at++; (*at & 0xc0) == 0x80; at++)
            ;
    assert_memory_equal(at, "\"sed\"", 5);
    sm_buf_release(&text);
}

static void limits_are_kept_before_anything_is_built(void **state) {
    (void)state;
    struct sm_buf text;
    sm_buf_init(&text, 1 << 22);
    struct broken deep = {"", 1, 17, "more than 16 levels of nesting"};
    for (int i = 0; i < 100000; i++)
        sm_buf_text(&text, "[");
    fail_expect(&deep, text.data, text.len);
    sm_buf_reset(&text);
    struct broken many = {"", 1, 20002, "more than 10000 values in one file"};
    sm_buf_text(&text, "[");
    for (int i = 0; i < 200000; i++)
        sm_buf_text(&text, "1,");
    many.column = 2 + 2 * (SM_MAX_YAML_NODES - 1);
    fail_expect(&many, text.data, text.len);
    sm_buf_reset(&text);
    struct broken large = {"", 1, SM_MAX_YAML_BYTES + 1, "the file is longer than 1048576 bytes"};
    while (text.len <= SM_MAX_YAML_BYTES)
        sm_buf_text(&text, "# long ");
    fail_expect(&large, text.data, text.len);
    sm_buf_reset(&text);
    struct broken ops = {"", 68, 3, "more than 64 ops"};
    sm_buf_text(&text, HEAD "ops:\n");
    for (int i = 0; i < 100; i++)
        sm_buf_text(&text, "- RandomGrayscale\n");
    fail_expect(&ops, text.data, text.len);
    sm_buf_reset(&text);
    struct broken path = {"", 2, 16, "'path' is longer than 4095 bytes"};
    sm_buf_text(&text, "version: 1\nsource: {path: ");
    for (int i = 0; i < 5000; i++)
        sm_buf_text(&text, "x");
    sm_buf_text(&text, "}\n");
    fail_expect(&path, text.data, text.len);
    struct broken nul = {"", 2, 7, "control character 0x00 is not allowed here"};
    fail_expect(&nul, "version: 1\nname: \0x\n", 20);
    sm_buf_release(&text);
}

static void windows_line_ends_and_a_byte_order_mark_are_taken(void **state) {
    (void)state;
    struct sm_pipeline p;
    parse_ok(&p, "\xef\xbb\xbfversion: 1\r\nname: x\r\nsource: {path: data}\r\n");
    assert_string_equal(p.name, "x");
    sm_pipeline_release(&p);
    struct broken b = {"", 2, 1, "unknown key 'nam'"};
    fail_expect(&b, "version: 1\r\nnam: x\r\n", 20);
}

static void a_folder_or_nothing_in_place_of_a_file_is_named(void **state) {
    (void)state;
    struct sm_pipeline p;
    struct sm_err err;
    assert_int_equal(sm_pipeline_load(&p, "pipelines", &table, &err), -1);
    assert_string_equal(err.text, "'pipelines' is a folder (hint: name the pipeline file in it)");
    sm_pipeline_release(&p);
    assert_int_equal(sm_pipeline_load(&p, "no/such.yaml", &table, &err), -1);
    assert_int_equal(err.code, SM_E_MISSING);
    assert_string_equal(err.text,
                        "cannot open pipeline file 'no/such.yaml': No such file or directory");
    sm_pipeline_release(&p);
}

/* --- any bytes ------------------------------------------------------------------------------ */

static void mutate(char *text, size_t *n, size_t max) {
    static const char spice[] = "\n\t :-{}[],#&*!|>'\"%@`?\\\r\0\xff\xc3~<0123456789.eE";
    for (uint32_t i = 0, edits = 1 + rnd(4); i<edits && * n> 8; i++) {
        size_t at = rnd((uint32_t)*n), len = 1 + rnd(12);
        switch (rnd(5)) {
        case 0:
            text[at] = (char)rnd(256);
            break;
        case 1:
            text[at] = spice[rnd(sizeof spice - 1)];
            break;
        case 2: /* cut something out */
            if (at + len > *n) len = *n - at;
            memmove(text + at, text + at + len, *n - at - len);
            *n -= len;
            break;
        case 3: /* say something twice */
            if (at + len > *n || *n + len > max) break;
            memmove(text + at + len, text + at, *n - at);
            *n += len;
            break;
        case 4:
            *n = rnd(8) ? *n : at;
            break; /* now and then, cut the end */
        }
    }
}

static size_t file_take(const char *path, char *out, size_t max) {
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, max, f);
    fclose(f);
    return n;
}

/* Whatever comes in: an answer, an error that points into the file, or a pipeline that round-trips.
 * Under ASan and UBSan in `make asan`. */
static void no_bytes_break_the_parser(void **state) {
    (void)state;
    static const char *const recipes[] = {"pipelines/photos.yaml", "pipelines/simclr.yaml",
                                          "pipelines/eval.yaml", "pipelines/cifar.yaml",
                                          "pipelines/rotate.yaml"};
    enum { BYTES = 8192, MUTATIONS = 20000 };
    static char seeds[6][BYTES];
    size_t lengths[6];
    for (int i = 0; i < 5; i++)
        lengths[i] = file_take(recipes[i], seeds[i], BYTES - 1000);
    struct sm_pipeline p;
    parse_ok(&p, HEAD "ops: [RandomApply: {transforms: [Resize: {size: [2, 3]}]}]\n");
    char *json = json_of(&p);
    lengths[5] = strlen(json);
    memcpy(seeds[5], json, lengths[5]);
    free(json);
    sm_pipeline_release(&p);
    random_state = 4711;
    int accepted = 0;
    for (int i = 0; i < MUTATIONS; i++) {
        int from = (int)rnd(6);
        size_t n = lengths[from];
        char *text = malloc(BYTES); /* on the heap, cut to size: a byte read beyond it is found */
        memcpy(text, seeds[from], n);
        mutate(text, &n, BYTES);
        text = realloc(text, n ? n : 1);
        struct sm_err err = {0};
        int rc = sm_pipeline_parse(&p, "m", text, n, &table, &err);
        if (rc == 0) {
            free(json_of(&p));
            accepted++;
        } else {
            assert_int_equal(err.code, SM_E_PIPELINE);
            int line, column;
            assert_int_equal(sscanf(err.text, "m:%d:%d: ", &line, &column), 2);
            assert_true(line >= 1 && column >= 1);
            assert_non_null(strchr(err.text, '\n'));
        }
        sm_pipeline_release(&p);
        free(text);
    }
    assert_in_range(accepted, MUTATIONS / 100, MUTATIONS - MUTATIONS / 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_filled_in),
        cmocka_unit_test(a_column_is_told_by_its_number_without_quotes),
        cmocka_unit_test(ops_nest_and_know_their_places),
        cmocka_unit_test(the_digest_ignores_name_seed_and_path_and_nothing_else),
        cmocka_unit_test(a_key_that_came_later_changes_nothing_until_it_is_used),
        cmocka_unit_test(every_recipe_parses_and_round_trips),
        cmocka_unit_test(generated_pipelines_round_trip),
        cmocka_unit_test(each_mistake_is_shown_at_its_place),
        cmocka_unit_test(the_excerpt_shows_the_line_and_the_caret),
        cmocka_unit_test(a_long_line_is_cut_around_the_place),
        cmocka_unit_test(limits_are_kept_before_anything_is_built),
        cmocka_unit_test(windows_line_ends_and_a_byte_order_mark_are_taken),
        cmocka_unit_test(a_folder_or_nothing_in_place_of_a_file_is_named),
        cmocka_unit_test(no_bytes_break_the_parser),
    };
    return cmocka_run_group_tests(tests, table_setup, NULL);
}
