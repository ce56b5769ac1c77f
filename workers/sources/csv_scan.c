/* Finds what matters among the bytes of a CSV: marks for csv.c's walk, and bytes that are no text.
 */
#include "workers/sources/csv_scan.h"

#include <string.h>

/* The places from `from` on, behind those that are listed. */
static void mark_rest(const char *bytes, size_t from, size_t n, char delimiter,
                      struct sm_csv_marks *m) {
    for (size_t i = from; i < n; i++) {
        const char c = bytes[i];
        const bool other = c == '"' || c == '\r' || c == '\n';
        m->plain = m->plain && c > 0 && (unsigned char)c < 128;
        if (!other && c != delimiter) continue;
        if (other) m->others[m->n_others++] = (uint32_t)m->n;
        m->at[m->n++] = (uint32_t)i;
    }
}

void sm_csv_mark_reference(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m) {
    m->n = m->n_others = 0;
    m->plain = true;
    mark_rest(bytes, 0, n, delimiter, m);
}

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

enum { BLOCK = 64 };

/* A bit for each of 64 bytes from `first` on that is a mark, and that is one but no delimiter. */
__attribute__((always_inline)) static inline void list(struct sm_csv_marks *m, size_t first,
                                                       uint64_t marks, uint64_t others) {
    uint32_t *to = m->at + m->n;
    for (; others != 0; others &= others - 1) {
        const uint64_t before = marks & ((others ^ (others - 1)) >> 1);
        m->others[m->n_others++] = (uint32_t)(m->n + (size_t)__builtin_popcountll(before));
    }
    const size_t count = (size_t)__builtin_popcountll(marks);
    /* eight at once, more than there may be: how many there are is as random as the cells. There is
     * room for one a byte, so the places behind are there. */
    for (size_t done = 0; done < count; done += 8)
        for (size_t k = 0; k < 8; k++, marks &= marks - 1)
            to[done + k] = (uint32_t)(first + (size_t)__builtin_ctzll(marks | (uint64_t)1 << 63));
    m->n += count;
}

void sm_csv_mark_sse2(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m) {
    const __m128i quote = _mm_set1_epi8('"'), cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n'),
                  cut = _mm_set1_epi8(delimiter);
    int odd = 0;
    size_t i = 0;
    m->n = m->n_others = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        uint64_t cuts = 0, others = 0;
        for (int k = 0; k < BLOCK; k += 16) {
            const __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(bytes + i + k));
            const __m128i newline = _mm_or_si128(_mm_cmpeq_epi8(v, cr), _mm_cmpeq_epi8(v, lf));
            const __m128i other = _mm_or_si128(newline, _mm_cmpeq_epi8(v, quote));
            cuts |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, cut)) << k;
            others |= (uint64_t)(uint32_t)_mm_movemask_epi8(other) << k;
            /* a signed byte below 1 is NUL or not ASCII */
            odd |= _mm_movemask_epi8(_mm_cmplt_epi8(v, _mm_set1_epi8(1)));
        }
        list(m, i, cuts | others, others);
    }
    m->plain = odd == 0;
    mark_rest(bytes, i, n, delimiter, m);
}

/* Quotes and newlines differ in their low halves: a table of 16 gives the only one that each byte
 * could be. The first entry is what none could be, not even a NUL; bytes beyond ASCII give 0. */
AVX2 static inline __m256i others_of(__m256i v) {
    const __m256i by_low_half = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-1, 0, '"', 0, 0, 0, 0, 0, 0, 0, '\n', 0, 0, '\r', 0, 0));
    return _mm256_cmpeq_epi8(v, _mm256_shuffle_epi8(by_low_half, v));
}

AVX2 static inline uint64_t bits(__m256i low, __m256i high) {
    return (uint64_t)(uint32_t)_mm256_movemask_epi8(low) |
           (uint64_t)(uint32_t)_mm256_movemask_epi8(high) << 32;
}

AVX2 static void mark_avx2(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m) {
    const __m256i cut = _mm256_set1_epi8(delimiter);
    __m256i least = _mm256_set1_epi8(1);
    size_t i = 0;
    m->n = m->n_others = 0;
    for (; i + BLOCK <= n; i += BLOCK) {
        const __m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + i)),
                      high = _mm256_loadu_si256((const __m256i *)(const void *)(bytes + i + 32));
        const uint64_t others = bits(others_of(low), others_of(high));
        const uint64_t cuts = bits(_mm256_cmpeq_epi8(low, cut), _mm256_cmpeq_epi8(high, cut));
        least = _mm256_min_epi8(least, _mm256_min_epi8(low, high));
        list(m, i, cuts | others, others);
    }
    /* a signed byte below 1 is NUL or not ASCII */
    m->plain = _mm256_movemask_epi8(_mm256_cmpgt_epi8(_mm256_set1_epi8(1), least)) == 0;
    mark_rest(bytes, i, n, delimiter, m);
}

void sm_csv_mark(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m) {
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") &&
        __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt"))
        mark_avx2(bytes, n, delimiter, m);
    else
        sm_csv_mark_sse2(bytes, n, delimiter, m);
}
#else
void sm_csv_mark_sse2(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m) {
    sm_csv_mark_reference(bytes, n, delimiter, m);
}

void sm_csv_mark(const char *bytes, size_t n, char delimiter, struct sm_csv_marks *m) {
    sm_csv_mark_reference(bytes, n, delimiter, m);
}
#endif

/* Bytes of the UTF-8 sequence at p, 0 when it is none. The ranges are RFC 3629's. */
static size_t utf8_length(const unsigned char *p, size_t n) {
    unsigned char low = 0x80, high = 0xBF;
    size_t length;
    if (p[0] < 0x80) return 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF)
        length = 2;
    else if (p[0] >= 0xE0 && p[0] <= 0xEF)
        length = 3;
    else if (p[0] >= 0xF0 && p[0] <= 0xF4)
        length = 4;
    else
        return 0;
    if (p[0] == 0xE0) low = 0xA0;
    if (p[0] == 0xED) high = 0x9F;
    if (p[0] == 0xF0) low = 0x90;
    if (p[0] == 0xF4) high = 0x8F;
    if (length > n || p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < length; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return length;
}

const char *sm_csv_text_fault(const char *bytes, size_t n) {
    if (memchr(bytes, 0, n) != NULL)
        return "a NUL stands in the row (hint: of UTF-16: iconv -f UTF-16 -t UTF-8)";
    const unsigned char *p = (const unsigned char *)bytes;
    for (size_t i = 0; i < n;) {
        uint64_t eight;
        if (n - i >= 8) {
            memcpy(&eight, p + i, 8);
            if ((eight & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        size_t length = utf8_length(p + i, n - i);
        if (length == 0) return "the row is not UTF-8 (hint: of Latin-1: iconv -f LATIN1 -t UTF-8)";
        i += length;
    }
    return NULL;
}
