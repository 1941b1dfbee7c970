/* experts_check.cu - the mixture of experts on a GPU against loops in double precision, its laws (a token
 * alone = in a batch, groups = whole, recorded = launched, bit for bit), and its speed at the shapes of a
 * 12 B active mixture. Needs a GPU: built by the target gpu_checks, not run by the suite.
 * Exit status 1 if anything differs. `experts_check check` and `experts_check time` do one half, `small` every
 * kernel at the smallest shapes, for compute-sanitizer. */
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "op/cuda/device.cuh"

extern "C" __attribute__((weak)) ct_status ct_fail(ct_err *err, ct_status status, const char *fmt,
                                                   ...)
{
    va_list args;
    va_start(args, fmt);
    if (err) vsnprintf(err->text, sizeof err->text, fmt, args), err->status = status;
    va_end(args);
    return status;
}

#define CUDA(call)                                                                                 \
    do {                                                                                           \
        cudaError_t e_ = (call);                                                                   \
        if (e_ != cudaSuccess) {                                                                   \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(e_));          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static int failures;
static bool small; /* the smallest shapes that meet every kernel */
static ct_device device;

/* ---- data ------------------------------------------------------------------------------------- */

/* Uniform in [-1, 1), by position. */
__host__ __device__ static float noise(uint64_t seed, uint64_t i)
{
    uint64_t z = (i + seed * 0x100000001b3ull + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return (float)(z >> 40) * 0x1p-23f - 1.0f;
}

template <typename W> __global__ void fill(W *v, int64_t n, uint64_t seed, float scale)
{
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n;
         i += (int64_t)gridDim.x * blockDim.x)
        v[i] = W(noise(seed, (uint64_t)i) * scale);
}

static void *filled(ct_dtype dtype, int64_t n, uint64_t seed, float scale)
{
    void *v;
    CUDA(cudaMalloc(&v, (size_t)n * (dtype == CT_F32 ? 4 : 2)));
    if (dtype == CT_F32) fill<<<1024, 256>>>((float *)v, n, seed, scale);
    else if (dtype == CT_F16) fill<<<1024, 256>>>((__half *)v, n, seed, scale);
    else fill<<<1024, 256>>>((bf16 *)v, n, seed, scale);
    CUDA(cudaDeviceSynchronize());
    return v;
}

struct mixture {
    ct_experts moe;
    std::vector<ct_mlp> mlp;
    int64_t E, F;
};

static void make(mixture *m, int64_t E, int64_t F, int64_t X, int64_t k, ct_dtype dtype, bool bias,
                 ct_activation activation, uint64_t seed)
{
    m->E = E, m->F = F;
    m->mlp.resize((size_t)X);
    float in = 1.7f / sqrtf((float)E), out = 1.7f / sqrtf((float)F);
    for (int64_t e = 0; e < X; e++) {
        ct_mlp *p = &m->mlp[(size_t)e];
        uint64_t s = seed + (uint64_t)e * 16;
        memset(p, 0, sizeof *p);
        p->activation = activation;
        p->gate = ct_matrix{filled(dtype, F * E, s, in), dtype, F, E};
        p->up = ct_matrix{filled(dtype, F * E, s + 1, in), dtype, F, E};
        p->down = ct_matrix{filled(dtype, E * F, s + 2, out), dtype, E, F};
        if (bias) {
            p->gate_bias = (float *)filled(CT_F32, F, s + 3, 0.5f);
            p->up_bias = (float *)filled(CT_F32, F, s + 4, 0.5f);
            p->down_bias = (float *)filled(CT_F32, E, s + 5, 0.5f);
        }
    }
    m->moe =
        ct_experts{X, k, {filled(dtype, X * E, seed + 9999, 2 * in), dtype, X, E}, m->mlp.data()};
}

static void drop(mixture *m)
{
    for (ct_mlp &p : m->mlp) {
        const void *all[] = {p.gate.data, p.up.data, p.down.data,
                             p.gate_bias, p.up_bias, p.down_bias};
        for (const void *v : all) CUDA(cudaFree((void *)v));
    }
    CUDA(cudaFree((void *)m->moe.router.data));
}

/* ---- the loops in double ---------------------------------------------------------------------- */

__device__ static double element(const void *v, ct_dtype dtype, int64_t i, bool round)
{
    float x = dtype == CT_F32   ? ((const float *)v)[i]
              : dtype == CT_F16 ? __half2float(((const __half *)v)[i])
                                : __bfloat162float(((const bf16 *)v)[i]);
    return round ? __bfloat162float(__float2bfloat16_rn(x)) : x;
}

__device__ static double warp_sum(double x)
{
    for (int by = 16; by > 0; by /= 2) x += __shfl_xor_sync(~0u, x, by);
    return x;
}

__global__ void slow_logits(double *logits, const float *x, const void *w, ct_dtype dtype,
                            int64_t E, int64_t X)
{
    int64_t t = blockIdx.x;
    for (int64_t e = threadIdx.x / 32; e < X; e += blockDim.x / 32) {
        double d = 0;
        for (int64_t i = threadIdx.x % 32; i < E; i += 32)
            d += (double)x[t * E + i] * element(w, dtype, e * E + i, false);
        d = warp_sum(d);
        if (threadIdx.x % 32 == 0) logits[t * X + e] = d;
    }
}

/* hidden[f] of one token and expert. */
__global__ void slow_hidden(double *hidden, const float *x, ct_mlp m, bool round)
{
    int64_t E = m.gate.cols, F = m.gate.rows;
    for (int64_t f = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; f < F;
         f += gridDim.x * (blockDim.x / 32)) {
        double g = 0, u = 0;
        for (int64_t i = threadIdx.x % 32; i < E; i += 32) {
            double v = element(x, CT_F32, i, round);
            g += v * element(m.gate.data, m.gate.dtype, f * E + i, round);
            u += v * element(m.up.data, m.up.dtype, f * E + i, round);
        }
        g = warp_sum(g) + (m.gate_bias ? m.gate_bias[f] : 0);
        u = warp_sum(u) + (m.up_bias ? m.up_bias[f] : 0);
        double h =
            m.activation == CT_SILU
                ? g / (1 + exp(-g)) * u
                : 0.5 * g * (1 + tanh(0.79788456080286535588 * (g + 0.044715 * g * g * g))) * u;
        hidden[f] = round ? (double)__bfloat162float(__float2bfloat16_rn((float)h)) : h;
    }
}

/* y += share (hidden Wd^T + bd); size and most gather the terms' sum of sizes, and the largest. */
__global__ void slow_down(double *y, double *size, double *most, const double *hidden, ct_mlp m,
                          double share, bool round)
{
    int64_t E = m.down.rows, F = m.down.cols;
    for (int64_t j = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; j < E;
         j += gridDim.x * (blockDim.x / 32)) {
        double d = 0, s = 0, largest = 0;
        for (int64_t i = threadIdx.x % 32; i < F; i += 32) {
            double term = hidden[i] * element(m.down.data, m.down.dtype, j * F + i, round);
            d += term, s += fabs(term), largest = fmax(largest, fabs(term));
        }
        d = warp_sum(d), s = warp_sum(s);
        for (int by = 16; by > 0; by /= 2)
            largest = fmax(largest, __shfl_xor_sync(~0u, largest, by));
        if (threadIdx.x % 32) continue;
        y[j] += share * (d + (m.down_bias ? m.down_bias[j] : 0));
        size[j] += share * s;
        most[j] = fmax(most[j], share * largest);
    }
}

static void route_on_host(const mixture *m, const double *logits, int *expert, double *share)
{
    int64_t X = m->moe.experts, n = 0;
    double max = -INFINITY, sum = 0;
    for (int64_t e = 0; e < X; e++) max = fmax(max, logits[e]);
    for (int64_t e = 0; e < X; e++) sum += exp(logits[e] - max);
    for (int64_t e = 0; e < X; e++) {
        int64_t better = 0;
        for (int64_t o = 0; o < X; o++)
            better += logits[o] > logits[e] || (logits[o] == logits[e] && o < e);
        if (better >= m->moe.used) continue;
        expert[n] = (int)e, share[n++] = exp(logits[e] - max) / sum;
    }
}

static std::vector<double> logits_of(const mixture *m, const float *x, int64_t T)
{
    int64_t X = m->moe.experts;
    std::vector<double> v((size_t)(T * X));
    double *d;
    CUDA(cudaMalloc(&d, v.size() * 8));
    slow_logits<<<(unsigned)T, 256>>>(d, x, m->moe.router.data, m->moe.router.dtype, m->E, X);
    CUDA(cudaMemcpy(v.data(), d, v.size() * 8, cudaMemcpyDeviceToHost));
    CUDA(cudaFree(d));
    return v;
}

/* ---- the operation under test ------------------------------------------------------------------ */

static std::vector<float> run(const mixture *m, const float *x, const float *y0, int64_t T,
                              ct_stage stage, ct_compute compute, size_t scratch_bytes, bool record)
{
    size_t size = (size_t)(T * m->E) * 4;
    float *y;
    void *scratch;
    CUDA(cudaMalloc(&y, size));
    CUDA(cudaMemcpy(y, y0, size, cudaMemcpyDeviceToDevice));
    CUDA(cudaMalloc(&scratch, scratch_bytes));
    CUDA(cudaMemset(scratch, 0xff, scratch_bytes)); /* NaN */
    CUDA(cudaDeviceSynchronize());
    ct_op_ctx ctx = {scratch, scratch_bytes, compute, stage, false, &device};
    ct_err err = {};
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    if (record) CUDA(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal));
    if (cuda_experts(&ctx, y, x, T, &m->moe, &err) != CT_OK) {
        printf("FAIL %s\n", err.text);
        exit(1);
    }
    if (record) {
        CUDA(cudaStreamEndCapture(device.stream, &graph));
        CUDA(cudaGraphInstantiate(&exec, graph, 0));
        CUDA(cudaGraphLaunch(exec, device.stream));
    }
    CUDA(cudaStreamSynchronize(device.stream));
    if (device.failed != cudaSuccess) {
        printf("FAIL %s: %s\n", device.failed_at, cudaGetErrorString(device.failed));
        exit(1);
    }
    if (record) {
        CUDA(cudaGraphExecDestroy(exec));
        CUDA(cudaGraphDestroy(graph));
    }
    std::vector<float> out((size_t)(T * m->E));
    CUDA(cudaMemcpy(out.data(), y, size, cudaMemcpyDeviceToHost));
    CUDA(cudaFree(y));
    CUDA(cudaFree(scratch));
    return out;
}

static bool same(const float *a, const float *b, int64_t n)
{
    return memcmp(a, b, (size_t)n * 4) == 0;
}

static void check(const mixture *m, int64_t T, ct_stage stage, ct_compute compute)
{
    int64_t E = m->E, F = m->F, X = m->moe.experts, k = m->moe.used;
    ct_dtype dtype = m->mlp[0].gate.dtype;
    bool round = compute == CT_COMPUTE_BF16;
    float *x = (float *)filled(CT_F32, T * E, 77, 1.7f),
          *y0 = (float *)filled(CT_F32, T * E, 78, 1.0f);
    size_t whole = experts_scratch_bytes(T, E, F, k) * 2; /* one group, also in f32 */
    std::vector<float> y = run(m, x, y0, T, stage, compute, whole, false);

    std::vector<double> logits = logits_of(m, x, T), want((size_t)E), size((size_t)E),
                        most((size_t)E);
    std::vector<float> start((size_t)(T * E));
    CUDA(cudaMemcpy(start.data(), y0, start.size() * 4, cudaMemcpyDeviceToHost));
    double *hidden, *sums;
    CUDA(cudaMalloc(&hidden, (size_t)F * 8));
    CUDA(cudaMalloc(&sums, (size_t)E * 8 * 3));
    double worst = 0; /* difference in units of the bound */
    /* Sums of up to 14336 terms in f32: 2e-5 of the sum of sizes. Where a hidden value lies near the
     * middle of two bf16 it may fall to the other: 2^-8 of a term, a few times. */
    const int64_t each = small ? T / 2 + 1 : 1;
    for (int64_t t = 0; t < T; t += each) {
        std::vector<int> expert((size_t)k);
        std::vector<double> share((size_t)k);
        route_on_host(m, &logits[(size_t)(t * X)], expert.data(), share.data());
        CUDA(cudaMemset(sums, 0, (size_t)E * 24));
        for (int64_t s = 0; s < k; s++) {
            const ct_mlp &p = m->mlp[(size_t)expert[(size_t)s]];
            slow_hidden<<<512, 256>>>(hidden, x + t * E, p, round);
            slow_down<<<512, 256>>>(sums, sums + E, sums + 2 * E, hidden, p, share[(size_t)s],
                                    round);
        }
        CUDA(cudaMemcpy(want.data(), sums, (size_t)E * 8, cudaMemcpyDeviceToHost));
        CUDA(cudaMemcpy(size.data(), sums + E, (size_t)E * 8, cudaMemcpyDeviceToHost));
        CUDA(cudaMemcpy(most.data(), sums + 2 * E, (size_t)E * 8, cudaMemcpyDeviceToHost));
        for (int64_t j = 0; j < E; j++) {
            size_t at = (size_t)(t * E + j), i = (size_t)j;
            double bound = 2e-5 * size[i] + 1e-6 + (round ? 0.02 * most[i] : 0);
            double off = fabs(y[at] - (start[at] + want[i])) / bound;
            if (!(off <= worst)) worst = off;
            if (std::isnan(off)) worst = INFINITY;
        }
    }
    CUDA(cudaFree(hidden));
    CUDA(cudaFree(sums));

    bool alone = true;
    int64_t some[] = {0, T / 2, T - 1};
    for (int64_t t : some) {
        if (small && t != T - 1) continue;
        std::vector<float> one = run(m, x + t * E, y0 + t * E, 1, stage, compute, whole, false);
        alone = alone && same(one.data(), &y[(size_t)(t * E)], E);
    }
    size_t little = experts_scratch_bytes(T / 3 + 1, E, F, k);
    bool groups = same(run(m, x, y0, T, stage, compute, little, false).data(), y.data(), T * E);
    bool recorded = same(run(m, x, y0, T, stage, compute, whole, true).data(), y.data(), T * E);

    bool nan = true; /* a token that is not a number stays alone with it */
    if (T > 1 && !small) {
        float bad = NAN;
        int64_t t = T / 2;
        CUDA(cudaMemcpy(x + t * E, &bad, 4, cudaMemcpyHostToDevice));
        std::vector<float> z = run(m, x, y0, T, stage, compute, whole, false);
        for (int64_t i = 0; i < T; i++)
            if (i != t) nan = nan && same(&z[(size_t)(i * E)], &y[(size_t)(i * E)], E);
        for (int64_t j = 0; j < E; j++) nan = nan && std::isnan(z[(size_t)(t * E + j)]);
    }
    bool good = worst <= 1 && alone && groups && recorded && nan;
    failures += !good;
    const char *types[] = {"f32", "f16", "bf16"};
    printf("%s E %4lld F %5lld X %2lld k %lld T %3lld %-10s %-4s weights %-4s off %.3f%s%s%s%s\n",
           good ? "ok  " : "FAIL", (long long)E, (long long)F, (long long)X, (long long)k,
           (long long)T, stage == CT_STAGE_PREFILL ? "prefill" : "generation",
           round ? "bf16" : "f32", types[dtype], worst, alone ? "" : " ALONE",
           groups ? "" : " GROUPS", recorded ? "" : " RECORDED", nan ? "" : " NAN");
    fflush(stdout);
    CUDA(cudaFree(x));
    CUDA(cudaFree(y0));
}

static void check_all(void)
{
    struct {
        int64_t E, F, X, k;
        ct_dtype dtype;
        bool bias, even; /* even: a router of zeros, all logits equal */
        ct_activation activation;
    } cases[] = {
        {24, 40, 2, 1, CT_BF16, false, false, CT_SILU},
        {24, 40, 4, 2, CT_F32, true, false, CT_GELU},
        {100, 100, 5, 3, CT_BF16, true, false, CT_SILU},
        {100, 40, 16, 2, CT_F16, false, false, CT_SILU},
        {24, 100, 3, 3, CT_F32, false, false, CT_SILU},
        {520, 264, 16, 2, CT_BF16, true, false, CT_GELU},
        {64, 72, 64, 3, CT_BF16, false, false, CT_SILU},
        {256, 136, 2, 2, CT_BF16, false, false, CT_SILU},
        {136, 640, 9, 2, CT_BF16, true, true, CT_SILU},
        {1032, 1096, 3, 2, CT_BF16, true, true, CT_GELU},
        {4096, 14336, 4, 2, CT_BF16, false, false, CT_SILU},
    };
    int64_t tokens[] = {1, 7, 63, 65, 200};
    for (auto &c : cases) {
        mixture m;
        make(&m, c.E, c.F, c.X, c.k, c.dtype, c.bias, c.activation, 5);
        if (c.even) CUDA(cudaMemset((void *)m.moe.router.data, 0, (size_t)(c.X * c.E) * 2));
        for (int64_t T : tokens)
            for (int stage = 0; stage < 2; stage++)
                for (ct_compute compute : {CT_COMPUTE_F32, CT_COMPUTE_BF16})
                    check(&m, T, (ct_stage)stage, compute);
        drop(&m);
    }
    { /* more tiles of rows than stand in a group, and more tokens than one group takes */
        mixture m;
        make(&m, 64, 72, 2, 1, CT_BF16, false, CT_SILU, 6);
        check(&m, 4500, CT_STAGE_PREFILL, CT_COMPUTE_BF16);
        drop(&m);
    }
}

/* Every type of weights, whole and odd widths, biases; few rows and more than a tile of one expert; and of
 * the kernels whose thread blocks go on, each with several tiles, as if the GPU were small. */
static void check_small(void)
{
    struct {
        int64_t E, F, X, k;
        ct_dtype dtype;
        bool bias;
        ct_activation activation;
    } cases[] = {
        {24, 40, 2, 1, CT_BF16, false, CT_SILU}, {24, 40, 4, 2, CT_F32, true, CT_GELU},
        {30, 42, 5, 3, CT_F32, true, CT_SILU},   {100, 40, 16, 2, CT_F16, false, CT_SILU},
        {30, 33, 3, 2, CT_F16, false, CT_GELU},  {100, 100, 5, 3, CT_BF16, true, CT_SILU},
        {30, 40, 3, 2, CT_BF16, false, CT_SILU}, {520, 264, 16, 2, CT_BF16, true, CT_GELU},
    };
    small = true;
    device.processors = 4;
    for (auto &c : cases) {
        mixture m;
        make(&m, c.E, c.F, c.X, c.k, c.dtype, c.bias, c.activation, 5);
        for (int64_t T : {1, 70})
            for (int stage = 0; stage < 2; stage++)
                for (ct_compute compute : {CT_COMPUTE_F32, CT_COMPUTE_BF16})
                    check(&m, T, (ct_stage)stage, compute);
        if (c.X == 2) check(&m, 300, CT_STAGE_PREFILL, CT_COMPUTE_BF16);
        drop(&m);
    }
}

/* ---- speed ------------------------------------------------------------------------------------- */

static void time_one(const mixture *layers, int n_layers, int64_t T, ct_stage stage)
{
    const mixture *m = &layers[0];
    int64_t E = m->E, F = m->F, X = m->moe.experts, k = m->moe.used;
    float *x = (float *)filled(CT_F32, T * E, 79, 1.7f),
          *y = (float *)filled(CT_F32, T * E, 80, 1.0f);
    size_t bytes = experts_scratch_bytes(T, E, F, k);
    void *scratch;
    CUDA(cudaMalloc(&scratch, bytes));
    ct_op_ctx ctx = {scratch, bytes, CT_COMPUTE_BF16, stage, false, &device};
    ct_err err = {};
    double hit = 0; /* experts, mean over the layers */
    for (int l = 0; l < n_layers; l++) {
        std::vector<double> logits = logits_of(&layers[l], x, T);
        std::vector<bool> is((size_t)X);
        for (int64_t t = 0; t < T; t++) {
            std::vector<int> expert((size_t)k);
            std::vector<double> share((size_t)k);
            route_on_host(m, &logits[(size_t)(t * X)], expert.data(), share.data());
            for (int e : expert) is[(size_t)e] = true;
        }
        for (bool one : is) hit += (double)one / n_layers;
    }
    int rounds = T >= 512 ? 4 : 10;
    cudaEvent_t from, to;
    CUDA(cudaEventCreate(&from));
    CUDA(cudaEventCreate(&to));
    float best = INFINITY, ms;
    for (int i = 0; i < 5; i++) { /* the first warms up */
        CUDA(cudaEventRecord(from, device.stream));
        for (int r = 0; r < rounds; r++)
            for (int l = 0; l < n_layers; l++)
                if (cuda_experts(&ctx, y, x, T, &layers[l].moe, &err) != CT_OK) {
                    printf("FAIL %s\n", err.text);
                    exit(1);
                }
        CUDA(cudaEventRecord(to, device.stream));
        CUDA(cudaEventSynchronize(to));
        CUDA(cudaEventElapsedTime(&ms, from, to));
        if (i > 0) best = fminf(best, ms / (float)(rounds * n_layers));
    }
    double weights = hit * 3 * (double)(E * F) * 2, flop = 2.0 * 3 * (double)(E * F * T * k);
    printf("%-10s T %4lld: %8.3f ms  experts hit %4.1f  %6.0f GB/s of weights  %6.1f TFLOP/s\n",
           stage == CT_STAGE_PREFILL ? "prefill" : "generation", (long long)T, best, hit,
           weights / best * 1e-6, flop / best * 1e-9);
    CUDA(cudaEventDestroy(from));
    CUDA(cudaEventDestroy(to));
    CUDA(cudaFree(scratch));
    CUDA(cudaFree(x));
    CUDA(cudaFree(y));
}

static void time_all(void)
{
    mixture layers[2];
    for (int l = 0; l < 2; l++)
        make(&layers[l], 4096, 14336, 16, 2, CT_BF16, false, CT_SILU, 1000 * (uint64_t)(l + 1));
    for (int64_t T : {1, 4, 16, 64, 128, 256}) time_one(layers, 2, T, CT_STAGE_GENERATION);
    for (int64_t T : {64, 512, 2048, 4096}) time_one(layers, 2, T, CT_STAGE_PREFILL);
    for (mixture &m : layers) drop(&m);
}

int main(int argc, char **argv)
{
    cudaDeviceProp prop;
    CUDA(cudaGetDeviceProperties(&prop, 0));
    device.processors = prop.multiProcessorCount;
    CUDA(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking));
    printf("%s, %d multiprocessors\n", prop.name, device.processors);
    if (argc < 2 || strcmp(argv[1], "check") == 0) check_all();
    if (argc < 2 || strcmp(argv[1], "time") == 0) time_all();
    if (argc > 1 && strcmp(argv[1], "small") == 0) check_small();
    printf("%d failures\n", failures);
    return failures > 0;
}
