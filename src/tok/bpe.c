/* bpe.c - byte pair encoding of one word. See bpe.h.
 *
 * The merge loop is that of the `tokenizers` library: a heap of candidate pairs, lowest rank first
 * and leftmost among equals, over a doubly linked list of symbols. Words are cut beforehand where
 * no merge can ever reach across, which changes no result and keeps the heaps small.
 */
#include "tok/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tok/fields.h"
#include "tok/unicode.h"

void ct_bpe_clear(ct_bpe *bpe)
{
    ct_vocab_clear(&bpe->vocab);
}

void ct_bpe_work_clear(ct_bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    *work = (ct_bpe_work){0};
}

/* ---- reading --------------------------------------------------------------------------------- */

/* An option that changes the result in a way that is not implemented must be off. */
static ct_status must_be_empty(ct_scan value, const char *name, ct_err *err)
{
    ct_scan_text text;
    if (!value.at) return CT_OK;
    if (ct_scan_string(&value, &text) && text.size == 0) return CT_OK;
    return ct_fail(err, CT_ERR_UNSUPPORTED, "model.%s: expected null or \"\": not supported", name);
}

/* Zero in any spelling: no digit but 0 before an exponent. */
static bool is_absent_or_zero(ct_scan value)
{
    ct_scan end = value;
    if (!value.at) return true;
    if (!strchr("-0123456789", ct_scan_peek(&end)) || !ct_scan_skip(&end)) return false;
    for (const char *p = value.at; p < end.at && *p != 'e' && *p != 'E'; p++)
        if (*p >= '1' && *p <= '9') return false;
    return true;
}

ct_status ct_bpe_read(ct_bpe *bpe, ct_scan model, ct_scan added, uint64_t seed, ct_err *err)
{
    enum { TYPE, DROPOUT, UNK, PREFIX, SUFFIX, FUSE, BYTES, IGNORE, VOCAB, MERGES, N };
    static const char *const names[] = {"type",
                                        "dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        "vocab",
                                        "merges"};
    static const char *const types[] = {"BPE"};
    ct_scan v[N];
    ct_status st = CT_OK;
    char *unk = NULL;
    size_t kind, unk_size = 0;
    CT_TRY(ct_fields_read(model, "model", names, N, v, err));
    if (v[TYPE].at) CT_TRY(ct_field_kind(model, "model", types, 1, &kind, err));
    if (!is_absent_or_zero(v[DROPOUT])) {
        st = ct_fail(err, CT_ERR_UNSUPPORTED,
                     "model.dropout: expected null or 0: random merges are not supported");
        goto done;
    }
    CT_TRY(must_be_empty(v[PREFIX], names[PREFIX], err));
    CT_TRY(must_be_empty(v[SUFFIX], names[SUFFIX], err));
    CT_TRY(ct_field_bool(v[FUSE], "model", names[FUSE], &bpe->fuse_unk, err));
    CT_TRY(ct_field_bool(v[BYTES], "model", names[BYTES], &bpe->byte_fallback, err));
    CT_TRY(ct_field_bool(v[IGNORE], "model", names[IGNORE], &bpe->ignore_merges, err));
    CT_TRY(ct_vocab_read(&bpe->vocab, v[VOCAB], added, seed, err));
    CT_TRY(ct_vocab_read_merges(&bpe->vocab, v[MERGES], err));
    bpe->unk = CT_NO_TOKEN;
    if (v[UNK].at) {
        CT_TRY(ct_field_text(v[UNK], "model", names[UNK], &unk, &unk_size, err));
        bpe->unk = ct_vocab_find_model(&bpe->vocab, unk, unk_size);
        if (bpe->unk == CT_NO_TOKEN) {
            st = ct_fail(err, CT_ERR_NOT_FOUND,
                         "model.unk_token: expected a token of the vocabulary, got \"%.*s\"",
                         CT_SHOWN(unk, unk_size));
            goto done;
        }
    }
    for (int i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i & 0xFF);
        bpe->byte_tokens[i] = ct_vocab_find_model(&bpe->vocab, name, 6);
    }
done:
    free(unk);
    return st;
}

/* ---- the heap -------------------------------------------------------------------------------- */

static ct_status heap_push(ct_bpe_work *work, const ct_merge *merge, int32_t place, ct_err *err)
{
    if (work->heap_count == work->heap_capacity) {
        size_t capacity = work->heap_capacity ? work->heap_capacity * 2 : 64;
        ct_candidate *heap = realloc(work->heap, capacity * sizeof *heap);
        if (!heap) return ct_fail_memory(err, "merge heap", capacity * sizeof *heap);
        work->heap = heap;
        work->heap_capacity = capacity;
    }
    ct_candidate item = {(uint64_t)merge->rank << 32 | (uint32_t)place, merge};
    size_t i = work->heap_count++;
    while (i > 0 && work->heap[(i - 1) / 2].key > item.key) {
        work->heap[i] = work->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    work->heap[i] = item;
    return CT_OK;
}

static ct_candidate heap_pop(ct_bpe_work *work)
{
    ct_candidate *heap = work->heap, top = heap[0], item = heap[--work->heap_count];
    size_t i = 0, n = work->heap_count;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && heap[child + 1].key < heap[child].key) child++;
        if (heap[child].key >= item.key) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = item;
    return top;
}

/* ---- merging --------------------------------------------------------------------------------- */

static ct_status push_pair(const ct_vocab *vocab, ct_bpe_work *work, const ct_symbol *symbols,
                           int32_t left, int32_t right, ct_err *err)
{
    const ct_merge *merge = ct_vocab_find_merge(vocab, symbols[left].token, symbols[right].token);
    return merge ? heap_push(work, merge, left, err) : CT_OK;
}

/* Merges symbols[from..count) until no pair has a merge, and closes the gaps. */
static ct_status merge_from(const ct_bpe *bpe, ct_bpe_work *work, size_t from, ct_err *err)
{
    const ct_vocab *vocab = &bpe->vocab;
    ct_symbol *symbols = work->symbols + from;
    int32_t n = (int32_t)(work->count - from);
    ct_status st = CT_OK;
    if (n < 2) return CT_OK;
    work->heap_count = 0;
    for (int32_t i = 0; i < n; i++) {
        symbols[i].previous = i - 1;
        symbols[i].next = i + 1 < n ? i + 1 : -1;
    }
    for (int32_t i = 0; i + 1 < n; i++) CT_TRY(push_pair(vocab, work, symbols, i, i + 1, err));
    bool merged = work->heap_count > 0;
    while (work->heap_count > 0) {
        ct_candidate top = heap_pop(work);
        int32_t place = (int32_t)(uint32_t)top.key;
        ct_symbol *left = &symbols[place];
        if (left->token == CT_NO_TOKEN || left->next < 0) continue;
        ct_symbol *right = &symbols[left->next];
        /* The pair at this place may have changed since; what counts, as in the library, is whether
         * the new one would give the same token. */
        if (left->token != top.merge->left || right->token != top.merge->right) {
            const ct_merge *now = ct_vocab_find_merge(vocab, left->token, right->token);
            if (!now || now->result != top.merge->result) continue;
        }
        left->token = top.merge->result;
        if (right->begin < left->begin) left->begin = right->begin;
        if (right->end > left->end) left->end = right->end;
        left->next = right->next;
        right->token = CT_NO_TOKEN;
        if (left->next >= 0) symbols[left->next].previous = place;
        if (left->previous >= 0)
            CT_TRY(push_pair(vocab, work, symbols, left->previous, place, err));
        if (left->next >= 0) CT_TRY(push_pair(vocab, work, symbols, place, left->next, err));
    }
    if (!merged) return CT_OK;
    work->count = from;
    for (int32_t i = 0; i >= 0; i = symbols[i].next) work->symbols[work->count++] = symbols[i];
done:
    return st;
}

static ct_status add_symbol(ct_bpe_work *work, uint32_t token, size_t begin, size_t end,
                            ct_err *err)
{
    if (work->count == work->capacity) {
        size_t capacity = work->capacity ? work->capacity * 2 : 256;
        ct_symbol *symbols = realloc(work->symbols, capacity * sizeof *symbols);
        if (!symbols) return ct_fail_memory(err, "symbols", capacity * sizeof *symbols);
        work->symbols = symbols;
        work->capacity = capacity;
    }
    work->symbols[work->count++] =
        (ct_symbol){.token = token, .begin = (uint32_t)begin, .end = (uint32_t)end};
    return CT_OK;
}

static bool add_bytes(const ct_bpe *bpe, const char *text, size_t begin, size_t end)
{
    if (!bpe->byte_fallback) return false;
    for (size_t i = begin; i < end; i++)
        if (bpe->byte_tokens[(unsigned char)text[i]] == CT_NO_TOKEN) return false;
    return true;
}

ct_status ct_bpe_encode(const ct_bpe *bpe, const char *text, size_t size, ct_bpe_work *work,
                        ct_err *err)
{
    const ct_vocab *vocab = &bpe->vocab;
    ct_status st = CT_OK;
    work->count = 0;
    if (bpe->ignore_merges) {
        uint32_t whole = ct_vocab_find_model(vocab, text, size);
        if (whole != CT_NO_TOKEN) return add_symbol(work, whole, 0, size, err);
    }
    size_t from = 0;                   /* first symbol that is not merged yet */
    size_t unk_begin = 0, unk_end = 0; /* an unknown stretch that is not in the list yet */
    bool unk = false, plain = false;
    uint32_t before = 0;
    for (size_t i = 0, end; i < size; i = end) {
        uint32_t c;
        end = i + ct_utf8_next(text + i, size - i, &c);
        uint32_t token =
            c < 0x10000 ? vocab->by_char[c] : ct_vocab_find_model(vocab, text + i, end - i);
        if (token != CT_NO_TOKEN) {
            if (unk) CT_TRY(add_symbol(work, bpe->unk, unk_begin, unk_end, err));
            /* `plain`: the last symbol is a character, so that its text tells what may join it. */
            if (plain && !unk && !ct_vocab_may_join(vocab, before, c)) {
                CT_TRY(merge_from(bpe, work, from, err));
                from = work->count;
            }
            unk = false;
            plain = true;
            before = c;
            CT_TRY(add_symbol(work, token, i, end, err));
            continue;
        }
        plain = false;
        /* Bytes do not end an unknown stretch: the library's order, kept to get its ids. */
        if (add_bytes(bpe, text, i, end)) {
            for (size_t j = i; j < end; j++)
                CT_TRY(add_symbol(work, bpe->byte_tokens[(unsigned char)text[j]], j, j + 1, err));
            continue;
        }
        if (bpe->unk == CT_NO_TOKEN) {
            st = ct_fail(err, CT_ERR_VALUE,
                         "text: expected characters of the vocabulary, got U+%04X; the tokenizer "
                         "has neither an unknown token nor byte tokens for it",
                         (unsigned)c);
            goto done;
        }
        if (unk && !bpe->fuse_unk) {
            CT_TRY(add_symbol(work, bpe->unk, unk_begin, unk_end, err));
            unk = false;
        }
        if (!unk) unk_begin = i;
        unk = true;
        unk_end = end;
    }
    if (unk) CT_TRY(add_symbol(work, bpe->unk, unk_begin, unk_end, err));
    CT_TRY(merge_from(bpe, work, from, err));
done:
    return st;
}
