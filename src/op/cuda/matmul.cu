/* matmul.cu - the operations made of products: which kernel computes them, and the gated feed-forward.
 *
 *   f32                      gemm_f32.cu, in both stages
 *   bf16, generation         gemm_decode.cu: x is rounded as it is staged; that of many tokens once,
 *                            into scratch
 *   bf16, prefill            gemm_prefill.cu: x is rounded once into scratch; shapes that are not whole
 *                            multiples of 8, or not aligned, go to gemm_decode.cu
 *
 * The choice depends on compute, stage and weights, never on the number of rows. Scratch: T rows of
 * max_cols bf16; generation does without it, slower, where it is not given.
 */
#include "op/cuda/gemm.cuh"

size_t matmul_scratch_bytes(int64_t tokens, int64_t max_rows, int64_t max_cols)
{
    (void)max_rows;
    return (size_t)tokens * (size_t)max_cols * sizeof(bf16) + 256;
}

/* ---- elementwise ----------------------------------------------------------------------------- */

/* y = bf16(x), eight at once where both are aligned. */
static __global__ void __launch_bounds__(256)
    round_to_bf16(bf16 *y, const float *x, int64_t count, bool aligned)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (aligned && i + 8 <= count) {
        float4 a = *(const float4 *)(x + i), b = *(const float4 *)(x + i + 4);
        __nv_bfloat162 v[4] = {__floats2bfloat162_rn(a.x, a.y), __floats2bfloat162_rn(a.z, a.w),
                               __floats2bfloat162_rn(b.x, b.y), __floats2bfloat162_rn(b.z, b.w)};
        *(uint4 *)(y + i) = *(const uint4 *)v;
        return;
    }
    for (int64_t j = i; j < count && j < i + 8; j++) y[j] = __float2bfloat16_rn(x[j]);
}

/* hidden[T,F] = f(gate + bg) * (up + bu); hidden may be gate where their types are the same. Eight
 * columns a thread where F is a multiple of 8. */
template <class In, class Out>
static __global__ void __launch_bounds__(256)
    activate_mul(Out *hidden, const In *gate, const In *up, const float *gate_bias,
                 const float *up_bias, int64_t tokens, int64_t width, ct_activation activation)
{
    const int64_t groups = (width + 7) / 8;
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= tokens * groups) return;
    const int64_t column = i % groups * 8, at = i / groups * width + column;
    struct alignas(sizeof(In) * 8 < 16 ? sizeof(In) * 8 : 16) inputs {
        In v[8];
    };
    struct alignas(16) outputs {
        Out v[8];
    };
    inputs a, b;
    outputs out;
    const bool whole = width % 8 == 0;
    const int n = width - column < 8 ? (int)(width - column) : 8;
    if (whole) {
        a = *(const inputs *)(gate + at);
        b = *(const inputs *)(up + at);
    } else {
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (e < n) a.v[e] = gate[at + e], b.v[e] = up[at + e];
    }
#pragma unroll
    for (int e = 0; e < 8; e++) {
        if (e >= n) break;
        float g = (float)a.v[e], u = (float)b.v[e];
        if (gate_bias) g += gate_bias[column + e];
        if (up_bias) u += up_bias[column + e];
        out.v[e] = (Out)(activate(g, activation) * u);
    }
    if (whole) *(outputs *)(hidden + at) = out;
    else
#pragma unroll
        for (int e = 0; e < 8; e++)
            if (e < n) hidden[at + e] = out.v[e];
}

static void to_bf16(ct_op_ctx *ctx, bf16 *y, const float *x, int64_t count)
{
    bool aligned = is_aligned(y) && is_aligned(x);
    LAUNCH(ctx, round_to_bf16, (unsigned)ceil_div(count, 8 * 256), 256, 0, y, x, count, aligned);
}

template <class In, class Out>
static void activated(ct_op_ctx *ctx, Out *hidden, const In *gate, const In *up, const ct_mlp *mlp,
                      bool biases, int64_t tokens)
{
    int64_t width = mlp->gate.rows, threads = tokens * ceil_div(width, 8);
    LAUNCH(ctx, (activate_mul<In, Out>), (unsigned)ceil_div(threads, 256), 256, 0, hidden, gate, up,
           biases ? mlp->gate_bias : NULL, biases ? mlp->up_bias : NULL, tokens, width,
           mlp->activation);
}

/* ---- operations ------------------------------------------------------------------------------ */

static ct_status check(const ct_op_ctx *ctx, const ct_matrix *w, ct_err *err)
{
    if (ctx->compute == CT_COMPUTE_BF16 && w->dtype != CT_BF16)
        return ct_fail(err, CT_ERR_UNSUPPORTED,
                       "product on the GPU: expected bf16 weights in bf16 compute, got %s",
                       w->dtype == CT_F32 ? "f32" : "f16");
    if (w->rows > INT32_MAX - 64)
        return ct_fail(err, CT_ERR_UNSUPPORTED, "product on the GPU: %lld rows of weights",
                       (long long)w->rows);
    return CT_OK;
}

static ct_status check_scratch(const ct_op_ctx *ctx, int64_t tokens, int64_t cols, ct_err *err)
{
    size_t needed = (size_t)tokens * (size_t)cols * sizeof(bf16);
    if (ctx->scratch_bytes >= needed && is_aligned(ctx->scratch)) return CT_OK;
    return ct_fail(err, CT_ERR_LIMIT,
                   "product on the GPU: expected %llu bytes of scratch, got %llu",
                   (unsigned long long)needed, (unsigned long long)ctx->scratch_bytes);
}

static bool by_library(const ct_op_ctx *ctx, const ct_matrix *w, const void *y, const float *bias)
{
    return ctx->stage == CT_STAGE_PREFILL && prefill_fits(w, y, bias);
}

ct_status cuda_products(ct_op_ctx *ctx, const ct_product *list, int64_t n, const float *x,
                        int64_t tokens, ct_err *err)
{
    bf16 *rounded = (bf16 *)ctx->scratch;
    bool is_rounded = false;
    if (tokens == 0 || n == 0) return CT_OK;
    for (int64_t i = 0; i < n; i++) {
        ct_status st = check(ctx, list[i].w, err);
        if (st != CT_OK) return st;
    }
    if (ctx->compute == CT_COMPUTE_BF16 && ctx->stage == CT_STAGE_GENERATION)
        return product_decode(ctx, list, n, x, false, tokens, false, err);
    for (int64_t i = 0; i < n; i++) {
        const ct_product *p = &list[i];
        ct_status st = CT_OK;
        if (ctx->compute == CT_COMPUTE_F32) {
            product_f32(ctx, p->y, x, tokens, p->w, p->bias, false);
        } else if (by_library(ctx, p->w, p->y, p->bias)) {
            if (!is_rounded) {
                st = check_scratch(ctx, tokens, p->w->cols, err);
                if (st != CT_OK) return st;
                to_bf16(ctx, rounded, x, tokens * p->w->cols);
                is_rounded = true;
            }
            st = product_prefill(ctx, p->y, false, rounded, tokens, p->w, p->bias, false, err);
        } else {
            st = product_decode(ctx, p, 1, x, false, tokens, false, err);
        }
        if (st != CT_OK) return st;
    }
    return CT_OK;
}

ct_status cuda_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens, const ct_matrix *w,
                      const float *bias, bool accumulate, ct_err *err)
{
    ct_product product = {y, w, bias};
    if (!accumulate) return cuda_products(ctx, &product, 1, x, tokens, err);
    ct_status st = check(ctx, w, err);
    if (st != CT_OK || tokens == 0) return st;
    if (ctx->compute == CT_COMPUTE_F32) {
        product_f32(ctx, y, x, tokens, w, bias, true);
        return CT_OK;
    }
    if (!by_library(ctx, w, y, bias))
        return product_decode(ctx, &product, 1, x, false, tokens, true, err);
    st = check_scratch(ctx, tokens, w->cols, err);
    if (st != CT_OK) return st;
    to_bf16(ctx, (bf16 *)ctx->scratch, x, tokens * w->cols);
    return product_prefill(ctx, y, false, (bf16 *)ctx->scratch, tokens, w, bias, true, err);
}

/* In f32: gate and up side by side in `hidden`, as ct_mlp_by_parts has them. */
static ct_status gated_f32(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden)
{
    float *up = hidden + tokens * mlp->gate.rows;
    product_f32(ctx, hidden, x, tokens, &mlp->gate, mlp->gate_bias, false);
    product_f32(ctx, up, x, tokens, &mlp->up, mlp->up_bias, false);
    activated(ctx, hidden, hidden, up, mlp, false, tokens);
    product_f32(ctx, y, hidden, tokens, &mlp->down, mlp->down_bias, true);
    return CT_OK;
}

/* By cuBLASLt: gate and up leave it as bf16, which halves what the activation reads; biases are added
 * behind it in f32. hidden: three times [T,F] bf16. */
static ct_status gated_prefill(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                               const ct_mlp *mlp, float *room, ct_err *err)
{
    bf16 *rounded = (bf16 *)ctx->scratch;
    const int64_t count = tokens * mlp->gate.rows;
    bf16 *gate = (bf16 *)room, *up = gate + count, *hidden = up + count;
    ct_status st = check_scratch(ctx, tokens, mlp->gate.cols, err);
    if (st != CT_OK) return st;
    to_bf16(ctx, rounded, x, tokens * mlp->gate.cols);
    st = product_prefill(ctx, gate, true, rounded, tokens, &mlp->gate, NULL, false, err);
    if (st == CT_OK)
        st = product_prefill(ctx, up, true, rounded, tokens, &mlp->up, NULL, false, err);
    if (st != CT_OK) return st;
    activated(ctx, hidden, gate, up, mlp, true, tokens);
    return product_prefill(ctx, y, false, hidden, tokens, &mlp->down, mlp->down_bias, true, err);
}

ct_status cuda_gated_mlp(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                         const ct_mlp *mlp, float *hidden, ct_err *err)
{
    ct_status st = check(ctx, &mlp->gate, err);
    if (st == CT_OK) st = check(ctx, &mlp->up, err);
    if (st == CT_OK) st = check(ctx, &mlp->down, err);
    if (st != CT_OK || tokens == 0) return st;
    if (ctx->compute == CT_COMPUTE_F32) return gated_f32(ctx, y, x, tokens, mlp, hidden);
    if (by_library(ctx, &mlp->gate, hidden, NULL) && by_library(ctx, &mlp->up, hidden, NULL) &&
        by_library(ctx, &mlp->down, y, mlp->down_bias))
        return gated_prefill(ctx, y, x, tokens, mlp, hidden, err);
    st = gated_decode(ctx, (bf16 *)hidden, x, tokens, mlp, err);
    if (st != CT_OK) return st;
    ct_product down = {y, &mlp->down, mlp->down_bias};
    return product_decode(ctx, &down, 1, hidden, true, tokens, true, err);
}
