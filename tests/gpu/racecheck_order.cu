/* racecheck_order.cu - what racecheck sees of a warp's stores that another warp reads behind an mbarrier. The
 * products' and experts' kernels have one lane arrive for its warp, behind __syncwarp; CUDA's memory model
 * orders the others' stores too, racecheck reports them. Needs a GPU.
 *
 *   for how in one all none; do compute-sanitizer --tool racecheck racecheck_order $how; done
 *
 *   one    one lane arrives for its warp: reported, as in those kernels
 *   all    every lane arrives: nothing reported, as in those kernels built with -DCT_RACECHECK=ON
 *   none   nobody waits: a race, reported
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "op/cuda/gemm_copy.cuh"

enum { WRITERS = 256, ONE, ALL, NONE };

static __global__ void __launch_bounds__(WRITERS + 32) store_and_read(float *y, int how)
{
    __shared__ float stored[WRITERS];
    __shared__ alignas(8) uint64_t word;
    const uint32_t barrier = (uint32_t)__cvta_generic_to_shared(&word);
    const int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) barrier_init(barrier, how == ALL ? WRITERS : WRITERS / 32);
    __syncthreads();
    if (threadIdx.x < WRITERS) {
        stored[threadIdx.x] = (float)threadIdx.x;
        __syncwarp();
        if (how == ALL || lane == 0) barrier_arrive(barrier);
    } else {
        if (how != NONE) barrier_wait(barrier, 0);
        float sum = 0;
        for (int i = lane ^ 5; i < WRITERS; i += 32) sum += stored[i];
        y[lane] = sum;
    }
    __syncthreads();
}

int main(int argc, char **argv)
{
    const char *how = argc > 1 ? argv[1] : "";
    const int which = !strcmp(how, "one") ? ONE : !strcmp(how, "all") ? ALL : NONE;
    float *y;
    cudaError_t st = cudaMalloc((void **)&y, 32 * sizeof *y);
    if (st == cudaSuccess) store_and_read<<<1, WRITERS + 32>>>(y, which);
    if (st == cudaSuccess) st = cudaDeviceSynchronize();
    printf("%s: %s\n", how, cudaGetErrorString(st));
    return st != cudaSuccess;
}
