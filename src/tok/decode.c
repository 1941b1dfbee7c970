/* decode.c - decoders. See decode.h. */
#include "tok/decode.h"

#include <stdlib.h>
#include <string.h>

#include "tok/aligned.h"
#include "tok/fields.h"
#include "tok/list.h"
#include "tok/normalize.h"
#include "tok/pattern.h"
#include "tok/pretokenize.h"

enum { BYTE_LEVEL, METASPACE, REPLACE, BYTE_FALLBACK, FUSE, STRIP, N_KINDS };
static const char *const kinds[N_KINDS] = {"ByteLevel",    "Metaspace", "Replace",
                                           "ByteFallback", "Fuse",      "Strip"};

struct ct_decoder_step {
    size_t kind;
    ct_pattern *pattern; /* Replace */
    char *text;          /* Replace: the content; Strip: the character */
    size_t size;
    int64_t start, stop; /* Strip: at most so many */
    ct_metaspace metaspace;
};

static const char replacement[] = "\xEF\xBF\xBD"; /* U+FFFD */

void ct_decoder_clear(ct_decoder *decoder)
{
    for (size_t i = 0; i < decoder->count; i++) {
        ct_pattern_free(decoder->steps[i].pattern);
        free(decoder->steps[i].text);
    }
    free(decoder->steps);
    *decoder = (ct_decoder){0};
}

static ct_status read_step(void *into, ct_scan object, ct_err *err)
{
    static const char where[] = "decoder";
    enum { PATTERN, CONTENT, START, STOP, N };
    static const char *const names[] = {"pattern", "content", "start", "stop"};
    ct_decoder *decoder = into;
    ct_scan v[N];
    ct_status st = CT_OK;
    ct_decoder_step *steps = ct_list_grow(decoder->steps, decoder->count, sizeof *steps);
    if (!steps) return ct_fail_memory(err, where, sizeof *steps);
    decoder->steps = steps;
    ct_decoder_step *step = &steps[decoder->count++];
    *step = (ct_decoder_step){0};
    CT_TRY(ct_field_kind(object, where, kinds, N_KINDS, &step->kind, err));
    CT_TRY(ct_fields_read(object, where, names, N, v, err));
    if (step->kind == METASPACE) CT_TRY(ct_metaspace_read(&step->metaspace, object, where, err));
    if (step->kind == REPLACE) CT_TRY(ct_pattern_read(v[PATTERN], where, &step->pattern, err));
    if (step->kind == REPLACE || step->kind == STRIP)
        CT_TRY(ct_field_text(v[CONTENT], where, "content", &step->text, &step->size, err));
    if (step->kind == STRIP) {
        uint32_t c;
        CT_TRY(ct_field_int(v[START], where, "start", INT32_MAX, &step->start, err));
        CT_TRY(ct_field_int(v[STOP], where, "stop", INT32_MAX, &step->stop, err));
        if (step->size == 0 || ct_utf8_next(step->text, step->size, &c) != step->size)
            st = ct_fail(err, CT_ERR_VALUE, "%s.content: expected one character, got \"%.*s\"",
                         where, CT_SHOWN(step->text, step->size));
    }
done:
    return st;
}

ct_status ct_decoder_read(ct_decoder *decoder, ct_scan value, ct_err *err)
{
    if (!value.at) return CT_OK;
    decoder->given = true;
    return ct_fields_flatten(value, "decoder", "decoders", read_step, decoder, err);
}

/* ---- lists of texts -------------------------------------------------------------------------- */

void ct_texts_clear(ct_texts *texts)
{
    ct_buf_clear(&texts->bytes);
    free(texts->ends);
    *texts = (ct_texts){0};
}

/* Makes one text of the bytes that were added since the last end. */
static ct_status end_text(ct_texts *texts, ct_err *err)
{
    if (texts->count == texts->capacity) {
        size_t capacity = texts->capacity ? texts->capacity * 2 : 64;
        size_t *ends = realloc(texts->ends, capacity * sizeof *ends);
        if (!ends) return ct_fail_memory(err, "decoding", capacity * sizeof *ends);
        texts->ends = ends;
        texts->capacity = capacity;
    }
    texts->ends[texts->count++] = texts->bytes.size;
    return CT_OK;
}

ct_status ct_texts_add(ct_texts *texts, const char *bytes, size_t size, ct_err *err)
{
    ct_status st = ct_buf_add(&texts->bytes, bytes, size, err);
    return st == CT_OK ? end_text(texts, err) : st;
}

static ct_status add_bytes(ct_texts *texts, const char *bytes, size_t size, ct_err *err)
{
    if (texts->max && (size > texts->max || texts->bytes.size > texts->max - size))
        return ct_fail(err, CT_ERR_LIMIT,
                       "decoding: expected at most %zu bytes: does a step of tokenizer.json "
                       "multiply the text?",
                       texts->max);
    return ct_buf_add(&texts->bytes, bytes, size, err);
}

/* ---- the decoders -------------------------------------------------------------------------------
 * Each appends what becomes of text[0..size), the index-th of the list, to `out`.
 */

/* The bytes of one token: those its characters stand for, or, if any stands for none, its own. */
static ct_status add_byte_level(ct_buf *out, const char *text, size_t size, ct_err *err)
{
    size_t before = out->size;
    for (size_t i = 0; i < size;) {
        uint32_t c;
        i += ct_utf8_next(text + i, size - i, &c);
        int byte = ct_byte_level_byte(c);
        if (byte < 0) {
            out->size = before;
            return ct_buf_add(out, text, size, err);
        }
        char one = (char)byte;
        ct_status st = ct_buf_add(out, &one, 1, err);
        if (st != CT_OK) return st;
    }
    return CT_OK;
}

/* How many bytes at the head of invalid UTF-8 are replaced together: the longest head of a
 * character that is cut short, else one (Unicode 3.9, maximal subparts). */
static size_t maximal_subpart(const char *text, size_t size)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t length = s[0] >= 0xF0 && s[0] <= 0xF4 ? 4 : s[0] >= 0xE0 && s[0] <= 0xEF ? 3 : 1;
    unsigned char low = s[0] == 0xE0 ? 0xA0 : s[0] == 0xF0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xED ? 0x9F : s[0] == 0xF4 ? 0x8F : 0xBF;
    size_t n = 1;
    if (n < length && n < size && s[n] >= low && s[n] <= high) n++;
    else return 1;
    while (n < length - 1 && n < size && (s[n] & 0xC0) == 0x80) n++;
    return n;
}

static ct_status add_lossy(ct_texts *out, const char *text, size_t size, ct_err *err)
{
    ct_status st = CT_OK;
    for (size_t i = 0; i < size && st == CT_OK;) {
        uint32_t c;
        size_t n = ct_utf8_next(text + i, size - i, &c);
        if (n == 1 && (unsigned char)text[i] >= 0x80) {
            i += maximal_subpart(text + i, size - i);
            st = add_bytes(out, replacement, 3, err);
        } else {
            st = add_bytes(out, text + i, n, err);
            i += n;
        }
    }
    return st;
}

static ct_status add_replaced(const ct_decoder_step *step, ct_search *search, ct_texts *out,
                              const char *text, size_t size, ct_err *err)
{
    size_t done_to = 0;
    bool found;
    ct_status st = CT_OK;
    ct_search_start(search, step->pattern, text, size);
    while (size > 0) {
        CT_TRY(ct_search_next(search, &found, err));
        if (!found) break;
        CT_TRY(add_bytes(out, text + done_to, search->begin - done_to, err));
        CT_TRY(add_bytes(out, step->text, step->size, err));
        done_to = search->end;
    }
    CT_TRY(add_bytes(out, text + done_to, size - done_to, err));
done:
    return st;
}

/* Signs become spaces; those of the first text are dropped, if one was put in front of it. */
static ct_status add_metaspace(const ct_metaspace *meta, bool first, ct_texts *out,
                               const char *text, size_t size, ct_err *err)
{
    ct_status st = CT_OK;
    for (size_t i = 0; i < size && st == CT_OK;) {
        uint32_t c;
        size_t n = ct_utf8_next(text + i, size - i, &c);
        if (n != meta->size || memcmp(text + i, meta->sign, n) != 0)
            st = add_bytes(out, text + i, n, err);
        else if (!first || meta->prepend == CT_PREPEND_NEVER) st = add_bytes(out, " ", 1, err);
        i += n;
    }
    return st;
}

static ct_status add_stripped(const ct_decoder_step *step, ct_texts *out, const char *text,
                              size_t size, ct_err *err)
{
    size_t n = step->size;
    for (int64_t i = 0; i < step->start && size >= n && memcmp(text, step->text, n) == 0; i++) {
        text += n;
        size -= n;
    }
    for (int64_t i = 0; i < step->stop && size >= n && memcmp(text + size - n, step->text, n) == 0;
         i++)
        size -= n;
    return add_bytes(out, text, size, err);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of a token such as <0x0A>, or -1. */
static int byte_token(const char *text, size_t size)
{
    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* A run of bytes: text if it is valid as a whole, else one U+FFFD for each byte. */
static ct_status end_run(ct_texts *out, ct_buf *run, ct_err *err)
{
    ct_status st = CT_OK;
    if (run->size > 0 && ct_utf8_valid(run->data, run->size))
        st = ct_texts_add(out, run->data, run->size, err);
    else
        for (size_t i = 0; i < run->size && st == CT_OK; i++)
            st = ct_texts_add(out, replacement, 3, err);
    run->size = 0;
    return st;
}

static ct_status run_step(const ct_decoder_step *step, const ct_texts *in, ct_texts *out,
                          ct_search *search, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf run = {0};
    for (size_t i = 0; i < in->count; i++) {
        size_t begin = i ? in->ends[i - 1] : 0, size = in->ends[i] - begin;
        const char *text = in->bytes.data + begin;
        switch (step->kind) {
        case BYTE_LEVEL:
            CT_TRY(add_byte_level(&run, text, size, err));
            continue;
        case FUSE:
            CT_TRY(add_bytes(out, text, size, err));
            continue;
        case BYTE_FALLBACK: {
            int byte = byte_token(text, size);
            if (byte >= 0) {
                char one = (char)byte;
                CT_TRY(ct_buf_add(&run, &one, 1, err));
                continue;
            }
            CT_TRY(end_run(out, &run, err));
            CT_TRY(add_bytes(out, text, size, err));
            break;
        }
        case REPLACE:
            CT_TRY(add_replaced(step, search, out, text, size, err));
            break;
        case METASPACE:
            CT_TRY(add_metaspace(&step->metaspace, i == 0, out, text, size, err));
            break;
        case STRIP:
            CT_TRY(add_stripped(step, out, text, size, err));
            break;
        }
        CT_TRY(end_text(out, err));
    }
    if (step->kind == BYTE_FALLBACK) CT_TRY(end_run(out, &run, err));
    if (step->kind == BYTE_LEVEL) CT_TRY(add_lossy(out, run.data, run.size, err));
    if (step->kind == BYTE_LEVEL || step->kind == FUSE) CT_TRY(end_text(out, err));
done:
    ct_buf_clear(&run);
    return st;
}

ct_status ct_decoder_run(const ct_decoder *decoder, ct_texts *texts, ct_err *err)
{
    ct_texts spare = {0};
    ct_search search = {0};
    ct_status st = CT_OK;
    texts->max = spare.max = ct_growth_limit(texts->bytes.size);
    for (size_t i = 0; i < decoder->count; i++) {
        spare.bytes.size = spare.count = 0;
        CT_TRY(ct_buf_reserve(&texts->bytes, 0, err)); /* so that no text is at NULL */
        CT_TRY(run_step(&decoder->steps[i], texts, &spare, &search, err));
        ct_texts swap = *texts;
        *texts = spare;
        spare = swap;
    }
    if (decoder->given || texts->count < 2) goto done;
    spare.bytes.size = spare.count = 0;
    for (size_t i = 0; i < texts->count; i++) {
        size_t begin = i ? texts->ends[i - 1] : 0;
        if (i > 0) CT_TRY(ct_buf_add(&spare.bytes, " ", 1, err));
        CT_TRY(ct_texts_add(&spare, texts->bytes.data + begin, texts->ends[i] - begin, err));
    }
    ct_buf_clear(&texts->bytes);
    texts->bytes = spare.bytes;
    spare.bytes = (ct_buf){0};
done:
    ct_search_clear(&search);
    ct_texts_clear(&spare);
    return st;
}
