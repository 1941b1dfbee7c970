/* engine.h - models, tokenizers, sequences, and text generation under interventions.
 *
 * Owns the public face of the engine. A model is immutable and may be shared; a sequence is one
 * timeline of tokens with its state and only moves forward or is forked whole; a session owns the
 * working memory of one caller. Ids are int32. Errors: status.h.
 */
#ifndef CORTADO_ENGINE_H
#define CORTADO_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/intervention.h>
#include <cortado/record.h>
#include <cortado/status.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* what a header here declares is exported */

/* ---- tokenizer ------------------------------------------------------------------------------- */

typedef struct ct_tokenizer ct_tokenizer;

/* Opens DIR/tokenizer.json (and DIR/tokenizer_config.json if it is there). */
ct_status ct_tokenizer_open(const char *dir, ct_tokenizer **out, ct_err *err) CT_CHECK;
void ct_tokenizer_close(ct_tokenizer *tokenizer);
/* Text (UTF-8, size bytes) to ids; the caller frees *ids. `special`: add what the post-processor
 * adds (BOS). Added tokens in the text become their ids, as in the `tokenizers` library. */
ct_status ct_tokenizer_encode(const ct_tokenizer *tokenizer, const char *text, size_t size,
                              bool special, int32_t **ids, size_t *count, ct_err *err) CT_CHECK;
/* As encode, and byte offsets of each id into text: begin[i] <= its characters < end[i]; ids that
 * stand for no text (BOS) have begin = end. The caller frees all three. */
ct_status ct_tokenizer_encode_offsets(const ct_tokenizer *tokenizer, const char *text, size_t size,
                                      bool special, int32_t **ids, size_t **begin, size_t **end,
                                      size_t *count, ct_err *err) CT_CHECK;
/* Ids to text (NUL-terminated; the caller frees). skip_special leaves special tokens out. An id
 * outside the vocabulary is CT_ERR_VALUE. */
ct_status ct_tokenizer_decode(const ct_tokenizer *tokenizer, const int32_t *ids, size_t count,
                              bool skip_special, char **text, size_t *size, ct_err *err) CT_CHECK;
size_t ct_tokenizer_vocab_size(const ct_tokenizer *tokenizer); /* largest id + 1 */
/* The id of a token's exact text, or -1. */
int32_t ct_tokenizer_token_id(const ct_tokenizer *tokenizer, const char *token);
/* Special ids from tokenizer_config.json, or -1. */
int32_t ct_tokenizer_bos(const ct_tokenizer *tokenizer);
int32_t ct_tokenizer_eos(const ct_tokenizer *tokenizer);
/* XXH3-128 of tokenizer.json's bytes, 32 hex digits. */
const char *ct_tokenizer_hash(const ct_tokenizer *tokenizer);

/* ---- model ----------------------------------------------------------------------------------- */

typedef struct ct_model ct_model;

typedef enum ct_compute_choice { CT_CHOOSE_AUTO, CT_CHOOSE_F32, CT_CHOOSE_BF16 } ct_compute_choice;

typedef struct ct_model_options {
    const char *device; /* "cpu" (NULL means it), "ref", "cuda" or "cuda:N"; "cuda:N+M": the layers
                         * spread over several GPUs; "cpu+cpu", "ref+ref": likewise without any, for tests */
    ct_compute_choice
        compute;            /* arithmetic of matrix products; AUTO: the weights' own where fast */
    int threads;            /* 0: all cores */
    int64_t window_visible; /* > 0: tokens a query sees, itself counted; 0: config's window + 1 */
    const char
        *weights; /* NULL: the folder's; "random:SEED", "random:SEED:f32": made in the device's
                          * memory, with the values of `cortado synth`; the folder has config.json */
} ct_model_options;

typedef struct ct_model_info {
    const char *family;       /* "griffin", "jamba" */
    const char *architecture; /* as in config.json */
    const char *dtype;        /* stored type of the matrices: "bf16" */
    const char *compute;      /* "f32" or "bf16" */
    const char *backend;      /* class for cell keys, such as "cpu-amx" */
    const char *weights_hash; /* XXH3-128 over config and tensors, 32 hex digits; of random weights
                               * "random:SEED:DTYPE:" and one over config and the tensors' list */
    int64_t layers, attention_layers, recurrent_layers;
    int64_t heads, kv_heads, head_dim, width, ffn_width, vocab,
        window; /* window: visible tokens, itself counted; 0: all */
    int64_t parameters, weight_bytes;
    int64_t experts, experts_per_token; /* of layers that have several; 0: none has */
    int64_t expert_bytes;               /* of weight_bytes, all experts */
    int64_t state_bytes_fixed;          /* recurrent state of one sequence */
    int64_t state_bytes_per_block;      /* KV of 64 positions over all attention layers */
    int32_t bos, eos, pad;              /* from config.json, -1 where absent */
} ct_model_info;

/* Opens a Hugging Face folder: config.json with model.safetensors or shards and their index. The
 * files stay mapped until ct_model_close. options may be NULL. */
ct_status ct_model_open(const char *dir, const ct_model_options *options, ct_model **out,
                        ct_err *err) CT_CHECK;
void ct_model_close(ct_model *model);
const ct_model_info *ct_model_get_info(const ct_model *model);

/* ---- sequences and steps --------------------------------------------------------------------- */

typedef struct ct_sequence ct_sequence;

ct_status ct_sequence_new(const ct_model *model, ct_sequence **out, ct_err *err) CT_CHECK;
/* A fork shares the KV blocks (copied on write) and copies the recurrent state. */
ct_status ct_sequence_fork(const ct_sequence *sequence, ct_sequence **out, ct_err *err) CT_CHECK;
void ct_sequence_free(ct_sequence *sequence);
int64_t ct_sequence_position(const ct_sequence *sequence); /* tokens consumed so far */
int64_t ct_sequence_bytes(const ct_sequence *sequence);    /* with shared blocks counted in full */

typedef struct ct_session ct_session; /* working memory for steps; one thread at a time */

ct_status ct_session_new(const ct_model *model, ct_session **out, ct_err *err) CT_CHECK;
void ct_session_free(ct_session *session);

/* GREEDY: the first id of the last token's highest logit is enough: `greedy` becomes it, or
 * -1 - the first id whose logit is not a number; or CT_NO_CHOICE, and the logits are written. */
typedef enum ct_logits_want {
    CT_LOGITS_NONE,
    CT_LOGITS_LAST,
    CT_LOGITS_ALL,
    CT_LOGITS_GREEDY,
} ct_logits_want;
#define CT_NO_CHOICE INT32_MIN

/* One row of a step: `count` tokens fed to one sequence in one stage under one intervention. */
typedef struct ct_row {
    ct_sequence
        *sequence; /* moves forward by count; a sequence appears in at most one row of a step */
    const int32_t *ids;
    int64_t count;
    ct_stage stage;
    const ct_intervention *intervention; /* NULL: none */
    ct_audit *audit;                     /* added to; may be NULL */
    ct_logits_want want;
    float *logits;           /* [1 or count, V] after the soft cap, if wanted */
    int32_t greedy;          /* set where it is wanted */
    uint8_t *heads_kept;     /* NULL, or [attention layers, H] for the row's last token: 1 kept */
    ct_recording *recording; /* NULL, or of the request that the row is of */
} ct_row;

/* Runs all rows together. A row's results have the same bits alone, in any batch, and however the
 * prompt was cut into steps at multiples of 64 tokens. Rows are checked first: where that fails
 * nothing was computed; on a later error no sequence of the step may be used again. Two things need
 * more than the last window of keys: prefill_window: full (from the sequence's first step on), and
 * binary under binary_mean: per_layer in prefill (the whole prompt in one row, from position 0). */
ct_status ct_step(ct_session *session, ct_row *rows, size_t n_rows, ct_err *err) CT_CHECK;

/* ---- generation ------------------------------------------------------------------------------ */

typedef struct ct_sampling {
    float temperature; /* 0: greedy (first maximum) */
    float top_p;       /* 0 or 1: off */
    int32_t top_k;     /* 0: off */
    uint64_t seed;
} ct_sampling;

typedef struct ct_generate_request {
    const int32_t *prompt; /* as fed: BOS included by the caller; borrowed until the job is freed */
    size_t prompt_count;   /* > 0 */
    ct_intervention intervention; /* its spans are borrowed likewise */
    int32_t max_new_tokens;       /* > 0 */
    int32_t eos;                  /* stop after this id; -1: never */
    ct_sampling sampling;
    const int32_t *force_ids; /* teacher forcing: fed instead of the chosen ids, and an EOS among
                                 them is what stops; NULL: none */
    size_t force_count;
    const ct_record_options *record; /* NULL: nothing is recorded; borrowed */
    bool keep_logits;                /* keep every distribution, see ct_job_logits */
} ct_generate_request;

typedef struct ct_job ct_job; /* one request on its way */

typedef enum ct_job_state { CT_JOB_PREFILL, CT_JOB_DECODE, CT_JOB_DONE } ct_job_state;

/* Tokens of a prompt that a job takes at most in one step. */
int64_t ct_model_step_tokens(const ct_model *model);

/* Checks the request against the model: ids, k, spans; whether its intervention can reach any row. */
ct_status ct_request_check(const ct_model *model, const ct_generate_request *request,
                           ct_err *err) CT_CHECK;
/* Tokens of the prompt that are computed before generation begins. */
int64_t ct_request_prefill_count(const ct_generate_request *request);
/* The number of leading rows of their prefills that two requests, both checked, compute with the
 * same bits, ct_request_prefill_count if all: their ids agree, and what acts in prefill does the same
 * there, be it other options that come to the same (docs/numerics.md). The row that gives a token is
 * shared only by requests whose prefills end there. *order, if not NULL, is negative, 0 or
 * positive: a total order in which requests stand together that share rows. */
int64_t ct_request_shared_prefill(const ct_model *model, const ct_generate_request *a,
                                  const ct_generate_request *b, int *order);

/* Checks the request and makes a job at the start of its prompt. Nothing is computed yet. The seed
 * of random heads is mixed with the prompt's ids: two prompts share no draws. */
ct_status ct_job_new(const ct_model *model, const ct_generate_request *request, ct_job **out,
                     ct_err *err) CT_CHECK;
/* A job for `request` that goes on from where `at` stands: in prefill, at a multiple of 64 tokens, or
 * at the end of both prefills with no token fed since (it may even be DONE, if its first token ended
 * it). The rows up to there must be shared (ct_request_shared_prefill), else CT_ERR_USAGE. The new
 * job's audit is that of a job which had computed them itself. */
ct_status ct_job_fork(const ct_job *at, const ct_generate_request *request, ct_job **out,
                      ct_err *err) CT_CHECK;
/* Makes the job stop in prefill at `position`, a multiple of 64 not before where it stands, so that it
 * can be forked there; INT64_MAX: it goes on. Not for binary under binary_mean: per_layer in prefill,
 * which needs its prompt in one step. */
ct_status ct_job_pause_at(ct_job *job, int64_t position, ct_err *err) CT_CHECK;
int64_t ct_job_position(const ct_job *job); /* tokens in its state */
/* Advances every job that is neither done nor paused by one unit, all in one ct_step: a chunk of
 * prompt in prefill (to a multiple of 64, at most ct_model_step_tokens), one token in decode
 * (kv_cache: off: the whole sequence). On an error none of the jobs may be stepped again. */
ct_status ct_jobs_step(ct_session *session, ct_job *const *jobs, size_t n_jobs,
                       ct_err *err) CT_CHECK;
void ct_job_free(ct_job *job);

ct_job_state ct_job_get_state(const ct_job *job);
const int32_t *ct_job_ids(const ct_job *job, size_t *count); /* chosen so far, EOS included */
const ct_audit *ct_job_audit(const ct_job *job);
/* With keep_logits: [count, V], row i the distribution from which token i was chosen. */
const float *ct_job_logits(const ct_job *job);
/* [count, attention layers, H]: heads kept at those steps (by the row that gave the token); all 1
 * where no selection is active. */
const uint8_t *ct_job_heads_kept(const ct_job *job);
/* What was recorded so far, by the request's wish; NULL without one. The job's. Weights of the last
 * step of generation are there when the job is done. */
const ct_recording *ct_job_recording(const ct_job *job);
/* Bytes that the request's recording takes at most; 0 if it has none. */
int64_t ct_request_recording_bytes(const ct_model *model, const ct_generate_request *request);
/* The tokens fed so far, prompt first: what a recording's positions count. */
const int32_t *ct_job_fed(const ct_job *job, size_t *count);
/* When the job is done: what ended it alone (logits that are not numbers: CT_ERR_VALUE), or
 * CT_ERR_INTERVENTION if its intervention acts on some stage but none of its rows was computed,
 * else CT_OK. */
ct_status ct_job_check(const ct_job *job, ct_err *err) CT_CHECK;

/* Runs one request to its end: ct_job_new, steps, ct_job_check. The caller frees *out. */
ct_status ct_generate(ct_session *session, const ct_generate_request *request, ct_job **out,
                      ct_err *err) CT_CHECK;

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
