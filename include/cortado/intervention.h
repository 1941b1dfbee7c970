/* intervention.h - what is done to attention, as data.
 *
 * Owns the vocabulary of interventions: stage, head selection, weight edit, semantics options, and
 * the audit of what was examined and changed. An intervention belongs to one row of a batch, so one
 * batch mixes any of them. Formulas: docs/semantics.md.
 */
#ifndef CORTADO_INTERVENTION_H
#define CORTADO_INTERVENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* what a header here declares is exported */

typedef enum ct_stage { CT_STAGE_PREFILL, CT_STAGE_GENERATION, CT_STAGE_COUNT } ct_stage;

typedef enum ct_metric {
    CT_METRIC_ENTROPY,          /* lowest entropy of the weights, in bits (thesis, section 3.1) */
    CT_METRIC_L2,               /* highest l2 norm of the weights */
    CT_METRIC_RANDOM,           /* control: random heads, new ones for every token and layer */
    CT_METRIC_ENTROPY_INVERTED, /* control: highest entropy */
} ct_metric;

/* Keep `keep` heads of every attention layer, for every token of the active stages; zero the
 * others' outputs. Off while `active` is false in both stages. */
typedef struct ct_head_selection {
    bool active[CT_STAGE_COUNT];
    int32_t keep; /* 0 .. heads; heads: examined, nothing changed */
    ct_metric metric;
    uint64_t seed; /* of CT_METRIC_RANDOM */
} ct_head_selection;

typedef enum ct_weights_mode {
    CT_WEIGHTS_KEEP,
    CT_WEIGHTS_NULL,
    CT_WEIGHTS_ONLY,
    CT_WEIGHTS_BINARY,
    CT_WEIGHTS_OMIT,
} ct_weights_mode;

/* Key positions begin .. end-1 of the ids as fed (BOS counted). */
typedef struct ct_span {
    int64_t begin, end;
} ct_span;

/* An edit of the attention weights after the softmax, at the positions of `spans`. */
typedef struct ct_weight_edit {
    ct_weights_mode mode;
    const ct_span *spans; /* borrowed; sorted, disjoint, not empty unless mode is KEEP or NULL; at
                             most the prompt's length */
    size_t n_spans;
} ct_weight_edit;

/* The options in which the thesis's text and its published code differ; docs/semantics.md explains
 * each. The zero value is `paper`. */
typedef struct ct_semantics {
    bool generation_begins_at_last_prompt_token; /* generation_begins: after_prompt |
                                                    at_last_prompt_token */
    bool needle_span_reference;                  /* needle_span: text | reference */
    bool kv_cache_off;                           /* kv_cache: on | off */
    bool needle_outside_window_unchanged;        /* needle_outside_window: zero | unchanged */
    bool binary_mean_per_layer;                  /* binary_mean: per_query | per_layer */
    bool ring_slots_reference;                   /* ring_slots: positions | reference */
    bool prefill_window_full;                    /* prefill_window: local | full */
    bool eos_on_first_token_ignored;             /* eos_on_first_token: checked | ignored */
} ct_semantics;

typedef struct ct_intervention {
    ct_head_selection heads;
    ct_weight_edit weights[CT_STAGE_COUNT];
    ct_semantics semantics;
} ct_intervention;

/* What an intervention met while a request ran. "Rows" are (token, attention layer) pairs. */
typedef struct ct_audit {
    int64_t rows[CT_STAGE_COUNT];              /* computed in each stage */
    int64_t head_rows[CT_STAGE_COUNT];         /* examined by the head selection */
    int64_t heads_dropped[CT_STAGE_COUNT];     /* head outputs set to zero by it */
    int64_t edit_rows[CT_STAGE_COUNT];         /* reached by a weight edit (mode other than keep) */
    int64_t edit_rows_changed[CT_STAGE_COUNT]; /* of those, rows in which the edit zeroed or set any
                                                  weight */
} ct_audit;

/* The names used in YAML, flags and the store: "entropy", "null", "prefill", ... ; never NULL. */
const char *ct_stage_name(ct_stage stage);
const char *ct_metric_name(ct_metric metric);
const char *ct_weights_mode_name(ct_weights_mode mode);
/* "generation", "prefill", "prefill+generation", or "none" where no stage is active. */
const char *ct_head_stages_name(const ct_head_selection *heads);

/* Parse such a name; an unknown one is CT_ERR_USAGE naming the choices and the nearest. `what` is
 * the flag or key for the message. */
ct_status ct_metric_parse(const char *name, const char *what, ct_metric *out, ct_err *err) CT_CHECK;
ct_status ct_weights_mode_parse(const char *name, const char *what, ct_weights_mode *out,
                                ct_err *err) CT_CHECK;
ct_status ct_head_stages_parse(const char *name, const char *what, bool active[CT_STAGE_COUNT],
                               ct_err *err) CT_CHECK;

/* Sets every option to what `paper` or `reference` means for the family ("griffin" or "jamba"). */
ct_status ct_semantics_parse(const char *name, const char *family, ct_semantics *out,
                             ct_err *err) CT_CHECK;
/* Sets one option by name and value, such as "kv_cache", "off". */
ct_status ct_semantics_set(ct_semantics *semantics, const char *key, const char *value,
                           ct_err *err) CT_CHECK;
/* "paper", "reference", or every option as "key=value,key=value" where it is a mixture. Writes at
 * most size bytes with the NUL. */
void ct_semantics_describe(const ct_semantics *semantics, const char *family, char *out,
                           size_t size);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
