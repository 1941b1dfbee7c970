/* ffn_mlp.c - the gated feed-forward: out = (gelu(x Wg + bg) * (x Wu + bu)) Wd + bd. */
#include "model/model.h"

static const ct_op_need needs[] = {CT_NEEDS(gelu_mlp)};

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    (void)model;
    const ct_mlp *m = part;
    return 2 * ct_pass_round((size_t)((tokens + 31) / 32 * 32 * m->gate.rows));
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    float *hidden = ct_pass_floats(pass, floats(layer->ffn, pass->model, pass->tokens));
    return pass->model->ops->gelu_mlp(&pass->op, x, normed, pass->tokens, layer->ffn, hidden, err);
}

const ct_layer_kind ct_kind_mlp = {
    .name = "mlp",
    .needs = needs,
    .n_needs = sizeof needs / sizeof *needs,
    .floats = floats,
    .forward = forward,
};
