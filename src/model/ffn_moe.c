/* ffn_moe.c - a mixture of experts: out = sum over the k experts e of highest p_e of p_e MLP_e(x),
 * p = softmax(x Wr) over all experts; the k shares are not normed again.
 *
 * Where the backend has no operation for the whole (ct_ops.experts), it is made here, in the host's
 * memory. The pass's tokens are sorted by expert, so that the weights of each expert that some token chose
 * are read once, and those of the others not at all. A token's experts add to it in ascending order:
 * its bits do not depend on its company.
 */
#include <string.h>

#include "base/err.h"
#include "model/model.h"

static const ct_op_need needs[] = {CT_NEEDS(matmul), CT_NEEDS(gated_mlp), CT_NEEDS(route),
                                   CT_NEEDS(gather), CT_NEEDS(scatter_add)};

/* Where the tokens of each expert stand: expert e has rows [first[e], first[e + 1]) of `row` (the
 * tokens, ascending) and of `weight`. */
typedef struct assignment {
    int32_t *first, *row;
    float *weight;
} assignment;

static size_t floats(const void *part, const ct_model *model, int64_t tokens)
{
    const ct_experts *m = part;
    size_t chosen = ct_pass_round((size_t)(tokens * m->used));
    return ct_pass_round((size_t)(tokens * m->experts)) + 4 * chosen +
           ct_pass_round((size_t)m->experts + 1) +
           2 * ct_pass_round((size_t)(tokens * model->info.width)) +
           ct_mlp_floats(m->expert, tokens);
}

static void sort_by_expert(const ct_experts *m, int64_t tokens, const int32_t *expert,
                           const float *weight, assignment *to)
{
    int64_t chosen = tokens * m->used;
    memset(to->first, 0, (size_t)(m->experts + 1) * sizeof *to->first);
    for (int64_t i = 0; i < chosen; i++) to->first[expert[i] + 1]++;
    for (int64_t e = 0; e < m->experts; e++) to->first[e + 1] += to->first[e];
    for (int64_t i = 0; i < chosen; i++) { /* first[e] runs through e's rows, */
        int32_t at = to->first[expert[i]]++;
        to->row[at] = (int32_t)(i / m->used);
        to->weight[at] = weight[i];
    }
    for (int64_t e = m->experts; e > 0; e--) to->first[e] = to->first[e - 1]; /* and is put back */
    to->first[0] = 0;
}

static ct_status forward(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err)
{
    ct_status st = CT_OK;
    const ct_experts *m = layer->ffn;
    const ct_ops *ops = pass->model->ops;
    if (ops->experts) return ops->experts(&pass->op, x, normed, pass->tokens, m, err);
    int64_t tokens = pass->tokens, width = pass->model->info.width;
    size_t chosen = (size_t)(tokens * m->used), size = (size_t)(tokens * width);
    float *logits = ct_pass_floats(pass, (size_t)(tokens * m->experts));
    int32_t *expert = (int32_t *)ct_pass_floats(pass, chosen);
    float *weight = ct_pass_floats(pass, chosen);
    assignment of = {.row = (int32_t *)ct_pass_floats(pass, chosen),
                     .weight = ct_pass_floats(pass, chosen),
                     .first = (int32_t *)ct_pass_floats(pass, (size_t)m->experts + 1)};
    float *in = ct_pass_floats(pass, size), *out = ct_pass_floats(pass, size);
    float *hidden = ct_pass_floats(pass, ct_mlp_floats(m->expert, tokens));

    ct_op_ctx exact = pass->op; /* a choice, not a value: it is made in f32 always */
    exact.compute = CT_COMPUTE_F32;
    CT_TRY(ops->matmul(&exact, logits, normed, tokens, &m->router, NULL, false, err));
    ops->route(&exact, expert, weight, logits, tokens, m->experts, m->used);
    sort_by_expert(m, tokens, expert, weight, &of);
    for (int64_t e = 0; e < m->experts; e++) {
        int64_t first = of.first[e], rows = of.first[e + 1] - first;
        if (rows == 0) continue;
        ops->gather(&pass->op, in, normed, of.row + first, rows, width);
        memset(out, 0, (size_t)(rows * width) * sizeof *out);
        CT_TRY(ops->gated_mlp(&pass->op, out, in, rows, &m->expert[e], hidden, err));
        ops->scatter_add(&pass->op, x, out, of.row + first, of.weight + first, rows, width);
    }
done:
    return st;
}

const ct_layer_kind ct_kind_moe = {
    .name = "moe",
    .needs = needs,
    .n_needs = sizeof needs / sizeof *needs,
    .floats = floats,
    .forward = forward,
};
