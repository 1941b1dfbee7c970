/* scan.h - a JSON reader that allocates nothing: pieces of text, in order.
 *
 * Owns the grammar of JSON (RFC 8259) for bytes that are too many or too hostile to be turned into
 * a tree: safetensors headers. Everything read is a slice of the caller's bytes. Every function
 * returns false at the first violation and says in `problem` what was expected; `at` is the place.
 * The bytes must be valid UTF-8 (the caller checks).
 */
#ifndef CT_IO_SCAN_H
#define CT_IO_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CT_SCAN_MAX_DEPTH = 128 };

typedef struct ct_scan {
    const char *begin, *at, *end;
    const char *problem; /* what was expected at `at`; NULL until something fails */
} ct_scan;

/* A string as it stands between its quotes, escapes checked but not resolved. */
typedef struct ct_scan_text {
    const char *bytes;
    size_t size;
} ct_scan_text;

ct_scan ct_scan_start(const void *bytes, size_t size);
/* Fails with `problem`; always returns false. */
bool ct_scan_fail(ct_scan *scan, const char *problem);
/* The next byte after white space, not consumed; 0 at the end. */
char ct_scan_peek(ct_scan *scan);
/* Consumes exactly this punctuation after white space. */
bool ct_scan_take(ct_scan *scan, char c);
/* Only white space may remain. */
bool ct_scan_finish(ct_scan *scan);
bool ct_scan_string(ct_scan *scan, ct_scan_text *out);
/* An integer from 0 to INT64_MAX: digits only, no sign, fraction or exponent. */
bool ct_scan_integer(ct_scan *scan, int64_t *out);
/* Any value; CT_SCAN_MAX_DEPTH arrays and objects may be open. */
bool ct_scan_skip(ct_scan *scan);

/* Walks an object or array: call with *first = true; true means that a key (and its colon) or an
 * element follows, false that the closing bracket was consumed or that scan->problem is set. */
bool ct_scan_next_key(ct_scan *scan, bool *first, ct_scan_text *key);
bool ct_scan_next_element(ct_scan *scan, bool *first);

/* Resolves escapes into out (at most text.size bytes, no NUL added); returns the size. */
size_t ct_scan_unescape(ct_scan_text text, char *out);
/* True if the resolved text is exactly this. */
bool ct_scan_equal(ct_scan_text text, const char *literal);

#endif
