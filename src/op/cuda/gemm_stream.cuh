/* gemm_stream.cuh - the kernel of bf16 products for few tokens: the weights are read once, as fast as
 * memory gives them.
 *
 * The columns are cut into 1, 2, 4 or 8 parts by the weights' shape alone, and the parts lie with the
 * blocks of a cluster. In a block one thread has the copy engine fetch steps of 64 columns into a ring in
 * shared memory, two boxes of 64 rows each; two warp groups multiply one box each (wgmma, 64 rows of
 * weights times N tokens). Where tokens are many, a block has one part, and its groups the two halves of a
 * tile of 128 rows, so that x is fetched for more weights. Where they are few, a block has two parts, one
 * for each group, of 64 rows: clusters of two blocks fill a GPU whose multiprocessors come in uneven
 * groups, and tiles of half the size spread evenly over them.
 *
 * Up to 32 tokens in f32 are rounded into shared memory once and stay there; more are rounded by a kernel
 * in front, and steps of them come with the weights, as they do where x is bf16 already. The parts' sums
 * are added in ascending order out of the cluster's shared memory, by warps of their own: the products go
 * on with the next tile meanwhile, as the loads do. Clusters go from tile to tile.
 *
 * So the order of every sum follows from the weights' shape alone: neither the number of tokens, nor the
 * GPU, nor which matrices share a launch, changes a bit. That an element's sum over 16 columns has the
 * same bits for every N of wgmma is tested.
 *
 * Kernels start before the one in front of them has ended (programmatic dependent launch): they fetch
 * weights, which no kernel of a pass writes, and only then wait for it.
 */
#ifndef CT_OP_CUDA_GEMM_STREAM_CUH
#define CT_OP_CUDA_GEMM_STREAM_CUH

#include "op/cuda/gemm.cuh"
#include "op/cuda/gemm_copy.cuh"
#include "op/cuda/wgmma.cuh"

enum {
    TILE_ROWS = 128,
    HALF_ROWS = TILE_ROWS / 2, /* of a box, of a warp group */
    STEP = 64,                 /* columns of a step: 128 bytes of a row */
    BOX_BYTES = HALF_ROWS * STEP * 2,
    CONSUMERS = 256,
    COPIER = CONSUMERS / 32, /* the warp of the copies; behind it those that finish tiles */
    MOST_STAGES = 12,
    MOST_PARTS = 8,            /* of the columns */
    MOST_LIST = 8,             /* matrices of a launch */
    MOST_TOKENS = 128,         /* of a launch */
    MOST_SPLIT = 16,           /* tokens for which a block's warp groups have a part each */
    MOST_RESIDENT = 32,        /* tokens that are kept in shared memory, */
    RESIDENT_BYTES = 64 << 10, /* and what they may take there */
    SUMS_ROW = TILE_ROWS + 4,  /* floats of a token's sums, padded against bank conflicts */
    BARRIERS_BYTES = 256,
    ALIGN_BYTES = 1024,
    SHARED_OF_SM = 228 << 10,
    SHARED_MOST = 227 << 10
};

/* Warps that finish tiles, and how many tiles' sums there is room for. */
static constexpr __host__ __device__ int finishers_of(int tokens)
{
    return tokens <= 16 ? 2 : tokens <= 32 ? 4 : 8;
}

static constexpr __host__ __device__ int buffers_of(int tokens)
{
    return tokens <= 32 ? 2 : 1;
}

static constexpr __host__ __device__ int threads_of(int tokens)
{
    return CONSUMERS + 32 + finishers_of(tokens) * 32;
}

static constexpr __host__ __device__ size_t sums_bytes(int tokens)
{
    return (size_t)buffers_of(tokens) * tokens * SUMS_ROW * sizeof(float);
}

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
    int32_t blocks; /* of a cluster: parts, or half of them where warp groups split columns */
    bool
        split; /* the warp groups of a block have two parts of the columns, not two boxes of rows */
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

/* Zeros in place of the tokens that there are not: panels of N rows for each step. */
template <int N> static __device__ void clear_tokens(const decode_args &a, unsigned char *panels)
{
    const int pieces = (a.split ? 2 : 1) * a.steps * 8;
    for (int i = a.tokens * pieces + threadIdx.x; i < N * pieces; i += CONSUMERS) {
        int t = i / pieces, piece = i - t * pieces;
        *(uint4 *)(panels + piece / 8 * (N * 128) + t * 128 + ((piece ^ t) & 7) * 16) =
            make_uint4(0, 0, 0, 0);
    }
}

/* Rounds this block's columns of all tokens into the panels; zeros behind the last column. Four pieces
 * are under way at once: their latency is all that this costs. */
template <int N>
static __device__ void keep_tokens(const decode_args &a, unsigned char *panels, int64_t k_first)
{
    const int pieces = (a.split ? 2 : 1) * a.steps * 8, all = a.tokens * pieces;
    for (int first = threadIdx.x; first < all; first += 4 * CONSUMERS) {
        float4 f[4][2];
#pragma unroll
        for (int u = 0; u < 4; u++) {
            int i = first + u * CONSUMERS, t = i / pieces;
            int64_t k = k_first + (i - t * pieces) * 8, at = t * a.k + k;
            f[u][0] = f[u][1] = make_float4(0, 0, 0, 0);
            if (i >= all || k >= a.k || a.x_bf16 || !a.x_aligned) continue;
            f[u][0] = ((const float4 *)((const float *)a.x + at))[0];
            f[u][1] = ((const float4 *)((const float *)a.x + at))[1];
        }
#pragma unroll
        for (int u = 0; u < 4; u++) {
            int i = first + u * CONSUMERS, t = i / pieces, piece = i - t * pieces;
            int64_t k = k_first + piece * 8;
            uint4 v = pack(f[u][0], f[u][1]);
            if (i >= all) break;
            if (k < a.k && (a.x_bf16 || !a.x_aligned)) v = piece_at(a, t * a.k + k);
            *(uint4 *)(panels + piece / 8 * (N * 128) + t * 128 + ((piece ^ t) & 7) * 16) = v;
        }
    }
}

/* Adds what the parts hold of four rows of a token. */
static __device__ float4 total(uint32_t sums, const decode_args &a)
{
    float4 v[MOST_PARTS];
#pragma unroll
    for (int c = 0; c < MOST_PARTS; c++)
        if (c < a.parts)
            v[c] = a.split ? load_from(sums + c % 2 * HALF_ROWS * 4, c / 2) : load_from(sums, c);
    float4 s = v[0];
#pragma unroll
    for (int c = 1; c < MOST_PARTS; c++)
        if (c < a.parts) s = make_float4(s.x + v[c].x, s.y + v[c].y, s.z + v[c].z, s.w + v[c].w);
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

/* A block finishes its share of a tile's rows, for all tokens, once `ready` says that the sums are there.
 * What y holds is on its way before that. */
template <int N>
static __device__ void finish(const decode_args &a, uint32_t sums, int tile, int rank,
                              uint32_t ready, int parity)
{
    const int workers = finishers_of(N) * 32, own = (int)threadIdx.x - CONSUMERS - 32;
    const int rows = a.split ? HALF_ROWS : TILE_ROWS, of_gate = a.hidden ? rows / 2 : rows;
    const int share = of_gate / a.blocks, quads = share / 4;
    int m = 0;
    while (!a.hidden && m + 1 < a.n && tile >= a.list[m + 1].first_tile) m++;
    const decode_matrix &to = a.list[m];
    const int first_row = (a.hidden ? tile : tile - to.first_tile) * of_gate + rank * share;
    float4 before = make_float4(0, 0, 0, 0);
    auto held = [&](int i) {
        int n = first_row + i % quads * 4;
        bool is = a.accumulate && to.quads && i < quads * a.tokens && n < to.rows;
        if (is) before = *(const float4 *)(to.y + (int64_t)(i / quads) * to.rows + n);
    };
    held(own);
    barrier_wait_for_cluster(ready, parity);
    for (int i = own; i < quads * a.tokens; i += workers) {
        int token = i / quads, row = rank * share + i % quads * 4, n = first_row + i % quads * 4;
        uint32_t from = sums + (uint32_t)(token * SUMS_ROW + row) * 4;
        float4 s = total(from, a);
        if (to.bias) s = add(s, bias_of(to.bias, n, to.rows));
        if (a.hidden) {
            float4 u = total(from + of_gate * 4, a);
            if (a.list[1].bias) u = add(u, bias_of(a.list[1].bias, n, to.rows));
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
            float *y = to.y + (int64_t)token * to.rows + n;
            if (to.quads) {
                if (a.accumulate) s = add(before, s);
                if (n < to.rows) *(float4 *)y = s;
                held(i + workers);
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
__global__ void __launch_bounds__(threads_of(N), blocks_of(N))
    decode_product(const __grid_constant__ decode_args a)
{
    extern __shared__ unsigned char shared[];
    const uint32_t unaligned = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t ring = (unaligned + ALIGN_BYTES - 1) & ~(uint32_t)(ALIGN_BYTES - 1);
    unsigned char *const memory = shared + (ring - unaligned);
    const int halves = a.split ? 2 : 1; /* parts of the columns in a block */
    const int stage_bytes = 2 * BOX_BYTES + (a.resident ? 0 : halves * N * STEP * 2);
    const int panels = a.stages * stage_bytes; /* where they begin; then sums, barriers */
    const int sums_at = panels + (a.resident ? halves * a.steps * N * STEP * 2 : 0);
    const uint32_t full = ring + sums_at + (uint32_t)sums_bytes(N), empty = full + MOST_STAGES * 8;
    const uint32_t ready = empty + MOST_STAGES * 8,
                   done = ready + 2 * 8; /* of each buffer of sums */
    const int rank = (int)blockIdx.x % a.blocks, first_tile = (int)blockIdx.x / a.blocks;
    const int n_clusters = (int)gridDim.x / a.blocks;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t k_first = (int64_t)rank * halves * a.steps * STEP;

    let_next_kernel_start();

    if (warp == COPIER) {
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
            const int column = (int)k_first + step * STEP, other = column + a.steps * STEP;
            barrier_expect(barrier, stage_bytes);
            if (a.split && a.hidden) {
                const int row = tile * (HALF_ROWS / 2);
                fetch(to, &a.w[0], column, row, barrier, once);
                fetch(to + BOX_BYTES / 2, &a.w[1], column, row, barrier, once);
                fetch(to + BOX_BYTES, &a.w[0], other, row, barrier, once);
                fetch(to + BOX_BYTES / 2 * 3, &a.w[1], other, row, barrier, once);
            } else if (a.split) {
                const int row = (tile - a.list[m].first_tile) * HALF_ROWS;
                fetch(to, &a.w[m], column, row, barrier, once);
                fetch(to + BOX_BYTES, &a.w[m], other, row, barrier, once);
            } else if (a.hidden) {
                fetch(to, &a.w[0], column, tile * HALF_ROWS, barrier, once);
                fetch(to + BOX_BYTES, &a.w[1], column, tile * HALF_ROWS, barrier, once);
            } else {
                const int row = (tile - a.list[m].first_tile) * TILE_ROWS;
                fetch(to, &a.w[m], column, row, barrier, once);
                fetch(to + BOX_BYTES, &a.w[m], column, row + HALF_ROWS, barrier, once);
            }
            if (++step < a.steps) return;
            step = 0;
            tile += n_clusters;
        };
        auto tokens = [&](int s, int at_step) {
            uint64_t often;
            asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(often));
            for (int h = 0; h < halves; h++)
                fetch(ring + s * stage_bytes + 2 * BOX_BYTES + h * N * STEP * 2, &a.xs,
                      (int)k_first + (h * a.steps + at_step) * STEP, 0, full + s * 8, often);
        };
        if (lane == 0) {
            for (int s = 0; s < a.stages; s++) {
                barrier_init(full + s * 8, 1);
                barrier_init(empty + s * 8, CONSUMERS / 32);
            }
            for (int b = 0; b < buffers_of(N); b++) {
                barrier_init(ready + b * 8, a.blocks * (CONSUMERS / 32) * ARRIVING);
                barrier_init(done + b * 8, a.blocks * finishers_of(N) * ARRIVING);
            }
            asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
            for (int s = 0; s < at_once; s++) weights(s);
        }
        __syncwarp();
        __syncthreads();
        cluster_arrive();
        if (lane == 0 && !a.resident) {
            wait_for_previous_kernel();
            for (int s = 0; s < at_once; s++) tokens(s, s % a.steps);
        }
        __syncwarp();
        cluster_wait();
        if (lane == 0) {
            for (int count = at_once; count < total_steps; count++) {
                if (stage == 0) parity ^= 1;
                barrier_wait(empty + stage * 8, parity);
                int at_step = step;
                weights(stage);
                if (!a.resident) tokens(stage, at_step);
                if (++stage == a.stages) stage = 0;
            }
        }
    } else if (warp > COPIER) {
        __syncthreads();
        cluster_arrive();
        wait_for_previous_kernel();
        cluster_wait();
        int turn = 0;
        for (int tile = first_tile; tile < a.tiles; tile += n_clusters, turn++) {
            const int b = turn % buffers_of(N), parity = turn / buffers_of(N) & 1;
            finish<N>(a, ring + sums_at + b * N * SUMS_ROW * 4, tile, rank, ready + b * 8, parity);
            warp_arrives(done + b * 8, a.blocks);
        }
    } else {
        __syncthreads();
        cluster_arrive();
        if (a.resident) clear_tokens<N>(a, memory + panels);
        wait_for_previous_kernel();
        if (a.resident) {
            keep_tokens<N>(a, memory + panels, k_first);
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            asm volatile("bar.sync 1, 256;" ::: "memory");
        }
        cluster_wait();

        const int group = warp / 4, half = a.split ? group : 0;
        int stage = 0, last = 0, parity = 0, turn = 0;
        for (int tile = first_tile; tile < a.tiles; tile += n_clusters, turn++) {
            float d[N / 2];
#pragma unroll
            for (int i = 0; i < N / 2; i++) d[i] = 0;
            for (int step = 0; step < a.steps; step++) {
                const uint32_t at = ring + stage * stage_bytes;
                const uint64_t w = wgmma_place(at + group * BOX_BYTES, 0);
                const uint64_t x = wgmma_place(
                    a.resident ? ring + panels + (half * a.steps + step) * (N * STEP * 2)
                               : at + 2 * BOX_BYTES + half * (N * STEP * 2),
                    0);
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

            /* sums[token][row of the tile], once all have read what stood there. */
            const int b = turn % buffers_of(N), times = turn / buffers_of(N);
            if (times > 0) barrier_wait_for_cluster(done + b * 8, (times & 1) ^ 1);
            float *p = (float *)(memory + sums_at) + b * N * SUMS_ROW + lane % 4 * 2 * SUMS_ROW +
                       warp * 16 + lane / 4;
#pragma unroll
            for (int t = 0; t < N / 8; t++, p += 8 * SUMS_ROW) {
                p[0] = d[t * 4];
                p[SUMS_ROW] = d[t * 4 + 1];
                p[8] = d[t * 4 + 2];
                p[SUMS_ROW + 8] = d[t * 4 + 3];
            }
            warp_arrives(ready + b * 8, a.blocks);
        }
    }
    /* Nobody leaves while others read its sums. */
    __syncwarp();
    cluster_arrive();
    cluster_wait();
}

#endif
