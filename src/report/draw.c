/* draw.c - the canvas and its three file forms. See draw.h. */
#include "report/draw.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cairo-pdf.h>
#include <cairo-svg.h>
#include <cairo.h>
#include <pango/pangocairo.h>

#include "base/err.h"

/* Inter first; any sans-serif after it keeps a figure possible where Inter is not installed. */
#define FONT_FAMILIES "Inter, Open Sans, DejaVu Sans, sans-serif"

enum { PNG_DOTS_PER_INCH = 192 };

struct ct_canvas {
    cairo_t *cr;
    PangoLayout *layout;
    double width, height;
    ct_text_box *texts;
    size_t n_texts, text_capacity;
    ct_status status;
    ct_err *err;
};

struct ct_fonts {
    PangoFontMap *map; /* its own: pango's default one is never freed and grows */
};

/* ---- fonts and canvas ------------------------------------------------------------------------ */

ct_status ct_fonts_new(ct_fonts **out, ct_err *err)
{
    ct_fonts *fonts = malloc(sizeof *fonts);
    if (!fonts) return ct_fail_memory(err, "fonts", sizeof *fonts);
    fonts->map = pango_cairo_font_map_new();
    PangoContext *context = pango_font_map_create_context(fonts->map);
    PangoFontDescription *description = pango_font_description_from_string(FONT_FAMILIES " 9");
    PangoFont *font = pango_context_load_font(context, description);
    pango_font_description_free(description);
    g_object_unref(context);
    if (!font) {
        ct_fonts_free(fonts);
        return ct_fail(err, CT_ERR_NOT_FOUND,
                       "figure: expected an installed font, got none (install fonts-inter)");
    }
    g_object_unref(font);
    *out = fonts;
    return CT_OK;
}

void ct_fonts_free(ct_fonts *fonts)
{
    if (!fonts) return;
    g_object_unref(fonts->map);
    free(fonts);
}

static ct_status canvas_init(ct_canvas *canvas, ct_fonts *fonts, cairo_t *cr, ct_err *err)
{
    *canvas = (ct_canvas){.cr = cr, .err = err};
    if (cairo_status(cr) != CAIRO_STATUS_SUCCESS)
        return ct_fail(err, CT_ERR_MEMORY, "figure: %s", cairo_status_to_string(cairo_status(cr)));
    /* No hinting: positions then depend on the font alone, not on the form's resolution. */
    cairo_font_options_t *options = cairo_font_options_create();
    cairo_font_options_set_hint_style(options, CAIRO_HINT_STYLE_NONE);
    cairo_font_options_set_hint_metrics(options, CAIRO_HINT_METRICS_OFF);
    cairo_font_options_set_antialias(options, CAIRO_ANTIALIAS_GRAY);
    PangoContext *context = pango_font_map_create_context(fonts->map);
    pango_cairo_context_set_font_options(context, options);
    pango_cairo_context_set_resolution(context, 72);
    pango_context_set_round_glyph_positions(context, FALSE);
    pango_cairo_update_context(cr, context);
    cairo_font_options_destroy(options);
    canvas->layout = pango_layout_new(context);
    g_object_unref(context);
    return CT_OK;
}

static void canvas_clear(ct_canvas *canvas)
{
    if (canvas->layout) g_object_unref(canvas->layout);
    ct_text_boxes_free(canvas->texts, canvas->n_texts);
    *canvas = (ct_canvas){0};
}

void ct_text_boxes_free(ct_text_box *texts, size_t n_texts)
{
    for (size_t i = 0; i < n_texts; i++) free(texts[i].text);
    free(texts);
}

void ct_canvas_set_size(ct_canvas *canvas, double width, double height)
{
    CT_ASSERT(isfinite(width) && isfinite(height) && width > 0 && height > 0);
    canvas->width = width;
    canvas->height = height;
}

static void set_ink(ct_canvas *canvas, ct_ink ink)
{
    cairo_set_source_rgba(canvas->cr, (ink.rgb >> 16 & 255) / 255.0, (ink.rgb >> 8 & 255) / 255.0,
                          (ink.rgb & 255) / 255.0, ink.alpha);
}

/* A coordinate that is not a number would be written into the file as text; it is a bug here, since
 * ct_stats_add lets none in. */
static void move_or_line(ct_canvas *canvas, bool move, double x, double y)
{
    CT_ASSERT(isfinite(x) && isfinite(y));
    if (move) cairo_move_to(canvas->cr, x, y);
    else cairo_line_to(canvas->cr, x, y);
}

static void path(ct_canvas *canvas, const ct_xy *points, size_t n)
{
    for (size_t i = 0; i < n; i++) move_or_line(canvas, i == 0, points[i].x, points[i].y);
}

static void box_path(ct_canvas *canvas, ct_box b)
{
    CT_ASSERT(isfinite(b.x) && isfinite(b.y) && isfinite(b.width) && isfinite(b.height));
    cairo_rectangle(canvas->cr, b.x, b.y, b.width, b.height);
}

void ct_canvas_fill(ct_canvas *canvas, ct_box box, ct_ink ink)
{
    set_ink(canvas, ink);
    box_path(canvas, box);
    cairo_fill(canvas->cr);
}

void ct_canvas_fill_all(ct_canvas *canvas, const ct_box *boxes, size_t n, ct_ink ink)
{
    set_ink(canvas, ink);
    for (size_t i = 0; i < n; i++) box_path(canvas, boxes[i]);
    cairo_fill(canvas->cr);
}

static void stroke(ct_canvas *canvas, double line_width, ct_ink ink)
{
    set_ink(canvas, ink);
    cairo_set_line_width(canvas->cr, line_width);
    cairo_stroke(canvas->cr);
}

void ct_canvas_hatch(ct_canvas *canvas, ct_box box, ct_ink ink)
{
    enum { SPACING = 3 };
    /* Ends are computed instead of clipped: a clip costs a group of its own in SVG. */
    for (double d = SPACING / 2.0; d < box.width + box.height; d += SPACING) {
        ct_xy line[2] = {{box.x + fmin(d, box.width), box.y + fmax(0, d - box.width)},
                         {box.x + fmax(0, d - box.height), box.y + fmin(d, box.height)}};
        path(canvas, line, 2);
    }
    stroke(canvas, 0.5, ink);
}

void ct_canvas_line(ct_canvas *canvas, const ct_xy *points, size_t n, double line_width,
                    ct_dash dash, ct_ink ink)
{
    static const struct {
        int n;
        double lengths[4];
    } dashes[CT_DASH_COUNT] = {{0, {0}}, {2, {5, 2.5}}, {2, {1.2, 2.2}}, {4, {6, 2, 1.2, 2}}};
    if (n < 2) return;
    cairo_set_dash(canvas->cr, dashes[dash].lengths, dashes[dash].n, 0);
    cairo_set_line_join(canvas->cr, CAIRO_LINE_JOIN_ROUND);
    path(canvas, points, n);
    stroke(canvas, line_width, ink);
    cairo_set_dash(canvas->cr, NULL, 0, 0);
}

void ct_canvas_polygon(ct_canvas *canvas, const ct_xy *points, size_t n, ct_ink ink)
{
    if (n < 3) return;
    path(canvas, points, n);
    cairo_close_path(canvas->cr);
    set_ink(canvas, ink);
    cairo_fill(canvas->cr);
}

/* Corners of a marker around (0, 0), of radius 1; areas are about equal. */
static size_t marker_corners(ct_marker marker, ct_xy out[12])
{
    static const double arm = 0.34;
    const ct_xy square[] = {{-.87, -.87}, {.87, -.87}, {.87, .87}, {-.87, .87}};
    const ct_xy triangle[] = {{0, -1.2}, {1.1, .75}, {-1.1, .75}};
    const ct_xy diamond[] = {{0, -1.22}, {1.22, 0}, {0, 1.22}, {-1.22, 0}};
    const ct_xy plus[] = {{-arm, -1.2}, {arm, -1.2}, {arm, -arm},  {1.2, -arm},
                          {1.2, arm},   {arm, arm},  {arm, 1.2},   {-arm, 1.2},
                          {-arm, arm},  {-1.2, arm}, {-1.2, -arm}, {-arm, -arm}};
    size_t n = 0;
    switch (marker) {
    case CT_MARKER_SQUARE:
        memcpy(out, square, sizeof square);
        return 4;
    case CT_MARKER_DIAMOND:
        memcpy(out, diamond, sizeof diamond);
        return 4;
    case CT_MARKER_TRIANGLE:
        memcpy(out, triangle, sizeof triangle);
        return 3;
    case CT_MARKER_TRIANGLE_DOWN:
        for (; n < 3; n++) out[n] = (ct_xy){triangle[n].x, -triangle[n].y};
        return 3;
    case CT_MARKER_PLUS:
        memcpy(out, plus, sizeof plus);
        return 12;
    case CT_MARKER_CROSS:
        for (; n < 12; n++)
            out[n] =
                (ct_xy){(plus[n].x - plus[n].y) * M_SQRT1_2, (plus[n].x + plus[n].y) * M_SQRT1_2};
        return 12;
    default:
        return 0;
    }
}

void ct_canvas_marker(ct_canvas *canvas, ct_marker marker, ct_xy at, double radius, unsigned rgb)
{
    ct_xy corners[12];
    size_t n = marker_corners(marker, corners);
    for (size_t i = 0; i < n; i++)
        corners[i] = (ct_xy){at.x + corners[i].x * radius, at.y + corners[i].y * radius};
    CT_ASSERT(isfinite(at.x) && isfinite(at.y));
    if (n) path(canvas, corners, n);
    else cairo_arc(canvas->cr, at.x, at.y, radius, 0, 2 * M_PI);
    cairo_close_path(canvas->cr);
    set_ink(canvas, (ct_ink){0xFFFFFF, 1});
    cairo_set_line_width(canvas->cr, 1.1);
    cairo_stroke_preserve(canvas->cr);
    set_ink(canvas, (ct_ink){rgb, 1});
    cairo_fill(canvas->cr);
}

/* ---- text ------------------------------------------------------------------------------------ */

static void canvas_fail(ct_canvas *canvas, ct_status status)
{
    if (canvas->status == CT_OK) canvas->status = status;
}

/* Valid UTF-8 of one line, since pango prints warnings about anything else. */
static char *clean(const char *text, ct_err *err)
{
    ct_buf buf = {0};
    size_t left = strlen(text);
    while (left) {
        uint32_t point;
        char bytes[4];
        size_t n = ct_utf8_next(text, left, &point);
        if (point == '\n' || point == '\t' || point == '\r') point = ' ';
        if (point < 0x20 || (point >= 0x7F && point < 0xA0)) point = 0xFFFD;
        if (ct_buf_add(&buf, bytes, ct_utf8_put(point, bytes), err) != CT_OK) {
            ct_buf_clear(&buf);
            return NULL;
        }
        text += n;
        left -= n;
    }
    return ct_buf_take(&buf);
}

/* Lays the text out; gives the box and where the layout's upper left corner goes. */
static ct_box lay_out(ct_canvas *canvas, const ct_text_style *style, double x, double y,
                      const char *text, ct_xy *origin)
{
    PangoLayout *layout = canvas->layout;
    PangoFontDescription *font = pango_font_description_from_string(FONT_FAMILIES);
    pango_font_description_set_absolute_size(font, style->size * PANGO_SCALE);
    pango_font_description_set_weight(font,
                                      style->bold ? PANGO_WEIGHT_SEMIBOLD : PANGO_WEIGHT_NORMAL);
    pango_layout_set_font_description(layout, font);
    pango_font_description_free(font);
    PangoAttrList *attributes = pango_attr_list_new();
    pango_attr_list_insert(attributes, pango_attr_font_features_new("tnum=1"));
    pango_layout_set_attributes(layout, attributes);
    pango_attr_list_unref(attributes);
    pango_layout_set_width(layout,
                           style->max_width > 0 ? (int)(style->max_width * PANGO_SCALE) : -1);
    pango_layout_set_wrap(layout, PANGO_WRAP_WORD_CHAR);
    pango_layout_set_height(layout, style->wrap ? -100 : 0); /* at most 100 lines, or one */
    pango_layout_set_ellipsize(layout, style->wrap || style->max_width <= 0 ? PANGO_ELLIPSIZE_NONE
                                                                            : PANGO_ELLIPSIZE_END);
    pango_layout_set_line_spacing(layout, style->wrap ? 1.12f : 0.0f);
    pango_layout_set_text(layout, text, -1);

    PangoRectangle ink, logical;
    pango_layout_get_extents(layout, &ink, &logical);
    const double unit = 1.0 / PANGO_SCALE;
    double width = logical.width * unit, height = logical.height * unit;
    double baseline = pango_layout_get_baseline(layout) * unit;
    const double cap = 0.727 * style->size; /* Inter's cap height; near enough for others */
    double across = style->across == CT_ALIGN_BEGIN ? 0
                    : style->across == CT_ALIGN_END ? width
                                                    : width / 2;
    /* Edges are those of capital letters, not of the line: text then sits where the eye sees it. */
    double down = style->down == CT_ALIGN_BEGIN ? baseline - cap
                  : style->down == CT_ALIGN_END ? (style->wrap ? height : baseline)
                                                : baseline - cap / 2;
    double left = logical.x * unit;
    if (style->upwards) {
        *origin = (ct_xy){x - down, y + across + left};
        return (ct_box){origin->x + ink.y * unit, origin->y - (ink.x + ink.width) * unit,
                        ink.height * unit, ink.width * unit};
    }
    *origin = (ct_xy){x - across - left, y - down};
    return (ct_box){origin->x + ink.x * unit, origin->y + ink.y * unit, ink.width * unit,
                    ink.height * unit};
}

ct_box ct_canvas_measure(ct_canvas *canvas, const ct_text_style *style, double x, double y,
                         const char *text)
{
    CT_ASSERT(isfinite(x) && isfinite(y));
    ct_xy origin;
    char *safe = clean(text, canvas->err);
    if (!safe) {
        canvas_fail(canvas, CT_ERR_MEMORY);
        return (ct_box){x, y, 0, 0};
    }
    ct_box box = lay_out(canvas, style, x, y, safe, &origin);
    free(safe);
    return box;
}

static void remember(ct_canvas *canvas, ct_box box, char *text, double size)
{
    if (canvas->n_texts == canvas->text_capacity) {
        size_t capacity = canvas->text_capacity ? canvas->text_capacity * 2 : 64;
        ct_text_box *texts = realloc(canvas->texts, capacity * sizeof *texts);
        if (!texts) {
            canvas_fail(canvas, ct_fail_memory(canvas->err, "texts", capacity * sizeof *texts));
            free(text);
            return;
        }
        canvas->texts = texts;
        canvas->text_capacity = capacity;
    }
    canvas->texts[canvas->n_texts++] = (ct_text_box){box, text, size};
}

ct_box ct_canvas_text(ct_canvas *canvas, const ct_text_style *style, double x, double y,
                      const char *text)
{
    CT_ASSERT(isfinite(x) && isfinite(y));
    char *safe = clean(text, canvas->err);
    if (!safe) {
        canvas_fail(canvas, CT_ERR_MEMORY);
        return (ct_box){x, y, 0, 0};
    }
    ct_xy origin;
    ct_box box = lay_out(canvas, style, x, y, safe, &origin);
    set_ink(canvas, (ct_ink){style->rgb, 1});
    cairo_save(canvas->cr);
    cairo_move_to(canvas->cr, origin.x, origin.y);
    if (style->upwards) cairo_rotate(canvas->cr, -M_PI / 2);
    pango_cairo_show_layout(canvas->cr, canvas->layout);
    cairo_restore(canvas->cr);
    cairo_new_path(canvas->cr);
    remember(canvas, box, safe, style->size);
    return box;
}

bool ct_box_meets(ct_box a, ct_box b)
{
    return a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height &&
           b.y < a.y + a.height;
}

/* ---- file forms ------------------------------------------------------------------------------ */

typedef struct ct_sink {
    ct_buf *out;
    ct_err *err;
} ct_sink;

static cairo_status_t sink_write(void *closure, const unsigned char *data, unsigned count)
{
    ct_sink *sink = closure;
    return ct_buf_add(sink->out, data, count, sink->err) == CT_OK ? CAIRO_STATUS_SUCCESS
                                                                  : CAIRO_STATUS_WRITE_ERROR;
}

static ct_status run(ct_fonts *fonts, ct_draw_fn draw, const void *user, cairo_surface_t *surface,
                     double scale, ct_canvas *canvas, ct_err *err)
{
    cairo_t *cr = cairo_create(surface);
    ct_status st = canvas_init(canvas, fonts, cr, err);
    if (st == CT_OK) {
        cairo_scale(cr, scale, scale);
        set_ink(canvas, (ct_ink){0xFFFFFF, 1});
        cairo_paint(cr);
        st = draw(canvas, user, err);
    }
    if (st == CT_OK) st = canvas->status;
    if (st == CT_OK && cairo_status(cr) != CAIRO_STATUS_SUCCESS)
        st = ct_fail(err, CT_ERR_MEMORY, "figure: %s", cairo_status_to_string(cairo_status(cr)));
    CT_ASSERT(st != CT_OK || canvas->width > 0);
    cairo_destroy(cr);
    return st;
}

/* First pass: nothing is kept but sizes. */
static ct_status measure(ct_fonts *fonts, ct_draw_fn draw, const void *user, ct_canvas *canvas,
                         ct_err *err)
{
    cairo_surface_t *surface = cairo_recording_surface_create(CAIRO_CONTENT_COLOR_ALPHA, NULL);
    ct_status st = run(fonts, draw, user, surface, 1, canvas, err);
    cairo_surface_destroy(surface);
    return st;
}

ct_status ct_figure_measure(ct_fonts *fonts, ct_draw_fn draw, const void *user, ct_box *page,
                            ct_text_box **texts, size_t *n_texts, ct_err *err)
{
    ct_canvas canvas = {0};
    ct_status st = measure(fonts, draw, user, &canvas, err);
    if (st == CT_OK) {
        *page = (ct_box){0, 0, canvas.width, canvas.height};
        *texts = canvas.texts;
        *n_texts = canvas.n_texts;
        canvas.texts = NULL;
        canvas.n_texts = 0;
    }
    canvas_clear(&canvas);
    return st;
}

static cairo_surface_t *surface_new(ct_figure_form form, double width, double height,
                                    const char *title, ct_sink *sink)
{
    if (form == CT_FIGURE_SVG) {
        cairo_surface_t *s = cairo_svg_surface_create_for_stream(sink_write, sink, width, height);
        cairo_svg_surface_restrict_to_version(s, CAIRO_SVG_VERSION_1_1);
        return s;
    }
    if (form == CT_FIGURE_PDF) {
        cairo_surface_t *s = cairo_pdf_surface_create_for_stream(sink_write, sink, width, height);
        cairo_pdf_surface_set_metadata(s, CAIRO_PDF_METADATA_TITLE, title);
        cairo_pdf_surface_set_metadata(s, CAIRO_PDF_METADATA_CREATOR, "cortado");
        cairo_pdf_surface_set_metadata(s, CAIRO_PDF_METADATA_CREATE_DATE, "2000-01-01T00:00:00Z");
        return s;
    }
    const double scale = PNG_DOTS_PER_INCH / 72.0;
    return cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)ceil(width * scale),
                                      (int)ceil(height * scale));
}

/* Appends SVG text with the number of cairo's surface taken out of its id: it counts all surfaces
 * of the process, and would make two equal figures differ. A figure is one surface. */
static ct_status svg_add_body(const char *text, ct_buf *out, ct_err *err)
{
    static const char mark[] = "<g id=\"surface";
    ct_status st = CT_OK;
    for (const char *found; (found = strstr(text, mark));) {
        size_t keep = (size_t)(found - text) + sizeof mark - 1;
        CT_TRY(ct_buf_add(out, text, keep, err));
        text += keep + strspn(text + keep, "0123456789");
    }
    CT_TRY(ct_buf_adds(out, text, err));
done:
    return st;
}

/* cairo's SVG has no place for a title: it is put in after the opening tag. */
static ct_status svg_add_title(const ct_buf *svg, const char *title, const char *description,
                               ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    const char *tag = svg->data ? strstr(svg->data, "<svg ") : NULL;
    const char *end = tag ? strchr(tag, '>') : NULL;
    CT_ASSERT(end);
    CT_TRY(ct_buf_add(out, svg->data, (size_t)(end - svg->data), err));
    CT_TRY(ct_buf_adds(out, " role=\"img\" aria-labelledby=\"title desc\">\n<title id=\"title\">",
                       err));
    CT_TRY(ct_xml_escape(title, true, out, err));
    CT_TRY(ct_buf_adds(out, "</title>\n<desc id=\"desc\">", err));
    CT_TRY(ct_xml_escape(description, true, out, err));
    CT_TRY(ct_buf_adds(out, "</desc>", err));
    CT_TRY(svg_add_body(end + 1, out, err));
done:
    return st;
}

ct_status ct_figure_render(ct_fonts *fonts, ct_draw_fn draw, const void *user, const char *title,
                           const char *description, ct_figure_form form, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_canvas canvas = {0};
    ct_buf bytes = {0};
    ct_sink sink = {&bytes, err};
    cairo_surface_t *surface = NULL;
    char *safe_title = clean(title, err);
    if (!safe_title) return CT_ERR_MEMORY;
    CT_TRY(measure(fonts, draw, user, &canvas, err));
    double width = canvas.width, height = canvas.height;
    canvas_clear(&canvas);
    surface = surface_new(form, width, height, safe_title, &sink);
    double scale = form == CT_FIGURE_PNG ? PNG_DOTS_PER_INCH / 72.0 : 1;
    CT_TRY(run(fonts, draw, user, surface, scale, &canvas, err));
    cairo_status_t written = CAIRO_STATUS_SUCCESS;
    if (form == CT_FIGURE_PNG) {
        written = cairo_surface_write_to_png_stream(surface, sink_write, &sink);
    } else {
        canvas_clear(&canvas); /* the layout holds fonts of the surface */
        cairo_surface_finish(surface);
        written = cairo_surface_status(surface);
    }
    if (written != CAIRO_STATUS_SUCCESS) {
        st = ct_fail(err, CT_ERR_MEMORY, "figure: %s", cairo_status_to_string(written));
        goto done;
    }
    if (form == CT_FIGURE_SVG) CT_TRY(svg_add_title(&bytes, safe_title, description, out, err));
    else CT_TRY(ct_buf_add(out, bytes.data, bytes.size, err));
done:
    canvas_clear(&canvas);
    if (surface) cairo_surface_destroy(surface);
    ct_buf_clear(&bytes);
    free(safe_title);
    return st;
}

/* ---- SVG and XML text ------------------------------------------------------------------------ */

ct_status ct_xml_escape(const char *text, bool one_line, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t left = strlen(text);
    while (left && st == CT_OK) {
        uint32_t point;
        char bytes[4];
        size_t n = ct_utf8_next(text, left, &point);
        text += n;
        left -= n;
        bool white = point == '\n' || point == '\t' || point == '\r';
        if (white && one_line) point = ' ';
        if ((point < 0x20 && !white) || (point >= 0x7F && point < 0xA0) || point == 0xFFFE ||
            point == 0xFFFF)
            point = 0xFFFD; /* XML has no way to write these */
        switch (point) {
        case '&':
            st = ct_buf_adds(out, "&amp;", err);
            break;
        case '<':
            st = ct_buf_adds(out, "&lt;", err);
            break;
        case '>':
            st = ct_buf_adds(out, "&gt;", err);
            break;
        case '"':
            st = ct_buf_adds(out, "&quot;", err);
            break;
        case '\'':
            st = ct_buf_adds(out, "&#39;", err);
            break;
        default:
            st = ct_buf_add(out, bytes, ct_utf8_put(point, bytes), err);
        }
    }
    return st;
}

/* Length of the mark that stands before an id at `at`, or 0. cairo writes no other references. */
static size_t id_mark(const char *at)
{
    static const char *const marks[] = {" id=\"", "xlink:href=\"#", "url(#"};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (strncmp(at, marks[i], strlen(marks[i])) == 0) return strlen(marks[i]);
    return 0;
}

ct_status ct_svg_inline(const char *svg, size_t size, const char *prefix, ct_buf *out, ct_err *err)
{
    static const char labelled[] = "aria-labelledby=\"title desc\"";
    ct_status st = CT_OK;
    const char *end = svg + size, *at = strstr(svg, "<svg ");
    CT_ASSERT(at);
    bool in_tag = false;
    const char *from = at;
    for (; at < end; at++) {
        if (*at == '<') in_tag = true;
        if (*at == '>') in_tag = false;
        size_t n = in_tag ? id_mark(at) : 0; /* words of title and desc stay as they are */
        if (n) {
            CT_TRY(ct_buf_add(out, from, (size_t)(at - from) + n, err));
            CT_TRY(ct_buf_addf(out, err, "%s-", prefix));
            from = at + n;
            at = from - 1;
        } else if (in_tag && strncmp(at, labelled, sizeof labelled - 1) == 0) {
            CT_TRY(ct_buf_add(out, from, (size_t)(at - from), err));
            CT_TRY(ct_buf_addf(out, err, "aria-labelledby=\"%s-title %s-desc\"", prefix, prefix));
            from = at + sizeof labelled - 1;
            at = from - 1;
        }
    }
    CT_TRY(ct_buf_add(out, from, (size_t)(end - from), err));
done:
    return st;
}
