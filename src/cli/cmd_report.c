/* cmd_report.c - `cortado report` and `cortado export`: what stored runs say. */
#include <stdlib.h>
#include <string.h>

#include <cortado/lab.h>

#include "cli/common.h"
#include "cli/verbs.h"
#include "io/file.h"
#include <cortado/report.h>

static int run_report(const ct_args *args)
{
    const char *const *dirs;
    size_t n = ct_args_operands(args, &dirs);
    ct_err err = {0};
    ct_status st = CT_OK;
    char *table = NULL, *figures = NULL, *html = NULL;
    const char *out = ct_args_text(args, "--out", NULL);
    if (!out) out = html = ct_path_join(dirs[0], "report.html", &err);
    if (!out) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(
        ct_report_html(dirs, n, out, &err)); /* first: it lists failed cells even if all failed */
    for (size_t i = 0; i < n; i++) {
        CT_TRY(ct_report_table(dirs[i], &table, &err));
        printf("%s%s", i ? "\n" : "", table);
        free(table);
        table = NULL;
        figures = ct_path_join(dirs[i], "figures", &err);
        if (!figures) {
            st = CT_ERR_MEMORY;
            goto done;
        }
        CT_TRY(ct_report_figures(&dirs[i], 1, figures, &err));
        printf("\nfigures  %s\n", figures);
        free(figures);
        figures = NULL;
    }
    printf("report   %s\n", out);
done:
    free(table);
    free(figures);
    free(html);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option report_options[] = {
    {"--out", "-o", CT_ARG_TEXT, "FILE", "The page (default: report.html in the first DIR).", 0, 0},
};

const ct_verb ct_verb_report = {
    .name = "report",
    .operands = "DIR...",
    .min_operands = 1,
    .max_operands = -1,
    .summary = "tables, figures and one HTML page from stored runs",
    .description =
        "Reads the stores of finished or running runs, prints their accuracy tables, draws "
        "their figures anew, and writes one self-contained page for all of them.",
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
