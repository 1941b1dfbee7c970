/* attention_decode.cu - attention in generation in bf16: each token alone, its keys in parts.
 *
 * A thread block has one token, one part of SPLIT keys, and up to 16 query heads that share a kv head:
 * they are the rows of the tensor cores' products, so that keys and values are read once for all of
 * them. Each of the four warps has 32 keys, straight from memory to registers: as a sum may run over its
 * terms in any order, and columns may stand anywhere, a thread's 16 consecutive bytes serve as they come.
 * All loads of a warp's keys are on their way at once, and those of its values follow as keys are used up;
 * so a part takes little more than two trips to memory. The warps agree on the maximum before they add up.
 */
#include "op/cuda/attention.cuh"

namespace
{

constexpr int ROWS = 16, WARPS = 4, KEYS = SPLIT / WARPS;
static_assert(KEYS == 32, "a warp's keys are the bits of a word");

/* d[16, 8] += a[16, 16] b[16, 8]: rows g and g + 8 of a and d, column g of b, where g = lane / 4. */
__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint4 load16(const bf16 *from, bool real)
{
    return real ? *(const uint4 *)from : uint4{0, 0, 0, 0};
}

__device__ __forceinline__ uint32_t word(const uint4 &x, int i)
{
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}

__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* Shared memory: queries as bf16, rows 64 bytes apart in banks; then the warps' values. */
template <int DP> constexpr int query_stride = DP + 32;
template <int DP> constexpr int value_stride = DP + 4;
template <int DP> int shared_bytes(int heads)
{
    return ROWS * query_stride<DP> * (int)sizeof(bf16) +
           WARPS * heads * value_stride<DP> * (int)sizeof(float);
}

/* A warp's keys, then its values: 16 bytes each, or zeros. */
template <int DP> struct warp_keys {
    uint4 v[DP / 32][KEYS / 8];
};

/* k.v[i][j] = dims 32i + 8c .. 32i + 8c+7 of key 8j + g. */
template <int DP>
__device__ __forceinline__ void load_keys(warp_keys<DP> &k, const bf16 *keys, int row_stride,
                                          int head_dim, uint32_t seen)
{
    int lane = (int)threadIdx.x % 32, g = lane / 4, c = lane % 4;
    const bf16 *own = keys + (int64_t)g * row_stride + 8 * c;
#pragma unroll
    for (int i = 0; i < DP / 32; i++)
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
            k.v[i][j] = load16(own + (int64_t)8 * j * row_stride + 32 * i,
                               (seen >> (8 * j + g) & 1) && 32 * i + 8 * c < head_dim);
}

/* v.v[i][x] = dims 64n + 8g .. 64n + 8g+7, n = i / 2, of the x-th of keys 2c, 2c+1, 2c+8, 2c+9 of the 16
 * from 16 (i % 2) on. */
template <int DP>
__device__ __forceinline__ void load_values(warp_keys<DP> &v, int i, const bf16 *values,
                                            int row_stride, int head_dim, uint32_t seen)
{
    int lane = (int)threadIdx.x % 32, g = lane / 4, c = lane % 4;
    const bf16 *own = values + (int64_t)2 * c * row_stride + 8 * g;
#pragma unroll
    for (int x = 0; x < 4; x++) {
        int key = 16 * (i % 2) + x / 2 * 8 + x % 2;
        v.v[i][x] = load16(own + (int64_t)key * row_stride + 64 * (i / 2),
                           (seen >> (key + 2 * c) & 1) && 64 * (i / 2) + 8 * g < head_dim);
    }
}

/* s[j] += the queries' 32 dims from 32i on times keys 8j .. 8j+7: columns 2c, 2c+1 of rows g, g + 8. A
 * thread has dims 8c .. 8c+7 of its key (8j + g) and of its queries; a product takes half. */
template <int DP>
__device__ __forceinline__ void key_scores(float (&s)[KEYS / 8][4], const bf16 *queries,
                                           const warp_keys<DP> &k, int i)
{
    int lane = (int)threadIdx.x % 32, g = lane / 4, c = lane % 4;
    const bf16 *q = queries + g * query_stride<DP> + 32 * i + 8 * c;
    uint4 low = *(const uint4 *)q, high = *(const uint4 *)(q + 8 * query_stride<DP>);
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++) {
        mma(s[j], low.x, high.x, low.y, high.y, k.v[i][j].x, k.v[i][j].y);
        mma(s[j], low.z, high.z, low.w, high.w, k.v[i][j].z, k.v[i][j].w);
    }
}

/* o[i] = the weights s times the values' column 64n + 8g' + i, where g' is the product's column: a thread
 * has rows g, g + 8 of columns g' = 2c, 2c+1. */
template <int DP>
__device__ __forceinline__ void value_sums(float (&o)[8][4], const float (&s)[KEYS / 8][4],
                                           const warp_keys<DP> &v, int n)
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t p[4] = {pack_bf16(s[2 * i][0], s[2 * i][1]), pack_bf16(s[2 * i][2], s[2 * i][3]),
                         pack_bf16(s[2 * i + 1][0], s[2 * i + 1][1]),
                         pack_bf16(s[2 * i + 1][2], s[2 * i + 1][3])};
        const uint4(&four)[4] = v.v[2 * n + i];
#pragma unroll
        for (int x = 0; x < 8; x++) {
            uint32_t halves = x % 2 ? 0x7632 : 0x5410;
            uint32_t b0 = __byte_perm(word(four[0], x / 2), word(four[1], x / 2), halves);
            uint32_t b1 = __byte_perm(word(four[2], x / 2), word(four[3], x / 2), halves);
            mma(o[x], p[0], p[1], p[2], p[3], b0, b1);
        }
    }
}

template <int DP>
__global__ void __launch_bounds__(32 * WARPS, 2)
    parts_kernel(const __grid_constant__ attn_call call, const __grid_constant__ attn_parts parts)
{
    extern __shared__ uint4 raw[];
    __shared__ float tops[WARPS][ROWS], partial[WARPS][ROWS][4];
    bf16 *queries = (bf16 *)raw;
    float *warp_values = (float *)(queries + ROWS * query_stride<DP>);

    let_next_begin();
    int token = parts.first_token + (int)blockIdx.z;
    const image_token at = call.image.token[token];
    const image_run run = call.image.run[at.run];
    int begin = window_begin(run.window, at.position), end = at.position + 1;
    int split = begin / SPLIT + (int)blockIdx.x;
    wait_for_earlier();
    if (split > at.position / SPLIT) return;
    bool stats = call.entropy_bits || call.l2;
    if (run.edit == CT_WEIGHTS_NULL && !stats) return; /* nothing is read of it */

    int teams = (call.group + ROWS - 1) / ROWS; /* of heads, in a kv head */
    int kv_head = (int)blockIdx.y / teams, in_group = (int)blockIdx.y % teams * ROWS;
    int heads = min(ROWS, call.group - in_group), first_head = kv_head * call.group + in_group;
    int dim = call.head_dim, row_stride = call.kv_heads * dim;
    for (int i = (int)threadIdx.x; i < ROWS * DP / 2; i += (int)blockDim.x) {
        int row = i / (DP / 2), d = i % (DP / 2) * 2;
        float2 q = {0, 0};
        if (row < heads && d < dim)
            q = *(const float2 *)(call.q + ((int64_t)token * call.heads + first_head + row) * dim +
                                  d);
        *(uint32_t *)(queries + row * query_stride<DP> + d) = pack_bf16(q.x, q.y);
    }
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, g = lane / 4, c = lane % 4;
    int base = split * SPLIT + warp * KEYS, block = base / CT_KV_BLOCK;
    int64_t offset = (int64_t)(base % CT_KV_BLOCK) * row_stride + kv_head * dim;
    uint32_t seen = (uint32_t)seen_bits(base, begin, end), marked = 0;
    bool has_values = seen && run.edit != CT_WEIGHTS_NULL;
    const bf16 *keys = NULL, *values = NULL;
    warp_keys<DP> kept; /* keys, and in their place values */
    if (seen) {
        keys = (const bf16 *)run.k_blocks[block] + call.k_offset + offset;
        values = (const bf16 *)run.v_blocks[block] + call.v_offset + offset;
        load_keys<DP>(kept, keys, row_stride, dim, seen);
        if (run.edit != CT_WEIGHTS_KEEP) marked = (uint32_t)marked_bits(run, base) & seen;
    }
    __syncthreads(); /* the queries */
    float s[KEYS / 8][4] = {}, top[2] = {MASKED, MASKED};
    if (seen) {
#pragma unroll
        for (int i = 0; i < DP / 32; i++) {
            key_scores<DP>(s, queries, kept, i);
            load_values<DP>(kept, i, values, row_stride, dim, has_values ? seen : 0);
        }
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int x = 0; x < 4; x++) {
                if (!(seen >> (8 * j + 2 * c + x % 2) & 1)) s[j][x] = MASKED;
                top[x / 2] = fmaxf(top[x / 2], s[j][x]);
            }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        top[r] = quad_max(top[r]);
        if (c == 0) tops[warp][g + 8 * r] = top[r];
    }
    __syncthreads();

    float m[2], sums[2][4] = {}; /* l, t, z, mass */
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float highest = MASKED;
#pragma unroll
        for (int w = 0; w < WARPS; w++) highest = fmaxf(highest, tops[w][g + 8 * r]);
        m[r] = fmaxf(NO_MAX, highest * call.scale);
    }
    if (seen) {
#pragma unroll
        for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int x = 0; x < 4; x++) {
                float(&to)[4] = sums[x / 2];
                float below = fmaf(s[j][x], call.scale, -m[x / 2]), e = exp2_fast(below);
                bool in = marked >> (8 * j + 2 * c + x % 2) & 1;
                to[0] += e;
                to[1] = fmaf(e, below, to[1]);
                to[2] = fmaf(e, e, to[2]);
                if (in) to[3] += e;
                s[j][x] = edited(run.edit, in, e);
            }
    }
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float sum = quad_sum(sums[r][i]);
            if (c == 0) partial[warp][g + 8 * r][i] = sum;
        }
#pragma unroll
    for (int n = 0; n < DP / 64; n++) {
        float o[8][4] = {};
        if (has_values) value_sums<DP>(o, s, kept, n);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (g + 8 * r >= heads) continue;
            float *to = warp_values + (warp * heads + g + 8 * r) * value_stride<DP> + 64 * n;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int x = i % 2 * 4, column = 2 * r + i / 2;
                *(float4 *)(to + 8 * (2 * c + i / 2) + x) = {o[x][column], o[x + 1][column],
                                                             o[x + 2][column], o[x + 3][column]};
            }
        }
    }
    __shared__ int marked_seen[WARPS];
    if (lane == 0) marked_seen[warp] = __popc(marked);
    __syncthreads();

    /* The warps' results, in ascending order of keys. */
    int slot = (int)blockIdx.x;
    if (c == 0 && warp == 0) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = g + 8 * r;
            if (row >= heads) continue;
            float *to = part_at(parts, token, slot, first_head + row, call), whole[4] = {};
            int count = 0;
            for (int w = 0; w < WARPS; w++) {
                for (int i = 0; i < 4; i++) whole[i] += partial[w][row][i];
                count += marked_seen[w];
            }
            *(float4 *)to = {m[r], whole[0], whole[1], whole[2]};
            *(float4 *)(to + 4) = {whole[3], (float)count, 0, 0};
        }
    }
    for (int i = (int)threadIdx.x; i < heads * (dim / 4); i += (int)blockDim.x) {
        int row = i / (dim / 4), d = i % (dim / 4) * 4;
        float4 sum = {0, 0, 0, 0};
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float4 x = *(float4 *)(warp_values + (w * heads + row) * value_stride<DP> + d);
            sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
        }
        *(float4 *)(part_at(parts, token, slot, first_head + row, call) + PART_HEAD + d) = sum;
    }
}

template <int DP>
void launch(ct_op_ctx *ctx, const attn_call &call, const attn_parts &parts, int count)
{
    int bytes = shared_bytes<DP>(call.group < ROWS ? call.group : ROWS);
    note(ctx->device,
         cudaFuncSetAttribute(parts_kernel<DP>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              shared_bytes<DP>(ROWS)),
         "attention: shared memory");
    int teams = (call.group + ROWS - 1) / ROWS;
    dim3 grid((unsigned)parts.splits, (unsigned)(call.kv_heads * teams), (unsigned)count);
    LAUNCH_DEPENDENT(ctx, parts_kernel<DP>, grid, 32 * WARPS, bytes, call, parts);
}

} // namespace

void attention_parts_bf16(ct_op_ctx *ctx, const attn_call &call, const attn_parts &parts, int count)
{
    if (call.head_dim <= 64) launch<64>(ctx, call, parts, count);
    else if (call.head_dim <= 128) launch<128>(ctx, call, parts, count);
    else launch<256>(ctx, call, parts, count);
}
