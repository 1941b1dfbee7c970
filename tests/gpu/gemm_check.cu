/* gemm_check.cu - the GPU's products against the host's in double, their independence of company bit by
 * bit, and their speed. Needs a GPU: built by the target gpu_checks, not run by the suite.
 *
 *   gemm_check [check | time | time-generation]
 *
 * Exit status 1 if anything differs.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/cuda/gemm.cuh"

static ct_device device;
static ct_err err;
static char *scratch;
static const size_t SCRATCH = (size_t)256 << 20;
static int failures, checks;

static void need(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return;
    printf("FAILED %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

static void need_ok(ct_status st, const char *what)
{
    if (st == CT_OK && device.failed == cudaSuccess) return;
    printf("FAILED %s: %s\n", what, st != CT_OK ? err.text : cudaGetErrorString(device.failed));
    if (device.failed != cudaSuccess) printf("  at %s\n", device.failed_at);
    exit(1);
}

static void wait_for_device(const char *what)
{
    need_ok(CT_OK, what);
    need(cudaStreamSynchronize(device.stream), what);
}

static void expect(bool ok, const char *fmt, const char *name, long long a, long long b,
                   long long c)
{
    checks++;
    if (ok) return;
    if (failures++ < 40) {
        printf("FAILED ");
        printf(fmt, name, a, b, c);
        printf("\n");
    }
}

static uint64_t seed = 1;
static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((seed >> 40) / 8388608.0 - 1.0);
}

static uint16_t bf16_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

static float round_bf16(float x)
{
    uint32_t u = (uint32_t)bf16_bits(x) << 16;
    memcpy(&x, &u, 4);
    return x;
}

static void *on_device(const void *host, size_t bytes)
{
    void *p;
    need(cudaMalloc(&p, bytes + 16), "cudaMalloc");
    if (host) need(cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice), "upload");
    need(cudaDeviceSynchronize(),
         "upload"); /* the device's stream does not wait for the default one */
    return p;
}

static float *to_host(const float *p, int64_t count)
{
    float *h = (float *)malloc((size_t)count * 4 + 4);
    wait_for_device("before a download");
    need(cudaMemcpy(h, p, (size_t)count * 4, cudaMemcpyDeviceToHost), "download");
    return h;
}

/* Random numbers on both sides. */
struct vec {
    float *h, *d;
};
static vec random_vec(int64_t count, float scale)
{
    vec v;
    v.h = (float *)malloc((size_t)count * 4 + 4);
    for (int64_t i = 0; i < count; i++) v.h[i] = uniform() * scale;
    v.d = (float *)on_device(v.h, (size_t)count * 4);
    return v;
}
static void drop(vec v)
{
    free(v.h);
    cudaFree(v.d);
}

/* A matrix in its type on the device, and what it holds, widened, on the host. */
struct mat {
    float *h;
    ct_matrix d;
};
static mat random_mat(int64_t rows, int64_t cols, ct_dtype dtype, float scale)
{
    mat m;
    int64_t count = rows * cols;
    size_t bytes = (size_t)count * (dtype == CT_F32 ? 4 : 2);
    char *raw = (char *)malloc(bytes + 4);
    m.h = (float *)malloc((size_t)count * 4 + 4);
    for (int64_t i = 0; i < count; i++) {
        float x = uniform() * scale;
        if (dtype == CT_BF16) {
            ((uint16_t *)raw)[i] = bf16_bits(x);
            x = round_bf16(x);
        } else if (dtype == CT_F16) {
            __half h = __float2half_rn(x);
            memcpy(raw + i * 2, &h, 2);
            x = __half2float(h);
        } else ((float *)raw)[i] = x;
        m.h[i] = x;
    }
    m.d = {on_device(raw, bytes), dtype, rows, cols};
    free(raw);
    return m;
}
static void drop(mat m)
{
    free(m.h);
    cudaFree((void *)m.d.data);
}

struct mode {
    const char *name;
    ct_compute compute;
    ct_stage stage;
    ct_dtype dtype;
};
static const mode modes[] = {
    {"f32 of f32", CT_COMPUTE_F32, CT_STAGE_PREFILL, CT_F32},
    {"f32 of bf16", CT_COMPUTE_F32, CT_STAGE_GENERATION, CT_BF16},
    {"f32 of f16", CT_COMPUTE_F32, CT_STAGE_PREFILL, CT_F16},
    {"bf16 generation", CT_COMPUTE_BF16, CT_STAGE_GENERATION, CT_BF16},
    {"bf16 prefill", CT_COMPUTE_BF16, CT_STAGE_PREFILL, CT_BF16},
};
enum { MODES = sizeof modes / sizeof *modes };

static ct_op_ctx ctx_of(const mode *m)
{
    ct_op_ctx ctx = {scratch, SCRATCH, m->compute, m->stage, false, &device};
    return ctx;
}

/* ---- against double -------------------------------------------------------------------------- */

/* An output may be off by the rounding of a sum of K terms: half an ulp of the partial sum for each
 * addition, which add up as sqrt(K); tensor cores cut instead of rounding, hence the 4. */
static void check_product(const mode *m, int64_t M, int64_t N, int64_t K, bool with_bias,
                          bool accumulate)
{
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(M * K, 1), y = random_vec(M * N, 1), bias = random_vec(N, 1);
    mat w = random_mat(N, K, m->dtype, 1);
    need_ok(cuda_matmul(&ctx, y.d, x.d, M, &w.d, with_bias ? bias.d : NULL, accumulate, &err),
            m->name);
    float *got = to_host(y.d, M * N);
    int64_t bad = -1;
    for (int64_t t = 0; t < M; t++)
        for (int64_t n = 0; n < N; n++) {
            double sum = 0, size = 1;
            for (int64_t k = 0; k < K; k++) {
                float u = x.h[t * K + k];
                if (m->compute == CT_COMPUTE_BF16) u = round_bf16(u);
                sum += (double)u * w.h[n * K + k];
                size += fabs((double)u * w.h[n * K + k]);
            }
            if (with_bias) sum += bias.h[n];
            if (accumulate) sum += y.h[t * N + n];
            double off = fabs(got[t * N + n] - sum);
            if (!(off <= 4 * 6e-8 * sqrt((double)K + 4) * size) && bad < 0) bad = t * N + n;
        }
    char what[128];
    snprintf(what, sizeof what, "%s%s%s%s%lld", m->name, with_bias ? " +bias" : "",
             accumulate ? " +y" : "", ": first wrong at ", (long long)bad);
    expect(bad < 0, "%s (M %lld N %lld K %lld)", what, M, N, K);
    free(got);
    drop(x), drop(y), drop(bias), drop(w);
}

static double activation_of(double a, ct_activation f)
{
    if (f == CT_SILU) return a / (1 + exp(-a));
    return 0.5 * a * (1 + tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)));
}

static void check_mlp(const mode *m, int64_t M, int64_t E, int64_t F, ct_activation f, bool biases)
{
    ct_op_ctx ctx = ctx_of(m);
    const bool half = m->compute == CT_COMPUTE_BF16;
    vec x = random_vec(M * E, 1), y = random_vec(M * E, 1);
    vec bg = random_vec(F, 1), bu = random_vec(F, 1), bd = random_vec(E, 1);
    float we = 1.5f / sqrtf((float)E), wf = 1.5f / sqrtf((float)F);
    mat g = random_mat(F, E, m->dtype, we), u = random_mat(F, E, m->dtype, we);
    mat d = random_mat(E, F, m->dtype, wf);
    ct_mlp mlp = {
        f, g.d, u.d, d.d, biases ? bg.d : NULL, biases ? bu.d : NULL, biases ? bd.d : NULL};
    float *hidden = (float *)on_device(NULL, (size_t)((M + 31) / 32 * 32) * F * 8);
    need_ok(cuda_gated_mlp(&ctx, y.d, x.d, M, &mlp, hidden, &err), m->name);
    float *got = to_host(y.d, M * E);
    double *h = (double *)malloc((size_t)F * sizeof *h), worst = 0;
    for (int64_t t = 0; t < M; t++) {
        for (int64_t n = 0; n < F; n++) {
            double a = biases ? bg.h[n] : 0, b = biases ? bu.h[n] : 0;
            for (int64_t k = 0; k < E; k++) {
                float v = x.h[t * E + k];
                if (half) v = round_bf16(v);
                a += (double)v * g.h[n * E + k];
                b += (double)v * u.h[n * E + k];
            }
            h[n] = activation_of(a, f) * b;
        }
        for (int64_t n = 0; n < E; n++) {
            double sum = y.h[t * E + n] + (biases ? bd.h[n] : 0);
            for (int64_t k = 0; k < F; k++) sum += h[k] * d.h[n * F + k];
            double off = fabs(got[t * E + n] - sum);
            if (!(off <= worst)) worst = off;
        }
    }
    /* Hidden values of about 1, rounded to 8 bits a few times, then summed with weights of norm 1. */
    double bound = half ? 4e-2 : 1e-5;
    char what[128];
    snprintf(what, sizeof what, "%s gated, off by %.3g", m->name, worst);
    expect(worst <= bound, "%s (M %lld E %lld F %lld)", what, M, E, F);
    free(got), free(h), cudaFree(hidden);
    drop(x), drop(y), drop(bg), drop(bu), drop(bd), drop(g), drop(u), drop(d);
}

/* ---- bits ------------------------------------------------------------------------------------ */

static bool same_rows(const float *few, const float *all, int64_t first, int64_t M, int64_t N)
{
    return memcmp(few, all + first * N, (size_t)(M * N) * 4) == 0;
}

static void check_rows(const mode *m, int64_t N, int64_t K)
{
    static const int64_t counts[] = {1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 128, 129, 500};
    enum { ALL = 500 };
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(ALL * K, 1), bias = random_vec(N, 1);
    mat w = random_mat(N, K, m->dtype, 1), w2 = random_mat(N + 3, K, m->dtype, 1);
    float *y = (float *)on_device(NULL, ALL * (N + 3) * 4),
          *y2 = (float *)on_device(NULL, ALL * (N + 3) * 4);
    need_ok(cuda_matmul(&ctx, y, x.d, ALL, &w.d, bias.d, false, &err), m->name);
    float *whole = to_host(y, ALL * N);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        for (int end = 0; end < 2; end++) {
            int64_t M = counts[i], first = end ? ALL - M : 0;
            cudaMemsetAsync(y, 0xFF, ALL * N * 4, device.stream);
            need_ok(cuda_matmul(&ctx, y, x.d + first * K, M, &w.d, bias.d, false, &err), m->name);
            float *few = to_host(y, M * N);
            expect(same_rows(few, whole, first, M, N),
                   "%s: rows differ in company of M %lld (N %lld K %lld)", m->name, M, N, K);
            free(few);
            /* With another matrix in front of it. */
            cudaMemsetAsync(y, 0xFF, ALL * N * 4, device.stream);
            ct_product list[] = {{y2, &w2.d, NULL}, {y, &w.d, bias.d}};
            need_ok(cuda_products(&ctx, list, 2, x.d + first * K, M, &err), m->name);
            few = to_host(y, M * N);
            expect(same_rows(few, whole, first, M, N),
                   "%s: products differ from matmul (M %lld N %lld K %lld)", m->name, M, N, K);
            free(few);
            /* Generation does without scratch. */
            if (m->stage != CT_STAGE_GENERATION) continue;
            ct_op_ctx bare = {NULL, 0, m->compute, m->stage, false, &device};
            cudaMemsetAsync(y, 0xFF, ALL * N * 4, device.stream);
            need_ok(cuda_matmul(&bare, y, x.d + first * K, M, &w.d, bias.d, false, &err), m->name);
            few = to_host(y, M * N);
            expect(same_rows(few, whole, first, M, N),
                   "%s: rows differ without scratch (M %lld N %lld K %lld)", m->name, M, N, K);
            free(few);
        }
    free(whole), cudaFree(y), cudaFree(y2);
    drop(x), drop(bias), drop(w), drop(w2);
}

/* Products of one another's results: kernels start before the one in front of them has ended, and must
 * not read what it has not written. */
static void check_chain(const mode *m, int64_t M, int64_t E, int64_t F)
{
    enum { LINKS = 24 };
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(M * E, 1);
    mat w = random_mat(E, E, m->dtype, 1.7f / sqrtf((float)E));
    mat g = random_mat(F, E, m->dtype, 1.5f / sqrtf((float)E)),
        u = random_mat(F, E, m->dtype, 1.5f / sqrtf((float)E)),
        d = random_mat(E, F, m->dtype, 1 / sqrtf((float)F));
    ct_mlp mlp = {CT_SILU, g.d, u.d, d.d, NULL, NULL, NULL};
    float *y[2] = {(float *)on_device(NULL, (size_t)(M * E) * 4),
                   (float *)on_device(NULL, (size_t)(M * E) * 4)};
    float *hidden = (float *)on_device(NULL, (size_t)((M + 31) / 32 * 32) * F * 8);
    float *slow = NULL;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < LINKS; i++) {
            const float *from = i ? y[1 - i % 2] : x.d;
            need_ok(cuda_matmul(&ctx, y[i % 2], from, M, &w.d, NULL, false, &err), m->name);
            if (round == 0) wait_for_device("a link");
            need_ok(cuda_gated_mlp(&ctx, y[i % 2], y[i % 2], M, &mlp, hidden, &err), m->name);
            if (round == 0) wait_for_device("a link");
        }
        float *got = to_host(y[(LINKS - 1) % 2], M * E);
        if (!slow) {
            slow = got;
            double size = 0;
            for (int64_t i = 0; i < M * E; i++) size += fabs(got[i]);
            size /= (double)(M * E);
            expect(size > 1e-4 && size < 1e6, "%s: a chain's values are of no use (M %lld E %lld)",
                   m->name, M, E, F);
            continue;
        }
        expect(same_rows(got, slow, 0, M, E), "%s: a chain differs without waits (M %lld E %lld)",
               m->name, M, E, F);
        free(got);
    }
    free(slow), cudaFree(y[0]), cudaFree(y[1]), cudaFree(hidden);
    drop(x), drop(w), drop(g), drop(u), drop(d);
}

/* Rows of a feed-forward, and that it has the bits of its parts where it says so. */
static void check_mlp_rows(const mode *m, int64_t E, int64_t F)
{
    static const int64_t counts[] = {1, 7, 8, 9, 17, 33, 65, 129, 200};
    enum { ALL = 200 };
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(ALL * E, 1), bias = random_vec(F, 1);
    float we = 1 / sqrtf((float)E), wf = 1 / sqrtf((float)F);
    mat g = random_mat(F, E, m->dtype, we), u = random_mat(F, E, m->dtype, we),
        d = random_mat(E, F, m->dtype, wf);
    ct_mlp mlp = {CT_GELU, g.d, u.d, d.d, bias.d, NULL, NULL};
    float *y = (float *)on_device(NULL, ALL * E * 4);
    float *hidden = (float *)on_device(NULL, (size_t)224 * F * 8);
    float *whole = NULL;
    for (int i = sizeof counts / sizeof *counts - 1; i >= 0; i--) {
        int64_t M = counts[i], first = ALL - M;
        cudaMemsetAsync(y, 0, ALL * E * 4, device.stream);
        need_ok(cuda_gated_mlp(&ctx, y, x.d + first * E, M, &mlp, hidden, &err), m->name);
        float *few = to_host(y, M * E);
        if (!whole) whole = few;
        else {
            expect(same_rows(few, whole, first, M, E),
                   "%s: gated rows differ in company of M %lld (E %lld F %lld)", m->name, M, E, F);
            free(few);
        }
    }
    free(whole), cudaFree(y), cudaFree(hidden);
    drop(x), drop(bias), drop(g), drop(u), drop(d);
}

/* ---- logits ---------------------------------------------------------------------------------- */

static void check_logits(const mode *m, int64_t n, int64_t V, int64_t E, float cap, bool recorded)
{
    ct_op_ctx ctx = ctx_of(m);
    vec x = random_vec(n * E, 1);
    mat head = random_mat(V, E, m->dtype, 1);
    /* A row that is no number from its start. */
    if (n > 2) need(cudaMemsetAsync(x.d + 2 * E, 0xFF, 4, device.stream), "a NaN");
    float *y = (float *)on_device(NULL, (size_t)(n * V) * 4);
    float **rows = (float **)calloc((size_t)n, sizeof *rows);
    int32_t **ids = (int32_t **)calloc((size_t)n, sizeof *ids),
            *id = (int32_t *)calloc((size_t)n, 4);
    for (int64_t i = 0; i < n; i++) {
        ids[i] = &id[i];
        if (i % 3 == 1) rows[i] = (float *)malloc((size_t)V * 4);
    }
    ct_logits_args args = {x.d, n, head.d, cap, rows, ids};
    need_ok(cuda_matmul(&ctx, y, x.d, n, &head.d, NULL, false, &err), m->name);
    float *plain = to_host(y, n * V);
    need_ok(cuda_logits_reserve(&device, n, n, V, &err), "reserve");
    cudaGraph_t graph;
    cudaGraphExec_t exec = NULL;
    if (recorded) {
        need(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capture");
        need_ok(cuda_logits(&ctx, &args, &err), "recording logits");
        need(cudaStreamEndCapture(device.stream, &graph), "end of capture");
        need(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    }
    for (int round = 0; round < 2; round++) {
        /* The second round wants other rows whole. */
        if (round == 1 && n > 1) {
            float *moved = rows[1];
            rows[1] = NULL;
            rows[0] = moved;
        }
        memset(id, 0x55, (size_t)n * 4);
        need_ok(cuda_logits_targets(&device, &args, &err), "targets");
        if (recorded) need(cudaGraphLaunch(exec, device.stream), "replay");
        else need_ok(cuda_logits(&ctx, &args, &err), "logits");
        wait_for_device("logits");
        cuda_logits_finish(&device);
        for (int64_t i = 0; i < n; i++) {
            int64_t best = 0, nan = -1;
            double best_value = -INFINITY, worst = 0;
            for (int64_t j = 0; j < V; j++) {
                float v = plain[i * V + j];
                double c = cap > 0 ? cap * tanh((double)v / cap) : v;
                if (isnan(v) && nan < 0) nan = j;
                if (c > best_value) best_value = c, best = j;
                if (rows[i] && !isnan(v) && !(fabs(rows[i][j] - c) <= worst))
                    worst = fabs(rows[i][j] - c);
                if (rows[i] && isnan(v) != isnan(rows[i][j])) worst = INFINITY;
            }
            if (rows[i]) {
                expect(worst <= 2e-6 * (cap > 0 ? cap : 1),
                       "%s: logits of row %lld are off (V %lld, round %lld)", m->name, i, V, round);
                continue;
            }
            /* Values that the cap makes equal in f32 may name an earlier id than double does. */
            bool ok = nan >= 0
                          ? id[i] == -1 - nan
                          : id[i] >= 0 && id[i] < V &&
                                (id[i] == best ||
                                 (cap > 0 && best_value - cap * tanh(plain[i * V + id[i]] / cap) <
                                                 4e-6 * cap));
            expect(ok, "%s: greedy id of row %lld is %lld, expected %lld", m->name, i, id[i],
                   nan >= 0 ? -1 - nan : best);
        }
    }
    if (exec) cudaGraphExecDestroy(exec), cudaGraphDestroy(graph);
    for (int64_t i = 0; i < n; i++) free(rows[i]);
    free(rows), free(ids), free(id), free(plain), cudaFree(y);
    drop(x), drop(head);
}

static void check_all(void)
{
    static const int64_t odd[] = {1, 7, 63, 65, 100};
    static const int64_t pairs[][2] = {{72, 2560},  {200, 1032}, {2560, 328},
                                       {136, 4104}, {16, 4096},  {96, 7680}};
    for (int m = 0; m < MODES; m++) {
        for (int a = 0; a < 5; a++)
            for (int b = 0; b < 5; b++)
                for (int c = 0; c < 5; c++)
                    check_product(&modes[m], odd[a], odd[b], odd[c], (a + b + c) % 2,
                                  (a + c) % 3 == 0);
        for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++)
            for (int v = 0; v < 4; v++) {
                check_product(&modes[m], 1 + 8 * v, pairs[p][0], pairs[p][1], v & 1, v & 2);
                check_product(&modes[m], 37 + 31 * v, pairs[p][0], pairs[p][1], v & 1, v & 2);
            }
        printf("%s: products done, %d checks, %d failures\n", modes[m].name, checks, failures);
        for (int f = 0; f < 2; f++) {
            ct_activation activation = f ? CT_SILU : CT_GELU;
            check_mlp(&modes[m], 1, 64, 128, activation, f);
            check_mlp(&modes[m], 7, 65, 100, activation, !f);
            check_mlp(&modes[m], 70, 328, 520, activation, f);
            check_mlp(&modes[m], 9, 256, 2056, activation, true);
        }
        static const int64_t shapes[][2] = {{2560, 2560}, {2560, 7680}, {320, 1000},
                                            {65, 100},    {16, 4096},   {4096, 1024}};
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            check_rows(&modes[m], shapes[s][0], shapes[s][1]);
        check_mlp_rows(&modes[m], 640, 1920);
        check_mlp_rows(&modes[m], 100, 63);
        if (m == 3)
            for (int i = 0; i < 6; i++) {
                static const int64_t counts[] = {1, 9, 24, 64, 100, 200};
                check_rows(&modes[m], 256, 12288 - i * 8);
                check_rows(&modes[m], 512 - i, 8192); /* cut into other parts than the one beside it */
                check_chain(&modes[m], counts[i], 2560, 1024);
                check_chain(&modes[m], counts[i], 328, 520);
            }
        for (int recorded = 0; recorded < 2; recorded++) {
            check_logits(&modes[m], 1, 5000, 64, 0, recorded);
            check_logits(&modes[m], 9, 32000, 128, 30, recorded);
            check_logits(&modes[m], 200, 777, 100, 30, recorded);
        }
        printf("%s: all done, %d checks, %d failures\n", modes[m].name, checks, failures);
    }
}

/* ---- speed ----------------------------------------------------------------------------------- */

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

/* Decode as a pass does it: launches one after another in a graph, each with other weights. */
static double decode_us(int64_t M, int64_t N, int64_t K, const char *weights, size_t room, float *x,
                        float *y)
{
    ct_op_ctx ctx = ctx_of(&modes[3]);
    size_t bytes = (size_t)(N * K) * 2;
    int copies = (int)(room / bytes), launches = copies < 24 ? copies : 24;
    if (launches < 2) launches = 2;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    cudaEvent_t a, b;
    cudaEventCreate(&a), cudaEventCreate(&b);
    need(cudaStreamBeginCapture(device.stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < launches; i++) {
        ct_matrix w = {weights + (size_t)(i % copies) * bytes, CT_BF16, N, K};
        need_ok(cuda_matmul(&ctx, y, x, M, &w, NULL, false, &err), "decode");
    }
    need(cudaStreamEndCapture(device.stream, &graph), "end of capture");
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

/* The whole feed-forward of a layer. */
static double mlp_us(ct_stage stage, int64_t M, int64_t E, int64_t F, const char *weights,
                     size_t room, float *x, float *y, float *hidden)
{
    mode m = {"gated", CT_COMPUTE_BF16, stage, CT_BF16};
    ct_op_ctx ctx = ctx_of(&m);
    size_t bytes = (size_t)(E * F) * 2;
    int copies = (int)(room / (3 * bytes)), n = copies < 8 ? copies : 8;
    cudaEvent_t a, b;
    cudaEventCreate(&a), cudaEventCreate(&b);
    cudaGraph_t graph;
    cudaGraphExec_t exec;
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
    need(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    float best = 1e9f;
    for (int i = 0; i < 6; i++) {
        cudaEventRecord(a, device.stream);
        need(cudaGraphLaunch(exec, device.stream), "replay");
        cudaEventRecord(b, device.stream);
        float ms = elapsed_ms(a, b);
        if (i > 1 && ms < best) best = ms;
    }
    cudaGraphExecDestroy(exec), cudaGraphDestroy(graph), cudaEventDestroy(a), cudaEventDestroy(b);
    return best * 1e3 / n;
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

static void time_all(bool generation_only)
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

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was found before a hang is seen */
    cudaDeviceProp prop;
    need(cudaGetDeviceProperties(&prop, 0), "a GPU");
    device.processors = prop.multiProcessorCount;
    need(cudaStreamCreateWithFlags(&device.stream, cudaStreamNonBlocking), "stream");
    need(cudaMalloc(&device.lt_workspace, LT_WORKSPACE), "workspace");
    need(cudaMalloc((void **)&scratch, SCRATCH), "scratch");
    if (cublasLtCreate(&device.lt)) return printf("FAILED cublasLtCreate\n"), 1;
    printf("%s, %d processors\n", prop.name, prop.multiProcessorCount);
    if (argc < 2 || !strcmp(argv[1], "check")) check_all();
    if (argc < 2 || !strncmp(argv[1], "time", 4))
        time_all(argc > 1 && !strcmp(argv[1], "time-generation"));
    wait_for_device("the end");
    gemm_plans_free(device.plans);
    printf("%d checks, %d failures\n", checks, failures);
    return failures != 0;
}
