/* text.c - text as Python sees it. See text.h. */
#include "task/text.h"

#include <string.h>
#include <utf8proc.h>

#include "base/buf.h"

bool ct_text_space(uint32_t codepoint)
{
    if ((codepoint >= 0x09 && codepoint <= 0x0D) || (codepoint >= 0x1C && codepoint <= 0x1F) ||
        codepoint == 0x85)
        return true; /* white space by bidirectional class, though not by category */
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)codepoint);
    return category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP;
}

bool ct_text_word(uint32_t codepoint)
{
    if (codepoint == '_') return true;
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)codepoint);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) ||
           (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO);
}

void ct_text_strip(const char *text, size_t *begin, size_t *end)
{
    size_t i = *begin, last = *begin;
    bool started = false;
    while (i < *end) {
        uint32_t c;
        size_t next = i + ct_utf8_next(text + i, *end - i, &c);
        if (!ct_text_space(c)) {
            if (!started) *begin = i;
            started = true;
            last = next;
        }
        i = next;
    }
    if (!started) *begin = last = *end;
    *end = last;
}

ct_status ct_text_check(const char *bytes, size_t size, const char *what, ct_err *err)
{
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t length = ct_utf8_next(bytes + i, size - i, &c);
        unsigned byte = (unsigned char)bytes[i];
        if (byte == 0 || (length == 1 && byte >= 0x80))
            return ct_fail(err, CT_ERR_FORMAT,
                           "%s: expected UTF-8 text, got byte 0x%02x at offset %zu; convert it to "
                           "UTF-8, with iconv for example",
                           what, byte, i);
        i += length;
    }
    return CT_OK;
}

ct_quote ct_text_quote(const char *text, size_t size)
{
    enum { MAX = 60 };
    ct_quote quote = {{0}};
    size_t end = 0;
    while (end < size && text[end]) {
        uint32_t c;
        size_t length = ct_utf8_next(text + end, size - end, &c);
        if (end + length > MAX) break;
        end += length;
    }
    memcpy(quote.text, text, end);
    if (end < size && text[end]) memcpy(quote.text + end, "...", 4);
    return quote;
}
