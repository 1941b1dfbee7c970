/* err.c - error records: formatting, context, system errors. See err.h. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

const char *ct_status_name(ct_status status)
{
    switch (status) {
    case CT_OK:
        return "ok";
    case CT_ERR_USAGE:
        return "usage";
    case CT_ERR_IO:
        return "io";
    case CT_ERR_FORMAT:
        return "format";
    case CT_ERR_VALUE:
        return "value";
    case CT_ERR_UNSUPPORTED:
        return "unsupported";
    case CT_ERR_NOT_FOUND:
        return "not-found";
    case CT_ERR_MEMORY:
        return "memory";
    case CT_ERR_LIMIT:
        return "limit";
    case CT_ERR_INTERRUPTED:
        return "interrupted";
    case CT_ERR_INTERVENTION:
        return "intervention";
    }
    return "unknown";
}

/* Makes text one printable line of UTF-8: control characters and stray bytes (a path may hold any)
 * are replaced, and a sequence that the size limit cut in two is dropped. */
static void clean_line(char *text)
{
    size_t size = strlen(text);
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t n = ct_utf8_next(text + i, size - i, &c);
        bool stray = n == 1 && c == 0xFFFD;
        if (stray && size + 1 == CT_ERR_TEXT_MAX && size - i < 4 && (text[i] & 0xC0) == 0xC0) {
            text[i] = 0;
            return;
        }
        if (stray || c < 0x20 || c == 0x7F) text[i] = c == '\n' || c == '\t' ? ' ' : '?';
        i += n;
    }
}

ct_status ct_fail(ct_err *err, ct_status status, const char *fmt, ...)
{
    if (!err) return status;
    va_list ap;
    va_start(ap, fmt);
    err->status = status;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    clean_line(err->text);
    return status;
}

ct_status ct_fail_errno(ct_err *err, const char *fmt, ...)
{
    int saved = errno;
    if (!err) return CT_ERR_IO;
    va_list ap;
    va_start(ap, fmt);
    err->status = CT_ERR_IO;
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", strerror(saved));
    clean_line(err->text);
    return CT_ERR_IO;
}

ct_status ct_fail_memory(ct_err *err, const char *what, unsigned long long size_bytes)
{
    return ct_fail(err, CT_ERR_MEMORY, "%s: out of memory: %llu bytes were refused", what,
                   size_bytes);
}

ct_status ct_fail_context(ct_err *err, ct_status status, const char *fmt, ...)
{
    if (!err) return status;
    char old[CT_ERR_TEXT_MAX];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", old);
    err->status = status;
    clean_line(err->text);
    return status;
}

void ct_assert_failed(const char *file, int line, const char *cond)
{
    fprintf(stderr, "cortado: broken invariant at %s:%d: %s\n", file, line, cond);
    abort();
}
