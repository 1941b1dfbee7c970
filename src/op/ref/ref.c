/* ref.c - the reference table: every operation of op.h as a scalar loop after its equation.
 *
 * Slow, small, and right: the oracle of the other backends, and a device of its own ("ref").
 */
#include "op/ref/ref.h"
#include "op/parts.h"

static const char *class_name(const ct_device *device)
{
    (void)device;
    return "ref";
}

static ct_compute choose_compute(ct_dtype stored)
{
    (void)stored;
    return CT_COMPUTE_F32;
}

static size_t scratch_bytes(const ct_op_sizes *sizes)
{
    size_t attention = (size_t)sizes->head_dim * sizeof(double);
    size_t scores = (size_t)sizes->heads * sizeof(float);
    return attention > scores ? attention : scores;
}

static ct_status gated_mlp(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err)
{
    return ct_mlp_by_parts(ct_ops_ref(), ctx, y, x, tokens, mlp, hidden, err);
}

static ct_status products(ct_op_ctx *ctx, const ct_product *list, int64_t n, const float *x,
                          int64_t tokens, ct_err *err)
{
    return ct_products_by_parts(ct_ops_ref(), ctx, list, n, x, tokens, err);
}

static ct_status rglru(ct_op_ctx *ctx, float *out, const float *x, float *y, const ct_rglru *w,
                       float *work, const ct_batch *batch, int64_t state_offset, ct_err *err)
{
    return ct_rglru_by_parts(ct_ops_ref(), ctx, out, x, y, w, work, batch, state_offset, err);
}

static ct_status logits(ct_op_ctx *ctx, const ct_logits_args *args, ct_err *err)
{
    return ct_logits_by_parts(ct_ops_ref(), ctx, args, err);
}

static void place_keys(ct_op_ctx *ctx, const ct_place_args *args, const ct_batch *batch)
{
    int64_t dim = args->head_dim, rotary = args->rotary;
    ct_ref_rope(ctx, args->q, args->heads, dim, rotary, args->theta, batch);
    ct_ref_rope(ctx, args->k, args->kv_heads, dim, rotary, args->theta, batch);
    ct_host_store_kv(args, batch);
}

const ct_ops *ct_ops_ref(void)
{
    static const ct_ops ops = {
        .name = "ref",
        CT_HOST_MEMORY,
        .class_name = class_name,
        .choose_compute = choose_compute,
        .scratch_bytes = scratch_bytes,
        .matmul = ct_ref_matmul,
        .products = products,
        .gated_mlp = gated_mlp,
        .embed = ct_ref_embed,
        .rms_norm = ct_ref_rms_norm,
        .silu_mul = ct_ref_silu_mul,
        .logits = logits,
        .conv1d = ct_ref_conv1d,
        .rglru = rglru,
        .selective_scan = ct_ref_selective_scan,
        .place_keys = place_keys,
        .attention = ct_ref_attention,
        .attention_weights = ct_ref_attention_weights,
        .block_matmul = ct_ref_block_matmul,
        .gelu_mul = ct_ref_gelu_mul,
        .mul = ct_ref_mul,
        .soft_cap = ct_ref_soft_cap,
        .rope = ct_ref_rope,
        .rg_lru = ct_ref_rg_lru,
        .route = ct_ref_route,
        .gather = ct_ref_gather,
        .scatter_add = ct_ref_scatter_add,
    };
    return &ops;
}
