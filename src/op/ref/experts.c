/* experts.c - choosing a token's experts, and moving rows to them and back. */
#include <math.h>
#include <string.h>

#include "op/ref/ref.h"

/* Softmax of one logit over all of them, in f64. */
static float share(const float *logits, int64_t experts, int64_t one)
{
    double max = -INFINITY, sum = 0;
    for (int64_t e = 0; e < experts; e++) max = fmax(max, (double)logits[e]);
    for (int64_t e = 0; e < experts; e++) sum += exp((double)logits[e] - max);
    return (float)(exp((double)logits[one] - max) / sum);
}

static float rank_of(float logit)
{
    return isnan(logit) ? -INFINITY : logit;
}

void ct_ref_route(ct_op_ctx *ctx, int32_t *expert, float *weight, const float *logits,
                  int64_t tokens, int64_t experts, int64_t k)
{
    (void)ctx;
    for (int64_t t = 0; t < tokens; t++) {
        const float *row = logits + t * experts;
        for (int64_t e = 0; e < experts; e++) {
            int64_t better = 0;
            for (int64_t o = 0; o < experts; o++)
                better += rank_of(row[o]) > rank_of(row[e]) ||
                          (rank_of(row[o]) == rank_of(row[e]) && o < e);
            if (better >= k) continue;
            expert[t * k + better] = (int32_t)e;
            weight[t * k + better] = share(row, experts, e);
        }
    }
}

void ct_ref_gather(ct_op_ctx *ctx, float *y, const float *x, const int32_t *row, int64_t rows,
                   int64_t width)
{
    (void)ctx;
    for (int64_t i = 0; i < rows; i++)
        memcpy(y + i * width, x + row[i] * width, (size_t)width * sizeof *y);
}

void ct_ref_scatter_add(ct_op_ctx *ctx, float *x, const float *y, const int32_t *row,
                        const float *weight, int64_t rows, int64_t width)
{
    (void)ctx;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j++) {
            float *to = &x[row[i] * width + j];
            *to = (float)((double)*to + (double)weight[i] * (double)y[i * width + j]);
        }
}
