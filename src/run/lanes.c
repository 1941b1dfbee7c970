/* lanes.c - the plans of a run: its cells in stretches, which lanes take one after another.
 *
 * Owns how many stretches there are and how large. One lane has one stretch. Of several, each begins
 * with a large one; small ones follow, so that a lane whose answers ended early takes more of them and all
 * end at about the same time. See work.h.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "model/model.h"
#include "run/stretch.h"
#include "run/work.h"

/* A lane's stretches: what each has of the lane's fair part. On the plans of the thesis's Figure 3.2, with
 * a row of decoding at 2 to 9 tokens of prefill, two lanes are by count 1.92 to 1.99 times as fast as one,
 * with one stretch each 1.81 to 2.00; eight 7.4 to 7.8 times, with one stretch each 6.2 to 7.9. */
static const double parts[] = {0.6, 0.2, 0.12, 0.08};
enum { N_PARTS = sizeof parts / sizeof *parts };
/* Where a stretch begins, shared rows are computed again: if that is more than this part of the work, it
 * costs more than it balances, and each lane has one stretch. */
static const double most_again = 0.04;

static int compare_items(void *user, const ct_plan_item *a, const ct_plan_item *b, int64_t *shared)
{
    const ct_work *work = user;
    ct_generate_request x, y;
    int order;
    ct_work_request(work, a->cell, &x);
    ct_work_request(work, b->cell, &y);
    *shared = ct_request_shared_prefill(work->model, &x, &y, &order);
    return order;
}

/* For a run without sharing: what is given in order stays so, and no two items share a row. */
static int keep_apart(void *user, const ct_plan_item *a, const ct_plan_item *b, int64_t *shared)
{
    (void)user, (void)a, (void)b;
    *shared = 0;
    return -1;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void ct_plans_clear(ct_plans *plans)
{
    for (size_t i = 0; i < plans->n; i++) ct_plan_clear(&plans->list[i]);
    free(plans->list);
    *plans = (ct_plans){0};
}

static int64_t cost_of(const ct_stretch *list, size_t n)
{
    int64_t cost = 0;
    for (size_t i = 0; i < n; i++) cost += list[i].cost;
    return cost;
}

/* One stretch a lane, or several where that costs little. */
static ct_status cut(ct_work *work, const ct_plan_item *items, size_t n, ct_plan_compare_fn compare,
                     ct_stretch **out, size_t *n_out, ct_err *err)
{
    size_t lanes = work->n_lanes, n_many = 0;
    bool anew = work->semantics.kv_cache_off;
    ct_stretch *many = NULL;
    double *share = malloc(lanes * N_PARTS * sizeof *share);
    if (!share) return ct_fail_memory(err, "plan", lanes * sizeof *share);
    for (size_t i = 0; i < lanes; i++) share[i] = 1;
    ct_status st = ct_stretches_cut(items, n, compare, work, anew, share, lanes, out, n_out, err);
    for (size_t i = 0; i < lanes * N_PARTS; i++) share[i] = parts[i / lanes];
    if (st == CT_OK && lanes > 1)
        st = ct_stretches_cut(items, n, compare, work, anew, share, lanes * N_PARTS, &many, &n_many,
                              err);
    free(share);
    if (many && (double)cost_of(many, n_many) < (1 + most_again) * (double)cost_of(*out, *n_out)) {
        free(*out);
        *out = many;
        *n_out = n_many;
        many = NULL;
    }
    free(many);
    return st;
}

static void add_figures(ct_run_result *result, const ct_plan *plan)
{
    result->segments += (int64_t)plan->n_nodes;
    result->batches += (int64_t)plan->n_batches;
    result->forks += (int64_t)plan->n_forks;
    result->prefill_tokens_plain += plan->tokens_plain;
    result->prefill_tokens_planned += plan->tokens_planned;
    result->decode_steps += plan->decode_steps;
    result->decode_rows = most(result->decode_rows, (int64_t)plan->decode_rows);
    result->state_bytes = most(result->state_bytes, plan->peak_bytes);
}

ct_status ct_work_plan(ct_work *work, ct_plan_item *items, size_t n, ct_plans *out, ct_err *err)
{
    ct_status st;
    const ct_model_info *info = work->info;
    ct_run_result *result = work->result;
    ct_stretch *stretches = NULL;
    size_t n_stretches = 0;
    bool full = work->semantics.prefill_window_full, alone = work->options->alone;
    ct_plan_compare_fn compare = alone ? keep_apart : compare_items;
    result->memory_limit = ct_work_memory(work, &result->memory_of_device);
    const ct_plan_limits limits = {
        .memory = result->memory_limit,
        /* With each state goes the distribution of its newest token (in the host's memory always). */
        .sequence_bytes = info->state_bytes_fixed + info->vocab * (int64_t)sizeof(float),
        .block_bytes = info->state_bytes_per_block,
        .window = full || info->window <= 0 ? -1 : info->window - 1,
        .step_tokens = ct_model_step_tokens(work->model),
        .rows = alone ? 1 : (size_t)work->model->ops->decode_rows,
        .begins_anew = work->semantics.kv_cache_off,
    };
    double begin = ct_now_ms();
    CT_TRY(ct_plan_sort(items, n, compare, work, err));
    CT_TRY(cut(work, items, n, compare, &stretches, &n_stretches, err));
    out->list = calloc(n_stretches + 1, sizeof *out->list);
    if (!out->list) CT_TRY(ct_fail_memory(err, "plan", n_stretches * sizeof *out->list));
    for (size_t i = 0; i < n_stretches; i++) {
        const ct_stretch *s = &stretches[i];
        CT_TRY(ct_plan_new(items + s->first, s->count, compare, work, &limits, &out->list[out->n],
                           err));
        add_figures(result, &out->list[out->n++]);
    }
    result->lanes = most(result->lanes, (int64_t)work->n_lanes);
    result->stretches += (int64_t)n_stretches;
    result->weight_bytes = most(result->weight_bytes, info->weight_bytes);
done:
    result->plan_ms += ct_now_ms() - begin;
    free(stretches);
    return st;
}
