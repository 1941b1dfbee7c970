/* mixer_rglru.c - Griffin's recurrent block (De et al. 2024, section 2.3):
 *
 *   y = gelu(x Wy + by);  a = x Wx + bx;  c = conv(a);  r = RG-LRU(c);  out = (r * y) Wout + bout.
 *
 * State of one layer: h [R], then the convolution's last C-1 inputs [C-1, R], oldest first.
 */
#include "base/err.h"
#include "model/model.h"
#include "model/state.h"

static const ct_op_need needs[] = {
    CT_NEEDS(matmul), CT_NEEDS(block_matmul), CT_NEEDS(gelu_mul),
    CT_NEEDS(mul),    CT_NEEDS(conv1d),       CT_NEEDS(rg_lru),
};

int64_t ct_rglru_state_floats(int64_t width, int64_t taps)
{
    return width * taps;
}

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    (void)model;
    const ct_mixer_rglru *m = part;
    return 5 * ct_pass_round((size_t)(tokens * m->width));
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    ct_status st = CT_OK;
    const ct_mixer_rglru *m = layer->mixer;
    const ct_ops *ops = pass->model->ops;
    int64_t tokens = pass->tokens;
    size_t size = (size_t)(tokens * m->width);
    float *y = ct_pass_floats(pass, size), *a = ct_pass_floats(pass, size);
    float *c = ct_pass_floats(pass, size);
    float *gate_x = ct_pass_floats(pass, size), *gate_a = ct_pass_floats(pass, size);

    CT_TRY(ops->matmul(&pass->op, y, normed, tokens, &m->linear_y, m->linear_y_bias, false, err));
    ops->gelu_mul(y, y, NULL, (int64_t)size);
    CT_TRY(ops->matmul(&pass->op, a, normed, tokens, &m->linear_x, m->linear_x_bias, false, err));
    for (int64_t r = 0; r < pass->n_rows; r++)
        pass->states[r] = pass->rows[r].sequence->fixed + layer->state_offset + m->width;
    ops->conv1d(c, a, m->width, m->taps, m->conv, m->conv_bias, pass->segs, pass->states,
                pass->n_rows);
    CT_TRY(ops->block_matmul(&pass->op, gate_x, c, tokens, &m->gate_x, m->blocks, m->gate_x_bias,
                             err));
    CT_TRY(ops->block_matmul(&pass->op, gate_a, c, tokens, &m->gate_a, m->blocks, m->gate_a_bias,
                             err));
    for (int64_t r = 0; r < pass->n_rows; r++) pass->states[r] -= m->width;
    ops->rg_lru(c, c, gate_x, gate_a, m->param, m->width, pass->segs, pass->states, pass->n_rows);
    ops->mul(c, c, y, (int64_t)size);
    CT_TRY(ops->matmul(&pass->op, x, c, tokens, &m->linear_out, m->linear_out_bias, true, err));
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
