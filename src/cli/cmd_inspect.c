/* cmd_inspect.c - `cortado inspect`: what a model folder holds and what it needs. */
#include <stdlib.h>
#include <string.h>

#include "cli/common.h"
#include "cli/verbs.h"
#include "io/memory.h"
#include "load/load.h"
#include "load/synth.h"
#include "model/model.h"

static void print_bytes(const char *label, int64_t bytes)
{
    char text[32];
    printf("%-19s %s\n", label, ct_cli_bytes(text, bytes)); /* a long label keeps its blank */
}

/* What the config and the files' headers say; no weight has been read yet. */
static void print_info(const ct_model_info *i)
{
    char text[32];
    printf("%-20s%s (%s)\n", "architecture", i->architecture, i->family);
    printf("%-20s%lld (%lld recurrent, %lld attention)\n", "layers", (long long)i->layers,
           (long long)i->recurrent_layers, (long long)i->attention_layers);
    if (i->attention_layers == 0) /* the config has heads all the same */
        printf("%-20snone\n", "attention heads");
    else
        printf("%-20s%lld of size %lld, %lld key-value\n", "attention heads", (long long)i->heads,
               (long long)i->head_dim, (long long)i->kv_heads);
    if (i->attention_layers == 0) printf("%-20snone\n", "window");
    else if (i->window)
        printf("%-20s%lld tokens, the current one counted\n", "window", (long long)i->window);
    else printf("%-20sall tokens\n", "window");
    printf("%-20s%lld, feed-forward %lld\n", "width", (long long)i->width, (long long)i->ffn_width);
    if (i->experts)
        printf("%-20s%lld, of which a token takes %lld; all together %s\n", "experts",
               (long long)i->experts, (long long)i->experts_per_token,
               ct_cli_bytes(text, i->expert_bytes));
    printf("%-20s%lld\n", "vocabulary", (long long)i->vocab);
    printf("%-20s%lld\n", "parameters", (long long)i->parameters);
    printf("%-20s%s, products in %s on %s\n", "weights", i->dtype, i->compute, i->backend);
}

/* Which layers lie where, and the rest of the memory there. */
static void print_places(const ct_model *model, int64_t tokens)
{
    char label[32], name[16], weights[32], states[32];
    int64_t state = ct_model_state_bytes(model, tokens), fits = ct_model_free_bytes(model);
    for (int p = 0; model->n_places > 1 && p < model->n_places; p++) {
        const ct_place *at = &model->places[p];
        int64_t blocks = 0;
        if (model->info.state_bytes_per_block > 0)
            blocks = (state - model->info.state_bytes_fixed) / model->info.state_bytes_per_block;
        snprintf(name, sizeof name, model->ops->host_memory ? "%s" : "%s:%d", model->ops->name,
                 at->index);
        snprintf(label, sizeof label, "place %d, %s", p + 1, name);
        printf("%-19s layers %lld to %lld, weights %s, state %s\n", label,
               (long long)at->first_layer + 1, (long long)(at->first_layer + at->n_layers),
               ct_cli_bytes(weights, at->weight_bytes),
               ct_cli_bytes(states, at->state_bytes + blocks * at->block_bytes));
    }
    if (fits >= 0)
        printf("%-20s%s for states beside the weights, %lld sequences of %lld tokens\n", "fits",
               ct_cli_bytes(states, fits), (long long)(fits / (state > 0 ? state : 1)),
               (long long)tokens);
}

/* What fits where. Everything but the weights must be in memory; weights that do not fit beside it
 * are read again and again. */
static void print_memory(const ct_model *model, int64_t tokens)
{
    char label[32], text[512], total[32], available[32];
    ct_model_needs needs = ct_model_get_needs(model);
    ct_memory memory = ct_memory_read("");
    int64_t state = ct_model_state_bytes(model, tokens);
    print_bytes("weight bytes", needs.weights);
    print_bytes("read by a token", needs.read_per_token);
    print_bytes("state, 1 token", ct_model_state_bytes(model, 1));
    snprintf(label, sizeof label, "state, %lld tokens", (long long)tokens);
    print_bytes(label, state);
    print_bytes("working memory", needs.working);
    print_places(model, tokens);
    if (!model->ops->host_memory) return;
    if (memory.available_bytes < 0) {
        printf("%-20snot known\n", "memory");
        return;
    }
    printf("%-20s%s, %s available\n", "memory", ct_cli_bytes(total, memory.total_bytes),
           ct_cli_bytes(available, memory.available_bytes));
    int64_t beside = memory.available_bytes - needs.weights - needs.working;
    double rate = needs.weights > memory.available_bytes && model->folder
                      ? ct_folder_read_rate(model->folder, 256 << 20, 1000)
                      : 0;
    ct_cli_memory_text(text, sizeof text, needs.weights, needs.read_per_token,
                       memory.available_bytes, rate);
    if (*text && !model->folder)
        printf("%-20sthe random weights take more memory than is available here\n", "warning");
    else if (*text) printf("%-20s%s\n", "warning", text);
    else
        printf("%-20sthe weights and %lld sequences of %lld tokens\n", "fits",
               (long long)(beside > 0 ? beside / (state > 0 ? state : 1) : 0), (long long)tokens);
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

static json_t *places_json(const ct_model *model)
{
    json_t *list = json_array();
    for (int p = 0; p < model->n_places; p++) {
        const ct_place *at = &model->places[p];
        json_array_append_new(list, json_pack("{s:i,s:I,s:I,s:I,s:I,s:I}", "device", at->index,
                                              "first_layer", (json_int_t)at->first_layer, "layers",
                                              (json_int_t)at->n_layers, "weight_bytes",
                                              (json_int_t)at->weight_bytes, "state_bytes_fixed",
                                              (json_int_t)at->state_bytes, "state_bytes_per_block",
                                              (json_int_t)at->block_bytes));
    }
    return list;
}

static json_t *info_json(const ct_model *model, int64_t tokens)
{
    const ct_model_info *i = ct_model_get_info(model);
    ct_model_needs needs = ct_model_get_needs(model);
    ct_memory memory = ct_memory_read("");
    return json_pack(
        "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:s,s:s,s:s,s:s,s:s?,s:I,s:I,s:I,s:I,s:I,s:I,s:I,"
        "s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:i,s:i,"
        "s:i,s:o}",
        "experts", (json_int_t)i->experts, "experts_per_token", (json_int_t)i->experts_per_token,
        "expert_bytes", (json_int_t)i->expert_bytes, "read_per_token_bytes",
        (json_int_t)needs.read_per_token, "working_bytes", (json_int_t)needs.working,
        "state_tokens", (json_int_t)tokens, "state_bytes",
        (json_int_t)ct_model_state_bytes(model, tokens), "memory_bytes",
        (json_int_t)memory.total_bytes, "memory_available_bytes",
        (json_int_t)memory.available_bytes, "architecture", i->architecture, "family", i->family,
        "dtype", i->dtype, "compute", i->compute, "backend", i->backend, "weights_hash",
        i->weights_hash, "layers", (json_int_t)i->layers, "attention_layers",
        (json_int_t)i->attention_layers, "recurrent_layers", (json_int_t)i->recurrent_layers,
        "heads", (json_int_t)i->heads, "kv_heads", (json_int_t)i->kv_heads, "head_dim",
        (json_int_t)i->head_dim, "width", (json_int_t)i->width, "ffn_width",
        (json_int_t)i->ffn_width, "vocab", (json_int_t)i->vocab, "window", (json_int_t)i->window,
        "parameters", (json_int_t)i->parameters, "weight_bytes", (json_int_t)i->weight_bytes,
        "state_bytes_fixed", (json_int_t)i->state_bytes_fixed, "state_bytes_per_block",
        (json_int_t)i->state_bytes_per_block, "bos", i->bos, "eos", i->eos, "pad", i->pad, "places",
        places_json(model));
}

/* The tensors of a random model and how each is drawn, for who makes the same numbers elsewhere. Streams
 * are text: JSON readers may not hold 64 bits. */
static ct_status add_tensors(json_t *object, const char *dir, ct_err *err)
{
    ct_status st;
    json_t *config = NULL, *list = json_array();
    ct_synth_tensor *tensors = NULL;
    size_t n = 0;
    char stream[24];
    CT_TRY(ct_config_open(dir, &config, err));
    CT_TRY(ct_model_synth_tensors(config, dir, &tensors, &n, err));
    for (size_t i = 0; i < n; i++) {
        json_t *shape = json_array();
        for (int d = 0; d < tensors[i].rank; d++)
            json_array_append_new(shape, json_integer(tensors[i].shape[d]));
        snprintf(stream, sizeof stream, "%llu",
                 (unsigned long long)ct_synth_stream(tensors[i].name));
        json_array_append_new(list,
                              json_pack("{s:s,s:o,s:s,s:f,s:f}", "name", tensors[i].name, "shape",
                                        shape, "stream", stream, "scale", (double)tensors[i].scale,
                                        "offset", (double)tensors[i].offset));
    }
    if (json_object_set(object, "tensors", list) != 0) st = ct_fail_memory(err, "JSON output", 0);
done:
    json_decref(config);
    json_decref(list);
    free(tensors);
    return st;
}

/* What is only known once every weight has been read. */
static ct_status read_weights(ct_model *model, int64_t *nonfinite, const char **where, ct_err *err)
{
    ct_status st = ct_model_hash(model, err);
    if (st == CT_OK && model->folder) *nonfinite = count_nonfinite(model->folder, where);
    return st;
}

static int run_inspect(const ct_args *args)
{
    const char *const *operands, *where = NULL;
    ct_args_operands(args, &operands);
    bool json = ct_args_has(args, "--json"), reads = !ct_args_has(args, "--no-read");
    int64_t tokens = ct_args_int(args, "--tokens", 4096), nonfinite = 0;
    ct_err err = {0};
    ct_status st;
    ct_model *model = NULL;
    ct_tokenizer *tokenizer = NULL;
    const ct_model_options look = {.device = ct_args_text(args, "--device", "cpu"),
                                   .weights = ct_args_text(args, "--weights", NULL)};
    bool lists = ct_args_has(args, "--tensors");
    if (lists && !(json && look.weights))
        return ct_args_usage(args, "--tensors: expected --json and --weights random:SEED with it");
    CT_TRY(ct_model_describe(operands[0], &look, &model, &err));
    if (ct_cli_has_file(operands[0], "tokenizer.json"))
        CT_TRY(ct_tokenizer_open(operands[0], &tokenizer, &err));
    if (json) {
        if (reads) CT_TRY(read_weights(model, &nonfinite, &where, &err));
        json_t *object = info_json(model, tokens);
        if (object && reads)
            json_object_set_new(object, "nonfinite_weights", json_integer(nonfinite));
        st = object && lists ? add_tensors(object, operands[0], &err) : CT_OK;
        if (st != CT_OK) {
            json_decref(object);
            goto done;
        }
        if (object && tokenizer)
            json_object_set_new(object, "tokenizer_hash",
                                json_string(ct_tokenizer_hash(tokenizer)));
        CT_TRY(ct_cli_print_json(object, &err));
        goto done;
    }
    print_info(ct_model_get_info(model));
    print_memory(model, tokens);
    if (tokenizer)
        printf("%-20s%zu ids, hash %s\n", "tokenizer", ct_tokenizer_vocab_size(tokenizer),
               ct_tokenizer_hash(tokenizer));
    else printf("%-20snone (prompts must be given as ids)\n", "tokenizer");
    if (!reads) goto done;
    fflush(stdout); /* reading large weights takes a while */
    CT_TRY(read_weights(model, &nonfinite, &where, &err));
    printf("%-20s%s\n", "weights hash", ct_model_get_info(model)->weights_hash);
    if (nonfinite)
        printf("%-20s%lld NaN or infinite, the first in %s\n", "warning", (long long)nonfinite,
               where);
done:
    ct_tokenizer_close(tokenizer);
    ct_model_close(model);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option options[] = {
    {"--tokens", NULL, CT_ARG_INT, "N", "Length whose state's size is printed (default 4096).", 1,
     2147483647.0},
    {"--no-read", NULL, CT_ARG_FLAG, NULL,
     "Read no weights through: no hash, no search for NaN, at once for any size.", 0, 0},
    CT_OPTION_WEIGHTS,
    CT_OPTION_DEVICE,
    {"--tensors", NULL, CT_ARG_FLAG, NULL,
     "With --json and random weights: also every tensor's name, shape, random stream, scale and "
     "offset.",
     0, 0},
    {"--json", NULL, CT_ARG_FLAG, NULL, "Print one JSON object.", 0, 0},
};

const ct_verb ct_verb_inspect = {
    .name = "inspect",
    .operands = "MODEL",
    .min_operands = 1,
    .max_operands = 1,
    .summary = "what a model folder holds and needs",
    .description =
        "Opens a model folder, checks it, and prints its architecture, sizes, hashes, the memory "
        "that its weights and a sequence's state take, and whether this machine has it. Then it "
        "reads all weights for their hash and for numbers that are not finite.",
    .example = "cortado inspect models/griffin-demo",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_inspect,
};
