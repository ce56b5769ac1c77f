/* What `auto` means, and what does not go together: images and row ops, tables and image ops, keys
 * of one kind of source on another. */
#include "pipelines/lang/settle.h"

#include "lib/limits.h"

#include <stdio.h>
#include <string.h>

struct look {
    struct sm_pipeline *p;
    const struct sm_text *text;
    const struct sm_node *root;
    struct sm_err *err;
};

static int ops_check(struct look *l);
static int rebalance_settle(struct look *l);
static int source_check(struct look *l);
static int output_settle(struct look *l);
static int split_check(struct look *l);
static int learned_check(struct look *l);

int sm_pipeline_settle(struct sm_pipeline *p, const struct sm_text *text,
                       const struct sm_node *root, struct sm_err *err) {
    struct look l = {p, text, root, err};
    if (source_check(&l) != 0 || ops_check(&l) != 0 || rebalance_settle(&l) != 0 ||
        split_check(&l) != 0 || learned_check(&l) != 0)
        return -1;
    p->source.group = p->split.by;
    return output_settle(&l);
}

bool sm_source_is_table(const struct sm_pipeline_source *s) {
    return s->format == SM_SOURCE_CSV || s->format == SM_SOURCE_NPY;
}

static bool is_flatten(const struct sm_op_node *op) {
    return strcmp(op->info->name, "Flatten") == 0;
}

bool sm_pipeline_is_rows(const struct sm_pipeline *p) {
    if (sm_source_is_table(&p->source)) return true;
    for (size_t i = 0; i < p->n_ops; i++)
        if (is_flatten(&p->ops[i])) return true;
    return false;
}

size_t sm_pipeline_image_ops(const struct sm_pipeline *p) {
    if (sm_source_is_table(&p->source)) return 0;
    for (size_t i = 0; i < p->n_ops; i++)
        if (is_flatten(&p->ops[i])) return i + 1;
    return p->n_ops;
}

static const struct sm_node *key_in(const struct sm_node *map, const char *key) {
    for (const struct sm_node *k = map->first; map->kind == SM_NODE_MAP && k != NULL; k = k->next)
        if (strcmp(k->text, key) == 0) return k;
    return NULL;
}

/* Where section.key stands in the file; NULL when it was not written. */
static const struct sm_node *key_of(const struct look *l, const char *section, const char *key) {
    const struct sm_node *in = key_in(l->root, section);
    return in != NULL ? key_in(in->value, key) : NULL;
}

static size_t place_of(const struct look *l, const char *section, const char *key) {
    const struct sm_node *node = key_of(l, section, key);
    return node != NULL ? node->value->offset : 0;
}

/* --- ops -------------------------------------------------------------------------------------- */

static int children_check(struct look *l, const struct sm_op_node *op) {
    for (size_t i = 0; i < op->n_children; i++) {
        const struct sm_op_node *child = &op->children[i];
        if (child->info->rows || is_flatten(child))
            return sm_text_fail(l->text, child->offset, l->err,
                                "'%s' cannot stand inside '%s' (hint: ops on rows follow 'Flatten' "
                                "in the list 'ops')",
                                child->info->name, op->info->name);
        if (children_check(l, child) != 0) return -1;
    }
    return 0;
}

static int ops_check(struct look *l) {
    const struct sm_pipeline *p = l->p;
    bool rows = sm_source_is_table(&p->source);
    if (p->rebalance != NULL && children_check(l, p->rebalance) != 0) return -1;
    if (p->rebalance != NULL && p->rebalance->n_children > 0 && rows)
        return sm_text_fail(l->text, p->rebalance->children[0].offset, l->err,
                            "'augment_minority' holds ops on images, and the source is a table");
    for (size_t i = 0; i < p->n_ops; i++) {
        const struct sm_op_node *op = &p->ops[i];
        if (children_check(l, op) != 0) return -1;
        if (!rows && is_flatten(op))
            rows = true;
        else if (rows && !op->info->rows)
            return sm_text_fail(l->text, op->offset, l->err,
                                sm_source_is_table(&p->source)
                                    ? "'%s' works on images, and the source is a table"
                                    : "'%s' works on images, and behind 'Flatten' there are rows",
                                op->info->name);
        else if (!rows && op->info->rows)
            return sm_text_fail(l->text, op->offset, l->err,
                                "'%s' works on rows, and images come to it (hint: - Flatten before "
                                "it)",
                                op->info->name);
    }
    return 0;
}

/* --- rebalance -------------------------------------------------------------------------------- */

static int fail_no_op(struct look *l, const char *key, const char *name) {
    const struct sm_pipeline *p = l->p;
    const char *names[SM_MAX_OPS], *near;
    char hint[256] = "'ops' is empty";
    size_t len = 0;
    for (size_t i = 0; i < p->n_ops; i++) {
        names[i] = p->ops[i].info->name;
        if (len < sizeof hint)
            len += (size_t)snprintf(hint + len, sizeof hint - len, "%s%s",
                                    i > 0 ? ", " : "there are ", names[i]);
    }
    if ((near = sm_nearest(name, names, p->n_ops)) != NULL)
        snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    const struct sm_node *method = key_of(l, "rebalance", p->rebalance->info->name),
                         *at = method != NULL ? key_in(method->value, key) : NULL;
    return sm_text_fail(l->text, at != NULL ? at->value->offset : p->rebalance->offset, l->err,
                        "'%s' names '%.60s', and 'ops' has no such op (hint: %s)", key, name, hint);
}

/* Of several ops of the name that a method gives the last counts: columns of words and columns of
 * numbers may be filled by two SimpleImputers. */
static int rebalance_settle(struct look *l) {
    struct sm_pipeline *p = l->p;
    const struct sm_op_node *method = p->rebalance;
    for (size_t i = 0; method != NULL && i < method->info->n_params; i++) {
        const struct sm_param *param = &method->info->params[i];
        const void *at = (const char *)method->params + param->offset;
        const char *name = param->names_op ? *(const char *const *)at : NULL;
        if (name == NULL) continue;
        for (size_t k = 0; k < p->n_ops; k++)
            if (strcmp(p->ops[k].info->name, name) == 0) p->rebalance_after = k + 1;
        if (p->rebalance_after == 0) return fail_no_op(l, param->name, name);
    }
    return 0;
}

/* --- source ----------------------------------------------------------------------------------- */

static int source_check(struct look *l) {
    static const char *const of_tables[] = {
        "label",       "delimiter", "decimal", "skip_initial_space", "header", "missing",
        "categorical", "numeric",   "float64"};
    static const char *const of_images[] = {"mode", "background", "exif", "gif", "tiff"};
    const struct sm_pipeline_source *s = &l->p->source;
    const bool table = sm_source_is_table(s);
    static const char *const words[] = {"folder", "list", "webdataset", "csv", "npy"};
    /* canonical JSON names every key: only what differs from its default contradicts */
    const bool plain = s->label == NULL && s->header == SM_HEADER_AUTO && s->missing.v == NULL &&
                       s->categorical.count == 0 && !s->float64 && !s->skip_initial_space &&
                       strcmp(s->delimiter, ",") == 0 && strcmp(s->decimal, ".") == 0;
    const bool plain_image =
        s->mode == SM_MODE_RGB && s->background.count == 0 && s->exif && !s->gif && !s->tiff;
    if (table ? plain_image : plain)
        return s->delimiter[1] == 0 && (signed char)s->delimiter[0] > 0
                   ? 0
                   : sm_text_fail(l->text, place_of(l, "source", "delimiter"), l->err,
                                  "'delimiter' is one ASCII character (hint: \"\\t\" for a tab)");
    const char *const *keys = table ? of_images : of_tables;
    for (size_t i = 0; i < (table ? sizeof of_images : sizeof of_tables) / sizeof *keys; i++) {
        const struct sm_node *node = key_of(l, "source", keys[i]);
        if (node != NULL)
            return sm_text_fail(l->text, node->offset, l->err,
                                "'%s' is for %s, and the format is '%s'", keys[i],
                                table ? "images" : "tables", words[s->format]);
    }
    return 0;
}

static int split_check(struct look *l) {
    const struct sm_pipeline *p = l->p;
    if (p->split.by != NULL && p->split.val == 0)
        return sm_text_fail(l->text, place_of(l, "split", "by"), l->err,
                            "'by' keeps groups together in a split, and nothing is held out "
                            "(hint: val: 0.1)");
    if (p->split.by != NULL && !sm_source_is_table(&p->source))
        return sm_text_fail(l->text, place_of(l, "split", "by"), l->err,
                            "'by' names a column, and only a csv or npy has columns");
    if (p->part == SM_PART_VAL && p->split.val == 0)
        return sm_fail(l->err, SM_E_PIPELINE,
                       "nothing is held out for validation (hint: split: {val: 0.1})");
    return 0;
}

/* --- what was learned ------------------------------------------------------------------------- */

/* These become names of files. "": nothing was learned there. */
static int learned_check(struct look *l) {
    const struct sm_strs *ops = &l->p->artifacts;
    for (size_t i = 0; i <= ops->count; i++) {
        const char *sha = i < ops->count ? ops->v[i] : l->p->rebalance_artifact;
        if (sha != NULL && sha[0] != 0 && !sm_is_hex(sha, SM_SHA_HEX - 1))
            return sm_fail(l->err, SM_E_PIPELINE, "'%.80s' is no SHA-256", sha);
    }
    return 0;
}

/* --- output ----------------------------------------------------------------------------------- */

static int output_settle(struct look *l) {
    struct sm_pipeline *p = l->p;
    const bool rows = sm_pipeline_is_rows(p);
    if (p->output.dtype == SM_DTYPE_AUTO)
        p->output.dtype = rows ? SM_DTYPE_FLOAT32 : SM_DTYPE_UINT8;
    if (p->expand.encode == SM_ENCODE_AUTO)
        p->expand.encode = rows ? SM_ENCODE_CSV : SM_ENCODE_JPEG;
    const bool row_dtype =
        p->output.dtype == SM_DTYPE_FLOAT32 || p->output.dtype == SM_DTYPE_FLOAT64;
    if (rows && !row_dtype)
        return sm_text_fail(l->text, place_of(l, "output", "dtype"), l->err,
                            "rows are float32 or float64");
    if (!rows && p->output.dtype == SM_DTYPE_FLOAT64)
        return sm_text_fail(l->text, place_of(l, "output", "dtype"), l->err,
                            "images are uint8, float32, float16 or bfloat16; float64 is for rows");
    /* what leaves as float64 was float64 all the way, unless the file says otherwise */
    if (sm_source_is_table(&p->source) && p->output.dtype == SM_DTYPE_FLOAT64 &&
        key_of(l, "source", "float64") == NULL)
        p->source.float64 = true;
    if (rows != (p->expand.encode == SM_ENCODE_CSV || p->expand.encode == SM_ENCODE_NPY))
        return sm_text_fail(
            l->text, place_of(l, "expand", "encode"), l->err,
            rows ? "rows are written as csv or npy"
                 : "csv and npy are for rows (hint: tensor writes each image as .npy)");
    if (rows && p->expand.originals)
        return sm_text_fail(l->text, place_of(l, "expand", "originals"), l->err,
                            "'originals' keeps the files of images, and rows leave this pipeline");
    return 0;
}
