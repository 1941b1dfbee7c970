/* limits.h - loops that do nothing but reach what a machine can do at most.
 *
 * Owns no clock: src/bench/limits.c times them and says what it took of several. The loops are
 * compiled for each instruction set (limit_loops.h) and for the tile unit (limits_amx.c); limits.c
 * gives those of the table that ct_ops_cpu chooses.
 */
#ifndef CT_OP_CPU_LIMITS_H
#define CT_OP_CPU_LIMITS_H

#include <stdint.h>

typedef struct ct_limit_loops {
    /* Reads count floats (a multiple of 1,024) once, on the calling thread, and returns their sum, so
     * that no load can be left out. */
    float (*read)(const float *data, int64_t count);
    /* `rounds` rounds of independent multiply-adds in registers, on the calling thread; returns how
     * many floating-point operations they were (a multiply-add is two). */
    double (*fma_f32)(int64_t rounds);
    /* The same for products of bf16 tiles with f32 sums; NULL where there is no such unit. */
    double (*fma_bf16)(int64_t rounds);
} ct_limit_loops;

ct_limit_loops ct_limit_loops_cpu(void);

/* limit_loops.h, compiled for each instruction set. */
ct_limit_loops ct_limit_loops_generic(void);
ct_limit_loops ct_limit_loops_avx2(void);
ct_limit_loops ct_limit_loops_avx512(void);
/* limits_amx.c; usable where ct_amx_usable says so. */
double ct_limit_fma_amx(int64_t rounds);

#endif
