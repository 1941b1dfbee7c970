/* attention.c - reference rotary embedding and softmax attention with entropy, l2 and weight edits.
 *
 * Attention passes over the keys of one query and head three times (maximum, sums, values), so that
 * it needs no room for the weights; the scores are computed anew each time, to the same bits.
 */
#include <math.h>

#include "base/err.h"
#include "op/ref/ref.h"

void ct_ref_rope(ct_op_ctx *ctx, float *x, int64_t heads, int64_t head_dim, int64_t rotary,
                 float theta, const ct_batch *batch)
{
    (void)ctx;
    const ct_seg *segs = batch->segs;
    int64_t half = rotary / 2;
    for (int64_t s = 0; s < batch->n_segs; s++)
        for (int64_t t = 0; t < segs[s].count; t++)
            for (int64_t j = 0; j < half; j++) {
                double angle = (double)(segs[s].position + t) *
                               pow((double)theta, -2.0 * (double)j / (double)rotary);
                double c = cos(angle), d = sin(angle);
                for (int64_t h = 0; h < heads; h++) {
                    float *v = x + ((segs[s].first + t) * heads + h) * head_dim;
                    double a = (double)v[j], b = (double)v[j + half];
                    v[j] = (float)(a * c - b * d);
                    v[j + half] = (float)(b * c + a * d);
                }
            }
}

/* One query of one head, and the keys that it sees. */
typedef struct query {
    const ct_attn_args *args;
    const ct_attn_row *row;
    const float *q;
    int64_t kv_head, begin, end; /* visible positions begin .. end-1 */
} query;

static const float *kv_at(const query *at, const void *const *blocks, int64_t offset,
                          int64_t position)
{
    const ct_attn_args *args = at->args;
    return (const float *)blocks[position / CT_KV_BLOCK] + offset +
           (position % CT_KV_BLOCK * args->kv_heads + at->kv_head) * args->head_dim;
}

static double score(const query *at, int64_t position)
{
    const float *k = kv_at(at, at->row->k, at->args->k_offset, position);
    double sum = 0;
    for (int64_t d = 0; d < at->args->head_dim; d++) sum += (double)at->q[d] * (double)k[d];
    return sum * (double)at->args->scale;
}

static bool is_marked(const ct_attn_row *row, int64_t position)
{
    return position < row->marked_count && row->marked[position];
}

/* The weight after the edit, from the weight before it; mean is BINARY's. */
static double edited(const ct_attn_row *row, int64_t position, double weight, double mean)
{
    switch (row->edit) {
    case CT_WEIGHTS_KEEP:
        return weight;
    case CT_WEIGHTS_NULL:
        return 0;
    case CT_WEIGHTS_ONLY:
        return is_marked(row, position) ? weight : 0;
    case CT_WEIGHTS_BINARY:
        return is_marked(row, position) ? mean : 0;
    case CT_WEIGHTS_OMIT:
        return is_marked(row, position) ? 0 : weight;
    }
    return 0;
}

static void attend(const query *at, double *acc, float *out, float *entropy_bits, float *l2)
{
    const ct_attn_row *row = at->row;
    int64_t dim = at->args->head_dim;
    double max = -INFINITY, sum = 0;
    for (int64_t s = at->begin; s < at->end; s++) max = fmax(max, score(at, s));
    for (int64_t s = at->begin; s < at->end; s++) sum += exp(score(at, s) - max);

    double entropy = 0, squares = 0, marked_mass = 0;
    int64_t marked = 0;
    for (int64_t s = at->begin; s < at->end; s++) {
        double weight = exp(score(at, s) - max) / sum;
        entropy -= weight > 0 ? weight * log2(weight) : 0;
        squares += weight * weight;
        if (row->edit == CT_WEIGHTS_BINARY && is_marked(row, s)) {
            marked_mass += weight;
            marked++;
        }
    }
    double mean = marked ? marked_mass / (double)marked : 0;

    for (int64_t d = 0; d < dim; d++) acc[d] = 0;
    for (int64_t s = at->begin; s < at->end; s++) {
        double weight = edited(row, s, exp(score(at, s) - max) / sum, mean);
        const float *v = kv_at(at, row->v, at->args->v_offset, s);
        for (int64_t d = 0; d < dim; d++) acc[d] += weight * (double)v[d];
    }
    for (int64_t d = 0; d < dim; d++) out[d] = (float)acc[d];
    if (entropy_bits) *entropy_bits = (float)entropy;
    if (l2) *l2 = (float)sqrt(squares);
}

ct_status ct_ref_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err)
{
    size_t need = (size_t)args->head_dim * sizeof(double);
    if (ctx->scratch_bytes < need)
        return ct_fail(err, CT_ERR_LIMIT, "attention: expected %zu bytes of scratch, got %zu", need,
                       ctx->scratch_bytes);
    int64_t heads = args->heads;
    for (int64_t r = 0; r < args->n_rows; r++) {
        const ct_attn_row *row = &args->rows[r];
        for (int64_t t = 0; t < row->seg.count; t++)
            for (int64_t h = 0; h < heads; h++) {
                int64_t position = row->seg.position + t, at = (row->seg.first + t) * heads + h;
                int64_t begin =
                    row->window < 0 || row->window > position ? 0 : position - row->window;
                query one = {
                    args,  row,         args->q + at * args->head_dim, h / (heads / args->kv_heads),
                    begin, position + 1};
                attend(&one, ctx->scratch, args->out + at * args->head_dim,
                       args->entropy_bits ? args->entropy_bits + at : NULL,
                       args->l2 ? args->l2 + at : NULL);
            }
    }
    return CT_OK;
}

void ct_ref_edit_weights(float *after, const float *before, const ct_attn_row *row, int64_t begin,
                         int64_t end)
{
    double mass = 0;
    int64_t marked = 0;
    for (int64_t s = begin; row->edit == CT_WEIGHTS_BINARY && s < end; s++)
        if (is_marked(row, s)) {
            mass += (double)before[s];
            marked++;
        }
    double mean = marked ? mass / (double)marked : 0;
    for (int64_t s = begin; s < end; s++) after[s] = (float)edited(row, s, (double)before[s], mean);
}

void ct_ref_attention_weights(ct_op_ctx *ctx, float *before, float *after,
                              const ct_weights_args *args)
{
    (void)ctx;
    const ct_attn_row *row = args->row;
    const ct_attn_args shape = {.kv_heads = args->kv_heads,
                                .head_dim = args->head_dim,
                                .scale = args->scale,
                                .k_offset = args->k_offset};
    int64_t p = args->position, begin = row->window < 0 || row->window > p ? 0 : p - row->window;
    for (int64_t h = 0; h < args->heads; h++) {
        float *to = before + h * args->keys, *edit = after + h * args->keys;
        const query one = {
            &shape, row,  args->q + h * args->head_dim, h / (args->heads / args->kv_heads),
            begin,  p + 1};
        double max = -INFINITY, sum = 0;
        for (int64_t s = begin; s <= p; s++) max = fmax(max, score(&one, s));
        for (int64_t s = begin; s <= p; s++) sum += exp(score(&one, s) - max);
        for (int64_t s = 0; s < args->keys; s++) to[s] = edit[s] = 0;
        for (int64_t s = begin; s <= p; s++) to[s] = (float)(exp(score(&one, s) - max) / sum);
        ct_ref_edit_weights(edit, to, row, begin, p + 1);
    }
}
