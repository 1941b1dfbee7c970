/* weights.h - rows of attention weights, for recorders. Part of cpu_<isa>.c, see vec.h.
 *
 * The fused attention of attention.h never holds a row of weights. Here its tiles, with products in
 * f32, put scores where the weights will stand; two more passes over them, while they are in cache,
 * make them weights and edit them.
 */
#ifndef CT_OP_CPU_WEIGHTS_H
#define CT_OP_CPU_WEIGHTS_H

#include "op/cpu/attention_f32.h"

typedef uint8_t vb __attribute__((vector_size(VL)));

/* Copies the block's visible scores to each pair's row and moves the maxima on. */
static void put_scores(const attn_tile *tile, float *const *rows, int64_t block)
{
    block_scores(tile, (attn_part){0, tile->tokens}, block);
    for (int64_t p = 0; p < tile->pairs; p++) {
        const float *score = tile->score + p * CT_KV_BLOCK;
        int64_t begin, end;
        visible(tile, p / tile->heads, block, &begin, &end);
        if (begin == end) continue;
        memcpy(rows[p] + block * CT_KV_BLOCK + begin, score + begin,
               (size_t)(end - begin) * sizeof *score);
        uint64_t seen = UINT64_MAX >> (CT_KV_BLOCK - end) & UINT64_MAX << begin;
        vf high = v_set1(tile->sums[p].m);
        CT_UNROLL
        for (int i = 0; i < CT_KV_BLOCK / VL; i++) {
            vf s = v_load(score + i * VL);
            high = v_max(v_select(v_mask((uint32_t)(seen >> i * VL)), s, high), high);
        }
        tile->sums[p].m = v_max_lane(high);
    }
}

/* Scores in base 2 to weights, in place. */
static void normalise(float *weight, int64_t count, float max)
{
    vf sum = v_set1(0);
    for (int64_t s = 0; s < count; s += VL) {
        int64_t n = min_i64(VL, count - s);
        vf e = v_exp2_falling(v_load_part(weight + s, n) - max);
        if (n < VL) e = v_keep(v_mask((1u << n) - 1), e);
        v_store_part(weight + s, e, n);
        sum = sum + e;
    }
    float scale = (float)(1 / v_sum_f64(sum));
    for (int64_t s = 0; s < count; s += VL) {
        int64_t n = min_i64(VL, count - s);
        v_store_part(weight + s, v_load_part(weight + s, n) * scale, n);
    }
}

/* Which of the positions from s on are marked; those behind `n` are not. */
CT_INLINE vi marked_lanes(const ct_attn_row *row, int64_t s, int64_t n)
{
    vb bytes = {0};
    n = min_i64(n, row->marked_count - s);
    if (n >= VL) memcpy(&bytes, row->marked + s, sizeof bytes);
    else if (n > 0) memcpy(&bytes, row->marked + s, (size_t)n);
    return __builtin_convertvector(bytes, vi) != 0;
}

/* after[s] from before[s] for s in begin .. end-1. */
static void edit_weights(float *after, const float *before, const ct_attn_row *row, int64_t begin,
                         int64_t end)
{
    if (row->edit == CT_WEIGHTS_KEEP) {
        memcpy(after + begin, before + begin, (size_t)(end - begin) * sizeof *after);
        return;
    }
    double mass = 0, marked = 0;
    for (int64_t s = begin; row->edit == CT_WEIGHTS_BINARY && s < min_i64(end, row->marked_count);
         s++)
        if (row->marked[s]) {
            mass += (double)before[s];
            marked++;
        }
    vf mean = v_set1(marked > 0 ? (float)(mass / marked) : 0);
    for (int64_t s = begin; s < end; s += VL) {
        int64_t n = min_i64(VL, end - s);
        vf weight = v_set1(0);
        if (row->edit != CT_WEIGHTS_NULL) {
            vi in = marked_lanes(row, s, n);
            vf from = row->edit == CT_WEIGHTS_BINARY ? mean : v_load_part(before + s, n);
            weight = v_keep(row->edit == CT_WEIGHTS_OMIT ? ~in : in, from);
        }
        v_store_part(after + s, weight, n);
    }
}

/* The weights of a tile's pairs. */
static void weigh_tile(attn_tile *tile, const void *user)
{
    const ct_weights_out *out = (const ct_weights_out *)user + (tile->row - tile->args->rows);
    const ct_seg *seg = &tile->row->seg;
    float *rows[CT_TILE];
    take_queries(tile, tile->args->scale * 1.44269504088896f);
    for (int64_t p = 0; p < tile->pairs; p++) {
        int64_t token = tile->first_token + p / tile->heads, head = p % tile->heads;
        rows[p] = out->before + token * out->stride + (tile->first_head + head) * out->keys;
        tile->sums[p].m = -FLT_MAX;
    }
    int64_t first = seg->position + tile->first_token, last = first + tile->tokens - 1;
    for (int64_t b = window_begin(tile->row, first) / CT_KV_BLOCK; b <= last / CT_KV_BLOCK; b++)
        put_scores(tile, rows, b);
    for (int64_t p = 0; p < tile->pairs; p++) {
        int64_t position = first + p / tile->heads, begin = window_begin(tile->row, position);
        normalise(rows[p] + begin, position + 1 - begin, tile->sums[p].m);
        if (!out->after) continue;
        edit_weights(out->after + (rows[p] - out->before), rows[p], tile->row, begin, position + 1);
    }
}

static ct_status attention_weights(ct_op_ctx *ctx, const ct_attn_args *args,
                                   const ct_weights_out *out, ct_err *err)
{
    return run_tiles(ctx, args, false, weigh_tile, out, err);
}

#endif
