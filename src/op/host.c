/* host.c - what backends in the host's memory share: the memory itself, the cache's rows, the choice
 * of heads. See parts.h.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "op/parts.h"

/* ---- memory and passes ----------------------------------------------------------------------- */

ct_status ct_host_open(int index, ct_device **out, ct_err *err)
{
    (void)index;
    (void)err;
    *out = NULL;
    return CT_OK;
}

void ct_host_close(ct_device *device)
{
    (void)device;
}

void *ct_host_alloc(ct_device *device, size_t bytes)
{
    (void)device;
    size_t size = (bytes + 63) / 64 * 64;
    void *memory = size >= bytes ? aligned_alloc(64, size ? size : 64) : NULL;
    if (memory) memset(memory, 0, bytes);
    return memory;
}

void ct_host_free(ct_device *device, void *memory)
{
    (void)device;
    free(memory);
}

ct_status ct_host_transfer(ct_device *device, void *to, const void *from, size_t bytes, ct_err *err)
{
    (void)err;
    ct_host_copy(device, to, from, bytes);
    return CT_OK;
}

void ct_host_copy(ct_device *device, void *to, const void *from, size_t bytes)
{
    (void)device;
    memcpy(to, from, bytes);
}

ct_status ct_host_between(ct_device *from_device, ct_device *to_device, void *to, const void *from,
                          size_t bytes, ct_err *err)
{
    (void)from_device;
    return ct_host_transfer(to_device, to, from, bytes, err);
}

int64_t ct_host_free_bytes(const ct_device *device)
{
    (void)device;
    return INT64_MAX;
}

ct_status ct_host_fill_random(ct_device *device, void *to, const ct_random_fill *what, ct_err *err)
{
    (void)device;
    (void)err;
    float *f32 = to;
    uint16_t *bf16 = to;
#pragma omp parallel for schedule(static) if (what->count > 1 << 16)
    for (int64_t i = 0; i < what->count; i++) {
        float x = ct_rng_uniform(what->seed, what->stream, (uint64_t)i, what->scale, what->offset);
        uint16_t rounded = ct_f32_to_bf16(x);
        if (what->held == CT_BF16) bf16[i] = rounded;
        else f32[i] = what->stored == CT_BF16 ? ct_dtype_get(&rounded, CT_BF16, 0) : x;
    }
    return CT_OK;
}

ct_status ct_host_begin(ct_op_ctx *ctx, ct_batch *batch, const void *memory, uint64_t shape,
                        bool *replayed, ct_err *err)
{
    (void)ctx;
    (void)batch;
    (void)memory;
    (void)shape;
    (void)err;
    *replayed = false;
    return CT_OK;
}

ct_status ct_host_end(ct_op_ctx *ctx, ct_batch *batch, ct_err *err)
{
    (void)ctx;
    (void)err;
    if (batch->back_bytes) memcpy(batch->back, batch->back_from, batch->back_bytes);
    return CT_OK;
}

ct_dtype ct_host_cache_dtype(ct_compute compute)
{
    (void)compute;
    return CT_F32;
}

/* ---- rows ------------------------------------------------------------------------------------ */

void ct_host_pick(ct_op_ctx *ctx, float *y, const float *x, const ct_batch *batch, int64_t width)
{
    (void)ctx;
    for (int64_t i = 0; i < batch->n_wanted; i++)
        memcpy(y + i * width, x + batch->wanted[i] * width, (size_t)width * sizeof *y);
}

/* Positions of one run go to their blocks, those of a block at once. */
static void store_run(const ct_attn_row *run, const void *const *blocks, int64_t offset,
                      const float *from, int64_t width)
{
    for (int64_t t = 0; t < run->seg.count;) {
        int64_t p = run->seg.position + t, in_block = p % CT_KV_BLOCK;
        int64_t n = CT_KV_BLOCK - in_block;
        if (n > run->seg.count - t) n = run->seg.count - t;
        float *block = (float *)(uintptr_t)blocks[p / CT_KV_BLOCK] + offset;
        memcpy(block + in_block * width, from + (run->seg.first + t) * width,
               (size_t)(n * width) * sizeof *from);
        t += n;
    }
}

void ct_host_store_kv(const ct_place_args *args, const ct_batch *batch)
{
    int64_t width = args->kv_heads * args->head_dim;
    for (int64_t r = 0; r < batch->n_runs; r++) {
        store_run(&batch->runs[r], batch->runs[r].k, args->k_offset, args->k, width);
        store_run(&batch->runs[r], batch->runs[r].v, args->v_offset, args->v, width);
    }
}

/* ---- heads ----------------------------------------------------------------------------------- */

void ct_head_scores(const ct_head_rule *rule, int64_t layer, int64_t position, int64_t heads,
                    const float *entropy_bits, const float *l2, float *score)
{
    switch (rule->metric) {
    case CT_METRIC_ENTROPY:
        for (int64_t h = 0; h < heads; h++) score[h] = -entropy_bits[h];
        break;
    case CT_METRIC_L2:
        for (int64_t h = 0; h < heads; h++) score[h] = l2[h];
        break;
    case CT_METRIC_ENTROPY_INVERTED:
        for (int64_t h = 0; h < heads; h++) score[h] = entropy_bits[h];
        break;
    case CT_METRIC_RANDOM:
        for (int64_t h = 0; h < heads; h++)
            score[h] = ct_rng_f32(rule->seed, (uint64_t)layer, (uint64_t)(position * heads + h));
        break;
    }
}

static float rank_of(float score)
{
    return isnan(score) ? -INFINITY : score;
}

/* keep[h] = 1 for the k heads of the highest score, the lowest index first among equals. */
static void choose(uint8_t *keep, const float *score, int64_t heads, int64_t k)
{
    for (int64_t h = 0; h < heads; h++) {
        float own = rank_of(score[h]);
        int64_t better = 0;
        for (int64_t o = 0; o < heads; o++) {
            float other = rank_of(score[o]);
            better += other > own || (other == own && o < h);
        }
        keep[h] = better < k;
    }
}

void ct_host_keep_heads(ct_op_ctx *ctx, uint8_t *keep, float *out, const ct_keep_args *args,
                        const ct_batch *batch)
{
    int64_t heads = args->heads;
    float *score = ctx->scratch;
    for (int64_t s = 0; s < batch->n_segs; s++) {
        const ct_seg *seg = &batch->segs[s];
        const ct_head_rule *rule = &batch->rules[s];
        for (int64_t t = 0; t < seg->count; t++) {
            int64_t at = (seg->first + t) * heads;
            if (rule->keep < 0) {
                memset(keep + at, 1, (size_t)heads);
                continue;
            }
            ct_head_scores(rule, args->layer, seg->position + t, heads,
                           args->entropy_bits ? args->entropy_bits + at : NULL,
                           args->l2 ? args->l2 + at : NULL, score);
            choose(keep + at, score, heads, rule->keep);
            for (int64_t h = 0; h < heads; h++)
                if (!keep[at + h])
                    memset(out + (at + h) * args->head_dim, 0,
                           (size_t)args->head_dim * sizeof *out);
        }
    }
}
