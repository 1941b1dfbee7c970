/* buf.c - growing buffers, strings, nearest names, UTF-8. See buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void ct_buf_clear(ct_buf *buf)
{
    free(buf->data);
    *buf = (ct_buf){0};
}

ct_status ct_buf_reserve(ct_buf *buf, size_t extra, ct_err *err)
{
    if (extra > SIZE_MAX / 4 || buf->size > SIZE_MAX / 4)
        return ct_fail_memory(err, "buffer", extra);
    size_t need = buf->size + extra + 1;
    if (need <= buf->capacity) return CT_OK;
    size_t capacity = buf->capacity ? buf->capacity * 2 : 64;
    if (capacity < need) capacity = need;
    char *data = realloc(buf->data, capacity);
    if (!data) return ct_fail_memory(err, "buffer", capacity);
    buf->data = data;
    buf->capacity = capacity;
    data[buf->size] = 0;
    return CT_OK;
}

ct_status ct_buf_add(ct_buf *buf, const void *bytes, size_t count, ct_err *err)
{
    ct_status st = ct_buf_reserve(buf, count, err);
    if (st != CT_OK) return st;
    if (count) memcpy(buf->data + buf->size, bytes, count);
    buf->size += count;
    buf->data[buf->size] = 0;
    return CT_OK;
}

ct_status ct_buf_adds(ct_buf *buf, const char *text, ct_err *err)
{
    return ct_buf_add(buf, text, strlen(text), err);
}

ct_status ct_buf_addf(ct_buf *buf, ct_err *err, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    ct_status st = n < 0 ? ct_fail(err, CT_ERR_VALUE, "buffer: text could not be formatted")
                         : ct_buf_reserve(buf, (size_t)n, err);
    if (st == CT_OK) {
        vsnprintf(buf->data + buf->size, (size_t)n + 1, fmt, again);
        buf->size += (size_t)n;
    }
    va_end(again);
    return st;
}

char *ct_buf_take(ct_buf *buf)
{
    if (!buf->data && ct_buf_reserve(buf, 0, NULL) != CT_OK) return NULL;
    char *data = buf->data;
    *buf = (ct_buf){0};
    return data;
}

char *ct_strndup(const char *text, size_t count, ct_err *err)
{
    char *copy = malloc(count + 1);
    if (!copy) {
        ct_fail_memory(err, "string", count + 1);
        return NULL;
    }
    if (count) memcpy(copy, text, count);
    copy[count] = 0;
    return copy;
}

char *ct_strdup(const char *text, ct_err *err)
{
    return ct_strndup(text, strlen(text), err);
}

char *ct_strf(ct_err *err, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *text = n < 0 ? NULL : malloc((size_t)n + 1);
    if (text) vsnprintf(text, (size_t)n + 1, fmt, again);
    else ct_fail_memory(err, "string", n < 0 ? 0 : (unsigned long long)n + 1);
    va_end(again);
    return text;
}

/* Edits between a and b (insert, delete, replace, swap neighbours); names of at most 63 bytes. */
static size_t edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= MAX || m >= MAX) return SIZE_MAX;
    unsigned char d[MAX][MAX];
    for (size_t i = 0; i <= n; i++) d[i][0] = (unsigned char)i;
    for (size_t j = 0; j <= m; j++) d[0][j] = (unsigned char)j;
    for (size_t i = 1; i <= n; i++)
        for (size_t j = 1; j <= m; j++) {
            unsigned best = d[i - 1][j] + 1u;
            if (d[i][j - 1] + 1u < best) best = d[i][j - 1] + 1u;
            unsigned swap = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (swap < best) best = swap;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1u < best)
                best = d[i - 2][j - 2] + 1u;
            d[i][j] = (unsigned char)best;
        }
    return d[n][m];
}

const char *ct_nearest(const char *word, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 2;
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(word, names[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}

size_t ct_utf8_next(const char *bytes, size_t count, uint32_t *codepoint)
{
    const unsigned char *s = (const unsigned char *)bytes;
    *codepoint = 0xFFFD;
    if (s[0] < 0x80) {
        *codepoint = s[0];
        return 1;
    }
    size_t len = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : s[0] >= 0xC2 ? 2 : 0;
    if (len == 0 || s[0] > 0xF4 || len > count) return 1;
    uint32_t c = s[0] & (0xFFu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80) return 1;
        c = c << 6 | (s[i] & 0x3Fu);
    }
    if ((len == 3 && c < 0x800) || (len == 4 && c < 0x10000) || c > 0x10FFFF ||
        (c >= 0xD800 && c <= 0xDFFF))
        return 1;
    *codepoint = c;
    return len;
}

bool ct_utf8_valid(const void *bytes, size_t count)
{
    const char *s = bytes;
    for (size_t i = 0; i < count;) {
        uint32_t c;
        size_t len = ct_utf8_next(s + i, count - i, &c);
        if (len == 1 && (unsigned char)s[i] >= 0x80) return false;
        i += len;
    }
    return true;
}

size_t ct_utf8_put(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}
