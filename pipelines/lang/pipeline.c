/* From the tree of a pipeline file to checked structs. Before it: yaml.c. After it: the engine
 * compiles the ops, and json.c writes the result for workers. Every error stands at the most exact
 * place: a key that is unknown, a value that is wrong, an op that lacks something. */
#include "pipelines/lang/pipeline.h"

#include "lib/limits.h"
#include "pipelines/lang/settle.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    ARENA_BYTES_MAX = 32 << 20,
    KEYS_MAX = 64, /* of one table, for hints */
};

struct parser {
    struct sm_pipeline *p;
    struct sm_text text;
    const struct sm_op_table *ops;
    struct sm_err *err;
    bool by_user; /* a file, in which what only programs set is unknown */
    int n_ops;    /* nested ones included */
};

/* A map that is read against a table: a section of the file or the parameters of an op. */
struct owner {
    const char *what; /* "'source'", "op 'Resize'": for messages */
    const struct sm_param *params;
    size_t n_params;
    void *base;
    struct sm_op_node *op; /* NULL for a section */
    const char *example;   /* of the op, or NULL */
    size_t offset;         /* where the owner's own name stands */
};

static int top_read(struct parser *s, const struct sm_node *root);
static int map_read(struct parser *s, const struct owner *o, const struct sm_node *map);
static int ops_read(struct parser *s, const struct sm_node *list, const char *key, size_t offset,
                    struct sm_op_node **ops, size_t *n_ops);
static int method_read(struct parser *s, const struct sm_param *p, const struct sm_node *node);
static int fail_memory(struct parser *s);
static const char *base_name(struct sm_arena *arena, const char *path);

static int parse(struct sm_pipeline *p, const char *name, const char *text, size_t n, bool by_user,
                 const struct sm_op_table *ops, struct sm_err *err) {
    struct parser s = {.p = p, .text = {name, text, n}, .ops = ops, .err = err, .by_user = by_user};
    struct sm_node *root;
    *p = (struct sm_pipeline){0};
    sm_arena_init(&p->arena, ARENA_BYTES_MAX);
    for (size_t i = 0; i < sm_sections_count; i++)
        sm_param_defaults(sm_sections[i].params, sm_sections[i].n_params, p);
    if (sm_yaml_read(&s.text, &p->arena, &root, err) != 0) return -1;
    if (top_read(&s, root) != 0 || sm_pipeline_settle(p, &s.text, root, err) != 0) return -1;
    if (p->name == NULL) p->name = base_name(&p->arena, name);
    return p->name != NULL ? 0 : fail_memory(&s);
}

int sm_pipeline_parse(struct sm_pipeline *p, const char *name, const char *text, size_t n,
                      const struct sm_op_table *ops, struct sm_err *err) {
    return parse(p, name, text, n, false, ops, err);
}

void sm_pipeline_release(struct sm_pipeline *p) {
    sm_arena_release(&p->arena);
    *p = (struct sm_pipeline){0};
}

/* --- files ---------------------------------------------------------------------------------- */

/* Appends a whole file; one byte more than allowed is enough for the parser to refuse it. */
static int file_read(const char *path, struct sm_buf *out, struct sm_err *err) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sm_fail_errno(err, "cannot open pipeline file '%s'", path);
    int rc = fstat(fd, &st);
    if (rc == 0 && S_ISDIR(st.st_mode)) {
        close(fd);
        return sm_fail(err, SM_E_PIPELINE, "'%s' is a folder (hint: name the pipeline file in it)",
                       path);
    }
    ssize_t got = rc;
    while (rc == 0 && out->len <= SM_MAX_YAML_BYTES) {
        char *room = sm_buf_room(out, 4096);
        if (room == NULL) break;
        got = read(fd, room, 4096);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        out->len += (size_t)got;
    }
    if (got < 0) sm_fail_errno(err, "cannot read pipeline file '%s'", path);
    close(fd);
    return got < 0 ? -1 : 0;
}

/* A relative source.path is seen from the file's folder. */
static int source_rebase(struct sm_pipeline *p, const char *path, struct sm_err *err) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL || p->source.path[0] == '/') return 0;
    size_t dir = (size_t)(slash - path) + 1, tail = strlen(p->source.path);
    char *joined = sm_arena_alloc(&p->arena, dir + tail + 1);
    if (joined == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    memcpy(joined, path, dir);
    memcpy(joined + dir, p->source.path, tail + 1);
    p->source.path = joined;
    return 0;
}

int sm_pipeline_load(struct sm_pipeline *p, const char *path, const struct sm_op_table *ops,
                     struct sm_err *err) {
    struct sm_buf text;
    *p = (struct sm_pipeline){0};
    sm_arena_init(&p->arena, ARENA_BYTES_MAX);
    sm_buf_init(&text, SM_MAX_YAML_BYTES + 8192);
    int rc = file_read(path, &text, err);
    if (rc == 0) rc = parse(p, path, text.data != NULL ? text.data : "", text.len, true, ops, err);
    if (rc == 0) rc = source_rebase(p, path, err);
    sm_buf_release(&text);
    return rc;
}

/* "pipelines/photos.yaml" -> "photos" */
static const char *base_name(struct sm_arena *arena, const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    size_t n = dot != NULL && dot > name ? (size_t)(dot - name) : strlen(name);
    return sm_arena_strn(arena, name, n);
}

/* --- errors --------------------------------------------------------------------------------- */

static int fail_memory(struct parser *s) {
    return sm_fail(s->err, SM_E_MEMORY, "out of memory");
}

/* Puts the place before an error that a table or an op has worded. */
static int fail_at(struct parser *s, size_t offset, const struct sm_err *said) {
    return sm_text_fail(&s->text, offset, s->err, "%.390s", said->text);
}

static const char *kind_word(const struct sm_node *node) {
    return node->kind == SM_NODE_MAP ? "a map" : node->kind == SM_NODE_LIST ? "a list" : "a word";
}

/* The name of the section that has this key, or NULL. */
static const char *section_with(const char *key) {
    for (size_t i = 0; i < sm_sections_count; i++) {
        const struct sm_param *p =
            sm_param_find(sm_sections[i].params, sm_sections[i].n_params, key);
        if (p != NULL && !p->hidden) return sm_sections[i].name;
    }
    return NULL;
}

static void names_list(const char *const *names, size_t n, char *out, size_t max) {
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; i < n && len + 1 < max; i++)
        len += (size_t)snprintf(out + len, max - len, "%s%s", i ? ", " : "", names[i]);
}

/* names: what may stand there. */
static int fail_unknown(struct parser *s, const struct owner *o, const struct sm_node *key,
                        const char *const *names, size_t n) {
    char hint[256];
    const char *near = sm_nearest(key->text, names, n);
    const char *section = o->op == NULL ? section_with(key->text) : NULL;
    if (section != NULL && section[0] != 0)
        snprintf(hint, sizeof hint, "it belongs into '%s'", section);
    else if (section != NULL)
        snprintf(hint, sizeof hint, "it belongs to the top level of the file");
    else if (near != NULL)
        snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    else if (o->op == NULL && s->ops->find(key->text) != NULL)
        snprintf(hint, sizeof hint, "an op stands in the list 'ops'");
    else if (n == 0)
        snprintf(hint, sizeof hint, "it takes none");
    else {
        char list[200];
        names_list(names, n, list, sizeof list);
        snprintf(hint, sizeof hint, "it takes %s", list);
    }
    return sm_text_fail(&s->text, key->offset, s->err, "unknown %s '%.60s' in %s (hint: %s)",
                        o->op != NULL ? "parameter" : "key", key->text, o->what, hint);
}

/* --- values --------------------------------------------------------------------------------- */

static struct sm_value value_of(const struct sm_node *node) {
    if (node->plain) return sm_value_scalar(node->text);
    return (struct sm_value){.kind = SM_V_STR, .str = node->text};
}

static int fail_kind(struct parser *s, const struct sm_param *p, const struct sm_node *node) {
    struct sm_buf type;
    sm_buf_init(&type, 300);
    sm_param_type_text(p, &type);
    sm_text_fail(&s->text, node->offset, s->err, "'%s' takes %s, not %s", p->name,
                 type.data != NULL ? type.data : "something else", kind_word(node));
    sm_buf_release(&type);
    return -1;
}

/* The item of a list that is wrong by itself, or the list. */
static const struct sm_node *culprit(const struct sm_param *p, const struct sm_node *list) {
    struct sm_nums scratch;
    struct sm_param one = *p;
    one.offset = 0;
    for (const struct sm_node *item = list->first; p->type == SM_T_NUMS && item != NULL;
         item = item->next) {
        struct sm_value v = value_of(item);
        if (v.kind == SM_V_NULL || sm_param_set(&one, &scratch, &v, NULL) != 0) return item;
    }
    return list;
}

static int list_set(struct parser *s, const struct sm_param *p, void *base,
                    const struct sm_node *list) {
    struct sm_value items[SM_NUMS_MAX + 1] = {0};
    size_t n = 0;
    for (const struct sm_node *item = list->first; item != NULL; item = item->next, n++) {
        if (item->kind != SM_NODE_SCALAR) return fail_kind(s, p, item);
        if (n <= SM_NUMS_MAX) items[n] = value_of(item);
    }
    struct sm_value v = {.kind = SM_V_LIST, .items = items, .n_items = n};
    struct sm_err said;
    if (p->type != SM_T_NUMS || n > SM_NUMS_MAX) v.items = NULL;
    if (sm_param_set(p, base, &v, &said) == 0) return 0;
    return fail_at(s, culprit(p, list)->offset, &said);
}

/* A list of words; numbers may be words here (a column called 3, a category 1.5). */
static int strs_set(struct parser *s, const struct sm_param *p, void *base,
                    const struct sm_node *list) {
    struct sm_err said;
    struct sm_value *items = sm_arena_alloc(&s->p->arena, (list->count + 1) * sizeof *items);
    const char **texts = sm_arena_alloc(&s->p->arena, (list->count + 1) * sizeof *texts);
    if (items == NULL || texts == NULL) return fail_memory(s);
    size_t n = 0;
    for (const struct sm_node *item = list->first; item != NULL; item = item->next, n++) {
        if (item->kind != SM_NODE_SCALAR) return fail_kind(s, p, item);
        items[n] = (struct sm_value){.kind = SM_V_STR, .str = item->text};
        texts[n] = item->text;
    }
    const struct sm_value v = {
        .kind = SM_V_LIST, .items = items, .texts = texts, .n_items = list->count};
    if (sm_param_set(p, base, &v, &said) == 0) return 0;
    return fail_at(s, list->offset, &said);
}

/* A map of numbers, as {cat: 100, dog: 50}. */
static int map_set(struct parser *s, const struct sm_param *p, void *base,
                   const struct sm_node *map) {
    struct sm_arena *arena = &s->p->arena;
    struct sm_err said;
    struct sm_value *items = sm_arena_alloc(arena, (map->count + 1) * sizeof *items);
    const char **keys = sm_arena_alloc(arena, (map->count + 1) * sizeof *keys);
    double *numbers = sm_arena_alloc(arena, (map->count + 1) * sizeof *numbers);
    if (items == NULL || keys == NULL || numbers == NULL) return fail_memory(s);
    size_t n = 0;
    for (const struct sm_node *key = map->first; key != NULL; key = key->next, n++) {
        if (key->value->kind == SM_NODE_SCALAR) items[n] = value_of(key->value);
        if (items[n].kind != SM_V_INT && items[n].kind != SM_V_NUM)
            return sm_text_fail(&s->text, key->value->offset, s->err,
                                "'%s' takes a number for each name, and '%.60s' has none", p->name,
                                key->text);
        keys[n] = key->text;
        numbers[n] = items[n].number;
    }
    const struct sm_value v = {
        .kind = SM_V_MAP, .items = items, .keys = keys, .numbers = numbers, .n_items = n};
    if (sm_param_set(p, base, &v, &said) == 0) return 0;
    return fail_at(s, map->offset, &said);
}

static int param_set(struct parser *s, const struct owner *o, const struct sm_param *p,
                     const struct sm_node *key) {
    const struct sm_node *node = key->value;
    struct sm_err said;
    if (p->type == SM_T_OPS)
        return ops_read(s, node, key->text, key->offset, o->op ? &o->op->children : &s->p->ops,
                        o->op ? &o->op->n_children : &s->p->n_ops);
    if (p->type == SM_T_METHOD) return method_read(s, p, node);
    if (node->kind == SM_NODE_MAP)
        return p->map_ok ? map_set(s, p, o->base, node) : fail_kind(s, p, node);
    if (node->kind == SM_NODE_LIST)
        return p->type == SM_T_STRS ? strs_set(s, p, o->base, node) : list_set(s, p, o->base, node);
    struct sm_value v = value_of(node);
    if (v.kind == SM_V_STR && strlen(v.str) >= SM_MAX_PATH_BYTES)
        return sm_text_fail(&s->text, node->offset, s->err, "'%s' is longer than %d bytes", p->name,
                            SM_MAX_PATH_BYTES - 1);
    if (sm_param_set(p, o->base, &v, &said) != 0) return fail_at(s, node->offset, &said);
    return 0;
}

/* --- maps ----------------------------------------------------------------------------------- */

static const struct sm_node *key_find(const struct sm_node *map, const char *name) {
    for (const struct sm_node *key = map->first; key != NULL; key = key->next)
        if (strcmp(key->text, name) == 0) return key;
    return NULL;
}

static int required_check(struct parser *s, const struct owner *o, const struct sm_node *map) {
    for (size_t i = 0; i < o->n_params; i++) {
        const struct sm_param *p = &o->params[i];
        if (p->dflt != NULL || (map != NULL && key_find(map, p->name) != NULL)) continue;
        if (o->example != NULL)
            return sm_text_fail(&s->text, o->offset, s->err, "%s needs '%s' (hint: %s)", o->what,
                                p->name, o->example);
        return sm_text_fail(&s->text, o->offset, s->err, "%s needs '%s' (hint: %s)", o->what,
                            p->name, p->doc);
    }
    return 0;
}

/* Reads a map against its table. map may be NULL: nothing was given. */
static int map_read(struct parser *s, const struct owner *o, const struct sm_node *map) {
    const char *names[KEYS_MAX];
    assert(o->n_params <= KEYS_MAX);
    for (size_t i = 0; i < o->n_params; i++)
        names[i] = o->params[i].name;
    for (const struct sm_node *key = map ? map->first : NULL; key != NULL; key = key->next) {
        const struct sm_param *p = sm_param_find(o->params, o->n_params, key->text);
        if (p == NULL) return fail_unknown(s, o, key, names, o->n_params);
        if (param_set(s, o, p, key) != 0) return -1;
    }
    return required_check(s, o, map);
}

static bool is_null(const struct sm_node *node) {
    return node->kind == SM_NODE_SCALAR && value_of(node).kind == SM_V_NULL;
}

static int section_read(struct parser *s, const struct sm_section *section,
                        const struct sm_node *key, size_t root_offset) {
    char what[40];
    snprintf(what, sizeof what, "'%s'", section->name);
    struct owner o = {.what = what,
                      .params = section->params,
                      .n_params = section->n_params,
                      .base = s->p,
                      .offset = key != NULL ? key->offset : root_offset};
    if (key == NULL || is_null(key->value)) return map_read(s, &o, NULL);
    if (key->value->kind != SM_NODE_MAP)
        return sm_text_fail(&s->text, key->value->offset, s->err,
                            "%s must be a map, not %s (hint: %s: {%s: …})", what,
                            kind_word(key->value), section->name, section->params[0].name);
    return map_read(s, &o, key->value);
}

static const struct sm_section *section_find(const char *name) {
    for (size_t i = 1; i < sm_sections_count; i++)
        if (strcmp(sm_sections[i].name, name) == 0) return &sm_sections[i];
    return NULL;
}

/* The top level holds the rows of the first section and, beside them, the other sections as maps.
 */
static int top_read(struct parser *s, const struct sm_node *root) {
    const char *names[KEYS_MAX];
    size_t n = 0;
    if (root->kind != SM_NODE_MAP)
        return sm_text_fail(&s->text, root->offset, s->err,
                            "a pipeline file is a map, not %s (hint: it begins with 'version: 1')",
                            kind_word(root));
    const struct sm_section *top = &sm_sections[0];
    struct owner o = {.what = "a pipeline file",
                      .params = top->params,
                      .n_params = top->n_params,
                      .base = s->p,
                      .offset = root->offset,
                      .example = "version: 1"};
    for (size_t i = 0; i < top->n_params; i++)
        if (!s->by_user || !top->params[i].hidden) names[n++] = top->params[i].name;
    for (size_t i = 1; i < sm_sections_count; i++)
        names[n++] = sm_sections[i].name;
    for (const struct sm_node *key = root->first; key != NULL; key = key->next) {
        const struct sm_param *p = sm_param_find(top->params, top->n_params, key->text);
        const struct sm_section *section = section_find(key->text);
        if (p != NULL && p->hidden && s->by_user) p = NULL;
        if (p == NULL && section == NULL) return fail_unknown(s, &o, key, names, n);
        int rc = p != NULL ? param_set(s, &o, p, key) : section_read(s, section, key, 0);
        if (rc != 0) return -1;
    }
    if (required_check(s, &o, root) != 0) return -1;
    for (size_t i = 1; i < sm_sections_count; i++) {
        if (key_find(root, sm_sections[i].name) != NULL) continue;
        if (section_read(s, &sm_sections[i], NULL, root->offset) != 0) return -1;
    }
    return 0;
}

/* --- ops ------------------------------------------------------------------------------------ */

static int fail_op_shape(struct parser *s, const struct sm_node *item, bool is_method) {
    if (item->kind == SM_NODE_MAP && item->count == 0)
        return sm_text_fail(&s->text, item->offset, s->err,
                            "an op needs a name (hint: - Resize: {size: 224})");
    if (item->kind == SM_NODE_MAP && is_method) {
        const struct sm_node *second = item->first->next;
        return sm_text_fail(&s->text, second->offset, s->err,
                            "one method rebalances, but '%.60s' follows '%.60s' (hint: leave one "
                            "out, or indent it if it is a parameter)",
                            second->text, item->first->text);
    }
    if (item->kind == SM_NODE_MAP) {
        const struct sm_node *second = item->first->next;
        return sm_text_fail(&s->text, second->offset, s->err,
                            "one op a list item, but '%.60s' follows '%.60s' (hint: begin it with "
                            "'- ', or indent it if it is a parameter)",
                            second->text, item->first->text);
    }
    return sm_text_fail(&s->text, item->offset, s->err,
                        "an op is a name or a one-key map, not %s (hint: - Resize: {size: 224})",
                        item->kind == SM_NODE_LIST ? "a list" : "nothing");
}

static const struct sm_op_info *info_find(struct parser *s, const struct sm_op_table *table,
                                          const char *name, size_t offset) {
    const struct sm_op_info *info = table->find(name);
    const char *kind = table == s->ops ? "op" : "method of 'rebalance'";
    if (info != NULL) return info;
    const char *near = sm_nearest(name, table->names, table->n_names);
    char list[200];
    names_list(table->names, table->n_names, list, sizeof list);
    if (table == s->ops && table->rebalance != NULL && table->rebalance->find(name) != NULL)
        sm_text_fail(&s->text, offset, s->err,
                     "'%.60s' is no op (hint: rebalance: {%.60s: {}}, beside 'ops')", name, name);
    else if (near != NULL)
        sm_text_fail(&s->text, offset, s->err, "unknown %s '%.60s' (hint: did you mean '%s'?)",
                     kind, name, near);
    else if (table != s->ops)
        sm_text_fail(&s->text, offset, s->err, "unknown %s '%.60s' (hint: it takes %s)", kind, name,
                     list);
    else
        sm_text_fail(&s->text, offset, s->err,
                     "unknown op '%.60s' (hint: 'shardmill ops' lists them)", name);
    return NULL;
}

/* params: the value behind the op's name, NULL for a bare name. */
static int op_params_read(struct parser *s, const struct sm_op_table *table, struct sm_op_node *op,
                          const struct sm_node *params, size_t offset) {
    char what[80];
    const struct sm_op_info *info = op->info;
    if (params != NULL && is_null(params)) params = NULL;
    if (params != NULL && params->kind != SM_NODE_MAP)
        return sm_text_fail(&s->text, params->offset, s->err,
                            "the parameters of '%s' are a map, not %s (hint: %s)", info->name,
                            kind_word(params), info->example);
    op->params = sm_arena_alloc(&s->p->arena, info->params_size ? info->params_size : 1);
    if (op->params == NULL) return fail_memory(s);
    sm_param_defaults(info->params, info->n_params, op->params);
    snprintf(what, sizeof what, "'%s'", info->name);
    struct owner o = {.what = what,
                      .params = info->params,
                      .n_params = info->n_params,
                      .base = op->params,
                      .op = op,
                      .example = info->example,
                      .offset = offset};
    if (map_read(s, &o, params) != 0) return -1;
    struct sm_err said;
    if (table->check != NULL && table->check(info, op->params, &said) != 0)
        return fail_at(s, offset, &said);
    return 0;
}

static int op_read(struct parser *s, const struct sm_op_table *table, const struct sm_node *item,
                   struct sm_op_node *op) {
    bool bare = item->kind == SM_NODE_SCALAR && !is_null(item);
    if (!bare && (item->kind != SM_NODE_MAP || item->count != 1))
        return fail_op_shape(s, item, table != s->ops);
    const struct sm_node *name = bare ? item : item->first;
    if (++s->n_ops > SM_MAX_OPS)
        return sm_text_fail(&s->text, name->offset, s->err, "more than %d ops", SM_MAX_OPS);
    struct sm_text_place place = sm_text_place(&s->text, name->offset);
    op->line = place.line;
    op->column = place.column;
    op->offset = name->offset;
    op->info = info_find(s, table, name->text, name->offset);
    if (op->info == NULL) return -1;
    return op_params_read(s, table, op, bare ? NULL : name->value, name->offset);
}

static int ops_read(struct parser *s, const struct sm_node *list, const char *key, size_t offset,
                    struct sm_op_node **ops, size_t *n_ops) {
    if (is_null(list))
        return sm_text_fail(&s->text, offset, s->err,
                            "'%.60s' has no value (hint: a list of ops, or [] for none)", key);
    if (list->kind != SM_NODE_LIST)
        return sm_text_fail(&s->text, list->offset, s->err,
                            "'%.60s' must be a list of ops, not %s (hint: begin each op with '- ')",
                            key, kind_word(list));
    *ops = sm_arena_alloc(&s->p->arena, (list->count + 1) * sizeof **ops);
    if (*ops == NULL) return fail_memory(s);
    *n_ops = list->count;
    size_t i = 0;
    for (const struct sm_node *item = list->first; item != NULL; item = item->next)
        if (op_read(s, s->ops, item, &(*ops)[i++]) != 0) return -1;
    return 0;
}

/* `rebalance:` holds one method, or null. */
static int method_read(struct parser *s, const struct sm_param *p, const struct sm_node *node) {
    s->p->rebalance = NULL;
    if (is_null(node)) return 0;
    if (s->ops->rebalance == NULL || node->kind == SM_NODE_LIST) return fail_kind(s, p, node);
    struct sm_op_node *method = sm_arena_alloc(&s->p->arena, sizeof *method);
    if (method == NULL) return fail_memory(s);
    if (op_read(s, s->ops->rebalance, node, method) != 0) return -1;
    s->p->rebalance = method;
    return 0;
}
