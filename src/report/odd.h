/* odd.h - outputs worth reading: those that repeat themselves, and those that no prompt says.
 *
 * Owns the two measures behind the page's list of odd outputs (the thesis collects such outputs in
 * its Appendix E and notes that none of them stands in a prompt). Both count runs of three words. A
 * word is a run of letters and digits, capitals not told apart; a byte of a character beyond ASCII
 * counts as a letter.
 */
#ifndef CT_REPORT_ODD_H
#define CT_REPORT_ODD_H

#include "report/stats.h"

enum {
    CT_ODD_WORDS = 8, /* an output with fewer words is not judged */
    CT_ODD_ALIKE = 2,
};

typedef struct ct_odd {
    size_t cell;     /* the first with this output */
    size_t cells;    /* all with this output */
    double repeated; /* 1 - different / all runs of three words of the output */
    double fresh;    /* share of its different runs that are in no prompt of the report */
    uint64_t begins; /* hash of its first run: alike in outputs that begin with the same words */
} ct_odd;

typedef struct ct_odd_lists {
    size_t judged; /* different outputs of done cells with CT_ODD_WORDS words or more */
    size_t n_repeating, n_far;
    ct_odd *repeating; /* repeated > 0, the highest first */
    ct_odd *far;       /* fresh > 0, the highest first; of equals the one that repeats least */
} ct_odd_lists;

/* At most `most` of each list, and of outputs that begin with the same three words at most
 * CT_ODD_ALIKE. Time grows with the bytes of all prompts and outputs. */
ct_status ct_odd_new(const ct_stats *stats, size_t most, ct_odd_lists *out, ct_err *err) CT_CHECK;
void ct_odd_clear(ct_odd_lists *lists);

/* The measures of one text; prompts NULL-terminated. False if it has too few words. For tests. */
ct_status ct_odd_measure(const char *text, const char *const *prompts, bool *judged,
                         double *repeated, double *fresh, ct_err *err) CT_CHECK;

#endif
