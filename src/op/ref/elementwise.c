/* elementwise.c - reference embedding, norm, activation, sums, soft cap. */
#include <math.h>

#include "op/ref/ref.h"

void ct_ref_embed(ct_op_ctx *ctx, float *x, const ct_batch *batch, const ct_matrix *table,
                  float scale)
{
    (void)ctx;
    for (int64_t t = 0; t < batch->tokens; t++)
        for (int64_t i = 0; i < table->cols; i++)
            x[t * table->cols + i] =
                ct_dtype_get(table->data, table->dtype, batch->ids[t] * table->cols + i) * scale;
}

void ct_ref_rms_norm(ct_op_ctx *ctx, float *y, const float *x, int64_t stride, int64_t tokens,
                     int64_t width, const float *w, float eps, float offset)
{
    (void)ctx;
    for (int64_t t = 0; t < tokens; t++) {
        double sum = 0;
        for (int64_t i = 0; i < width; i++)
            sum += (double)x[t * stride + i] * (double)x[t * stride + i];
        double scale = 1 / sqrt(sum / (double)width + (double)eps);
        for (int64_t i = 0; i < width; i++)
            y[t * width + i] =
                (float)((double)x[t * stride + i] * scale * ((double)offset + (double)w[i]));
    }
}

/* 0.5 v (1 + tanh(sqrt(2/pi) (v + 0.044715 v^3))) */
static double gelu(double v)
{
    return 0.5 * v * (1 + tanh(0.79788456080286535588 * (v + 0.044715 * v * v * v)));
}

void ct_ref_gelu_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count)
{
    (void)ctx;
    for (int64_t i = 0; i < count; i++)
        y[i] = (float)(gelu((double)a[i]) * (b ? (double)b[i] : 1.0));
}

void ct_ref_silu_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count)
{
    (void)ctx;
    for (int64_t i = 0; i < count; i++)
        y[i] = (float)((double)a[i] / (1 + exp(-(double)a[i])) * (b ? (double)b[i] : 1.0));
}

void ct_ref_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count)
{
    (void)ctx;
    for (int64_t i = 0; i < count; i++) y[i] = a[i] * b[i];
}

void ct_ref_soft_cap(ct_op_ctx *ctx, float *const *y, const float *x, int64_t rows, int64_t count,
                     float cap)
{
    (void)ctx;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < count; i++) {
            double v = (double)x[r * count + i];
            y[r][i] = (float)(cap > 0 ? (double)cap * tanh(v / (double)cap) : v);
        }
}
