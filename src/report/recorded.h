/* recorded.h - attention weights around the needle before and after their edit, from a run's recordings: the
 * thesis's Figure 6.1 as it was measured.
 *
 * Owns which recordings stand together, which head is shown, and the figure's layout. A figure is one prompt of
 * one model; its panels are the versions that recorded weights of it, each with the same head of the same row.
 */
#ifndef CT_REPORT_RECORDED_H
#define CT_REPORT_RECORDED_H

#include "report/draw.h"
#include "report/report.h"

enum {
    CT_RECORDED_FIGURES = 8,
    CT_RECORDED_PANELS = 8
}; /* at most; a caption says what is left out */

typedef struct ct_recorded_panel {
    size_t cell;           /* of the stats */
    char *title;           /* what tells its version from its neighbours */
    float *before, *after; /* [n] weights of the figure's positions */
} ct_recorded_panel;

typedef struct ct_recorded {
    char *name, *title, *caption, *description;
    const char *stage; /* of the row: "generation" or "prefill" */
    int64_t position;  /* of the row's token, the query */
    int64_t layer,
        head;         /* layer: its place among those recorded; the head with the most weight on the
                              * needle in the first panel's row */
    int64_t first, n; /* positions shown: the needle and as many around it */
    int64_t begin, end;      /* of the needle's first copy */
    double most;             /* largest weight of all panels, above 0 */
    size_t n_panels, n_more; /* n_more: versions without a panel */
    ct_recorded_panel panels[CT_RECORDED_PANELS];
} ct_recorded;

/* The figures of all runs; none where no weights with a needle were recorded. A file that is no recording is
 * passed over: the page tells of it. */
ct_status ct_recorded_new(const ct_report_runs *runs, ct_recorded **out, size_t *n,
                          ct_err *err) CT_CHECK;
void ct_recorded_free(ct_recorded *figures, size_t n);

/* A ct_draw_fn; user is a ct_recorded. */
ct_status ct_recorded_draw(ct_canvas *canvas, const void *figure, ct_err *err) CT_CHECK;
/* version, position, needle (0 or 1), before, after. */
ct_status ct_recorded_csv(const ct_recorded *figure, ct_buf *out, ct_err *err) CT_CHECK;

#endif
