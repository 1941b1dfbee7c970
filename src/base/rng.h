/* rng.h - a counter-based random generator: no state, any element at once, in any order.
 *
 * Owns the mapping (seed, stream, counter) -> bits. Used for random head selection, sampling,
 * random weights and bootstrap resampling; bit-equal on every backend because it is integer only.
 */
#ifndef CT_BASE_RNG_H
#define CT_BASE_RNG_H

#include <stdint.h>

#ifdef __CUDACC__ /* the same function in a kernel */
#define CT_RNG_FN static inline __host__ __device__
#else
#define CT_RNG_FN static inline
#endif

/* One round of the splitmix64 finaliser (Steele, Lea, Flood 2014: "Fast splittable PRNGs"). */
CT_RNG_FN uint64_t ct_rng_mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

/* 64 random bits for element `counter` of `stream` under `seed`. */
CT_RNG_FN uint64_t ct_rng_u64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return ct_rng_mix(counter ^ ct_rng_mix(stream ^ ct_rng_mix(seed)));
}

/* Uniform in [0, 1) with 24 bits: exactly representable in f32. */
CT_RNG_FN float ct_rng_f32(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (float)(ct_rng_u64(seed, stream, counter) >> 40) * 0x1p-24f;
}

/* Uniform in [0, 1) with 53 bits. */
CT_RNG_FN double ct_rng_f64(uint64_t seed, uint64_t stream, uint64_t counter)
{
    return (double)(ct_rng_u64(seed, stream, counter) >> 11) * 0x1p-53;
}

/* Uniform in [offset - scale, offset + scale), on a grid of 2^24: element `counter` of a random tensor.
 * In double, 2u - 1 and its product with an f32 are exact, so one sum and one rounding to f32 remain,
 * and a compiler that fuses them changes nothing. */
CT_RNG_FN float ct_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter, float scale,
                               float offset)
{
    double unit = 2.0 * (double)ct_rng_f32(seed, stream, counter) - 1.0;
    return (float)((double)offset + (double)scale * unit);
}

#endif
