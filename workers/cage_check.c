/* The check of what a cage answers. A cage may have been taken over, so the shell believes nothing
 * before this has looked at a private copy; cage.c calls it, lease.c gets what passes. */
#include "workers/cage_page.h"

#include <jansson.h>
#include <string.h>

static bool has_end(const char *text, size_t n) {
    return memchr(text, 0, n) != NULL;
}

static bool is_extension(const char *text, size_t n) {
    if (!has_end(text, n) || text[0] == 0) return false;
    return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789") == strlen(text);
}

static bool is_side(int32_t v) {
    return v >= 0 && v <= SM_MAX_IMAGE_SIDE;
}

static bool draws_are_json(const char *draws, size_t n) {
    json_t *root = json_loadb(draws, n, 0, NULL);
    bool ok = json_is_array(root);
    json_decref(root);
    return ok;
}

/* A text for people: it ends, it is not empty, it holds no control characters. */
static void clean_text(const char *from, char *to, size_t n) {
    size_t i = 0;
    for (; i + 1 < n && from[i] != 0; i++)
        to[i] = (unsigned char)from[i] < ' ' || from[i] == 127 ? ' ' : from[i];
    to[i] = 0;
}

static int take_failure(const struct sm_cage_answer *a, bool *failed, struct sm_err *err) {
    char text[sizeof a->text];
    clean_text(a->text, text, sizeof text);
    int code = (int)a->code;
    if (code == SM_E_MEMORY) code = SM_E_MEMORY_LIMIT;
    if (!sm_code_charges_sample(code)) code = SM_E_OP;
    *failed = true;
    return sm_fail(err, code, "%s", text[0] != 0 ? text : sm_code_doc(code));
}

int sm_cage_answer_check(const struct sm_cage_answer *a, uint64_t seq, const char *draws,
                         struct sm_engine_result *result, bool *failed, struct sm_err *err) {
    *failed = false;
    bool ok =
        a->seq == seq && (a->status == 0 || a->status == -1) && has_end(a->text, sizeof a->text);
    if (ok && a->status == -1 && a->code > SM_E_OK && a->code < SM_E_COUNT)
        return take_failure(a, failed, err);
    ok = ok && a->status == 0 && a->n_bytes > 0 && a->n_bytes <= SM_MAX_RESULT_BYTES &&
         a->draws_bytes <= SM_MAX_DRAWS_BYTES && is_side(a->width) && is_side(a->height) &&
         is_side(a->in_width) && is_side(a->in_height) && a->channels >= 0 && a->channels <= 4 &&
         is_extension(a->extension, sizeof a->extension) && draws_are_json(draws, a->draws_bytes);
    if (!ok) return sm_fail(err, SM_E_CAGE_DIED, "the cage answered what cannot be");
    *result = (struct sm_engine_result){.n_bytes = a->n_bytes,
                                        .width = a->width,
                                        .height = a->height,
                                        .channels = a->channels,
                                        .in_width = a->in_width,
                                        .in_height = a->in_height,
                                        .draws_bytes = a->draws_bytes};
    memcpy(result->extension, a->extension, sizeof result->extension);
    return 0;
}
