/* cpu_amx.c - y = x w^T in bf16 on the tile unit (AMX), and the gated feed-forward made of it: the
 * products of the table "cpu-amx".
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
#include "op/cpu/attention.h"
#include "op/cpu/vec.h"
#include "op/parts.h"

enum {
    TILE = 16,         /* rows of a tile */
    STEP = 32,         /* k of a tile: 64 bytes of bf16 */
    TILE_WORDS = 512,  /* bf16 of a tile: 1 KiB */
    PANEL = 32,        /* rows of w of a task: two tiles */
    DEPTH = 1024,      /* k of a pass: 32 rows of w take 64 KiB of the second-level cache */
    MAX_TOKENS = 512,  /* of a task, fewer where K is long: */
    X_BYTES = 3 << 19, /* its part of x stays in second-level cache while all panels pass by */
    FEW_TOKENS = 32,   /* up to so many, rows of w come from memory in an order of their own */
    /* From so many on, rows of w are copied into the order of their use: as they lie, 2 KB apart, they fall
     * into few sets of the first-level cache, and the second-level cache may be another program's, too. */
    MANY_TOKENS = 128,
    /* Of a thread: packed rows of w and sums, of both matrices of a gated feed-forward. */
    PACKED_BYTES = 2 * PANEL * DEPTH * 2,
    THREAD_BYTES = PACKED_BYTES + 2 * PANEL * MAX_TOKENS * 4,
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

/* 16 rows of data [rows, cols] from `row` on, `apart` from each other, k from `begin` to `end`, as every
 * second of `tiles`; zeros for rows that are not there. `pairs`: pair by pair instead of row by row. */
static inline void pack_tiles(uint16_t *tiles, const void *data, ct_dtype dtype, int64_t rows,
                              int64_t cols, int64_t row, int64_t apart, int64_t begin, int64_t end,
                              bool pairs)
{
    for (int64_t k = begin; k < end; k += STEP, tiles += 2 * TILE_WORDS) {
        vf r[TILE];
        CT_UNROLL
        for (int i = 0; i < TILE; i++) {
            r[i] = v_set1(0);
            if (row + i * apart < rows)
                r[i] = load_pairs(data, dtype, (row + i * apart) * cols, k, end);
        }
        if (pairs) v_transpose(r);
        CT_UNROLL
        for (int i = 0; i < TILE; i++) memcpy(tiles + i * STEP, &r[i], sizeof r[i]);
    }
}

/* Tiles of up to 32 rows: tile (step, half) is at half[.] + step * per_step bytes, its rows `stride`
 * bytes apart; any alignment. Packed ones lie in the order of their use. */
typedef struct operand {
    const char *half[2];
    int64_t per_step, stride;
} operand;

enum { TILE_BYTES = TILE_WORDS * 2, ROW_BYTES = STEP * 2, SUM = TILE * TILE };

static operand packed_operand(const uint16_t *tiles)
{
    const char *base = (const char *)tiles;
    return (operand){{base, base + TILE_BYTES}, 2 * TILE_BYTES, ROW_BYTES};
}

/* Rows that the thread will need next, fetched from memory line by line while it computes. */
typedef struct ahead {
    const char *base;
    int64_t row_bytes, rows, row, at; /* the next line is at base + row * row_bytes + at */
    int64_t per_step;                 /* lines for each step of 32 k */
} ahead;

static inline void fetch_ahead(ahead *next)
{
    for (int64_t i = 0; i < next->per_step && next->row < next->rows; i++) {
        _mm_prefetch(next->base + next->row * next->row_bytes + next->at, _MM_HINT_T1);
        next->at += 64;
        if (next->at >= next->row_bytes) next->at = 0, next->row++;
    }
}

/* `rows` rows from base on, to be spread over a task of `count` tokens and `cols` of k. */
static ahead ahead_of(const char *base, int64_t rows, int64_t row_bytes, int64_t cols,
                      int64_t count)
{
    int64_t lines = rows * ((row_bytes + 63) / 64);
    int64_t pairs = count > PANEL ? (count + PANEL - 1) / PANEL : 1;
    int64_t steps = (cols + STEP - 1) / STEP * pairs;
    return (ahead){.base = base,
                   .row_bytes = row_bytes,
                   .rows = rows,
                   .per_step = lines > 0 && count > FEW_TOKENS ? (lines + steps - 1) / steps : 0};
}

/* The sums of 32 rows of a with 16 or 32 of b: sum[half of b][half of a] are tiles [16 of a, 16 of
 * b]. `resume`: the chains go on from what sum holds. */
static void multiply(float *sum, const operand *a, const operand *b, int64_t b_rows, int64_t steps,
                     bool resume, ahead *next)
{
    if (resume) {
        _tile_loadd(0, sum, 64);
        _tile_loadd(1, sum + SUM, 64);
    } else {
        _tile_zero(0);
        _tile_zero(1);
    }
    if (b_rows <= TILE) {
        for (int64_t s = 0; s < steps; s++) {
            _tile_loadd(4, a->half[0] + s * a->per_step, a->stride);
            _tile_loadd(6, b->half[0] + s * b->per_step, b->stride);
            _tile_loadd(5, a->half[1] + s * a->per_step, a->stride);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 5, 6);
            fetch_ahead(next);
        }
    } else {
        if (resume) {
            _tile_loadd(2, sum + 2 * SUM, 64);
            _tile_loadd(3, sum + 3 * SUM, 64);
        } else {
            _tile_zero(2);
            _tile_zero(3);
        }
        for (int64_t s = 0; s < steps; s++) {
            _tile_loadd(4, a->half[0] + s * a->per_step, a->stride);
            _tile_loadd(6, b->half[0] + s * b->per_step, b->stride);
            _tile_loadd(5, a->half[1] + s * a->per_step, a->stride);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, b->half[1] + s * b->per_step, b->stride);
            _tile_dpbf16ps(1, 5, 6);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
            fetch_ahead(next);
        }
        _tile_stored(2, sum + 2 * SUM, 64);
        _tile_stored(3, sum + 3 * SUM, 64);
    }
    _tile_stored(0, sum, 64);
    _tile_stored(1, sum + SUM, 64);
    stores_done();
}

/* Whether 32 rows of w are dealt to two tiles as even and odd ones, not as 16 and 16: for few tokens,
 * whose time is that of reading w, see multiply_from_memory. */
static bool alternate(int64_t count)
{
    return count <= FEW_TOKENS;
}

/* Where the sums of row i of 32 are; those of the second tile are `tile` floats behind the first's. */
static inline int64_t sums_of(int64_t i, bool alternates, int64_t tile)
{
    return alternates ? i % 2 * tile + i / 2 * TILE : i / TILE * tile + i % TILE * TILE;
}

/* multiply, one tile of a after the other. So rows of w come from memory fastest: the processor fetches
 * a page ahead where it is read in order, and two rows of w that are read side by side may share one. */
static void multiply_from_memory(float *sum, const operand *a, const operand *b, int64_t b_rows,
                                 int64_t steps, bool resume)
{
    for (int half = 0; half < 2; half++, sum += SUM) {
        const char *rows = a->half[half];
        if (resume) {
            _tile_loadd(0, sum, 64);
            _tile_loadd(2, sum + 2 * SUM, 64);
        } else {
            _tile_zero(0);
            _tile_zero(2);
        }
        if (b_rows <= TILE)
            for (int64_t s = 0; s < steps; s++) {
                _tile_loadd(4, rows + s * a->per_step, a->stride);
                _tile_loadd(6, b->half[0] + s * b->per_step, b->stride);
                _tile_dpbf16ps(0, 4, 6);
            }
        else
            for (int64_t s = 0; s < steps; s++) {
                _tile_loadd(4, rows + s * a->per_step, a->stride);
                _tile_loadd(6, b->half[0] + s * b->per_step, b->stride);
                _tile_dpbf16ps(0, 4, 6);
                _tile_loadd(7, b->half[1] + s * b->per_step, b->stride);
                _tile_dpbf16ps(2, 4, 7);
            }
        _tile_stored(0, sum, 64);
        _tile_stored(2, sum + 2 * SUM, 64);
    }
    stores_done();
}

/* x as tiles of pairs: 32 tokens take `per_pair` words, each step of k two tiles of 16 tokens. */
typedef struct packed {
    uint16_t *tiles;
    int64_t tokens, per_pair;
} packed;

static int64_t pair_words(int64_t cols)
{
    return (cols + STEP - 1) / STEP * 2 * TILE_WORDS;
}

static operand packed_at(const packed *x, int64_t token, int64_t k)
{
    return packed_operand(x->tiles + token / PANEL * x->per_pair + k / STEP * 2 * TILE_WORDS);
}

/* Rounds x [tokens, cols] to bf16 tiles; called by all threads of a team. */
static void pack_tokens(const packed *to, const float *x, int64_t cols)
{
#pragma omp for schedule(static)
    for (int64_t i = 0; i < (to->tokens + TILE - 1) / TILE; i++)
        pack_tiles(to->tiles + i / 2 * to->per_pair + i % 2 * TILE_WORDS, x, CT_F32, to->tokens,
                   cols, i * TILE, 1, 0, cols, true);
}

/* Tokens of a task: their part of x stays in second-level cache while the panels pass by. */
static int64_t task_tokens(int64_t tokens, int64_t panels, int64_t cols, int threads)
{
    int64_t count = min_i64(MAX_TOKENS, X_BYTES / (cols * 2) / PANEL * PANEL);
    if (count < 64 || panels < 2 * threads) count = 64;
    return min_i64(count, (tokens + PANEL - 1) / PANEL * PANEL);
}

/* ---- y = x w^T ------------------------------------------------------------------------------- */

typedef struct product {
    float *y;
    const ct_matrix *w;
    const float *bias;
    bool accumulate;
    packed x;
} product;

/* y[token][row ...] = the transposed sums of 16 rows of w + bias + old. */
static void put_tile(float *y, int64_t width, const float *sum, bool alternates, const float *bias,
                     bool accumulate, int64_t tokens, int64_t rows)
{
    vf r[TILE];
    CT_UNROLL
    for (int i = 0; i < TILE; i++)
        r[i] = v_load(sum + (alternates ? i % 2 * SUM + i / 2 * TILE : i * TILE));
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

/* The 32 x 32 sums of rows [row, row + 32) and tokens [token, token + 32) to y. */
static void put_sums(const product *p, const float *sum, bool alternates, int64_t row,
                     int64_t token)
{
    const ct_matrix *w = p->w;
    for (int64_t t = 0; t < PANEL && token + t < p->x.tokens; t += TILE)
        for (int64_t n = 0; n < PANEL && row + n < w->rows; n += TILE)
            put_tile(p->y + (token + t) * w->rows + row + n, w->rows,
                     sum + t * PANEL + sums_of(n, alternates, SUM), alternates,
                     p->bias ? p->bias + row + n : NULL, p->accumulate,
                     min_i64(TILE, p->x.tokens - token - t), min_i64(TILE, w->rows - row - n));
}

/* Rows [row, row + 32) of w with tokens [token, token + count). */
static void product_task(const product *p, int64_t row, int64_t token, int64_t count, char *room)
{
    const ct_matrix *w = p->w;
    uint16_t *tiles = (uint16_t *)(void *)room;
    float *sums = (float *)(void *)(room + PACKED_BYTES);
    int64_t row_bytes = w->cols * (int64_t)ct_dtype_bytes(w->dtype);
    const char *first = (const char *)w->data + row * row_bytes;
    bool in_place =
        w->dtype == CT_BF16 && row + PANEL <= w->rows && w->cols % STEP == 0 && count < MANY_TOKENS;
    bool few = alternate(count);
    int64_t second = few ? 1 : TILE, apart = few ? 2 : 1; /* of the second tile; between its rows */
    ahead next = ahead_of(first + PANEL * row_bytes, min_i64(PANEL, w->rows - row - PANEL),
                          row_bytes, w->cols, count);

    for (int64_t k = 0; k < w->cols; k += DEPTH) {
        int64_t end = min_i64(w->cols, k + DEPTH), steps = (end - k + STEP - 1) / STEP;
        operand of_w = packed_operand(tiles);
        if (in_place) {
            of_w = (operand){
                {first + k * 2, first + second * row_bytes + k * 2}, ROW_BYTES, apart * row_bytes};
        } else {
            for (int half = 0; half < 2; half++)
                pack_tiles(tiles + half * TILE_WORDS, w->data, w->dtype, w->rows, w->cols,
                           row + half * second, apart, k, end, false);
            stores_done();
        }
        for (int64_t t = 0; t < count; t += PANEL) {
            float *sum = sums + (w->cols > DEPTH ? t * PANEL : 0);
            operand of_x = packed_at(&p->x, token + t, k);
            if (few && t == 0) multiply_from_memory(sum, &of_w, &of_x, count, steps, k > 0);
            else multiply(sum, &of_w, &of_x, count - t, steps, k > 0, &next);
            if (end == w->cols) put_sums(p, sum, few, row, token + t);
        }
    }
}

/* All tasks of a product; called by all threads of a team whose tiles are configured. */
static void run_product(const product *p, int threads, char *rooms)
{
    int64_t panels = (p->w->rows + PANEL - 1) / PANEL;
    int64_t count = task_tokens(p->x.tokens, panels, p->w->cols, threads);
    for (int64_t token = 0; token < p->x.tokens; token += count)
#pragma omp for schedule(static) nowait
        for (int64_t panel = 0; panel < panels; panel++)
            product_task(p, panel * PANEL, token, min_i64(count, p->x.tokens - token),
                         rooms + omp_get_thread_num() * THREAD_BYTES);
#pragma omp barrier
}

/* How a call uses its scratch: x's tiles, then a room for each thread. */
typedef struct plan {
    uint16_t *x_tiles;
    char *rooms;
    int threads;
} plan;

static ct_status plan_scratch(const ct_op_ctx *ctx, int64_t tokens, int64_t cols, int64_t work,
                              plan *out, ct_err *err)
{
    int64_t x_bytes = (tokens + PANEL - 1) / PANEL * pair_words(cols) * 2;
    uintptr_t start = ((uintptr_t)ctx->scratch + 63) & ~(uintptr_t)63;
    int64_t room = (int64_t)ctx->scratch_bytes - (int64_t)(start - (uintptr_t)ctx->scratch);
    int threads = (int)min_i64(omp_get_max_threads(), (room - x_bytes) / THREAD_BYTES);
    if (threads < 1)
        return ct_fail(err, CT_ERR_LIMIT, "matmul: expected %lld bytes of scratch, got %zu",
                       (long long)(x_bytes + THREAD_BYTES + 64), ctx->scratch_bytes);
    /* Tile products are some ten times faster than f32: more work until threads pay. */
    if (work < 8 * CT_PARALLEL_PRODUCTS) threads = 1;
    *out = (plan){(uint16_t *)start, (char *)start + x_bytes, threads};
    return CT_OK;
}

ct_status ct_amx_matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    if (ctx->compute != CT_COMPUTE_BF16)
        return ct_ops_cpu_avx512()->matmul(ctx, y, x, tokens, w, bias, accumulate, err);
    plan use;
    ct_status st = plan_scratch(ctx, tokens, w->cols, tokens * w->cols * w->rows, &use, err);
    if (st != CT_OK) return st;
    product p = {y, w, bias, accumulate, {use.x_tiles, tokens, pair_words(w->cols)}};
#pragma omp parallel num_threads(use.threads) if (use.threads > 1)
    {
        pack_tokens(&p.x, x, w->cols);
        configure_tiles();
        run_product(&p, use.threads, use.rooms);
        _tile_release();
    }
    return CT_OK;
}

/* ---- the gated feed-forward ------------------------------------------------------------------ */

typedef struct gated {
    const ct_mlp *mlp;
    packed x, hidden; /* hidden: what `down` takes, rounded to bf16 */
} gated;

/* The order that makes pairs of two vectors which round_pairs has put one after the other. */
static inline __m512i pair_order(void)
{
    static const uint16_t order[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                       21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                       11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_loadu_si512(order);
}

/* From the sums of gate and up with 32 tokens: hidden units [row, row + 32), rounded, as tile rows of
 * pairs. `sum`: a tile of gate and one of up for each half of the tokens, then the other rows' (see
 * alternate). Rows of the sums are hidden units already, so nothing is transposed. */
static void put_hidden(const gated *g, const float *sum, bool alternates, int64_t row,
                       int64_t token)
{
    __m512i side_by_side = pair_order();
    uint16_t *tiles =
        g->hidden.tiles + token / PANEL * g->hidden.per_pair + row / STEP * 2 * TILE_WORDS;
    for (int half = 0; half < 2 && token + half * TILE < g->x.tokens; half++, sum += 2 * SUM)
        for (int i = 0; i < PANEL; i += 2) {
            vf h[2];
            for (int j = 0; j < 2; j++) {
                const float *at = sum + sums_of(i + j, alternates, 4 * SUM);
                vf gate = v_load(at), up = v_load(at + SUM);
                if (g->mlp->gate_bias) gate = gate + g->mlp->gate_bias[row + i + j];
                if (g->mlp->up_bias) up = up + g->mlp->up_bias[row + i + j];
                h[j] = (g->mlp->activation == CT_SILU ? v_silu(gate) : v_gelu(gate)) * up;
            }
            __m512i v = (__m512i)round_pairs(h[0], h[1]);
            _mm512_storeu_si512(tiles + half * TILE_WORDS + i * TILE,
                                _mm512_permutexvar_epi16(side_by_side, v));
        }
}

/* Hidden units [row, row + 32) of tokens [token, token + count). */
static void gated_task(const gated *g, int64_t row, int64_t token, int64_t count, char *room)
{
    const ct_matrix *gate = &g->mlp->gate, *up = &g->mlp->up;
    uint16_t *tiles = (uint16_t *)(void *)room;
    float *sums = (float *)(void *)(room + PACKED_BYTES);
    int64_t row_bytes = gate->cols * 2, left = min_i64(PANEL, gate->rows - row - PANEL);
    const char *first[2] = {(const char *)gate->data + row * row_bytes,
                            (const char *)up->data + row * row_bytes};
    bool few = alternate(count);
    int64_t second = few ? 1 : TILE, apart = few ? 2 : 1;
    ahead next[2] = {ahead_of(first[0] + PANEL * row_bytes, left, row_bytes, gate->cols, count),
                     ahead_of(first[1] + PANEL * row_bytes, left, row_bytes, gate->cols, count)};
    for (int64_t k = 0; k < gate->cols; k += DEPTH) {
        int64_t end = min_i64(gate->cols, k + DEPTH), steps = (end - k) / STEP;
        operand of_w[2]; /* 16 rows of gate and of up each */
        for (int64_t part = 0; part < 2; part++) {
            int64_t at = part * second * row_bytes + k * 2;
            of_w[part] = (operand){{first[0] + at, first[1] + at}, ROW_BYTES, apart * row_bytes};
            if (count < MANY_TOKENS) continue;
            uint16_t *to = tiles + part * PANEL * DEPTH;
            pack_tiles(to, gate->data, CT_BF16, gate->rows, gate->cols, row + part * TILE, 1, k,
                       end, false);
            pack_tiles(to + TILE_WORDS, up->data, CT_BF16, gate->rows, gate->cols,
                       row + part * TILE, 1, k, end, false);
            of_w[part] = packed_operand(to);
        }
        stores_done();
        for (int64_t t = 0; t < count; t += PANEL) {
            float *sum = sums + (gate->cols > DEPTH ? t * 2 * PANEL : 0);
            operand of_x = packed_at(&g->x, token + t, k);
            for (int64_t part = 0; part < 2; part++) {
                float *to = sum + part * 4 * SUM;
                if (few && t == 0)
                    multiply_from_memory(to, &of_w[part], &of_x, count, steps, k > 0);
                else multiply(to, &of_w[part], &of_x, count - t, steps, k > 0, &next[part]);
            }
            if (end == gate->cols) put_hidden(g, sum, few, row, token + t);
        }
    }
}

ct_status ct_amx_gated_mlp(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err)
{
    const ct_matrix *gate = &mlp->gate, *up = &mlp->up, *down = &mlp->down;
    bool plain = gate->dtype == CT_BF16 && up->dtype == CT_BF16 && gate->cols % STEP == 0 &&
                 gate->rows % STEP == 0;
    if (ctx->compute != CT_COMPUTE_BF16 || !plain)
        return ct_mlp_by_parts(ct_ops_cpu_amx(), ctx, y, x, tokens, mlp, hidden, err);
    plan use;
    ct_status st =
        plan_scratch(ctx, tokens, gate->cols, 3 * tokens * gate->cols * gate->rows, &use, err);
    if (st != CT_OK) return st;
    /* bf16 for up to 31 tokens that are not there: what a tile beyond the last token is made of
     * reaches no result, and `hidden` has room for it (see op.h). */
    gated g = {mlp,
               {use.x_tiles, tokens, pair_words(gate->cols)},
               {(uint16_t *)(void *)hidden, tokens, pair_words(down->cols)}};
    product p = {y, down, mlp->down_bias, true, g.hidden};
    int64_t panels = gate->rows / PANEL;
    int64_t count = task_tokens(tokens, panels, gate->cols, use.threads);
#pragma omp parallel num_threads(use.threads) if (use.threads > 1)
    {
        pack_tokens(&g.x, x, gate->cols);
        configure_tiles();
        for (int64_t token = 0; token < tokens; token += count)
#pragma omp for schedule(static) nowait
            for (int64_t panel = 0; panel < panels; panel++)
                gated_task(&g, panel * PANEL, token, min_i64(count, tokens - token),
                           use.rooms + omp_get_thread_num() * THREAD_BYTES);
#pragma omp barrier
        run_product(&p, use.threads, use.rooms);
        _tile_release();
    }
    return CT_OK;
}

/* ---- attention ------------------------------------------------------------------------------- */

static void begin_products(void)
{
    configure_tiles();
}

static void end_products(void)
{
    _tile_release();
}

/* Steps of 32 dims of a head. */
static int64_t dim_steps(const attn_tile *tile)
{
    return (tile->args->head_dim + STEP - 1) / STEP;
}

/* Queries as tiles of pairs of dims: [16 pairs (of token and head)][step]. */
static void take_queries(attn_tile *tile, float scale)
{
    int64_t dim = tile->args->head_dim;
    uint16_t *tiles = (uint16_t *)(void *)tile->q;
    for (int64_t p = 0; p < tile->pairs; p += TILE)
        for (int64_t d = 0; d < dim; d += STEP, tiles += TILE_WORDS) {
            vf r[TILE];
            CT_UNROLL
            for (int i = 0; i < TILE; i++) {
                r[i] = v_set1(0);
                if (p + i >= tile->pairs) continue;
                const float *q = pair_query(tile, p + i) + d;
                vf low = v_load_part(q, min_i64(VL, dim - d)), high = v_set1(0);
                if (dim - d > VL) high = v_load_part(q + VL, min_i64(VL, dim - d - VL));
                r[i] = round_pairs(low * scale, high * scale);
            }
            v_transpose(r);
            CT_UNROLL
            for (int i = 0; i < TILE; i++) memcpy(tiles + i * STEP, &r[i], sizeof r[i]);
        }
}

/* Keys are rounded where they lie, row by row; the tile product has keys down and pairs across, and
 * is turned on its way into the scores. */
static void block_scores(const attn_tile *tile, attn_part part, int64_t block)
{
    int64_t dim = tile->args->head_dim, stride = tile->args->kv_heads * dim;
    int64_t steps = dim_steps(tile), row_words = steps * STEP;
    int64_t first = part.first * tile->heads / TILE * TILE;
    int64_t end = (part.first + part.count) * tile->heads;
    const float *k = block_keys(tile, part.first, block);
    uint16_t *keys = (uint16_t *)(void *)tile->kt;
    for (int64_t s = 0; s < CT_KV_BLOCK; s++)
        for (int64_t d = 0; d < dim; d += STEP) {
            vf v = load_pairs(k, CT_F32, s * stride, d, dim);
            memcpy(keys + s * row_words + d, &v, sizeof v);
        }
    stores_done();
    const uint16_t *queries = (const uint16_t *)(const void *)tile->q + first * row_words;
    for (int64_t p = first; p < end; p += TILE, queries += steps * TILE_WORDS) {
        _Alignas(64) float sum[4 * SUM];
        for (int t = 0; t < 4; t += 2) { /* 32 keys at a time */
            const uint16_t *rows = keys + t * TILE * row_words;
            _tile_zero(0);
            _tile_zero(1);
            for (int64_t step = 0; step < steps; step++) {
                _tile_loadd(6, queries + step * TILE_WORDS, 64);
                _tile_loadd(4, rows + step * STEP, row_words * 2);
                _tile_loadd(5, rows + TILE * row_words + step * STEP, row_words * 2);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 5, 6);
            }
            _tile_stored(0, sum + t * SUM, 64);
            _tile_stored(1, sum + (t + 1) * SUM, 64);
        }
        stores_done();
        for (int t = 0; t < 4; t++) {
            vf r[TILE];
            CT_UNROLL
            for (int i = 0; i < TILE; i++) r[i] = v_load(sum + t * SUM + i * TILE);
            v_transpose(r);
            CT_UNROLL
            for (int i = 0; i < TILE; i++)
                v_store(tile->score + (p + i) * CT_KV_BLOCK + t * TILE, r[i]);
        }
    }
}

/* Weights are rounded in place; values as tiles of pairs of keys: [16 dims][32 keys]. */
static void block_values(const attn_tile *tile, attn_part part, int64_t block)
{
    int64_t dim = tile->args->head_dim, stride = tile->args->kv_heads * dim;
    int64_t width = tile->value_width;
    const float *v = block_values_at(tile, part.first, block);
    int64_t from = CT_KV_BLOCK, to = 0; /* what some token sees; the rest's memory may hold NaN */
    for (int64_t t = part.first; t < part.first + part.count; t++) {
        int64_t begin, end;
        visible(tile, t, block, &begin, &end);
        from = min_i64(from, begin);
        if (end > to) to = end;
    }
    __m512i side_by_side = pair_order();
    uint16_t *values = (uint16_t *)(void *)tile->vt;
    for (int64_t s = 0; s < CT_KV_BLOCK; s += 2)
        for (int64_t d = 0; d < dim; d += TILE) {
            int64_t n = min_i64(TILE, dim - d);
            vf even = v_set1(0), odd = v_set1(0);
            if (from <= s && s < to) even = v_load_part(v + s * stride + d, n);
            if (from <= s + 1 && s + 1 < to) odd = v_load_part(v + (s + 1) * stride + d, n);
            _mm512_storeu_si512(
                values + d * CT_KV_BLOCK + s * TILE,
                _mm512_permutexvar_epi16(side_by_side, (__m512i)round_pairs(even, odd)));
        }
    int64_t first = part.first * tile->heads, last = first + part.count * tile->heads;
    for (int64_t p = first; p < last; p++) {
        float *score = tile->score + p * CT_KV_BLOCK;
        vf low = round_pairs(v_load(score), v_load(score + VL));
        vf high = round_pairs(v_load(score + 2 * VL), v_load(score + 3 * VL));
        v_store(score, low);
        v_store(score + VL, high);
    }
    stores_done();
    for (int64_t p = first / TILE * TILE; p < last; p += TILE) {
        const float *score = tile->score + p * CT_KV_BLOCK;
        /* Sums of 16 pairs; where some are of another part, they are kept from going back. */
        int64_t row = width * (int64_t)sizeof(float);
        bool mixed = p < first || (p + TILE > last && last < tile->pairs);
        _tile_loadd(4, score, CT_KV_BLOCK * sizeof(float));
        _tile_loadd(5, score + TILE, CT_KV_BLOCK * sizeof(float));
        for (int64_t d = 0; d < width; d += TILE) {
            float *sum = tile->value + p * width + d;
            const uint16_t *pairs = values + d * CT_KV_BLOCK;
            _tile_loadd(0, sum, row);
            _tile_loadd(6, pairs, 64);
            _tile_loadd(7, pairs + TILE_WORDS, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(0, 5, 7);
            if (!mixed) {
                _tile_stored(0, sum, row);
                continue;
            }
            _Alignas(64) float all[SUM];
            _tile_stored(0, all, 64);
            stores_done();
            for (int64_t i = first > p ? first - p : 0; i < min_i64(TILE, last - p); i++)
                v_store(sum + i * width, v_load(all + i * TILE));
            stores_done();
        }
    }
    stores_done();
}

ct_status ct_amx_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err)
{
    if (ctx->compute != CT_COMPUTE_BF16) return ct_ops_cpu_avx512()->attention(ctx, args, err);
    return attention(ctx, args, err);
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

ct_status ct_amx_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err)
{
    return ct_ops_cpu_generic()->attention(ctx, args, err);
}

ct_status ct_amx_gated_mlp(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err)
{
    return ct_ops_cpu_generic()->gated_mlp(ctx, y, x, tokens, mlp, hidden, err);
}

#endif
