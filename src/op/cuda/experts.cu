/* experts.cu - the mixture of experts on the device: y += sum over the k experts e of highest p_e of
 * p_e MLP_e(x), p = softmax(x Wr) over all experts; the k shares are not normed again.
 *
 * One pass, all on the device: route_kernel chooses each token's experts (the router's product in f32
 * always: it makes a choice, not a value); list_kernel sorts the (token, expert) pairs by expert; one
 * product makes the hidden activations of all experts, another their outputs; combine_kernel adds a
 * token's outputs to it in ascending order of the expert. The products are experts_tiles.cuh's (prefill)
 * or experts_stream.cu's (generation) in bf16, and experts_plain.cuh's in f32.
 *
 * Scratch of a group of T tokens, P = T k: lists, pairs, shares, x in bf16 [P, E], hidden [P, F] in bf16
 * (plain: f32), outputs [P, E] f32. More tokens than scratch has room for go in groups.
 */
#include "op/cuda/experts_plain.cuh"
#include "op/cuda/experts_tiles.cuh"

enum {
    ROUTE_THREADS = 512,
    LIST_THREADS = 1024,
    MOST_OWN = 1024,
    ALIGN = 256,
    GROUP_TOKENS = 4096
};

/* Elements i .. i + 3 of a vector of n, zeros beyond; WHOLE: aligned, and n a multiple of 4. */
template <bool WHOLE> __device__ static inline float4 four(const float *v, int i, int n)
{
    if (WHOLE) return *(const float4 *)(v + i);
    return make_float4(v[i], i + 1 < n ? v[i + 1] : 0, i + 2 < n ? v[i + 2] : 0,
                       i + 3 < n ? v[i + 3] : 0);
}

template <bool WHOLE, typename W> __device__ static inline float4 four(const W *v, int i, int n)
{
    __align__(8) W part[4];
    if (WHOLE) *(uint2 *)part = *(const uint2 *)(v + i);
    else
        for (int j = 0; j < 4; j++) part[j] = i + j < n ? v[i + j] : W(0.0f);
    return make_float4(wide(part[0]), wide(part[1]), wide(part[2]), wide(part[3]));
}

/* A warp chooses the experts of one token: the k of highest logit, the lowest index first among equals,
 * and the share of each in the softmax over all. A NaN counts as lowest and makes every share NaN. */
__device__ static void choose(int32_t *expert, float *share, const float *logits, int experts,
                              int used)
{
    int lane = threadIdx.x % 32;
    float max = -INFINITY, sum = 0;
    for (int e = lane; e < experts; e += 32) max = fmaxf(max, logits[e]);
    for (int by = 16; by > 0; by /= 2) max = fmaxf(max, __shfl_xor_sync(~0u, max, by));
    for (int e = lane; e < experts; e += 32) sum += expf(logits[e] - max);
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
    int slot = 0; /* chosen experts of lower index */
    for (int e0 = 0; e0 < experts; e0 += 32) {
        int e = e0 + lane, better = 0;
        if (e < experts) {
            float own = isnan(logits[e]) ? -INFINITY : logits[e];
            for (int o = 0; o < experts; o++) {
                float other = isnan(logits[o]) ? -INFINITY : logits[o];
                better += other > own || (other == own && o < e);
            }
        }
        bool chosen = e < experts && better < used;
        unsigned all = __ballot_sync(~0u, chosen);
        if (chosen) {
            int at = slot + __popc(all & ((1u << lane) - 1));
            expert[at] = e;
            share[at] = expf(logits[e] - max) / sum;
        }
        slot += __popc(all);
    }
}

/* expert[pair], share[pair] of TOKENS tokens for each CTA, and x in bf16 if xb is not NULL. A warp makes
 * an expert's logits: 32 x 4 strided parts of the sum, and their tree. */
template <typename W, int TOKENS, bool WHOLE>
__global__ void __launch_bounds__(ROUTE_THREADS)
    route_kernel(int32_t *expert, float *share, bf16 *xb, const float *x, const W *router,
                 int tokens, int width, int experts, int used)
{
    __shared__ float logits[TOKENS][MOST_EXPERTS];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = blockIdx.x * TOKENS, n = min((int)TOKENS, tokens - first);
    let_next_begin();
    wait_for_earlier();
    const float *row[TOKENS];
#pragma unroll
    for (int t = 0; t < TOKENS; t++) row[t] = x + (int64_t)(first + min(t, n - 1)) * width;
    for (int e = warp; e < experts; e += ROUTE_THREADS / 32) {
        const W *w = router + (int64_t)e * width;
        float4 d[TOKENS] = {};
#pragma unroll(TOKENS == 1 ? 8 : 4)
        for (int k = lane * 4; k < width; k += 128) {
            float4 b = four<WHOLE>(w, k, width);
#pragma unroll
            for (int t = 0; t < TOKENS; t++) {
                float4 a = four<WHOLE>(row[t], k, width);
                d[t].x = fmaf(a.x, b.x, d[t].x);
                d[t].y = fmaf(a.y, b.y, d[t].y);
                d[t].z = fmaf(a.z, b.z, d[t].z);
                d[t].w = fmaf(a.w, b.w, d[t].w);
            }
        }
#pragma unroll
        for (int t = 0; t < TOKENS; t++) {
            float sum = (d[t].x + d[t].y) + (d[t].z + d[t].w);
            for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
            if (lane == 0) logits[t][e] = sum;
        }
    }
    __syncthreads();
    if (warp < n)
        choose(expert + (int64_t)(first + warp) * used, share + (int64_t)(first + warp) * used,
               logits[warp], experts, used);
    if (xb)
        for (int i = threadIdx.x; i < n * width; i += ROUTE_THREADS)
            xb[(int64_t)first * width + i] = __float2bfloat16_rn(x[(int64_t)first * width + i]);
}

/* Sorts the pairs by expert, in ascending order within one: each warp counts, and then places, one
 * stretch of the pairs. GATHER: the list is made by many CTAs, of which the first writes it; each copies
 * the tokens of `own` pairs to their rows, as bf16, [rows, width]. */
template <bool GATHER>
__global__ void __launch_bounds__(LIST_THREADS)
    list_kernel(expert_lists *lists, int32_t *pair, const int32_t *expert, int pairs, int experts,
                bf16 *rows_of_x, const float *x, int width, int used, int own)
{
    __shared__ int at[LIST_THREADS / 32][MOST_EXPERTS], rows[MOST_EXPERTS], row_of[MOST_OWN];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = LIST_THREADS / 32;
    int first_own = GATHER ? (int)blockIdx.x * own : 0;
    bool writes = blockIdx.x == 0;
    let_next_begin();
    wait_for_earlier();
    int stretch = (pairs + warps - 1) / warps;
    int from = warp * stretch, to = min(from + stretch, pairs);
    for (int e = lane; e < experts; e += 32) at[warp][e] = 0;
    __syncwarp();
    for (int i = from; i < to; i += 32) {
        int e = i + lane < to ? expert[i + lane] : -1;
        unsigned same = __match_any_sync(~0u, e);
        if (e >= 0 && (same & ((1u << lane) - 1)) == 0) at[warp][e] += __popc(same);
        __syncwarp();
    }
    __syncthreads();
    if ((int)threadIdx.x < experts) {
        int sum = 0;
        for (int w = 0; w < warps; w++) {
            int n = at[w][threadIdx.x];
            at[w][threadIdx.x] = sum;
            sum += n;
        }
        rows[threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        int first = 0, tile = 0, hit = 0;
        for (int e = 0; e < experts; e++) {
            int n = rows[e];
            rows[e] = first;
            if (writes) {
                lists->first[e] = first;
                lists->tile[e] = tile;
                if (n > 0) lists->hit[hit++] = e;
            }
            first += n;
            tile += (n + TILE_ROWS - 1) / TILE_ROWS;
        }
        if (writes) {
            lists->first[experts] = first;
            lists->tile[experts] = tile;
            lists->n_hit = hit;
        }
    }
    __syncthreads();
    for (int i = from; i < to; i += 32) {
        int e = i + lane < to ? expert[i + lane] : -1;
        unsigned same = __match_any_sync(~0u, e), below = same & ((1u << lane) - 1);
        if (e >= 0) {
            int row = rows[e] + at[warp][e] + __popc(below), mine = i + lane - first_own;
            if (writes) pair[row] = i + lane;
            if (GATHER && mine >= 0 && mine < own) row_of[mine] = row;
        }
        __syncwarp();
        if (e >= 0 && below == 0) at[warp][e] += __popc(same);
        __syncwarp();
    }
    if (!GATHER) return;
    __syncthreads();
    const bool whole = ((uintptr_t)x & 15) == 0;
    int quads = width / 4, n_own = min(own, pairs - first_own); /* the width is a multiple of 8 */
    for (int i = (int)threadIdx.x; i < n_own * quads; i += LIST_THREADS) {
        int mine = i / quads, column = (i - mine * quads) * 4;
        const float *v = x + (int64_t)((first_own + mine) / used) * width + column;
        float4 f = whole ? *(const float4 *)v : four<false>(v, 0, 4);
        bf16 h[4] = {__float2bfloat16_rn(f.x), __float2bfloat16_rn(f.y), __float2bfloat16_rn(f.z),
                     __float2bfloat16_rn(f.w)};
        *(uint2 *)(rows_of_x + (int64_t)row_of[mine] * width + column) = *(const uint2 *)h;
    }
}

/* y[t, j] += share out[pair, j], the token's pairs in order. Grid: parts of the width, tokens. */
__global__ void combine_kernel(float *y, const float *out, const float *share, int used, int width)
{
    let_next_begin();
    wait_for_earlier();
    int64_t t = blockIdx.y;
    for (int j = blockIdx.x * blockDim.x + threadIdx.x; j < width; j += gridDim.x * blockDim.x) {
        float sum = y[t * width + j];
        for (int64_t p = t * used; p < (t + 1) * used; p++)
            sum = fmaf(share[p], out[p * width + j], sum);
        y[t * width + j] = sum;
    }
}

/* ---- the host's side -------------------------------------------------------------------------- */

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Where the parts of a group's scratch begin, and how much it is. */
struct layout {
    size_t lists, expert, share, pair, xb, hidden, out, bytes;
};

static layout layout_of(int64_t tokens, int64_t width, int64_t ffn, int64_t used, bool plain)
{
    size_t t = (size_t)tokens, pairs = t * (size_t)used, at = 0;
    layout l;
    l.lists = at, at += aligned(sizeof(expert_lists));
    l.expert = at, at += aligned(pairs * 4);
    l.share = at, at += aligned(pairs * 4);
    l.pair = at, at += aligned(pairs * 4);
    l.xb = at, at += plain ? 0 : aligned(pairs * (size_t)width * 2);
    l.hidden = at, at += aligned(pairs * (size_t)ffn * (plain ? 4 : 2));
    l.out = at, at += aligned(pairs * (size_t)width * 4);
    l.bytes = at;
    return l;
}

static int64_t group_tokens(int64_t tokens)
{
    const int64_t most = GROUP_TOKENS;
    return tokens < most ? tokens : most;
}

size_t experts_scratch_bytes(int64_t tokens, int64_t width, int64_t ffn, int64_t used)
{
    int64_t fast = group_tokens(tokens), plain = fast / 2 + 1;
    size_t a = layout_of(fast, width, ffn, used, false).bytes;
    size_t b = layout_of(plain, width, ffn, used, true).bytes;
    return (a > b ? a : b) + ALIGN;
}

template <typename W, int TOKENS>
static void route_typed(ct_op_ctx *ctx, int32_t *expert, float *share, bf16 *xb, const float *x,
                        int64_t tokens, const ct_experts *moe)
{
    int width = (int)moe->router.cols, experts = (int)moe->experts, used = (int)moe->used;
    const W *router = (const W *)moe->router.data;
    unsigned grid = (unsigned)ceil_div(tokens, TOKENS);
    if (width % 4 == 0 && (uintptr_t)router % 16 == 0 && (uintptr_t)x % 16 == 0)
        LAUNCH_DEPENDENT(ctx, (route_kernel<W, TOKENS, true>), grid, ROUTE_THREADS, 0, expert,
                         share, xb, x, router, (int)tokens, width, experts, used);
    else
        LAUNCH_DEPENDENT(ctx, (route_kernel<W, TOKENS, false>), grid, ROUTE_THREADS, 0, expert,
                         share, xb, x, router, (int)tokens, width, experts, used);
}

template <typename W>
static void route(ct_op_ctx *ctx, int32_t *expert, float *share, bf16 *xb, const float *x,
                  int64_t tokens, const ct_experts *moe)
{
    if (ctx->stage == CT_STAGE_GENERATION)
        route_typed<W, 1>(ctx, expert, share, xb, x, tokens, moe);
    else route_typed<W, 4>(ctx, expert, share, xb, x, tokens, moe);
}

/* Whether the tensor cores' kernels take these weights; decided by the weights alone. */
static bool is_fast(const ct_op_ctx *ctx, const ct_experts *moe)
{
    const ct_matrix *gate = &moe->expert[0].gate;
    if (ctx->compute != CT_COMPUTE_BF16 || gate->dtype != CT_BF16) return false;
    if (gate->rows % 8 || gate->cols % 8) return false;
    for (int64_t e = 0; e < moe->experts; e++) {
        const ct_mlp *m = &moe->expert[e];
        if ((uintptr_t)m->gate.data % 16 || (uintptr_t)m->up.data % 16 ||
            (uintptr_t)m->down.data % 16)
            return false;
    }
    return true;
}

static bool is_shape(const ct_matrix *m, int64_t rows, int64_t cols, ct_dtype dtype)
{
    return m->rows == rows && m->cols == cols && m->dtype == dtype;
}

/* The tables of the weights, once all experts are seen to be alike. */
static ct_status tables(const ct_experts *moe, expert_weights *in, expert_weights *out, ct_err *err)
{
    int64_t width = moe->router.cols, ffn = moe->expert[0].gate.rows;
    ct_dtype dtype = moe->expert[0].gate.dtype;
    for (int64_t e = 0; e < moe->experts; e++) {
        const ct_mlp *m = &moe->expert[e];
        if (!is_shape(&m->gate, ffn, width, dtype) || !is_shape(&m->up, ffn, width, dtype) ||
            !is_shape(&m->down, width, ffn, dtype) || m->activation != moe->expert[0].activation)
            return ct_fail(
                err, CT_ERR_UNSUPPORTED,
                "experts: expected all of one shape, type and activation, expert %lld is "
                "not like expert 0",
                (long long)e);
        in->data[0][e] = m->gate.data;
        in->data[1][e] = m->up.data;
        in->bias[0][e] = m->gate_bias;
        in->bias[1][e] = m->up_bias;
        out->data[0][e] = m->down.data;
        out->bias[0][e] = m->down_bias;
    }
    return CT_OK;
}

/* One group of tokens. */
static ct_status group(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                       const ct_experts *moe, const expert_weights &in, const expert_weights &out,
                       char *scratch, ct_err *err)
{
    ct_status st = CT_OK;
    bool fast = is_fast(ctx, moe);
    const ct_mlp *mlp = &moe->expert[0];
    int width = (int)mlp->gate.cols, ffn = (int)mlp->gate.rows;
    int experts = (int)moe->experts, used = (int)moe->used;
    int64_t pairs = tokens * used;
    layout l = layout_of(tokens, width, ffn, used, !fast);
    expert_lists *lists = (expert_lists *)(scratch + l.lists);
    int32_t *expert = (int32_t *)(scratch + l.expert), *pair = (int32_t *)(scratch + l.pair);
    float *share = (float *)(scratch + l.share), *outputs = (float *)(scratch + l.out);
    const bool streamed = fast && ctx->stage == CT_STAGE_GENERATION;
    bf16 *x_bf16 = (bf16 *)(scratch + l.xb); /* by token, or streamed: by row */
    bf16 *xb = fast && !streamed ? x_bf16 : NULL;

    switch (moe->router.dtype) {
    case CT_F32:
        route<float>(ctx, expert, share, xb, x, tokens, moe);
        break;
    case CT_F16:
        route<__half>(ctx, expert, share, xb, x, tokens, moe);
        break;
    case CT_BF16:
        route<bf16>(ctx, expert, share, xb, x, tokens, moe);
        break;
    }
    const int64_t most_own = MOST_OWN, share_of = ceil_div(pairs, ctx->device->processors);
    const int own = (int)(share_of < most_own ? share_of : most_own);
    if (streamed)
        LAUNCH_DEPENDENT(ctx, list_kernel<true>, (unsigned)ceil_div(pairs, own), LIST_THREADS, 0,
                         lists, pair, expert, (int)pairs, experts, x_bf16, x, width, used, own);
    else
        LAUNCH_DEPENDENT(ctx, list_kernel<false>, 1, LIST_THREADS, 0, lists, pair, expert,
                         (int)pairs, experts, (bf16 *)NULL, x, width, used, 0);
    expert_product first = {lists,
                            pair,
                            fast ? (const void *)x_bf16 : x,
                            scratch + l.hidden,
                            width,
                            ffn,
                            used,
                            experts,
                            mlp->activation};
    expert_product second = {lists, pair,    scratch + l.hidden, outputs, ffn, width,
                             used,  experts, mlp->activation};
    if (!fast) {
        plain_product<2>(ctx, in, first, pairs, mlp->gate.dtype);
        plain_product<1>(ctx, out, second, pairs, mlp->gate.dtype);
    } else if (streamed) {
        st = stream_product<true>(ctx, in, first, tokens, err);
        if (st == CT_OK) st = stream_product<false>(ctx, out, second, tokens, err);
    } else {
        tiles_product<true>(ctx, in, first);
        tiles_product<false>(ctx, out, second);
    }
    dim3 grid((unsigned)ceil_div(width, 256), (unsigned)tokens);
    if (st == CT_OK)
        LAUNCH_DEPENDENT(ctx, combine_kernel, grid, 256, 0, y, outputs, share, used, width);
    return st;
}

ct_status cuda_experts(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                       const ct_experts *moe, ct_err *err)
{
    if (moe->experts < 1 || moe->experts > MOST_EXPERTS || moe->used < 1 ||
        moe->used > moe->experts)
        return ct_fail(
            err, CT_ERR_UNSUPPORTED,
            "experts: expected 1 to %d experts of which 1 to all are used, got %lld and %lld",
            (int)MOST_EXPERTS, (long long)moe->experts, (long long)moe->used);
    expert_weights in = {}, out = {};
    ct_status st = tables(moe, &in, &out, err);
    if (st != CT_OK) return st;

    int64_t width = moe->router.cols, ffn = moe->expert[0].gate.rows;
    bool plain = !is_fast(ctx, moe);
    char *scratch = (char *)aligned((size_t)(uintptr_t)ctx->scratch);
    size_t lost = (size_t)(scratch - (char *)ctx->scratch);
    size_t room = ctx->scratch_bytes > lost ? ctx->scratch_bytes - lost : 0;
    int64_t most = group_tokens(tokens);
    while (most > 0 && layout_of(most, width, ffn, moe->used, plain).bytes > room)
        most = most > 64 ? (most - 1) / 64 * 64 : most - 1;
    if (most == 0 && tokens > 0)
        return ct_fail(err, CT_ERR_LIMIT,
                       "experts: expected scratch for a token at least, got %zu bytes",
                       ctx->scratch_bytes);
    for (int64_t t = 0; t < tokens && st == CT_OK; t += most)
        st = group(ctx, y + t * width, x + t * width, tokens - t < most ? tokens - t : most, moe,
                   in, out, scratch, err);
    return st;
}
