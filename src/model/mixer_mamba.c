/* mixer_mamba.c - Jamba's recurrent block: Mamba (Gu and Dao 2023) with norms inside (Lieber et al.
 * 2024):
 *
 *   (u, z) = x Win;  v = silu(conv(u));  (dt, b, c) = v Wp, each normed;
 *   y = scan(v, dt Wdt + bias, b, c);  out = (y * silu(z)) Wout.
 *
 * State of one layer: h [N, R], then the convolution's last C-1 inputs [C-1, R], oldest first.
 */
#include "base/err.h"
#include "model/model.h"

static const ct_op_need needs[] = {
    CT_NEEDS(matmul),   CT_NEEDS(products), CT_NEEDS(conv1d),
    CT_NEEDS(silu_mul), CT_NEEDS(rms_norm), CT_NEEDS(selective_scan),
};

int64_t ct_mamba_state_floats(int64_t width, int64_t states, int64_t taps)
{
    return width * (states + taps - 1);
}

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    (void)model;
    const ct_mixer_mamba *m = part;
    size_t rank = (size_t)m->rank, states = (size_t)m->states, n = (size_t)tokens;
    return 3 * ct_pass_round(n * (size_t)m->width) + ct_pass_round(n * (rank + 2 * states)) +
           ct_pass_round(n * rank) + 2 * ct_pass_round(n * states);
}

/* Rows first .. first+rows-1 of a matrix. */
static ct_matrix rows_of(const ct_matrix *w, int64_t first, int64_t rows)
{
    const char *data = w->data;
    size_t skipped = (size_t)(first * w->cols) * ct_dtype_bytes(w->dtype);
    return (ct_matrix){data + skipped, w->dtype, rows, w->cols};
}

/* to = the normed columns first .. first+count-1 of from[T, stride]. */
static void norm_columns(ct_pass *pass, float *to, const float *from, int64_t stride, int64_t first,
                         int64_t count, const float *w)
{
    pass->model->ops->rms_norm(&pass->op, to, from + first, stride, pass->tokens, count, w,
                               pass->model->norm_eps, pass->model->norm_offset);
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    ct_status st = CT_OK;
    const ct_mixer_mamba *m = layer->mixer;
    const ct_ops *ops = pass->model->ops;
    int64_t tokens = pass->tokens, width = m->width, stride = m->rank + 2 * m->states;
    size_t size = (size_t)(tokens * width);
    float *u = ct_pass_floats(pass, size), *z = ct_pass_floats(pass, size);
    float *v = ct_pass_floats(pass, size);
    float *parts = ct_pass_floats(pass, (size_t)(tokens * stride));
    float *low = ct_pass_floats(pass, (size_t)(tokens * m->rank));
    float *b = ct_pass_floats(pass, (size_t)(tokens * m->states));
    float *c = ct_pass_floats(pass, (size_t)(tokens * m->states));

    ct_matrix of_u = rows_of(&m->in, 0, width), of_z = rows_of(&m->in, width, width);
    const float *z_bias = m->in_bias ? m->in_bias + width : NULL;
    const ct_product in[] = {{u, &of_u, m->in_bias}, {z, &of_z, z_bias}};
    CT_TRY(ops->products(&pass->op, in, 2, normed, tokens, err));
    ops->conv1d(&pass->op, v, u, width, m->taps, m->conv, m->conv_bias, &pass->batch,
                layer->state_offset + width * m->states);
    ops->silu_mul(&pass->op, v, v, NULL, (int64_t)size);

    CT_TRY(ops->matmul(&pass->op, parts, v, tokens, &m->parts, NULL, false, err));
    norm_columns(pass, low, parts, stride, 0, m->rank, m->dt_norm);
    norm_columns(pass, b, parts, stride, m->rank, m->states, m->b_norm);
    norm_columns(pass, c, parts, stride, m->rank + m->states, m->states, m->c_norm);
    float *dt = u; /* the convolution has used u up */
    CT_TRY(ops->matmul(&pass->op, dt, low, tokens, &m->dt, m->dt_bias, false, err));

    ct_scan scan = {.x = v,
                    .dt = dt,
                    .b = b,
                    .c = c,
                    .a_log = m->a_log,
                    .skip = m->skip,
                    .width = width,
                    .states = m->states};
    ops->selective_scan(&pass->op, v, &scan, &pass->batch, layer->state_offset);
    ops->silu_mul(&pass->op, v, z, v, (int64_t)size);
    CT_TRY(ops->matmul(&pass->op, x, v, tokens, &m->out, m->out_bias, true, err));
done:
    return st;
}

const ct_layer_kind ct_kind_mamba = {
    .name = "mamba",
    .needs = needs,
    .n_needs = sizeof needs / sizeof *needs,
    .floats = floats,
    .forward = forward,
};
