/* ref.h - the functions of the reference table, one by one; shapes and meaning are in op/op.h.
 *
 * Sums are kept in f64 in the order of the equation, so that a result is the exact one rounded once
 * or nearly so. op/cpu takes a few of them where there is nothing to make faster.
 */
#ifndef CT_OP_REF_REF_H
#define CT_OP_REF_REF_H

#include "op/op.h"

ct_status ct_ref_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate,
                        ct_err *err) CT_CHECK;
ct_status ct_ref_block_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                              const ct_matrix *w, int64_t blocks, const float *bias,
                              ct_err *err) CT_CHECK;
void ct_ref_embed(ct_op_ctx *ctx, float *x, const ct_batch *batch, const ct_matrix *table,
                  float scale);
void ct_ref_rms_norm(ct_op_ctx *ctx, float *y, const float *x, int64_t stride, int64_t tokens,
                     int64_t width, const float *w, float eps, float offset);
void ct_ref_gelu_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count);
void ct_ref_silu_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count);
void ct_ref_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count);
void ct_ref_soft_cap(ct_op_ctx *ctx, float *const *y, const float *x, int64_t rows, int64_t count,
                     float cap);
void ct_ref_conv1d(ct_op_ctx *ctx, float *y, const float *x, int64_t width, int64_t taps,
                   const float *w, const float *bias, const ct_batch *batch, int64_t state_offset);
void ct_ref_rg_lru(ct_op_ctx *ctx, float *y, const float *x, const float *gate_x,
                   const float *gate_a, const float *param, int64_t width, const ct_batch *batch,
                   int64_t state_offset);
void ct_ref_selective_scan(ct_op_ctx *ctx, float *y, const ct_scan *scan, const ct_batch *batch,
                           int64_t state_offset);
void ct_ref_route(ct_op_ctx *ctx, int32_t *expert, float *weight, const float *logits,
                  int64_t tokens, int64_t experts, int64_t k);
void ct_ref_gather(ct_op_ctx *ctx, float *y, const float *x, const int32_t *row, int64_t rows,
                   int64_t width);
void ct_ref_scatter_add(ct_op_ctx *ctx, float *x, const float *y, const int32_t *row,
                        const float *weight, int64_t rows, int64_t width);
void ct_ref_rope(ct_op_ctx *ctx, float *x, int64_t heads, int64_t head_dim, int64_t rotary,
                 float theta, const ct_batch *batch);
ct_status ct_ref_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err) CT_CHECK;
ct_status ct_ref_attention_weights(ct_op_ctx *ctx, const ct_attn_args *args,
                                   const ct_weights_out *out, ct_err *err) CT_CHECK;

#endif
