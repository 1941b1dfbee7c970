/* gemm_check.cuh - what gemm_check.cu and gemm_time.cu share: the device, random vectors and matrices on both
 * sides, and the ways in which products are asked for. */
#ifndef CT_TESTS_GPU_GEMM_CHECK_CUH
#define CT_TESTS_GPU_GEMM_CHECK_CUH

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "op/cuda/gemm.cuh"

inline ct_device device;
inline ct_err err;
inline char *scratch;
inline const size_t SCRATCH = (size_t)256 << 20;
inline int failures, checks;

inline void need(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return;
    printf("FAILED %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

inline void need_ok(ct_status st, const char *what)
{
    if (st == CT_OK && device.failed == cudaSuccess) return;
    printf("FAILED %s: %s\n", what, st != CT_OK ? err.text : cudaGetErrorString(device.failed));
    if (device.failed != cudaSuccess) printf("  at %s\n", device.failed_at);
    exit(1);
}

inline void wait_for_device(const char *what)
{
    need_ok(CT_OK, what);
    need(cudaStreamSynchronize(device.stream), what);
}

inline void expect(bool ok, const char *fmt, const char *name, long long a, long long b,
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

inline uint64_t seed = 1;
inline float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)((seed >> 40) / 8388608.0 - 1.0);
}

inline uint16_t bf16_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

inline float round_bf16(float x)
{
    uint32_t u = (uint32_t)bf16_bits(x) << 16;
    memcpy(&x, &u, 4);
    return x;
}

inline void *on_device(const void *host, size_t bytes)
{
    void *p;
    need(cudaMalloc(&p, bytes + 16), "cudaMalloc");
    if (host) need(cudaMemcpy(p, host, bytes, cudaMemcpyHostToDevice), "upload");
    need(cudaDeviceSynchronize(),
         "upload"); /* the device's stream does not wait for the default one */
    return p;
}

inline float *to_host(const float *p, int64_t count)
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
inline vec random_vec(int64_t count, float scale)
{
    vec v;
    v.h = (float *)malloc((size_t)count * 4 + 4);
    for (int64_t i = 0; i < count; i++) v.h[i] = uniform() * scale;
    v.d = (float *)on_device(v.h, (size_t)count * 4);
    return v;
}
inline void drop(vec v)
{
    free(v.h);
    cudaFree(v.d);
}

/* A matrix in its type on the device, and what it holds, widened, on the host. */
struct mat {
    float *h;
    ct_matrix d;
};
inline mat random_mat(int64_t rows, int64_t cols, ct_dtype dtype, float scale)
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
inline void drop(mat m)
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
inline const mode modes[] = {
    {"f32 of f32", CT_COMPUTE_F32, CT_STAGE_PREFILL, CT_F32},
    {"f32 of bf16", CT_COMPUTE_F32, CT_STAGE_GENERATION, CT_BF16},
    {"f32 of f16", CT_COMPUTE_F32, CT_STAGE_PREFILL, CT_F16},
    {"bf16 generation", CT_COMPUTE_BF16, CT_STAGE_GENERATION, CT_BF16},
    {"bf16 prefill", CT_COMPUTE_BF16, CT_STAGE_PREFILL, CT_BF16},
};
enum { MODES = sizeof modes / sizeof *modes };

inline ct_op_ctx ctx_of(const mode *m)
{
    ct_op_ctx ctx = {scratch, SCRATCH, m->compute, m->stage, false, &device};
    return ctx;
}

/* gemm_time.cu */
void time_all(bool generation_only);

#endif
