/* tokenizer.c - opening, encoding and decoding: the parts put together. See cortado/engine.h,
 * tok.h.
 *
 * Text goes through: added tokens found as they stand; normalizer; added tokens found in normalized
 * text; pre-tokenizer; BPE; post-processor. Decoding: texts of the ids; decoder.
 */
#include "tok/tok.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/hash.h"
#include "io/file.h"
#include "tok/added.h"
#include "tok/bpe.h"
#include "tok/decode.h"
#include "tok/fields.h"
#include "tok/normalize.h"
#include "tok/postprocess.h"
#include "tok/pretokenize.h"
#include "tok/unicode.h"

struct ct_tokenizer {
    ct_bpe bpe;
    ct_added added;
    ct_normalizer normalizer;
    ct_pretokenizer pretokenizer;
    ct_postprocessor postprocessor;
    ct_decoder decoder;
    char *bos_text, *chat_template;
    int32_t bos, eos;
    char hash[CT_HASH_HEX];
};

enum { MAX_FILE = 1 << 30 }; /* positions in it fit 32 bits */

/* ---- opening --------------------------------------------------------------------------------- */

void ct_tokenizer_close(ct_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    ct_bpe_clear(&tokenizer->bpe);
    ct_added_clear(&tokenizer->added);
    ct_normalizer_clear(&tokenizer->normalizer);
    ct_pretokenizer_clear(&tokenizer->pretokenizer);
    ct_postprocessor_clear(&tokenizer->postprocessor);
    ct_decoder_clear(&tokenizer->decoder);
    free(tokenizer->bos_text);
    free(tokenizer->chat_template);
    free(tokenizer);
}

/* Checks a whole document once, so that its parts can be read in any order without doubt. */
static ct_status check_document(const void *bytes, size_t size, ct_scan *out, ct_err *err)
{
    if (size > MAX_FILE)
        return ct_fail(err, CT_ERR_LIMIT, "expected at most %d bytes, got %zu", MAX_FILE, size);
    size_t valid = size ? ct_utf8_check(bytes, size) : 0;
    if (valid < size)
        return ct_fail(err, CT_ERR_FORMAT, "expected UTF-8, got byte 0x%02X at offset %zu",
                       ((const unsigned char *)bytes)[valid], valid);
    *out = ct_scan_start(size ? bytes : "", size);
    ct_scan scan = *out;
    if (!ct_scan_skip(&scan) || !ct_scan_finish(&scan))
        return ct_fail(err, CT_ERR_FORMAT, "expected %s at offset %zu", scan.problem,
                       (size_t)(scan.at - scan.begin));
    return CT_OK;
}

static ct_status read_tokenizer(ct_tokenizer *t, const void *bytes, size_t size, ct_err *err)
{
    enum { VERSION, MODEL, ADDED, NORMALIZER, PRETOKENIZER, POSTPROCESSOR, DECODER, N };
    static const char *const names[] = {"version",    "model",         "added_tokens",
                                        "normalizer", "pre_tokenizer", "post_processor",
                                        "decoder"};
    ct_scan document, v[N];
    ct_scan_text version;
    ct_status st = CT_OK;
    CT_TRY(check_document(bytes, size, &document, err));
    CT_TRY(ct_fields_read(document, "tokenizer", names, N, v, err));
    if (v[VERSION].at &&
        (!ct_scan_string(&v[VERSION], &version) || !ct_scan_equal(version, "1.0"))) {
        st = ct_fail(err, CT_ERR_UNSUPPORTED, "version: expected \"1.0\"");
        goto done;
    }
    ct_hash hash = ct_hash_bytes(bytes, size);
    ct_hash_hex(hash, t->hash);
    CT_TRY(ct_bpe_read(&t->bpe, v[MODEL], v[ADDED], hash.low, err));
    CT_TRY(ct_normalizer_read(&t->normalizer, v[NORMALIZER], err));
    CT_TRY(ct_added_read(&t->added, v[ADDED], &t->bpe.vocab, &t->normalizer, err));
    CT_TRY(ct_pretokenizer_read(&t->pretokenizer, v[PRETOKENIZER], err));
    CT_TRY(ct_postprocessor_read(&t->postprocessor, v[POSTPROCESSOR], &t->bpe.vocab, err));
    CT_TRY(ct_decoder_read(&t->decoder, v[DECODER], err));
done:
    return st;
}

/* A special token of tokenizer_config.json: its text, or an added token with it as "content". */
static ct_status read_special(const ct_tokenizer *t, ct_scan value, const char *name, char **text,
                              int32_t *id, ct_err *err)
{
    static const char *const content[] = {"content"};
    static const char where[] = "tokenizer_config";
    size_t size;
    ct_status st = CT_OK;
    *id = -1;
    if (!value.at) return CT_OK;
    if (ct_scan_peek(&value) == '{') CT_TRY(ct_fields_read(value, where, content, 1, &value, err));
    CT_TRY(ct_field_text(value, where, name, text, &size, err));
    uint32_t token = ct_vocab_find(&t->bpe.vocab, *text, size);
    if (token == CT_NO_TOKEN) {
        st = ct_fail(err, CT_ERR_NOT_FOUND,
                     "%s.%s: expected a token of tokenizer.json, got \"%.*s\"", where, name,
                     CT_SHOWN(*text, size));
        goto done;
    }
    *id = t->bpe.vocab.tokens[token].id;
done:
    return st;
}

/* The template is a string, or a list of named ones of which "default" counts. */
static ct_status read_template(ct_tokenizer *t, ct_scan value, ct_err *err)
{
    static const char where[] = "tokenizer_config.chat_template";
    static const char *const names[] = {"name", "template"};
    ct_status st = CT_OK;
    ct_scan v[2];
    ct_scan_text name;
    bool first = true;
    if (!value.at) return CT_OK;
    if (ct_scan_peek(&value) != '[')
        return ct_field_text(value, "tokenizer_config", "chat_template", &t->chat_template, NULL,
                             err);
    value.at++;
    while (ct_scan_next_element(&value, &first) && !t->chat_template) {
        CT_TRY(ct_fields_read(value, where, names, 2, v, err));
        if (v[0].at && ct_scan_string(&v[0], &name) && ct_scan_equal(name, "default"))
            CT_TRY(ct_field_text(v[1], where, "template", &t->chat_template, NULL, err));
        if (!ct_scan_skip(&value)) break;
    }
done:
    return st;
}

static ct_status read_config(ct_tokenizer *t, const void *bytes, size_t size, ct_err *err)
{
    enum { BOS, EOS, TEMPLATE, N };
    static const char *const names[] = {"bos_token", "eos_token", "chat_template"};
    ct_scan document, v[N];
    char *eos_text = NULL;
    ct_status st = CT_OK;
    CT_TRY(check_document(bytes, size, &document, err));
    CT_TRY(ct_fields_read(document, "tokenizer_config", names, N, v, err));
    CT_TRY(read_special(t, v[BOS], names[BOS], &t->bos_text, &t->bos, err));
    CT_TRY(read_special(t, v[EOS], names[EOS], &eos_text, &t->eos, err));
    CT_TRY(read_template(t, v[TEMPLATE], err));
done:
    free(eos_text);
    return st;
}

static ct_status open_parts(const void *json, size_t json_size, const char *json_name,
                            const void *config, size_t config_size, const char *config_name,
                            ct_tokenizer **out, ct_err *err)
{
    ct_tokenizer *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return ct_fail_memory(err, "tokenizer", sizeof *t);
    t->bos = t->eos = -1;
    ct_status st = read_tokenizer(t, json, json_size, err);
    if (st != CT_OK) st = ct_fail_context(err, st, "%s", json_name);
    if (st == CT_OK && config) {
        st = read_config(t, config, config_size, err);
        if (st != CT_OK) st = ct_fail_context(err, st, "%s", config_name);
    }
    if (st == CT_OK) *out = t;
    else ct_tokenizer_close(t);
    return st;
}

ct_status ct_tokenizer_open_bytes(const void *json, size_t json_size, const void *config,
                                  size_t config_size, const char *where, ct_tokenizer **out,
                                  ct_err *err)
{
    return open_parts(json, json_size, where, config, config_size, where, out, err);
}

/* Maps DIR/name if it is there; map->path stays NULL if not. */
static ct_status map_optional(const char *dir, const char *name, ct_map *map, ct_err *err)
{
    char *path = ct_path_join(dir, name, err);
    if (!path) return CT_ERR_MEMORY;
    ct_status st = ct_map_open(path, map, err);
    free(path);
    return st == CT_ERR_NOT_FOUND ? CT_OK : st;
}

/* A mapped file's bytes, NULL if there is no such file. */
static const void *bytes_of(const ct_map *map)
{
    return map->path && !map->data ? "" : (const void *)map->data;
}

ct_status ct_tokenizer_open(const char *dir, ct_tokenizer **out, ct_err *err)
{
    ct_map json = {0}, config = {0}, template = {0};
    ct_tokenizer *t = NULL;
    ct_status st = CT_OK;
    *out = NULL;
    char *path = ct_path_join(dir, "tokenizer.json", err);
    if (!path) return CT_ERR_MEMORY;
    CT_TRY(ct_map_open(path, &json, err));
    CT_TRY(map_optional(dir, "tokenizer_config.json", &config, err));
    CT_TRY(map_optional(dir, "chat_template.jinja", &template, err));
    CT_TRY(open_parts(json.data, json.size, json.path, bytes_of(&config), config.size, config.path,
                      &t, err));
    if (template.path && !t->chat_template) {
        t->chat_template = ct_strndup(bytes_of(&template), template.size, err);
        if (!t->chat_template) st = CT_ERR_MEMORY;
    }
    if (st == CT_OK) {
        *out = t;
        t = NULL;
    }
done:
    ct_tokenizer_close(t);
    ct_map_close(&json);
    ct_map_close(&config);
    ct_map_close(&template);
    free(path);
    return st;
}

/* ---- facts ----------------------------------------------------------------------------------- */

size_t ct_tokenizer_vocab_size(const ct_tokenizer *tokenizer)
{
    const ct_vocab *vocab = &tokenizer->bpe.vocab;
    return vocab->count ? (size_t)vocab->tokens[vocab->count - 1].id + 1 : 0;
}

int32_t ct_tokenizer_token_id(const ct_tokenizer *tokenizer, const char *token)
{
    uint32_t found = ct_vocab_find(&tokenizer->bpe.vocab, token, strlen(token));
    return found == CT_NO_TOKEN ? -1 : tokenizer->bpe.vocab.tokens[found].id;
}

int32_t ct_tokenizer_bos(const ct_tokenizer *tokenizer)
{
    return tokenizer->bos;
}

int32_t ct_tokenizer_eos(const ct_tokenizer *tokenizer)
{
    return tokenizer->eos;
}

const char *ct_tokenizer_hash(const ct_tokenizer *tokenizer)
{
    return tokenizer->hash;
}

const char *ct_tokenizer_bos_text(const ct_tokenizer *tokenizer)
{
    return tokenizer->bos_text;
}

const char *ct_tokenizer_chat_template(const ct_tokenizer *tokenizer)
{
    return tokenizer->chat_template;
}

bool ct_tokenizer_wants_special(const ct_tokenizer *tokenizer, const char *text, size_t size)
{
    size_t n = tokenizer->bos_text ? strlen(tokenizer->bos_text) : 0;
    return n == 0 || size < n || memcmp(text, tokenizer->bos_text, n) != 0;
}

/* ---- encoding -------------------------------------------------------------------------------- */

/* One call's result and working memory. */
typedef struct encoder {
    const ct_tokenizer *tokenizer;
    int32_t *ids;
    size_t *begin, *end; /* NULL unless `offsets` */
    size_t count, capacity;
    bool offsets;
    ct_stretches raw, normalized;
    ct_aligned text, spare;
    ct_search search;
    ct_pretokenizer_work pretokenizer;
    ct_bpe_work bpe;
} encoder;

static void encoder_clear(encoder *e)
{
    free(e->ids);
    free(e->begin);
    free(e->end);
    free(e->raw.items);
    free(e->normalized.items);
    ct_aligned_clear(&e->text);
    ct_aligned_clear(&e->spare);
    ct_search_clear(&e->search);
    ct_pretokenizer_work_clear(&e->pretokenizer);
    ct_bpe_work_clear(&e->bpe);
}

static ct_status grow(encoder *e, size_t extra, ct_err *err)
{
    size_t need = e->count + extra;
    if (need <= e->capacity) return CT_OK;
    size_t capacity = e->capacity * 2 > need ? e->capacity * 2 : need + 16;
    int32_t *ids = realloc(e->ids, capacity * sizeof *ids);
    if (ids) e->ids = ids;
    size_t *begin = e->offsets ? realloc(e->begin, capacity * sizeof *begin) : NULL;
    if (begin) e->begin = begin;
    size_t *end = e->offsets ? realloc(e->end, capacity * sizeof *end) : NULL;
    if (end) e->end = end;
    if (!ids || (e->offsets && (!begin || !end)))
        return ct_fail_memory(err, "tokens", capacity * (sizeof *ids + 2 * sizeof *begin));
    e->capacity = capacity;
    return CT_OK;
}

static void put(encoder *e, int32_t id, size_t begin, size_t end)
{
    e->ids[e->count] = id;
    if (e->offsets) {
        e->begin[e->count] = begin;
        e->end[e->count] = end;
    }
    e->count++;
}

static ct_status encode_words(encoder *e, size_t from, size_t to, ct_err *err)
{
    const ct_tokenizer *t = e->tokenizer;
    const ct_aligned *text;
    ct_status st = CT_OK;
    CT_TRY(ct_pretokenizer_run(&t->pretokenizer, &e->text, from, to, &e->pretokenizer, &text, err));
    for (size_t i = 0; i < e->pretokenizer.words.count; i++) {
        ct_word word = e->pretokenizer.words.items[i];
        CT_TRY(
            ct_bpe_encode(&t->bpe, text->text + word.begin, word.end - word.begin, &e->bpe, err));
        CT_TRY(grow(e, e->bpe.count, err));
        for (size_t j = 0; j < e->bpe.count; j++) {
            const ct_symbol *symbol = &e->bpe.symbols[j];
            put(e, t->bpe.vocab.tokens[symbol->token].id, text->begin[word.begin + symbol->begin],
                text->end[word.begin + symbol->end - 1]);
        }
    }
done:
    return st;
}

/* Bytes [begin, end) of the text, in which no added token stands as it is. */
static ct_status encode_stretch(encoder *e, const char *text, size_t begin, size_t end, ct_err *err)
{
    const ct_tokenizer *t = e->tokenizer;
    ct_status st = CT_OK;
    e->text.size = 0;
    CT_TRY(ct_aligned_add_original(&e->text, text + begin, end - begin, (uint32_t)begin, err));
    CT_TRY(ct_normalizer_run(&t->normalizer, &e->text, &e->spare, &e->search, err));
    CT_TRY(ct_added_split(&t->added, true, e->text.text, e->text.size, &e->normalized, err));
    for (size_t i = 0; i < e->normalized.count; i++) {
        ct_stretch s = e->normalized.items[i];
        if (s.token == CT_NO_TOKEN) {
            CT_TRY(encode_words(e, s.begin, s.end, err));
            continue;
        }
        CT_TRY(grow(e, 1, err));
        put(e, t->bpe.vocab.tokens[s.token].id, e->text.begin[s.begin], e->text.end[s.end - 1]);
    }
done:
    return st;
}

ct_status ct_tokenizer_encode_offsets(const ct_tokenizer *tokenizer, const char *text, size_t size,
                                      bool special, int32_t **ids, size_t **begin, size_t **end,
                                      size_t *count, ct_err *err)
{
    const ct_postprocessor *post = &tokenizer->postprocessor;
    encoder e = {.tokenizer = tokenizer, .offsets = begin != NULL};
    ct_status st = CT_OK;
    size_t valid = ct_utf8_check(text, size);
    if (valid < size) {
        st = ct_fail(err, CT_ERR_VALUE, "text: expected UTF-8, got byte 0x%02X at offset %zu",
                     (unsigned char)text[valid], valid);
        goto done;
    }
    if (size > CT_ALIGNED_MAX) {
        st = ct_fail(err, CT_ERR_LIMIT, "text: expected at most %d bytes, got %zu", CT_ALIGNED_MAX,
                     size);
        goto done;
    }
    CT_TRY(grow(&e, post->count + size / 4 + 1, err));
    for (size_t i = 0; special && i < post->before; i++) put(&e, post->ids[i], 0, 0);
    CT_TRY(ct_added_split(&tokenizer->added, false, text, size, &e.raw, err));
    for (size_t i = 0; i < e.raw.count; i++) {
        ct_stretch s = e.raw.items[i];
        if (s.token == CT_NO_TOKEN) {
            CT_TRY(encode_stretch(&e, text, s.begin, s.end, err));
            continue;
        }
        CT_TRY(grow(&e, 1, err));
        put(&e, tokenizer->bpe.vocab.tokens[s.token].id, s.begin, s.end);
    }
    CT_TRY(grow(&e, post->count, err));
    for (size_t i = post->before; special && i < post->count; i++)
        put(&e, post->ids[i], size, size);
    *count = e.count;
    *ids = e.ids;
    e.ids = NULL;
    if (e.offsets) {
        *begin = e.begin;
        *end = e.end;
        e.begin = e.end = NULL;
    }
done:
    encoder_clear(&e);
    return st;
}

ct_status ct_tokenizer_encode(const ct_tokenizer *tokenizer, const char *text, size_t size,
                              bool special, int32_t **ids, size_t *count, ct_err *err)
{
    return ct_tokenizer_encode_offsets(tokenizer, text, size, special, ids, NULL, NULL, count, err);
}

/* ---- decoding -------------------------------------------------------------------------------- */

ct_status ct_tokenizer_decode(const ct_tokenizer *tokenizer, const int32_t *ids, size_t count,
                              bool skip_special, char **text, size_t *size, ct_err *err)
{
    const ct_vocab *vocab = &tokenizer->bpe.vocab;
    ct_texts texts = {0};
    ct_status st = CT_OK;
    for (size_t i = 0; i < count; i++) {
        uint32_t token = ct_vocab_find_id(vocab, ids[i]);
        if (token == CT_NO_TOKEN) {
            st = ct_fail(err, CT_ERR_VALUE,
                         "ids: expected ids of the vocabulary, got %d at place %zu", ids[i], i);
            goto done;
        }
        const ct_added_token *added = ct_added_find(&tokenizer->added, token);
        if (!added) {
            CT_TRY(ct_texts_add(&texts, vocab->texts + vocab->tokens[token].text,
                                vocab->tokens[token].size, err));
        } else if (!skip_special || !added->hidden) {
            CT_TRY(ct_texts_add(&texts, added->pattern, added->size, err));
        }
    }
    CT_TRY(ct_decoder_run(&tokenizer->decoder, &texts, err));
    size_t n = texts.bytes.size;
    char *taken = ct_buf_take(&texts.bytes);
    if (!taken) {
        st = ct_fail_memory(err, "decoding", n);
        goto done;
    }
    taken[n] = 0; /* a buffer that was emptied and never filled again still ends where it ended */
    *text = taken;
    *size = n;
done:
    ct_texts_clear(&texts);
    return st;
}
