/* The list of actions that steps fill: memory, messages and records. Handlers call these; the loop
 * carries the list out. */
#include "broker/state.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Far above what one batch can need: handing out leases stops at ACTIONS_SOFT_BYTES and goes on in
 * the next step. */
enum { ACTIONS_BYTES = 256 << 20 };

void sm_actions_init(struct sm_actions *a) {
    *a = (struct sm_actions){0};
    sm_arena_init(&a->arena, ACTIONS_BYTES);
}

void sm_actions_reset(struct sm_actions *a) {
    a->n = 0;
    sm_arena_release(&a->arena);
}

void sm_actions_release(struct sm_actions *a) {
    sm_arena_release(&a->arena);
    free(a->list);
    *a = (struct sm_actions){0};
}

void *core_calloc(size_t n, size_t size) {
    void *p = calloc(n, size);
    assert(p != NULL);
    return p;
}

char *core_strdup(const char *s) {
    char *p = strdup(s);
    assert(p != NULL);
    return p;
}

char *core_clean(const char *s, size_t max) {
    size_t n = strnlen(s, max);
    while (n > 0 && n == max && ((unsigned char)s[n] & 0xc0) == 0x80)
        n--; /* not in the middle of a character */
    char *p = core_calloc(n + 1, 1);
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? '?' : s[i];
    return p;
}

void *core_scratch(struct sm_core *core, size_t n) {
    void *p = sm_arena_alloc(&core->out->arena, n);
    assert(p != NULL);
    return p;
}

char *core_text(struct sm_core *core, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char text[2048];
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return strcpy(core_scratch(core, strlen(text) + 1), text);
}

static struct sm_action *action_new(struct sm_actions *a, enum sm_action_kind kind) {
    if (a->n == a->cap) {
        a->cap = a->cap ? 2 * a->cap : 16;
        a->list = realloc(a->list, a->cap * sizeof *a->list);
        assert(a->list != NULL);
    }
    struct sm_action *action = &a->list[a->n++];
    memset(action, 0, sizeof *action);
    action->kind = kind;
    return action;
}

static const struct sm_peer *peer_copy(struct sm_core *core, const struct sm_peer *peer) {
    struct sm_peer *p = core_scratch(core, sizeof *p);
    p->n = peer->n;
    memcpy(p->id, peer->id, peer->n);
    return p;
}

void core_send(struct sm_core *core, const struct sm_peer *peer,
               Shardmill__Envelope__BodyCase which, void *body) {
    sm_envelope *e = core_scratch(core, sizeof *e);
    shardmill__envelope__init(e);
    e->protocol = SM_PROTOCOL;
    e->instance = core->options.instance;
    e->body_case = which;
    e->hello = body; /* the union's members are all pointers to a message */
    const struct sm_peer *to = peer_copy(core, peer);
    struct sm_action *action = action_new(core->out, SM_ACTION_SEND);
    action->peer = to;
    action->message = e;
}

void core_send_file(struct sm_core *core, const struct sm_peer *peer, const struct job *job,
                    const char *digest, const char *path, uint64_t offset) {
    const struct sm_peer *to = peer_copy(core, peer);
    char *id = core_text(core, "%s", job->id), *name = core_text(core, "%s", digest);
    char *from = strcpy(core_scratch(core, strlen(path) + 1), path);
    struct sm_action *action = action_new(core->out, SM_ACTION_FILE);
    action->peer = to;
    action->job = id;
    action->file_path = from;
    action->file_digest = name;
    action->offset = offset;
    action->instance = core->options.instance;
}

static Shardmill__Refused *refused_new(struct sm_core *core, enum sm_code code, const char *fmt,
                                       va_list ap) {
    BODY(core, m, Shardmill__Refused, shardmill__refused__init);
    char text[1024];
    vsnprintf(text, sizeof text, fmt, ap);
    m->code = code;
    m->text = core_text(core, "%s", text);
    return m;
}

void core_refuse(struct sm_core *core, const struct sm_peer *peer, enum sm_code code,
                 const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    core_send(core, peer, SHARDMILL__ENVELOPE__BODY_REFUSED, refused_new(core, code, fmt, ap));
    va_end(ap);
}

void core_refuse_of(struct sm_core *core, const struct sm_peer *peer, const char *job,
                    uint64_t attempt, enum sm_code code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    Shardmill__Refused *m = refused_new(core, code, fmt, ap);
    va_end(ap);
    m->job = core_text(core, "%.*s", SM_MAX_JOB_ID_BYTES, job);
    m->attempt = attempt;
    core_send(core, peer, SHARDMILL__ENVELOPE__BODY_REFUSED, m);
}

void core_refuse_for(struct sm_core *core, const struct sm_peer *peer, enum sm_code code,
                     int64_t wait_ms, const char *text) {
    BODY(core, m, Shardmill__Refused, shardmill__refused__init);
    m->code = code;
    m->text = core_text(core, "%s", text);
    m->wait_ms = (uint32_t)wait_ms;
    core_send(core, peer, SHARDMILL__ENVELOPE__BODY_REFUSED, m);
}

void core_persist(struct sm_core *core, const struct sm_record *record) {
    struct sm_err err;
    struct sm_record copy = *record;
    copy.job = core_text(core, "%s", record->job);
    if (record->text != NULL) copy.text = core_text(core, "%s", record->text);
    if (record->spec != NULL)
        copy.spec = memcpy(core_scratch(core, record->spec_n), record->spec, record->spec_n);
    if (record->sha256 != NULL) copy.sha256 = core_text(core, "%s", record->sha256);
    if (record->n_quarantined > 0) {
        struct quarantined q = core_quarantined_copy(record->quarantined, record->n_quarantined);
        copy.quarantined = core_scratch(core, q.n * sizeof *q.items);
        for (size_t i = 0; i < q.n; i++) {
            Shardmill__Quarantined *item = core_scratch(core, sizeof *item);
            *item = *q.items[i];
            item->stage = core_text(core, "%s", item->stage);
            item->text = core_text(core, "%s", item->text);
            copy.quarantined[i] = item;
        }
        free(q.items);
    }
    int rc = core_record_apply(core, &copy, &err);
    assert(rc == 0);
    action_new(core->out, SM_ACTION_PERSIST)->record = copy;
}
