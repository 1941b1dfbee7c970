/* compare.h - two configurations on the same prompts: is their difference more than chance?
 *
 * Owns the paired test, its interval, and which configurations a report sets against each other:
 * every one against the unchanged model, and those that differ in one thing (read twice, stages,
 * metric) against each other at the same k. Numbers come from the cells of stats.h; nothing is
 * drawn here. docs/statistics.md has the methods in words.
 */
#ifndef CT_REPORT_COMPARE_H
#define CT_REPORT_COMPARE_H

#include "report/stats.h"

/* Draws of the sign-flip test where it is not computed exactly, and their seed. */
enum { CT_SIGN_FLIP_DRAWS = 100000, CT_SIGN_FLIP_SEED = 96 };

typedef enum ct_paired_method {
    CT_PAIRED_MCNEMAR, /* all differences that are not 0 have one size: the exact binomial test */
    CT_PAIRED_EXACT,   /* all sign flips, counted */
    CT_PAIRED_SAMPLED, /* CT_SIGN_FLIP_DRAWS of them */
} ct_paired_method;

/* "exact McNemar", "exact sign flips", "100,000 sign flips". */
const char *ct_paired_method_name(ct_paired_method method);

/* Two-sided p of the hypothesis that each of d[n] is as likely to be -d as d (Fisher 1935): the
 * share of the 2^n choices of signs whose sum is at least as far from 0. Where the differences are
 * multiples of one step, which scores and means of a few seeds are, the shares come from the exact
 * distribution of the sum (Pagano and Tritchler 1983), for any n; with one size of difference that
 * is McNemar's exact test. Else all choices are tried up to n = 20, and above that
 * CT_SIGN_FLIP_DRAWS are drawn by counter and p = (those at least as far + 1) / (draws + 1)
 * (Phipson and Smyth 2010). Differences of 0 say nothing and are left out; without any other p
 * = 1. */
ct_status ct_sign_flip(const double *d, size_t n, double *p, ct_paired_method *method,
                       ct_err *err) CT_CHECK;

/* Holm's (1979) adjustment of p[n] for n tests, in place: the chance of one false alarm or more
 * among all of them stays below any level at which the adjusted values are read. */
ct_status ct_holm(double *p, size_t n, ct_err *err) CT_CHECK;

typedef struct ct_paired {
    size_t pairs;         /* points (length, depth) with a done cell on both sides */
    size_t better, worse; /* of these, how many scored above and below the other side */
    double difference;    /* mean of accuracy - the other's, -1..1; 0 if pairs = 0 */
    double low, high;     /* its 95 % bootstrap interval over pairs */
    double p;
    ct_paired_method method;
    bool same_prompts; /* both sides saw the same ids at every point */
} ct_paired;

/* Version v at k against version `base` at base_k. Several cells of one point (seeds) are averaged
 * first. */
ct_status ct_compare(const ct_stats *stats, size_t v, int64_t k, size_t base, int64_t base_k,
                     ct_paired *out, ct_err *err) CT_CHECK;

typedef enum ct_against {
    CT_AGAINST_UNCHANGED,  /* all heads, no weight edited */
    CT_AGAINST_READ_ONCE,  /* read twice against once, same k */
    CT_AGAINST_GENERATION, /* other stages against generation, same k */
    CT_AGAINST_ENTROPY,    /* other metrics against entropy, same k */
    CT_AGAINST_COUNT
} ct_against;

/* "the unchanged model", "the context read once", ... */
const char *ct_against_name(ct_against against);

typedef struct ct_comparison {
    ct_against against;
    size_t version, base;
    int64_t k, base_k;
    ct_paired test;
    double p_holm; /* over all comparisons of the report with the same `against` */
} ct_comparison;

/* All comparisons of finished stats that have a pair, in the order of ct_against, then versions,
 * then k. The caller frees *out. */
ct_status ct_comparisons_new(const ct_stats *stats, ct_comparison **out, size_t *n,
                             ct_err *err) CT_CHECK;
/* That of version v at k, or NULL. */
const ct_comparison *ct_comparison_find(const ct_comparison *all, size_t n, ct_against against,
                                        size_t v, int64_t k);
/* True if nothing is done to the model in version v at k. */
bool ct_unchanged(const ct_stats_version *v, int64_t k);

#endif
