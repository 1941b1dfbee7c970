/* ffn_mlp.c - the gated feed-forward: out = (f(x Wg + bg) * (x Wu + bu)) Wd + bd. */
#include "base/err.h"
#include "model/model.h"

static const ct_op_need needs[] = {CT_NEEDS(matmul), CT_NEEDS(gelu_mul), CT_NEEDS(silu_mul)};

size_t ct_mlp_floats(const ct_ffn_mlp *mlp, int64_t tokens)
{
    return 2 * ct_pass_round((size_t)(tokens * mlp->gate.rows));
}

ct_status ct_mlp_forward(const ct_ffn_mlp *m, ct_pass *pass, float *y, const float *x,
                         int64_t tokens, bool accumulate, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_ops *ops = pass->model->ops;
    size_t size = (size_t)(tokens * m->gate.rows), mark = pass->memory_used;
    float *gate = ct_pass_floats(pass, size), *up = ct_pass_floats(pass, size);
    CT_TRY(ops->matmul(&pass->op, gate, x, tokens, &m->gate, m->gate_bias, false, err));
    CT_TRY(ops->matmul(&pass->op, up, x, tokens, &m->up, m->up_bias, false, err));
    if (m->activation == CT_SILU) ops->silu_mul(gate, gate, up, (int64_t)size);
    else ops->gelu_mul(gate, gate, up, (int64_t)size);
    CT_TRY(ops->matmul(&pass->op, y, gate, tokens, &m->down, m->down_bias, accumulate, err));
    pass->memory_used = mark;
done:
    return st;
}

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    (void)model;
    return ct_mlp_floats(part, tokens);
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    return ct_mlp_forward(layer->ffn, pass, x, normed, pass->tokens, true, err);
}

const ct_layer_kind ct_kind_mlp = {
    .name = "mlp",
    .needs = needs,
    .n_needs = sizeof needs / sizeof *needs,
    .floats = floats,
    .forward = forward,
};
