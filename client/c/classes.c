/* The names of the classes, and how many samples of each there are and were handed out. Short names
 * come with the job; others lie in the dataset's index at the broker (lib/index.h): first its
 * header is asked for, then the strings, of which the names come first. session.c brings chunks and
 * time; api.c hands the names out. Nothing is asked before the caller wants them, since a broker
 * reads an index whole before it hands out a piece of it. */
#include "client/c/loader.h"

#include "lib/index.h"
#include "lib/limits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ASK_AGAIN_MS = 1000 };

void sm_loader_classes_tick(struct sm_loader *l, int64_t now) {
    struct classes *c = &l->classes;
    if (!c->wanted || c->here || c->refusal.code != SM_E_OK || now < c->asked_at + ASK_AGAIN_MS)
        return;
    Shardmill__FileGet m = SHARDMILL__FILE_GET__INIT;
    m.job = l->job_id;
    m.offset = c->at;
    sm_loader_say(l, SHARDMILL__ENVELOPE__BODY_FILE_GET, &m);
    c->asked_at = now;
}

static void refuse(struct classes *c, enum sm_code code, const char *why) {
    sm_fail(&c->refusal, code, "cannot tell the classes' names: %s", why);
    c->at = 0; /* who asks again begins again */
    c->asked_at = 0;
}

/* The file's beginning says where the names are. */
static bool header_take(struct sm_loader *l, const Shardmill__FileChunk *m) {
    struct classes *c = &l->classes;
    struct sm_index_header h = {0};
    if (m->data.len >= sizeof h) memcpy(&h, m->data.data, sizeof h);
    uint64_t strings = sm_index_strings(&h, m->total);
    if (strings == 0) {
        refuse(c, SM_E_PROTOCOL, "the broker's index is none that this library reads");
        return false;
    }
    h.dataset_digest[sizeof h.dataset_digest - 1] = 0;
    if (strcmp(h.dataset_digest, l->dataset_digest) != 0) {
        refuse(c, SM_E_DIFFERS, "the broker's index is of another dataset");
        return false;
    }
    sm_buf_release(&c->names);
    sm_buf_init(&c->names, SM_MAX_CLASS_NAMES_BYTES);
    c->n = (uint32_t)h.classes;
    c->got = 0;
    c->at = strings;
    c->end = strings + h.string_bytes;
    return true;
}

/* Text from where the last chunk ended. */
static void names_take(struct classes *c, const char *text, size_t n) {
    size_t used = 0;
    while (used < n && c->got < c->n)
        c->got += text[used++] == 0;
    c->at += used;
    if (!sm_buf_add(&c->names, text, used))
        refuse(c, SM_E_TOO_LARGE, "they are longer than the limit");
    else if (c->got == c->n)
        c->here = true;
    else if (c->at >= c->end)
        refuse(c, SM_E_PROTOCOL, "the broker's index has too few");
}

void sm_loader_classes_hear(struct sm_loader *l, const Shardmill__FileChunk *m) {
    struct classes *c = &l->classes;
    if (!c->wanted || c->here || c->refusal.code != SM_E_OK || m->offset != c->at ||
        strcmp(m->job, l->job_id) != 0) {
        l->counts.stale++;
        return;
    }
    c->asked_at = 0;                                      /* the next chunk at once */
    if (m->data.len == 0 && m->offset < m->total) return; /* or the same: it is not read yet */
    if (c->at == 0 && !header_take(l, m)) return;
    if (c->at < m->offset + m->data.len) {
        uint64_t skip = c->at - m->offset, n = m->data.len - skip;
        if (n > c->end - c->at) n = c->end - c->at;
        names_take(c, (const char *)m->data.data + skip, (size_t)n);
    } else if (m->data.len == 0) {
        refuse(c, SM_E_PROTOCOL, "the broker's index ends before them");
    }
}

/* Refused names no question; these are the codes that only FileGet gets. */
bool sm_loader_classes_refused(struct sm_loader *l, const Shardmill__Refused *m) {
    struct classes *c = &l->classes;
    bool of_index = m->code == SM_E_MISSING || m->code == SM_E_IO || m->code == SM_E_DATASET ||
                    m->code == SM_E_CHANGED || m->code == SM_E_MEMORY;
    if (!c->wanted || c->here || c->asked_at == 0 || c->refusal.code != SM_E_OK || !of_index)
        return false;
    refuse(c, (enum sm_code)m->code, m->text);
    return true;
}

/* Length of the JSON text, written when it fits; 0 without memory. */
int sm_loader_classes_write(const struct sm_loader *l, char *json, size_t n) {
    const struct classes *c = &l->classes;
    struct sm_buf b;
    sm_buf_init(&b, 7 * (size_t)SM_MAX_CLASS_NAMES_BYTES); /* a byte becomes at most six */
    const char *name = c->names.data;
    for (uint32_t i = 0; i < c->n; i++, name += strlen(name) + 1) {
        sm_buf_text(&b, i == 0 ? "[" : ",");
        sm_buf_json(&b, name);
    }
    sm_buf_text(&b, "]");
    int length = b.full ? 0 : (int)b.len;
    if (length > 0 && (size_t)length < n) memcpy(json, b.data, b.len + 1);
    sm_buf_release(&b);
    return length;
}

/* ---- how many of each class ---- */

/* The names, when they are so short that the job itself holds them. */
static void names_of_spec(struct classes *c, const Shardmill__JobSpec *spec) {
    if (c->here || spec->n_class_names == 0) return;
    sm_buf_release(&c->names);
    sm_buf_init(&c->names, SM_MAX_CLASS_NAMES_BYTES);
    for (size_t i = 0; i < spec->n_class_names; i++)
        sm_buf_add(&c->names, spec->class_names[i], strlen(spec->class_names[i]) + 1);
    c->n = c->got = (uint32_t)spec->n_class_names;
    c->here = !c->names.full;
}

bool sm_loader_classes_take(struct sm_loader *l, const Shardmill__JobSpec *spec) {
    const size_t n = spec->n_present;
    if (l->class_counts != NULL || n == 0 || n != spec->n_drawn || n > SM_MAX_CLASS_COUNTS)
        return true;
    if (spec->n_class_names == n) names_of_spec(&l->classes, spec);
    l->class_counts = calloc(n, sizeof *l->class_counts);
    if (l->class_counts == NULL) return false;
    l->n_class_counts = (uint32_t)n;
    for (size_t c = 0; c < n; c++) {
        l->class_counts[c].present = spec->present[c];
        l->class_counts[c].drawn = spec->drawn[c];
    }
    return true;
}

void sm_loader_counts_add(struct sm_loader *l, const struct sm_batch_view *v) {
    for (uint32_t i = 0; i < v->count; i++)
        if (!(v->flags[i] & SM_BATCH_PADDING) && v->label[i] >= 0 &&
            v->label[i] < l->n_class_counts)
            l->class_counts[v->label[i]].this_epoch++;
}

void sm_loader_counts_epoch(struct sm_loader *l) {
    for (uint32_t c = 0; c < l->n_class_counts; c++)
        l->class_counts[c].last_epoch = l->class_counts[c].this_epoch;
    sm_loader_counts_clear(l);
}

void sm_loader_counts_clear(struct sm_loader *l) {
    for (uint32_t c = 0; c < l->n_class_counts; c++)
        l->class_counts[c].this_epoch = 0;
}

void sm_loader_classes_free(struct sm_loader *l) {
    free(l->class_counts);
    sm_buf_release(&l->classes.names);
}
