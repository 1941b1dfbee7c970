/* cmd_report.c - `cortado report` and `cortado export`: what stored runs say. */
#include <stdlib.h>
#include <string.h>

#include <cortado/lab.h>

#include "base/buf.h"
#include "cli/common.h"
#include "cli/verbs.h"
#include "io/file.h"
#include <cortado/report.h>

/* Figures of one run lie in its folder, those of several beside their page: both.html ->
 * both_figures. The caller frees. */
static char *figures_beside(const char *page, ct_err *err)
{
    size_t n = strlen(page);
    if (n > 5 && !strcmp(page + n - 5, ".html")) n -= 5;
    return ct_strf(err, "%.*s_figures", (int)n, page);
}

static int run_report(const ct_args *args)
{
    const char *const *dirs;
    size_t n = ct_args_operands(args, &dirs);
    ct_err err = {0};
    ct_status st = CT_OK;
    char *table = NULL, *html = NULL, *folder = NULL;
    const char *out = ct_args_text(args, "--out", NULL);
    if (!out) out = html = ct_path_join(dirs[0], "report.html", &err);
    CT_TRY(out ? CT_OK : CT_ERR_MEMORY);
    CT_TRY(
        ct_report_html(dirs, n, out, &err)); /* first: it lists failed cells even if all failed */
    CT_TRY(ct_report_table(dirs, n, &table, &err));
    printf("%s\n", table);
    const char *figures = ct_args_text(args, "--figures", NULL);
    if (!figures)
        figures = folder =
            n > 1 ? figures_beside(out, &err) : ct_path_join(dirs[0], "figures", &err);
    CT_TRY(figures ? CT_OK : CT_ERR_MEMORY);
    CT_TRY(ct_report_figures(dirs, n, figures, &err));
    printf("figures  %s\n", figures);
    printf("report   %s\n", out);
done:
    free(table);
    free(html);
    free(folder);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option report_options[] = {
    {"--out", "-o", CT_ARG_TEXT, "FILE", "The page (default: report.html in the first DIR).", 0, 0},
    {"--figures", NULL, CT_ARG_TEXT, "DIR",
     "Folder of figures and tables (default: figures in DIR; of several, PAGE_figures).", 0, 0},
};

const ct_verb ct_verb_report = {
    .name = "report",
    .operands = "DIR...",
    .min_operands = 1,
    .max_operands = -1,
    .summary = "tables, figures and one HTML page from stored runs",
    .description =
        "Reads the stores of finished or running runs, prints their accuracies with intervals and "
        "paired tests, draws their figures anew (SVG, PDF, PNG, numbers as CSV, tables as CSV and "
        "LaTeX), and writes one self-contained page with an explorer of every cell. Several runs "
        "are taken together: models stand in one figure, versions are compared across runs.",
    .example = "cortado report runs/quickstart\n"
               "cortado report runs/a runs/b -o both.html",
    .options = report_options,
    .n_options = sizeof report_options / sizeof *report_options,
    .run = run_report,
};

static ct_status write_stdout(void *user, const char *bytes, size_t size, ct_err *err)
{
    (void)user;
    if (fwrite(bytes, 1, size, stdout) != size) return ct_fail_errno(err, "standard output");
    return CT_OK;
}

static int run_export(const ct_args *args)
{
    const char *const *dirs;
    ct_args_operands(args, &dirs);
    ct_err err = {0};
    bool csv = !strcmp(ct_args_text(args, "--format", "csv"), "csv");
    ct_status st =
        ct_run_export(dirs[0], csv ? CT_EXPORT_CSV : CT_EXPORT_JSONL, write_stdout, NULL, &err);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option export_options[] = {
    {"--format", NULL, CT_ARG_CHOICE, "csv|jsonl",
     "csv (default) with a header line, or JSON lines.", 0, 0},
};

const ct_verb ct_verb_export = {
    .name = "export",
    .operands = "DIR",
    .min_operands = 1,
    .max_operands = 1,
    .summary = "the cells of a run as CSV or JSON lines",
    .description =
        "Prints one line a cell of the run in DIR: request, intervention, answer, score, audit "
        "and timing.",
    .example = "cortado export runs/quickstart --format csv > cells.csv",
    .options = export_options,
    .n_options = sizeof export_options / sizeof *export_options,
    .run = run_export,
};
