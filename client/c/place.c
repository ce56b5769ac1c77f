/* Where a trainer stands: the arithmetic of steps and epochs, and the token that writes a place
 * down. Pure; session.c asks it which batch comes next, api.c what the token is. */
#include "client/c/loader.h"

#include <assert.h>
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TOKEN_MARK "shardmill-1"

/* Samples of one step over all ranks. */
uint64_t sm_loader_step_samples(const struct sm_loader *l) {
    return (uint64_t)l->batch_size * l->world_size;
}

/* Whether no whole step is left of the epoch. */
bool sm_loader_is_end(const struct sm_loader *l, struct cursor c) {
    if (c.position >= l->positions) return true;
    return l->drop_last && l->positions - c.position < sm_loader_step_samples(l);
}

struct cursor sm_loader_after(const struct sm_loader *l, struct cursor c) {
    assert(!sm_loader_is_end(l, c));
    uint64_t left = l->positions - c.position, step = sm_loader_step_samples(l);
    c.position += left < step ? left : step;
    if (!sm_loader_is_end(l, c)) return c;
    return (struct cursor){.epoch = c.epoch + 1};
}

/* What one rank is to get of an epoch that is entered here. */
struct audit sm_loader_audit(const struct sm_loader *l, struct cursor entered) {
    struct audit a = {.epoch = entered.epoch};
    uint64_t left = entered.position < l->positions ? l->positions - entered.position : 0;
    uint64_t whole = left / sm_loader_step_samples(l), rest = left % sm_loader_step_samples(l);
    uint64_t before = (uint64_t)l->batch_size * l->rank;
    uint64_t mine = rest <= before                  ? 0
                    : rest - before < l->batch_size ? rest - before
                                                    : l->batch_size;
    a.planned = whole * l->batch_size + mine;
    if (l->drop_last) a.dropped = mine;
    return a;
}

int sm_loader_token_write(const struct sm_loader *l, struct cursor c, char *text, size_t n) {
    return snprintf(text, n, TOKEN_MARK ":%" PRIu32 ":%" PRIu64 ":%" PRIu64 ":%s:%s", c.epoch,
                    c.position, l->seed, l->pipeline_digest, l->dataset_digest);
}

static bool number(const char **p, uint64_t max, uint64_t *n) {
    if (*(*p)++ != ':' || !isdigit((unsigned char)**p)) return false;
    for (*n = 0; isdigit((unsigned char)**p); ++*p) {
        uint64_t digit = (uint64_t)(**p - '0');
        if (*n > (max - digit) / 10) return false;
        *n = *n * 10 + digit;
    }
    return true;
}

static bool word(const char **p, char out[65]) {
    size_t n = 0;
    if (*(*p)++ != ':') return false;
    for (; isxdigit((unsigned char)**p); ++*p) {
        if (n == 64) return false;
        out[n++] = **p;
    }
    out[n] = 0;
    return true;
}

int sm_loader_token_read(const char *text, struct token *t, struct sm_err *err) {
    uint64_t epoch = 0;
    const char *p = text + strlen(TOKEN_MARK);
    if (strncmp(text, TOKEN_MARK, strlen(TOKEN_MARK)) == 0 && number(&p, UINT32_MAX, &epoch) &&
        number(&p, UINT64_MAX, &t->at.position) && number(&p, UINT64_MAX, &t->seed) &&
        word(&p, t->pipeline_digest) && word(&p, t->dataset_digest) && *p == 0) {
        t->at.epoch = (uint32_t)epoch;
        return 0;
    }
    return sm_fail(err, SM_E_USAGE,
                   "'%.60s' is not a token (hint: what sm_state wrote, whole, or none)", text);
}
