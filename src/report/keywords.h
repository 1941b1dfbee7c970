/* keywords.h - which parts of an output were scored, so that the page can mark them.
 *
 * Owns the list of keywords of a version: those that its study file gives, else those of the
 * scoring's name for the thesis's needle (its Table 2.1, and its published code). The scores
 * themselves are the store's; nothing is scored here. A test holds the lists to what the task layer
 * scores.
 */
#ifndef CT_REPORT_KEYWORDS_H
#define CT_REPORT_KEYWORDS_H

#include <stdbool.h>
#include <stddef.h>

#include <cortado/status.h>

typedef struct ct_scored_keyword {
    char *text;
    double points;
    bool set; /* sets the score instead of adding to it */
} ct_scored_keyword;

typedef struct ct_keywords {
    size_t count;
    ct_scored_keyword *items; /* the needle, which sets the maximum, is the last */
} ct_keywords;

/* Of a version scored by `scoring` with maximum max_score; study_text is its study file, NULL or one
 * that cannot be read: as if it gave none. */
ct_status ct_keywords_new(const char *scoring, double max_score, const char *study_text,
                          ct_keywords *out, ct_err *err) CT_CHECK;
void ct_keywords_clear(ct_keywords *keywords);

#endif
