/* niah.c - the prompt builder: haystack, needle, template, prompt files. See niah.h.
 *
 * The steps are those of the published code, which works on tokens and hands text over: the
 * haystack is encoded, cut and decoded for a length, encoded again, given its needle, and decoded.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "task/haystack.h"
#include "task/niah_internal.h"
#include "task/text.h"

enum {
    LENGTH_MAX = 1 << 24,     /* tokens of a prompt */
    TEXT_MAX = 1 << 30,       /* bytes of haystack kept for them */
    BYTES_PER_TOKEN = 16,     /* read at first, several times what text takes, */
    BYTES_AT_LEAST = 1 << 16, /* and so many besides */
};

static const char base_suffix[] = "\n\nANSWER: Here is the most relevant sentence in the context: ";
static const char instruct_suffix[] =
    " Output the most relevant sentence in the context, word by word!";

/* ---- opening --------------------------------------------------------------------------------- */

static ct_status encode(const ct_tokenizer *tokenizer, const char *text, size_t size, int32_t **ids,
                        size_t *count, ct_err *err)
{
    return ct_tokenizer_encode(tokenizer, text, size, false, ids, count, err);
}

static ct_status check_text(const char *text, const char *what, ct_err *err)
{
    if (!text || !*text)
        return ct_fail(err, CT_ERR_VALUE, "%s: expected some text, got none", what);
    return ct_text_check(text, strlen(text), what, err);
}

static ct_status check_options(const ct_niah_options *o, int64_t max_length, ct_err *err)
{
    if (!o->n_haystack)
        return ct_fail(err, CT_ERR_VALUE, "haystack: expected at least one file, got none");
    if (o->buffer < 0 || o->buffer > LENGTH_MAX)
        return ct_fail(err, CT_ERR_VALUE, "buffer: expected 0 to %d tokens, got %" PRId64,
                       LENGTH_MAX, o->buffer);
    if (max_length < 1)
        return ct_fail(err, CT_ERR_VALUE, "length: expected at least 1 token, got %" PRId64,
                       max_length);
    if (max_length > LENGTH_MAX)
        return ct_fail(err, CT_ERR_LIMIT, "length: expected at most %d tokens, got %" PRId64,
                       LENGTH_MAX, max_length);
    const char *core;
    size_t core_size;
    ct_status st = check_text(o->needle, "needle", err);
    if (st == CT_OK) st = ct_needle_core(o->needle, &core, &core_size, err);
    return st == CT_OK ? check_text(o->question, "question", err) : st;
}

/* Encodes whole passes over the haystack until they have `need` tokens. Starts from the one pass in
 * `text`, which has `count`. The published code stops at the same pass, or one earlier if BOS alone
 * fills its count; that changes no prompt, since the needle takes that token's place. */
static ct_status encode_passes(const ct_tokenizer *tokenizer, ct_buf *text, size_t need,
                               int32_t **ids, size_t *count, ct_err *err)
{
    ct_status st = CT_OK;
    size_t pass_size = text->size, passes = 1;
    while (*count < need) {
        size_t per_pass = *count / passes ? *count / passes : 1;
        passes += (need - *count + per_pass - 1) / per_pass;
        if (passes > TEXT_MAX / pass_size) {
            st = ct_fail(err, CT_ERR_LIMIT,
                         "haystack: expected that repeating its %zu bytes gives %zu tokens within "
                         "%d bytes, got too few tokens; give more text",
                         pass_size, need, TEXT_MAX);
            goto done;
        }
        while (text->size < passes * pass_size) {
            CT_TRY(ct_buf_reserve(text, pass_size, err)); /* before data is taken: it may move */
            CT_TRY(ct_buf_add(text, text->data, pass_size, err));
        }
        free(*ids);
        *ids = NULL;
        CT_TRY(encode(tokenizer, text->data, text->size, ids, count, err));
    }
done:
    return st;
}

/* Reads and encodes the haystack: at least max_length tokens into niah->ids. */
static ct_status load_haystack(ct_niah *niah, const char *const *paths, size_t n_paths, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf text = {0};
    size_t *begin = NULL, *end = NULL;
    bool whole = false;
    /* One token more than any length uses tells whether there is text after it. */
    size_t need = (size_t)niah->max_length + 1;
    for (size_t max_bytes = BYTES_AT_LEAST + need * BYTES_PER_TOKEN;; max_bytes *= 2) {
        ct_buf_clear(&text);
        free(niah->ids);
        free(begin);
        free(end);
        niah->ids = NULL;
        begin = end = NULL;
        CT_TRY(ct_haystack_read(paths, n_paths, max_bytes, &text, &whole, err));
        if (!text.size) {
            st = ct_fail(err, CT_ERR_VALUE, "haystack: expected some text, got none in %s%s",
                         paths[0], n_paths > 1 ? " and the other files" : "");
            goto done;
        }
        CT_TRY(ct_tokenizer_encode_offsets(niah->tokenizer, text.data, text.size, false, &niah->ids,
                                           &begin, &end, &niah->n_ids, err));
        /* Tokens at the cut are not those of the whole text: use only the first half. */
        if (whole || (niah->n_ids >= need && end[need - 1] <= text.size / 2)) break;
        if (max_bytes > TEXT_MAX / 2) {
            st = ct_fail(err, CT_ERR_LIMIT,
                         "haystack: expected %zu tokens in the first half of %zu bytes, got fewer; "
                         "give text with shorter tokens",
                         need, text.size);
            goto done;
        }
    }
    if (!niah->n_ids) {
        st = ct_fail(err, CT_ERR_VALUE,
                     "haystack: expected text with tokens, got %zu bytes of none", text.size);
        goto done;
    }
    CT_TRY(encode_passes(niah->tokenizer, &text, need, &niah->ids, &niah->n_ids, err));
    niah->n_ids = need;
done:
    ct_buf_clear(&text);
    free(begin);
    free(end);
    return st;
}

ct_status ct_niah_open(const ct_niah_options *options, const ct_tokenizer *tokenizer,
                       int64_t max_length, ct_niah **out, ct_err *err)
{
    *out = NULL;
    ct_status st = check_options(options, max_length, err);
    if (st != CT_OK) return st;
    ct_niah *niah = calloc(1, sizeof *niah);
    if (!niah) return ct_fail_memory(err, "needle in a haystack", sizeof *niah);
    niah->tokenizer = tokenizer;
    niah->template_kind = options->template_kind;
    niah->read_twice = options->read_twice;
    niah->buffer = options->buffer;
    niah->max_length = max_length;
    niah->needle = ct_strdup(options->needle, err);
    niah->question = ct_strdup(options->question, err);
    if (!niah->needle || !niah->question) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(encode(tokenizer, niah->needle, strlen(niah->needle), &niah->needle_ids,
                  &niah->n_needle_ids, err));
    CT_TRY(encode(tokenizer, ".", 1, &niah->stop_ids, &niah->n_stop_ids, err));
    CT_TRY(load_haystack(niah, options->haystack, options->n_haystack, err));
    *out = niah;
    niah = NULL;
done:
    ct_niah_close(niah);
    return st;
}

void ct_niah_close(ct_niah *niah)
{
    if (!niah) return;
    free(niah->needle);
    free(niah->question);
    free(niah->ids);
    free(niah->needle_ids);
    free(niah->stop_ids);
    free(niah);
}

/* ---- building -------------------------------------------------------------------------------- */

static bool ends_sentence(const ct_niah *niah, int32_t id)
{
    for (size_t i = 0; i < niah->n_stop_ids; i++)
        if (niah->stop_ids[i] == id) return true;
    return false;
}

/* Number of context tokens before the needle: depth per cent of them, moved back to just behind a
 * full stop; 0 where there is none. */
static size_t needle_place(const ct_niah *niah, const int32_t *ids, size_t count, int64_t depth)
{
    if (depth == 100) return count;
    size_t cut = (size_t)((double)count * ((double)depth / 100));
    while (cut > 0 && !ends_sentence(niah, ids[cut - 1])) cut--;
    return cut;
}

/* The text between the templates: `length` - buffer tokens, needle included. */
static ct_status context_with_needle(const ct_niah *niah, int64_t length, int64_t depth,
                                     char **text, size_t *size, ct_err *err)
{
    ct_status st = CT_OK;
    char *cut_text = NULL;
    int32_t *ids = NULL, *all = NULL;
    size_t cut_size, count;
    /* The text of the first `length` tokens, encoded anew: where the cut falls within a word or a
     * character, its last tokens differ from the whole text's. Special tokens that the haystack
     * spells out count among the tokens here and are left out of the text at the end. */
    CT_TRY(ct_tokenizer_decode(niah->tokenizer, niah->ids, (size_t)length, false, &cut_text,
                               &cut_size, err));
    CT_TRY(encode(niah->tokenizer, cut_text, cut_size, &ids, &count, err));
    size_t room = (size_t)(length - niah->buffer) - niah->n_needle_ids;
    if (count > room) count = room;
    size_t before = needle_place(niah, ids, count, depth);
    size_t total = count + niah->n_needle_ids;
    all = malloc((total ? total : 1) * sizeof *all);
    if (!all) {
        st = ct_fail_memory(err, "prompt", total * sizeof *all);
        goto done;
    }
    if (before) memcpy(all, ids, before * sizeof *all);
    if (niah->n_needle_ids)
        memcpy(all + before, niah->needle_ids, niah->n_needle_ids * sizeof *all);
    if (count > before)
        memcpy(all + before + niah->n_needle_ids, ids + before, (count - before) * sizeof *all);
    CT_TRY(ct_tokenizer_decode(niah->tokenizer, all, total, true, text, size, err));
done:
    free(cut_text);
    free(ids);
    free(all);
    return st;
}

ct_status ct_niah_build(const ct_niah *niah, int64_t length, int64_t depth, ct_niah_prompt *out,
                        ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf content = {0};
    char *context = NULL;
    size_t context_size = 0;
    *out = (ct_niah_prompt){.length = length, .depth = depth};
    if (depth < 0 || depth > 100)
        return ct_fail(err, CT_ERR_VALUE, "depth: expected 0 to 100 per cent, got %" PRId64, depth);
    int64_t least = niah->buffer + (int64_t)niah->n_needle_ids;
    if (length < least || length < 1)
        return ct_fail(err, CT_ERR_VALUE,
                       "length: expected at least %" PRId64 " tokens (%zu of the needle, %" PRId64
                       " of buffer), got %" PRId64,
                       least ? least : 1, niah->n_needle_ids, niah->buffer, length);
    if (length > niah->max_length)
        return ct_fail(err, CT_ERR_VALUE,
                       "length: expected at most %" PRId64
                       " tokens, as the haystack was opened, got %" PRId64,
                       niah->max_length, length);
    CT_TRY(context_with_needle(niah, length, depth, &context, &context_size, err));
    CT_TRY(ct_buf_adds(&content, "CONTEXT: ", err));
    CT_TRY(ct_buf_add(&content, context, context_size, err));
    CT_TRY(ct_buf_adds(&content, "\n\nQUESTION: ", err));
    CT_TRY(ct_buf_adds(&content, niah->question, err));
    if (niah->read_twice) {
        size_t once = content.size;
        CT_TRY(ct_buf_reserve(&content, once + 2, err)); /* before data is taken: it may move */
        CT_TRY(ct_buf_add(&content, "\n\n", 2, err));
        CT_TRY(ct_buf_add(&content, content.data, once, err));
    }
    CT_TRY(ct_buf_adds(&content,
                       niah->template_kind == CT_NIAH_BASE ? base_suffix : instruct_suffix, err));
    if (!(out->content = ct_buf_take(&content))) st = ct_fail_memory(err, "prompt", content.size);
done:
    free(context);
    ct_buf_clear(&content);
    return st;
}

void ct_niah_prompt_clear(ct_niah_prompt *prompt)
{
    free(prompt->content);
    *prompt = (ct_niah_prompt){0};
}

/* ---- prompt files ---------------------------------------------------------------------------- */

/* A JSON string as Python's json.dump writes it: ASCII only, \u in lower case, DEL escaped. */
static ct_status add_json_string(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st = CT_OK;
    static const char escaped[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    size_t size = strlen(text);
    CT_TRY(ct_buf_add(out, "\"", 1, err));
    for (size_t i = 0; i < size;) {
        uint32_t c;
        i += ct_utf8_next(text + i, size - i, &c);
        const char *found = c < 0x80 ? strchr(escaped, (int)c) : NULL;
        if (found) {
            CT_TRY(ct_buf_addf(out, err, "\\%c", letters[found - escaped]));
        } else if (c >= 0x20 && c < 0x7F) {
            char byte = (char)c;
            CT_TRY(ct_buf_add(out, &byte, 1, err));
        } else if (c < 0x10000) {
            CT_TRY(ct_buf_addf(out, err, "\\u%04x", (unsigned)c));
        } else {
            CT_TRY(ct_buf_addf(out, err, "\\u%04x\\u%04x", 0xD800u + ((c - 0x10000u) >> 10),
                               0xDC00u + ((c - 0x10000u) & 0x3FFu)));
        }
    }
    CT_TRY(ct_buf_add(out, "\"", 1, err));
done:
    return st;
}

static ct_status add_json_field(ct_buf *out, const char *key, const char *text, ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_buf_addf(out, err, "  \"%s\": ", key));
    CT_TRY(add_json_string(out, text, err));
    CT_TRY(ct_buf_adds(out, ",\n", err));
done:
    return st;
}

ct_status ct_niah_file(const ct_niah *niah, const ct_niah_prompt *prompt, const char *model_name,
                       const char *tokenizer_name, char **file_name, char **json, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf out = {0};
    *file_name = *json = NULL;
    CT_TRY(check_text(tokenizer_name, "tokenizer name", err));
    CT_TRY(ct_text_check(model_name, strlen(model_name), "model name", err));
    if (strchr(tokenizer_name, '/')) {
        st = ct_fail(err, CT_ERR_VALUE,
                     "tokenizer name: expected a name without \"/\", since it begins file names, "
                     "got \"%s\"",
                     ct_text_quote(tokenizer_name, strlen(tokenizer_name)).text);
        goto done;
    }
    CT_TRY(ct_buf_adds(&out, "{\n", err));
    CT_TRY(add_json_field(&out, "model", model_name, err));
    CT_TRY(add_json_field(&out, "tokenizer", tokenizer_name, err));
    CT_TRY(ct_buf_addf(&out, err, "  \"context_length\": %" PRId64 ",\n", prompt->length));
    CT_TRY(ct_buf_addf(&out, err, "  \"depth_percent\": %" PRId64 ",\n", prompt->depth));
    CT_TRY(add_json_field(&out, "needle", niah->needle, err));
    CT_TRY(add_json_field(&out, "retrieval_question", niah->question, err));
    CT_TRY(ct_buf_adds(&out, "  \"content\": ", err));
    if (niah->template_kind == CT_NIAH_INSTRUCT)
        CT_TRY(ct_buf_adds(&out, "[\n    {\n      \"role\": \"user\",\n      \"content\": ", err));
    CT_TRY(add_json_string(&out, prompt->content, err));
    if (niah->template_kind == CT_NIAH_INSTRUCT) CT_TRY(ct_buf_adds(&out, "\n    }\n  ]", err));
    CT_TRY(ct_buf_adds(&out, "\n}", err));
    *file_name = ct_strf(err, "%s_%" PRId64 "_%" PRId64 "_prompts.json", tokenizer_name,
                         prompt->length, prompt->depth);
    if (!*file_name) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    if (!(*json = ct_buf_take(&out))) st = ct_fail_memory(err, "prompt file", out.size);
done:
    if (st != CT_OK) {
        free(*file_name);
        *file_name = NULL;
    }
    ct_buf_clear(&out);
    return st;
}
