/* experts_plain.cuh - products in f32, and in bf16 for shapes that the tensor cores' kernels do not
 * take: weights of any type, widened; hidden activations in f32.
 *
 * ROUND: activations and weights are rounded to bf16 before they are multiplied. Sums have one order
 * over k: ascending in the tiles (prefill), 32 strided parts and their tree in the dots (generation).
 */
#ifndef CT_OP_CUDA_EXPERTS_PLAIN_CUH
#define CT_OP_CUDA_EXPERTS_PLAIN_CUH

#include "op/cuda/experts.cuh"

enum { PLAIN_TILE = 64, PLAIN_K = 16, PLAIN_THREADS = 256, DOT_ROWS = 4 };

template <bool ROUND> __device__ static inline float taken(float x)
{
    return ROUND ? __bfloat162float(__float2bfloat16_rn(x)) : x;
}

/* The x of a row. */
template <bool GATED> __device__ static inline const float *row_of(const expert_product &p, int row)
{
    int64_t from = GATED ? p.pair[row] / p.used : row;
    return (const float *)p.x + from * p.in;
}

template <int MATS>
__device__ static inline void put(const expert_product &p, const expert_weights &w, int e, int row,
                                  int col, const float (&sum)[MATS])
{
    if (MATS == 2)
        ((float *)p.y)[(int64_t)row * p.out + col] =
            activated(p.activation, sum[0] + bias_at(w.bias[0][e], col),
                      sum[MATS - 1] + bias_at(w.bias[MATS - 1][e], col));
    else ((float *)p.y)[(int64_t)p.pair[row] * p.out + col] = sum[0] + bias_at(w.bias[0][e], col);
}

/* A CTA makes 64 rows x 64 columns, a thread 4 x 4. Grid: tiles of columns, tiles of rows at most. */
template <typename W, int MATS, bool ROUND>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_tiles_kernel(const __grid_constant__ expert_weights w, const expert_product p)
{
    __shared__ float xs[PLAIN_K][PLAIN_TILE + 4], ws[MATS][PLAIN_K][PLAIN_TILE + 4];
    int e = 0, tile = blockIdx.y, row = 0, end = 0;
    for (; e < p.experts; e++) {
        row = p.lists->first[e];
        end = p.lists->first[e + 1];
        int tiles = (end - row + PLAIN_TILE - 1) / PLAIN_TILE;
        if (tile < tiles) break;
        tile -= tiles;
    }
    if (e == p.experts) return;
    row += tile * PLAIN_TILE;
    int col = blockIdx.x * PLAIN_TILE, tr = threadIdx.x / 16, tc = threadIdx.x % 16;
    int r = threadIdx.x / 4, k4 = threadIdx.x % 4 * 4; /* what the thread loads: 4 along k */
    const float *x = row_of<MATS == 2>(p, min(row + r, end - 1));
    const W *from[MATS];
    for (int m = 0; m < MATS; m++)
        from[m] = (const W *)w.data[m][e] + (int64_t)min(col + r, p.out - 1) * p.in;
    float d[MATS][4][4] = {};
    for (int k = 0; k < p.in; k += PLAIN_K) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            bool inside = k + k4 + i < p.in;
            xs[k4 + i][r] = inside ? taken<ROUND>(x[k + k4 + i]) : 0.0f;
#pragma unroll
            for (int m = 0; m < MATS; m++)
                ws[m][k4 + i][r] = inside ? taken<ROUND>(wide(from[m][k + k4 + i])) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < PLAIN_K; i++) {
            float4 a = *(const float4 *)&xs[i][tr * 4];
            float av[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
            for (int m = 0; m < MATS; m++) {
                float4 b = *(const float4 *)&ws[m][i][tc * 4];
                float bv[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
                for (int y = 0; y < 4; y++)
#pragma unroll
                    for (int z = 0; z < 4; z++) d[m][y][z] = fmaf(av[y], bv[z], d[m][y][z]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int y = 0; y < 4; y++)
#pragma unroll
        for (int z = 0; z < 4; z++) {
            if (row + tr * 4 + y >= end || col + tc * 4 + z >= p.out) continue;
            float sum[MATS];
#pragma unroll
            for (int m = 0; m < MATS; m++) sum[m] = d[m][y][z];
            put<MATS>(p, w, e, row + tr * 4 + y, col + tc * 4 + z, sum);
        }
}

/* A warp makes one column for DOT_ROWS rows at a time. Any number of CTAs. */
template <typename W, int MATS, bool ROUND>
__global__ void __launch_bounds__(PLAIN_THREADS)
    plain_dots_kernel(const __grid_constant__ expert_weights w, const expert_product p)
{
    int lane = threadIdx.x % 32, warps = gridDim.x * (PLAIN_THREADS / 32);
    let_next_begin();
    wait_for_earlier();
    int items = p.lists->n_hit * p.out;
    for (int item = blockIdx.x * (PLAIN_THREADS / 32) + threadIdx.x / 32; item < items;
         item += warps) {
        int e = p.lists->hit[item / p.out], col = item % p.out, end = p.lists->first[e + 1];
        const W *from[MATS];
        for (int m = 0; m < MATS; m++) from[m] = (const W *)w.data[m][e] + (int64_t)col * p.in;
        for (int row = p.lists->first[e]; row < end; row += DOT_ROWS) {
            const float *x[DOT_ROWS];
#pragma unroll
            for (int i = 0; i < DOT_ROWS; i++) x[i] = row_of<MATS == 2>(p, min(row + i, end - 1));
            float d[DOT_ROWS][MATS] = {};
#pragma unroll 4
            for (int k = lane; k < p.in; k += 32)
#pragma unroll
                for (int m = 0; m < MATS; m++) {
                    float v = taken<ROUND>(wide(from[m][k]));
#pragma unroll
                    for (int i = 0; i < DOT_ROWS; i++)
                        d[i][m] = fmaf(taken<ROUND>(x[i][k]), v, d[i][m]);
                }
#pragma unroll
            for (int i = 0; i < DOT_ROWS; i++) {
#pragma unroll
                for (int m = 0; m < MATS; m++)
#pragma unroll
                    for (int by = 16; by > 0; by /= 2) d[i][m] += __shfl_xor_sync(~0u, d[i][m], by);
                if (lane == 0 && row + i < end) put<MATS>(p, w, e, row + i, col, d[i]);
            }
        }
    }
}

template <typename W, int MATS, bool ROUND>
static void plain_typed(ct_op_ctx *ctx, const expert_weights &w, const expert_product &p,
                        int64_t rows)
{
    if (ctx->stage == CT_STAGE_GENERATION) {
        LAUNCH_DEPENDENT(ctx, (plain_dots_kernel<W, MATS, ROUND>), 8 * ctx->device->processors,
                         PLAIN_THREADS, 0, w, p);
        return;
    }
    dim3 grid((unsigned)ceil_div(p.out, PLAIN_TILE),
              (unsigned)(ceil_div(rows, PLAIN_TILE) + p.experts));
    LAUNCH(ctx, (plain_tiles_kernel<W, MATS, ROUND>), grid, PLAIN_THREADS, 0, w, p);
}

template <int MATS>
static void plain_product(ct_op_ctx *ctx, const expert_weights &w, const expert_product &p,
                          int64_t rows, ct_dtype dtype)
{
    bool round = ctx->compute == CT_COMPUTE_BF16;
    switch (dtype) {
    case CT_F32:
        if (round) plain_typed<float, MATS, true>(ctx, w, p, rows);
        else plain_typed<float, MATS, false>(ctx, w, p, rows);
        break;
    case CT_F16:
        if (round) plain_typed<__half, MATS, true>(ctx, w, p, rows);
        else plain_typed<__half, MATS, false>(ctx, w, p, rows);
        break;
    case CT_BF16:
        if (round) plain_typed<bf16, MATS, true>(ctx, w, p, rows);
        else plain_typed<bf16, MATS, false>(ctx, w, p, rows);
        break;
    }
}

#endif
