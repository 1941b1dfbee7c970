/* added.h - tokens that are looked for in the text before the model sees it.
 *
 * Owns the two sets of added tokens (found in the text as it came, and found in the normalized
 * text), the search for the longest at every place, and their options (single_word, lstrip, rstrip,
 * special).
 */
#ifndef CT_TOK_ADDED_H
#define CT_TOK_ADDED_H

#include "tok/normalize.h"
#include "tok/pattern.h"
#include "tok/vocab.h"

typedef struct ct_added_token {
    char *pattern; /* what is looked for: the content, normalized if `normalized` */
    size_t size;
    uint32_t token;
    bool single_word, lstrip, rstrip, normalized, special;
    bool hidden; /* left out of decoding with skip_special */
} ct_added_token;

typedef struct ct_added {
    ct_added_token *tokens; /* the set of raw text, then that of normalized text; each sorted by
                               bytes */
    size_t count, raw_count;
    uint32_t *by_token; /* [count]: indices into tokens, sorted by token */
    ct_pattern *word;   /* one character of a word; only if a token asks for single words */
} ct_added;

/* One stretch of a text: an added token, or (token CT_NO_TOKEN) text between. */
typedef struct ct_stretch {
    uint32_t token;
    size_t begin, end;
} ct_stretch;

typedef struct ct_stretches {
    ct_stretch *items;
    size_t count, capacity;
} ct_stretches;

/* Longer contents are refused, so that a search costs no more than this for a byte of text. */
enum { CT_ADDED_MAX_SIZE = 4096 };

/* Reads the file's "added_tokens" array (at == NULL: none), whose ids ct_vocab_read has checked. */
ct_status ct_added_read(ct_added *added, ct_scan list, const ct_vocab *vocab,
                        const ct_normalizer *normalizer, ct_err *err) CT_CHECK;
void ct_added_clear(ct_added *added);
/* Cuts a text at the tokens of one set; empty stretches are left out. */
ct_status ct_added_split(const ct_added *added, bool normalized, const char *text, size_t size,
                         ct_stretches *out, ct_err *err) CT_CHECK;
/* The added token with this token index, or NULL. */
const ct_added_token *ct_added_find(const ct_added *added, uint32_t token);

#endif
