/* limits.cu - what the device can do at most, measured: the yardstick of every share in a bench.
 *
 * Each limit is the best of several runs, timed by events. Buffers are far larger than the L2 cache, and
 * products are of random numbers: a GPU draws less power, and clocks higher, on zeros.
 */
#include <stdio.h>

#include "op/cuda/device.cuh"

enum {
    LIMIT_RUNS = 10,
    LIMIT_SIDE = 8192, /* of the product's matrices */
    READ_THREADS = 512,
    FMA_CHAINS = 8,
    FMA_ROUNDS = 4096,
};
static const size_t LIMIT_BYTES = (size_t)2 << 30;

/* Sums `count` float4, eight loads in flight a thread; the store never happens, but cannot be left out. */
static __global__ void __launch_bounds__(READ_THREADS)
    read_all(const float4 *from, int64_t count, float *sink)
{
    const int64_t step = (int64_t)gridDim.x * READ_THREADS;
    float sum = 0;
    int64_t i = (int64_t)blockIdx.x * READ_THREADS + threadIdx.x;
    for (; i + 7 * step < count; i += 8 * step) {
        float4 v[8];
#pragma unroll
        for (int j = 0; j < 8; j++) v[j] = __ldcs(from + i + j * step);
#pragma unroll
        for (int j = 0; j < 8; j++) sum += v[j].x + v[j].y + v[j].z + v[j].w;
    }
    for (; i < count; i += step) {
        float4 v = from[i];
        sum += v.x + v.y + v.z + v.w;
    }
    if (sum == 1234.5f) *sink = sum;
}

static __global__ void copy_all(float4 *to, const float4 *from, int64_t count)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        __stcs(to + i, __ldcs(from + i));
}

static __global__ void multiply_add(float a, float b, float *sink)
{
    float x[FMA_CHAINS];
#pragma unroll
    for (int i = 0; i < FMA_CHAINS; i++) x[i] = (float)(threadIdx.x + i);
    for (int r = 0; r < FMA_ROUNDS; r++) {
#pragma unroll
        for (int i = 0; i < FMA_CHAINS; i++) x[i] = fmaf(x[i], a, b);
    }
    float sum = 0;
#pragma unroll
    for (int i = 0; i < FMA_CHAINS; i++) sum += x[i];
    if (sum == 1234.5f) *sink = sum;
}

struct product_8192 {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t side;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found;
};

struct bench {
    ct_device *device;
    char *from, *to; /* LIMIT_BYTES each */
    cudaEvent_t begin, end;
    product_8192 product;
};

static cublasStatus_t prepare_product(const bench *b, product_8192 *p)
{
    const size_t workspace = LT_WORKSPACE;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    int n = 0;
    cublasStatus_t s = cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s ==
        CUBLAS_STATUS_SUCCESS) /* both operands along the sum, as weights and activations lie */
        s = cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                           sizeof transposed);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatrixLayoutCreate(&p->side, CUDA_R_16BF, LIMIT_SIDE, LIMIT_SIDE, LIMIT_SIDE);
    if (s == CUBLAS_STATUS_SUCCESS) s = cublasLtMatmulPreferenceCreate(&p->preference);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulPreferenceSetAttribute(
            p->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulAlgoGetHeuristic(b->device->lt, p->op, p->side, p->side, p->side, p->side,
                                           p->preference, 1, &p->found, &n);
    return s == CUBLAS_STATUS_SUCCESS && n == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : s;
}

enum limit_kind { LIMIT_READ, LIMIT_COPY, LIMIT_F32, LIMIT_BF16 };

static bool run_once(const bench *b, limit_kind kind)
{
    cudaStream_t stream = b->device->stream;
    const unsigned blocks = (unsigned)b->device->processors * 4;
    const int64_t count = (int64_t)(LIMIT_BYTES / sizeof(float4));
    const float one = 1, zero = 0;
    const bf16 *x = (const bf16 *)b->from, *w = x + (size_t)LIMIT_SIDE * LIMIT_SIDE;
    switch (kind) {
    case LIMIT_READ:
        read_all<<<blocks, READ_THREADS, 0, stream>>>((const float4 *)b->from, count,
                                                      (float *)b->to);
        break;
    case LIMIT_COPY:
        copy_all<<<blocks * 2, 512, 0, stream>>>((float4 *)b->to, (const float4 *)b->from, count);
        break;
    case LIMIT_F32:
        multiply_add<<<blocks * 2, 256, 0, stream>>>(0.999f, 0.001f, (float *)b->to);
        break;
    case LIMIT_BF16:
        return cublasLtMatmul(b->device->lt, b->product.op, &one, w, b->product.side, x,
                              b->product.side, &zero, b->to, b->product.side, b->to,
                              b->product.side, &b->product.found.algo, b->device->lt_workspace,
                              LT_WORKSPACE, stream) == CUBLAS_STATUS_SUCCESS;
    }
    return cudaGetLastError() == cudaSuccess;
}

/* Milliseconds of the shortest run; the first warms up. 0: it failed. */
static float best_ms(const bench *b, limit_kind kind)
{
    float best = 0;
    for (int run = 0; run <= LIMIT_RUNS; run++) {
        float ms = 0;
        bool good = cudaEventRecord(b->begin, b->device->stream) == cudaSuccess &&
                    run_once(b, kind) &&
                    cudaEventRecord(b->end, b->device->stream) == cudaSuccess &&
                    cudaEventSynchronize(b->end) == cudaSuccess &&
                    cudaEventElapsedTime(&ms, b->begin, b->end) == cudaSuccess;
        if (!good) return 0;
        if (run > 0 && (best == 0 || ms < best)) best = ms;
    }
    return best;
}

static ct_status measure(bench *b, ct_device_limits *out, ct_err *err)
{
    ct_random_fill random = {};
    random.count = (int64_t)(LIMIT_BYTES / sizeof(bf16));
    random.scale = 1;
    random.stored = random.held = CT_BF16;
    ct_status st = cuda_fill_random(b->device, b->from, &random, err);
    if (st != CT_OK) return st;
    cudaStreamSynchronize(b->device->memory_stream);
    if (prepare_product(b, &b->product) != CUBLAS_STATUS_SUCCESS)
        return ct_fail(err, CT_ERR_UNSUPPORTED, "CUDA: limits: no product of %d^3 in bf16",
                       (int)LIMIT_SIDE);
    const float read = best_ms(b, LIMIT_READ), copy = best_ms(b, LIMIT_COPY),
                f32 = best_ms(b, LIMIT_F32), product = best_ms(b, LIMIT_BF16);
    if (!(read > 0 && copy > 0 && f32 > 0 && product > 0))
        return ct_fail(err, CT_ERR_UNSUPPORTED, "CUDA: limits: %s",
                       cudaGetErrorString(cudaGetLastError()));
    const double side = LIMIT_SIDE;
    out->read_gb_s = (double)LIMIT_BYTES / read * 1e-6;
    out->copy_gb_s = 2 * (double)LIMIT_BYTES / copy * 1e-6;
    const int64_t multiply_adds =
        (int64_t)FMA_CHAINS * FMA_ROUNDS * 256 * b->device->processors * 8;
    out->f32_gflop_s = 2 * (double)multiply_adds / f32 * 1e-6;
    out->bf16_gflop_s = 2 * side * side * side / product * 1e-6;
    return CT_OK;
}

ct_status cuda_limits(ct_device *device, ct_device_limits *out, ct_err *err)
{
    bench b = {};
    b.device = device;
    *out = {};
    cudaDeviceProp properties;
    cudaError_t e = cudaSetDevice(device->index);
    if (e == cudaSuccess) e = cudaGetDeviceProperties(&properties, device->index);
    if (e == cudaSuccess) {
        snprintf(out->name, sizeof out->name, "%.127s", properties.name);
        out->memory_bytes = (int64_t)properties.totalGlobalMem;
        e = cudaMalloc((void **)&b.from, LIMIT_BYTES); /* not of the pool, which would keep it */
    }
    if (e == cudaSuccess) e = cudaMalloc((void **)&b.to, LIMIT_BYTES);
    if (e == cudaSuccess) e = cudaEventCreate(&b.begin);
    if (e == cudaSuccess) e = cudaEventCreate(&b.end);
    ct_status st =
        e == cudaSuccess
            ? measure(&b, out, err)
            : ct_fail(err, e == cudaErrorMemoryAllocation ? CT_ERR_MEMORY : CT_ERR_UNSUPPORTED,
                      "CUDA: limits: %s", cudaGetErrorString(e));
    if (b.product.preference) cublasLtMatmulPreferenceDestroy(b.product.preference);
    if (b.product.side) cublasLtMatrixLayoutDestroy(b.product.side);
    if (b.product.op) cublasLtMatmulDescDestroy(b.product.op);
    if (b.begin) cudaEventDestroy(b.begin);
    if (b.end) cudaEventDestroy(b.end);
    cudaFree(b.from);
    cudaFree(b.to);
    return st;
}
