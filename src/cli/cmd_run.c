/* cmd_run.c - `cortado run`: runs studies, prints their tables, draws their figures. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <cortado/lab.h>

#include "base/buf.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "cli/verbs.h"
#include "io/file.h"
#include "model/model.h"
#include "run/study.h"
#include <cortado/report.h>

/* The first signal asks the run to stop; a second one ends the process as it would without us. */
static volatile sig_atomic_t stop_requested;

static void on_signal(int number)
{
    int before = errno; /* of whatever the thread was about */
    stop_requested = 1;
    signal(number, SIG_DFL);
    errno = before;
}

static void show_progress(void *user, const ct_run_progress *p)
{
    ct_progress *progress = user;
    progress->first_done = p->cells_first;
    ct_progress_show(progress, p->cells_done, p->cells_total, p->tokens, p->elapsed_ms);
}

static ct_status write_stdout(void *user, const char *bytes, size_t size, ct_err *err)
{
    (void)user;
    if (fwrite(bytes, 1, size, stdout) != size) return ct_fail_errno(err, "standard output");
    return CT_OK;
}

/* Bytes in the unit that leaves 1 to 4 digits before the point. */
static const char *size_text(int64_t bytes, char out[32])
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++) value /= 1024;
    snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return out;
}

static void print_plan(const ct_run_result *r, bool memory_given)
{
    char states[32], limit[32], weights[32], recordings[32];
    printf("cells             %lld (%lld versions of %lld prompts), %lld stored already\n",
           (long long)r->cells, (long long)r->versions, (long long)r->prompts,
           (long long)r->stored);
    printf("prefill           %lld tokens in a plain loop\n                  %lld as planned",
           (long long)r->prefill_tokens_plain, (long long)r->prefill_tokens_planned);
    if (r->prefill_tokens_planned > 0)
        printf(", %.1f times fewer",
               (double)r->prefill_tokens_plain / (double)r->prefill_tokens_planned);
    printf("\n                  %lld segments in %lld batches, %lld forks; planned in %.0f ms\n",
           (long long)r->segments, (long long)r->batches, (long long)r->forks, r->plan_ms);
    printf("decode            %lld steps of up to %lld rows, if no answer ends early\n",
           (long long)r->decode_steps, (long long)r->decode_rows);
    if (r->lanes > 1)
        printf("lanes             %lld, which take %lld stretches of the plan (%s)\n",
               (long long)r->lanes, (long long)r->stretches, r->devices);
    printf("memory of %s  %s at most; limit %s (%s)\n", r->lanes > 1 ? "a lane" : "states",
           size_text(r->state_bytes, states), size_text(r->memory_limit, limit),
           memory_given          ? "--memory"
           : r->memory_of_device ? "what the device has free, less a tenth"
                                 : "half of what is free");
    if (r->recordings > 0)
        printf("recordings        %lld files, %s at most\n", (long long)r->recordings,
               size_text(r->recording_bytes, recordings));
    printf("weights           %s\n", size_text(r->weight_bytes, weights));
}

/* Bytes with an optional K, M or G; 0 if that is not what the text is. */
static int64_t parse_size(const char *text)
{
    char *end;
    if (*text < '0' || *text > '9') return 0;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (errno || end[shift > 0] || value > INT64_MAX >> shift) return 0;
    return (int64_t)value << shift;
}

/* Tables, figures and the page of a run that has stored cells. */
static ct_status report_run(const char *dir, ct_err *err)
{
    ct_status st;
    char *table = NULL, *figures = NULL, *html = NULL;
    CT_TRY(ct_report_table(&dir, 1, &table, err));
    fputs(table, stdout);
    figures = ct_path_join(dir, "figures", err);
    html = ct_path_join(dir, "report.html", err);
    if (!figures || !html) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(
        ct_report_html(&dir, 1, html, err)); /* first: it lists failed cells even if all failed */
    CT_TRY(ct_report_figures(&dir, 1, figures, err));
    printf("\nfigures  %s\nreport   %s\n", figures, html);
done:
    free(table);
    free(figures);
    free(html);
    return st;
}

/* Says before the run which models are larger than memory. */
static ct_status warn_memory(const ct_args *args, const ct_study *study, const char *root,
                             ct_err *err)
{
    ct_status st = CT_OK;
    const char *only = ct_args_text(args, "--model", NULL);
    for (size_t m = 0; m < study->n_models && st == CT_OK; m++) {
        if (only && strcmp(only, study->models[m].name) != 0) continue;
        char *dir = NULL;
        ct_model *model = NULL;
        st = ct_study_model_dir(study, m, root, &dir, err);
        const ct_model_options look = {.weights = ct_args_text(args, "--weights", NULL)};
        if (st == CT_OK) st = ct_model_describe(dir, &look, &model, err);
        if (st == CT_OK) ct_cli_warn_memory(args, model);
        ct_model_close(model);
        free(dir);
    }
    return st;
}

static ct_status run_study(const ct_args *args, const char *path, int *failed_cells, ct_err *err)
{
    ct_status st;
    ct_study *study = NULL;
    char *dir = NULL;
    ct_progress progress;
    ct_run_result result = {0};
    const char *compute = ct_args_text(args, "--compute", "auto");
    CT_TRY(ct_study_open(path, &study, err));
    dir = ct_args_has(args, "--out") ? ct_strdup(ct_args_text(args, "--out", NULL), err)
                                     : ct_strf(err, "runs/%s", ct_study_name(study));
    if (!dir) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    ct_progress_init(&progress, 0);
    const ct_run_options options = {
        .out_dir = dir,
        .model_root = ct_args_text(args, "--model-root", NULL),
        .only_model = ct_args_text(args, "--model", NULL),
        .device = ct_args_text(args, "--device", "cpu"),
        .compute = !strcmp(compute, "f32")    ? CT_CHOOSE_F32
                   : !strcmp(compute, "bf16") ? CT_CHOOSE_BF16
                                              : CT_CHOOSE_AUTO,
        .threads = (int)ct_args_int(args, "--threads", 0),
        .limit = ct_args_int(args, "--limit", 0),
        .weights = ct_args_text(args, "--weights", NULL),
        .memory = parse_size(ct_args_text(args, "--memory", "0")),
        .dry_run = ct_args_has(args, "--dry-run"),
        .alone = ct_args_has(args, "--alone"),
        .command_line = ct_args_command_line(args),
        .stop = &stop_requested,
        .progress = show_progress,
        .user = &progress,
    };
    printf("study    %s\n", ct_study_name(study));
    fflush(stdout);
    if (!options.dry_run) {
        if (strncmp(options.device, "cuda", 4) != 0)
            CT_TRY(warn_memory(args, study, options.model_root, err));
    }
    st = ct_run_study(study, &options, &result, err);
    ct_progress_clear(&progress);
    if (options.dry_run && st == CT_OK) {
        CT_TRY(ct_study_describe(study, write_stdout, NULL, err));
        print_plan(&result, options.memory > 0);
        if (result.failed > 0)
            fprintf(stderr, "cortado run: warning: %lld cells cannot run, the first: %s\n",
                    (long long)result.failed, result.first_error);
        goto done;
    }
    if (st == CT_OK || st == CT_ERR_INTERRUPTED) {
        printf("cells    %lld done now, %lld stored before, %lld failed, %lld left\n",
               (long long)result.done, (long long)result.stored, (long long)result.failed,
               (long long)result.left);
        printf("time     %.1f s\nstore    %s\n", result.wall_ms / 1e3, result.store);
    }
    if (result.failed > 0) {
        fprintf(stderr, "cortado run: %lld cells failed, the first: %s\n", (long long)result.failed,
                result.first_error);
        *failed_cells = 1;
    }
    if (st == CT_ERR_INTERRUPTED)
        ct_fail(err, st,
                "interrupted; what was finished is stored, the same command goes on from there");
    if (st == CT_OK && result.done + result.stored > 0) {
        putchar('\n');
        st = report_run(dir, err);
    }
done:
    free(dir);
    ct_study_close(study);
    return st;
}

/* Reads all studies before the first one runs, which may take days. Two of one name would go into one
 * folder, where the second hides what the first has done. */
static ct_status check_studies(const char *const *paths, size_t n, ct_err *err)
{
    ct_status st = CT_OK;
    ct_study **studies = calloc(n, sizeof(ct_study *));
    if (!studies) return ct_fail_memory(err, "studies", n * sizeof *studies);
    for (size_t i = 0; i < n && st == CT_OK; i++) {
        st = ct_study_open(paths[i], &studies[i], err);
        for (size_t j = 0; j < i && st == CT_OK; j++)
            if (!strcmp(ct_study_name(studies[i]), ct_study_name(studies[j])))
                st = ct_fail(err, CT_ERR_USAGE,
                             "%s: expected studies of different names, got \"%s\" in %s, too",
                             paths[i], ct_study_name(studies[i]), paths[j]);
    }
    for (size_t i = 0; i < n; i++) ct_study_close(studies[i]);
    free(studies);
    return st;
}

static int run_run(const ct_args *args)
{
    const char *const *studies;
    size_t n = ct_args_operands(args, &studies);
    if (n > 1 && ct_args_has(args, "--out"))
        return ct_args_usage(args, "--out: expected one study with it, got %zu", n);
    if (ct_args_has(args, "--memory") && parse_size(ct_args_text(args, "--memory", "")) <= 0)
        return ct_args_usage(args, "--memory: expected bytes such as 500M or 4G, got \"%s\"",
                             ct_args_text(args, "--memory", ""));
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL); /* batch systems give notice with it */
    ct_err err = {0};
    ct_status st = CT_OK;
    int failed_cells = 0;
    if (n > 1) st = check_studies(studies, n, &err);
    for (size_t i = 0; i < n && st == CT_OK; i++) {
        if (i) putchar('\n');
        st = run_study(args, studies[i], &failed_cells, &err);
    }
    if (st != CT_OK) return ct_args_fail(args, &err);
    return failed_cells ? CT_EXIT_FAILED : CT_EXIT_OK;
}

static const ct_option options[] = {
    {"--out", NULL, CT_ARG_TEXT, "DIR", "Folder of the run (default runs/<study>).", 0, 0},
    {"--model-root", NULL, CT_ARG_TEXT, "DIR", "Where the study's model folder is looked up first.",
     0, 0},
    {"--model", NULL, CT_ARG_TEXT, "NAME",
     "Of a study of several models, run this one only. The others' cells stay as they are.", 0, 0},
    {"--dry-run", NULL, CT_ARG_FLAG, NULL, "Print the plan and compute nothing.", 0, 0},
    {"--limit", NULL, CT_ARG_INT, "N", "Run at most N cells now.", 1, 9e15},
    {"--memory", NULL, CT_ARG_TEXT, "SIZE",
     "Bytes, or with K, M or G, that states of sequences and recordings may take (default: half "
     "of the machine's free memory; on each GPU, nine tenths of what it has beside the weights). "
     "With "
     "less, more is computed again; outcomes stay the same.",
     0, 0},
    {"--alone", NULL, CT_ARG_FLAG, NULL,
     "Compute every cell by itself, one after another: no shared prefill, no batch. Outcomes are "
     "the same, so this shows that the plan changes nothing; it takes many times longer.",
     0, 0},
    CT_OPTION_WEIGHTS,
    CT_OPTION_DEVICES,
    CT_OPTION_COMPUTE,
    CT_OPTION_THREADS,
};

const ct_verb ct_verb_run = {
    .name = "run",
    .operands = "STUDY.yaml...",
    .min_operands = 1,
    .max_operands = -1,
    .summary = "run a study: every cell, stored; then tables and figures",
    .description = "Runs each study into its folder, which holds run.sqlite, figures/ and "
                   "report.html. Running it "
                   "again continues: what is stored is not computed again, failed cells are tried "
                   "again, and a "
                   "changed study runs only what is new. Ctrl-C loses at most the cells in flight.",
    .example = "cortado run studies/quickstart.yaml\n"
               "cortado run studies/quickstart.yaml --dry-run",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_run,
};
