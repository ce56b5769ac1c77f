/* See words.h: one hash table over one pool of bytes. csv_table.c fills it; table_build.c sorts it.
 */
#include "workers/sources/words.h"

#include "lib/limits.h"
#include "workers/sources/number.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static int grow(struct sm_words *w, size_t n, const char *what, struct sm_err *err);

static uint32_t *find(const struct sm_words *w, const char *s, size_t n) {
    uint64_t i = XXH3_64bits(s, n) & (w->n_slots - 1);
    for (; w->slots[i] != 0; i = (i + 1) & (w->n_slots - 1)) {
        const char *there = sm_words_text(w, w->slots[i] - 1);
        if (memcmp(there, s, n) == 0 && there[n] == 0) break;
    }
    return &w->slots[i];
}

int64_t sm_words_add(struct sm_words *w, const char *s, size_t n, const char *what,
                     struct sm_err *err) {
    /* room for a word of this length first: find may look n bytes past the beginning of another */
    if (grow(w, n, what, err) != 0) return -1;
    uint32_t *slot = find(w, s, n);
    if (*slot != 0) return *slot - 1;
    if (w->n >= w->max)
        return sm_fail(
            err, SM_E_DATASET,
            "%s has more than %u different words (hint: is it free text, or numbers with "
            "a word among them? source.missing lists words for missing cells)",
            what, w->max);
    w->at[w->n] = w->n_text;
    memcpy(w->text + w->n_text, s, n);
    w->text[w->n_text + n] = 0;
    w->n_text += n + 1;
    *slot = ++w->n;
    return w->n - 1;
}

static int grow_slots(struct sm_words *w) {
    uint64_t n = w->n_slots == 0 ? 64 : w->n_slots * 4;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (slots == NULL) return -1;
    free(w->slots);
    w->slots = slots;
    w->n_slots = n;
    for (uint32_t i = 0; i < w->n; i++)
        *find(w, sm_words_text(w, i), strlen(sm_words_text(w, i))) = i + 1;
    return 0;
}

/* Room for one more word of n bytes. */
static int grow(struct sm_words *w, size_t n, const char *what, struct sm_err *err) {
    if (w->n_text + 2 * (n + 1) > w->text_cap) {
        if (w->n_text + n > SM_MAX_TABLE_STRINGS_BYTES)
            return sm_fail(err, SM_E_DATASET, "%s has more than %d bytes of different words", what,
                           SM_MAX_TABLE_STRINGS_BYTES);
        size_t cap = w->text_cap * 2 + 4 * (n + 1) + 256;
        char *text = realloc(w->text, cap);
        if (text == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        memset(text + w->text_cap, 0, cap - w->text_cap);
        w->text = text;
        w->text_cap = cap;
    }
    if (w->n == w->cap) {
        uint64_t *at = reallocarray(w->at, w->cap * 2 + 16, sizeof *at);
        if (at == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        w->at = at;
        w->cap = w->cap * 2 + 16;
    }
    if (2 * (uint64_t)w->n >= w->n_slots && grow_slots(w) != 0)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    return 0;
}

static int compare(const void *a, const void *b, void *words) {
    return strcmp(sm_words_text(words, *(const uint32_t *)a),
                  sm_words_text(words, *(const uint32_t *)b));
}

int sm_words_compare_numbers(const char *a, const char *b) {
    double x, y;
    sm_number_parse(a, strlen(a), &x);
    sm_number_parse(b, strlen(b), &y);
    return x < y ? -1 : x > y ? 1 : strcmp(a, b); /* 1 and 1.0 are two words */
}

static int compare_numbers(const void *a, const void *b, void *words) {
    return sm_words_compare_numbers(sm_words_text(words, *(const uint32_t *)a),
                                    sm_words_text(words, *(const uint32_t *)b));
}

bool sm_word_is_number(const char *word) {
    double v;
    return sm_number_parse(word, strlen(word), &v) == SM_NUMBER_FINITE;
}

void sm_words_sort(const struct sm_words *w, uint32_t *order) {
    for (uint32_t i = 0; i < w->n; i++)
        order[i] = i;
    bool numbers = true;
    for (uint32_t i = 0; i < w->n && numbers; i++)
        numbers = sm_word_is_number(sm_words_text(w, i));
    qsort_r(order, w->n, sizeof *order, numbers ? compare_numbers : compare, (void *)w);
}

void sm_words_release(struct sm_words *w) {
    free(w->text);
    free(w->at);
    free(w->slots);
    *w = (struct sm_words){.max = w->max};
}
