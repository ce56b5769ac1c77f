/* A partial on its way to the broker, piece after piece: the next one leaves when the broker says
 * how much it has. Its name is its digest, so what another worker has put already is not sent
 * again, and a broker that starts anew is told from the beginning. Before: shell.c, when a lease of
 * a fit without a folder is made. After: Done names the digest. */
#include "workers/shell_state.h"

#include <stdlib.h>
#include <string.h>

static void piece_say(struct worker *w, struct held *h, bool question) {
    const uint64_t left = h->bytes - h->put;
    Shardmill__FilePut put = SHARDMILL__FILE_PUT__INIT;
    h->put_ms = sm_now_ms();
    if (!w->welcome) return;
    put.digest = h->sha256;
    put.total = h->bytes;
    put.offset = h->put;
    put.data.data = (uint8_t *)h->partial + h->put;
    put.data.len = question ? 0 : left < SM_MAX_FILE_PUT_BYTES ? left : SM_MAX_FILE_PUT_BYTES;
    SEND(w, file_put, FILE_PUT, &put);
}

void shell_put_begin(struct worker *w, struct held *h, void *partial, size_t n) {
    sm_sha256(partial, n, h->sha256);
    h->partial = partial;
    h->bytes = n;
    h->put = 0;
    h->state = HELD_PUTTING;
    piece_say(w, h, true);
}

void shell_put_tick(struct worker *w, int64_t now) {
    for (int i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (h->state == HELD_PUTTING && now - h->put_ms >= TELL_AGAIN_MS) piece_say(w, h, true);
    }
}

void shell_put_kept(struct worker *w, const Shardmill__FileKept *m) {
    for (int i = 0; i < HELD_MAX; i++) {
        struct held *h = &w->held[i];
        if (h->state != HELD_PUTTING || strcmp(h->sha256, m->digest) != 0) continue;
        if (m->code == SM_E_BUSY) continue; /* asked again at the next tick that is due */
        if (m->code != SM_E_OK) {
            struct sm_err err;
            sm_fail(&err, m->code < SM_E_COUNT ? (enum sm_code)m->code : SM_E_PEER,
                    "the broker does not keep a partial: %.700s", m->text);
            shell_fail_held(w, h, &err);
            continue;
        }
        h->put = m->got < h->bytes ? m->got : h->bytes;
        if (h->put < h->bytes) {
            piece_say(w, h, false);
            continue;
        }
        free(h->partial);
        h->partial = NULL;
        shell_tell(w, h);
    }
}
