/* html.c - one self-contained page about one or several runs.
 *
 * Owns the filling of page.html: what stands at each {{name}}, and which {{#name}} .. {{/name}} parts
 * are there at all. Everything that comes from a study, a model or a store is escaped. Figures stand
 * inside as SVG, the explorer's data as JSON (page_data.h), its script is page.js; nothing is loaded
 * from elsewhere.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/version.h"
#include "report/assets.h"
#include "report/compare.h"
#include "report/figure.h"
#include "report/label.h"
#include "report/odd.h"
#include "report/page_data.h"
#include "report/report.h"
#include "report/tables.h"
#include "report/weights.h"

enum { FAILED_SHOWN = 200, ODD_SHOWN = 12 };

/* The page being written: every call goes through `st`, so that the text reads without noise. */
typedef struct ct_page {
    const ct_report_runs *runs;
    const ct_stats *stats;
    unsigned mask; /* what a version's label must say */
    size_t n_comparisons, n_tables;
    ct_comparison *comparisons;
    ct_weights_table *tables;
    ct_buf *out;
    ct_status st;
    ct_err *err;
} ct_page;

static void raw(ct_page *p, const char *html)
{
    if (p->st == CT_OK) p->st = ct_buf_adds(p->out, html, p->err);
}

static void text(ct_page *p, const char *words)
{
    if (p->st == CT_OK) p->st = ct_xml_escape(words ? words : "", true, p->out, p->err);
}

static void number(ct_page *p, long long value)
{
    if (p->st == CT_OK) p->st = ct_buf_addf(p->out, p->err, "%lld", value);
}

static void fixed(ct_page *p, double value, int digits)
{
    if (p->st == CT_OK) p->st = ct_label_fixed(p->out, value, digits, p->err);
}

static void label(ct_page *p, const ct_stats_version *v, unsigned mask)
{
    ct_buf words = {0};
    if (p->st == CT_OK) p->st = ct_label_version(v, mask, &words, p->err);
    text(p, words.data);
    ct_buf_clear(&words);
}

/* A table wider than the screen scrolls in a region of its own, which the keyboard can reach. */
static void scroll_begin(ct_page *p, const char *name)
{
    raw(p, "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"");
    text(p, name);
    raw(p, "\">\n");
}

static void when(ct_page *p, int64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm utc;
    char iso[40], shown[40];
    if (unix_ms <= 0 || !gmtime_r(&seconds, &utc)) {
        raw(p, "unknown");
        return;
    }
    strftime(iso, sizeof iso, "%Y-%m-%dT%H:%M:%SZ", &utc);
    strftime(shown, sizeof shown, "%Y-%m-%d %H:%M UTC", &utc);
    raw(p, "<time datetime=\"");
    raw(p, iso);
    raw(p, "\">");
    raw(p, shown);
    raw(p, "</time>");
}

static void duration(ct_page *p, double ms)
{
    if (ms < 1000) {
        fixed(p, ms, 0);
        raw(p, " ms");
    } else if (ms < 120e3) {
        fixed(p, ms / 1e3, 1);
        raw(p, " s");
    } else if (ms < 7200e3) {
        fixed(p, ms / 60e3, 1);
        raw(p, " min");
    } else {
        fixed(p, ms / 3600e3, 1);
        raw(p, " h");
    }
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void point_cell(ct_page *p, const ct_point *point)
{
    raw(p, "<td>");
    if (!point) raw(p, "\xE2\x80\x93");
    else if (!point->prompts) raw(p, "failed");
    else {
        fixed(p, 100 * point->accuracy, 1);
        if (point->prompts > 1) {
            raw(p, "<small>");
            fixed(p, 100 * point->low, 1);
            raw(p, "\xE2\x80\x93");
            fixed(p, 100 * point->high, 1);
            raw(p, "</small>");
        }
    }
    raw(p, "</td>");
}

static void k_cell(ct_page *p, int64_t k)
{
    if (k < 0) raw(p, "all");
    else number(p, k);
}

/* With a sign, and a minus as wide as a plus. */
static void points(ct_page *p, double value)
{
    char sign = value >= 0.0005 ? '+' : value <= -0.0005 ? '-' : 0;
    if (sign) raw(p, sign == '+' ? "+" : "\xE2\x88\x92");
    fixed(p, 100 * fabs(value), 1);
}

/* "+12.4 7.2 to 18.0" */
static void difference(ct_page *p, const ct_paired *test)
{
    points(p, test->difference);
    if (test->pairs < 2) return; /* one pair has no interval */
    raw(p, "<small>");
    points(p, test->low);
    raw(p, " to ");
    points(p, test->high);
    raw(p, "</small>");
}

static void p_value(ct_page *p, double value)
{
    if (value < 0.001)
        raw(p, "&lt;\xC2\xA0"
               "0.001");
    else fixed(p, value, 3);
}

static const ct_comparison *unchanged_of(const ct_page *p, size_t v, int64_t k)
{
    return ct_comparison_find(p->comparisons, p->n_comparisons, CT_AGAINST_UNCHANGED, v, k);
}

static void accuracy_by_k(ct_page *p)
{
    const ct_stats *stats = p->stats;
    raw(p, "<thead><tr><th scope=\"col\">k</th>");
    for (size_t v = 0; v < stats->n_versions; v++) {
        raw(p, "<th scope=\"col\">");
        label(p, &stats->versions[v], p->mask);
        raw(p, "</th>");
        if (p->n_comparisons) raw(p, "<th scope=\"col\">p</th>");
    }
    raw(p, "</tr></thead>\n<tbody>\n");
    for (int64_t k = -2; ct_stats_next_k(stats, 0, stats->n_versions, k, &k);) {
        raw(p, "<tr><th scope=\"row\">");
        k_cell(p, k);
        raw(p, "</th>");
        for (size_t v = 0; v < stats->n_versions; v++) {
            point_cell(p, ct_stats_point(&stats->versions[v], k));
            if (!p->n_comparisons) continue;
            const ct_comparison *c = unchanged_of(p, v, k);
            raw(p, "<td>");
            if (c) p_value(p, c->test.p);
            raw(p, "</td>");
        }
        raw(p, "</tr>\n");
    }
}

static void accuracy_by_version(ct_page *p)
{
    const ct_stats *stats = p->stats;
    raw(p, "<thead><tr><th scope=\"col\" class=\"t\">version</th><th scope=\"col\">k</th>"
           "<th scope=\"col\">accuracy</th><th scope=\"col\">prompts</th>"
           "<th scope=\"col\">failed cells</th><th scope=\"col\">p</th></tr></thead>\n<tbody>\n");
    for (size_t v = 0; v < stats->n_versions; v++)
        for (size_t i = 0; i < stats->versions[v].n_points; i++) {
            const ct_point *point = &stats->versions[v].points[i];
            const ct_comparison *c = unchanged_of(p, v, point->keep_heads);
            raw(p, "<tr><th scope=\"row\" class=\"t\">");
            label(p, &stats->versions[v], p->mask);
            raw(p, "</th><td>");
            k_cell(p, point->keep_heads);
            raw(p, "</td>");
            point_cell(p, point);
            raw(p, "<td>");
            number(p, (long long)point->prompts);
            raw(p, "</td><td>");
            number(p, (long long)point->failed);
            raw(p, "</td><td>");
            if (c) p_value(p, c->test.p);
            raw(p, "</td></tr>\n");
        }
}

static void fill_accuracy(ct_page *p)
{
    scroll_begin(p, "Table of accuracies");
    raw(p, "<table><caption>Accuracy in per cent, with its 95\xC2\xA0% interval. k: heads kept in "
           "each attention layer; all: no head selection. p: chance of so large a difference from "
           "the unchanged model on the same prompts, if there were none.</caption>\n");
    if (ct_table_by_k(p->stats)) accuracy_by_k(p);
    else accuracy_by_version(p);
    raw(p, "</tbody></table>\n</div>\n");
}

static void weights_cell(ct_page *p, const ct_weights_entry *e, double published)
{
    raw(p, "<td>");
    if (!e->there) raw(p, "\xE2\x80\x93");
    else if (!e->point->prompts) raw(p, "failed");
    else {
        char rank[16];
        snprintf(rank, sizeof rank, "rank%d", e->rank);
        raw(p, "<span class=\"measured ");
        raw(p, e->rank ? rank : "");
        raw(p, "\">");
        fixed(p, 100 * e->point->accuracy, 1);
        raw(p, "</span>");
        if (e->point->prompts > 1) {
            raw(p, "<small>");
            fixed(p, 100 * e->point->low, 1);
            raw(p, "\xE2\x80\x93");
            fixed(p, 100 * e->point->high, 1);
            raw(p, "</small>");
        }
        if (e->unchanged) {
            raw(p, "<small>p ");
            if (e->unchanged->test.p >= 0.001) raw(p, "= ");
            p_value(p, e->unchanged->test.p);
            raw(p, "</small>");
        }
    }
    if (published >= 0) {
        raw(p, "<small class=\"published\">thesis ");
        fixed(p, published, 1);
        raw(p, "</small>");
    }
    raw(p, "</td>");
}

static void fill_weights(ct_page *p)
{
    for (size_t t = 0; t < p->n_tables; t++) {
        const ct_weights_table *table = &p->tables[t];
        size_t columns = table->null_in_generation ? 5 : 4;
        scroll_begin(p, "Table of accuracies by weight edit");
        raw(p, "<table class=\"sixone\"><caption>");
        text(p, p->stats->versions[table->first].model);
        raw(p, ", study ");
        text(p, p->stats->versions[table->first].study);
        raw(p, ": accuracy in per cent with its 95\xC2\xA0% interval; p against keep \xE2\x80\x93 "
               "keep; bold: best, underlined: second, dotted: third.");
        if (!ct_weights_same_model(p->stats->versions[table->first].model))
            raw(p, " The thesis measured another model, RecurrentGemma-2B.");
        raw(p, "</caption>\n<thead><tr "
               "class=\"over\"><td></td><th scope=\"colgroup\" colspan=\"");
        number(p, (long long)columns);
        raw(p, "\">generation</th></tr><tr><th scope=\"col\" class=\"t\">prefill</th>");
        for (size_t g = 0; g < columns; g++) {
            raw(p, "<th scope=\"col\">");
            raw(p, ct_weights_table_mode(g));
            raw(p, "</th>");
        }
        raw(p, "</tr></thead>\n<tbody>\n");
        for (size_t row = 0; row < CT_WEIGHTS_ROWS; row++) {
            raw(p, "<tr><th scope=\"row\" class=\"t\">");
            raw(p, ct_weights_table_mode(row));
            raw(p, "</th>");
            for (size_t g = 0; g < columns; g++)
                weights_cell(p, &table->at[row][g], ct_weights_published(row, g));
            raw(p, "</tr>\n");
        }
        raw(p, "</tbody></table>\n</div>\n");
    }
}

static void fill_source(ct_page *p)
{
    text(p, ct_weights_source);
}

/* One table for each thing that is compared against. */
static void fill_differences(ct_page *p)
{
    for (size_t begin = 0, end; begin < p->n_comparisons; begin = end) {
        const ct_against against = p->comparisons[begin].against;
        bool same_prompts = true;
        for (end = begin; end < p->n_comparisons && p->comparisons[end].against == against; end++)
            same_prompts &= p->comparisons[end].test.same_prompts;
        raw(p, "<h3>From ");
        text(p, ct_against_name(against));
        raw(p, against == CT_AGAINST_UNCHANGED ? "</h3>\n" : ", at the same k</h3>\n");
        scroll_begin(p, "Table of differences");
        raw(p, "<table>");
        if (!same_prompts)
            raw(p, "<caption>Prompts of the two sides are matched by length and depth; their texts "
                   "differ.</caption>");
        raw(p, "<thead><tr><th scope=\"col\" class=\"t\">version</th><th scope=\"col\">k</th>"
               "<th scope=\"col\">difference</th><th scope=\"col\">better</th>"
               "<th scope=\"col\">worse</th><th scope=\"col\">prompts</th><th scope=\"col\">p</th>"
               "<th scope=\"col\">adjusted p</th><th scope=\"col\" class=\"t\">test</th></tr>"
               "</thead>\n<tbody>\n");
        for (size_t i = begin; i < end; i++) {
            const ct_comparison *c = &p->comparisons[i];
            raw(p, "<tr><th scope=\"row\" class=\"t\">");
            label(p, &p->stats->versions[c->version], p->mask);
            raw(p, "</th><td>");
            k_cell(p, c->k);
            raw(p, "</td><td>");
            difference(p, &c->test);
            const size_t counts[] = {c->test.better, c->test.worse, c->test.pairs};
            for (int n = 0; n < 3; n++) {
                raw(p, "</td><td>");
                number(p, (long long)counts[n]);
            }
            raw(p, "</td><td>");
            p_value(p, c->test.p);
            raw(p, c->p_holm < 0.05 ? "</td><td class=\"sure\">" : "</td><td>");
            p_value(p, c->p_holm);
            raw(p, "</td><td class=\"t\">");
            text(p, ct_paired_method_name(c->test.method));
            raw(p, "</td></tr>\n");
        }
        raw(p, "</tbody></table>\n</div>\n");
    }
}

/* The sums of the audits: what the interventions met and changed. */
static void fill_audit(ct_page *p)
{
    scroll_begin(p, "Table of audits");
    raw(p, "<table><thead><tr><th scope=\"col\" class=\"t\">version</th><th scope=\"col\">cells"
           "</th><th scope=\"col\">stage</th><th scope=\"col\">rows</th><th scope=\"col\">examined"
           "</th><th scope=\"col\">heads zeroed</th><th scope=\"col\">edited</th>"
           "<th scope=\"col\">changed</th><th scope=\"col\">time</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < p->stats->n_versions; i++) {
        const ct_stats_version *v = &p->stats->versions[i];
        for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
            if (stage == 0) {
                raw(p, "<tr><th scope=\"rowgroup\" rowspan=\"2\" class=\"t\">");
                label(p, v, p->mask);
                raw(p, "</th><td rowspan=\"2\">");
                number(p, (long long)v->cells);
                raw(p, "</td>");
            } else {
                raw(p, "<tr>");
            }
            raw(p, stage == CT_STAGE_PREFILL ? "<td>prefill</td>" : "<td>generation</td>");
            const int64_t numbers[] = {v->audit.rows[stage], v->audit.head_rows[stage],
                                       v->audit.heads_dropped[stage], v->audit.edit_rows[stage],
                                       v->audit.edit_rows_changed[stage]};
            for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) {
                raw(p, "<td>");
                number(p, numbers[n]);
                raw(p, "</td>");
            }
            raw(p, "<td>");
            duration(p, stage == CT_STAGE_PREFILL ? v->prefill_ms : v->decode_ms);
            raw(p, "</td></tr>\n");
        }
    }
    raw(p, "</tbody></table>\n</div>\n");
}

/* A link that opens a cell in the explorer; the script counts cells in the same order. */
static void cell_link(ct_page *p, size_t cell)
{
    const ct_stats_cell *c = &p->stats->cells[cell];
    raw(p, "<a href=\"#cell-");
    number(p, (long long)cell);
    raw(p, "\">length\xC2\xA0");
    number(p, c->length);
    raw(p, ", depth\xC2\xA0");
    number(p, c->depth);
    raw(p, "\xC2\xA0%</a>");
}

static void fill_failed(ct_page *p)
{
    const ct_stats *stats = p->stats;
    if (!stats->failed) {
        raw(p, "<p>None.</p>\n");
        return;
    }
    raw(p, "<p>These cells are in no number and no figure; running the study again tries them "
           "again.</p>\n");
    scroll_begin(p, "Table of failed cells");
    raw(p, "<table><thead><tr><th scope=\"col\" class=\"t\">version</th><th scope=\"col\">k</th>"
           "<th scope=\"col\" class=\"t\">cell</th>"
           "<th scope=\"col\" class=\"t\">error</th></tr></thead>\n<tbody>\n");
    size_t shown = 0;
    for (size_t i = 0; i < stats->n_cells && shown < FAILED_SHOWN; i++) {
        const ct_stats_cell *c = &stats->cells[i];
        if (!c->failed) continue;
        shown++;
        raw(p, "<tr><th scope=\"row\" class=\"t\">");
        label(p, &stats->versions[c->version], p->mask);
        raw(p, "</th><td>");
        k_cell(p, c->keep_heads);
        raw(p, "</td><td class=\"t\">");
        cell_link(p, i);
        raw(p, "</td><td class=\"t\">");
        text(p, c->error);
        raw(p, "</td></tr>\n");
    }
    raw(p, "</tbody></table>\n</div>\n");
    if (shown < stats->failed) {
        raw(p, "<p>And ");
        number(p, (long long)(stats->failed - shown));
        raw(p, " more.</p>\n");
    }
}

/* ---- odd outputs ----------------------------------------------------------------------------- */

static void odd_list(ct_page *p, const char *title, const ct_odd *list, size_t n)
{
    raw(p, "<h3>");
    raw(p, title);
    raw(p, "</h3>\n");
    if (!n) {
        raw(p, "<p>None.</p>\n");
        return;
    }
    scroll_begin(p, title);
    raw(p, "<table><thead><tr><th scope=\"col\" class=\"t\">output</th><th scope=\"col\">repeated"
           "</th><th scope=\"col\">new</th><th scope=\"col\">cells</th>"
           "<th scope=\"col\" class=\"t\">the first of them</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < n; i++) {
        const ct_stats_cell *c = &p->stats->cells[list[i].cell];
        raw(p, "<tr><td class=\"t wide\">");
        if (p->st == CT_OK)
            p->st =
                ct_xml_escape(ct_textset_get(p->stats->texts, c->output), false, p->out, p->err);
        raw(p, "</td><td>");
        fixed(p, 100 * list[i].repeated, 0);
        raw(p, "\xC2\xA0%</td><td>");
        fixed(p, 100 * list[i].fresh, 0);
        raw(p, "\xC2\xA0%</td><td>");
        number(p, (long long)list[i].cells);
        raw(p, "</td><td class=\"t\">");
        label(p, &p->stats->versions[c->version], p->mask);
        if (c->keep_heads >= 0) {
            raw(p, ", k\xC2\xA0=\xC2\xA0");
            number(p, c->keep_heads);
        }
        raw(p, ": ");
        cell_link(p, list[i].cell);
        raw(p, "</td></tr>\n");
    }
    raw(p, "</tbody></table>\n</div>\n");
}

static void fill_odd(ct_page *p)
{
    ct_odd_lists lists = {0};
    if (p->st == CT_OK) p->st = ct_odd_new(p->stats, ODD_SHOWN, &lists, p->err);
    raw(p, "<p>Of the ");
    number(p, (long long)lists.judged);
    raw(p, " different outputs with 8 words or more, those that stand out. <em>Repeated</em>: the "
           "share of an output's runs of three words that it has said before. <em>New</em>: the "
           "share of its different runs of three words that are in no prompt of this page. Equal "
           "outputs stand once; of those that begin with the same three words, the first two "
           "are listed.</p>\n");
    odd_list(p, "Outputs that repeat themselves", lists.repeating, lists.n_repeating);
    odd_list(p, "Outputs far from any prompt", lists.far, lists.n_far);
    ct_odd_clear(&lists);
}

/* ---- figures --------------------------------------------------------------------------------- */

static ct_status figure_add(ct_page *p, ct_fonts *fonts, const ct_figure *figure, size_t count)
{
    char prefix[24];
    ct_buf svg = {0}, studies = {0};
    snprintf(prefix, sizeof prefix, "f%zu", count);
    ct_status st = ct_figure_render(fonts, ct_figure_draw, figure, figure->title,
                                    figure->description, CT_FIGURE_SVG, &svg, p->err);
    if (st == CT_OK) {
        raw(p, "<figure>\n");
        scroll_begin(p, figure->title);
        if (p->st == CT_OK) p->st = ct_svg_inline(svg.data, svg.size, prefix, p->out, p->err);
        raw(p, "</div>\n<figcaption>Figure ");
        number(p, (long long)count);
        raw(p, ": <code>");
        text(p, figure->name);
        raw(p, "</code>");
        if (p->st == CT_OK) p->st = ct_figure_studies(figure, &studies, p->err);
        raw(p, studies.size ? ", " : "");
        text(p, studies.size ? studies.data : "");
        raw(p, "</figcaption>\n</figure>\n");
    }
    ct_buf_clear(&studies);
    ct_buf_clear(&svg);
    return st;
}

static void fill_figures(ct_page *p)
{
    ct_fonts *fonts = NULL;
    ct_figure *figures = NULL;
    size_t n = 0, count = 0;
    if (p->st == CT_OK) p->st = ct_fonts_new(&fonts, p->err);
    if (p->st == CT_OK) p->st = ct_figures_plan(p->stats, p->runs->wanted, &figures, &n, p->err);
    for (size_t i = 0; i < n && p->st == CT_OK; i++)
        if (!figures[i].single) p->st = figure_add(p, fonts, &figures[i], ++count);
    ct_figures_free(figures, n);
    ct_fonts_free(fonts);
}

/* ---- where it comes from --------------------------------------------------------------------- */

static void fact(ct_page *p, const char *name, const char *value)
{
    if (!value || !*value) return;
    raw(p, "<dt>");
    raw(p, name);
    raw(p, "</dt><dd>");
    text(p, value);
    raw(p, "</dd>\n");
}

static void fill_provenance(ct_page *p)
{
    for (size_t i = 0; i < p->runs->n && p->st == CT_OK; i++) {
        const ct_report_run *run = &p->runs->runs[i];
        const ct_provenance *from = &run->provenance;
        raw(p, "<h3>");
        text(p, run->known && from->study && *from->study ? from->study : run->dir);
        raw(p, "</h3>\n");
        if (!run->known) {
            raw(p, "<p>Nothing has been run into this store yet.</p>\n");
            continue;
        }
        raw(p, "<dl>\n");
        fact(p, "model", from->model);
        fact(p, "weights", from->weights_hash);
        fact(p, "tokenizer", from->tokenizer_hash);
        fact(p, "study", from->study_hash);
        raw(p, "<dt>cortado</dt><dd>");
        text(p, from->version);
        raw(p, ", commit ");
        text(p, from->commit);
        raw(p, ", numerics ");
        number(p, from->numerics_version);
        raw(p, "</dd>\n");
        fact(p, "backend", from->backend);
        fact(p, "computed in", from->compute);
        fact(p, "weights stored as", from->dtype);
        fact(p, "machine", from->machine);
        fact(p, "command", from->flags);
        raw(p, "<dt>last started</dt><dd>");
        when(p, from->started_unix_ms);
        raw(p, "</dd>\n</dl>\n");
        if (!from->study_text || !*from->study_text) continue;
        raw(p, "<details><summary>The study file</summary>\n<pre>");
        if (p->st == CT_OK) p->st = ct_xml_escape(from->study_text, false, p->out, p->err);
        raw(p, "</pre></details>\n");
    }
}

/* ---- page ------------------------------------------------------------------------------------ */

/* "a, b and c" of the different names that the versions have. */
static void names(ct_page *p, const ct_report_runs *runs, bool models)
{
    const ct_stats *stats = runs->stats;
    bool first = true;
    for (size_t i = 0; i < stats->n_versions; i++) {
        const ct_stats_version *v = &stats->versions[i];
        bool told = false;
        for (size_t j = 0; j < i; j++) {
            const ct_stats_version *o = &stats->versions[j];
            told |= strcmp(models ? v->model : v->study, models ? o->model : o->study) == 0;
        }
        if (told) continue;
        if (!first) raw(p, ", ");
        text(p, models ? v->model : v->study);
        first = false;
    }
    if (first && !models) text(p, runs->runs[0].dir);
}

static void fill_studies(ct_page *p)
{
    names(p, p->runs, false);
}

static void fill_facts(ct_page *p)
{
    const ct_stats *stats = p->stats;
    names(p, p->runs, true);
    raw(p, stats->n_versions ? " \xC2\xB7 " : "");
    number(p, (long long)stats->n_versions);
    raw(p, stats->n_versions == 1 ? " version \xC2\xB7 " : " versions \xC2\xB7 ");
    number(p, (long long)stats->done);
    raw(p, stats->done == 1 ? " cell done" : " cells done");
    if (stats->failed) {
        raw(p, ", ");
        number(p, (long long)stats->failed);
        raw(p, " failed");
    }
    if (stats->last_finished_unix_ms) {
        raw(p, " \xC2\xB7 last finished ");
        when(p, stats->last_finished_unix_ms);
    }
}

static void fill_warning(ct_page *p)
{
    const ct_stats *stats = p->stats;
    if (!stats->n_cells) raw(p, "<p class=\"warn\">No cell is finished yet.</p>\n");
    else if (!stats->done)
        raw(p, "<p class=\"warn\">All cells failed: there is nothing to draw. The errors are "
               "listed below.</p>\n");
    else if (stats->failed) {
        raw(p, "<p class=\"warn\">");
        number(p, (long long)stats->failed);
        raw(p, " of ");
        number(p, (long long)stats->n_cells);
        raw(p, " cells <a href=\"#failed\">failed</a> and are left out of every number.</p>\n");
    }
}

static void fill_version(ct_page *p)
{
    text(p, ct_version());
}

static void fill_commit(ct_page *p)
{
    text(p, ct_commit());
}

static void fill_css(ct_page *p)
{
    raw(p, (const char *)ct_asset_page_css);
}

static void fill_js(ct_page *p)
{
    raw(p, (const char *)ct_asset_page_js);
}

static void fill_data(ct_page *p)
{
    if (p->st == CT_OK)
        p->st = ct_page_data(p->runs, p->comparisons, p->n_comparisons, p->out, p->err);
}

/* ---- the template ---------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*fill)(ct_page *p);
} fills[] = {
    {"studies", fill_studies},
    {"facts", fill_facts},
    {"warning", fill_warning},
    {"version", fill_version},
    {"commit", fill_commit},
    {"css", fill_css},
    {"js", fill_js},
    {"data", fill_data},
    {"accuracy", fill_accuracy},
    {"weights", fill_weights},
    {"source", fill_source},
    {"figures", fill_figures},
    {"differences", fill_differences},
    {"odd", fill_odd},
    {"audit", fill_audit},
    {"failed", fill_failed},
    {"provenance", fill_provenance},
};

/* Whether the part {{#name}} .. {{/name}} is on the page. */
static bool part_is_there(const ct_page *p, const char *name, size_t n)
{
    if (n == 4 && !strncmp(name, "done", n)) return p->stats->done > 0;
    if (n == 5 && !strncmp(name, "cells", n)) return p->stats->n_cells > 0;
    if (n == 7 && !strncmp(name, "weights", n)) return p->n_tables > 0;
    CT_ASSERT(n == 8 && !strncmp(name, "compared", n));
    return p->n_comparisons > 0;
}

static void fill(ct_page *p, const char *name, size_t n)
{
    size_t i = 0, count = sizeof fills / sizeof *fills;
    while (i < count && (strlen(fills[i].name) != n || strncmp(fills[i].name, name, n) != 0)) i++;
    CT_ASSERT(i < count); /* the template is ours */
    fills[i].fill(p);
}

/* Writes the template; parts may stand in parts. A line that holds nothing but a part's mark leaves
 * an empty line, which HTML does not show. */
static void template_write(ct_page *p, const char *at)
{
    for (const char *mark; p->st == CT_OK && (mark = strstr(at, "{{"));) {
        const char *name = mark + 2, *end = strstr(name, "}}");
        CT_ASSERT(end != NULL);
        p->st = ct_buf_add(p->out, at, (size_t)(mark - at), p->err);
        at = end + 2;
        if (*name == '#') {
            size_t n = (size_t)(end - name) - 1;
            if (part_is_there(p, name + 1, n)) continue;
            char closing[32];
            snprintf(closing, sizeof closing, "{{/%.*s}}", (int)n, name + 1);
            at = strstr(at, closing);
            CT_ASSERT(at != NULL);
            at += strlen(closing);
        } else if (*name != '/') {
            fill(p, name, (size_t)(end - name));
        }
    }
    raw(p, at);
}

ct_status ct_html_page(const ct_report_runs *runs, ct_buf *out, ct_err *err)
{
    ct_page page = {.runs = runs, .stats = runs->stats, .out = out, .err = err};
    unsigned all;
    page.mask = ct_label_differing(page.stats, NULL, page.stats->n_versions, &all);
    page.st = ct_comparisons_new(page.stats, &page.comparisons, &page.n_comparisons, err);
    if (page.st == CT_OK)
        page.st = ct_weights_tables_new(page.stats, page.comparisons, page.n_comparisons,
                                        &page.tables, &page.n_tables, err);
    template_write(&page, (const char *)ct_asset_page_html);
    free(page.comparisons);
    free(page.tables);
    return page.st;
}
