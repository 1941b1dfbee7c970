/* html.c - one self-contained page about one or several runs.
 *
 * Owns the page: its order, its words, its style. Everything that comes from a study, a model or a
 * store is escaped. Figures stand inside as SVG; nothing is loaded from elsewhere and no script
 * runs.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/err.h"
#include "base/version.h"
#include "report/figure.h"
#include "report/label.h"
#include "report/report.h"

enum { FAILED_SHOWN = 200 };

static const char STYLE[] =
    ":root{color-scheme:light;--ink:#1a1a1a;--soft:#555;--line:#dcdcdc;--back:#fff;--wash:#f6f6f4;"
    "--accent:#005a8c}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--back);color:var(--ink);font:16px/1.55 Inter,system-ui,"
    "-apple-system,'Segoe UI','Open Sans','DejaVu Sans',sans-serif;overflow-wrap:break-word}\n"
    "header,main,footer{max-width:54rem;margin:0 auto;padding:0 1.25rem}\n"
    "header{padding-top:2.5rem}\n"
    "h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;letter-spacing:-.015em}\n"
    "h2{font-size:1.25rem;margin:3rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line)}\n"
    "h3{font-size:1rem;margin:1.75rem 0 .5rem}\n"
    "p{margin:.5rem 0;max-width:44rem}\n"
    ".facts{color:var(--soft);margin:0 0 1rem;max-width:none}\n"
    "nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;margin:0;padding:0}\n"
    "a{color:var(--accent);text-underline-offset:.15em}\n"
    ".scroll{overflow-x:auto}\n"
    ".scroll:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--accent);"
    "outline-offset:2px}\n"
    "table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;"
    "min-width:min(100%,34rem)}\n"
    "caption{text-align:left;color:var(--soft);padding-bottom:.5rem}\n"
    "th,td{padding:.3rem .9rem .3rem 0;text-align:right;border-bottom:1px solid var(--line);"
    "vertical-align:baseline}\n"
    "thead th{border-bottom:2px solid var(--ink);vertical-align:bottom}\n"
    "th.t,td.t{text-align:left}\n"
    "tbody th{font-weight:500}\n"
    "td small{color:var(--soft);white-space:nowrap;padding-left:.35rem}\n"
    "figure{margin:1.75rem 0 2.5rem}\n"
    "figure .scroll{margin:0 -.8rem}\n" /* a figure has a margin of its own */

    "figure svg{display:block;width:100%;max-width:756px;min-width:520px;height:auto}\n"
    "figcaption{color:var(--soft);font-size:.875rem;margin-top:.5rem}\n"
    "code,pre{font:.85em/1.5 ui-monospace,'DejaVu Sans Mono',monospace}\n"
    "pre{background:var(--wash);padding:1rem;overflow-x:auto;border-radius:4px}\n"
    "dl{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.2rem 1.25rem;"
    "font-size:.9rem;margin:.5rem 0 1rem}\n"
    "dt{color:var(--soft)}\n"
    "dd{margin:0;min-width:0;overflow-wrap:anywhere}\n"
    "summary{cursor:pointer;color:var(--accent)}\n"
    ".warn{border-left:4px solid #d55e00;background:#fdf3ec;padding:.6rem 1rem;margin:1.5rem 0}\n"
    "footer{color:var(--soft);font-size:.875rem;margin-top:3rem;padding-bottom:3rem}\n"
    "@media (max-width:36rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.5rem}"
    "h1{font-size:1.5rem}header{padding-top:1.5rem}}\n"
    "@media print{body{font-size:10pt}header,main,footer{max-width:none;padding:0}nav{display:none}"
    "h2,h2+p{break-after:avoid}figure,tr{break-inside:avoid}figure svg{width:16cm;min-width:0}"
    ".scroll{overflow:visible}a{color:inherit;text-decoration:none}}\n";

/* The page being written: every call goes through `st`, so that the text reads without noise. */
typedef struct ct_page {
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

static void heading(ct_page *p, const char *id, const char *title)
{
    raw(p, "<section aria-labelledby=\"");
    raw(p, id);
    raw(p, "\">\n<h2 id=\"");
    raw(p, id);
    raw(p, "\">");
    raw(p, title);
    raw(p, "</h2>\n");
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

static void accuracy_by_k(ct_page *p, const ct_stats *stats, unsigned mask)
{
    raw(p, "<thead><tr><th scope=\"col\">k</th>");
    for (size_t v = 0; v < stats->n_versions; v++) {
        const ct_stats_version *version = &stats->versions[v];
        raw(p, "<th scope=\"col\">");
        label(p, version, mask);
        raw(p, "</th>");
    }
    raw(p, "</tr></thead>\n<tbody>\n");
    for (int64_t k = -2; ct_stats_next_k(stats, 0, stats->n_versions, k, &k);) {
        raw(p, "<tr><th scope=\"row\">");
        k_cell(p, k);
        raw(p, "</th>");
        for (size_t v = 0; v < stats->n_versions; v++)
            point_cell(p, ct_stats_point(&stats->versions[v], k));
        raw(p, "</tr>\n");
    }
}

static void accuracy_by_version(ct_page *p, const ct_stats *stats, unsigned mask)
{
    raw(p, "<thead><tr><th scope=\"col\" class=\"t\">version</th><th scope=\"col\">k</th>"
           "<th scope=\"col\">accuracy</th><th scope=\"col\">prompts</th>"
           "<th scope=\"col\">failed cells</th></tr></thead>\n<tbody>\n");
    for (size_t v = 0; v < stats->n_versions; v++)
        for (size_t i = 0; i < stats->versions[v].n_points; i++) {
            const ct_point *point = &stats->versions[v].points[i];
            raw(p, "<tr><th scope=\"row\" class=\"t\">");
            label(p, &stats->versions[v], mask);
            raw(p, "</th><td>");
            k_cell(p, point->keep_heads);
            raw(p, "</td>");
            point_cell(p, point);
            raw(p, "<td>");
            number(p, (long long)point->prompts);
            raw(p, "</td><td>");
            number(p, (long long)point->failed);
            raw(p, "</td></tr>\n");
        }
}

static void accuracy_section(ct_page *p, const ct_stats *stats, unsigned mask)
{
    heading(p, "accuracy", "Accuracy");
    scroll_begin(p, "Table of accuracies");
    raw(p, "<table><caption>Accuracy in per cent, with its 95\xC2\xA0% interval. k: heads kept in "
           "each attention layer; all: no head selection.</caption>\n");
    if (ct_table_by_k(stats)) accuracy_by_k(p, stats, mask);
    else accuracy_by_version(p, stats, mask);
    raw(p, "</tbody></table>\n</div>\n</section>\n");
}

/* The sums of the audits: what the interventions met and changed. */
static void audit_section(ct_page *p, const ct_stats *stats, unsigned mask)
{
    heading(p, "audit", "What the interventions did");
    raw(p, "<p>Sums over the done cells of each version. A row is one token in one attention "
           "layer. Selection: rows examined, and head outputs set to zero. Edit: rows reached by "
           "a weight edit, and rows in which it changed a weight.</p>\n");
    scroll_begin(p, "Table of audits");
    raw(p, "<table><thead><tr><th scope=\"col\" class=\"t\">version</th><th scope=\"col\">cells"
           "</th><th scope=\"col\">stage</th><th scope=\"col\">rows</th><th scope=\"col\">examined"
           "</th><th scope=\"col\">heads zeroed</th><th scope=\"col\">edited</th>"
           "<th scope=\"col\">changed</th><th scope=\"col\">time</th></tr></thead>\n<tbody>\n");
    for (size_t i = 0; i < stats->n_versions; i++) {
        const ct_stats_version *v = &stats->versions[i];
        for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
            if (stage == 0) {
                raw(p, "<tr><th scope=\"rowgroup\" rowspan=\"2\" class=\"t\">");
                label(p, v, mask);
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
    raw(p, "</tbody></table>\n</div>\n</section>\n");
}

static void failed_section(ct_page *p, const ct_stats *stats, unsigned mask)
{
    heading(p, "failed", "Failed cells");
    if (!stats->failed) {
        raw(p, "<p>None.</p>\n</section>\n");
        return;
    }
    raw(p, "<p>These cells are in no number and no figure; running the study again tries them "
           "again.</p>\n");
    scroll_begin(p, "Table of failed cells");
    raw(p, "<table><thead><tr><th scope=\"col\" class=\"t\">version</th><th scope=\"col\">k</th>"
           "<th scope=\"col\">length</th><th scope=\"col\">depth</th>"
           "<th scope=\"col\" class=\"t\">error</th></tr></thead>\n<tbody>\n");
    size_t shown = 0;
    for (size_t i = 0; i < stats->n_cells && shown < FAILED_SHOWN; i++) {
        const ct_stats_cell *c = &stats->cells[i];
        if (!c->failed) continue;
        shown++;
        raw(p, "<tr><th scope=\"row\" class=\"t\">");
        label(p, &stats->versions[c->version], mask);
        raw(p, "</th><td>");
        k_cell(p, c->keep_heads);
        raw(p, "</td><td>");
        number(p, c->length);
        raw(p, "</td><td>");
        number(p, c->depth);
        raw(p, "\xC2\xA0%</td><td class=\"t\">");
        text(p, c->error);
        raw(p, "</td></tr>\n");
    }
    raw(p, "</tbody></table>\n</div>\n");
    if (shown < stats->failed) {
        raw(p, "<p>And ");
        number(p, (long long)(stats->failed - shown));
        raw(p, " more.</p>\n");
    }
    raw(p, "</section>\n");
}

/* ---- figures --------------------------------------------------------------------------------- */

static ct_status figure_add(ct_page *p, ct_fonts *fonts, const ct_figure *figure, size_t count)
{
    char prefix[24];
    ct_buf svg = {0};
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
        raw(p, "</code></figcaption>\n</figure>\n");
    }
    ct_buf_clear(&svg);
    return st;
}

static void figures_section(ct_page *p, const ct_report_runs *runs)
{
    ct_fonts *fonts = NULL;
    ct_figure *figures = NULL;
    size_t n = 0, count = 0;
    if (p->st == CT_OK) p->st = ct_fonts_new(&fonts, p->err);
    if (p->st == CT_OK) p->st = ct_figures_plan(runs->stats, runs->wanted, &figures, &n, p->err);
    heading(p, "figures", "Figures");
    raw(p, "<p>Each is also written as SVG, PDF and PNG, with its numbers as CSV, into the run's "
           "folder <code>figures</code>, and so is each retrieval map alone.</p>\n");
    for (size_t i = 0; i < n && p->st == CT_OK; i++)
        if (!figures[i].single) p->st = figure_add(p, fonts, &figures[i], ++count);
    raw(p, "</section>\n");
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

static void provenance_section(ct_page *p, const ct_report_runs *runs)
{
    heading(p, "provenance", "Provenance");
    for (size_t i = 0; i < runs->n && p->st == CT_OK; i++) {
        const ct_report_run *run = &runs->runs[i];
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
    raw(p, "</section>\n");
}

static void method_section(ct_page *p)
{
    heading(p, "method", "Method");
    raw(p,
        "<p>A <em>cell</em> is one prompt under one intervention. Its answer is scored; accuracy "
        "is the mean over prompts of score / maximum score, which is not linear: partial scores "
        "stand for parts of the needle. Where one prompt was run with several seeds, their mean "
        "counts as one prompt. Cells that failed are left out and counted.</p>\n"
        "<p>Intervals are 95\xC2\xA0% percentile bootstrap intervals of the mean over prompts "
        "(2000 resamples, fixed seed). They tell how much the accuracy depends on this choice of "
        "prompts; prompts that share essays and needle are not independent. Where all prompts "
        "score the same, the interval is empty and says little.</p>\n"
        "<p>k heads are kept in every attention layer and for every token of the named stages; "
        "the outputs of the others are set to zero. In retrieval maps depth 0\xC2\xA0% is the "
        "beginning of the context.</p>\n</section>\n");
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

static void header_add(ct_page *p, const ct_report_runs *runs)
{
    const ct_stats *stats = runs->stats;
    raw(p, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
           "<meta name=\"generator\" content=\"cortado ");
    text(p, ct_version());
    raw(p, "\">\n<title>");
    names(p, runs, false);
    raw(p, " \xE2\x80\x93 cortado</title>\n<style>\n");
    raw(p, STYLE);
    raw(p, "</style>\n</head>\n<body>\n<header>\n<h1>");
    names(p, runs, false);
    raw(p, "</h1>\n<p class=\"facts\">");
    names(p, runs, true);
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
    raw(p, "</p>\n<nav aria-label=\"Contents\"><ul>");
    if (stats->done)
        raw(p, "<li><a href=\"#accuracy\">Accuracy</a></li><li><a href=\"#figures\">Figures</a>"
               "</li><li><a href=\"#audit\">Interventions</a></li>");
    if (stats->n_cells) raw(p, "<li><a href=\"#failed\">Failed cells</a></li>");
    raw(p, "<li><a href=\"#provenance\">Provenance</a></li><li><a href=\"#method\">Method</a></li>"
           "</ul></nav>\n</header>\n<main>\n");
}

ct_status ct_html_page(const ct_report_runs *runs, ct_buf *out, ct_err *err)
{
    ct_page page = {out, CT_OK, err};
    const ct_stats *stats = runs->stats;
    unsigned all, mask = ct_label_differing(stats, NULL, stats->n_versions, &all);
    header_add(&page, runs);
    if (!stats->n_cells) raw(&page, "<p class=\"warn\">No cell is finished yet.</p>\n");
    else if (!stats->done)
        raw(&page, "<p class=\"warn\">All cells failed: there is nothing to draw. The errors are "
                   "listed below.</p>\n");
    else {
        if (stats->failed) {
            raw(&page, "<p class=\"warn\">");
            number(&page, (long long)stats->failed);
            raw(&page, " of ");
            number(&page, (long long)stats->n_cells);
            raw(&page, " cells <a href=\"#failed\">failed</a> and are left out of every "
                       "number.</p>\n");
        }
        accuracy_section(&page, stats, mask);
        figures_section(&page, runs);
        audit_section(&page, stats, mask);
    }
    if (stats->n_cells) failed_section(&page, stats, mask);
    provenance_section(&page, runs);
    method_section(&page);
    raw(&page, "</main>\n<footer><p>Made by cortado ");
    text(&page, ct_version());
    raw(&page, " (");
    text(&page, ct_commit());
    raw(&page, ") from stored cells.</p></footer>\n</body>\n</html>\n");
    return page.st;
}
