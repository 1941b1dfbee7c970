/* aligned.h - text whose every byte knows which bytes of the original it stands for.
 *
 * Owns ct_aligned, the form in which text travels through normalizers and pre-tokenizers, so that a
 * token's range in the original text is known whatever was replaced, composed or inserted.
 */
#ifndef CT_TOK_ALIGNED_H
#define CT_TOK_ALIGNED_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Both grow in step. Byte i of text stands for the original's bytes begin[i] <= b < end[i]; an
 * inserted byte has begin = end. Neither begin nor end ever falls from one byte to the next. */
typedef struct ct_aligned {
    char *text; /* valid UTF-8, not terminated */
    uint32_t *begin, *end;
    size_t size, capacity;
    size_t max; /* bytes that size may reach; 0: CT_ALIGNED_MAX */
} ct_aligned;

/* Texts, however normalized, stay below this many bytes, so that 32 bits hold every position. */
enum { CT_ALIGNED_MAX = 0x40000000 };
/* What `size` bytes may grow to by all steps of a tokenizer: no honest one comes near it, but a
 * short file can ask for doubling a hundred times. */
size_t ct_growth_limit(size_t size);

void ct_aligned_clear(ct_aligned *aligned); /* frees; may be used again */
/* CT_ERR_LIMIT beyond aligned->max. */
ct_status ct_aligned_reserve(ct_aligned *aligned, size_t extra, ct_err *err) CT_CHECK;
/* Appends bytes that together stand for one range of the original. */
ct_status ct_aligned_add(ct_aligned *aligned, const char *bytes, size_t size, uint32_t begin,
                         uint32_t end, ct_err *err) CT_CHECK;
/* Appends bytes [from, to) of another text with their ranges. */
ct_status ct_aligned_add_part(ct_aligned *aligned, const ct_aligned *other, size_t from, size_t to,
                              ct_err *err) CT_CHECK;
/* Appends valid UTF-8 that stands for itself: its first byte is the original's byte `offset`. */
ct_status ct_aligned_add_original(ct_aligned *aligned, const char *bytes, size_t size,
                                  uint32_t offset, ct_err *err) CT_CHECK;

#endif
