/* vec.h - one vector type `vf` of VL floats, and the functions that the kernels are written in.
 *
 * Included by each cpu_<isa>.c, which is compiled for its instruction set: VL is 16 with AVX-512, 8
 * with AVX2, 4 otherwise. Everything is inline and static, so that the copies never meet. These
 * files are compiled with -ffp-contract=off: a product and a sum are fused where v_fma says so and
 * nowhere else, so that one equation gives the same bits wherever it is inlined.
 */
#ifndef CT_OP_CPU_VEC_H
#define CT_OP_CPU_VEC_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "op/op.h"

#if defined(__AVX512F__)
#define VL 16
#elif defined(__AVX2__)
#define VL 8
#else
#define VL 4
#endif

typedef float vf __attribute__((vector_size(VL * 4)));
typedef int32_t vi __attribute__((vector_size(VL * 4)));
typedef uint32_t vu __attribute__((vector_size(VL * 4)));
typedef uint16_t vh __attribute__((vector_size(VL * 2)));

#define CT_INLINE static inline __attribute__((always_inline, unused))
/* Before a loop over registers: an array of vectors is in registers only if it is unrolled. */
#define CT_UNROLL _Pragma("GCC unroll 16")

CT_INLINE int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- loads and stores; any alignment --------------------------------------------------------- */

CT_INLINE vf v_load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

CT_INLINE void v_store(float *p, vf v)
{
    memcpy(p, &v, sizeof v);
}

/* The first n lanes (0 < n <= VL), the rest 0. */
CT_INLINE vf v_load_part(const float *p, int64_t n)
{
    if (n >= VL) return v_load(p);
#if VL == 16
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
#endif
}

CT_INLINE void v_store_part(float *p, vf v, int64_t n)
{
    if (n >= VL) v_store(p, v);
#if VL == 16
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    else memcpy(p, &v, (size_t)n * sizeof *p);
#endif
}

CT_INLINE vf v_set1(float x)
{
#if VL == 16
    return (vf)_mm512_set1_ps(x);
#elif VL == 8
    return (vf)_mm256_set1_ps(x);
#else
    return (vf){x, x, x, x};
#endif
}

/* VL elements of a stored type at element i of data, widened. */
CT_INLINE vf v_load_as(const void *data, ct_dtype dtype, int64_t i)
{
    if (dtype == CT_F32) {
        vf v;
        memcpy(&v, (const char *)data + i * 4, sizeof v);
        return v;
    }
    vh half;
    memcpy(&half, (const char *)data + i * 2, sizeof half);
#if VL == 16 /* GCC 12 makes two halves of a conversion of 16 lanes */
    if (dtype == CT_BF16) return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)half), 16);
#endif
    if (dtype == CT_BF16) return (vf)(__builtin_convertvector(half, vu) << 16);
#if VL == 16
    return (vf)_mm512_cvtph_ps((__m256i)half);
#elif VL == 8
    return (vf)_mm256_cvtph_ps((__m128i)half);
#else
    vf v;
    for (int lane = 0; lane < VL; lane++) v[lane] = ct_dtype_get(data, dtype, i + lane);
    return v;
#endif
}

/* Same for the first n lanes, the rest 0. */
CT_INLINE vf v_load_part_as(const void *data, ct_dtype dtype, int64_t i, int64_t n)
{
    if (n >= VL) return v_load_as(data, dtype, i);
    char room[VL * 4] = {0};
    size_t size = dtype == CT_F32 ? 4 : 2;
    memcpy(room, (const char *)data + (size_t)i * size, (size_t)n * size);
    return v_load_as(room, dtype, 0);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

/* a * b + c, rounded once where the instruction set can. */
CT_INLINE vf v_fma(vf a, vf b, vf c)
{
#if VL == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif VL == 8
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* b where a or b is a NaN, so put what may be one second. */
CT_INLINE vf v_max(vf a, vf b)
{
#if VL == 16
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif VL == 8
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    vi greater = a > b;
    return (vf)(((vi)a & greater) | ((vi)b & ~greater));
#endif
}

CT_INLINE vf v_min(vf a, vf b)
{
    return -v_max(-a, -b);
}

CT_INLINE vf v_sqrt(vf a)
{
#if VL == 16
    return (vf)_mm512_sqrt_ps((__m512)a);
#elif VL == 8
    return (vf)_mm256_sqrt_ps((__m256)a);
#else
    for (int lane = 0; lane < VL; lane++) a[lane] = sqrtf(a[lane]);
    return a;
#endif
}

/* a where the mask's lane is all ones, 0 where it is 0. */
CT_INLINE vf v_keep(vi mask, vf a)
{
    return (vf)((vi)a & mask);
}

CT_INLINE vf v_select(vi mask, vf a, vf b)
{
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

/* Mask of lanes: bits 0 .. VL-1 of `bits`. */
CT_INLINE vi v_mask(uint32_t bits)
{
#if VL == 16
    const vi lane_bit = {1,      2,      4,       8,       16,      32,      64,      128,
                         1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
#elif VL == 8
    const vi lane_bit = {1, 2, 4, 8, 16, 32, 64, 128};
#else
    const vi lane_bit = {1, 2, 4, 8};
#endif
    vi all = (vi){0} + (int32_t)bits;
    return (all & lane_bit) != 0;
}

/* The reverse: a bit for each lane of a mask. */
CT_INLINE uint32_t v_bits(vi mask)
{
#if VL == 16
    return _mm512_movepi32_mask((__m512i)mask);
#elif VL == 8
    return (uint32_t)_mm256_movemask_ps((__m256)mask);
#else
    uint32_t bits = 0;
    for (int lane = 0; lane < VL; lane++) bits |= (uint32_t)(mask[lane] != 0) << lane;
    return bits;
#endif
}

/* Sums and maxima over lanes, halves added first: a fixed order. */
CT_INLINE float v_sum(vf v)
{
    float x[VL];
    v_store(x, v);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

CT_INLINE double v_sum_f64(vf v)
{
    double sum = 0;
    for (int lane = 0; lane < VL; lane++) sum += (double)v[lane];
    return sum;
}

CT_INLINE float v_max_lane(vf v)
{
#if VL == 16
    return _mm512_reduce_max_ps((__m512)v);
#else
    float max = v[0];
    for (int lane = 1; lane < VL; lane++) max = v[lane] > max ? v[lane] : max;
    return max;
#endif
}

/* x rounded to bf16 (nearest even) and widened again; a NaN stays one. */
CT_INLINE vf v_round_bf16(vf x)
{
    vu bits = (vu)x;
    vu rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u;
    vi number = x == x;
    return v_select(number, (vf)rounded, x);
}

/* ---- transcendental functions; relative error below 2e-7 ------------------------------------- */

/* e^r - 1 for |r| <= ln(2)/2: r + r^2 q(r), q fitted at Chebyshev nodes (relative error 1e-8). */
CT_INLINE vf v_expm1_poly(vf r)
{
    vf q = v_set1(0x1.6d4328p-10f);
    q = v_fma(q, r, v_set1(0x1.120b74p-7f));
    q = v_fma(q, r, v_set1(0x1.5554eap-5f));
    q = v_fma(q, r, v_set1(0x1.5554dcp-3f));
    q = v_fma(q, r, v_set1(0.5f));
    return v_fma(r * r, q, r);
}

/* x rounded to an integer as a float and, in *bits, in the low bits of an integer (|x| < 2^22). */
CT_INLINE vf v_round(vf x, vi *bits)
{
    const vf magic = v_set1(0x1.8p23f);
    vf shifted = x + magic;
    *bits = (vi)shifted - (vi)magic;
    return shifted - magic;
}

/* 2^n for an integer n in -126 .. 127. */
CT_INLINE vf v_pow2(vi n)
{
    return (vf)((n + 127) << 23);
}

/* 2^x for x <= 0; exactly 1 at 0, 0 from -126.5 down. With n the nearest integer and f = x - n:
 * 2^n 2^f, 2^f = 1 + f q(f), q fitted at Chebyshev nodes (relative error 1e-8). Adding the magic
 * number leaves n + 127, the exponent of 2^n, in the low bits; at -127 it is that of 0. */
CT_INLINE vf v_exp2_falling(vf x)
{
    const vf magic = v_set1(0x1.8p23f + 127);
    x = v_max(v_set1(-127), x);
    vf shifted = x + magic;
    vf f = x - (shifted - magic);
    vf q = v_set1(0x1.444004p-13f);
    q = v_fma(q, f, v_set1(0x1.5f0896p-10f));
    q = v_fma(q, f, v_set1(0x1.3b2a1cp-7f));
    q = v_fma(q, f, v_set1(0x1.c6af6cp-5f));
    q = v_fma(q, f, v_set1(0x1.ebfbe0p-3f));
    q = v_fma(q, f, v_set1(0x1.62e430p-1f));
    return v_fma(q, f, v_set1(1)) * (vf)((vi)shifted << 23);
}

/* e^x = 2^n e^r. */
CT_INLINE vf v_exp_reduce(vf x, vf *scale)
{
    vi n;
    vf k = v_round(x * 1.44269504088896f, &n);
    vf r = v_fma(k, v_set1(-0x1.62e4p-1f), x); /* ln 2 in two parts: k times the first is exact */
    r = v_fma(k, v_set1(-0x1.7f7d1cp-20f), r);
    *scale = v_pow2(n);
    return v_expm1_poly(r);
}

/* e^x; x is clamped to -87 .. 88. */
CT_INLINE vf v_exp(vf x)
{
    vf scale;
    vf p = v_exp_reduce(v_max(v_set1(-87), -v_max(v_set1(-88), -x)), &scale);
    return v_fma(p, scale, scale);
}

/* e^x - 1 without cancellation; x is clamped to -87 .. 88. */
CT_INLINE vf v_expm1(vf x)
{
    vf scale;
    vf p = v_exp_reduce(v_max(v_set1(-87), -v_max(v_set1(-88), -x)), &scale);
    return v_fma(p, scale, scale - 1.0f);
}

CT_INLINE vf v_sigmoid(vf x)
{
    return 1.0f / (1.0f + v_exp(-x));
}

/* gelu(v) = v sigmoid(2 u), the tanh form written with one exponential and no cancellation. */
CT_INLINE vf v_gelu(vf v)
{
    vf u = v * v_fma(v * v, v_set1(0.0713548162726f), v_set1(1.59576912160573f));
    return v * v_sigmoid(u);
}

CT_INLINE vf v_silu(vf v)
{
    return v * v_sigmoid(v);
}

CT_INLINE vf v_tanh(vf x)
{
    const vi sign_bit = (vi){0} + INT32_MIN;
    vi sign = (vi)x & sign_bit;
    vf magnitude = (vf)((vi)x & ~sign_bit);
    vf e = v_expm1(magnitude + magnitude);
    return (vf)((vi)(e / (e + 2.0f)) | sign);
}

/* log(1 + e^x) = max(x, 0) + log1p(e^-|x|); log1p(u) = 2 atanh(u / (2 + u)), whose argument is at
 * most 1/3: nine terms of the series leave 1e-10. */
CT_INLINE vf v_softplus(vf x)
{
    vf magnitude = (vf)((vi)x & INT32_MAX);
    vf u = v_exp(-magnitude);
    vf s = u / (u + 2.0f), s2 = s * s;
    vf sum = v_set1(1.0f / 17);
    for (int odd = 15; odd >= 1; odd -= 2) sum = v_fma(sum, s2, v_set1(1.0f / (float)odd));
    return v_fma(s + s, sum, v_max(v_set1(0), x));
}

/* Transposes VL vectors of VL lanes in place. */
CT_INLINE void v_transpose(vf r[VL])
{
#if VL == 16
    __m512 a[16], b[16];
    CT_UNROLL
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_ps((__m512)r[i], (__m512)r[i + 1]);
        a[i + 1] = _mm512_unpackhi_ps((__m512)r[i], (__m512)r[i + 1]);
    }
    CT_UNROLL
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_castpd_ps(
            _mm512_unpacklo_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
        b[i + 1] = _mm512_castpd_ps(
            _mm512_unpackhi_pd(_mm512_castps_pd(a[i]), _mm512_castps_pd(a[i + 2])));
        b[i + 2] = _mm512_castpd_ps(
            _mm512_unpacklo_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
        b[i + 3] = _mm512_castpd_ps(
            _mm512_unpackhi_pd(_mm512_castps_pd(a[i + 1]), _mm512_castps_pd(a[i + 3])));
    }
    CT_UNROLL
    for (int i = 0; i < 4; i++) { /* now 4 x 4 blocks of 128 bits: b[4 g + i] holds column i of g */
        __m512 lo01 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
        __m512 hi01 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xDD);
        __m512 lo23 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
        __m512 hi23 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xDD);
        r[i] = (vf)_mm512_shuffle_f32x4(lo01, lo23, 0x88);
        r[i + 4] = (vf)_mm512_shuffle_f32x4(hi01, hi23, 0x88);
        r[i + 8] = (vf)_mm512_shuffle_f32x4(lo01, lo23, 0xDD);
        r[i + 12] = (vf)_mm512_shuffle_f32x4(hi01, hi23, 0xDD);
    }
#elif VL == 8
    __m256 a[8], b[8];
    CT_UNROLL
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
    }
    CT_UNROLL
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
    }
    CT_UNROLL
    for (int i = 0; i < 4; i++) {
        r[i] = (vf)_mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        r[i + 4] = (vf)_mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
#else
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < i; j++) {
            float swap = r[i][j];
            r[i][j] = r[j][i];
            r[j][i] = swap;
        }
#endif
}

#endif
