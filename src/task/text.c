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

typedef struct range {
    uint32_t first, last;
} range;

static bool in_ranges(uint32_t codepoint, const range *ranges, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (codepoint >= ranges[i].first && codepoint <= ranges[i].last) return true;
    return false;
}

bool ct_text_case_ignorable(uint32_t codepoint)
{
    /* The punctuation within words: apostrophes, stops, colons, middle dots. */
    static const range within_words[] = {
        {0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
        {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
        {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
        {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A},
    };
    switch (utf8proc_category((utf8proc_int32_t)codepoint)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
        return true;
    default:
        return in_ranges(codepoint, within_words, sizeof within_words / sizeof *within_words);
    }
}

bool ct_text_cased(uint32_t codepoint)
{
    /* Ordinal indicators, Roman numerals, letters in circles. */
    static const range no_letters[] = {
        {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2160, 0x217F},   {0x24B6, 0x24E9},
        {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
    };
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)codepoint);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LT) return true;
    return in_ranges(codepoint, no_letters, sizeof no_letters / sizeof *no_letters);
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
