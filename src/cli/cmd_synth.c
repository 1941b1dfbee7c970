/* cmd_synth.c - `cortado synth`: a model folder with random weights. */
#include <stdlib.h>
#include <string.h>

#include "cli/common.h"
#include "cli/verbs.h"
#include "load/load.h"
#include "load/synth.h"
#include "model/model.h"

/* Weights beside what synth never writes are a model that somebody has downloaded or trained. */
static bool holds_a_model(const char *dir)
{
    return (ct_cli_has_file(dir, "model.safetensors") ||
            ct_cli_has_file(dir, "model.safetensors.index.json")) &&
           (ct_cli_has_file(dir, "tokenizer.json") ||
            ct_cli_has_file(dir, "generation_config.json"));
}

static int run_synth(const ct_args *args)
{
    const char *config = ct_args_text(args, "--config", NULL),
               *dir = ct_args_text(args, "--out", NULL);
    if (!config || !dir) return ct_args_usage(args, "expected --config FILE and -o DIR");
    ct_err err = {0};
    ct_dtype dtype = strcmp(ct_args_text(args, "--dtype", "bf16"), "f32") ? CT_BF16 : CT_F32;
    ct_status st;
    json_t *json = NULL;
    ct_synth_tensor *tensors = NULL;
    size_t n = 0;
    if (holds_a_model(dir)) {
        st = ct_fail(&err, CT_ERR_VALUE,
                     "%s: expected no model there, got one with weights and a tokenizer or "
                     "generation_config.json; choose another folder, or remove it first",
                     dir);
        goto done;
    }
    CT_TRY(ct_config_open(config, &json, &err));
    CT_TRY(ct_model_synth_tensors(json, config, &tensors, &n, &err));
    CT_TRY(ct_synth_write(dir, config, tensors, n, (uint64_t)ct_args_int(args, "--seed", 0), dtype,
                          &err));
done:
    json_decref(json);
    free(tensors);
    if (st != CT_OK) return ct_args_fail(args, &err);
    printf("%s\n", dir);
    return CT_EXIT_OK;
}

static const ct_option options[] = {
    {"--config", NULL, CT_ARG_TEXT, "FILE", "config.json of a supported architecture.", 0, 0},
    {"--seed", NULL, CT_ARG_INT, "N", "Seed of the weights (default 0).", 0, 9e18},
    {"--dtype", NULL, CT_ARG_CHOICE, "bf16|f32", "Type of the weights (default bf16).", 0, 0},
    {"--out", "-o", CT_ARG_TEXT, "DIR", "The model folder; made if it is not there.", 0, 0},
};

const ct_verb ct_verb_synth = {
    .name = "synth",
    .operands = "",
    .max_operands = 0,
    .summary = "make a model folder with random weights",
    .description =
        "Writes a model folder with the architecture of a config.json and random weights from a "
        "counter-based generator: the same bits for the same seed on every machine. For timing "
        "and testing; the text such a model writes means nothing.",
    .example = "cortado synth --config models/griffin-demo/config.json --seed 1 -o /tmp/random",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_synth,
};
