/* wgmma.cuh - Hopper's warpgroup products, as far as attention, products and experts need them.
 *
 * Four warps multiply 64 rows at once; the right factor, and the left one unless it is in
 * registers, lie in shared memory in panels of 64 columns: [rows][64] bf16, rows of 128 bytes, in which the 16-byte unit
 * u of row r stands at u ^ (r % 8) ("128-byte swizzle"; panels begin at multiples of 1024 bytes). A
 * thread holds of an f32 result, for each 8 columns: columns 2c, 2c+1 of row 16w + g, then of row
 * 16w + g + 8, where w = warp, g = lane / 4, c = lane % 4. Two such groups of 8 columns, rounded to
 * bf16 and packed, are its part of a left factor of 16 columns.
 *
 * Products run on their own: between wgmma_begin and wgmma_end their registers are not touched.
 */
#ifndef CT_OP_CUDA_WGMMA_CUH
#define CT_OP_CUDA_WGMMA_CUH

#include <stdint.h>

/* The registers that products will read and write are settled. */
__device__ __forceinline__ void wgmma_begin()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* The results are in `d`; without naming it here the compiler might read it before the wait. */
template <int N> __device__ __forceinline__ void wgmma_end(float (&d)[N])
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* Where a factor lies: `panels` is the distance of panels where the columns are those of the result
 * (values), and is not read where columns are summed over (queries, keys). */
__device__ __forceinline__ uint64_t wgmma_place(uint32_t address, uint32_t panels)
{
    const uint64_t rows8 = 1024, swizzle128 = 1;
    return (uint64_t)((address & 0x3FFFF) >> 4) | (uint64_t)(panels >> 4) << 16 |
           (rows8 >> 4) << 32 | swizzle128 << 62;
}

/* The registers of a result, as operands and as names in a product's text. */
#define SUMS_4(m, d, i)   m(d[i]), m(d[i + 1]), m(d[i + 2]), m(d[i + 3])
#define SUMS_8(m, d, i)   SUMS_4(m, d, i), SUMS_4(m, d, i + 4)
#define SUMS_16(m, d, i)  SUMS_8(m, d, i), SUMS_8(m, d, i + 8)
#define SUMS_32(m, d, i)  SUMS_16(m, d, i), SUMS_16(m, d, i + 16)
#define SUMS_64(m, d, i)  SUMS_32(m, d, i), SUMS_32(m, d, i + 32)
#define SUMS_128(m, d, i) SUMS_64(m, d, i), SUMS_64(m, d, i + 64)
#define WRITTEN(x)        "=f"(x)
#define CHANGED(x)        "+f"(x)
#define NAMES_4           "%0, %1, %2, %3"
#define NAMES_8                                                                                    \
    NAMES_4                                                                                        \
    ", %4, %5, %6, %7"
#define NAMES_16                                                                                   \
    NAMES_8                                                                                        \
    ", %8, %9, %10, %11, %12, %13, %14, %15"
#define NAMES_32                                                                                   \
    NAMES_16                                                                                       \
    ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define NAMES_64                                                                                   \
    NAMES_32                                                                                       \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"             \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define NAMES_128                                                                                  \
    NAMES_64                                                                                       \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"             \
    ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"             \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
    "%127"
#define WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {"

/* d[64, N] = (add ? d : 0) + a[64, 16] b[N, 16]^T. */
#define MULTIPLY(n, sums, a_at, b_at, add_at)                                                      \
    static __device__ __forceinline__ void multiply(float(&d)[sums], uint64_t a, uint64_t b,       \
                                                    int add)                                       \
    {                                                                                              \
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %" #add_at ", 0;" WGMMA(n) NAMES_##sums       \
                     "}, %" #a_at ", %" #b_at ", p, 1, 1, 0, 0; }"                                 \
                     : SUMS_##sums(CHANGED, d, 0)                                                  \
                     : "l"(a), "l"(b), "r"(add));                                                  \
    }
MULTIPLY(8, 4, 4, 5, 6)
MULTIPLY(16, 8, 8, 9, 10)
MULTIPLY(32, 16, 16, 17, 18)
MULTIPLY(64, 32, 32, 33, 34)
MULTIPLY(128, 64, 64, 65, 66)
#undef MULTIPLY

/* d[64, 64] = a[64, 16] b[64, 16]^T; what d held is not read. */
static __device__ __forceinline__ void multiply_first(float (&d)[32], uint64_t a, uint64_t b)
{
    asm volatile("{ .reg .pred p; setp.ne.b32 p, 0, 0;" WGMMA(64) NAMES_32
                 "}, %32, %33, p, 1, 1, 0, 0; }"
                 : SUMS_32(WRITTEN, d, 0)
                 : "l"(a), "l"(b));
}

/* d[64, N] += a[64, 16] b[16, N], a in registers, b as stored: the N values of a key one after another. */
#define MULTIPLY_VALUES(n, sums, a0, a1, a2, a3, b_at)                                             \
    static __device__ __forceinline__ void multiply_values(float(&d)[sums], const uint32_t *a,     \
                                                           uint64_t b)                             \
    {                                                                                              \
        asm volatile(WGMMA(n) NAMES_##sums "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #b_at  \
                                           ", 1, 1, 1, 1;"                                         \
                     : SUMS_##sums(CHANGED, d, 0)                                                  \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                        \
    }
MULTIPLY_VALUES(64, 32, 32, 33, 34, 35, 36)
MULTIPLY_VALUES(128, 64, 64, 65, 66, 67, 68)
MULTIPLY_VALUES(256, 128, 128, 129, 130, 131, 132)
#undef MULTIPLY_VALUES

#endif
