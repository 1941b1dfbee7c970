/* heads.cu - choosing the heads that a token keeps, and zeroing the outputs of the others. Rules and
 * scores are those of op/ref/heads.c and intervene/heads.c.
 */
#include "op/cuda/device.cuh"

#include "base/rng.h"

namespace
{

/* Higher is better; what is not a number loses to all. */
__device__ float score(const image_seg &seg, const ct_keep_args &args, int token, int position,
                       int head)
{
    int64_t at = (int64_t)token * args.heads + head;
    float x = 0;
    switch (seg.metric) {
    case CT_METRIC_ENTROPY:
        x = -args.entropy_bits[at];
        break;
    case CT_METRIC_L2:
        x = args.l2[at];
        break;
    case CT_METRIC_ENTROPY_INVERTED:
        x = args.entropy_bits[at];
        break;
    case CT_METRIC_RANDOM:
        x = ct_rng_f32(seg.seed, (uint64_t)args.layer,
                       (uint64_t)((int64_t)position * args.heads + head));
        break;
    }
    return isnan(x) ? -INFINITY : x;
}

/* A thread block for each token. */
__global__ void keep_kernel(uint8_t *keep, float *out, const __grid_constant__ ct_keep_args args,
                            const __grid_constant__ batch_image image)
{
    extern __shared__ float scores[];
    int token = (int)blockIdx.x, heads = (int)args.heads;
    let_next_begin();
    wait_for_earlier();
    const image_token at = image.token[token];
    const image_seg seg = image.seg[at.seg];
    uint8_t *own = keep + (int64_t)token * heads;
    if (seg.keep < 0) {
        for (int h = (int)threadIdx.x; h < heads; h += (int)blockDim.x) own[h] = 1;
        return;
    }
    for (int h = (int)threadIdx.x; h < heads; h += (int)blockDim.x)
        scores[h] = score(seg, args, token, at.position, h);
    __syncthreads();
    for (int h = (int)threadIdx.x; h < heads; h += (int)blockDim.x) {
        int better = 0;
        for (int o = 0; o < heads; o++)
            better += scores[o] > scores[h] || (scores[o] == scores[h] && o < h);
        own[h] = better < seg.keep;
    }
    __syncthreads(); /* makes own, too, visible to the whole block */
    int dim = (int)args.head_dim;
    float *to = out + (int64_t)token * heads * dim;
    for (int i = (int)threadIdx.x; i < heads * dim; i += (int)blockDim.x)
        if (!own[i / dim]) to[i] = 0;
}

} // namespace

void cuda_keep_heads(ct_op_ctx *ctx, uint8_t *keep, float *out, const ct_keep_args *args,
                     const ct_batch *batch)
{
    const batch_image &image = image_of(batch);
    if (image.tokens == 0) return;
    int shared = (int)(args->heads * (int64_t)sizeof(float));
    LAUNCH_DEPENDENT(ctx, keep_kernel, (unsigned)image.tokens, 256, shared, keep, out, *args,
                     image);
}
