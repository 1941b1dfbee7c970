/* attention.h - fused attention: one pass over the keys with online softmax, entropy and l2, and
 * the weight edits inside. Part of cpu_<isa>.c, see vec.h.
 *
 * A task is one tile: up to CT_TILE (token, head) pairs that share a kv head, of tokens of one row, or
 * of neighbouring rows of one token each, which may be forks of one sequence. It walks over the key
 * blocks in ascending order; each block meets all pairs at once that have it in the same memory; the
 * products with keys and values are the including file's (attention_f32.h, cpu_amx.c). Every
 * pair's sums run over keys in ascending order, block by block at absolute positions, and a block
 * that a pair does not see leaves no trace in it: so a pair's bits depend neither on the tile nor
 * on the batch nor on how the prompt was cut, and one decoded token equals the same token in a
 * prefill.
 *
 * With scores in base 2 (s = q k scale log2 e), m their maximum, and
 *   l = sum 2^(s-m),  t = sum 2^(s-m) (s-m),  z = sum 2^(2(s-m)),
 * entropy = log2 l - t/l bits and l2 = sqrt(z)/l. When m grows by g: l and the values are
 * scaled by a = 2^-g, z by a^2, and t becomes a (t - g l).
 *
 * What the light recorder wants comes with it: the peak is where m grew last, with the weight 1/l, and
 * the needle's mass is a part of l that only the needle's blocks add to. Nothing else changes by it.
 */
#ifndef CT_OP_CPU_ATTENTION_H
#define CT_OP_CPU_ATTENTION_H

#include <omp.h>

#include "base/err.h"
#include "op/cpu/cpu.h"
#include "op/cpu/vec.h"

enum { CT_TILE = CT_ATTN_TILE };

/* What a tile keeps of each pair, beside the values. Sums are kept per lane and reduced at the end.
 */
typedef struct pair_sums {
    vf l, t, z, marked; /* marked: the part of l in marked positions */
    float m;
    float needle
        [2];      /* the part of l in the needle, by all weights and by those that the edit keeps */
    int32_t peak; /* where m is; kept for the light recorder */
} pair_sums;

typedef struct attn_tile {
    const ct_attn_args *args;
    const ct_attn_row *row;      /* the first */
    bool forks;                  /* each token is the only one of its row, row[token] */
    int64_t first_token, tokens; /* first_token: of the row */
    int64_t kv_head, first_head, heads, pairs; /* pair = token * heads + head */
    float *q, *score, *value, *kt, *vt;        /* see ct_attn_scratch_floats */
    int64_t value_width;                       /* D rounded up to whole vectors */
    pair_sums *sums;
} attn_tile;

/* Tokens that lie in the same memory, [first, first + count) of a tile's. */
typedef struct attn_part {
    int64_t first, count;
} attn_part;

CT_INLINE const ct_attn_row *token_row(const attn_tile *tile, int64_t token)
{
    return tile->forks ? tile->row + token : tile->row;
}

/* A token's place among those of its row. */
CT_INLINE int64_t place_in_row(const attn_tile *tile, int64_t token)
{
    return tile->forks ? 0 : tile->first_token + token;
}

CT_INLINE int64_t token_position(const attn_tile *tile, int64_t token)
{
    return token_row(tile, token)->seg.position + place_in_row(tile, token);
}

/* The query of a pair, [D]. */
CT_INLINE const float *pair_query(const attn_tile *tile, int64_t pair)
{
    const ct_attn_args *args = tile->args;
    int64_t in_tile = pair / tile->heads;
    int64_t token = token_row(tile, in_tile)->seg.first + place_in_row(tile, in_tile);
    return args->q + (token * args->heads + tile->first_head + pair % tile->heads) * args->head_dim;
}

/* Positions 64b .. 64b+63 of a row's needle as bits. */
CT_INLINE uint64_t needle_bits(const ct_attn_row *row, int64_t block)
{
    uint64_t bits = 0;
    int64_t base = block * CT_KV_BLOCK;
    for (size_t i = 0; i < row->n_needle; i++) {
        int64_t from = row->needle[i].begin - base, to = row->needle[i].end - base;
        if (from >= CT_KV_BLOCK || to <= 0) continue;
        uint64_t below = to >= CT_KV_BLOCK ? UINT64_MAX : (UINT64_C(1) << to) - 1;
        bits |= from > 0 ? below >> from << from : below;
    }
    return bits;
}

/* A block's keys and values of a token and the tile's kv head, [64, G, D]. */
CT_INLINE const float *block_keys(const attn_tile *tile, int64_t token, int64_t block)
{
    return (const float *)token_row(tile, token)->k[block] + tile->args->k_offset +
           tile->kv_head * tile->args->head_dim;
}

CT_INLINE const float *block_values_at(const attn_tile *tile, int64_t token, int64_t block)
{
    return (const float *)token_row(tile, token)->v[block] + tile->args->v_offset +
           tile->kv_head * tile->args->head_dim;
}

/* Bits 64b .. 64b+63 of a row's marks. */
CT_INLINE uint64_t marked_bits(const ct_attn_row *row, int64_t block)
{
    uint64_t bits = 0;
    int64_t base = block * CT_KV_BLOCK, end = row->marked_count - base;
    for (int64_t s = 0; s < CT_KV_BLOCK && s < end; s++)
        bits |= (uint64_t)(row->marked[base + s] != 0) << s;
    return bits;
}

/* The first position that a query sees. */
CT_INLINE int64_t window_begin(const ct_attn_row *row, int64_t position)
{
    return row->window < 0 || row->window > position ? 0 : position - row->window;
}

/* The part [*begin, *end) of a block, 0 .. 64, that a token of the tile sees; maybe empty. */
CT_INLINE void visible(const attn_tile *tile, int64_t token, int64_t block, int64_t *begin,
                       int64_t *end)
{
    int64_t position = token_position(tile, token);
    int64_t base = block * CT_KV_BLOCK,
            from = window_begin(token_row(tile, token), position) - base;
    int64_t to = position + 1 - base;
    *begin = from < 0 ? 0 : from > CT_KV_BLOCK ? CT_KV_BLOCK : from;
    *end = to < *begin ? *begin : to > CT_KV_BLOCK ? CT_KV_BLOCK : to;
}

/* Which of the weights 2^(s-m) go into the values. */
typedef struct edit_bits {
    ct_weights_mode mode;
    uint64_t marked;
} edit_bits;

/* What is recorded of a block. */
typedef struct record_bits {
    int64_t base;       /* the block's first position; < 0: nothing is recorded */
    uint64_t needle[2]; /* as pair_sums.needle */
} record_bits;

/* The first place of x, which is there, among the N vectors of a block. */
CT_INLINE int32_t first_equal(const vf *v, float x)
{
    enum { N = CT_KV_BLOCK / VL };
    uint64_t places = 0;
    CT_UNROLL
    for (int i = 0; i < N; i++) places |= (uint64_t)v_bits(v[i] == v_set1(x)) << i * VL;
    return __builtin_ctzll(places);
}

/* Moves one pair's sums over a block: scores become the weights that meet the values, and the
 * values are rescaled if the maximum grew. `seen` has a bit for each visible key, at least one. */
CT_INLINE void softmax_block(pair_sums *sums, float *score, float *value, int64_t value_width,
                             uint64_t seen, edit_bits edit, record_bits record)
{
    enum { N = CT_KV_BLOCK / VL };
    vf s[N], high = v_set1(-FLT_MAX);
    bool whole = seen == UINT64_MAX;
    CT_UNROLL
    for (int i = 0; i < N; i++) {
        s[i] = v_load(score + i * VL);
        /* A masked score becomes the old maximum: it cannot raise it, nor overflow below. */
        if (!whole) s[i] = v_select(v_mask((uint32_t)(seen >> i * VL)), s[i], v_set1(sums->m));
        high = v_max(high, s[i]);
    }
    float block_max = v_max_lane(high), old = sums->m;
    float m = block_max > old ? block_max : old;
    if (m > old) {
        float grown = old - m > -200 ? old - m : -200; /* 2^-200 is 0 already */
        vf a = v_exp2_falling(v_set1(grown));
        sums->t = a * v_fma(v_set1(grown), sums->l, sums->t);
        sums->l = a * sums->l;
        sums->z = a * a * sums->z;
        sums->marked = a * sums->marked;
        sums->m = m;
        if (record.base >= 0) {
            sums->needle[0] *= a[0];
            sums->needle[1] *= a[0];
            sums->peak = (int32_t)record.base + first_equal(s, m);
        }
        if (edit.mode != CT_WEIGHTS_BINARY && edit.mode != CT_WEIGHTS_NULL)
            for (int64_t d = 0; d < value_width; d += VL) v_store(value + d, v_load(value + d) * a);
    }
    vf l = v_set1(0), t = v_set1(0), z = v_set1(0), in = v_set1(0);
    vf needle[2] = {v_set1(0), v_set1(0)};
    CT_UNROLL
    for (int i = 0; i < N; i++) {
        vf below = s[i] - m, e = v_exp2_falling(below);
        if (!whole) e = v_keep(v_mask((uint32_t)(seen >> i * VL)), e);
        l = l + e;
        t = v_fma(e, below, t);
        z = v_fma(e, e, z);
        if (record.needle[0])
            for (int n = 0; n < 2; n++)
                needle[n] = needle[n] + v_keep(v_mask((uint32_t)(record.needle[n] >> i * VL)), e);
        if (edit.mode != CT_WEIGHTS_KEEP) {
            vi marked = v_mask((uint32_t)(edit.marked >> i * VL));
            vf kept = v_keep(marked, e);
            in = in + kept;
            if (edit.mode == CT_WEIGHTS_ONLY) e = kept;
            else if (edit.mode == CT_WEIGHTS_OMIT) e = v_keep(~marked, e);
            else e = v_keep(marked, v_set1(1)); /* BINARY: a plain sum, weighted at the end */
        }
        v_store(score + i * VL, e);
    }
    sums->l = sums->l + l;
    sums->t = sums->t + t;
    sums->z = sums->z + z;
    sums->marked = sums->marked + in;
    if (record.needle[0])
        for (int n = 0; n < 2; n++) sums->needle[n] += v_sum(needle[n]);
}

/* Whether a weight of a marked, or unmarked, position is after the edit what it was before. */
CT_INLINE bool stays(ct_weights_mode mode, bool marked)
{
    return mode == CT_WEIGHTS_KEEP || mode == (marked ? CT_WEIGHTS_ONLY : CT_WEIGHTS_OMIT);
}

/* The products, which the including file defines (attention_f32.h, cpu_amx.c): */
/* Before and after a thread's tiles. */
static void begin_products(void);
static void end_products(void);
/* Takes the tile's queries, scaled by `scale`, into its scratch. */
static void take_queries(attn_tile *tile, float scale);
/* score[pair][s] = query . key s, for the pairs of a part and the 64 keys of a block; other pairs'
 * scores are lost. */
static void block_scores(const attn_tile *tile, attn_part part, int64_t block);
/* value[pair] += the sum over the block's keys of score[pair][s] v[s], for the pairs of a part; the
 * scores of keys that a pair does not see are 0. The scores are lost. */
static void block_values(const attn_tile *tile, attn_part part, int64_t block);

static edit_bits edit_of(const ct_attn_row *row, int64_t block)
{
    edit_bits edit = {row->edit, 0};
    if (row->edit != CT_WEIGHTS_KEEP && row->edit != CT_WEIGHTS_NULL)
        edit.marked = marked_bits(row, block);
    return edit;
}

static record_bits record_of(const ct_attn_row *row, int64_t block, edit_bits edit)
{
    uint64_t needle = needle_bits(row, block);
    uint64_t after = (stays(row->edit, true) ? needle & edit.marked : 0) |
                     (stays(row->edit, false) ? needle & ~edit.marked : 0);
    return (record_bits){block * CT_KV_BLOCK, {needle, after}};
}

/* A block and the part of the tile's tokens that have it in the same memory. */
static void attend_block(const attn_tile *tile, attn_part part, int64_t block)
{
    int64_t width = tile->value_width;
    const ct_attn_row *row = NULL;
    edit_bits edit = {CT_WEIGHTS_KEEP, 0};
    record_bits record = {-1, {0, 0}};

    block_scores(tile, part, block);
    for (int64_t token = part.first; token < part.first + part.count; token++) {
        int64_t begin, end;
        visible(tile, token, block, &begin, &end);
        float *score = tile->score + token * tile->heads * CT_KV_BLOCK;
        if (begin == end) {
            memset(score, 0, (size_t)(tile->heads * CT_KV_BLOCK) * sizeof *score);
            continue;
        }
        if (row != token_row(tile, token)) {
            row = token_row(tile, token);
            edit = edit_of(row, block);
            if (tile->args->light) record = record_of(row, block, edit);
        }
        uint64_t seen = UINT64_MAX >> (CT_KV_BLOCK - end) & UINT64_MAX << begin;
        bool plain = seen == UINT64_MAX && row->edit == CT_WEIGHTS_KEEP && !record.needle[0];
        for (int64_t h = 0; h < tile->heads; h++, score += CT_KV_BLOCK) {
            int64_t p = token * tile->heads + h;
            float *value = tile->value + p * width;
            if (plain) /* the usual case, without masks */
                softmax_block(&tile->sums[p], score, value, width, UINT64_MAX,
                              (edit_bits){CT_WEIGHTS_KEEP, 0}, (record_bits){record.base, {0, 0}});
            else
                softmax_block(&tile->sums[p], score, value, width, seen,
                              (edit_bits){edit.mode, edit.marked & seen}, record);
        }
    }
    if (token_row(tile, part.first)->edit != CT_WEIGHTS_NULL) block_values(tile, part, block);
}

/* Marked positions from `begin` to end - 1 that a query sees. */
CT_INLINE int64_t count_marked(const ct_attn_row *row, int64_t position, int64_t begin, int64_t end)
{
    int64_t count = 0, first = window_begin(row, position);
    end = min_i64(end, min_i64(position + 1, row->marked_count));
    for (int64_t s = first > begin ? first : begin; s < end; s++) count += row->marked[s] != 0;
    return count;
}

/* `weight` is BINARY's. */
static void finish_light(const ct_attn_row *row, const ct_attn_light *light, int64_t at,
                         int64_t position, const pair_sums *sums, double l, double weight)
{
    light->peak[at] = sums->peak;
    light->peak_weight[at] = (float)(1 / l);
    light->needle_before[at] = (float)((double)sums->needle[0] / l);
    double after = (double)sums->needle[1] / l;
    if (row->edit == CT_WEIGHTS_BINARY)
        for (size_t i = 0; i < row->n_needle; i++)
            after += weight *
                     (double)count_marked(row, position, row->needle[i].begin, row->needle[i].end);
    light->needle_after[at] = (float)after;
}

static void finish_tile(const attn_tile *tile)
{
    const ct_attn_args *args = tile->args;
    int64_t dim = args->head_dim;
    for (int64_t token = 0; token < tile->tokens; token++) {
        const ct_attn_row *row = token_row(tile, token);
        int64_t position = token_position(tile, token), marked = 0;
        if (row->edit == CT_WEIGHTS_BINARY) marked = count_marked(row, position, 0, INT64_MAX);
        for (int64_t h = 0; h < tile->heads; h++) {
            int64_t p = token * tile->heads + h;
            int64_t at =
                (row->seg.first + place_in_row(tile, token)) * args->heads + tile->first_head + h;
            const pair_sums *sums = &tile->sums[p];
            double l = v_sum_f64(sums->l);
            double scale = 1 / l;
            if (row->edit == CT_WEIGHTS_BINARY)
                scale = marked ? v_sum_f64(sums->marked) / (l * (double)marked) : 0;
            if (args->entropy_bits)
                args->entropy_bits[at] = (float)fmax(0, log2(l) - v_sum_f64(sums->t) / l);
            if (args->light) finish_light(row, args->light, at, position, sums, l, scale);
            if (args->l2) args->l2[at] = (float)(sqrt(v_sum_f64(sums->z)) / l);
            for (int64_t d = 0; d < dim; d += VL) {
                vf v = v_load(tile->value + p * tile->value_width + d) * (float)scale;
                v_store_part(args->out + at * dim + d, v, min_i64(VL, dim - d));
            }
        }
    }
}

/* Whether a token sees keys of a block. */
CT_INLINE bool sees(const attn_tile *tile, int64_t token, int64_t block)
{
    int64_t begin, end;
    visible(tile, token, block, &begin, &end);
    return begin < end;
}

/* The tokens from `first` on, which sees the block, that have it in the same memory. Rows whose values
 * are not read stay by themselves. */
static attn_part sharing(const attn_tile *tile, int64_t first, int64_t block)
{
    const ct_attn_row *row = tile->row + first;
    int64_t end = first + 1;
    for (; end < tile->tokens && sees(tile, end, block); end++) {
        const ct_attn_row *other = tile->row + end;
        if (other->k[block] != row->k[block] || other->v[block] != row->v[block] ||
            (other->edit == CT_WEIGHTS_NULL) != (row->edit == CT_WEIGHTS_NULL))
            break;
    }
    return (attn_part){first, end - first};
}

static void attend_tile(attn_tile *tile, const void *unused)
{
    (void)unused;
    take_queries(tile, tile->args->scale * 1.44269504088896f);
    for (int64_t p = 0; p < tile->pairs; p++) tile->sums[p] = (pair_sums){.m = -1e30f};
    memset(tile->value, 0, (size_t)(tile->pairs * tile->value_width) * sizeof *tile->value);

    int64_t begin = INT64_MAX, end = 0; /* of the blocks that some token sees */
    for (int64_t t = 0; t < tile->tokens; t++) {
        int64_t position = token_position(tile, t);
        begin = min_i64(begin, window_begin(token_row(tile, t), position) / CT_KV_BLOCK);
        if (position / CT_KV_BLOCK >= end) end = position / CT_KV_BLOCK + 1;
    }
    for (int64_t b = begin; b < end; b++) {
        attn_part part = {0, tile->tokens};
        if (!tile->forks) attend_block(tile, part, b);
        else
            for (int64_t t = 0; t < tile->tokens; t += part.count) {
                part = (attn_part){t, 1};
                if (!sees(tile, t, b)) continue;
                part = sharing(tile, t, b);
                attend_block(tile, part, b);
            }
    }
    finish_tile(tile);
}

/* Tiles of a call: heads of a kv head in groups of at most CT_TILE, tokens to fill the tile. */
typedef struct attn_tiling {
    int64_t group_heads, groups, tile_tokens;
    bool merge;  /* rows of one token share tiles */
    int threads; /* at most */
} attn_tiling;

static attn_tiling tiling_of(const ct_attn_args *args, bool merge, int threads)
{
    int64_t shared = args->heads / args->kv_heads, heads = min_i64(shared, CT_TILE);
    return (attn_tiling){heads, (shared + heads - 1) / heads, CT_TILE / heads, merge, threads};
}

/* Whether two rows of one token have the first block that both see in the same memory. */
static bool forked(const ct_attn_row *a, const ct_attn_row *b)
{
    int64_t first = window_begin(a, a->seg.position), other = window_begin(b, b->seg.position);
    int64_t block = (first > other ? first : other) / CT_KV_BLOCK;
    int64_t last = min_i64(a->seg.position, b->seg.position) / CT_KV_BLOCK;
    return a->seg.count == 1 && b->seg.count == 1 && block <= last && a->k[block] == b->k[block];
}

/* Rows that go into tiles together: row r and the next ones, or r alone. */
static int64_t rows_together(const ct_attn_args *args, const attn_tiling *tiling, int64_t r)
{
    int64_t end = r + 1;
    while (tiling->merge && end < args->n_rows && forked(&args->rows[end - 1], &args->rows[end]))
        end++;
    return end - r;
}

/* Parts of so many tokens, each for all kv heads and groups; forks are dealt out so that all threads
 * have as many. */
static int64_t parts_of(const ct_attn_args *args, const attn_tiling *tiling, int64_t tokens,
                        bool forks)
{
    int64_t parts = (tokens + tiling->tile_tokens - 1) / tiling->tile_tokens;
    int64_t tiles = tiling->groups * args->kv_heads;
    if (forks && parts * tiles < 4 * tiling->threads) {
        int64_t rounds = (parts * tiles + tiling->threads - 1) / tiling->threads;
        parts = min_i64(tokens, (rounds * tiling->threads + tiles - 1) / tiles);
    }
    return parts;
}

/* Tile number `index` of the call, in the order row, tokens, kv head, group. */
static attn_tile tile_at(const ct_attn_args *args, const attn_tiling *tiling, int64_t index)
{
    int64_t each = tiling->groups * args->kv_heads, shared = args->heads / args->kv_heads;
    for (int64_t r = 0, n; r < args->n_rows; r += n) {
        n = rows_together(args, tiling, r);
        const ct_attn_row *row = &args->rows[r];
        int64_t tokens = n > 1 ? n : row->seg.count;
        int64_t parts = parts_of(args, tiling, tokens, n > 1);
        if (index >= parts * each) {
            index -= parts * each;
            continue;
        }
        int64_t group = index % tiling->groups, part = index / each;
        attn_tile tile = {.args = args, .row = row, .forks = n > 1};
        tile.kv_head = index / tiling->groups % args->kv_heads;
        if (tile.forks) {
            int64_t first = part * n / parts;
            tile.row += first;
            tile.tokens = (part + 1) * n / parts - first;
        } else {
            tile.first_token = part * tiling->tile_tokens;
            tile.tokens = min_i64(tiling->tile_tokens, tokens - tile.first_token);
        }
        tile.first_head = tile.kv_head * shared + group * tiling->group_heads;
        tile.heads = min_i64(tiling->group_heads, shared - group * tiling->group_heads);
        tile.pairs = tile.tokens * tile.heads;
        return tile;
    }
    return (attn_tile){0};
}

/* Does `work` for every tile of the call, on as many threads as have tiles and scratch. `merge`: a tile
 * may hold several rows. */
static ct_status run_tiles(ct_op_ctx *ctx, const ct_attn_args *args, bool merge,
                           void (*work)(attn_tile *, const void *), const void *user, ct_err *err)
{
    int64_t dim = args->head_dim, width = (dim + VL - 1) / VL * VL;
    size_t floats = ct_attn_scratch_floats(dim);
    uintptr_t start = ((uintptr_t)ctx->scratch + 63) & ~(uintptr_t)63;
    size_t lost = start - (uintptr_t)ctx->scratch;
    size_t room = ctx->scratch_bytes > lost ? (ctx->scratch_bytes - lost) / (floats * 4) : 0;
    if (room == 0)
        return ct_fail(err, CT_ERR_LIMIT, "attention: expected %zu bytes of scratch, got %zu",
                       floats * 4 + 64, ctx->scratch_bytes);
    int threads = (int)min_i64(omp_get_max_threads(), (int64_t)room);
    attn_tiling tiling = tiling_of(args, merge, threads);
    int64_t tiles = 0;
    for (int64_t r = 0, n; r < args->n_rows; r += n) {
        n = rows_together(args, &tiling, r);
        int64_t tokens = n > 1 ? n : args->rows[r].seg.count;
        tiles += parts_of(args, &tiling, tokens, n > 1) * tiling.groups * args->kv_heads;
    }
    if (tiles < threads) threads = (int)tiles;
    if (threads < 1) return CT_OK;

#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        begin_products();
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < tiles; i++) {
            attn_tile tile = tile_at(args, &tiling, i);
            float *at = (float *)start + (size_t)omp_get_thread_num() * floats;
            tile.value_width = width;
            tile.sums = (pair_sums *)(void *)at, at += CT_TILE * sizeof(pair_sums) / sizeof(float);
            tile.q = at, at += CT_TILE * width;
            tile.score = at, at += CT_TILE * CT_KV_BLOCK;
            tile.value = at, at += CT_TILE * width;
            tile.kt = at, at += CT_KV_BLOCK * width;
            tile.vt = at;
            work(&tile, user);
        }
        end_products();
    }
    return CT_OK;
}

static ct_status attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err)
{
    return run_tiles(ctx, args, true, attend_tile, NULL, err);
}

#endif
