/* edit.c - the weight edit of a row, cut into runs of tokens that attention treats alike, and what
 * an intervention counts in rows that it did not compute itself.
 *
 * Mostly a row is one run. It falls into several where an edit depends on the query's position:
 * needle_outside_window: unchanged stops an edit where no edited position is visible, and
 * ring_slots: reference moves the mark of the current token to the slot that it is about to
 * overwrite. See intervene.h and docs/semantics.md.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "intervene/intervene.h"

void ct_edit_plan_reset(ct_edit_plan *plan)
{
    plan->n_runs = 0;
    plan->marked_size = 0;
}

void ct_edit_plan_clear(ct_edit_plan *plan)
{
    free(plan->runs);
    free(plan->marked);
    *plan = (ct_edit_plan){0};
}

static ct_status add_run(ct_edit_plan *plan, ct_edit_run run, ct_err *err)
{
    if (plan->n_runs == plan->runs_capacity) {
        size_t capacity = plan->runs_capacity ? plan->runs_capacity * 2 : 16;
        ct_edit_run *runs = realloc(plan->runs, capacity * sizeof *runs);
        if (!runs) return ct_fail_memory(err, "edit runs", capacity * sizeof *runs);
        plan->runs = runs;
        plan->runs_capacity = capacity;
    }
    plan->runs[plan->n_runs++] = run;
    return CT_OK;
}

/* Appends the bitmap of the edit's spans; *at is its offset. */
static ct_status add_marked(ct_edit_plan *plan, const ct_weight_edit *edit, size_t *at,
                            int64_t *count, ct_err *err)
{
    *at = plan->marked_size;
    *count = edit->n_spans ? edit->spans[edit->n_spans - 1].end : 0;
    size_t need = plan->marked_size + (size_t)*count;
    if (need > plan->marked_capacity) {
        size_t capacity = need * 2;
        uint8_t *marked = realloc(plan->marked, capacity);
        if (!marked) return ct_fail_memory(err, "edited positions", capacity);
        plan->marked = marked;
        plan->marked_capacity = capacity;
    }
    plan->marked_size = need;
    if (*count == 0) return CT_OK;
    memset(plan->marked + *at, 0, (size_t)*count);
    for (size_t i = 0; i < edit->n_spans; i++)
        memset(plan->marked + *at + edit->spans[i].begin, 1,
               (size_t)(edit->spans[i].end - edit->spans[i].begin));
    return CT_OK;
}

/* How many of the edit's positions lie in begin .. end-1. */
static int64_t count_in(const ct_weight_edit *edit, int64_t begin, int64_t end)
{
    int64_t n = 0;
    for (size_t i = 0; i < edit->n_spans; i++) {
        int64_t a = edit->spans[i].begin > begin ? edit->spans[i].begin : begin;
        int64_t b = edit->spans[i].end < end ? edit->spans[i].end : end;
        if (b > a) n += b - a;
    }
    return n;
}

/* What the edit does to the query at one position. */
typedef struct effect {
    bool unchanged; /* needle_outside_window: unchanged applies */
    bool single;    /* the token needs a run of its own */
    bool ring;      /* the current token's mark moves to position p - W */
    bool changes;   /* some weight is zeroed or set */
} effect;

static effect effect_at(const ct_intervention *iv, ct_stage stage, int64_t p, int64_t window)
{
    const ct_weight_edit *edit = &iv->weights[stage];
    effect e = {0};
    int64_t low = window < 0 || p < window ? 0 : p - window;
    int64_t visible = p - low + 1, marked = count_in(edit, low, p + 1);
    if (stage == CT_STAGE_GENERATION) {
        e.unchanged =
            iv->semantics.needle_outside_window_unchanged && edit->n_spans > 0 && marked == 0;
        /* At position 0 there is no cache yet, hence no ring. */
        e.ring = iv->semantics.ring_slots_reference && window >= 0 && p > 0 &&
                 edit->mode != CT_WEIGHTS_NULL && count_in(edit, p, p + 1) > 0;
        e.single =
            e.ring || (edit->mode == CT_WEIGHTS_BINARY && iv->semantics.binary_mean_per_layer);
    }
    if (e.ring) marked -= p < window || count_in(edit, p - window, p - window + 1) > 0;
    switch (edit->mode) {
    case CT_WEIGHTS_KEEP:
        break;
    case CT_WEIGHTS_NULL:
    case CT_WEIGHTS_BINARY:
        e.changes = true;
        break;
    case CT_WEIGHTS_ONLY:
        e.changes = marked < visible;
        break;
    case CT_WEIGHTS_OMIT:
        e.changes = marked > 0;
        break;
    }
    if (e.unchanged) e.changes = false;
    return e;
}

/* The current token's mark goes to the slot it will overwrite, which holds position p - W: a bitmap
 * of the run's own. */
static ct_status ring_marks(ct_edit_plan *plan, const ct_weight_edit *edit, int64_t p,
                            int64_t window, ct_edit_run *run, ct_err *err)
{
    ct_status st = add_marked(plan, edit, &run->marked_at, &run->marked_count, err);
    if (st != CT_OK) return st;
    uint8_t *marked = plan->marked + run->marked_at;
    marked[p] = 0;
    if (p >= window) {
        if (marked[p - window]) run->twice = p - window;
        marked[p - window] = 1;
    }
    return CT_OK;
}

ct_status ct_edit_plan_add(ct_edit_plan *plan, const ct_intervention *iv, ct_stage stage,
                           int64_t position, int64_t count, int64_t window, ct_err *err)
{
    ct_edit_run whole = {.count = count,
                         .window = ct_intervention_window(iv, stage, window),
                         .mode = CT_WEIGHTS_KEEP,
                         .twice = -1};
    if (!iv || iv->weights[stage].mode == CT_WEIGHTS_KEEP) return add_run(plan, whole, err);

    const ct_weight_edit *edit = &iv->weights[stage];
    window = whole.window;
    whole.edited = true;
    ct_status st = add_marked(plan, edit, &whole.marked_at, &whole.marked_count, err);
    for (int64_t at = 0; st == CT_OK && at < count;) {
        effect e = effect_at(iv, stage, position + at, window);
        ct_edit_run run = whole;
        run.offset = at;
        run.count = 1;
        run.changed = e.changes;
        run.mode = e.unchanged ? CT_WEIGHTS_KEEP : edit->mode;
        while (!e.single && at + run.count < count) {
            effect next = effect_at(iv, stage, position + at + run.count, window);
            if (next.single || next.unchanged != e.unchanged) break;
            run.changed += next.changes;
            run.count++;
        }
        if (run.mode == CT_WEIGHTS_BINARY && iv->semantics.binary_mean_per_layer) {
            int64_t p = position + at, low = window < 0 || p < window ? 0 : p - window;
            run.mean_per_layer = true;
            run.mean_columns = stage == CT_STAGE_PREFILL ? count_in(edit, 0, INT64_MAX)
                                                         : count_in(edit, low, p + 1);
        }
        if (e.ring && !e.unchanged) st = ring_marks(plan, edit, position + at, window, &run, err);
        at += run.count;
        if (st == CT_OK) st = add_run(plan, run, err);
    }
    return st;
}

void ct_intervention_audit(const ct_intervention *iv, ct_stage stage, int64_t rows, int64_t window,
                           int64_t attention_layers, int64_t heads, ct_audit *audit)
{
    int32_t keep = ct_heads_keep(iv, stage);
    audit->rows[stage] += rows * attention_layers;
    if (keep >= 0) {
        audit->head_rows[stage] += rows * attention_layers;
        audit->heads_dropped[stage] += rows * attention_layers * (heads - keep);
    }
    if (!iv || iv->weights[stage].mode == CT_WEIGHTS_KEEP) return;
    window = ct_intervention_window(iv, stage, window);
    int64_t changed = 0;
    for (int64_t p = 0; p < rows; p++) changed += effect_at(iv, stage, p, window).changes;
    audit->edit_rows[stage] += rows * attention_layers;
    audit->edit_rows_changed[stage] += changed * attention_layers;
}
