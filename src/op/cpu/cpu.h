/* cpu.h - what the files of op/cpu share: one table for each instruction set, and their scratch.
 *
 * cpu_generic.c, cpu_avx2.c and cpu_avx512.c are the same source (table.h) compiled three times;
 * the amx table is the third with the product of cpu_amx.c. cpu.c chooses among them. The tests run
 * all that the machine has.
 */
#ifndef CT_OP_CPU_CPU_H
#define CT_OP_CPU_CPU_H

#include "op/op.h"

enum {
    CT_ATTN_TILE = 64,                 /* (token, head) pairs that an attention task works on */
    CT_PACKED_FLOATS = 4 * 32 * 512,   /* what a thread of a product packs: weights, sums */
    CT_PARALLEL_PRODUCTS = 128 * 1024, /* multiplications from which a product uses all threads */
};

const ct_ops *ct_ops_cpu_generic(void);
/* NULL where the program was not built for x86-64; the caller checks what the CPU has. */
const ct_ops *ct_ops_cpu_avx2(void);
const ct_ops *ct_ops_cpu_avx512(void);
const ct_ops *ct_ops_cpu_amx(void);

/* The tables that this machine can run, slowest first; returns how many. */
int ct_ops_cpu_all(const ct_ops *out[4]);

/* True if the CPU has bf16 tiles and the system lets this process use them. */
bool ct_amx_usable(void);
/* ct_ops.matmul of the amx table. */
ct_status ct_amx_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate,
                        ct_err *err) CT_CHECK;

/* ct_ops.gated_mlp of the amx table: the hidden units go from the first products into the second as
 * bf16 tiles. */
ct_status ct_amx_gated_mlp(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err) CT_CHECK;

/* ct_ops.attention of the amx table: with bf16 products, queries, keys, weights and values are
 * rounded to bf16; the softmax between them, entropy and l2 stay in f32. */
ct_status ct_amx_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err) CT_CHECK;

/* Floats of scratch that one thread of attention needs; a multiple of 16. */
size_t ct_attn_scratch_floats(int64_t head_dim);
/* ct_ops.scratch_bytes of all of these tables. */
size_t ct_cpu_scratch_bytes(const ct_op_sizes *sizes);

#endif
