/* recorded.c - attention weights before and after their edit. See recorded.h. */
#include "report/recorded.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "io/safetensors.h"
#include "report/figure.h"
#include "report/label.h"
#include "report/tables.h"

#define M CT_FIGURE_MARGIN

enum {
    LEAST_AROUND = 12, /* positions on either side of the needle, */
    MOST_SHOWN = 400   /* and in all */
};

/* ---- recordings ------------------------------------------------------------------------------ */

/* A recording with weights and a needle. */
typedef struct source {
    ct_st_file *file;
    const ct_st_tensor *before, *after, *layers; /* [R, L, H, K], [R, L, H, K], [L] */
    const char *stage;
    int64_t row, position, begin, end;
} source;

static const ct_st_tensor *tensor_of(const ct_st_file *file, const char *stage, const char *name,
                                     const char *dtype, int rank)
{
    char full[64];
    snprintf(full, sizeof full, "%s%s%s", stage, *stage ? "." : "", name);
    const ct_st_tensor *t = ct_st_find(file, full);
    return t && !strcmp(t->dtype, dtype) && t->rank == rank && t->count > 0 ? t : NULL;
}

static int32_t int_at(const ct_st_tensor *t, int64_t i)
{
    int32_t x;
    memcpy(&x, (const char *)t->data + i * (int64_t)sizeof x, sizeof x);
    return x;
}

/* The weight of a key, 0 behind the row's last one. */
static float weight_at(const source *s, const ct_st_tensor *t, int64_t head, int64_t key)
{
    float x;
    int64_t heads = t->shape[1] * t->shape[2], keys = t->shape[3];
    if (key >= keys) return 0;
    memcpy(&x, (const char *)t->data + ((s->row * heads + head) * keys + key) * (int64_t)sizeof x,
           sizeof x);
    return isfinite(x) ? x : 0;
}

/* The first row of generation, or else the last one of prefill. */
static bool find_row(source *s)
{
    static const char *const stages[] = {"generation", "prefill"};
    for (int i = 0; i < 2; i++) {
        const ct_st_tensor *positions = tensor_of(s->file, stages[i], "positions", "I32", 1);
        s->stage = stages[i];
        s->before = tensor_of(s->file, stages[i], "weights_before", "F32", 4);
        s->after = tensor_of(s->file, stages[i], "weights_after", "F32", 4);
        if (!positions || !s->before || !s->after || positions->count != s->before->shape[0] ||
            memcmp(s->before->shape, s->after->shape, 4 * sizeof *s->before->shape) != 0)
            continue;
        s->row = i == 0 ? 0 : positions->count - 1;
        s->position = int_at(positions, s->row);
        return true;
    }
    return false;
}

/* Opens a cell's recording; *serves is false if there is none that can be drawn. */
static ct_status source_open(const char *path, source *out, bool *serves, ct_err *err)
{
    ct_err why = {0};
    *out = (source){0};
    *serves = false;
    if (access(path, R_OK) != 0) return CT_OK;
    ct_status st = ct_st_open(path, &out->file, &why);
    if (st == CT_ERR_MEMORY && err) *err = why;
    if (st != CT_OK) return st == CT_ERR_MEMORY ? st : CT_OK;
    const ct_st_tensor *needle = tensor_of(out->file, "", "needle", "I32", 2);
    out->layers = tensor_of(out->file, "", "layers", "I32", 1);
    *serves = needle && out->layers && needle->shape[1] == 2 && find_row(out) &&
              out->before->shape[1] == out->layers->count;
    if (*serves) {
        out->begin = int_at(needle, 0);
        out->end = int_at(needle, 1);
        *serves = 0 <= out->begin && out->begin < out->end && out->end <= out->before->shape[3];
    }
    if (!*serves) ct_st_close(out->file);
    return CT_OK;
}

static ct_status open_cell(const ct_report_runs *runs, size_t cell, source *out, bool *found,
                           ct_err *err)
{
    *found = false;
    for (size_t r = 0; r < runs->n && !*found; r++) {
        if (!runs->runs[r].dir) continue; /* cells from an array */
        char *path = ct_strf(err, "%s/recordings/%s.safetensors", runs->runs[r].dir,
                             runs->stats->cells[cell].key);
        if (!path) return CT_ERR_MEMORY;
        ct_status st = source_open(path, out, found, err);
        free(path);
        if (st != CT_OK) return st;
    }
    return CT_OK;
}

/* ---- figures --------------------------------------------------------------------------------- */

/* What the first panel's recording says for all: place of the needle, row, head. Of the first recorded layer,
 * since in later ones the edits of those below have changed the weights before the edit, too. */
static void begin_figure(ct_recorded *f, const source *s)
{
    int64_t best = 0;
    double most = -1;
    for (int64_t h = 0; h < s->before->shape[2]; h++) {
        double sum = 0;
        for (int64_t k = s->begin; k < s->end; k++) sum += weight_at(s, s->before, h, k);
        if (sum > most) most = sum, best = h;
    }
    f->stage = s->stage;
    f->position = s->position;
    f->layer = int_at(s->layers, 0);
    f->head = best;
    f->begin = s->begin;
    f->end = s->end;
    int64_t size = s->end - s->begin, around = size > LEAST_AROUND ? size : LEAST_AROUND;
    f->first = s->begin > around ? s->begin - around : 0;
    int64_t last = s->end + around < s->position + 1 ? s->end + around : s->position + 1;
    if (last < s->end) last = s->end;
    f->n = last - f->first < MOST_SHOWN ? last - f->first : MOST_SHOWN;
}

static ct_status add_panel(ct_recorded *f, const source *s, size_t cell, ct_err *err)
{
    ct_recorded_panel *p = &f->panels[f->n_panels];
    *p = (ct_recorded_panel){.cell = cell};
    p->before = malloc((size_t)f->n * sizeof *p->before);
    p->after = malloc((size_t)f->n * sizeof *p->after);
    f->n_panels++;
    if (!p->before || !p->after)
        return ct_fail_memory(err, "figure", (size_t)f->n * sizeof *p->before);
    for (int64_t i = 0; i < f->n; i++) {
        p->before[i] = weight_at(s, s->before, f->head, f->first + i);
        p->after[i] = weight_at(s, s->after, f->head, f->first + i);
        f->most = fmax(f->most, fmax(p->before[i], p->after[i]));
    }
    return CT_OK;
}

/* Whether a cell's recording goes with the figure's first one. */
static bool goes_with(const ct_stats *stats, const ct_recorded *f, size_t cell)
{
    const ct_stats_cell *a = &stats->cells[f->panels[0].cell], *b = &stats->cells[cell];
    return !strcmp(a->prompt, b->prompt) && a->seed == b->seed && a->keep_heads == b->keep_heads &&
           stats->versions[a->version].model_index == stats->versions[b->version].model_index;
}

/* Puts a cell's recording into the figure of its prompt, or begins one. */
static ct_status add_cell(const ct_report_runs *runs, size_t cell, const source *s,
                          ct_recorded *figures, size_t *n, ct_err *err)
{
    for (size_t i = 0; i < *n; i++) {
        ct_recorded *f = &figures[i];
        if (!goes_with(runs->stats, f, cell)) continue;
        bool same = !strcmp(f->stage, s->stage) && f->position == s->position &&
                    f->head < s->before->shape[2];
        if (same && f->n_panels < CT_RECORDED_PANELS) return add_panel(f, s, cell, err);
        f->n_more++;
        return CT_OK;
    }
    if (*n == CT_RECORDED_FIGURES) return CT_OK;
    begin_figure(&figures[*n], s);
    return add_panel(&figures[(*n)++], s, cell, err);
}

void ct_recorded_free(ct_recorded *figures, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t p = 0; p < figures[i].n_panels; p++) {
            free(figures[i].panels[p].title);
            free(figures[i].panels[p].before);
            free(figures[i].panels[p].after);
        }
        free(figures[i].name);
        free(figures[i].title);
        free(figures[i].caption);
        free(figures[i].description);
    }
    free(figures);
}

/* Titles, caption and description; `at` of n figures. */
static ct_status name_figure(const ct_report_runs *runs, ct_recorded *f, size_t at, ct_err *err)
{
    const ct_stats *stats = runs->stats;
    ct_status st;
    ct_buf text = {0};
    size_t versions[CT_RECORDED_PANELS];
    unsigned all;
    for (size_t p = 0; p < f->n_panels; p++) versions[p] = stats->cells[f->panels[p].cell].version;
    unsigned mask = ct_label_differing(stats, versions, f->n_panels, &all);
    const ct_stats_cell *cell = &stats->cells[f->panels[0].cell];
    const ct_stats_version *v = &stats->versions[cell->version];
    for (size_t p = 0; p < f->n_panels; p++) {
        ct_buf_clear(&text);
        CT_TRY(ct_label_version(&stats->versions[versions[p]], mask, &text, err));
        f->panels[p].title = ct_buf_take(&text);
        if (!f->panels[p].title) CT_TRY(ct_fail_memory(err, "figure", 1));
    }
    f->name = at == 0 ? ct_strdup("attention_weights", err)
                      : ct_strf(err, "attention_weights_%zu", at + 1);
    f->title = ct_strdup("Attention weights before and after their edit", err);
    CT_TRY(ct_buf_addf(&text, err, "%s; ", v->model));
    CT_TRY(ct_label_shared(v, all | CT_FIELD_MODEL, &text, err));
    CT_TRY(ct_buf_addf(&text, err,
                       ". One prompt, length %" PRId64 ", depth %" PRId64
                       " %%; the token at position %" PRId64 ", in %s. Layer %" PRId64
                       ", head %" PRId64
                       ", the first recorded layer's head with the most weight on the needle.",
                       cell->length, cell->depth, f->position, f->stage, f->layer, f->head));
    if (f->n_more > 0)
        CT_TRY(ct_buf_addf(&text, err, " %zu more recordings of this prompt are on the page.",
                           f->n_more));
    f->caption = ct_buf_take(&text);
    CT_TRY(ct_buf_addf(&text, err, "Weights of positions %" PRId64 " to %" PRId64 "; ", f->first,
                       f->first + f->n - 1));
    for (size_t p = 0; p < f->n_panels; p++) {
        double sums[2] = {0, 0};
        for (int64_t i = f->begin - f->first; i < f->end - f->first && i < f->n; i++)
            sums[0] += f->panels[p].before[i], sums[1] += f->panels[p].after[i];
        CT_TRY(ct_buf_addf(&text, err, "%s%s: on the needle ", p ? "; " : "", f->panels[p].title));
        CT_TRY(ct_label_fixed(&text, sums[0], 3, err));
        CT_TRY(ct_buf_adds(&text, " before, ", err));
        CT_TRY(ct_label_fixed(&text, sums[1], 3, err));
        CT_TRY(ct_buf_adds(&text, " after", err));
    }
    f->description = ct_buf_take(&text);
    if (!f->name || !f->title || !f->caption || !f->description)
        st = ct_fail_memory(err, "figure", 1);
done:
    ct_buf_clear(&text);
    return st;
}

ct_status ct_recorded_new(const ct_report_runs *runs, ct_recorded **out, size_t *n, ct_err *err)
{
    ct_status st = CT_OK;
    *n = 0;
    *out = calloc(CT_RECORDED_FIGURES, sizeof **out);
    if (!*out) return ct_fail_memory(err, "figures", CT_RECORDED_FIGURES * sizeof **out);
    for (size_t i = 0; i < runs->stats->n_cells; i++) {
        source s;
        bool found;
        CT_TRY(open_cell(runs, i, &s, &found, err));
        if (!found) continue;
        st = add_cell(runs, i, &s, *out, n, err);
        ct_st_close(s.file);
        if (st != CT_OK) goto done;
    }
    for (size_t i = 0; i < *n; i++) {
        if (!((*out)[i].most > 0)) (*out)[i].most = 1; /* nothing but zeros */
        CT_TRY(name_figure(runs, &(*out)[i], i, err));
    }
done:
    if (st == CT_OK) return st;
    ct_recorded_free(*out, *n);
    *out = NULL;
    *n = 0;
    return st;
}

/* ---- drawing --------------------------------------------------------------------------------- */

static const ct_ink NEEDLE = {0xF6DE8A, 1}, BEFORE = {0x6A6A6A, 1}, AXIS = {0x404040, 1};
enum { HIGH = 96, GAP_X = 28, GAP_Y = 40, Y_LABELS = 40, HEAD = 16 };

static ct_xy place(const ct_recorded *f, ct_box plot, int64_t i, double weight)
{
    return (ct_xy){plot.x + plot.width * ((double)i + 0.5) / (double)f->n,
                   plot.y + plot.height * (1 - weight / f->most)};
}

static ct_status line_draw(ct_canvas *canvas, const ct_recorded *f, ct_box plot, const float *w,
                           ct_dash dash, ct_ink ink, ct_err *err)
{
    ct_xy *points = malloc((size_t)f->n * sizeof *points);
    if (!points) return ct_fail_memory(err, "line", (size_t)f->n * sizeof *points);
    for (int64_t i = 0; i < f->n; i++) points[i] = place(f, plot, i, w[i]);
    ct_canvas_line(canvas, points, (size_t)f->n, 1.2, dash, ink);
    free(points);
    return CT_OK;
}

/* Positions at the ends and of the needle's first token, below a panel. */
static ct_status positions_draw(ct_canvas *canvas, const ct_recorded *f, ct_box plot, ct_err *err)
{
    const int64_t shown[] = {0, f->begin - f->first, f->n - 1};
    ct_text_style style = CT_TEXT_TICK;
    ct_box before = {0};
    for (int i = 0; i < 3; i++) {
        style.across = i == 0 ? CT_ALIGN_BEGIN : i == 1 ? CT_ALIGN_MIDDLE : CT_ALIGN_END;
        char *text = ct_strf(err, "%" PRId64, f->first + shown[i]);
        if (!text) return CT_ERR_MEMORY;
        ct_xy at = place(f, plot, shown[i], 0);
        ct_box box = ct_canvas_measure(canvas, &style, at.x, at.y + 4, text);
        ct_box wide = {box.x - 4, box.y, box.width + 8, box.height};
        if (i == 0 || !ct_box_meets(wide, before))
            before = ct_canvas_text(canvas, &style, at.x, at.y + 4, text);
        free(text);
    }
    return CT_OK;
}

static ct_status panel_draw(ct_canvas *canvas, const ct_recorded *f, const ct_recorded_panel *p,
                            ct_box plot, bool labelled, ct_err *err)
{
    ct_status st;
    ct_buf text = {0};
    ct_text_style title = CT_TEXT_LABEL, tick = CT_TEXT_TICK;
    title.bold = true;
    title.max_width = plot.width;
    title.down = CT_ALIGN_END;
    ct_canvas_text(canvas, &title, plot.x, plot.y - 6, p->title);
    double w = plot.width / (double)f->n;
    ct_box band = {plot.x + (double)(f->begin - f->first) * w, plot.y,
                   (double)(f->end - f->begin) * w, plot.height};
    if (band.x + band.width > plot.x + plot.width) band.width = plot.x + plot.width - band.x;
    ct_canvas_fill(canvas, band, NEEDLE);
    ct_xy axis[2] = {{plot.x, plot.y + plot.height}, {plot.x + plot.width, plot.y + plot.height}};
    ct_canvas_line(canvas, axis, 2, 0.8, CT_DASH_SOLID, AXIS);
    CT_TRY(line_draw(canvas, f, plot, p->after, CT_DASH_SOLID, (ct_ink){ct_series_rgb(0), 1}, err));
    CT_TRY(line_draw(canvas, f, plot, p->before, CT_DASH_DOT, BEFORE, err));
    CT_TRY(positions_draw(canvas, f, plot, err));
    tick.across = CT_ALIGN_END;
    tick.down = CT_ALIGN_MIDDLE;
    ct_text_style side = CT_TEXT_LABEL;
    side.upwards = true;
    side.across = side.down = CT_ALIGN_MIDDLE;
    if (labelled) ct_canvas_text(canvas, &side, M + 5, plot.y + plot.height / 2, "weight");
    for (int i = 0; i < 2 && labelled; i++) {
        ct_buf_clear(&text);
        CT_TRY(ct_label_fixed(&text, i ? f->most : 0, i ? 2 : 0, err));
        ct_canvas_text(canvas, &tick, plot.x - 4, plot.y + (i ? 0 : plot.height), text.data);
    }
done:
    ct_buf_clear(&text);
    return st;
}

static double legend_draw(ct_canvas *canvas, double y)
{
    static const char *const words[] = {"before the edit", "after it", "the needle's tokens"};
    ct_text_style style = CT_TEXT_LABEL;
    style.down = CT_ALIGN_MIDDLE;
    double x = M, middle = y + 5;
    for (int i = 0; i < 3; i++) {
        ct_xy line[2] = {{x, middle}, {x + 24, middle}};
        if (i == 2) ct_canvas_fill(canvas, (ct_box){x, middle - 4, 24, 8}, NEEDLE);
        else
            ct_canvas_line(canvas, line, 2, 1.2, i ? CT_DASH_SOLID : CT_DASH_DOT,
                           i ? (ct_ink){ct_series_rgb(0), 1} : BEFORE);
        ct_box box = ct_canvas_text(canvas, &style, x + 30, middle, words[i]);
        x = box.x + box.width + 20;
    }
    return y + 18;
}

ct_status ct_recorded_draw(ct_canvas *canvas, const void *figure, ct_err *err)
{
    const ct_recorded *f = figure;
    ct_status st = CT_OK;
    const size_t columns = f->n_panels > 1 ? 2 : 1, rows = (f->n_panels + columns - 1) / columns;
    const ct_figure frame = {.title = f->title, .caption = f->caption};
    double y = legend_draw(canvas, ct_figure_title(canvas, &frame)) + HEAD;
    double wide =
        (CT_FIGURE_WIDTH - 2 * M - Y_LABELS - (double)(columns - 1) * GAP_X) / (double)columns;
    for (size_t p = 0; p < f->n_panels; p++) {
        size_t column = p % columns, row = p / columns;
        ct_box plot = {M + Y_LABELS + (double)column * (wide + GAP_X),
                       y + (double)row * (HIGH + GAP_Y), wide, HIGH};
        CT_TRY(panel_draw(canvas, f, &f->panels[p], plot, column == 0, err));
    }
    y += (double)rows * (HIGH + GAP_Y) - GAP_Y + 18;
    ct_text_style style = CT_TEXT_LABEL;
    style.across = CT_ALIGN_MIDDLE;
    ct_box box = ct_canvas_text(canvas, &style, CT_FIGURE_WIDTH / 2, y, "position of the key");
    y = ct_figure_caption(canvas, &frame, box.y + box.height + 12);
    ct_canvas_set_size(canvas, CT_FIGURE_WIDTH, y + M);
done:
    return st;
}

ct_status ct_recorded_csv(const ct_recorded *f, ct_buf *out, ct_err *err)
{
    ct_status st;
    CT_TRY(ct_buf_adds(out, "version,position,needle,before,after\n", err));
    for (size_t p = 0; p < f->n_panels; p++)
        for (int64_t i = 0; i < f->n; i++) {
            int64_t position = f->first + i;
            CT_TRY(ct_csv_text(out, f->panels[p].title, err));
            CT_TRY(ct_buf_addf(out, err, ",%" PRId64 ",%d,", position,
                               position >= f->begin && position < f->end));
            CT_TRY(ct_label_fixed(out, f->panels[p].before[i], 6, err));
            CT_TRY(ct_buf_adds(out, ",", err));
            CT_TRY(ct_label_fixed(out, f->panels[p].after[i], 6, err));
            CT_TRY(ct_buf_adds(out, "\n", err));
        }
done:
    return st;
}
