/* vocab.h - the tokens, and which pairs of them merge into which.
 *
 * Owns ids <-> texts (of the model's vocabulary and of the added tokens) and the merge table, in
 * flat arrays that are built once and then only read. Inside tok/ a token is its index in `tokens`
 * (sorted by id), so that sparse ids cost nothing; CT_NO_TOKEN is none.
 */
#ifndef CT_TOK_VOCAB_H
#define CT_TOK_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "io/scan.h"

#define CT_NO_TOKEN UINT32_MAX

typedef struct ct_token {
    uint32_t text, size; /* in ct_vocab.texts */
    int32_t id;
    bool in_model; /* false: only an added token, which BPE never makes */
} ct_token;

typedef struct ct_merge {
    uint32_t left, right; /* left CT_NO_TOKEN: an empty slot */
    uint32_t rank, result;
} ct_merge;

typedef struct ct_vocab {
    char *texts;
    ct_token *tokens;
    uint32_t count;
    size_t texts_size;
    uint32_t *by_text; /* open addressing over tokens; mask + 1 slots */
    size_t by_text_mask;
    uint32_t *by_char; /* [65536]: model token of a character of the basic plane */
    ct_merge *merges;  /* open addressing over pairs; mask + 1 slots */
    size_t merges_mask;
    uint64_t *joins; /* bits over pairs of characters: may a merge ever cover both? */
    uint64_t seed;   /* of both tables: from the file's hash, so that no file can aim at one slot */
} ct_vocab;

enum { CT_JOINS_BITS = 20 };

void ct_vocab_clear(ct_vocab *vocab);

/* Reads the model's "vocab" object and the file's "added_tokens" array (at == NULL: none).
 * Tokens twice, ids twice or out of 0..2^31-1, and added tokens whose id is not the one that the
 * `tokenizers` library would give them, are CT_ERR_VALUE. */
ct_status ct_vocab_read(ct_vocab *vocab, ct_scan model_vocab, ct_scan added, uint64_t seed,
                        ct_err *err) CT_CHECK;
/* Reads the model's "merges" array, of "a b" or ["a", "b"]. A merge whose parts or result are not
 * in the vocabulary is CT_ERR_NOT_FOUND. */
ct_status ct_vocab_read_merges(ct_vocab *vocab, ct_scan merges, ct_err *err) CT_CHECK;

/* The token with exactly this text, or CT_NO_TOKEN. */
uint32_t ct_vocab_find(const ct_vocab *vocab, const char *text, size_t size);
/* The same among the model's tokens. */
uint32_t ct_vocab_find_model(const ct_vocab *vocab, const char *text, size_t size);
/* The token with this id, or CT_NO_TOKEN. */
uint32_t ct_vocab_find_id(const ct_vocab *vocab, int64_t id);
/* The slot of the merge of a pair, or NULL. */
const ct_merge *ct_vocab_find_merge(const ct_vocab *vocab, uint32_t left, uint32_t right);
/* False: no merge ever makes a token that covers the boundary between these two characters. */
bool ct_vocab_may_join(const ct_vocab *vocab, uint32_t before, uint32_t after);

#endif
