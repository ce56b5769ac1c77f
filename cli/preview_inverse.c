/* Every op that can be undone becomes a shift, a scale and, of PCA, a matrix. Before: artifacts of
 * the fits. After: pictures of means, components and reconstructions (preview_rows.c). */
#include "cli/preview_inverse.h"

#include "workers/chain.h"
#include "workers/features.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int shape_find(struct preview_inverse *v, const struct sm_pipeline *p, struct sm_err *err);
static bool undo_make(struct preview_undo *u, const struct sm_op_node *node, size_t width);
static void undo_release(struct preview_undo *u);
static bool switched_off(const struct sm_op_node *node, const char *name);

int preview_inverse_open(struct preview_inverse *v, const struct sm_pipeline *p, const char *dir,
                         struct sm_err *err) {
    *v = (struct preview_inverse){.n = 0};
    if (shape_find(v, p, err) < 0) return -1;
    size_t width = (size_t)v->channels * (size_t)v->height * (size_t)v->width;
    for (size_t i = sm_pipeline_image_ops(p); i < p->n_ops && v->components == 0; i++) {
        struct preview_undo *u = &v->steps[v->n];
        const char *name = p->ops[i].info->name,
                   *sha = i < p->artifacts.count ? p->artifacts.v[i] : "";
        *u = (struct preview_undo){.in = 0};
        if (sha[0] == 0) break;
        if (sm_artifact_open(&u->learned, dir, sha, err) < 0) return -1;
        if (!undo_make(u, &p->ops[i], width)) {
            undo_release(u);
            break;
        }
        width = u->in;
        v->n++;
        v->end = i + 1;
        v->has_mean = strcmp(name, "StandardScaler") == 0 && !switched_off(&p->ops[i], "with_mean");
        if (u->components == NULL) continue;
        const struct sm_array *ratio = sm_artifact_find(&u->learned, "explained_variance_ratio_");
        v->has_mean = true;
        v->components = u->in;
        v->ratio = ratio->data;
    }
    return 0;
}

void preview_inverse_release(struct preview_inverse *v) {
    for (size_t i = 0; i < v->n; i++)
        undo_release(&v->steps[i]);
    v->n = 0;
}

void preview_inverse_apply(const struct preview_inverse *v, const double *z, bool linear,
                           double *x) {
    for (size_t i = v->n; i-- > 0; z = x) {
        const struct preview_undo *u = &v->steps[i];
        if (u->components == NULL && x != z) memcpy(x, z, u->out * sizeof *x);
        for (size_t k = 0; u->components != NULL && k < u->out; k++)
            x[k] = 0;
        for (size_t c = 0; u->components != NULL && c < u->in; c++)
            for (size_t k = 0; k < u->out; k++)
                x[k] += z[c] * u->weight[c] * u->components[c * u->out + k];
        for (size_t k = 0; k < u->out; k++)
            x[k] = x[k] * u->scale[k] + (linear ? 0 : u->shift[k]);
    }
}

/* --- the image before Flatten ----------------------------------------------------------------- */

/* Where an op's parameter lies. */
static const void *param_of(const struct sm_op_node *node, const char *name) {
    const struct sm_param *row = sm_param_find(node->info->params, node->info->n_params, name);
    return row == NULL ? NULL : (const char *)node->params + row->offset;
}

static int shape_find(struct preview_inverse *v, const struct sm_pipeline *p, struct sm_err *err) {
    struct sm_chain chain = {0};
    const struct sm_shape in = {.channels = p->source.mode == SM_MODE_L ? 1 : 3};
    const size_t n = sm_pipeline_image_ops(p);
    int failed = sm_chain_compile(&chain, p->ops, n, in, err);
    v->channels = chain.out.channels;
    v->height = chain.out.height;
    v->width = chain.out.width;
    sm_chain_release(&chain);
    for (int c = 0; c < 3; c++)
        v->std[c] = 1;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(p->ops[i].info->name, "Normalize") != 0) continue;
        const struct sm_nums *mean = param_of(&p->ops[i], "mean"),
                             *std = param_of(&p->ops[i], "std");
        for (int c = 0; c < 3; c++) {
            v->mean[c] = mean->v[mean->count == 3 ? c : 0];
            v->std[c] = std->v[std->count == 3 ? c : 0];
        }
    }
    return failed;
}

/* --- one op ----------------------------------------------------------------------------------- */

static const double *doubles(const struct sm_artifact *a, const char *name, size_t n) {
    const struct sm_array *array = sm_artifact_find(a, name);
    if (array == NULL || array->type != SM_ARRAY_F64) return NULL;
    const uint64_t count = array->shape[0] * (array->ndim == 2 ? array->shape[1] : 1);
    return count == n ? array->data : NULL;
}

static bool switched_off(const struct sm_op_node *node, const char *name) {
    const bool *flag = param_of(node, name);
    return flag != NULL && !*flag;
}

/* y = centre + scale x z, either of them if it is there and switched on. */
static bool undo_scaler(struct preview_undo *u, const struct sm_op_node *node, size_t width,
                        const char *centre_name, const char *centre_flag) {
    const double *centre = doubles(&u->learned, centre_name, width),
                 *scale = doubles(&u->learned, "scale_", width);
    if (centre == NULL || scale == NULL) return false;
    u->in = width;
    for (size_t k = 0; k < width; k++) {
        u->shift[k] = switched_off(node, centre_flag) ? 0 : centre[k];
        u->scale[k] = scale[k];
    }
    return true;
}

static bool undo_min_max(struct preview_undo *u, size_t width) {
    const double *min = doubles(&u->learned, "min_", width),
                 *scale = doubles(&u->learned, "scale_", width);
    if (min == NULL || scale == NULL) return false;
    u->in = width;
    for (size_t k = 0; k < width; k++) {
        u->scale[k] = 1 / scale[k];
        u->shift[k] = -min[k] / scale[k];
    }
    return true;
}

static bool undo_pca(struct preview_undo *u, const struct sm_op_node *node, size_t width) {
    const struct sm_array *components = sm_artifact_find(&u->learned, "components_");
    const bool *whiten = param_of(node, "whiten");
    if (components == NULL || components->ndim != 2 || components->type != SM_ARRAY_F64 ||
        components->shape[1] != width)
        return false;
    u->in = (size_t)components->shape[0];
    const double *mean = doubles(&u->learned, "mean_", width),
                 *variance = doubles(&u->learned, "explained_variance_", u->in);
    u->weight = calloc(u->in + 1, sizeof *u->weight);
    if (mean == NULL || variance == NULL || u->weight == NULL ||
        doubles(&u->learned, "explained_variance_ratio_", u->in) == NULL)
        return false;
    u->components = components->data;
    for (size_t c = 0; c < u->in; c++)
        u->weight[c] = whiten != NULL && *whiten ? sqrt(variance[c]) : 1;
    for (size_t k = 0; k < width; k++) {
        u->scale[k] = 1;
        u->shift[k] = mean[k];
    }
    return true;
}

/* false: it cannot be undone. */
static bool undo_make(struct preview_undo *u, const struct sm_op_node *node, size_t width) {
    const char *name = node->info->name;
    const struct sm_strs *columns = param_of(node, "columns");
    u->out = width;
    u->shift = calloc(width + 1, sizeof *u->shift);
    u->scale = calloc(width + 1, sizeof *u->scale);
    if (u->shift == NULL || u->scale == NULL || (columns != NULL && columns->v != NULL))
        return false;
    if (strcmp(name, "StandardScaler") == 0)
        return undo_scaler(u, node, width, "mean_", "with_mean");
    if (strcmp(name, "RobustScaler") == 0)
        return undo_scaler(u, node, width, "center_", "with_centering");
    if (strcmp(name, "MinMaxScaler") == 0) return undo_min_max(u, width);
    return strcmp(name, "PCA") == 0 && undo_pca(u, node, width);
}

static void undo_release(struct preview_undo *u) {
    free(u->shift);
    free(u->scale);
    free(u->weight);
    sm_artifact_close(&u->learned);
}
