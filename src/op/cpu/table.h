/* table.h - the table of one instruction set; the including file defines CT_ISA and the flags. */
#ifndef CT_OP_CPU_TABLE_H
#define CT_OP_CPU_TABLE_H

#include "op/cpu/attention_f32.h"
#include "op/cpu/kernels.h"
#include "op/cpu/limit_loops.h"
#include "op/cpu/matmul.h"
#include "op/cpu/scan.h"
#include "op/cpu/weights.h"

#define CT_PASTE_(a, b)  a##b
#define CT_PASTE(a, b)   CT_PASTE_(a, b)
#define CT_STRING_(name) #name
#define CT_STRING(name)  CT_STRING_(name)

static const char *class_name(void)
{
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

#define CT_OPS_TABLE(class_name_, choose_compute_, matmul_, mlp_, attention_)                      \
    {                                                                                              \
        .name = "cpu", .class_name = class_name_, .choose_compute = choose_compute_,               \
        .scratch_bytes = ct_cpu_scratch_bytes, .matmul = matmul_, .block_matmul = block_matmul,    \
        .gated_mlp = mlp_, .embed = embed, .rms_norm = rms_norm, .gelu_mul = gelu_mul,             \
        .silu_mul = silu_mul, .mul = mul, .add = add, .soft_cap = soft_cap, .conv1d = conv1d,      \
        .rg_lru = rg_lru, .selective_scan = selective_scan, .route = ct_ref_route,                 \
        .gather = gather, .scatter_add = scatter_add, .rope = rope, .attention = attention_,       \
        .attention_weights = attention_weights, .select_heads = ct_ref_select_heads,               \
        .mask_heads = ct_ref_mask_heads,                                                           \
    }

const ct_ops *CT_PASTE(ct_ops_cpu_, CT_ISA)(void)
{
    static const ct_ops ops =
        CT_OPS_TABLE(class_name, choose_compute, matmul, gated_mlp, attention);
    return &ops;
}

ct_limit_loops CT_PASTE(ct_limit_loops_, CT_ISA)(void)
{
    return (ct_limit_loops){.read = limit_read, .fma_f32 = limit_fma_f32};
}

#endif
