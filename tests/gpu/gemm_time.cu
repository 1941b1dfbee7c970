/* gemm_time.cu - how long the GPU's products take; see gemm_check.cu. */
#include "gemm_check.cuh"

static __global__ void fill(uint16_t *p, int64_t count)
{
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count;
         i += (int64_t)gridDim.x * blockDim.x) {
        uint32_t h = (uint32_t)i * 2654435761u;
        h = (h ^ h >> 15) * 2246822519u;
        h ^= h >> 13;
        p[i] = (uint16_t)(0x3C00 | (h & 0x81FF)); /* bf16 of about +-0.01 */
    }
}

static float elapsed_ms(cudaEvent_t a, cudaEvent_t b)
{
    float ms;
    need(cudaEventSynchronize(b), "timing");
    need(cudaEventElapsedTime(&ms, a, b), "timing");
    return ms;
}

/* The best replay of a graph of so many launches, a launch's part of it; the graph is destroyed. */
static double replay_us(cudaGraph_t graph, int launches)
{
    cudaGraphExec_t exec;
    cudaEvent_t a, b;
    cudaEventCreate(&a), cudaEventCreate(&b);
    need(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    float best = 1e9f;
    for (int i = 0; i < 8; i++) {
        cudaEventRecord(a, device.stream);
        need(cudaGraphLaunch(exec, device.stream), "replay");
        cudaEventRecord(b, device.stream);
        float ms = elapsed_ms(a, b);
        if (i > 1 && ms < best) best = ms;
    }
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph), cudaEventDestroy(a), cudaEventDestroy(b);
    return best * 1e3 / launches;
}

/* Decode as a pass does it: launches one after another in a graph, each with other weights. */
static double decode_us(int64_t M, int64_t N, int64_t K, const char *weights, size_t room, float *x,
                        float *y)
{
    ct_op_ctx ctx = ctx_of(&modes[3]);
    size_t bytes = (size_t)(N * K) * 2;
    int copies = (int)(room / bytes), launches = copies < 24 ? copies : 24;
    if (launches < 2) launches = 2;
    cudaGraph_t graph;
    need(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < launches; i++) {
        ct_matrix w = {weights + (size_t)(i % copies) * bytes, CT_BF16, N, K};
        need_ok(cuda_matmul(&ctx, y, x, M, &w, NULL, false, &err), "decode");
    }
    need(cudaStreamEndCapture(device.stream, &graph), "end of capture");
    return replay_us(graph, launches);
}

/* The whole feed-forward of a layer. */
static double mlp_us(ct_stage stage, int64_t M, int64_t E, int64_t F, const char *weights,
                     size_t room, float *x, float *y, float *hidden)
{
    mode m = {"gated", CT_COMPUTE_BF16, stage, CT_BF16};
    ct_op_ctx ctx = ctx_of(&m);
    size_t bytes = (size_t)(E * F) * 2;
    int copies = (int)(room / (3 * bytes)), n = copies < 8 ? copies : 8;
    cudaGraph_t graph;
    for (int recorded = 0; recorded < 2;
         recorded++) { /* first once outside: choosing cannot be recorded */
        if (recorded)
            need(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal),
                 "capture");
        for (int i = 0; i < n; i++) {
            const char *w = weights + 3 * bytes * i;
            ct_mlp mlp = {CT_GELU,
                          {w, CT_BF16, F, E},
                          {w + bytes, CT_BF16, F, E},
                          {w + 2 * bytes, CT_BF16, E, F},
                          NULL,
                          NULL,
                          NULL};
            need_ok(cuda_gated_mlp(&ctx, y, x, M, &mlp, hidden, &err), "gated");
        }
        if (recorded) need(cudaStreamEndCapture(device.stream, &graph), "end of capture");
    }
    return replay_us(graph, n);
}

static double op_ms(const mode *m, int64_t M, int64_t N, int64_t K, const void *weights, float *x,
                    float *y)
{
    ct_op_ctx ctx = ctx_of(m);
    ct_matrix w = {weights, m->dtype, N, K};
    cudaEvent_t a, b;
    cudaEventCreate(&a), cudaEventCreate(&b);
    float best = 1e9f;
    for (int i = 0; i < 4; i++) {
        cudaEventRecord(a, device.stream);
        for (int j = 0; j < 5; j++)
            need_ok(cuda_matmul(&ctx, y, x, M, &w, NULL, false, &err), "prefill");
        cudaEventRecord(b, device.stream);
        float ms = elapsed_ms(a, b) / 5;
        if (i > 0 && ms < best) best = ms;
    }
    cudaEventDestroy(a), cudaEventDestroy(b);
    return best;
}

/* The pinned algorithm alone. */
static double rounded_ms(int64_t M, int64_t N, int64_t K, const void *weights, const void *x,
                         float *y)
{
    ct_op_ctx ctx = ctx_of(&modes[4]);
    ct_matrix w = {weights, CT_BF16, N, K};
    cudaEvent_t a, b;
    cudaEventCreate(&a), cudaEventCreate(&b);
    float best = 1e9f;
    for (int i = 0; i < 4; i++) {
        cudaEventRecord(a, device.stream);
        for (int j = 0; j < 5; j++)
            need_ok(product_prefill(&ctx, y, false, (const bf16 *)x, M, &w, NULL, false, &err),
                    "prefill");
        cudaEventRecord(b, device.stream);
        float ms = elapsed_ms(a, b) / 5;
        if (i > 0 && ms < best) best = ms;
    }
    cudaEventDestroy(a), cudaEventDestroy(b);
    return best;
}

/* The fastest of the heuristic's algorithms, split or not, without the rounding of x. */
static double free_library_ms(int64_t M, int64_t N, int64_t K, const void *w, const void *x,
                              float *y)
{
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t lw, lx, ly;
    cublasLtMatmulPreference_t preference;
    cublasLtMatmulHeuristicResult_t found[16];
    cublasOperation_t t = CUBLAS_OP_T;
    size_t workspace = LT_WORKSPACE;
    float one = 1, zero = 0;
    int n = 0;
    double best = -1;
    cudaEvent_t a, b;
    cudaEventCreate(&a), cudaEventCreate(&b);
    cublasLtMatmulDescCreate(&desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_TRANSA, &t, sizeof t);
    cublasLtMatrixLayoutCreate(&lw, CUDA_R_16BF, K, N, K);
    cublasLtMatrixLayoutCreate(&lx, CUDA_R_16BF, K, M, K);
    cublasLtMatrixLayoutCreate(&ly, CUDA_R_32F, N, M, N);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &workspace, sizeof workspace);
    cublasLtMatmulAlgoGetHeuristic(device.lt, desc, lw, lx, ly, ly, preference, 16, found, &n);
    for (int i = 0; i < n; i++) {
        for (int round = 0; round < 2; round++) {
            cudaEventRecord(a, device.stream);
            cublasStatus_t st = CUBLAS_STATUS_SUCCESS;
            for (int j = 0; j < 5; j++)
                st = cublasLtMatmul(device.lt, desc, &one, w, lw, x, lx, &zero, y, ly, y, ly,
                                    &found[i].algo, device.lt_workspace, LT_WORKSPACE,
                                    device.stream);
            cudaEventRecord(b, device.stream);
            double ms = elapsed_ms(a, b) / 5;
            if (!st && round && (best < 0 || ms < best)) best = ms;
        }
    }
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtMatrixLayoutDestroy(lw), cublasLtMatrixLayoutDestroy(lx),
        cublasLtMatrixLayoutDestroy(ly);
    cublasLtMatmulDescDestroy(desc);
    cudaEventDestroy(a), cudaEventDestroy(b);
    return best;
}

void time_all(bool generation_only)
{
    static const int64_t decode[][2] = {{2560, 2560}, {7680, 2560},  {2560, 7680}, {256000, 2560},
                                        {4096, 4096}, {12288, 4096}, {4096, 12288}};
    static const int64_t counts[] = {1, 8, 16, 32, 64, 128};
    static const int64_t prefill[][2] = {{2560, 2560}, {7680, 2560},  {2560, 7680},
                                         {4096, 4096}, {12288, 4096}, {4096, 12288}};
    const size_t room = (size_t)2800 << 20;
    char *w = (char *)on_device(NULL, room);
    float *x = (float *)on_device(NULL, (size_t)4096 * 12288 * 4);
    float *y = (float *)on_device(NULL, (size_t)4096 * 12288 * 4);
    float *hidden = (float *)on_device(NULL, (size_t)4096 * 12288 * 8);
    fill<<<2048, 256, 0, device.stream>>>((uint16_t *)w, (int64_t)(room / 2));
    fill<<<2048, 256, 0, device.stream>>>((uint16_t *)x, (int64_t)4096 * 12288 * 2);
    wait_for_device("filling");

    printf("\nbf16 generation, GB/s of weights (us)\n%16s", "N x K");
    for (int i = 0; i < 6; i++) printf("      M %4lld    ", (long long)counts[i]);
    printf("\n");
    for (size_t s = 0; s < sizeof decode / sizeof *decode; s++) {
        int64_t N = decode[s][0], K = decode[s][1];
        printf("%7lld x %6lld", (long long)N, (long long)K);
        for (int i = 0; i < 6; i++) {
            double us = decode_us(counts[i], N, K, w, room, x, y);
            printf(" %6.0f (%7.1f)", (double)(N * K) * 2e-3 / us, us);
        }
        printf("\n");
    }
    static const int64_t ffn[][2] = {{2560, 7680}, {4096, 12288}};
    for (int s = 0; s < 2; s++) {
        int64_t E = ffn[s][0], F = ffn[s][1];
        printf("gated %lldx%lld: ", (long long)E, (long long)F);
        for (int i = 0; i < 6; i++) {
            double us = mlp_us(CT_STAGE_GENERATION, counts[i], E, F, w, room, x, y, hidden);
            printf(" %6.0f (%7.1f)", (double)(3 * E * F) * 2e-3 / us, us);
        }
        printf("\n");
    }
    if (generation_only) return;
    printf("\nbf16 prefill, M = 4096, TFLOP/s: as an operation, without the rounding of x, and "
           "cuBLASLt's best without conditions\n");
    for (size_t s = 0; s < sizeof prefill / sizeof *prefill; s++) {
        int64_t N = prefill[s][0], K = prefill[s][1];
        double flops = 2.0 * 4096 * N * K;
        double own = op_ms(&modes[4], 4096, N, K, w, x, y);
        double rounded = rounded_ms(4096, N, K, w, x, y);
        double best = free_library_ms(4096, N, K, w, x, y);
        printf("%7lld x %6lld  %6.0f  %6.0f  %6.0f\n", (long long)N, (long long)K,
               flops / own * 1e-9, flops / rounded * 1e-9, flops / best * 1e-9);
    }
    for (int s = 0; s < 2; s++) {
        int64_t E = ffn[s][0], F = ffn[s][1];
        double us = mlp_us(CT_STAGE_PREFILL, 4096, E, F, w, room, x, y, hidden);
        printf("gated %lld x %lld  %6.0f\n", (long long)E, (long long)F,
               6.0 * 4096 * E * F / us * 1e-6);
    }
    printf("\nf32, TFLOP/s\n");
    for (int i = 0; i < 4; i++) {
        static const int64_t ms[] = {1, 64, 512, 4096};
        double a = op_ms(&modes[0], ms[i], 2560, 2560, w, x, y),
               b = op_ms(&modes[1], ms[i], 7680, 2560, w, x, y);
        printf("M %4lld: 2560 x 2560 f32 %6.1f (%.1f us), 7680 x 2560 bf16 %6.1f (%.1f us)\n",
               (long long)ms[i], 2.0 * ms[i] * 2560 * 2560 / a * 1e-9, a * 1e3,
               2.0 * ms[i] * 7680 * 2560 / b * 1e-9, b * 1e3);
    }
}
