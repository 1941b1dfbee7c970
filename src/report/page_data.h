/* page_data.h - what the page's script shows, as JSON inside the page.
 *
 * Owns the form of that data, which page.js reads: versions, groups (a version at one k) with their
 * cells, and texts. A prompt is a list of pieces of one pool, an output stands once whatever the
 * number of its cells. Every '<' is written \u003c, so that no text can end the element it is in.
 */
#ifndef CT_REPORT_PAGE_DATA_H
#define CT_REPORT_PAGE_DATA_H

#include "report/compare.h"
#include "report/report.h"

ct_status ct_page_data(const ct_report_runs *runs, const ct_comparison *comparisons, size_t n,
                       ct_buf *out, ct_err *err) CT_CHECK;

/* The recordings of the cells, an object by the cell's index in the stats; then, as the member
 * "recorded", how many cells have one and how many at most are on the page. */
ct_status ct_page_recordings(const ct_report_runs *runs, ct_buf *out, ct_err *err) CT_CHECK;

/* Text as a JSON string that may stand inside a script element; what is not UTF-8 is U+FFFD. */
ct_status ct_page_json_text(ct_buf *out, const char *text, ct_err *err) CT_CHECK;

#endif
