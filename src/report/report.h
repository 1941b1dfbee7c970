/* report.h - the report layer's inner face: runs read from their stores, and the texts made of
 * them.
 *
 * Owns the reading of one or several runs into one ct_stats with their provenance. The public entry
 * points are in cortado/report.h.
 */
#ifndef CT_REPORT_REPORT_H
#define CT_REPORT_REPORT_H

#include <cortado/report.h>

#include "base/buf.h"
#include "report/stats.h"

/* A model of a run that a report is about; a run of several models gives several, one after another. */
typedef struct ct_report_run {
    const char *dir;
    ct_store *store; /* kept open: provenance points into it; one for each */
    bool known;      /* false: the store has no execution yet */
    ct_provenance provenance;
} ct_report_run;

typedef struct ct_report_runs {
    size_t n;
    ct_report_run *runs;
    ct_stats *stats; /* of all runs together */
    unsigned wanted; /* figures, CT_WANT_ bits of figure.h */
} ct_report_runs;

/* Reads DIR/run.sqlite of every dir (dirs are borrowed). */
ct_status ct_report_open(const char *const *dirs, size_t n_dirs, ct_report_runs *out,
                         ct_err *err) CT_CHECK;
void ct_report_close(ct_report_runs *runs);

/* Appends the terminal's table; stats must be finished. */
ct_status ct_table_text(const ct_stats *stats, ct_buf *out, ct_err *err) CT_CHECK;

/* Whether a table over k has one row a k (true) or one row a version (too many versions, or none
 * with more than one k). */
bool ct_table_by_k(const ct_stats *stats);

/* Appends the page. runs[].store is not used, so that tests need none. */
ct_status ct_html_page(const ct_report_runs *runs, ct_buf *out, ct_err *err) CT_CHECK;

#endif
