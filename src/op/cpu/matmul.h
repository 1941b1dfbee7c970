/* matmul.h - y = x w^T with f32 arithmetic, and the block-diagonal product. Part of cpu_<isa>.c,
 * see vec.h.
 *
 * Both x [T, K] and w [N, K] have K innermost, so an element of y is a dot product of two
 * contiguous rows: lane i of an accumulator sums k = i, i + VL, ..., lanes are added in a fixed
 * order at the end of each CT_DEPTH of K. Nothing is packed, w is read where it lies in the mapped
 * file, and an element's bits depend on K alone: not on T, N, the tile, or the threads.
 */
#ifndef CT_OP_CPU_MATMUL_H
#define CT_OP_CPU_MATMUL_H

#include "base/err.h"
#include "op/cpu/cpu.h"
#include "op/cpu/gemm.h"
#include "op/cpu/kernels.h"

enum {
    CT_DEPTH = 1024, /* K of one pass: 4 rows of w then stay in the first-level cache */
    CT_ROWS_X = 96,  /* rows of x of one pass: they stay in the second-level cache */
    CT_ROWS_W = 32,  /* rows of w of one task */
    CT_NR = 4,       /* rows of w of a register tile */
#if VL == 16
    CT_MR = 6, /* rows of x of a register tile: 6 x 4 accumulators of AVX-512's 32 registers */
#else
    CT_MR = 2, /* 2 x 4 of 16 */
#endif
};

/* Sums of the lanes of four vectors, in the same order for each. */
CT_INLINE void sum_lanes4(const vf v[4], float out[4])
{
#if VL == 16 || VL == 8
    __m128 half[4];
    CT_UNROLL
    for (int i = 0; i < 4; i++) {
#if VL == 16
        __m256 wide = _mm256_add_ps(_mm512_castps512_ps256((__m512)v[i]),
                                    _mm512_extractf32x8_ps((__m512)v[i], 1));
#else
        __m256 wide = (__m256)v[i];
#endif
        half[i] = _mm_add_ps(_mm256_castps256_ps128(wide), _mm256_extractf128_ps(wide, 1));
    }
    _MM_TRANSPOSE4_PS(half[0], half[1], half[2], half[3]);
    _mm_storeu_ps(out, _mm_add_ps(_mm_add_ps(half[0], half[2]), _mm_add_ps(half[1], half[3])));
#else
    for (int i = 0; i < 4; i++) out[i] = v_sum(v[i]);
#endif
}

/* y[m][n] += x[m] . w[n] over `depth` for MR rows of x and NR of w (constants after inlining). */
CT_INLINE void dot_tile(int MR, int NR, int64_t depth, const float *x, int64_t ldx, const void *w,
                        ct_dtype dtype, int64_t ldw, float *y, int64_t ldy)
{
    vf acc[CT_MR][CT_NR];
    int64_t k = 0;
    CT_UNROLL
    for (int m = 0; m < MR; m++) CT_UNROLL
    for (int n = 0; n < CT_NR; n++) acc[m][n] = v_set1(0);
    for (; k + VL <= depth; k += VL) {
        vf wk[CT_NR];
        CT_UNROLL
        for (int n = 0; n < NR; n++) wk[n] = v_load_as(w, dtype, n * ldw + k);
        CT_UNROLL
        for (int m = 0; m < MR; m++) {
            vf xk = v_load(x + m * ldx + k);
            CT_UNROLL
            for (int n = 0; n < NR; n++) acc[m][n] = v_fma(xk, wk[n], acc[m][n]);
        }
    }
    if (k < depth) {
        CT_UNROLL
        for (int m = 0; m < MR; m++) {
            vf xk = v_load_part(x + m * ldx + k, depth - k);
            CT_UNROLL
            for (int n = 0; n < NR; n++)
                acc[m][n] = v_fma(xk, v_load_part_as(w, dtype, n * ldw + k, depth - k), acc[m][n]);
        }
    }
    CT_UNROLL
    for (int m = 0; m < MR; m++) {
        float sum[4];
        sum_lanes4(acc[m], sum);
        for (int n = 0; n < NR; n++) y[m * ldy + n] += sum[n];
    }
}

CT_INLINE void dot_rows(int NR, int64_t rows, int64_t depth, const float *x, int64_t ldx,
                        const void *w, ct_dtype dtype, int64_t ldw, float *y, int64_t ldy)
{
    int64_t m = 0;
#define CT_DOT_ROWS(MR)                                                                            \
    for (; rows - m >= MR; m += MR)                                                                \
    dot_tile(MR, NR, depth, x + m * ldx, ldx, w, dtype, ldw, y + m * ldy, ldy)
#if VL == 16
    CT_DOT_ROWS(6);
    CT_DOT_ROWS(4);
#endif
    CT_DOT_ROWS(2);
    CT_DOT_ROWS(1);
#undef CT_DOT_ROWS
}

/* NR rows of w of any type, from element `at` on. */
static void dot_panel(int64_t nr, int64_t rows, int64_t depth, const float *x, int64_t ldx,
                      const ct_matrix *w, int64_t at, bool round_w, float *y, int64_t ldy)
{
    float wide[CT_NR * CT_DEPTH];
    const void *data = (const char *)w->data + (size_t)at * ct_dtype_bytes(w->dtype);
    ct_dtype dtype = w->dtype;
    int64_t ldw = w->cols;
    if (round_w || (dtype != CT_F32 && rows > 4)) { /* widening once pays from a few rows on */
        for (int64_t n = 0; n < nr; n++)
            for (int64_t k = 0; k < depth; k += VL) {
                int64_t count = min_i64(VL, depth - k);
                vf v = v_load_part_as(data, dtype, n * ldw + k, count);
                v_store_part(wide + n * CT_DEPTH + k, round_w ? v_round_bf16(v) : v, count);
            }
        data = wide, dtype = CT_F32, ldw = CT_DEPTH;
    }
    if (nr < CT_NR) {
        for (int64_t n = 0; n < nr; n++) {
            const char *one = (const char *)data + (size_t)(n * ldw) * ct_dtype_bytes(dtype);
            dot_rows(1, rows, depth, x, ldx, one, dtype, ldw, y + n, ldy);
        }
    } else if (dtype == CT_F32) {
        dot_rows(CT_NR, rows, depth, x, ldx, data, CT_F32, ldw, y, ldy);
    } else if (dtype == CT_BF16) {
        dot_rows(CT_NR, rows, depth, x, ldx, data, CT_BF16, ldw, y, ldy);
    } else {
        dot_rows(CT_NR, rows, depth, x, ldx, data, CT_F16, ldw, y, ldy);
    }
}

static ct_status matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    int64_t depth = w->cols, width = w->rows;
    bool bf16 = ctx->compute == CT_COMPUTE_BF16;
    if (bf16) { /* no AMX here: the same roundings, then f32 arithmetic */
        size_t need = (size_t)tokens * (size_t)depth * sizeof(float);
        if (ctx->scratch_bytes < need)
            return ct_fail(err, CT_ERR_LIMIT, "matmul: expected %zu bytes of scratch, got %zu",
                           need, ctx->scratch_bytes);
        float *rounded = ctx->scratch;
        CT_FOR_VECTORS(tokens * depth,
                       v_store_part(rounded + i, v_round_bf16(v_load_part(x + i, n)), n););
        x = rounded;
    }
    bool round_w = bf16 && w->dtype != CT_BF16;
    int64_t blocks = (tokens + CT_ROWS_X - 1) / CT_ROWS_X;
    int64_t panels = (width + CT_ROWS_W - 1) / CT_ROWS_W;
#pragma omp parallel for schedule(static) if (tokens * depth * width >= CT_PARALLEL_PRODUCTS)
    for (int64_t task = 0; task < blocks * panels; task++) {
        int64_t t = task / panels * CT_ROWS_X, rows = min_i64(CT_ROWS_X, tokens - t);
        int64_t begin = task % panels * CT_ROWS_W, end = min_i64(width, begin + CT_ROWS_W);
        for (int64_t m = t; m < t + rows; m++)
            for (int64_t n = begin; n < end; n++)
                y[m * width + n] = (bias ? bias[n] : 0) + (accumulate ? y[m * width + n] : 0);
        for (int64_t k = 0; k < depth; k += CT_DEPTH)
            for (int64_t n = begin; n < end; n += CT_NR)
                dot_panel(min_i64(CT_NR, end - n), rows, min_i64(CT_DEPTH, depth - k),
                          x + t * depth + k, depth, w, n * depth + k, round_w, y + t * width + n,
                          width);
    }
    return CT_OK;
}

/* y[t, b n + j] = bias + sum_i x[t, b n + i] w[b, i, j], in f32 whatever ctx->compute is. */
static ct_status block_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                              const ct_matrix *w, int64_t blocks, const float *bias, ct_err *err)
{
    (void)ctx;
    (void)err;
    enum { ROWS = 48 };
    int64_t n = w->cols, whole = n / VL * VL, width = blocks * n;
    int64_t parts = (tokens + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static) if (tokens * n * width >= CT_PARALLEL_PRODUCTS)
    for (int64_t task = 0; task < parts * blocks; task++) {
        int64_t b = task % blocks, t = task / blocks * ROWS, rows = min_i64(ROWS, tokens - t);
        float *out = y + t * width + b * n;
        const float *in = x + t * width + b * n;
        const void *wb = (const char *)w->data + (size_t)(b * n * n) * ct_dtype_bytes(w->dtype);
        for (int64_t m = 0; m < rows; m++)
            for (int64_t j = 0; j < n; j++) out[m * width + j] = bias ? bias[b * n + j] : 0;
        if (w->dtype == CT_F32) gemm(rows, whole, n, in, width, wb, CT_F32, n, out, width, true);
        else if (w->dtype == CT_BF16)
            gemm(rows, whole, n, in, width, wb, CT_BF16, n, out, width, true);
        else gemm(rows, whole, n, in, width, wb, CT_F16, n, out, width, true);
        for (int64_t m = 0; m < rows; m++)
            for (int64_t j = whole; j < n; j++) { /* no whole vector left */
                float sum = out[m * width + j];
                for (int64_t i = 0; i < n; i++)
                    sum += in[m * width + i] * ct_dtype_get(wb, w->dtype, i * n + j);
                out[m * width + j] = sum;
            }
    }
    return CT_OK;
}

#endif
