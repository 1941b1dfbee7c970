/* ffn_mlp.c - the gated feed-forward: out = (f(x Wg + bg) * (x Wu + bu)) Wd + bd. */
#include "model/model.h"

static const ct_op_need needs[] = {CT_NEEDS(gated_mlp)};

size_t ct_mlp_floats(const ct_mlp *mlp, int64_t tokens)
{
    return 2 * ct_pass_round((size_t)((tokens + 31) / 32 * 32 * mlp->gate.rows));
}

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    (void)model;
    return ct_mlp_floats(part, tokens);
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    float *hidden = ct_pass_floats(pass, ct_mlp_floats(layer->ffn, pass->tokens));
    return pass->model->ops->gated_mlp(&pass->op, x, normed, pass->tokens, layer->ffn, hidden, err);
}

const ct_layer_kind ct_kind_mlp = {
    .name = "mlp",
    .needs = needs,
    .n_needs = sizeof needs / sizeof *needs,
    .floats = floats,
    .forward = forward,
};
