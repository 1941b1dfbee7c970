/* evaluate.c - questions to ids, requests that share prefills, log-probabilities. See evaluate.h.
 *
 *   question --text--> context ids, ids of each choice --a request for each distinct beginning of a choice-->
 *   plan of a subject --nodes in batches--> logits of each request's last row --log softmax--> log_p
 */
#include "run/evaluate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/version.h"
#include "model/model.h"
#include "run/plan.h"
#include "run/work.h"
#include "task/text.h"
#include "tok/tok.h"

/* ---- ids ------------------------------------------------------------------------------------- */

static ct_status context_text(const ct_eval *eval, const ct_question *question, char **text,
                              size_t *size, ct_err *err)
{
    const ct_eval_options *o = &eval->options;
    ct_buf buf = {0};
    ct_status st = CT_OK;
    if (o->chat) {
        ct_chat_message messages[CT_CHOICE_MESSAGES];
        size_t n = ct_choice_messages(o->set, question, messages);
        size_t first = eval->drops_system && messages[0].role == CT_CHAT_SYSTEM;
        return ct_chat_render_messages(o->tokenizer, messages + first, n - first, text, size, err);
    }
    CT_TRY(ct_choice_context(o->set, question, &buf, err));
    *size = buf.size;
    *text = ct_buf_take(&buf);
    if (!*text) st = ct_fail_memory(err, "prompt", *size);
done:
    ct_buf_clear(&buf);
    return st;
}

/* Appends a choice's ids to the item's: those of the whole text behind the context's own. */
static ct_status add_choice(const ct_eval *eval, ct_eval_item *item, const char *whole, size_t size,
                            bool special, size_t at, ct_err *err)
{
    int32_t *ids = NULL;
    size_t n, before = item->choice_at[at];
    ct_status st;
    CT_TRY(ct_tokenizer_encode(eval->options.tokenizer, whole, size, special, &ids, &n, err));
    if (n <= item->prompt_tokens)
        CT_TRY(ct_fail(err, CT_ERR_VALUE,
                       "question %" PRId64 " of %s: expected its choice %zu to be tokens of its "
                       "own, got a text that encodes as if it were not there",
                       item->question->doc_id,
                       eval->options.set->subjects[item->question->subject].name, at + 1));
    n -= item->prompt_tokens;
    int32_t *more = realloc(item->ids, (before + n) * sizeof *more);
    if (!more) CT_TRY(ct_fail_memory(err, "ids", (before + n) * sizeof *more));
    memcpy(more + before, ids + item->prompt_tokens, n * sizeof *more);
    item->ids = more;
    item->choice_at[at + 1] = before + n;
done:
    free(ids);
    return st;
}

static ct_status encode(const ct_eval *eval, ct_eval_item *item, ct_err *err)
{
    const ct_eval_options *o = &eval->options;
    const ct_subject *subject = &o->set->subjects[item->question->subject];
    char *text = NULL;
    ct_buf whole = {0};
    size_t size, begin = 0;
    ct_status st;
    CT_TRY(context_text(eval, item->question, &text, &size, err));
    size_t end = size;
    ct_text_strip(text, &begin, &end);
    bool special = ct_tokenizer_wants_special(o->tokenizer, text, size);
    CT_TRY(ct_tokenizer_encode(o->tokenizer, text, end, special, &item->ids, &item->prompt_tokens,
                               err));
    item->choice_at[0] = item->prompt_tokens;
    for (size_t c = 0; c < subject->n_choices; c++) {
        whole.size = 0;
        CT_TRY(ct_buf_add(&whole, text, size, err));
        CT_TRY(ct_buf_addf(&whole, err, "%s%s", o->chat ? "" : " ", subject->choices[c]));
        CT_TRY(add_choice(eval, item, whole.data, whole.size, special, c, err));
    }
done:
    ct_buf_clear(&whole);
    free(text);
    return st;
}

static ct_status make_key(const ct_eval *eval, ct_eval_item *item, ct_err *err)
{
    const ct_eval_options *o = &eval->options;
    const ct_model_info *info = ct_model_get_info(o->model);
    const ct_subject *subject = &o->set->subjects[item->question->subject];
    ct_buf text = {0};
    ct_status st;
    CT_TRY(ct_buf_addf(&text, err,
                       "choice 1\nnumerics %d\nbackend %s\ncompute %s\ndtype %s\nwindow %" PRId64
                       "\nweights %s\ntokenizer %s\nheads %s %s %" PRId32 " %" PRIu64
                       "\nsubject %s %" PRId64 " gold %d\nids",
                       CT_NUMERICS_VERSION, info->backend, info->compute, info->dtype, info->window,
                       info->weights_hash, ct_tokenizer_hash(o->tokenizer),
                       ct_head_stages_name(&o->heads), ct_metric_name(o->heads.metric),
                       o->heads.keep, o->heads.seed, subject->name, item->question->doc_id,
                       item->question->gold));
    for (size_t c = 0; c <= subject->n_choices; c++)
        CT_TRY(ct_buf_addf(&text, err, " %zu", item->choice_at[c]));
    CT_TRY(
        ct_buf_add(&text, item->ids, item->choice_at[subject->n_choices] * sizeof *item->ids, err));
    ct_hash_hex(ct_hash_bytes(text.data, text.size), item->key);
done:
    ct_buf_clear(&text);
    return st;
}

static ct_status encode_all(ct_eval *eval, ct_err *err)
{
    ct_err first = {0};
#pragma omp parallel for schedule(dynamic, 16)
    for (size_t i = 0; i < eval->n_items; i++) {
        ct_err why = {0};
        ct_status st = CT_OK;
        eval->items[i].question = &eval->options.set->questions[i];
        if (eval->options.stop && *eval->options.stop)
            st = ct_fail(&why, CT_ERR_INTERRUPTED, "eval: interrupted");
        if (st == CT_OK) st = encode(eval, &eval->items[i], &why);
        if (st == CT_OK) st = make_key(eval, &eval->items[i], &why);
        if (st == CT_OK) continue;
#pragma omp critical
        if (first.status == CT_OK) first = why;
    }
    if (first.status != CT_OK && err) *err = first;
    return first.status;
}

ct_status ct_eval_new(const ct_eval_options *options, ct_eval **out, ct_err *err)
{
    ct_status st;
    const ct_model_info *info = ct_model_get_info(options->model);
    ct_eval *eval = calloc(1, sizeof *eval);
    if (!eval) return ct_fail_memory(err, "evaluation", sizeof *eval);
    eval->options = *options;
    eval->n_items = options->set->n_questions;
    eval->drops_system = options->chat && !ct_chat_takes_system(options->tokenizer);
    eval->items = calloc(eval->n_items + 1, sizeof *eval->items);
    if (!eval->items)
        CT_TRY(ct_fail_memory(err, "evaluation", eval->n_items * sizeof *eval->items));
    if (options->heads.active[CT_STAGE_GENERATION])
        CT_TRY(ct_fail(err, CT_ERR_INTERVENTION,
                       "heads: expected the stage prefill, got generation: a choice's "
                       "log-probability is computed in prefill alone"));
    if (options->heads.active[CT_STAGE_PREFILL] && info->attention_layers == 0)
        CT_TRY(ct_fail(err, CT_ERR_INTERVENTION,
                       "heads: expected a model with attention layers, got one without"));
    CT_TRY(encode_all(eval, err));
    *out = eval;
    eval = NULL;
done:
    ct_eval_free(eval);
    return st;
}

void ct_eval_free(ct_eval *eval)
{
    if (!eval) return;
    for (size_t i = 0; eval->items && i < eval->n_items; i++) free(eval->items[i].ids);
    free(eval->items);
    free(eval);
}

/* ---- requests -------------------------------------------------------------------------------- */

/* A context and the first tokens of a choice: its last row is the distribution of every choice's next
 * token that begins so. */
typedef struct eval_request {
    size_t item, choice, fed; /* fed: tokens of the choice */
    int32_t *ids;
    size_t n_ids;
} eval_request;

typedef struct runner {
    ct_eval *eval;
    ct_eval_fn fn;
    void *user;
    ct_session *session;
    eval_request *requests; /* of a subject */
    size_t n_requests;
    const ct_plan *plan;
    ct_job **states; /* by node */
} runner;

static size_t choice_size(const ct_eval_item *item, size_t c)
{
    return item->choice_at[c + 1] - item->choice_at[c];
}

/* Whether two choices have `n` tokens before another, and these are the same. */
static bool begins_alike(const ct_eval_item *item, size_t a, size_t b, size_t n)
{
    return choice_size(item, b) > n &&
           memcmp(item->ids + item->choice_at[a], item->ids + item->choice_at[b],
                  n * sizeof *item->ids) == 0;
}

static ct_status add_requests(runner *r, size_t index, size_t n_choices, ct_err *err)
{
    ct_eval_item *item = &r->eval->items[index];
    item->left = 0; /* not so after a run that was stopped */
    for (size_t c = 0; c < n_choices; c++) {
        for (size_t fed = 0; fed < choice_size(item, c); fed++) {
            bool known = false;
            for (size_t b = 0; b < c; b++) known |= begins_alike(item, c, b, fed);
            if (known) continue;
            size_t n = item->prompt_tokens + fed;
            eval_request *q = &r->requests[r->n_requests];
            *q = (eval_request){.item = index, .choice = c, .fed = fed, .n_ids = n};
            q->ids = malloc(n * sizeof *q->ids + 1);
            if (!q->ids) return ct_fail_memory(err, "request", n * sizeof *q->ids);
            memcpy(q->ids, item->ids, item->prompt_tokens * sizeof *q->ids);
            memcpy(q->ids + item->prompt_tokens, item->ids + item->choice_at[c],
                   fed * sizeof *q->ids);
            r->n_requests++;
            item->left++;
        }
        item->log_p[c] = 0;
    }
    return CT_OK;
}

static void engine_request(const runner *r, uint32_t index, ct_generate_request *out)
{
    const eval_request *q = &r->requests[index];
    *out = (ct_generate_request){
        .prompt = q->ids,
        .prompt_count = q->n_ids,
        .intervention = {.heads = r->eval->options.heads}, /* semantics: all rows are prefill's */
        .max_new_tokens = 1,
        .eos = -1,
        .keep_logits = true,
    };
}

static int compare_items(void *user, const ct_plan_item *a, const ct_plan_item *b, int64_t *shared)
{
    const runner *r = user;
    ct_generate_request x, y;
    int order;
    engine_request(r, a->cell, &x);
    engine_request(r, b->cell, &y);
    *shared = ct_request_shared_prefill(r->eval->options.model, &x, &y, &order);
    return order;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* In pieces that are added in their order, so that the bits do not depend on the number of threads; a
 * vocabulary of 256,000 takes milliseconds otherwise, as long as the prompt's tokens on a GPU. */
static double log_sum_exp(const float *logits, int64_t n)
{
    enum { PIECE = 8192, MAX_PIECES = 1024 };
    double sums[MAX_PIECES], sum = 0;
    float most = -INFINITY;
    const int64_t piece = (n / PIECE / MAX_PIECES + 1) * PIECE; /* fits any vocabulary */
    for (int64_t i = 0; i < n; i++)
        if (logits[i] > most) most = logits[i];
#pragma omp parallel for
    for (int64_t p = 0; p < (n + piece - 1) / piece; p++) {
        const int64_t end = (p + 1) * piece < n ? (p + 1) * piece : n;
        sums[p] = 0;
        for (int64_t i = p * piece; i < end; i++) sums[p] += exp((double)logits[i] - most);
    }
    for (int64_t p = 0; p < (n + piece - 1) / piece; p++) sum += sums[p];
    return most + log(sum);
}

/* Adds what a distribution says of the choices that begin as the request's. */
static ct_status take(runner *r, const eval_request *q, const float *logits, ct_err *err)
{
    ct_eval_item *item = &r->eval->items[q->item];
    const ct_subject *subject = &r->eval->options.set->subjects[item->question->subject];
    double total = log_sum_exp(logits, ct_model_get_info(r->eval->options.model)->vocab);
    for (size_t c = 0; c < subject->n_choices; c++)
        if (begins_alike(item, q->choice, c, q->fed))
            item->log_p[c] += logits[item->ids[item->choice_at[c] + q->fed]] - total;
    if (--item->left > 0) return CT_OK;
    item->done = true;
    return r->fn(r->user, item, err);
}

/* ---- running a plan -------------------------------------------------------------------------- */

static ct_status stop_if_asked(void *user, int64_t place, const float *x, int64_t tokens,
                               ct_err *err)
{
    (void)place, (void)x, (void)tokens;
    const runner *r = user;
    if (r->eval->options.stop && *r->eval->options.stop)
        return ct_fail(err, CT_ERR_INTERRUPTED, "eval: interrupted");
    return CT_OK;
}

/* The job that prefills a node, at its begin; it stops at its end. */
static ct_status start_node(runner *r, size_t index, ct_err *err)
{
    const ct_plan_node *node = &r->plan->nodes[index];
    const ct_plan_item *leader = &r->plan->items[node->first_item + node->n_items - 1];
    ct_job **parent = node->parent == CT_PLAN_NONE ? NULL : &r->states[node->parent];
    ct_generate_request request;
    ct_status st;
    engine_request(r, leader->cell, &request);
    if (!parent) {
        CT_TRY(ct_job_new(r->eval->options.model, &request, &r->states[index], err));
    } else if (node->in_place) { /* the parent's leader is this node's */
        r->states[index] = *parent;
        *parent = NULL;
    } else {
        CT_TRY(ct_job_fork(*parent, &request, &r->states[index], err));
    }
    CT_TRY(ct_job_pause_at(r->states[index], node->n_children > 0 ? node->end : INT64_MAX, err));
done:
    return st;
}

/* Gives the items of a node without children their numbers, and frees its state. */
static ct_status end_node(runner *r, size_t index, ct_err *err)
{
    const ct_plan_node *node = &r->plan->nodes[index];
    if (node->n_children > 0) return CT_OK;
    ct_status st;
    CT_TRY(ct_job_check(r->states[index], err));
    for (size_t i = 0; i < node->n_items; i++)
        CT_TRY(take(r, &r->requests[r->plan->items[node->first_item + i].cell],
                    ct_job_logits(r->states[index]), err));
    ct_job_free(r->states[index]);
    r->states[index] = NULL;
done:
    return st;
}

static ct_status run_batch(runner *r, const ct_plan_batch *batch, ct_err *err)
{
    ct_status st = CT_OK;
    for (size_t i = batch->first; i < batch->first + batch->count; i++)
        CT_TRY(start_node(r, i, err));
    for (;;) {
        ct_job *jobs[CT_PLAN_TOGETHER];
        size_t n = 0;
        for (size_t i = batch->first; i < batch->first + batch->count; i++)
            if (ct_job_position(r->states[i]) < r->plan->nodes[i].end) jobs[n++] = r->states[i];
        if (n == 0) break;
        CT_TRY(stop_if_asked(r, 0, NULL, 0, err));
        CT_TRY(ct_jobs_step(r->session, jobs, n, err));
    }
    for (size_t i = batch->first; i < batch->first + batch->count; i++) {
        r->eval->tokens += r->plan->nodes[i].end - r->plan->nodes[i].begin;
        CT_TRY(end_node(r, i, err));
    }
done:
    return st;
}

static ct_status run_plan(runner *r, const ct_plan *plan, ct_err *err)
{
    ct_status st = CT_OK;
    r->plan = plan;
    r->states = calloc(plan->n_nodes + 1, sizeof *r->states);
    if (!r->states) return ct_fail_memory(err, "states", plan->n_nodes * sizeof *r->states);
    for (size_t b = 0; b < plan->n_batches; b++) CT_TRY(run_batch(r, &plan->batches[b], err));
done:
    for (size_t i = 0; i < plan->n_nodes; i++) ct_job_free(r->states[i]);
    free(r->states);
    return st;
}

static int64_t memory_for_states(const ct_model *model)
{
    int64_t left = ct_model_free_bytes(model);
    return left >= 0 ? left / 10 * 9 : ct_memory_free() / 2;
}

static ct_status plan_requests(runner *r, ct_plan *plan, ct_err *err)
{
    const ct_model *model = r->eval->options.model;
    const ct_model_info *info = ct_model_get_info(model);
    const ct_plan_limits limits = {
        .memory = memory_for_states(model),
        /* With each state go the newest distribution and the one that is kept. */
        .sequence_bytes = info->state_bytes_fixed + 2 * info->vocab * (int64_t)sizeof(float),
        .block_bytes = info->state_bytes_per_block,
        .window = info->window <= 0 ? -1 : info->window - 1,
        .step_tokens = ct_model_step_tokens(model),
        .rows = (size_t)model->ops->decode_rows,
    };
    ct_plan_item *items = calloc(r->n_requests + 1, sizeof *items);
    if (!items) return ct_fail_memory(err, "plan", r->n_requests * sizeof *items);
    ct_status st = CT_OK;
    for (size_t i = 0; i < r->n_requests; i++) {
        ct_generate_request request;
        engine_request(r, (uint32_t)i, &request);
        CT_TRY(ct_request_check(model, &request, err));
        items[i] = (ct_plan_item){.cell = (uint32_t)i,
                                  .prefill = (int64_t)request.prompt_count,
                                  .tokens = (int64_t)request.prompt_count + 1};
    }
    CT_TRY(ct_plan_new(items, r->n_requests, compare_items, r, &limits, plan, err));
    r->eval->tokens_plain += plan->tokens_plain;
done:
    free(items);
    return st;
}

static ct_status run_subject(runner *r, const ct_subject *subject, ct_err *err)
{
    ct_status st = CT_OK;
    ct_plan plan = {0};
    size_t room = 0;
    for (size_t i = subject->first; i < subject->first + subject->count; i++)
        room += r->eval->items[i].choice_at[subject->n_choices] - r->eval->items[i].prompt_tokens;
    r->n_requests = 0;
    r->requests = calloc(room + 1, sizeof *r->requests);
    if (!r->requests) return ct_fail_memory(err, "requests", room * sizeof *r->requests);
    for (size_t i = subject->first; i < subject->first + subject->count; i++)
        if (!r->eval->items[i].done) CT_TRY(add_requests(r, i, subject->n_choices, err));
    if (r->n_requests > 0) {
        CT_TRY(plan_requests(r, &plan, err));
        CT_TRY(run_plan(r, &plan, err));
    }
done:
    ct_plan_clear(&plan);
    for (size_t i = 0; i < r->n_requests; i++) free(r->requests[i].ids);
    free(r->requests);
    r->requests = NULL;
    return st;
}

ct_status ct_eval_run(ct_eval *eval, ct_eval_fn fn, void *user, ct_err *err)
{
    runner r = {.eval = eval, .fn = fn, .user = user};
    const ct_choice_set *set = eval->options.set;
    ct_status st;
    CT_TRY(ct_session_new(eval->options.model, &r.session, err));
    ct_session_watch(r.session, (ct_watch){stop_if_asked, &r});
    for (size_t i = 0; i < set->n_subjects; i++) CT_TRY(run_subject(&r, &set->subjects[i], err));
done:
    ct_session_free(r.session);
    return st;
}
