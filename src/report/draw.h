/* draw.h - a canvas on cairo and pango: one drawing function becomes SVG, PDF and PNG.
 *
 * Owns every call to cairo and pango, fonts, colours of text and the three file forms. Lengths are
 * points (1/72 inch), y grows downwards. A figure is a function that draws on a canvas and sets its
 * size; it runs once to be measured and once for each form, so all forms show the same. The canvas
 * keeps the box of every text it drew, by which tests prove that no two overlap. What a figure
 * means is left to figure.h.
 */
#ifndef CT_REPORT_DRAW_H
#define CT_REPORT_DRAW_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* A figure is 16 cm wide: the text width of an A4 page. */
#define CT_FIGURE_WIDTH (16.0 / 2.54 * 72.0)

typedef struct ct_canvas ct_canvas;

/* Fonts as they are loaded. Made once and used for many figures, by one thread at a time. */
typedef struct ct_fonts ct_fonts;

/* CT_ERR_NOT_FOUND if no font is installed at all. ct_fonts_free takes NULL. */
ct_status ct_fonts_new(ct_fonts **out, ct_err *err) CT_CHECK;
void ct_fonts_free(ct_fonts *fonts);

typedef struct ct_box {
    double x, y, width, height;
} ct_box;

typedef struct ct_text_box {
    ct_box box; /* of the ink */
    char *text; /* as drawn, before it was wrapped or cut */
    double size;
} ct_text_box;

typedef struct ct_ink {
    unsigned rgb; /* 0xRRGGBB */
    double alpha; /* 0..1 */
} ct_ink;

typedef enum ct_align { CT_ALIGN_BEGIN, CT_ALIGN_MIDDLE, CT_ALIGN_END } ct_align;

typedef struct ct_text_style {
    double size; /* points */
    bool bold;
    bool upwards; /* turned by 90 degrees, reading upwards */
    unsigned rgb;
    ct_align across,
        down;         /* which part of the text stands at (x, y); down MIDDLE: middle of caps */
    double max_width; /* 0: no bound */
    bool wrap;        /* beyond max_width: true wraps, false cuts with an ellipsis */
} ct_text_style;

typedef enum ct_marker {
    CT_MARKER_CIRCLE,
    CT_MARKER_SQUARE,
    CT_MARKER_TRIANGLE,
    CT_MARKER_DIAMOND,
    CT_MARKER_TRIANGLE_DOWN,
    CT_MARKER_PLUS,
    CT_MARKER_CROSS,
    CT_MARKER_COUNT
} ct_marker;

typedef enum ct_dash {
    CT_DASH_SOLID,
    CT_DASH_LONG,
    CT_DASH_DOT,
    CT_DASH_MIXED,
    CT_DASH_COUNT
} ct_dash;

typedef struct ct_xy {
    double x, y;
} ct_xy;

typedef enum ct_figure_form { CT_FIGURE_SVG, CT_FIGURE_PDF, CT_FIGURE_PNG } ct_figure_form;

typedef ct_status (*ct_draw_fn)(ct_canvas *canvas, const void *user, ct_err *err);

/* Draws a figure in one form and appends the file's bytes to `out`. PNG has 192 dots per inch,
 * twice a screen's 96. SVG carries `title` and `description` for readers that cannot see it, its
 * text is outlines; PDF embeds subsets of the fonts and has a fixed date: the same figure gives the
 * same bytes. */
ct_status ct_figure_render(ct_fonts *fonts, ct_draw_fn draw, const void *user, const char *title,
                           const char *description, ct_figure_form form, ct_buf *out,
                           ct_err *err) CT_CHECK;

/* Runs the figure without an output; gives its size and every text it draws. For tests. */
ct_status ct_figure_measure(ct_fonts *fonts, ct_draw_fn draw, const void *user, ct_box *page,
                            ct_text_box **texts, size_t *n_texts, ct_err *err) CT_CHECK;
void ct_text_boxes_free(ct_text_box *texts, size_t n_texts);

/* Appends an SVG that ct_figure_render made, ready to stand inside HTML: no XML declaration, every
 * id and reference prefixed, so that many figures share a page. */
ct_status ct_svg_inline(const char *svg, size_t size, const char *prefix, ct_buf *out,
                        ct_err *err) CT_CHECK;

/* Appends text with & < > " ' escaped for XML and HTML; what is not UTF-8 and control characters
 * become U+FFFD (a tab, newline or carriage return a space if `one_line`, else kept). */
ct_status ct_xml_escape(const char *text, bool one_line, ct_buf *out, ct_err *err) CT_CHECK;

/* ---- what a figure calls. A failure inside sticks to the canvas and ends the rendering. ---- */

/* The page, once it is known. */
void ct_canvas_set_size(ct_canvas *canvas, double width, double height);
/* The box that this text would fill at (x, y). */
ct_box ct_canvas_measure(ct_canvas *canvas, const ct_text_style *style, double x, double y,
                         const char *text);
/* Draws it; returns the box. Invalid UTF-8 and control characters are drawn as U+FFFD. */
ct_box ct_canvas_text(ct_canvas *canvas, const ct_text_style *style, double x, double y,
                      const char *text);
void ct_canvas_fill(ct_canvas *canvas, ct_box box, ct_ink ink);
/* Boxes of one colour as one path: a map's file gets several times smaller. */
void ct_canvas_fill_all(ct_canvas *canvas, const ct_box *boxes, size_t n, ct_ink ink);
/* Diagonal lines inside the box: a place without a value. */
void ct_canvas_hatch(ct_canvas *canvas, ct_box box, ct_ink ink);
void ct_canvas_line(ct_canvas *canvas, const ct_xy *points, size_t n, double line_width,
                    ct_dash dash, ct_ink ink);
void ct_canvas_polygon(ct_canvas *canvas, const ct_xy *points, size_t n, ct_ink ink);
/* A marker about 2 * radius wide with a thin white rim, so that it stands out from lines. */
void ct_canvas_marker(ct_canvas *canvas, ct_marker marker, ct_xy at, double radius, unsigned rgb);

bool ct_box_meets(ct_box a, ct_box b);

#endif
