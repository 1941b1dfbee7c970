/* attention_plain.cu - attention for heads whose size is no multiple of 8, which the other kernels' loads
 * cannot take. Right rather than fast: a thread block for each token and head, in prompts and in generation.
 */
#include "op/cuda/attention_plain.cuh"

namespace
{

/* Scores of a block of keys by all warps; every warp moves the sums by itself, to the same bits; then a
 * thread has one column of the values. */
template <typename T>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_kernel(const __grid_constant__ attn_call call)
{
    __shared__ float q[MAX_DIM], scores[64], weights[64];
    const plain_at at = plain_here(call, 0);
    const image_run run = call.image.run[at.run];
    const int lane = (int)threadIdx.x % 32, d = (int)threadIdx.x;
    const int64_t stride = (int64_t)call.kv_heads * call.head_dim;
    plain_take_query<T>(q, call, at);
    attn_sums sums = {NO_MAX, 0, 0, 0, 0, 0};
    float o = 0;
    for (int block = at.begin / 64; block <= (at.end - 1) / 64; block++) {
        const int base = 64 * block;
        __syncthreads(); /* the query is there, and the last block's weights are no longer needed */
        plain_scores<T>(scores, q, call, at, run, block);
        __syncthreads();
        uint64_t seen = seen_bits(base, at.begin, at.end);
        uint64_t marked = run.edit == CT_WEIGHTS_KEEP ? 0 : marked_bits(run, base);
        float s[2];
        for (int i = 0; i < 2; i++) s[i] = seen >> (lane + 32 * i) & 1 ? scores[lane + 32 * i] : 0;
        float a = softmax_pair(sums, s, call.scale, run.edit, seen, marked);
        if (threadIdx.x < 32) weights[lane] = s[0], weights[lane + 32] = s[1];
        __syncthreads();
        if (d >= call.head_dim || run.edit == CT_WEIGHTS_NULL) continue;
        const T *values = plain_rows<T>(call, run.v_blocks, call.v_offset, block, at.kv_head) + d;
        o *= a;
        for (int j = max(at.begin - base, 0); j < min(at.end - base, 64); j++)
            o = fmaf(weights[j], widened(values[j * stride]), o);
    }
    sums.l = warp_sum(sums.l), sums.t = warp_sum(sums.t);
    sums.z = warp_sum(sums.z), sums.mass = warp_sum(sums.mass);
    if (threadIdx.x == 0) write_stats(call, at.token, at.head, sums);
    if (d < call.head_dim)
        call.out[((int64_t)at.token * call.heads + at.head) * call.head_dim + d] =
            o * final_scale(run.edit, sums);
}

} // namespace

void attention_plain(ct_op_ctx *ctx, const attn_call &call)
{
    dim3 grid((unsigned)call.image.tokens, (unsigned)call.heads);
    if (ctx->compute == CT_COMPUTE_BF16)
        LAUNCH(ctx, plain_kernel<bf16>, grid, PLAIN_THREADS, 0, call);
    else LAUNCH(ctx, plain_kernel<float>, grid, PLAIN_THREADS, 0, call);
}
