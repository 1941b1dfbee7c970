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
    CT_ROWS_OF_TILE = 12,  /* rows of x that meet a panel together; packed side by side */
    CT_ROWS_OF_TASK = 516, /* packing a panel costs as much as 8 of its rows */
    CT_PANELS_OF_TASK = 4, /* at most; one after another */
    CT_FEW = 4,            /* rows of x up to which a panel is not worth writing down */
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

/* Rows [row, row + rows) of x [.., cols] to tile[k][m], so that a step of k reads one line: rows of
 * x lie a power of two apart and would meet in one set of the cache. */
CT_INLINE void pack_rows(float *tile, const float *x, int64_t cols, int64_t rows, bool round_x)
{
    for (int64_t m = 0; m < rows; m += VL)
        for (int64_t k = 0; k < cols; k += VL) {
            int64_t count = min_i64(VL, cols - k), height = min_i64(VL, rows - m);
            vf r[VL];
            CT_UNROLL
            for (int i = 0; i < VL; i++) {
                r[i] = v_set1(0);
                if (i < height) r[i] = v_load_part(x + (m + i) * cols + k, count);
                if (round_x) r[i] = v_round_bf16(r[i]);
            }
            v_transpose(r);
            CT_UNROLL
            for (int i = 0; i < VL; i++)
                if (i < count) v_store_part(tile + (k + i) * rows + m, r[i], height);
        }
}

/* c[0 .. rows)[0 .. columns) += x[0 .. rows)[0 .. depth) panel; x as pack_rows has it. */
CT_INLINE void add_panel(float *c, int64_t ldc, const float *x, int64_t rows, const float *panel,
                         int64_t columns, int64_t depth)
{
    if (columns == CT_COLUMNS) {
        gemm_strided(rows, CT_COLUMNS, depth, x, 1, rows, panel, CT_F32, CT_COLUMNS, c, ldc,
                     GEMM_ADD);
        return;
    }
    float sum[CT_ROWS_OF_TILE * CT_COLUMNS]; /* at the right edge of y */
    gemm_strided(rows, CT_COLUMNS, depth, x, 1, rows, panel, CT_F32, CT_COLUMNS, sum, CT_COLUMNS,
                 GEMM_SET);
    for (int64_t m = 0; m < rows; m++)
        for (int64_t n = 0; n < columns; n++) c[m * ldc + n] += sum[m * CT_COLUMNS + n];
}

/* What a task has of y: rows [row, row + rows), columns [column, column + columns). */
typedef struct product {
    float *y;
    const float *x, *bias; /* x: tiles of pack_rows */
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

/* A panel stays in first-level cache while all rows of x pass by. */
static void product_task(const product *p, float *panel)
{
    const ct_matrix *w = p->w;
    int64_t end = p->column + p->columns;
    start_rows(p, p->row, p->rows);
    for (int64_t k = 0; k < w->cols; k += CT_DEPTH) {
        int64_t depth = min_i64(CT_DEPTH, w->cols - k);
        for (int64_t n = p->column; n < end; n += CT_COLUMNS) {
            int64_t count = min_i64(CT_COLUMNS, end - n);
            if (w->dtype == CT_F32) pack_panel(panel, w, CT_F32, n, count, k, depth, p->round_w);
            else if (w->dtype == CT_BF16) pack_panel(panel, w, CT_BF16, n, count, k, depth, false);
            else pack_panel(panel, w, CT_F16, n, count, k, depth, p->round_w);
            for (int64_t m = p->row; m < p->row + p->rows; m += CT_ROWS_OF_TILE) {
                int64_t rows = min_i64(CT_ROWS_OF_TILE, p->row + p->rows - m);
                add_panel(p->y + m * w->rows + n, w->rows, p->x + m * w->cols + k * rows, rows,
                          panel, count, depth);
            }
        }
    }
}

/* acc[m] += x[m][at .. end) times every second of the rows of w from `first` on, VL of them. Words of
 * w are turned in registers: lane n then holds row first + 2 n. A word is one f32, or two bf16 that are
 * widened after the turn, half the work. Rows from w->rows on repeat the last. */
CT_INLINE void add_few(int M, ct_dtype dtype, vf acc[CT_FEW], const float *x, const ct_matrix *w,
                       int64_t first, int64_t at, int64_t end)
{
    const int per_word = dtype == CT_BF16 ? 2 : 1, size = 4 / per_word;
    const vi high = (vi){0} + (int32_t)0xFFFF0000;
    const char *rows[VL];
    for (int i = 0; i < VL; i++)
        rows[i] = (const char *)w->data + min_i64(first + 2 * i, w->rows - 1) * w->cols * size;
    for (int64_t k = at; k < end; k += VL * per_word) {
        int64_t count = min_i64(VL * per_word, end - k);
        vf r[VL];
        CT_UNROLL
        for (int i = 0; i < VL; i++) {
            r[i] = v_set1(0);
            if (count == VL * per_word) memcpy(&r[i], rows[i] + k * size, sizeof r[i]);
            else memcpy(&r[i], rows[i] + k * size, (size_t)(count * size));
        }
        v_transpose(r);
        CT_UNROLL
        for (int i = 0; i < VL; i++)
            for (int part = 0; part < per_word; part++) {
                int64_t j = i * per_word + part;
                if (j >= count) break;
                vf column = r[i];
                if (dtype == CT_BF16) column = part ? (vf)((vi)r[i] & high) : (vf)((vu)r[i] << 16);
                CT_UNROLL
                for (int m = 0; m < M; m++)
                    acc[m] = v_fma(v_set1(x[m * w->cols + k + j]), column, acc[m]);
            }
    }
}

/* Columns [first, first + CT_COLUMNS) of y for M rows of x, with the sums of product_task. First the
 * even rows of w, then the odd ones: two rows that share a page of memory and are read side by side
 * look to the processor like no order at all, and it fetches nothing ahead. */
CT_INLINE void few_rows(int M, ct_dtype dtype, const product *p, int64_t first)
{
    const ct_matrix *w = p->w;
    int64_t columns = min_i64(CT_COLUMNS, w->rows - first);
    for (int64_t odd = 0; odd < 2 && odd < columns; odd++)
        for (int64_t k = 0; k < w->cols; k += CT_DEPTH) {
            vf acc[CT_FEW];
            CT_UNROLL
            for (int m = 0; m < M; m++) acc[m] = v_set1(0);
            add_few(M, dtype, acc, p->x, w, first + odd, k, min_i64(w->cols, k + CT_DEPTH));
            for (int m = 0; m < M; m++) {
                float sum[VL];
                v_store(sum, acc[m]);
                for (int64_t n = odd; n < columns; n += 2)
                    p->y[m * w->rows + first + n] += sum[n / 2];
            }
        }
}

/* y = x w^T for 1 to CT_FEW rows of x: panels are not written down, each is used once. */
static void few_matmul(const product *p, int threads)
{
    const ct_matrix *w = p->w;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < w->rows; first += CT_COLUMNS) {
        product part = *p;
        part.column = first;
        part.columns = min_i64(CT_COLUMNS, w->rows - first);
        start_rows(&part, 0, p->rows);
#define CT_FEW_ROWS(M)                                                                             \
    case M:                                                                                        \
        if (w->dtype == CT_BF16) few_rows(M, CT_BF16, p, first);                                   \
        else few_rows(M, CT_F32, p, first);                                                        \
        break
        switch (p->rows) {
            CT_FEW_ROWS(1);
            CT_FEW_ROWS(2);
            CT_FEW_ROWS(3);
            CT_FEW_ROWS(4);
        }
#undef CT_FEW_ROWS
    }
}

static ct_status matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    enum { PANEL = CT_COLUMNS * CT_DEPTH }; /* floats of a thread */
    _Static_assert((int)PANEL <= (int)CT_PACKED_FLOATS,
                   "the scratch of a product must hold its panels");
    bool bf16 = ctx->compute == CT_COMPUTE_BF16; /* no AMX here: its roundings, then f32 */
    int64_t room = (int64_t)(ctx->scratch_bytes / sizeof(float));
    int64_t packed = (tokens * w->cols + 15) / 16 * 16;
    int threads = (int)min_i64(omp_get_max_threads(), (room - packed) / PANEL);
    if (threads < 1)
        return ct_fail(err, CT_ERR_LIMIT, "matmul: expected %lld bytes of scratch, got %zu",
                       (long long)((packed + PANEL) * 4), ctx->scratch_bytes);
    float *tiles = ctx->scratch, *panels = tiles + packed;
    if (tokens * w->cols * w->rows < CT_PARALLEL_PRODUCTS) threads = 1;
    if (tokens <= CT_FEW && !bf16 && w->dtype != CT_F16) {
        product all = {
            .y = y, .x = x, .bias = bias, .w = w, .accumulate = accumulate, .rows = tokens};
        few_matmul(&all, threads);
        return CT_OK;
    }

    /* Columns for all threads, fewer panels in a task where the matrix is narrow; where that is not
     * enough the rows are cut as well. */
    int64_t all = (w->rows + CT_COLUMNS - 1) / CT_COLUMNS, of_task = all / (2 * threads);
    of_task = of_task < 1 ? 1 : min_i64(of_task, CT_PANELS_OF_TASK);
    int64_t groups = (all + of_task - 1) / of_task;
    int64_t most = groups < 2 * threads ? 8 * CT_ROWS_OF_TILE : CT_ROWS_OF_TASK;
    int64_t tiles_of_x = (tokens + CT_ROWS_OF_TILE - 1) / CT_ROWS_OF_TILE;
    int64_t cuts = (tokens + most - 1) / most;
    int64_t rows = (tiles_of_x + cuts - 1) / cuts * CT_ROWS_OF_TILE;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t m = 0; m < tokens; m += CT_ROWS_OF_TILE)
            pack_rows(tiles + m * w->cols, x + m * w->cols, w->cols,
                      min_i64(CT_ROWS_OF_TILE, tokens - m), bf16);
#pragma omp for schedule(static) collapse(2)
        for (int64_t group = 0; group < groups; group++)
            for (int64_t row = 0; row < tokens; row += rows) {
                int64_t column = group * of_task * CT_COLUMNS;
                product part = {.y = y,
                                .x = tiles,
                                .bias = bias,
                                .w = w,
                                .accumulate = accumulate,
                                .round_w = bf16 && w->dtype != CT_BF16,
                                .row = row,
                                .rows = min_i64(rows, tokens - row),
                                .column = column,
                                .columns = min_i64(of_task * CT_COLUMNS, w->rows - column)};
                product_task(&part, panels + (int64_t)omp_get_thread_num() * PANEL);
            }
    }
    return CT_OK;
}

/* out[m, j] = bias + sum_i in[m, i] w[b, i, j] for block b; rows of out and in are so far apart. */
CT_INLINE void block_product(float *out, int64_t out_stride, const float *in, int64_t in_stride,
                             int64_t rows, const ct_matrix *w, int64_t b, const float *bias)
{
    int64_t n = w->cols, whole = n / VL * VL;
    const void *wb = (const char *)w->data + (size_t)(b * n * n) * ct_dtype_bytes(w->dtype);
    for (int64_t m = 0; m < rows; m++)
        for (int64_t j = 0; j < n; j++) out[m * out_stride + j] = bias ? bias[b * n + j] : 0;
    if (w->dtype == CT_F32)
        gemm(rows, whole, n, in, in_stride, wb, CT_F32, n, out, out_stride, GEMM_CONTINUE);
    else if (w->dtype == CT_BF16)
        gemm(rows, whole, n, in, in_stride, wb, CT_BF16, n, out, out_stride, GEMM_CONTINUE);
    else gemm(rows, whole, n, in, in_stride, wb, CT_F16, n, out, out_stride, GEMM_CONTINUE);
    for (int64_t m = 0; m < rows; m++)
        for (int64_t j = whole; j < n; j++) { /* no whole vector left */
            float sum = out[m * out_stride + j];
            for (int64_t i = 0; i < n; i++)
                sum += in[m * in_stride + i] * ct_dtype_get(wb, w->dtype, i * n + j);
            out[m * out_stride + j] = sum;
        }
}

/* y[t, b n + j] = bias + sum_i x[t, b n + i] w[b, i, j], in f32 whatever ctx->compute is. */
static ct_status block_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                              const ct_matrix *w, int64_t blocks, const float *bias, ct_err *err)
{
    (void)ctx;
    (void)err;
    enum { ROWS = 48 };
    int64_t n = w->cols, width = blocks * n, parts = (tokens + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(static) if (tokens * n * width >= CT_PARALLEL_PRODUCTS)
    for (int64_t task = 0; task < parts * blocks; task++) {
        int64_t b = task % blocks, t = task / blocks * ROWS;
        block_product(y + t * width + b * n, width, x + t * width + b * n, width,
                      min_i64(ROWS, tokens - t), w, b, bias);
    }
    return CT_OK;
}

#endif
