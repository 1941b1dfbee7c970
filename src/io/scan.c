/* scan.c - a JSON reader that allocates nothing. See scan.h. */
#include "io/scan.h"

#include <string.h>

#include "base/buf.h"

ct_scan ct_scan_start(const void *bytes, size_t size)
{
    const char *p = bytes;
    return (ct_scan){.begin = p, .at = p, .end = p + size};
}

bool ct_scan_fail(ct_scan *scan, const char *problem)
{
    if (!scan->problem) scan->problem = problem;
    return false;
}

char ct_scan_peek(ct_scan *scan)
{
    while (scan->at < scan->end &&
           (*scan->at == ' ' || *scan->at == '\t' || *scan->at == '\n' || *scan->at == '\r'))
        scan->at++;
    return scan->at < scan->end ? *scan->at : 0;
}

bool ct_scan_take(ct_scan *scan, char c)
{
    if (ct_scan_peek(scan) == c && scan->at < scan->end) {
        scan->at++;
        return true;
    }
    switch (c) {
    case '{':
        return ct_scan_fail(scan, "an object");
    case '[':
        return ct_scan_fail(scan, "an array");
    case ':':
        return ct_scan_fail(scan, "':'");
    default:
        return ct_scan_fail(scan, "',' or the closing bracket");
    }
}

bool ct_scan_finish(ct_scan *scan)
{
    ct_scan_peek(scan);
    return scan->at == scan->end || ct_scan_fail(scan, "nothing but white space");
}

/* Four hex digits at p, or -1. */
static int32_t hex4(const char *p, const char *end)
{
    if (end - p < 4) return -1;
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* One escape at p (a backslash); returns its length and character, or 0 if it is none. A surrogate
 * counts only as a pair. */
static size_t escape(const char *p, const char *end, uint32_t *c)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (end - p < 2) return 0;
    const char *hit = memchr(from, p[1], sizeof from - 1);
    if (hit) {
        *c = (unsigned char)to[hit - from];
        return 2;
    }
    if (p[1] != 'u') return 0;
    int32_t high = hex4(p + 2, end);
    if (high < 0 || (high >= 0xDC00 && high <= 0xDFFF)) return 0;
    *c = (uint32_t)high;
    if (high < 0xD800 || high > 0xDBFF) return 6;
    if (end - p < 12 || p[6] != '\\' || p[7] != 'u') return 0;
    int32_t low = hex4(p + 8, end);
    if (low < 0xDC00 || low > 0xDFFF) return 0;
    *c = 0x10000u + ((uint32_t)(high - 0xD800) << 10) + (uint32_t)(low - 0xDC00);
    return 12;
}

bool ct_scan_string(ct_scan *scan, ct_scan_text *out)
{
    if (ct_scan_peek(scan) != '"') return ct_scan_fail(scan, "a string");
    const char *p = ++scan->at;
    while (scan->at < scan->end) {
        unsigned char c = (unsigned char)*scan->at;
        if (c == '"') {
            *out = (ct_scan_text){p, (size_t)(scan->at - p)};
            scan->at++;
            return true;
        }
        if (c < 0x20) return ct_scan_fail(scan, "no control character in a string");
        uint32_t resolved;
        size_t n = c == '\\' ? escape(scan->at, scan->end, &resolved) : 1;
        if (n == 0) return ct_scan_fail(scan, "a valid escape");
        scan->at += n;
    }
    return ct_scan_fail(scan, "the closing quote of a string");
}

static bool is_digit(const ct_scan *scan)
{
    return scan->at < scan->end && *scan->at >= '0' && *scan->at <= '9';
}

bool ct_scan_integer(ct_scan *scan, int64_t *out)
{
    static const char problem[] = "an integer from 0 to 9223372036854775807";
    ct_scan_peek(scan);
    const char *begin = scan->at;
    uint64_t value = 0;
    for (; is_digit(scan); scan->at++) {
        uint64_t digit = (uint64_t)(*scan->at - '0');
        if (value > ((uint64_t)INT64_MAX - digit) / 10) {
            scan->at = begin;
            return ct_scan_fail(scan, problem);
        }
        value = value * 10 + digit;
    }
    size_t digits = (size_t)(scan->at - begin);
    bool more = scan->at < scan->end && strchr(".eE", *scan->at) && *scan->at;
    if (digits == 0 || more || (digits > 1 && *begin == '0')) {
        scan->at = begin;
        return ct_scan_fail(scan, problem);
    }
    *out = (int64_t)value;
    return true;
}

static bool skip_digits(ct_scan *scan)
{
    if (!is_digit(scan)) return ct_scan_fail(scan, "a digit");
    while (is_digit(scan)) scan->at++;
    return true;
}

static bool skip_number(ct_scan *scan)
{
    if (*scan->at == '-') scan->at++;
    if (scan->at < scan->end && *scan->at == '0') scan->at++;
    else if (!skip_digits(scan)) return false;
    if (scan->at < scan->end && *scan->at == '.') {
        scan->at++;
        if (!skip_digits(scan)) return false;
    }
    if (scan->at < scan->end && (*scan->at == 'e' || *scan->at == 'E')) {
        scan->at++;
        if (scan->at < scan->end && (*scan->at == '+' || *scan->at == '-')) scan->at++;
        if (!skip_digits(scan)) return false;
    }
    return true;
}

static bool skip_word(ct_scan *scan, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(scan->end - scan->at) < n || memcmp(scan->at, word, n) != 0)
        return ct_scan_fail(scan, "a value");
    scan->at += n;
    return true;
}

static bool skip_value(ct_scan *scan, int depth)
{
    ct_scan_text text;
    bool first = true;
    char c = ct_scan_peek(scan);
    switch (c) {
    case '{':
    case '[':
        if (depth == 0) return ct_scan_fail(scan, "at most 128 nested values");
        scan->at++;
        while (c == '{' ? ct_scan_next_key(scan, &first, &text)
                        : ct_scan_next_element(scan, &first))
            if (!skip_value(scan, depth - 1)) return false;
        return !scan->problem;
    case '"':
        return ct_scan_string(scan, &text);
    case 't':
        return skip_word(scan, "true");
    case 'f':
        return skip_word(scan, "false");
    case 'n':
        return skip_word(scan, "null");
    default:
        if (c == '-' || (c >= '0' && c <= '9')) return skip_number(scan);
        return ct_scan_fail(scan, "a value");
    }
}

bool ct_scan_skip(ct_scan *scan)
{
    return skip_value(scan, CT_SCAN_MAX_DEPTH);
}

/* What stands between two members: nothing before the first, a comma before the others. */
static bool next_member(ct_scan *scan, bool *first, char close)
{
    if (ct_scan_peek(scan) == close) {
        scan->at++;
        return false;
    }
    if (!*first && !ct_scan_take(scan, ',')) return false;
    *first = false;
    return true;
}

bool ct_scan_next_key(ct_scan *scan, bool *first, ct_scan_text *key)
{
    return next_member(scan, first, '}') && ct_scan_string(scan, key) && ct_scan_take(scan, ':');
}

bool ct_scan_next_element(ct_scan *scan, bool *first)
{
    return next_member(scan, first, ']');
}

size_t ct_scan_unescape(ct_scan_text text, char *out)
{
    const char *p = text.bytes, *end = p + text.size;
    size_t size = 0;
    while (p < end) {
        const char *stop = memchr(p, '\\', (size_t)(end - p));
        size_t plain = (size_t)((stop ? stop : end) - p);
        memcpy(out + size, p, plain);
        size += plain;
        p += plain;
        if (p == end) break;
        uint32_t c = 0;
        size_t n = escape(p, end, &c);
        if (n == 0) { /* only if a mapped file changed since ct_scan_string read it */
            out[size++] = *p++;
            continue;
        }
        size += ct_utf8_put(c, out + size);
        p += n;
    }
    return size;
}

bool ct_scan_equal(ct_scan_text text, const char *literal)
{
    char bytes[256];
    size_t n = strlen(literal);
    if (text.size > 6 * n || text.size > sizeof bytes) return false; /* 6: "\u0061" for one byte */
    return ct_scan_unescape(text, bytes) == n && memcmp(bytes, literal, n) == 0;
}
