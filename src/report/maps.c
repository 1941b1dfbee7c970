/* maps.c - retrieval maps: mean score by prompt length and depth of the needle.
 *
 * Owns the layout of one map or many small ones on a figure, and the scale of colours. Depth 0, the
 * beginning of the context, is at the top. See figure.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "report/figure.h"
#include "report/label.h"

#define M CT_FIGURE_MARGIN

enum { Y_LABELS = 40, X_LABELS = 14, TITLE = 14, GAP_X = 12, GAP_Y = 12 };

static const ct_ink HATCH = {0x8A8A8A, 1}, EMPTY = {0xF1F1F1, 1}, WINDOW = {0x1A1A1A, 1};

/* 0..1 to the colour between red, amber and pale cyan, linear in sRGB. Lightness rises all the way,
 * also for colour-blind eyes and on grey paper; dark text keeps a contrast of 4.5 on each. The same
 * stops are in page.js. */
static unsigned scale_rgb(double at)
{
    static const int stops[3][3] = {{0xE6, 0x48, 0x6A}, {0xF2, 0xB2, 0x4A}, {0x98, 0xEC, 0xE2}};
    at = fmin(fmax(at, 0), 1) * 2;
    int i = at < 1 ? 0 : 1;
    unsigned rgb = 0;
    for (int c = 0; c < 3; c++) {
        double value = stops[i][c] + (at - i) * (stops[i + 1][c] - stops[i][c]);
        rgb = rgb << 8 | (unsigned)lround(value);
    }
    return rgb;
}

/* A score in a cell: whole numbers without decimals. */
static ct_status score_text(double score, ct_buf *out, ct_err *err)
{
    double tenths = round(score * 10) / 10;
    ct_buf_clear(out);
    return ct_label_fixed(out, tenths, tenths == floor(tenths) ? 0 : 1, err);
}

static ct_box cell_box(const ct_retrieval *map, ct_box area, size_t at)
{
    double w = area.width / (double)map->n_lengths, h = area.height / (double)map->n_depths;
    /* A hair of white between cells, where they are large enough to spare it. */
    double hair = w > 6 && h > 6 ? 0.5 : 0;
    return (ct_box){area.x + (double)(at % map->n_lengths) * w + hair / 2,
                    area.y + (double)(at / map->n_lengths) * h + hair / 2, w - hair, h - hair};
}

static ct_status cells_fill(ct_canvas *canvas, const ct_retrieval *map, ct_box area, ct_err *err)
{
    size_t places = map->n_depths * map->n_lengths;
    ct_box *boxes = calloc(places, sizeof *boxes);
    bool *filled = calloc(places, sizeof *filled);
    ct_status st = boxes && filled ? CT_OK : ct_fail_memory(err, "map", places * sizeof *boxes);
    for (size_t at = 0; at < places && st == CT_OK; at++) {
        if (!map->counts[at]) {
            ct_canvas_fill(canvas, cell_box(map, area, at), EMPTY);
            ct_canvas_hatch(canvas, cell_box(map, area, at), HATCH);
            continue;
        }
        if (filled[at]) continue;
        unsigned rgb = scale_rgb(map->mean[at] / map->max_score);
        size_t n = 0;
        for (size_t other = at; other < places; other++) {
            if (filled[other] || !map->counts[other] ||
                scale_rgb(map->mean[other] / map->max_score) != rgb)
                continue;
            filled[other] = true;
            boxes[n++] = cell_box(map, area, other);
        }
        ct_canvas_fill_all(canvas, boxes, n, (ct_ink){rgb, 1});
    }
    free(boxes);
    free(filled);
    return st;
}

/* Scores are written into the cells only if the widest would fit every cell. */
static ct_status cells_draw(ct_canvas *canvas, const ct_retrieval *map, ct_box area, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf text = {0};
    ct_text_style style = CT_TEXT_TICK;
    style.rgb = 0x1A1A1A;
    style.across = style.down = CT_ALIGN_MIDDLE;
    CT_TRY(cells_fill(canvas, map, area, err));
    ct_box cell = cell_box(map, area, 0);
    ct_box widest =
        ct_canvas_measure(canvas, &style, 0, 0, map->max_score >= 9.95 ? "88.8" : "8.8");
    if (widest.width + 3 > cell.width || widest.height + 4 > cell.height) goto done;
    for (size_t at = 0; at < map->n_depths * map->n_lengths; at++) {
        if (!map->counts[at]) continue;
        cell = cell_box(map, area, at);
        CT_TRY(score_text(map->mean[at], &text, err));
        ct_canvas_text(canvas, &style, cell.x + cell.width / 2, cell.y + cell.height / 2,
                       text.data);
    }
done:
    ct_buf_clear(&text);
    return st;
}

/* The window's edge lies between two columns: the last whose prompts it covers whole and the first
 * whose it does not. Where all columns are on one side nothing is drawn. */
static bool window_draw(ct_canvas *canvas, const ct_retrieval *map, ct_box area, int64_t window)
{
    size_t inside = 0;
    while (inside < map->n_lengths && map->tokens[inside] <= window) inside++;
    if (window <= 0 || !inside || inside == map->n_lengths) return false;
    double x = area.x + area.width * (double)inside / (double)map->n_lengths;
    ct_xy line[2] = {{x, area.y - 1}, {x, area.y + area.height + 1}};
    ct_canvas_line(canvas, line, 2, 1, CT_DASH_LONG, WINDOW);
    return true;
}

/* Labels along one side of a map: lengths below it, or depths to its left. */
static ct_status side_draw(ct_canvas *canvas, const int64_t *values, size_t n, ct_box area,
                           bool depths, ct_err *err)
{
    ct_status st = CT_OK;
    ct_xy *at = calloc(n, sizeof *at);
    char **texts = calloc(n, sizeof *texts);
    ct_text_style style = CT_TEXT_TICK;
    style.across = depths ? CT_ALIGN_END : CT_ALIGN_MIDDLE;
    style.down = depths ? CT_ALIGN_MIDDLE : CT_ALIGN_BEGIN;
    if (!at || !texts) {
        st = ct_fail_memory(err, "axis", n * sizeof *at);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        double middle = ((double)i + 0.5) / (double)n;
        at[i] = depths ? (ct_xy){area.x - 4, area.y + area.height * middle}
                       : (ct_xy){area.x + area.width * middle, area.y + area.height + 4};
        texts[i] = ct_strf(err, "%lld", (long long)values[i]);
        if (!texts[i]) {
            st = CT_ERR_MEMORY;
            goto done;
        }
        /* Labels at the ends stay under their map, or nearly: the next map's begin beside it. */
        ct_box box = ct_canvas_measure(canvas, &style, at[i].x, at[i].y, texts[i]);
        const double over = GAP_X / 4.0;
        if (!depths && box.width < area.width)
            at[i].x += fmax(0, area.x - over - box.x) -
                       fmax(0, box.x + box.width - area.x - area.width - over);
    }
    ct_axis_labels(canvas, &style, at, texts, n, depths ? 2.5 : 4);
done:
    for (size_t i = 0; texts && i < n; i++) free(texts[i]);
    free(texts);
    free(at);
    return st;
}

/* Colour bar, and what hatching and the dashed line mean; returns the y below. */
static ct_status key_draw(ct_canvas *canvas, double max_score, bool missing, int64_t window,
                          double x, double y, double *below, ct_err *err)
{
    enum { BAR = 110, HIGH = 8, STEPS = 55 };
    ct_status st = CT_OK;
    ct_buf text = {0};
    ct_text_style label = CT_TEXT_TICK;
    label.down = CT_ALIGN_MIDDLE;
    ct_box box = ct_canvas_text(canvas, &label, x, y + HIGH / 2.0, "mean score");
    x = box.x + box.width + 8;
    for (int i = 0; i < STEPS; i++) /* each step lies under the next: no seams */
        ct_canvas_fill(
            canvas, (ct_box){x + BAR * (double)i / STEPS, y, BAR * (1 - (double)i / STEPS), HIGH},
            (ct_ink){scale_rgb((i + 0.5) / STEPS), 1});
    label.across = CT_ALIGN_MIDDLE;
    label.down = CT_ALIGN_BEGIN;
    int ticks = max_score == floor(max_score) && max_score <= 10 ? (int)max_score : 2;
    for (int i = 0; i <= ticks; i++) {
        double at = x + BAR * (double)i / ticks;
        CT_TRY(score_text(max_score * i / ticks, &text, err));
        ct_xy line[2] = {{at, y + HIGH}, {at, y + HIGH + 2}};
        ct_canvas_line(canvas, line, 2, 0.6, CT_DASH_SOLID, (ct_ink){0x404040, 1});
        ct_canvas_text(canvas, &label, at, y + HIGH + 4, text.data);
    }
    x += BAR + 24;
    label.across = CT_ALIGN_BEGIN;
    label.down = CT_ALIGN_MIDDLE;
    if (missing) {
        ct_box sample = {x, y - 1, 14, HIGH + 2};
        ct_canvas_fill(canvas, sample, EMPTY);
        ct_canvas_hatch(canvas, sample, HATCH);
        box = ct_canvas_text(canvas, &label, x + 19, y + HIGH / 2.0, "no result");
        x = box.x + box.width + 18;
    }
    if (window > 0) {
        ct_xy line[2] = {{x + 1, y - 3}, {x + 1, y + HIGH + 3}};
        ct_canvas_line(canvas, line, 2, 1, CT_DASH_LONG, WINDOW);
        ct_buf_clear(&text);
        CT_TRY(ct_buf_addf(&text, err, "attention window, %lld tokens", (long long)window));
        label.max_width = CT_FIGURE_WIDTH - M - x - 7;
        ct_canvas_text(canvas, &label, x + 7, y + HIGH / 2.0, text.data);
    }
    *below = y + HIGH + 12;
done:
    ct_buf_clear(&text);
    return st;
}

/* How many maps from the first on have its prefill mode, or its model. */
static size_t row_of(const ct_figure *f, bool mode)
{
    const ct_stats_version *first = &f->stats->versions[f->panels[0].version];
    size_t run = 1;
    for (; run < f->n_panels; run++) {
        const ct_stats_version *v = &f->stats->versions[f->panels[run].version];
        if (mode ? strcmp(v->weights_prefill, first->weights_prefill) != 0
                 : v->model_index != first->model_index)
            break;
    }
    return run;
}

/* Whether all maps have the lengths and depths of the first; else each has labels of its own. */
static bool alike(const ct_figure *f)
{
    const ct_stats_version *first = &f->stats->versions[f->panels[0].version];
    for (size_t i = 1; i < f->n_panels; i++) {
        const ct_stats_version *v = &f->stats->versions[f->panels[i].version];
        if (v->n_lengths != first->n_lengths || v->n_depths != first->n_depths ||
            memcmp(v->lengths, first->lengths, v->n_lengths * sizeof *v->lengths) != 0 ||
            memcmp(v->depths, first->depths, v->n_depths * sizeof *v->depths) != 0)
            return false;
    }
    return true;
}

/* How many maps stand side by side, and how large each is. */
static void grid_choose(const ct_figure *f, size_t n_lengths, size_t n_depths, double gap_x,
                        size_t *columns, double *width, double *height)
{
    size_t n = f->n_panels;
    *columns = n <= 3 ? n : n <= 12 ? 4 : n <= 20 ? 5 : 6;
    /* A row for each prefill mode, as in Table 6.1, or for each model, if that is what they form. */
    size_t run = row_of(f, true);
    if (run == n) run = row_of(f, false);
    if (f->n_versions == n && run >= 2 && run <= 6 && n % run == 0 && n > run) *columns = run;
    double all = CT_FIGURE_WIDTH - 2 * M - Y_LABELS;
    *width = (all - gap_x * (double)(*columns - 1)) / (double)*columns;
    /* Cells about square; a single map is flatter, and its cells wide enough for numbers. */
    double square = *width * (double)n_depths / (double)n_lengths;
    *height = fmin(fmax(square, *width * 0.45), *width * 1.3);
    if (*columns == 1) *height = fmin(*height, 200);
    if (*columns == 1 && n_depths <= 14) *height = fmax(15 * (double)n_depths, 60);
    if (*columns == 2) *height = fmin(*height, 170);
}

/* "keep - null" with an en dash as "keep-null". */
static void tighten(char *title)
{
    static const char spaced[] = " \xE2\x80\x93 ";
    char *dash = strstr(title, spaced);
    if (!dash) return;
    memmove(dash, dash + 1, 3);
    memmove(dash + 3, dash + sizeof spaced - 1, strlen(dash + sizeof spaced - 1) + 1);
}

/* The title on the left above each map and its accuracy on the right. Narrow maps go without the
 * sign for per cent, then without bold letters, then without blanks around a dash, all of a figure
 * alike. */
static ct_status titles_draw(ct_canvas *canvas, const ct_figure *f, const ct_box *areas,
                             ct_err *err)
{
    enum { FULL, NO_SIGN, PLAIN, TIGHT, DRAW };
    int form = FULL;
    for (int pass = FULL; pass <= DRAW; pass++)
        for (size_t i = 0; i < f->n_panels && (pass == form || pass == DRAW); i++) {
            const ct_map_panel *panel = &f->panels[i];
            double right = areas[i].x + areas[i].width, y = areas[i].y - 10;
            ct_text_style title = CT_TEXT_TICK, number = CT_TEXT_TICK;
            title.rgb = number.rgb = 0x1A1A1A;
            title.bold = form < PLAIN;
            number.across = CT_ALIGN_END;
            bool sign = form == FULL && strcmp(panel->accuracy, "failed") != 0;
            char *text = ct_strf(err, "%s%s", panel->accuracy, sign ? " %" : "");
            char *name = ct_strdup(panel->title, err);
            if (!text || !name) {
                free(text);
                free(name);
                return CT_ERR_MEMORY;
            }
            if (form == TIGHT) tighten(name);
            ct_box left = ct_canvas_measure(canvas, &title, areas[i].x, y, name);
            ct_box box = pass == DRAW ? ct_canvas_text(canvas, &number, right, y, text)
                                      : ct_canvas_measure(canvas, &number, right, y, text);
            free(text);
            if (left.x + left.width + 6 > box.x && form == pass && form < TIGHT) form++;
            title.max_width = fmax(box.x - areas[i].x - 4, 12);
            if (pass == DRAW) ct_canvas_text(canvas, &title, areas[i].x, y, name);
            free(name);
        }
    return CT_OK;
}

ct_status ct_draw_maps(ct_canvas *canvas, const ct_figure *figure, ct_err *err)
{
    ct_status st = CT_OK;
    ct_retrieval map = {0};
    double y = ct_figure_title(canvas, figure), width = 0, height = 0, max_score = 0;
    size_t columns = 1, n = figure->n_panels;
    bool missing = false;
    const bool shared =
        alike(figure); /* labels on the left and below the last row serve all maps */
    const double gap_x = shared ? GAP_X : GAP_X + Y_LABELS - 16;
    const double gap_y = shared ? GAP_Y : GAP_Y + X_LABELS;
    int64_t window = 0; /* of a map in which it was drawn */
    ct_box *areas = calloc(n, sizeof *areas);
    if (!areas) return ct_fail_memory(err, "maps", n * sizeof *areas);
    for (size_t i = 0; i < n; i++) {
        const ct_stats_version *v = &figure->stats->versions[figure->panels[i].version];
        if (!i) grid_choose(figure, v->n_lengths, v->n_depths, gap_x, &columns, &width, &height);
        max_score = fmax(max_score, v->max_score);
    }
    double bottom = 0;
    for (size_t i = 0; i < n; i++) {
        const ct_map_panel *panel = &figure->panels[i];
        size_t row = i / columns, column = i % columns;
        ct_box area = {M + Y_LABELS + (double)column * (width + gap_x),
                       y + TITLE + (double)row * (height + TITLE + gap_y), width, height};
        ct_retrieval_clear(&map);
        CT_TRY(ct_stats_retrieval(figure->stats, panel->version, panel->keep_heads, &map, err));
        map.max_score = max_score; /* one scale of colours for the whole figure */
        areas[i] = area;
        CT_TRY(cells_draw(canvas, &map, area, err));
        int64_t own = figure->stats->versions[panel->version].window;
        if (window_draw(canvas, &map, area, own)) window = own;
        missing |= map.missing > 0;
        if (!column || !shared)
            CT_TRY(side_draw(canvas, map.depths, map.n_depths, area, true, err));
        if (i + columns >= n || !shared)
            CT_TRY(side_draw(canvas, map.lengths, map.n_lengths, area, false, err));
        bottom = fmax(bottom, area.y + area.height);
    }
    CT_TRY(titles_draw(canvas, figure, areas, err));
    ct_text_style label = CT_TEXT_LABEL;
    label.across = CT_ALIGN_MIDDLE;
    label.upwards = true;
    const char *depth = bottom - y - TITLE < 100 ? "depth, %" : "depth of the needle, %";
    ct_canvas_text(canvas, &label, M, (y + TITLE + bottom) / 2, depth);
    label.upwards = false;
    double middle = M + Y_LABELS + (CT_FIGURE_WIDTH - 2 * M - Y_LABELS) / 2;
    y = bottom + X_LABELS + 6;
    ct_canvas_text(canvas, &label, middle, y, "prompt length, tokens");
    CT_TRY(key_draw(canvas, max_score, missing, window, M + Y_LABELS, y + 18, &y, err));
    y = ct_figure_caption(canvas, figure, y + 12);
    ct_canvas_set_size(canvas, CT_FIGURE_WIDTH, y + M);
done:
    free(areas);
    ct_retrieval_clear(&map);
    return st;
}
