/* gates.cuh - the gates of Griffin's recurrence over chunks of time, and the recurrence within a chunk.
 *
 * A CTA takes one chunk (up to 64 tokens, aligned to absolute positions) of some channels of one gate
 * block. It leaves, for each token, what the chunk does to a state that enters it:
 *   h_t = decay_t h_in + local_t,   decay_t = a_first ... a_t,   local_t = h_t of a chunk entered with 0.
 * recurrent.cu carries h over the chunks and applies it. As chunks begin at multiples of 64 positions
 * and each is left in this form, a cut there changes no bit.
 *
 * gates_mma is for blocks of 256 channels with bf16 weights: tensor cores, each f32 activation as the
 * sum of three bf16 (24 bits, which is all of it), so that the products are those of f32 with f32 sums.
 * gates_any is for everything else.
 */
#ifndef CT_OP_CUDA_GATES_CUH
#define CT_OP_CUDA_GATES_CUH

#include "op/cuda/conv.cuh"
#include "op/cuda/device.cuh"
#include "op/cuda/math.cuh"

/* What gates kernels write, [T, R] each. */
struct gates_out {
    float *decay, *local;
};

/* a and the gated input of one token and channel: h = a h + in. rate = -8 softplus(param). */
static __device__ __forceinline__ void gate(float *a, float *in, float gate_a, float gate_x,
                                            float c, float rate, bool reset)
{
    /* With e = a - 1 = expm1(log a): sqrt(1 - a^2) = sqrt(-e (2 + e)), which keeps its digits where a
     * is near 1. */
    float e = expm1f(sigmoid(gate_a) * rate), x = sigmoid(gate_x) * c;
    *a = reset ? 0.0f : e + 1.0f;
    *in = reset ? x : sqrtf(-e * (e + 2.0f)) * x;
}

/* The scan within a chunk: threads 0 .. CHANNELS-1 make `local`, CHANNELS .. 2 CHANNELS-1 `decay`, each
 * of channel thread % CHANNELS. a and in: [64][stride], those after `count` are not used. */
template <int CHANNELS>
static __device__ __forceinline__ void scan_chunk(const float *a, const float *in, int stride,
                                                  int count, float *decay, float *local,
                                                  int64_t width)
{
    enum { AHEAD = 16 }; /* tokens read together */
    int j = threadIdx.x % CHANNELS;
    bool product = threadIdx.x >= CHANNELS; /* the same chain with 1 to begin with and no input */
    if (threadIdx.x >= 2 * CHANNELS) return;
    float *to = (product ? decay : local) + j, h = product ? 1.0f : 0.0f;
    for (int first = 0; first < count; first += AHEAD) {
        float by[AHEAD], add[AHEAD];
#pragma unroll
        for (int t = 0; t < AHEAD; t++) {
            by[t] = a[(first + t) * stride + j];
            add[t] = product ? 0.0f : in[(first + t) * stride + j];
        }
#pragma unroll
        for (int t = 0; t < AHEAD; t++) {
            h = fmaf(by[t], h, add[t]);
            if (first + t < count) to[(first + t) * width] = h;
        }
    }
}

/* ---- tensor cores ---- */

enum {
    MMA_BLOCK = 256,              /* channels of a gate block: 2B and 9B */
    MMA_SLICE = 128,              /* of them a CTA's */
    MMA_STEP = 32,                /* inputs whose weights are fetched together */
    MMA_C_STRIDE = MMA_BLOCK + 8, /* floats: rows 8 banks apart, for 8-byte reads of a fragment */
    MMA_W_STRIDE = MMA_SLICE + 8, /* bf16: rows 16 bytes apart modulo the banks, for ldmatrix */
};

struct gates_room {
    float c[CHUNK_TOKENS][MMA_C_STRIDE];
    bf16 w[2][2][MMA_STEP][MMA_W_STRIDE]; /* [turn][gate x, gate a] */
    float rate[MMA_SLICE], bias_x[MMA_SLICE], bias_a[MMA_SLICE];
};

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* Weights of inputs [step * MMA_STEP, ...) of both gates: w points at the slice's first column. */
static __device__ __forceinline__ void fetch_weights(gates_room *room, const bf16 *gate_x,
                                                     const bf16 *gate_a, int step)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int at = threadIdx.x + i * 256, part = at % 16 * 8, k = at / 16 % MMA_STEP;
        bool second = at >= 16 * MMA_STEP;
        const bf16 *from = (second ? gate_a : gate_x) + (step * MMA_STEP + k) * MMA_BLOCK + part;
        uint32_t to = shared_address(&room->w[step & 1][second][k][part]);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
    }
    asm volatile("cp.async.commit_group;");
}

/* Takes the part of two f32 that fits in bf16 off them. */
static __device__ __forceinline__ uint32_t split_pair(float2 *v)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(v->y), "f"(v->x));
    v->x -= low_bf16(pair);
    v->y -= high_bf16(pair);
    return pair;
}

static __device__ __forceinline__ void mma(float *sum, const uint32_t *a, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 16 inputs' share of a warp's sums: tokens row .. row+15, 64 channels from `column` on. Smallest parts
 * first. */
static __device__ __forceinline__ void mma_step(float sums[2][8][4], const gates_room *room,
                                                int turn, int k, int k_of_step, int row, int column)
{
    int lane = threadIdx.x % 32;
    uint32_t a[3][4];
    const float *c = &room->c[row + lane / 4][k + lane % 4 * 2];
#pragma unroll
    for (int i = 0; i < 4; i++) { /* rows +0, +8, +0, +8; inputs +0, +0, +8, +8 */
        float2 v = *(const float2 *)(c + (i & 1) * 8 * MMA_C_STRIDE + (i >> 1) * 8);
#pragma unroll
        for (int p = 0; p < 3; p++) a[p][i] = split_pair(&v);
    }
#pragma unroll
    for (int g = 0; g < 2; g++) {
#pragma unroll
        for (int n = 0; n < 8; n += 2) {
            uint32_t b[4],
                from = shared_address(
                    &room->w[turn][g][k_of_step + lane % 16][column + n * 8 + lane / 16 * 8]);
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                         : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                         : "r"(from));
#pragma unroll
            for (int p = 2; p >= 0; p--) {
                mma(sums[g][n], a[p], b[0], b[1]);
                mma(sums[g][n + 1], a[p], b[2], b[3]);
            }
        }
    }
}

/* grid (2 * blocks, chunks), 256 threads: 4 x 2 warps of 16 tokens and 64 channels of both gates. */
static __global__ void __launch_bounds__(256, 2)
    gates_mma(gates_out out, const float *x, const ct_rglru w, const image_chunk *chunks,
              const image_seg *segs, int64_t state_offset)
{
    extern __shared__ __align__(16) unsigned char memory[];
    gates_room *room = (gates_room *)memory;
    const image_chunk chunk = chunks[blockIdx.y];
    const image_seg *seg = &segs[chunk.seg];
    int64_t width = w.width;
    int block = blockIdx.x / 2, slice = blockIdx.x % 2 * MMA_SLICE;
    int64_t channel = (int64_t)block * MMA_BLOCK; /* of the block; the CTA's begin at + slice */

    int64_t weights = (int64_t)block * MMA_BLOCK * MMA_BLOCK + slice;
    const bf16 *gate_x = (const bf16 *)w.gate_x.data + weights;
    const bf16 *gate_a = (const bf16 *)w.gate_a.data + weights;
    fetch_weights(room, gate_x, gate_a, 0);
    fetch_weights(room, gate_x, gate_a, 1);
    if (threadIdx.x < MMA_SLICE) {
        int64_t j = channel + slice + threadIdx.x;
        room->rate[threadIdx.x] = -8.0f * softplus(w.param[j]);
        room->bias_x[threadIdx.x] = w.gate_x_bias ? w.gate_x_bias[j] : 0;
        room->bias_a[threadIdx.x] = w.gate_a_bias ? w.gate_a_bias[j] : 0;
    }
    int part = threadIdx.x % (MMA_BLOCK / 4) * 4, from = threadIdx.x / (MMA_BLOCK / 4) * CONV_RUN;
    conv_run<true>(x + chunk.first * width, w.conv, w.conv_bias, (int)w.taps,
                   seg->state + state_offset + width, width, channel + part,
                   chunk.first - seg->first, from, chunk.count,
                   [=](int t, float4 v) { *(float4 *)&room->c[t][part] = v; });

    float sums[2][8][4] = {};
    int warp = threadIdx.x / 32, row = warp % 4 * 16, column = warp / 4 * 64;
    const int steps = MMA_BLOCK / MMA_STEP;
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) asm volatile("cp.async.wait_group 1;" ::: "memory");
        else asm volatile("cp.async.wait_group 0;" ::: "memory");
        __syncthreads();
#pragma unroll
        for (int k = 0; k < MMA_STEP; k += 16)
            mma_step(sums, room, step & 1, step * MMA_STEP + k, k, row, column);
        __syncthreads();
        if (step + 2 < steps) fetch_weights(room, gate_x, gate_a, step + 2);
    }

    /* All have read c. The gated inputs replace the slice's part of it, a the other slice's. */
    bool starts = seg->position + (chunk.first - seg->first) == 0;
    int lane = threadIdx.x % 32, other = MMA_SLICE - slice;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int t = row + lane / 4 + (i >> 1) * 8, j = column + n * 8 + lane % 4 * 2 + (i & 1);
            float *in = &room->c[t][slice + j];
            gate(&room->c[t][other + j], in, sums[1][n][i] + room->bias_a[j],
                 sums[0][n][i] + room->bias_x[j], *in, room->rate[j], starts && t == 0);
        }
    __syncthreads();
    int64_t to = chunk.first * width + channel + slice;
    scan_chunk<MMA_SLICE>(&room->c[0][other], &room->c[0][slice], MMA_C_STRIDE, chunk.count,
                          out.decay + to, out.local + to, width);
}

/* ---- any block size and type of weights ---- */

enum {
    ANY_SLICE = 64,
    ANY_STEP = 16,                  /* inputs fetched together */
    ANY_C_STRIDE = CHUNK_TOKENS + 4 /* rows on other banks; 16 of them are 17 of 64 */
};

/* grid (blocks * ceil(n / 64), chunks), 256 threads of 4 tokens and 4 channels of both gates. c [T, R] is
 * the convolution. */
static __global__ void __launch_bounds__(256)
    gates_any(gates_out out, const float *c, const ct_rglru w, const image_chunk *chunks,
              const image_seg *segs)
{
    /* The weights' and activations' rooms are used again for the scan's. */
    __shared__ float4 room[2 * CHUNK_TOKENS * ANY_SLICE / 4];
    float(*a)[ANY_SLICE] = (float(*)[ANY_SLICE])room, (*in)[ANY_SLICE] = a + CHUNK_TOKENS;
    float(*cs)[ANY_C_STRIDE] = (float(*)[ANY_C_STRIDE])room; /* [ANY_STEP] inputs */
    float(*wx)[ANY_SLICE] = a + ANY_STEP + 1, (*wa)[ANY_SLICE] = wx + ANY_STEP;

    const image_chunk chunk = chunks[blockIdx.y];
    const image_seg *seg = &segs[chunk.seg];
    int64_t width = w.width;
    int n = (int)(w.width / w.blocks), slices = (n + ANY_SLICE - 1) / ANY_SLICE;
    int block = blockIdx.x / slices, slice = blockIdx.x % slices * ANY_SLICE;
    int64_t channel = (int64_t)block * n, weights = channel * n;
    const float *c_block = c + chunk.first * width + channel;
    int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;

    float sum_x[4][4] = {}, sum_a[4][4] = {};
    for (int step = 0; step < n; step += ANY_STEP) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int at = threadIdx.x + i * 256, k = at % ANY_STEP, t = at / ANY_STEP;
            bool exists = step + k < n && t < chunk.count;
            cs[k][t] = exists ? c_block[t * width + step + k] : 0;
            int j = at % ANY_SLICE;
            k = at / ANY_SLICE;
            exists = step + k < n && slice + j < n;
            int64_t from = weights + (int64_t)(step + k) * n + slice + j;
            wx[k][j] = exists ? weight_at(w.gate_x.data, w.gate_x.dtype, from) : 0;
            wa[k][j] = exists ? weight_at(w.gate_a.data, w.gate_a.dtype, from) : 0;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < ANY_STEP; k++) {
            float4 v4 = *(const float4 *)&cs[k][row], x4 = *(const float4 *)&wx[k][column];
            float4 a4 = *(const float4 *)&wa[k][column];
            const float v[4] = {v4.x, v4.y, v4.z, v4.w}, x[4] = {x4.x, x4.y, x4.z, x4.w};
            const float g[4] = {a4.x, a4.y, a4.z, a4.w};
#pragma unroll
            for (int t = 0; t < 4; t++)
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    sum_x[t][j] = fmaf(v[t], x[j], sum_x[t][j]);
                    sum_a[t][j] = fmaf(v[t], g[j], sum_a[t][j]);
                }
        }
        __syncthreads();
    }

    bool starts = seg->position + (chunk.first - seg->first) == 0;
    int channels = min(ANY_SLICE, n - slice);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (column + j >= channels) continue;
        int64_t at = channel + slice + column + j;
        float rate = -8.0f * softplus(w.param[at]);
        float bias_x = w.gate_x_bias ? w.gate_x_bias[at] : 0;
        float bias_a = w.gate_a_bias ? w.gate_a_bias[at] : 0;
#pragma unroll
        for (int t = 0; t < 4; t++) {
            if (row + t >= chunk.count) continue;
            gate(&a[row + t][column + j], &in[row + t][column + j], sum_a[t][j] + bias_a,
                 sum_x[t][j] + bias_x, c_block[(row + t) * width + slice + column + j], rate,
                 starts && row + t == 0);
        }
    }
    __syncthreads();
    int64_t to = chunk.first * width + channel + slice;
    if (threadIdx.x % ANY_SLICE < channels)
        scan_chunk<ANY_SLICE>(&a[0][0], &in[0][0], ANY_SLICE, chunk.count, out.decay + to,
                              out.local + to, width);
}

#endif
