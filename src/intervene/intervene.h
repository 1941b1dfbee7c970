/* intervene.h - what the forward pass needs of an intervention.
 *
 * Owns the checks of an intervention, how many rows of a prefill two of them compute alike, the
 * audit of rows that another one has computed, and its translation for one row of a pass: edit runs (stretches of tokens under one attention edit) with
 * bitmaps of marked key positions, and the number of heads kept per token. Knows dimensions and positions, no model. Formulas: docs/semantics.md.
 */
#ifndef CT_INTERVENE_INTERVENE_H
#define CT_INTERVENE_INTERVENE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/intervention.h>

/* True if the intervention selects heads or edits weights (mode other than keep) in the stage. */
bool ct_intervention_acts(const ct_intervention *intervention, ct_stage stage);

/* Checks enums, 0 <= keep <= heads, and spans: sorted, disjoint, inside 0 .. limit-1, there where
 * the mode needs them. `limit` is the prompt's length in tokens. */
ct_status ct_intervention_check(const ct_intervention *intervention, int64_t heads, int64_t limit,
                                ct_err *err) CT_CHECK;

/* True if the row must be computed in one pass, because its edit sums over all its tokens
 * (binary_mean: per_layer in prefill). */
bool ct_intervention_needs_whole(const ct_intervention *intervention, ct_stage stage);

/* What an intervention does to the rows of a prefill, from position 0 on, in a form in which what
 * computes the same bits is the same: k = H is no selection, k = 0 and null are outputs of zero, and
 * so are only and binary before their first position, where omit is nothing yet. */
typedef struct ct_prefill_program {
    ct_stage stage;
    bool whole;       /* cannot be shared in part */
    unsigned options; /* of the semantics, those that rows of the stage notice */
    bool zero;        /* all head outputs are 0 up to edit_from */
    int32_t keep;     /* heads kept, -1: all */
    ct_metric metric; /* with the seed 0 unless some heads are kept and others are not */
    uint64_t seed;
    ct_weights_mode mode; /* from edit_from on; KEEP: no row */
    int64_t edit_from;    /* INT64_MAX: never */
    const ct_span *spans; /* borrowed */
    size_t n_spans;
    int64_t recorded; /* rows of it are recorded: shared with none of another number; 0: not */
} ct_prefill_program;

void ct_prefill_program_init(ct_prefill_program *program, const ct_intervention *intervention,
                             ct_stage stage, int64_t heads);
/* A total order of programs; *rows is the number of leading rows that two prefills of the same ids
 * compute with the same bits (INT64_MAX: all). It is lexicographic, row by row: programs that
 * share rows stand together. For `whole` programs any number below INT64_MAX means none. */
int ct_prefill_program_compare(const ct_prefill_program *a, const ct_prefill_program *b,
                               int64_t *rows);
/* The order of what selects their heads alone. 0 too if both keep a set of heads that no weight
 * decides (all, or none). */
int ct_prefill_program_compare_heads(const ct_prefill_program *a, const ct_prefill_program *b);

/* Adds what the intervention examines and changes in rows 0 .. rows-1 of a sequence in the stage,
 * as the forward pass counts it: a function of the intervention alone. */
void ct_intervention_audit(const ct_intervention *intervention, ct_stage stage, int64_t rows,
                           int64_t window, int64_t attention_layers, int64_t heads,
                           ct_audit *audit);

/* A stretch of a row's tokens whose attention is edited alike. */
typedef struct ct_edit_run {
    int64_t offset, count; /* tokens offset .. offset+count-1 of the row */
    int64_t window;        /* W: a query sees W previous keys and itself; < 0: all */
    ct_weights_mode mode;  /* what is applied; keep where an edit leaves its row unchanged */
    bool edited;           /* the stage's mode is not keep */
    int64_t changed;       /* of count, tokens in which the edit zeroes or sets a weight */
    size_t marked_at;      /* bitmap of key positions in ct_edit_plan.marked */
    int64_t marked_count;
    /* binary_mean: per_layer only: one mean over heads (and, in prefill, rows) of this run. */
    bool mean_per_layer;
    int64_t mean_columns; /* |I|: positions of the mean, those counted twice twice */
    int64_t twice;        /* a position that the mean's sum counts twice, or -1 */
} ct_edit_run;

/* The edit runs of all rows of a pass. Zero is a valid empty plan. */
typedef struct ct_edit_plan {
    ct_edit_run *runs;
    size_t n_runs, runs_capacity;
    uint8_t *marked;
    size_t marked_size, marked_capacity;
} ct_edit_plan;

void ct_edit_plan_reset(ct_edit_plan *plan); /* forgets the runs, keeps the memory */
void ct_edit_plan_clear(ct_edit_plan *plan);

/* Appends the runs of one row: `count` tokens from absolute position `position` on, in a model
 * whose queries see `window` previous tokens (< 0: all). intervention may be NULL. */
ct_status ct_edit_plan_add(ct_edit_plan *plan, const ct_intervention *intervention, ct_stage stage,
                           int64_t position, int64_t count, int64_t window, ct_err *err) CT_CHECK;

/* The window of the row's queries: `window`, or -1 (all) in prefill under prefill_window: full. */
int64_t ct_intervention_window(const ct_intervention *intervention, ct_stage stage, int64_t window);

/* The number of heads to keep for tokens of this stage; -1: all, nothing is selected. */
int32_t ct_heads_keep(const ct_intervention *intervention, ct_stage stage);

#endif
