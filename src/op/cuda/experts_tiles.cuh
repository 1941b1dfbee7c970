/* experts_tiles.cuh - products of many rows for each expert (prefill), bf16, on tensor cores: one
 * persistent kernel walks over the tiles of all experts, which it finds from the lists on the device.
 *
 * A tile is 128 rows of one expert times 256 weight rows: 256 output columns, or, gated, 128 of gate and
 * 128 of up, eight of one and eight of the other in turn, so that the thread that has a gate's sum has
 * up's too. Steps of 64 along k pass through shared memory in STAGES buffers; loads run ahead of the
 * products across the ends of tiles. A row of 64 bf16 is 128 bytes in shared memory, its 16-byte pieces
 * permuted by the row (piece ^ row % 8), as the warp groups' products (wgmma) expect.
 *
 * Sums run over k in ascending order within one accumulator, whatever the row's place in the tile.
 */
#ifndef CT_OP_CUDA_EXPERTS_TILES_CUH
#define CT_OP_CUDA_EXPERTS_TILES_CUH

#include "op/cuda/experts.cuh"

enum {
    TILE_WEIGHTS = 256,
    TILE_K = 64,
    STAGES = 4,
    AHEAD = STAGES - 2, /* steps that copies run ahead: products of one step run on into the next */
    TILE_THREADS = 256,
    TILE_GROUP = 8, /* tiles of rows that pass over the weights together */
    A_BYTES = TILE_ROWS * TILE_K * 2,
    STAGE_BYTES = A_BYTES + TILE_WEIGHTS * TILE_K * 2,
    TILES_SHARED = STAGES * STAGE_BYTES + 1024 /* to align the first */
};

/* Which tile: rows [row, end) of an expert, output columns from col on. */
struct tile_at {
    int expert, row, end, col;
};

/* Tile `index` of all: expert by expert; there TILE_GROUP tiles of rows for each tile of columns in
 * turn, so that CTAs that run together read the same weights. */
__device__ static inline tile_at tile_find(const expert_lists *lists, int experts, int index,
                                           int col_tiles, int tile_cols)
{
    int e = 0;
    while (e + 1 < experts && lists->tile[e + 1] * col_tiles <= index) e++;
    int row_tiles = lists->tile[e + 1] - lists->tile[e];
    int rest = index - lists->tile[e] * col_tiles;
    int group = rest / (TILE_GROUP * col_tiles);
    rest -= group * TILE_GROUP * col_tiles;
    int in_group = min(row_tiles - group * TILE_GROUP, (int)TILE_GROUP);
    int row = lists->first[e] + (group * TILE_GROUP + rest % in_group) * TILE_ROWS;
    return tile_at{e, row, lists->first[e + 1], rest / in_group * tile_cols};
}

__device__ static inline void copy_async(uint32_t to, const void *from, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0));
}

/* What a thread copies in each step of k: piece threadIdx % 8 of rows threadIdx / 8 + 32 i. */
template <bool GATED> struct tile_loader {
    const bf16 *a[TILE_ROWS / 32];
    const bf16 *b;
    int rows_left, cols_left; /* of the tile, from the thread's own first row on */
    int k, tile;

    __device__ void begin(const expert_weights &w, const expert_product &p,
                          const expert_lists *lists, int total, int col_tiles)
    {
        k = 0;
        if (tile >= total) return;
        const int tile_cols = GATED ? TILE_WEIGHTS / 2 : TILE_WEIGHTS;
        tile_at at = tile_find(lists, p.experts, tile, col_tiles, tile_cols);
        int r = threadIdx.x / 8;
        rows_left = at.end - at.row - r;
#pragma unroll
        for (int i = 0; i < TILE_ROWS / 32; i++) {
            int from = i * 32 < rows_left ? at.row + r + i * 32 : at.row;
            if (GATED) from = p.pair[from] / p.used;
            a[i] = (const bf16 *)p.x + (int64_t)from * p.in;
        }
        /* Weight row r + 32 i of the tile: gated, matrix (r / 8) % 2, column r / 16 * 8 + r % 8 + 16 i. */
        int c = GATED ? r / 16 * 8 + r % 8 : r;
        int m = GATED ? r / 8 % 2 : 0;
        cols_left = p.out - at.col - c;
        b = (const bf16 *)w.data[m][at.expert] + (int64_t)min(at.col + c, p.out - 1) * p.in;
    }

    /* Starts the copies of the next step into a stage, and moves on. */
    __device__ void step(uint32_t stage, const expert_weights &w, const expert_product &p,
                         const expert_lists *lists, int total, int col_tiles)
    {
        if (tile < total) {
            const int b_step = GATED ? 16 : 32;
            int r = threadIdx.x / 8, piece = threadIdx.x % 8, at = k + piece * 8;
            bool inside = at < p.in;
            uint32_t to = stage + r * 128 + (piece ^ (r & 7)) * 16;
            if (!inside) at = 0;
#pragma unroll
            for (int i = 0; i < TILE_ROWS / 32; i++)
                copy_async(to + i * 32 * 128, a[i] + at, inside && i * 32 < rows_left);
            to += A_BYTES;
#pragma unroll
            for (int i = 0; i < TILE_WEIGHTS / 32; i++) {
                bool there = i * b_step < cols_left;
                const bf16 *from = there ? b + (int64_t)i * b_step * p.in : b;
                copy_async(to + i * 32 * 128, from + at, inside && there);
            }
            k += TILE_K;
            if (k >= p.in) {
                tile += gridDim.x;
                begin(w, p, lists, total, col_tiles);
            }
        }
        asm volatile("cp.async.commit_group;");
    }
};

/* A warp group's sums of 64 rows x 256 weight rows: d[4 j + c] is weight row 8 j + lane % 4 * 2 + c % 2 and
 * row 16 (warp % 4) + lane / 4 + c / 2 * 8. */
typedef float tile_sums[128];

/* What the tensor cores want to know of a matrix in shared memory: rows of 128 bytes, permuted by 8. */
__device__ static inline uint64_t matrix_at(uint32_t at)
{
    return (uint64_t)(at & 0x3ffff) >> 4 | 1ull << 16 | 1024ull >> 4 << 32 | 1ull << 62;
}

#define SUMS_4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUMS_16(i) SUMS_4(i), SUMS_4(i + 4), SUMS_4(i + 8), SUMS_4(i + 12)
#define SUMS_64(i) SUMS_16(i), SUMS_16(i + 16), SUMS_16(i + 32), SUMS_16(i + 48)

/* d = (add ? d : 0) + a b^T over 16 columns; it runs on after the call. */
__device__ static inline void multiply_async(tile_sums &d, uint64_t a, uint64_t b, int add)
{
    asm volatile("{.reg .pred p;\n setp.ne.b32 p, %130, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
                 " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
                 " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
                 " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
                 " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
                 " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
                 " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
                 "%110, %111, "
                 " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "
                 "%125, %126, %127}, "
                 "%128, %129, p, 1, 1, 0, 0;}\n"
                 : SUMS_64(0), SUMS_64(64)
                 : "l"(a), "l"(b), "r"(add));
}

__device__ static inline void tile_multiply(tile_sums &d, uint32_t stage, bool add)
{
    uint64_t a = matrix_at(stage + threadIdx.x / 128 * (64 * 128));
    uint64_t b = matrix_at(stage + A_BYTES);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < TILE_K / 16; k++) /* 16 columns are 32 bytes, in units of 16 */
        multiply_async(d, a + k * 2, b + k * 2, add || k > 0);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most PENDING steps still run. */
template <int PENDING> __device__ static inline void tile_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* No use of the sums moves across this. */
__device__ static inline void tile_settle(tile_sums &d)
{
#pragma unroll
    for (int i = 0; i < 128; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* `in` and `out` are multiples of 8. Any number of CTAs. */
template <bool GATED>
__global__ void __launch_bounds__(TILE_THREADS, 1)
    tiles_kernel(const __grid_constant__ expert_weights w, const expert_product p)
{
    extern __shared__ char memory[];
    __shared__ expert_lists lists;
    for (int i = threadIdx.x; i < (int)(sizeof lists / sizeof(int32_t)); i += blockDim.x)
        ((int32_t *)&lists)[i] = ((const int32_t *)p.lists)[i];
    __syncthreads();
    const int tile_cols = GATED ? TILE_WEIGHTS / 2 : TILE_WEIGHTS;
    int col_tiles = (p.out + tile_cols - 1) / tile_cols;
    int total = lists.tile[p.experts] * col_tiles, steps = (p.in + TILE_K - 1) / TILE_K;
    uint32_t base = ((uint32_t)__cvta_generic_to_shared(memory) + 1023) & ~1023u;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

    tile_loader<GATED> loader;
    loader.tile = blockIdx.x;
    loader.begin(w, p, &lists, total, col_tiles);
    for (int s = 0; s < AHEAD; s++)
        loader.step(base + s * STAGE_BYTES, w, p, &lists, total, col_tiles);
    int now = 0; /* the stage of this step */
    for (int tile = blockIdx.x; tile < total; tile += gridDim.x) {
        tile_at at = tile_find(&lists, p.experts, tile, col_tiles, tile_cols);
        bool busy = at.row + warp / 4 * 64 < at.end; /* else the warp group has no rows */
        tile_sums d;
        for (int s = 0; s < steps; s++) {
            asm volatile("cp.async.wait_group %0;" ::"n"(AHEAD - 1));
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
            __syncthreads(); /* the step has come, and the stage of the last but one is free */
            if (busy) tile_multiply(d, base + now * STAGE_BYTES, s > 0);
            int later = now + AHEAD < STAGES ? now + AHEAD : now + AHEAD - STAGES;
            loader.step(base + later * STAGE_BYTES, w, p, &lists, total, col_tiles);
            tile_wait<1>();
            now = now + 1 < STAGES ? now + 1 : 0;
        }
        tile_wait<0>();
        tile_settle(d);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int r = at.row + warp * 16 + lane / 4 + half * 8;
            if (r >= at.end) continue;
            if (GATED) {
                bf16 *y = (bf16 *)p.y + (int64_t)r * p.out;
                const float *bg = w.bias[0][at.expert], *bu = w.bias[1][at.expert];
#pragma unroll
                for (int j = 0; j < 32; j += 2) {
                    int c = at.col + j * 4 + lane % 4 * 2;
                    if (c >= p.out) continue;
                    float h[2];
#pragma unroll
                    for (int n = 0; n < 2; n++)
                        h[n] = activated(p.activation, d[j * 4 + half * 2 + n] + bias_at(bg, c + n),
                                         d[j * 4 + 4 + half * 2 + n] + bias_at(bu, c + n));
                    *(__nv_bfloat162 *)(y + c) = __floats2bfloat162_rn(h[0], h[1]);
                }
            } else {
                float *y = (float *)p.y + (int64_t)p.pair[r] * p.out;
                const float *bias = w.bias[0][at.expert];
#pragma unroll
                for (int j = 0; j < 32; j++) {
                    int c = at.col + j * 8 + lane % 4 * 2;
                    if (c >= p.out) continue;
                    *(float2 *)(y + c) =
                        make_float2(d[j * 4 + half * 2] + bias_at(bias, c),
                                    d[j * 4 + half * 2 + 1] + bias_at(bias, c + 1));
                }
            }
        }
    }
    asm volatile("cp.async.wait_group 0;");
}

template <bool GATED>
static void tiles_product(ct_op_ctx *ctx, const expert_weights &w, const expert_product &p)
{
    note(ctx->device,
         cudaFuncSetAttribute(tiles_kernel<GATED>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              TILES_SHARED),
         "tiles_kernel");
    LAUNCH(ctx, tiles_kernel<GATED>, ctx->device->processors, TILE_THREADS, TILES_SHARED, w, p);
}

#endif
