/* bpe.h - byte pair encoding of one word.
 *
 * Owns the model's options and the merge loop. Text arrives normalized and cut into words; ids and
 * offsets in the original are made by tokenizer.c.
 */
#ifndef CT_TOK_BPE_H
#define CT_TOK_BPE_H

#include "tok/vocab.h"

typedef struct ct_bpe {
    ct_vocab vocab;
    uint32_t byte_tokens[256]; /* of <0x00> to <0xFF>, CT_NO_TOKEN where missing */
    uint32_t unk;              /* CT_NO_TOKEN: none */
    bool byte_fallback, fuse_unk, ignore_merges;
} ct_bpe;

/* A token in a word: bytes [begin, end) of the word's text. */
typedef struct ct_symbol {
    uint32_t token;
    uint32_t begin, end;
    int32_t previous, next; /* while merging */
} ct_symbol;

/* A pair that may be merged: rank, then place from the left, decide. */
typedef struct ct_candidate {
    uint64_t key;
    const ct_merge *merge;
} ct_candidate;

/* Working memory of one caller, reused from word to word. */
typedef struct ct_bpe_work {
    ct_symbol *symbols; /* the result: `count` of them */
    size_t count, capacity;
    ct_candidate *heap;
    size_t heap_count, heap_capacity;
} ct_bpe_work;

/* Reads tokenizer.json's "model" and "added_tokens" (at == NULL: none). */
ct_status ct_bpe_read(ct_bpe *bpe, ct_scan model, ct_scan added, uint64_t seed,
                      ct_err *err) CT_CHECK;
void ct_bpe_clear(ct_bpe *bpe);

/* Encodes a word of valid UTF-8 into work->symbols, in O(n log n). A character that has no token
 * where the model has neither byte tokens nor an unknown token for it is CT_ERR_VALUE (the
 * `tokenizers` library drops it in silence). */
ct_status ct_bpe_encode(const ct_bpe *bpe, const char *text, size_t size, ct_bpe_work *work,
                        ct_err *err) CT_CHECK;
void ct_bpe_work_clear(ct_bpe_work *work);

#endif
