/* cpu_avx512.c - the kernels of table.h, compiled for AVX-512 (F, BW, DQ, VL); and the table that
 * has the tile unit's product beside them.
 */
#include "op/cpu/cpu.h"

#if defined(__AVX512F__)
#define CT_ISA avx512
#include "op/cpu/table.h"

static const char *amx_class_name(const ct_device *device)
{
    (void)device;
    return "cpu-amx";
}

/* Only weights that are bf16 already lose nothing. */
static ct_compute amx_choose_compute(ct_dtype stored)
{
    return stored == CT_BF16 ? CT_COMPUTE_BF16 : CT_COMPUTE_F32;
}

static ct_status amx_products(ct_op_ctx *ctx, const ct_product *list, int64_t n, const float *x,
                              int64_t tokens, ct_err *err)
{
    return ct_products_by_parts(ct_ops_cpu_amx(), ctx, list, n, x, tokens, err);
}

static ct_status amx_logits(ct_op_ctx *ctx, const ct_logits_args *args, ct_err *err)
{
    return ct_logits_by_parts(ct_ops_cpu_amx(), ctx, args, err);
}

const ct_ops *ct_ops_cpu_amx(void)
{
    static const ct_ops ops =
        CT_OPS_TABLE(amx_class_name, amx_choose_compute, ct_amx_matmul, amx_products,
                     ct_amx_gated_mlp, amx_logits, ct_amx_attention);
    return &ops;
}
#else
const ct_ops *ct_ops_cpu_avx512(void)
{
    return NULL;
}

const ct_ops *ct_ops_cpu_amx(void)
{
    return NULL;
}
#endif
