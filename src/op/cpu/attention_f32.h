/* attention_f32.h - attention's products in f32: scores as rows of queries times keys, values as
 * rows of weights times values, both on the register tile of gemm.h. Part of cpu_<isa>.c.
 */
#ifndef CT_OP_CPU_ATTENTION_F32_H
#define CT_OP_CPU_ATTENTION_F32_H

#include "op/cpu/attention.h"
#include "op/cpu/gemm.h"

static void begin_products(void)
{
}

static void end_products(void)
{
}

static void take_queries(attn_tile *tile, float scale)
{
    const ct_attn_args *args = tile->args;
    int64_t dim = args->head_dim;
    for (int64_t p = 0; p < tile->pairs; p++) {
        const float *q = pair_query(tile, p);
        for (int64_t d = 0; d < dim; d++) tile->q[p * dim + d] = q[d] * scale;
    }
    if (tile->value_width != dim)
        memset(tile->vt, 0, (size_t)(CT_KV_BLOCK * tile->value_width) * sizeof *tile->vt);
}

/* kt[d][s] = k[s][d]: scores of one query then lie side by side. */
CT_INLINE void transpose_keys(float *kt, const float *k, int64_t stride, int64_t dim)
{
    int64_t d = 0;
    for (; d + VL <= dim; d += VL)
        for (int64_t s = 0; s < CT_KV_BLOCK; s += VL) {
            vf r[VL];
            CT_UNROLL
            for (int i = 0; i < VL; i++) r[i] = v_load(k + (s + i) * stride + d);
            v_transpose(r);
            CT_UNROLL
            for (int i = 0; i < VL; i++) v_store(kt + (d + i) * CT_KV_BLOCK + s, r[i]);
        }
    for (; d < dim; d++)
        for (int64_t s = 0; s < CT_KV_BLOCK; s++) kt[d * CT_KV_BLOCK + s] = k[s * stride + d];
}

static void block_scores(const attn_tile *tile, attn_part part, int64_t block)
{
    int64_t dim = tile->args->head_dim, stride = tile->args->kv_heads * dim;
    int64_t first = part.first * tile->heads;
    transpose_keys(tile->kt, block_keys(tile, part.first, block), stride, dim);
    gemm(part.count * tile->heads, CT_KV_BLOCK, dim, tile->q + first * dim, dim, tile->kt, CT_F32,
         CT_KV_BLOCK, tile->score + first * CT_KV_BLOCK, CT_KV_BLOCK, GEMM_SET);
}

/* value[pair] += sum over keys [begin, end) of the block of weight[pair] v. */
CT_INLINE void add_values(const attn_tile *tile, int64_t pair, int64_t pairs, const float *v,
                          int64_t stride, int64_t begin, int64_t end)
{
    if (begin < end)
        gemm(pairs, tile->value_width, end - begin, tile->score + pair * CT_KV_BLOCK + begin,
             CT_KV_BLOCK, v + begin * stride, CT_F32, stride,
             tile->value + pair * tile->value_width, tile->value_width, GEMM_CONTINUE);
}

/* Values of a part's pairs. A key that a token does not see is left out of its sum, not multiplied by
 * 0: its memory may hold anything. Where the tokens see different parts of the block, what is common to
 * all is done together, and each token's rest before and after it. */
static void accumulate_block(const attn_tile *tile, attn_part part, int64_t block, const float *v,
                             int64_t stride)
{
    int64_t first = part.first, last = first + part.count, heads = tile->heads;
    int64_t from = 0, to = CT_KV_BLOCK, begin, end;
    for (int64_t t = first; t < last; t++) {
        visible(tile, t, block, &begin, &end);
        if (begin > from) from = begin;
        if (end < to) to = end;
    }
    if (from < to) {
        for (int64_t t = first; t < last; t++) {
            visible(tile, t, block, &begin, &end);
            add_values(tile, t * heads, heads, v, stride, begin, from);
        }
        add_values(tile, first * heads, part.count * heads, v, stride, from, to);
        for (int64_t t = first; t < last; t++) {
            visible(tile, t, block, &begin, &end);
            add_values(tile, t * heads, heads, v, stride, to, end);
        }
    } else {
        for (int64_t t = first; t < last; t++) {
            visible(tile, t, block, &begin, &end);
            add_values(tile, t * heads, heads, v, stride, begin, end);
        }
    }
}

static void block_values(const attn_tile *tile, attn_part part, int64_t block)
{
    int64_t dim = tile->args->head_dim, stride = tile->args->kv_heads * dim;
    int64_t width = tile->value_width;
    const float *v = block_values_at(tile, part.first, block);
    if (width != dim) { /* rows of whole vectors */
        for (int64_t s = 0; s < CT_KV_BLOCK; s++)
            memcpy(tile->vt + s * width, v + s * stride, (size_t)dim * sizeof *v);
        accumulate_block(tile, part, block, tile->vt, width);
    } else {
        accumulate_block(tile, part, block, v, stride);
    }
}

#endif
