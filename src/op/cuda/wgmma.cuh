/* wgmma.cuh - Hopper's warpgroup products, as far as attention needs them.
 *
 * Four warps multiply 64 rows at once; the right factor, and the left one of scores, lie in
 * shared memory in panels of 64 columns: [rows][64] bf16, rows of 128 bytes, in which the 16-byte unit
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

/* s[64, 64] = q[64, 16] k[64, 16]^T. */
__device__ __forceinline__ void wgmma_scores_first(float (&s)[32], uint64_t q, uint64_t k)
{
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, 0, 0;"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31"
        "}, %32, %33, add, 1, 1, 0, 0; }"
        : "=f"(s[0]), "=f"(s[1]), "=f"(s[2]), "=f"(s[3]),
          "=f"(s[4]), "=f"(s[5]), "=f"(s[6]), "=f"(s[7]),
          "=f"(s[8]), "=f"(s[9]), "=f"(s[10]), "=f"(s[11]),
          "=f"(s[12]), "=f"(s[13]), "=f"(s[14]), "=f"(s[15]),
          "=f"(s[16]), "=f"(s[17]), "=f"(s[18]), "=f"(s[19]),
          "=f"(s[20]), "=f"(s[21]), "=f"(s[22]), "=f"(s[23]),
          "=f"(s[24]), "=f"(s[25]), "=f"(s[26]), "=f"(s[27]),
          "=f"(s[28]), "=f"(s[29]), "=f"(s[30]), "=f"(s[31])
        : "l"(q), "l"(k));
}

/* s[64, 64] += q[64, 16] k[64, 16]^T. */
__device__ __forceinline__ void wgmma_scores(float (&s)[32], uint64_t q, uint64_t k)
{
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31"
        "}, %32, %33, 1, 1, 1, 0, 0;"
        : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]),
          "+f"(s[4]), "+f"(s[5]), "+f"(s[6]), "+f"(s[7]),
          "+f"(s[8]), "+f"(s[9]), "+f"(s[10]), "+f"(s[11]),
          "+f"(s[12]), "+f"(s[13]), "+f"(s[14]), "+f"(s[15]),
          "+f"(s[16]), "+f"(s[17]), "+f"(s[18]), "+f"(s[19]),
          "+f"(s[20]), "+f"(s[21]), "+f"(s[22]), "+f"(s[23]),
          "+f"(s[24]), "+f"(s[25]), "+f"(s[26]), "+f"(s[27]),
          "+f"(s[28]), "+f"(s[29]), "+f"(s[30]), "+f"(s[31])
        : "l"(q), "l"(k));
}

/* o[64, 64] += p[64, 16] v[16, 64], p in registers, v as stored: a key's values one after another. */
__device__ __forceinline__ void wgmma_values(float (&o)[32], const uint32_t *p, uint64_t v)
{
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31"
        "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
        : "+f"(o[0]), "+f"(o[1]), "+f"(o[2]), "+f"(o[3]),
          "+f"(o[4]), "+f"(o[5]), "+f"(o[6]), "+f"(o[7]),
          "+f"(o[8]), "+f"(o[9]), "+f"(o[10]), "+f"(o[11]),
          "+f"(o[12]), "+f"(o[13]), "+f"(o[14]), "+f"(o[15]),
          "+f"(o[16]), "+f"(o[17]), "+f"(o[18]), "+f"(o[19]),
          "+f"(o[20]), "+f"(o[21]), "+f"(o[22]), "+f"(o[23]),
          "+f"(o[24]), "+f"(o[25]), "+f"(o[26]), "+f"(o[27]),
          "+f"(o[28]), "+f"(o[29]), "+f"(o[30]), "+f"(o[31])
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}

/* o[64, 128] += p[64, 16] v[16, 128], p in registers, v as stored: a key's values one after another. */
__device__ __forceinline__ void wgmma_values(float (&o)[64], const uint32_t *p, uint64_t v)
{
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, "
        "%56, %57, %58, %59, %60, %61, %62, %63"
        "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
        : "+f"(o[0]), "+f"(o[1]), "+f"(o[2]), "+f"(o[3]),
          "+f"(o[4]), "+f"(o[5]), "+f"(o[6]), "+f"(o[7]),
          "+f"(o[8]), "+f"(o[9]), "+f"(o[10]), "+f"(o[11]),
          "+f"(o[12]), "+f"(o[13]), "+f"(o[14]), "+f"(o[15]),
          "+f"(o[16]), "+f"(o[17]), "+f"(o[18]), "+f"(o[19]),
          "+f"(o[20]), "+f"(o[21]), "+f"(o[22]), "+f"(o[23]),
          "+f"(o[24]), "+f"(o[25]), "+f"(o[26]), "+f"(o[27]),
          "+f"(o[28]), "+f"(o[29]), "+f"(o[30]), "+f"(o[31]),
          "+f"(o[32]), "+f"(o[33]), "+f"(o[34]), "+f"(o[35]),
          "+f"(o[36]), "+f"(o[37]), "+f"(o[38]), "+f"(o[39]),
          "+f"(o[40]), "+f"(o[41]), "+f"(o[42]), "+f"(o[43]),
          "+f"(o[44]), "+f"(o[45]), "+f"(o[46]), "+f"(o[47]),
          "+f"(o[48]), "+f"(o[49]), "+f"(o[50]), "+f"(o[51]),
          "+f"(o[52]), "+f"(o[53]), "+f"(o[54]), "+f"(o[55]),
          "+f"(o[56]), "+f"(o[57]), "+f"(o[58]), "+f"(o[59]),
          "+f"(o[60]), "+f"(o[61]), "+f"(o[62]), "+f"(o[63])
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}

/* o[64, 256] += p[64, 16] v[16, 256], p in registers, v as stored: a key's values one after another. */
__device__ __forceinline__ void wgmma_values(float (&o)[128], const uint32_t *p, uint64_t v)
{
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, "
        "%8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, "
        "%24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, "
        "%40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, "
        "%56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, "
        "%72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, "
        "%88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, "
        "%104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, "
        "%120, %121, %122, %123, %124, %125, %126, %127"
        "}, {%128, %129, %130, %131}, %132, 1, 1, 1, 1;"
        : "+f"(o[0]), "+f"(o[1]), "+f"(o[2]), "+f"(o[3]),
          "+f"(o[4]), "+f"(o[5]), "+f"(o[6]), "+f"(o[7]),
          "+f"(o[8]), "+f"(o[9]), "+f"(o[10]), "+f"(o[11]),
          "+f"(o[12]), "+f"(o[13]), "+f"(o[14]), "+f"(o[15]),
          "+f"(o[16]), "+f"(o[17]), "+f"(o[18]), "+f"(o[19]),
          "+f"(o[20]), "+f"(o[21]), "+f"(o[22]), "+f"(o[23]),
          "+f"(o[24]), "+f"(o[25]), "+f"(o[26]), "+f"(o[27]),
          "+f"(o[28]), "+f"(o[29]), "+f"(o[30]), "+f"(o[31]),
          "+f"(o[32]), "+f"(o[33]), "+f"(o[34]), "+f"(o[35]),
          "+f"(o[36]), "+f"(o[37]), "+f"(o[38]), "+f"(o[39]),
          "+f"(o[40]), "+f"(o[41]), "+f"(o[42]), "+f"(o[43]),
          "+f"(o[44]), "+f"(o[45]), "+f"(o[46]), "+f"(o[47]),
          "+f"(o[48]), "+f"(o[49]), "+f"(o[50]), "+f"(o[51]),
          "+f"(o[52]), "+f"(o[53]), "+f"(o[54]), "+f"(o[55]),
          "+f"(o[56]), "+f"(o[57]), "+f"(o[58]), "+f"(o[59]),
          "+f"(o[60]), "+f"(o[61]), "+f"(o[62]), "+f"(o[63]),
          "+f"(o[64]), "+f"(o[65]), "+f"(o[66]), "+f"(o[67]),
          "+f"(o[68]), "+f"(o[69]), "+f"(o[70]), "+f"(o[71]),
          "+f"(o[72]), "+f"(o[73]), "+f"(o[74]), "+f"(o[75]),
          "+f"(o[76]), "+f"(o[77]), "+f"(o[78]), "+f"(o[79]),
          "+f"(o[80]), "+f"(o[81]), "+f"(o[82]), "+f"(o[83]),
          "+f"(o[84]), "+f"(o[85]), "+f"(o[86]), "+f"(o[87]),
          "+f"(o[88]), "+f"(o[89]), "+f"(o[90]), "+f"(o[91]),
          "+f"(o[92]), "+f"(o[93]), "+f"(o[94]), "+f"(o[95]),
          "+f"(o[96]), "+f"(o[97]), "+f"(o[98]), "+f"(o[99]),
          "+f"(o[100]), "+f"(o[101]), "+f"(o[102]), "+f"(o[103]),
          "+f"(o[104]), "+f"(o[105]), "+f"(o[106]), "+f"(o[107]),
          "+f"(o[108]), "+f"(o[109]), "+f"(o[110]), "+f"(o[111]),
          "+f"(o[112]), "+f"(o[113]), "+f"(o[114]), "+f"(o[115]),
          "+f"(o[116]), "+f"(o[117]), "+f"(o[118]), "+f"(o[119]),
          "+f"(o[120]), "+f"(o[121]), "+f"(o[122]), "+f"(o[123]),
          "+f"(o[124]), "+f"(o[125]), "+f"(o[126]), "+f"(o[127])
        : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v));
}

#endif
