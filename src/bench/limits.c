/* limits.c - times the loops of op/cpu/limits.h. */
#include "bench/limits.h"

#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/err.h"
#include "model/model.h"
#include "op/cpu/limits.h"
#include "op/op.h"

/* Best of CT_LIMIT_RUNS: other programs and a slow start only ever take away. */
static double best_read_gb_s(float (*read)(const float *, int64_t), const float *data,
                             int64_t floats, int threads)
{
    double best = 0;
    int64_t share = floats / threads / 1024 * 1024;
    for (int run = 0; run < CT_LIMIT_RUNS; run++) {
        double start = ct_now_ms();
        float sum = 0;
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : sum)
        for (int t = 0; t < threads; t++) sum += read(data + t * share, share);
        volatile float sink = sum;
        (void)sink;
        double rate = (double)(share * threads) * sizeof(float) / (ct_now_ms() - start) * 1e-6;
        best = rate > best ? rate : best;
    }
    return best;
}

static double best_gflop_s(double (*fma)(int64_t), int threads)
{
    double best = 0, ms = 0;
    int64_t rounds = 1000;
    for (int run = 0; run < CT_LIMIT_RUNS;) {
        double flops = 0, start = ct_now_ms();
#pragma omp parallel for num_threads(threads) schedule(static, 1) reduction(+ : flops)
        for (int t = 0; t < threads; t++) flops += fma(rounds);
        ms = ct_now_ms() - start;
        if (ms < 50) { /* still finding out how many rounds make 50 ms */
            rounds *= 2;
            continue;
        }
        best = flops / ms * 1e-6 > best ? flops / ms * 1e-6 : best;
        run++;
    }
    return best;
}

static void name_machine(ct_limits *out)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    snprintf(out->cpu, sizeof out->cpu, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        value += 1 + strspn(value + 1, " \t");
        snprintf(out->cpu, sizeof out->cpu, "%.*s", (int)strcspn(value, "\n"), value);
        break;
    }
    if (file) fclose(file);
    struct utsname name;
    if (uname(&name) == 0)
        snprintf(out->system, sizeof out->system, "%s %s", name.sysname, name.release);
}

static ct_status measure_device(const ct_ops *ops, int index, ct_limits *out, ct_err *err)
{
    ct_status st;
    ct_device *device = NULL;
    ct_device_limits found;
    CT_TRY(ops->open(index, &device, err));
    CT_TRY(ops->limits(device, &found, err));
    snprintf(out->device, sizeof out->device, "%s", found.name);
    snprintf(out->class_name, sizeof out->class_name, "%s", ops->class_name(device));
    out->memory_bytes = found.memory_bytes;
    out->read_gb_s = found.read_gb_s;
    out->copy_gb_s = found.copy_gb_s;
    out->f32_gflop_s = found.f32_gflop_s;
    out->bf16_gflop_s = found.bf16_gflop_s;
done:
    ops->close(device);
    return st;
}

ct_status ct_limits_measure(const char *device, int threads, ct_limits *out, ct_err *err)
{
    ct_device_choice choice; /* of several devices the first: they compute one after another */
    ct_status st = ct_device_choose(device, &choice, err);
    if (st != CT_OK) return st;
    *out = (ct_limits){.cores = omp_get_num_procs()};
    snprintf(out->class_name, sizeof out->class_name, "%s", ct_ops_cpu()->class_name(NULL));
    out->threads = threads > 0 ? threads : out->cores;
    name_machine(out);
    if (choice.ops->limits) return measure_device(choice.ops, choice.index[0], out, err);
    struct sysinfo info;
    if (sysinfo(&info) != 0) return ct_fail_errno(err, "sysinfo");
    out->memory_bytes = (int64_t)info.totalram * info.mem_unit;
    /* Far larger than any cache, of which some machines show 480 MiB. */
    size_t bytes = (size_t)info.freeram * info.mem_unit / 4 / 65536 * 65536;
    bytes = bytes < (size_t)1 << 30 ? bytes : (size_t)1 << 30;
    float *data =
        mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return ct_fail_memory(err, "bandwidth measurement", bytes);
    madvise(data, bytes, MADV_HUGEPAGE);
    memset(data, 1, bytes); /* pages that were never written would all be the one page of zeros */
    ct_limit_loops loops = ct_limit_loops_cpu();
    int64_t floats = (int64_t)(bytes / sizeof *data);
    out->read_gb_s_one = best_read_gb_s(loops.read, data, floats, 1);
    out->read_gb_s = best_read_gb_s(loops.read, data, floats, out->threads);
    munmap(data, bytes);
    out->f32_gflop_s = best_gflop_s(loops.fma_f32, out->threads);
    if (loops.fma_bf16) out->bf16_gflop_s = best_gflop_s(loops.fma_bf16, out->threads);
    return CT_OK;
}
