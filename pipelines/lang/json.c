/* A checked pipeline as canonical JSON and as a digest. Workers and cages parse this text again;
 * the digest names what, with dataset and seed, decides every byte. If you change what is written
 * here, every digest changes: runs in work then refuse to resume, which is right only when their
 * bytes would differ too. */
#include "lib/limits.h"
#include "pipelines/lang/pipeline.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { JSON_BYTES_MAX = 4 * SM_MAX_YAML_BYTES };

static void pipeline_write(const struct sm_pipeline *p, bool for_digest, struct sm_buf *out);

void sm_pipeline_json(const struct sm_pipeline *p, struct sm_buf *out) {
    pipeline_write(p, false, out);
}

void sm_pipeline_digest(const struct sm_pipeline *p, char hex[SM_XXH_HEX]) {
    struct sm_buf json;
    sm_buf_init(&json, JSON_BYTES_MAX);
    pipeline_write(p, true, &json);
    assert(!json.full && "a pipeline file within its limits has a JSON within this one");
    sm_xxh(json.data, json.len, hex);
    sm_buf_release(&json);
}

/* Writes "name": with a comma before it unless it is the first of its map. */
static void key_write(const char *name, bool *first, struct sm_buf *out) {
    if (!*first) sm_buf_text(out, ",");
    *first = false;
    sm_buf_json(out, name);
    sm_buf_text(out, ":");
}

/* What only programs set, and what is younger than kept digests, is written when it was set. base:
 * the struct of `size` bytes that has the value. */
static bool is_default(const struct sm_param *param, const void *base, size_t size) {
    void *blank = calloc(1, size);
    struct sm_buf now, then;
    if (blank == NULL) abort();
    sm_buf_init(&now, JSON_BYTES_MAX);
    sm_buf_init(&then, JSON_BYTES_MAX);
    sm_param_defaults(param, 1, blank);
    sm_param_json(param, base, &now);
    sm_param_json(param, blank, &then);
    bool same = strcmp(now.data, then.data) == 0;
    sm_buf_release(&now);
    sm_buf_release(&then);
    free(blank);
    return same;
}

static void ops_write(const struct sm_op_node *ops, size_t n, struct sm_buf *out) {
    sm_buf_text(out, "[");
    for (size_t i = 0; i < n; i++) {
        const struct sm_op_info *info = ops[i].info;
        sm_buf_text(out, i ? ",{" : "{");
        sm_buf_json(out, info->name);
        sm_buf_text(out, ":{");
        bool first = true;
        for (size_t k = 0; k < info->n_params; k++) {
            if (info->params[k].later &&
                is_default(&info->params[k], ops[i].params, info->params_size))
                continue;
            key_write(info->params[k].name, &first, out);
            if (info->params[k].type == SM_T_OPS)
                ops_write(ops[i].children, ops[i].n_children, out);
            else
                sm_param_json(&info->params[k], ops[i].params, out);
        }
        sm_buf_text(out, "}}");
    }
    sm_buf_text(out, "]");
}

static void method_write(const struct sm_op_node *method, struct sm_buf *out) {
    struct sm_buf list;
    if (method == NULL) {
        sm_buf_text(out, "null");
        return;
    }
    sm_buf_init(&list, JSON_BYTES_MAX);
    ops_write(method, 1, &list); /* without the brackets of the list */
    if (list.len >= 2) sm_buf_add(out, list.data + 1, list.len - 2);
    out->full = out->full || list.full;
    sm_buf_release(&list);
}

static bool digest_ignores(const struct sm_section *section, const char *key) {
    if (section->name[0] == 0) return strcmp(key, "name") == 0 || strcmp(key, "seed") == 0;
    return strcmp(section->name, "source") == 0 && strcmp(key, "path") == 0;
}

static void rows_write(const struct sm_pipeline *p, const struct sm_section *section,
                       bool for_digest, bool *first, struct sm_buf *out) {
    for (size_t i = 0; i < section->n_params; i++) {
        const struct sm_param *param = &section->params[i];
        if (for_digest && digest_ignores(section, param->name)) continue;
        if ((param->hidden || param->later) && is_default(param, p, sizeof *p)) continue;
        key_write(param->name, first, out);
        if (param->type == SM_T_OPS)
            ops_write(p->ops, p->n_ops, out);
        else if (param->type == SM_T_METHOD)
            method_write(p->rebalance, out);
        else
            sm_param_json(param, p, out);
    }
}

static void pipeline_write(const struct sm_pipeline *p, bool for_digest, struct sm_buf *out) {
    bool first = true;
    sm_buf_text(out, "{");
    for (size_t i = 0; i < sm_sections_count; i++) {
        const struct sm_section *section = &sm_sections[i];
        if (section->name[0] == 0) {
            rows_write(p, section, for_digest, &first, out);
            continue;
        }
        bool first_row = true;
        key_write(section->name, &first, out);
        sm_buf_text(out, "{");
        rows_write(p, section, for_digest, &first_row, out);
        sm_buf_text(out, "}");
    }
    sm_buf_text(out, "}");
}
