/* weights.cu - what recorders want of attention: rows of weights before and after the edit, and of every
 * recorded token and head the light numbers (the needle's mass before and after, the peak).
 *
 * Computed from the keys apart from attention, in f32 with the query rounded as attention rounds it: equal
 * to what it uses up to rounding. A thread block has one token and head; few tokens are recorded, so that
 * this need not be fast. Passes that are recorded are not replayed (ct_op_ctx.plain): their caller reads
 * what is left here before the next layer.
 */
#include "op/cuda/attention_plain.cuh"

namespace
{

/* The weight after the edit; mean is BINARY's. */
__device__ __forceinline__ float edited_weight(int edit, bool marked, float weight, float mean)
{
    if (edit == CT_WEIGHTS_NULL) return 0;
    if (edit == CT_WEIGHTS_BINARY) return marked ? mean : 0;
    return edited(edit, marked, weight);
}

__device__ __forceinline__ bool is_marked(const image_run &run, int position)
{
    return position < run.marked_count && run.marked[position];
}

__device__ __forceinline__ bool in_needle(const image_light &of, int position)
{
    bool in = false;
    for (int i = 0; i < of.n_needle; i++)
        in |= position >= of.needle[i].begin && position < of.needle[i].end;
    return in;
}

/* A lane's parts of the light numbers, for its keys of every block; counts of visible positions. */
struct light_sums {
    float l, needle, needle_after, mass; /* scaled by 2^-m, as in attention.cuh */
    int marked, needle_marked;
};

/* Moves on over one block: s are the lane's scores, MASKED where `seen` is not set. */
__device__ __forceinline__ void light_block(light_sums &sums, float &m, int &peak,
                                            const float (&s)[2], const bool (&seen)[2], int base,
                                            const image_run &run, const image_light &of)
{
    float high = fmaxf(m, warp_max(fmaxf(s[0], s[1])));
    if (high > m) {
        float a = exp2f(m - high);
        sums.l *= a, sums.needle *= a, sums.needle_after *= a, sums.mass *= a;
        m = high;
        uint32_t first = __ballot_sync(~0u, s[0] == m), second = __ballot_sync(~0u, s[1] == m);
        peak = base + (first ? __ffs((int)first) - 1 : 31 + __ffs((int)second));
    }
    for (int i = 0; i < 2; i++) {
        if (!seen[i]) continue;
        int position = base + (int)threadIdx.x % 32 + 32 * i;
        bool marked = is_marked(run, position), needle = in_needle(of, position);
        float e = exp2f(s[i] - m);
        sums.l += e;
        if (needle) sums.needle += e;
        if (needle) sums.needle_after += edited_weight(run.edit, marked, e, 0);
        if (marked) sums.mass += e;
        sums.marked += marked;
        sums.needle_marked += marked && needle;
    }
}

__device__ __forceinline__ void write_light(const ct_attn_light &to, int64_t at, light_sums sums,
                                            int peak, int edit)
{
    sums.l = warp_sum(sums.l), sums.needle = warp_sum(sums.needle);
    sums.needle_after = warp_sum(sums.needle_after), sums.mass = warp_sum(sums.mass);
    float marked = warp_sum((float)sums.marked);
    float needle_marked = warp_sum((float)sums.needle_marked);
    if (threadIdx.x > 0) return;
    float mean = marked > 0 ? sums.mass / (sums.l * marked) : 0;
    to.needle_before[at] = sums.needle / sums.l;
    to.needle_after[at] =
        edit == CT_WEIGHTS_BINARY ? mean * needle_marked : sums.needle_after / sums.l;
    to.peak_weight[at] = 1 / sums.l;
    to.peak[at] = peak;
}

/* All warps make a block's scores, in one of two places; the first warp takes them from there while the
 * others go on to the next block. */
template <typename T>
__global__ void __launch_bounds__(PLAIN_THREADS)
    light_kernel(const __grid_constant__ attn_call call, const __grid_constant__ ct_attn_light to)
{
    __shared__ float q[MAX_DIM], scores[2][64];
    const plain_at at = plain_here(call, 0);
    const image_run run = call.image.run[at.run];
    const image_light of = call.image.light[at.run];
    const int of_run = at.token - run.first - of.first, lane = (int)threadIdx.x % 32;
    if (of_run < 0 || of_run >= of.count) return;
    plain_take_query<T>(q, call, at);
    __syncthreads();
    light_sums sums = {};
    float m = NO_MAX;
    int peak = at.begin;
    for (int block = at.begin / 64; block <= (at.end - 1) / 64; block++) {
        float *place = scores[block % 2];
        plain_scores<T>(place, q, call, at, run, block);
        __syncthreads();
        if (threadIdx.x >= 32) continue;
        float s[2];
        bool seen[2];
        for (int i = 0; i < 2; i++) {
            int position = 64 * block + lane + 32 * i;
            seen[i] = position >= at.begin && position < at.end;
            s[i] = seen[i] ? place[lane + 32 * i] * call.scale : MASKED;
        }
        light_block(sums, m, peak, s, seen, 64 * block, run, of);
    }
    if (threadIdx.x < 32)
        write_light(to, (int64_t)at.token * call.heads + at.head, sums, peak, run.edit);
}

/* The sum, or the largest, of all threads' numbers, in one order. room: [PLAIN_WARPS] */
template <bool MAX> __device__ __forceinline__ float of_all(float x, float *room)
{
    x = MAX ? warp_max(x) : warp_sum(x);
    __syncthreads(); /* an earlier call's room was read */
    if (threadIdx.x % 32 == 0) room[threadIdx.x / 32] = x;
    __syncthreads();
    x = room[0];
    for (int i = 1; i < PLAIN_WARPS; i++) x = MAX ? fmaxf(x, room[i]) : x + room[i];
    return x;
}

/* Scores go where the weights will stand, and become weights there. */
template <typename T>
__global__ void __launch_bounds__(PLAIN_THREADS)
    weights_kernel(const __grid_constant__ attn_call call, int first_token,
                   const __grid_constant__ ct_weights_out to)
{
    __shared__ float q[MAX_DIM], scores[2][64], room[PLAIN_WARPS];
    const plain_at at = plain_here(call, first_token);
    const image_run run = call.image.run[at.run];
    const int64_t row = blockIdx.x * to.stride + at.head * to.keys;
    float *before = to.before + row, *after = to.after ? to.after + row : NULL;
    const int thread = (int)threadIdx.x;
    plain_take_query<T>(q, call, at);
    __syncthreads();
    float m = NO_MAX;
    for (int block = at.begin / 64; block <= (at.end - 1) / 64; block++) {
        float *place = scores[block % 2];
        plain_scores<T>(place, q, call, at, run, block);
        __syncthreads();
        int s = 64 * block + thread;
        if (thread >= 64 || s < at.begin || s >= at.end) continue;
        before[s] = place[thread] * call.scale;
        m = fmaxf(m, before[s]);
    }
    m = of_all<true>(m, room); /* and all scores are there */

    float l = 0, mass = 0, marked = 0;
    for (int s = at.begin + thread; s < at.end; s += PLAIN_THREADS) {
        float e = exp2f(before[s] - m);
        before[s] = e;
        l += e;
        if (is_marked(run, s)) mass += e, marked++;
    }
    l = of_all<false>(l, room), mass = of_all<false>(mass, room);
    marked = of_all<false>(marked, room);
    float scale = 1 / l, mean = marked > 0 ? mass * scale / marked : 0;
    for (int s = at.begin + thread; s < at.end; s += PLAIN_THREADS) {
        float weight = before[s] * scale;
        before[s] = weight;
        if (after) after[s] = edited_weight(run.edit, is_marked(run, s), weight, mean);
    }
}

} // namespace

void attention_light(ct_op_ctx *ctx, const attn_call &call, const ct_attn_light &to)
{
    dim3 grid((unsigned)call.image.tokens, (unsigned)call.heads);
    if (ctx->compute == CT_COMPUTE_BF16)
        LAUNCH(ctx, light_kernel<bf16>, grid, PLAIN_THREADS, 0, call, to);
    else LAUNCH(ctx, light_kernel<float>, grid, PLAIN_THREADS, 0, call, to);
}

ct_status cuda_attention_weights(ct_op_ctx *ctx, const ct_attn_args *args,
                                 const ct_weights_out *out, ct_err *err)
{
    attn_call call;
    ct_status st = attention_call(args, &call, err);
    for (int64_t r = 0; r < args->n_rows && st == CT_OK; r++) {
        const ct_seg *seg = &args->rows[r].seg;
        dim3 grid((unsigned)seg->count, (unsigned)call.heads);
        if (seg->count == 0) continue;
        if (ctx->compute == CT_COMPUTE_BF16)
            LAUNCH(ctx, weights_kernel<bf16>, grid, PLAIN_THREADS, 0, call, (int)seg->first,
                   out[r]);
        else
            LAUNCH(ctx, weights_kernel<float>, grid, PLAIN_THREADS, 0, call, (int)seg->first,
                   out[r]);
    }
    return st;
}
