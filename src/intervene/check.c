/* check.c - whether an intervention is well formed, and where it acts.
 *
 * See intervene.h. Nothing here looks at a model beyond its number of heads.
 */
#include <inttypes.h>

#include "base/err.h"
#include "intervene/intervene.h"

bool ct_intervention_acts(const ct_intervention *iv, ct_stage stage)
{
    return iv && (iv->heads.active[stage] || iv->weights[stage].mode != CT_WEIGHTS_KEEP);
}

int32_t ct_heads_keep(const ct_intervention *iv, ct_stage stage)
{
    return iv && iv->heads.active[stage] ? iv->heads.keep : -1;
}

bool ct_intervention_needs_whole(const ct_intervention *iv, ct_stage stage)
{
    return iv && stage == CT_STAGE_PREFILL && iv->weights[stage].mode == CT_WEIGHTS_BINARY &&
           iv->semantics.binary_mean_per_layer;
}

int64_t ct_intervention_window(const ct_intervention *iv, ct_stage stage, int64_t window)
{
    return iv && stage == CT_STAGE_PREFILL && iv->semantics.prefill_window_full ? -1 : window;
}

static ct_status check_spans(const ct_weight_edit *edit, ct_stage stage, int64_t limit, ct_err *err)
{
    const char *name = ct_stage_name(stage), *mode = ct_weights_mode_name(edit->mode);
    if (edit->n_spans == 0) {
        if (edit->mode == CT_WEIGHTS_KEEP || edit->mode == CT_WEIGHTS_NULL) return CT_OK;
        return ct_fail(err, CT_ERR_USAGE,
                       "weight edit in %s: mode %s needs positions, got none (give a needle or its "
                       "positions)",
                       name, mode);
    }
    if (!edit->spans)
        return ct_fail(err, CT_ERR_USAGE, "weight edit in %s: %zu spans, but no list", name,
                       edit->n_spans);
    int64_t before = 0;
    for (size_t i = 0; i < edit->n_spans; i++) {
        ct_span s = edit->spans[i];
        if (s.begin < 0 || s.end <= s.begin)
            return ct_fail(err, CT_ERR_VALUE,
                           "weight edit in %s: expected a span of positions from 0 on that is not "
                           "empty, got %" PRId64 " to %" PRId64,
                           name, s.begin, s.end - 1);
        if (s.begin < before)
            return ct_fail(
                err, CT_ERR_VALUE,
                "weight edit in %s: expected sorted, disjoint spans, got position %" PRId64
                " after %" PRId64,
                name, s.begin, before - 1);
        if (s.end > limit)
            return ct_fail(
                err, CT_ERR_VALUE,
                "weight edit in %s: expected positions below the prompt's length %" PRId64
                ", got %" PRId64,
                name, limit, s.end - 1);
        before = s.end;
    }
    return CT_OK;
}

ct_status ct_intervention_check(const ct_intervention *iv, int64_t heads, int64_t limit,
                                ct_err *err)
{
    const ct_head_selection *sel = &iv->heads;
    if (sel->active[CT_STAGE_PREFILL] || sel->active[CT_STAGE_GENERATION]) {
        if ((unsigned)sel->metric > CT_METRIC_ENTROPY_INVERTED)
            return ct_fail(err, CT_ERR_USAGE, "head selection: unknown metric %d", sel->metric);
        if (sel->keep < 0 || sel->keep > heads)
            return ct_fail(err, CT_ERR_VALUE,
                           "head selection: expected 0 to %" PRId64
                           " heads to keep (the model's heads), got %" PRId32,
                           heads, sel->keep);
    }
    for (int s = 0; s < CT_STAGE_COUNT; s++) {
        if ((unsigned)iv->weights[s].mode > CT_WEIGHTS_OMIT)
            return ct_fail(err, CT_ERR_USAGE, "weight edit: unknown mode %d", iv->weights[s].mode);
        ct_status st = check_spans(&iv->weights[s], (ct_stage)s, limit, err);
        if (st != CT_OK) return st;
    }
    return CT_OK;
}
