/* ref.c - the reference table: every operation of op.h as a scalar loop after its equation.
 *
 * Slow, small, and right: the oracle of the other backends, and a device of its own ("ref").
 */
#include "op/ref/ref.h"

static const char *class_name(void)
{
    return "ref";
}

static ct_compute choose_compute(ct_dtype stored)
{
    (void)stored;
    return CT_COMPUTE_F32;
}

static size_t scratch_bytes(int64_t tokens, int64_t max_rows, int64_t max_cols, int64_t heads,
                            int64_t head_dim)
{
    (void)tokens;
    (void)max_rows;
    (void)max_cols;
    (void)heads;
    return (size_t)head_dim * sizeof(double);
}

static ct_status gated_mlp(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err)
{
    return ct_mlp_by_parts(ct_ops_ref(), ctx, y, x, tokens, mlp, hidden, err);
}

const ct_ops *ct_ops_ref(void)
{
    static const ct_ops ops = {
        .name = "ref",
        .class_name = class_name,
        .choose_compute = choose_compute,
        .scratch_bytes = scratch_bytes,
        .matmul = ct_ref_matmul,
        .block_matmul = ct_ref_block_matmul,
        .gated_mlp = gated_mlp,
        .embed = ct_ref_embed,
        .rms_norm = ct_ref_rms_norm,
        .gelu_mul = ct_ref_gelu_mul,
        .silu_mul = ct_ref_silu_mul,
        .mul = ct_ref_mul,
        .add = ct_ref_add,
        .soft_cap = ct_ref_soft_cap,
        .conv1d = ct_ref_conv1d,
        .rg_lru = ct_ref_rg_lru,
        .selective_scan = ct_ref_selective_scan,
        .route = ct_ref_route,
        .gather = ct_ref_gather,
        .scatter_add = ct_ref_scatter_add,
        .rope = ct_ref_rope,
        .attention = ct_ref_attention,
        .attention_weights = ct_ref_attention_weights,
        .select_heads = ct_ref_select_heads,
        .mask_heads = ct_ref_mask_heads,
    };
    return &ops;
}
