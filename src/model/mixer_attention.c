/* mixer_attention.c - softmax attention of one layer, with its interventions.
 *
 * Order, as in the thesis's code: weights by softmax; heads are chosen from the unedited weights;
 * the weights are edited; head outputs are formed; those not chosen are zeroed; output projection
 * with its bias, which stays even where every head is zero. Rotary and windowed if the model says
 * so.
 */
#include <math.h>
#include <string.h>

#include "base/err.h"
#include "model/model.h"
#include "model/state.h"

static const ct_op_need needs[] = {
    CT_NEEDS(matmul),    CT_NEEDS(products),   CT_NEEDS(place_keys),
    CT_NEEDS(attention), CT_NEEDS(keep_heads), CT_NEEDS(attention_weights),
};

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    (void)part;
    const ct_model_info *info = &model->info;
    size_t q = ct_pass_round((size_t)(tokens * info->heads * info->head_dim));
    size_t kv = ct_pass_round((size_t)(tokens * info->kv_heads * info->head_dim));
    size_t per_head = ct_pass_round((size_t)(tokens * info->heads));
    size_t block = ct_pass_round((size_t)(CT_KV_BLOCK * info->kv_heads * info->head_dim));
    /* q, out, masses of the per-layer mean; k, v; entropy, l2, means of runs, 4 of the light recorder; a
     * block of ones and one with a two. */
    return 3 * q + 2 * kv + 7 * per_head + 2 * block;
}

float ct_attn_scale(const ct_model_info *info)
{
    return (float)(1 / sqrt((double)info->head_dim));
}

int64_t ct_attn_kv_offset(const ct_layer *layer, const ct_model_info *info, int part)
{
    return (layer->kv_index * 2 + part) * CT_KV_BLOCK * info->kv_heads * info->head_dim;
}

/* ---- binary_mean: per_layer ------------------------------------------------------------------ */

void ct_attn_mean_positions(const ct_attn_row *attn, ct_stage stage, int64_t *begin, int64_t *end)
{
    int64_t last = attn->seg.position + attn->seg.count - 1;
    bool windowed = stage == CT_STAGE_GENERATION && attn->window >= 0 && last > attn->window;
    *begin = windowed ? last - attn->window : 0;
    *end = last + 1;
}

/* Writes mean * (sum of the values at marked positions begin .. end-1) to every head of every token
 * of the run. Each kv head serves heads_per_group heads. */
static void write_mean_values(const ct_model_info *info, const ct_attn_row *row, int64_t v_offset,
                              double mean, float *out)
{
    int64_t begin = row->mean->begin, end = row->mean->end;
    int64_t groups = info->kv_heads, dim = info->head_dim, per_group = info->heads / groups;
    if (end > row->marked_count) end = row->marked_count;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t d = 0; d < dim; d++) {
            double sum = 0;
            for (int64_t s = begin; s < end; s++)
                if (row->marked[s]) {
                    const float *block = (const float *)row->v[s / CT_KV_BLOCK] + v_offset;
                    sum += (double)block[(s % CT_KV_BLOCK * groups + g) * dim + d];
                }
            for (int64_t t = 0; t < row->seg.count; t++)
                for (int64_t h = g * per_group; h < (g + 1) * per_group; h++)
                    out[((row->seg.first + t) * info->heads + h) * dim + d] = (float)(mean * sum);
        }
}

/* The published code's "balanced" edit of one run: one scalar for all heads (and, in prefill, all
 * rows of the call), mean = sum over heads, rows and marked positions of the weights / H / |I|, is
 * written to the marked columns of every head and row, masked ones too. Each head's output is then
 * mean times the sum of the marked values. The masses come from the attention operation itself,
 * with values of 1 (2 where a position counts twice) in place of the real ones. */
static ct_status mean_per_layer(ct_pass *pass, const ct_attn_args *args, const ct_edit_run *run,
                                const ct_attn_row *attn, float *mass, float *ones, float *twos,
                                float *out_mean, ct_err *err)
{
    const ct_model_info *info = &pass->model->info;
    int64_t heads = info->heads, dim = info->head_dim, width = info->kv_heads * dim;
    int64_t last = attn->seg.position + attn->seg.count - 1;
    for (int64_t i = 0; i < CT_KV_BLOCK * width; i++) ones[i] = twos[i] = 1;
    for (int64_t b = 0; b <= last / CT_KV_BLOCK; b++) pass->kv_spare[b] = ones;
    if (run->twice >= 0) {
        float *at = twos + run->twice % CT_KV_BLOCK * width;
        for (int64_t i = 0; i < width; i++) at[i] = 2;
        pass->kv_spare[run->twice / CT_KV_BLOCK] = twos;
    }
    ct_attn_row row = *attn;
    row.v = pass->kv_spare;
    row.edit = CT_WEIGHTS_ONLY;
    ct_attn_args sums = *args;
    sums.out = mass;
    sums.entropy_bits = sums.l2 = NULL;
    sums.light = NULL;
    sums.rows = &row;
    sums.n_rows = 1;
    sums.v_offset = 0;
    sums.batch = NULL;
    ct_status st = pass->model->ops->attention(&pass->op, &sums, err);
    if (st != CT_OK) return st;

    double total = 0;
    for (int64_t i = 0; i < attn->seg.count * heads; i++)
        total += (double)mass[(attn->seg.first * heads + i) * dim];
    double mean = run->mean_columns ? total / (double)heads / (double)run->mean_columns : 0;
    write_mean_values(info, attn, args->v_offset, mean, args->out);
    *out_mean = (float)mean;
    return CT_OK;
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    ct_status st = CT_OK;
    const ct_mixer_attention *m = layer->mixer;
    const ct_model *model = pass->model;
    const ct_model_info *info = &model->info;
    const ct_ops *ops = model->ops;
    int64_t tokens = pass->tokens;
    size_t q_size = (size_t)(tokens * info->heads * info->head_dim);
    size_t kv_size = (size_t)(tokens * info->kv_heads * info->head_dim);
    size_t head_size = (size_t)(tokens * info->heads);
    float *q = ct_pass_floats(pass, q_size), *out = ct_pass_floats(pass, q_size);
    float *k = ct_pass_floats(pass, kv_size), *v = ct_pass_floats(pass, kv_size);

    const ct_product in[] = {{q, &m->q, NULL}, {k, &m->k, NULL}, {v, &m->v, NULL}};
    CT_TRY(ops->products(&pass->op, in, 3, normed, tokens, err));
    const ct_place_args place = {.q = q,
                                 .k = k,
                                 .v = v,
                                 .heads = info->heads,
                                 .kv_heads = info->kv_heads,
                                 .head_dim = info->head_dim,
                                 .rotary = model->rotary,
                                 .theta = model->rope_theta,
                                 .k_offset = ct_attn_kv_offset(layer, info, 0),
                                 .v_offset = ct_attn_kv_offset(layer, info, 1)};
    ops->place_keys(&pass->op, &place, &pass->batch);

    ct_attn_args args = {
        .tokens = tokens,
        .heads = info->heads,
        .kv_heads = info->kv_heads,
        .head_dim = info->head_dim,
        .scale = ct_attn_scale(info),
        .q = q,
        .out = out,
        .entropy_bits = pass->wants_entropy ? ct_pass_floats(pass, head_size) : NULL,
        .l2 = pass->wants_l2 ? ct_pass_floats(pass, head_size) : NULL,
        .k_offset = place.k_offset,
        .v_offset = place.v_offset,
        .rows = pass->attn,
        .n_rows = (int64_t)pass->plan->n_runs,
        .batch = &pass->batch,
    };
    ct_attn_light light;
    if (pass->wants_light) {
        light.needle_before = ct_pass_floats(pass, head_size);
        light.needle_after = ct_pass_floats(pass, head_size);
        light.peak_weight = ct_pass_floats(pass, head_size);
        light.peak = (int32_t *)ct_pass_floats(pass, head_size);
        args.light = &light;
    }
    CT_TRY(ops->attention(&pass->op, &args, err));
    float *means = NULL;
    if (pass->has_layer_means && ops->layer_mean) {
        means = ct_pass_floats(pass, pass->plan->n_runs);
        CT_TRY(ops->layer_mean(&pass->op, &args, ct_pass_floats(pass, q_size), means, &pass->batch,
                               err));
    } else if (pass->has_layer_means) {
        size_t block = (size_t)(CT_KV_BLOCK * info->kv_heads * info->head_dim);
        float *mass = ct_pass_floats(pass, q_size);
        float *ones = ct_pass_floats(pass, block), *twos = ct_pass_floats(pass, block);
        means = ct_pass_floats(pass, pass->plan->n_runs);
        for (int64_t r = 0; r < pass->n_rows; r++)
            for (size_t i = pass->rows[r].first_run;
                 i < pass->rows[r].first_run + pass->rows[r].n_runs; i++)
                if (pass->plan->runs[i].mean_per_layer)
                    CT_TRY(mean_per_layer(pass, &args, &pass->plan->runs[i], &pass->attn[i], mass,
                                          ones, twos, &means[i], err));
    }
    uint8_t *keep = NULL;
    if (pass->keep) {
        const ct_keep_args by = {.heads = info->heads,
                                 .head_dim = info->head_dim,
                                 .layer = layer->index,
                                 .entropy_bits = args.entropy_bits,
                                 .l2 = args.l2};
        keep = pass->keep + layer->kv_index * tokens * info->heads;
        ops->keep_heads(&pass->op, keep, out, &by, &pass->batch);
    }
    if (pass->records) CT_TRY(ct_record_layer(layer, pass, &args, means, keep, err));
    CT_TRY(ops->matmul(&pass->op, x, out, tokens, &m->o, m->o_bias, true, err));
done:
    return st;
}

const ct_layer_kind ct_kind_attention = {
    .name = "attention",
    .needs = needs,
    .n_needs = sizeof needs / sizeof *needs,
    .floats = floats,
    .forward = forward,
};
