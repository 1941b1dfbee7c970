/* buf.h - a growing byte buffer, and small string helpers.
 *
 * Owns ct_buf (text or bytes being built), nearest-name search for error messages, and UTF-8
 * checking. The layers above build every variable-length text with it.
 */
#ifndef CT_BASE_BUF_H
#define CT_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct ct_buf {
    char *data; /* always terminated by a NUL that size does not count, once anything was added */
    size_t size, capacity;
} ct_buf;

void ct_buf_clear(ct_buf *buf); /* frees; the buffer may be used again */
ct_status ct_buf_reserve(ct_buf *buf, size_t extra, ct_err *err) CT_CHECK;
ct_status ct_buf_add(ct_buf *buf, const void *bytes, size_t count, ct_err *err) CT_CHECK;
ct_status ct_buf_adds(ct_buf *buf, const char *text, ct_err *err) CT_CHECK;
ct_status ct_buf_addf(ct_buf *buf, ct_err *err, const char *fmt, ...) CT_PRINTF(3, 4) CT_CHECK;
/* Hands the bytes over (the caller frees); an empty buffer gives "". NULL if out of memory. */
char *ct_buf_take(ct_buf *buf);

/* Copies of strings; NULL with err filled if out of memory. Free with free(). */
char *ct_strdup(const char *text, ct_err *err);
char *ct_strndup(const char *text, size_t count, ct_err *err);
char *ct_strf(ct_err *err, const char *fmt, ...) CT_PRINTF(2, 3);

/* The name nearest to `word` (Damerau-Levenshtein, at most a third of its length + 1 edits), or
 * NULL. */
const char *ct_nearest(const char *word, const char *const *names, size_t count);

/* True if the bytes are valid UTF-8 (no surrogates, no overlong forms). */
bool ct_utf8_valid(const void *bytes, size_t count);
/* Decodes one character; returns its length in bytes (1 and U+FFFD for an invalid byte). count > 0.
 */
size_t ct_utf8_next(const char *bytes, size_t count, uint32_t *codepoint);
/* Writes the UTF-8 form of a code point (at most 4 bytes); returns its length. */
size_t ct_utf8_put(uint32_t codepoint, char out[4]);

#endif
