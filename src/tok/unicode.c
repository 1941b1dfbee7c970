/* unicode.c - character classes, case and normal forms through utf8proc. See unicode.h. */
#include "tok/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/buf.h"

size_t ct_utf8_check(const char *bytes, size_t size)
{
    size_t i = 0;
    while (i < size) {
        uint64_t eight;
        while (i + 8 <= size && (memcpy(&eight, bytes + i, 8), !(eight & 0x8080808080808080u)))
            i += 8;
        if (i == size) break;
        uint32_t c;
        size_t n = ct_utf8_next(bytes + i, size - i, &c);
        if (n == 1 && (unsigned char)bytes[i] >= 0x80) return i;
        i += n;
    }
    return size;
}

size_t ct_utf8_back(const char *bytes, size_t at)
{
    do at--;
    while (at > 0 && ((unsigned char)bytes[at] & 0xC0) == 0x80);
    return at;
}

bool ct_is_white_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool ct_is_numeric(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool ct_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return c > 32 && c < 127 && !strchr("0123456789", (int)c) &&
               !((c | 32) >= 'a' && (c | 32) <= 'z');
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool ct_is_mark(uint32_t c)
{
    utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME;
}

ct_status ct_lower_case_add(ct_aligned *out, const ct_aligned *in, ct_err *err)
{
    for (size_t i = 0; i < in->size;) {
        uint32_t c;
        char bytes[8];
        size_t n = ct_utf8_next(in->text + i, in->size - i, &c), size;
        /* The one character whose lower case is two. */
        if (c == 0x130) size = (size_t)(stpcpy(bytes, "i\xCC\x87") - bytes);
        else size = ct_utf8_put((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), bytes);
        ct_status st = ct_aligned_add(out, bytes, size, in->begin[i], in->end[i + n - 1], err);
        if (st != CT_OK) return st;
        i += n;
    }
    return CT_OK;
}

/* ---- normal forms ---------------------------------------------------------------------------- */

/* A starter (combining class 0) with what follows it up to the next that nothing joins. */
typedef struct group {
    int32_t *points;
    size_t count, capacity;
    uint32_t begin, end;
} group;

static int combining_class(int32_t c)
{
    return utf8proc_get_property(c)->combining_class;
}

static ct_status group_reserve(group *g, size_t extra, ct_err *err)
{
    if (g->count + extra <= g->capacity) return CT_OK;
    size_t capacity = (g->count + extra) * 2;
    int32_t *points = realloc(g->points, capacity * sizeof *points);
    if (!points) return ct_fail_memory(err, "normal form", capacity * sizeof *points);
    g->points = points;
    g->capacity = capacity;
    return CT_OK;
}

/* Canonical order: stable by combining class. Merging, not insertion: a megabyte of accents. */
static ct_status sort_marks(int32_t *points, size_t n, ct_err *err)
{
    size_t count[256] = {0}, start[256];
    bool sorted = true;
    for (size_t i = 0; i < n; i++) {
        count[combining_class(points[i])]++;
        if (i > 0 && combining_class(points[i]) < combining_class(points[i - 1])) sorted = false;
    }
    if (sorted) return CT_OK;
    int32_t *copy = malloc(n * sizeof *copy);
    if (!copy) return ct_fail_memory(err, "normal form", n * sizeof *copy);
    memcpy(copy, points, n * sizeof *copy);
    start[0] = 0;
    for (int i = 1; i < 256; i++) start[i] = start[i - 1] + count[i - 1];
    for (size_t i = 0; i < n; i++) points[start[combining_class(copy[i])]++] = copy[i];
    free(copy);
    return CT_OK;
}

static ct_status order(group *g, ct_err *err)
{
    for (size_t i = 0; i < g->count;) {
        size_t j = i;
        while (j < g->count && combining_class(g->points[j]) != 0) j++;
        if (j > i + 1) {
            ct_status st = sort_marks(g->points + i, j - i, err);
            if (st != CT_OK) return st;
        }
        i = j > i ? j : i + 1;
    }
    return CT_OK;
}

/* The composite of a pair, or -1. */
static int32_t compose_pair(int32_t a, int32_t b)
{
    int32_t pair[3] = {a, b, 0};
    return utf8proc_normalize_utf32(pair, 2, UTF8PROC_COMPOSE | UTF8PROC_STABLE) == 1 ? pair[0]
                                                                                      : -1;
}

/* Canonical composition (Unicode 3.11, D117): each mark joins the last starter unless one of its
 * own class or a starter stands between. */
static void compose(group *g)
{
    size_t out = 0, starter = SIZE_MAX;
    int last = -1; /* class of what stands before; -1: the starter itself */
    for (size_t i = 0; i < g->count; i++) {
        int32_t c = g->points[i];
        int k = combining_class(c);
        if (starter != SIZE_MAX && (last < k || last == -1)) {
            int32_t both = compose_pair(g->points[starter], c);
            if (both >= 0) {
                g->points[starter] = both;
                continue;
            }
        }
        if (k == 0) {
            starter = out;
            last = -1;
        } else last = k;
        g->points[out++] = c;
    }
    g->count = out;
}

static ct_status flush(group *g, ct_aligned *out, bool composed, ct_err *err)
{
    ct_status st = order(g, err);
    if (st == CT_OK && composed) compose(g);
    for (size_t i = 0; i < g->count && st == CT_OK; i++) {
        char bytes[4];
        size_t n = ct_utf8_put((uint32_t)g->points[i], bytes);
        st = ct_aligned_add(out, bytes, n, g->begin, g->end, err);
    }
    g->count = 0;
    return st;
}

/* True if nothing before c can join it: a starter that is never the second of a composite. The
 * vowels and finals of Hangul (whose composites are computed) and a few Indic vowel signs are. */
static bool starts_group(int32_t c)
{
    uint16_t second = utf8proc_get_property(c)->comb_index;
    bool hangul = (c >= 0x1161 && c <= 0x1175) || (c >= 0x11A8 && c <= 0x11C2);
    return combining_class(c) == 0 && !hangul && (second == UINT16_MAX || second < 0x8000);
}

ct_status ct_normal_form_add(ct_aligned *out, const ct_aligned *in, ct_normal_form form,
                             ct_err *err)
{
    bool composed = form == CT_NFC || form == CT_NFKC;
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form == CT_NFKC || form == CT_NFKD) options |= UTF8PROC_COMPAT;
    group g = {0};
    ct_status st = CT_OK;
    for (size_t i = 0; i < in->size;) {
        uint32_t c;
        int32_t points[32]; /* the longest decomposition has 18 */
        int boundary = 0;
        size_t n = ct_utf8_next(in->text + i, in->size - i, &c);
        utf8proc_ssize_t count =
            utf8proc_decompose_char((utf8proc_int32_t)c, points, 32, options, &boundary);
        CT_ASSERT(count > 0 && count <= 32);
        if (g.count > 0 && starts_group(points[0])) CT_TRY(flush(&g, out, composed, err));
        if (g.count == 0) g.begin = in->begin[i];
        g.end = in->end[i + n - 1];
        CT_TRY(group_reserve(&g, (size_t)count, err));
        memcpy(g.points + g.count, points, (size_t)count * sizeof *points);
        g.count += (size_t)count;
        i += n;
    }
    CT_TRY(flush(&g, out, composed, err));
done:
    free(g.points);
    return st;
}
