/* experts_stream.cu - products of few rows for each expert (generation), bf16: the weights of each expert
 * that is hit are streamed once, as gemm_stream.cuh streams those of a product.
 *
 * A work item is up to 64 rows of one expert and a tile of its weights: 64 rows of gate and the same of
 * up, or 128 of down. Its columns are cut into 2 or 4 parts by their number alone: a block of a cluster
 * has two of them, one for each warp group. One thread has the copy engine fetch steps of 64 columns into
 * a ring in shared memory, weights and the rows of x beside them; the groups multiply (wgmma, 64 rows of
 * weights times 8, 16, 32 or 64 rows of x); other warps add the parts' sums in ascending order out of the
 * cluster's shared memory while the next item is under way. An expert's items of one tile follow one
 * another, so that more than 64 rows find the weights in L2.
 *
 * So a row's sums have one order, whatever stands beside it and however many rows there are.
 */
#include "op/cuda/experts.cuh"
#include "op/cuda/gemm.cuh"
#include "op/cuda/gemm_copy.cuh"
#include "op/cuda/wgmma.cuh"

namespace
{

enum {
    STEP = 64,     /* columns of a step: 128 bytes of a row */
    BOX_ROWS = 64, /* weight rows of a box */
    BOX_BYTES = BOX_ROWS * STEP * 2,
    STAGE_WEIGHTS = 4 * BOX_BYTES,
    GROUP_BYTES = 8 * STEP * 2, /* of eight rows of x */
    MOST_ROWS = 64,             /* of an item */
    CONSUMERS = 256,
    COPIER = CONSUMERS / 32, /* the warp of the copies */
    FINISHERS = 4,           /* the warps behind it */
    THREADS = CONSUMERS + 32 + FINISHERS * 32,
    PART_SUMS = 2 * BOX_ROWS,     /* sums of a row of x in one part */
    SUMS_ROW = 2 * PART_SUMS + 4, /* and in a block, padded against bank conflicts */
    MOST_STAGES = 8,
    BARRIERS_BYTES = 256,
    ALIGN_BYTES = 1024
};

struct stream_args {
    CUtensorMap w[2][MOST_EXPERTS], x; /* x: boxes of eight rows */
    const float *bias[2][MOST_EXPERTS];
    const expert_lists *lists;
    const int32_t *pair;
    void *y;
    int32_t out, blocks, steps, stages, tiles;
    ct_activation activation;
};

struct hit_list {
    int32_t n, expert[MOST_EXPERTS], first[MOST_EXPERTS], rows[MOST_EXPERTS];
};

struct work_item {
    int expert, tile, first, rows; /* rows 0: there is none */
};

template <int N> __device__ work_item item_at(const hit_list &hits, int tiles, int index)
{
    for (int h = 0; h < hits.n; h++) {
        int groups = (hits.rows[h] + N - 1) / N;
        if (index < groups * tiles) {
            int tile = index / groups, row = (index - tile * groups) * N;
            return {hits.expert[h], tile, hits.first[h] + row, min(N, hits.rows[h] - row)};
        }
        index -= groups * tiles;
    }
    return {0, 0, 0, 0};
}

/* Where a warp group is in the ring. */
struct ring_place {
    int stage, parity;
};

/* A warp group's part of an item's sums, for M rows of x; then into `sums`, once nobody reads there. */
template <int M>
__device__ void multiply_item(const stream_args &a, uint32_t ring, int stage_bytes, int x_bytes,
                              uint32_t full, uint32_t empty, ring_place &at, float *sums,
                              uint32_t done, bool used, int done_parity)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = warp / 4;
    float d[2][M / 2];
#pragma unroll
    for (int i = 0; i < M / 2; i++) d[0][i] = d[1][i] = 0;
    for (int step = 0; step < a.steps; step++) {
        const uint32_t from = ring + at.stage * stage_bytes;
        const uint64_t w = wgmma_place(from + group * 2 * BOX_BYTES, 0);
        const uint64_t x = wgmma_place(from + STAGE_WEIGHTS + group * x_bytes, 0);
        barrier_wait(full + at.stage * 8, at.parity);
        wgmma_begin();
#pragma unroll
        for (int k = 0; k < STEP / 16; k++) { /* 16 columns: 32 bytes, in units of 16 */
            multiply(d[0], w + k * 2, x + k * 2, 1);
            multiply(d[1], w + BOX_BYTES / 16 + k * 2, x + k * 2, 1);
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
        if (lane == 0) barrier_arrive(empty + at.stage * 8);
        if (++at.stage == a.stages) {
            at.stage = 0;
            at.parity ^= 1;
        }
    }
    wgmma_end(d[0]), wgmma_end(d[1]);
    if (used) barrier_wait_for_cluster(done, done_parity);
#pragma unroll
    for (int m = 0; m < 2; m++) {
        float *p = sums + lane % 4 * 2 * SUMS_ROW + group * PART_SUMS + m * BOX_ROWS +
                   warp % 4 * 16 + lane / 4;
#pragma unroll
        for (int t = 0; t < M / 8; t++, p += 8 * SUMS_ROW) {
            p[0] = d[m][t * 4];
            p[SUMS_ROW] = d[m][t * 4 + 1];
            p[8] = d[m][t * 4 + 2];
            p[SUMS_ROW + 8] = d[m][t * 4 + 3];
        }
    }
}

/* Adds what the parts hold of four sums. */
__device__ float4 total(uint32_t sums, int parts)
{
    float4 v[4];
#pragma unroll
    for (int c = 0; c < 4; c++)
        if (c < parts) v[c] = load_from(sums + c % 2 * PART_SUMS * 4, c / 2);
    float4 s = v[0];
#pragma unroll
    for (int c = 1; c < 4; c++)
        if (c < parts) s = make_float4(s.x + v[c].x, s.y + v[c].y, s.z + v[c].z, s.w + v[c].w);
    return s;
}

__device__ float4 biased(float4 s, const float *bias)
{
    if (!bias) return s;
    return make_float4(s.x + bias[0], s.y + bias[1], s.z + bias[2], s.w + bias[3]);
}

/* A block finishes its share of an item's columns. */
template <bool GATED>
__device__ void finish(const stream_args &a, const work_item &item, uint32_t sums, int rank)
{
    const int columns = GATED ? BOX_ROWS : 2 * BOX_ROWS;
    const int share = columns / a.blocks, quads = share / 4, parts = 2 * a.blocks;
    for (int i = (int)threadIdx.x - CONSUMERS - 32; i < quads * item.rows; i += FINISHERS * 32) {
        int row = i / quads, column = rank * share + i % quads * 4;
        int n = item.tile * columns + column; /* `out` is a multiple of 8 */
        if (n >= a.out) continue;
        uint32_t from = sums + (uint32_t)(row * SUMS_ROW + column) * 4;
        const float *bias = a.bias[0][item.expert];
        float4 s = biased(total(from, parts), bias ? bias + n : NULL);
        if (GATED) {
            bias = a.bias[1][item.expert];
            float4 u = biased(total(from + BOX_ROWS * 4, parts), bias ? bias + n : NULL);
            bf16 h[4] = {__float2bfloat16_rn(activated(a.activation, s.x, u.x)),
                         __float2bfloat16_rn(activated(a.activation, s.y, u.y)),
                         __float2bfloat16_rn(activated(a.activation, s.z, u.z)),
                         __float2bfloat16_rn(activated(a.activation, s.w, u.w))};
            *(uint2 *)((bf16 *)a.y + (int64_t)(item.first + row) * a.out + n) = *(const uint2 *)h;
        } else {
            *(float4 *)((float *)a.y + (int64_t)a.pair[item.first + row] * a.out + n) = s;
        }
    }
}

/* The hidden activations in bf16, by row, or the outputs in f32, by pair. Any number of clusters. */
template <int N, bool GATED>
__global__ void __launch_bounds__(THREADS, N <= 16 ? 2 : 1)
    stream_kernel(const __grid_constant__ stream_args a)
{
    extern __shared__ unsigned char shared[];
    __shared__ hit_list hits;
    const uint32_t unaligned = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t ring = (unaligned + ALIGN_BYTES - 1) & ~(uint32_t)(ALIGN_BYTES - 1);
    const int x_bytes = N * STEP * 2, stage_bytes = STAGE_WEIGHTS + 2 * x_bytes;
    const int sums_at = a.stages * stage_bytes;
    float *const sums = (float *)(shared + (ring - unaligned) + sums_at);
    const uint32_t full = ring + sums_at + N * SUMS_ROW * 4, empty = full + MOST_STAGES * 8;
    const uint32_t ready = empty + MOST_STAGES * 8, done = ready + 8;
    const int rank = (int)blockIdx.x % a.blocks, cluster = (int)blockIdx.x / a.blocks;
    const int n_clusters = (int)gridDim.x / a.blocks;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int k_first = rank * 2 * a.steps * STEP;

    /* The lists are two kernels behind `down`'s, whose wait would be for the hidden activations; but the
     * kernel between has waited for them before it let this one begin. */
    if (GATED) wait_for_previous_kernel();
    if (threadIdx.x < MOST_EXPERTS) {
        const int i = (int)threadIdx.x, n = __ldcg(&a.lists->n_hit);
        if (i == 0) hits.n = n;
        if (i < n) {
            const int e = __ldcg(&a.lists->hit[i]), first = __ldcg(&a.lists->first[e]);
            hits.expert[i] = e;
            hits.first[i] = first;
            hits.rows[i] = __ldcg(&a.lists->first[e + 1]) - first;
        }
    }
    if (warp == COPIER && lane == 0) {
        for (int s = 0; s < a.stages; s++) {
            barrier_init(full + s * 8, 1);
            barrier_init(empty + s * 8, CONSUMERS / 32);
        }
        barrier_init(ready, a.blocks * (CONSUMERS / 32) * ARRIVING);
        barrier_init(done, a.blocks * FINISHERS * ARRIVING);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    cluster_arrive();

    if (warp == COPIER) {
        uint64_t once, often;
        asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
        asm("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(often));
        auto weights = [&](int s, const work_item &item, int step) {
            const uint32_t to = ring + s * stage_bytes, barrier = full + s * 8;
            const int row = item.tile * (GATED ? BOX_ROWS : 2 * BOX_ROWS);
            barrier_expect(barrier, STAGE_WEIGHTS + (item.rows + 7) / 8 * 2 * GROUP_BYTES);
#pragma unroll
            for (int half = 0; half < 2; half++)
#pragma unroll
                for (int m = 0; m < 2; m++)
                    fetch(to + (half * 2 + m) * BOX_BYTES, &a.w[GATED ? m : 0][item.expert],
                          k_first + (half * a.steps + step) * STEP,
                          GATED ? row : row + m * BOX_ROWS, barrier, once);
        };
        auto rows = [&](int s, const work_item &item, int step) {
            for (int half = 0; half < 2; half++)
                for (int g = 0; g * 8 < item.rows; g++)
                    fetch(ring + s * stage_bytes + STAGE_WEIGHTS + half * x_bytes + g * GROUP_BYTES,
                          &a.x, k_first + (half * a.steps + step) * STEP, item.first + g * 8,
                          full + s * 8, often);
        };
        int index = cluster, step = 0;
        work_item item = item_at<N>(hits, a.tiles, index);
        auto next = [&] {
            if (++step < a.steps) return;
            step = 0;
            item = item_at<N>(hits, a.tiles, index += n_clusters);
        };
        if (lane == 0) {
            int count = 0;
            for (; count < a.stages && item.rows > 0; count++, next()) weights(count, item, step);
            if (!GATED) wait_for_previous_kernel();
            const int begun = count; /* steps whose weights are on their way: their rows follow */
            index = cluster, step = 0, item = item_at<N>(hits, a.tiles, index);
            for (count = 0; count < begun; count++, next()) rows(count, item, step);
        }
        __syncwarp();
        cluster_wait();
        if (lane == 0) {
            for (int stage = 0, parity = 1; item.rows > 0; next()) {
                if (stage == 0) parity ^= 1;
                barrier_wait(empty + stage * 8, parity);
                weights(stage, item, step);
                rows(stage, item, step);
                if (++stage == a.stages) stage = 0;
            }
            let_next_kernel_start();
        }
    } else if (warp > COPIER) {
        if (!GATED) wait_for_previous_kernel();
        cluster_wait();
        for (int index = cluster, parity = 0;; index += n_clusters, parity ^= 1) {
            const work_item item = item_at<N>(hits, a.tiles, index);
            if (item.rows == 0) break;
            barrier_wait_for_cluster(ready, parity);
            finish<GATED>(a, item, ring + sums_at, rank);
            warp_arrives(done, a.blocks);
        }
    } else {
        if (!GATED) wait_for_previous_kernel();
        cluster_wait();
        ring_place at = {0, 0};
        for (int index = cluster, turn = 0;; index += n_clusters, turn++) {
            const work_item item = item_at<N>(hits, a.tiles, index);
            if (item.rows == 0) break;
            const bool used = turn > 0;
            const int parity = turn & 1 ^ 1;
#define MULTIPLY(M)                                                                                \
    multiply_item<M>(a, ring, stage_bytes, x_bytes, full, empty, at, sums, done, used, parity)
            if (item.rows <= 8) MULTIPLY(8);
            else if (N > 8 && item.rows <= 16) MULTIPLY((N > 8 ? 16 : 8));
            else if (N > 16 && item.rows <= 32) MULTIPLY((N > 16 ? 32 : 8));
            else MULTIPLY((N > 32 ? 64 : 8));
#undef MULTIPLY
            warp_arrives(ready, a.blocks);
        }
    }
    /* Nobody leaves while others read its sums. */
    __syncwarp();
    cluster_arrive();
    cluster_wait();
}

typedef void (*kernel_type)(stream_args);

template <bool GATED> kernel_type kernel_of(int n)
{
    return n == 8    ? stream_kernel<8, GATED>
           : n == 16 ? stream_kernel<16, GATED>
           : n == 32 ? stream_kernel<32, GATED>
                     : stream_kernel<64, GATED>;
}

} // namespace

template <bool GATED>
ct_status stream_product(ct_op_ctx *ctx, const expert_weights &w, const expert_product &p,
                         int64_t tokens, ct_err *err)
{
    gemm_plans *plans = plans_of(ctx->device);
    if (!plans) return ct_fail_memory(err, "plans of products", sizeof *plans);
    stream_args a = {};
    const int columns = GATED ? BOX_ROWS : 2 * BOX_ROWS, all_steps = (p.in + STEP - 1) / STEP;
    const int parts = all_steps >= 16 ? 4 : 2;
    ct_status st = map_matrix(plans, &a.x, p.x, tokens * p.used, p.in, 8, err);
    for (int e = 0; e < p.experts && st == CT_OK; e++)
        for (int m = 0; m < (GATED ? 2 : 1) && st == CT_OK; m++) {
            st = map_matrix(plans, &a.w[m][e], w.data[m][e], p.out, p.in, BOX_ROWS, err);
            a.bias[m][e] = w.bias[m][e];
        }
    if (st != CT_OK) return st;
    a.lists = p.lists;
    a.pair = p.pair;
    a.y = p.y;
    a.out = p.out;
    a.blocks = parts / 2;
    a.steps = (all_steps + parts - 1) / parts;
    a.tiles = (p.out + columns - 1) / columns;
    a.activation = p.activation;

    int n = 8; /* no expert has more rows than there are tokens */
    while (n < MOST_ROWS && n < tokens) n *= 2;
    const size_t stage = STAGE_WEIGHTS + 2 * (size_t)n * STEP * 2;
    const size_t rest = (size_t)n * SUMS_ROW * sizeof(float) + BARRIERS_BYTES + ALIGN_BYTES;
    const size_t room = ((size_t)228 << 10) / (n <= 16 ? 2 : 1) - 2048; /* of a multiprocessor's */
    a.stages = (int32_t)((room - rest) / stage);
    if (a.stages > MOST_STAGES) a.stages = MOST_STAGES;
    const size_t shared = rest + a.stages * stage;
    kernel_type kernel = kernel_of<GATED>(n);
    int64_t clusters = clusters_of(ctx, plans, (const void *)kernel, THREADS, a.blocks, shared);
    cudaLaunchAttribute attr[2] = {};
    cudaLaunchConfig_t config =
        cluster_config(ctx, attr, (unsigned)(clusters * a.blocks), THREADS, shared, a.blocks);
    note(ctx->device, cudaLaunchKernelEx(&config, kernel, a), "stream_kernel");
    return CT_OK;
}

template ct_status stream_product<true>(ct_op_ctx *, const expert_weights &, const expert_product &,
                                        int64_t, ct_err *);
template ct_status stream_product<false>(ct_op_ctx *, const expert_weights &,
                                         const expert_product &, int64_t, ct_err *);
