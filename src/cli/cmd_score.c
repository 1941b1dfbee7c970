/* cmd_score.c - `cortado score`: scores answers in files. */
#include <stdlib.h>
#include <string.h>

#include "cli/common.h"
#include "cli/verbs.h"
#include "task/niah.h"

static int run_score(const ct_args *args)
{
    if (!ct_args_has(args, "--needle")) return ct_args_usage(args, "expected --needle TEXT");
    const char *const *files;
    size_t n = ct_args_operands(args, &files);
    ct_err err = {0};
    ct_status st;
    ct_scoring scoring;
    char *text = NULL;
    double sum = 0, max_score = 0;
    CT_TRY(ct_scoring_parse(ct_args_text(args, "--scoring", "table"), "--scoring", &scoring, &err));
    for (size_t i = 0; i < n; i++) {
        size_t size;
        double score;
        CT_TRY(ct_cli_read(files[i], &text, &size, &err));
        CT_TRY(ct_score(scoring, NULL, 0, ct_args_text(args, "--needle", NULL), text, size, &score,
                        &max_score, &err));
        printf("%s\t%g\n", files[i], score);
        sum += score;
        free(text);
        text = NULL;
    }
    printf("mean\t%g\n", sum / (double)n);
done:
    free(text);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option options[] = {
    {"--needle", NULL, CT_ARG_TEXT, "TEXT", "The sentence that a right answer repeats.", 0, 0},
    {"--scoring", NULL, CT_ARG_CHOICE, "table|reference|binary",
     "table (default): Table 2.1 of the thesis; reference: its published code; binary: all or "
     "nothing.",
     0, 0},
};

const ct_verb ct_verb_score = {
    .name = "score",
    .operands = "FILE...",
    .min_operands = 1,
    .max_operands = -1,
    .summary = "score answers in files",
    .description =
        "Scores the answer in each FILE and prints one line a file, its name and its score "
        "split by a tab, then the mean.",
    .example = "cortado score --needle 'The best thing to do in San Francisco is eat a\n"
               "  sandwich and sit in Dolores Park on a sunny day.' answers/*.txt",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_score,
};
