/* report.c - the entry points: stores in, files out. See cortado/report.h and report.h. */
#include "report/report.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "io/file.h"
#include "report/compare.h"
#include "report/figure.h"
#include "report/label.h"
#include "report/recorded.h"
#include "report/tables.h"
#include "report/weights.h"

static ct_status add_cell(void *user, const ct_cell *cell, ct_err *err)
{
    return ct_stats_add(user, cell, err);
}

/* The figures that a study asks for; one that names none, or only others, gets all. */
static unsigned wanted_by(const char *figures)
{
    unsigned wanted = 0;
    if (figures && strstr(figures, "accuracy_by_")) wanted |= CT_WANT_ACCURACY;
    if (figures && strstr(figures, "retrieval_map")) wanted |= CT_WANT_MAPS;
    return wanted ? wanted : CT_WANT_ALL;
}

/* Opens the store for its model `at`; *known is false if it has no such model. */
static ct_status model_open(const char *path, const char *dir, size_t at, ct_report_run *run,
                            ct_err *err)
{
    ct_err why = {0};
    run->dir = dir;
    ct_status st = ct_store_open(path, false, &run->store, err);
    if (st != CT_OK) return st;
    st = ct_store_provenance(run->store, at, &run->provenance, &why);
    run->known = st == CT_OK;
    return run->known || st == CT_ERR_NOT_FOUND ? CT_OK
                                                : ct_fail(err, st, "%s: %s", path, why.text);
}

/* The cells of a run, and its models in runs->runs. */
static ct_status run_open(const char *dir, ct_report_runs *out, ct_err *err)
{
    ct_status st = CT_OK;
    char *path = ct_path_join(dir, "run.sqlite", err);
    if (!path) return CT_ERR_MEMORY;
    for (size_t at = 0;; at++) {
        ct_report_run *grown = realloc(out->runs, (out->n + 1) * sizeof *grown);
        if (!grown) {
            st = ct_fail_memory(err, "report", (out->n + 1) * sizeof *grown);
            goto done;
        }
        out->runs = grown;
        ct_report_run *run = &out->runs[out->n++];
        *run = (ct_report_run){0};
        CT_TRY(model_open(path, dir, at, run, err));
        if (at == 0) {
            st = ct_store_each(run->store, add_cell, out->stats, err);
            if (st != CT_OK) {
                st = ct_fail_context(err, st, "%s", path);
                goto done;
            }
            out->wanted |= wanted_by(run->known ? run->provenance.figures : NULL);
        } else if (!run->known) {
            ct_store_close(run->store);
            out->n--;
        }
        if (!run->known) break;
    }
done:
    free(path);
    return st;
}

ct_status ct_report_open(const char *const *dirs, size_t n_dirs, ct_report_runs *out, ct_err *err)
{
    ct_status st = CT_OK;
    *out = (ct_report_runs){0};
    if (!n_dirs) return ct_fail(err, CT_ERR_USAGE, "report: expected a run's folder, got none");
    CT_TRY(ct_stats_new(&out->stats, err));
    for (size_t i = 0; i < n_dirs; i++) CT_TRY(run_open(dirs[i], out, err));
    st = ct_stats_finish(out->stats, err);
done:
    if (st != CT_OK) ct_report_close(out);
    return st;
}

void ct_report_close(ct_report_runs *runs)
{
    for (size_t i = 0; i < runs->n; i++) ct_store_close(runs->runs[i].store);
    free(runs->runs);
    ct_stats_free(runs->stats);
    *runs = (ct_report_runs){0};
}

ct_status ct_report_table(const char *const *dirs, size_t n_dirs, char **text, ct_err *err)
{
    ct_status st = CT_OK;
    ct_report_runs runs = {0};
    ct_buf buf = {0};
    *text = NULL;
    CT_TRY(ct_report_open(dirs, n_dirs, &runs, err));
    CT_TRY(ct_table_text(runs.stats, &buf, err));
    *text = ct_buf_take(&buf);
    if (!*text) st = ct_fail_memory(err, "table", 1);
done:
    ct_buf_clear(&buf);
    ct_report_close(&runs);
    return st;
}

static ct_status write_form(const char *dir, const char *stem, const char *ending,
                            const ct_buf *bytes, ct_err *err)
{
    ct_status st = CT_OK;
    char *path = NULL, *name = ct_strf(err, "%s.%s", stem, ending);
    CT_TRY(name ? CT_OK : CT_ERR_MEMORY);
    path = ct_path_join(dir, name, err);
    CT_TRY(path ? CT_OK : CT_ERR_MEMORY);
    CT_TRY(ct_file_write(path, bytes->data, bytes->size, err));
done:
    free(name);
    free(path);
    return st;
}

/* DIR/NAME in all three forms. */
static ct_status write_drawing(ct_fonts *fonts, const char *dir, ct_draw_fn draw,
                               const void *figure, const char *name, const char *title,
                               const char *description, ct_err *err)
{
    static const char *const endings[] = {"svg", "pdf", "png"};
    ct_status st = CT_OK;
    ct_buf bytes = {0};
    for (int form = CT_FIGURE_SVG; form <= CT_FIGURE_PNG; form++) {
        ct_buf_clear(&bytes);
        CT_TRY(ct_figure_render(fonts, draw, figure, title, description, (ct_figure_form)form,
                                &bytes, err));
        CT_TRY(write_form(dir, name, endings[form], &bytes, err));
    }
done:
    ct_buf_clear(&bytes);
    return st;
}

static ct_status write_figure(ct_fonts *fonts, const char *dir, const ct_figure *figure,
                              ct_err *err)
{
    ct_status st;
    ct_buf bytes = {0};
    CT_TRY(write_drawing(fonts, dir, ct_figure_draw, figure, figure->name, figure->title,
                         figure->description, err));
    CT_TRY(ct_figure_csv(figure, &bytes, err));
    CT_TRY(write_form(dir, figure->name, "csv", &bytes, err));
done:
    ct_buf_clear(&bytes);
    return st;
}

/* What recordings show, as attention_weights. */
static ct_status write_recorded(ct_fonts *fonts, const char *dir, const ct_report_runs *runs,
                                ct_err *err)
{
    ct_recorded *figures = NULL;
    size_t n;
    ct_buf bytes = {0};
    ct_status st = ct_recorded_new(runs, &figures, &n, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < n; i++) {
        const ct_recorded *f = &figures[i];
        CT_TRY(
            write_drawing(fonts, dir, ct_recorded_draw, f, f->name, f->title, f->description, err));
        ct_buf_clear(&bytes);
        CT_TRY(ct_recorded_csv(f, &bytes, err));
        CT_TRY(write_form(dir, f->name, "csv", &bytes, err));
    }
done:
    ct_buf_clear(&bytes);
    ct_recorded_free(figures, n);
    return st;
}

/* Table 6.1 of each model, as table_6.1 or, of several, table_6.1_VERSION. */
static ct_status write_weights(const char *dir, const ct_stats *stats, const ct_comparison *all,
                               size_t n, ct_err *err)
{
    ct_status st = CT_OK;
    ct_weights_table *tables = NULL;
    char **slugs = NULL, *name = NULL;
    ct_buf bytes = {0};
    size_t n_tables = 0;
    CT_TRY(ct_weights_tables_new(stats, all, n, &tables, &n_tables, err));
    CT_TRY(ct_label_slugs(stats, &slugs, err));
    for (size_t i = 0; i < n_tables; i++) {
        free(name);
        name = n_tables == 1 ? ct_strdup("table_6.1", err)
                             : ct_strf(err, "table_6.1_%s", slugs[tables[i].first]);
        CT_TRY(name ? CT_OK : CT_ERR_MEMORY);
        ct_buf_clear(&bytes);
        CT_TRY(ct_weights_csv(stats, &tables[i], &bytes, err));
        CT_TRY(write_form(dir, name, "csv", &bytes, err));
        ct_buf_clear(&bytes);
        CT_TRY(ct_weights_latex(stats, &tables[i], &bytes, err));
        CT_TRY(write_form(dir, name, "tex", &bytes, err));
    }
done:
    free(tables);
    free(name);
    ct_slugs_free(slugs, stats->n_versions);
    ct_buf_clear(&bytes);
    return st;
}

static ct_status write_tables(const char *dir, const ct_stats *stats, ct_err *err)
{
    ct_status st = CT_OK;
    ct_comparison *all = NULL;
    size_t n = 0;
    ct_buf bytes = {0};
    CT_TRY(ct_comparisons_new(stats, &all, &n, err));
    CT_TRY(ct_accuracy_latex(stats, all, n, &bytes, err));
    CT_TRY(write_form(dir, "accuracy", "tex", &bytes, err));
    ct_buf_clear(&bytes);
    CT_TRY(ct_comparisons_csv(stats, all, n, &bytes, err));
    CT_TRY(write_form(dir, "differences", "csv", &bytes, err));
    CT_TRY(write_weights(dir, stats, all, n, err));
done:
    free(all);
    ct_buf_clear(&bytes);
    return st;
}

ct_status ct_report_figures(const char *const *dirs, size_t n_dirs, const char *out_dir,
                            ct_err *err)
{
    ct_status st = CT_OK;
    ct_report_runs runs = {0};
    ct_fonts *fonts = NULL;
    ct_figure *figures = NULL;
    size_t n = 0;
    CT_TRY(ct_report_open(dirs, n_dirs, &runs, err));
    st = ct_figures_plan(runs.stats, runs.wanted, &figures, &n, err);
    if (st != CT_OK) {
        st = ct_fail_context(err, st, "%s", dirs[0]);
        goto done;
    }
    CT_TRY(ct_fonts_new(&fonts, err));
    CT_TRY(ct_dir_make(out_dir, err));
    for (size_t i = 0; i < n; i++) CT_TRY(write_figure(fonts, out_dir, &figures[i], err));
    CT_TRY(write_recorded(fonts, out_dir, &runs, err));
    CT_TRY(write_tables(out_dir, runs.stats, err));
done:
    ct_figures_free(figures, n);
    ct_fonts_free(fonts);
    ct_report_close(&runs);
    return st;
}

ct_status ct_report_html(const char *const *dirs, size_t n_dirs, const char *path, ct_err *err)
{
    ct_status st = CT_OK;
    ct_report_runs runs = {0};
    ct_buf page = {0};
    CT_TRY(ct_report_open(dirs, n_dirs, &runs, err));
    CT_TRY(ct_html_page(&runs, &page, err));
    CT_TRY(ct_file_write(path, page.data, page.size, err));
done:
    ct_buf_clear(&page);
    ct_report_close(&runs);
    return st;
}
