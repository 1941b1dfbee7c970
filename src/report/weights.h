/* weights.h - accuracy by edit of the attention weights, in the layout of the thesis's Table 6.1.
 *
 * Owns the table itself (which versions fill it, their ranks), the thesis's published values, and
 * its form as CSV and LaTeX. The page draws it from the same data.
 */
#ifndef CT_REPORT_WEIGHTS_H
#define CT_REPORT_WEIGHTS_H

#include "base/buf.h"
#include "report/compare.h"

enum { CT_WEIGHTS_ROWS = 5, CT_WEIGHTS_COLUMNS = 5 };

/* Modes in the order of the table: keep, omit, only, binary, null. */
const char *ct_weights_table_mode(size_t place);

/* Per cent that the thesis found with this pair of modes on RecurrentGemma-2B, or -1 where it has
 * none (null during generation). Places as in ct_weights_table_mode. */
double ct_weights_published(size_t prefill, size_t generation);
/* Who published them, in one line. */
extern const char ct_weights_source[];
/* Whether a model of this name is the one they measured. */
bool ct_weights_same_model(const char *model);

typedef struct ct_weights_entry {
    bool there;
    size_t version;
    const ct_point *point;          /* borrowed from the stats */
    const ct_comparison *unchanged; /* against keep - keep; NULL for itself, or if it was not run */
    int rank;                       /* 1, 2, 3 for the best accuracies above 0, equal ones alike */
} ct_weights_entry;

/* One model on one task. */
typedef struct ct_weights_table {
    size_t first;            /* a version of it */
    bool null_in_generation; /* the fifth column, which the thesis leaves out, has values */
    ct_weights_entry at[CT_WEIGHTS_ROWS][CT_WEIGHTS_COLUMNS]; /* [prefill][generation] */
} ct_weights_table;

/* One table for each group of two or more versions with all heads that differ in nothing but their
 * weight edits. Borrows stats and comparisons. The caller frees *out. */
ct_status ct_weights_tables_new(const ct_stats *stats, const ct_comparison *comparisons,
                                size_t n_comparisons, ct_weights_table **out, size_t *n,
                                ct_err *err) CT_CHECK;

/* One line an entry: modes, accuracy with interval, published value, difference from keep - keep. */
ct_status ct_weights_csv(const ct_stats *stats, const ct_weights_table *table, ct_buf *out,
                         ct_err *err) CT_CHECK;
/* A tabular in the thesis's layout, to be \input; the published values in brackets. */
ct_status ct_weights_latex(const ct_stats *stats, const ct_weights_table *table, ct_buf *out,
                           ct_err *err) CT_CHECK;

#endif
