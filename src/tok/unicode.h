/* unicode.h - what the tokenizer asks of characters: validity, classes, case, normal forms.
 *
 * Owns the mapping from the classes of the `tokenizers` library (Rust's char methods) to utf8proc's
 * tables. Knows nothing of vocabularies.
 */
#ifndef CT_TOK_UNICODE_H
#define CT_TOK_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tok/aligned.h"

/* Offset of the first byte that is not part of valid UTF-8; size if all is valid. */
size_t ct_utf8_check(const char *bytes, size_t size);
/* Offset of the character before `at` (> 0) in valid UTF-8. */
size_t ct_utf8_back(const char *bytes, size_t at);

bool ct_is_white_space(uint32_t c); /* White_Space */
bool ct_is_numeric(uint32_t c);     /* Nd, Nl, No */
bool ct_is_punctuation(uint32_t c); /* ASCII punctuation, or a category P* */
bool ct_is_mark(uint32_t c);        /* Mn, Mc, Me */

typedef enum ct_normal_form { CT_NFC, CT_NFD, CT_NFKC, CT_NFKD } ct_normal_form;

/* Appends `in` in the normal form to `out`. Characters that were composed or reordered together
 * share the range of all of them. */
ct_status ct_normal_form_add(ct_aligned *out, const ct_aligned *in, ct_normal_form form,
                             ct_err *err) CT_CHECK;
/* Appends `in` in lower case to `out`. */
ct_status ct_lower_case_add(ct_aligned *out, const ct_aligned *in, ct_err *err) CT_CHECK;

#endif
