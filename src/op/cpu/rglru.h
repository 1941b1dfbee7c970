/* rglru.h - Griffin's recurrent block between its projections, at once. Part of cpu_<isa>.c, see vec.h.
 *
 * A gate block's channels depend on no others: so a task takes one block through convolution, both
 * gates, recurrence and the product with gelu(y), some tokens at a time that stay in cache. The sums are
 * those of the parts in kernels.h and matmul.h, to the bit.
 */
#ifndef CT_OP_CPU_RGLRU_H
#define CT_OP_CPU_RGLRU_H

#include "op/cpu/kernels.h"
#include "op/cpu/matmul.h"
#include "op/parts.h"

enum { CT_LRU_ROWS = 48 }; /* tokens at a time */

typedef struct lru {
    float *out;
    const float *x, *y;
    const ct_rglru *w;
    const ct_batch *batch;
    int64_t state_offset;
} lru;

/* Some tokens of one segment: [begin, end), counted from the segment's first. */
typedef struct lru_piece {
    const ct_seg *seg;
    float *state; /* h [R], then the convolution's inputs */
    int64_t begin, end;
} lru_piece;

/* The part of segment s that lies among the tokens [first, end) of the pass. */
CT_INLINE lru_piece piece_of(const lru *l, int64_t s, int64_t first, int64_t end)
{
    const ct_seg *seg = &l->batch->segs[s];
    int64_t begin = first > seg->first ? first - seg->first : 0;
    return (lru_piece){seg, l->batch->states[s] + l->state_offset, begin,
                       min_i64(seg->count, end - seg->first)};
}

/* The recurrence over a piece; c, gate_x, gate_a begin with its first token. */
CT_INLINE void lru_scan(const lru *l, const lru_piece *p, int64_t first, int64_t n, const float *c,
                        const float *gate_x, const float *gate_a, const vf *rate)
{
    int64_t width = l->w->width;
    vf h[CT_WIDE / VL];
    for (int64_t i = 0; i < n; i += VL)
        h[i / VL] = v_load_part(p->state + first + i, min_i64(VL, n - i));
    for (int64_t t = p->begin; t < p->end; t++)
        for (int64_t i = 0; i < n; i += VL) {
            int64_t part = min_i64(VL, n - i), from = (t - p->begin) * n + i;
            int64_t to = (p->seg->first + t) * width + first + i;
            vf next = rg_lru_step(
                h[i / VL], v_load_part(c + from, part), v_load_part(gate_x + from, part),
                v_load_part(gate_a + from, part), rate[i / VL], p->seg->position + t == 0);
            h[i / VL] = next;
            v_store_part(l->out + to, next * v_gelu(v_load_part(l->y + to, part)), part);
        }
    for (int64_t i = 0; i < n; i += VL)
        v_store_part(p->state + first + i, h[i / VL], min_i64(VL, n - i));
}

/* Gate block b of segments [s, s_end); `room`: 3 n floats for each of their tokens, CT_LRU_ROWS at most.
 */
static void lru_task(const lru *l, int64_t b, int64_t s, int64_t s_end, float *room)
{
    const ct_rglru *w = l->w;
    const ct_seg *segs = l->batch->segs;
    int64_t n = w->gate_x.cols, width = w->width, first = b * n;
    int64_t t = segs[s].first, end = segs[s_end - 1].first + segs[s_end - 1].count;
    float by_tap[CT_TAPS_MAX][CT_WIDE];
    vf rate[CT_WIDE / VL];
    turn_taps(by_tap, w->conv, w->taps, first, n);
    for (int64_t i = 0; i < n; i += VL)
        rate[i / VL] = rg_lru_rate(v_load_part(w->param + first + i, min_i64(VL, n - i)));
    for (; t < end; t += CT_LRU_ROWS) {
        int64_t stop = min_i64(end, t + CT_LRU_ROWS), rows = stop - t, i;
        float *c = room, *gate_x = c + rows * n, *gate_a = gate_x + rows * n;
        for (i = s; i < s_end && segs[i].first < stop; i++) {
            lru_piece p = piece_of(l, i, t, stop);
            conv1d_part(c + (p.seg->first + p.begin - t) * n, n, l->x, width, w->taps, by_tap,
                        w->conv_bias, p.seg, p.state + width, first, n, p.begin, p.end);
        }
        block_product(gate_x, n, c, n, rows, &w->gate_x, b, w->gate_x_bias);
        block_product(gate_a, n, c, n, rows, &w->gate_a, b, w->gate_a_bias);
        for (; s < s_end && segs[s].first < stop; s++) {
            lru_piece p = piece_of(l, s, t, stop);
            int64_t at = (p.seg->first + p.begin - t) * n;
            lru_scan(l, &p, first, n, c + at, gate_x + at, gate_a + at, rate);
            if (p.end < p.seg->count) break; /* goes on with the next tokens */
            conv1d_keep(l->x, width, w->taps, p.seg, p.state + width, first, n);
        }
    }
}

static ct_status rglru(ct_op_ctx *ctx, float *out, const float *x, float *y, const ct_rglru *w,
                       float *work, const ct_batch *batch, int64_t state_offset, ct_err *err)
{
    int64_t n = w->gate_x.cols, threads = omp_get_max_threads();
    if (n > CT_WIDE || w->taps > CT_TAPS_MAX || w->blocks * batch->n_segs < threads)
        return ct_rglru_by_parts(CT_PASTE(ct_ops_cpu_, CT_ISA)(), ctx, out, x, y, w, work, batch,
                                 state_offset, err);
    lru l = {out, x, y, w, batch, state_offset};
    /* As few groups of segments as give every thread a block: the rows of a group share its weights. */
    int64_t groups = min_i64((threads + w->blocks - 1) / w->blocks, batch->n_segs);
#pragma omp parallel for schedule(static)                                                          \
    collapse(2) if (batch->tokens * n * w->width >= CT_PARALLEL_PRODUCTS)
    for (int64_t g = 0; g < groups; g++)
        for (int64_t b = 0; b < w->blocks; b++) {
            int64_t s = g * batch->n_segs / groups, end = (g + 1) * batch->n_segs / groups;
            int64_t before = batch->segs[s].first;
            int64_t tokens = batch->segs[end - 1].first + batch->segs[end - 1].count - before;
            lru_task(&l, b, s, end, work + 3 * (before * w->width + b * n * tokens));
        }
    return CT_OK;
}

#endif
