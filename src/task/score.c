/* score.c - cleaning of answers and the three scorings. See niah.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/buf.h"
#include "task/niah.h"
#include "task/text.h"

/* ---- cleaning -------------------------------------------------------------------------------- */

/* True if the next character that is not case-ignorable is cased. */
static bool cased_follows(const char *text, size_t size)
{
    for (size_t i = 0; i < size;) {
        uint32_t c;
        i += ct_utf8_next(text + i, size - i, &c);
        if (!ct_text_case_ignorable(c)) return ct_text_cased(c);
    }
    return false;
}

/* Appends Python's lower(), which is Unicode's full lower case. Two of its rules are not one
 * character to one: U+0130 gives two, and a capital sigma that ends a word gives the final one. */
static ct_status add_lower(ct_buf *out, const char *text, size_t size, ct_err *err)
{
    ct_status st = CT_OK;
    bool after_cased = false; /* case-ignorable characters between do not count */
    for (size_t i = 0; i < size;) {
        uint32_t c;
        char bytes[4];
        i += ct_utf8_next(text + i, size - i, &c);
        uint32_t lower = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        if (c == 0x130) lower = 'i';
        if (c == 0x3A3 && after_cased && !cased_follows(text + i, size - i)) lower = 0x3C2;
        CT_TRY(ct_buf_add(out, bytes, ct_utf8_put(lower, bytes), err));
        if (c == 0x130) CT_TRY(ct_buf_adds(out, "\xCC\x87", err)); /* the dot above */
        if (!ct_text_case_ignorable(c)) after_cased = ct_text_cased(c);
    }
done:
    return st;
}

ct_status ct_score_clean(const char *text, size_t size, char **out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf lower = {0}, clean = {0};
    *out = NULL;
    /* A byte that is not UTF-8 becomes U+FFFD, which is deleted below. */
    CT_TRY(add_lower(&lower, text, size, err));
    bool blank = false;
    for (size_t i = 0; i < lower.size;) {
        uint32_t c;
        size_t length = ct_utf8_next(lower.data + i, lower.size - i, &c);
        if (ct_text_word(c)) {
            if (blank && clean.size) CT_TRY(ct_buf_add(&clean, " ", 1, err));
            CT_TRY(ct_buf_add(&clean, lower.data + i, length, err));
            blank = false;
        } else if (ct_text_space(c)) {
            blank = true;
        }
        i += length;
    }
    if (!(*out = ct_buf_take(&clean))) st = ct_fail_memory(err, "cleaned text", 1);
done:
    ct_buf_clear(&lower);
    ct_buf_clear(&clean);
    return st;
}

/* ---- the thesis's needle --------------------------------------------------------------------- */

static const char thesis_needle[] = "the best thing to do in san francisco is eat a sandwich and "
                                    "sit in dolores park on a sunny day";
static const double thesis_max = 5;

static const ct_keyword table_keywords[] = {
    {"eat a sandwich", 1, false},
    {"dolores park", 0.5, false},
    {"sit in dolores park", 0.5, false},
    {"sunny day", 1, false},
    /* The needle with its grammar put right, which models like to do. */
    {"is to eat a sandwich and sit in dolores park on a sunny day", 4, true},
};

static const ct_keyword reference_keywords[] = {
    {"eat a sandwich", 1, false},
    {"dolores park", 0.5, false},
    {"sit in dolores park", 0.5, false},
    {"on a sunny day", 1, false},
};

/* ---- scoring --------------------------------------------------------------------------------- */

static const char *const scoring_names[] = {"table", "reference", "binary"};
enum { N_SCORINGS = sizeof scoring_names / sizeof *scoring_names };

const char *ct_scoring_name(ct_scoring scoring)
{
    return (size_t)scoring < N_SCORINGS ? scoring_names[scoring] : "unknown";
}

ct_status ct_scoring_parse(const char *name, const char *what, ct_scoring *out, ct_err *err)
{
    for (size_t i = 0; i < N_SCORINGS; i++)
        if (strcmp(name, scoring_names[i]) == 0) {
            *out = (ct_scoring)i;
            return CT_OK;
        }
    const char *nearest = ct_nearest(name, scoring_names, N_SCORINGS);
    return ct_fail(err, CT_ERR_USAGE, "%s: expected table, reference or binary, got \"%s\"%s%s%s",
                   what, ct_text_quote(name, strlen(name)).text, nearest ? "; did you mean " : "",
                   nearest ? nearest : "", nearest ? "?" : "");
}

/* What the keywords give to a cleaned text. */
static ct_status keyword_points(const ct_keyword *keywords, size_t count, const char *clean,
                                double *points, ct_err *err)
{
    ct_status st = CT_OK;
    char *word = NULL;
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const ct_keyword *k = &keywords[i];
        CT_TRY(ct_score_clean(k->text, strlen(k->text), &word, err));
        if (!*word) {
            st = ct_fail(err, CT_ERR_VALUE,
                         "scoring: keyword %zu: expected at least one letter or digit, got \"%s\"",
                         i + 1, ct_text_quote(k->text, strlen(k->text)).text);
            goto done;
        }
        if (!isfinite(k->points) || k->points < 0) {
            st = ct_fail(err, CT_ERR_VALUE,
                         "scoring: keyword \"%s\": expected points of 0 or more, got %g",
                         ct_text_quote(k->text, strlen(k->text)).text, k->points);
            goto done;
        }
        if (strstr(clean, word)) sum = k->set ? k->points : sum + k->points;
        free(word);
        word = NULL;
    }
    *points = sum;
done:
    free(word);
    return st;
}

/* The cleaned needle, the keywords that count, and the most they can give. */
static ct_status scoring_resolve(ct_scoring scoring, const ct_keyword **keywords,
                                 size_t *n_keywords, const char *needle, char **clean,
                                 double *max_score, ct_err *err)
{
    ct_status st = CT_OK;
    *clean = NULL;
    if ((size_t)scoring >= N_SCORINGS) {
        st = ct_fail(err, CT_ERR_USAGE, "scoring: expected one of %d, got %d", (int)N_SCORINGS,
                     (int)scoring);
        goto done;
    }
    CT_TRY(ct_score_clean(needle, strlen(needle), clean, err));
    if (!**clean) {
        st = ct_fail(err, CT_ERR_VALUE,
                     "scoring: needle: expected at least one letter or digit, got \"%s\"",
                     ct_text_quote(needle, strlen(needle)).text);
        goto done;
    }
    *max_score = thesis_max;
    if (*keywords) {
        CT_TRY(keyword_points(*keywords, *n_keywords, *clean, max_score, err));
        if (!(*max_score > 0) || !isfinite(*max_score))
            st = ct_fail(err, CT_ERR_VALUE,
                         "scoring: keywords: expected that the needle \"%s\" itself gets points, "
                         "got %g; do the keywords belong to this needle?",
                         ct_text_quote(needle, strlen(needle)).text, *max_score);
    } else if (scoring != CT_SCORING_BINARY && strcmp(*clean, thesis_needle) != 0) {
        st = ct_fail(err, CT_ERR_VALUE,
                     "scoring: %s: its points are for the needle \"%.37s...\", got the needle "
                     "\"%s\"; give keywords of your own in a study, or use binary",
                     ct_scoring_name(scoring), thesis_needle,
                     ct_text_quote(needle, strlen(needle)).text);
    } else if (scoring == CT_SCORING_TABLE) {
        *keywords = table_keywords;
        *n_keywords = sizeof table_keywords / sizeof *table_keywords;
    } else if (scoring == CT_SCORING_REFERENCE) {
        *keywords = reference_keywords;
        *n_keywords = sizeof reference_keywords / sizeof *reference_keywords;
    }
done:
    if (st != CT_OK) {
        free(*clean);
        *clean = NULL;
    }
    return st;
}

ct_status ct_score_check(ct_scoring scoring, const ct_keyword *keywords, size_t n_keywords,
                         const char *needle, ct_err *err)
{
    char *clean;
    double max_score;
    ct_status st =
        scoring_resolve(scoring, &keywords, &n_keywords, needle, &clean, &max_score, err);
    free(clean);
    return st;
}

ct_status ct_score(ct_scoring scoring, const ct_keyword *keywords, size_t n_keywords,
                   const char *needle, const char *answer, size_t size, double *score,
                   double *max_score, ct_err *err)
{
    ct_status st = CT_OK;
    char *clean_needle = NULL, *clean = NULL;
    CT_TRY(scoring_resolve(scoring, &keywords, &n_keywords, needle, &clean_needle, max_score, err));
    CT_TRY(ct_score_clean(answer, size, &clean, err));
    if (strstr(clean, clean_needle)) {
        *score = *max_score;
    } else if (scoring == CT_SCORING_BINARY) {
        *score = 0;
    } else {
        CT_TRY(keyword_points(keywords, n_keywords, clean, score, err));
        if (*score > *max_score) *score = *max_score;
    }
done:
    free(clean_needle);
    free(clean);
    return st;
}
