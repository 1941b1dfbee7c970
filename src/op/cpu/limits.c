/* limits.c - the loops of limits.h for the table that this machine runs. */
#include "op/cpu/limits.h"

#include <string.h>

#include "op/cpu/cpu.h"

ct_limit_loops ct_limit_loops_cpu(void)
{
    const char *name = ct_ops_cpu()->class_name(NULL);
#if defined(__x86_64__)
    if (strcmp(name, "cpu-avx2") == 0) return ct_limit_loops_avx2();
    if (strcmp(name, "cpu-avx512") == 0) return ct_limit_loops_avx512();
    if (strcmp(name, "cpu-amx") == 0) {
        ct_limit_loops loops = ct_limit_loops_avx512();
        loops.fma_bf16 = ct_limit_fma_amx;
        return loops;
    }
#endif
    (void)name;
    return ct_limit_loops_generic();
}
