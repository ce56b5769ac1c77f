/* Finds what matters among the bytes of a CSV: marks for csv.c's walk, and bytes that are no text.
 */
#include "workers/sources/csv_scan.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

/* One bit for each of 64 bytes that is a mark. */
static inline uint64_t marks_of_64(const char *p, __m128i delimiter, int *odd) {
    const __m128i quote = _mm_set1_epi8('"'), cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n');
    uint64_t mask = 0;
    for (int i = 0; i < 4; i++) {
        __m128i v = _mm_loadu_si128((const __m128i *)(p + 16 * i));
        __m128i newline = _mm_or_si128(_mm_cmpeq_epi8(v, cr), _mm_cmpeq_epi8(v, lf));
        __m128i cut = _mm_or_si128(_mm_cmpeq_epi8(v, delimiter), _mm_cmpeq_epi8(v, quote));
        mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_or_si128(newline, cut)) << (16 * i);
        /* a signed byte below 1 is NUL or not ASCII */
        *odd |= _mm_movemask_epi8(_mm_cmplt_epi8(v, _mm_set1_epi8(1)));
    }
    return mask;
}

size_t sm_csv_marks(const char *bytes, size_t n, char delimiter, uint32_t *marks, bool *plain) {
    size_t found = 0, i = 0;
    int odd = 0;
    for (; i + 64 <= n; i += 64) {
        uint64_t mask = marks_of_64(bytes + i, _mm_set1_epi8(delimiter), &odd);
        const size_t count = (size_t)__builtin_popcountll(mask);
        uint32_t *to = marks + found;
        /* eight at once, more than there may be: how many there are is as random as the cells.
         * marks has room for one a byte, so the places behind are there. */
        for (size_t done = 0; done < count; done += 8)
            for (size_t k = 0; k < 8; k++, mask &= mask - 1)
                to[done + k] = (uint32_t)i + (uint32_t)__builtin_ctzll(mask | (uint64_t)1 << 63);
        found += count;
    }
    bool rest_plain;
    size_t rest = sm_csv_marks_reference(bytes + i, n - i, delimiter, marks + found, &rest_plain);
    for (size_t k = found; k < found + rest; k++)
        marks[k] += (uint32_t)i;
    *plain = odd == 0 && rest_plain;
    return found + rest;
}
#else
size_t sm_csv_marks(const char *bytes, size_t n, char delimiter, uint32_t *marks, bool *plain) {
    return sm_csv_marks_reference(bytes, n, delimiter, marks, plain);
}
#endif

size_t sm_csv_marks_reference(const char *bytes, size_t n, char delimiter, uint32_t *marks,
                              bool *plain) {
    size_t found = 0;
    *plain = true;
    for (size_t i = 0; i < n; i++) {
        char c = bytes[i];
        if (c == delimiter || c == '"' || c == '\r' || c == '\n') marks[found++] = (uint32_t)i;
        *plain = *plain && c > 0 && (unsigned char)c < 128;
    }
    return found;
}

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
    if (memchr(bytes, 0, n) != NULL) return "a NUL stands in the row";
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
        if (length == 0) return "the row is not UTF-8";
        i += length;
    }
    return NULL;
}
