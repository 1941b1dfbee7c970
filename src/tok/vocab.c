/* vocab.c - tokens and merges: reading, checking, finding. See vocab.h. */
#include "tok/vocab.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/buf.h"
#include "tok/fields.h"
#include "tok/unicode.h"

void ct_vocab_clear(ct_vocab *vocab)
{
    free(vocab->texts);
    free(vocab->tokens);
    free(vocab->by_text);
    free(vocab->by_char);
    free(vocab->merges);
    free(vocab->joins);
    *vocab = (ct_vocab){0};
}

static const char *text_of(const ct_vocab *vocab, uint32_t token)
{
    return vocab->texts + vocab->tokens[token].text;
}

/* A power of two that leaves a third of its slots empty at least. */
static size_t slots_for(size_t count)
{
    size_t slots = 16;
    while (slots / 3 * 2 < count) slots *= 2;
    return slots;
}

/* ---- finding --------------------------------------------------------------------------------- */

/* The slot that holds this text, or the empty one where it belongs. */
static size_t text_slot(const ct_vocab *vocab, const char *text, size_t size)
{
    size_t slot = XXH3_64bits_withSeed(text, size, vocab->seed) & vocab->by_text_mask;
    for (;; slot = (slot + 1) & vocab->by_text_mask) {
        uint32_t token = vocab->by_text[slot];
        if (token == CT_NO_TOKEN ||
            (vocab->tokens[token].size == size && memcmp(text_of(vocab, token), text, size) == 0))
            return slot;
    }
}

uint32_t ct_vocab_find(const ct_vocab *vocab, const char *text, size_t size)
{
    return vocab->by_text[text_slot(vocab, text, size)];
}

uint32_t ct_vocab_find_model(const ct_vocab *vocab, const char *text, size_t size)
{
    uint32_t token = ct_vocab_find(vocab, text, size);
    return token != CT_NO_TOKEN && vocab->tokens[token].in_model ? token : CT_NO_TOKEN;
}

uint32_t ct_vocab_find_id(const ct_vocab *vocab, int64_t id)
{
    if (id < 0) return CT_NO_TOKEN;
    /* The ids of nearly every vocabulary are 0 to count - 1. */
    if (id < vocab->count && vocab->tokens[id].id == id) return (uint32_t)id;
    uint32_t low = 0, high = vocab->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (vocab->tokens[middle].id < id) low = middle + 1;
        else high = middle;
    }
    return low < vocab->count && vocab->tokens[low].id == id ? low : CT_NO_TOKEN;
}

/* A full-width product mixes both halves of the pair into the low bits. */
static size_t pair_hash(const ct_vocab *vocab, uint32_t left, uint32_t right)
{
    uint64_t x = ((uint64_t)left << 32 | right) ^ vocab->seed;
    x *= 0x9E3779B97F4A7C15u;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    return (size_t)(x ^ x >> 32);
}

static ct_merge *merge_slot(const ct_vocab *vocab, uint32_t left, uint32_t right)
{
    size_t slot = pair_hash(vocab, left, right) & vocab->merges_mask;
    for (;; slot = (slot + 1) & vocab->merges_mask) {
        ct_merge *merge = &vocab->merges[slot];
        if (merge->left == CT_NO_TOKEN || (merge->left == left && merge->right == right))
            return merge;
    }
}

const ct_merge *ct_vocab_find_merge(const ct_vocab *vocab, uint32_t left, uint32_t right)
{
    const ct_merge *merge = merge_slot(vocab, left, right);
    return merge->left == CT_NO_TOKEN ? NULL : merge;
}

bool ct_vocab_may_join(const ct_vocab *vocab, uint32_t before, uint32_t after)
{
    size_t bit = pair_hash(vocab, before, after) & ((1u << CT_JOINS_BITS) - 1);
    return vocab->joins[bit / 64] >> (bit % 64) & 1;
}

static void set_may_join(ct_vocab *vocab, uint32_t before, uint32_t after)
{
    size_t bit = pair_hash(vocab, before, after) & ((1u << CT_JOINS_BITS) - 1);
    vocab->joins[bit / 64] |= (uint64_t)1 << (bit % 64);
}

/* ---- reading tokens -------------------------------------------------------------------------- */

/* Takes a text into the arena, which has room for the raw form of all of them. */
static ct_token take_text(ct_vocab *vocab, ct_scan_text raw, int64_t id, bool in_model)
{
    ct_token token = {.text = (uint32_t)vocab->texts_size, .id = (int32_t)id, .in_model = in_model};
    token.size = (uint32_t)ct_scan_unescape(raw, vocab->texts + vocab->texts_size);
    vocab->texts_size += token.size;
    return token;
}

static int by_id(const void *a, const void *b)
{
    const ct_token *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* How many elements follow in the object or array at `list`, and how many bytes it has. */
static void measure(ct_scan list, bool object, size_t *count, size_t *bytes)
{
    bool first = true;
    ct_scan_text key;
    *count = *bytes = 0;
    if (!list.at) return;
    const char *begin = list.at++;
    while (object ? ct_scan_next_key(&list, &first, &key) : ct_scan_next_element(&list, &first)) {
        ++*count;
        if (!ct_scan_skip(&list)) break;
    }
    *bytes = (size_t)(list.at - begin);
}

static ct_status index_texts(ct_vocab *vocab, ct_err *err)
{
    size_t slots = slots_for(vocab->count);
    free(vocab->by_text);
    vocab->by_text = malloc(slots * sizeof *vocab->by_text);
    if (!vocab->by_text) return ct_fail_memory(err, "vocabulary", slots * sizeof *vocab->by_text);
    memset(vocab->by_text, 0xFF, slots * sizeof *vocab->by_text);
    vocab->by_text_mask = slots - 1;
    for (uint32_t i = 0; i < vocab->count; i++) {
        const ct_token *token = &vocab->tokens[i];
        size_t slot = text_slot(vocab, text_of(vocab, i), token->size);
        if (vocab->by_text[slot] != CT_NO_TOKEN)
            return ct_fail(
                err, CT_ERR_VALUE,
                "model.vocab: expected every token once, got \"%.*s\" with ids %d and %d",
                CT_SHOWN(text_of(vocab, i), token->size), vocab->tokens[vocab->by_text[slot]].id,
                token->id);
        vocab->by_text[slot] = i;
    }
    return CT_OK;
}

static ct_status read_model_vocab(ct_vocab *vocab, ct_scan list, ct_err *err)
{
    bool first = true;
    ct_scan_text key;
    list.at++;
    while (ct_scan_next_key(&list, &first, &key)) {
        int64_t id;
        ct_scan value = list;
        if (!ct_scan_integer(&value, &id) || id > INT32_MAX) {
            ct_scan end = (ct_scan_peek(&list), list);
            ct_scan_skip(&end);
            return ct_fail(err, CT_ERR_VALUE,
                           "model.vocab: token \"%.*s\": expected an id from 0 to %d, got %.*s",
                           CT_SHOWN(key.bytes, key.size), INT32_MAX,
                           CT_SHOWN(list.at, (size_t)(end.at - list.at)));
        }
        list = value;
        vocab->tokens[vocab->count++] = take_text(vocab, key, id, true);
    }
    return CT_OK;
}

/* Added tokens: the `tokenizers` library keeps the id of one that the vocabulary has, and numbers
 * the others on from the vocabulary's size, whatever the file says. A file that says otherwise
 * would be read with other ids than it states: it is refused. */
static ct_status read_added(ct_vocab *vocab, ct_scan list, ct_err *err)
{
    static const char *const names[] = {"id", "content"};
    enum { ID, CONTENT, N };
    int64_t next = vocab->count;
    bool first = true;
    if (!list.at) return CT_OK;
    list.at++;
    while (ct_scan_next_element(&list, &first)) {
        ct_scan values[N];
        ct_scan_text text;
        int64_t id = -1;
        ct_status st = ct_fields_read(list, "added_tokens", names, N, values, err);
        if (st == CT_OK) st = ct_field_int(values[ID], "added_tokens", "id", INT32_MAX, &id, err);
        if (st != CT_OK) return st;
        if (!values[CONTENT].at || !ct_scan_string(&values[CONTENT], &text) || text.size == 0)
            return ct_fail(err, CT_ERR_VALUE,
                           "added_tokens: id %lld: expected a content that is not empty",
                           (long long)id);
        ct_token token = take_text(vocab, text, id, false);
        const char *bytes = vocab->texts + token.text;
        uint32_t known = ct_vocab_find_model(vocab, bytes, token.size);
        int64_t expected = known == CT_NO_TOKEN ? next : vocab->tokens[known].id;
        if (id != expected)
            return ct_fail(
                err, CT_ERR_VALUE, "added_tokens: \"%.*s\": expected id %lld (%s), got %lld",
                CT_SHOWN(bytes, token.size), (long long)expected,
                known == CT_NO_TOKEN ? "the next after the vocabulary" : "as in the vocabulary",
                (long long)id);
        if (known == CT_NO_TOKEN) {
            if (next++ == INT32_MAX)
                return ct_fail(err, CT_ERR_LIMIT, "added_tokens: expected ids up to %d", INT32_MAX);
            vocab->tokens[vocab->count++] = token;
        }
        if (!ct_scan_skip(&list)) break;
    }
    return CT_OK;
}

static ct_status index_chars(ct_vocab *vocab, ct_err *err)
{
    enum { BASIC_PLANE = 0x10000 };
    size_t bytes = BASIC_PLANE * sizeof *vocab->by_char;
    vocab->by_char = malloc(bytes);
    if (!vocab->by_char) return ct_fail_memory(err, "vocabulary", bytes);
    memset(vocab->by_char, 0xFF, bytes);
    for (uint32_t i = 0; i < vocab->count; i++) {
        const ct_token *token = &vocab->tokens[i];
        uint32_t c;
        if (token->in_model && token->size > 0 && token->size <= 3 &&
            ct_utf8_next(text_of(vocab, i), token->size, &c) == token->size)
            vocab->by_char[c] = i;
    }
    return CT_OK;
}

ct_status ct_vocab_read(ct_vocab *vocab, ct_scan model_vocab, ct_scan added, uint64_t seed,
                        ct_err *err)
{
    ct_status st = CT_OK;
    size_t n_model, n_added, bytes, added_bytes;
    if (!model_vocab.at || ct_scan_peek(&model_vocab) != '{')
        return ct_fail(err, CT_ERR_FORMAT, "model.vocab: expected an object of tokens and ids");
    if (added.at && ct_scan_peek(&added) != '[')
        return ct_fail(err, CT_ERR_FORMAT, "added_tokens: expected an array");
    measure(model_vocab, true, &n_model, &bytes);
    measure(added, false, &n_added, &added_bytes);
    bytes += added_bytes;
    size_t n = n_model + n_added;
    if (n > INT32_MAX || bytes > UINT32_MAX)
        return ct_fail(err, CT_ERR_LIMIT, "model.vocab: expected at most %d tokens", INT32_MAX);
    vocab->seed = seed;
    vocab->texts = malloc(bytes + 1);
    vocab->tokens = malloc((n + 1) * sizeof *vocab->tokens);
    if (!vocab->texts || !vocab->tokens)
        return ct_fail_memory(err, "vocabulary", bytes + n * sizeof *vocab->tokens);
    CT_TRY(read_model_vocab(vocab, model_vocab, err));
    CT_TRY(index_texts(vocab, err));
    CT_TRY(read_added(vocab, added, err));

    bool sorted = true;
    for (uint32_t i = 1; i < vocab->count && sorted; i++)
        sorted = vocab->tokens[i - 1].id < vocab->tokens[i].id;
    if (!sorted) qsort(vocab->tokens, vocab->count, sizeof *vocab->tokens, by_id);
    for (uint32_t i = 1; i < vocab->count; i++)
        if (vocab->tokens[i - 1].id == vocab->tokens[i].id) {
            const ct_token *a = &vocab->tokens[i - 1], *b = &vocab->tokens[i];
            st = ct_fail(err, CT_ERR_VALUE,
                         "model.vocab: expected every id once, got %d for \"%.*s\" and \"%.*s\"",
                         a->id, CT_SHOWN(text_of(vocab, i - 1), a->size),
                         CT_SHOWN(text_of(vocab, i), b->size));
            goto done;
        }
    CT_TRY(index_texts(vocab, err)); /* again: sorting moved the tokens, and some were added */
    CT_TRY(index_chars(vocab, err));
done:
    return st;
}

/* ---- reading merges -------------------------------------------------------------------------- */

static ct_status bad_merge(ct_err *err, ct_status status, size_t rank, const char *problem,
                           const char *text, size_t size)
{
    return ct_fail(err, status, "model.merges: merge %zu: expected %s, got \"%.*s\"", rank, problem,
                   CT_SHOWN(text, size));
}

/* The two parts of the merge at `scan` lie in `text`, one after the other; *left is the first's
 * size. A version line, as merges.txt had them, is no merge: *left becomes SIZE_MAX. */
static ct_status read_pair(ct_scan *scan, size_t rank, ct_buf *text, size_t *left, ct_err *err)
{
    ct_scan_text raw[2] = {{0}};
    bool pair = ct_scan_peek(scan) == '[', first = true;
    size_t n = 0;
    if (pair) {
        scan->at++;
        while (ct_scan_next_element(scan, &first)) {
            if (n == 2 || !ct_scan_string(scan, &raw[n++]))
                return ct_fail(err, CT_ERR_FORMAT, "model.merges: merge %zu: expected two strings",
                               rank);
        }
    } else if (ct_scan_string(scan, &raw[0])) n = 1;
    if (n != (pair ? 2 : 1))
        return ct_fail(err, CT_ERR_FORMAT,
                       "model.merges: merge %zu: expected \"a b\" or [\"a\", \"b\"]", rank);
    text->size = 0;
    ct_status st = ct_buf_reserve(text, raw[0].size + raw[1].size, err);
    if (st != CT_OK) return st;
    size_t size = ct_scan_unescape(raw[0], text->data);
    *left = size;
    if (pair) size += ct_scan_unescape(raw[1], text->data + size);
    text->size = size;
    if (pair) return CT_OK;
    if (size >= 8 && memcmp(text->data, "#version", 8) == 0) {
        *left = SIZE_MAX;
        return CT_OK;
    }
    const char *space = memchr(text->data, ' ', size);
    if (!space || memchr(space + 1, ' ', (size_t)(text->data + size - space - 1)))
        return bad_merge(err, CT_ERR_FORMAT, rank, "two tokens with one space between", text->data,
                         size);
    *left = (size_t)(space - text->data);
    text->size = size - 1;
    memmove(text->data + *left, space + 1, text->size - *left);
    return CT_OK;
}

static ct_status take_merge(ct_vocab *vocab, uint32_t rank, const char *text, size_t size,
                            size_t left_size, ct_err *err)
{
    ct_merge merge = {.rank = rank};
    merge.left = ct_vocab_find_model(vocab, text, left_size);
    merge.right = ct_vocab_find_model(vocab, text + left_size, size - left_size);
    merge.result = ct_vocab_find_model(vocab, text, size);
    if (merge.left == CT_NO_TOKEN)
        return bad_merge(err, CT_ERR_NOT_FOUND, rank, "a first part that is in the vocabulary",
                         text, left_size);
    if (merge.right == CT_NO_TOKEN)
        return bad_merge(err, CT_ERR_NOT_FOUND, rank, "a second part that is in the vocabulary",
                         text + left_size, size - left_size);
    if (merge.result == CT_NO_TOKEN)
        return bad_merge(err, CT_ERR_NOT_FOUND, rank, "a result that is in the vocabulary", text,
                         size);
    *merge_slot(vocab, merge.left, merge.right) = merge; /* of two with one pair the later counts */
    if (left_size == 0 || left_size == size) return CT_OK; /* an empty token never occurs */
    uint32_t before, after;
    ct_utf8_next(text + ct_utf8_back(text, left_size), left_size, &before);
    ct_utf8_next(text + left_size, size - left_size, &after);
    set_may_join(vocab, before, after);
    return CT_OK;
}

ct_status ct_vocab_read_merges(ct_vocab *vocab, ct_scan list, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf text = {0};
    size_t count, bytes, left = 0, rank = 0;
    bool first = true;
    if (!list.at || ct_scan_peek(&list) != '[')
        return ct_fail(err, CT_ERR_FORMAT, "model.merges: expected an array");
    measure(list, false, &count, &bytes);
    size_t slots = slots_for(count);
    vocab->merges = malloc(slots * sizeof *vocab->merges);
    vocab->joins = calloc((size_t)1 << (CT_JOINS_BITS - 6), sizeof *vocab->joins);
    if (!vocab->merges || !vocab->joins)
        return ct_fail_memory(err, "merges", slots * sizeof *vocab->merges);
    memset(vocab->merges, 0xFF, slots * sizeof *vocab->merges);
    vocab->merges_mask = slots - 1;
    list.at++;
    while (ct_scan_next_element(&list, &first)) {
        CT_TRY(read_pair(&list, rank, &text, &left, err));
        if (left == SIZE_MAX) continue;
        CT_TRY(take_merge(vocab, (uint32_t)rank, text.data, text.size, left, err));
        rank++;
    }
done:
    ct_buf_clear(&text);
    return st;
}
