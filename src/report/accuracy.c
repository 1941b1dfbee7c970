/* accuracy.c - accuracy against k, one panel a model; and accuracy of single versions as rows.
 *
 * Owns the layout of these two kinds of figures: axes, lines, intervals, legend, labels beside the
 * lines. Their numbers come from stats.h; see figure.h for which versions they show.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "report/figure.h"
#include "report/label.h"

#define M CT_FIGURE_MARGIN

static const ct_ink GRID = {0xE4E4E4, 1}, AXIS = {0x404040, 1};

enum { REFERENCE_RGB = 0x6A6A6A };

/* One line of a panel. Versions of different models with the same label share a style. */
typedef struct ct_series {
    const ct_stats_version *version;
    size_t style;   /* index of the legend's entry */
    bool reference; /* no head selection: a level, not a line over k */
    ct_xy *at;      /* [n_points] places of the points of its version */
} ct_series;

typedef struct ct_entry {
    char *label;
    bool reference;
    size_t mark;      /* counts entries that are not references */
    size_t ink, dash; /* colour and pattern; of an overlay a model has one colour */
    size_t least, most;
} ct_entry;

typedef struct ct_chart {
    const ct_figure *figure;
    size_t n_series, n_entries, n_panels;
    ct_series *series;
    ct_entry *entries;
    size_t *panel_of; /* [n_series] */
    size_t dashes;    /* counts the lines of a model, while an overlay is made */
    double x_high;    /* the largest k of the panel being drawn, 1 at least; 0: it has none */
    ct_box plot;
} ct_chart;

static void chart_clear(ct_chart *c)
{
    for (size_t i = 0; c->series && i < c->n_series; i++) free(c->series[i].at);
    for (size_t i = 0; c->entries && i < c->n_entries; i++) free(c->entries[i].label);
    free(c->series);
    free(c->entries);
    free(c->panel_of);
}

/* ---- what is shown --------------------------------------------------------------------------- */

/* model: counts the models of the figure. */
static ct_status entry_find(ct_chart *c, const ct_stats_version *v, size_t model, unsigned mask,
                            size_t *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf label = {0};
    CT_TRY(ct_label_version(v, mask, &label, err));
    size_t i = 0, marks = 0;
    for (; i < c->n_entries && strcmp(c->entries[i].label, label.data) != 0; i++)
        marks += !c->entries[i].reference;
    ct_entry *e = &c->entries[i];
    if (i == c->n_entries) {
        *e = (ct_entry){.reference = v->points[0].keep_heads < 0 && v->n_points == 1,
                        .mark = marks,
                        .ink = c->figure->overlay ? model : marks,
                        .dash = c->figure->overlay ? c->dashes : marks,
                        .least = v->prompts_least,
                        .most = v->prompts_most};
        e->label = ct_buf_take(&label);
        if (!e->label) {
            st = ct_fail_memory(err, "legend", 1);
            goto done;
        }
        c->n_entries++;
    }
    if (v->prompts_least < e->least) e->least = v->prompts_least;
    if (v->prompts_most > e->most) e->most = v->prompts_most;
    *out = i;
done:
    ct_buf_clear(&label);
    return st;
}

static ct_status chart_init(ct_chart *c, const ct_figure *f, ct_err *err)
{
    ct_status st = CT_OK;
    *c = (ct_chart){.figure = f};
    c->series = calloc(f->n_versions, sizeof *c->series);
    c->entries = calloc(f->n_versions, sizeof *c->entries);
    c->panel_of = calloc(f->n_versions, sizeof *c->panel_of);
    if (!c->series || !c->entries || !c->panel_of) {
        st = ct_fail_memory(err, "figure", f->n_versions * sizeof *c->series);
        goto done;
    }
    unsigned all, mask = ct_label_differing(f->stats, f->versions, f->n_versions, &all);
    /* A panel's title names the model, so the legend need not. */
    size_t models = 0;
    unsigned rest = f->overlay ? mask : mask & ~(unsigned)CT_FIELD_MODEL;
    for (size_t i = 0; i < f->n_versions; i++) {
        const ct_stats_version *v = &f->stats->versions[f->versions[i]];
        ct_series *s = &c->series[c->n_series++];
        s->version = v;
        s->reference = v->n_points == 1 && v->points[0].keep_heads < 0;
        s->at = calloc(v->n_points, sizeof *s->at);
        if (!s->at) {
            st = ct_fail_memory(err, "figure", v->n_points);
            goto done;
        }
        bool new_model = i && v->model_index != c->series[i - 1].version->model_index;
        models += new_model;
        c->dashes = i == 0 || new_model ? 0 : c->dashes + !s->reference;
        CT_TRY(entry_find(c, v, models, rest, &s->style, err));
        c->n_panels += i == 0 || (new_model && !f->overlay);
        c->panel_of[i] = c->n_panels - 1;
    }
done:
    return st;
}

static unsigned entry_rgb(const ct_entry *e)
{
    return e->reference ? REFERENCE_RGB : ct_series_rgb(e->ink);
}

static ct_dash entry_dash(const ct_entry *e)
{
    return e->reference ? CT_DASH_DOT : (ct_dash)(e->dash % CT_DASH_COUNT);
}

/* ---- legend ---------------------------------------------------------------------------------- */

static ct_status legend_text(const ct_entry *e, ct_buf *out, ct_err *err)
{
    ct_buf_clear(out);
    if (e->least == e->most)
        return ct_buf_addf(out, err, "%s (%zu prompt%s)", e->label, e->most,
                           e->most == 1 ? "" : "s");
    return ct_buf_addf(out, err, "%s (%zu\xE2\x80\x93%zu prompts)", e->label, e->least, e->most);
}

/* Entries flow in rows from y on; *below gets the y under them. */
static ct_status legend_draw(ct_canvas *canvas, const ct_chart *c, double y, double *below,
                             ct_err *err)
{
    enum { SAMPLE = 24, GAP = 6, BETWEEN = 18, ROW = 14 };
    const double right = CT_FIGURE_WIDTH - M;
    ct_status st = CT_OK;
    ct_buf text = {0};
    ct_text_style style = CT_TEXT_LABEL;
    style.down = CT_ALIGN_MIDDLE;
    style.max_width = right - M - SAMPLE - GAP;
    double x = M;
    y += ROW / 2.0 - 2;
    for (size_t i = 0; i < c->n_entries; i++) {
        const ct_entry *e = &c->entries[i];
        CT_TRY(legend_text(e, &text, err));
        ct_box box = ct_canvas_measure(canvas, &style, x + SAMPLE + GAP, y, text.data);
        if (x > M && box.x + box.width > right) {
            x = M;
            y += ROW;
        }
        ct_xy line[2] = {{x, y}, {x + SAMPLE, y}};
        ct_canvas_line(canvas, line, 2, 1.4, entry_dash(e), (ct_ink){entry_rgb(e), 1});
        if (!e->reference)
            ct_canvas_marker(canvas, (ct_marker)(e->mark % CT_MARKER_COUNT),
                             (ct_xy){x + SAMPLE / 2.0, y}, 2.7, entry_rgb(e));
        ct_canvas_text(canvas, &style, x + SAMPLE + GAP, y, text.data);
        x += SAMPLE + GAP + box.width + BETWEEN;
    }
    *below = y + ROW / 2.0;
done:
    ct_buf_clear(&text);
    return st;
}

/* ---- panel ----------------------------------------------------------------------------------- */

/* Room between the frame and the data, so that markers at 0 and 100 % are whole. */
enum { INSET_X = 8, INSET_Y = 5 };

static double x_of(const ct_chart *c, double k)
{
    return c->plot.x + INSET_X + (c->plot.width - 2 * INSET_X) * k / fmax(c->x_high, 1);
}

static double y_of(const ct_chart *c, double accuracy)
{
    return c->plot.y + INSET_Y + (c->plot.height - 2 * INSET_Y) * (1 - accuracy);
}

static ct_status axes_draw(ct_canvas *canvas, const ct_chart *c, bool with_y, ct_err *err)
{
    ct_status st = CT_OK;
    char *labels[16] = {0};
    ct_xy places[16];
    size_t n = 0;
    ct_text_style tick = CT_TEXT_TICK;
    tick.across = CT_ALIGN_END;
    tick.down = CT_ALIGN_MIDDLE;
    const ct_box plot = c->plot;
    for (int percent = 0; percent <= 100; percent += 20) {
        double y = y_of(c, percent / 100.0);
        ct_xy line[2] = {{plot.x, y}, {plot.x + plot.width, y}};
        ct_canvas_line(canvas, line, 2, 0.6, CT_DASH_SOLID, GRID);
        char text[8];
        snprintf(text, sizeof text, "%d", percent);
        if (with_y) ct_canvas_text(canvas, &tick, plot.x - 5, y, text);
    }
    ct_xy base[2] = {{plot.x, plot.y + plot.height}, {plot.x + plot.width, plot.y + plot.height}};
    ct_canvas_line(canvas, base, 2, 0.8, CT_DASH_SOLID, AXIS);
    if (!c->x_high) goto done; /* nothing but levels: k has no meaning there */
    /* At most 13 ticks, and so that the last one is the largest k where a round step allows it. */
    static const int steps[] = {1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64};
    const double widest = fmax(18, (plot.width - 2 * INSET_X) / 12);
    double step = 0;
    for (size_t i = 0; i < sizeof steps / sizeof *steps && step == 0; i++) {
        bool room = x_of(c, steps[i]) - x_of(c, 0) >= widest - 1e-6;
        if (room && (fmod(c->x_high, steps[i]) == 0 || c->x_high > 128)) step = steps[i];
    }
    for (size_t i = 0; i < sizeof steps / sizeof *steps && step == 0; i++)
        if (x_of(c, steps[i]) - x_of(c, 0) >= widest - 1e-6) step = steps[i];
    if (step == 0) step = ceil(c->x_high / 8);
    tick.across = CT_ALIGN_MIDDLE;
    tick.down = CT_ALIGN_BEGIN;
    for (double k = 0; k <= c->x_high && n < 16; k += step) {
        ct_xy line[2] = {{x_of(c, k), base[0].y}, {x_of(c, k), base[0].y + 3}};
        ct_canvas_line(canvas, line, 2, 0.8, CT_DASH_SOLID, AXIS);
        labels[n] = ct_strf(err, "%.0f", k);
        if (!labels[n]) {
            st = CT_ERR_MEMORY;
            goto done;
        }
        places[n++] = (ct_xy){x_of(c, k), base[0].y + 6};
    }
    ct_axis_labels(canvas, &tick, places, labels, n, 3);
done:
    for (size_t i = 0; i < n; i++) free(labels[i]);
    return st;
}

/* Calls for every run of neighbouring points that have prompts: a k whose cells all failed is a gap
 * in the line, not a guess. */
static size_t segment(const ct_series *s, size_t *begin)
{
    const ct_stats_version *v = s->version;
    while (*begin < v->n_points && !v->points[*begin].prompts) ++*begin;
    size_t end = *begin;
    while (end < v->n_points && v->points[end].prompts) end++;
    return end;
}

static void whisker(ct_canvas *canvas, ct_xy low, ct_xy high, double cap, ct_ink ink)
{
    bool across = low.y == high.y;
    ct_xy line[2] = {low, high};
    ct_canvas_line(canvas, line, 2, 0.9, CT_DASH_SOLID, ink);
    for (int i = 0; i < 2; i++) {
        ct_xy at = line[i];
        ct_xy end[2] = {{at.x - (across ? 0 : cap), at.y - (across ? cap : 0)},
                        {at.x + (across ? 0 : cap), at.y + (across ? cap : 0)}};
        ct_canvas_line(canvas, end, 2, 0.9, CT_DASH_SOLID, ink);
    }
}

/* Bands for up to three lines, bars beyond and for points without neighbours. */
static ct_status interval_draw(ct_canvas *canvas, const ct_chart *c, const ct_series *s, bool bands,
                               ct_err *err)
{
    const ct_stats_version *v = s->version;
    unsigned rgb = entry_rgb(&c->entries[s->style]);
    ct_xy *outline = calloc(2 * v->n_points, sizeof *outline);
    if (!outline) return ct_fail_memory(err, "band", 2 * v->n_points * sizeof *outline);
    for (size_t begin = 0, end; end = segment(s, &begin), begin < v->n_points; begin = end) {
        size_t n = end - begin;
        for (size_t i = 0; i < n; i++) {
            const ct_point *p = &v->points[begin + i];
            double x = s->at[begin + i].x;
            outline[i] = (ct_xy){x, y_of(c, p->high)};
            outline[2 * n - 1 - i] = (ct_xy){x, y_of(c, p->low)};
            if ((bands && n > 1) || p->prompts < 2) continue;
            whisker(canvas, outline[2 * n - 1 - i], outline[i], 2, (ct_ink){rgb, 0.75});
        }
        if (bands && n > 1) ct_canvas_polygon(canvas, outline, 2 * n, (ct_ink){rgb, 0.16});
    }
    free(outline);
    return CT_OK;
}

/* larger: how many steps its line and markers are above the common size. */
static void series_draw(ct_canvas *canvas, const ct_chart *c, const ct_series *s, double larger)
{
    const ct_stats_version *v = s->version;
    const ct_entry *e = &c->entries[s->style];
    ct_ink ink = {entry_rgb(e), 1};
    if (s->reference) {
        double y = y_of(c, v->points[0].accuracy);
        ct_xy level[2] = {{c->plot.x, y}, {c->plot.x + c->plot.width, y}};
        ct_canvas_line(canvas, level, 2, 1.2, CT_DASH_DOT, ink);
        return;
    }
    for (size_t begin = 0, end; end = segment(s, &begin), begin < v->n_points; begin = end)
        ct_canvas_line(canvas, s->at + begin, end - begin, 1.4 + 0.9 * larger, entry_dash(e), ink);
    /* Markers that would touch are thinned out; where depends on the line, so that two lines on
     * top of each other show in turn. */
    double spacing =
        v->n_points > 1 ? (s->at[v->n_points - 1].x - s->at[0].x) / (double)(v->n_points - 1) : 100;
    size_t every = spacing >= 7 ? 1 : (size_t)ceil(9 / fmax(spacing, 0.1));
    for (size_t i = 0; i < v->n_points; i++)
        if (v->points[i].prompts && (i + e->mark * ((every + 1) / 2)) % every == 0)
            ct_canvas_marker(canvas, (ct_marker)(e->mark % CT_MARKER_COUNT), s->at[i],
                             2.7 + 1.3 * larger, ink.rgb);
}

/* ---- labels beside the lines ----------------------------------------------------------------- */

/* Distance between a box and the upright line from (x, high) down to (x, low). */
static double upright_distance(double x, double high, double low, ct_box b)
{
    double dx = fmax(0, fmax(b.x - x, x - b.x - b.width));
    double dy = fmax(0, fmax(b.y - low, high - b.y - b.height));
    return hypot(dx, dy);
}

/* Distance from a box to a line with its interval, measured at steps of at most 2 points. */
static double series_distance(const ct_chart *c, const ct_series *s, ct_box box)
{
    double nearest = 1e9;
    const ct_stats_version *v = s->version;
    if (s->reference) {
        double y = y_of(c, v->points[0].accuracy);
        return fmax(0, fmax(box.y - y, y - box.y - box.height));
    }
    for (size_t i = 0; i < v->n_points; i++) {
        const ct_point *a = &v->points[i], *b = a;
        if (!a->prompts) continue;
        size_t next = i + 1 < v->n_points && v->points[i + 1].prompts ? i + 1 : i;
        b = &v->points[next];
        double dx = s->at[next].x - s->at[i].x;
        int steps = 1 + (int)(fabs(dx) / 2);
        for (int t = 0; t <= steps; t++) {
            double f = (double)t / steps;
            double high = y_of(c, a->high + f * (b->high - a->high)) - 1;
            double low = y_of(c, a->low + f * (b->low - a->low)) + 1;
            nearest = fmin(nearest, upright_distance(s->at[i].x + f * dx, high, low, box));
        }
    }
    return nearest;
}

enum { DIRECT_MAX = 4 };

typedef struct ct_direct {
    ct_text_style style;
    ct_xy at;
    ct_box box;
} ct_direct;

/* Finds the place for series s: 3 to 8 points from its own line, clear of the labels before it, and
 * as far as can be from other lines; false if there is none. */
static bool direct_place(ct_canvas *canvas, const ct_chart *c, size_t s, ct_direct *labels)
{
    enum { STEPS = 40 };
    const char *text = c->entries[c->series[s].style].label;
    const double bottom = c->plot.y + c->plot.height;
    double best = -1;
    for (int step = 1; step < STEPS; step++) {
        double x = c->plot.x + c->plot.width * step / STEPS;
        ct_box box = ct_canvas_measure(canvas, &labels[s].style, x, 0, text);
        if (box.x < c->plot.x + 3 || box.x + box.width > c->plot.x + c->plot.width - 3) continue;
        for (double y = c->plot.y + 10; y < bottom - 10; y += 2) {
            ct_box at = {box.x, box.y + y, box.width, box.height};
            ct_box wide = {at.x - 5, at.y - 5, at.width + 10, at.height + 10};
            double near = series_distance(c, &c->series[s], at), others = 40;
            if (near < 3 || near > 8) continue;
            for (size_t o = 0; o < c->n_series; o++)
                if (o != s) others = fmin(others, series_distance(c, &c->series[o], at));
            for (size_t t = 0; t < s; t++)
                if (ct_box_meets(wide, labels[t].box)) others = 0;
            if (others < near + 6 || others - near <= best) continue;
            best = others - near;
            labels[s].box = at;
            labels[s].at = (ct_xy){x, y};
        }
    }
    return best >= 0;
}

/* Labels are drawn only if every line gets one: a half labelled figure misleads. */
static void direct_labels(ct_canvas *canvas, const ct_chart *c)
{
    ct_direct labels[DIRECT_MAX];
    if (c->n_panels != 1 || c->n_series < 2 || c->n_series > DIRECT_MAX) return;
    for (size_t s = 0; s < c->n_series; s++) {
        labels[s].style = CT_TEXT_LABEL;
        labels[s].style.bold = true;
        labels[s].style.rgb = entry_rgb(&c->entries[c->series[s].style]);
        labels[s].style.across = labels[s].style.down = CT_ALIGN_MIDDLE;
        if (!direct_place(canvas, c, s, labels)) return;
    }
    for (size_t s = 0; s < c->n_series; s++)
        ct_canvas_text(canvas, &labels[s].style, labels[s].at.x, labels[s].at.y,
                       c->entries[c->series[s].style].label);
}

/* ---- the figure ------------------------------------------------------------------------------ */

/* The model above its panel, and at the right how many heads its layers have where k is varied. */
static ct_status panel_title(ct_canvas *canvas, const ct_chart *c, size_t panel, ct_err *err)
{
    size_t i = 0;
    while (c->panel_of[i] != panel) i++;
    const ct_stats_version *v = c->series[i].version;
    const double y = c->plot.y - 13;
    double right = c->plot.x + c->plot.width;
    bool swept = false;
    for (size_t n = i; n < c->n_series && c->panel_of[n] == panel; n++)
        swept |= !c->series[n].reference;
    if (swept && v->heads > 0) {
        ct_text_style number = CT_TEXT_TICK;
        number.across = CT_ALIGN_END;
        char *text = ct_strf(err, "H = %lld", (long long)v->heads);
        if (!text) return CT_ERR_MEMORY;
        right = ct_canvas_text(canvas, &number, right, y, text).x - 5;
        free(text);
    }
    ct_text_style style = CT_TEXT_LABEL;
    style.bold = true;
    style.max_width = fmax(right - c->plot.x, 12);
    ct_canvas_text(canvas, &style, c->plot.x, y, v->model);
    return CT_OK;
}

/* What k counts, and of how many heads where all models on one pair of axes have as many. */
static ct_status x_label_draw(ct_canvas *canvas, const ct_chart *c, double x, double y, ct_err *err)
{
    ct_text_style style = CT_TEXT_LABEL;
    style.across = CT_ALIGN_MIDDLE;
    style.down = CT_ALIGN_BEGIN;
    int64_t heads = 0;
    bool one = true;
    for (size_t i = 0; i < c->n_series; i++) {
        int64_t own = c->series[i].reference ? 0 : c->series[i].version->heads;
        one &= !heads || !own || own == heads;
        heads = own ? own : heads;
    }
    static const char words[] = "heads kept in each attention layer, k";
    char *text = c->n_panels > 1    ? ct_strf(err, "%s of H", words)
                 : one && heads > 0 ? ct_strf(err, "%s of %lld", words, (long long)heads)
                                    : ct_strdup(words, err);
    if (!text) return CT_ERR_MEMORY;
    ct_canvas_text(canvas, &style, x, y, text);
    free(text);
    return CT_OK;
}

static ct_status panel_draw(ct_canvas *canvas, ct_chart *c, size_t panel, bool with_y, ct_err *err)
{
    ct_status st = CT_OK;
    c->x_high = 0;
    size_t lines = 0;
    for (size_t i = 0; i < c->n_series; i++) {
        const ct_series *s = &c->series[i];
        if (c->panel_of[i] != panel) continue;
        lines += !s->reference;
        if (!s->reference) c->x_high = fmax(c->x_high, 1);
        for (size_t p = 0; p < s->version->n_points; p++)
            c->x_high = fmax(c->x_high, (double)s->version->points[p].keep_heads);
    }
    if (c->n_panels > 1) CT_TRY(panel_title(canvas, c, panel, err));
    CT_TRY(axes_draw(canvas, c, with_y, err));
    for (size_t i = 0; i < c->n_series; i++) {
        const ct_series *s = &c->series[i];
        if (c->panel_of[i] != panel) continue;
        for (size_t p = 0; p < s->version->n_points; p++)
            s->at[p] = (ct_xy){x_of(c, (double)s->version->points[p].keep_heads),
                               y_of(c, s->version->points[p].accuracy)};
        if (!s->reference) CT_TRY(interval_draw(canvas, c, s, lines <= 3, err));
    }
    /* The first version is drawn last and lies on top; those below it are a little larger, so that
     * lines with the same values all show. */
    size_t below = lines <= 3 ? lines : 0;
    for (size_t i = c->n_series; i-- > 0;)
        if (c->panel_of[i] == panel) {
            if (below && !c->series[i].reference) below--;
            series_draw(canvas, c, &c->series[i], (double)below);
        }
    direct_labels(canvas, c);
done:
    return st;
}

ct_status ct_draw_accuracy(ct_canvas *canvas, const ct_figure *figure, ct_err *err)
{
    enum { LEFT = 40, BETWEEN = 16, X_AXIS = 17 };
    ct_status st = CT_OK;
    ct_chart c;
    double y;
    CT_TRY(chart_init(&c, figure, err));
    CT_TRY(legend_draw(canvas, &c, ct_figure_title(canvas, figure), &y, err));
    size_t columns = c.n_panels < 3 ? c.n_panels : c.n_panels == 4 ? 2 : 3;
    const double heights[] = {0, 205, 165, 140};
    const double all = CT_FIGURE_WIDTH - 2 * M - LEFT;
    double width = (all - BETWEEN * (double)(columns - 1)) / (double)columns;
    ct_text_style style = CT_TEXT_LABEL;
    style.across = CT_ALIGN_MIDDLE;
    style.down = CT_ALIGN_BEGIN;
    style.upwards = true;
    y += 8;
    for (size_t panel = 0; panel < c.n_panels; panel++) {
        size_t column = panel % columns;
        if (panel && !column) y += c.plot.height + X_AXIS + 8;
        if (!column && c.n_panels > 1) y += 13;
        c.plot =
            (ct_box){M + LEFT + (double)column * (width + BETWEEN), y, width, heights[columns]};
        if (!column) ct_canvas_text(canvas, &style, M, y + c.plot.height / 2, "accuracy, %");
        CT_TRY(panel_draw(canvas, &c, panel, !column, err));
    }
    y += c.plot.height + X_AXIS + 5;
    CT_TRY(x_label_draw(canvas, &c, M + LEFT + all / 2, y, err));
    y = ct_figure_caption(canvas, figure, y + 18);
    ct_canvas_set_size(canvas, CT_FIGURE_WIDTH, y + M);
done:
    chart_clear(&c);
    return st;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static ct_status row_draw(ct_canvas *canvas, ct_chart *c, const ct_stats_version *v,
                          const char *label, double y, double label_width, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf text = {0};
    const ct_point *p = &v->points[v->n_points - 1];
    const double left = c->plot.x + INSET_X, width = c->plot.width - 2 * INSET_X;
    ct_text_style style = CT_TEXT_LABEL;
    style.down = CT_ALIGN_MIDDLE;
    style.max_width = label_width;
    ct_canvas_text(canvas, &style, M, y, label);
    if (p->prompts >= 2)
        whisker(canvas, (ct_xy){left + width * p->low, y}, (ct_xy){left + width * p->high, y}, 2.2,
                (ct_ink){ct_series_rgb(0), 0.8});
    ct_canvas_marker(canvas, CT_MARKER_CIRCLE, (ct_xy){left + width * p->accuracy, y}, 2.9,
                     ct_series_rgb(0));
    style.max_width = 0;
    style.across = CT_ALIGN_END;
    CT_TRY(ct_label_fixed(&text, 100 * p->accuracy, 1, err));
    ct_canvas_text(canvas, &style, CT_FIGURE_WIDTH - M, y, text.data);
    ct_buf_clear(&text);
    CT_TRY(ct_buf_addf(&text, err, "%zu", p->prompts));
    style.rgb = CT_TEXT_CAPTION.rgb;
    ct_canvas_text(canvas, &style, CT_FIGURE_WIDTH - M - 62, y, text.data);
done:
    ct_buf_clear(&text);
    return st;
}

ct_status ct_draw_rows(ct_canvas *canvas, const ct_figure *figure, ct_err *err)
{
    enum { ROW = 15, NUMBERS = 112 };
    ct_status st = CT_OK;
    ct_chart c;
    ct_buf label = {0};
    double y = ct_figure_title(canvas, figure) + 2, label_width = 0;
    CT_TRY(chart_init(&c, figure, err));
    ct_text_style style = CT_TEXT_LABEL, tick = CT_TEXT_TICK;
    for (size_t i = 0; i < c.n_series; i++) {
        ct_box box = ct_canvas_measure(canvas, &style, 0, 0, c.entries[c.series[i].style].label);
        label_width = fmin(fmax(label_width, box.width + 2), 190);
    }
    unsigned all,
        mask = ct_label_differing(figure->stats, figure->versions, figure->n_versions, &all);
    bool pairs = mask == CT_FIELD_WEIGHTS;
    if (pairs) label_width = fmax(label_width, 98); /* the column's heading */
    c.plot = (ct_box){M + label_width + 8, y + 14, 0, 0};
    c.plot.width = CT_FIGURE_WIDTH - M - NUMBERS - c.plot.x;
    tick.down = CT_ALIGN_MIDDLE;
    if (pairs) ct_canvas_text(canvas, &tick, M, y + 5, "generation \xE2\x80\x93 prefill");
    tick.across = CT_ALIGN_END;
    ct_canvas_text(canvas, &tick, CT_FIGURE_WIDTH - M, y + 5, "accuracy, %");
    ct_canvas_text(canvas, &tick, CT_FIGURE_WIDTH - M - 62, y + 5, "prompts");

    size_t rows = c.n_series + (c.n_panels > 1 ? c.n_panels : 0);
    c.plot.height = ROW * (double)rows;
    tick.across = CT_ALIGN_MIDDLE;
    tick.down = CT_ALIGN_BEGIN;
    for (int percent = 0; percent <= 100; percent += 20) {
        double x = c.plot.x + INSET_X + (c.plot.width - 2 * INSET_X) * percent / 100;
        ct_xy line[2] = {{x, c.plot.y}, {x, c.plot.y + c.plot.height}};
        char text[8];
        snprintf(text, sizeof text, "%d", percent);
        ct_canvas_line(canvas, line, 2, 0.6, CT_DASH_SOLID, GRID);
        ct_canvas_text(canvas, &tick, x, c.plot.y + c.plot.height + 6, text);
    }
    y = c.plot.y + ROW / 2.0;
    for (size_t i = 0; i < c.n_series; i++, y += ROW) {
        if (c.n_panels > 1 && (i == 0 || c.panel_of[i] != c.panel_of[i - 1])) {
            ct_text_style heading = CT_TEXT_LABEL;
            heading.bold = true;
            heading.down = CT_ALIGN_MIDDLE;
            heading.max_width = label_width;
            ct_canvas_text(canvas, &heading, M, y, c.series[i].version->model);
            y += ROW;
        }
        CT_TRY(row_draw(canvas, &c, c.series[i].version, c.entries[c.series[i].style].label, y,
                        label_width, err));
    }
    style.across = CT_ALIGN_MIDDLE;
    y = c.plot.y + c.plot.height + 20;
    ct_canvas_text(canvas, &style, c.plot.x + c.plot.width / 2, y, "accuracy, %");
    y = ct_figure_caption(canvas, figure, y + 18);
    ct_canvas_set_size(canvas, CT_FIGURE_WIDTH, y + M);
done:
    ct_buf_clear(&label);
    chart_clear(&c);
    return st;
}
