/* cmd_inspect.c - `cortado inspect`: what a model folder holds and what it needs. */
#include <stdlib.h>
#include <string.h>

#include "cli/common.h"
#include "cli/verbs.h"
#include "load/load.h"

static void print_bytes(const char *label, int64_t bytes)
{
    const char *units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    for (; value >= 1024 && unit < 4; unit++) value /= 1024;
    printf(unit ? "%-20s%.1f %s\n" : "%-20s%.0f %s\n", label, value, units[unit]);
}

/* KV and recurrent bytes of one sequence of `tokens`: blocks of 64 positions inside the window. */
static int64_t state_bytes(const ct_model_info *info, int64_t tokens)
{
    int64_t held = tokens < info->window + 64 ? tokens : info->window + 64;
    return info->state_bytes_fixed + (held + 63) / 64 * info->state_bytes_per_block;
}

static void print_info(const ct_model_info *i)
{
    printf("%-20s%s (%s)\n", "architecture", i->architecture, i->family);
    printf("%-20s%lld (%lld recurrent, %lld attention)\n", "layers", (long long)i->layers,
           (long long)i->recurrent_layers, (long long)i->attention_layers);
    printf("%-20s%lld of size %lld, %lld key-value\n", "attention heads", (long long)i->heads,
           (long long)i->head_dim, (long long)i->kv_heads);
    printf("%-20s%lld tokens, the current one counted\n", "window", (long long)i->window);
    printf("%-20s%lld, feed-forward %lld\n", "width", (long long)i->width, (long long)i->ffn_width);
    printf("%-20s%lld\n", "vocabulary", (long long)i->vocab);
    printf("%-20s%lld\n", "parameters", (long long)i->parameters);
    printf("%-20s%s, products in %s on %s\n", "weights", i->dtype, i->compute, i->backend);
    print_bytes("weight bytes", i->weight_bytes);
    print_bytes("state, 1 token", state_bytes(i, 1));
    print_bytes("state, 4096 tokens", state_bytes(i, 4096));
    printf("%-20s%s\n", "weights hash", i->weights_hash);
}

/* Elements that are NaN or infinite: allowed, but worth knowing. *where names the first such tensor
 * (borrowed from the folder; NULL if there is none). */
static int64_t count_nonfinite(const ct_folder *folder, const char **where)
{
    int64_t sum = 0;
    *where = NULL;
    for (size_t i = 0; i < ct_folder_tensor_count(folder); i++) {
        int64_t n = ct_folder_nonfinite(folder, i);
        if (n && !*where) *where = ct_folder_tensor_name(folder, i);
        sum += n;
    }
    return sum;
}

static json_t *info_json(const ct_model_info *i)
{
    return json_pack(
        "{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:i,s:i,"
        "s:i}",
        "architecture", i->architecture, "family", i->family, "dtype", i->dtype, "compute",
        i->compute, "backend", i->backend, "weights_hash", i->weights_hash, "layers",
        (json_int_t)i->layers, "attention_layers", (json_int_t)i->attention_layers,
        "recurrent_layers", (json_int_t)i->recurrent_layers, "heads", (json_int_t)i->heads,
        "kv_heads", (json_int_t)i->kv_heads, "head_dim", (json_int_t)i->head_dim, "width",
        (json_int_t)i->width, "ffn_width", (json_int_t)i->ffn_width, "vocab", (json_int_t)i->vocab,
        "window", (json_int_t)i->window, "parameters", (json_int_t)i->parameters, "weight_bytes",
        (json_int_t)i->weight_bytes, "state_bytes_fixed", (json_int_t)i->state_bytes_fixed,
        "state_bytes_per_block", (json_int_t)i->state_bytes_per_block, "bos", i->bos, "eos", i->eos,
        "pad", i->pad);
}

static int run_inspect(const ct_args *args)
{
    const char *const *operands;
    ct_args_operands(args, &operands);
    ct_err err = {0};
    ct_status st;
    ct_model *model = NULL;
    ct_tokenizer *tokenizer = NULL;
    ct_folder *folder = NULL;
    const char *where;
    CT_TRY(ct_model_open(operands[0], NULL, &model, &err));
    CT_TRY(ct_folder_open(operands[0], &folder, &err));
    int64_t nonfinite = count_nonfinite(folder, &where);
    bool has_tokenizer = ct_cli_has_file(operands[0], "tokenizer.json");
    if (has_tokenizer) CT_TRY(ct_tokenizer_open(operands[0], &tokenizer, &err));
    if (ct_args_has(args, "--json")) {
        json_t *object = info_json(ct_model_get_info(model));
        if (object) json_object_set_new(object, "nonfinite_weights", json_integer(nonfinite));
        if (object && tokenizer)
            json_object_set_new(object, "tokenizer_hash",
                                json_string(ct_tokenizer_hash(tokenizer)));
        CT_TRY(ct_cli_print_json(object, &err));
    } else {
        print_info(ct_model_get_info(model));
        if (nonfinite)
            printf("%-20s%lld NaN or infinite, the first in %s\n", "warning", (long long)nonfinite,
                   where);
        if (tokenizer)
            printf("%-20s%zu ids, hash %s\n", "tokenizer", ct_tokenizer_vocab_size(tokenizer),
                   ct_tokenizer_hash(tokenizer));
        else printf("%-20snone (prompts must be given as ids)\n", "tokenizer");
    }
done:
    ct_folder_close(folder);
    ct_tokenizer_close(tokenizer);
    ct_model_close(model);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option options[] = {
    {"--json", NULL, CT_ARG_FLAG, NULL, "Print one JSON object.", 0, 0},
};

const ct_verb ct_verb_inspect = {
    .name = "inspect",
    .operands = "MODEL",
    .min_operands = 1,
    .max_operands = 1,
    .summary = "what a model folder holds and needs",
    .description =
        "Opens a model folder, checks it, and prints its architecture, sizes, hashes and the "
        "memory that its weights and a sequence's state take.",
    .example = "cortado inspect models/griffin-demo",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_inspect,
};
