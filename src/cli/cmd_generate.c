/* cmd_generate.c - `cortado generate`: one prompt under one intervention. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli/common.h"
#include "cli/verbs.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "task/niah.h"
#include "tok/tok.h"

/* Everything the verb holds, so that one place frees it. */
typedef struct ct_generation {
    ct_model *model;
    ct_tokenizer *tokenizer;
    ct_session *session;
    ct_job *job;
    char *text; /* the prompt's text; with ids: decoded, if there is a tokenizer */
    size_t text_size;
    int32_t *prompt, *force;
    size_t n_prompt, n_force;
    ct_span *spans[CT_STAGE_COUNT];
    size_t n_spans[CT_STAGE_COUNT];
    ct_intervention intervention;
    ct_record_options record;
    int64_t *record_layers;
    double open_ms, generate_ms;
} ct_generation;

static void clear(ct_generation *g)
{
    ct_job_free(g->job);
    ct_session_free(g->session);
    ct_tokenizer_close(g->tokenizer);
    ct_model_close(g->model);
    free(g->text);
    free(g->prompt);
    free(g->force);
    free(g->record_layers);
    if (g->spans[0] != g->spans[1]) free(g->spans[1]);
    free(g->spans[0]);
}

static ct_status read_prompt(const ct_args *args, ct_generation *g, ct_err *err)
{
    ct_status st;
    const char *dir = ct_args_text(args, "--model", NULL);
    bool by_ids = ct_args_has(args, "--prompt-ids");
    if (!by_ids && !ct_cli_has_file(dir, "tokenizer.json"))
        return ct_fail(err, CT_ERR_NOT_FOUND,
                       "%s: expected tokenizer.json to encode the prompt with, got none; "
                       "--prompt-ids needs no tokenizer",
                       dir);
    if (!by_ids || ct_cli_has_file(dir, "tokenizer.json")) {
        st = ct_tokenizer_open(dir, &g->tokenizer, err);
        if (st != CT_OK) return st;
    }
    if (by_ids) {
        st = ct_cli_parse_ids(ct_args_text(args, "--prompt-ids", ""), "--prompt-ids", &g->prompt,
                              &g->n_prompt, err);
        if (st == CT_OK && g->tokenizer && ct_args_has(args, "--needle"))
            st = ct_tokenizer_decode(g->tokenizer, g->prompt, g->n_prompt, false, &g->text,
                                     &g->text_size, err);
        return st;
    }
    if (ct_args_has(args, "--prompt-file")) {
        st = ct_cli_read(ct_args_text(args, "--prompt-file", NULL), &g->text, &g->text_size, err);
    } else {
        g->text = ct_strdup(ct_args_text(args, "--prompt", ""), err);
        g->text_size = g->text ? strlen(g->text) : 0;
        st = g->text ? CT_OK : CT_ERR_MEMORY;
    }
    bool special = true;
    if (st == CT_OK && ct_args_has(args, "--chat")) {
        st = ct_cli_chat(g->tokenizer, &g->text, &g->text_size, err);
        if (st == CT_OK) special = ct_tokenizer_wants_special(g->tokenizer, g->text, g->text_size);
    }
    if (st != CT_OK) return st;
    return ct_tokenizer_encode(g->tokenizer, g->text, g->text_size, special, &g->prompt,
                               &g->n_prompt, err);
}

static ct_status set_semantics(const ct_args *args, ct_generation *g, ct_err *err)
{
    ct_semantics *semantics = &g->intervention.semantics;
    ct_status st = ct_semantics_parse(ct_args_text(args, "--semantics", "paper"),
                                      ct_model_get_info(g->model)->family, semantics, err);
    const char *const *settings;
    size_t n = ct_args_texts(args, "--option", &settings);
    for (size_t i = 0; i < n && st == CT_OK; i++) {
        const char *equals = strchr(settings[i], '=');
        if (!equals)
            return ct_fail(err, CT_ERR_USAGE, "--option: expected KEY=VALUE, got \"%s\"",
                           settings[i]);
        char *key = ct_strndup(settings[i], (size_t)(equals - settings[i]), err);
        st = key ? ct_semantics_set(semantics, key, equals + 1, err) : CT_ERR_MEMORY;
        free(key);
    }
    return st;
}

/* Reads the positions that a flag gives for one stage; they must lie in the prompt. */
static ct_status read_positions(const ct_args *args, const char *flag, ct_generation *g,
                                ct_stage stage, ct_err *err)
{
    ct_status st = ct_cli_parse_spans(ct_args_text(args, flag, ""), flag, &g->spans[stage],
                                      &g->n_spans[stage], err);
    if (st != CT_OK) return st;
    int64_t last = g->spans[stage][g->n_spans[stage] - 1].end - 1;
    if ((uint64_t)last < g->n_prompt || !g->n_prompt) return CT_OK; /* none is refused later */
    return ct_fail(err, CT_ERR_VALUE,
                   "%s: expected positions from 0 to %zu (the prompt has %zu tokens), got %" PRId64,
                   flag, g->n_prompt - 1, g->n_prompt, last);
}

/* Where the needle is: positions given, or its text found in the prompt. */
static ct_status set_spans(const ct_args *args, ct_generation *g, ct_err *err)
{
    ct_status st = CT_OK;
    if (ct_args_has(args, "--needle-positions")) {
        st = read_positions(args, "--needle-positions", g, CT_STAGE_GENERATION, err);
    } else if (ct_args_has(args, "--needle")) {
        if (!g->tokenizer)
            return ct_fail(
                err, CT_ERR_USAGE,
                "--needle: the model folder has no tokenizer.json to find the text with; use "
                "--needle-positions");
        /* With ids given, the spans are taken on the decoded text, encoded anew; that must give the
         * ids. */
        if (ct_args_has(args, "--prompt-ids")) {
            int32_t *again;
            size_t n;
            st = ct_tokenizer_encode(g->tokenizer, g->text, g->text_size, false, &again, &n, err);
            if (st != CT_OK) return st;
            bool same = n == g->n_prompt && !memcmp(again, g->prompt, n * sizeof *again);
            free(again);
            if (!same)
                return ct_fail(
                    err, CT_ERR_USAGE,
                    "--needle: the text of --prompt-ids does not encode to the same ids; use "
                    "--needle-positions");
        }
        st = ct_needle_find(g->tokenizer, g->text, g->text_size, ct_args_text(args, "--needle", ""),
                            g->intervention.semantics.needle_span_reference,
                            &g->spans[CT_STAGE_GENERATION], &g->n_spans[CT_STAGE_GENERATION], err);
        if (st == CT_OK && !g->n_spans[CT_STAGE_GENERATION])
            st = ct_fail(err, CT_ERR_NOT_FOUND,
                         "--needle: expected its ids, without the first and the last one, among "
                         "the prompt's (needle_span: reference), got none; use --option "
                         "needle_span=text or --needle-positions");
    }
    if (st != CT_OK) return st;
    if (ct_args_has(args, "--needle-positions-prefill"))
        return read_positions(args, "--needle-positions-prefill", g, CT_STAGE_PREFILL, err);
    g->spans[CT_STAGE_PREFILL] = g->spans[CT_STAGE_GENERATION];
    g->n_spans[CT_STAGE_PREFILL] = g->n_spans[CT_STAGE_GENERATION];
    return CT_OK;
}

static ct_status set_intervention(const ct_args *args, ct_generation *g, ct_err *err)
{
    ct_status st;
    ct_intervention *v = &g->intervention;
    static const char *const flags[] = {"--weights-prefill", "--weights-generation"};
    CT_TRY(set_semantics(args, g, err));
    if (ct_args_has(args, "--keep-heads")) {
        v->heads.keep = (int32_t)ct_args_int(args, "--keep-heads", 0);
        v->heads.seed = (uint64_t)ct_args_int(args, "--seed", 0);
        CT_TRY(ct_metric_parse(ct_args_text(args, "--metric", "entropy"), "--metric",
                               &v->heads.metric, err));
        CT_TRY(ct_head_stages_parse(ct_args_text(args, "--stages", "generation"), "--stages",
                                    v->heads.active, err));
    } else if (ct_args_has(args, "--metric") || ct_args_has(args, "--stages")) {
        return ct_fail(err, CT_ERR_USAGE,
                       "--metric and --stages: expected --keep-heads K with them");
    }
    CT_TRY(set_spans(args, g, err));
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        ct_weight_edit *edit = &v->weights[stage];
        CT_TRY(ct_weights_mode_parse(ct_args_text(args, flags[stage], "keep"), flags[stage],
                                     &edit->mode, err));
        edit->spans = g->spans[stage];
        edit->n_spans = g->n_spans[stage];
        bool needs_needle = edit->mode != CT_WEIGHTS_KEEP && edit->mode != CT_WEIGHTS_NULL;
        if (needs_needle && !edit->n_spans)
            return ct_fail(err, CT_ERR_USAGE,
                           "%s: %s needs a needle; add --needle TEXT or "
                           "--needle-positions LIST",
                           flags[stage], ct_weights_mode_name(edit->mode));
    }
done:
    return st;
}

static ct_status save_logits(const ct_generation *g, const char *path, ct_err *err)
{
    const ct_model_info *info = ct_model_get_info(g->model);
    size_t n;
    ct_job_ids(g->job, &n);
    int64_t logits_shape[] = {(int64_t)n, info->vocab};
    int64_t heads_shape[] = {(int64_t)n, info->attention_layers, info->heads};
    const ct_st_out tensors[] = {
        {"logits", "F32", 2, logits_shape, ct_job_logits(g->job), n * (size_t)info->vocab * 4},
        {"heads_kept", "U8", 3, heads_shape, ct_job_heads_kept(g->job),
         n * (size_t)(info->attention_layers * info->heads)},
    };
    return ct_st_write(path, tensors, 2, err);
}

/* What is to be recorded; its flags mean something beside --record only. */
static ct_status set_record(const ct_args *args, ct_generation *g, ct_err *err)
{
    static const char *const flags[] = {"--record-what", "--record-stages", "--record-steps",
                                        "--record-layers", "--record-limit"};
    ct_record_options *r = &g->record;
    ct_status st = CT_OK;
    if (!ct_args_has(args, "--record")) {
        for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
            if (ct_args_has(args, flags[i]))
                return ct_fail(err, CT_ERR_USAGE, "%s: expected --record FILE with it", flags[i]);
        return CT_OK;
    }
    CT_TRY(ct_record_what_parse(ct_args_text(args, "--record-what", "weights+heads+light"),
                                "--record-what", &r->what, err));
    CT_TRY(ct_head_stages_parse(ct_args_text(args, "--record-stages", "generation"),
                                "--record-stages", r->stages, err));
    CT_TRY(ct_record_steps_parse(ct_args_text(args, "--record-steps", "last"), "--record-steps",
                                 &r->steps, err));
    r->limit = ct_args_int(args, "--record-limit", CT_RECORD_DEFAULT_LIMIT >> 20) << 20;
    r->needle = g->spans[CT_STAGE_GENERATION];
    r->n_needle = g->n_spans[CT_STAGE_GENERATION];
    if (ct_args_has(args, "--record-layers")) {
        int32_t *ids;
        CT_TRY(ct_cli_parse_ids(ct_args_text(args, "--record-layers", ""), "--record-layers", &ids,
                                &r->n_layers, err));
        g->record_layers = malloc(r->n_layers * sizeof *g->record_layers + 1);
        for (size_t i = 0; g->record_layers && i < r->n_layers; i++) g->record_layers[i] = ids[i];
        free(ids);
        if (!g->record_layers) return ct_fail_memory(err, "--record-layers", r->n_layers);
        r->layers = g->record_layers;
    }
done:
    return st;
}

static ct_status save_recording(const ct_generation *g, const char *path, ct_err *err)
{
    size_t n;
    const int32_t *ids = ct_job_fed(g->job, &n);
    return ct_recording_write(ct_job_recording(g->job), path, ids, n, true, err);
}

static json_t *audit_json(const ct_audit *a)
{
    json_t *object = json_object();
    for (int s = 0; object && s < CT_STAGE_COUNT; s++)
        json_object_set_new(object, ct_stage_name((ct_stage)s),
                            json_pack("{s:I,s:I,s:I,s:I,s:I}", "rows", (json_int_t)a->rows[s],
                                      "head_rows", (json_int_t)a->head_rows[s], "heads_dropped",
                                      (json_int_t)a->heads_dropped[s], "edit_rows",
                                      (json_int_t)a->edit_rows[s], "edit_rows_changed",
                                      (json_int_t)a->edit_rows_changed[s]));
    return object;
}

static ct_status print_result(const ct_args *args, const ct_generation *g, ct_err *err)
{
    size_t n, size = 0;
    const int32_t *ids = ct_job_ids(g->job, &n);
    char *text = NULL;
    if (g->tokenizer) {
        ct_status st = ct_tokenizer_decode(g->tokenizer, ids, n, true, &text, &size, err);
        if (st != CT_OK) return st;
    }
    ct_status st = CT_OK;
    if (ct_args_has(args, "--json")) {
        json_t *timing =
            json_pack("{s:f,s:f}", "open_ms", g->open_ms, "generate_ms", g->generate_ms);
        st = ct_cli_print_json(json_pack("{s:o,s:o,s:I,s:o,s:o}", "ids", ct_cli_ids_json(ids, n),
                                         "text", text ? ct_cli_text_json(text, size) : json_null(),
                                         "prompt_tokens", (json_int_t)g->n_prompt, "timing", timing,
                                         "audit", audit_json(ct_job_audit(g->job))),
                               err);
    } else if (text) {
        fwrite(text, 1, size, stdout);
        putchar('\n');
    } else {
        for (size_t i = 0; i < n; i++) printf("%s%d", i ? "," : "", ids[i]);
        putchar('\n');
    }
    free(text);
    return st;
}

static int run_generate(const ct_args *args)
{
    int prompts = ct_args_has(args, "--prompt") + ct_args_has(args, "--prompt-file") +
                  ct_args_has(args, "--prompt-ids");
    if (!ct_args_has(args, "--model")) return ct_args_usage(args, "expected -m MODEL");
    if (prompts != 1)
        return ct_args_usage(
            args, "expected one of --prompt, --prompt-file and --prompt-ids, got %d", prompts);
    if (ct_args_has(args, "--needle") && ct_args_has(args, "--needle-positions"))
        return ct_args_usage(args, "expected --needle or --needle-positions, got both");
    if (ct_args_has(args, "--chat") && ct_args_has(args, "--prompt-ids"))
        return ct_args_usage(args, "--chat: expected a prompt as text, got --prompt-ids");
    if (ct_args_has(args, "--record") && ct_args_has(args, "--save-logits") &&
        !strcmp(ct_args_text(args, "--record", ""), ct_args_text(args, "--save-logits", "")))
        return ct_args_usage(args, "--record and --save-logits: expected two files, got one");
    ct_err err = {0};
    ct_status st;
    ct_generation g = {0};
    double start = ct_now_ms();
    const char *record_path = ct_args_text(args, "--record", NULL);
    const char *logits_path = ct_args_text(args, "--save-logits", NULL);
    if (record_path) CT_TRY(ct_file_check_target(record_path, &err)); /* not after all the work */
    if (logits_path) CT_TRY(ct_file_check_target(logits_path, &err));
    CT_TRY(ct_cli_open_model(args, &g.model, &err));
    CT_TRY(read_prompt(args, &g, &err));
    CT_TRY(set_intervention(args, &g, &err));
    if (ct_args_has(args, "--force-ids"))
        CT_TRY(ct_cli_parse_ids(ct_args_text(args, "--force-ids", ""), "--force-ids", &g.force,
                                &g.n_force, &err));
    CT_TRY(set_record(args, &g, &err));
    ct_generate_request request = {
        .prompt = g.prompt,
        .prompt_count = g.n_prompt,
        .intervention = g.intervention,
        .max_new_tokens = (int32_t)ct_args_int(args, "--max-new-tokens", 40),
        .eos = ct_args_has(args, "--ignore-eos") ? -1 : ct_model_get_info(g.model)->eos,
        .sampling = {.temperature = (float)ct_args_real(args, "--temperature", 0),
                     .top_p = (float)ct_args_real(args, "--top-p", 1),
                     .top_k = (int32_t)ct_args_int(args, "--top-k", 0),
                     .seed = (uint64_t)ct_args_int(args, "--seed", 0)},
        .force_ids = g.force,
        .force_count = g.n_force,
        .record = record_path ? &g.record : NULL,
        .keep_logits = logits_path != NULL,
    };
    CT_TRY(ct_session_new(g.model, &g.session, &err));
    g.open_ms = ct_now_ms() - start;
    CT_TRY(ct_generate(g.session, &request, &g.job, &err));
    g.generate_ms = ct_now_ms() - start - g.open_ms;
    if (record_path) CT_TRY(save_recording(&g, record_path, &err));
    if (logits_path) CT_TRY(save_logits(&g, logits_path, &err));
    CT_TRY(print_result(args, &g, &err));
done:
    clear(&g);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option options[] = {
    CT_OPTION_MODEL,
    {"--prompt", "-p", CT_ARG_TEXT, "TEXT", "The prompt.", 0, 0},
    {"--prompt-file", NULL, CT_ARG_TEXT, "FILE", "The prompt, byte for byte; - is standard input.",
     0, 0},
    {"--prompt-ids", NULL, CT_ARG_TEXT, "LIST",
     "The prompt as token ids, fed as they are: no BOS is added, no tokenizer is needed.", 0, 0},
    CT_OPTION_CHAT,
    {"--max-new-tokens", "-n", CT_ARG_INT, "N", "New tokens at most (default 40).", 1,
     2147483647.0},
    {"--ignore-eos", NULL, CT_ARG_FLAG, NULL, "Do not stop at end-of-text: exactly N tokens.", 0,
     0},
    {"--temperature", NULL, CT_ARG_REAL, "T", "Sampling temperature (default 0: greedy).", 0, 1000},
    {"--top-p", NULL, CT_ARG_REAL, "P", "Sample from the likeliest tokens of total mass P.", 0, 1},
    {"--top-k", NULL, CT_ARG_INT, "K", "Sample from the K likeliest tokens.", 0, 2147483647.0},
    {"--seed", NULL, CT_ARG_INT, "N", "Seed of sampling and of --metric random (default 0).", 0,
     9e18},
    {"--keep-heads", NULL, CT_ARG_INT, "K",
     "Keep K heads of every attention layer, zero the others' outputs.", 0, 2147483647.0},
    {"--metric", NULL, CT_ARG_CHOICE, "entropy|l2|random|entropy-inverted",
     "Which heads: lowest entropy (default), highest l2 norm, random, highest entropy.", 0, 0},
    {"--stages", NULL, CT_ARG_CHOICE, "generation|prefill|prefill+generation",
     "When heads are selected (default generation).", 0, 0},
    {"--weights-generation", NULL, CT_ARG_CHOICE, "keep|null|only|binary|omit",
     "Edit of attention weights while generating (default keep).", 0, 0},
    {"--weights-prefill", NULL, CT_ARG_CHOICE, "keep|null|only|binary|omit",
     "Edit of attention weights in prefill (default keep).", 0, 0},
    {"--needle", NULL, CT_ARG_TEXT, "TEXT", "The needle, as it stands in the prompt.", 0, 0},
    {"--needle-positions", NULL, CT_ARG_TEXT, "LIST",
     "The needle's positions in the ids as fed, BOS counted: 5,6,7 or 5-9,30-37.", 0, 0},
    {"--needle-positions-prefill", NULL, CT_ARG_TEXT, "LIST", "Other positions for prefill.", 0, 0},
    {"--semantics", NULL, CT_ARG_CHOICE, "paper|reference",
     "What the thesis says (default), or what its published code does.", 0, 0},
    {"--option", NULL, CT_ARG_TEXTS, "KEY=VALUE",
     "A single option of the semantics, such as kv_cache=off; may be repeated.", 0, 0},
    CT_OPTION_WINDOW,
    CT_OPTION_WEIGHTS,
    {"--force-ids", NULL, CT_ARG_TEXT, "LIST",
     "Feed these ids instead of the chosen ones (teacher forcing).", 0, 0},
    {"--save-logits", NULL, CT_ARG_TEXT, "FILE",
     "Write logits and kept heads of every step as safetensors.", 0, 0},
    {"--record", NULL, CT_ARG_TEXT, "FILE",
     "Record what attention looks at, as safetensors (docs/RECORDINGS.md).", 0, 0},
    {"--record-what", NULL, CT_ARG_TEXT, "WHAT",
     "weights (rows before and after the edit), heads (those kept), light (entropy, needle mass "
     "and arg-max alone); joined by + (default: all three).",
     0, 0},
    {"--record-stages", NULL, CT_ARG_CHOICE, "generation|prefill|prefill+generation",
     "In which stages (default generation).", 0, 0},
    {"--record-steps", NULL, CT_ARG_CHOICE, "last|first|all",
     "Which rows of each stage (default last).", 0, 0},
    {"--record-layers", NULL, CT_ARG_TEXT, "LIST",
     "Which attention layers, by their place in the model from 0: 2,5 (default: all).", 0, 0},
    {"--record-limit", NULL, CT_ARG_INT, "MIB", "Refuse a larger recording (default 1024).", 1,
     1048576},
    {"--json", NULL, CT_ARG_FLAG, NULL, "Print one JSON object.", 0, 0},
    CT_OPTION_DEVICE,
    CT_OPTION_COMPUTE,
    CT_OPTION_THREADS,
};

const ct_verb ct_verb_generate = {
    .name = "generate",
    .operands = "",
    .max_operands = 0,
    .summary = "generate text under an intervention",
    .description =
        "Runs one prompt and prints what the model adds to it. The intervention keeps K heads of "
        "every "
        "attention layer, edits the attention weights at the needle's positions, or both.",
    .example = "cortado generate -m models/griffin-demo --prompt-file prompt.txt \\\n"
               "  --keep-heads 2 --json",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_generate,
};
