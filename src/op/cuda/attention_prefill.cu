/* attention_prefill.cu - attention of a prompt in bf16 on the tensor cores.
 *
 * A thread block has one tile (up to 64 tokens of one run, within one block of positions) and WGS heads
 * that share a kv head: a warpgroup for each head, whose 64 rows are the tile's tokens. It walks over
 * the blocks of keys in ascending order; a block's keys and values come into shared memory once for all
 * heads, while the block before is computed. The weights' sums (attention.cuh) and the values stay in
 * registers: a row belongs to the four threads of a quad.
 */
#include "op/cuda/attention.cuh"
#include "op/cuda/wgmma.cuh"

namespace
{

constexpr int PANEL = 64 * 128; /* bytes: 64 rows of 64 bf16, see wgmma.cuh */

template <int DP, int WGS> constexpr int shared_bytes()
{
    return (WGS + 4) * (DP / 64) * PANEL +
           1024; /* queries, two buffers of keys and values; to align */
}

/* Where the 16-byte unit `unit` of a row of D stands. */
__device__ __forceinline__ uint32_t unit_at(int row, int unit)
{
    return (uint32_t)(unit / 8 * PANEL + row * 128 + ((unit % 8 ^ row % 8) << 4));
}

/* Asks for a block's rows [64, D] of one kv head; rows from `rows` on become zeros: their weights are 0,
 * and what may stand there must not meet them. */
template <int DP, int THREADS>
__device__ __forceinline__ void load_block(uint32_t to, const bf16 *from, int row_stride,
                                           int head_dim, int rows)
{
    constexpr int UNITS = DP / 8;
    int unit = (int)threadIdx.x % UNITS;
    bool inside = unit * 8 < head_dim;
#pragma unroll
    for (int i = 0; i < 64 * UNITS / THREADS; i++) {
        int row = (int)threadIdx.x / UNITS + i * (THREADS / UNITS);
        bool real = inside && row < rows;
        copy16(to + unit_at(row, unit), real ? from + (int64_t)row * row_stride + unit * 8 : from,
               real);
    }
}

/* One head's queries [64, D] as bf16; rows from `rows` on are zeros. */
template <int DP>
__device__ __forceinline__ void load_queries(char *to, const float *from, int row_stride,
                                             int head_dim, int rows)
{
    constexpr int UNITS = DP / 8;
    for (int i = (int)threadIdx.x % 128; i < 64 * UNITS; i += 128) {
        int row = i / UNITS, unit = i % UNITS;
        uint4 bits = {0, 0, 0, 0};
        if (row < rows && unit * 8 < head_dim) {
            const float4 *at = (const float4 *)(from + (int64_t)row * row_stride + unit * 8);
            float4 a = at[0], b = at[1];
            bits = {pack_bf16(a.x, a.y), pack_bf16(a.z, a.w), pack_bf16(b.x, b.y),
                    pack_bf16(b.z, b.w)};
        }
        *(uint4 *)(to + unit_at(row, unit)) = bits;
    }
}

/* Moves the sums of one of the thread's two rows over a block: its 16 scores (s[4n + 2r], s[4n + 2r + 1]
 * in columns 8n + 2c, + 1) become weights that meet the values. Returns what the values are scaled by. */
template <bool STATS, bool EDIT>
__device__ __forceinline__ float softmax_row(attn_sums &sums, float (&s)[32], int r, float scale,
                                             int edit, uint64_t seen, uint64_t marked)
{
    int c = (int)threadIdx.x % 4;
    float top = MASKED;
#pragma unroll
    for (int n = 0; n < 8; n++) top = fmaxf(top, fmaxf(s[4 * n + 2 * r], s[4 * n + 2 * r + 1]));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    float old = sums.m, m = fmaxf(old, top * scale), a = exp2_fast(old - m);
    sums.m = m;
    /* Never one rounding with the sum after it, which some variants might get and others not. */
    if (STATS) {
        sums.t = __fmul_rn(a, fmaf(old - m, sums.l, sums.t));
        sums.z = __fmul_rn(__fmul_rn(a, a), sums.z);
    }
    sums.l = __fmul_rn(a, sums.l);
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float below = fmaf(s[4 * n + 2 * r + i], scale, -m), e = exp2_fast(below);
            sums.l += e;
            if (STATS) {
                sums.t = fmaf(e, below, sums.t);
                sums.z = fmaf(e, e, sums.z);
            }
            s[4 * n + 2 * r + i] = e;
        }
    if (EDIT) {
        uint64_t both = seen & marked;
        sums.mass = __fmul_rn(a, sums.mass);
        sums.marked += (float)__popcll(both);
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                bool in = both >> (8 * n + 2 * c + i) & 1;
                float e = s[4 * n + 2 * r + i];
                if (in) sums.mass += e;
                s[4 * n + 2 * r + i] = edited(edit, in, e);
            }
    }
    return !EDIT || scaled_values(edit) ? a : 1;
}

__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* What all of a thread block's threads have in common. It lies in shared memory, to be read anew for each
 * block of keys: registers are what this kernel is short of. */
struct tile_walk {
    image_tile tile;
    image_run run;
    int first, last; /* positions of the tile's tokens */
    int begin, end;  /* blocks of keys */
    int64_t k_offset, v_offset;
};

template <int DP, int THREADS>
__device__ __forceinline__ void load_keys_values(const attn_call &call, const tile_walk &walk,
                                                 uint32_t keys, uint32_t values, int block)
{
    int stride = call.kv_heads * call.head_dim, rows = walk.last + 1 - block * 64;
    load_block<DP, THREADS>(keys, (const bf16 *)walk.run.k_blocks[block] + walk.k_offset, stride,
                            call.head_dim, rows);
    load_block<DP, THREADS>(values, (const bf16 *)walk.run.v_blocks[block] + walk.v_offset, stride,
                            call.head_dim, rows);
}

/* EDIT: for tiles of runs with an edit; the others are left to the other variant, which needs fewer
 * registers. STATS changes no bit of `out`. */
template <int DP, int WGS, bool STATS, bool EDIT>
__global__ void __launch_bounds__(128 * WGS, DP == 256 ? 1 : 2)
    prefill_kernel(const __grid_constant__ attn_call call)
{
    constexpr int BYTES = DP / 64 * PANEL, THREADS = 128 * WGS;
    extern __shared__ char raw[];
    __shared__ tile_walk walk;
    uint32_t raw_at = (uint32_t)__cvta_generic_to_shared(raw), skip = (1024 - raw_at % 1024) % 1024;
    uint32_t queries_at = raw_at + skip, keys_at = queries_at + WGS * BYTES;
    uint32_t values_at = keys_at + 2 * BYTES;
    int teams = (call.group + WGS - 1) / WGS; /* of heads, in a kv head */
    int kv_head = (int)blockIdx.x / teams, wg = (int)threadIdx.x / 128;
    int in_group = (int)blockIdx.x % teams * WGS + wg, head = kv_head * call.group + in_group;
    bool busy = in_group < call.group; /* the last team may lack a head: it still loads */

    /* The last tiles have the most keys: they come first. */
    const image_tile tile = call.image.tile[gridDim.y - 1 - blockIdx.y];
    if ((call.image.run[tile.run].edit != CT_WEIGHTS_KEEP) != EDIT) return;
    if (threadIdx.x == 0) {
        const image_run run = call.image.run[tile.run];
        int first = run.position + tile.first - run.first, last = first + tile.count - 1;
        walk = {tile,
                run,
                first,
                last,
                window_begin(run.window, first) / 64,
                last / 64,
                call.k_offset + kv_head * call.head_dim,
                call.v_offset + kv_head * call.head_dim};
    }
    __syncthreads();
    load_keys_values<DP, THREADS>(call, walk, keys_at, values_at, walk.begin);
    if (busy)
        load_queries<DP>(raw + skip + wg * BYTES,
                         call.q + ((int64_t)walk.tile.first * call.heads + head) * call.head_dim,
                         call.heads * call.head_dim, call.head_dim, walk.tile.count);
    queries_at += wg * BYTES;

    int c = (int)threadIdx.x % 4,
        row0 = (int)threadIdx.x % 128 / 32 * 16 + (int)threadIdx.x % 32 / 4;
    attn_sums sums[2] = {{NO_MAX, 0, 0, 0, 0, 0},
                         {NO_MAX, 0, 0, 0, 0, 0}}; /* rows row0, row0 + 8 */
    float o[DP / 2];
#pragma unroll
    for (int i = 0; i < DP / 2; i++) o[i] = 0;

#pragma unroll 1
    for (int block = walk.begin, buffer = 0; block <= walk.end; block++, buffer ^= 1) {
        /* The block is here, for every thread's copies and, by the fence, for the tensor cores; and all
         * are done with the other buffer. */
        copy16_wait();
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncthreads();
        if (block < walk.end)
            load_keys_values<DP, THREADS>(call, walk, keys_at + (buffer ^ 1) * BYTES,
                                          values_at + (buffer ^ 1) * BYTES, block + 1);
        if (!busy) continue;

        float s[32];
        wgmma_begin();
#pragma unroll
        for (int i = 0; i < DP / 16; i++) {
            uint32_t at = (uint32_t)(i / 4 * PANEL + i % 4 * 32);
            uint64_t q = wgmma_place(queries_at + at, 16);
            uint64_t k = wgmma_place(keys_at + buffer * BYTES + at, 16);
            if (i == 0) multiply_first(s, q, k);
            else multiply(s, q, k, 1);
        }
        uint64_t marked = EDIT ? marked_bits(walk.run, block * 64) : 0;
        wgmma_end(s);

        uint64_t seen[2] = {~(uint64_t)0, ~(uint64_t)0};
        int base = block * 64, window = walk.run.window;
        if (base + 63 > walk.first || (window >= 0 && base < walk.last - window)) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                int position = walk.first + row0 + 8 * r;
                seen[r] = seen_bits(base, window_begin(window, position), position + 1);
                uint64_t own = seen[r] >> 2 * c;
#pragma unroll
                for (int i = 0; i < 16; i++)
                    if (!(own >> (i / 2 * 8 + i % 2) & 1)) s[i / 2 * 4 + 2 * r + i % 2] = MASKED;
            }
        }
        int edit = EDIT ? walk.run.edit : CT_WEIGHTS_KEEP;
        float a0 = softmax_row<STATS, EDIT>(sums[0], s, 0, call.scale, edit, seen[0], marked);
        float a1 = softmax_row<STATS, EDIT>(sums[1], s, 1, call.scale, edit, seen[1], marked);
        if (EDIT && edit == CT_WEIGHTS_NULL) continue;
        if (__any_sync(~0u, a0 != 1 || a1 != 1)) {
#pragma unroll
            for (int n = 0; n < DP / 8; n++) {
                o[4 * n] *= a0, o[4 * n + 1] *= a0;
                o[4 * n + 2] *= a1, o[4 * n + 3] *= a1;
            }
        }
        uint32_t p[16];
#pragma unroll
        for (int i = 0; i < 16; i++) p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
        wgmma_begin();
#pragma unroll
        for (int i = 0; i < 4; i++)
            multiply_values(o, p + 4 * i,
                            wgmma_place(values_at + buffer * BYTES + i * 16 * 128, PANEL));
        wgmma_end(o);
    }
    if (!busy) return;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = row0 + 8 * r, token = walk.tile.first + row;
        attn_sums whole = sums[r];
        whole.l = quad_sum(whole.l);
        if (EDIT) whole.mass = quad_sum(whole.mass);
        if (STATS) whole.t = quad_sum(whole.t), whole.z = quad_sum(whole.z);
        if (row >= walk.tile.count) continue;
        if (STATS && c == 0) write_stats(call, token, head, whole);
        float scale = final_scale(EDIT ? walk.run.edit : CT_WEIGHTS_KEEP, whole);
        float *out = call.out + ((int64_t)token * call.heads + head) * call.head_dim;
#pragma unroll
        for (int n = 0; n < DP / 8; n++)
            if (8 * n < call.head_dim)
                *(float2 *)(out + 8 * n + 2 * c) = {o[4 * n + 2 * r] * scale,
                                                    o[4 * n + 2 * r + 1] * scale};
    }
}

template <int DP, int WGS, bool STATS, bool EDIT> void launch(ct_op_ctx *ctx, const attn_call &call)
{
    constexpr int bytes = shared_bytes<DP, WGS>();
    auto kernel = prefill_kernel<DP, WGS, STATS, EDIT>;
    note(ctx->device,
         cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
         "attention: shared memory");
    int teams = (call.group + WGS - 1) / WGS;
    dim3 grid((unsigned)(call.kv_heads * teams), (unsigned)call.image.n_tiles);
    LAUNCH(ctx, kernel, grid, 128 * WGS, bytes, call);
}

/* Both variants always: a recorded pass may be replayed with other edits. */
template <int DP, int WGS> void launch_both(ct_op_ctx *ctx, const attn_call &call)
{
    if (call.entropy_bits || call.l2) {
        launch<DP, WGS, true, false>(ctx, call);
        launch<DP, WGS, true, true>(ctx, call);
    } else {
        launch<DP, WGS, false, false>(ctx, call);
        launch<DP, WGS, false, true>(ctx, call);
    }
}

template <int DP> void launch_dim(ct_op_ctx *ctx, const attn_call &call)
{
    if (call.group > 1) launch_both<DP, 2>(ctx, call);
    else launch_both<DP, 1>(ctx, call);
}

} // namespace

void attention_prefill_bf16(ct_op_ctx *ctx, const attn_call &call)
{
    if (call.head_dim <= 64) launch_dim<64>(ctx, call);
    else if (call.head_dim <= 128) launch_dim<128>(ctx, call);
    else launch_dim<256>(ctx, call);
}
