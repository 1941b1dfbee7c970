/* gemm_stream.cuh - the kernel of bf16 products for few tokens: the weights are read once, as fast as
 * memory gives them.
 *
 * A tile is 128 rows of weights; the columns are cut into 1, 2 or 4 parts (by their number alone), one
 * for each block of a cluster. In a block one thread has the copy engine fetch steps of 64 columns into
 * a ring in shared memory, two boxes of 64 rows each; two warp groups multiply one box each (wgmma, 64
 * rows of weights times N tokens). Up to 32 tokens in f32 are rounded into shared memory once and stay
 * there; more are rounded by a kernel in front, and steps of them come with the weights, as they do where
 * x is bf16 already. The parts' sums are added in ascending order out of the cluster's shared memory.
 * Clusters go from tile to tile; the loads of the next one go on while this one's sums are added.
 *
 * So the order of every sum follows from the number of columns alone: neither the number of tokens, nor
 * the GPU, nor which matrices share a launch, changes a bit. That an element's sum over 16 columns has
 * the same bits for every N of wgmma is tested.
 *
 * Kernels start before the one in front of them has ended (programmatic dependent launch): they fetch
 * weights, which no kernel of a pass writes, and only then wait for it.
 */
#ifndef CT_OP_CUDA_GEMM_STREAM_CUH
#define CT_OP_CUDA_GEMM_STREAM_CUH

#include "op/cuda/gemm.cuh"
#include "op/cuda/gemm_copy.cuh"
#include "op/cuda/gemm_wgmma.cuh"

enum {
    TILE_ROWS = 128,
    HALF_ROWS = TILE_ROWS / 2, /* of a box, of a warp group */
    STEP = 64,                 /* columns of a step: 128 bytes of a row */
    BOX_BYTES = HALF_ROWS * STEP * 2,
    CONSUMERS = 256,
    THREADS = CONSUMERS + 32, /* and the warp of the copies */
    MOST_STAGES = 12,
    MOST_PARTS = 4,            /* blocks of a cluster */
    MOST_LIST = 8,             /* matrices of a launch */
    MOST_TOKENS = 128,         /* of a launch */
    MOST_RESIDENT = 32,        /* tokens that are kept in shared memory, */
    RESIDENT_BYTES = 48 << 10, /* and what they may take there */
    SUMS_ROW = TILE_ROWS + 4,  /* floats of a token's sums, padded against bank conflicts */
    BARRIERS_BYTES = 256,
    ALIGN_BYTES = 1024,
    SHARED_OF_SM = 228 << 10,
    SHARED_MOST = 227 << 10
};

/* Blocks of a multiprocessor. */
static constexpr int blocks_of(int tokens)
{
    return tokens <= 16 ? 2 : 1;
}

struct decode_matrix {
    float *y;
    const float *bias;
    int32_t rows, first_tile;
    bool quads; /* four rows of y can be written at once */
};

struct decode_args {
    CUtensorMap w[MOST_LIST], xs; /* xs: of x in bf16, where it is fetched with the weights */
    const void *x;
    bf16 *
        hidden; /* of a gated product: list[0] is the gate, list[1] the other, 64 rows of each a tile */
    int64_t k;
    int32_t tokens, parts, steps, stages, tiles, n;
    bool resident, x_bf16, x_aligned, accumulate;
    ct_activation activation;
    decode_matrix list[MOST_LIST];
};

static __device__ uint32_t pack(float a, float b)
{
    __nv_bfloat162 h = __floats2bfloat162_rn(a, b);
    return *(uint32_t *)&h;
}

static __device__ uint4 pack(float4 a, float4 b)
{
    return make_uint4(pack(a.x, a.y), pack(a.z, a.w), pack(b.x, b.y), pack(b.z, b.w));
}

/* A piece of 8 columns that is bf16 already, or in f32 but not aligned; K is a multiple of 8. */
static __device__ uint4 piece_at(const decode_args &a, int64_t at)
{
    uint32_t e[8];
#pragma unroll
    for (int j = 0; j < 8; j++) {
        bf16 v = a.x_bf16 ? ((const bf16 *)a.x)[at + j]
                          : __float2bfloat16_rn(((const float *)a.x)[at + j]);
        e[j] = *(const uint16_t *)&v;
    }
    return make_uint4(e[0] | e[1] << 16, e[2] | e[3] << 16, e[4] | e[5] << 16, e[6] | e[7] << 16);
}

/* Rounds this part's columns of all tokens into shared memory, a panel of N rows for each step; zeros
 * behind the last column and the last token. Four pieces are under way at once: their latency is all
 * that this costs. */
template <int N>
static __device__ void keep_tokens(const decode_args &a, unsigned char *panels, int64_t k_first)
{
    const int pieces = a.steps * 8, all = N * pieces;
    for (int first = threadIdx.x; first < all; first += 4 * CONSUMERS) {
        float4 f[4][2];
#pragma unroll
        for (int u = 0; u < 4; u++) {
            int i = first + u * CONSUMERS, t = i / pieces;
            int64_t k = k_first + (i - t * pieces) * 8, at = t * a.k + k;
            f[u][0] = f[u][1] = make_float4(0, 0, 0, 0);
            if (t >= a.tokens || k >= a.k || a.x_bf16 || !a.x_aligned) continue;
            f[u][0] = ((const float4 *)((const float *)a.x + at))[0];
            f[u][1] = ((const float4 *)((const float *)a.x + at))[1];
        }
#pragma unroll
        for (int u = 0; u < 4; u++) {
            int i = first + u * CONSUMERS, t = i / pieces, piece = i - t * pieces;
            int64_t k = k_first + piece * 8;
            uint4 v = pack(f[u][0], f[u][1]);
            if (i >= all) break;
            if (t < a.tokens && k < a.k && (a.x_bf16 || !a.x_aligned)) v = piece_at(a, t * a.k + k);
            *(uint4 *)(panels + piece / 8 * (N * 128) + t * 128 + ((piece ^ t) & 7) * 16) = v;
        }
    }
}

/* Adds what the parts hold of four rows of a token. */
static __device__ float4 total(uint32_t sums, int parts)
{
    float4 v[MOST_PARTS];
#pragma unroll
    for (int c = 0; c < MOST_PARTS; c++)
        if (c < parts) v[c] = load_from(sums, c);
    float4 s = v[0];
#pragma unroll
    for (int c = 1; c < MOST_PARTS; c++)
        if (c < parts) s = make_float4(s.x + v[c].x, s.y + v[c].y, s.z + v[c].z, s.w + v[c].w);
    return s;
}

static __device__ float4 bias_of(const float *bias, int row, int rows)
{
    float v[4];
#pragma unroll
    for (int e = 0; e < 4; e++) v[e] = bias && row + e < rows ? bias[row + e] : 0;
    return make_float4(v[0], v[1], v[2], v[3]);
}

static __device__ float4 add(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

/* A block finishes its share of a tile's rows, for all tokens. */
static __device__ void finish(const decode_args &a, uint32_t sums, int tile, int rank)
{
    const int share = (a.hidden ? HALF_ROWS : TILE_ROWS) / a.parts, quads = share / 4;
    int m = 0;
    while (!a.hidden && m + 1 < a.n && tile >= a.list[m + 1].first_tile) m++;
    const decode_matrix &to = a.list[m];
    for (int i = threadIdx.x; i < quads * a.tokens; i += CONSUMERS) {
        int token = i / quads, row = rank * share + i % quads * 4;
        uint32_t from = sums + (uint32_t)(token * SUMS_ROW + row) * 4;
        float4 s = total(from, a.parts);
        if (a.hidden) {
            float4 u = total(from + HALF_ROWS * 4, a.parts);
            int n = tile * HALF_ROWS + row;
            s = add(s, bias_of(to.bias, n, to.rows));
            u = add(u, bias_of(a.list[1].bias, n, to.rows));
            uint2 h = make_uint2(
                pack(activate(s.x, a.activation) * u.x, activate(s.y, a.activation) * u.y),
                pack(activate(s.z, a.activation) * u.z, activate(s.w, a.activation) * u.w));
            bf16 *y = a.hidden + (int64_t)token * to.rows + n;
            if (to.quads && n < to.rows) *(uint2 *)y = h;
            if (to.quads) continue;
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (n + e < to.rows)
                    ((uint16_t *)y)[e] = (uint16_t)((e < 2 ? h.x : h.y) >> e % 2 * 16);
        } else {
            int n = (tile - to.first_tile) * TILE_ROWS + row;
            float *y = to.y + (int64_t)token * to.rows + n;
            if (to.bias) s = add(s, bias_of(to.bias, n, to.rows));
            if (to.quads) {
                if (n >= to.rows) continue;
                if (a.accumulate) s = add(*(const float4 *)y, s);
                *(float4 *)y = s;
                continue;
            }
            const float v[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (n + e < to.rows) y[e] = a.accumulate ? y[e] + v[e] : v[e];
        }
    }
}

template <int N>
__global__ void __launch_bounds__(THREADS, blocks_of(N))
    decode_product(const __grid_constant__ decode_args a)
{
    extern __shared__ unsigned char shared[];
    const uint32_t unaligned = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t ring = (unaligned + ALIGN_BYTES - 1) & ~(uint32_t)(ALIGN_BYTES - 1);
    unsigned char *const memory = shared + (ring - unaligned);
    const int stage_bytes = 2 * BOX_BYTES + (a.resident ? 0 : N * STEP * 2);
    const int panels = a.stages * stage_bytes; /* where they begin; then sums, barriers */
    const int sums_at = panels + (a.resident ? a.steps * N * STEP * 2 : 0);
    const uint32_t full = ring + sums_at + N * SUMS_ROW * 4, empty = full + MOST_STAGES * 8;
    const uint32_t ready = empty + MOST_STAGES * 8, done = ready + 8;
    const int rank = (int)blockIdx.x % a.parts, first_tile = (int)blockIdx.x / a.parts;
    const int n_clusters = (int)gridDim.x / a.parts;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t k_first = (int64_t)rank * a.steps * STEP;

    let_next_kernel_start();

    if (warp == CONSUMERS / 32) {
        int stage = 0, parity = 1;
        uint64_t once;
        const int total_steps = (a.tiles - first_tile + n_clusters - 1) / n_clusters * a.steps;
        const int at_once = total_steps < a.stages ? total_steps : a.stages;
        int tile = first_tile, step = 0, m = 0;
        asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
        /* The next step of the weights, and the cursor behind it. */
        auto weights = [&](int s) {
            while (!a.hidden && m + 1 < a.n && tile >= a.list[m + 1].first_tile) m++;
            const uint32_t to = ring + s * stage_bytes, barrier = full + s * 8;
            const int column = (int)k_first + step * STEP;
            const int row = a.hidden ? tile * HALF_ROWS : (tile - a.list[m].first_tile) * TILE_ROWS;
            barrier_expect(barrier, stage_bytes);
            fetch(to, &a.w[m], column, row, barrier, once);
            if (a.hidden) fetch(to + BOX_BYTES, &a.w[1], column, row, barrier, once);
            else fetch(to + BOX_BYTES, &a.w[m], column, row + HALF_ROWS, barrier, once);
            if (++step < a.steps) return;
            step = 0;
            tile += n_clusters;
        };
        auto tokens = [&](int s, int at_step) {
            uint64_t often;
            asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(often));
            fetch(ring + s * stage_bytes + 2 * BOX_BYTES, &a.xs, (int)k_first + at_step * STEP, 0,
                  full + s * 8, often);
        };
        if (lane == 0) {
            for (int s = 0; s < a.stages; s++) {
                barrier_init(full + s * 8, 1);
                barrier_init(empty + s * 8, CONSUMERS / 32);
            }
            barrier_init(ready, a.parts * (CONSUMERS / 32));
            barrier_init(done, a.parts * (CONSUMERS / 32));
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            for (int s = 0; s < at_once; s++) weights(s);
        }
        __syncwarp();
        __syncthreads();
        cluster_arrive();
        if (lane == 0) {
            if (!a.resident) {
                wait_for_previous_kernel();
                for (int s = 0; s < at_once; s++) tokens(s, s % a.steps);
            }
            for (int count = at_once; count < total_steps; count++) {
                if (stage == 0) parity ^= 1;
                barrier_wait(empty + stage * 8, parity);
                int at_step = step;
                weights(stage);
                if (!a.resident) tokens(stage, at_step);
                if (++stage == a.stages) stage = 0;
            }
        }
        __syncwarp();
        cluster_wait();
    } else {
        __syncthreads();
        cluster_arrive();
        wait_for_previous_kernel();
        if (a.resident) {
            keep_tokens<N>(a, memory + panels, k_first);
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            asm volatile("bar.sync 1, 256;" ::: "memory");
        }
        cluster_wait();

        const int group = warp / 4;
        const uint32_t sums = ring + sums_at;
        int stage = 0, last = 0, parity = 0, turn = 0;
        for (int tile = first_tile; tile < a.tiles; tile += n_clusters, turn ^= 1) {
            float d[N / 2];
#pragma unroll
            for (int i = 0; i < N / 2; i++) d[i] = 0;
            for (int step = 0; step < a.steps; step++) {
                const uint32_t at = ring + stage * stage_bytes;
                const uint64_t w = wgmma_place(at + group * BOX_BYTES, 0);
                const uint64_t x = wgmma_place(
                    a.resident ? ring + panels + step * (N * STEP * 2) : at + 2 * BOX_BYTES, 0);
                barrier_wait(full + stage * 8, parity);
                wgmma_begin();
#pragma unroll
                for (int k = 0; k < STEP / 16; k++) /* 16 columns: 32 bytes, in units of 16 */
                    multiply(d, w + k * 2, x + k * 2, 1);
                asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
                /* The products of the last step are done; these run on. */
                asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
                if (step > 0 && lane == 0) barrier_arrive(empty + last * 8);
                last = stage;
                if (++stage == a.stages) {
                    stage = 0;
                    parity ^= 1;
                }
            }
            wgmma_end(d);
            if (lane == 0) barrier_arrive(empty + last * 8);

            /* sums[token][row of the tile], once all have read the last tile's. */
            if (tile != first_tile) barrier_wait_for_cluster(done, turn ^ 1);
            float *p = (float *)(memory + sums_at) + lane % 4 * 2 * SUMS_ROW + warp * 16 + lane / 4;
#pragma unroll
            for (int t = 0; t < N / 8; t++, p += 8 * SUMS_ROW) {
                p[0] = d[t * 4];
                p[SUMS_ROW] = d[t * 4 + 1];
                p[8] = d[t * 4 + 2];
                p[SUMS_ROW + 8] = d[t * 4 + 3];
            }
            __syncwarp();
            if (lane < a.parts) barrier_arrive_in(ready, lane);
            barrier_wait_for_cluster(ready, turn);
            finish(a, sums, tile, rank);
            __syncwarp();
            if (lane < a.parts) barrier_arrive_in(done, lane);
        }
    }
    /* Nobody leaves while others read its sums. */
    __syncwarp();
    cluster_arrive();
    cluster_wait();
}

#endif
