/* gemm_copy.cuh - barriers in shared memory, the copy engine and clusters, as gemm_decode.cu needs them;
 * addresses are those of shared memory.
 */
#ifndef CT_OP_CUDA_GEMM_COPY_CUH
#define CT_OP_CUDA_GEMM_COPY_CUH

#include <cuda.h>
#include <stdint.h>

static inline __device__ void wait_for_previous_kernel()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

static inline __device__ void let_next_kernel_start()
{
    asm volatile("griddepcontrol.launch_dependents;");
}

static inline __device__ void barrier_init(uint32_t barrier, int count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
}

static inline __device__ void barrier_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

static inline __device__ void barrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

static inline __device__ void barrier_wait(uint32_t barrier, int parity)
{
    asm volatile("{ .reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again; }" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

static inline __device__ uint32_t in_block(uint32_t address, int rank)
{
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

/* The same with what the cluster's other blocks did before they arrived. */
static inline __device__ void barrier_arrive_in(uint32_t barrier, int rank)
{
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(
                     in_block(barrier, rank))
                 : "memory");
}

/* How many of a warp's lanes arrive for it. One is enough, since __syncwarp orders the others' accesses before
 * its arrival. racecheck sees no more than the arriving lane's own, and calls the rest races
 * (tests/gpu/racecheck_order.cu): a build for it (-DCT_RACECHECK=ON) has all arrive, which costs 2 to 9 %. */
#ifdef CT_RACECHECK
enum { ARRIVING = 32 };
#else
enum { ARRIVING = 1 };
#endif

/* A warp, all of whose lanes call, arrives at the barrier of that address in each block of the cluster. */
static inline __device__ void warp_arrives(uint32_t barrier, int blocks)
{
    const int lane = threadIdx.x % 32;
    __syncwarp();
    if (ARRIVING == 1 && lane < blocks) barrier_arrive_in(barrier, lane);
    for (int rank = 0; ARRIVING > 1 && rank < blocks; rank++) barrier_arrive_in(barrier, rank);
}

static inline __device__ void barrier_wait_for_cluster(uint32_t barrier, int parity)
{
    asm volatile("{ .reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again; }" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* Whole warps arrive: a warp that arrives in two parts counts twice, and the barrier never opens. */
static inline __device__ void cluster_arrive()
{
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}

static inline __device__ void cluster_wait()
{
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

static inline __device__ float4 load_from(uint32_t address, int rank)
{
    float4 v;
    asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(in_block(address, rank))
                 : "memory");
    return v;
}

/* Fetches a box, zeros where it reaches over an edge; policy: what L2 does with it. */
static inline __device__ void fetch(uint32_t to, const CUtensorMap *map, int column, int row,
                                    uint32_t barrier, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
                 : "memory");
}

#endif
