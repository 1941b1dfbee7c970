/* evaluate.h - a model's log-probabilities of the choices of multiple-choice questions.
 *
 * Owns the way from a question to token ids, as lm-evaluation-harness goes it, and the shared prefills of
 * many questions: the shots of a subject are computed once (plan.h). Prefill only: the harness computes a
 * prompt and its choice in one call, so that heads are selected in prefill or not at all.
 */
#ifndef CT_RUN_EVALUATE_H
#define CT_RUN_EVALUATE_H

#include <signal.h>

#include <cortado/engine.h>

#include "base/hash.h"
#include "task/choice.h"

typedef struct ct_eval_options {
    const ct_choice_set *set; /* borrowed, as what follows */
    ct_model *model;          /* its weights' hash is computed (ct_model_hash) */
    const ct_tokenizer *tokenizer;
    bool chat;                         /* prompts in the tokenizer's chat template */
    ct_head_selection heads;           /* active in prefill only, or not at all */
    const volatile sig_atomic_t *stop; /* not 0: end at the next layer; NULL: never */
} ct_eval_options;

typedef struct ct_eval_item {
    const ct_question *question;
    char key[CT_HASH_HEX];        /* over all that determines the numbers */
    bool done;                    /* log_p is there: the caller may set both before ct_eval_run */
    double log_p[CT_CHOICES_MAX]; /* natural logarithms, summed over the choice's tokens */
    size_t prompt_tokens;         /* of the context */
    int32_t *ids;                 /* the context's, then each choice's */
    size_t choice_at[CT_CHOICES_MAX + 1]; /* where each choice's ids begin and end */
    int64_t left;                         /* requests on their way */
} ct_eval_item;

typedef struct ct_eval {
    ct_eval_options options;
    ct_eval_item *items; /* one for each question of the set, in its order */
    size_t n_items;
    bool drops_system;    /* the chat template refuses the descriptions: they are left out */
    int64_t tokens_plain; /* of prefill, in a loop over the requests that were run */
    int64_t tokens;       /* computed so far */
} ct_eval;

/* Encodes all questions, in parallel. As the harness does: white space that ends the context moves to the
 * choice; the choice's tokens are those of context and choice together behind the context's own; BOS
 * where the tokenizer adds it, unless the text has it. A choice that adds no token is CT_ERR_VALUE. */
ct_status ct_eval_new(const ct_eval_options *options, ct_eval **out, ct_err *err) CT_CHECK;
void ct_eval_free(ct_eval *eval);

/* Called for each item when its numbers are there. A status that is not CT_OK ends the evaluation. */
typedef ct_status (*ct_eval_fn)(void *user, const ct_eval_item *item, ct_err *err);
/* Computes the items that are not done, a subject at a time, within half of the memory that is free.
 * CT_ERR_INTERRUPTED if stopped; what was called for is done in any case. */
ct_status ct_eval_run(ct_eval *eval, ct_eval_fn fn, void *user, ct_err *err) CT_CHECK;

#endif
