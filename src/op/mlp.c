/* mlp.c - the gated feed-forward made of a table's products: what gelu_mlp means, and how a table
 * does it that gains nothing by doing it at once.
 */
#include "op/op.h"

ct_status ct_mlp_by_parts(const ct_ops *ops, ct_op_ctx *ctx, float *y, const float *x,
                          int64_t tokens, const ct_mlp *mlp, float *hidden, ct_err *err)
{
    int64_t count = tokens * mlp->gate.rows;
    float *up = hidden + count;
    ct_status st = ops->matmul(ctx, hidden, x, tokens, &mlp->gate, mlp->gate_bias, false, err);
    if (st == CT_OK) st = ops->matmul(ctx, up, x, tokens, &mlp->up, mlp->up_bias, false, err);
    if (st != CT_OK) return st;
    ops->gelu_mul(hidden, hidden, up, count);
    return ops->matmul(ctx, y, hidden, tokens, &mlp->down, mlp->down_bias, true, err);
}
