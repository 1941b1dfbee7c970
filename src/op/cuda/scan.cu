/* scan.cu - Mamba's selective scan.
 *
 * A channel's tokens are done one after another by the threads that hold its states, so that bits do
 * not depend on cuts at all. That is fast enough without parallelism over time: what costs is one
 * exponential for each token, channel and state, they do not wait for one another, and the chain over
 * time is one multiply-add a token.
 */
#include "op/cuda/device.cuh"
#include "op/cuda/math.cuh"

enum {
    STATES = 16, /* of every published model: the count that is unrolled */
    OF_LANE = 4, /* states that a thread holds */
    GROUPS = STATES / OF_LANE,
    CHANNELS = 32, /* of a CTA */
    TILE = 32,     /* tokens fetched together */
    STEP_ROWS = 4  /* rows of a CTA in generation: the decay rates are made once for them */
};

/* 2^v, v <= 0; within 2^-22. */
static __device__ __forceinline__ float exp2_falling(float v)
{
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
    return r;
}

/* exp(-d exp(a_log)) = 2^(d rate) */
static __device__ __forceinline__ float rate_of(float a_log)
{
    return -1.44269504088896f * expf(a_log);
}

/* What a thread fetches of a tile: two tokens' four channels of x and dt, four of b, four of c. */
struct fetched {
    float4 x[2], dt[2], b, c;
};

/* Tokens [t, end) exist: others get x = b = c = 0, and d = 0 in `keep_tile`, which change no state. */
static __device__ __forceinline__ fetched fetch_tile(const ct_scan &scan, int64_t t, int64_t end,
                                                     int64_t channel)
{
    const float4 zero = make_float4(0, 0, 0, 0);
    fetched f;
    int part = threadIdx.x % 8 * 4, row = threadIdx.x / 8; /* 16 rows of 8 parts */
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int64_t at = t + row + i * 16;
        bool in = at < end && channel + part < scan.width;
        f.x[i] = in ? *(const float4 *)(scan.x + at * scan.width + channel + part) : zero;
        f.dt[i] = in ? *(const float4 *)(scan.dt + at * scan.width + channel + part) : zero;
    }
    int64_t at = t + threadIdx.x / GROUPS; /* 32 tokens of 4 parts */
    int64_t from = at * STATES + threadIdx.x % GROUPS * 4;
    f.b = at < end ? *(const float4 *)(scan.b + from) : zero;
    f.c = at < end ? *(const float4 *)(scan.c + from) : zero;
    return f;
}

struct scan_tile {
    float2 step_x[TILE][CHANNELS]; /* d, x */
    float4 b[TILE][GROUPS], c[TILE][GROUPS];
};

static __device__ __forceinline__ void keep_tile(scan_tile *tile, const fetched &f, int64_t t,
                                                 int64_t end)
{
    int part = threadIdx.x % 8 * 4, row = threadIdx.x / 8;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        bool in = t + row + i * 16 < end;
        float4 d = f.dt[i], x = f.x[i];
        d = in ? make_float4(softplus(d.x), softplus(d.y), softplus(d.z), softplus(d.w))
               : make_float4(0, 0, 0, 0);
        float4 *to = (float4 *)&tile->step_x[row + i * 16][part];
        to[0] = make_float4(d.x, x.x, d.y, x.y);
        to[1] = make_float4(d.z, x.z, d.w, x.w);
    }
    tile->b[threadIdx.x / GROUPS][threadIdx.x % GROUPS] = f.b;
    tile->c[threadIdx.x / GROUPS][threadIdx.x % GROUPS] = f.c;
}

/* A CTA: CHANNELS channels of one row, all its tokens. A warp has 8 channels; lanes l, l+8, l+16, l+24
 * hold four states each of channel l % 8. */
static __global__ void __launch_bounds__(128)
    scan_prefill(float *y, const ct_scan scan, const image_seg *segs, int64_t state_offset)
{
    __shared__ scan_tile tiles[2];
    const image_seg seg = segs[blockIdx.y];
    int64_t width = scan.width, base = (int64_t)blockIdx.x * CHANNELS;
    int lane = threadIdx.x % 32, group = lane / 8, of_tile = threadIdx.x / 32 * 8 + lane % 8;
    int64_t channel = base + of_tile;
    bool exists = channel < width;
    float *state = seg.state + state_offset + group * OF_LANE * width + channel;

    float h[OF_LANE], rate[OF_LANE];
#pragma unroll
    for (int n = 0; n < OF_LANE; n++) {
        h[n] = exists ? state[n * width] : 0;
        rate[n] = exists ? rate_of(scan.a_log[channel * STATES + group * OF_LANE + n]) : 0;
    }
    float skip = exists ? scan.skip[channel] : 0;

    int64_t end = (int64_t)seg.first + seg.count;
    fetched next = fetch_tile(scan, seg.first, end, base);
    int turn = 0;
    for (int64_t t = seg.first; t < end; t += TILE, turn ^= 1) {
        scan_tile *tile = &tiles[turn];
        keep_tile(tile, next, t, end);
        __syncthreads(); /* the other tile is free: all are past its use */
        if (t + TILE < end) next = fetch_tile(scan, t + TILE, end, base);
        int tokens = end - t < TILE ? (int)(end - t) : TILE;
#pragma unroll 2
        for (int u = 0; u < tokens; u += 4) {
            float sum[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                float2 dx = tile->step_x[u + k][of_tile];
                float4 b = tile->b[u + k][group], c = tile->c[u + k][group];
                float in = dx.x * dx.y;
                h[0] = fmaf(exp2_falling(dx.x * rate[0]), h[0], in * b.x);
                h[1] = fmaf(exp2_falling(dx.x * rate[1]), h[1], in * b.y);
                h[2] = fmaf(exp2_falling(dx.x * rate[2]), h[2], in * b.z);
                h[3] = fmaf(exp2_falling(dx.x * rate[3]), h[3], in * b.w);
                sum[k] = fmaf(c.y, h[1], c.x * h[0]) + fmaf(c.w, h[3], c.z * h[2]);
            }
            /* Four tokens' sums over four lanes: lane group g ends with token g's. */
            bool upper = group & 2, odd = group & 1;
            float keep0 = upper ? sum[2] : sum[0], keep1 = upper ? sum[3] : sum[1];
            keep0 += __shfl_xor_sync(0xffffffffu, upper ? sum[0] : sum[2], 16);
            keep1 += __shfl_xor_sync(0xffffffffu, upper ? sum[1] : sum[3], 16);
            float total = odd ? keep1 : keep0;
            total += __shfl_xor_sync(0xffffffffu, odd ? keep0 : keep1, 8);
            if (exists && u + group < tokens)
                y[(t + u + group) * width + channel] =
                    fmaf(skip, tile->step_x[u + group][of_tile].y, total);
        }
    }
    if (!exists) return;
#pragma unroll
    for (int n = 0; n < OF_LANE; n++) state[n * width] = h[n];
}

/* A CTA: CHANNELS channels, a token each of STEP_ROWS rows. Warp g holds states 4g .. 4g+3. */
static __global__ void __launch_bounds__(128)
    scan_step(float *y, const ct_scan scan, const image_seg *segs, int n_segs, int64_t state_offset)
{
    __shared__ float parts[STEP_ROWS][GROUPS][CHANNELS];
    int lane = threadIdx.x % 32, group = threadIdx.x / 32;
    int first = blockIdx.y * STEP_ROWS, rows = min(STEP_ROWS, n_segs - first);
    int64_t width = scan.width, channel = (int64_t)blockIdx.x * CHANNELS + lane;
    bool exists = channel < width;
    float4 a = make_float4(0, 0, 0, 0);
    let_next_begin();
    if (exists) a = *(const float4 *)(scan.a_log + channel * STATES + group * OF_LANE);
    const float rate[OF_LANE] = {rate_of(a.x), rate_of(a.y), rate_of(a.z), rate_of(a.w)};
    wait_for_earlier();
#pragma unroll
    for (int r = 0; r < STEP_ROWS; r++) {
        if (r >= rows || !exists) continue;
        const image_seg *seg = &segs[first + r];
        int64_t token = seg->first;
        float *state = seg->state + state_offset + group * OF_LANE * width + channel;
        float4 b = *(const float4 *)(scan.b + token * STATES + group * OF_LANE);
        float4 c = *(const float4 *)(scan.c + token * STATES + group * OF_LANE);
        float h[OF_LANE];
#pragma unroll
        for (int n = 0; n < OF_LANE; n++) h[n] = state[n * width];
        float d = softplus(scan.dt[token * width + channel]);
        float in = d * scan.x[token * width + channel];
        h[0] = fmaf(exp2_falling(d * rate[0]), h[0], in * b.x);
        h[1] = fmaf(exp2_falling(d * rate[1]), h[1], in * b.y);
        h[2] = fmaf(exp2_falling(d * rate[2]), h[2], in * b.z);
        h[3] = fmaf(exp2_falling(d * rate[3]), h[3], in * b.w);
#pragma unroll
        for (int n = 0; n < OF_LANE; n++) state[n * width] = h[n];
        parts[r][group][lane] = fmaf(c.y, h[1], c.x * h[0]) + fmaf(c.w, h[3], c.z * h[2]);
    }
    __syncthreads();              /* also: y may be x or dt, which all warps have read by now */
    if (group < rows && exists) { /* warp r finishes row r */
        static_assert((int)GROUPS == (int)STEP_ROWS, "a warp for each row");
        int64_t at = segs[first + group].first * width + channel;
        float sum = (parts[group][0][lane] + parts[group][2][lane]) +
                    (parts[group][1][lane] + parts[group][3][lane]);
        y[at] = fmaf(scan.skip[channel], scan.x[at], sum);
    }
}

/* Any number of states, any width, both stages: a warp for each channel, a lane for every 32nd state,
 * which stays in memory. Right, not fast. */
static __global__ void scan_any(float *y, const ct_scan scan, const image_seg *segs,
                                int64_t state_offset)
{
    const image_seg *seg = &segs[blockIdx.y];
    int64_t width = scan.width, states = scan.states;
    int64_t channel = (int64_t)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    let_next_begin();
    wait_for_earlier();
    if (channel >= width) return;
    float *state = seg->state + state_offset;
    for (int64_t t = seg->first; t < (int64_t)seg->first + seg->count; t++) {
        float x = scan.x[t * width + channel], d = softplus(scan.dt[t * width + channel]);
        float sum = 0;
        for (int64_t n = threadIdx.x % 32; n < states; n += 32) {
            float decay = exp2_falling(d * rate_of(scan.a_log[channel * states + n]));
            float h = fmaf(decay, state[n * width + channel], d * x * scan.b[t * states + n]);
            state[n * width + channel] = h;
            sum = fmaf(scan.c[t * states + n], h, sum);
        }
        for (int mask = 16; mask; mask >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
        /* The shuffle has made all lanes read x and dt before one of them may be overwritten. */
        if (threadIdx.x % 32 == 0) y[t * width + channel] = fmaf(scan.skip[channel], x, sum);
    }
}

void cuda_selective_scan(ct_op_ctx *ctx, float *y, const ct_scan *scan, const ct_batch *batch,
                         int64_t state_offset)
{
    const batch_image &image = image_of(batch);
    if (!image.n_segs) return;
    bool fast = scan->states == STATES && scan->width % 4 == 0 && aligned16(scan->x) &&
                aligned16(scan->dt) && aligned16(scan->b) && aligned16(scan->c) &&
                aligned16(scan->a_log);
    unsigned ctas = (unsigned)ceil_div(scan->width, CHANNELS), rows = (unsigned)image.n_segs;
    if (!fast)
        LAUNCH_DEPENDENT(ctx, scan_any, dim3((unsigned)ceil_div(scan->width, 4), rows), 128, 0, y,
                         *scan, image.seg, state_offset);
    else if (ctx->stage == CT_STAGE_PREFILL)
        LAUNCH(ctx, scan_prefill, dim3(ctas, rows), 128, 0, y, *scan, image.seg, state_offset);
    else
        LAUNCH_DEPENDENT(ctx, scan_step, dim3(ctas, (unsigned)ceil_div(rows, STEP_ROWS)), 128, 0, y,
                         *scan, image.seg, image.n_segs, state_offset);
}
