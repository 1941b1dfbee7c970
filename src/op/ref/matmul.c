/* matmul.c - reference products: x w^T, and the block-diagonal product of the gates. */
#include "base/err.h"
#include "op/ref/ref.h"

static float round_bf16(float x)
{
    uint16_t bits = ct_f32_to_bf16(x);
    return ct_dtype_get(&bits, CT_BF16, 0);
}

ct_status ct_ref_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    (void)err;
    bool bf16 = ctx->compute == CT_COMPUTE_BF16;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t n = 0; n < w->rows; n++) {
            double sum = bias ? (double)bias[n] : 0;
            if (accumulate) sum += (double)y[t * w->rows + n];
            for (int64_t i = 0; i < w->cols; i++) {
                float a = x[t * w->cols + i];
                float b = ct_dtype_get(w->data, w->dtype, n * w->cols + i);
                sum += bf16 ? (double)round_bf16(a) * (double)round_bf16(b) : (double)a * (double)b;
            }
            y[t * w->rows + n] = (float)sum;
        }
    return CT_OK;
}

ct_status ct_ref_block_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                              const ct_matrix *w, int64_t blocks, const float *bias, ct_err *err)
{
    (void)ctx;
    (void)err;
    int64_t n = w->cols, width = blocks * n;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t b = 0; b < blocks; b++)
            for (int64_t j = 0; j < n; j++) {
                double sum = bias ? (double)bias[b * n + j] : 0;
                for (int64_t i = 0; i < n; i++)
                    sum += (double)x[t * width + b * n + i] *
                           (double)ct_dtype_get(w->data, w->dtype, (b * n + i) * n + j);
                y[t * width + b * n + j] = (float)sum;
            }
    return CT_OK;
}
