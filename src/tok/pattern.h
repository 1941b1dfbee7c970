/* pattern.h - what Replace and Split look for: a string or a regular expression.
 *
 * Characters' classes are those of Debian's PCRE2, which is at Unicode 14: later ones count as
 * unassigned. Owns PCRE2 and the translation from Oniguruma's syntax, in which tokenizer.json's
 * expressions are written. What the two would read differently is refused, by name. A compiled
 * pattern is immutable; each search brings its own matcher.
 */
#ifndef CT_TOK_PATTERN_H
#define CT_TOK_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "io/scan.h"

typedef struct ct_pattern ct_pattern;

/* Reads {"String": ...} or {"Regex": ...}. An expression that PCRE2 refuses is CT_ERR_FORMAT, one
 * that reads differently there CT_ERR_UNSUPPORTED. */
ct_status ct_pattern_read(ct_scan value, const char *where, ct_pattern **out, ct_err *err) CT_CHECK;
ct_status ct_pattern_new_string(const char *text, size_t size, const char *where, ct_pattern **out,
                                ct_err *err) CT_CHECK;
ct_status ct_pattern_new_regex(const char *text, size_t size, const char *where, ct_pattern **out,
                               ct_err *err) CT_CHECK;
void ct_pattern_free(ct_pattern *pattern);

/* One walk over a text's matches, from left to right. */
typedef struct ct_search {
    const ct_pattern *pattern;
    const char *text; /* valid UTF-8 */
    size_t size, at, last_end;
    bool any;                      /* last_end is a match's end */
    void *match, *context, *stack; /* PCRE2's; made at the first use, kept over ct_search_start */
    size_t begin, end;             /* the match that ct_search_next found */
} ct_search;

/* Starts over a new text (and maybe another pattern) with the same working memory. */
void ct_search_start(ct_search *search, const ct_pattern *pattern, const char *text, size_t size);
/* *found: whether there was another match; never an empty one right behind the last. An expression
 * that backtracks beyond the limits is CT_ERR_LIMIT. */
ct_status ct_search_next(ct_search *search, bool *found, ct_err *err) CT_CHECK;
void ct_search_clear(ct_search *search);

#endif
