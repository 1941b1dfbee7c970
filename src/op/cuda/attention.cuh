/* attention.cuh - what the attention kernels share: their arguments, which keys a query sees, edits,
 * and the partial results of generation.
 *
 * With scores in base 2 (s = q k scale log2 e), m their maximum, and
 *   l = sum 2^(s-m),  t = sum 2^(s-m) (s-m),  z = sum 2^(2(s-m)),
 * entropy = log2 l - t/l bits and l2 = sqrt(z)/l. When m grows by g: l and the values are scaled by
 * a = 2^-g, z by a^2, and t becomes a (t - g l).
 *
 * Keys are met in blocks of 64 absolute positions in ascending order, and a block that a query does
 * not see leaves its sums as they were to the bit: a masked score lies so far below any maximum that
 * its weight is 0, and a maximum that did not grow scales by exactly 1. So a query's bits do not
 * depend on the other queries of its tile, nor on where a prompt was cut.
 */
#ifndef CT_OP_CUDA_ATTENTION_CUH
#define CT_OP_CUDA_ATTENTION_CUH

#include <stdint.h>

#include "op/cuda/device.cuh"

struct attn_call {
    int heads, kv_heads, group, head_dim; /* H, G, H/G, D */
    float scale;                          /* scale log2 e */
    const float *q;
    float *out, *entropy_bits, *l2;
    int64_t k_offset, v_offset;
    batch_image image;
};

/* What a query keeps beside its values: see the top. mass: the part of l in marked positions; marked:
 * how many visible positions are marked. Both are kept for edits only. */
struct attn_sums {
    float m, l, t, z, mass, marked;
};

/* Scores before scaling of keys that are not seen, and the first maximum: the scores of real keys lie
 * above both, and the first maximum lies far enough above a masked score; all are finite, so that
 * 0 (s - m) is 0. */
constexpr float MASKED = -1e34f, NO_MAX = -1e30f;

/* Generation: keys in parts of SPLIT absolute positions, each by its own thread block, summed
 * afterwards. A part's result for one head: attn_sums, then the values [D]. */
constexpr int SPLIT = 128, SPLIT_BLOCKS = SPLIT / CT_KV_BLOCK, PART_HEAD = 8;

struct attn_parts {
    float *parts; /* [tokens][splits][H][PART_HEAD + D] */
    int splits;   /* room for each token; the first one holds the first key that it sees */
    int first_token;
};

__device__ __forceinline__ float *part_at(const attn_parts &to, int token, int split, int head,
                                          const attn_call &call)
{
    int64_t at = ((int64_t)(token - to.first_token) * to.splits + split) * call.heads + head;
    return to.parts + at * (PART_HEAD + call.head_dim);
}

/* The first position that a query sees. */
__device__ __forceinline__ int window_begin(int window, int position)
{
    return window < 0 || window > position ? 0 : position - window;
}

/* Bits of a block's keys, 0 .. 63, that are in positions [begin, end); the block begins at `base`. */
__device__ __forceinline__ uint64_t seen_bits(int base, int begin, int end)
{
    int from = max(begin - base, 0), to = min(end - base, 64);
    return from >= to ? 0 : ~(uint64_t)0 >> (64 - to) & ~(uint64_t)0 << from;
}

/* Bits of the block's marked keys, for a whole warp. */
__device__ __forceinline__ uint64_t marked_bits(const image_run &run, int base)
{
    int low = base + (int)(threadIdx.x & 31), high = low + 32;
    bool a = low < run.marked_count && run.marked[low];
    bool b = high < run.marked_count && run.marked[high];
    uint32_t first = __ballot_sync(~0u, a), second = __ballot_sync(~0u, b);
    return (uint64_t)second << 32 | first;
}

/* What meets the values in place of the weight e before its division by l; BINARY: a plain sum, which
 * is weighted at the end. */
__device__ __forceinline__ float edited(int edit, bool marked, float e)
{
    switch (edit) {
    case CT_WEIGHTS_ONLY:
        return marked ? e : 0;
    case CT_WEIGHTS_OMIT:
        return marked ? 0 : e;
    case CT_WEIGHTS_BINARY:
        return marked ? 1 : 0;
    default:
        return e;
    }
}

/* Whether the values' sum is scaled as the maximum grows. */
__device__ __forceinline__ bool scaled_values(int edit)
{
    return edit != CT_WEIGHTS_BINARY;
}

/* What the sum over values is multiplied with at the end. */
__device__ __forceinline__ float final_scale(int edit, const attn_sums &sums)
{
    if (edit == CT_WEIGHTS_NULL) return 0;
    if (edit == CT_WEIGHTS_BINARY) return sums.marked > 0 ? sums.mass / (sums.l * sums.marked) : 0;
    return 1 / sums.l;
}

__device__ __forceinline__ void write_stats(const attn_call &call, int token, int head,
                                            const attn_sums &sums)
{
    int64_t at = (int64_t)token * call.heads + head;
    float entropy = log2f(sums.l) - sums.t / sums.l;
    /* Rounding may fall below 0; a NaN stays one. */
    if (call.entropy_bits) call.entropy_bits[at] = entropy < 0 ? 0 : entropy;
    if (call.l2) call.l2[at] = sqrtf(sums.z) / sums.l;
}

__device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int i = 16; i; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    return x;
}

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int i = 16; i; i /= 2) x += __shfl_xor_sync(~0u, x, i);
    return x;
}

/* A warp moves the sums of one token and head over a block: a lane's two scores, of keys `lane` and
 * `lane + 32`, become weights that meet the values. Returns what the values are scaled by. l, t, z and mass
 * are the lane's parts. */
__device__ __forceinline__ float softmax_pair(attn_sums &sums, float (&s)[2], float scale, int edit,
                                              uint64_t seen, uint64_t marked)
{
    int lane = (int)threadIdx.x % 32;
    bool in[2] = {(bool)(seen >> lane & 1), (bool)(seen >> (lane + 32) & 1)};
#pragma unroll
    for (int i = 0; i < 2; i++) s[i] = in[i] ? s[i] * scale : MASKED;
    float old = sums.m, m = fmaxf(old, warp_max(fmaxf(s[0], s[1]))), a = exp2f(old - m);
    sums.m = m;
    sums.t = __fmul_rn(a, fmaf(old - m, sums.l, sums.t));
    sums.z = __fmul_rn(a * a, sums.z);
    sums.l = __fmul_rn(a, sums.l);
    sums.mass = __fmul_rn(a, sums.mass);
    sums.marked += (float)__popcll(seen & marked);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float below = s[i] - m, e = exp2f(below);
        bool mark = (seen & marked) >> (lane + 32 * i) & 1;
        sums.l += e;
        sums.t = fmaf(e, below, sums.t);
        sums.z = fmaf(e, e, sums.z);
        if (mark) sums.mass += e;
        s[i] = edited(edit, mark, e);
    }
    return scaled_values(edit) ? a : 1;
}

__device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

/* 16 bytes to shared memory on their own, zeros if not `real` (but the address must be one). */
__device__ __forceinline__ void copy16(uint32_t to, const void *from, bool real)
{
    int bytes = real ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void copy16_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Checks the shape and says what kernels work on. */
ct_status attention_call(const ct_attn_args *args, attn_call *out, ct_err *err);
enum { MAX_DIM = 256 };

/* The kernels' files. Prefill: all tiles of the image. Generation: `count` tokens from
 * parts.first_token on. */
void attention_prefill_bf16(ct_op_ctx *ctx, const attn_call &call);
void attention_prefill_f32(ct_op_ctx *ctx, const attn_call &call);
void attention_parts_bf16(ct_op_ctx *ctx, const attn_call &call, const attn_parts &parts,
                          int count);
void attention_parts_f32(ct_op_ctx *ctx, const attn_call &call, const attn_parts &parts, int count);
/* Any head size, all tokens of the image. */
void attention_plain(ct_op_ctx *ctx, const attn_call &call);
/* weights.cu: the light recorder's numbers of the tokens that the image's `light` lists. */
void attention_light(ct_op_ctx *ctx, const attn_call &call, const ct_attn_light &to);

#endif
