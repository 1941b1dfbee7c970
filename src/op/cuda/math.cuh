/* math.cuh - accurate activation functions and 4-wide accesses for the elementwise and recurrent kernels.
 *
 * Everything here is within a few units in the last place of f32; rcp by __fdividef is within two. A
 * kernel that reads four elements at a time does the same sums in the same order when it has to read
 * them one by one, so that bits do not depend on where a buffer lies.
 */
#ifndef CT_OP_CUDA_MATH_CUH
#define CT_OP_CUDA_MATH_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "op/cuda/device.cuh"

static __device__ __forceinline__ float sigmoid(float v)
{
    return __fdividef(1.0f, 1.0f + expf(-v)); /* 1/inf = 0 */
}

/* log(1 + exp(v)), with relative accuracy for very negative v too. */
static __device__ __forceinline__ float softplus(float v)
{
    return fmaxf(v, 0.0f) + log1pf(expf(-fabsf(v)));
}

static __device__ __forceinline__ float silu(float v)
{
    return v / (1.0f + expf(-v));
}

/* 0.5 v (1 + tanh(u)) = v sigmoid(2u), u = sqrt(2/pi) (v + 0.044715 v^3); this form does not cancel. */
static __device__ __forceinline__ float gelu(float v)
{
    float u = 0.79788456080286535588f * (v + 0.044715f * v * v * v);
    return v / (1.0f + expf(-2.0f * u));
}

/* Is p on a 16-byte border? Kernels' hosts ask it of every pointer that is read four wide. */
static inline bool aligned16(const void *p)
{
    return ((uintptr_t)p & 15) == 0;
}

/* Four floats from p on, of which `left` exist (others are 0). */
template <bool WIDE> static __device__ __forceinline__ float4 load4(const float *p, int64_t left)
{
    if (WIDE) return *(const float4 *)p;
    return make_float4(left > 0 ? p[0] : 0, left > 1 ? p[1] : 0, left > 2 ? p[2] : 0,
                       left > 3 ? p[3] : 0);
}

template <bool WIDE> static __device__ __forceinline__ void store4(float *p, float4 v, int64_t left)
{
    if (WIDE) {
        *(float4 *)p = v;
        return;
    }
    if (left > 0) p[0] = v.x;
    if (left > 1) p[1] = v.y;
    if (left > 2) p[2] = v.z;
    if (left > 3) p[3] = v.w;
}

/* Element i of an array of a stored type, widened (exact). */
static __device__ __forceinline__ float weight_at(const void *data, int dtype, int64_t i)
{
    if (dtype == CT_BF16) return __bfloat162float(((const bf16 *)data)[i]);
    if (dtype == CT_F16) return __half2float(((const __half *)data)[i]);
    return ((const float *)data)[i];
}

static __device__ __forceinline__ float low_bf16(uint32_t pair)
{
    return __uint_as_float(pair << 16);
}

static __device__ __forceinline__ float high_bf16(uint32_t pair)
{
    return __uint_as_float(pair & 0xffff0000u);
}

#endif
