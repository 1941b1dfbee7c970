/* parts.c - operations by their parts. See parts.h. */
#include "op/parts.h"

#include "base/err.h"

ct_status ct_mlp_by_parts(const ct_ops *ops, ct_op_ctx *ctx, float *y, const float *x,
                          int64_t tokens, const ct_mlp *mlp, float *hidden, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t count = tokens * mlp->gate.rows;
    float *up = hidden + count;
    CT_TRY(ops->matmul(ctx, hidden, x, tokens, &mlp->gate, mlp->gate_bias, false, err));
    CT_TRY(ops->matmul(ctx, up, x, tokens, &mlp->up, mlp->up_bias, false, err));
    if (mlp->activation == CT_SILU) ops->silu_mul(ctx, hidden, hidden, up, count);
    else ops->gelu_mul(ctx, hidden, hidden, up, count);
    CT_TRY(ops->matmul(ctx, y, hidden, tokens, &mlp->down, mlp->down_bias, true, err));
done:
    return st;
}

ct_status ct_products_by_parts(const ct_ops *ops, ct_op_ctx *ctx, const ct_product *list, int64_t n,
                               const float *x, int64_t tokens, ct_err *err)
{
    ct_status st = CT_OK;
    for (int64_t i = 0; i < n; i++)
        CT_TRY(ops->matmul(ctx, list[i].y, x, tokens, list[i].w, list[i].bias, false, err));
done:
    return st;
}

ct_status ct_rglru_by_parts(const ct_ops *ops, ct_op_ctx *ctx, float *out, const float *x, float *y,
                            const ct_rglru *w, float *work, const ct_batch *batch,
                            int64_t state_offset, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t tokens = batch->tokens, size = tokens * w->width;
    float *c = work, *gate_x = work + size, *gate_a = work + 2 * size;
    ops->conv1d(ctx, c, x, w->width, w->taps, w->conv, w->conv_bias, batch,
                state_offset + w->width);
    CT_TRY(ops->block_matmul(ctx, gate_x, c, tokens, &w->gate_x, w->blocks, w->gate_x_bias, err));
    CT_TRY(ops->block_matmul(ctx, gate_a, c, tokens, &w->gate_a, w->blocks, w->gate_a_bias, err));
    ops->rg_lru(ctx, c, c, gate_x, gate_a, w->param, w->width, batch, state_offset);
    ops->gelu_mul(ctx, y, y, NULL, size);
    ops->mul(ctx, out, c, y, size);
done:
    return st;
}

ct_status ct_logits_by_parts(const ct_ops *ops, ct_op_ctx *ctx, const ct_logits_args *args,
                             ct_err *err)
{
    ct_status st = CT_OK;
    size_t row_bytes = (size_t)args->head.cols * ct_dtype_bytes(args->head.dtype);
    int64_t vocab = args->head.rows;
    for (int64_t first = 0; first < args->n; first += CT_LOGITS_ROWS) {
        int64_t n = args->n - first < CT_LOGITS_ROWS ? args->n - first : CT_LOGITS_ROWS;
        int64_t slice = CT_LOGITS_ROOM / n / 64 * 64; /* of the vocabulary, that stays in cache */
        float *to[CT_LOGITS_ROWS];
        for (int64_t v = 0; v < vocab; v += slice) {
            int64_t count = slice < vocab - v ? slice : vocab - v;
            ct_matrix head = args->head;
            head.data = (const char *)head.data + (size_t)v * row_bytes;
            head.rows = count;
            CT_TRY(ops->matmul(ctx, args->room, args->normed + first * head.cols, n, &head, NULL,
                               false, err));
            for (int64_t i = 0; i < n; i++) to[i] = args->logits[first + i] + v;
            ops->soft_cap(ctx, to, args->room, n, count, args->cap);
        }
    }
done:
    return st;
}
