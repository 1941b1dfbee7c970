/* cmd_eval.c - `cortado eval`: MMLU and GLUE on a model, with heads selected in prefill. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "cli/common.h"
#include "cli/progress.h"
#include "cli/samples.h"
#include "cli/verbs.h"
#include "io/file.h"
#include "model/model.h"

/* The first signal ends the evaluation at the next layer, a second one the process. */
static volatile sig_atomic_t stop_requested;

static void on_signal(int number)
{
    int before = errno;
    stop_requested = 1;
    signal(number, SIG_DFL);
    errno = before;
}

typedef struct evaluation {
    const ct_args *args;
    const char *task;
    ct_choice_set set;
    ct_model *model;
    ct_tokenizer *tokenizer;
    ct_eval *eval;
    ct_samples *samples;
    ct_progress progress;
    int64_t known, answered;
    double begin_ms;
} evaluation;

static ct_status open_set(evaluation *e, ct_err *err)
{
    const char *const *subjects;
    size_t n = ct_args_texts(e->args, "--subjects", &subjects);
    bool mmlu = !strcmp(e->task, "mmlu");
    const ct_choice_options options = {
        .dir = ct_args_text(e->args, "--data", NULL),
        .subjects = subjects,
        .n_subjects = n,
        .shots = (int)ct_args_int(e->args, "--shots", mmlu ? CT_SHOTS_MAX : 0),
        .limit = ct_args_int(e->args, "--limit", 0),
    };
    return mmlu ? ct_mmlu_open(&options, &e->set, err) : ct_glue_open(&options, &e->set, err);
}

/* ---- prompts --------------------------------------------------------------------------------- */

static json_t *messages_json(const ct_chat_message *messages, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list,
                              json_pack("{s:s, s:s}", "role", ct_chat_role_name(messages[i].role),
                                        "content", messages[i].text));
    return list;
}

static ct_status dump_question(const evaluation *e, const ct_question *question, ct_sink *sink,
                               ct_err *err)
{
    ct_status st;
    bool chat = ct_args_has(e->args, "--chat");
    const ct_subject *subject = &e->set.subjects[question->subject];
    ct_buf context = {0};
    char *rendered = NULL, *text = NULL;
    json_t *line = json_pack("{s:s, s:I, s:i}", "subject", subject->name, "doc_id",
                             (json_int_t)question->doc_id, "gold", question->gold);
    json_t *continuations = json_array();
    for (size_t c = 0; c < subject->n_choices; c++)
        json_array_append_new(continuations,
                              json_sprintf("%s%s", chat ? "" : " ", subject->choices[c]));
    json_object_set_new(line, "continuations", continuations);
    if (chat) {
        size_t size;
        ct_chat_message messages[CT_CHOICE_MESSAGES];
        size_t n = ct_choice_messages(&e->set, question, messages);
        size_t first =
            messages[0].role == CT_CHAT_SYSTEM && !ct_chat_takes_system(e->tokenizer) ? 1 : 0;
        CT_TRY(ct_chat_render_messages(e->tokenizer, messages + first, n - first, &rendered, &size,
                                       err));
        json_object_set_new(line, "context", json_stringn(rendered, size));
        json_object_set_new(line, "messages", messages_json(messages + first, n - first));
    } else {
        CT_TRY(ct_choice_context(&e->set, question, &context, err));
        json_object_set_new(line, "context", json_stringn(context.data, context.size));
    }
    text = json_dumps(line, JSON_COMPACT);
    if (!text) CT_TRY(ct_fail_memory(err, "prompt", context.size));
    CT_TRY(ct_sink_write(sink, text, strlen(text), err));
    CT_TRY(ct_sink_write(sink, "\n", 1, err));
done:
    json_decref(line);
    ct_buf_clear(&context);
    free(rendered);
    free(text);
    return st;
}

static ct_status dump_prompts(const evaluation *e, const char *path, ct_err *err)
{
    ct_sink *sink;
    ct_status st = ct_sink_begin(path, &sink, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < e->set.n_questions && st == CT_OK; i++)
        st = dump_question(e, &e->set.questions[i], sink, err);
    ct_err late = {0};
    ct_status ended = ct_sink_end(sink, st == CT_OK, &late);
    if (st == CT_OK && ended != CT_OK) {
        if (err) *err = late;
        st = ended;
    }
    return st;
}

/* ---- results --------------------------------------------------------------------------------- */

static ct_status score_subject(const evaluation *e, const ct_subject *s, ct_choice_score *out,
                               ct_err *err)
{
    int *picked = malloc(2 * s->count * sizeof *picked), *gold = picked + s->count;
    if (!picked) return ct_fail_memory(err, "scores", 2 * s->count * sizeof *picked);
    for (size_t i = 0; i < s->count; i++) {
        picked[i] = ct_choice_pick(e->eval->items[s->first + i].log_p, s->n_choices);
        gold[i] = e->set.questions[s->first + i].gold;
    }
    *out = ct_choice_scores(picked, gold, (int64_t)s->count);
    free(picked);
    return CT_OK;
}

/* A row of the table: the subject's or the group's. */
static void print_score(const char *name, const ct_choice_score *score, ct_choice_metric metric)
{
    printf("%-36s %6" PRId64 "  %5.1f", name, score->n, 100 * score->accuracy);
    if (isnan(score->accuracy_stderr)) printf("         ");
    else printf("  +- %4.1f", 100 * score->accuracy_stderr);
    if (metric == CT_CHOICE_F1) printf("  %5.1f", 100 * score->f1);
    if (metric == CT_CHOICE_MATTHEWS) printf("         %6.1f", 100 * score->matthews);
    putchar('\n');
}

static json_t *score_json(const ct_choice_score *score, ct_choice_metric metric)
{
    json_t *o = json_pack("{s:I, s:f}", "n", (json_int_t)score->n, "acc", score->accuracy);
    if (!isnan(score->accuracy_stderr))
        json_object_set_new(o, "acc_stderr", json_real(score->accuracy_stderr));
    if (metric == CT_CHOICE_F1) json_object_set_new(o, "f1", json_real(score->f1));
    if (metric == CT_CHOICE_MATTHEWS) json_object_set_new(o, "mcc", json_real(score->matthews));
    return o;
}

/* Pools the subjects of a group (NULL: all) and shows them, if there are any. */
static void show_pool(const evaluation *e, const ct_choice_score *scores, const char *group,
                      const char *name, ct_choice_score *room, json_t *into)
{
    size_t n = 0;
    for (size_t i = 0; i < e->set.n_subjects; i++)
        if (!group || !strcmp(e->set.subjects[i].group, group)) room[n++] = scores[i];
    if (n == 0) return;
    ct_choice_score pooled = ct_choice_pool(room, n);
    if (into) json_object_set_new(into, name, score_json(&pooled, CT_CHOICE_ACCURACY));
    else print_score(name, &pooled, CT_CHOICE_ACCURACY);
}

static ct_status show_results(const evaluation *e, ct_err *err)
{
    static const char *const groups[] = {"stem", "humanities", "social_sciences", "other"};
    ct_status st = CT_OK;
    const bool json = ct_args_has(e->args, "--json"), mmlu = !strcmp(e->task, "mmlu");
    const size_t n = e->set.n_subjects;
    json_t *subjects = json ? json_object() : NULL, *pools = json ? json_object() : NULL;
    ct_choice_score *scores = malloc(2 * n * sizeof *scores);
    if (!scores) return ct_fail_memory(err, "scores", 2 * n * sizeof *scores);
    if (!json)
        printf("%-36s %6s  %s%s\n", "", "n", "accuracy in %", mmlu ? "" : "  F1     Matthews");
    for (size_t i = 0; i < n; i++) {
        const ct_subject *s = &e->set.subjects[i];
        CT_TRY(score_subject(e, s, &scores[i], err));
        if (json) json_object_set_new(subjects, s->name, score_json(&scores[i], s->metric));
        else print_score(s->name, &scores[i], s->metric);
    }
    if (mmlu) {
        if (!json) putchar('\n');
        for (int g = 0; g < 4; g++) show_pool(e, scores, groups[g], groups[g], scores + n, pools);
        show_pool(e, scores, NULL, "mmlu", scores + n, pools);
    }
    if (json) {
        json_t *all = json_pack(
            "{s:s, s:s, s:I, s:I, s:I, s:I, s:f, s:O, s:O}", "task", e->task, "weights",
            ct_model_get_info(e->model)->weights_hash, "questions", (json_int_t)e->set.n_questions,
            "known_before", (json_int_t)e->known, "prefill_tokens_plain",
            (json_int_t)e->eval->tokens_plain, "prefill_tokens", (json_int_t)e->eval->tokens, "ms",
            ct_now_ms() - e->begin_ms, "subjects", subjects, "groups", pools);
        st = all ? ct_cli_print_json(all, err) : ct_fail_memory(err, "results", 1);
    }
done:
    json_decref(subjects);
    json_decref(pools);
    free(scores);
    return st;
}

/* ---- the evaluation -------------------------------------------------------------------------- */

static ct_status answer(void *user, const ct_eval_item *item, ct_err *err)
{
    evaluation *e = user;
    e->answered++;
    ct_progress_show(&e->progress, e->known + e->answered, (int64_t)e->eval->n_items,
                     e->eval->tokens, ct_now_ms() - e->begin_ms);
    return e->samples ? ct_samples_add(e->samples, e->eval, item, err) : CT_OK;
}

static ct_status choose_heads(const evaluation *e, ct_head_selection *heads, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_model_info *info = ct_model_get_info(e->model);
    *heads = (ct_head_selection){0};
    if (!ct_args_has(e->args, "--keep-heads")) return CT_OK;
    heads->active[CT_STAGE_PREFILL] = true;
    heads->keep = (int32_t)ct_args_int(e->args, "--keep-heads", 0);
    heads->seed = (uint64_t)ct_args_int(e->args, "--seed", 0);
    st = ct_metric_parse(ct_args_text(e->args, "--metric", "entropy"), "--metric", &heads->metric,
                         err);
    if (st == CT_OK && heads->keep > info->heads)
        st = ct_fail(err, CT_ERR_VALUE,
                     "--keep-heads: expected 0 to %" PRId64 ", the model's heads, got %" PRId32,
                     info->heads, heads->keep);
    if (heads->metric != CT_METRIC_RANDOM) heads->seed = 0;
    return st;
}

static ct_status evaluate(evaluation *e, ct_err *err)
{
    ct_status st;
    ct_eval_options options = {
        .set = &e->set,
        .chat = ct_args_has(e->args, "--chat"),
        .stop = &stop_requested,
    };
    const char *samples = ct_args_text(e->args, "--samples", NULL);
    CT_TRY(ct_cli_open_model(e->args, &e->model, err));
    CT_TRY(choose_heads(e, &options.heads, err));
    options.model = e->model;
    options.tokenizer = e->tokenizer;
    CT_TRY(ct_eval_new(&options, &e->eval, err));
    if (e->eval->drops_system && *e->set.subjects[0].description)
        fprintf(stderr, "cortado eval: the chat template takes no system message: the "
                        "descriptions are left out\n");
    if (samples) CT_TRY(ct_samples_open(samples, e->eval, &e->samples, err));
    for (size_t i = 0; i < e->eval->n_items; i++) e->known += e->eval->items[i].done;
    ct_progress_init(&e->progress, e->known);
    st = ct_eval_run(e->eval, answer, e, err);
    ct_progress_clear(&e->progress);
    if (st == CT_ERR_INTERRUPTED)
        ct_fail(err, st, "interrupted after %" PRId64 " of %zu questions; %s",
                e->known + e->answered, e->eval->n_items,
                samples ? "the same command goes on from there"
                        : "with --samples FILE the same command would go on from there");
    if (st != CT_OK) goto done;
    CT_TRY(show_results(e, err));
done:
    return st;
}

/* Flags that would say nothing beside the others: 0, or the exit status. */
static int check_combination(const ct_args *args)
{
    static const char *const of_model[] = {"--samples", "--json", "--keep-heads"};
    const char *metric = ct_args_text(args, "--metric", "entropy");
    for (int i = 0; i < 3; i++)
        if (ct_args_has(args, "--dump-prompts") && ct_args_has(args, of_model[i]))
            return ct_args_usage(args, "%s: --dump-prompts computes nothing", of_model[i]);
    if (ct_args_has(args, "--metric") && !ct_args_has(args, "--keep-heads"))
        return ct_args_usage(args, "--metric: expected --keep-heads with it");
    if (ct_args_has(args, "--seed") &&
        (!ct_args_has(args, "--keep-heads") || strcmp(metric, "random")))
        return ct_args_usage(args, "--seed: expected --keep-heads and --metric random with it");
    return 0;
}

static int run_eval(const ct_args *args)
{
    evaluation e = {.args = args, .begin_ms = ct_now_ms()};
    ct_err err = {0}, late = {0};
    ct_status st;
    const char *dump = ct_args_text(args, "--dump-prompts", NULL);
    const char *dir = ct_args_text(args, "--tokenizer", ct_args_text(args, "--model", NULL));
    e.task = ct_args_text(args, "--task", NULL);
    if (!e.task) return ct_args_usage(args, "expected --task mmlu or --task glue");
    if (!ct_args_has(args, "--data"))
        return ct_args_usage(args, "expected --data DIR, the folder of %s's files", e.task);
    if (!dump && !ct_args_has(args, "--model"))
        return ct_args_usage(args, "expected -m MODEL, or --dump-prompts FILE");
    if (ct_args_has(args, "--chat") && !dir)
        return ct_args_usage(args, "--chat: expected -m MODEL or --tokenizer DIR, which has the "
                                   "template");
    int wrong = check_combination(args);
    if (wrong) return wrong;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL); /* batch systems give notice with it */
    CT_TRY(open_set(&e, &err));
    if (dir) CT_TRY(ct_tokenizer_open(dir, &e.tokenizer, &err));
    if (dump) CT_TRY(dump_prompts(&e, dump, &err));
    if (dump)
        printf("%zu prompt%s in %s\n", e.set.n_questions, e.set.n_questions == 1 ? "" : "s", dump);
    else CT_TRY(evaluate(&e, &err));
done:
    if (ct_samples_close(e.samples, &late) != CT_OK && st == CT_OK) {
        st = late.status;
        err = late;
    }
    ct_eval_free(e.eval);
    ct_tokenizer_close(e.tokenizer);
    ct_model_close(e.model);
    ct_choice_set_clear(&e.set);
    return st == CT_OK ? CT_EXIT_OK : ct_args_fail(args, &err);
}

static const ct_option options[] = {
    CT_OPTION_MODEL,
    {"--task", NULL, CT_ARG_CHOICE, "mmlu|glue", "The benchmark.", 0, 0},
    {"--data", NULL, CT_ARG_TEXT, "DIR",
     "Its files. mmlu: DIR/dev/NAME_dev.csv and DIR/test/NAME_test.csv of 57 subjects. glue: "
     "DIR/CoLA/dev.tsv and so on as GLUE publishes them, or DIR/cola.jsonl and so on with the "
     "fields of the Hugging Face dataset.",
     0, 0},
    {"--subjects", NULL, CT_ARG_TEXTS, "NAME...",
     "These subjects of mmlu or tasks of glue (default: all; of glue those whose files are there).",
     0, 0},
    {"--shots", NULL, CT_ARG_INT, "N",
     "Solved examples in front of a question of mmlu (default 5).", 0, CT_SHOTS_MAX},
    {"--limit", NULL, CT_ARG_INT, "N", "The first N questions of each subject.", 1, 9e15},
    {"--chat", NULL, CT_ARG_FLAG, NULL,
     "Put the prompts into the model's chat template: mmlu's description as the system's message, "
     "shots as turns of user and assistant.",
     0, 0},
    {"--keep-heads", NULL, CT_ARG_INT, "K", "Keep K heads of every attention layer, in prefill.", 0,
     2147483647.0},
    {"--metric", NULL, CT_ARG_CHOICE, "entropy|l2|random|entropy-inverted",
     "Which heads are kept (default entropy: those of the lowest).", 0, 0},
    {"--seed", NULL, CT_ARG_INT, "N", "Of --metric random (default 0).", 0, 9007199254740991.0},
    {"--samples", NULL, CT_ARG_TEXT, "FILE",
     "Write each question's log-probabilities as a JSON line when it is answered. What FILE has "
     "of this model, task and intervention is not computed again.",
     0, 0},
    {"--dump-prompts", NULL, CT_ARG_TEXT, "FILE",
     "Write the prompts as JSON lines and compute nothing; needs no model.", 0, 0},
    {"--tokenizer", NULL, CT_ARG_TEXT, "DIR",
     "Folder whose tokenizer and chat template are used (default: the model's).", 0, 0},
    {"--json", NULL, CT_ARG_FLAG, NULL, "Print one JSON object.", 0, 0},
    CT_OPTION_WEIGHTS,
    CT_OPTION_DEVICE,
    CT_OPTION_COMPUTE,
    CT_OPTION_THREADS,
    CT_OPTION_WINDOW,
};

const ct_verb ct_verb_eval = {
    .name = "eval",
    .operands = "",
    .summary = "MMLU and GLUE on a model, with heads selected in prefill",
    .description =
        "Asks the questions of a benchmark as lm-evaluation-harness does and takes the choice of "
        "the highest log-probability. Questions that begin alike share their prefill: mmlu's "
        "shots are computed once a subject.\n\nOutcomes depend neither on the order nor on what "
        "is computed beside them.",
    .example = "cortado eval -m models/jamba-mini-1.6 --task mmlu --data mmlu --chat \\\n"
               "  --keep-heads 5 --samples mmlu-k5.jsonl\n"
               "cortado eval --task glue --data glue --subjects cola --dump-prompts cola.jsonl",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .run = run_eval,
};
