/* cpu_amx.c - y = x w^T in bf16 on the tile unit (AMX): the product of the table "cpu-amx".
 *
 * It computes y^T = w x^T. A tile product takes 16 rows of one operand as they lie, 32 of k each:
 * w, where it is in the mapped file; and 16 rows of the other packed, pairs (k, k + 1) of the 16
 * side by side: x, rounded to bf16 once a call. An element of y is one chain of tile products, k
 * ascending in steps of 32; where K is cut, the chain's f32 value is stored and loaded again,
 * exactly. So its bits depend on its row of x and of w alone.
 */
#include "op/cpu/cpu.h"

#if defined(__AMX_BF16__) && defined(__AVX512F__)
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/err.h"
#include "op/cpu/vec.h"

enum {
    TILE = 16,        /* rows of a tile */
    STEP = 32,        /* k of a tile: 64 bytes of bf16 */
    TILE_WORDS = 512, /* bf16 of a tile: 1 KiB */
    PANEL = 32,       /* rows of w of a task: two tiles */
    DEPTH = 512,      /* k of a pass: 32 rows of w then stay in first-level cache */
    MAX_TOKENS = 128, /* of a task: its part of x stays in second-level cache */
    THREAD_BYTES = PANEL * DEPTH * 2 + PANEL * MAX_TOKENS * 4,
};
_Static_assert((int)THREAD_BYTES <= (int)CT_PACKED_FLOATS * 4, "scratch of a product's thread");

bool ct_amx_usable(void)
{
    /* Linux gives a process the tile registers only when it asks (ARCH_REQ_XCOMP_PERM, tile data).
     */
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("amx-tile") &&
           __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

/* The compiler knows neither that a tile load reads memory nor, in GCC 12, how much a configuration
 * is: stores before either must be told to happen. */
static inline void stores_done(void)
{
    __asm__ volatile("" ::: "memory");
}

/* All eight tiles: 16 rows of 64 bytes. */
static void configure_tiles(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = TILE;
    stores_done();
    _tile_loadconfig(&config);
}

/* Rounds two vectors to bf16: a tile row of 32 in order, as 16 pairs. */
static inline vf round_pairs(vf low, vf high)
{
    return (vf)(__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low);
}

/* A row's elements k .. k + 31 as a tile row of 16 pairs; zeros from `end` on. bf16 is taken as it
 * is. */
static inline vf load_pairs(const void *data, ct_dtype dtype, int64_t at, int64_t k, int64_t end)
{
    vf v = {0};
    int64_t count = end - k;
    if (dtype == CT_BF16) {
        const char *from = (const char *)data + (at + k) * 2;
        if (count >= STEP) memcpy(&v, from, sizeof v);
        else memcpy(&v, from, (size_t)count * 2);
        return v;
    }
    vf low = v_load_part_as(data, dtype, at + k, count);
    vf high = count > VL ? v_load_part_as(data, dtype, at + k + VL, count - VL) : v;
    return round_pairs(low, high);
}

/* Rows [row, row + 16) of data [rows, cols], k from `begin` to `end`, as every second of `tiles`;
 * zeros for rows that are not there. `pairs`: pair by pair instead of row by row. */
static inline void pack_tiles(uint16_t *tiles, const void *data, ct_dtype dtype, int64_t rows,
                              int64_t cols, int64_t row, int64_t begin, int64_t end, bool pairs)
{
    for (int64_t k = begin; k < end; k += STEP, tiles += 2 * TILE_WORDS) {
        vf r[TILE];
        CT_UNROLL
        for (int i = 0; i < TILE; i++) {
            r[i] = v_set1(0);
            if (row + i < rows) r[i] = load_pairs(data, dtype, (row + i) * cols, k, end);
        }
        if (pairs) v_transpose(r);
        CT_UNROLL
        for (int i = 0; i < TILE; i++) memcpy(tiles + i * STEP, &r[i], sizeof r[i]);
    }
}

/* Tiles of up to 32 rows: tile (step, half) is at base + step * per_step + half * per_half bytes,
 * its rows `stride` bytes apart; any alignment. Packed ones lie in the order of their use. */
typedef struct operand {
    const char *base;
    int64_t per_step, per_half, stride;
} operand;

enum { TILE_BYTES = TILE_WORDS * 2, ROW_BYTES = STEP * 2 };

static operand packed_operand(const uint16_t *tiles)
{
    return (operand){(const char *)tiles, 2 * TILE_BYTES, TILE_BYTES, ROW_BYTES};
}

/* The sums of 32 rows of a with 16 or 32 of b: sum[half of b][half of a] are tiles [16 of a, 16 of
 * b]. `resume`: the chains go on from what sum holds. */
static void multiply(float *sum, const operand *a, const operand *b, int64_t b_rows, int64_t steps,
                     bool resume)
{
    if (resume) {
        _tile_loadd(0, sum, 64);
        _tile_loadd(1, sum + 256, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (b_rows <= TILE) {
        for (int64_t s = 0; s < steps; s++) {
            _tile_loadd(4, a->base + s * a->per_step, a->stride);
            _tile_loadd(6, b->base + s * b->per_step, b->stride);
            _tile_loadd(5, a->base + s * a->per_step + a->per_half, a->stride);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 5, 6);
        }
    } else {
        if (resume) {
            _tile_loadd(2, sum + 512, 64);
            _tile_loadd(3, sum + 768, 64);
        } else {
            _tile_zero(2);
            _tile_zero(3);
        }
        for (int64_t s = 0; s < steps; s++) {
            _tile_loadd(4, a->base + s * a->per_step, a->stride);
            _tile_loadd(6, b->base + s * b->per_step, b->stride);
            _tile_loadd(5, a->base + s * a->per_step + a->per_half, a->stride);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, b->base + s * b->per_step + b->per_half, b->stride);
            _tile_dpbf16ps(1, 5, 6);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(2, sum + 512, 64);
        _tile_stored(3, sum + 768, 64);
    }
    _tile_stored(0, sum, 64);
    _tile_stored(1, sum + 256, 64);
}

/* y[token][row ...] = the transposed sum tile + bias + old. */
static void put_tile(float *y, int64_t width, const float *sum, const float *bias, bool accumulate,
                     int64_t tokens, int64_t rows)
{
    vf r[TILE];
    CT_UNROLL
    for (int i = 0; i < TILE; i++) r[i] = v_load(sum + i * TILE);
    v_transpose(r);
    CT_UNROLL
    for (int t = 0; t < TILE; t++)
        if (t < tokens) {
            vf v = r[t];
            if (bias) v = v + v_load_part(bias, rows);
            if (accumulate) v = v + v_load_part(y + t * width, rows);
            v_store_part(y + t * width, v, rows);
        }
}

typedef struct product {
    float *y;
    const ct_matrix *w;
    const float *bias;
    bool accumulate;
    const uint16_t *x_tiles; /* of all tokens, in pairs of tiles */
} product;

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows [row, row + 32) of w with tokens [token, token + count). */
static void product_task(const product *p, int64_t row, int64_t token, int64_t count, char *room)
{
    const ct_matrix *w = p->w;
    int64_t rows = min_i64(PANEL, w->rows - row);
    int64_t per_pair = (w->cols + STEP - 1) / STEP * 2 * TILE_WORDS; /* of x: from 32 tokens on */
    uint16_t *packed = (uint16_t *)(void *)room;
    float *sums = (float *)(void *)(room + PANEL * DEPTH * 2);
    bool in_place = w->dtype == CT_BF16 && rows == PANEL && w->cols % STEP == 0;

    for (int64_t k = 0; k < w->cols; k += DEPTH) {
        int64_t end = min_i64(w->cols, k + DEPTH), steps = (end - k + STEP - 1) / STEP;
        operand of_w = packed_operand(packed);
        if (in_place) {
            int64_t row_bytes = w->cols * 2;
            of_w = (operand){(const char *)w->data + row * row_bytes + k * 2, ROW_BYTES,
                             TILE * row_bytes, row_bytes};
        } else {
            pack_tiles(packed, w->data, w->dtype, w->rows, w->cols, row, k, end, false);
            pack_tiles(packed + TILE_WORDS, w->data, w->dtype, w->rows, w->cols, row + TILE, k, end,
                       false);
        }
        stores_done();
        for (int64_t t = 0; t < count; t += 2 * TILE) {
            operand of_x = packed_operand(p->x_tiles + (token + t) / PANEL * per_pair +
                                          k / STEP * 2 * TILE_WORDS);
            multiply(sums + t * PANEL, &of_w, &of_x, count - t, steps, k > 0);
        }
    }
    for (int64_t t = 0; t < count; t += TILE)
        for (int64_t n = 0; n < rows; n += TILE)
            put_tile(p->y + (token + t) * w->rows + row + n, w->rows, sums + t * PANEL + n * TILE,
                     p->bias ? p->bias + row + n : NULL, p->accumulate, min_i64(TILE, count - t),
                     min_i64(TILE, rows - n));
}

ct_status ct_amx_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    if (ctx->compute != CT_COMPUTE_BF16)
        return ct_ops_cpu_avx512()->matmul(ctx, y, x, tokens, w, bias, accumulate, err);

    int64_t pairs = (tokens + PANEL - 1) / PANEL;
    int64_t per_pair = (w->cols + STEP - 1) / STEP * 2 * TILE_WORDS;
    uintptr_t start = ((uintptr_t)ctx->scratch + 63) & ~(uintptr_t)63;
    int64_t room = (int64_t)ctx->scratch_bytes - (int64_t)(start - (uintptr_t)ctx->scratch);
    int threads = (int)min_i64(omp_get_max_threads(), (room - pairs * per_pair * 2) / THREAD_BYTES);
    if (threads < 1)
        return ct_fail(err, CT_ERR_LIMIT, "matmul: expected %lld bytes of scratch, got %zu",
                       (long long)(pairs * per_pair * 2 + THREAD_BYTES + 64), ctx->scratch_bytes);
    uint16_t *x_tiles = (uint16_t *)start;
    char *rooms = (char *)(x_tiles + pairs * per_pair);

    /* Tile products are some ten times faster than f32: more work until threads pay. */
    if (tokens * w->cols * w->rows < 8 * CT_PARALLEL_PRODUCTS) threads = 1;
    int64_t panels = (w->rows + PANEL - 1) / PANEL;
    int64_t count = panels < 2 * threads ? 64 : MAX_TOKENS;
    int64_t cuts = (tokens + count - 1) / count;
    product p = {y, w, bias, accumulate, x_tiles};

#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < 2 * pairs; i++)
            pack_tiles(x_tiles + i / 2 * per_pair + i % 2 * TILE_WORDS, x, CT_F32, tokens, w->cols,
                       i * TILE, 0, w->cols, true);
        configure_tiles();
#pragma omp for schedule(static)
        for (int64_t task = 0; task < panels * cuts; task++) {
            int64_t token = task / panels * count;
            product_task(&p, task % panels * PANEL, token, min_i64(count, tokens - token),
                         rooms + omp_get_thread_num() * THREAD_BYTES);
        }
        _tile_release();
    }
    return CT_OK;
}

#else

bool ct_amx_usable(void)
{
    return false;
}

ct_status ct_amx_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    return ct_ops_cpu_generic()->matmul(ctx, y, x, tokens, w, bias, accumulate, err);
}

#endif
