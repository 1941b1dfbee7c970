/* gemm_f32.cu - products in f32, exact up to the rounding of each fused multiply-add.
 *
 * An output is one chain of fused multiply-adds over ascending k, whatever tile computes it, so that
 * the tile may be chosen by the number of rows. Matrices of few rows (a router) would leave most of the
 * GPU idle so; they have a kernel of their own, chosen by their shape: a warp for each output, whose
 * lanes each sum every 32nd group of four.
 */
#include "op/cuda/gemm.cuh"

struct f32_args {
    float *y;
    const float *x;
    const void *w;
    const float *bias;
    int64_t tokens, rows, k;
    bool accumulate, quads; /* quads: four elements at once are aligned in x and in w */
};

enum { THIN_ROWS = 64, THIN_TOKENS = 4, THIN_WARPS = 8 };

static __device__ float4 widen(const float *p)
{
    return *(const float4 *)p;
}

static __device__ float4 widen(const bf16 *p)
{
    const __nv_bfloat162 *h = (const __nv_bfloat162 *)p;
    float2 a = __bfloat1622float2(h[0]), b = __bfloat1622float2(h[1]);
    return make_float4(a.x, a.y, b.x, b.y);
}

static __device__ float4 widen(const __half *p)
{
    const __half2 *h = (const __half2 *)p;
    float2 a = __half22float2(h[0]), b = __half22float2(h[1]);
    return make_float4(a.x, a.y, b.x, b.y);
}

/* The next four elements of a row that has `left` more; 0 behind its end. */
template <class T> static __device__ float4 quad_of(const T *p, int64_t left, bool quads)
{
    if (quads && left > 3) return widen(p);
    float4 v = make_float4(0, 0, 0, 0);
    if (left > 0) v.x = (float)p[0];
    if (left > 1) v.y = (float)p[1];
    if (left > 2) v.z = (float)p[2];
    if (left > 3) v.w = (float)p[3];
    return v;
}

static __device__ void finish_f32(const f32_args &a, int64_t token, int64_t row, float sum)
{
    float *y = a.y + token * a.rows + row;
    if (a.bias) sum += a.bias[row];
    *y = a.accumulate ? *y + sum : sum;
}

/* A tile of BM tokens and BN rows of w, BK columns at a time through shared memory (transposed, two
 * buffers); a thread sums TM x TN outputs. */
template <int BM, int BN, int TM, int TN, int BK, class W>
__global__ void __launch_bounds__((BM / TM) * (BN / TN), BM == 128 ? 1 : 2)
    tile_f32(const __grid_constant__ f32_args a)
{
    constexpr int TX = BN / TN, TY = BM / TM, THREADS = TX * TY, KQ = BK / 4;
    constexpr int LX = BM * KQ / THREADS, LW = BN * KQ / THREADS;
    static_assert(LX * THREADS == BM * KQ && LW * THREADS == BN * KQ, "whole loads");
    __shared__ __align__(16) float xs[2][BK][BM + 4], ws[2][BK][BN + 4];
    const int tid = threadIdx.x, tx = tid % TX, ty = tid / TX;
    const int64_t n0 = (int64_t)blockIdx.x * BN, m0 = (int64_t)blockIdx.y * BM;
    const W *w = (const W *)a.w;
    float4 rx[LX], rw[LW];
    float sum[TM][TN] = {};

    /* Rows behind the last are read as the last: what comes of them is not stored. */
    static_assert(THREADS % KQ == 0, "a thread's loads share their columns");
    constexpr int ROWS = THREADS / KQ;
    const float *px[LX];
    const W *pw[LW];
    int64_t k_left = a.k - tid % KQ * 4;
#pragma unroll
    for (int i = 0; i < LX; i++) {
        int64_t m = m0 + tid / KQ + i * ROWS;
        px[i] = a.x + (m < a.tokens ? m : a.tokens - 1) * a.k + tid % KQ * 4;
    }
#pragma unroll
    for (int i = 0; i < LW; i++) {
        int64_t n = n0 + tid / KQ + i * ROWS;
        pw[i] = w + (n < a.rows ? n : a.rows - 1) * a.k + tid % KQ * 4;
    }
    auto load = [&]() {
#pragma unroll
        for (int i = 0; i < LX; i++, px[i - 1] += BK) rx[i] = quad_of(px[i], k_left, a.quads);
#pragma unroll
        for (int i = 0; i < LW; i++, pw[i - 1] += BK) rw[i] = quad_of(pw[i], k_left, a.quads);
        k_left -= BK;
    };
    auto stage = [&](int b) {
#pragma unroll
        for (int i = 0; i < LX; i++) {
            int m = (tid + i * THREADS) / KQ, k = (tid + i * THREADS) % KQ * 4;
            xs[b][k][m] = rx[i].x, xs[b][k + 1][m] = rx[i].y;
            xs[b][k + 2][m] = rx[i].z, xs[b][k + 3][m] = rx[i].w;
        }
#pragma unroll
        for (int i = 0; i < LW; i++) {
            int n = (tid + i * THREADS) / KQ, k = (tid + i * THREADS) % KQ * 4;
            ws[b][k][n] = rw[i].x, ws[b][k + 1][n] = rw[i].y;
            ws[b][k + 2][n] = rw[i].z, ws[b][k + 3][n] = rw[i].w;
        }
    };
    /* Where a thread's i-th output lies: in groups of four, so that a warp reads without conflicts. */
    auto at_m = [&](int i) { return TM >= 4 ? i / 4 * (TY * 4) + ty * 4 + i % 4 : ty * TM + i; };
    auto at_n = [&](int i) { return TN >= 4 ? i / 4 * (TX * 4) + tx * 4 + i % 4 : tx * TN + i; };

    load();
    stage(0);
    __syncthreads();
    int b = 0;
    for (int64_t k0 = 0; k0 < a.k; k0 += BK, b ^= 1) {
        bool more = k0 + BK < a.k;
        if (more) load();
#pragma unroll
        for (int k = 0; k < BK; k++) {
            float fx[TM], fw[TN];
#pragma unroll
            for (int i = 0; i < TM; i++) fx[i] = xs[b][k][at_m(i)];
#pragma unroll
            for (int j = 0; j < TN; j++) fw[j] = ws[b][k][at_n(j)];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sum[i][j] = __fmaf_rn(fx[i], fw[j], sum[i][j]);
        }
        if (more) stage(b ^ 1);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int64_t m = m0 + at_m(i), n = n0 + at_n(j);
            if (m < a.tokens && n < a.rows) finish_f32(a, m, n, sum[i][j]);
        }
}

/* A warp sums one row of w for up to THIN_TOKENS tokens; a block does all rows. */
template <class W>
__global__ void __launch_bounds__(THIN_WARPS * 32) thin_f32(const __grid_constant__ f32_args a)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t m0 = (int64_t)blockIdx.x * THIN_TOKENS;
    const W *w = (const W *)a.w;
    for (int64_t n = warp; n < a.rows; n += THIN_WARPS) {
        float sum[THIN_TOKENS] = {};
#pragma unroll 4
        for (int64_t k = lane * 4; k < a.k; k += 128) {
            float4 v = quad_of(w + n * a.k + k, a.k - k, a.quads);
#pragma unroll
            for (int t = 0; t < THIN_TOKENS; t++) {
                if (m0 + t >= a.tokens) continue;
                float4 u = quad_of(a.x + (m0 + t) * a.k + k, a.k - k, a.quads);
                sum[t] = __fmaf_rn(u.x, v.x, sum[t]);
                sum[t] = __fmaf_rn(u.y, v.y, sum[t]);
                sum[t] = __fmaf_rn(u.z, v.z, sum[t]);
                sum[t] = __fmaf_rn(u.w, v.w, sum[t]);
            }
        }
#pragma unroll
        for (int t = 0; t < THIN_TOKENS; t++) {
            for (int d = 16; d; d /= 2) sum[t] += __shfl_xor_sync(~0u, sum[t], d);
            if (lane == 0 && m0 + t < a.tokens) finish_f32(a, m0 + t, n, sum[t]);
        }
    }
}

template <class W> static void launch_f32(ct_op_ctx *ctx, const f32_args &a)
{
    auto blocks = [&](int64_t bn, int64_t bm) {
        return dim3((unsigned)ceil_div(a.rows, bn), (unsigned)ceil_div(a.tokens, bm));
    };
    if (a.rows <= THIN_ROWS) {
        LAUNCH(ctx, (thin_f32<W>), (unsigned)ceil_div(a.tokens, THIN_TOKENS), THIN_WARPS * 32, 0,
               a);
        return;
    }
    dim3 big = blocks(128, 128), middle = blocks(64, 64), small = blocks(32, 16);
    if (a.tokens <= 32) LAUNCH(ctx, (tile_f32<16, 32, 2, 1, 64, W>), small, 256, 0, a);
    else if ((int64_t)big.x * big.y < 2 * ctx->device->processors)
        LAUNCH(ctx, (tile_f32<64, 64, 8, 4, 16, W>), middle, 128, 0, a);
    else LAUNCH(ctx, (tile_f32<128, 128, 8, 8, 16, W>), big, 256, 0, a);
}

void product_f32(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens, const ct_matrix *w,
                 const float *bias, bool accumulate)
{
    /* A grid has at most 65,535 tiles of tokens; the smallest has 16. */
    const int64_t MOST_TOKENS = 1 << 20;
    for (int64_t first = 0; first < tokens; first += MOST_TOKENS) {
        int64_t m = tokens - first < MOST_TOKENS ? tokens - first : MOST_TOKENS;
        f32_args a = {y + first * w->rows,
                      x + first * w->cols,
                      w->data,
                      bias,
                      m,
                      w->rows,
                      w->cols,
                      accumulate,
                      w->cols % 4 == 0 && is_aligned(x) && is_aligned(w->data)};
        if (w->dtype == CT_F32) launch_f32<float>(ctx, a);
        else if (w->dtype == CT_BF16) launch_f32<bf16>(ctx, a);
        else launch_f32<__half>(ctx, a);
    }
}
