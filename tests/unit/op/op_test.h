/* op_test.h - what the operation tests share: every table that this machine runs, random tensors,
 * comparisons, and a key-value cache in blocks.
 */
#ifndef CT_TESTS_OP_TEST_H
#define CT_TESTS_OP_TEST_H

#include "test.h"

#include <math.h>
#include <omp.h>

#include "base/rng.h"
#include "op/cpu/cpu.h"
#include "op/op.h"

/* Runs the body with `ops` set to each CPU table in turn; the failing one's name is printed. */
#define FOR_EACH_TABLE(ops)                                                                        \
    const ct_ops *all_tables_[4];                                                                  \
    for (int table_ = 0, tables_ = ct_ops_cpu_all(all_tables_); table_ < tables_; table_++)        \
        for (const ct_ops *ops = all_tables_[table_]; ops; ops = NULL)

/* Rows as the operations take them; for those that read neither ids nor runs. */
#define BATCH(segs_, states_, n_)                                                                  \
    (&(ct_batch){.n_segs = (n_), .segs = (segs_), .states = (states_)})

static inline void *room(size_t bytes)
{
    void *p = bytes < (size_t)1 << 40 ? malloc(bytes ? bytes : 1) : NULL;
    if (!p) abort();
    memset(p, 0xFF, bytes); /* floats of it are NaN: what is not written shows */
    return p;
}

static inline float *floats(int64_t count)
{
    return room((size_t)count * sizeof(float));
}

/* Uniform in [-size, size), the same for the same stream. */
static inline float *random_floats(int64_t count, float size, uint64_t stream)
{
    float *x = floats(count);
    for (int64_t i = 0; i < count; i++) x[i] = (2 * ct_rng_f32(7, stream, (uint64_t)i) - 1) * size;
    return x;
}

/* A matrix of the type; its data must be freed. Every value is representable in bf16, and so (at
 * these sizes) in f16: the same numbers in each type. */
static inline ct_matrix random_matrix(int64_t rows, int64_t cols, ct_dtype dtype, uint64_t stream)
{
    char *data = room((size_t)(rows * cols) * ct_dtype_bytes(dtype));
    for (int64_t i = 0; i < rows * cols; i++) {
        float x = ((float)(ct_rng_u64(9, stream, (uint64_t)i) % 255) - 127) / 128;
        uint16_t bf16 = ct_f32_to_bf16(x), f16 = ct_f32_to_f16(x);
        if (dtype == CT_F32) memcpy(data + i * 4, &x, 4);
        else memcpy(data + i * 2, dtype == CT_BF16 ? &bf16 : &f16, 2);
    }
    return (ct_matrix){data, dtype, rows, cols};
}

static inline void free_matrix(ct_matrix *w)
{
    free((void *)(uintptr_t)w->data);
}

static inline ct_op_ctx new_ctx(const ct_ops *ops, ct_compute compute, int64_t tokens, int64_t rows,
                                int64_t cols, int64_t heads, int64_t head_dim)
{
    const ct_op_sizes sizes = {
        .tokens = tokens, .max_rows = rows, .max_cols = cols, .heads = heads, .head_dim = head_dim};
    size_t size = ops->scratch_bytes(&sizes);
    return (ct_op_ctx){.scratch = room(size), .scratch_bytes = size, .compute = compute};
}

/* |got - want| <= absolute + relative |want|, for all. */
static inline void assert_close(const char *table, const char *what, const float *got,
                                const float *want, int64_t count, double absolute, double relative)
{
    for (int64_t i = 0; i < count; i++) {
        double bound = absolute + relative * fabs((double)want[i]);
        if (!(fabs((double)got[i] - (double)want[i]) <= bound))
            fail_msg("%s: %s[%lld]: expected %.9g, got %.9g (bound %.2g)", table, what,
                     (long long)i, (double)want[i], (double)got[i], bound);
    }
}

static inline void assert_same_bits(const char *table, const char *what, const void *got,
                                    const void *want, int64_t count)
{
    const uint32_t *a = got, *b = want;
    for (int64_t i = 0; i < count; i++)
        if (a[i] != b[i])
            fail_msg("%s: %s: element %lld of %lld has other bits: %08x, %08x", table, what,
                     (long long)i, (long long)count, a[i], b[i]);
}

#endif
