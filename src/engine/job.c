/* job.c - a request on its way: stages, chunks of prefill, forks, decoding, stop.
 *
 * Owns where prefill ends and generation begins (docs/semantics.md), which tokens are fed in which
 * stage, which rows of prefill two requests share, and the outcome that grows on the way. The arithmetic is ct_step's.
 *
 *   generation_begins: after_prompt           prefill = the whole prompt; its last row gives token
 * 0 generation_begins: at_last_prompt_token   prefill = all but the last prompt token; the step on
 *                                             that token, a generation step, gives token 0
 *   kv_cache: off                             each later step computes everything anew, all rows in
 *                                             that step's stage
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <cortado/engine.h>

#include "base/err.h"
#include "base/hash.h"
#include "engine/sample.h"
#include "intervene/intervene.h"
#include "model/model.h"

struct ct_job {
    const ct_model *model;
    ct_generate_request request;
    ct_intervention intervention; /* the request's, with its seed of random heads mixed */
    ct_job_state state;
    ct_sequence *sequence;
    int64_t pause;         /* a position at which prefill stops; INT64_MAX: none */
    int64_t prefill_count; /* prompt tokens of the prefill part */
    int32_t *tokens;       /* [prompt + max_new]: the prompt, then what was fed */
    int64_t fed;           /* tokens after the prefill part that were fed */
    int32_t *ids;          /* [max_new] chosen */
    int64_t count;
    float *last;   /* [V] the distribution of the newest token; room for the next */
    float *logits; /* keep_logits: [count, V] */
    int64_t logits_capacity;
    uint8_t *heads_kept;     /* [max_new, attention layers, H] */
    ct_recording *recording; /* NULL: none is wanted */
    ct_audit audit;
    ct_err failure; /* what ended this job alone, or CT_OK */
};

/* ---- stages ---------------------------------------------------------------------------------- */

int64_t ct_request_prefill_count(const ct_generate_request *r)
{
    if (!r->intervention.semantics.generation_begins_at_last_prompt_token)
        return (int64_t)r->prompt_count;
    /* Without a cache the first generation step computes the whole prompt itself. */
    return r->intervention.semantics.kv_cache_off ? 0 : (int64_t)r->prompt_count - 1;
}

/* The stage of the prefill part. The published code calls any call of one token generation, so that
 * a prompt of two tokens has no prefill. */
static ct_stage prefill_stage(const ct_generate_request *r)
{
    return r->intervention.semantics.generation_begins_at_last_prompt_token && r->prompt_count == 2
               ? CT_STAGE_GENERATION
               : CT_STAGE_PREFILL;
}

/* Whether the request computes any row in the stage, whatever it chooses. */
static bool stage_has_rows(const ct_generate_request *r, ct_stage stage)
{
    if (ct_request_prefill_count(r) > 0 && prefill_stage(r) == stage) return true;
    bool at_last = r->intervention.semantics.generation_begins_at_last_prompt_token;
    return stage == CT_STAGE_GENERATION && (at_last || r->max_new_tokens > 1);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static ct_status check_ids(const ct_model *model, const int32_t *ids, size_t count,
                           const char *what, ct_err *err)
{
    int64_t vocab = model->info.vocab;
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return ct_fail(err, CT_ERR_VALUE,
                           "%s: token %zu: expected an id from 0 to %" PRId64
                           " (the model's vocabulary), got %" PRId32,
                           what, i, vocab - 1, ids[i]);
    return CT_OK;
}

/* The places of the model's attention layers; [info.attention_layers]. */
static ct_status record_shape(const ct_model *model, const ct_generate_request *r, int64_t **layers,
                              ct_record_shape *out, ct_err *err)
{
    int64_t n = 0, *list = malloc((size_t)model->info.attention_layers * sizeof *list + 1);
    if (!list) return ct_fail_memory(err, "recording", (size_t)model->info.attention_layers);
    for (int64_t i = 0; i < model->info.layers; i++)
        if (model->layers[i].attention_index >= 0) list[n++] = i;
    *layers = list;
    *out = (ct_record_shape){
        .attention_layers = list,
        .n_attention = n,
        .heads = model->info.heads,
        .head_dim = model->info.head_dim,
        .prefill = ct_request_prefill_count(r),
        .tokens = (int64_t)r->prompt_count + r->max_new_tokens,
    };
    return CT_OK;
}

static ct_status check_record(const ct_model *model, const ct_generate_request *r, ct_err *err)
{
    int64_t *layers;
    ct_record_shape shape;
    if (!r->record) return CT_OK;
    ct_status st = record_shape(model, r, &layers, &shape, err);
    if (st != CT_OK) return st;
    st = ct_record_check(r->record, &shape, err);
    free(layers);
    return st;
}

int64_t ct_request_recording_bytes(const ct_model *model, const ct_generate_request *r)
{
    ct_record_shape shape = {
        .n_attention = model->info.attention_layers,
        .heads = model->info.heads,
        .prefill = ct_request_prefill_count(r),
        .tokens = (int64_t)r->prompt_count + r->max_new_tokens,
    };
    return r->record ? ct_record_bytes(r->record, &shape) : 0;
}

ct_status ct_request_check(const ct_model *model, const ct_generate_request *r, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_intervention *iv = &r->intervention;
    if (!r->prompt || r->prompt_count == 0)
        CT_TRY(ct_fail(err, CT_ERR_VALUE, "prompt: expected 1 or more tokens, got none"));
    if (r->prompt_count > INT32_MAX / 2)
        CT_TRY(ct_fail(err, CT_ERR_LIMIT, "prompt: expected fewer than 2^30 tokens, got %zu",
                       r->prompt_count));
    if (r->max_new_tokens <= 0 || r->max_new_tokens > INT32_MAX / 2)
        CT_TRY(ct_fail(err, CT_ERR_VALUE, "new tokens: expected 1 to %d, got %" PRId32,
                       INT32_MAX / 2, r->max_new_tokens));
    CT_TRY(check_ids(model, r->prompt, r->prompt_count, "prompt", err));
    CT_TRY(check_ids(model, r->force_ids, r->force_ids ? r->force_count : 0, "forced ids", err));
    CT_TRY(ct_sampling_check(&r->sampling, err));
    CT_TRY(ct_intervention_check(iv, model->info.heads, (int64_t)r->prompt_count, err));
    CT_TRY(check_record(model, r, err));
    const ct_weight_edit *edit = &iv->weights[CT_STAGE_PREFILL];
    if (ct_intervention_needs_whole(iv, CT_STAGE_PREFILL) &&
        edit->spans[edit->n_spans - 1].end > ct_request_prefill_count(r))
        CT_TRY(ct_fail(err, CT_ERR_VALUE,
                       "weight edit in prefill: binary under binary_mean: per_layer is not defined "
                       "at position %" PRId64 ", which is not part of prefill under "
                       "generation_begins: at_last_prompt_token",
                       edit->spans[edit->n_spans - 1].end - 1));
    bool acts = false, reaches = false;
    for (int s = 0; s < CT_STAGE_COUNT; s++) {
        acts |= ct_intervention_acts(iv, (ct_stage)s);
        reaches |= ct_intervention_acts(iv, (ct_stage)s) && stage_has_rows(r, (ct_stage)s);
    }
    if (acts && model->info.attention_layers == 0)
        CT_TRY(ct_fail(err, CT_ERR_INTERVENTION,
                       "intervention: expected a model with attention layers, got one without"));
    if (acts && !reaches)
        CT_TRY(ct_fail(err, CT_ERR_INTERVENTION,
                       "intervention: it acts in %s only, where this request computes no row (%zu "
                       "prompt tokens, %" PRId32 " new%s)",
                       ct_intervention_acts(iv, CT_STAGE_PREFILL) ? "prefill" : "generation",
                       r->prompt_count, r->max_new_tokens,
                       ct_intervention_acts(iv, CT_STAGE_PREFILL)
                           ? ""
                           : ", of which prefill yields the first"));
done:
    return st;
}

/* ---- shared prefill -------------------------------------------------------------------------- */

/* Random heads are drawn by layer, position and head, so prompts of one length would share every draw
 * under one seed, and a mean over prompts would hold less than it seems to: the prompt's ids go into
 * the seed. */
static uint64_t seed_for_prompt(const ct_generate_request *r)
{
    return r->intervention.heads.seed ^
           ct_hash_bytes(r->prompt, r->prompt_count * sizeof *r->prompt).low;
}

/* Whether the last row of the prefill gives the first token, and with it that step's heads. */
static bool prefill_gives_token(const ct_generate_request *r)
{
    return ct_request_prefill_count(r) == (int64_t)r->prompt_count;
}

static bool records_prefill(const ct_generate_request *r)
{
    return r->record && r->record->stages[prefill_stage(r)];
}

static void program_of(const ct_model *model, const ct_generate_request *r, ct_prefill_program *out)
{
    ct_prefill_program_init(out, &r->intervention, prefill_stage(r), model->info.heads);
    if (out->keep > 0 && out->metric == CT_METRIC_RANDOM) out->seed = seed_for_prompt(r);
    if (records_prefill(r)) out->recorded = r->record->number + 1;
}

/* Leading ids that the two prompts share, of the first n. */
static int64_t same_ids(const int32_t *a, const int32_t *b, int64_t n)
{
    enum { AT_ONCE = 64 };
    if (a == b) return n;
    int64_t i = 0;
    while (n - i >= AT_ONCE && memcmp(a + i, b + i, AT_ONCE * sizeof *a) == 0) i += AT_ONCE;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

/* The order is that of the prefills' rows, each row its program, its id, and, if it is the last one
 * and gives a token, what selects the heads that are reported with the token. */
int64_t ct_request_shared_prefill(const ct_model *model, const ct_generate_request *a,
                                  const ct_generate_request *b, int *order)
{
    int unused;
    if (!order) order = &unused;
    ct_prefill_program x, y;
    program_of(model, a, &x);
    program_of(model, b, &y);
    int64_t count_a = ct_request_prefill_count(a), count_b = ct_request_prefill_count(b), alike;
    int64_t most = count_a < count_b ? count_a : count_b;
    *order = ct_prefill_program_compare(&x, &y, &alike);
    if (alike > most) alike = most;
    int64_t shared = same_ids(a->prompt, b->prompt, alike);
    if (shared < alike) {
        *order = a->prompt[shared] < b->prompt[shared] ? -1 : 1;
    } else if (shared == most) {
        bool ends_a = count_a == most && most > 0 && prefill_gives_token(a);
        bool ends_b = count_b == most && most > 0 && prefill_gives_token(b);
        *order = ends_a - ends_b;
        if (ends_a && ends_b) *order = ct_prefill_program_compare_heads(&x, &y);
        if (*order) shared--;
        else *order = (count_a > count_b) - (count_a < count_b);
    }
    return x.whole && *order ? 0 : shared;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static size_t heads_per_step(const ct_model *model)
{
    return (size_t)(model->info.attention_layers * model->info.heads);
}

/* A checked job without a sequence. */
static ct_status job_new(const ct_model *model, const ct_generate_request *request, ct_job **out,
                         ct_err *err)
{
    ct_status st = ct_request_check(model, request, err);
    if (st != CT_OK) return st;
    ct_job *job = calloc(1, sizeof *job);
    if (!job) return ct_fail_memory(err, "job", sizeof *job);
    size_t max_new = (size_t)request->max_new_tokens;
    job->model = model;
    job->request = *request;
    job->intervention = request->intervention;
    job->intervention.heads.seed = seed_for_prompt(request);
    job->pause = INT64_MAX;
    job->prefill_count = ct_request_prefill_count(request);
    job->state = job->prefill_count > 0 ? CT_JOB_PREFILL : CT_JOB_DECODE;
    job->tokens = malloc((request->prompt_count + max_new) * sizeof *job->tokens);
    job->ids = malloc(max_new * sizeof *job->ids);
    job->last = malloc((size_t)model->info.vocab * sizeof *job->last);
    job->heads_kept = malloc(max_new * heads_per_step(model) + 1);
    if (!job->tokens || !job->ids || !job->last || !job->heads_kept) {
        ct_job_free(job);
        return ct_fail_memory(err, "job", (size_t)model->info.vocab * sizeof *job->last);
    }
    memcpy(job->tokens, request->prompt, request->prompt_count * sizeof *job->tokens);
    if (request->record) {
        int64_t *layers;
        ct_record_shape shape;
        st = record_shape(model, request, &layers, &shape, err);
        if (st == CT_OK) {
            st = ct_recording_new(request->record, &shape, &job->recording, err);
            free(layers);
        }
        if (st != CT_OK) {
            ct_job_free(job);
            return st;
        }
    }
    *out = job;
    return CT_OK;
}

ct_status ct_job_new(const ct_model *model, const ct_generate_request *request, ct_job **out,
                     ct_err *err)
{
    ct_job *job = NULL;
    ct_status st = job_new(model, request, &job, err);
    if (st == CT_OK) st = ct_sequence_new(model, &job->sequence, err);
    if (st == CT_OK) *out = job;
    else ct_job_free(job);
    return st;
}

void ct_job_free(ct_job *job)
{
    if (!job) return;
    ct_sequence_free(job->sequence);
    free(job->tokens);
    free(job->ids);
    free(job->last);
    free(job->logits);
    free(job->heads_kept);
    ct_recording_free(job->recording);
    free(job);
}

/* Chooses the next token from job->last, unless the step has done so (`greedy`), keeps what is to be
 * kept, and decides whether it was the last one. */
static ct_status choose(ct_job *job, int32_t greedy, ct_err *err)
{
    const ct_generate_request *r = &job->request;
    size_t vocab = (size_t)job->model->info.vocab;
    if (r->keep_logits) {
        if (job->count == job->logits_capacity) {
            int64_t capacity = job->logits_capacity ? 2 * job->logits_capacity : 8;
            if (capacity > r->max_new_tokens) capacity = r->max_new_tokens;
            size_t bytes = (size_t)capacity * vocab * sizeof *job->logits;
            float *logits = realloc(job->logits, bytes);
            if (!logits) return ct_fail_memory(err, "kept logits", bytes);
            job->logits = logits;
            job->logits_capacity = capacity;
        }
        memcpy(job->logits + (size_t)job->count * vocab, job->last, vocab * sizeof *job->last);
    }
    int32_t id = greedy;
    ct_status st = CT_OK;
    if (greedy == CT_NO_CHOICE)
        st = ct_sample(&r->sampling, job->last, (int64_t)vocab, job->count, &id, err);
    else if (greedy < 0) st = ct_sample_not_a_number(job->count, -1 - greedy, err);
    if (st != CT_OK) return st;
    bool checks_eos = job->count > 0 || !r->intervention.semantics.eos_on_first_token_ignored;
    job->ids[job->count] = id;
    /* Teacher forcing replays a given text: what ends it is an EOS there. */
    bool forced = r->force_ids && (size_t)job->count < r->force_count;
    int32_t next = forced ? r->force_ids[job->count] : id;
    job->tokens[(int64_t)r->prompt_count + job->count] = next;
    job->count++;
    job->state = CT_JOB_DECODE;
    if (job->count == r->max_new_tokens || (checks_eos && r->eos >= 0 && next == r->eos))
        job->state = CT_JOB_DONE;
    return CT_OK;
}

/* The heads of the row that gave the first token. `at` selects them as the job does, or both keep all
 * or none of them. */
static void fork_heads_kept(const ct_job *at, ct_job *job)
{
    int32_t keep = ct_heads_keep(&job->intervention, prefill_stage(&job->request));
    bool chosen = keep > 0 && keep < job->model->info.heads;
    if (chosen) memcpy(job->heads_kept, at->heads_kept, heads_per_step(job->model));
    else memset(job->heads_kept, keep != 0, heads_per_step(job->model));
}

ct_status ct_job_fork(const ct_job *at, const ct_generate_request *request, ct_job **out,
                      ct_err *err)
{
    ct_job *job = NULL;
    const ct_model *model = at->model;
    ct_status st = CT_OK;
    int64_t position = ct_job_position(at);
    if (at->fed > 0)
        return ct_fail(err, CT_ERR_USAGE,
                       "fork: expected a job in prefill or at its end, got one that has fed tokens "
                       "since");
    CT_TRY(job_new(model, request, &job, err));
    if (position > 0 && records_prefill(request))
        CT_TRY(ct_fail(err, CT_ERR_USAGE,
                       "fork: a request that records its prefill computes all of it itself"));
    int64_t shared = ct_request_shared_prefill(model, &at->request, request, NULL);
    bool at_end = position == job->prefill_count;
    if (position > shared)
        CT_TRY(ct_fail(err, CT_ERR_USAGE,
                       "fork: expected a job within the %" PRId64
                       " rows of prefill that the two requests share, got one at %" PRId64,
                       shared, position));
    if (position % CT_KV_BLOCK != 0 && !at_end)
        CT_TRY(ct_fail(err, CT_ERR_USAGE,
                       "fork: expected a multiple of %d or the end of prefill, got a job at "
                       "position %" PRId64,
                       CT_KV_BLOCK, position));
    CT_TRY(ct_sequence_fork(at->sequence, &job->sequence, err));
    ct_intervention_audit(&job->intervention, prefill_stage(request), position, model->window,
                          model->info.attention_layers, model->info.heads, &job->audit);
    if (at_end) job->state = CT_JOB_DECODE;
    if (at_end && prefill_gives_token(request)) {
        memcpy(job->last, at->last, (size_t)model->info.vocab * sizeof *job->last);
        fork_heads_kept(at, job);
        CT_TRY(choose(job, CT_NO_CHOICE, err));
    }
    *out = job;
    job = NULL;
done:
    ct_job_free(job);
    return st;
}

ct_status ct_job_pause_at(ct_job *job, int64_t position, ct_err *err)
{
    if (position == INT64_MAX) {
        job->pause = position;
        return CT_OK;
    }
    if (position % CT_KV_BLOCK != 0 || position < ct_job_position(job))
        return ct_fail(err, CT_ERR_USAGE,
                       "pause: expected a multiple of %d from %" PRId64
                       " on, where the job stands, got %" PRId64,
                       CT_KV_BLOCK, ct_job_position(job), position);
    if (ct_intervention_needs_whole(&job->intervention, prefill_stage(&job->request)) &&
        position > 0 && position < job->prefill_count)
        return ct_fail(err, CT_ERR_USAGE,
                       "pause: binary under binary_mean: per_layer needs its prefill in one step");
    job->pause = position;
    return CT_OK;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* The job's next row of a step. Without a cache the sequence is begun anew. */
static ct_status next_row(ct_job *job, ct_row *row, ct_err *err)
{
    const ct_generate_request *r = &job->request;
    int64_t at = ct_sequence_position(job->sequence);
    *row = (ct_row){.intervention = &job->intervention,
                    .audit = &job->audit,
                    .logits = job->last,
                    .recording = job->recording};
    if (job->state == CT_JOB_PREFILL) {
        int64_t end = (at + ct_model_step_tokens(job->model)) / CT_KV_BLOCK * CT_KV_BLOCK;
        row->stage = prefill_stage(r);
        if (end > job->prefill_count || ct_intervention_needs_whole(&r->intervention, row->stage))
            end = job->prefill_count;
        if (end > job->pause) end = job->pause;
        row->count = end - at;
        bool gives_token = end == (int64_t)r->prompt_count;
        row->want = gives_token ? CT_LOGITS_LAST : CT_LOGITS_NONE;
        row->heads_kept = gives_token ? job->heads_kept : NULL;
    } else {
        if (r->intervention.semantics.kv_cache_off) {
            ct_sequence *fresh = NULL;
            ct_status st = ct_sequence_new(job->model, &fresh, err);
            if (st != CT_OK) return st;
            ct_sequence_free(job->sequence);
            job->sequence = fresh;
            at = 0;
        }
        row->stage = CT_STAGE_GENERATION;
        row->count = (int64_t)r->prompt_count + job->count - at;
        bool greedy = r->sampling.temperature == 0 && !r->keep_logits;
        row->want = greedy ? CT_LOGITS_GREEDY : CT_LOGITS_LAST;
        row->heads_kept = job->heads_kept + (size_t)job->count * heads_per_step(job->model);
    }
    row->sequence = job->sequence;
    row->ids = job->tokens + at;
    return CT_OK;
}

/* What the row's logits mean for the job. Logits that no token can be chosen from end this job, not
 * the others of the step. */
static ct_status after_row(ct_job *job, const ct_row *row, ct_err *err)
{
    if (job->state == CT_JOB_PREFILL) {
        if (ct_sequence_position(job->sequence) < job->prefill_count) return CT_OK;
        job->state = CT_JOB_DECODE;
    } else {
        job->fed++;
    }
    if (row->want == CT_LOGITS_NONE) return CT_OK;
    ct_status st = choose(job, row->greedy, &job->failure);
    if (st == CT_OK) return CT_OK;
    if (st == CT_ERR_MEMORY) {
        if (err) *err = job->failure;
        return st;
    }
    job->state = CT_JOB_DONE;
    return CT_OK;
}

static bool advances(const ct_job *job)
{
    return job->state == CT_JOB_DECODE ||
           (job->state == CT_JOB_PREFILL && ct_job_position(job) < job->pause);
}

ct_status ct_jobs_step(ct_session *session, ct_job *const *jobs, size_t n_jobs, ct_err *err)
{
    ct_status st = CT_OK;
    size_t n = 0;
    ct_row *rows = calloc(n_jobs ? n_jobs : 1, sizeof *rows);
    ct_job **at_work = malloc((n_jobs ? n_jobs : 1) * sizeof(ct_job *));
    if (!rows || !at_work) {
        st = ct_fail_memory(err, "step", n_jobs * sizeof *rows);
        goto done;
    }
    for (size_t i = 0; i < n_jobs; i++) {
        if (!advances(jobs[i])) continue;
        CT_TRY(next_row(jobs[i], &rows[n], err));
        at_work[n++] = jobs[i];
    }
    if (n > 0) CT_TRY(ct_step(session, rows, n, err));
    for (size_t i = 0; i < n; i++) {
        CT_TRY(after_row(at_work[i], &rows[i], err));
        if (at_work[i]->state == CT_JOB_DONE && at_work[i]->recording)
            CT_TRY(ct_session_settle(session, at_work[i]->sequence, at_work[i]->recording, err));
    }
done:
    free(rows);
    free(at_work);
    return st;
}

ct_status ct_generate(ct_session *session, const ct_generate_request *request, ct_job **out,
                      ct_err *err)
{
    ct_status st = CT_OK;
    ct_job *job = NULL;
    CT_TRY(ct_job_new(ct_session_model(session), request, &job, err));
    while (job->state != CT_JOB_DONE) CT_TRY(ct_jobs_step(session, &job, 1, err));
    CT_TRY(ct_job_check(job, err));
    *out = job;
    job = NULL;
done:
    ct_job_free(job);
    return st;
}

/* ---- outcomes -------------------------------------------------------------------------------- */

ct_job_state ct_job_get_state(const ct_job *job)
{
    return job->state;
}

int64_t ct_job_position(const ct_job *job)
{
    return ct_sequence_position(job->sequence);
}

const int32_t *ct_job_ids(const ct_job *job, size_t *count)
{
    *count = (size_t)job->count;
    return job->ids;
}

const ct_audit *ct_job_audit(const ct_job *job)
{
    return &job->audit;
}

const float *ct_job_logits(const ct_job *job)
{
    return job->logits;
}

const uint8_t *ct_job_heads_kept(const ct_job *job)
{
    return job->heads_kept;
}

const ct_recording *ct_job_recording(const ct_job *job)
{
    return job->recording;
}

const int32_t *ct_job_fed(const ct_job *job, size_t *count)
{
    *count = (size_t)ct_job_position(job);
    return job->tokens;
}

ct_status ct_job_check(const ct_job *job, ct_err *err)
{
    const ct_intervention *iv = &job->request.intervention;
    bool acts = false;
    if (job->failure.status != CT_OK)
        return ct_fail(err, job->failure.status, "%s", job->failure.text);
    for (int s = 0; s < CT_STAGE_COUNT; s++) {
        if (!ct_intervention_acts(iv, (ct_stage)s)) continue;
        if (job->audit.rows[s] > 0) return CT_OK;
        acts = true;
    }
    if (!acts) return CT_OK;
    return ct_fail(err, CT_ERR_INTERVENTION,
                   "intervention: it acts in %s, but no row was computed there (%" PRId64
                   " tokens were generated)",
                   ct_intervention_acts(iv, CT_STAGE_PREFILL) ? "prefill" : "generation",
                   job->count);
}
