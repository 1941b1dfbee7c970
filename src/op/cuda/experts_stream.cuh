/* experts_stream.cuh - products of few rows for each expert (generation), bf16: the weights of each
 * expert that is hit are streamed once, and everything else is small beside that.
 *
 * A work item is two times 16 weight rows of one expert: 16 of gate and the same of up, or 32 of down.
 * They stand on the 16-row side of the tensor cores' product and the expert's rows on its 8-column side.
 * Each lane loads 16 bytes of a weight row, which are the operands of two products in an order of k that
 * weights and activations share. The 8 warps take blocks of k in turn, and their sums are added in the
 * order of the warps: a row's sums have one order, whatever stands beside it and however many rows there
 * are.
 */
#ifndef CT_OP_CUDA_EXPERTS_STREAM_CUH
#define CT_OP_CUDA_EXPERTS_STREAM_CUH

#include "op/cuda/experts.cuh"

enum { STREAM_WARPS = 8, STREAM_ROWS = 32, STREAM_COLS = 16, STREAM_STRIDE = STREAM_COLS + 4 };

__device__ static inline uint4 load_once(const bf16 *p)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
}

/* Where a lane's weight rows begin, and which of each 16 there are: the first 8, the others. */
struct weight_rows {
    const bf16 *at[2];
    bool there[2][2];
};

/* The 16-byte pieces of weights that a lane takes for one block of k. */
struct weight_block {
    enum { PIECES = 2, COLS = 32 * PIECES };
    uint4 v[2][PIECES][2];

    __device__ void load(const weight_rows &rows, int k, int in)
    {
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int j = 0; j < PIECES; j++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    v[m][j][half] = make_uint4(0, 0, 0, 0);
                    if (k + j * 32 < in && rows.there[m][half])
                        v[m][j][half] = load_once(rows.at[m] + half * 8 * (int64_t)in + k + j * 32);
                }
    }
};

/* sums[warp][m][row][col] = the warp's part of the products of up to 8 GROUPS rows. */
template <bool GATED, int GROUPS>
__device__ static void stream_rows(float *sums, const weight_rows &from, const expert_product &p,
                                   int row, int rows)
{
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4, q = lane % 4;
    const uint4 *x = (const uint4 *)p.x;
    uint32_t x_at[GROUPS]; /* where the lane's row begins, in 16 bytes */
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        int x_row = row + min(i * 8 + g, rows - 1);
        if (GATED) x_row = p.pair[x_row] / p.used;
        x_at[i] = (uint32_t)x_row * (uint32_t)(p.in / 8);
    }
    float d[2][GROUPS][4] = {};
    const int step = STREAM_WARPS * weight_block::COLS;
    int k = warp * weight_block::COLS + q * 8;
    const bool ahead = GROUPS < 4; /* otherwise there are no registers for a second block */
    weight_block now, next;
    if (ahead) now.load(from, k, p.in);
#pragma unroll 1
    for (; k < p.in + q * 8; k += step) {
        if (ahead) next.load(from, k + step, p.in);
        else now.load(from, k, p.in);
#pragma unroll
        for (int j = 0; j < weight_block::PIECES; j++)
#pragma unroll
            for (int i = 0; i < GROUPS; i++) {
                uint4 b = make_uint4(0, 0, 0, 0);
                if (i * 8 + g < rows && k + j * 32 < p.in) b = x[x_at[i] + (k + j * 32) / 8];
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    uint4 lo = now.v[m][j][0], hi = now.v[m][j][1];
                    mma_16x8x16(d[m][i], lo.x, hi.x, lo.y, hi.y, b.x, b.y);
                    mma_16x8x16(d[m][i], lo.z, hi.z, lo.w, hi.w, b.z, b.w);
                }
            }
        if (ahead) now = next;
    }
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int i = 0; i < GROUPS; i++)
#pragma unroll
            for (int c = 0; c < 4; c++) {
                int at_row = i * 8 + q * 2 + c % 2, at_col = g + c / 2 * 8;
                sums[((warp * 2 + m) * STREAM_ROWS + at_row) * STREAM_STRIDE + at_col] = d[m][i][c];
            }
}

/* The hidden activations, bf16, or the outputs. `in` and `out` are multiples of 8. Any number of CTAs. */
template <bool GATED>
__global__ void __launch_bounds__(STREAM_WARPS * 32, 2)
    stream_kernel(const __grid_constant__ expert_weights w, const expert_product p)
{
    extern __shared__ float sums[];
    const int cols = GATED ? STREAM_COLS : 2 * STREAM_COLS;
    let_next_begin();
    wait_for_earlier();
    int tiles = (p.out + cols - 1) / cols, items = p.lists->n_hit * tiles;
    for (int item = blockIdx.x; item < items; item += gridDim.x) {
        int e = p.lists->hit[item / tiles], col = item % tiles * cols;
        int first = p.lists->first[e], end = p.lists->first[e + 1];
        weight_rows from;
#pragma unroll
        for (int m = 0; m < 2; m++) {
            int c = GATED ? col : col + m * STREAM_COLS, g = threadIdx.x % 32 / 4;
            from.at[m] = (const bf16 *)w.data[GATED ? m : 0][e] + (int64_t)(c + g) * p.in;
            from.there[m][0] = c < p.out;
            from.there[m][1] = c + 8 < p.out;
        }
        for (int row = first; row < end; row += STREAM_ROWS) {
            int rows = min(end - row, (int)STREAM_ROWS);
            if (rows <= 8) stream_rows<GATED, 1>(sums, from, p, row, rows);
            else if (rows <= 16) stream_rows<GATED, 2>(sums, from, p, row, rows);
            else stream_rows<GATED, 4>(sums, from, p, row, rows);
            __syncthreads();
            for (int i = threadIdx.x; i < rows * cols; i += blockDim.x) {
                int r = i / cols, c = col + i % cols;
                if (c >= p.out) continue;
                float sum[2] = {};
#pragma unroll
                for (int m = 0; m < (GATED ? 2 : 1); m++) {
                    int at = GATED ? m : i % cols / STREAM_COLS;
                    sum[m] = bias_at(w.bias[m][e], c);
#pragma unroll
                    for (int warp = 0; warp < STREAM_WARPS; warp++)
                        sum[m] += sums[((warp * 2 + at) * STREAM_ROWS + r) * STREAM_STRIDE +
                                       i % STREAM_COLS];
                }
                if (GATED)
                    ((bf16 *)p.y)[(int64_t)(row + r) * p.out + c] =
                        __float2bfloat16_rn(activated(p.activation, sum[0], sum[1]));
                else ((float *)p.y)[(int64_t)p.pair[row + r] * p.out + c] = sum[0];
            }
            __syncthreads();
        }
    }
}

template <bool GATED>
static void stream_product(ct_op_ctx *ctx, const expert_weights &w, const expert_product &p)
{
    const int shared = STREAM_WARPS * 2 * STREAM_ROWS * STREAM_STRIDE * (int)sizeof(float);
    note(ctx->device,
         cudaFuncSetAttribute(stream_kernel<GATED>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              shared),
         "stream_kernel");
    LAUNCH_DEPENDENT(ctx, stream_kernel<GATED>, 2 * ctx->device->processors, STREAM_WARPS * 32,
                     shared, w, p);
}

#endif
