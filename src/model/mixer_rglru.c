/* mixer_rglru.c - Griffin's recurrent block (De et al. 2024, section 2.3):
 *
 *   y = gelu(x Wy + by);  a = x Wx + bx;  c = conv(a);  r = RG-LRU(c);  out = (r * y) Wout + bout.
 *
 * State of one layer: h [R], then the convolution's last C-1 inputs [C-1, R], oldest first.
 */
#include "base/err.h"
#include "model/model.h"

static const ct_op_need needs[] = {CT_NEEDS(matmul), CT_NEEDS(products), CT_NEEDS(rglru)};

int64_t ct_rglru_state_floats(int64_t width, int64_t taps)
{
    return width * taps;
}

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    (void)model;
    const ct_mixer_rglru *m = part;
    size_t size = (size_t)(tokens * m->cell.width);
    return 3 * ct_pass_round(size) + ct_pass_round(3 * size);
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    ct_status st = CT_OK;
    const ct_mixer_rglru *m = layer->mixer;
    const ct_ops *ops = pass->model->ops;
    int64_t tokens = pass->tokens;
    size_t size = (size_t)(tokens * m->cell.width);
    float *y = ct_pass_floats(pass, size), *a = ct_pass_floats(pass, size);
    float *out = ct_pass_floats(pass, size), *work = ct_pass_floats(pass, 3 * size);

    const ct_product in[] = {{y, &m->linear_y, m->linear_y_bias},
                             {a, &m->linear_x, m->linear_x_bias}};
    CT_TRY(ops->products(&pass->op, in, 2, normed, tokens, err));
    CT_TRY(
        ops->rglru(&pass->op, out, a, y, &m->cell, work, &pass->batch, layer->state_offset, err));
    CT_TRY(ops->matmul(&pass->op, x, out, tokens, &m->linear_out, m->linear_out_bias, true, err));
done:
    return st;
}

const ct_layer_kind ct_kind_rglru = {
    .name = "rglru",
    .needs = needs,
    .n_needs = sizeof needs / sizeof *needs,
    .floats = floats,
    .forward = forward,
};
