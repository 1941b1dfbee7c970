/* tables.h - the report's tables as CSV and LaTeX, for other programs and for papers.
 *
 * Owns quoting for both forms, accuracy by heads and the list of comparisons. The layout of Table
 * 6.1 is in weights.h, figures' own numbers in figure.h.
 */
#ifndef CT_REPORT_TABLES_H
#define CT_REPORT_TABLES_H

#include "base/buf.h"
#include "report/compare.h"

/* A CSV field that is text from a study: in quotes, those inside doubled (RFC 4180). */
ct_status ct_csv_text(ct_buf *out, const char *text, ct_err *err) CT_CHECK;
/* ",difference,low,high,better,worse,p,p_holm"; empty fields where c is NULL. */
ct_status ct_csv_comparison(ct_buf *out, const ct_comparison *c, ct_err *err) CT_CHECK;
/* Text for LaTeX: its special characters escaped, control characters left out. */
ct_status ct_latex_text(ct_buf *out, const char *text, ct_err *err) CT_CHECK;
/* A p as it is read: "0.013", "<0.001". */
ct_status ct_p_text(ct_buf *out, double p, ct_err *err) CT_CHECK;

/* One line a comparison. */
ct_status ct_comparisons_csv(const ct_stats *stats, const ct_comparison *all, size_t n, ct_buf *out,
                             ct_err *err) CT_CHECK;
/* Accuracy with intervals as a tabular, one column a version over rows of k or, as ct_table_by_k
 * says, one row a version and k; a star marks what differs from
 * the unchanged model with an adjusted p below 0.05. */
ct_status ct_accuracy_latex(const ct_stats *stats, const ct_comparison *all, size_t n, ct_buf *out,
                            ct_err *err) CT_CHECK;

#endif
