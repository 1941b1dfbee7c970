/* attention_f32.cu - attention in f32, for results near the reference; simple rather than fast.
 *
 * A thread block has up to 32 (token, head) pairs that share a kv head, four to a warp, and walks over
 * the blocks of keys that they see, which come into shared memory. A lane has keys `lane` and
 * `lane + 32` of a block while scores are computed, and 4 or 8 columns of the values after that. In a
 * prompt the pairs are a tile's tokens and heads, and all keys are met; in generation they are one
 * token's heads, and one part of the keys is (attention.cuh).
 */
#include "op/cuda/attention.cuh"

namespace
{

constexpr int WARPS = 8, EACH = 4, PAIRS = WARPS * EACH;

int shared_bytes(int head_dim)
{
    return (64 * (head_dim + 4) + 64 * head_dim + PAIRS * head_dim) * (int)sizeof(float);
}

/* Takes a block's keys (rows of D + 4) and values (rows of D) of one kv head; rows from `rows` on become
 * zeros. */
__device__ __forceinline__ void load_block(const attn_call &call, const image_run &run, int kv_head,
                                           int block, int rows, float *keys, float *values)
{
    int units = call.head_dim / 4;
    int64_t stride = (int64_t)call.kv_heads * call.head_dim, at = (int64_t)kv_head * call.head_dim;
    const float *k = (const float *)run.k_blocks[block] + call.k_offset + at;
    const float *v = (const float *)run.v_blocks[block] + call.v_offset + at;
    uint32_t keys_at = (uint32_t)__cvta_generic_to_shared(keys);
    uint32_t values_at = (uint32_t)__cvta_generic_to_shared(values);
    for (int i = (int)threadIdx.x; i < 64 * units; i += 32 * WARPS) {
        int row = i / units, d = i % units * 4;
        int64_t from = row < rows ? row * stride + d : 0;
        copy16(keys_at + (row * (call.head_dim + 4) + d) * 4, k + from, row < rows);
        copy16(values_at + (row * call.head_dim + d) * 4, v + from, row < rows);
    }
    copy16_wait();
}

/* NV: groups of 128 columns. */
template <int NV, bool PARTS>
__global__ void __launch_bounds__(32 * WARPS)
    f32_kernel(const __grid_constant__ attn_call call, const __grid_constant__ attn_parts parts)
{
    extern __shared__ float4 raw[];
    int dim = call.head_dim, group = call.group;
    float *keys = (float *)raw, *values = keys + 64 * (dim + 4), *queries = values + 64 * dim;
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;

    int run_index, first_token, tokens;
    if (PARTS) {
        first_token = parts.first_token + (int)blockIdx.z, tokens = 1;
        run_index = call.image.token[first_token].run;
    } else {
        const image_tile tile = call.image.tile[gridDim.z - 1 - blockIdx.z];
        first_token = tile.first, tokens = tile.count, run_index = tile.run;
    }
    const image_run run = call.image.run[run_index];
    int first_pair = (int)blockIdx.x * PAIRS, pairs = tokens * group; /* token * group + head */
    if (PARTS) first_pair = (int)(blockIdx.y / call.kv_heads) * PAIRS;
    if (first_pair >= pairs) return;
    int kv_head = (int)blockIdx.y % call.kv_heads;
    int first_position = run.position + first_token - run.first;
    int from = first_position + first_pair / group; /* positions of the first and the last pair */
    int to = first_position + (min(first_pair + PAIRS, pairs) - 1) / group;
    int first_key = window_begin(run.window, from), split = 0;
    int begin = first_key / 64, end = to / 64 + 1;
    if (PARTS) {
        split = first_key / SPLIT + (int)blockIdx.x;
        begin = max(begin, split * SPLIT_BLOCKS), end = min(end, (split + 1) * SPLIT_BLOCKS);
        if (begin >= end) return;
    }

    /* The thread's pairs; those that there are not compute zeros. */
    int position[EACH];
    int64_t row[EACH]; /* token * H + head */
    bool real[EACH];
    for (int i = (int)threadIdx.x; i < PAIRS * dim; i += 32 * WARPS) {
        int pair = first_pair + i / dim;
        int64_t at =
            (int64_t)(first_token + pair / group) * call.heads + kv_head * group + pair % group;
        queries[i] = pair < pairs ? call.q[at * dim + i % dim] : 0;
    }
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int pair = first_pair + i * WARPS + warp;
        real[i] = pair < pairs;
        if (!real[i]) pair = first_pair;
        position[i] = first_position + pair / group;
        row[i] =
            (int64_t)(first_token + pair / group) * call.heads + kv_head * group + pair % group;
    }
    attn_sums sums[EACH];
    float4 o[EACH][NV];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        sums[i] = {NO_MAX, 0, 0, 0, 0, 0};
#pragma unroll
        for (int n = 0; n < NV; n++) o[i][n] = {0, 0, 0, 0};
    }

    for (int block = begin; block < end; block++) {
        int base = block * 64;
        __syncthreads();
        load_block(call, run, kv_head, block, to + 1 - base, keys, values);
        __syncthreads();
        if (!real[0]) continue; /* nor are the others */
        uint64_t marked = run.edit == CT_WEIGHTS_KEEP ? 0 : marked_bits(run, base);

        float s[EACH][2] = {};
        for (int d = 0; d < dim; d += 4) {
            float4 k0 = *(const float4 *)(keys + lane * (dim + 4) + d);
            float4 k1 = *(const float4 *)(keys + (lane + 32) * (dim + 4) + d);
#pragma unroll
            for (int i = 0; i < EACH; i++) {
                float4 q = *(const float4 *)(queries + (i * WARPS + warp) * dim + d);
                s[i][0] =
                    fmaf(q.w, k0.w, fmaf(q.z, k0.z, fmaf(q.y, k0.y, fmaf(q.x, k0.x, s[i][0]))));
                s[i][1] =
                    fmaf(q.w, k1.w, fmaf(q.z, k1.z, fmaf(q.y, k1.y, fmaf(q.x, k1.x, s[i][1]))));
            }
        }
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            uint64_t seen = seen_bits(base, window_begin(run.window, position[i]), position[i] + 1);
            float a = softmax_pair(sums[i], s[i], call.scale, run.edit, seen, marked);
#pragma unroll
            for (int n = 0; n < NV; n++) {
                o[i][n].x = __fmul_rn(a, o[i][n].x), o[i][n].y = __fmul_rn(a, o[i][n].y);
                o[i][n].z = __fmul_rn(a, o[i][n].z), o[i][n].w = __fmul_rn(a, o[i][n].w);
            }
        }
        if (run.edit == CT_WEIGHTS_NULL) continue;
#pragma unroll
        for (int half = 0; half < 2; half++)
            for (int j = 0; j < 32; j++) {
                float4 v[NV];
#pragma unroll
                for (int n = 0; n < NV; n++) {
                    int d = 128 * n + 4 * lane;
                    v[n] = d < dim ? *(const float4 *)(values + (32 * half + j) * dim + d)
                                   : float4{0, 0, 0, 0};
                }
#pragma unroll
                for (int i = 0; i < EACH; i++) {
                    float e = __shfl_sync(~0u, s[i][half], j);
#pragma unroll
                    for (int n = 0; n < NV; n++) {
                        o[i][n].x = fmaf(e, v[n].x, o[i][n].x),
                        o[i][n].y = fmaf(e, v[n].y, o[i][n].y);
                        o[i][n].z = fmaf(e, v[n].z, o[i][n].z),
                        o[i][n].w = fmaf(e, v[n].w, o[i][n].w);
                    }
                }
            }
    }

#pragma unroll
    for (int i = 0; i < EACH; i++) {
        if (!real[i]) continue;
        int token = (int)(row[i] / call.heads), head = (int)(row[i] % call.heads);
        attn_sums whole = sums[i];
        whole.l = warp_sum(whole.l), whole.t = warp_sum(whole.t);
        whole.z = warp_sum(whole.z), whole.mass = warp_sum(whole.mass);
        float scale = final_scale(run.edit, whole), *out = call.out + row[i] * dim;
        if (PARTS) {
            float *part = part_at(parts, token, (int)blockIdx.x, head, call);
            if (lane == 0) {
                *(float4 *)part = {whole.m, whole.l, whole.t, whole.z};
                *(float4 *)(part + 4) = {whole.mass, whole.marked, 0, 0};
            }
            out = part + PART_HEAD, scale = 1;
        } else if (lane == 0) write_stats(call, token, head, whole);
#pragma unroll
        for (int n = 0; n < NV; n++) {
            int d = 128 * n + 4 * lane;
            float4 x = o[i][n];
            if (d < dim)
                *(float4 *)(out + d) = {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
        }
    }
}

template <int NV, bool PARTS>
void launch(ct_op_ctx *ctx, const attn_call &call, const attn_parts &parts, dim3 grid)
{
    note(ctx->device,
         cudaFuncSetAttribute(f32_kernel<NV, PARTS>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              shared_bytes(128 * NV)),
         "attention: shared memory");
    auto kernel = f32_kernel<NV, PARTS>;
    LAUNCH(ctx, kernel, grid, 32 * WARPS, shared_bytes(call.head_dim), call, parts);
}

} // namespace

void attention_prefill_f32(ct_op_ctx *ctx, const attn_call &call)
{
    dim3 grid((unsigned)ceil_div((int64_t)TILE_TOKENS * call.group, PAIRS), (unsigned)call.kv_heads,
              (unsigned)call.image.n_tiles);
    if (call.head_dim <= 128) launch<1, false>(ctx, call, attn_parts{}, grid);
    else launch<2, false>(ctx, call, attn_parts{}, grid);
}

void attention_parts_f32(ct_op_ctx *ctx, const attn_call &call, const attn_parts &parts, int count)
{
    dim3 grid((unsigned)parts.splits, (unsigned)(call.kv_heads * ceil_div(call.group, PAIRS)),
              (unsigned)count);
    if (call.head_dim <= 128) launch<1, true>(ctx, call, parts, grid);
    else launch<2, true>(ctx, call, parts, grid);
}
