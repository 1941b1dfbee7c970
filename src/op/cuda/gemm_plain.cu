/* gemm_plain.cu - bf16 products of weights that the copy engine cannot fetch: rows that are not whole
 * multiples of 16 bytes, or do not lie on 16 bytes. Slow, but any shape will do.
 *
 * A warp computes one row of weights for up to 8 tokens. Lane l sums the columns l, l + 32, ... in f32;
 * the lanes' sums are added in one order: so the order of a sum follows from the columns alone.
 */
#include "op/cuda/gemm.cuh"

enum { TOKENS = 8, WARPS = 8 };

struct plain_args {
    const bf16 *w, *w_up; /* w_up: of a gated product, or NULL */
    const float *bias, *bias_up;
    const void *x;
    float *y;     /* [tokens, rows], or */
    bf16 *hidden; /* that of a gated product */
    int64_t rows, k, tokens;
    bool x_bf16, accumulate;
    ct_activation activation;
};

static __device__ void warp_product(float (&sum)[TOKENS], const plain_args &a, const bf16 *w,
                                    int64_t first)
{
#pragma unroll
    for (int t = 0; t < TOKENS; t++) sum[t] = 0;
    for (int64_t k = threadIdx.x % 32; k < a.k; k += 32) {
        float v = __bfloat162float(w[k]);
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            if (first + t >= a.tokens) break;
            int64_t at = (first + t) * a.k + k;
            bf16 x =
                a.x_bf16 ? ((const bf16 *)a.x)[at] : __float2bfloat16_rn(((const float *)a.x)[at]);
            sum[t] = fmaf(v, __bfloat162float(x), sum[t]);
        }
    }
#pragma unroll
    for (int t = 0; t < TOKENS; t++)
        for (int d = 16; d; d /= 2) sum[t] += __shfl_xor_sync(~0u, sum[t], d);
}

static __global__ void __launch_bounds__(WARPS * 32) plain_product(const plain_args a)
{
    const int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (n >= a.rows) return;
    for (int64_t first = blockIdx.y * TOKENS; first < a.tokens; first += gridDim.y * TOKENS) {
        float sum[TOKENS], up[TOKENS];
        warp_product(sum, a, a.w + n * a.k, first);
        if (a.w_up) warp_product(up, a, a.w_up + n * a.k, first);
        if (threadIdx.x % 32 != 0) continue;
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            if (first + t >= a.tokens) break;
            int64_t at = (first + t) * a.rows + n;
            float s = a.bias ? sum[t] + a.bias[n] : sum[t];
            if (a.w_up) {
                float u = a.bias_up ? up[t] + a.bias_up[n] : up[t];
                a.hidden[at] = __float2bfloat16_rn(activate(s, a.activation) * u);
            } else a.y[at] = a.accumulate ? a.y[at] + s : s;
        }
    }
}

static void launch(ct_op_ctx *ctx, const plain_args &a)
{
    int64_t groups = ceil_div(a.tokens, TOKENS);
    dim3 grid((unsigned)ceil_div(a.rows, WARPS), (unsigned)(groups < 65535 ? groups : 65535));
    LAUNCH(ctx, plain_product, grid, WARPS * 32, 0, a);
}

void product_plain(ct_op_ctx *ctx, const ct_product *p, const void *x, bool x_bf16, int64_t tokens,
                   bool accumulate)
{
    plain_args a = {};
    a.w = (const bf16 *)p->w->data;
    a.bias = p->bias;
    a.x = x;
    a.y = p->y;
    a.rows = p->w->rows;
    a.k = p->w->cols;
    a.tokens = tokens;
    a.x_bf16 = x_bf16;
    a.accumulate = accumulate;
    launch(ctx, a);
}

void gated_plain(ct_op_ctx *ctx, bf16 *hidden, const float *x, int64_t tokens, const ct_mlp *mlp)
{
    plain_args a = {};
    a.w = (const bf16 *)mlp->gate.data;
    a.w_up = (const bf16 *)mlp->up.data;
    a.bias = mlp->gate_bias;
    a.bias_up = mlp->up_bias;
    a.x = x;
    a.hidden = hidden;
    a.rows = mlp->gate.rows;
    a.k = mlp->gate.cols;
    a.tokens = tokens;
    a.activation = mlp->activation;
    launch(ctx, a);
}
