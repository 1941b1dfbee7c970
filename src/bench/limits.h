/* limits.h - what this machine can do at most, measured: the yardstick of every share in a bench. */
#ifndef CT_BENCH_LIMITS_H
#define CT_BENCH_LIMITS_H

#include <stdint.h>

#include <cortado/status.h>

enum { CT_LIMIT_RUNS = 5 }; /* each limit is the best of so many runs of about 50 ms */

typedef struct ct_limits {
    char cpu[128], system[160]; /* the CPU's and the kernel's names */
    char class_name[64];        /* of the kernels that run here: "cpu-amx" */
    int cores, threads;         /* cores that this process may use; threads that were measured */
    int64_t memory_bytes;
    double read_gb_s_one, read_gb_s; /* reading memory in order: one thread, all threads */
    double f32_gflop_s;              /* fused multiply-adds in registers, all threads */
    double bf16_gflop_s; /* products of bf16 tiles in registers, all threads; 0: no such unit */
    /* A device with memory of its own: class_name, memory_bytes and rates are the device's. */
    char device[128]; /* its name; "": the CPU is measured */
    double copy_gb_s; /* bytes read and written */
} ct_limits;

/* Measures the device (as in ct_model_options): the CPU with so many threads (0: all cores), or another
 * device. Takes about a second and, for that time, up to 1 GiB of memory (a quarter of what is free, if
 * that is less), or 4 GiB of the device's. */
ct_status ct_limits_measure(const char *device, int threads, ct_limits *out, ct_err *err) CT_CHECK;

#endif
