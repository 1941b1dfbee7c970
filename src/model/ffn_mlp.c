/* ffn_mlp.c - the gated feed-forward: out = (gelu(x Wg + bg) * (x Wu + bu)) Wd + bd. */
#include "base/err.h"
#include "model/model.h"

static const ct_op_need needs[] = {CT_NEEDS(matmul), CT_NEEDS(gelu_mul)};

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    (void)model;
    const ct_ffn_mlp *m = part;
    return 2 * ct_pass_round((size_t)(tokens * m->gate.rows));
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    ct_status st = CT_OK;
    const ct_ffn_mlp *m = layer->ffn;
    const ct_ops *ops = pass->model->ops;
    size_t size = (size_t)(pass->tokens * m->gate.rows);
    float *gate = ct_pass_floats(pass, size), *up = ct_pass_floats(pass, size);
    CT_TRY(ops->matmul(&pass->op, gate, normed, pass->tokens, &m->gate, m->gate_bias, false, err));
    CT_TRY(ops->matmul(&pass->op, up, normed, pass->tokens, &m->up, m->up_bias, false, err));
    ops->gelu_mul(gate, gate, up, (int64_t)size);
    CT_TRY(ops->matmul(&pass->op, x, gate, pass->tokens, &m->down, m->down_bias, true, err));
done:
    return st;
}

const ct_layer_kind ct_kind_mlp = {
    .name = "mlp",
    .needs = needs,
    .n_needs = sizeof needs / sizeof *needs,
    .floats = floats,
    .forward = forward,
};
