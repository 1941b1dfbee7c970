/* others.c - processor time from /proc/stat and getrusage. See others.h. */
#include "bench/others.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"

static double seconds(const struct rusage *r)
{
    return (double)(r->ru_utime.tv_sec + r->ru_stime.tv_sec) +
           (double)(r->ru_utime.tv_usec + r->ru_stime.tv_usec) * 1e-6;
}

ct_usage ct_usage_now(void)
{
    /* user nice system idle iowait irq softirq steal, in ticks; what is stolen, others have */
    double t[8];
    FILE *file = fopen("/proc/stat", "r");
    int n = file ? fscanf(file, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &t[0], &t[1], &t[2], &t[3],
                          &t[4], &t[5], &t[6], &t[7])
                 : 0;
    if (file) fclose(file);
    struct rusage self, children;
    if (n != 8 || getrusage(RUSAGE_SELF, &self) || getrusage(RUSAGE_CHILDREN, &children))
        return (ct_usage){0};
    double busy = t[0] + t[1] + t[2] + t[5] + t[6] + t[7];
    return (ct_usage){busy / (double)sysconf(_SC_CLK_TCK), seconds(&self) + seconds(&children),
                      ct_now_ms() * 1e-3};
}

double ct_usage_of_others(const ct_usage *start)
{
    ct_usage now = ct_usage_now();
    double wall = now.wall_s - start->wall_s, cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
    if (start->wall_s == 0 || now.wall_s == 0 || wall <= 0) return 0;
    double others =
        (now.machine_s - start->machine_s - (now.own_s - start->own_s)) / (wall * cores);
    return others < 0 ? 0 : others > 1 ? 1 : others;
}
