/* cmd_tokenize.c - `cortado tokenize` and `cortado detokenize`. */
#include <stdlib.h>
#include <string.h>

#include "cli/common.h"
#include "cli/verbs.h"
#include "tok/tok.h"

static ct_status open_tokenizer(const ct_args *args, ct_tokenizer **out, ct_err *err)
{
    const char *dir = ct_args_text(args, "--tokenizer", ct_args_text(args, "--model", NULL));
    return ct_tokenizer_open(dir, out, err);
}

/* CT_EXIT_OK if one place of the tokenizer is given. */
static int check_tokenizer(const ct_args *args)
{
    int given = ct_args_has(args, "--tokenizer") + ct_args_has(args, "--model");
    if (given == 1) return CT_EXIT_OK;
    return ct_args_usage(args, "expected -m MODEL or --tokenizer DIR, got %s",
                         given ? "both" : "neither");
}

/* One line a token: its id and its text as a JSON string, which shows blanks and line ends. */
static ct_status print_tokens(const ct_tokenizer *tokenizer, const int32_t *ids, size_t count,
                              ct_err *err)
{
    for (size_t i = 0; i < count; i++) {
        char *text;
        size_t size;
        ct_status st = ct_tokenizer_decode(tokenizer, &ids[i], 1, false, &text, &size, err);
        if (st != CT_OK) return st;
        json_t *string = ct_cli_text_json(text, size);
        char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
        json_decref(string);
        free(text);
        if (!quoted) return ct_fail_memory(err, "token text", size);
        printf("%d\t%s\n", ids[i], quoted);
        free(quoted);
    }
    return CT_OK;
}

static int run_tokenize(const ct_args *args)
{
    if (check_tokenizer(args) != CT_EXIT_OK) return CT_EXIT_USAGE;
    const char *const *files;
    size_t n_files = ct_args_operands(args, &files);
    ct_err err = {0};
    ct_status st;
    ct_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t size = 0, count = 0;
    int32_t *ids = NULL;
    CT_TRY(open_tokenizer(args, &tokenizer, &err));
    CT_TRY(ct_cli_read(n_files ? files[0] : NULL, &text, &size, &err));
    bool special = !ct_args_has(args, "--no-special");
    if (ct_args_has(args, "--chat")) {
        CT_TRY(ct_cli_chat(tokenizer, &text, &size, &err));
        special = special && ct_tokenizer_wants_special(tokenizer, text, size);
    }
    CT_TRY(ct_tokenizer_encode(tokenizer, text, size, special, &ids, &count, &err));
    if (ct_args_has(args, "--ids")) {
        for (size_t i = 0; i < count; i++) printf("%s%d", i ? "," : "", ids[i]);
        putchar('\n');
    } else {
        CT_TRY(print_tokens(tokenizer, ids, count, &err));
    }
done:
    free(ids);
    free(text);
    ct_tokenizer_close(tokenizer);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static int run_detokenize(const ct_args *args)
{
    if (check_tokenizer(args) != CT_EXIT_OK) return CT_EXIT_USAGE;
    const char *const *files;
    size_t n_files = ct_args_operands(args, &files);
    ct_err err = {0};
    ct_status st;
    ct_tokenizer *tokenizer = NULL;
    char *list = NULL, *text = NULL;
    size_t size = 0, count = 0;
    int32_t *ids = NULL;
    CT_TRY(open_tokenizer(args, &tokenizer, &err));
    CT_TRY(ct_cli_read(n_files ? files[0] : NULL, &list, &size, &err));
    CT_TRY(ct_cli_parse_ids(list, n_files ? files[0] : "standard input", &ids, &count, &err));
    CT_TRY(ct_tokenizer_decode(tokenizer, ids, count, !ct_args_has(args, "--keep-special"), &text,
                               &size, &err));
    if (ct_args_has(args, "--ids")) {
        CT_TRY(print_tokens(tokenizer, ids, count, &err));
    } else {
        fwrite(text, 1, size, stdout);
    }
done:
    free(ids);
    free(list);
    free(text);
    ct_tokenizer_close(tokenizer);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option tokenize_options[] = {
    CT_OPTION_MODEL,
    {"--tokenizer", NULL, CT_ARG_TEXT, "DIR", "Folder with tokenizer.json.", 0, 0},
    {"--ids", NULL, CT_ARG_FLAG, NULL, "Print only the ids, with commas, on one line.", 0, 0},
    CT_OPTION_CHAT,
    {"--no-special", NULL, CT_ARG_FLAG, NULL, "Do not add BOS and other special tokens.", 0, 0},
};

const ct_verb ct_verb_tokenize = {
    .name = "tokenize",
    .operands = "[FILE]",
    .max_operands = 1,
    .summary = "text to token ids",
    .description = "Encodes FILE (standard input without it) byte for byte and prints one line a "
                   "token: its id, a tab, and its text as a JSON string.",
    .example = "cortado tokenize -m models/griffin-demo --ids prompt.txt",
    .options = tokenize_options,
    .n_options = sizeof tokenize_options / sizeof *tokenize_options,
    .run = run_tokenize,
};

static const ct_option detokenize_options[] = {
    CT_OPTION_MODEL,
    {"--tokenizer", NULL, CT_ARG_TEXT, "DIR", "Folder with tokenizer.json.", 0, 0},
    {"--ids", NULL, CT_ARG_FLAG, NULL, "Print one line a token: its id and its text.", 0, 0},
    {"--keep-special", NULL, CT_ARG_FLAG, NULL, "Print special tokens such as <bos> too.", 0, 0},
};

const ct_verb ct_verb_detokenize = {
    .name = "detokenize",
    .operands = "[FILE]",
    .max_operands = 1,
    .summary = "token ids to text",
    .description = "Reads ids from FILE (standard input without it), separated by commas or white "
                   "space, and prints the text they stand for, with nothing added.",
    .example = "cortado tokenize -m models/griffin-demo --ids prompt.txt |\n"
               "  cortado detokenize -m models/griffin-demo",
    .options = detokenize_options,
    .n_options = sizeof detokenize_options / sizeof *detokenize_options,
    .run = run_detokenize,
};
