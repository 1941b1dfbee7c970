/* figure.h - which figures a set of cells gives, and what each shows.
 *
 * Owns the plan (kinds, titles, captions, file names) and the drawing functions of the three kinds:
 * accuracy against k (the thesis's Figures 3.2 and 4.1), accuracy of single versions as rows (its
 * Table 6.1), retrieval maps (Figures 6.2, B and D). Numbers come from stats.h, lines from draw.h.
 */
#ifndef CT_REPORT_FIGURE_H
#define CT_REPORT_FIGURE_H

#include "report/draw.h"
#include "report/stats.h"

typedef enum ct_figure_kind { CT_FIGURE_ACCURACY, CT_FIGURE_ROWS, CT_FIGURE_MAPS } ct_figure_kind;

/* One retrieval map of a figure. */
typedef struct ct_map_panel {
    size_t version;
    int64_t keep_heads;
    char *title;    /* "k = 3", or what tells its version from its neighbours */
    char *accuracy; /* "74.5"; "failed" if no cell is done */
} ct_map_panel;

typedef struct ct_figure {
    ct_figure_kind kind;
    char *name;  /* of its files, without the ending */
    char *title; /* plain, one line */
    char *caption;
    char *description;     /* the numbers in words, for those who cannot see it */
    const ct_stats *stats; /* borrowed */
    size_t n_versions;
    size_t *versions; /* ascending; of CT_FIGURE_MAPS: those of its panels, in their order */
    size_t n_panels;
    ct_map_panel *panels;
    bool single;  /* one of the maps that another figure shows together */
    bool overlay; /* of CT_FIGURE_ACCURACY: all models on one pair of axes, not a panel each */
} ct_figure;

/* Which figures are wanted, as bits; a study's key `figures` names them. */
enum { CT_WANT_ACCURACY = 1, CT_WANT_MAPS = 2, CT_WANT_ALL = 3 };

/* All wanted figures of the cells, in the order of a report: accuracy by heads, accuracy by

 * weights, maps of all versions by edit and by k, maps of each version (all k together, then single
 * ones). No done cell at all is
 * CT_ERR_VALUE that says so with the first error; no cell is CT_ERR_NOT_FOUND. The figures borrow
 * stats. */
ct_status ct_figures_plan(const ct_stats *stats, unsigned wanted, ct_figure **out, size_t *n,
                          ct_err *err) CT_CHECK;
void ct_figures_free(ct_figure *figures, size_t n);

/* Appends "study a" or "studies a, b": those of the figure's versions; nothing if none has a name. */
ct_status ct_figure_studies(const ct_figure *figure, ct_buf *out, ct_err *err) CT_CHECK;

/* A ct_draw_fn; user is a ct_figure. */
ct_status ct_figure_draw(ct_canvas *canvas, const void *figure, ct_err *err) CT_CHECK;

/* The numbers behind it, as CSV with a header (RFC 4180, but lines end with \n). */
ct_status ct_figure_csv(const ct_figure *figure, ct_buf *out, ct_err *err) CT_CHECK;

/* The kinds' own functions, called by ct_figure_draw. */
ct_status ct_draw_accuracy(ct_canvas *canvas, const ct_figure *figure, ct_err *err) CT_CHECK;
ct_status ct_draw_rows(ct_canvas *canvas, const ct_figure *figure, ct_err *err) CT_CHECK;
ct_status ct_draw_maps(ct_canvas *canvas, const ct_figure *figure, ct_err *err) CT_CHECK;

/* ---- what the kinds share ---- */

enum { CT_SERIES_INKS = 8 };
/* Colours that people with any common colour blindness can tell apart (Okabe and Ito 2008). */
unsigned ct_series_rgb(size_t series);

extern const ct_text_style CT_TEXT_TITLE, CT_TEXT_LABEL, CT_TEXT_TICK, CT_TEXT_CAPTION;

#define CT_FIGURE_MARGIN 8.0 /* points around a figure */

/* Draws the title, returns the y below it; draws the caption from y on, returns the y below it. */
double ct_figure_title(ct_canvas *canvas, const ct_figure *figure);
double ct_figure_caption(ct_canvas *canvas, const ct_figure *figure, double y);

/* Draws labels texts[0..n) whose places run along one axis: every stride-th, with the least stride
 * at which neighbours keep `gap` points between them, and the last one if there is room. */
void ct_axis_labels(ct_canvas *canvas, const ct_text_style *style, const ct_xy *at,
                    char *const *texts, size_t n, double gap);

#endif
