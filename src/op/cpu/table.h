/* table.h - the table of one instruction set; the including file defines CT_ISA and the flags. */
#ifndef CT_OP_CPU_TABLE_H
#define CT_OP_CPU_TABLE_H

#include "op/cpu/attention_f32.h"
#include "op/cpu/kernels.h"
#include "op/cpu/limit_loops.h"
#include "op/cpu/matmul.h"
#include "op/cpu/scan.h"
#include "op/cpu/weights.h"
#include "op/parts.h"

#define CT_PASTE_(a, b)  a##b
#define CT_PASTE(a, b)   CT_PASTE_(a, b)
#define CT_STRING_(name) #name
#define CT_STRING(name)  CT_STRING_(name)

#include "op/cpu/rglru.h"

static const char *class_name(const ct_device *device)
{
    (void)device;
    return "cpu-" CT_STRING(CT_ISA);
}

/* Products of bf16 pay only with AMX; elsewhere bf16 weights are widened as they are read. */
static ct_compute choose_compute(ct_dtype stored)
{
    (void)stored;
    return CT_COMPUTE_F32;
}

static ct_status gated_mlp(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err)
{
    return ct_mlp_by_parts(CT_PASTE(ct_ops_cpu_, CT_ISA)(), ctx, y, x, tokens, mlp, hidden, err);
}

static ct_status products(ct_op_ctx *ctx, const ct_product *list, int64_t n, const float *x,
                          int64_t tokens, ct_err *err)
{
    return ct_products_by_parts(CT_PASTE(ct_ops_cpu_, CT_ISA)(), ctx, list, n, x, tokens, err);
}

static ct_status logits(ct_op_ctx *ctx, const ct_logits_args *args, ct_err *err)
{
    return ct_logits_by_parts(CT_PASTE(ct_ops_cpu_, CT_ISA)(), ctx, args, err);
}

static void place_keys(ct_op_ctx *ctx, const ct_place_args *args, const ct_batch *batch)
{
    int64_t dim = args->head_dim, rotary = args->rotary;
    rope(ctx, args->q, args->heads, dim, rotary, args->theta, batch);
    rope(ctx, args->k, args->kv_heads, dim, rotary, args->theta, batch);
    ct_host_store_kv(args, batch);
}

#define CT_OPS_TABLE(class_name_, choose_compute_, matmul_, products_, mlp_, logits_, attention_)  \
    {                                                                                              \
        .name = "cpu", CT_HOST_MEMORY, .class_name = class_name_,                                  \
        .choose_compute = choose_compute_, .scratch_bytes = ct_cpu_scratch_bytes,                  \
        .matmul = matmul_, .products = products_, .gated_mlp = mlp_, .embed = embed,               \
        .rms_norm = rms_norm, .silu_mul = silu_mul, .logits = logits_, .conv1d = conv1d,           \
        .rglru = rglru, .selective_scan = selective_scan, .place_keys = place_keys,                \
        .attention = attention_, .attention_weights = attention_weights,                           \
        .block_matmul = block_matmul, .gelu_mul = gelu_mul, .mul = mul, .soft_cap = soft_cap,      \
        .rope = rope, .rg_lru = rg_lru, .route = ct_ref_route, .gather = gather,                   \
        .scatter_add = scatter_add,                                                                \
    }

const ct_ops *CT_PASTE(ct_ops_cpu_, CT_ISA)(void)
{
    static const ct_ops ops =
        CT_OPS_TABLE(class_name, choose_compute, matmul, products, gated_mlp, logits, attention);
    return &ops;
}

ct_limit_loops CT_PASTE(ct_limit_loops_, CT_ISA)(void)
{
    return (ct_limit_loops){.read = limit_read, .fma_f32 = limit_fma_f32};
}

#endif
