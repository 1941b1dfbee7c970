/* figure.c - the plan of figures, their words and their CSV. See figure.h. */
#include "report/figure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "report/label.h"
#include "report/tables.h"

const ct_text_style CT_TEXT_TITLE = {.size = 10.5, .bold = true, .rgb = 0x1A1A1A};
const ct_text_style CT_TEXT_LABEL = {.size = 9, .rgb = 0x1A1A1A};
const ct_text_style CT_TEXT_TICK = {.size = 8, .rgb = 0x404040};
const ct_text_style CT_TEXT_CAPTION = {.size = 8, .rgb = 0x505050};

unsigned ct_series_rgb(size_t series)
{
    static const unsigned inks[CT_SERIES_INKS] = {0x0072B2, 0xD55E00, 0x009E73, 0xCC79A7,
                                                  0x56B4E9, 0xB98700, 0x1A1A1A, 0x7A7A7A};
    return inks[series % CT_SERIES_INKS];
}

double ct_figure_title(ct_canvas *canvas, const ct_figure *figure)
{
    ct_text_style style = CT_TEXT_TITLE;
    style.max_width = CT_FIGURE_WIDTH - 2 * CT_FIGURE_MARGIN;
    ct_canvas_text(canvas, &style, CT_FIGURE_MARGIN, CT_FIGURE_MARGIN, figure->title);
    return CT_FIGURE_MARGIN + 0.75 * style.size + 10;
}

double ct_figure_caption(ct_canvas *canvas, const ct_figure *figure, double y)
{
    ct_text_style style = CT_TEXT_CAPTION;
    style.max_width = CT_FIGURE_WIDTH - 2 * CT_FIGURE_MARGIN;
    style.wrap = true;
    ct_box box = ct_canvas_text(canvas, &style, CT_FIGURE_MARGIN, y, figure->caption);
    return box.y + box.height;
}

/* Whether the labels 0, stride, 2 stride ... all keep their distance. */
static bool labels_fit(ct_canvas *canvas, const ct_text_style *style, const ct_xy *at,
                       char *const *texts, size_t n, size_t stride, double gap)
{
    ct_box before = {0};
    for (size_t i = 0; i < n; i += stride) {
        ct_box box = ct_canvas_measure(canvas, style, at[i].x, at[i].y, texts[i]);
        ct_box wide = {box.x - gap, box.y - gap, box.width + 2 * gap, box.height + 2 * gap};
        if (i && ct_box_meets(wide, before)) return false;
        before = box;
    }
    return true;
}

void ct_axis_labels(ct_canvas *canvas, const ct_text_style *style, const ct_xy *at,
                    char *const *texts, size_t n, double gap)
{
    size_t stride = 1;
    while (stride < n && !labels_fit(canvas, style, at, texts, n, stride, gap)) stride++;
    /* A somewhat larger stride that ends on the last label looks better than one that does not. */
    for (size_t s = stride; n > 1 && s <= 3 * stride; s++)
        if ((n - 1) % s == 0 && labels_fit(canvas, style, at, texts, n, s, gap)) {
            stride = s;
            break;
        }
    ct_box before = {0};
    for (size_t i = 0; i < n; i++) {
        if (i % stride != 0 && i + 1 != n) continue;
        ct_box box = ct_canvas_measure(canvas, style, at[i].x, at[i].y, texts[i]);
        ct_box wide = {box.x - gap, box.y - gap, box.width + 2 * gap, box.height + 2 * gap};
        if (i && ct_box_meets(wide, before)) continue; /* the last, too near */
        before = ct_canvas_text(canvas, style, at[i].x, at[i].y, texts[i]);
    }
}

/* ---- plan ------------------------------------------------------------------------------------ */

static bool edits(const ct_stats_version *v)
{
    return strcmp(v->weights_generation, "keep") != 0 || strcmp(v->weights_prefill, "keep") != 0;
}

static bool selects(const ct_stats_version *v)
{
    return v->n_points && v->points[v->n_points - 1].keep_heads >= 0;
}

/* A version that accuracy against k can show: a sweep, or one k without anything else done. */
static bool swept(const ct_stats_version *v)
{
    return selects(v) && (v->n_points >= 2 || !edits(v));
}

typedef struct ct_plan {
    ct_figure *figures;
    size_t n, capacity;
} ct_plan;

static ct_status plan_add(ct_plan *plan, ct_figure_kind kind, const ct_stats *stats,
                          ct_figure **out, ct_err *err)
{
    if (plan->n == plan->capacity) {
        size_t capacity = plan->capacity ? plan->capacity * 2 : 16;
        ct_figure *figures = realloc(plan->figures, capacity * sizeof *figures);
        if (!figures) return ct_fail_memory(err, "figures", capacity * sizeof *figures);
        plan->figures = figures;
        plan->capacity = capacity;
    }
    ct_figure *figure = &plan->figures[plan->n++];
    *figure = (ct_figure){.kind = kind, .stats = stats};
    figure->versions = calloc(stats->n_versions, sizeof *figure->versions);
    if (!figure->versions) return ct_fail_memory(err, "figure", stats->n_versions);
    *out = figure;
    return CT_OK;
}

static ct_status failed_note(const ct_figure *figure, ct_buf *out, ct_err *err)
{
    size_t failed = 0, all = 0;
    for (size_t i = 0; i < figure->n_versions; i++) {
        const ct_stats_version *v = &figure->stats->versions[figure->versions[i]];
        for (size_t p = 0; p < v->n_points; p++) {
            bool shown = figure->kind != CT_FIGURE_MAPS;
            for (size_t k = 0; k < figure->n_panels && !shown; k++)
                shown = figure->panels[k].version == figure->versions[i] &&
                        figure->panels[k].keep_heads == v->points[p].keep_heads;
            if (!shown) continue;
            failed += v->points[p].failed;
            all += v->points[p].failed + v->points[p].cells;
        }
    }
    if (!failed) return CT_OK;
    return ct_buf_addf(out, err, " %zu of %zu cells failed and are left out.", failed, all);
}

/* Takes over what a ct_buf holds as one of a figure's texts. */
static ct_status text_take(ct_buf *buf, char **out, ct_err *err)
{
    *out = ct_buf_take(buf);
    return *out ? CT_OK : ct_fail_memory(err, "text", 1);
}

static ct_status name_figure(ct_figure *f, const char *name, const char *title, ct_err *err)
{
    f->name = ct_strdup(name, err);
    f->title = ct_strdup(title, err);
    return f->name && f->title ? CT_OK : CT_ERR_MEMORY;
}

ct_status ct_figure_studies(const ct_figure *f, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t n = 0;
    ct_buf names = {0};
    for (size_t i = 0; i < f->n_versions; i++) {
        const char *name = f->stats->versions[f->versions[i]].study;
        bool told = !*name;
        for (size_t j = 0; j < i && !told; j++)
            told = strcmp(f->stats->versions[f->versions[j]].study, name) == 0;
        if (told) continue;
        CT_TRY(ct_buf_addf(&names, err, "%s%s", n++ ? ", " : "", name));
    }
    if (n) CT_TRY(ct_buf_addf(out, err, "%s%s", n > 1 ? "studies " : "study ", names.data));
done:
    ct_buf_clear(&names);
    return st;
}

/* Caption = what the versions share, their studies, then `note`, then failures. */
static ct_status caption(ct_figure *f, const char *note, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf buf = {0};
    unsigned all;
    ct_label_differing(f->stats, f->versions, f->n_versions, &all);
    CT_TRY(ct_label_shared(&f->stats->versions[f->versions[0]], all, &buf, err));
    if (all & CT_FIELD_STUDY) { /* else it is among what they share */
        if (buf.size) CT_TRY(ct_buf_adds(&buf, "; ", err));
        CT_TRY(ct_figure_studies(f, &buf, err));
    }
    if (all & CT_FIELD_STAGES) {
        if (buf.size) CT_TRY(ct_buf_adds(&buf, "; ", err));
        CT_TRY(ct_buf_adds(&buf, "named by the stages in which heads are selected", err));
    }
    CT_TRY(ct_buf_addf(&buf, err, "%s%s", buf.size ? ". " : "", note));
    CT_TRY(failed_note(f, &buf, err));
    CT_TRY(text_take(&buf, &f->caption, err));
done:
    ct_buf_clear(&buf);
    return st;
}

/* What accuracy and its interval are, and how many seeds a prompt's score is the mean of. */
static ct_status accuracy_caption(ct_figure *f, const char *interval, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf note = {0};
    size_t seeds = 1;
    for (size_t i = 0; i < f->n_versions; i++) {
        const ct_stats_version *v = &f->stats->versions[f->versions[i]];
        for (const ct_point *p = v->points; p < v->points + v->n_points; p++)
            while (p->cells > seeds * p->prompts) seeds++;
    }
    CT_TRY(
        ct_buf_addf(&note, err,
                    "Accuracy: mean score over prompts / maximum score; %s: 95\xC2\xA0%% bootstrap "
                    "interval over prompts.",
                    interval));
    if (seeds > 1)
        CT_TRY(ct_buf_addf(&note, err, " A prompt run with up to %zu seeds counts with its mean.",
                           seeds));
    CT_TRY(caption(f, note.data, err));
done:
    ct_buf_clear(&note);
    return st;
}

static ct_status describe_accuracy(ct_figure *f, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf buf = {0};
    unsigned all, mask = ct_label_differing(f->stats, f->versions, f->n_versions, &all);
    CT_TRY(ct_buf_adds(&buf, "Accuracy in per cent.", err));
    for (size_t i = 0; i < f->n_versions; i++) {
        const ct_stats_version *v = &f->stats->versions[f->versions[i]];
        CT_TRY(ct_buf_adds(&buf, " ", err));
        CT_TRY(ct_label_version(v, mask, &buf, err));
        for (size_t p = 0; p < v->n_points; p++) {
            if (!v->points[p].prompts) continue;
            CT_TRY(ct_buf_adds(&buf, p ? ", " : ": ", err));
            if (v->points[p].keep_heads >= 0)
                CT_TRY(ct_buf_addf(&buf, err, "k = %lld: ", (long long)v->points[p].keep_heads));
            CT_TRY(ct_label_fixed(&buf, 100 * v->points[p].accuracy, 1, err));
        }
        CT_TRY(ct_buf_adds(&buf, ".", err));
    }
    CT_TRY(text_take(&buf, &f->description, err));
done:
    ct_buf_clear(&buf);
    return st;
}

static ct_status plan_accuracy(ct_plan *plan, const ct_stats *stats, ct_err *err)
{
    ct_status st = CT_OK;
    ct_figure *f;
    bool any = false, any_edit = false, rows = false;
    size_t models = 0; /* in the figure by heads; versions stand by model */
    const ct_stats_version *last = NULL;
    for (size_t i = 0; i < stats->n_versions; i++) {
        const ct_stats_version *v = &stats->versions[i];
        if (!v->cells) continue;
        if (swept(v) || !edits(v)) {
            models += !last || last->model_index != v->model_index;
            last = v;
        }
        any |= swept(&stats->versions[i]);
        rows |= !swept(&stats->versions[i]);
        any_edit |= !swept(&stats->versions[i]) && edits(&stats->versions[i]);
    }
    for (int overlay = 0; overlay < (models > 1 ? 2 : 1) && any; overlay++) {
        CT_TRY(plan_add(plan, CT_FIGURE_ACCURACY, stats, &f, err));
        f->overlay = overlay;
        for (size_t i = 0; i < stats->n_versions; i++) {
            const ct_stats_version *v = &stats->versions[i];
            /* An untouched run is a line of reference beside the sweeps. */
            if (v->cells && (swept(v) || !edits(v))) f->versions[f->n_versions++] = i;
        }
        CT_TRY(name_figure(f, overlay ? "accuracy_by_heads_overlay" : "accuracy_by_heads",
                           overlay ? "Accuracy by number of heads kept, all models"
                                   : "Accuracy by number of heads kept",
                           err));
        CT_TRY(accuracy_caption(f, "band or bar", err));
        CT_TRY(describe_accuracy(f, err));
    }
    if (rows && (any_edit || !any)) {
        CT_TRY(plan_add(plan, CT_FIGURE_ROWS, stats, &f, err));
        for (size_t i = 0; i < stats->n_versions; i++)
            if (stats->versions[i].cells && (!swept(&stats->versions[i])))
                f->versions[f->n_versions++] = i;
        CT_TRY(name_figure(f, "accuracy_by_weights",
                           any_edit ? "Accuracy by edit of the attention weights" : "Accuracy",
                           err));
        CT_TRY(accuracy_caption(f, "bars", err));
        CT_TRY(describe_accuracy(f, err));
    }
done:
    return st;
}

/* Adds a map of one point; label NULL: "k = 3". */
static ct_status panel_add(ct_figure *f, size_t version, const ct_point *p, const char *label,
                           ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf accuracy = {0};
    ct_map_panel *panel = &f->panels[f->n_panels++];
    *panel = (ct_map_panel){.version = version, .keep_heads = p->keep_heads};
    if (!f->n_versions || f->versions[f->n_versions - 1] != version)
        f->versions[f->n_versions++] = version;
    if (label) panel->title = ct_strdup(label, err);
    else if (p->keep_heads < 0) panel->title = ct_strdup("no head selection", err);
    else panel->title = ct_strf(err, "k = %lld", (long long)p->keep_heads);
    double percent = 100 * p->accuracy;
    if (p->prompts)
        CT_TRY(ct_label_fixed(&accuracy, percent, percent <= 0 || percent >= 100 ? 0 : 1, err));
    else CT_TRY(ct_buf_adds(&accuracy, "failed", err));
    CT_TRY(text_take(&accuracy, &panel->accuracy, err));
    if (!panel->title) st = CT_ERR_MEMORY;
done:
    ct_buf_clear(&accuracy);
    return st;
}

static ct_status describe_maps(ct_figure *f, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf buf = {0};
    CT_TRY(ct_buf_adds(&buf,
                       "Mean score by prompt length (across) and depth of the needle (down). "
                       "Accuracy of each map in per cent: ",
                       err));
    for (size_t i = 0; i < f->n_panels; i++)
        CT_TRY(ct_buf_addf(&buf, err, "%s%s: %s", i ? "; " : "", f->panels[i].title,
                           f->panels[i].accuracy));
    CT_TRY(ct_buf_adds(&buf, ".", err));
    CT_TRY(text_take(&buf, &f->description, err));
done:
    ct_buf_clear(&buf);
    return st;
}

/* How many prompts each map has, what its places are, and what a length means where a prompt is read twice. */
static ct_status map_caption(ct_figure *f, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf note = {0};
    size_t least = 0, most = 0, answers = 0;
    bool twice = false;
    for (size_t i = 0; i < f->n_panels; i++) {
        const ct_stats_version *v = &f->stats->versions[f->panels[i].version];
        const ct_point *p = ct_stats_point(v, f->panels[i].keep_heads);
        twice |= v->read_twice;
        if (!p->prompts) continue;
        if (!most || p->prompts < least) least = p->prompts;
        if (p->prompts > most) most = p->prompts;
        answers = p->cells > p->prompts ? p->cells : answers;
    }
    if (least == most) CT_TRY(ct_buf_addf(&note, err, "%zu prompt%s", most, most == 1 ? "" : "s"));
    else CT_TRY(ct_buf_addf(&note, err, "%zu\xE2\x80\x93%zu prompts", least, most));
    CT_TRY(ct_buf_addf(&note, err,
                       "%s. Colour: %s; number above a map: accuracy in per cent; "
                       "depth 0\xC2\xA0%% is the beginning of the context%s.",
                       f->n_panels > 1 ? " a map" : "", answers ? "mean score over seeds" : "score",
                       twice ? "; the length is that of one copy of the prompt" : ""));
    CT_TRY(caption(f, note.data, err));
done:
    ct_buf_clear(&note);
    return st;
}

static bool mappable(const ct_stats_version *v)
{
    return v->cells && v->n_lengths <= CT_RETRIEVAL_MAX / v->n_depths;
}

/* The maps of one version: all k on one figure, and one figure for each k if there are several. */
static ct_status plan_version_maps(ct_plan *plan, const ct_stats *stats, size_t v,
                                   bool shown_together, const char *slug, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_stats_version *version = &stats->versions[v];
    ct_buf name = {0}, heading = {0};
    unsigned all, mask = ct_label_differing(stats, NULL, stats->n_versions, &all);
    size_t figures = version->n_points > 1 ? version->n_points + 1 : 1;
    for (size_t i = 0; i < figures; i++) {
        ct_figure *f;
        const ct_point *only = i ? &version->points[i - 1] : NULL;
        if (only && !only->prompts) continue;
        CT_TRY(plan_add(plan, CT_FIGURE_MAPS, stats, &f, err));
        f->single = only || shown_together;
        f->panels = calloc(version->n_points, sizeof *f->panels);
        if (!f->panels) {
            st = ct_fail_memory(err, "maps", version->n_points);
            goto done;
        }
        for (size_t p = 0; p < version->n_points; p++) {
            if (only && only != &version->points[p]) continue;
            CT_TRY(panel_add(f, v, &version->points[p], NULL, err));
        }
        ct_buf_clear(&name);
        ct_buf_clear(&heading);
        CT_TRY(ct_buf_addf(&name, err, "retrieval_map_%s", slug));
        /* Two digits at least, so that a folder lists them in order. */
        if (only && only->keep_heads < 0) CT_TRY(ct_buf_adds(&name, "_all", err));
        else if (only) CT_TRY(ct_buf_addf(&name, err, "_k%02lld", (long long)only->keep_heads));
        CT_TRY(ct_buf_addf(&heading, err, "Retrieval map%s: ", f->n_panels > 1 ? "s" : ""));
        CT_TRY(ct_label_version(version, mask, &heading, err));
        CT_TRY(name_figure(f, name.data, heading.data, err));
        CT_TRY(map_caption(f, err));
        CT_TRY(describe_maps(f, err));
    }
done:
    ct_buf_clear(&name);
    ct_buf_clear(&heading);
    return st;
}

/* Places of the modes in Table 6.1, as versions are ordered by them. */
static bool prefill_later(const ct_stats_version *a, const ct_stats_version *b)
{
    static const char *const modes[] = {"keep", "omit", "only", "binary", "null"};
    size_t x = 0, y = 0;
    if (a->model_index != b->model_index || strcmp(a->stages, b->stages) != 0 ||
        strcmp(a->metric, b->metric) != 0)
        return false;
    while (x < 5 && strcmp(a->weights_prefill, modes[x]) != 0) x++;
    while (y < 5 && strcmp(b->weights_prefill, modes[y]) != 0) y++;
    return x > y;
}

/* Versions are ordered by generation mode, then prefill mode; a grid of maps reads as Table 6.1 does, a row
 * for each prefill mode. */
static void order_as_table(const ct_stats *stats, size_t *chosen, size_t n)
{
    for (size_t i = 1; i < n; i++)
        for (size_t j = i; j > 0; j--) {
            size_t before = chosen[j - 1];
            if (!prefill_later(&stats->versions[before], &stats->versions[chosen[j]])) break;
            chosen[j - 1] = chosen[j];
            chosen[j] = before;
        }
}

/* Versions with one k each stand on one figure together, as in the thesis's Figure D.1. */
static ct_status plan_weight_maps(ct_plan *plan, const ct_stats *stats, bool *made, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf label = {0};
    ct_figure *f;
    size_t n = 0, *chosen = calloc(stats->n_versions, sizeof *chosen);
    if (!chosen) return ct_fail_memory(err, "maps", stats->n_versions);
    for (size_t i = 0; i < stats->n_versions; i++)
        if (!swept(&stats->versions[i]) && mappable(&stats->versions[i])) chosen[n++] = i;
    *made = n >= 2;
    if (!*made) goto done;
    order_as_table(stats, chosen, n);
    CT_TRY(plan_add(plan, CT_FIGURE_MAPS, stats, &f, err));
    f->panels = calloc(n, sizeof *f->panels);
    if (!f->panels) {
        st = ct_fail_memory(err, "maps", n);
        goto done;
    }
    unsigned all, mask = ct_label_differing(stats, chosen, n, &all);
    for (size_t i = 0; i < n; i++) {
        const ct_stats_version *v = &stats->versions[chosen[i]];
        ct_buf_clear(&label);
        CT_TRY(ct_label_version(v, mask, &label, err));
        CT_TRY(panel_add(f, chosen[i], &v->points[v->n_points - 1], label.data, err));
    }
    CT_TRY(name_figure(f, "retrieval_maps_by_weights",
                       "Retrieval maps by edit of the attention weights (generation \xE2\x80\x93 "
                       "prefill)",
                       err));
    CT_TRY(map_caption(f, err));
    CT_TRY(describe_maps(f, err));
done:
    free(chosen);
    ct_buf_clear(&label);
    return st;
}

/* The maps of all sweeps at one k, beside each other: the thesis's Figures B.1 to B.3. They stand on the page
 * where they are few; there are files of all. */
static ct_status plan_maps_by_k(ct_plan *plan, const ct_stats *stats, ct_err *err)
{
    enum { SHOWN = 5 };
    ct_status st = CT_OK;
    ct_buf label = {0};
    char *name = NULL, *title = NULL;
    size_t first = plan->n, *chosen = calloc(stats->n_versions + 1, sizeof *chosen);
    if (!chosen) return ct_fail_memory(err, "maps", stats->n_versions);
    for (int64_t k = -1; ct_stats_next_k(stats, 0, stats->n_versions, k, &k);) {
        ct_figure *f;
        size_t n = 0;
        for (size_t v = 0; v < stats->n_versions; v++) {
            const ct_stats_version *version = &stats->versions[v];
            const ct_point *p = ct_stats_point(version, k);
            if (p && p->prompts && swept(version) && mappable(version)) chosen[n++] = v;
        }
        if (n < 2) continue;
        CT_TRY(plan_add(plan, CT_FIGURE_MAPS, stats, &f, err));
        f->panels = calloc(n, sizeof *f->panels);
        if (!f->panels) {
            st = ct_fail_memory(err, "maps", n);
            goto done;
        }
        unsigned all, mask = ct_label_differing(stats, chosen, n, &all);
        for (size_t i = 0; i < n; i++) {
            ct_buf_clear(&label);
            CT_TRY(ct_label_version(&stats->versions[chosen[i]], mask, &label, err));
            CT_TRY(panel_add(f, chosen[i], ct_stats_point(&stats->versions[chosen[i]], k),
                             label.data, err));
        }
        free(name);
        free(title);
        name = ct_strf(err, "retrieval_maps_k%02lld", (long long)k);
        title = ct_strf(err, "Retrieval maps at k = %lld", (long long)k);
        if (!name || !title) {
            st = CT_ERR_MEMORY;
            goto done;
        }
        CT_TRY(name_figure(f, name, title, err));
        CT_TRY(map_caption(f, err));
        CT_TRY(describe_maps(f, err));
    }
    for (size_t i = first; i < plan->n; i++) plan->figures[i].single = plan->n - first > SHOWN;
done:
    free(chosen);
    free(name);
    free(title);
    ct_buf_clear(&label);
    return st;
}

ct_status ct_figures_plan(const ct_stats *stats, unsigned wanted, ct_figure **out, size_t *n,
                          ct_err *err)
{
    if (!stats->n_cells)
        return ct_fail(err, CT_ERR_NOT_FOUND,
                       "figures: expected finished cells, got none (run the study first)");
    if (!stats->done)
        return ct_fail(err, CT_ERR_VALUE, "figures: all %zu cells failed; the first: %s",
                       stats->n_cells, stats->cells[0].error);
    ct_status st = CT_OK;
    ct_plan plan = {0};
    char **slugs = NULL;
    bool together = false;
    CT_TRY(ct_label_slugs(stats, &slugs, err));
    if (wanted & CT_WANT_ACCURACY) CT_TRY(plan_accuracy(&plan, stats, err));
    if (wanted & CT_WANT_MAPS) CT_TRY(plan_weight_maps(&plan, stats, &together, err));
    if (wanted & CT_WANT_MAPS) CT_TRY(plan_maps_by_k(&plan, stats, err));
    for (size_t v = 0; wanted & CT_WANT_MAPS && v < stats->n_versions; v++)
        if (mappable(&stats->versions[v]))
            CT_TRY(plan_version_maps(&plan, stats, v, together && !swept(&stats->versions[v]),
                                     slugs[v], err));
    *out = plan.figures;
    *n = plan.n;
    plan = (ct_plan){0};
done:
    ct_slugs_free(slugs, stats->n_versions);
    ct_figures_free(plan.figures, plan.n);
    return st;
}

void ct_figures_free(ct_figure *figures, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        ct_figure *f = &figures[i];
        for (size_t p = 0; p < f->n_panels; p++) {
            free(f->panels[p].title);
            free(f->panels[p].accuracy);
        }
        free(f->panels);
        free(f->versions);
        free(f->name);
        free(f->title);
        free(f->caption);
        free(f->description);
    }
    free(figures);
}

ct_status ct_figure_draw(ct_canvas *canvas, const void *figure, ct_err *err)
{
    const ct_figure *f = figure;
    switch (f->kind) {
    case CT_FIGURE_ACCURACY:
        return ct_draw_accuracy(canvas, f, err);
    case CT_FIGURE_ROWS:
        return ct_draw_rows(canvas, f, err);
    default:
        return ct_draw_maps(canvas, f, err);
    }
}

/* ---- CSV ------------------------------------------------------------------------------------- */

static const char VERSION_COLUMNS[] = "study,model,heads,metric,stages,weights_generation,"
                                      "weights_prefill,template,read_twice,semantics,scoring,"
                                      "keep_heads";

static ct_status csv_field(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st = ct_csv_text(out, text, err);
    return st == CT_OK ? ct_buf_adds(out, ",", err) : st;
}

static ct_status csv_version(ct_buf *out, const ct_stats_version *v, int64_t k, ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(csv_field(out, v->study, err));
    CT_TRY(csv_field(out, v->model, err));
    CT_TRY(ct_buf_addf(out, err, "%lld,", (long long)v->heads));
    CT_TRY(csv_field(out, v->metric, err));
    CT_TRY(csv_field(out, v->stages, err));
    CT_TRY(csv_field(out, v->weights_generation, err));
    CT_TRY(csv_field(out, v->weights_prefill, err));
    CT_TRY(csv_field(out, v->template_name, err));
    CT_TRY(ct_buf_addf(out, err, "%d,", v->read_twice));
    CT_TRY(csv_field(out, v->semantics, err));
    CT_TRY(csv_field(out, v->scoring, err));
    if (k >= 0) CT_TRY(ct_buf_addf(out, err, "%lld", (long long)k)); /* empty: no selection */
done:
    return st;
}

static ct_status csv_points(const ct_figure *f, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_buf_addf(out, err, "%s,prompts,cells,failed,accuracy,low,high\n", VERSION_COLUMNS));
    for (size_t i = 0; i < f->n_versions; i++) {
        const ct_stats_version *v = &f->stats->versions[f->versions[i]];
        for (const ct_point *p = v->points; p < v->points + v->n_points; p++) {
            CT_TRY(csv_version(out, v, p->keep_heads, err));
            CT_TRY(ct_buf_addf(out, err, ",%zu,%zu,%zu,", p->prompts, p->cells, p->failed));
            const double numbers[3] = {p->accuracy, p->low, p->high};
            for (int c = 0; c < 3; c++) {
                if (c) CT_TRY(ct_buf_adds(out, ",", err));
                if (p->prompts) CT_TRY(ct_label_fixed(out, numbers[c], 6, err));
            }
            CT_TRY(ct_buf_adds(out, "\n", err));
        }
    }
done:
    return st;
}

static ct_status csv_maps(const ct_figure *f, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_retrieval map = {0};
    CT_TRY(ct_buf_addf(out, err, "%s,length,depth,cells,mean_score,max_score\n", VERSION_COLUMNS));
    for (size_t i = 0; i < f->n_panels; i++) {
        const ct_stats_version *v = &f->stats->versions[f->panels[i].version];
        ct_retrieval_clear(&map);
        CT_TRY(
            ct_stats_retrieval(f->stats, f->panels[i].version, f->panels[i].keep_heads, &map, err));
        for (size_t at = 0; at < map.n_depths * map.n_lengths; at++) {
            CT_TRY(csv_version(out, v, f->panels[i].keep_heads, err));
            CT_TRY(ct_buf_addf(out, err, ",%lld,%lld,%zu,",
                               (long long)map.lengths[at % map.n_lengths],
                               (long long)map.depths[at / map.n_lengths], map.counts[at]));
            if (map.counts[at]) CT_TRY(ct_label_fixed(out, map.mean[at], 6, err));
            CT_TRY(ct_buf_adds(out, ",", err));
            CT_TRY(ct_label_fixed(out, map.max_score, 6, err));
            CT_TRY(ct_buf_adds(out, "\n", err));
        }
    }
done:
    ct_retrieval_clear(&map);
    return st;
}

ct_status ct_figure_csv(const ct_figure *figure, ct_buf *out, ct_err *err)
{
    return figure->kind == CT_FIGURE_MAPS ? csv_maps(figure, out, err)
                                          : csv_points(figure, out, err);
}
