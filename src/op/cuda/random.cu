/* random.cu - random weights, made where they lie.
 *
 * Element i depends on (seed, stream, i) alone, so that the order of threads does not matter and the bits
 * are those of the host (base/rng.h). A thread makes 16 bytes at a time; the rate is the memory's or that
 * of the integer units, whichever is less. They are made on the stream of memory, whose lock the caller
 * holds.
 */
#include "base/rng.h"
#include "op/cuda/device.cuh"

enum { FILL_THREADS = 256, FILL_BLOCKS_A_PROCESSOR = 8 };

/* f32 to bf16 by rounding to nearest even, as op/dtype.c does; the values are finite. */
static __device__ uint32_t bf16_bits(float x)
{
    uint32_t bits = __float_as_uint(x);
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

template <bool STORED_BF16> static __device__ float element(const ct_random_fill &w, int64_t i)
{
    float x = ct_rng_uniform(w.seed, w.stream, (uint64_t)i, w.scale, w.offset);
    return STORED_BF16 ? __uint_as_float(bf16_bits(x) << 16) : x;
}

/* f32 [count], 4 elements a thread and turn. */
template <bool STORED_BF16> static __global__ void fill_f32(float *to, const ct_random_fill w)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x * 4;
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < w.count; i += step) {
        if (i + 4 <= w.count) {
            float4 v;
            v.x = element<STORED_BF16>(w, i);
            v.y = element<STORED_BF16>(w, i + 1);
            v.z = element<STORED_BF16>(w, i + 2);
            v.w = element<STORED_BF16>(w, i + 3);
            *(float4 *)(to + i) = v;
        } else {
            for (int64_t j = i; j < w.count; j++) to[j] = element<STORED_BF16>(w, j);
        }
    }
}

/* bf16 [count], 8 elements a thread and turn. */
static __global__ void fill_bf16(uint16_t *to, const ct_random_fill w)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x * 8;
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 8; i < w.count; i += step) {
        if (i + 8 <= w.count) {
            uint32_t v[4];
#pragma unroll
            for (int j = 0; j < 4; j++)
                v[j] = bf16_bits(element<false>(w, i + 2 * j)) |
                       bf16_bits(element<false>(w, i + 2 * j + 1)) << 16;
            *(uint4 *)(to + i) = make_uint4(v[0], v[1], v[2], v[3]);
        } else {
            for (int64_t j = i; j < w.count; j++) to[j] = (uint16_t)bf16_bits(element<false>(w, j));
        }
    }
}

ct_status cuda_fill_random(ct_device *device, void *to, const ct_random_fill *what, ct_err *err)
{
    if (what->count == 0) return CT_OK;
    const int64_t a_thread = what->held == CT_BF16 ? 8 : 4;
    int64_t blocks = ceil_div(what->count, a_thread * FILL_THREADS);
    const int64_t most = (int64_t)device->processors * FILL_BLOCKS_A_PROCESSOR;
    const unsigned grid = (unsigned)(blocks < most ? blocks : most);
    cudaError_t e = cudaSetDevice(device->index);
    if (e == cudaSuccess) {
        if (what->held == CT_BF16)
            fill_bf16<<<grid, FILL_THREADS, 0, device->memory_stream>>>((uint16_t *)to, *what);
        else if (what->stored == CT_BF16)
            fill_f32<true><<<grid, FILL_THREADS, 0, device->memory_stream>>>((float *)to, *what);
        else fill_f32<false><<<grid, FILL_THREADS, 0, device->memory_stream>>>((float *)to, *what);
        e = cudaGetLastError();
    }
    if (e == cudaSuccess) return CT_OK;
    return ct_fail(err, CT_ERR_UNSUPPORTED, "CUDA: random weights: %s", cudaGetErrorString(e));
}
