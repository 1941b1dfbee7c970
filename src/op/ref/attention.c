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

static bool in_needle(const ct_attn_row *row, int64_t position)
{
    for (size_t i = 0; i < row->n_needle; i++)
        if (position >= row->needle[i].begin && position < row->needle[i].end) return true;
    return false;
}

static void attend(const query *at, double *acc, float *out, int64_t index)
{
    const ct_attn_row *row = at->row;
    const ct_attn_light *light = at->args->light;
    int64_t dim = at->args->head_dim, peak = at->begin;
    double max = -INFINITY, sum = 0;
    for (int64_t s = at->begin; s < at->end; s++)
        if (score(at, s) > max) {
            max = score(at, s);
            peak = s;
        }
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

    double needle[2] = {0, 0};
    for (int64_t d = 0; d < dim; d++) acc[d] = 0;
    for (int64_t s = at->begin; s < at->end; s++) {
        double before = exp(score(at, s) - max) / sum, weight = edited(row, s, before, mean);
        if (light && in_needle(row, s)) {
            needle[0] += before;
            needle[1] += weight;
        }
        const float *v = kv_at(at, row->v, at->args->v_offset, s);
        for (int64_t d = 0; d < dim; d++) acc[d] += weight * (double)v[d];
    }
    for (int64_t d = 0; d < dim; d++) out[d] = (float)acc[d];
    if (at->args->entropy_bits) at->args->entropy_bits[index] = (float)entropy;
    if (at->args->l2) at->args->l2[index] = (float)sqrt(squares);
    if (!light) return;
    light->needle_before[index] = (float)needle[0];
    light->needle_after[index] = (float)needle[1];
    light->peak_weight[index] = (float)(1 / sum);
    light->peak[index] = (int32_t)peak;
}

/* Head h of the row's token t, which is number *index of the call's tokens and heads. */
static query query_of(const ct_attn_args *args, const ct_attn_row *row, int64_t t, int64_t h,
                      int64_t *index)
{
    int64_t position = row->seg.position + t;
    int64_t begin = row->window < 0 || row->window > position ? 0 : position - row->window;
    *index = (row->seg.first + t) * args->heads + h;
    return (query){
        args,  row,         args->q + *index * args->head_dim, h / (args->heads / args->kv_heads),
        begin, position + 1};
}

ct_status ct_ref_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err)
{
    size_t need = (size_t)args->head_dim * sizeof(double);
    if (ctx->scratch_bytes < need)
        return ct_fail(err, CT_ERR_LIMIT, "attention: expected %zu bytes of scratch, got %zu", need,
                       ctx->scratch_bytes);
    for (int64_t r = 0; r < args->n_rows; r++)
        for (int64_t t = 0; t < args->rows[r].seg.count; t++)
            for (int64_t h = 0; h < args->heads; h++) {
                int64_t at;
                const query one = query_of(args, &args->rows[r], t, h, &at);
                attend(&one, ctx->scratch, args->out + at * args->head_dim, at);
            }
    return CT_OK;
}

/* The weights of one query and head, [keys] each. */
static void weights_of(const query *at, float *before, float *after)
{
    double max = -INFINITY, sum = 0, marked_mass = 0;
    int64_t marked = 0;
    for (int64_t s = at->begin; s < at->end; s++) max = fmax(max, score(at, s));
    for (int64_t s = at->begin; s < at->end; s++) sum += exp(score(at, s) - max);
    for (int64_t s = at->begin; s < at->end; s++) {
        before[s] = (float)(exp(score(at, s) - max) / sum);
        if (is_marked(at->row, s)) {
            marked_mass += (double)before[s];
            marked++;
        }
    }
    double mean = marked ? marked_mass / (double)marked : 0;
    for (int64_t s = at->begin; after && s < at->end; s++)
        after[s] = (float)edited(at->row, s, (double)before[s], mean);
}

ct_status ct_ref_attention_weights(ct_op_ctx *ctx, const ct_attn_args *args,
                                   const ct_weights_out *out, ct_err *err)
{
    (void)ctx;
    (void)err;
    for (int64_t r = 0; r < args->n_rows; r++)
        for (int64_t t = 0; t < args->rows[r].seg.count; t++)
            for (int64_t h = 0; h < args->heads; h++) {
                int64_t unused, to = t * out[r].stride + h * out[r].keys;
                const query one = query_of(args, &args->rows[r], t, h, &unused);
                weights_of(&one, out[r].before + to, out[r].after ? out[r].after + to : NULL);
            }
    return CT_OK;
}
