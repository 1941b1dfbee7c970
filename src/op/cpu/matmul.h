/* matmul.h - y = x w^T with f32 arithmetic, and the block-diagonal product. Part of cpu_<isa>.c,
 * see vec.h.
 *
 * w [N, K] is read where it lies in the mapped file, CT_COLUMNS of its rows and CT_DEPTH of K at a
 * time: such a panel is widened and transposed into scratch, and meets many rows of x. An
 * element of y is the sum of its panels' sums in order, each of them k ascending: its bits depend
 * on K alone, not on T, N, the tile, or the threads.
 */
#ifndef CT_OP_CPU_MATMUL_H
#define CT_OP_CPU_MATMUL_H

#include <omp.h>

#include "base/err.h"
#include "op/cpu/cpu.h"
#include "op/cpu/gemm.h"
#include "op/cpu/kernels.h"

enum {
    CT_DEPTH = 256,        /* K of a panel */
    CT_COLUMNS = 2 * VL,   /* N of a panel */
    CT_ROWS_OF_TILE = 12,  /* rows of x that stay in first-level cache while panels pass by */
    CT_ROWS_OF_TASK = 480, /* packing a panel costs as much as 8 of its rows */
    CT_PANELS_OF_TASK = 4, /* at most: packed together they stay in second-level cache */
};

/* panel[k][n] = w[first + n][at + k] for `columns` <= CT_COLUMNS and `depth` <= CT_DEPTH, zero for
 * the other columns. */
CT_INLINE void pack_panel(float *panel, const ct_matrix *w, ct_dtype dtype, int64_t first,
                          int64_t columns, int64_t at, int64_t depth, bool round_w)
{
    for (int64_t n = 0; n < CT_COLUMNS; n += VL)
        for (int64_t k = 0; k < depth; k += VL) {
            int64_t count = min_i64(VL, depth - k);
            vf r[VL];
            CT_UNROLL
            for (int i = 0; i < VL; i++) {
                r[i] = v_set1(0);
                if (n + i < columns)
                    r[i] =
                        v_load_part_as(w->data, dtype, (first + n + i) * w->cols + at + k, count);
                if (round_w) r[i] = v_round_bf16(r[i]);
            }
            v_transpose(r);
            CT_UNROLL
            for (int i = 0; i < VL; i++)
                if (i < count) v_store(panel + (k + i) * CT_COLUMNS + n, r[i]);
        }
}

/* c[0 .. rows)[0 .. columns) += x[0 .. rows)[0 .. depth) panel. */
CT_INLINE void add_panel(float *c, int64_t ldc, const float *x, int64_t ldx, int64_t rows,
                         const float *panel, int64_t columns, int64_t depth)
{
    if (columns == CT_COLUMNS) {
        gemm(rows, CT_COLUMNS, depth, x, ldx, panel, CT_F32, CT_COLUMNS, c, ldc, GEMM_ADD);
        return;
    }
    float sum[CT_ROWS_OF_TILE * CT_COLUMNS]; /* at the right edge of y */
    gemm(rows, CT_COLUMNS, depth, x, ldx, panel, CT_F32, CT_COLUMNS, sum, CT_COLUMNS, GEMM_SET);
    for (int64_t m = 0; m < rows; m++)
        for (int64_t n = 0; n < columns; n++) c[m * ldc + n] += sum[m * CT_COLUMNS + n];
}

/* What a task has of y: rows [row, row + rows), columns [column, column + columns). */
typedef struct product {
    float *y;
    const float *x, *bias;
    const ct_matrix *w;
    bool accumulate, round_w;
    int64_t row, rows, column, columns;
} product;

/* What the sums are added to: bias, and what y held. */
static void start_rows(const product *p, int64_t first, int64_t rows)
{
    int64_t width = p->w->rows;
    for (int64_t m = first; m < first + rows; m++)
        for (int64_t n = p->column; n < p->column + p->columns; n += VL) {
            int64_t count = min_i64(VL, p->column + p->columns - n);
            vf v = p->accumulate ? v_load_part(p->y + m * width + n, count) : v_set1(0);
            if (p->bias) v = v_load_part(p->bias + n, count) + v;
            v_store_part(p->y + m * width + n, v, count);
        }
}

static void product_task(const product *p, float *panels)
{
    const ct_matrix *w = p->w;
    int64_t end = p->column + p->columns;
    for (int64_t k = 0; k < w->cols; k += CT_DEPTH) {
        int64_t depth = min_i64(CT_DEPTH, w->cols - k);
        for (int64_t n = p->column, i = 0; n < end; n += CT_COLUMNS, i++) {
            float *panel = panels + i * CT_DEPTH * CT_COLUMNS;
            int64_t count = min_i64(CT_COLUMNS, end - n);
            if (w->dtype == CT_F32) pack_panel(panel, w, CT_F32, n, count, k, depth, p->round_w);
            else if (w->dtype == CT_BF16) pack_panel(panel, w, CT_BF16, n, count, k, depth, false);
            else pack_panel(panel, w, CT_F16, n, count, k, depth, p->round_w);
        }
        for (int64_t m = p->row; m < p->row + p->rows; m += CT_ROWS_OF_TILE) {
            int64_t rows = min_i64(CT_ROWS_OF_TILE, p->row + p->rows - m);
            if (k == 0) start_rows(p, m, rows);
            for (int64_t n = p->column, i = 0; n < end; n += CT_COLUMNS, i++)
                add_panel(p->y + m * w->rows + n, w->rows, p->x + m * w->cols + k, w->cols, rows,
                          panels + i * CT_DEPTH * CT_COLUMNS, min_i64(CT_COLUMNS, end - n), depth);
        }
    }
}

static ct_status matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    enum { PACKED = CT_PANELS_OF_TASK * CT_COLUMNS * CT_DEPTH }; /* floats of a thread */
    _Static_assert((int)PACKED <= (int)CT_PACKED_FLOATS,
                   "the scratch of a product must hold its panels");
    bool bf16 = ctx->compute == CT_COMPUTE_BF16;
    int64_t room = (int64_t)(ctx->scratch_bytes / sizeof(float));
    int64_t rounded = bf16 ? (tokens * w->cols + 15) / 16 * 16 : 0;
    int threads = (int)min_i64(omp_get_max_threads(), (room - rounded) / PACKED);
    if (threads < 1)
        return ct_fail(err, CT_ERR_LIMIT, "matmul: expected %lld bytes of scratch, got %zu",
                       (long long)((rounded + PACKED) * 4), ctx->scratch_bytes);
    float *panels = (float *)ctx->scratch + rounded;
    if (bf16) { /* no AMX here: the same roundings, then f32 arithmetic */
        float *into = ctx->scratch;
        CT_FOR_VECTORS(tokens * w->cols,
                       v_store_part(into + i, v_round_bf16(v_load_part(x + i, n)), n););
        x = into;
    }
    if (tokens * w->cols * w->rows < CT_PARALLEL_PRODUCTS) threads = 1;

    /* Tasks for all threads: fewer panels in each where the matrix is narrow, then fewer rows. */
    int64_t all = (w->rows + CT_COLUMNS - 1) / CT_COLUMNS, of_task = all / (2 * threads);
    of_task = of_task < 1 ? 1 : min_i64(of_task, CT_PANELS_OF_TASK);
    int64_t groups = (all + of_task - 1) / of_task;
    int64_t rows = groups < 2 * threads ? 8 * CT_ROWS_OF_TILE : CT_ROWS_OF_TASK;
    int64_t cuts = (tokens + rows - 1) / rows;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t task = 0; task < cuts * groups; task++) {
        int64_t row = task / groups * rows, column = task % groups * of_task * CT_COLUMNS;
        product part = {.y = y,
                        .x = x,
                        .bias = bias,
                        .w = w,
                        .accumulate = accumulate,
                        .round_w = bf16 && w->dtype != CT_BF16,
                        .row = row,
                        .rows = min_i64(rows, tokens - row),
                        .column = column,
                        .columns = min_i64(of_task * CT_COLUMNS, w->rows - column)};
        product_task(&part, panels + (int64_t)omp_get_thread_num() * PACKED);
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
        if (w->dtype == CT_F32)
            gemm(rows, whole, n, in, width, wb, CT_F32, n, out, width, GEMM_CONTINUE);
        else if (w->dtype == CT_BF16)
            gemm(rows, whole, n, in, width, wb, CT_BF16, n, out, width, GEMM_CONTINUE);
        else gemm(rows, whole, n, in, width, wb, CT_F16, n, out, width, GEMM_CONTINUE);
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
