/* gemm.cuh - what the files of the products share: gemm_f32.cu (exact products in f32), gemm_decode.cu
 * and gemm_stream.cuh (bf16, few rows, weights streamed once), gemm_plain.cu (bf16, unaligned weights),
 * gemm_prefill.cu (bf16, many rows, by cuBLASLt), matmul.cu (the operations made of them), logits.cu.
 */
#ifndef CT_OP_CUDA_GEMM_CUH
#define CT_OP_CUDA_GEMM_CUH

#include <cuda.h>

#include "op/cuda/device.cuh"

struct logits_room;

/* One pinned algorithm of cuBLASLt: for a shape of weights, whatever the number of rows. */
struct gemm_plan {
    int64_t n, k;
    bool bf16_out, bias, accumulate;
    cublasLtMatmulAlgo_t algo;
};
enum { MOST_PLANS = 256 };

/* How many clusters of a kernel run at once. */
struct decode_room {
    const void *kernel;
    int blocks; /* of a cluster */
    size_t shared;
    int clusters;
};
enum { MOST_ROOMS = 64 };

/* What a device keeps for its products. */
struct gemm_plans {
    int count;
    gemm_plan table[MOST_PLANS];
    int rooms;
    decode_room room[MOST_ROOMS];
    void *encode; /* the driver's cuTensorMapEncodeTiled */
    logits_room *logits;
};

/* The device's plans, made at first use; NULL: no memory. */
gemm_plans *plans_of(ct_device *device);
/* A matrix [rows, cols] of bf16 of which boxes of box_rows x 64 columns are fetched. */
ct_status map_matrix(gemm_plans *plans, CUtensorMap *map, const void *data, int64_t rows,
                     int64_t cols, int box_rows, ct_err *err);
/* A launch of clusters that may begin before the kernel in front has ended; attr has room for 2. */
cudaLaunchConfig_t cluster_config(ct_op_ctx *ctx, cudaLaunchAttribute *attr, unsigned blocks,
                                  unsigned threads, size_t shared, int blocks_of_cluster);
/* How many clusters run at once; asked once for each. Readies the kernel for so much shared memory. */
int clusters_of(ct_op_ctx *ctx, gemm_plans *plans, const void *kernel, int threads, int blocks,
                size_t shared);
/* logits.cu's. */
void logits_room_free(logits_room *room);

static inline bool is_aligned(const void *p)
{
    return ((uintptr_t)p & 15) == 0;
}

static inline __device__ float activate(float a, ct_activation activation)
{
    if (activation == CT_SILU) return a / (1.0f + expf(-a));
    return 0.5f * a * (1.0f + tanhf(0.7978845608028654f * (a + 0.044715f * a * a * a)));
}

/* y[T,N] = x w^T in f32, w of any type. */
void product_f32(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens, const ct_matrix *w,
                 const float *bias, bool accumulate);

/* A list of bf16 products of one x, [T,K] f32 or bf16 (x_bf16). The kernel for generation, and for
 * shapes that cuBLASLt has no aligned way for. */
ct_status product_decode(ct_op_ctx *ctx, const ct_product *list, int64_t n, const void *x,
                         bool x_bf16, int64_t tokens, bool accumulate, ct_err *err);
/* hidden[T,F] = f(x Wg^T + bg) * (x Wu^T + bu), as bf16. */
ct_status gated_decode(ct_op_ctx *ctx, bf16 *hidden, const float *x, int64_t tokens,
                       const ct_mlp *mlp, ct_err *err);

/* The same for any weights, slowly. */
void product_plain(ct_op_ctx *ctx, const ct_product *p, const void *x, bool x_bf16, int64_t tokens,
                   bool accumulate);
void gated_plain(ct_op_ctx *ctx, bf16 *hidden, const float *x, int64_t tokens, const ct_mlp *mlp);

/* Whether cuBLASLt can take these weights; depends on shape and alignment, never on rows. */
bool prefill_fits(const ct_matrix *w, const void *y, const float *bias);
/* y[T,N], f32 or bf16 (y_bf16), by cuBLASLt. */
ct_status product_prefill(ct_op_ctx *ctx, void *y, bool y_bf16, const bf16 *x, int64_t tokens,
                          const ct_matrix *w, const float *bias, bool accumulate, ct_err *err);

#endif
