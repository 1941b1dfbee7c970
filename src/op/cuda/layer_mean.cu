/* layer_mean.cu - binary under binary_mean: per_layer: one mean for all heads (and, in prefill, rows) of
 * a run.
 *
 *   mean = sum over heads, tokens and marked positions of the weights / H / columns, written to the marked
 *   positions of every head and token; out = mean * (sum of the marked values).
 *
 * The masses come from the attention operation itself, with the marked positions alone and values of 1
 * (2 where a position counts twice) in place of the real ones. All sums have one order.
 */
#include "op/cuda/device.cuh"

namespace
{

constexpr int THREADS = 256;

__device__ __forceinline__ float value(float x)
{
    return x;
}

__device__ __forceinline__ float value(bf16 x)
{
    return __bfloat162float(x);
}

__device__ __forceinline__ void put(float *to, float x)
{
    *to = x;
}

__device__ __forceinline__ void put(bf16 *to, float x)
{
    *to = __float2bfloat16(x);
}

/* Block b of 65, [64, width]: ones; in block b < 64, position b holds twos. */
template <typename T> __global__ void fill_ones(T *blocks, int64_t width)
{
    int block = (int)blockIdx.y;
    int64_t count = CT_KV_BLOCK * width;
    for (int64_t i = blockIdx.x * THREADS + threadIdx.x; i < count; i += gridDim.x * THREADS)
        put(blocks + block * count + i, i / width == block ? 2.0f : 1.0f);
}

/* mean[run] from the masses, which are the first of each head's D outputs. */
__global__ void take_means(float *mean, const float *mass, int heads, int head_dim, batch_image image)
{
    __shared__ double sums[THREADS];
    const image_run run = image.run[blockIdx.x];
    const image_mean of = image.mean[blockIdx.x];
    if (of.columns <= 0) {
        if (threadIdx.x == 0) mean[blockIdx.x] = 0;
        return;
    }
    double sum = 0;
    int64_t count = (int64_t)run.count * heads;
    for (int64_t i = threadIdx.x; i < count; i += THREADS)
        sum += (double)mass[((int64_t)run.first * heads + i) * head_dim];
    sums[threadIdx.x] = sum;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) mean[blockIdx.x] = (float)(sums[0] / heads / of.columns);
}

/* sum[run][g, d] of the values at marked positions begin .. end-1. */
template <typename T>
__global__ void sum_values(float *sum, int64_t v_offset, int64_t width, batch_image image)
{
    const image_run run = image.run[blockIdx.y];
    const image_mean of = image.mean[blockIdx.y];
    int64_t column = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (of.is_mean == 0 || column >= width) return;
    double total = 0;
    int end = min(of.end, run.marked_count);
    for (int s = of.begin; s < end; s++)
        if (run.marked[s])
            total += (double)value(((const T *)run.v_blocks[s / CT_KV_BLOCK])[v_offset + s % CT_KV_BLOCK * width +
                                                                              column]);
    sum[blockIdx.y * width + column] = (float)total;
}

/* out[t, h, :] = mean * sum for the tokens of such runs. */
__global__ void write_means(float *out, const float *mean, const float *sum, int heads, int group,
                            int head_dim, int64_t width, batch_image image)
{
    int token = (int)blockIdx.x, r = image.token[token].run;
    const image_mean of = image.mean[r];
    if (of.is_mean == 0) return;
    float by = mean[r];
    for (int i = threadIdx.x; i < heads * head_dim; i += THREADS) {
        int head = i / head_dim, d = i % head_dim;
        out[(int64_t)token * heads * head_dim + i] =
            by * sum[r * width + (int64_t)(head / group) * head_dim + d];
    }
}

} // namespace

/* 65 blocks of ones and twos, made once for a model's shape. */
cudaError_t make_ones(ct_device *device, int64_t width, bool rounded)
{
    size_t bytes = (size_t)(65 * CT_KV_BLOCK * width) * (rounded ? sizeof(bf16) : sizeof(float));
    if (device->ones && device->ones_width == width && device->ones_rounded == rounded)
        return cudaSuccess;
    cudaStreamSynchronize(device->stream);
    cudaFree(device->ones);
    device->ones = NULL;
    cudaError_t e = cudaMalloc(&device->ones, bytes);
    if (e != cudaSuccess) return e;
    device->ones_width = width;
    device->ones_rounded = rounded;
    dim3 grid(16, 65);
    if (rounded) fill_ones<<<grid, THREADS, 0, device->stream>>>((bf16 *)device->ones, width);
    else fill_ones<<<grid, THREADS, 0, device->stream>>>((float *)device->ones, width);
    return cudaGetLastError();
}

ct_status cuda_layer_mean(ct_op_ctx *ctx, const ct_attn_args *args, float *mass, float *mean,
                          const ct_batch *batch, ct_err *err)
{
    batch_image image = image_of(batch), masses = image;
    masses.run = image.mean_run;
    ct_batch with = *batch;
    with.image = &masses;
    ct_attn_args sums = *args;
    sums.out = mass;
    sums.entropy_bits = sums.l2 = NULL;
    sums.light = NULL;
    sums.v_offset = 0;
    sums.batch = &with;
    ct_status st = cuda_attention(ctx, &sums, err);
    if (st != CT_OK) return st;

    int64_t width = args->kv_heads * args->head_dim;
    int heads = (int)args->heads, dim = (int)args->head_dim, runs = image.n_runs;
    float *sum = (float *)ctx->scratch;
    if (ctx->scratch_bytes < (size_t)(runs * width) * sizeof(float))
        return ct_fail(err, CT_ERR_LIMIT, "layer_mean: expected scratch for %d runs", runs);
    dim3 grid((unsigned)ceil_div(width, THREADS), (unsigned)runs);
    LAUNCH(ctx, take_means, runs, THREADS, 0, mean, mass, heads, dim, image);
    if (ctx->compute == CT_COMPUTE_BF16)
        LAUNCH(ctx, sum_values<bf16>, grid, THREADS, 0, sum, args->v_offset, width, image);
    else LAUNCH(ctx, sum_values<float>, grid, THREADS, 0, sum, args->v_offset, width, image);
    LAUNCH(ctx, write_means, image.tokens, THREADS, 0, args->out, mean, sum, heads,
           (int)(args->heads / args->kv_heads), dim, width, image);
    return CT_OK;
}
