/* cpu_avx512.c - the kernels of table.h, compiled for AVX-512 (F, BW, DQ, VL). */
#include "op/cpu/cpu.h"

#if defined(__AVX512F__)
#define CT_ISA avx512
#include "op/cpu/table.h"
#else
const ct_ops *ct_ops_cpu_avx512(void)
{
    return NULL;
}
#endif
