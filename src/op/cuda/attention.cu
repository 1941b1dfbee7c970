/* attention.cu - the attention operations: rotary embedding, keys and values into the cache, and softmax
 * attention by the stage and by how products are computed. The kernels over keys are in attention_*.cu.
 *
 * Prefill: a tile of a run at once, no scratch. Generation: every token alone, also where a row has
 * several; its keys in parts by as many thread blocks, then summed here in one order. Heads whose size is no
 * multiple of 8 have one plain kernel for both. What recorders want is in weights.cu.
 */
#include "op/cuda/attention.cuh"
#include "op/cuda/math.cuh"

namespace
{

/* What place_kernel works on beside the batch's image. */
struct place_call {
    float *q, *k;
    const float *v;
    int heads, kv_heads, head_dim, half; /* H, G, D, pairs that are rotated */
    double log2_theta;
    int64_t k_offset, v_offset;
};

/* N elements of a token's keys or values into its block. */
template <typename T, int N> __device__ __forceinline__ void keep(T *to, const float (&x)[N])
{
    if constexpr (N == 1) *to = (T)x[0];
    else if constexpr (sizeof(T) == 2)
        *(uint2 *)to = {pack_bf16(x[0], x[1]), pack_bf16(x[2], x[3])};
    else *(float4 *)to = {x[0], x[1], x[2], x[3]};
}

template <int N> __device__ __forceinline__ void take(float (&x)[N], const float *from)
{
    if constexpr (N == 1) x[0] = *from;
    else {
        float4 v = *(const float4 *)from;
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    }
}

/* One CTA a token: its cosines and sines once, then all heads; N dims at once. The angle
 * position * theta^(-2j/rotary) is made and reduced in f64, where it is right to 1e-10 at any position
 * that fits in memory; what is left, half a turn at most, keeps an error of 1e-7 in f32. */
template <typename T, int N>
__global__ void __launch_bounds__(256)
    place_kernel(const __grid_constant__ place_call call, const __grid_constant__ batch_image image)
{
    extern __shared__ float2 turn[]; /* [half] cosine, sine */
    let_next_begin();
    const double per_turn = 0.15915494309189533577;
    const int token = (int)blockIdx.x, half = call.half, dim = call.head_dim;
    const image_token at = image.token[token];
    const image_run &run = image.run[at.run];
    const int width = call.kv_heads * dim, row = at.position % CT_KV_BLOCK * width;
    /* The image holds the blocks as read-only. */
    T *to_k = (T *)run.k_blocks[at.position / CT_KV_BLOCK] + call.k_offset + row;
    T *to_v = (T *)run.v_blocks[at.position / CT_KV_BLOCK] + call.v_offset + row;
    for (int j = (int)threadIdx.x; j < half; j += (int)blockDim.x) {
        double turns =
            (double)at.position * exp2(-(double)j / (double)half * call.log2_theta) * per_turn;
        float sine, cosine;
        sincospif((float)(2 * (turns - rint(turns))), &sine, &cosine);
        turn[j] = make_float2(cosine, sine);
    }
    __syncthreads();
    wait_for_earlier();

    float *q = call.q + (int64_t)token * call.heads * dim, *k = call.k + (int64_t)token * width;
    const float *v = call.v + (int64_t)token * width;
    const int pairs = half / N; /* groups of pairs of a head */
    for (int i = (int)threadIdx.x; i < (call.heads + call.kv_heads) * pairs; i += (int)blockDim.x) {
        int head = i / pairs, j = (i - head * pairs) * N, of_k = head - call.heads;
        float *x = of_k < 0 ? q + head * dim + j : k + of_k * dim + j, a[N], b[N];
        take<N>(a, x), take<N>(b, x + half);
#pragma unroll
        for (int n = 0; n < N; n++) {
            float2 by = turn[j + n];
            float low = a[n], high = b[n];
            a[n] = fmaf(low, by.x, -(high * by.y));
            b[n] = fmaf(high, by.x, low * by.y);
        }
        keep<float, N>(x, a), keep<float, N>(x + half, b);
        if (of_k >= 0)
            keep<T, N>(to_k + of_k * dim + j, a), keep<T, N>(to_k + of_k * dim + j + half, b);
    }
    for (int i = (int)threadIdx.x * N; i < width; i += (int)blockDim.x * N) {
        float x[N];
        if (i % dim >= 2 * half) { /* not rotated */
            take<N>(x, k + i);
            keep<T, N>(to_k + i, x);
        }
        take<N>(x, v + i);
        keep<T, N>(to_v + i, x);
    }
}

/* What a slice of the parts adds up to. */
struct part_sum {
    attn_sums sums;
    float4 o;
};

/* The sum of two, the second of which may be of no parts. */
__device__ __forceinline__ void add_parts(part_sum &to, const part_sum &more, int edit)
{
    float m = fmaxf(to.sums.m, more.sums.m);
    float below_a = to.sums.m - m, below_b = more.sums.m - m;
    float a = exp2f(below_a), b = exp2f(below_b);
    const attn_sums &x = to.sums, &y = more.sums;
    to.sums = {m,
               fmaf(b, y.l, a * x.l),
               fmaf(b, fmaf(below_b, y.l, y.t), a * fmaf(below_a, x.l, x.t)),
               fmaf(b * b, y.z, a * a * x.z),
               fmaf(b, y.mass, a * x.mass),
               x.marked + y.marked};
    if (!scaled_values(edit)) a = b = 1;
    to.o = {fmaf(b, more.o.x, a * to.o.x), fmaf(b, more.o.y, a * to.o.y),
            fmaf(b, more.o.z, a * to.o.z), fmaf(b, more.o.w, a * to.o.w)};
}

/* One head of one token: the sum of its parts. Threads (d, slice): slice s has parts s, s + SLICES ... in
 * ascending order, HELD of them at a time; then the slices in order. */
template <int LANES>
__global__ void __launch_bounds__(256, 3)
    combine_kernel(const __grid_constant__ attn_call call, const __grid_constant__ attn_parts parts)
{
    constexpr int SLICES = 256 / LANES, HELD = 5;
    __shared__ part_sum of_slices[SLICES - 1][LANES];
    let_next_begin();
    int token = parts.first_token + (int)blockIdx.y, head = (int)blockIdx.x;
    const image_token at = call.image.token[token];
    const image_run &run = call.image.run[at.run];
    int edit = run.edit, window = run.window;
    int lane = (int)threadIdx.x % LANES, slice = (int)threadIdx.x / LANES, d = lane * 4;
    bool has_values = d < call.head_dim && edit != CT_WEIGHTS_NULL;
    float *out = call.out + ((int64_t)token * call.heads + head) * call.head_dim;
    bool stats = call.entropy_bits || call.l2;
    int count = at.position / SPLIT - window_begin(window, at.position) / SPLIT + 1;
    const float *part = part_at(parts, token, 0, head, call);
    int64_t stride = (int64_t)call.heads * (PART_HEAD + call.head_dim);
    wait_for_earlier();
    if (edit == CT_WEIGHTS_NULL && slice == 0 && d < call.head_dim)
        *(float4 *)(out + d) = {0, 0, 0, 0};
    if (edit == CT_WEIGHTS_NULL && !stats) return; /* there are no parts */

    part_sum own = {{NO_MAX, 0, 0, 0, 0, 0}, {0, 0, 0, 0}};
    for (int from = slice; from < count; from += SLICES * HELD) {
        float4 first[HELD], v[HELD]; /* m l t z */
        float2 second[HELD];         /* mass, marked */
        part_sum held = {{NO_MAX, 0, 0, 0, 0, 0}, {0, 0, 0, 0}};
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            bool exists = from + i * SLICES < count;
            const float *one = part + (from + i * SLICES) * stride;
            first[i] = exists ? *(const float4 *)one : float4{NO_MAX, 0, 0, 0};
            second[i] = exists ? *(const float2 *)(one + 4) : float2{0, 0};
            v[i] =
                exists && has_values ? *(const float4 *)(one + PART_HEAD + d) : float4{0, 0, 0, 0};
        }
#pragma unroll
        for (int i = 0; i < HELD; i++) held.sums.m = fmaxf(held.sums.m, first[i].x);
#pragma unroll
        for (int i = 0; i < HELD; i++) {
            attn_sums &sums = held.sums;
            float4 &o = held.o;
            float below = first[i].x - sums.m, a = exp2f(below);
            sums.l = fmaf(a, first[i].y, sums.l);
            sums.t = fmaf(a, fmaf(below, first[i].y, first[i].z), sums.t);
            sums.z = fmaf(a * a, first[i].w, sums.z);
            sums.mass = fmaf(a, second[i].x, sums.mass);
            sums.marked += second[i].y;
            if (!scaled_values(edit)) a = 1;
            o.x = fmaf(a, v[i].x, o.x), o.y = fmaf(a, v[i].y, o.y);
            o.z = fmaf(a, v[i].z, o.z), o.w = fmaf(a, v[i].w, o.w);
        }
        add_parts(own, held, edit);
    }
    if (slice > 0) of_slices[slice - 1][lane] = own;
    __syncthreads();
    if (slice > 0) return;
#pragma unroll
    for (int i = 0; i < SLICES - 1; i++) add_parts(own, of_slices[i][lane], edit);
    if (threadIdx.x == 0 && stats) write_stats(call, token, head, own.sums);
    if (!has_values) return;
    float scale = final_scale(edit, own.sums);
    *(float4 *)(out + d) = {own.o.x * scale, own.o.y * scale, own.o.z * scale, own.o.w * scale};
}

int64_t part_floats(int64_t heads, int64_t head_dim)
{
    return heads * (PART_HEAD + head_dim);
}

/* The most parts into which one token's keys fall: parts begin at absolute positions, so that a window
 * may touch one more than it fills. */
int64_t most_splits(const batch_image &image)
{
    int64_t whole = ceil_div(image.most_keys, SPLIT);
    int64_t touched = ceil_div(image.most_visible, SPLIT) + 1;
    return touched < whole ? touched : whole;
}

ct_status generation(ct_op_ctx *ctx, const attn_call &call, ct_err *err)
{
    int64_t splits = most_splits(call.image);
    int64_t token_bytes = splits * part_floats(call.heads, call.head_dim) * (int64_t)sizeof(float);
    int64_t room = (int64_t)ctx->scratch_bytes / token_bytes;
    if (room < 1)
        return ct_fail(err, CT_ERR_LIMIT,
                       "attention: expected %lld bytes of scratch for %d keys, got %zu",
                       (long long)token_bytes, call.image.most_keys, ctx->scratch_bytes);
    if (room > 65535) room = 65535; /* of a grid */
    for (int64_t first = 0; first < call.image.tokens; first += room) {
        int64_t left = call.image.tokens - first, count = left < room ? left : room;
        attn_parts parts = {(float *)ctx->scratch, (int)splits, (int)first};
        if (ctx->compute == CT_COMPUTE_BF16) attention_parts_bf16(ctx, call, parts, (int)count);
        else attention_parts_f32(ctx, call, parts, (int)count);
        dim3 grid((unsigned)call.heads, (unsigned)count);
        if (call.head_dim <= 128)
            LAUNCH_DEPENDENT(ctx, combine_kernel<32>, grid, 256, 0, call, parts);
        else LAUNCH_DEPENDENT(ctx, combine_kernel<64>, grid, 256, 0, call, parts);
    }
    return CT_OK;
}

ct_status prefill(ct_op_ctx *ctx, const attn_call &call, ct_err *err)
{
    if (call.image.n_tiles > 65535)
        return ct_fail(err, CT_ERR_LIMIT, "attention: expected at most 65535 tiles, got %d",
                       call.image.n_tiles);
    if (ctx->compute == CT_COMPUTE_BF16) attention_prefill_bf16(ctx, call);
    else attention_prefill_f32(ctx, call);
    return CT_OK;
}

} // namespace

void cuda_place_keys(ct_op_ctx *ctx, const ct_place_args *args, const ct_batch *batch)
{
    const batch_image &image = image_of(batch);
    if (image.tokens == 0) return;
    const int half = (int)(args->rotary / 2);
    const place_call call = {args->q,
                             args->k,
                             args->v,
                             (int)args->heads,
                             (int)args->kv_heads,
                             (int)args->head_dim,
                             half,
                             half ? log2((double)args->theta) : 0,
                             args->k_offset,
                             args->v_offset};
    size_t shared = (size_t)half * sizeof(float2);
    unsigned ctas = (unsigned)image.tokens;
    bool wide = half % 4 == 0 && args->head_dim % 4 == 0 && args->k_offset % 4 == 0 &&
                args->v_offset % 4 == 0 && aligned16(args->q) && aligned16(args->k) &&
                aligned16(args->v);
    bool narrow_cache = ctx->compute == CT_COMPUTE_BF16;
    auto kernel = narrow_cache ? wide ? place_kernel<bf16, 4> : place_kernel<bf16, 1>
                  : wide ? place_kernel<float, 4>
                               : place_kernel<float, 1>;
    LAUNCH_DEPENDENT(ctx, kernel, ctas, 256, shared, call, image);
}

/* Generation may go over its tokens in groups that fit, so that the most tokens need not fit at once:
 * 128 of 4,352 keys, or one of 262,144. */
size_t attention_scratch_bytes(int64_t tokens, int64_t heads, int64_t head_dim)
{
    int64_t parts = (tokens < 128 ? tokens : 128) * (4352 / SPLIT), least = 262144 / SPLIT + 1;
    return (size_t)((parts > least ? parts : least) * part_floats(heads, head_dim)) * sizeof(float);
}

ct_status attention_call(const ct_attn_args *args, attn_call *out, ct_err *err)
{
    int64_t dim = args->head_dim, heads = args->heads, kv_heads = args->kv_heads;
    if (!args->batch)
        return ct_fail(err, CT_ERR_LIMIT, "attention: on a GPU only the rows of a batch");
    if (dim < 1 || dim > MAX_DIM)
        return ct_fail(err, CT_ERR_LIMIT, "attention: expected a head size up to %d, got %lld",
                       MAX_DIM, (long long)dim);
    if (kv_heads < 1 || heads % kv_heads != 0)
        return ct_fail(
            err, CT_ERR_LIMIT,
            "attention: expected heads that are a multiple of kv heads, got %lld and %lld",
            (long long)heads, (long long)kv_heads);
    if (args->k_offset % 8 != 0 || args->v_offset % 8 != 0)
        return ct_fail(err, CT_ERR_LIMIT,
                       "attention: expected offsets that are multiples of 8, got %lld and %lld",
                       (long long)args->k_offset, (long long)args->v_offset);

    *out = {(int)heads,
            (int)kv_heads,
            (int)(heads / kv_heads),
            (int)dim,
            args->scale * 1.44269504088896f,
            args->q,
            args->out,
            args->entropy_bits,
            args->l2,
            args->k_offset,
            args->v_offset,
            image_of(args->batch)};
    return CT_OK;
}

ct_status cuda_attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err)
{
    attn_call call;
    ct_status st = attention_call(args, &call, err);
    if (st != CT_OK) return st;
    if (args->rows != args->batch->runs)
        return ct_fail(err, CT_ERR_LIMIT, "attention: on a GPU only the rows of the batch itself");
    if (call.image.tokens == 0) return CT_OK;
    if (call.head_dim % 8 != 0) attention_plain(ctx, call);
    else if (ctx->stage == CT_STAGE_GENERATION) st = generation(ctx, call, err);
    else st = prefill(ctx, call, err);
    if (st == CT_OK && args->light && call.image.light) attention_light(ctx, call, *args->light);
    return st;
}
