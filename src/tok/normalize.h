/* normalize.h - what is done to the text before it is cut into words.
 *
 * Owns tokenizer.json's "normalizer": Replace, Prepend, Strip, StripAccents, NFC, NFD, NFKC, NFKD,
 * Lowercase, ByteLevel, and Sequence of them. Others are refused.
 */
#ifndef CT_TOK_NORMALIZE_H
#define CT_TOK_NORMALIZE_H

#include "io/scan.h"
#include "tok/aligned.h"
#include "tok/pattern.h"

typedef struct ct_normalizer_step ct_normalizer_step;

typedef struct ct_normalizer {
    ct_normalizer_step *steps;
    size_t count;
} ct_normalizer;

/* Reads "normalizer" (at == NULL: none). */
ct_status ct_normalizer_read(ct_normalizer *normalizer, ct_scan value, ct_err *err) CT_CHECK;
void ct_normalizer_clear(ct_normalizer *normalizer);
/* Runs all steps; `text` becomes the result and `spare` is working memory, both the caller's. */
ct_status ct_normalizer_run(const ct_normalizer *normalizer, ct_aligned *text, ct_aligned *spare,
                            ct_search *search, ct_err *err) CT_CHECK;

/* Appends bytes [from, to) of `in` in the byte-level alphabet: each byte becomes one character, as
 * in GPT-2, that stands for the whole character the byte is of. */
ct_status ct_byte_level_add(ct_aligned *out, const ct_aligned *in, size_t from, size_t to,
                            ct_err *err) CT_CHECK;
/* The byte that a character of the byte-level alphabet stands for, or -1. */
int ct_byte_level_byte(uint32_t c);

#endif
