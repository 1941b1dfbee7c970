/* cpu.c - chooses the table for this machine. */
#include "op/cpu/cpu.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

size_t ct_attn_scratch_floats(int64_t head_dim)
{
    enum { LANES = 16, SUMS = 5 * LANES }; /* of the widest vectors; pair_sums is 5 of them */
    size_t dim = (size_t)(head_dim + LANES - 1) / LANES * LANES;
    /* sums, q, score, value of the pairs; a block's keys and values, turned, padded or rounded */
    return CT_ATTN_TILE * (SUMS + dim + CT_KV_BLOCK + dim) + 2 * CT_KV_BLOCK * dim;
}

size_t ct_cpu_scratch_bytes(const ct_op_sizes *sizes)
{
    size_t scores = (size_t)sizes->heads * sizeof(float); /* of keep_heads */
    size_t threads = (size_t)omp_get_max_threads();
    size_t attention = threads * ct_attn_scratch_floats(sizes->head_dim) * sizeof(float) + 64;
    /* Activations packed (as f32, or rounded to bf16 in tiles of 32 x 32), and each thread's room. */
    size_t product = (size_t)(sizes->tokens + 31) * (size_t)(sizes->max_cols + 31) * sizeof(float) +
                     threads * CT_PACKED_FLOATS * sizeof(float) + 64;
    size_t most = attention > product ? attention : product;
    return most > scores ? most : scores;
}

int ct_ops_cpu_all(const ct_ops *out[4])
{
    int count = 0;
    out[count++] = ct_ops_cpu_generic();
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("f16c"))
        out[count++] = ct_ops_cpu_avx2();
    if (count == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        out[count++] = ct_ops_cpu_avx512();
    if (count == 3 && ct_amx_usable()) out[count++] = ct_ops_cpu_amx();
#endif
    return count;
}

const ct_ops *ct_ops_cpu(void)
{
    const ct_ops *all[4];
    int count = ct_ops_cpu_all(all);
    const char *limit = getenv("CORTADO_MAX_ISA");
    for (int i = 0; limit && i < count; i++)
        if (strcmp(all[i]->class_name(NULL) + strlen("cpu-"), limit) == 0) return all[i];
    return all[count - 1];
}
