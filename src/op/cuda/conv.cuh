/* conv.cuh - the depthwise causal convolution of a run of tokens, for the convolution itself and for the
 * gates that begin with it.
 *
 * A row's last C-1 inputs of before the call are its state, [C-1, R] oldest first.
 */
#ifndef CT_OP_CUDA_CONV_CUH
#define CT_OP_CUDA_CONV_CUH

#include "op/cuda/device.cuh"
#include "op/cuda/math.cuh"

enum {
    TAPS_MAX = 4,  /* of the fast kernels */
    CONV_RUN = 16, /* tokens of a thread */
};

/* Four channels of tokens from .. from+15 of a chunk of `count` tokens, of which the row has `before`
 * before it in this call. x is the chunk's first input. store(t, y) is called for each of the 16, with
 * y = 0 for t >= count. */
template <bool WIDE, typename Store>
static __device__ __forceinline__ void
conv_run(const float *x, const float *conv, const float *conv_bias, int taps, const float *state,
         int64_t width, int64_t channel, int before, int from, int count, Store store)
{
    const float4 zero = make_float4(0, 0, 0, 0);
    int64_t left = width - channel;
    x += channel, state += channel, conv += channel * taps;
    /* w[k] goes with the input 3-k tokens ago; fewer taps have zeros in front. */
    float4 w[TAPS_MAX], in[TAPS_MAX];
#pragma unroll
    for (int k = 0; k < TAPS_MAX; k++) {
        int tap = k - (TAPS_MAX - taps);
        w[k] = zero;
        if (tap < 0) continue;
        w[k].x = conv[tap];
        if (WIDE || left > 1) w[k].y = conv[taps + tap];
        if (WIDE || left > 2) w[k].z = conv[2 * taps + tap];
        if (WIDE || left > 3) w[k].w = conv[3 * taps + tap];
    }
    float4 bias = conv_bias ? load4<WIDE>(conv_bias + channel, left) : zero;
    in[0] = zero;
#pragma unroll
    for (int k = 1; k < TAPS_MAX; k++) { /* the inputs 3, 2, 1 tokens before `from` */
        int t = from - TAPS_MAX + k;
        in[k] = zero;
        if (TAPS_MAX - k >= taps || from >= count) continue;
        if (before + t >= 0) in[k] = load4<WIDE>(x + t * width, left);
        else in[k] = load4<false>(state + (before + t + taps - 1) * width, left);
    }
#pragma unroll 8
    for (int i = 0; i < CONV_RUN; i++) {
        int t = from + i;
        float4 sum = zero;
        if (t < count) {
#pragma unroll
            for (int k = 1; k < TAPS_MAX; k++) in[k - 1] = in[k];
            in[TAPS_MAX - 1] = load4<WIDE>(x + t * width, left);
            sum = bias;
#pragma unroll
            for (int k = 0; k < TAPS_MAX; k++) {
                sum.x = fmaf(w[k].x, in[k].x, sum.x);
                sum.y = fmaf(w[k].y, in[k].y, sum.y);
                sum.z = fmaf(w[k].z, in[k].z, sum.z);
                sum.w = fmaf(w[k].w, in[k].w, sum.w);
            }
        }
        store(t, sum);
    }
}

/* One channel of one token after the state, which moves on; state and x point at the channel. */
static __device__ __forceinline__ float conv_one(float *state, const float *x, const float *conv,
                                                 float bias, int taps, int64_t width)
{
    float sum = bias, now = *x;
    for (int k = 0; k < taps - 1; k++) {
        float v = state[k * width];
        sum = fmaf(conv[k], v, sum);
        if (k) state[(k - 1) * width] = v;
    }
    if (taps > 1) state[(taps - 2) * width] = now;
    return fmaf(conv[taps - 1], now, sum);
}

/* Moves one channel of a row's state on over `count` inputs; state and x point at the channel. */
static __device__ __forceinline__ void conv_move(float *state, const float *x, int taps, int count,
                                                 int64_t width)
{
    for (int i = 0; i < taps - 1; i++) { /* ascending: a source is read before its turn */
        int from = count - (taps - 1) + i;
        state[i * width] = from < 0 ? state[(from + taps - 1) * width] : x[from * width];
    }
}

#endif
