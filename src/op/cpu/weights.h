/* weights.h - the attention weights of one query, for recorders. Part of cpu_<isa>.c, see vec.h.
 *
 * A plain pass over the keys beside the fused attention of attention.h, which never holds a row of
 * weights. One thread takes one head.
 */
#ifndef CT_OP_CPU_WEIGHTS_H
#define CT_OP_CPU_WEIGHTS_H

#include "op/cpu/vec.h"
#include "op/ref/ref.h"

CT_INLINE float dot(const float *a, const float *b, int64_t count)
{
    vf sum[2] = {v_set1(0), v_set1(0)};
    int64_t i = 0;
    for (; i + 2 * VL <= count; i += 2 * VL) {
        sum[0] = v_fma(v_load(a + i), v_load(b + i), sum[0]);
        sum[1] = v_fma(v_load(a + i + VL), v_load(b + i + VL), sum[1]);
    }
    for (; i < count; i += VL) {
        int64_t n = min_i64(VL, count - i);
        sum[0] = v_fma(v_load_part(a + i, n), v_load_part(b + i, n), sum[0]);
    }
    return v_sum(sum[0] + sum[1]);
}

static void weights_of_head(float *before, float *after, const ct_weights_args *args, int64_t head,
                            int64_t begin)
{
    const ct_attn_row *row = args->row;
    int64_t dim = args->head_dim, end = args->position + 1;
    int64_t stride = args->kv_heads * dim, kv_head = head / (args->heads / args->kv_heads);
    const float *q = args->q + head * dim;
    float max = -INFINITY;
    for (int64_t s = begin; s < end; s++) {
        const float *k = (const float *)row->k[s / CT_KV_BLOCK] + args->k_offset +
                         s % CT_KV_BLOCK * stride + kv_head * dim;
        before[s] = dot(q, k, dim) * args->scale;
        max = before[s] > max ? before[s] : max;
    }
    double sum = 0;
    for (int64_t s = begin; s < end; s += VL) {
        int64_t n = min_i64(VL, end - s);
        v_store_part(before + s, v_exp(v_load_part(before + s, n) - max), n);
        sum += (double)v_sum(v_load_part(before + s, n)); /* lanes behind n are 0 */
    }
    float scale = (float)(1 / sum);
    for (int64_t s = begin; s < end; s += VL) {
        int64_t n = min_i64(VL, end - s);
        v_store_part(before + s, v_load_part(before + s, n) * scale, n);
    }
    memset(before, 0, (size_t)begin * sizeof *before);
    memset(before + end, 0, (size_t)(args->keys - end) * sizeof *before);
    memcpy(after, before, (size_t)args->keys * sizeof *after);
    if (row->edit != CT_WEIGHTS_KEEP) ct_ref_edit_weights(after, before, row, begin, end);
}

static void attention_weights(ct_op_ctx *ctx, float *before, float *after,
                              const ct_weights_args *args)
{
    (void)ctx;
    int64_t window = args->row->window, p = args->position;
    int64_t begin = window < 0 || window > p ? 0 : p - window;
#pragma omp parallel for schedule(static) if (args->heads * (p + 1 - begin) * args->head_dim >=    \
                                              CT_PARALLEL)
    for (int64_t h = 0; h < args->heads; h++)
        weights_of_head(before + h * args->keys, after + h * args->keys, args, h, begin);
}

#endif
