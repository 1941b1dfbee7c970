/* textset.h - long texts that are much alike, kept once each and written small.
 *
 * Owns the interning of prompts and outputs (the same bytes are one text, whatever the number of
 * cells), and a pool from which every text is pieced together: prompts of one study share their
 * haystack, so that a page holds it once and not once a prompt. Knows nothing of what the texts say.
 */
#ifndef CT_REPORT_TEXTSET_H
#define CT_REPORT_TEXTSET_H

#include <stdint.h>

#include "base/buf.h"

typedef struct ct_textset ct_textset;

/* Begins empty; ct_textset_free takes NULL. */
ct_status ct_textset_new(ct_textset **out, ct_err *err) CT_CHECK;
void ct_textset_free(ct_textset *texts);

/* The index of a text, which is copied if it is new. At most 2^31 texts. */
ct_status ct_textset_add(ct_textset *texts, const char *text, uint32_t *index,
                         ct_err *err) CT_CHECK;
size_t ct_textset_count(const ct_textset *texts);
const char *ct_textset_get(const ct_textset *texts, uint32_t index);

/* Length of the first `size` bytes as JavaScript counts: UTF-16 units; a byte that is not UTF-8 is
 * one (U+FFFD). */
size_t ct_utf16_length(const char *text, size_t size);

/* A piece of the pool, in UTF-16 units. */
typedef struct ct_piece {
    uint32_t begin, length;
} ct_piece;

typedef struct ct_packed {
    ct_buf pool;    /* UTF-8; bytes that were not are U+FFFD */
    size_t n_texts; /* those packed, by position in `wanted` */
    size_t *first;  /* [n_texts + 1] index into pieces */
    ct_piece *pieces;
} ct_packed;

/* Packs texts wanted[n] (indices): the pieces of each, joined, are the text. A piece that is in the
 * pool already is referred to if it has at least 32 bytes, so texts are best given with the longest
 * first; the rest is added to the pool. Time grows with the bytes of all texts. CT_ERR_LIMIT if the
 * pool would exceed 1 GiB. */
ct_status ct_textset_pack(const ct_textset *texts, const uint32_t *wanted, size_t n, ct_packed *out,
                          ct_err *err) CT_CHECK;
void ct_packed_clear(ct_packed *packed);

#endif
