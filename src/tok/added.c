/* added.c - added tokens. See added.h. */
#include "tok/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tok/fields.h"
#include "tok/unicode.h"

void ct_added_clear(ct_added *added)
{
    for (size_t i = 0; i < added->count; i++) free(added->tokens[i].pattern);
    free(added->tokens);
    free(added->by_token);
    ct_pattern_free(added->word);
    *added = (ct_added){0};
}

/* ---- reading --------------------------------------------------------------------------------- */

static int compare_bytes(const char *a, size_t a_size, const char *b, size_t b_size)
{
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int by_set_and_bytes(const void *a, const void *b)
{
    const ct_added_token *x = a, *y = b;
    if (x->normalized != y->normalized) return x->normalized ? 1 : -1;
    return compare_bytes(x->pattern, x->size, y->pattern, y->size);
}

/* Replaces the pattern by its normalized form. */
static ct_status normalize_pattern(ct_added_token *token, const ct_normalizer *normalizer,
                                   ct_err *err)
{
    ct_aligned text = {0}, spare = {0};
    ct_search search = {0};
    ct_status st = CT_OK;
    CT_TRY(ct_aligned_add_original(&text, token->pattern, token->size, 0, err));
    CT_TRY(ct_normalizer_run(normalizer, &text, &spare, &search, err));
    /* The library tells special tokens by text, so that one whose normalized form differs is not
     * found among them again and stays in decoded text. */
    if (text.size != token->size || memcmp(text.text, token->pattern, text.size) != 0)
        token->hidden = false;
    char *pattern = ct_strndup(text.size ? text.text : "", text.size, err);
    if (!pattern) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    free(token->pattern);
    token->pattern = pattern;
    token->size = text.size;
done:
    ct_search_clear(&search);
    ct_aligned_clear(&text);
    ct_aligned_clear(&spare);
    return st;
}

static ct_status read_token(ct_added *added, ct_scan object, const ct_vocab *vocab,
                            const ct_normalizer *normalizer, ct_err *err)
{
    static const char where[] = "added_tokens";
    enum { CONTENT, SINGLE, LEFT, RIGHT, NORMALIZED, SPECIAL, N };
    static const char *const names[] = {"content", "single_word", "lstrip",
                                        "rstrip",  "normalized",  "special"};
    /* \w of Rust's regex. */
    static const char word[] = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}]";
    ct_scan v[N];
    ct_status st = CT_OK;
    ct_added_token *token = &added->tokens[added->count++];
    *token = (ct_added_token){.normalized = false};
    CT_TRY(ct_fields_read(object, where, names, N, v, err));
    CT_TRY(ct_field_text(v[CONTENT], where, "content", &token->pattern, &token->size, err));
    CT_TRY(ct_field_bool(v[SINGLE], where, names[SINGLE], &token->single_word, err));
    CT_TRY(ct_field_bool(v[LEFT], where, names[LEFT], &token->lstrip, err));
    CT_TRY(ct_field_bool(v[RIGHT], where, names[RIGHT], &token->rstrip, err));
    CT_TRY(ct_field_bool(v[SPECIAL], where, names[SPECIAL], &token->special, err));
    CT_TRY(ct_field_bool(v[NORMALIZED], where, names[NORMALIZED], &token->normalized, err));
    if (token->size > CT_ADDED_MAX_SIZE) {
        st = ct_fail(err, CT_ERR_LIMIT,
                     "added_tokens: \"%.*s...\": expected at most %d bytes, "
                     "got %zu",
                     CT_SHOWN(token->pattern, token->size), CT_ADDED_MAX_SIZE, token->size);
        goto done;
    }
    token->token = ct_vocab_find(vocab, token->pattern, token->size);
    CT_ASSERT(token->token != CT_NO_TOKEN);
    token->hidden = token->special;
    if (token->normalized) CT_TRY(normalize_pattern(token, normalizer, err));
    if (token->size == 0) {
        st = ct_fail(err, CT_ERR_VALUE,
                     "added_tokens: id %d: expected a content that the normalizer leaves something "
                     "of, got nothing",
                     vocab->tokens[token->token].id);
        goto done;
    }
    if (token->single_word && !added->word)
        CT_TRY(ct_pattern_new_regex(word, sizeof word - 1, where, &added->word, err));
done:
    return st;
}

static int by_token(const void *a, const void *b, void *tokens)
{
    const ct_added_token *all = tokens;
    uint32_t x = all[*(const uint32_t *)a].token, y = all[*(const uint32_t *)b].token;
    return (x > y) - (x < y);
}

ct_status ct_added_read(ct_added *added, ct_scan list, const ct_vocab *vocab,
                        const ct_normalizer *normalizer, ct_err *err)
{
    ct_status st = CT_OK;
    size_t count = 0;
    bool first = true;
    if (!list.at) return CT_OK;
    for (ct_scan scan = (list.at++, list); ct_scan_next_element(&scan, &first); count++)
        if (!ct_scan_skip(&scan)) break;
    added->tokens = malloc((count + 1) * sizeof *added->tokens);
    added->by_token = malloc((count + 1) * sizeof *added->by_token);
    if (!added->tokens || !added->by_token)
        return ct_fail_memory(err, "added_tokens", count * sizeof *added->tokens);
    first = true;
    while (ct_scan_next_element(&list, &first)) {
        CT_TRY(read_token(added, list, vocab, normalizer, err));
        if (!ct_scan_skip(&list)) break;
    }
    qsort(added->tokens, added->count, sizeof *added->tokens, by_set_and_bytes);
    for (size_t i = 0; i < added->count; i++) {
        const ct_added_token *token = &added->tokens[i];
        added->raw_count += !token->normalized;
        added->by_token[i] = (uint32_t)i;
        if (i > 0 && by_set_and_bytes(token - 1, token) == 0) {
            st = ct_fail(err, CT_ERR_VALUE,
                         "added_tokens: expected every content once, got \"%.*s\" with ids %d "
                         "and %d",
                         CT_SHOWN(token->pattern, token->size), vocab->tokens[token[-1].token].id,
                         vocab->tokens[token->token].id);
            goto done;
        }
    }
    qsort_r(added->by_token, added->count, sizeof *added->by_token, by_token, added->tokens);
done:
    return st;
}

const ct_added_token *ct_added_find(const ct_added *added, uint32_t token)
{
    size_t low = 0, high = added->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const ct_added_token *found = &added->tokens[added->by_token[middle]];
        if (found->token == token) return found;
        if (found->token < token) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

/* ---- searching ------------------------------------------------------------------------------- */

/* Of sorted tokens [low, high), which share `depth` bytes, the range whose next byte is `byte`. */
static void narrow(const ct_added_token *tokens, size_t *low, size_t *high, size_t depth,
                   unsigned char byte)
{
    size_t bounds[2];
    for (unsigned side = 0; side < 2; side++) {
        size_t a = *low, b = *high;
        while (a < b) {
            size_t middle = a + (b - a) / 2;
            const ct_added_token *t = &tokens[middle];
            unsigned key = t->size > depth ? (unsigned char)t->pattern[depth] + 1u : 0;
            if (key < byte + 1u + side) a = middle + 1;
            else b = middle;
        }
        bounds[side] = a;
    }
    *low = bounds[0];
    *high = bounds[1];
}

/* The longest token of the set at the head of the text, or NULL. */
static const ct_added_token *longest_at(const ct_added_token *tokens, size_t count,
                                        const char *text, size_t size)
{
    const ct_added_token *longest = NULL;
    size_t low = 0, high = count;
    for (size_t depth = 0; depth < size; depth++) {
        narrow(tokens, &low, &high, depth, (unsigned char)text[depth]);
        if (low == high) break;
        /* A token that ends here sorts before those that it is the head of. */
        if (tokens[low].size == depth + 1) longest = &tokens[low];
    }
    return longest;
}

static ct_status is_word_char(const ct_added *added, const char *text, size_t size, bool *word,
                              ct_err *err)
{
    uint32_t c;
    ct_search search = {0};
    ct_search_start(&search, added->word, text, ct_utf8_next(text, size, &c));
    ct_status st = ct_search_next(&search, word, err);
    ct_search_clear(&search);
    return st;
}

/* *free: no character of a word touches text[begin, end). */
static ct_status stands_alone(const ct_added *added, const char *text, size_t size, size_t begin,
                              size_t end, bool *alone, ct_err *err)
{
    bool word = false;
    ct_status st = CT_OK;
    if (begin > 0) {
        size_t at = ct_utf8_back(text, begin);
        st = is_word_char(added, text + at, begin - at, &word, err);
    }
    *alone = !word;
    if (st == CT_OK && !word && end < size) {
        st = is_word_char(added, text + end, size - end, &word, err);
        *alone = !word;
    }
    return st;
}

static ct_status add_stretch(ct_stretches *out, uint32_t token, size_t begin, size_t end,
                             ct_err *err)
{
    if (begin >= end) return CT_OK;
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 16;
        ct_stretch *items = realloc(out->items, capacity * sizeof *items);
        if (!items) return ct_fail_memory(err, "text", capacity * sizeof *items);
        out->items = items;
        out->capacity = capacity;
    }
    out->items[out->count++] = (ct_stretch){token, begin, end};
    return CT_OK;
}

ct_status ct_added_split(const ct_added *added, bool normalized, const char *text, size_t size,
                         ct_stretches *out, ct_err *err)
{
    size_t from = normalized ? added->raw_count : 0;
    size_t count = normalized ? added->count - added->raw_count : added->raw_count;
    const ct_added_token *tokens = count ? added->tokens + from : NULL;
    bool heads[256] = {false};
    size_t done_to = 0;
    uint32_t c;
    ct_status st = CT_OK;
    out->count = 0;
    for (size_t i = 0; i < count; i++) heads[(unsigned char)tokens[i].pattern[0]] = true;
    for (size_t i = 0; count > 0 && i < size;) {
        const ct_added_token *hit =
            heads[(unsigned char)text[i]] ? longest_at(tokens, count, text + i, size - i) : NULL;
        if (!hit) {
            i++;
            continue;
        }
        size_t begin = i, end = i + hit->size;
        i = end;
        if (hit->single_word) {
            bool alone;
            CT_TRY(stands_alone(added, text, size, begin, end, &alone, err));
            if (!alone) continue;
        }
        while (hit->lstrip && begin > done_to) {
            size_t at = ct_utf8_back(text, begin);
            ct_utf8_next(text + at, begin - at, &c);
            if (!ct_is_white_space(c)) break;
            begin = at;
        }
        while (hit->rstrip && end < size) {
            size_t n = ct_utf8_next(text + end, size - end, &c);
            if (!ct_is_white_space(c)) break;
            end += n;
        }
        CT_TRY(add_stretch(out, CT_NO_TOKEN, done_to, begin, err));
        CT_TRY(add_stretch(out, hit->token, begin, end, err));
        done_to = end;
    }
    CT_TRY(add_stretch(out, CT_NO_TOKEN, done_to, size, err));
done:
    return st;
}
