/* Words that occur again and again in a table (categories, classes), each kept once and numbered in
 * the order of first use. Private to the sources, but for how words are sorted. */
#pragma once

#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sm_words {
    char *text; /* the words, each ended by NUL */
    size_t n_text, text_cap;
    uint64_t *at; /* where they begin */
    uint32_t n, cap, max;
    uint32_t *slots; /* open addressing: number + 1 */
    uint64_t n_slots;
};

/* Zeroed words with a maximum set are empty ones. The number of a word; -1 with err (of what). */
int64_t sm_words_add(struct sm_words *w, const char *s, size_t n, const char *what,
                     struct sm_err *err);
static inline const char *sm_words_text(const struct sm_words *w, uint32_t i) {
    return w->text + w->at[i];
}
/* Fills order with the words' numbers, sorted by value when every word is a number, else as bytes.
 */
void sm_words_sort(const struct sm_words *w, uint32_t *order);
bool sm_word_is_number(const char *word);
/* Of words that are numbers: by value, equal ones as bytes. */
int sm_words_compare_numbers(const char *a, const char *b);
void sm_words_release(struct sm_words *w);
