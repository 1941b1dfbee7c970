/* normalize.c - normalizers. See normalize.h. */
#include "tok/normalize.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tok/fields.h"
#include "tok/list.h"
#include "tok/unicode.h"

enum {
    REPLACE,
    PREPEND,
    STRIP,
    STRIP_ACCENTS,
    NFC,
    NFD,
    NFKC,
    NFKD,
    LOWERCASE,
    BYTE_LEVEL,
    N_KINDS
};
static const char *const kinds[N_KINDS] = {"Replace",   "Prepend",  "Strip", "StripAccents",
                                           "NFC",       "NFD",      "NFKC",  "NFKD",
                                           "Lowercase", "ByteLevel"};

struct ct_normalizer_step {
    size_t kind;
    ct_pattern *pattern; /* Replace */
    char *text;          /* Replace: the content; Prepend */
    size_t size;
    bool left, right; /* Strip */
};

void ct_normalizer_clear(ct_normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->count; i++) {
        ct_pattern_free(normalizer->steps[i].pattern);
        free(normalizer->steps[i].text);
    }
    free(normalizer->steps);
    *normalizer = (ct_normalizer){0};
}

static ct_status read_step(void *into, ct_scan object, ct_err *err)
{
    static const char where[] = "normalizer";
    enum { PATTERN, CONTENT, TEXT, LEFT, RIGHT, N };
    static const char *const names[] = {"pattern", "content", "prepend", "strip_left",
                                        "strip_right"};
    ct_normalizer *normalizer = into;
    ct_scan v[N];
    ct_status st = CT_OK;
    ct_normalizer_step *steps = ct_list_grow(normalizer->steps, normalizer->count, sizeof *steps);
    if (!steps) return ct_fail_memory(err, where, sizeof *steps);
    normalizer->steps = steps;
    ct_normalizer_step *step = &steps[normalizer->count++];
    *step = (ct_normalizer_step){.left = true, .right = true};
    CT_TRY(ct_field_kind(object, where, kinds, N_KINDS, &step->kind, err));
    CT_TRY(ct_fields_read(object, where, names, N, v, err));
    if (step->kind == REPLACE) {
        CT_TRY(ct_pattern_read(v[PATTERN], "normalizer.pattern", &step->pattern, err));
        CT_TRY(ct_field_text(v[CONTENT], where, "content", &step->text, &step->size, err));
    } else if (step->kind == PREPEND) {
        CT_TRY(ct_field_text(v[TEXT], where, "prepend", &step->text, &step->size, err));
    } else if (step->kind == STRIP) {
        CT_TRY(ct_field_bool(v[LEFT], where, "strip_left", &step->left, err));
        CT_TRY(ct_field_bool(v[RIGHT], where, "strip_right", &step->right, err));
    }
done:
    return st;
}

ct_status ct_normalizer_read(ct_normalizer *normalizer, ct_scan value, ct_err *err)
{
    if (!value.at) return CT_OK;
    return ct_fields_flatten(value, "normalizer", "normalizers", read_step, normalizer, err);
}

/* ---- the byte-level alphabet --------------------------------------------------------------------
 * GPT-2's: the printable characters of Latin-1 stand for their own byte, U+0100 and on for the
 * others in order.
 */

static bool stands_for_itself(uint32_t c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

static uint32_t byte_level_char(unsigned char byte)
{
    if (stands_for_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100u + byte;
    return byte <= 0xA0 ? 0x100u + 0x21 + (byte - 0x7Fu) : 0x143u;
}

int ct_byte_level_byte(uint32_t c)
{
    if (stands_for_itself(c)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    if (c <= 0x120) return (int)(c - 0x100);
    return c <= 0x142 ? (int)(c - 0x121 + 0x7F) : 0xAD;
}

ct_status ct_byte_level_add(ct_aligned *out, const ct_aligned *in, size_t from, size_t to,
                            ct_err *err)
{
    ct_status st = ct_aligned_reserve(out, 2 * (to - from), err);
    for (size_t i = from; i < to && st == CT_OK;) {
        uint32_t c;
        size_t n = ct_utf8_next(in->text + i, to - i, &c);
        for (size_t j = 0; j < n && st == CT_OK; j++) {
            char bytes[4];
            size_t size = ct_utf8_put(byte_level_char((unsigned char)in->text[i + j]), bytes);
            st = ct_aligned_add(out, bytes, size, in->begin[i], in->end[i + n - 1], err);
        }
        i += n;
    }
    return st;
}

/* ---- running --------------------------------------------------------------------------------- */

static ct_status replace(const ct_normalizer_step *step, const ct_aligned *in, ct_aligned *out,
                         ct_search *search, ct_err *err)
{
    ct_status st = CT_OK;
    size_t done_to = 0;
    bool found;
    ct_search_start(search, step->pattern, in->text, in->size);
    for (;;) {
        CT_TRY(ct_search_next(search, &found, err));
        if (!found) break;
        size_t from = search->begin, to = search->end;
        CT_TRY(ct_aligned_add_part(out, in, done_to, from, err));
        /* What replaces an empty match stands for nothing. */
        uint32_t begin = from < in->size ? in->begin[from] : in->size ? in->end[in->size - 1] : 0;
        uint32_t end = to > from ? in->end[to - 1] : begin;
        CT_TRY(ct_aligned_add(out, step->text, step->size, begin, end, err));
        done_to = to;
    }
    CT_TRY(ct_aligned_add_part(out, in, done_to, in->size, err));
done:
    return st;
}

static ct_status strip(const ct_normalizer_step *step, const ct_aligned *in, ct_aligned *out,
                       ct_err *err)
{
    size_t from = 0, to = in->size;
    uint32_t c;
    while (step->left && from < to) {
        size_t n = ct_utf8_next(in->text + from, to - from, &c);
        if (!ct_is_white_space(c)) break;
        from += n;
    }
    while (step->right && to > from) {
        size_t at = ct_utf8_back(in->text, to);
        ct_utf8_next(in->text + at, to - at, &c);
        if (!ct_is_white_space(c)) break;
        to = at;
    }
    return ct_aligned_add_part(out, in, from, to, err);
}

static ct_status strip_accents(const ct_aligned *in, ct_aligned *out, ct_err *err)
{
    for (size_t i = 0; i < in->size;) {
        uint32_t c;
        size_t n = ct_utf8_next(in->text + i, in->size - i, &c);
        if (!ct_is_mark(c)) {
            ct_status st = ct_aligned_add_part(out, in, i, i + n, err);
            if (st != CT_OK) return st;
        }
        i += n;
    }
    return CT_OK;
}

ct_status ct_normalizer_run(const ct_normalizer *normalizer, ct_aligned *text, ct_aligned *spare,
                            ct_search *search, ct_err *err)
{
    ct_status st = CT_OK;
    text->max = spare->max = ct_growth_limit(text->size);
    for (size_t i = 0; i < normalizer->count && text->size > 0; i++) {
        const ct_normalizer_step *step = &normalizer->steps[i];
        spare->size = 0;
        switch (step->kind) {
        case REPLACE:
            CT_TRY(replace(step, text, spare, search, err));
            break;
        case PREPEND:
            CT_TRY(
                ct_aligned_add(spare, step->text, step->size, text->begin[0], text->begin[0], err));
            CT_TRY(ct_aligned_add_part(spare, text, 0, text->size, err));
            break;
        case STRIP:
            CT_TRY(strip(step, text, spare, err));
            break;
        case STRIP_ACCENTS:
            CT_TRY(strip_accents(text, spare, err));
            break;
        case NFC:
            CT_TRY(ct_normal_form_add(spare, text, CT_NFC, err));
            break;
        case NFD:
            CT_TRY(ct_normal_form_add(spare, text, CT_NFD, err));
            break;
        case NFKC:
            CT_TRY(ct_normal_form_add(spare, text, CT_NFKC, err));
            break;
        case NFKD:
            CT_TRY(ct_normal_form_add(spare, text, CT_NFKD, err));
            break;
        case LOWERCASE:
            CT_TRY(ct_lower_case_add(spare, text, err));
            break;
        case BYTE_LEVEL:
            CT_TRY(ct_byte_level_add(spare, text, 0, text->size, err));
            break;
        }
        ct_aligned swap = *text;
        *text = *spare;
        *spare = swap;
    }
done:
    text->max = spare->max = 0;
    return st;
}
