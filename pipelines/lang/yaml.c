/* libfyaml's events, made into a tree. Limits are kept while events come in, so a hostile file
 * costs no more than its first part that breaks one. After it: pipeline.c, which knows what the
 * keys mean. */
#include "pipelines/lang/yaml.h"

#include "lib/limits.h"

#include <assert.h>
#include <libfyaml.h>
#include <string.h>

struct reader {
    const struct sm_text *text;
    struct sm_arena *arena;
    struct sm_err *err;
    struct fy_diag *diag;
    struct fy_parser *parser;
    struct sm_node *root;
    int depth, nodes, documents;
    struct level {
        struct sm_node *node, **tail; /* tail: where the next item or key goes */
        struct sm_node *key;          /* of a map: the key whose value comes next */
    } levels[SM_MAX_YAML_DEPTH];
};

static int reader_open(struct reader *r);
static void reader_close(struct reader *r);
static int event_take(struct reader *r, struct fy_event *event);
static int fail_syntax(struct reader *r);
static int refuse_directive(const struct sm_text *t, struct sm_err *err);

int sm_yaml_read(const struct sm_text *text, struct sm_arena *arena, struct sm_node **root,
                 struct sm_err *err) {
    struct reader r = {.text = text, .arena = arena, .err = err};
    if (sm_text_check(text, err) != 0 || refuse_directive(text, err) != 0) return -1;
    int rc = reader_open(&r);
    for (struct fy_event *event; rc == 0 && (event = fy_parser_parse(r.parser)) != NULL;) {
        rc = event_take(&r, event);
        fy_parser_event_free(r.parser, event);
    }
    if (rc == 0 && fy_parser_get_stream_error(r.parser)) rc = fail_syntax(&r);
    reader_close(&r);
    if (rc != 0) return -1;
    if (r.root == NULL) {
        r.root = sm_arena_alloc(arena, sizeof *r.root);
        if (r.root == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        r.root->kind = SM_NODE_MAP;
    }
    *root = r.root;
    return 0;
}

/* Errors are collected: libfyaml's own display of them writes to stderr and reads beyond the text.
 */
static int reader_open(struct reader *r) {
    struct fy_diag_cfg diag;
    fy_diag_cfg_default(&diag);
    diag.fp = NULL;
    diag.level = FYET_ERROR;
    r->diag = fy_diag_create(&diag);
    if (r->diag == NULL) return sm_fail(r->err, SM_E_MEMORY, "out of memory");
    fy_diag_set_collect_errors(r->diag, true);
    struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG |
                                        FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE,
                               .diag = r->diag};
    r->parser = fy_parser_create(&cfg);
    if (r->parser == NULL || fy_parser_set_string(r->parser, r->text->bytes, r->text->n) != 0)
        return sm_fail(r->err, SM_E_MEMORY, "out of memory");
    return 0;
}

static void reader_close(struct reader *r) {
    if (r->parser != NULL) fy_parser_destroy(r->parser);
    if (r->diag != NULL) fy_diag_destroy(r->diag);
}

/* A directive (%YAML, %TAG) can only stand before the document, so the first line with content
 * tells. */
static int refuse_directive(const struct sm_text *t, struct sm_err *err) {
    size_t i = 0;
    while (i < t->n) {
        size_t end = i;
        while (end < t->n && t->bytes[end] != '\n')
            end++;
        if (t->bytes[i] == '%')
            return sm_text_fail(t, i, err,
                                "directives are not allowed (hint: a pipeline file is plain "
                                "YAML 1.2)");
        size_t blank = i;
        while (blank < end && strchr(" \t\r", t->bytes[blank]) != NULL)
            blank++;
        if (blank < end && t->bytes[blank] != '#') return 0;
        i = end + 1;
    }
    return 0;
}

/* --- building ------------------------------------------------------------------------------- */

static size_t token_offset(struct fy_token *token, size_t otherwise) {
    const struct fy_mark *mark = token != NULL ? fy_token_start_mark(token) : NULL;
    return mark != NULL ? mark->input_pos : otherwise;
}

static struct level *top(struct reader *r) {
    return r->depth > 0 ? &r->levels[r->depth - 1] : NULL;
}

/* Where a value stands that has no text of its own. */
static size_t place_of_nothing(struct reader *r) {
    struct level *level = top(r);
    if (level == NULL) return 0;
    return level->key != NULL ? level->key->offset : level->node->offset;
}

static int fail_duplicate(struct reader *r, const struct sm_node *key,
                          const struct sm_node *other) {
    struct sm_text_place place = sm_text_place(r->text, other->offset);
    return sm_text_fail(r->text, key->offset, r->err,
                        "key '%.60s' stands twice in this map (hint: first on line %d)", key->text,
                        place.line);
}

static int key_check(struct reader *r, struct level *level, const struct sm_node *key) {
    if (key->kind != SM_NODE_SCALAR)
        return sm_text_fail(r->text, key->offset, r->err, "a key must be a word, not a %s",
                            key->kind == SM_NODE_LIST ? "list" : "map");
    for (const struct sm_node *k = level->node->first; k != NULL; k = k->next)
        if (strcmp(k->text, key->text) == 0) return fail_duplicate(r, key, k);
    return 0;
}

/* Hangs a new node into the innermost open list or map. */
static int node_attach(struct reader *r, struct sm_node *node) {
    struct level *level = top(r);
    if (level == NULL) {
        r->root = node;
        return 0;
    }
    if (level->node->kind == SM_NODE_MAP && level->key != NULL) {
        level->key->value = node;
        level->key = NULL;
        return 0;
    }
    if (level->node->kind == SM_NODE_MAP) {
        if (key_check(r, level, node) != 0) return -1;
        level->key = node;
    }
    *level->tail = node;
    level->tail = &node->next;
    level->node->count++;
    return 0;
}

static struct sm_node *node_new(struct reader *r, enum sm_node_kind kind, size_t offset) {
    if (++r->nodes > SM_MAX_YAML_NODES) {
        sm_text_fail(r->text, offset, r->err, "more than %d values in one file", SM_MAX_YAML_NODES);
        return NULL;
    }
    struct sm_node *node = sm_arena_alloc(r->arena, sizeof *node);
    if (node == NULL) {
        sm_fail(r->err, SM_E_MEMORY, "out of memory");
        return NULL;
    }
    node->kind = kind;
    node->offset = offset;
    return node;
}

static int container_open(struct reader *r, enum sm_node_kind kind, struct fy_token *start) {
    struct sm_node *node = node_new(r, kind, token_offset(start, place_of_nothing(r)));
    if (node == NULL || node_attach(r, node) != 0) return -1;
    if (r->depth == SM_MAX_YAML_DEPTH)
        return sm_text_fail(r->text, node->offset, r->err, "more than %d levels of nesting",
                            SM_MAX_YAML_DEPTH);
    r->levels[r->depth++] = (struct level){.node = node, .tail = &node->first};
    return 0;
}

/* libfyaml's mark of a quoted text stands behind the quote. */
static size_t scalar_offset(struct reader *r, struct fy_token *token) {
    size_t at = token_offset(token, place_of_nothing(r));
    enum fy_scalar_style style = fy_token_scalar_style(token);
    bool quoted = style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED;
    return quoted && at > 0 ? at - 1 : at;
}

static int scalar_take(struct reader *r, struct fy_token *token) {
    size_t n = 0;
    const char *text = token != NULL ? fy_token_get_text(token, &n) : "";
    struct sm_node *node = node_new(r, SM_NODE_SCALAR, scalar_offset(r, token));
    if (node == NULL) return -1;
    if (text == NULL) return sm_fail(r->err, SM_E_MEMORY, "out of memory");
    if (memchr(text, 0, n) != NULL)
        return sm_text_fail(r->text, node->offset, r->err, "a NUL character in text");
    node->plain = fy_token_scalar_style(token) == FYSS_PLAIN; /* of NULL too */
    node->text = sm_arena_strn(r->arena, text, n);
    if (node->text == NULL) return sm_fail(r->err, SM_E_MEMORY, "out of memory");
    return node_attach(r, node);
}

/* The mark of an anchor or alias stands behind its '&' or '*'. */
static int refuse(struct reader *r, struct fy_token *token, const char *what, const char *hint) {
    size_t at = token_offset(token, place_of_nothing(r));
    if (at > 0 && (r->text->bytes[at - 1] == '&' || r->text->bytes[at - 1] == '*')) at--;
    return sm_text_fail(r->text, at, r->err, "%s are not allowed (hint: %s)", what, hint);
}

/* Anchors and tags, of any node. */
static int refuse_properties(struct reader *r, struct fy_event *event) {
    struct fy_token *anchor = fy_event_get_anchor_token(event);
    struct fy_token *tag = fy_event_get_tag_token(event);
    if (event->type == FYET_ALIAS)
        return refuse(r, event->alias.anchor, "aliases", "write the value out");
    if (anchor != NULL) return refuse(r, anchor, "anchors", "write the value out where it is used");
    if (tag != NULL) return refuse(r, tag, "tags", "types come from the parameters' tables");
    return 0;
}

static int event_take(struct reader *r, struct fy_event *event) {
    if (refuse_properties(r, event) != 0) return -1;
    switch (event->type) {
    case FYET_MAPPING_START:
        return container_open(r, SM_NODE_MAP, event->mapping_start.mapping_start);
    case FYET_SEQUENCE_START:
        return container_open(r, SM_NODE_LIST, event->sequence_start.sequence_start);
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END:
        assert(r->depth > 0);
        r->depth--;
        return 0;
    case FYET_SCALAR:
        return scalar_take(r, event->scalar.value);
    case FYET_DOCUMENT_START:
        if (++r->documents == 1) return 0;
        return sm_text_fail(r->text, token_offset(event->document_start.document_start, 0), r->err,
                            "a second document (hint: one pipeline a file)");
    default:
        return 0;
    }
}

/* --- syntax errors -------------------------------------------------------------------------- */

/* libfyaml's words on the left; what a reader of the file is told on the right. */
static const struct {
    const char *part, *what, *hint;
} syntax_words[] = {
    {"tab character", "a tab cannot indent", "use spaces"},
    {"multiline plain key", "the next line does not fit under this one",
     "keys of one map begin in the same column"},
    {"wrong indendation", "wrong indentation", "items of one list begin in the same column"},
    {"wrong indentation", "wrong indentation", "items of one list begin in the same column"},
    {"could not find expected ':'", "a key without ':'", "write 'key: value'"},
    {"nested block mapping", "a second ':' in one line", "put a value that holds ': ' in quotes"},
    {"extra comma", "one comma too many", NULL},
    {"extra closing", "a bracket that closes nothing", NULL},
    {"without closing quote", "this quote is never closed", NULL},
};

/* The innermost bracket that is open; libfyaml notices a missing one only at the end of the file.
 */
static size_t open_bracket(const struct reader *r, size_t otherwise) {
    for (int i = r->depth - 1; i >= 0; i--) {
        size_t at = r->levels[i].node->offset;
        if (at < r->text->n && (r->text->bytes[at] == '[' || r->text->bytes[at] == '{')) return at;
    }
    return otherwise;
}

/* A tab among the blanks that open the line at offset or the line after it; n when there is none.
 */
static size_t indenting_tab(const struct sm_text *t, size_t offset) {
    size_t i = offset < t->n ? offset : t->n;
    while (i > 0 && t->bytes[i - 1] != '\n')
        i--;
    for (int lines = 0; lines < 2; lines++) {
        size_t blank = i;
        while (blank < t->n && t->bytes[blank] == ' ')
            blank++;
        if (blank < t->n && t->bytes[blank] == '\t') return blank;
        while (i < t->n && t->bytes[i] != '\n')
            i++;
        i += i < t->n;
    }
    return t->n;
}

/* Nothing but blanks from offset on. */
static bool only_blanks(const struct sm_text *t, size_t offset) {
    while (offset < t->n && strchr(" \t\r\n", t->bytes[offset]) != NULL)
        offset++;
    return offset == t->n;
}

static int fail_syntax(struct reader *r) {
    void *iterator = NULL;
    struct fy_diag_error *e = fy_diag_errors_iterate(r->diag, &iterator);
    const char *said = e != NULL && e->msg != NULL ? e->msg : "not valid YAML";
    size_t at = e != NULL ? token_offset(e->fyt, r->text->n) : r->text->n;
    size_t tab = indenting_tab(r->text, at);
    if (tab < r->text->n)
        return sm_text_fail(r->text, tab, r->err, "a tab cannot indent (hint: use spaces)");
    size_t bracket = open_bracket(r, r->text->n);
    if (bracket < r->text->n &&
        (strstr(said, "without a closing") != NULL || only_blanks(r->text, at)))
        return sm_text_fail(r->text, bracket, r->err, "this '%c' is never closed",
                            r->text->bytes[bracket]);
    if (bracket < r->text->n && strstr(said, "missing comma") != NULL)
        return sm_text_fail(r->text, at, r->err,
                            "a comma is missing before this (hint: or the '%c' of line %d is never "
                            "closed)",
                            r->text->bytes[bracket], sm_text_place(r->text, bracket).line);
    if (strstr(said, "without closing quote") != NULL && at > 0) at--;
    for (size_t i = 0; i < sizeof syntax_words / sizeof *syntax_words; i++) {
        if (strstr(said, syntax_words[i].part) == NULL) continue;
        const char *hint = syntax_words[i].hint;
        return sm_text_fail(r->text, at, r->err, "%s%s%s%s", syntax_words[i].what,
                            hint ? " (hint: " : "", hint ? hint : "", hint ? ")" : "");
    }
    return sm_text_fail(r->text, at, r->err, "not valid YAML: %.120s", said);
}
