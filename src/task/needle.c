/* needle.c - the needle's tokens in the ids as fed, by its text or as the published code finds it;
 * requests. See niah.h. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "task/niah_internal.h"
#include "task/text.h"
#include "tok/chat.h"
#include "tok/tok.h"

/* Ids as fed with their places in the text. */
typedef struct fed_ids {
    int32_t *ids;
    size_t *begin, *end; /* bytes */
    size_t count;
} fed_ids;

static ct_status fed_init(const ct_tokenizer *tokenizer, const char *text, size_t size,
                          fed_ids *out, ct_err *err)
{
    /* A chat template that begins with BOS brings its own. */
    bool special = ct_tokenizer_wants_special(tokenizer, text, size);
    return ct_tokenizer_encode_offsets(tokenizer, text, size, special, &out->ids, &out->begin,
                                       &out->end, &out->count, err);
}

static void fed_clear(fed_ids *fed)
{
    free(fed->ids);
    free(fed->begin);
    free(fed->end);
}

ct_status ct_needle_core(const char *needle, const char **core, size_t *size, ct_err *err)
{
    ct_status st = ct_text_check(needle, strlen(needle), "needle", err);
    if (st != CT_OK) return st;
    size_t begin = 0, end = strlen(needle);
    ct_text_strip(needle, &begin, &end);
    if (begin == end)
        return ct_fail(err, CT_ERR_VALUE,
                       "needle: expected some text besides white space, got none");
    *core = needle + begin;
    *size = end - begin;
    return CT_OK;
}

/* The tokens that share a character with bytes begin .. end-1, searched from *first on, which moves
 * to the first of them. Empty if there is none. */
static ct_span overlap(const fed_ids *fed, size_t begin, size_t end, size_t *first)
{
    while (*first < fed->count &&
           (fed->end[*first] <= begin || fed->begin[*first] == fed->end[*first]))
        ++*first;
    size_t last = *first;
    for (size_t i = *first; i < fed->count && fed->begin[i] < end; i++)
        if (fed->begin[i] < fed->end[i]) last = i + 1;
    return (ct_span){(int64_t)*first, (int64_t)last};
}

/* Every copy by its characters. Copies that share a token become one span. */
static ct_status find_by_text(const fed_ids *fed, const char *text, size_t size, const char *core,
                              size_t core_size, ct_span **spans, size_t *n_spans, ct_err *err)
{
    size_t copies = 0, n = 0, token = 0;
    for (const char *p = text; (p = memmem(p, size - (size_t)(p - text), core, core_size));
         p += core_size)
        copies++;
    if (!copies)
        return ct_fail(err, CT_ERR_NOT_FOUND,
                       "needle: expected \"%s\" in the prompt, got %zu bytes without it; give it "
                       "as it stands there, or give positions",
                       ct_text_quote(core, core_size).text, size);
    ct_span *list = malloc(copies * sizeof *list);
    if (!list) return ct_fail_memory(err, "needle spans", copies * sizeof *list);
    for (const char *p = text; (p = memmem(p, size - (size_t)(p - text), core, core_size));
         p += core_size) {
        size_t begin = (size_t)(p - text);
        ct_span span = overlap(fed, begin, begin + core_size, &token);
        if (span.begin == span.end) continue;
        if (n && list[n - 1].end > span.begin) list[n - 1].end = span.end;
        else list[n++] = span;
    }
    if (!n) {
        free(list);
        return ct_fail(err, CT_ERR_NOT_FOUND,
                       "needle: expected tokens for \"%s\", got none: the tokenizer drops its text",
                       ct_text_quote(core, core_size).text);
    }
    *spans = list;
    *n_spans = n;
    return CT_OK;
}

/* The first exact match of the needle's ids without their first and last one in the text's ids, BOS
 * counted in neither: the span is one too small in ids with BOS, as in the published code. No
 * match: none.
 */
static ct_status find_by_ids(const ct_tokenizer *tokenizer, const char *text, size_t size,
                             const char *needle, ct_span **spans, size_t *n_spans, ct_err *err)
{
    ct_status st = CT_OK;
    int32_t *ids = NULL, *part = NULL;
    size_t n_ids, n_part;
    CT_TRY(ct_tokenizer_encode(tokenizer, text, size, false, &ids, &n_ids, err));
    size_t bos = n_ids && ids[0] == ct_tokenizer_bos(tokenizer); /* of a chat template */
    CT_TRY(ct_tokenizer_encode(tokenizer, needle, strlen(needle), false, &part, &n_part, err));
    if (n_part < 3) goto done;
    size_t n = n_part - 2;
    for (size_t i = 0; i + n <= n_ids - bos; i++)
        if (memcmp(ids + bos + i, part + 1, n * sizeof *ids) == 0) {
            ct_span *span = malloc(sizeof *span);
            if (!span) {
                st = ct_fail_memory(err, "needle span", sizeof *span);
                goto done;
            }
            *span = (ct_span){(int64_t)i, (int64_t)(i + n)};
            *spans = span;
            *n_spans = 1;
            break;
        }
done:
    free(ids);
    free(part);
    return st;
}

ct_status ct_needle_find(const ct_tokenizer *tokenizer, const char *text, size_t text_size,
                         const char *needle, bool reference, ct_span **spans, size_t *n_spans,
                         ct_err *err)
{
    ct_status st = CT_OK;
    fed_ids fed = {0};
    const char *core;
    size_t core_size;
    *spans = NULL;
    *n_spans = 0;
    CT_TRY(ct_needle_core(needle, &core, &core_size, err));
    if (reference) {
        CT_TRY(find_by_ids(tokenizer, text, text_size, needle, spans, n_spans, err));
    } else {
        CT_TRY(fed_init(tokenizer, text, text_size, &fed, err));
        CT_TRY(find_by_text(&fed, text, text_size, core, core_size, spans, n_spans, err));
    }
done:
    fed_clear(&fed);
    return st;
}

ct_status ct_niah_request_new(const ct_niah *niah, const ct_niah_prompt *prompt,
                              bool needle_span_reference, ct_niah_request *out, ct_err *err)
{
    ct_status st = CT_OK;
    fed_ids fed = {0};
    const char *core;
    size_t core_size;
    *out = (ct_niah_request){0};
    CT_TRY(ct_needle_core(niah->needle, &core, &core_size, err));
    if (niah->template_kind == CT_NIAH_INSTRUCT) {
        CT_TRY(ct_chat_render(niah->tokenizer, prompt->content, strlen(prompt->content), &out->text,
                              &out->text_size, err));
    } else {
        out->text_size = strlen(prompt->content);
        if (!(out->text = ct_strndup(prompt->content, out->text_size, err))) {
            st = CT_ERR_MEMORY;
            goto done;
        }
    }
    CT_TRY(fed_init(niah->tokenizer, out->text, out->text_size, &fed, err));
    if (needle_span_reference) {
        CT_TRY(find_by_ids(niah->tokenizer, out->text, out->text_size, niah->needle, &out->needle,
                           &out->n_needle, err));
        out->needle_missing = out->n_needle == 0;
    } else {
        CT_TRY(find_by_text(&fed, out->text, out->text_size, core, core_size, &out->needle,
                            &out->n_needle, err));
    }
    const char *place = memmem(out->text, out->text_size, core, core_size);
    if (place) {
        out->needle_begin = (size_t)(place - out->text);
        out->needle_end = out->needle_begin + core_size;
    }
    out->ids = fed.ids;
    out->n_ids = fed.count;
    fed.ids = NULL;
done:
    fed_clear(&fed);
    if (st != CT_OK) ct_niah_request_clear(out);
    return st;
}

void ct_niah_request_clear(ct_niah_request *request)
{
    free(request->text);
    free(request->ids);
    free(request->needle);
    *request = (ct_niah_request){0};
}
