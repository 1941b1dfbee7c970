/* text.h - text as Python sees it: white space and word characters; quoting in errors.
 *
 * Owns the Unicode questions of the tasks. The thesis's code is Python, and its scores depend on
 * what Python's lower(), \w and \s say, so these answer as Python 3.11 and 3.12 do (utf8proc 2.8
 * knows Unicode 15; Python 3.11 calls the 4,388 word characters that are new in it no words).
 */
#ifndef CT_TASK_TEXT_H
#define CT_TASK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

/* Python's str.isspace() and \s. */
bool ct_text_space(uint32_t codepoint);
/* Python's \w: a letter, a number of any kind, or the underscore. */
bool ct_text_word(uint32_t codepoint);
/* Unicode's Case_Ignorable, and Cased of what is not case-ignorable: the neighbours that decide
 * about a final sigma. */
bool ct_text_case_ignorable(uint32_t codepoint);
bool ct_text_cased(uint32_t codepoint);

/* Narrows begin .. end to leave out white space at both ends, as str.strip(); equal if nothing is
 * left. text is valid UTF-8. */
void ct_text_strip(const char *text, size_t *begin, size_t *end);

/* Checks that the bytes are UTF-8 without NUL; if not, CT_ERR_FORMAT names `what`, the byte and its
 * offset. */
ct_status ct_text_check(const char *bytes, size_t size, const char *what, ct_err *err) CT_CHECK;

/* The beginning of a text for an error message: at most 60 bytes, cut at a character. */
typedef struct ct_quote {
    char text[64];
} ct_quote;
ct_quote ct_text_quote(const char *text, size_t size);

#endif
