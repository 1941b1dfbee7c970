/* elementwise.cu - embedding, norm, activation, choice of rows.
 *
 * Memory-bound all of them: 16-byte accesses where the buffers allow it. The norm's sum has one order
 * for a width; the rest has no sums.
 */
#include "op/cuda/device.cuh"
#include "op/cuda/math.cuh"

/* Four elements of a row of the table, widened. */
static __device__ __forceinline__ float4 embed4(const void *table, int dtype, int64_t at)
{
    if (dtype == CT_F32) return *(const float4 *)((const float *)table + at);
    uint2 pairs = *(const uint2 *)((const uint16_t *)table + at);
    if (dtype == CT_BF16)
        return make_float4(low_bf16(pairs.x), high_bf16(pairs.x), low_bf16(pairs.y),
                           high_bf16(pairs.y));
    float2 a = __half22float2(*(const __half2 *)&pairs.x);
    float2 b = __half22float2(*(const __half2 *)&pairs.y);
    return make_float4(a.x, a.y, b.x, b.y);
}

/* One CTA a token. */
template <bool WIDE>
static __global__ void embed_rows(float *x, const int32_t *ids, const void *table, int dtype,
                                  int64_t width, float scale)
{
    int64_t from = ids[blockIdx.x] * width, to = blockIdx.x * width;
    let_next_begin();
    if (WIDE) {
        for (int64_t i = threadIdx.x * 4; i < width; i += blockDim.x * 4) {
            float4 v = embed4(table, dtype, from + i);
            *(float4 *)(x + to + i) =
                make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
        }
    } else {
        for (int64_t i = threadIdx.x; i < width; i += blockDim.x)
            x[to + i] = weight_at(table, dtype, from + i) * scale;
    }
}

void cuda_embed(ct_op_ctx *ctx, float *x, const ct_batch *batch, const ct_matrix *table,
                float scale)
{
    const batch_image &image = image_of(batch);
    if (!image.tokens) return;
    bool wide = table->cols % 4 == 0 && aligned16(x) && aligned16(table->data);
    if (wide)
        LAUNCH(ctx, embed_rows<true>, image.tokens, 256, 0, x, image.ids, table->data, table->dtype,
               table->cols, scale);
    else
        LAUNCH(ctx, embed_rows<false>, image.tokens, 256, 0, x, image.ids, table->data,
               table->dtype, table->cols, scale);
}

/* ---- norm ---- */

static __device__ __forceinline__ float sum_of_warp(float v)
{
    for (int mask = 16; mask; mask >>= 1) v += __shfl_xor_sync(0xffffffffu, v, mask);
    return v;
}

/* One group of THREADS threads a token (a warp, or the CTA); thread i takes elements 4i .. 4i+3 of every
 * 4 THREADS, then the threads' sums are added in a tree: one order for a width. */
template <int THREADS, bool WIDE>
static __global__ void rms_norm_rows(float *y, const float *x, int64_t stride, int64_t tokens,
                                     int64_t width, const float *w, float eps, float offset)
{
    __shared__ float parts[32];
    let_next_begin();
    wait_for_earlier();
    int thread = threadIdx.x % THREADS;
    int64_t token = (int64_t)blockIdx.x * (blockDim.x / THREADS) + threadIdx.x / THREADS;
    if (token >= tokens) return; /* whole groups only */
    const float *row = x + token * stride;
    float sum = 0;
#pragma unroll 4
    for (int64_t i = thread * 4; i < width; i += THREADS * 4) {
        float4 v = load4<WIDE>(row + i, width - i);
        sum = fmaf(v.x, v.x, sum);
        sum = fmaf(v.y, v.y, sum);
        sum = fmaf(v.z, v.z, sum);
        sum = fmaf(v.w, v.w, sum);
    }
    sum = sum_of_warp(sum);
    if (THREADS > 32) {
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
        __syncthreads();
        sum = 0;
        for (int i = 0; i < THREADS / 32; i++) sum += parts[i];
    }
    float scale = 1.0f / sqrtf(sum / (float)width + eps);
#pragma unroll 4
    for (int64_t i = thread * 4; i < width; i += THREADS * 4) {
        float4 v = load4<WIDE>(row + i, width - i), g = load4<WIDE>(w + i, width - i);
        v = make_float4(v.x * scale * (g.x + offset), v.y * scale * (g.y + offset),
                        v.z * scale * (g.z + offset), v.w * scale * (g.w + offset));
        store4<WIDE>(y + token * width + i, v, width - i);
    }
}

/* The same sum for widths that a CTA's threads hold in registers: the gains come before the wait for the
 * row, and the row is read once. */
template <int THREADS, int PARTS>
static __global__ void __launch_bounds__(THREADS)
    rms_norm_held(float *y, const float *x, int64_t stride, int width, const float *w, float eps,
                  float offset)
{
    __shared__ __align__(16) float parts[THREADS / 32];
    const float4 zero = make_float4(0, 0, 0, 0);
    let_next_begin();
    float4 v[PARTS], g[PARTS];
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        int i = (int)(threadIdx.x + k * THREADS) * 4;
        g[k] = i < width ? *(const float4 *)(w + i) : zero;
    }
    wait_for_earlier();
    const float *row = x + blockIdx.x * stride;
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        int i = (int)(threadIdx.x + k * THREADS) * 4;
        v[k] = i < width ? *(const float4 *)(row + i) : zero;
    }
    float sum = 0;
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        sum = fmaf(v[k].x, v[k].x, sum);
        sum = fmaf(v[k].y, v[k].y, sum);
        sum = fmaf(v[k].z, v[k].z, sum);
        sum = fmaf(v[k].w, v[k].w, sum);
    }
    sum = sum_of_warp(sum);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
#pragma unroll
    for (int i = 0; i < THREADS / 32; i++) sum += parts[i];
    float scale = 1.0f / sqrtf(sum / (float)width + eps);
#pragma unroll
    for (int k = 0; k < PARTS; k++) {
        int i = (int)(threadIdx.x + k * THREADS) * 4;
        if (i < width)
            *(float4 *)(y + (int64_t)blockIdx.x * width + i) =
                make_float4(v[k].x * scale * (g[k].x + offset), v[k].y * scale * (g[k].y + offset),
                            v[k].z * scale * (g[k].z + offset), v[k].w * scale * (g[k].w + offset));
    }
}

void cuda_rms_norm(ct_op_ctx *ctx, float *y, const float *x, int64_t stride, int64_t tokens,
                   int64_t width, const float *w, float eps, float offset)
{
    enum { NARROW = 512, THREADS = 256, WARPS = 4 };
    if (!tokens) return;
    bool wide = width % 4 == 0 && stride % 4 == 0 && aligned16(x) && aligned16(y) && aligned16(w);
    if (width <= NARROW) {
        int64_t ctas = ceil_div(tokens, WARPS);
        if (wide)
            LAUNCH_DEPENDENT(ctx, (rms_norm_rows<32, true>), ctas, WARPS * 32, 0, y, x, stride,
                             tokens, width, w, eps, offset);
        else
            LAUNCH_DEPENDENT(ctx, (rms_norm_rows<32, false>), ctas, WARPS * 32, 0, y, x, stride,
                             tokens, width, w, eps, offset);
    } else if (wide && width <= THREADS * 4 * 3) {
        LAUNCH_DEPENDENT(ctx, (rms_norm_held<THREADS, 3>), tokens, THREADS, 0, y, x, stride,
                         (int)width, w, eps, offset);
    } else if (wide && width <= THREADS * 4 * 4) {
        LAUNCH_DEPENDENT(ctx, (rms_norm_held<THREADS, 4>), tokens, THREADS, 0, y, x, stride,
                         (int)width, w, eps, offset);
    } else if (wide) {
        LAUNCH_DEPENDENT(ctx, (rms_norm_rows<THREADS, true>), tokens, THREADS, 0, y, x, stride,
                         tokens, width, w, eps, offset);
    } else {
        LAUNCH_DEPENDENT(ctx, (rms_norm_rows<THREADS, false>), tokens, THREADS, 0, y, x, stride,
                         tokens, width, w, eps, offset);
    }
}

/* ---- activation ---- */

/* Four elements a thread; b NULL: ones. */
template <bool WIDE>
static __global__ void silu_mul_all(float *y, const float *a, const float *b, int64_t count)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    let_next_begin();
    wait_for_earlier();
    if (i >= count) return;
    float4 v = load4<WIDE>(a + i, count - i);
    v = make_float4(silu(v.x), silu(v.y), silu(v.z), silu(v.w));
    if (b) {
        float4 m = load4<WIDE>(b + i, count - i);
        v = make_float4(v.x * m.x, v.y * m.y, v.z * m.z, v.w * m.w);
    }
    store4<WIDE>(y + i, v, count - i);
}

void cuda_silu_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count)
{
    if (!count) return;
    bool wide = count % 4 == 0 && aligned16(y) && aligned16(a) && aligned16(b);
    int64_t ctas = ceil_div(count, 256 * 4);
    if (wide) LAUNCH_DEPENDENT(ctx, silu_mul_all<true>, ctas, 256, 0, y, a, b, count);
    else LAUNCH_DEPENDENT(ctx, silu_mul_all<false>, ctas, 256, 0, y, a, b, count);
}

/* ---- choice of rows ---- */

/* One CTA a row. */
template <bool WIDE>
static __global__ void pick_rows(float *y, const float *x, const int32_t *wanted, int64_t width)
{
    let_next_begin();
    const float *from = x + wanted[blockIdx.x] * width;
    wait_for_earlier();
    float *to = y + blockIdx.x * width;
    for (int64_t i = threadIdx.x * 4; i < width; i += blockDim.x * 4)
        store4<WIDE>(to + i, load4<WIDE>(from + i, width - i), width - i);
}

void cuda_pick(ct_op_ctx *ctx, float *y, const float *x, const ct_batch *batch, int64_t width)
{
    const batch_image &image = image_of(batch);
    if (!image.n_wanted) return;
    bool wide = width % 4 == 0 && aligned16(x) && aligned16(y);
    if (wide)
        LAUNCH_DEPENDENT(ctx, pick_rows<true>, image.n_wanted, 256, 0, y, x, image.wanted, width);
    else LAUNCH_DEPENDENT(ctx, pick_rows<false>, image.n_wanted, 256, 0, y, x, image.wanted, width);
}
