/* experts.cuh - what the parts of the mixture of experts share: a pass's lists of rows by expert, the
 * table of weights that kernels take by value, and small device functions.
 *
 * A pair is one (token, chosen expert): pair p = token * used + slot, a token's slots in ascending order
 * of the expert. A row is a pair's place in the list sorted by expert: expert e has rows first[e] ..
 * first[e + 1] - 1, in ascending order of the token. Hidden activations lie by row, so that an expert's
 * are one matrix; outputs lie by pair, so that the last step adds a token's in order.
 */
#ifndef CT_OP_CUDA_EXPERTS_CUH
#define CT_OP_CUDA_EXPERTS_CUH

#include "op/cuda/device.cuh"

enum { MOST_EXPERTS = 64, TILE_ROWS = 128 };

struct expert_lists {
    int32_t first[MOST_EXPERTS + 1]; /* rows of each expert */
    int32_t tile[MOST_EXPERTS + 1];  /* tiles of TILE_ROWS rows before each expert's */
    int32_t hit[MOST_EXPERTS];       /* experts that have rows, ascending */
    int32_t n_hit;
};

/* Weights of all experts for one product: matrix 0 and, where there are two (gate and up), matrix 1. */
struct expert_weights {
    const void *data[2][MOST_EXPERTS];
    const float *bias[2][MOST_EXPERTS]; /* or NULL */
};

/* One product over all experts. Gated: x's rows are the tokens' (in experts_stream.cu each row's own copy),
 * and the result is the hidden activation of each row. Not gated: x's rows are the hidden activations,
 * and the result is each pair's output. */
struct expert_product {
    const expert_lists *lists;
    const int32_t *pair; /* [rows] the pair of a row */
    const void *x;       /* [tokens or rows, in] */
    void *y;             /* [rows, out] gated, [pairs, out] f32 otherwise */
    int32_t in, out, used, experts;
    ct_activation activation;
};

/* experts_stream.cu: one product of all experts' rows, each at most `tokens`. */
template <bool GATED>
ct_status stream_product(ct_op_ctx *ctx, const expert_weights &w, const expert_product &p,
                         int64_t tokens, ct_err *err);

__device__ static inline float wide(float x)
{
    return x;
}

__device__ static inline float wide(__half x)
{
    return __half2float(x);
}

__device__ static inline float wide(bf16 x)
{
    return __bfloat162float(x);
}

/* f(gate) * up. */
__device__ static inline float activated(ct_activation activation, float gate, float up)
{
    if (activation == CT_SILU) return gate / (1.0f + expf(-gate)) * up;
    float inner = 0.797884560802865356f * (gate + 0.044715f * gate * gate * gate);
    return 0.5f * gate * (1.0f + tanhf(inner)) * up;
}

__device__ static inline float bias_at(const float *bias, int i)
{
    return bias ? bias[i] : 0.0f;
}

#endif
