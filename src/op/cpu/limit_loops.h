/* limit_loops.h - the loops of limits.h in vectors. Part of cpu_<isa>.c, see vec.h. */
#ifndef CT_OP_CPU_LIMIT_LOOPS_H
#define CT_OP_CPU_LIMIT_LOOPS_H

#include "op/cpu/limits.h"
#include "op/cpu/vec.h"

static float limit_read(const float *data, int64_t count)
{
    enum { CHAINS = 8 };
    vf sum[CHAINS] = {{0}};
    for (int64_t i = 0; i < count; i += CHAINS * VL) {
        CT_UNROLL
        for (int c = 0; c < CHAINS; c++) sum[c] += v_load(data + i + c * VL);
    }
    CT_UNROLL
    for (int c = 1; c < CHAINS; c++) sum[0] += sum[c];
    return v_sum(sum[0]);
}

/* Latency 4, two units: 8 chains would do; 12 leave room and fit the 16 registers of AVX2. No term can
 * be left out: each is rounded, and the sums are used. */
static double limit_fma_f32(int64_t rounds)
{
    enum { CHAINS = 12 };
    vf sum[CHAINS], a = v_set1(0.999f), b = v_set1(0.001f);
    CT_UNROLL
    for (int c = 0; c < CHAINS; c++) sum[c] = v_set1((float)c);
    for (int64_t r = 0; r < rounds; r++) {
        CT_UNROLL
        for (int c = 0; c < CHAINS; c++) sum[c] = v_fma(sum[c], a, b);
    }
    CT_UNROLL
    for (int c = 1; c < CHAINS; c++) sum[0] += sum[c];
    volatile float sink = v_sum(sum[0]);
    (void)sink;
    return (double)rounds * CHAINS * VL * 2;
}

#endif
