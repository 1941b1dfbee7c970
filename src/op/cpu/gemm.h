/* gemm.h - the register tile that attention and the block-diagonal product share.
 *
 * c[m][n] = sum_k a[m][k] b[k][n], k ascending, one fused multiply-add after another in every
 * element: an element has the same bits in a tile of any shape. Part of cpu_<isa>.c, see vec.h.
 */
#ifndef CT_OP_CPU_GEMM_H
#define CT_OP_CPU_GEMM_H

#include "op/cpu/vec.h"

typedef enum gemm_mode {
    GEMM_SET,      /* c = sum */
    GEMM_CONTINUE, /* the sum goes on from c: cutting k in pieces changes nothing */
    GEMM_ADD,      /* c = c + sum */
} gemm_mode;

/* Rows m in 0 .. MR-1 and NV vectors of columns, both constants after inlining. */
CT_INLINE void gemm_tile(int MR, int NV, int64_t depth, const float *a, int64_t lda, int64_t step,
                         const void *b, ct_dtype dtype, int64_t ldb, int64_t column, float *c,
                         int64_t ldc, gemm_mode mode)
{
    vf acc[12][2];
    CT_UNROLL
    for (int m = 0; m < MR; m++) CT_UNROLL
    for (int v = 0; v < NV; v++)
        acc[m][v] = mode == GEMM_CONTINUE ? v_load(c + m * ldc + v * VL) : v_set1(0);
    for (int64_t k = 0; k < depth; k++) {
        vf bk[2];
        CT_UNROLL
        for (int v = 0; v < NV; v++) bk[v] = v_load_as(b, dtype, k * ldb + column + v * VL);
        CT_UNROLL
        for (int m = 0; m < MR; m++) {
            vf am = v_set1(a[m * lda + k * step]);
            CT_UNROLL
            for (int v = 0; v < NV; v++) acc[m][v] = v_fma(am, bk[v], acc[m][v]);
        }
    }
    CT_UNROLL
    for (int m = 0; m < MR; m++) CT_UNROLL
    for (int v = 0; v < NV; v++) {
        float *at = c + m * ldc + v * VL;
        v_store(at, mode == GEMM_ADD ? v_load(at) + acc[m][v] : acc[m][v]);
    }
}

/* All rows for NV vectors of columns. 12 x 2 tiles fill AVX-512's 32 registers, 6 x 2 fill 16. */
CT_INLINE void gemm_columns(int NV, int64_t rows, int64_t depth, const float *a, int64_t lda,
                            int64_t step, const void *b, ct_dtype dtype, int64_t ldb,
                            int64_t column, float *c, int64_t ldc, gemm_mode mode)
{
    int64_t m = 0;
#define CT_ROWS(MR)                                                                                \
    for (; rows - m >= MR; m += MR)                                                                \
    gemm_tile(MR, NV, depth, a + m * lda, lda, step, b, dtype, ldb, column, c + m * ldc, ldc, mode)
#if VL == 16
    CT_ROWS(12);
    CT_ROWS(8);
#else
    CT_ROWS(6);
#endif
    CT_ROWS(4);
    CT_ROWS(2);
    CT_ROWS(1);
#undef CT_ROWS
}

/* a[m][k] is at a + m lda + k step; columns is a multiple of VL. */
CT_INLINE void gemm_strided(int64_t rows, int64_t columns, int64_t depth, const float *a,
                            int64_t lda, int64_t step, const void *b, ct_dtype dtype, int64_t ldb,
                            float *c, int64_t ldc, gemm_mode mode)
{
    int64_t n = 0;
    for (; columns - n >= 2 * VL; n += 2 * VL)
        gemm_columns(2, rows, depth, a, lda, step, b, dtype, ldb, n, c + n, ldc, mode);
    for (; columns - n >= VL; n += VL)
        gemm_columns(1, rows, depth, a, lda, step, b, dtype, ldb, n, c + n, ldc, mode);
}

CT_INLINE void gemm(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t lda,
                    const void *b, ct_dtype dtype, int64_t ldb, float *c, int64_t ldc,
                    gemm_mode mode)
{
    gemm_strided(rows, columns, depth, a, lda, 1, b, dtype, ldb, c, ldc, mode);
}

#endif
