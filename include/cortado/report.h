/* report.h - what stored runs say: tables, figures, one page.
 *
 * Owns the public entry points of the report layer. A run is named by its folder, which holds
 * run.sqlite; a running run may be read. Everything drawn comes from stored cells; the same cells
 * give the same tables and figures, byte for byte. Errors: status.h.
 */
#ifndef CORTADO_REPORT_H
#define CORTADO_REPORT_H

#include <stddef.h>

#include <cortado/status.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* what a header here declares is exported */

/* Accuracy of one or several runs together as text for a terminal of 80 columns, ending with a
 * newline, with intervals and the paired tests of docs/statistics.md; the caller frees *text. Runs
 * without a done cell give a text that says so. */
ct_status ct_report_table(const char *const *dirs, size_t n_dirs, char **text,
                          ct_err *err) CT_CHECK;

/* Draws the figures of one or several runs together into out_dir (made if it is not there), each as
 * NAME.svg, NAME.pdf, NAME.png and its numbers as NAME.csv: accuracy_by_heads (and, of several
 * models, accuracy_by_heads_overlay), accuracy_by_weights, retrieval_maps_by_weights,
 * retrieval_map_VERSION and retrieval_map_VERSION_kNN, those that the studies ask for. Beside them
 * tables: accuracy.tex, differences.csv, table_6.1.csv and table_6.1.tex. CT_ERR_NOT_FOUND if no
 * cell is stored, CT_ERR_VALUE if all failed. */
ct_status ct_report_figures(const char *const *dirs, size_t n_dirs, const char *out_dir,
                            ct_err *err) CT_CHECK;

/* Writes one self-contained HTML page about one or several runs: tables, figures, an explorer of
 * retrieval maps and their cells, odd outputs, failed cells, provenance. Runs whose cells all failed, or without cells, give a page that says so. */
ct_status ct_report_html(const char *const *dirs, size_t n_dirs, const char *path,
                         ct_err *err) CT_CHECK;

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
