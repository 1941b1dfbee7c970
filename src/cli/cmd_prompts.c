/* cmd_prompts.c - `cortado prompts`: writes the prompts of a study, or of flags, as files. */
#include <stdlib.h>
#include <string.h>

#include "cli/common.h"
#include "cli/verbs.h"
#include "io/file.h"
#include "run/study.h"
#include "run/study_lists.h"
#include "task/grid.h"
#include "task/niah.h"

/* What to build: from a study's fields or from the flags. Lists from flags are owned. */
typedef struct ct_prompt_set {
    ct_niah_options niah;
    const int64_t *lengths, *depths;
    size_t n_lengths, n_depths;
    int64_t *owned_lengths, *owned_depths;
    char *tokenizer_dir;
    ct_study *study;
} ct_prompt_set;

static ct_niah_template template_of(const ct_args *args)
{
    return strcmp(ct_args_text(args, "--template", "base"), "base") ? CT_NIAH_INSTRUCT
                                                                    : CT_NIAH_BASE;
}

/* A flag that would be ignored is a slip. */
static ct_status refuse_flags(const ct_args *args, const char *const *flags, size_t n,
                              const char *why, ct_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (ct_args_has(args, flags[i])) return ct_fail(err, CT_ERR_USAGE, "%s: %s", flags[i], why);
    return CT_OK;
}

static ct_status set_from_study(const ct_args *args, const char *path, ct_prompt_set *set,
                                ct_err *err)
{
    static const char *const own[] = {"--haystack", "--needle", "--question", "--lengths",
                                      "--depths"};
    static const char *const reading[] = {"--jrt"};
    ct_status st = refuse_flags(args, own, sizeof own / sizeof *own,
                                "the study says it; change it there, or give no study", err);
    if (st != CT_OK) return st;
    st = ct_study_open(path, &set->study, err);
    if (st != CT_OK) return st;
    const ct_study *s = set->study;
    if (s->n_readings == 1) {
        st = refuse_flags(args, reading, 1, "the study's read_twice says it; change it there", err);
        if (st != CT_OK) return st;
    }
    if (s->n_models > 1 && !ct_args_has(args, "--tokenizer"))
        return ct_fail(err, CT_ERR_USAGE,
                       "expected a study of one model, got %zu: name the folder of one with "
                       "--tokenizer",
                       s->n_models);
    bool twice = s->n_readings == 1 ? s->read_twice[0] : ct_args_has(args, "--jrt");
    st = ct_study_niah_options(s, 0, twice, &set->niah, err);
    if (st != CT_OK) return st;
    if (ct_args_has(args, "--template")) set->niah.template_kind = template_of(args);
    for (size_t m = 1; m < s->n_models; m++)
        if (s->models[m].template_kind != s->models[0].template_kind &&
            !ct_args_has(args, "--template"))
            return ct_fail(err, CT_ERR_USAGE,
                           "expected --template, since the study's models have different ones");
    set->lengths = s->lengths.values;
    set->n_lengths = s->lengths.count;
    set->depths = s->depths.values;
    set->n_depths = s->depths.count;
    if (ct_args_has(args, "--tokenizer")) {
        set->tokenizer_dir = ct_strdup(ct_args_text(args, "--tokenizer", NULL), err);
        return set->tokenizer_dir ? CT_OK : CT_ERR_MEMORY;
    }
    return ct_study_model_dir(s, 0, ct_args_text(args, "--model-root", NULL), &set->tokenizer_dir,
                              err);
}

static ct_status set_from_flags(const ct_args *args, ct_prompt_set *set, ct_err *err)
{
    static const char *const needed[] = {"--tokenizer", "--haystack", "--needle",
                                         "--question",  "--lengths",  "--depths"};
    static const char *const of_study[] = {"--model-root"};
    ct_status st =
        refuse_flags(args, of_study, 1, "expected a study with it; --tokenizer names DIR", err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!ct_args_has(args, needed[i]))
            return ct_fail(err, CT_ERR_USAGE, "expected %s (or a study file)", needed[i]);
    set->niah.n_haystack = ct_args_texts(args, "--haystack", &set->niah.haystack);
    set->niah.needle = ct_args_text(args, "--needle", NULL);
    set->niah.question = ct_args_text(args, "--question", NULL);
    set->niah.template_kind = template_of(args);
    set->niah.read_twice = ct_args_has(args, "--jrt");
    set->niah.buffer = 200;
    st = ct_grid_parse(ct_args_text(args, "--lengths", ""), "--lengths", 1, CT_STUDY_MAX_LENGTH,
                       &set->owned_lengths, &set->n_lengths, err);
    if (st == CT_OK)
        st = ct_grid_parse(ct_args_text(args, "--depths", ""), "--depths", 0, 100,
                           &set->owned_depths, &set->n_depths, err);
    if (st == CT_OK)
        st = ct_study_check_distinct(set->owned_lengths, set->n_lengths, "--lengths", err);
    if (st == CT_OK)
        st = ct_study_check_distinct(set->owned_depths, set->n_depths, "--depths", err);
    set->lengths = set->owned_lengths;
    set->depths = set->owned_depths;
    if (st != CT_OK) return st;
    set->tokenizer_dir = ct_strdup(ct_args_text(args, "--tokenizer", NULL), err);
    return set->tokenizer_dir ? CT_OK : CT_ERR_MEMORY;
}

static ct_status write_prompt(const ct_args *args, const ct_niah *niah, int64_t length,
                              int64_t depth, const char *dir, ct_err *err)
{
    ct_status st;
    ct_niah_prompt prompt = {0};
    char *name = NULL, *json = NULL, *path = NULL;
    CT_TRY(ct_niah_build(niah, length, depth, &prompt, err));
    CT_TRY(ct_niah_file(niah, &prompt, ct_args_text(args, "--model-name", "cortado"),
                        ct_args_text(args, "--tokenizer-name", "Huggingface"), &name, &json, err));
    path = ct_path_join(dir, name, err);
    if (!path) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(ct_file_write(path, json, strlen(json), err));
done:
    ct_niah_prompt_clear(&prompt);
    free(name);
    free(json);
    free(path);
    return st;
}

static int run_prompts(const ct_args *args)
{
    const char *const *operands;
    size_t n = ct_args_operands(args, &operands);
    const char *dir = ct_args_text(args, "--out", NULL);
    if (!dir) return ct_args_usage(args, "expected -o DIR");
    ct_err err = {0};
    ct_status st;
    ct_prompt_set set = {0};
    ct_tokenizer *tokenizer = NULL;
    ct_niah *niah = NULL;
    int64_t longest = 0;
    CT_TRY(n ? set_from_study(args, operands[0], &set, &err) : set_from_flags(args, &set, &err));
    for (size_t i = 0; i < set.n_lengths; i++)
        if (set.lengths[i] > longest) longest = set.lengths[i];
    CT_TRY(ct_tokenizer_open(set.tokenizer_dir, &tokenizer, &err));
    CT_TRY(ct_niah_open(&set.niah, tokenizer, longest, &niah, &err));
    CT_TRY(ct_dir_make(dir, &err));
    for (size_t i = 0; i < set.n_lengths; i++)
        for (size_t j = 0; j < set.n_depths; j++)
            CT_TRY(write_prompt(args, niah, set.lengths[i], set.depths[j], dir, &err));
    printf("%zu prompts in %s\n", set.n_lengths * set.n_depths, dir);
done:
    ct_niah_close(niah);
    ct_tokenizer_close(tokenizer);
    ct_study_close(set.study);
    free(set.owned_lengths);
    free(set.owned_depths);
    free(set.tokenizer_dir);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option options[] = {
    {"--out", "-o", CT_ARG_TEXT, "DIR", "Folder for the files; made if it is not there.", 0, 0},
    {"--tokenizer", NULL, CT_ARG_TEXT, "DIR",
     "Folder with tokenizer.json (default with a study: its model's folder).", 0, 0},
    {"--model-root", NULL, CT_ARG_TEXT, "DIR", "Where a study's model folder is looked up first.",
     0, 0},
    {"--haystack", NULL, CT_ARG_TEXTS, "FILE...",
     "Text files, joined in this order without separators; a folder means its *.txt files.", 0, 0},
    {"--needle", NULL, CT_ARG_TEXT, "TEXT", "The sentence to hide, with its line ends.", 0, 0},
    {"--question", NULL, CT_ARG_TEXT, "TEXT", "The question that it answers.", 0, 0},
    {"--lengths", NULL, CT_ARG_TEXT, "A:B:N|LIST",
     "Context lengths in tokens: 250:4096:10 or 500,1000.", 0, 0},
    {"--depths", NULL, CT_ARG_TEXT, "A:B:N|LIST", "Depths in per cent, 0 the beginning: 0:100:10.",
     0, 0},
    {"--template", NULL, CT_ARG_CHOICE, "base|instruct",
     "The prompt's form (default: base, or the study's).", 0, 0},
    {"--jrt", NULL, CT_ARG_FLAG, NULL,
     "Just read twice: repeat context and question once. Of a study with both, those read twice.",
     0, 0},
    {"--model-name", NULL, CT_ARG_TEXT, "S", "Written into the files' field model.", 0, 0},
    {"--tokenizer-name", NULL, CT_ARG_TEXT, "S", "Begins the file names (default Huggingface).", 0,
     0},
};

const ct_verb ct_verb_prompts = {
    .name = "prompts",
    .operands = "[STUDY.yaml]",
    .max_operands = 1,
    .summary = "write needle-in-a-haystack prompts as files",
    .description =
        "Builds one prompt for each length and depth and writes it as JSON, in the form of the "
        "thesis's code: NAME_LENGTH_DEPTH_prompts.json.",
    .example = "cortado prompts studies/quickstart.yaml -o prompts\n"
               "cortado prompts --tokenizer gemma --haystack essays/*.txt \\\n"
               "  --lengths 250:4096:10 --depths 0:100:10 --needle $'\\nThe sky is green.\\n' \\\n"
               "  --question 'What colour is the sky?' -o prompts",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_prompts,
};
