/* dtype.c - the three element types: sizes, names, and exact conversions.
 *
 * Scalar and slow on purpose: the definition that the vector loads of op/cpu are tested against.
 */
#include <string.h>

#include "base/err.h"
#include "op/op.h"

size_t ct_dtype_bytes(ct_dtype dtype)
{
    return dtype == CT_F32 ? 4 : 2;
}

const char *ct_dtype_name(ct_dtype dtype)
{
    switch (dtype) {
    case CT_F32:
        return "f32";
    case CT_F16:
        return "f16";
    case CT_BF16:
        return "bf16";
    }
    return "unknown";
}

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t to_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31, mantissa = half & 0x3FF;
    if (exponent == 31) return from_bits(sign | 0x7F800000 | mantissa << 13);
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24, exact in f32 */
        float x = (float)mantissa * 0x1p-24f;
        return sign ? -x : x;
    }
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

float ct_dtype_get(const void *data, ct_dtype dtype, int64_t i)
{
    /* Elements in a mapped file need not be aligned to their size. */
    const char *at = (const char *)data + i * (int64_t)ct_dtype_bytes(dtype);
    if (dtype == CT_F32) {
        float x;
        memcpy(&x, at, sizeof x);
        return x;
    }
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return dtype == CT_F16 ? f16_to_f32(bits) : from_bits((uint32_t)bits << 16);
}

uint16_t ct_f32_to_bf16(float x)
{
    uint32_t bits = to_bits(x);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40); /* stays a NaN */
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

uint16_t ct_f32_to_f16(float x)
{
    uint32_t bits = to_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00);  /* NaN */
    if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* rounds to 65536 or beyond */
    if (magnitude < 0x38800000) {
        /* Below 2^-14 the result is a multiple of 2^-24: adding 1/2 lets the FPU round to it. */
        uint32_t sum = to_bits(from_bits(magnitude) + 0.5f);
        return (uint16_t)(sign | (sum - to_bits(0.5f)));
    }
    return (uint16_t)(sign | (magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13);
}
