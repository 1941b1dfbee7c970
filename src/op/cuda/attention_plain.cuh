/* attention_plain.cuh - scores of one token and head at a time, for heads of any size: what attention_plain.cu
 * and weights.cu share. A thread block walks over the blocks of keys that its token sees in ascending order;
 * a warp makes the score of a key. So a token's bits depend on nothing but its own position and window.
 */
#ifndef CT_OP_CUDA_ATTENTION_PLAIN_CUH
#define CT_OP_CUDA_ATTENTION_PLAIN_CUH

#include "op/cuda/attention.cuh"

constexpr int PLAIN_WARPS = 8, PLAIN_THREADS = 32 * PLAIN_WARPS;
static_assert(PLAIN_THREADS >= MAX_DIM, "a thread for each column of the values");

__device__ __forceinline__ float widened(float x)
{
    return x;
}

__device__ __forceinline__ float widened(bf16 x)
{
    return __bfloat162float(x);
}

/* A thread block's token and head, and the positions begin .. end-1 that it sees. */
struct plain_at {
    int token, head, kv_head, run, begin, end;
};

__device__ __forceinline__ plain_at plain_here(const attn_call &call, int first_token)
{
    int token = first_token + (int)blockIdx.x, head = (int)blockIdx.y;
    const image_token at = call.image.token[token];
    int begin = window_begin(call.image.run[at.run].window, at.position);
    return {token, head, head / call.group, at.run, begin, at.position + 1};
}

/* A block's row of keys or values of one kv head, [D] at rows `stride` apart. */
template <typename T>
__device__ __forceinline__ const T *plain_rows(const attn_call &call, const void *const *blocks,
                                               int64_t offset, int block, int kv_head)
{
    return (const T *)blocks[block] + offset + (int64_t)kv_head * call.head_dim;
}

/* The query, rounded as the products round it where the cache holds bf16. */
template <typename T>
__device__ __forceinline__ void plain_take_query(float *q, const attn_call &call,
                                                 const plain_at &at)
{
    const float *from = call.q + ((int64_t)at.token * call.heads + at.head) * call.head_dim;
    for (int d = (int)threadIdx.x; d < call.head_dim; d += PLAIN_THREADS)
        q[d] = widened((T)from[d]);
}

/* scores[j] = query . key of the block's j-th position, before scaling; nothing where it is not seen. */
template <typename T>
__device__ __forceinline__ void plain_scores(float *scores, const float *q, const attn_call &call,
                                             const plain_at &at, const image_run &run, int block)
{
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, dim = call.head_dim;
    int64_t stride = (int64_t)call.kv_heads * dim;
    const T *keys = plain_rows<T>(call, run.k_blocks, call.k_offset, block, at.kv_head);
    for (int j = warp; j < 64; j += PLAIN_WARPS) {
        int position = 64 * block + j;
        if (position < at.begin || position >= at.end) continue;
        float sum = 0;
        for (int d = lane; d < dim; d += 32) sum = fmaf(q[d], widened(keys[j * stride + d]), sum);
        sum = warp_sum(sum);
        if (lane == 0) scores[j] = sum;
    }
}

#endif
