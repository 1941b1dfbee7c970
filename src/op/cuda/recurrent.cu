/* recurrent.cu - the causal convolution, and Griffin's recurrence between its projections.
 *
 * Prefill of the recurrence: gates.cuh's kernels leave each chunk as (decay, local); `carry` goes over the
 * chunks of a row in order, channel by channel, leaves what enters each of them, and moves the state on;
 * `apply` makes h of the three and multiplies it by the gelu branch. Only `carry` writes a state, after
 * all who read the old one.
 *
 * Generation: one kernel, a cluster of CTAs for a gate block, which share the block's convolution.
 */
#include <cooperative_groups.h>

#include "op/cuda/conv.cuh"
#include "op/cuda/device.cuh"
#include "op/cuda/gates.cuh"
#include "op/cuda/math.cuh"

namespace cg = cooperative_groups;

/* ---- convolution ----------------------------------------------------------------------------- */

/* grid (ceil(R / 256), chunks), 64 x 4 threads of 4 channels and 16 tokens. */
template <bool WIDE>
static __global__ void conv_chunks(float *y, const float *x, int64_t width, int taps,
                                   const float *w, const float *bias, const image_chunk *chunks,
                                   const image_seg *segs, int64_t state_offset)
{
    const image_chunk chunk = chunks[blockIdx.y];
    const image_seg *seg = &segs[chunk.seg];
    int64_t channel = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    int from = threadIdx.y * CONV_RUN;
    if (channel >= width || from >= chunk.count) return;
    y += chunk.first * width + channel;
    conv_run<WIDE>(x + chunk.first * width, w, bias, taps, seg->state + state_offset, width,
                   channel, chunk.first - seg->first, from, chunk.count, [=](int t, float4 v) {
                       if (t < chunk.count) store4<WIDE>(y + t * width, v, width - channel);
                   });
}

/* Any number of taps: a thread for each token and channel. */
static __global__ void conv_any(float *y, const float *x, int64_t width, int taps, const float *w,
                                const float *bias, const image_token *tokens, const image_seg *segs,
                                int64_t state_offset)
{
    int64_t token = blockIdx.x, channel = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
    if (channel >= width) return;
    const image_seg *seg = &segs[tokens[token].seg];
    const float *state = seg->state + state_offset;
    float sum = bias ? bias[channel] : 0;
    for (int k = 0; k < taps; k++) {
        int64_t from = token - seg->first - (taps - 1) + k; /* < 0: in the state */
        float v = from < 0 ? state[(from + taps - 1) * width + channel]
                           : x[(seg->first + from) * width + channel];
        sum = fmaf(w[channel * taps + k], v, sum);
    }
    y[token * width + channel] = sum;
}

/* After those: the rows' last inputs. */
static __global__ void conv_states(const float *x, int64_t width, int taps, const image_seg *segs,
                                   int64_t state_offset)
{
    const image_seg *seg = &segs[blockIdx.y];
    int64_t channel = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= width) return;
    conv_move(seg->state + state_offset + channel, x + seg->first * width + channel, taps,
              seg->count, width);
}

/* Generation: one token of each row. */
static __global__ void conv_step(float *y, const float *x, int64_t width, int taps, const float *w,
                                 const float *bias, const image_seg *segs, int64_t state_offset)
{
    const image_seg *seg = &segs[blockIdx.y];
    int64_t channel = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    let_next_begin();
    wait_for_earlier();
    if (channel >= width) return;
    int64_t at = seg->first * width + channel;
    y[at] = conv_one(seg->state + state_offset + channel, x + at, w + channel * taps,
                     bias ? bias[channel] : 0, taps, width);
}

void cuda_conv1d(ct_op_ctx *ctx, float *y, const float *x, int64_t width, int64_t taps,
                 const float *w, const float *bias, const ct_batch *batch, int64_t state_offset)
{
    const batch_image &image = image_of(batch);
    unsigned rows = (unsigned)image.n_segs, by_128 = (unsigned)ceil_div(width, 128);
    if (!rows) return;
    if (ctx->stage != CT_STAGE_PREFILL) {
        LAUNCH_DEPENDENT(ctx, conv_step, dim3(by_128, rows), 128, 0, y, x, width, (int)taps, w,
                         bias, image.seg, state_offset);
        return;
    }
    bool wide = width % 4 == 0 && aligned16(x) && aligned16(y) && aligned16(bias);
    dim3 grid((unsigned)ceil_div(width, 256), (unsigned)image.n_chunks);
    if (taps > TAPS_MAX)
        LAUNCH(ctx, conv_any, dim3((unsigned)image.tokens, by_128), 128, 0, y, x, width, (int)taps,
               w, bias, image.token, image.seg, state_offset);
    else if (wide)
        LAUNCH(ctx, conv_chunks<true>, grid, dim3(64, 4), 0, y, x, width, (int)taps, w, bias,
               image.chunk, image.seg, state_offset);
    else
        LAUNCH(ctx, conv_chunks<false>, grid, dim3(64, 4), 0, y, x, width, (int)taps, w, bias,
               image.chunk, image.seg, state_offset);
    if (taps > 1)
        LAUNCH(ctx, conv_states, dim3(by_128, rows), 128, 0, x, width, (int)taps, image.seg,
               state_offset);
}

/* ---- the recurrence over chunks -------------------------------------------------------------- */

/* enter[chunk, j] = the h that enters a chunk; then the state. A thread for each row and channel. With
 * conv_inputs, the convolution's state moves on too. */
static __global__ void carry(float *enter, gates_out made, const float *conv_inputs, int64_t width,
                             int taps, const image_chunk *chunks, const int32_t *seg_chunk,
                             int n_chunks, const image_seg *segs, int n_segs, int64_t state_offset)
{
    enum { AHEAD = 16 }; /* chunks fetched together: their loads do not wait for one another */
    int row = blockIdx.y;
    int64_t channel = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (channel >= width) return;
    const image_seg *seg = &segs[row];
    float *state = seg->state + state_offset + channel;
    float h = seg->position ? *state : 0; /* nothing is read of a state that is about to begin */
    int end = row + 1 < n_segs ? seg_chunk[row + 1] : n_chunks;
    for (int first = seg_chunk[row]; first < end; first += AHEAD) {
        float decay[AHEAD], local[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            decay[i] = local[i] = 0;
            if (first + i >= end) continue;
            const image_chunk chunk = chunks[first + i];
            int64_t last = ((int64_t)chunk.first + chunk.count - 1) * width + channel;
            decay[i] = made.decay[last];
            local[i] = made.local[last];
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            if (first + i >= end) break;
            enter[(first + i) * width + channel] = h;
            h = fmaf(decay[i], h, local[i]);
        }
    }
    *state = h;
    if (conv_inputs)
        conv_move(state + width, conv_inputs + seg->first * width + channel, taps, seg->count,
                  width);
}

/* out = (decay enter + local) gelu(y). grid (ceil(R / 256), chunks), 64 x 4 threads of 4 channels and
 * every fourth token. */
template <bool WIDE>
static __global__ void apply(float *out, const float *enter, gates_out made, const float *y,
                             int64_t width, const image_chunk *chunks)
{
    const image_chunk chunk = chunks[blockIdx.y];
    int64_t channel = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    int64_t left = width - channel;
    if (left <= 0) return;
    float4 h = load4<WIDE>(enter + blockIdx.y * width + channel, left);
#pragma unroll 4
    for (int t = threadIdx.y; t < chunk.count; t += 4) {
        int64_t at = (chunk.first + t) * width + channel;
        float4 decay = load4<WIDE>(made.decay + at, left);
        float4 local = load4<WIDE>(made.local + at, left), v = load4<WIDE>(y + at, left);
        v = make_float4(
            fmaf(decay.x, h.x, local.x) * gelu(v.x), fmaf(decay.y, h.y, local.y) * gelu(v.y),
            fmaf(decay.z, h.z, local.z) * gelu(v.z), fmaf(decay.w, h.w, local.w) * gelu(v.w));
        store4<WIDE>(out + at, v, left);
    }
}

/* ---- one token of each row ------------------------------------------------------------------- */

/* What is left once the gates of one row's token and channel are known. h is the state's. */
static __device__ __forceinline__ void finish_step(float *out, float *state, float h, float y,
                                                   float c, float gate_a, float gate_x, float param,
                                                   bool reset)
{
    float a, in;
    gate(&a, &in, gate_a, gate_x, c, -8.0f * softplus(param), reset);
    h = reset ? in : fmaf(a, h, in);
    *state = h;
    *out = h * gelu(y);
}

enum {
    STEP_CTAS = 8,                      /* of a gate block: one cluster */
    STEP_SLICE = MMA_BLOCK / STEP_CTAS, /* channels of a CTA: a warp's lanes */
    STEP_ROWS = 16,                     /* rows of a CTA: those of a product */
    STEP_WARPS = 8,                     /* each has 32 of the 256 inputs */
    STEP_STRIDE = 2 * STEP_SLICE + 4,   /* floats of a row of sums, gate x then gate a */
};

union step_room {
    float c[STEP_ROWS][MMA_C_STRIDE];
    float parts[STEP_WARPS][STEP_ROWS][STEP_STRIDE];
};

/* grid (8, blocks, ceil(rows / 16)), 256 threads. Each CTA does the convolution of its own channels, whose
 * state nobody else touches, and gives it to the cluster; then the products of its columns with all 256
 * inputs, as gates_mma makes them: a warp has all 64 columns (of both gates) and 32 inputs. The warps'
 * sums are added in order. Rows that there are not are computed from what memory holds and dropped: rows
 * of a product do not meet.
 *
 * With g = lane / 4 and q = lane % 4, a lane's 16 bytes of a weight row are columns 8g .. 8g+7, and column
 * g of product i is column 8g + i of the slice. */
static __global__ void __cluster_dims__(STEP_CTAS, 1, 1) __launch_bounds__(256, 2)
    gates_step(float *out, const float *x, const float *y, const ct_rglru w, const image_seg *segs,
               int n_segs, int64_t state_offset)
{
    __shared__ __align__(16) step_room room;
    cg::cluster_group cluster = cg::this_cluster();
    int64_t width = w.width, block = (int64_t)blockIdx.y * MMA_BLOCK;
    int slice = blockIdx.x * STEP_SLICE, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int first = blockIdx.z * STEP_ROWS, rows = min((int)STEP_ROWS, n_segs - first);
    int g = lane / 4, q = lane % 4;
    let_next_begin();

    /* All loads of weights are on their way before anything is waited for. */
    const bf16 *gate = (const bf16 *)(g < 4 ? w.gate_x.data : w.gate_a.data);
    gate += (block + warp * 32 + 2 * q) * MMA_BLOCK + slice + g % 4 * 8;
    uint4 packed[2][4]; /* of inputs 2q, 2q+1, 2q+8, 2q+9 of each 16 */
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int k = 0; k < 4; k++)
            packed[i][k] = __ldg((const uint4 *)(gate + (i * 16 + k / 2 * 8 + k % 2) * MMA_BLOCK));

    /* From here to the products, and after them: warp r has rows r and r + 8, lane j channel j. */
    int64_t channel = block + slice + lane;
    float param = w.param[channel];
    float bias_x = w.gate_x_bias ? w.gate_x_bias[channel] : 0;
    float bias_a = w.gate_a_bias ? w.gate_a_bias[channel] : 0;
    float conv_bias = w.conv_bias ? w.conv_bias[channel] : 0;
    const int taps = (int)w.taps;
    float tap[TAPS_MAX]; /* the last one is the newest input's */
#pragma unroll
    for (int k = 0; k < TAPS_MAX; k++) {
        int from = k - (TAPS_MAX - taps);
        tap[k] = from >= 0 ? w.conv[channel * taps + from] : 0;
    }
    float own[2], branch[2], h[2], in[2][TAPS_MAX];
    wait_for_earlier();
#pragma unroll
    for (int r = 0; r < 2; r++) { /* all loads before the first store */
        own[r] = branch[r] = h[r] = 0;
        if (warp + 8 * r >= rows) continue;
        const image_seg *seg = &segs[first + warp + 8 * r];
        const float *state = seg->state + state_offset + channel;
        int64_t at = seg->first * width + channel;
        branch[r] = y[at], h[r] = *state;
#pragma unroll
        for (int k = 0; k < TAPS_MAX - 1; k++) {
            int from = k - (TAPS_MAX - taps);
            in[r][k] = from >= 0 ? state[(from + 1) * width] : 0;
        }
        in[r][TAPS_MAX - 1] = x[at];
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
        if (warp + 8 * r >= rows) continue;
        float *state = segs[first + warp + 8 * r].state + state_offset + channel;
        own[r] = conv_bias;
#pragma unroll
        for (int k = 0; k < TAPS_MAX; k++) {
            int from = k - (TAPS_MAX - taps);
            if (from >= 0) own[r] = fmaf(tap[k], in[r][k], own[r]);
            if (from >= 1) state[from * width] = in[r][k];
        }
    }
    cluster.sync(); /* the others have begun, so that their memory may be written */
#pragma unroll
    for (int r = 0; r < 2; r++)
        if (warp + 8 * r < rows)
            for (int i = 0; i < STEP_CTAS; i++)
                cluster.map_shared_rank(&room.c[0][0],
                                        i)[(warp + 8 * r) * MMA_C_STRIDE + slice + lane] = own[r];
    cluster.sync();

    float sums[8][4] = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        uint32_t a[3][4];
        const float *c = &room.c[g][warp * 32 + i * 16 + q * 2];
#pragma unroll
        for (int k = 0; k < 4; k++) { /* rows +0, +8, +0, +8; inputs +0, +0, +8, +8 */
            float2 v = *(const float2 *)(c + (k & 1) * 8 * MMA_C_STRIDE + (k >> 1) * 8);
#pragma unroll
            for (int p = 0; p < 3; p++) a[p][k] = split_pair(&v);
        }
        const uint32_t words[4][4] = {
            {packed[i][0].x, packed[i][0].y, packed[i][0].z, packed[i][0].w},
            {packed[i][1].x, packed[i][1].y, packed[i][1].z, packed[i][1].w},
            {packed[i][2].x, packed[i][2].y, packed[i][2].z, packed[i][2].w},
            {packed[i][3].x, packed[i][3].y, packed[i][3].z, packed[i][3].w}};
#pragma unroll
        for (int p = 2; p >= 0; p--)
#pragma unroll
            for (int j = 0; j < 8; j++) {
                uint32_t halves = j % 2 ? 0x7632 : 0x5410;
                mma(sums[j], a[p], __byte_perm(words[0][j / 2], words[1][j / 2], halves),
                    __byte_perm(words[2][j / 2], words[3][j / 2], halves));
            }
    }
    __syncthreads(); /* all have read c, whose place the sums take */
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
            float *to = &room.parts[warp][g + 8 * r][8 * (2 * q + k)];
            int i = 2 * r + k;
            *(float4 *)to = make_float4(sums[0][i], sums[1][i], sums[2][i], sums[3][i]);
            *(float4 *)(to + 4) = make_float4(sums[4][i], sums[5][i], sums[6][i], sums[7][i]);
        }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int row = warp + 8 * r;
        if (row >= rows) continue;
        float gate_x = 0, gate_a = 0;
#pragma unroll
        for (int i = 0; i < STEP_WARPS; i++) {
            gate_x += room.parts[i][row][lane];
            gate_a += room.parts[i][row][STEP_SLICE + lane];
        }
        const image_seg *seg = &segs[first + row];
        finish_step(out + seg->first * width + channel, seg->state + state_offset + channel, h[r],
                    branch[r], own[r], gate_a + bias_a, gate_x + bias_x, param, seg->position == 0);
    }
}

/* Any block size and type of weights; c [T, R] is the convolution. A thread for each channel, 4 rows. */
static __global__ void gates_step_any(float *out, const float *c, const float *y, const ct_rglru w,
                                      const image_seg *segs, int n_segs, int64_t state_offset)
{
    enum { ROWS = 4 };
    int64_t width = w.width, n = width / w.blocks;
    int64_t channel = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int first = blockIdx.y * ROWS, rows = min((int)ROWS, n_segs - first);
    let_next_begin();
    wait_for_earlier();
    if (channel >= width) return;
    int64_t block = channel / n * n, column = channel - block;
    float gate_x[ROWS], gate_a[ROWS];
    const float *in[ROWS];
    for (int r = 0; r < ROWS; r++) {
        gate_x[r] = gate_a[r] = 0;
        in[r] = c + segs[first + min(r, rows - 1)].first * width + block;
    }
#pragma unroll 4
    for (int64_t i = 0; i < n; i++) {
        float of_x = weight_at(w.gate_x.data, w.gate_x.dtype, (block + i) * n + column);
        float of_a = weight_at(w.gate_a.data, w.gate_a.dtype, (block + i) * n + column);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            gate_x[r] = fmaf(in[r][i], of_x, gate_x[r]);
            gate_a[r] = fmaf(in[r][i], of_a, gate_a[r]);
        }
    }
    float bias_x = w.gate_x_bias ? w.gate_x_bias[channel] : 0;
    float bias_a = w.gate_a_bias ? w.gate_a_bias[channel] : 0;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (r >= rows) break;
        const image_seg *seg = &segs[first + r];
        int64_t at = seg->first * width + channel;
        float *state = seg->state + state_offset + channel;
        finish_step(out + at, state, *state, y[at], c[at], gate_a[r] + bias_a, gate_x[r] + bias_x,
                    w.param[channel], seg->position == 0);
    }
}

/* ---- rglru ----------------------------------------------------------------------------------- */

static void rglru_prefill(ct_op_ctx *ctx, float *out, const float *x, const float *y,
                          const ct_rglru *w, float *work, const ct_batch *batch,
                          int64_t state_offset, bool tensor_cores)
{
    const batch_image &image = image_of(batch);
    int64_t width = w->width, n = width / w->blocks;
    unsigned chunks = (unsigned)image.n_chunks, rows = (unsigned)image.n_segs;
    gates_out made = {work, work + image.tokens * width};
    float *enter = work + 2 * image.tokens * width;
    if (tensor_cores) {
        note(ctx->device,
             cudaFuncSetAttribute(gates_mma, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  sizeof(gates_room)),
             "gates_mma");
        LAUNCH(ctx, gates_mma, dim3((unsigned)w->blocks * 2, chunks), 256, sizeof(gates_room), made,
               x, *w, image.chunk, image.seg, state_offset);
    } else {
        float *c = out; /* until `apply` */
        cuda_conv1d(ctx, c, x, width, w->taps, w->conv, w->conv_bias, batch, state_offset + width);
        dim3 grid((unsigned)(w->blocks * ceil_div(n, ANY_SLICE)), chunks);
        LAUNCH(ctx, gates_any, grid, 256, 0, made, c, *w, image.chunk, image.seg);
    }
    LAUNCH(ctx, carry, dim3((unsigned)ceil_div(width, 32), rows), 32, 0, enter, made,
           tensor_cores ? x : NULL, width, (int)w->taps, image.chunk, image.seg_chunk,
           image.n_chunks, image.seg, image.n_segs, state_offset);
    dim3 grid((unsigned)ceil_div(width, 256), chunks);
    bool wide = width % 4 == 0 && aligned16(out) && aligned16(y) && aligned16(work);
    if (wide)
        LAUNCH(ctx, apply<true>, grid, dim3(64, 4), 0, out, enter, made, y, width, image.chunk);
    else LAUNCH(ctx, apply<false>, grid, dim3(64, 4), 0, out, enter, made, y, width, image.chunk);
}

ct_status cuda_rglru(ct_op_ctx *ctx, float *out, const float *x, float *y, const ct_rglru *w,
                     float *work, const ct_batch *batch, int64_t state_offset, ct_err *err)
{
    const batch_image &image = image_of(batch);
    if (w->blocks < 1 || w->width % w->blocks)
        return ct_fail(err, CT_ERR_VALUE,
                       "rglru: expected a width that %lld gate blocks divide, got %lld",
                       (long long)w->blocks, (long long)w->width);
    if (!image.n_segs) return CT_OK;
    unsigned rows = (unsigned)image.n_segs;
    bool large = w->width == w->blocks * MMA_BLOCK && w->taps <= TAPS_MAX &&
                 w->gate_x.dtype == CT_BF16 && w->gate_a.dtype == CT_BF16;
    if (large && !(aligned16(w->gate_x.data) && aligned16(w->gate_a.data) && aligned16(x) &&
                   aligned16(w->conv_bias)))
        return ct_fail(err, CT_ERR_VALUE,
                       "rglru: expected inputs and weights on borders of 16 bytes");
    if (ctx->stage == CT_STAGE_PREFILL) {
        rglru_prefill(ctx, out, x, y, w, work, batch, state_offset,
                      large && ctx->compute == CT_COMPUTE_BF16);
    } else if (large) {
        dim3 grid(STEP_CTAS, (unsigned)w->blocks, (unsigned)ceil_div(rows, STEP_ROWS));
        LAUNCH_DEPENDENT(ctx, gates_step, grid, 256, 0, out, x, y, *w, image.seg, image.n_segs,
                         state_offset);
    } else {
        cuda_conv1d(ctx, work, x, w->width, w->taps, w->conv, w->conv_bias, batch,
                    state_offset + w->width);
        LAUNCH_DEPENDENT(ctx, gates_step_any,
                         dim3((unsigned)ceil_div(w->width, 64), (unsigned)ceil_div(rows, 4)), 64, 0,
                         out, work, y, *w, image.seg, image.n_segs, state_offset);
    }
    return CT_OK;
}
