/* cmd_bench.c - `cortado bench`: how fast this machine is, how fast a model runs on it, and how near
 * the one comes to the other. src/bench measures; here are the tables and the JSON.
 */
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "bench/bench.h"
#include "bench/others.h"
#include "cli/common.h"
#include "cli/verbs.h"

enum { OPS_ROWS = 3, MIB = 1 << 20 };
static const char demo_model[] = "models/griffin-demo";
static const int64_t ops_rows[OPS_ROWS] = {1, 8,
                                           64}; /* decode steps that operations are shown of */

typedef struct settings {
    bool json, ops, whole; /* whole: the steps as a whole, and start */
    bool no_start;         /* but not start */
    ct_bench_plan plan;
    ct_limits limits;
} settings;

/* What was found of one model. */
typedef struct outcome {
    ct_model *model;
    ct_bench_steps steps;
    double start_ms; /* < 0: not measured */
    int64_t start_peak_bytes;
    double others; /* part of the cores that other programs took meanwhile */
} outcome;

/* ---- numbers --------------------------------------------------------------------------------- */

static double step_ms(const ct_bench_step *s)
{
    return ct_trace_median(s->wall_ms, s->n_wall);
}

/* A step's time that no traced operation and no choice of tokens accounts for: bookkeeping, copies. */
static double outside_ms(const ct_bench_step *s)
{
    double rest[CT_TRACE_STEPS];
    for (int64_t i = 0; i < s->trace->steps; i++) {
        rest[i] = s->trace->wall_ms[i] - s->choose_ms[i];
        for (size_t o = 0; o < s->trace->n_ops; o++) rest[i] -= s->trace->list[o].ms[i];
    }
    return ct_trace_median(rest, s->trace->steps);
}

static double choose_ms(const ct_bench_step *s)
{
    return ct_trace_median(s->choose_ms, s->trace->steps);
}

static double step_flops(const ct_bench_step *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->trace->n_ops; i++)
        sum += s->trace->list[i].cost.flops * (double)s->trace->list[i].calls;
    return sum / (double)s->trace->steps;
}

static double step_share(const outcome *o, const settings *set, const ct_bench_step *s)
{
    return ct_trace_least_ms(s->trace, &set->limits, o->model->compute) / step_ms(s);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *optional(double value)
{
    return value > 0 ? json_real(value) : json_null();
}

static json_t *optional_bytes(int64_t value)
{
    return value >= 0 ? json_integer(value) : json_null();
}

static json_t *machine_json(const ct_limits *l)
{
    if (*l->device)
        return json_pack(
            "{s:s,s:s,s:s,s:s,s:i,s:i,s:I,s:f,s:f,s:f,s:f,s:s}", "device", l->device, "cpu", l->cpu,
            "system", l->system, "class", l->class_name, "cores", l->cores, "threads", l->threads,
            "memory_bytes", (json_int_t)l->memory_bytes, "read_gb_s", l->read_gb_s, "copy_gb_s",
            l->copy_gb_s, "f32_gflop_s", l->f32_gflop_s, "bf16_gflop_s", l->bf16_gflop_s, "method",
            "best of 10 runs; reading and copying 2 GiB, f32 multiply-adds in "
            "registers, a bf16 product of 8192^3 of random numbers by cuBLASLt");
    return json_pack("{s:s,s:s,s:s,s:i,s:i,s:I,s:f,s:f,s:f,s:o,s:s}", "cpu", l->cpu, "system",
                     l->system, "class", l->class_name, "cores", l->cores, "threads", l->threads,
                     "memory_bytes", (json_int_t)l->memory_bytes, "read_gb_s_one_thread",
                     l->read_gb_s_one, "read_gb_s", l->read_gb_s, "f32_gflop_s", l->f32_gflop_s,
                     "bf16_gflop_s", optional(l->bf16_gflop_s), "method",
                     "best of 5 runs; arithmetic in registers, reading memory in order");
}

static json_t *op_json(const outcome *o, const settings *set, const ct_trace *trace,
                       const ct_trace_op *op)
{
    double ms = ct_trace_call_ms(trace, op);
    double bytes = op->cost.memory_bytes + op->cost.activation_bytes;
    return json_pack("{s:s,s:s,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "op", op->name, "shape",
                     op->shape, "tokens", (json_int_t)op->tokens, "calls_a_step",
                     (double)op->calls / (double)trace->steps, "ms_a_call", ms, "flop",
                     op->cost.flops, "memory_bytes", op->cost.memory_bytes, "activation_bytes",
                     op->cost.activation_bytes, "gflop_s", op->cost.flops / ms * 1e-6, "gb_s",
                     bytes / ms * 1e-6, "share_of_limit",
                     ct_cost_least_ms(&op->cost, &set->limits, o->model->compute, false) / ms);
}

static json_t *step_json(const outcome *o, const settings *set, const ct_bench_step *s)
{
    double ms = step_ms(s);
    json_t *times = json_array(), *ops = json_array();
    for (int64_t i = 0; i < s->n_wall; i++) json_array_append_new(times, json_real(s->wall_ms[i]));
    for (size_t i = 0; set->ops && i < s->trace->n_ops; i++)
        json_array_append_new(ops, op_json(o, set, s->trace, &s->trace->list[i]));
    return json_pack(
        "{s:s,s:I,s:I,s:I,s:b,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:o,s:I,s:I,s:o,s:o}", "step",
        s->decode ? "decode" : "prefill", "rows", (json_int_t)s->rows, "tokens",
        (json_int_t)s->tokens, "cache_tokens", (json_int_t)s->cache_tokens, "own_keys",
        s->own_prompts, "ms", ms, "ms_a_token", ms / (double)s->tokens, "tokens_per_s",
        (double)s->tokens / ms * 1e3, "gflop_s", step_flops(s) / ms * 1e-6, "least_ms",
        ct_trace_least_ms(s->trace, &set->limits, o->model->compute), "share_of_limit",
        step_share(o, set, s), "choosing_ms", choose_ms(s), "outside_ms", outside_ms(s),
        "peak_bytes", optional_bytes(s->peak_bytes), "state_bytes", (json_int_t)s->state_bytes,
        "working_bytes", (json_int_t)s->working_bytes, "all_ms", times, "operations", ops);
}

static json_t *model_json(const char *dir, const outcome *o, const settings *set)
{
    const ct_model_info *info = ct_model_get_info(o->model);
    json_t *steps = json_array();
    for (size_t i = 0; i < o->steps.n; i++)
        json_array_append_new(steps, step_json(o, set, &o->steps.list[i]));
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:f,s:o,s:o,s:o}", "model", dir, "architecture",
                     info->architecture, "backend", info->backend, "dtype", info->dtype, "compute",
                     info->compute, "parameters", (json_int_t)info->parameters, "weight_bytes",
                     (json_int_t)info->weight_bytes, "cpu_share_of_others", o->others,
                     "start_to_first_token_ms", optional(o->start_ms), "start_peak_bytes",
                     optional_bytes(o->start_ms > 0 ? o->start_peak_bytes : -1), "steps", steps);
}

/* ---- tables ---------------------------------------------------------------------------------- */

static void print_machine(const ct_limits *l)
{
    if (*l->device) {
        printf("%s, %.1f GiB (%s), host %s\nlimits of %s (best of 10):\n", l->device,
               (double)l->memory_bytes / (1024.0 * MIB), l->system, l->cpu, l->class_name);
        printf("  %-32s%9.1f GB/s, copying %.1f (read and written)\n", "reading memory",
               l->read_gb_s, l->copy_gb_s);
        printf("  %-32s%9.0f GFLOP/s\n", "f32 multiply-add in registers", l->f32_gflop_s);
        printf("  %-32s%9.0f GFLOP/s\n", "bf16 product of 8192^3", l->bf16_gflop_s);
        return;
    }
    printf("%s\n%d cores, %.1f GiB, %s\n", l->cpu, l->cores,
           (double)l->memory_bytes / (1024.0 * MIB), l->system);
    printf("limits of %s with %d threads (best of %d):\n", l->class_name, l->threads,
           (int)CT_LIMIT_RUNS);
    printf("  %-32s%9.1f GB/s, one thread %.1f\n", "reading memory", l->read_gb_s,
           l->read_gb_s_one);
    printf("  %-32s%9.0f GFLOP/s\n", "f32 multiply-add in registers", l->f32_gflop_s);
    if (l->bf16_gflop_s > 0)
        printf("  %-32s%9.0f GFLOP/s\n", "bf16 tiles in registers", l->bf16_gflop_s);
}

/* MiB, or "-" where the system does not say. */
static const char *mib(int64_t bytes, char *room, size_t size)
{
    snprintf(room, size, "%.0f", (double)bytes / MIB);
    return bytes < 0 ? "-" : room;
}

static void step_name(const ct_bench_step *s, char *out, size_t size)
{
    if (!s->decode) snprintf(out, size, "prefill %lld", (long long)s->tokens);
    else if (s->rows == 1) snprintf(out, size, "decode 1 row");
    else
        snprintf(out, size, "decode %lld rows, %s", (long long)s->rows,
                 s->own_prompts ? "own keys" : "forked");
}

static void print_whole(const outcome *o, const settings *set)
{
    printf("  %-25s%6s%10s%10s%10s%7s%9s\n", "step", "cache", "ms", "tokens/s", "GFLOP/s", "limit",
           "peak MiB");
    char room[32];
    if (o->start_ms > 0)
        printf("  %-25s%6d%10.1f%36s\n", "start to a first token", 0, o->start_ms,
               mib(o->start_peak_bytes, room, sizeof room));
    for (size_t i = 0; i < o->steps.n; i++) {
        const ct_bench_step *s = &o->steps.list[i];
        char name[40];
        step_name(s, name, sizeof name);
        double ms = step_ms(s);
        printf("  %-25s%6lld%10.1f%10.1f%10.1f%5.0f %%%9s\n", name, (long long)s->cache_tokens, ms,
               (double)s->tokens / ms * 1e3, step_flops(s) / ms * 1e-6, 100 * step_share(o, set, s),
               mib(s->peak_bytes, room, sizeof room));
    }
    const ct_bench_step *last = &o->steps.list[o->steps.n - 1];
    printf("  memory of the last: weights %.0f MiB (mapped), states %.0f, working %.0f\n",
           (double)ct_model_get_info(o->model)->weight_bytes / MIB, (double)last->state_bytes / MIB,
           (double)last->working_bytes / MIB);
}

static void print_ops(const outcome *o, const settings *set, const ct_bench_step *s)
{
    char name[40];
    step_name(s, name, sizeof name);
    double ms = ct_trace_median(s->trace->wall_ms, s->trace->steps);
    printf("\n%s, cache %lld: %.1f ms, of which %.1f outside operations", name,
           (long long)s->cache_tokens, ms, outside_ms(s));
    printf(s->decode ? ", %.1f choosing\n" : "\n", choose_ms(s));
    printf("  %-13s%-20s%6s%10s%6s%9s%7s%7s\n", "operation", "shape", "calls", "ms a call", "step",
           "GFLOP/s", "GB/s", "limit");
    for (size_t i = 0; i < s->trace->n_ops; i++) {
        const ct_trace_op *op = &s->trace->list[i];
        char shape[64];
        bool other = op->tokens != 0 && op->tokens != s->tokens;
        snprintf(shape, sizeof shape, other ? "%s, T %lld" : "%s", op->shape,
                 (long long)op->tokens);
        double call = ct_trace_call_ms(s->trace, op);
        double calls = (double)op->calls / (double)s->trace->steps;
        printf("  %-13s%-20s%6.0f%10.4f%4.0f %%%9.1f%7.1f%5.0f %%\n", op->name, shape, calls, call,
               100 * calls * call / ms, op->cost.flops / call * 1e-6,
               (op->cost.memory_bytes + op->cost.activation_bytes) / call * 1e-6,
               100 * ct_cost_least_ms(&op->cost, &set->limits, o->model->compute, false) / call);
    }
}

/* True if the tables show the operations of this kind of step: the shortest prefill, and decode of
 * 1, 8 and 64 rows. */
static bool shows_ops(const ct_bench_steps *steps, const ct_bench_step *s)
{
    if (!s->decode) return s == steps->list;
    for (int i = 0; i < OPS_ROWS; i++)
        if (s->rows == ops_rows[i]) return !s->own_prompts;
    return false;
}

static void print_model(const char *dir, const outcome *o, const settings *set)
{
    const ct_model_info *info = ct_model_get_info(o->model);
    printf("\n%s\n%s, %.0f M parameters in %s, products in %s\n", dir, info->architecture,
           (double)info->parameters * 1e-6, info->dtype, info->compute);
    if (o->others > 0.05)
        printf("  other programs took %.0f %% of the cores: better measure again\n",
               100 * o->others);
    if (set->whole) print_whole(o, set);
    for (size_t i = 0; set->ops && i < o->steps.n; i++)
        if (shows_ops(&o->steps, &o->steps.list[i])) print_ops(o, set, &o->steps.list[i]);
}

/* ---- the verb -------------------------------------------------------------------------------- */

static ct_status bench_model(const ct_args *args, const char *dir, const settings *set, outcome *o,
                             ct_err *err)
{
    ct_status st = CT_OK;
    const char *compute = ct_args_text(args, "--compute", "auto");
    char device[CT_DEVICE_NAME];
    ct_model_options options;
    *o = (outcome){.start_ms = -1};
    CT_TRY(ct_cli_model_options_one(args, dir, device, &options, err));
    ct_usage before = ct_usage_now();
    CT_TRY(ct_model_open(dir, &options, &o->model, err));
    if (set->whole && !set->no_start) {
        /* A new process counts what this one has in memory, so nothing is mapped meanwhile. */
        ct_model_close(o->model);
        o->model = NULL;
        char threads[32];
        snprintf(threads, sizeof threads, "%d", set->limits.threads);
        const char *more[] = {"--threads",
                              threads,
                              "--compute",
                              compute,
                              "--device",
                              device,
                              options.weights ? "--weights" : NULL,
                              options.weights,
                              NULL};
        char *copy[sizeof more / sizeof *more];
        memcpy(copy, more, sizeof copy); /* as posix_spawn wants them; it writes none */
        CT_TRY(ct_bench_start("/proc/self/exe", dir, copy, set->plan.repeat, &o->start_ms,
                              &o->start_peak_bytes, err));
        CT_TRY(ct_model_open(dir, &options, &o->model, err));
    }
    CT_TRY(ct_bench_run(o->model, &set->plan, &o->steps, err));
    o->others = ct_usage_of_others(&before);
done:
    return st;
}

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* A list like "512,2048" of 1 to CT_BENCH_LIST numbers up to `most`, sorted. */
static ct_status read_list(const char *text, const char *what, int64_t most, int64_t *list,
                           size_t *n, ct_err *err)
{
    int32_t *ids = NULL;
    size_t count;
    ct_status st = ct_cli_parse_ids(text, what, &ids, &count, err);
    if (st != CT_OK) return st;
    bool good = count >= 1 && count <= CT_BENCH_LIST;
    for (size_t i = 0; good && i < count; i++) {
        good = ids[i] >= 1 && ids[i] <= most;
        list[i] = ids[i];
    }
    free(ids);
    if (!good)
        return ct_fail(err, CT_ERR_USAGE, "%s: expected 1 to %d numbers from 1 to %lld, got \"%s\"",
                       what, (int)CT_BENCH_LIST, (long long)most, text);
    *n = count;
    qsort(list, count, sizeof *list, by_size);
    return CT_OK;
}

static ct_status read_settings(const ct_args *args, settings *set, ct_err *err)
{
    ct_status st = CT_OK;
    const char *only = ct_args_text(args, "--only", "");
    set->json = ct_args_has(args, "--json");
    set->ops = strcmp(only, "model") != 0;
    set->whole = strcmp(only, "ops") != 0;
    set->no_start = ct_args_has(args, "--no-start");
    set->plan.ops = set->ops;
    set->plan.cache = ct_args_int(args, "--cache", 0);
    set->plan.repeat = (int)ct_args_int(args, "--repeat", 3);
    CT_TRY(read_list(ct_args_text(args, "--prefill", set->whole ? "512,2048" : "512"), "--prefill",
                     1 << 20, set->plan.prefill, &set->plan.n_prefill, err));
    const char *rows = set->whole && set->ops ? "1,8,11,64" : set->whole ? "1,11,64" : "1,8,64";
    CT_TRY(read_list(ct_args_text(args, "--rows", rows), "--rows", 1024, set->plan.rows,
                     &set->plan.n_rows, err));
done:
    return st;
}

/* A model that cannot be opened is said before anything is measured. */
static ct_status check_models(const ct_args *args, const char *const *dirs, size_t n, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_model_options look = {.weights = ct_args_text(args, "--weights", NULL)};
    for (size_t i = 0; i < n && st == CT_OK; i++) {
        ct_model *model = NULL;
        st = ct_model_describe(dirs[i], &look, &model, err);
        ct_model_close(model);
    }
    return st;
}

static int run_bench(const ct_args *args)
{
    ct_status st = CT_OK;
    ct_err err = {0};
    settings set = {0};
    json_t *models = NULL, *machine = NULL;
    outcome o = {0};
    char device[CT_DEVICE_NAME];
    ct_model_options options;
    const char *const *dirs, *const demo[] = {demo_model};
    size_t n = ct_args_texts(args, "--model", &dirs);
    if (n == 0) {
        dirs = demo;
        n = ct_cli_has_file(demo_model, "config.json");
    }
    CT_TRY(read_settings(args, &set, &err));
    CT_TRY(check_models(args, dirs, n, &err));
    CT_TRY(ct_cli_model_options_one(args, NULL, device, &options, &err));
    CT_TRY(ct_limits_measure(device, options.threads, &set.limits, &err));
    if (set.json) models = json_array();
    else print_machine(&set.limits);
    for (size_t i = 0; i < n; i++) {
        fflush(stdout);
        CT_TRY(bench_model(args, dirs[i], &set, &o, &err));
        if (set.json) json_array_append_new(models, model_json(dirs[i], &o, &set));
        else print_model(dirs[i], &o, &set);
        ct_bench_clear(&o.steps);
        ct_model_close(o.model);
        o.model = NULL;
    }
    if (set.json) {
        machine = machine_json(&set.limits);
        json_t *object =
            json_pack("{s:s,s:s,s:s,s:{s:i,s:i,s:s},s:O,s:O}", "version", ct_version(), "commit",
                      ct_commit(), "command", ct_args_command_line(args), "runs", "prefill",
                      set.plan.repeat, "decode", set.plan.repeat * CT_BENCH_DECODES, "shown",
                      "median", "machine", machine, "models", models);
        CT_TRY(ct_cli_print_json(object, &err));
    } else if (n > 0) {
        printf("\nmedians of %d prefills and starts, %d decode steps, after one that warms up\n",
               set.plan.repeat, set.plan.repeat * CT_BENCH_DECODES);
    }
done:
    ct_bench_clear(&o.steps);
    ct_model_close(o.model);
    json_decref(models);
    json_decref(machine);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option options[] = {
    {"--model", "-m", CT_ARG_TEXTS, "DIR",
     "Model folders (default: models/griffin-demo, if it is there).", 0, 0},
    {"--only", NULL, CT_ARG_CHOICE, "ops|model",
     "ops: each operation at the model's shapes. model: whole steps, start and memory. Default: "
     "both.",
     0, 0},
    {"--prefill", NULL, CT_ARG_TEXT, "LIST", "Lengths of prompts, such as 512,2048 (default).", 0,
     0},
    {"--rows", NULL, CT_ARG_TEXT, "LIST", "Rows of decode steps (default 1,8,11,64).", 0, 0},
    {"--cache", NULL, CT_ARG_INT, "N",
     "Tokens before the decode steps (default 1000, and for a row alone 2048 as well).", 1,
     1048576},
    {"--no-start", NULL, CT_ARG_FLAG, NULL,
     "Do not time a process from its start to the first token.", 0, 0},
    {"--repeat", NULL, CT_ARG_INT, "N",
     "Runs of each prefill (default 3); decode steps: twice as many.", 1, CT_BENCH_REPEAT_MAX},
    {"--json", NULL, CT_ARG_FLAG, NULL, "Print one JSON object.", 0, 0},
    CT_OPTION_WEIGHTS,
    CT_OPTION_DEVICE,
    CT_OPTION_COMPUTE,
    CT_OPTION_THREADS,
};

const ct_verb ct_verb_bench = {
    .name = "bench",
    .operands = "",
    .max_operands = 0,
    .summary = "measure this machine, and models on it",
    .description =
        "Measures what the machine can do at most, then runs each model: prompts, decode steps of "
        "several rows after 1,000 tokens of cache (forked from one prefill, and with keys of their "
        "own), and a process from its start to its first token. Every operation of these steps is "
        "timed where it runs. On a GPU the operations are timed in steps of their own, in which "
        "each "
        "is waited for; whole steps are timed as generation runs them, recorded passes and the "
        "choice "
        "of greedy tokens on the device included.\n\n"
        "The share of the limit is the time that the measured limits allow over the time it took: "
        "arithmetic at the machine's rate or bytes at its read bandwidth, whichever takes longer. "
        "An operation's bytes are its weights, keys and states, and its activations, each counted "
        "once (more than 100 %: they were in a cache); a whole step's are those of memory alone. "
        "Of "
        "several devices (cuda:0+1) the first one's limits count: they compute one after another.",
    .example = "cortado bench -m models/griffin-demo --json",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_bench,
};
