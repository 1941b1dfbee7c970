/* cpu_avx2.c - the kernels of table.h, compiled for AVX2 with FMA and F16C. */
#include "op/cpu/cpu.h"

#if defined(__AVX2__)
#define CT_ISA avx2
#include "op/cpu/table.h"
#else
const ct_ops *ct_ops_cpu_avx2(void)
{
    return NULL;
}
#endif
